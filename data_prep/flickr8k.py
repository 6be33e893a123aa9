"""Flickr8k: the official pictures, captions and splits.

    python -m data_prep.flickr8k --raw FOLDER --out DATA [--parts test]

FOLDER holds, packed or unpacked, `Flickr8k_Dataset.zip` (pictures in `Flicker8k_Dataset/`, so
spelled) and `Flickr8k_text.zip` (`Flickr8k.token.txt`, `Flickr_8k.{train,dev,test}Images.txt`), or
the names of the result, which is
`DATA/flickr8k/{captions.token.txt,{train,dev,test}_images.txt,images/}`.

The official captions name `2258277193_586949ec62.jpg.1`, which no archive holds and no split
lists; dataset.json names such (`captioned_but_no_picture`). Pictures in no split stay out.

Source: Hodosh et al., Framing image description as a ranking task (2013): 6,000 train, 1,000 dev
and 1,000 test images, five captions each.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import captions
from data_prep.command import parser
from data_prep.listed import Raw, add_choice, add_missing, is_there, not_found, run
from replication.pictures import PICTURES

NAME = "flickr8k"
PARTS = ("train", "dev", "test")
TOKENS = ("captions.token.txt", "Flickr8k.token.txt")
FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "images")


def prepare(raw: Path, out: Path, *, name: str = NAME, parts: Sequence[str] = (),
            allow_missing: bool = False, allow_damaged: bool = False, max_unpacked: float = 200,
            workers: int | None = None) -> Path:
    """Makes `out/name` whole or not at all; a finished one of the same parts is left alone.

    parts: of PARTS, by default all; allow_missing: leave listed pictures out that are not there.
    Raises PreparationError.
    """
    target, parts = out / name, captions.chosen_parts(parts, PARTS)
    settings = {"name": NAME, "parts": parts}
    if is_there(target, settings, allow_missing):
        return target
    found = Raw(raw, out / ".unpacked" / NAME, max_unpacked)
    lists = _lists(found, parts)
    entries = captions.read_lists(NAME, lists, parts)
    captions.check_lists(NAME, entries, allow_missing)
    pictures = found.pictures(["Flickr8k_Dataset", "Flicker8k_Dataset"], FOLDERS,
                              captions.file_names(entries))
    return captions.prepare_captioned(
        target, settings, lists, entries, pictures, lambda _, image: f"images/{image}",
        notes=_captioned(lists[TOKENS[0]]), allow_missing=allow_missing,
        allow_damaged=allow_damaged, workers=workers)


def _lists(raw: Raw, parts: Sequence[str]) -> dict[str, Path]:
    """Place in the set -> annotation file, whichever of its two names that has."""
    names = {TOKENS[0]: TOKENS} | {f"{part}_images.txt": (f"{part}_images.txt",
                                                          f"Flickr_8k.{part}Images.txt")
                                   for part in parts}
    lists = {place: raw.find(["Flickr8k_text"], *own) for place, own in names.items()}
    if absent := [" or ".join(names[place]) for place, file in lists.items() if not file]:
        raise not_found(absent, raw.folder, NAME)
    return lists


def _captioned(tokens: Path) -> dict[str, object]:
    """Captions of the token file in all, its images, and those whose names are no picture's."""
    lines = [line for line in tokens.read_text(encoding="utf-8").split("\n") if line.strip()]
    images = {line.partition("\t")[0].rpartition("#")[0] for line in lines}
    odd = sorted(i for i in images if os.path.splitext(i)[1].lower() not in PICTURES)
    return {"captions_there": len(lines), "captioned_images": len(images),
            "captioned_but_no_picture": odd}


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 where something is wrong."""
    options = add_missing(parser(NAME, __doc__))
    add_choice(options, "--parts", PARTS)
    given = options.parse_args(arguments)
    return run(prepare, given, NAME, parts=given.parts)


if __name__ == "__main__":
    sys.exit(main())
