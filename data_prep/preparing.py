"""What every preparation shares: files linked or drawn, each picture decoded once, a manifest, and
a set that is there whole or not at all.

A set is built in `.<name>.half-made` beside its place and moved there by one rename. A killed
preparation continues in that folder: what lies there whole is not made again.
"""

import csv
import fcntl
import functools
import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tqdm import tqdm

from replication.pictures import Look, look, spread

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
