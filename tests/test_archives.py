"""Archives in every format, unpacked whole or not at all; and each one that is refused."""

import gzip
import io
import itertools
import json
import os
import random
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path

import py7zr
import pytest

from data_prep import archive_formats, archives
from data_prep.archives import find, unpack, unpacked
from data_prep.preparing import PreparationError

CONTENT = {"set/photo/crane (machine)/Ä b.jpg": b"photo " * 3000, "set/photo/bat/n0_1.jpg": b"bat",
           "set/list.txt": b"", "readme.md": b"# set\n"}
KINDS = {"zip": ".zip", "7z": ".7z", "tar": ".tar", "gz": ".tar.gz", "bz2": ".tar.bz2",
         "xz": ".tar.xz"}


def packed(folder: Path, kind: str, content=None, name: str = "set") -> Path:
    """An archive of this kind with these files."""
    content, file = CONTENT if content is None else content, folder / f"{name}{KINDS[kind]}"
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for place, data in content.items():
                archive.writestr(place, data)
    elif kind == "7z":
        with py7zr.SevenZipFile(file, "w") as archive:
            for place, data in content.items():
                archive.writestr(data, place)
    else:
        with tarfile.open(file, "w" if kind == "tar" else f"w:{kind}") as archive:
            for place, data in content.items():
                archive.addfile(entry(place, size=len(data)), io.BytesIO(data))
    return file


