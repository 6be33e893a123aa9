"""Preparing Sketchy: made-up archives in the official layout, and the real sample."""

import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import damage
import py7zr
import pytest
from checking import about, rows

from data_prep import preparing, sketchy
from data_prep.preparing import PreparationError
from replication import data

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data"
PHOTOS, SKETCHES = (f"256x256/{domain}/tx_000000000000" for domain in ("photo", "sketch"))
HERE = pytest.mark.skipif(not (SAMPLE / "sketchy_subset").is_dir(), reason="no ../shared/data here")


@pytest.fixture
def archive(tmp_path):
    """rendered_256x256 in small: a photo and its sketch of every class."""
    damage.plain_jpg(tmp_path / "p.jpg")
    damage.plain_png(tmp_path / "s.png")
    for c in sketchy.CLASSES:
        for domain, name in (("photo", "n0_1.jpg"), ("sketch", "n0_1-2.png")):
            folder = tmp_path / "raw/256x256" / domain / "tx_000000000000" / c
            folder.mkdir(parents=True)
            os.link(tmp_path / (domain[0] + Path(name).suffix), folder / name)
    return tmp_path / "raw"


@pytest.fixture
def extended(archive, tmp_path):
    """The extension in small: of every class the base photo once more, and one of its own. The
    tree's differs in one byte, not in size or time."""
    for c in sketchy.CLASSES:
        folder = archive / sketchy.EXTENSION / c
        folder.mkdir(parents=True)
        for name in ("n0_1.jpg", "ext_5.jpg"):
            os.link(tmp_path / "p.jpg", folder / name)
    for end, tree in ((b"1", archive / PHOTOS), (b"2", archive / sketchy.EXTENSION)):
        (tree / "tree/n0_1.jpg").unlink()
        (tree / "tree/n0_1.jpg").write_bytes((tmp_path / "p.jpg").read_bytes() + end)
        os.utime(tree / "tree/n0_1.jpg", (1e9, 1e9))
    return archive


def make(archive: Path, out: Path, split: str = "104/21", **options) -> Path:
    return sketchy.prepare(archive, out, split, workers=1, **options)


@pytest.mark.parametrize("split", ["104/21", "100/25"])
def test_classes_go_to_their_split(archive, tmp_path, split):
    folder = make(archive, tmp_path / "out", split)
    found = data.read_sketch_set(tmp_path / "out", "sketchy")
    assert found.split_name == split and set(found.val.classes) == set(sketchy.UNSEEN[split])
    assert found.manifest.startswith("sha256:")
    assert len(rows(folder)) == 250 and {r["instance"] for r in rows(folder)} == {"n0_1"}
    assert {(r["split"], r["class"]) for r in rows(folder)} == {
        ("val" if c in sketchy.UNSEEN[split] else "train", c) for c in sketchy.CLASSES}


def test_the_extension_joins_and_a_name_in_both_counts_once(extended, tmp_path):
    folder = make(extended, tmp_path / "out", duplicates="drop")
    assert about(folder)["published_as"] == "104/21, each photo once"
    photos = sorted(p.name for p in (folder / "val/photo/tree").iterdir())
    assert photos == ["ext_5.jpg", "n0_1.jpg"]
    base = extended / PHOTOS / "tree/n0_1.jpg"
    assert os.path.samefile(folder / "val/photo/tree/n0_1.jpg", base)
    both = about(folder)["duplicates"]
    assert both["same bytes"]["count"] == 124 == len(both["same bytes"]["names"])
    assert both["other bytes"] == {"count": 1, "names": ["tree/n0_1.jpg"]}


def test_duplicates_are_kept_under_a_name_of_their_own_and_break_no_pair(extended, tmp_path):
    folder = make(extended, tmp_path / "out")
    assert "published_as" not in about(folder)
    photos = sorted(p.name for p in (folder / "val/photo/tree").iterdir())
    assert photos == ["ext_5.jpg", "n0_1.extended.jpg", "n0_1.jpg"]
    copy = next(r for r in rows(folder) if r["path"] == "val/photo/tree/n0_1.extended.jpg")
    own = hashlib.sha256((extended / sketchy.EXTENSION / "tree/n0_1.jpg").read_bytes())
    assert (copy["instance"], copy["sha256"]) == ("n0_1", own.hexdigest())
    found = data.read_sketch_set(tmp_path / "out", "sketchy").val
    assert [found.photo.instances.count(i) for i in found.sketch.instances] == [1] * 21
    assert about(folder)["counts"]["val/photo"] == 3 * 21
    with pytest.raises(PreparationError, match="duplicate_photos keep, not drop"):
        make(extended, tmp_path / "out", duplicates="drop")


