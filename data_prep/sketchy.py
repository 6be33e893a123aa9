"""Sketchy: the official archives to a prepared zero-shot set.

    python -m data_prep.sketchy --raw FOLDER --out DATA --split 104/21

FOLDER holds the archive rendered_256x256 (or its content,
`256x256/{photo,sketch}/tx_000000000000/<class>/`) and, for the extended set, the archive of
`EXTEND_image_sketchy/<class>/` (any name that starts with `extend`) or that folder. The result is
`DATA/sketchy/{train,val}/{sketch,photo}/<class>/`: train holds the seen classes, val the unseen
ones. Pictures are hard links where the file system allows; none is changed.

The extension holds the base archive's photos once more, and ZSE-SBIR's published lists name them
twice (100/25: 17,101 unseen photos, of which 14,601 differ). `--duplicates keep`, the default,
makes such a gallery, with which published numbers can be compared: the extension's copy of photo
`X.jpg` is `X.extended.jpg`. `--duplicates drop` takes each once, the base archive's; choose it for
instance-level retrieval, where a copy would count as another photo. dataset.json names every photo
that is in both archives, and whether its bytes are the same.

--lists FOLDER takes only what published lists name, as ZSE-SBIR's datasets/Sketchy/zeroshot1. They
leave out about a twelfth of the seen classes' sketches.

Sources: Sangkloy et al., The Sketchy Database (2016); extension: Liu et al., DSH (2017); splits:
104/21 from Yelamarthi et al. (2018), 100/25 from Shen et al. (2018).
"""

import filecmp
import sys
from pathlib import Path
from typing import Any

from data_prep import preparing
from data_prep.class_folders import pictures_by_class
from data_prep.class_lists import class_lists
from data_prep.command import finish, parser, shared
from data_prep.lists import Found, check_split, only_listed, read_lists
from data_prep.preparing import Item
from data_prep.sketch_sets import (
    is_there,
    items,
    located,
    missing,
    parts_of,
    plural,
    readable,
    told,
    under_own_names,
)
from replication.pictures import spread

NAME = "sketchy"
CLASSES, SPLITS, _ = class_lists(NAME)
UNSEEN = {name: split.unseen for name, split in SPLITS.items()}
BASE, EXTENSION = "rendered_256x256", "EXTEND_image_sketchy"
RENDERING = "tx_000000000000"


def prepare(raw: Path, out: Path, split: str = "104/21", *, name: str = NAME,
            lists: Path | None = None, duplicates: str = "keep",
            sketch_rendering: str = RENDERING, photo_rendering: str = RENDERING,
            download: bool = False, allow_damaged: bool = False, max_unpacked: float = 200,
            workers: int | None = None) -> Path:
    """Makes `out/name` whole or not at all and returns it; a finished one of the same settings is
    left alone. Raises PreparationError that names every offender.

    lists: folder of published lists. duplicates: `drop` or `keep` photos that are in both archives.
    *_rendering: folder of the base archive's renderings. download: fetch what needs no login.
    max_unpacked: GB.
    """
    chosen = read_lists(lists) if lists else None
    settings = {"name": NAME, "split": split, "lists": chosen and chosen.digest,
                "duplicate_photos": duplicates,
                "renderings": {"sketch": sketch_rendering, "photo": photo_rendering}}
    if is_there(NAME, raw, out / name, settings, download):
        return out / name
    found, strangers = source_files(raw, out / ".unpacked" / NAME, sketch_rendering,
                                    photo_rendering, max_unpacked)
    notes: dict[str, Any] = {"ignored": told(strangers, raw)}
    if chosen:
        check_split(chosen, SPLITS[split], split)
        found, notes["listed"] = only_listed(chosen, found, SPLITS[split], _source_of)
    notes["duplicates"] = _in_both(found, workers)
    if duplicates == "drop" and _pairs(found):
        notes["published_as"] = f"{split}, each photo once"
    made = _items(found, parts_of(SPLITS[split]), duplicates == "keep")
    return preparing.prepare(out / name, settings, made, check=readable, notes=notes,
                             allow_damaged=allow_damaged, workers=workers)


