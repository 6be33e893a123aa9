"""QuickDraw-Extended: Quick, Draw! drawings and photos to a prepared zero-shot set.

    python -m data_prep.quickdraw --raw FOLDER --out DATA [--format simplified] [--per-class 3000]

FOLDER holds the drawings in one of four forms; --format chooses where there are several:
  simplified, raw  <category>.ndjson of full/simplified or full/raw of the Quick, Draw! dataset
  binary           <category>.bin of full/binary
  rendered         QuickDraw_sketches_final/<class>/*.png, the sketches of QuickDraw-Extended
in FOLDER itself or in simplified/, raw/, binary/, full/... of it, under their official names or as
browsers save them (full_simplified_cat.ndjson), and the photos of QuickDraw-Extended,
QuickDraw_images_final/<class>/*.jpg. The two sets of pictures may still be packed. The result is
DATA/quickdraw/{train,val}/{sketch,photo}/<class>/, in the published lists' spelling of the classes;
a drawing is <key_id>.png, as in QuickDraw_sketches_final.

Which drawings: the first --per-class of each file, or a random choice of all with --seed. The
paper's abstract tells 330,000 sketches of 110 classes, 3,000 a class on average. How they were
chosen is not known here, so only `rendered` is the published set (`published_sketches` in
dataset.json). All drawings count, also those that the game did not recognise, unless
--recognized-only.

How they are drawn: the bounding box of a drawing is scaled to --size pixels less --margin on both
sides, aspect ratio kept, and centred; black strokes of --stroke pixels on white, anti-aliased,
8-bit grey. This undoes the alignment of simplified and binary drawings to the upper left of 256 x
256 pixels, so all three forms of a drawing look alike. 256 is that region's size, and Sketchy's.

Sources: github.com/googlecreativelab/quickdraw-dataset (drawings, CC BY 4.0);
github.com/sounakdey/doodle2search (photos and rendered sketches; issue 24: names are key_ids);
Dey et al., Doodle to Search (2019); split: the lists of ZSE-SBIR (github.com/buptLinfy/ZSE-SBIR).
"""

import functools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from tqdm import tqdm

from data_prep import preparing, strokes
from data_prep.archives import find
from data_prep.class_folders import pictures_by_class
from data_prep.class_lists import class_lists
from data_prep.command import finish, parser, shared
from data_prep.drawings import FIRST, SUFFIXES, Chosen, Files, choose, drawing_files
from data_prep.preparing import ABOUT, Item, PreparationError
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

NAME = "quickdraw"
LISTS = class_lists(NAME)
WORDS = {c: LISTS.aliases.get(c, c.replace("_", " ").replace("-", " ")) for c in LISTS.classes}
SPLITS = ("80/30",)
RENDERED = "rendered"
FORMATS = (*SUFFIXES, RENDERED)
FOLDERS = {"sketch": "QuickDraw_sketches_final", "photo": "QuickDraw_images_final"}
MISSPELT = {"eiffel tower": "effiel_tower"}  # in one of the two archives: doodle2search, issue 2
MOST_TOLD = 50

Made = tuple[list[Item], dict[str, Any]]  # and notes for dataset.json


class Drawn(NamedTuple):
    """Which drawings, and how they become pictures. size: pixels a side; stroke: width in pixels of
    the result; margin: white pixels around the ink; per_class: drawings of each class;
    recognized_only: by the game; seed: of a random choice, None for the first in the file."""

    size: int = 256
    stroke: float = 3.0
    margin: float = 8.0
    per_class: int = 3000
    recognized_only: bool = False
    seed: int | None = None