def test_the_extension_may_be_named_and_spell_a_class_otherwise(extended, tmp_path):
    (extended / sketchy.EXTENSION / "hot-air_balloon").rename(
        extended / sketchy.EXTENSION / "hot_air_balloon")
    (extended / sketchy.EXTENSION).rename(extended / f"{sketchy.EXTENSION}_ready")
    folder = make(extended, tmp_path / "out", duplicates="drop")
    assert len(list((folder / "train/photo/hot-air_balloon").iterdir())) == 2


def test_another_rendering_is_taken_and_one_that_is_not_there_is_told(archive, tmp_path):
    other = archive / "256x256/sketch/tx_000100000000"
    shutil.copytree(archive / SKETCHES, other)
    damage.grey_jpg(other / "tree/n0_1-3.jpg")
    folder = make(archive, tmp_path / "out", sketch_rendering=other.name)
    assert (folder / "val/sketch/tree/n0_1-3.jpg").exists()
    with pytest.raises(PreparationError, match="renderings {.*tx_000100000000"):
        make(archive, tmp_path / "out")
    with pytest.raises(PreparationError, match="photo/tx_1, .*there are tx_000000000000"):
        make(archive, tmp_path / "other", photo_rendering="tx_1")


def pack_7z(folder: Path, archive: Path, inside: str) -> None:
    with py7zr.SevenZipFile(archive, "w") as packed:
        packed.writeall(folder, inside)


def pack_zip(folder: Path, archive: Path, inside: str) -> None:
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(folder.rglob("*")):
            packed.write(file, Path(inside, file.relative_to(folder)))


@pytest.mark.parametrize("inside", ["256x256", "rendered_256x256/256x256"])
def test_packed_archives_make_the_same_set(extended, tmp_path, inside):
    plain = make(extended, tmp_path / "plain")
    packed = tmp_path / "packed"
    packed.mkdir()
    pack_7z(extended / "256x256", packed / "rendered_256x256.7z", inside)
    pack_zip(extended / sketchy.EXTENSION, packed / "EXTEND_image_sketchy.zip", sketchy.EXTENSION)
    folder = make(packed, tmp_path / "out")
    assert rows(folder) == rows(plain)


def test_the_wrapped_folder_is_found_and_no_archive_is_unpacked_needlessly(archive, tmp_path):
    (archive / "rendered_256x256").mkdir()
    (archive / "256x256").rename(archive / "rendered_256x256/256x256")
    (archive / "rendered_256x256.7z").write_text("cut short")
    folder = make(archive, tmp_path / "out")
    assert len(rows(folder)) == 250 and not (tmp_path / "out/.unpacked/sketchy").exists()


def test_a_second_call_leaves_the_set_and_another_split_is_refused(archive, tmp_path, capsys):
    make(archive, tmp_path / "out")
    shutil.rmtree(archive / "256x256/sketch")
    make(archive, tmp_path / "out")
    assert "is there already" in capsys.readouterr().out
    assert sketchy.main(["--raw", str(archive), "--out", str(tmp_path / "out"), "--split",
                         "100/25"]) == 1
    assert "holds split 104/21, not 100/25: choose another --name" in capsys.readouterr().err


def test_a_stopped_preparation_leaves_no_set_and_goes_on(archive, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "_write_about", stop)
    with pytest.raises(KeyboardInterrupt):
        make(archive, tmp_path / "out")
    assert not (tmp_path / "out/sketchy").exists()
    done = tmp_path / "out/.sketchy.half-made/val/photo/tree/n0_1.jpg"
    inode = done.stat().st_ino
    monkeypatch.undo()
    monkeypatch.setattr(os, "link", stop)  # a finished link is not made again
    folder = make(archive, tmp_path / "out")
    assert (folder / "dataset.json").exists()
    assert (folder / "val/photo/tree/n0_1.jpg").stat().st_ino == inode


@pytest.mark.parametrize(("broken", "told"), [
    (lambda raw: (raw / PHOTOS / "bat/n0_1.jpg").unlink(), "photo.*1 classes without .*: bat"),
    (lambda raw: (raw / "256x256/sketch").rename(raw / "256x256/drawing"),
     r"(?s)holds no 256x256/sketch/tx_000000000000, nor the archive .*rendered_256x256\.7z \("),
    (lambda raw: (raw / PHOTOS / "dog_2").mkdir(), "126 classes, expected 125; too many: dog_2"),
    (lambda raw: shutil.rmtree(raw / SKETCHES / "tiger"), "124 classes, .*; absent: tiger"),
    (lambda raw: (raw / sketchy.EXTENSION / "tiger").mkdir(parents=True),
     "1 classes, expected 125; absent: airplane"),
    (lambda raw: (shutil.rmtree(raw / "256x256"), damage.text(raw / "rendered_256x256.7z")),
     "rendered_256x256.7z"),
])
def test_an_archive_that_is_not_one_is_told(archive, tmp_path, broken, told):
    broken(archive)
    with pytest.raises(PreparationError, match=told):
        make(archive, tmp_path / "out")
    assert not (tmp_path / "out/sketchy").exists()


