"""Official archives, unpacked safely: nothing outside the folder, no link, no bomb, whole or not at
all.

What an archive is, is read from its content and not from its name. All members are checked before
one is written; they go to a folder beside, which is moved by one rename. A note beside the folder
keeps the archive's size and time, so that a second call does nothing.
"""

import fcntl
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from py7zr.exceptions import PasswordRequired
from tqdm import tqdm

from data_prep import archive_formats
from data_prep.archive_formats import DAMAGE, NOT_READ, Member, Written
from data_prep.preparing import PreparationError

SUFFIXES = (".zip", ".7z", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
UNFINISHED = (".part", ".crdownload", ".download")  # of `fetch` and of browsers
MOST_MEMBERS = 5_000_000
BLOCK = 4096  # bytes that a file takes at least on most disks


def unpacked(raw: Path, wanted: Sequence[str], into: Path, *, limit: float = 200,
             progress: bool = True) -> list[Path]:
    """Folders to look in: `raw` itself, then one for each archive of `raw` (zip, 7z, tar, also
    with gz, bz2 or xz) whose name starts, ignoring case, with one of `wanted`. Each is unpacked
    once, into `into/<its name without suffix>`.

    limit: largest content of an archive, in GB. Raises PreparationError as `unpack` does, and for
    archives that differ in their suffix only.
    """
    if not raw.is_dir():
        raise PreparationError(f"{raw} is no folder: --raw names the one with the archives")
    starts = tuple(start.casefold() for start in wanted)
    archives = [file for file in sorted(raw.iterdir())
                if file.name.casefold().startswith(starts) and _is_archive(file)]
    times = Counter(_stem(file).casefold() for file in archives)
    twice = [str(file) for file in archives if times[_stem(file).casefold()] > 1]
    if twice:
        raise PreparationError(f"archives of the same name: {', '.join(twice)}: keep one of them")
    return [raw, *(unpack(file, into, limit, progress) for file in archives)]


def find(folders: Iterable[Path], *inner: str) -> Path | None:
    """The first path `folder/inner` that exists, over the folders and in each over the inners;
    where there is none, one level deeper: archives often wrap everything in one folder."""
    folders = [folder for folder in folders if folder.is_dir()]
    deeper = (sub for folder in folders for sub in sorted(folder.iterdir())
              if sub.is_dir() and not sub.name.startswith("."))
    for level in (folders, deeper):
        for folder in level:
            for name in inner:
                if (folder / name).exists():
                    return folder / name
    return None


def unpack(archive: Path, into: Path, limit: float = 200, progress: bool = True) -> Path:
    """Unpacks one archive into `into/<its name without suffix>` and returns that folder; does
    nothing where this very archive (size and time) has been unpacked there.

    limit: largest content in GB. Raises PreparationError, and leaves nothing, for a file that is no
    archive or is damaged, for members that are links, lie outside the folder or share a name, for
    encrypted or too large content, and where the disk is too small. Folders without files and what
    macOS adds (`__MACOSX`, `.DS_Store`) are left out.
    """
    target = into / _stem(archive)
    note, half, old = (into / f".{target.name}{end}" for end in (".json", ".half", ".old"))
    about = archive.stat()
    stamp = json.dumps({"bytes": about.st_size, "mtime_ns": about.st_mtime_ns})
    into.mkdir(parents=True, exist_ok=True)
    with open(into / ".lock", "w") as lock:  # a second preparation waits here, then finds it done
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists() and not note.exists():
            raise PreparationError(f"{target} exists and was not unpacked by this command: move it")
        if target.exists() and note.read_text() == stamp:
            return target
        _removed(half, old)
        half.mkdir()
        try:
            _unpack(archive, half, limit * 10**9, progress)
            if target.exists():
                target.rename(old)
            note.write_text(stamp)
            half.rename(target)
        finally:
            _removed(half, old)
    return target


def _stem(file: Path) -> str:
    end = next((end for end in SUFFIXES if file.name.lower().endswith(end)), file.suffix)
    return file.name[:len(file.name) - len(end)]


def _is_archive(file: Path) -> bool:
    if file.name.endswith(UNFINISHED) or not file.is_file():
        return False
    return file.name.lower().endswith(SUFFIXES) or bool(archive_formats.kind(file))


def _removed(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(archive: Path, half: Path, limit: float, progress: bool) -> None:
    if not archive_formats.kind(archive):
        raise PreparationError(f"{archive} is {_instead(archive)}: download it again")
    try:
        with archive_formats.opened(archive, progress) as content:
            wanted = _checked(archive, _listed(archive, content.members(), limit), half)
            with tqdm(total=sum(m.size for m in wanted), desc=f"unpack {archive.name}", unit="B",
                      unit_scale=True, mininterval=0.5, disable=not progress) as bar:
                content.copy(wanted, _Output(archive, half, limit, bar).open)
    except PreparationError:
        raise
    except NOT_READ as error:
        raise PreparationError(f"{archive} is packed by a method that is not read here ({error}): "
                               f"unpack it in {archive.parent} with another program") from None
    except PasswordRequired:
        raise PreparationError(f"{archive} is encrypted: unpack it in {archive.parent} with the "
                               "password that its authors give") from None
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno:
            raise PreparationError(f"{archive} could not be unpacked: {error}") from None
        reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
        raise PreparationError(f"{archive} is damaged or cut short ({reason}): download it "
                               "again") from None


def _instead(archive: Path) -> str:
    with open(archive, "rb") as content:
        start = content.read(1024)
    if start.startswith(tuple(archive_formats.PACKED)):
        return "compressed, but its content is no tar archive, or damaged"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        return "no archive but a web page, as a site sends it for a log-in, a form or an error"
    return "no zip, 7z or tar archive" if start else "an empty file"


# ------------------------------------------------------------------- what is checked, and written


def _listed(archive: Path, members: Iterable[Member], limit: float) -> list[Member]:
    """All members; stops at one too many before the next is looked for."""
    found, total = [], 0
    for member in members:
        found.append(member)
        total += member.size
        if total > limit:
            raise PreparationError(_too_large(archive, limit))
        if len(found) > MOST_MEMBERS:
            raise PreparationError(f"{archive} holds more than {MOST_MEMBERS:,} members, as no "
                                   "official archive does: download it again")
    return found


def _too_large(archive: Path, limit: float) -> str:
    return (f"{archive} holds more than {limit / 1e9:,g} GB: where it is the official archive and "
            "the disk has room, allow more by --max-unpacked GB")


def _checked(archive: Path, members: list[Member], half: Path) -> list[Member]:
    """The files to write; PreparationError that names what is unsafe."""
    folders = {m.place for m in members if m.folder} | _parents(members)
    # Some programs mark a folder as an empty file.
    files = [m for m in members if not m.folder and (m.size or m.place not in folders)]
    times = Counter(m.place for m in files)
    told = {id(m): "a file and a folder of one name" for m in files if m.place in folders}
    told |= {id(m): "twice in the archive" for m in files if times[m.place] > 1}
    told |= {id(m): problem for m in members if (problem := m.problem or _name_problem(m))}
    bad = [f"  {m.name!r}: {told[id(m)]}" for m in members if id(m) in told]
    if bad:
        more = f"\n  and {len(bad) - 50:,} more" if len(bad) > 50 else ""
        raise PreparationError(f"{archive} is refused, {len(bad):,} of its members are not safe:\n"
                               + "\n".join(bad[:50]) + more
                               + "\nTake the archive from its official place")
    wanted = [m for m in files if not _is_junk(m.place)]
    if not wanted:
        raise PreparationError(f"{archive} holds no file: download it again")
    _check_room(archive, wanted, half)
    return wanted


def _parents(members: list[Member]) -> set[str]:
    found: set[str] = set()
    for member in members:
        parent = member.place.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def _name_problem(member: Member) -> str:
    name, parts = member.name, member.name.split("/")
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "an absolute path"
    if ".." in parts:
        return "a path out of the folder"
    if "\\" in name or any(ord(c) < 32 or ord(c) == 127 for c in name):
        return "a backslash or a control character in its name"
    if any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts):
        return "a name of more than 255 bytes"
    return "" if member.place or member.folder else "no name"


def _is_junk(place: str) -> bool:
    return "__MACOSX" in place.split("/") or place.split("/")[-1] == ".DS_Store"


def _check_room(archive: Path, wanted: list[Member], half: Path) -> None:
    needed = sum(-(-m.size // BLOCK) * BLOCK for m in wanted)
    free = shutil.disk_usage(half).free
    if needed > free:
        raise PreparationError(f"{archive} needs {needed / 1e9:,.1f} GB in {half.parent}, where "
                               f"{free / 1e9:,.1f} GB are free: make room, or choose another --out")


class _Output:
    """Where members are written: into `half`, never more than `limit` bytes in all, whatever the
    archive says of its sizes."""

    def __init__(self, archive: Path, half: Path, limit: float, bar: tqdm):
        self.archive, self.half, self.limit, self.bar = archive, half, limit, bar
        self.written = 0

    def open(self, place: str) -> Written:
        path = self.half / place
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return Written(open(path, "xb"), self.count)
        except FileExistsError:
            raise PreparationError(f"{self.archive}: {place!r} and another member have one name on "
                                   "this disk, which does not tell capital from small letters: "
                                   "choose an --out on another disk") from None

    def count(self, n: int) -> None:
        self.written += n
        if self.written > self.limit:
            raise PreparationError(_too_large(self.archive, self.limit))
        self.bar.update(n)