def source_files(raw: Path, into: Path, sketch_rendering: str = RENDERING,
                 photo_rendering: str = RENDERING, limit: float = 200
                 ) -> tuple[Found, list[Path]]:
    """`sketch`, `photo` and, where it is there, `extended` -> class -> files; and what is no
    picture. Archives are unpacked into `into`; limit: GB."""
    folders = {domain: _base(raw, domain, rendering, into, limit) for domain, rendering in
               (("sketch", sketch_rendering), ("photo", photo_rendering))}
    extension = located(raw, (EXTENSION, f"{EXTENSION}_ready"), ("extend",), into, limit)
    if extension:
        folders["extended"] = extension
    found, strangers = {}, []
    for source, folder in folders.items():
        by_class, others = pictures_by_class(folder)
        found[source] = under_own_names(by_class, CLASSES, folder)
        strangers += others
    return found, strangers


def _base(raw: Path, domain: str, rendering: str, into: Path, limit: float) -> Path:
    places = [f"256x256/{domain}", domain]
    archives = (BASE, "256x256")
    folder = located(raw, [f"{place}/{rendering}" for place in places], archives, into, limit)
    if folder:
        return folder
    other = located(raw, places, archives, into, limit)
    there = f"; there are {', '.join(sorted(f.name for f in other.iterdir()))}" if other else ""
    raise missing(f"{raw} holds no 256x256/{domain}/{rendering}, nor the archive {BASE} with it"
                  f"{there}", NAME)


def _source_of(domain: str, path: str) -> str:
    return "extended" if path.startswith("EXTEND") else domain


def _pairs(found: Found) -> dict[str, tuple[Path, Path]]:
    """`<class>/<name>` -> a photo's file in the base archive and in the extension."""
    base = {f"{c}/{f.name}": f for c, files in found["photo"].items() for f in files}
    extended = {f"{c}/{f.name}": f for c, files in found.get("extended", {}).items()
                for f in files}
    return {name: (base[name], extended[name]) for name in base if name in extended}


def _same_bytes(pair: tuple[Path, Path]) -> bool:
    return filecmp.cmp(*pair, shallow=False)


def _in_both(found: Found, workers: int | None) -> dict[str, Any]:
    """The photos that are in both archives, counted and named."""
    pairs = _pairs(found)
    same = dict(zip(pairs, spread(_same_bytes, list(pairs.values()), workers), strict=True))
    names = {"same bytes": [n for n in pairs if same[n]],
             "other bytes": [n for n in pairs if not same[n]]}
    if pairs:
        print(f"  note: {len(pairs):,} photos are in both archives, "
              f"{len(names['same bytes']):,} of them with the same bytes")
    return {what: {"count": len(own), "names": own} for what, own in names.items()}


def _items(found: Found, parts: dict[str, str], keep: bool) -> list[Item]:
    """Every sketch and photo in its place. A photo of both archives is the base archive's; its
    copy, where it is kept, shows the same instance under a name of its own."""
    both = _pairs(found)
    sketches = items("sketch", found["sketch"], parts, lambda stem: stem.rsplit("-", 1)[0])
    photos, copies = items("photo", found["photo"], parts), []
    for item in items("photo", found.get("extended", {}), parts):
        name = f"{item.class_}/{Path(item.place).name}"
        if name not in both:
            photos.append(item)
        elif keep:
            place = Path(item.place)
            copies.append(item._replace(
                place=place.with_name(f"{place.stem}.extended{place.suffix}").as_posix()))
    return [*sketches, *photos, *copies]


def main(arguments: list[str] | None = None) -> int:
    options = parser(NAME, __doc__, list(SPLITS))
    options.add_argument("--lists", type=Path, help="folder of published lists: only what they "
                                                    "name goes in")
    options.add_argument("--duplicates", choices=("drop", "keep"), default="keep",
                         help="photos that are in both archives: twice as in ZSE-SBIR's lists, or "
                              "once (default keep)")
    for domain in ("sketch", "photo"):
        options.add_argument(f"--{domain}-rendering", default=RENDERING, metavar="FOLDER",
                             help=f"which rendering of the {plural(domain)} (default {RENDERING})")
    chosen = options.parse_args(arguments)
    return finish(lambda: prepare(
        chosen.raw, chosen.out, chosen.split, name=chosen.name or NAME, lists=chosen.lists,
        duplicates=chosen.duplicates, sketch_rendering=chosen.sketch_rendering,
        photo_rendering=chosen.photo_rendering, download=chosen.fetch,
        **shared(chosen)))


if __name__ == "__main__":
    sys.exit(main())
