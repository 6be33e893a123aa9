"""CIRCO: its annotations and the unlabeled pictures of COCO 2017 to one folder. Only to measure:
it has no training part.

    python -m data_prep.circo --raw FOLDER --out DATA

FOLDER holds, packed or unpacked,
- annotations/val.json and annotations/test.json: GitHub's miccunifi/CIRCO;
- annotations/image_info_unlabeled2017.json: COCO's image_info_unlabeled2017.zip;
- unlabeled2017/<12 digits>.jpg, 123,403 pictures: COCO's unlabeled2017.zip.
The last two may also lie in COCO2017_unlabeled/, as the authors of CIRCO put them. Archives are
those whose names begin with circo, image_info_unlabeled2017 or unlabeled2017.

The result is DATA/circo_dataset/{annotations,unlabeled2017}/, which `replication.circo` reads: 220
queries of val and 800 of test, on one gallery of all the pictures.

Sources: Baldrati et al., Zero-Shot Composed Image Retrieval with Textual Inversion (2023) and the
readme of miccunifi/CIRCO.
"""

import functools
import os
import sys
from pathlib import Path

from data_prep.command import parser
from data_prep.composed import (
    Found,
    annotations,
    pictures,
    prepare_composed,
    read_json,
    read_parts,
    read_rows,
)
from data_prep.listed import Raw, add_missing, is_there, run
from data_prep.preparing import Item, PreparationError

NAME, FOLDER, PICTURES = "circo", "circo_dataset", "unlabeled2017"
INFO = f"image_info_{PICTURES}"
PARTS = ("val", "test")
ARCHIVES = (NAME, INFO)
PLACES = (PICTURES, f"COCO2017_unlabeled/{PICTURES}")
FILES = {**{f"annotations/{part}.json": () for part in PARTS},
         f"annotations/{INFO}.json": (f"COCO2017_unlabeled/annotations/{INFO}.json",)}


def prepare(raw: Path, out: Path, *, name: str = FOLDER, allow_missing: bool = False,
            allow_damaged: bool = False, max_unpacked: float = 200, workers: int | None = None
            ) -> Path:
    """Makes out/name. allow_missing: leave out pictures of the gallery that are not there. Raises
    PreparationError, or what `replication.circo` finds wrong."""
    target, settings = out / name, {"name": NAME}
    if is_there(target, settings, allow_missing):
        return target
    source = Raw(raw, out / ".unpacked" / NAME, max_unpacked)
    files = annotations(source, ARCHIVES, FILES, NAME)
    listed = _gallery(files[f"annotations/{INFO}.json"])
    found = pictures(source, (PICTURES,), PLACES, listed)
    found = Found({stem: path for stem, path in found.file.items()
                   if listed.get(stem) in (None, os.path.basename(path))}, *found[1:])
    queries = {part: len(read_rows(files[f"annotations/{part}.json"])) for part in PARTS}
    notes = {"listed": {"gallery": {"images": len(listed)},
                        **{part: {"queries": n} for part, n in queries.items()}}}
    return prepare_composed(
        target, settings, files, {"gallery": list(listed)}, found, _item,
        check=functools.partial(_read, partial=allow_missing or allow_damaged), notes=notes,
        allow_missing=allow_missing, allow_damaged=allow_damaged, workers=workers)


def _gallery(file: Path) -> dict[str, str]:
    """Name without suffix -> file name, of every image that COCO's file lists."""
    try:
        names = [image["file_name"] for image in read_json(file)["images"]]
        return {os.path.splitext(os.path.basename(name))[0]: name for name in names}
    except (KeyError, TypeError) as error:
        raise PreparationError(f"{file} does not list images by file_name ({error}): is it another "
                               "file?") from None


def _item(name: str, file: str) -> Item:
    return Item(f"{PICTURES}/{os.path.basename(file)}", Path(file), domain="images")


def _read(half: Path, partial: bool) -> None:
    from replication.circo import read_circo  # not above: workers need no torch

    read_parts(PARTS, lambda part: read_circo(half.resolve(), part, allow_missing=partial))


def main(arguments: list[str] | None = None) -> int:
    given = add_missing(parser(NAME, __doc__)).parse_args(arguments)
    return run(prepare, given, NAME, FOLDER)


if __name__ == "__main__":
    sys.exit(main())