def prepare(raw: Path, out: Path, split: str = "80/30", *, name: str = NAME,
            form: str | None = None, drawn: Drawn | None = None, sketches_only: bool = False,
            download: bool = False, allow_damaged: bool = False, max_unpacked: float = 200,
            workers: int | None = None) -> Path:
    """Makes `out/name` whole or not at all and returns it; a finished one of the same settings is
    left alone. Raises PreparationError that names all that is missing or wrong.

    form: one of FORMATS, None for the one that is there. drawn: None for the defaults.
    sketches_only: no photos. download: fetch what needs no login. max_unpacked: GB.
    """
    target, drawn = out / name, drawn or Drawn()
    settings_of = functools.partial(_settings, split, drawn, sketches_only)
    if is_there(NAME, raw, target, settings_of(form or _form_of(target)), download,
                _downloads(form, sketches_only)):
        return target
    files, others = drawing_files(raw, WORDS, form)
    form = form or _only_form(raw, files)
    settings = settings_of(form)
    parts = parts_of(LISTS.splits[split])
    linked = functools.partial(_linked, raw, parts, out / ".unpacked" / NAME, max_unpacked)
    ways = [lambda: linked("sketch")] if form == RENDERED else [
        lambda: _drawings(raw, files.get(form, {}), form, parts, drawn, allow_damaged)]
    made = _all_of([*ways, *([] if sketches_only else [lambda: linked("photo")])])
    ignored = [place for _, more in made for place in more.pop("ignored", [])]
    notes = {"published_sketches": form == RENDERED, "other_categories": others,
             "ignored": ignored, **{k: v for _, more in made for k, v in more.items()}}
    return preparing.prepare(target, settings, [item for own, _ in made for item in own],
                             check=None if sketches_only else readable, notes=notes,
                             allow_damaged=allow_damaged, workers=workers)


def _settings(split: str, drawn: Drawn, sketches_only: bool, form: str | None) -> dict[str, Any]:
    strokes.check(drawn.size, drawn.stroke, drawn.margin)
    if drawn.per_class < 1:
        raise PreparationError(f"--per-class {drawn.per_class}: choose 1 or more")
    other = [f"--{key.replace('_', '-')}" for key, value in drawn._asdict().items()
             if value != getattr(Drawn(), key)]
    if form == RENDERED and other:
        raise PreparationError(f"{', '.join(other)} cannot change sketches that are rendered: "
                               f"leave it out, or choose --format {', '.join(SUFFIXES)}")
    return {"name": NAME, "split": split, "format": form, "sketches_only": sketches_only,
            **({} if form == RENDERED else drawn._asdict())}


def _form_of(target: Path) -> str | None:
    """What a set that is there was made of."""
    about = target / ABOUT
    return json.loads(about.read_text(encoding="utf-8")).get("format") if about.exists() else None


def _downloads(form: str | None, sketches_only: bool) -> list[str]:
    """What --fetch is to get, as sources.yml names it."""
    sketches = f"{FOLDERS['sketch']}.zip" if form == RENDERED else form or "simplified"
    return [sketches, *([] if sketches_only else [f"{FOLDERS['photo']}.zip"])]


def _all_of(ways: list[Callable[[], Made]]) -> list[Made]:
    """What each makes, or one error that tells what is wrong with any."""
    made, wrong = [], []
    for way in ways:
        try:
            made.append(way())
        except PreparationError as error:
            wrong.append(str(error))
    if wrong:
        raise missing("\n".join(wrong), NAME)
    return made


# ---------------------------------------------------------------------------- what lies in --raw


def _only_form(raw: Path, files: Files) -> str:
    there = {kind: f"{kind} ({len(own)} of {len(LISTS.classes)} classes)"
             for kind, own in files.items()}
    packed = raw.is_dir() and any(f.name.casefold().startswith(FOLDERS["sketch"].casefold())
                                  for f in raw.iterdir())
    if packed or find([raw], FOLDERS["sketch"]):
        there[RENDERED] = RENDERED
    if not there:
        raise missing(f"{raw} holds no drawings: no <category>.ndjson, no <category>.bin, no "
                      f"{FOLDERS['sketch']}", NAME)
    if len(there) > 1:
        raise PreparationError(f"{raw} holds drawings as {', '.join(there.values())}: choose one "
                               "with --format")
    return next(iter(there))


def _linked(raw: Path, parts: dict[str, str], into: Path, limit: float, domain: str) -> Made:
    """Pictures of QuickDraw-Extended, as they are."""
    inner = FOLDERS[domain]
    folder = located(raw, [inner], [inner], into, limit)
    if not folder:
        hint = "; --sketches-only does without" if domain == "photo" else ""
        raise PreparationError(f"{raw} holds no {inner}/<class>/ with the {plural(domain)}, nor an "
                               f"archive {inner}*{hint}")
    there, strangers = pictures_by_class(folder)
    found = under_own_names(there, LISTS.classes, folder, MISSPELT)
    return items(domain, found, parts), {"ignored": told(strangers, raw)}


# --------------------------------------------------------------------------------- which drawings


