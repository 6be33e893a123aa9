"""TU-Berlin: the official sketches and the photos of its extension to a prepared zero-shot set.

    python -m data_prep.tuberlin --raw FOLDER --out DATA --split 220/30

FOLDER holds the sketches, sketches_png.zip (or its content, `png/<class>/<n>.png`) or, with
`--sketches svg`, sketches_svg.zip (`svg/<class>/<n>.svg`), and the photos, the archive of
`ImageResized/<class>/` (any name that starts with `ImageResized`) or that folder. The folders
`png_ready` and `ImageResized_ready` of other projects are taken too. The result is
`DATA/tuberlin/{train,val}/{sketch,photo}/<class>/`: train holds the seen classes, val the unseen
ones. An svg becomes a grey png of --size pixels a side: by default 1111, the size of the official
png files.

The split 220/30-400 leaves out unseen classes with fewer than 400 photos, as ACNet's code does when
it measures; dataset.json names them and their photos. (ACNet's notebook here has that rule itself:
220/30 serves it too.)

--lists FOLDER takes only what published lists name, as datasets/TUBerlin/zeroshot of ZSE-SBIR. Its
list of training sketches names 70 of the 80 of a class.

Sources: Eitz et al., How do humans sketch objects? (2012): 250 classes of 80 sketches; photos: Liu
et al., DSH (2017); split: the lists of ZSE-SBIR.
"""

import sys
from pathlib import Path
from typing import Any

from data_prep import preparing
from data_prep.class_folders import pictures_by_class
from data_prep.class_lists import Split, class_lists
from data_prep.command import finish, parser, shared
from data_prep.lists import Found, check_split, only_listed, read_lists
from data_prep.preparing import PreparationError
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
from data_prep.svg import DRAWN_BY, as_item, check_size, drawings_by_class

NAME = "tuberlin"
LISTS = class_lists(NAME)
SPLITS = ("220/30", "220/30-400")
FEWEST = 400  # photos of an unseen class in the second of them
PER_CLASS = 80
SIZE = 1111
SKETCHES = {"png": (("png", "png_ready"), ("sketches_png", "png")),
            "svg": (("svg",), ("sketches_svg", "svg"))}  # kind: its folders, its archives
PHOTOS = (("ImageResized", "ImageResized_ready"), ("ImageResized",))


def prepare(raw: Path, out: Path, split: str = "220/30", *, name: str = NAME,
            sketches: str = "png", size: int = SIZE, lists: Path | None = None,
            download: bool = False, allow_damaged: bool = False, max_unpacked: float = 200,
            workers: int | None = None) -> Path:
    """Makes `out/name` whole or not at all and returns it; a finished one of the same settings is
    left alone. Raises PreparationError that names every offender.

    sketches: `png` or `svg`; size: pixels a side of what is drawn from svg. lists: folder of
    published lists. download: fetch what needs no login. max_unpacked: GB.
    """
    check_size(size)
    chosen = read_lists(lists) if lists else None
    settings = {"name": NAME, "split": split, "sketches": sketches,
                "size": size if sketches == "svg" else None, "lists": chosen and chosen.digest}
    needed = (f"sketches_{sketches}.zip", "ImageResized.zip")
    if is_there(NAME, raw, out / name, settings, download, needed):
        return out / name
    own = LISTS.splits["220/30"]
    found, notes = _found(raw, sketches, out / ".unpacked" / NAME, max_unpacked)
    if chosen:
        check_split(chosen, own, split)
        found, notes["listed"] = only_listed(chosen, found, own)
    if split == "220/30-400":
        own, notes["classes_left_out"] = without_few(own, found["photo"])
    parts = parts_of(own)
    made = [*(as_item(item, size) for item in items("sketch", found["sketch"], parts)),
            *items("photo", found["photo"], parts)]
    return preparing.prepare(out / name, settings, made, check=readable, notes=notes,
                             allow_damaged=allow_damaged, workers=workers)


def _found(raw: Path, sketches: str, into: Path, limit: float) -> tuple[Found, dict[str, Any]]:
    """`sketch`, `photo` -> class -> files under the official class names; and what to note."""
    by_class = {"sketch": drawings_by_class if sketches == "svg" else pictures_by_class,
                "photo": pictures_by_class}
    found, strangers, folders = {}, [], {}
    for domain, (inner, archives) in (("sketch", SKETCHES[sketches]), ("photo", PHOTOS)):
        folder = located(raw, inner, archives, into, limit)
        if not folder:
            raise missing(f"{raw} holds no {inner[0]}/<class>/ with the {plural(domain)}, nor an "
                          f"archive {archives[0]}*", NAME)
        there, others = by_class[domain](folder)
        found[domain] = under_own_names(there, LISTS.classes, folder, LISTS.aliases)
        folders[domain] = folder
        strangers += [f for f in others if f.name != "filelist.txt"]
    notes = {"ignored": told(strangers, raw), **_completeness(found["sketch"], folders["sketch"])}
    return found, notes | ({"drawn_by": DRAWN_BY} if sketches == "svg" else {})


def _completeness(sketches: dict[str, list[Path]], folder: Path) -> dict[str, Any]:
    """Classes without 80 sketches, and sketches that the archive's own filelist.txt names and that
    are not there."""
    other = {c: len(files) for c, files in sketches.items() if len(files) != PER_CLASS}
    if other:
        print(f"  note: {len(other):,} classes have other than {PER_CLASS} sketches, as "
              + ", ".join(f"{c} ({n})" for c, n in list(other.items())[:3]))
    listed = folder / "filelist.txt"
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    absent = [line.strip() for line in lines if line.strip() and not (folder / line.strip())
              .exists()]
    if absent:
        print(f"  note: {len(absent):,} sketches of {listed} are absent, as {absent[0]}")
    return {f"classes_without_{PER_CLASS}_sketches": other, "absent_of_filelist": absent}


def without_few(split: Split, photos: dict[str, list[Path]], fewest: int = FEWEST
                ) -> tuple[Split, dict[str, int]]:
    """The split without unseen classes of fewer than `fewest` photos, and those classes with their
    photos. Raises PreparationError where none is left."""
    few = {c: len(photos[c]) for c in split.unseen if len(photos[c]) < fewest}
    if len(few) == len(split.unseen):
        raise PreparationError(f"no unseen class has {fewest} photos, the most is "
                               f"{max(few.values())}: take --split 220/30")
    if few:
        print(f"  note: unseen classes with fewer than {fewest} photos stay out: "
              + ", ".join(f"{c} ({n})" for c, n in few.items()))
    return split._replace(unseen=tuple(c for c in split.unseen if c not in few)), few


def main(arguments: list[str] | None = None) -> int:
    options = parser(NAME, __doc__, SPLITS)
    options.add_argument("--sketches", choices=tuple(SKETCHES), default="png",
                         help="which of the official archives (default png)")
    options.add_argument("--size", type=int, default=SIZE,
                         help=f"pixels a side of drawn svg sketches (default {SIZE})")
    options.add_argument("--lists", type=Path, help="folder of published lists: only what they "
                                                    "name goes in")
    chosen = options.parse_args(arguments)
    return finish(lambda: prepare(
        chosen.raw, chosen.out, chosen.split, name=chosen.name or NAME, sketches=chosen.sketches,
        size=chosen.size, lists=chosen.lists, download=chosen.fetch,
        **shared(chosen)))


if __name__ == "__main__":
    sys.exit(main())