def entry(name: str, **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar(file: Path, *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(file, "w") as archive:
        for info in entries:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return file


def raw_name(info: tarfile.TarInfo, name: bytes) -> tarfile.TarInfo:
    info.name = name.decode("utf-8", "surrogateescape")
    return info


def there(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes()
            for f in sorted(folder.rglob("*")) if f.is_file()}


def left(into: Path) -> list[str]:
    """What lies beside an unpacked archive, but for the lock."""
    return sorted(f.name for f in into.iterdir() if f.name != ".lock")


def refused(archive: Path, told: str, **options) -> str:
    """Unpacks into a folder beside; checks the message and that nothing is left."""
    into = archive.parent / "into"
    with pytest.raises(PreparationError, match=told) as error:
        unpack(archive, into, progress=False, **options)
    assert left(into) == []
    assert str(archive) in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_unpacked_with_the_same_content(tmp_path, kind):
    folder = unpack(packed(tmp_path, kind), tmp_path / "into")
    assert folder == tmp_path / "into" / "set" and there(folder) == CONTENT


@pytest.mark.parametrize("kind", KINDS)
def test_the_content_decides_and_not_the_name(tmp_path, kind):
    file = packed(tmp_path / "raw", kind).rename(tmp_path / "raw" / "Rendered_256x256.bin")
    folders = unpacked(tmp_path / "raw", ["rendered_"], tmp_path / "into", progress=False)
    assert folders == [tmp_path / "raw", tmp_path / "into" / "Rendered_256x256"]
    assert there(folders[1]) == CONTENT and file.exists()


def test_only_archives_of_the_wanted_names_are_unpacked(tmp_path):
    raw = tmp_path / "raw"
    for name in ("Set_a", "set_b", "other", ".set_hidden"):
        packed(raw, "zip", name=name)
    (raw / "set.sha256.json").write_text("{}")
    (raw / "set_c.zip.part").write_bytes(packed(tmp_path, "zip").read_bytes()[:60])
    (raw / "set_folder").mkdir()
    with gzip.open(raw / "set_captions.json.gz", "wb") as file:
        file.write(b"{}")
    folders = unpacked(raw, ["SET", "missing"], tmp_path / "into", progress=False)
    assert [f.name for f in folders] == ["raw", "Set_a", "set_b"]
    with pytest.raises(PreparationError, match="is no folder"):
        unpacked(tmp_path / "nothing", ["set"], tmp_path / "into")


def test_two_archives_of_one_name_are_refused(tmp_path):
    for kind in ("zip", "gz"):
        packed(tmp_path / "raw", kind)
    with pytest.raises(PreparationError, match=r"set.tar.gz, .*set.zip: keep one"):
        unpacked(tmp_path / "raw", ["set"], tmp_path / "into")


@pytest.mark.parametrize("kind", ["zip", "gz", "7z"])
def test_what_macos_adds_and_folders_are_left_out(tmp_path, kind):
    junk = {"__MACOSX/set/._n0_1.jpg": b"x", "set/.DS_Store": b"x", "set/a.__MACOSX": b"kept"}
    folder = unpack(packed(tmp_path, kind, {**CONTENT, **junk}), tmp_path / "into", progress=False)
    assert there(folder) == {**CONTENT, "set/a.__MACOSX": b"kept"}


def test_folders_in_every_form_are_taken(tmp_path):
    folder = entry("./set/deep/", type=tarfile.DIRTYPE)
    file = entry("./set/deep/a.jpg", size=3)
    assert there(unpack(tar(tmp_path / "t.tar", folder, folder, file), tmp_path / "into",
                        progress=False)) == {"set/deep/a.jpg": bytes(3)}
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        dos = zipfile.ZipInfo("empty")  # a folder without a slash, as DOS marks it
        dos.external_attr, dos.create_system = 0x10, 0
        archive.writestr(dos, b"")
        archive.writestr("set/unmarked", b"")
        archive.writestr("set/unmarked/a.jpg", b"abc")
    assert there(unpack(tmp_path / "z.zip", tmp_path / "into", progress=False)) == {
        "set/unmarked/a.jpg": b"abc"}
    (tmp_path / "from" / "set" / "empty").mkdir(parents=True)
    (tmp_path / "from" / "set" / "a.jpg").write_bytes(b"abc")
    with py7zr.SevenZipFile(tmp_path / "s.7z", "w") as archive:
        archive.writeall(tmp_path / "from" / "set", "set")
    assert there(unpack(tmp_path / "s.7z", tmp_path / "into", progress=False)) == {
        "set/a.jpg": b"abc"}


def test_umlauts_of_old_programs_are_read(tmp_path):
    """UTF-8 without its flag; code page 437, which is what the flag's absence means; flagged."""
    names = {b"utf8_\xc3\xbc.jpg": "utf8_ü.jpg", b"dos_\x81.jpg": "dos_ü.jpg"}
    stored = {f"{n:012d}.jpg": name for n, name in enumerate(names)}
    flagged = {"flagged_ü.jpg": b"x", "flagged_├╝.jpg": b"x"}
    packed(tmp_path, "zip", {**dict.fromkeys(stored, b"x"), **flagged})
    data = (tmp_path / "set.zip").read_bytes()
    for ascii_name, name in stored.items():
        data = data.replace(ascii_name.encode(), name.rjust(16, b"_"))
    (tmp_path / "set.zip").write_bytes(data)
    found = unpack(tmp_path / "set.zip", tmp_path / "into", progress=False)
    assert set(there(found)) == {name.rjust(16 if n else 15, "_") for n, name in
                                 enumerate(names.values())} | set(flagged)
    latin = raw_name(entry("x", size=1), b"latin_\xfc.jpg")
    assert set(there(unpack(tar(tmp_path / "t.tar", latin), tmp_path / "into",
                            progress=False))) == {"latin_ü.jpg"}


def test_a_sparse_file_has_its_full_size(tmp_path):
    info = entry("s.bin", size=8, pax_headers={"GNU.sparse.major": "0", "GNU.sparse.minor": "1",
                                               "GNU.sparse.size": "1000", "GNU.sparse.numblocks":
                                               "1", "GNU.sparse.map": "10,8"})
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"12345678"))
    refused(tmp_path / "s.tar", "holds more than", limit=999e-9)
    found = there(unpack(tmp_path / "s.tar", tmp_path / "into", progress=False))
    assert found == {"s.bin": bytes(10) + b"12345678" + bytes(982)}


# ----------------------------------------------------------------------- once, whole, or not at all


