"""Flickr30K: the official pictures and Karpathy's split of them.

    python -m data_prep.flickr30k --raw FOLDER --out DATA [--parts test]

FOLDER holds, packed or unpacked, `flickr30k-images.tar.gz` (a form gives its address) and
Karpathy's `dataset_flickr30k.json`, alone or in `caption_datasets.zip`. The original captions,
`results_20130124.token`, may lie there and are not needed. The result is
`DATA/flickr30k/{dataset_flickr30k.json,images/}`: the pictures that the split names, which are
fewer than the official ones.

Sources: Young et al., From image descriptions to visual denotations (2014), 31,783 pictures; the
split: Karpathy and Fei-Fei (2015), 29,000 train, 1,014 val (here dev), 1,000 test.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import captions
from data_prep.command import parser
from data_prep.listed import Raw, add_choice, add_missing, is_there, not_found, run

NAME = "flickr30k"
PARTS = ("train", "dev", "test")
KARPATHY = "dataset_flickr30k.json"
FOLDERS = ("flickr30k-images", "flickr30k_images", "flickr30k_images/flickr30k_images", "images")


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
    lists = {KARPATHY: found.find(["caption_datasets"], KARPATHY)}
    if not lists[KARPATHY]:
        raise not_found(lists, raw, NAME)
    entries = captions.read_lists(NAME, lists, parts)
    captions.check_lists(NAME, entries, allow_missing)
    pictures = found.pictures(["flickr30k-images", "flickr30k_images"], FOLDERS,
                              captions.file_names(entries))
    return captions.prepare_captioned(
        target, settings, lists, entries, pictures, lambda _, image: f"images/{image}", notes={},
        allow_missing=allow_missing, allow_damaged=allow_damaged, workers=workers)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 where something is wrong."""
    options = add_missing(parser(NAME, __doc__))
    add_choice(options, "--parts", PARTS)
    given = options.parse_args(arguments)
    return run(prepare, given, NAME, parts=given.parts)


if __name__ == "__main__":
    sys.exit(main())
