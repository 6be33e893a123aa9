"""What every preparation shares: files linked or drawn, each picture decoded once, a manifest, and
a set that is there whole or not at all.

A set is built in `.<name>.half-made` beside its place and moved there by one rename. A killed
preparation continues in that folder: what lies there whole is not made again.
"""

import argparse
import csv
import fcntl
import functools
import hashlib
import io
import json
import os
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tqdm import tqdm

from replication.pictures import PICTURES, Look, look, spread

FIELDS = ("path", "split", "domain", "class", "instance", "sha256")
ABOUT, STAMP = "dataset.json", ".settings.json"


class PreparationError(ValueError):
    """A set that cannot be prepared from what is there; the message lists every offender and says
    what to do."""


class Item(NamedTuple):
    """A file of a prepared set. place: where it goes, relative to the set, with forward slashes;
    source: the file that is linked there, or a picklable function of no argument that returns its
    bytes. instance: what of its class it shows (Sketchy's sketches name a photo). picture: decode
    and check it; annotation files are only hashed."""

    place: str
    source: Path | Callable[[], bytes]
    split: str = ""
    domain: str = ""
    class_: str = ""
    instance: str = ""
    picture: bool = True


def is_prepared(target: Path, settings: dict[str, Any]) -> bool:
    """Whether `target` holds this very set; PreparationError where it holds another, or was not
    made by a preparation."""
    if not target.exists():
        return False
    about = target / ABOUT
    if not about.exists():
        raise PreparationError(f"{target} exists and was not made by this command: move it, or "
                               "choose another --name")
    made = json.loads(about.read_text(encoding="utf-8"))
    differ = [f"{key} {made.get(key)}, not {value}" for key, value in settings.items()
              if made.get(key) != value]
    if differ:
        raise PreparationError(f"{target} holds {'; '.join(differ)}: choose another --name, or "
                               "move it away")
    return True


def prepare(target: Path, settings: dict[str, Any], items: Sequence[Item], *,
            check: Callable[[Path], object] | None = None, notes: dict[str, Any] | None = None,
            allow_damaged: bool = False, workers: int | None = None) -> Path:
    """Makes the set `target` of `items`, whole or not at all, and returns it.

    settings: what the set depends on (`name`, `split`, options); a finished set with the same ones
    is left alone. check: called with the half-made folder before it is moved; raises what is wrong.
    notes: further entries of dataset.json. allow_damaged: leave damaged pictures out, and name
    them there. Raises PreparationError that lists every damaged picture, every place that two
    items claim, and every place that leads out of the set.
    """
    if is_prepared(target, settings):
        print(f"{target} is there already")
        return target
    _check_places(items)
    with _half_made(target, settings) as half:
        made = list(tqdm(spread(functools.partial(_made, half), items, workers), total=len(items),
                         desc=f"prepare {target.name}", unit="file", mininterval=0.5))
        damaged = {i.place: m.problem for i, m in zip(items, made, strict=True) if m.problem}
        if damaged and not allow_damaged:
            raise PreparationError(_told(damaged))
        rows = [(i.place, i.split, i.domain, i.class_, i.instance, m.sha256)
                for i, m in zip(items, made, strict=True) if i.place not in damaged]
        odd = _oddities(items, made)
        _remove_strangers(half, {row[0] for row in rows})
        _write_about(half, settings, rows, {**(notes or {}), "left_out": damaged, "odd": odd})
        if check:
            check(half)
        (half / STAMP).unlink()
        half.rename(target)
    return target


def _told(damaged: dict[str, str], most: int = 50) -> str:
    lines = [f"  {place}: {problem}" for place, problem in list(damaged.items())[:most]]
    more = f"\n  and {len(damaged) - most:,} more" if len(damaged) > most else ""
    return (f"{len(damaged):,} files cannot be used:\n" + "\n".join(lines) + more +
            "\nTake them from the archive again and repeat the command: what is done stays done. "
            "--allow-damaged leaves them out knowingly: such a set is not the published one")


def _check_places(items: Sequence[Item]) -> None:
    twice = [place for place, n in Counter(i.place for i in items).items() if n > 1]
    out = [i.place for i in items if PurePosixPath(i.place).is_absolute()
           or ".." in PurePosixPath(i.place).parts or not i.place]
    for bad, what in ((twice, "two files for one place"), (out, "places outside the set")):
        if bad:
            raise PreparationError(f"{len(bad):,} {what}: {', '.join(bad[:12])}")
    if not items:
        raise PreparationError("nothing to prepare: no file was found")


@contextmanager
def _half_made(target: Path, settings: dict[str, Any]) -> Iterator[Path]:
    """The folder to build in, kept from a killed preparation of the same settings, and locked: a
    lock goes with its process."""
    half = target.with_name(f".{target.name}.half-made")
    target.parent.mkdir(parents=True, exist_ok=True)
    lock, stamp = half.with_suffix(".lock"), half / STAMP
    text = json.dumps(settings, sort_keys=True, default=str)
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PreparationError(f"another process prepares {target}: wait for it") from None
        try:
            if half.exists() and not (stamp.exists() and stamp.read_text() == text):
                shutil.rmtree(half)
            half.mkdir(exist_ok=True)
            stamp.write_text(text)
            yield half
        finally:
            lock.unlink(missing_ok=True)


def _made(half: Path, item: Item) -> Look:
    """Puts one item in its place and looks at it."""
    place = half / item.place
    try:
        if isinstance(item.source, Path):
            _link(item.source, place)
        elif not place.exists():
            _written(place, item.source())
        return look(place, alike=False) if item.picture else Look(_sha256(place))
    except (OSError, ValueError) as error:
        return Look(problem=str(error).splitlines()[0][:200])