def _drawings(raw: Path, files: dict[str, Path], form: str, parts: dict[str, str], drawn: Drawn,
              allow_damaged: bool) -> Made:
    """An item for each drawing that is taken; where it starts in its file is known then, and the
    process that draws it reads it there."""
    absent = [WORDS[c] for c in LISTS.classes if c not in files]
    if absent:
        raise PreparationError(f"{raw}: {form} drawings of {len(files)} classes, expected "
                               f"{len(LISTS.classes)}; absent: {', '.join(absent)}")
    most = math.inf if allow_damaged else FIRST
    chosen = {c: choose(files[c], WORDS[c], drawn.per_class, seed=drawn.seed, most_unusable=most,
                        recognized_only=drawn.recognized_only)
              for c in tqdm(LISTS.classes, desc="find drawings", unit="class", mininterval=0.5)}
    notes = _notes(chosen)
    short = [f"{files[c].name}: {len(own.taken):,} of {drawn.per_class:,}"
             for c, own in chosen.items()
             if len(own.taken) < drawn.per_class and len(own.unusable) <= most]
    if short or notes["unusable"] and not allow_damaged:
        raise PreparationError("\n".join([
            *_lines("files with fewer drawings than --per-class asks for", short),
            *_lines("drawings that cannot be used; --allow-damaged takes the next ones of the file "
                    "instead", notes["unusable"] * (not allow_damaged))]))
    return [_item(files[c], offset, c, key, parts[c], drawn)
            for c, own in chosen.items() for key, offset in own.taken.items()], notes


def _item(file: Path, offset: int, class_: str, key: str, part: str, drawn: Drawn) -> Item:
    source = functools.partial(strokes.picture, file, offset, drawn.size, drawn.stroke,
                               drawn.margin)
    return Item(f"{part}/sketch/{class_}/{key}.png", source, part, "sketch", class_, key)


def _notes(chosen: dict[str, Chosen]) -> dict[str, Any]:
    """What was not as it should be, which is told, too, and what drew."""
    owners: dict[str, list[str]] = {}
    for c, own in chosen.items():
        for key in (*own.taken, *own.twice):
            owners.setdefault(key, []).append(c)
    twice = [f"{key} ({', '.join(own[:3])}{', ...' * (len(own) > 3)})"
             for key, own in owners.items() if len(own) > 1]
    if twice:
        print(f"  note: {len(twice):,} key_ids are there more than once, as {twice[0]}: the first "
              "of a class is taken")
    return {"drawn_by": f"matplotlib {matplotlib.__version__}", "duplicates": twice,
            "unusable": [line for own in chosen.values() for line in own.unusable]}


def _lines(what: str, lines: list[str]) -> list[str]:
    more = [f"  and {len(lines) - MOST_TOLD:,} more"] if len(lines) > MOST_TOLD else []
    told_now = [f"  {line}" for line in lines[:MOST_TOLD]]
    return [f"{len(lines):,} {what}:", *told_now, *more] if lines else []


def main(arguments: list[str] | None = None) -> int:
    default, options = Drawn(), parser(NAME, __doc__, SPLITS)
    options.add_argument("--format", choices=FORMATS, help="default: the one that is there")
    options.add_argument("--size", type=int, default=default.size, metavar="PIXELS",
                         help=f"side of the pictures (default {default.size})")
    options.add_argument("--stroke", type=float, default=default.stroke, metavar="PIXELS",
                         help=f"width of strokes (default {default.stroke:g})")
    options.add_argument("--margin", type=float, default=default.margin, metavar="PIXELS",
                         help=f"white around the drawing (default {default.margin:g})")
    options.add_argument("--per-class", type=int, default=default.per_class, metavar="N",
                         help=f"drawings of each class (default {default.per_class:,})")
    options.add_argument("--recognized-only", action="store_true",
                         help="only drawings that the game recognised")
    options.add_argument("--seed", type=int, help="random drawings of each file, not its first")
    options.add_argument("--sketches-only", action="store_true",
                         help="no photos: the experiments cannot read such a set")
    chosen = options.parse_args(arguments)
    return finish(lambda: prepare(
        chosen.raw, chosen.out, chosen.split, name=chosen.name or NAME, form=chosen.format,
        drawn=Drawn(*(getattr(chosen, field) for field in Drawn._fields)),
        sketches_only=chosen.sketches_only, download=chosen.fetch,
        **shared(chosen)))


if __name__ == "__main__":
    sys.exit(main())