@pytest.mark.parametrize("kind", sorted(damage.BROKEN))
def test_a_damaged_picture_is_named_and_left_out_only_when_allowed(archive, tmp_path, kind):
    damage.BROKEN[kind](archive / PHOTOS / "tree/n0_2 Bär (groß).jpg")
    with pytest.raises(PreparationError, match=r"1 files .*\n  val/photo/tree/n0_2 Bär \(groß\)"):
        make(archive, tmp_path / "out")
    assert not (tmp_path / "out/sketchy").exists()
    folder = make(archive, tmp_path / "out", allow_damaged=True)
    assert list(about(folder)["left_out"]) == ["val/photo/tree/n0_2 Bär (groß).jpg"]
    assert len(rows(folder)) == 250


def test_a_class_of_damaged_pictures_only_is_no_set(archive, tmp_path):
    (archive / PHOTOS / "tree/n0_1.jpg").unlink()
    damage.empty(archive / PHOTOS / "tree/n0_1.jpg")
    with pytest.raises(ValueError, match="val/photo/tree"):
        make(archive, tmp_path / "out", allow_damaged=True)
    assert not (tmp_path / "out/sketchy").exists()


def test_odd_pictures_go_in_and_other_files_stay_out_and_both_are_named(archive, tmp_path, capsys):
    for kind, (write, _) in damage.ODD.items():
        write(archive / PHOTOS / f"tree/n0 ü ({kind}).jpg")
    damage.text(archive / PHOTOS / "tree/read me (ü).txt")
    folder = make(archive, tmp_path / "out")
    place = "val/photo/tree/n0 ü ({}).jpg".format
    for kind, (_, told) in damage.ODD.items():
        assert place(kind) in about(folder)["odd"][told]
        assert (folder / place(kind)).exists()
    assert about(folder)["ignored"] == [f"{PHOTOS}/tree/read me (ü).txt"]
    assert "1 files are no pictures" in capsys.readouterr().out
    assert "n0 ü (cmyk_jpg)" in {r["instance"] for r in rows(folder)}


@pytest.fixture
def lists(archive, tmp_path):
    """Published lists of 100/25: everything but the sheep's sketch, the tree's photo twice."""
    folder = tmp_path / "lists"
    folder.mkdir()
    unseen = sketchy.UNSEEN["100/25"]
    classes = {"train": [c for c in sketchy.CLASSES if c not in unseen], "zero": unseen}
    for part, names in classes.items():
        ids = [f"{c} {n}\n" for n, c in enumerate(names)]
        (folder / f"cname_cid{'_zero' * (part == 'zero')}.txt").write_text("".join(ids))
        for domain, file in (("photo", "n0_1.jpg"), ("sketch", "n0_1-2.png")):
            lines = [f"256x256/{domain}/tx_000000000000_ready/{c}/{file} {n}\n"
                     for n, c in enumerate(names) if (c, domain) != ("sheep", "sketch")]
            (folder / f"all_{domain}_filelist_{part}.txt").write_text("".join(lines))
    return folder


def listed(lists: Path, part: str, line: str) -> None:
    with open(lists / f"all_photo_filelist_{part}.txt", "a") as file:
        file.write(line + "\n")


def test_only_listed_files_go_in(extended, lists, tmp_path):
    damage.grey_jpg(extended / SKETCHES / "sheep/n0_1-7.png")
    listed(lists, "zero", f"EXTEND_image_sketchy_ready/tree/n0_1.jpg "
                          f"{sorted(sketchy.UNSEEN['100/25']).index('tree')}")
    with open(lists / "all_sketch_filelist_train.txt", "a") as file:
        file.write(f"sketch/sheep/n0_1-7.png {_id(lists, 'sheep')}\n")
    for duplicates, photos in (("drop", 125), ("keep", 126)):
        folder = make(extended, tmp_path / "out", "100/25", lists=lists, duplicates=duplicates,
                      name=duplicates)
        files = [Path(r["path"]) for r in rows(folder)]
        assert sum("photo" in f.parts for f in files) == photos
        assert [f.name for f in files if f.parts[1:3] == ("sketch", "sheep")] == ["n0_1-7.png"]
        assert (folder / "val/photo/tree/n0_1.extended.jpg").exists() == (duplicates == "keep")
    noted = about(folder)["listed"]
    assert noted["listed_twice"] == {"val/photo": {"count": 1, "names": ["tree/n0_1.jpg"]}}
    assert noted["not_listed"] == {"train/sketch": 1, "train/photo": 200, "val/sketch": 0,
                                   "val/photo": 49}
    assert noted["files"]["val/photo"] == {"file": "all_photo_filelist_zero.txt", "lines": 26}
    assert about(folder)["duplicates"]["other bytes"]["names"] == ["tree/n0_1.jpg"]
    for other in (None, lists):
        (lists / "all_photo_filelist_train.txt").unlink(missing_ok=True)
        with pytest.raises(PreparationError, match="keep holds lists sha256:.*, not "):
            make(extended, tmp_path / "out", "100/25", lists=other, duplicates="keep", name="keep")


