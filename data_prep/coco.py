"""COCO captions: the official 2014 archives to a set of pictures, captions and retrieval splits.

    python -m data_prep.coco --raw FOLDER --out DATA [--split vse|karpathy|both] [--parts test]

FOLDER holds, packed or unpacked, `train2014.zip`, `val2014.zip`, `annotations_trainval2014.zip`
(of which only `captions_{train,val}2014.json` are taken) and the lists of the split: VSE++'s
`coco_{train,restval,dev,test}_ids.npy`, alone or in its `data.tar`, or Karpathy's
`dataset_coco.json`, alone or in `caption_datasets.zip`. Pictures may also lie in `images/`.
The result is `DATA/coco/{annotations,images/train2014,images/val2014}`.

--split: whose lists are taken, by default those that are there; of both, VSE++'s ids decide and
dataset.json says whether Karpathy's file has the same images. --parts test needs no train2014.zip
and no other ids, so it is enough for an evaluation.

Sources: Chen et al., Microsoft COCO Captions (2015); the splits: Karpathy and Fei-Fei (2015),
train 82,783, restval 30,504, val (here dev) 5,000 and test 5,000 images; their first five captions
an image as ids: Faghri et al., VSE++ (2018), `data.py` of its code.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_prep import captions
from data_prep.captions import Entries
from data_prep.command import parser
from data_prep.listed import Pictures, Raw, add_choice, add_missing, is_there, named, not_found, run
from data_prep.sources import source

NAME = "coco"
PARTS = ("train", "restval", "dev", "test")
SPLITS = ("vse", "karpathy", "both")
YEAR = {"train": "train2014", "restval": "val2014", "dev": "val2014", "test": "val2014"}
KARPATHY = "dataset_coco.json"
INSIDE = ("", "annotations/", "coco/annotations/", "data/coco/annotations/", "karpathy/",
          "caption_datasets/")


def prepare(raw: Path, out: Path, split: str | None = None, *, name: str = NAME,
            parts: Sequence[str] = (), allow_missing: bool = False, allow_damaged: bool = False,
            max_unpacked: float = 200, workers: int | None = None) -> Path:
    """Makes `out/name` whole or not at all; a finished one of the same split and parts is left.

    split: one of SPLITS, by default what is in `raw`; parts: of PARTS, by default all;
    allow_missing: leave listed pictures out that are not there. Raises PreparationError.
    """
    parts, target = captions.chosen_parts(parts, PARTS), out / name
    settings = {"name": NAME, "parts": parts} | ({"split": split} if split else {})
    if is_there(target, settings, allow_missing):
        return target
    found = Raw(raw, out / ".unpacked" / NAME, max_unpacked)
    lists, split = _lists(found, split, parts)
    entries = captions.read_lists(NAME, lists, parts, "flickr30k" if split == "karpathy" else None)
    captions.check_lists(NAME, entries, allow_missing)
    notes = {"captions_there": _captions_there(lists, entries)}
    if split == "both":
        notes["karpathy"] = _agreement(lists, entries)
    return captions.prepare_captioned(
        target, settings | {"split": split}, lists, entries, _pictures(found, entries),
        lambda part, image: f"images/{YEAR[part]}/{image}", notes=notes,
        allow_missing=allow_missing, allow_damaged=allow_damaged, workers=workers)


def _lists(raw: Raw, split: str | None, parts: Sequence[str]) -> tuple[dict[str, Path], str]:
    """Place in the set -> annotation file; and the split that they are of."""
    ids = [f"coco_{part}_ids.npy" for part in parts]
    there = {name: _one(raw, "data.tar", name) for name in ids} if split != "karpathy" else {}
    karpathy = _one(raw, "caption_datasets", KARPATHY) if split != "vse" else None
    vse = any(there.values())
    if not (split or vse or karpathy):
        raise not_found([f"coco_<part>_ids.npy of VSE++ nor Karpathy's {KARPATHY}"],
                                 raw.folder, NAME)
    split = split or ("both" if vse and karpathy else "karpathy" if karpathy else "vse")
    if split != "vse":
        there[KARPATHY] = karpathy
    if split == "karpathy":
        there = {KARPATHY: karpathy}
    else:
        there |= {name: _one(raw, "annotations_trainval2014", name) for name in
                  dict.fromkeys(f"captions_{YEAR[part]}.json" for part in parts)}
    if absent := [name for name, file in there.items() if not file]:
        raise not_found(absent, raw.folder, NAME)
    return {f"annotations/{name}": file for name, file in there.items()}, split


def _one(raw: Raw, archive: str, name: str) -> Path | None:
    return raw.find([archive], *(inside + name for inside in INSIDE))


def _pictures(raw: Raw, entries: Entries) -> Pictures:
    """Those of the years that the parts need; an archive that none needs is not unpacked."""
    found = Pictures({}, [])
    for year in dict.fromkeys(YEAR[part] for part in entries):
        wanted = [image for part, own in entries.items() if YEAR[part] == year for image, _ in own]
        more = raw.pictures([year], (year, f"images/{year}", "images"), wanted)
        strangers = found.strangers + [s for s in more.strangers if s not in found.strangers]
        found = Pictures({**found.file, **more.file}, strangers)
    return found


def _captions_there(lists: dict[str, Path], entries: Entries) -> dict[str, dict[str, int]]:
    """Captions that the images of a part have in the captions files (Karpathy's has all, too), and
    how many images have more than five: five count."""
    count = Counter[str]()
    for place, file in lists.items():
        if "/captions_" in place:
            content = json.loads(file.read_bytes())
            of_id = {row["id"]: row["file_name"] for row in content["images"]}
            count.update(of_id.get(row["image_id"], "") for row in content["annotations"])
    count = count or captions.file_names(entries)
    each = {part: [count[image] for image, _ in own] for part, own in entries.items()}
    return {part: {"captions": sum(own), "images_with_more_than_five": sum(n > 5 for n in own)}
            for part, own in each.items()}


def _agreement(lists: dict[str, Path], entries: Entries) -> dict[str, str]:
    """part -> in words, whether Karpathy's file has the images that the ids are of."""
    theirs = captions.read_lists(NAME, lists, list(entries), "flickr30k")
    result = {}
    for part, own in entries.items():
        ids, other = ({image for image, _ in some} for some in (own, theirs[part]))
        lone = {"VSE++'s ids": sorted(ids - other), "Karpathy's file": sorted(other - ids)}
        differ = [f"{len(images):,} only in {whose}: {named(images)}"
                  for whose, images in lone.items() if images]
        result[part] = "; ".join(differ) or f"the same {len(ids):,} images"
    return result


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 1 where something is wrong."""
    options = add_missing(parser(NAME, __doc__))
    add_choice(options, "--parts", PARTS)
    options.add_argument("--split", choices=SPLITS, help="whose lists (default those that are "
                         "there)")
    given = options.parse_args(arguments)
    return run(prepare, given, NAME, parts=given.parts, split=given.split,
               only=lambda: _files(given.parts))


def _files(parts: Sequence[str]) -> list[str]:
    """What --fetch downloads: not the pictures of a year that no part needs."""
    years = {YEAR[part] for part in captions.chosen_parts(parts, PARTS)}
    needless = {f"{year}.zip" for year in set(YEAR.values()) - years}
    return [file.name for file in source(NAME).files
            if file.needed == "always" and file.name not in needless]


if __name__ == "__main__":
    sys.exit(main())