def test_a_second_call_does_nothing_and_a_changed_archive_is_unpacked_again(tmp_path, monkeypatch):
    file, into = packed(tmp_path, "zip"), tmp_path / "into"
    unpack(file, into, progress=False)
    monkeypatch.setattr(archives, "_unpack", None)
    assert unpack(file, into) == into / "set"
    monkeypatch.undo()
    packed(tmp_path, "zip", {"new.txt": b"new"})
    assert there(unpack(file, into, progress=False)) == {"new.txt": b"new"}
    size = file.stat().st_size
    packed(tmp_path, "zip", {"new.txt": b"now"})
    os.utime(file, ns=(1, 1))
    assert file.stat().st_size == size
    assert there(unpack(file, into, progress=False)) == {"new.txt": b"now"}
    assert left(into) == [".set.json", "set"]


@pytest.mark.parametrize("kind", ["zip", "gz", "7z"])
def test_a_stopped_unpacking_leaves_nothing_that_passes_for_whole(tmp_path, kind, monkeypatch):
    file, into = packed(tmp_path, kind), tmp_path / "into"
    written = []

    def stop(self, n):
        written.append(n)
        if len(written) > 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(archives._Output, "count", stop)
    with pytest.raises(KeyboardInterrupt):
        unpack(file, into, progress=False)
    assert left(into) == []
    monkeypatch.undo()
    (into / ".set.half").mkdir()  # of a process that was killed
    (into / ".set.half" / "half.jpg").write_bytes(b"")
    (into / ".set.json").write_text(json.dumps({"bytes": 1, "mtime_ns": 1}))
    assert there(unpack(file, into, progress=False)) == CONTENT


def test_a_broken_new_archive_leaves_the_old_content(tmp_path):
    file, into = packed(tmp_path, "zip"), tmp_path / "into"
    unpack(file, into, progress=False)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(PreparationError, match="cut short"):
        unpack(file, into, progress=False)
    assert there(into / "set") == CONTENT and left(into) == [".set.json", "set"]


def test_a_folder_of_someone_else_is_not_touched(tmp_path):
    (tmp_path / "into" / "set").mkdir(parents=True)
    (tmp_path / "into" / "set" / "own.txt").write_text("mine")
    with pytest.raises(PreparationError, match="was not unpacked by this command"):
        unpack(packed(tmp_path, "zip"), tmp_path / "into")
    assert there(tmp_path / "into" / "set") == {"own.txt": b"mine"}


def test_too_little_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 3 * 4096})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda place: usage)
    monkeypatch.setattr(archives._Output, "open", None)
    refused(packed(tmp_path, "zip"), "needs 0.0 GB in .*into, where 0.0 GB are free: make room")


def test_find_looks_into_each_folder_and_then_one_level_deeper(tmp_path):
    for place in ("a/wrapped/256x256", "b/256x256", "b/x/png", "a/.hidden/png", "a/one/two/svg"):
        (tmp_path / place).mkdir(parents=True)
    folders = [tmp_path / "absent", tmp_path / "a", tmp_path / "b"]
    assert find(folders, "256x256") == tmp_path / "b/256x256"
    assert find(folders[:2], "rendered", "256x256") == tmp_path / "a/wrapped/256x256"
    assert find(folders, "png", "256x256") == tmp_path / "b/256x256"
    assert find(folders, "png") == tmp_path / "b/x/png"
    assert find(iter(folders), "one/two/svg") == tmp_path / "a/one/two/svg"
    assert find(folders, "svg") is None


# -------------------------------------------------------------------------------- what is not safe

UNSAFE = {"/etc/passwd": "an absolute path", "C:/x": "an absolute path", "c:x": "an absolute path",
          "../out": "a path out of the folder", "a/../../out": "a path out of the folder",
          "a/..": "a path out of the folder", "..\\out": "a backslash",
          "\\\\host\\x": "a backslash", "a\nb": "a control character",
          "a" * 256: "a name of more than 255 bytes", "ä" * 128: "a name of more than 255 bytes"}


