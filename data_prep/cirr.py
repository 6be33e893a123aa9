"""CIRR: its annotations and the pictures of NLVR2 to the layout of SPRC's readme.

    python -m data_prep.cirr --raw FOLDER --out DATA [--parts val,test1]

FOLDER holds, packed or unpacked,
- captions/cap.rc2.<part>.json and image_splits/split.rc2.<part>.json (also under cirr/), and
  captions_ext/ where there is one: the branch cirr_dataset of GitHub's Cuberick-Orion/CIRR;
- the pictures of NLVR2, which its authors give after a form: train_img.zip with
  images/train/<0 to 99>/<name>.png, dev_img.zip with dev/, test1_img.zip with test1/. Unpacked,
  they lie in train/, dev/, test1/, images/ or img_raw/; folders train/<number> may be absent.
Archives are those whose names begin with cirr, train_img, dev_img, test1_img, images, img_raw or
nlvr2.

The result is DATA/cirr_dataset/{train/<number>,dev,test1}/<name>.png with
cirr/{captions,captions_ext,image_splits}/. Only pictures that the splits name go in: 16,939 of
train, 2,297 of val (their folder is dev), 2,315 of test1. Many files called .png hold a JPEG, as
NLVR2's readme says: they stay as they are and dataset.json names them.

Sources: Liu et al., Image Retrieval on Real-life Images with Pre-trained Vision-and-Language Models
(2021) and the readmes of both repositories. Its Table 2 says 4,184 pairs of val; the file has
4,181, and the authors' readme calls the table's number a typo.
"""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.command import parser
from data_prep.composed import (
    annotations,
    chosen,
    pictures,
    prepare_composed,
    read_json,
    read_parts,
    read_rows,
)
from data_prep.listed import Raw, add_choice, add_missing, is_there, run
from data_prep.preparing import Item, PreparationError

NAME, FOLDER = "cirr", "cirr_dataset"
PARTS = ("train", "val", "test1")
ARCHIVES = ("cirr",)  # of the annotations, by the start of their names
PACKED = ("train_img", "dev_img", "test1_img", "images", "img_raw", "nlvr2", *ARCHIVES)
PLACES = ("images", "img_raw", "train", "dev", "test1")
VAL_PAIRS = ("Table 2 of the paper says 4,184 pairs of val; the file has 4,181, and the authors' "
             "readme calls the table's number a typo")


def prepare(raw: Path, out: Path, *, name: str = FOLDER, parts: Sequence[str] = (),
            allow_missing: bool = False, allow_damaged: bool = False, max_unpacked: float = 200,
            workers: int | None = None) -> Path:
    """Makes out/name. parts: some of train, val, test1 (default all). allow_missing: leave out
    listed pictures that are not there. Raises PreparationError, or what `replication.composed`
    finds wrong."""
    parts = chosen(parts, PARTS, "part")
    settings = {"name": NAME, "parts": parts}
    target = out / name
    if is_there(target, settings, allow_missing):
        return target
    source = Raw(raw, out / ".unpacked" / NAME, max_unpacked)
    files = _annotations(source, parts)
    places = {part: _split(files[f"cirr/image_splits/split.rc2.{part}.json"]) for part in parts}
    where = {image: (part, place) for part, own in places.items() for image, place in own.items()}
    found = pictures(source, PACKED, PLACES, where)
    check = functools.partial(_read, parts=[p for p in parts if places[p].keys() & found.file],
                              partial=allow_missing or allow_damaged)
    return prepare_composed(
        target, settings, files, {part: list(own) for part, own in places.items()}, found,
        functools.partial(_item, where), check=check, notes=_notes(files, places),
        allow_missing=allow_missing, allow_damaged=allow_damaged, workers=workers)


def _annotations(raw: Raw, parts: Sequence[str]) -> dict[str, Path]:
    """The files of the parts; those of captions_ext, which nothing here reads, where they are."""
    wanted = [f"{folder}.rc2.{part}.json" for part in parts
              for folder in ("captions/cap", "image_splits/split")]
    extra = [f"captions_ext/cap.ext.rc2.{part}.json" for part in parts]
    found = annotations(raw, ARCHIVES, {f"cirr/{one}": (one,) for one in wanted}, NAME)
    more = {f"cirr/{one}": raw.find(ARCHIVES, f"cirr/{one}", one) for one in extra}
    return {**found, **{place: file for place, file in more.items() if file}}


def _split(file: Path) -> dict[str, str]:
    """Image name -> its place without suffix, as `train/34/train-11041-2-img0`."""
    content = read_json(file)
    if not isinstance(content, dict) or not all(isinstance(p, str) and p.strip("./")
                                                for p in content.values()):
        raise PreparationError(f"{file} does not map image names to paths: is it another file?")
    places = {image: PurePosixPath(place).with_suffix("") for image, place in content.items()}
    if strange := [str(place) for image, place in places.items()
                   if place.name != image or place.parts[0] not in ("train", "dev", "test1")]:
        raise PreparationError(f"{file}: {len(strange):,} paths are not in train, dev or test1, or "
                               f"not of their image: {', '.join(strange[:12])}")
    return {image: place.as_posix() for image, place in places.items()}


def _item(where: dict[str, tuple[str, str]], image: str, file: str) -> Item:
    part, place = where[image]
    return Item(place + Path(file).suffix, Path(file), part, "images")


def _notes(files: dict[str, Path], places: dict[str, dict[str, str]]) -> dict[str, Any]:
    listed = {part: {"images": len(own),
                     "queries": len(read_rows(files[f"cirr/captions/cap.rc2.{part}.json"]))}
              for part, own in places.items()}
    return {"listed": listed, **({"val_pairs": VAL_PAIRS} if "val" in places else {})}


def _read(half: Path, parts: Sequence[str], partial: bool) -> None:
    from replication.composed import read_composed  # not above: workers need no torch

    read_parts(parts, lambda part: read_composed(half.resolve(), NAME, part, allow_missing=partial),
               "; --parts prepares some parts only")


def main(arguments: list[str] | None = None) -> int:
    options = add_missing(parser(NAME, __doc__))
    add_choice(options, "--parts", PARTS)
    given = options.parse_args(arguments)
    return run(prepare, given, NAME, FOLDER, parts=given.parts)


if __name__ == "__main__":
    sys.exit(main())