def _id(lists: Path, name: str) -> int:
    ids = (line.rsplit(" ", 1) for line in (lists / "cname_cid.txt").read_text().splitlines())
    return int(dict(ids)[name])


@pytest.mark.parametrize(("wrong", "told"), [
    (lambda f: listed(f, "train", "photo/sheep/n9_9.jpg {id}".format(id=_id(f, "sheep"))),
     "1 files that .* lists are absent:\n  photo/sheep/n9_9.jpg"),
    (lambda f: listed(f, "zero", "EXTEND_image_sketchy/tree/n0_1.jpg 0"),
     "1 lines whose folder is not the class of their id:\n  all_photo_filelist_zero.txt: EXTEND"),
    (lambda f: listed(f, "zero", "photo/tree/n0_1.jpg"), "is not `<name> <class id>`"),
    (lambda f: (f / "cname_cid_zero.txt").unlink(), "lacks cname_cid_zero.txt"),
    (lambda f: shutil.copy(f / "all_photo_filelist_zero.txt", f / "my_photo_zero.txt"),
     "two lists of val photo"),
    (lambda f: [file.unlink() for file in f.glob("all_*")], "holds no list"),
])
def test_lists_that_are_wrong_are_told(archive, lists, tmp_path, wrong, told):
    wrong(lists)
    damage.plain_png(archive / SKETCHES / "sheep/n0_1-7.png")
    with pytest.raises(PreparationError, match=told):
        make(archive, tmp_path / "out", "100/25", lists=lists)
    assert not (tmp_path / "out/sketchy").exists()


def test_lists_of_another_split_are_refused(archive, lists, tmp_path):
    with pytest.raises(PreparationError, match="not the 104 of split 104/21: give the lists' own"):
        make(archive, tmp_path / "out", "104/21", lists=lists)


def test_the_command_takes_every_option(extended, tmp_path, capsys):
    command = ["--raw", str(extended), "--out", str(tmp_path), "--split", "100/25", "--workers",
               "1", "--duplicates", "keep", "--name", "twice", "--sketch-rendering",
               "tx_000000000000", "--photo-rendering", "tx_000000000000"]
    assert sketchy.main(command) == 0
    told = capsys.readouterr().out
    assert "125 photos are in both archives, 124 of them with the same bytes" in told
    assert "75 val/photo" in told and (tmp_path / "twice/dataset.json").exists()


@HERE
@pytest.mark.parametrize(("split", "folder", "unseen", "manifest"), [
    ("100/25", "sketchy_zeroshot1_100_25", 625, "556796ba533ca04463d1faf77263c094"),
    ("104/21", "sketchy_zeroshot0_104_21", 525, "11be30cfb59f1b99411a9546ef5a9a08")])
def test_the_real_sample_has_the_official_classes_and_counts(tmp_path, split, folder, unseen,
                                                             manifest):
    official = (SAMPLE / "splits" / folder / "cname_cid_zero.txt").read_text().splitlines()
    assert {line.rsplit(" ", 1)[0] for line in official} == set(sketchy.UNSEEN[split])
    sketchy.prepare(SAMPLE / "sketchy_subset", tmp_path, split)
    found = data.read_sketch_set(tmp_path, "sketchy")
    assert (len(found.val.sketch), len(found.val.photo)) == (unseen, unseen)
    assert len(found.train.sketch) == len(found.train.photo) == 3125 - unseen
    assert set(found.val.sketch.instances) <= set(found.val.photo.instances)
    assert found.manifest == f"sha256:{manifest}"  # records of runs on the sample carry it
    assert about(tmp_path / "sketchy")["odd"] == {}


@HERE
def test_the_real_lists_leave_out_some_training_sketches(tmp_path):
    folder = sketchy.prepare(SAMPLE / "sketchy_subset", tmp_path, "100/25",
                             lists=SAMPLE / "splits/sketchy_zeroshot1_100_25")
    assert about(folder)["counts"] == {"train/photo": 2500, "train/sketch": 2303,
                                       "val/photo": 625, "val/sketch": 625}
    assert about(folder)["listed"]["not_listed"]["train/sketch"] == 197
    assert about(folder)["listed"]["listed_twice"] == {}
