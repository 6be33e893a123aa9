"""What the preparations of captioned sets share: lists read by the set's own reader, the pictures
that they name, and what is absent told before any work.

The lists decide: a picture that no chosen list names stays out and is counted.
"""

import argparse
import functools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep import preparing
from data_prep.archives import find, unpacked
from data_prep.command import finish
from data_prep.fetch import fetch, how_to_get
from data_prep.preparing import ABOUT, Item, PreparationError, is_prepared
from replication.pictures import PICTURES

Entry = tuple[str, list[str]]  # an image's file name, its captions in order
Entries = dict[str, list[Entry]]  # of each part


class Pictures(NamedTuple):
    """file: of each file name; strangers: what lies among them and is no picture by its name."""

    file: dict[str, Path]
    strangers: list[str]


class Raw(NamedTuple):
    """The folder of archives, packed or unpacked. into: where they are unpacked; limit: GB each."""

    folder: Path
    into: Path
    limit: float

    def find(self, archives: Sequence[str], *inner: str) -> Path | None:
        """The first of the `inner` paths, in the folder or else in its archives of these names:
        what lies there unpacked is not unpacked again."""
        return find([self.folder], *inner) or find(self._unpacked(archives), *inner)

    def pictures(self, archives: Sequence[str], inner: Sequence[str], wanted: Collection[str]
                 ) -> Pictures:
        """The pictures of the `inner` folders; archives are unpacked where a wanted one is not in
        the folder itself."""
        here = _pictures([self.folder], inner)
        if all(image in here.file for image in wanted):
            return here
        packed = _pictures(self._unpacked(archives), inner)
        return Pictures({**packed.file, **here.file}, here.strangers + packed.strangers)

    def _unpacked(self, archives: Sequence[str]) -> list[Path]:
        return unpacked(self.folder, archives, self.into, limit=self.limit)[1:]


def _pictures(folders: Iterable[Path], inner: Sequence[str]) -> Pictures:
    file, strangers = {}, []
    places = dict.fromkeys(find([folder], one) for folder in folders for one in inner)
    for place in (p for p in places if p and p.is_dir()):
        for entry in os.scandir(place):
            if os.path.splitext(entry.name)[1].lower() in PICTURES and entry.name[0] != ".":
                file.setdefault(entry.name, Path(entry.path))
            elif not entry.is_dir():
                strangers.append(f"{place.name}/{entry.name}")
    return Pictures(file, sorted(strangers))


def is_there(target: Path, settings: dict[str, Any], allow_missing: bool) -> bool:
    """As `is_prepared`; a set that lacks pictures is taken only where that is allowed."""
    if not is_prepared(target, settings):
        return False
    missing = json.loads((target / ABOUT).read_text(encoding="utf-8")).get("missing") or {}
    if missing and not allow_missing:
        count = sum(map(len, missing.values()))
        raise PreparationError(f"{target} lacks {count:,} of the listed pictures: --allow-missing "
                               "takes it as the subset it is; for the whole set move it away and "
                               "prepare it again")
    print(f"{target} is there already")
    return True


def chosen_parts(given: Sequence[str], parts: Sequence[str]) -> list[str]:
    """The parts asked for, as `test` or `dev,test` (`val` is dev), in the set's order; all of them
    where none is. Raises PreparationError for another name."""
    asked = {"dev" if one == "val" else one for some in given for one in some.split(",")}
    if unknown := sorted(asked - set(parts)):
        raise PreparationError(f"no part {', '.join(unknown)}: choose of {', '.join(parts)}")
    return [part for part in parts if part in asked or not asked]


def read_lists(name: str, lists: dict[str, Path], parts: Sequence[str], reader: str | None = None
               ) -> Entries:
    """The images and captions of each part, as `replication.captioned` reads them.

    lists: place in the prepared set -> annotation file; reader: of another set whose format it is.
    Raises PreparationError for a file that is torn or another one, and for ids without a caption.
    """
    from replication import captioned, paths  # not above: workers need no torch
    from replication.data import DatasetError

    read, _ = captioned.READERS[reader or name]
    with tempfile.TemporaryDirectory() as folder:
        for place, file in lists.items():
            Path(folder, place).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, place).symlink_to(file.resolve())
        try:
            return {part: list(read(Path(folder), name, part)) for part in parts}
        except DatasetError as error:
            told = str(error)
            for place, file in lists.items():
                told = told.replace(paths.shown(Path(folder, place)), str(file))
            raise PreparationError(told) from None