@pytest.mark.parametrize("kind", ["zip", "tar", "7z"])
@pytest.mark.parametrize("name", UNSAFE, ids=lambda name: repr(name[:12]))
def test_a_name_that_leads_out_is_refused(tmp_path, kind, name):
    stored = "".join(chr(ord("A") + n % 26) for n in range(len(name)))
    told = UNSAFE[name]
    if kind == "7z":
        told = {"..\\out": "a path out", "\\\\host\\x": "an absolute path"}.get(name, told)
    if kind == "tar":
        file = tar(tmp_path / "set.tar", entry("good.jpg", size=3), entry(name, size=3))
    elif kind == "zip":
        file = packed(tmp_path, kind, {"good.jpg": b"abc", name: b"abc"})
    else:
        file = seven_zip_with(tmp_path, stored, name)
    message = refused(file, told)
    assert "1 of its members" in message and "good.jpg" not in message


def seven_zip_with(folder: Path, stored: str, name: str) -> Path:
    """py7zr refuses to write such a name, so it is put into the list before that is written."""
    file = folder / "set.7z"
    with py7zr.SevenZipFile(file, "w") as archive:
        archive.writestr(b"abc", "good.jpg")
        archive.writestr(b"abc", stored)
        archive.header.files_info.files[-1]["filename"] = name
    return file


def test_all_offenders_are_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(archives._Output, "open", None)
    many = [entry(f"../{n}", size=1) for n in range(60)]
    message = refused(tar(tmp_path / "set.tar", entry("ok", size=1), *many), "60 of its members")
    assert "'../0'" in message and "'../49'" in message and "and 10 more" in message


