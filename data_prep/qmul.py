"""QMUL ShoeV2 and ChairV2, sets of one class in which sketch `X_k` depicts photo `X`: what their
two commands share.

Three layouts of the official releases and their copies are taken, for each part and domain the
first that is there: the lists `photo_train.txt`, `photo_test.txt`, `sketch_train.txt` and
`sketch_test.txt` beside folders of photos and sketches; a folder for each part and domain, as
`train/sketch` or `sketch/train`; `trainA` and `testA` (sketches) with `trainB` and `testB`
(photos). A sketch may be an svg, also where its list says so and a png is there.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data_prep import preparing
from data_prep.archives import unpacked
from data_prep.class_folders import canonical
from data_prep.command import finish, parser, shared
from data_prep.preparing import Item, PreparationError
from data_prep.sketch_sets import is_there, missing, told
from data_prep.svg import DRAWN_BY, as_item, check_size, is_drawing
from replication.pictures import PICTURES

PARTS, DOMAINS = ("train", "test"), {"sketch": "A", "photo": "B"}
PLURAL = {"sketch": "sketches", "photo": "photos"}
NAMES = ("ShoeV2", "ChairV2")
SIZE = 256  # as Sketchy's pictures; no source states one for these sketches
DEEP = 4  # folders in folders, as <archive>/<both sets>/ShoeV2/ShoeV2_F


class Files(NamedTuple):
    """The pictures of one part and domain. stems: stem -> file; absent: names that a list has and
    no folder; twice: names listed twice; beside: stems of everything in the listed folder."""

    stems: dict[str, Path]
    absent: list[str] = []
    twice: list[str] = []
    beside: frozenset[str] = frozenset()


Found = dict[tuple[str, str], Files | None]  # (part, domain) -> its pictures


def prepare(official: str, raw: Path, out: Path, *, name: str, size: int = SIZE,
            download: bool = False, allow_damaged: bool = False, max_unpacked: float = 200,
            workers: int | None = None) -> Path:
    """Makes `out/name` of the release `official` (`ShoeV2`, `ChairV2`), whole or not at all; a
    finished one of the same settings is left alone.

    size: pixels of the longer side of a sketch drawn from svg. max_unpacked: GB. Raises
    PreparationError that names every offender.
    """
    check_size(size)
    settings = {"name": official.lower(), "size": size}
    if is_there(official.lower(), raw, out / name, settings, download):
        return out / name
    found = _found(official, [raw] if raw.is_dir() else [])
    if not all(found.values()):
        found = _found(official, unpacked(raw, (official,), out / ".unpacked" / official.lower(),
                                          limit=max_unpacked))
    _check(official, raw, found)
    made = [_item(part, domain, stem, file, size) for (part, domain), files in found.items()
            for stem, file in sorted(files.stems.items())]
    return preparing.prepare(out / name, settings, made, check=readable, notes=_notes(found, raw),
                             allow_damaged=allow_damaged, workers=workers)


def _found(official: str, folders: list[Path]) -> Found:
    bases = _bases(official, folders)
    return {(part, domain): _files(official, bases, part, domain)
            for part in PARTS for domain in DOMAINS}


def _bases(official: str, level: list[Path]) -> list[Path]:
    """Folders that may hold a layout, the nearest first; none of the other set."""
    other, result = canonical(next(name for name in NAMES if name != official)), []
    for _ in range(DEEP):
        result += level
        level = [sub for folder in level for sub in sorted(folder.iterdir()) if sub.is_dir()
                 and not sub.name.startswith(".") and not canonical(sub.name).startswith(other)]
    return result


def _files(official: str, bases: list[Path], part: str, domain: str) -> Files | None:
    listed = next((b / f"{domain}_{part}.txt" for b in bases
                   if (b / f"{domain}_{part}.txt").is_file()), None)
    holding = [b / folder for b in bases for folder in _holding(official, domain)
               if (b / folder).is_dir()]
    there = next(filter(None, map(_pictures, holding)), {})
    if listed and there:
        return _listed(listed, there)
    for base in bases:
        for folder in (base / part / domain, base / domain / part,
                       base / f"{part}{DOMAINS[domain]}"):
            if folder.is_dir() and (own := _pictures(folder)):
                return Files(own)
    return None


def _holding(official: str, domain: str) -> Iterator[str]:
    """Names of a folder with the pictures of a domain; drawn ones before svg."""
    for stem in (f"{official}_{domain}", domain):
        yield from (f"{stem}_png", stem)


def _pictures(folder: Path) -> dict[str, Path]:
    """stem -> picture, or the svg where no picture has that stem."""
    files = sorted(folder.iterdir())
    return {f.stem: f for f in (*filter(is_drawing, files), *filter(_is_picture, files))}


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURES and not file.name.startswith(".") and file.is_file()


def _listed(file: Path, there: dict[str, Path]) -> Files:
    names = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    times = Counter(filter(None, names))
    stems = {name: Path(name).stem for name in times}
    return Files({stem: there[stem] for stem in stems.values() if stem in there},
                 [name for name, stem in stems.items() if stem not in there],
                 [name for name, n in times.items() if n > 1], frozenset(there))


def _photo_of(sketch: str) -> str:
    return sketch.rsplit("_", 1)[0]


def _check(official: str, raw: Path, found: Found) -> None:
    lost = [f"{part} {domain}" for (part, domain), files in found.items() if not files]
    if lost:
        raise missing(f"{raw} holds no {official} pictures of {', '.join(lost)}", official.lower())
    problems = []
    for (part, domain), files in found.items():
        problems += _of(files.absent, f"{PLURAL[domain]} of {domain}_{part}.txt are absent")
    for part in PARTS:
        photos = found[part, "photo"].stems
        alone = [s for s in found[part, "sketch"].stems if _photo_of(s) not in photos]
        problems += _of(sorted(alone), f"{part} sketches show a photo that is not in {part}")
    for domain in DOMAINS:
        both = found["train", domain].stems.keys() & found["test", domain].stems.keys()
        problems += _of(sorted(both), f"{PLURAL[domain]} are in train and in test")
    if problems:
        raise PreparationError(f"{raw}: " + "\n".join(problems) +
                               f"\nTake {official} from its archive again")


def _of(names: list[str], what: str, most: int = 50) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return [f"{len(names):,} {what}: {', '.join(names[:most])}{more}"]


def _item(part: str, domain: str, stem: str, file: Path, size: int) -> Item:
    shown = stem if domain == "photo" else _photo_of(stem)
    return as_item(Item(f"{part}/{domain}/{file.name}", file, part, domain, "", shown), size)


def _notes(found: Found, raw: Path) -> dict[str, Any]:
    used = [file for files in found.values() for file in files.stems.values()]
    strangers = [f for folder in sorted({file.parent for file in used})
                 for f in sorted(folder.iterdir()) if not (is_drawing(f) or _is_picture(f))]
    return {"ignored": told(strangers, raw),
            "unlisted": {domain: _unlisted(found, domain) for domain in DOMAINS},
            "listed_twice": {f"{part}/{domain}": files.twice
                             for (part, domain), files in found.items() if files.twice},
            **({"drawn_by": DRAWN_BY} if any(map(is_drawing, used)) else {})}


def _unlisted(found: Found, domain: str) -> list[str]:
    """Pictures that lie beside the listed ones and that neither list names."""
    both = [found[part, domain] for part in PARTS]
    return sorted(set().union(*(files.beside for files in both)).difference(
        *(files.stems for files in both)))


def readable(half: Path) -> None:
    """The check of a prepared set: the experiments' own reader takes it."""
    from replication.fine_grained import read_instance_set

    read_instance_set(half.parent, half.name)


def options(official: str, doc: str) -> argparse.ArgumentParser:
    """The command line of one of the two sets."""
    result = parser(official.lower(), doc)
    result.add_argument("--size", type=int, default=SIZE,
                        help=f"longer side, in pixels, of sketches drawn from svg (default {SIZE})")
    return result


def main(official: str, doc: str, arguments: list[str] | None = None) -> int:
    """Runs the command of one of the two sets; its exit status."""
    chosen = options(official, doc).parse_args(arguments)
    return finish(lambda: prepare(
        official, chosen.raw, chosen.out, name=chosen.name or official.lower(), size=chosen.size,
        download=chosen.fetch, **shared(chosen)))