def check_lists(name: str, entries: Entries, allow_missing: bool) -> None:
    """Raises PreparationError for an image that is listed twice, and, but for a subset, for counts
    that are not the official ones."""
    from replication.captioned import N_IMAGES, PER_IMAGE

    parts_of: dict[str, list[str]] = {}
    for part, own in entries.items():
        for image, _ in own:
            parts_of.setdefault(image, []).append(part)
    twice = [f"{image} ({' and '.join(parts)})" for image, parts in parts_of.items()
             if len(parts) > 1]
    if twice:
        raise PreparationError(f"{len(twice):,} images are in the lists more than once: "
                               f"{named(twice)}. Take the lists of one source again")
    for part, own in entries.items():
        counts = len(own), sum(min(len(texts), PER_IMAGE) for _, texts in own)
        official = N_IMAGES[name][part]
        if counts != (official, PER_IMAGE * official) and not allow_missing:
            raise PreparationError(
                f"{name} {part} has {counts[0]:,} images with {counts[1]:,} captions, the official "
                f"part {official:,} with {PER_IMAGE * official:,}: take its lists again. "
                "--allow-missing takes what is there and calls it a subset")


def prepare_captioned(target: Path, settings: dict[str, Any], lists: dict[str, Path],
                      entries: Entries, found: Pictures, place: Callable[[str, str], str], *,
                      notes: dict[str, Any], allow_missing: bool, allow_damaged: bool,
                      workers: int | None) -> Path:
    """Makes the set of `lists` and the pictures that `entries` name, and reads every part of it.

    place: (part, file name) -> where a picture goes. dataset.json counts what the lists have
    (`listed`) and the pictures that they do not name (`unlisted`), and names the `missing` ones.
    """
    name = settings["name"]
    missing = {part: [image for image, _ in own if image not in found.file]
               for part, own in entries.items()}
    missing = {part: images for part, images in missing.items() if images}
    if missing and not allow_missing:
        raise PreparationError(_told(missing, entries, name))
    items = [Item(where, file, domain="annotations", picture=False)
             for where, file in lists.items()]
    items += [Item(place(part, image), found.file[image], part, "images")
              for part, own in entries.items() for image, _ in own if image in found.file]
    listed = {part: {"images": len(own), "captions": sum(len(texts) for _, texts in own)}
              for part, own in entries.items()}
    notes = {"listed": listed, "missing": missing, "ignored": found.strangers, **notes,
             "unlisted": len(found.file) - (len(items) - len(lists))}
    some = [part for part, own in entries.items() if len(missing.get(part, ())) < len(own)]
    check = functools.partial(_read, name=name, parts=some, partial=allow_missing or allow_damaged)
    return preparing.prepare(target, settings, items, check=check, notes=notes,
                             allow_damaged=allow_damaged, workers=workers)


def _read(half: Path, name: str, parts: Sequence[str], partial: bool) -> None:
    """Says what each part is, as who uses the set will read it."""
    from replication.captioned import read_captioned

    for part in parts:
        print(read_captioned(half.resolve(), name, part, allow_partial=partial))


def _told(missing: dict[str, list[str]], entries: Entries, name: str) -> str:
    lines = [f"  {part}: {len(images):,} of {len(entries[part]):,}: {named(images)}"
             for part, images in missing.items()]
    return ("listed pictures that are not there:\n" + "\n".join(lines) + "\n--allow-missing leaves "
            "them out and calls the set a subset; --parts prepares some parts only\n"
            + how_to_get(name))


def named(names: Sequence[str], most: int = 12) -> str:
    """The first ones, and how many more."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def not_found(absent: Iterable[str], raw: Path, name: str) -> PreparationError:
    """The error for annotation files that are not there."""
    return PreparationError(f"{raw} has no {', no '.join(absent)}, packed or unpacked\n"
                            + how_to_get(name))


def file_names(entries: Entries) -> Counter[str]:
    """File name -> captions, of all parts."""
    return Counter({image: len(texts) for own in entries.values() for image, texts in own})


def add_options(parser: argparse.ArgumentParser, parts: Sequence[str]) -> argparse.ArgumentParser:
    """--parts and --allow-missing."""
    parser.add_argument("--parts", action="append", default=[], metavar="PART,...",
                        help=f"only these of {', '.join(parts)}, and only their pictures "
                             "(default all)")
    parser.add_argument("--allow-missing", action="store_true",
                        help="leave out listed pictures that are not there, and name them: a "
                             "subset of the published set")
    return parser


def run(make: Callable[..., Path], chosen: argparse.Namespace, name: str,
        only: Callable[[Sequence[str]], Sequence[str]] = lambda parts: ()) -> int:
    """Calls a set's `prepare` with the options of `add_options`. With --fetch, what is not in --raw
    is downloaded first, but for a set that is there; only: parts -> the files to download."""
    folder = chosen.name or name

    def made() -> Path:
        if chosen.fetch and not (chosen.out / folder).exists():
            fetch(name, chosen.raw, only(chosen.parts))
        return make(chosen.raw, chosen.out, name=folder, parts=chosen.parts,
                    allow_missing=chosen.allow_missing, allow_damaged=chosen.allow_damaged,
                    max_unpacked=chosen.max_unpacked, workers=chosen.workers)

    return finish(made)
