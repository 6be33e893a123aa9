"""What the preparations of composed sets share: annotation files found and read, pictures found by
their names, what is absent told before any work.

The split files decide: a picture that none of the chosen ones names stays out and is counted.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep import preparing
from data_prep.archives import find, unpacked
from data_prep.listed import Raw, absent_pictures, not_found
from data_prep.preparing import Item, PreparationError

SUFFIXES = (".png", ".jpg", ".jpeg")  # replication.composed's; of two files the first


class Found(NamedTuple):
    """file: picture of each name without suffix; several: names that more than one file has;
    strangers: what lies in a folder of pictures and is none by its name."""

    file: dict[str, str]
    several: list[str]
    strangers: list[str]


def annotations(raw: Raw, archives: Sequence[str], places: Mapping[str, Sequence[str]], name: str
                ) -> dict[str, Path]:
    """place in the prepared set -> its file in raw or in the archives of these names.

    places: place -> where else in raw it may be. Raises PreparationError that lists the absent.
    """
    found = {place: raw.find(archives, place, *others) for place, others in places.items()}
    if absent := [place for place, file in found.items() if file is None]:
        raise not_found(absent, raw.folder, name)
    return {place: file for place, file in found.items() if file}


def read_json(file: Path) -> Any:
    """The content of a JSON file; PreparationError for a torn one, or another file."""
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise PreparationError(f"{file} is not whole, or another file ({error}): take it "
                               "again") from None


def read_rows(file: Path) -> list:
    """The rows of a JSON file that is a list; PreparationError for another."""
    content = read_json(file)
    if not isinstance(content, list):
        raise PreparationError(f"{file} is not a list: is it another file?")
    return content


def chosen(given: Sequence[str], known: Sequence[str], what: str) -> list[str]:
    """Of `known`, in its order, what an option names, as `val` or `train,val`; all where it is not
    given. Raises PreparationError for another name."""
    asked = {one.strip() for some in given for one in some.split(",")}
    if unknown := sorted(asked - set(known)):
        raise PreparationError(f"no {what} {', '.join(map(repr, unknown))}: choose of "
                               f"{', '.join(known)}")
    return [one for one in known if one in asked or not asked]


# ------------------------------------------------------------------------------------ pictures


def pictures(raw: Raw, archives: Sequence[str], inner: Sequence[str], wanted: Collection[str],
             last: str = "") -> Found:
    """The pictures of the `inner` folders of raw and of the folders in them. Where these lack a
    wanted name, the archives of these names are unpacked and looked through as well."""
    here = [place for one in inner if (place := find([raw.folder], one))]
    found = found_in(here, last)
    if all(name in found.file for name in wanted):
        return found
    packed = unpacked(raw.folder, archives, raw.into, limit=raw.limit)[1:]
    return found_in([*here, *packed], last) if packed else found


def found_in(folders: Iterable[Path], last: str = "") -> Found:
    """The pictures of folders and of those in them. Of several files of a name counts: one that is
    not in a folder called `last`, the first of SUFFIXES, the first path."""
    ranked, others = [], []
    for path in _files(folders):
        folder, name = os.path.split(path)
        suffix = os.path.splitext(name)[1].lower()
        if suffix in SUFFIXES and not name.startswith("."):
            ranked.append((os.path.basename(folder) == last, SUFFIXES.index(suffix), path))
        else:
            others.append((folder, name))
    file: dict[str, str] = {}
    several = set()
    for _, _, path in sorted(ranked):
        stem = os.path.splitext(os.path.basename(path))[0]
        if file.setdefault(stem, path) != path:
            several.add(stem)
    of_pictures = {os.path.dirname(path) for _, _, path in ranked}
    strangers = [f"{os.path.basename(folder)}/{name}" for folder, name in others
                 if folder in of_pictures]
    return Found(file, sorted(several), sorted(strangers))


def _files(folders: Iterable[Path]) -> Iterator[str]:
    """Every file below the folders once, though one folder lies in another or links go round."""
    waiting, seen = [str(folder) for folder in folders], set()
    while waiting:
        folder = waiting.pop()
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        for entry in os.scandir(folder):
            if not entry.is_dir():
                yield entry.path
            elif not entry.name.startswith("."):
                waiting.append(entry.path)


# ------------------------------------------------------------------------------------- the set


def prepare_composed(target: Path, settings: dict[str, Any], files: Mapping[str, Path],
                     listed: Mapping[str, Sequence[str]], found: Found,
                     item: Callable[[str, str], Item], *, check: Callable[[Path], object],
                     notes: dict[str, Any], allow_missing: bool, allow_damaged: bool,
                     workers: int | None) -> Path:
    """Makes the set of the annotation `files` and of the pictures that the parts list.

    listed: part -> names; item: (name, picture file) -> its Item; check: reads the half-made set.
    dataset.json names the `missing` pictures of each part and counts the `unlisted` ones.
    """
    missing = {part: [name for name in names if name not in found.file]
               for part, names in listed.items()}
    missing = {part: names for part, names in missing.items() if names}
    if missing and not allow_missing:
        raise absent_pictures(missing, {part: len(own) for part, own in listed.items()},
                              settings["name"])
    names = dict.fromkeys(name for own in listed.values() for name in own)
    items = [Item(place, file, domain="annotations", picture=False)
             for place, file in files.items()]
    items += [item(name, found.file[name]) for name in names if name in found.file]
    notes = {**notes, "missing": missing, "unlisted": len(found.file.keys() - names.keys()),
             "several_files": [name for name in found.several if name in names],
             "ignored": found.strangers}
    if missing:
        lacking = sum(name not in found.file for name in names)
        print(f"{lacking:,} of {len(names):,} listed pictures are missing: this is a subset")
    return preparing.prepare(target, settings, items, check=check, notes=notes,
                             allow_damaged=allow_damaged, workers=workers)


def read_parts(parts: Iterable[str], read: Callable[[str], object], hint: str = "") -> None:
    """Says what each part is, as who uses the set will read it. Raises PreparationError for a part
    that the reader refuses."""
    from replication.data import DatasetError  # not above: workers need no torch

    for part in parts:
        try:
            print(read(part))
        except DatasetError as error:
            raise PreparationError(f"{part} cannot be used: {error}{hint}") from None