LINKS = {tarfile.SYMTYPE: "a link", tarfile.LNKTYPE: "a link", tarfile.CHRTYPE: "a device",
         tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe"}


@pytest.mark.parametrize("kind", LINKS)
def test_links_and_devices_of_a_tar_are_refused(tmp_path, kind):
    file = tar(tmp_path / "set.tar", entry("ok", size=1),
               entry("set/link", type=kind, linkname="ok"))
    assert "'set/link'" in refused(file, LINKS[kind])


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_of_a_zip_are_refused(tmp_path, mode):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("ok", b"x")
        info = zipfile.ZipInfo("set/link")
        info.external_attr = (mode | 0o777) << 16
        archive.writestr(info, "/etc")
    refused(tmp_path / "set.zip", "'set/link': " + ("a symbolic link" if mode == stat.S_IFLNK
                                                   else "a device, a pipe or a socket"))


def test_links_of_a_7z_are_refused(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "ok").write_text("x")
    (tmp_path / "from" / "link").symlink_to("ok")
    with py7zr.SevenZipFile(tmp_path / "set.7z", "w") as archive:
        archive.writeall(tmp_path / "from", "set")
    refused(tmp_path / "set.7z", "'set/link': a symbolic link")
    with py7zr.SevenZipFile(tmp_path / "set.7z", "w") as archive:
        archive.writestr(b"C:/", "junction")
        archive.header.files_info.files[-1]["attributes"] = stat.FILE_ATTRIBUTE_REPARSE_POINT
    refused(tmp_path / "set.7z", "'junction': a symbolic link")


def test_members_that_share_a_name_are_refused(tmp_path):
    twice = tar(tmp_path / "set.tar", entry("a.jpg", size=1), entry("./a.jpg", size=2))
    assert "2 of its members" in refused(twice, "twice in the archive")
    both = tar(tmp_path / "both.tar", entry("a", size=1), entry("a/b.jpg", size=1))
    refused(both, "'a': a file and a folder of one name")
    with pytest.warns(UserWarning, match="Duplicate"), \
            zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.jpg", b"1")
        archive.writestr("a.jpg", b"2")
    refused(tmp_path / "z.zip", "twice in the archive")


def test_names_that_this_disk_does_not_tell_apart_are_refused(tmp_path):
    output = archives._Output(tmp_path / "set.zip", tmp_path, 100, None)
    output.open("a/B.jpg").close()
    with pytest.raises(PreparationError, match="'a/B.jpg' and another member have one name"):
        output.open("a/B.jpg")


# ------------------------------------------------------------------------------------------- bombs


@pytest.mark.parametrize("kind", KINDS)
def test_too_large_content_is_refused_and_the_limit_can_be_raised(tmp_path, kind):
    file = packed(tmp_path, kind, {"a": bytes(60_000), "b": bytes(60_000)})
    assert "--max-unpacked GB" in refused(file, "holds more than 0.0001 GB", limit=1e-4)
    assert len(there(unpack(file, tmp_path / "into", 1.2e-4, False))) == 2


@pytest.mark.parametrize("kind", ["zip", "7z", "gz"])
def test_what_is_really_written_counts_and_not_what_is_told(tmp_path, kind, monkeypatch):
    real = archives._listed
    monkeypatch.setattr(archives, "_listed",
                        lambda *a: [m._replace(size=1) for m in real(*a[:2], limit=1e9)])
    file = packed(tmp_path, kind, {"a": bytes(60_000), "b": bytes(60_000)})
    refused(file, "holds more than 0.0001 GB", limit=1e-4)


def test_a_zip_that_lies_of_its_sizes_is_damaged(tmp_path):
    file = packed(tmp_path, "zip", {"a": bytes(50_000)})
    data = file.read_bytes().replace((50_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    file.write_bytes(data)
    refused(file, "is damaged or cut short .*CRC")


def test_too_many_members_are_refused_before_all_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_MEMBERS", 5)
    refused(packed(tmp_path, "gz", {f"{n}.jpg": b"" for n in range(6)}), "more than 5 members")
    assert len(there(unpack(packed(tmp_path, "7z", {f"{n}.jpg": b"" for n in range(5)}),
                            tmp_path / "into", progress=False))) == 5
    endless = itertools.repeat(archive_formats.Member("a", 0, False, "", None))
    with pytest.raises(PreparationError, match="holds more than 5 members"):
        archives._listed(tmp_path / "set.zip", endless, 1)


def test_a_member_too_large_is_refused_before_the_next_is_looked_for(tmp_path):
    """tarfile would decompress all of it to come to the next header."""
    bomb = entry("bomb", size=10**15).tobuf() + bytes(10_000)
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(bomb))
    refused(tmp_path / "set.tar.gz", "holds more than 200 GB")


def test_headers_that_harm_tarfile_are_refused(tmp_path):
    long = entry("x", type=tarfile.XHDTYPE, size=2 << 30)
    (tmp_path / "long.tar").write_bytes(long.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    refused(tmp_path / "long.tar", "damaged or cut short .a header of 2147483648 bytes")
    back = entry("x", size=-512)
    (tmp_path / "back.tar").write_bytes(back.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    refused(tmp_path / "back.tar", "damaged or cut short .a header of -512 bytes")


# ------------------------------------------------------------------- damaged, or no archive at all


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.4, 0.9])
def test_a_truncated_archive_is_told(tmp_path, kind, kept):
    noise = random.Random(0).randbytes
    file = packed(tmp_path, kind, {f"{n}.jpg": noise(20_000) for n in range(8)})
    data = file.read_bytes()
    file.write_bytes(data[:int(len(data) * kept)])
    assert "download it again" in refused(file, "is damaged or cut short")


def test_a_tar_cut_between_two_members_is_told(tmp_path):
    file = packed(tmp_path, "tar", {f"{n}.jpg": bytes(512) for n in range(8)})
    file.write_bytes(file.read_bytes()[:4 * 1024])
    refused(file, "it has no end mark")


@pytest.mark.parametrize("kind", ["zip", "7z", "gz", "bz2", "xz"])
def test_changed_bytes_are_noticed(tmp_path, kind):
    """zip, 7z, gz, bz2 and xz have checksums; a plain tar has none of its content."""
    noise = random.Random(1).randbytes
    file = packed(tmp_path, kind, {f"{n}.jpg": noise(20_000) for n in range(4)})
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    refused(file, "is damaged or cut short|is compressed, but its content is no tar")


def test_a_gz_with_a_wrong_checksum_at_its_end_is_told(tmp_path):
    file = packed(tmp_path, "gz")
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    refused(file, "is damaged or cut short")


def test_a_broken_header_in_the_middle_of_a_tar_is_told(tmp_path):
    file = packed(tmp_path, "tar", {f"{n}.jpg": bytes(512) for n in range(8)})
    data = bytearray(file.read_bytes())
    data[3 * 1024:3 * 1024 + 20] = b"\xff" * 20
    file.write_bytes(data)
    refused(file, "is damaged or cut short")


def test_fuzzed_archives_never_raise_anything_else(tmp_path):
    """A few bytes changed at random: unpacked, or told; the rest of the message names the file."""
    dice, told = random.Random(2), 0
    for kind in KINDS:
        whole = packed(tmp_path / kind, kind).read_bytes()
        for _ in range(30):
            data = bytearray(whole)
            for _ in range(dice.randrange(1, 5)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            file = tmp_path / kind / f"set{KINDS[kind]}"
            file.write_bytes(data)
            try:
                unpack(file, tmp_path / kind / "into", 1, False)
            except PreparationError as error:
                assert str(file) in str(error)
                told += 1
    assert told > 75


@pytest.mark.parametrize(("data", "told"), [
    (b"", "is an empty file"), (b"hello, world", "is no zip, 7z or tar archive"),
    (bytes(2048), "is no zip, 7z or tar archive"),
    (b"\n<!DOCTYPE html><html><title>Google Drive - Virus", "no archive but a web page"),
    (b"\xef\xbb\xbf<HTML>Sign in", "no archive but a web page"),
    (gzip.compress(b"no tar"), "is compressed, but its content is no tar archive, or damaged"),
    (zlib.compress(b"no tar"), "is no zip, 7z or tar archive"),
    (b"PK\x05\x06" + bytes(18), "holds no file"), (b"PK\x03\x04 nothing more", "is damaged"),
    (b"7z\xbc\xaf\x27\x1c", "is damaged")], ids=range(10))
def test_a_file_that_is_no_archive_is_told(tmp_path, data, told):
    (tmp_path / "set.zip").write_bytes(data)
    assert "download it again" in refused(tmp_path / "set.zip", told)
    (tmp_path / "raw").mkdir()
    (tmp_path / "set.zip").rename(tmp_path / "raw" / "set.zip")
    with pytest.raises(PreparationError, match=told):
        unpacked(tmp_path / "raw", ["set"], tmp_path / "into")


def test_encrypted_archives_are_told(tmp_path):
    for header in (False, True):
        with py7zr.SevenZipFile(tmp_path / "set.7z", "w", password="secret",
                                header_encryption=header) as archive:
            archive.writestr(b"abc", "a.jpg")
        refused(tmp_path / "set.7z", "is encrypted: unpack it in .* with the password")
    file = packed(tmp_path, "zip")
    data = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            data[at + offset] |= 1
    file.write_bytes(data)
    refused(file, "is encrypted")


def test_a_method_that_is_not_read_is_told(tmp_path):
    file = packed(tmp_path, "zip")
    data = bytearray(file.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 10] = 9  # deflate64, as Windows packs large files
    file.write_bytes(data)
    refused(file, "packed by a method that is not read here .deflate64.*another program")


def test_a_full_disk_is_not_called_damage(tmp_path, monkeypatch):
    def full(self, place):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives._Output, "open", full)
    message = refused(packed(tmp_path, "zip"), "could not be unpacked: .*No space left")
    assert "damaged" not in message


def test_the_kind_is_read_from_the_first_bytes(tmp_path):
    kinds = {kind: archive_formats.kind(packed(tmp_path / kind, kind)) for kind in KINDS}
    assert kinds == {"zip": "zip", "7z": "7z"} | dict.fromkeys(("tar", "gz", "bz2", "xz"), "tar")