def _link(source: Path, place: Path) -> None:
    """A hard link where the file system allows, else a copy of the same time; a link that is
    there already stays."""
    if place.exists():
        there, own = place.stat(), source.stat()
        if (there.st_size, there.st_mtime_ns) == (own.st_size, own.st_mtime_ns):
            return
        place.unlink()
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), place)
    except OSError:
        temporary = place.with_name(f".{place.name}.{os.getpid()}")
        shutil.copy2(source, temporary)
        temporary.replace(place)


def _written(place: Path, data: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(place)


def _sha256(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _oddities(items: Sequence[Item], made: Sequence[Look]) -> dict[str, list[str]]:
    """oddity -> places, of pictures that are whole but not plain."""
    found: dict[str, list[str]] = {}
    for item, one in zip(items, made, strict=True):
        if item.picture and not one.problem:
            for oddity in one.oddities(PurePosixPath(item.place).suffix):
                found.setdefault(oddity, []).append(item.place)
    return {oddity: sorted(places) for oddity, places in sorted(found.items())}


def _remove_strangers(half: Path, places: set[str]) -> None:
    """What an earlier, killed preparation left that this one does not name."""
    places = places | {STAMP}
    for folder, _, files in os.walk(half, topdown=False):
        for name in files:
            path = Path(folder, name)
            if path.relative_to(half).as_posix() not in places:
                path.unlink()
        if Path(folder) != half and not os.listdir(folder):
            os.rmdir(folder)


def _write_about(half: Path, settings: dict[str, Any], rows: list[tuple], notes: dict) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([FIELDS, *sorted(rows)])
    (half / "manifest.csv").write_text(text.getvalue(), encoding="utf-8")
    kinds = Counter("/".join(filter(None, row[1:3])) for row in rows)
    about = {**settings, "counts": dict(sorted(kinds.items())), **notes,
             "manifest": "sha256:" + hashlib.sha256(text.getvalue().encode()).hexdigest()[:32]}
    (half / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n",
                              encoding="utf-8")


# ---------------------------------------------------------------- what lies in an archive's folder


def pictures_by_class(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """class -> its pictures in order of name; and the files that are none by their suffix or are
    hidden, which a preparation names and leaves. PreparationError where the folder is absent."""
    if not folder.is_dir():
        raise PreparationError(f"{folder} is missing")
    found, strangers = {}, [f for f in sorted(folder.iterdir()) if not f.is_dir()]
    for of_class in sorted(f for f in folder.iterdir() if f.is_dir()):
        files = sorted(of_class.iterdir())
        found[of_class.name] = [f for f in files if _is_picture(f)]
        strangers += [f for f in files if not _is_picture(f)]
    return found, strangers


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURES and not file.name.startswith(".") and file.is_file()


def canonical(name: str) -> str:
    """A class name without what archives spell differently: case, blanks, hyphens, brackets."""
    return "".join(c for c in unicodedata.normalize("NFKC", name).casefold() if c.isalnum())


def matched(there: Iterable[str], wanted: Iterable[str], where: object,
            aliases: dict[str, str] | None = None) -> dict[str, str]:
    """wanted class -> the name it has in the archive, whatever the spelling (`canonical`).

    aliases: wanted -> other name. Raises PreparationError that names the classes that are absent
    and those too many.
    """
    named, wanted = {canonical(name): name for name in there}, list(wanted)
    other = {name: canonical((aliases or {}).get(name, name)) for name in wanted}
    result = {name: named.get(other[name], named.get(canonical(name))) for name in wanted}
    absent = [name for name in wanted if not result[name]]
    extra = sorted(set(named.values()) - set(result.values()))
    if absent or extra:
        raise PreparationError(f"{where}: {len(named)} classes, expected {len(wanted)}"
                               + (f"; absent: {', '.join(absent)}" if absent else "")
                               + (f"; too many: {', '.join(extra)}" if extra else ""))
    return result


# ------------------------------------------------------------------------------ the command line


def parser(name: str, doc: str, splits: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The options that every preparation has; a module adds its own."""
    result = argparse.ArgumentParser(f"python -m data_prep.{name}", description=doc,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--raw", type=Path, required=True,
                        help="folder of the official archives, packed or unpacked")
    result.add_argument("--out", type=Path, required=True, help="folder of prepared sets")
    if splits:
        result.add_argument("--split", choices=splits, default=splits[0],
                            help=f"default {splits[0]}")
    result.add_argument("--name", default=None, help="name of the prepared folder")
    result.add_argument("--fetch", action="store_true",
                        help="first download into --raw what needs no login or form")
    result.add_argument("--allow-damaged", action="store_true",
                        help="leave damaged pictures out and name them: not the published set")
    result.add_argument("--max-unpacked", type=float, default=200, metavar="GB",
                        help="largest content of an archive that is unpacked (default 200)")
    result.add_argument("--workers", type=int, default=None, help="processes (default one a core)")
    return result


def finish(make: Callable[[], Path]) -> int:
    """Calls `make`, prints what it made; what goes wrong is one message and exit status 1."""
    try:
        target = make()
        about = json.loads((target / ABOUT).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counted = ", ".join(f"{n:,} {what}" for what, n in about["counts"].items())
    print(f"{target}: {counted}")
    for oddity, places in about.get("odd", {}).items():
        print(f"  note: {len(places):,} pictures: {oddity}, as {places[0]}")
    if about.get("left_out"):
        print(f"  {len(about['left_out']):,} damaged pictures were left out: see {ABOUT}; this is "
              "not the published set")
    return 0
