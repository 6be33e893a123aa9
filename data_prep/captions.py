"""What the preparations of captioned sets share: lists read by the set's own reader, the pictures
that they name, and what is absent told before any work.

The lists decide: a picture that no chosen list names stays out and is counted.
"""

import functools
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_prep import preparing
from data_prep.listed import Pictures, absent_pictures, named
from data_prep.preparing import Item, PreparationError

Entry = tuple[str, list[str]]  # an image's file name, its captions in order
Entries = dict[str, list[Entry]]  # of each part


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
        raise absent_pictures(missing, {part: len(own) for part, own in entries.items()}, name)
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


def file_names(entries: Entries) -> Counter[str]:
    """File name -> captions, of all parts."""
    return Counter({image: len(texts) for own in entries.values() for image, texts in own})
