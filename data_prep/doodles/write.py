"""Draws a whole set: checks first, then in parallel into a temporary folder, then one move."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tqdm import tqdm

from . import attributes
from .classes import CLASSES, SEEN, UNSEEN, split
from .layouts import (
    dump,
    write_cirr_layout,
    write_coco_layout,
    write_fashioniq_layout,
    write_sketch_layout,
)
from .records import Drawn, Item, Settings, draw

FOLDERS = (
    "doodles_captions",
    "doodles_cirr",
    "doodles_fashioniq",
    "doodles",
)  # moved in this order
STAMP = "doodles.json"
LIMITS = {"per_class": (4, 2000), "size": (32, 2048), "sketches": (1, 100), "seed": (0, 2**63 - 1)}
SMALL = 200  # instances below which starting processes costs more than it saves


class DoodlesError(ValueError):
    """A set that cannot be drawn as asked; the message says what to do."""


def drawing_code() -> str:
    """Hash of this package's sources: other code draws another set."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def stamp(settings: Settings) -> dict:
    """What doodles.json holds: everything a set's bytes depend on, and its counts."""
    photos = settings.per_class * len(CLASSES)
    return {
        "settings": asdict(settings),
        "drawing_code": drawing_code(),
        "photos": photos,
        "sketches": photos * settings.sketches,
        "seen": list(SEEN),
        "unseen": list(UNSEEN),
    }


def is_finished(folder: Path, wanted: dict) -> bool:
    """Whether the folder holds the set with exactly these settings, completely written."""
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8")) == wanted
    except (OSError, ValueError):
        return False


def check_settings(settings: Settings) -> None:
    """Stops at numbers that no set can be drawn from, all of them in one message."""
    wrong = [
        f"{name} is {value}, but must be {low} to {high}"
        for name, (low, high) in LIMITS.items()
        if not low <= (value := getattr(settings, name)) <= high
    ]
    if wrong:
        raise DoodlesError("doodles: " + "; ".join(wrong))


def check_folder(out: Path) -> None:
    """Stops where `out` cannot be written or holds folders that are not ours to replace."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        reason = f"cannot write to {out} ({error.strerror})"
        raise DoodlesError(f"doodles: {reason}; give another folder as --out") from error
    ours = [out / name for name in FOLDERS]
    foreign = [str(folder) for folder in ours if folder.exists() and not (folder / STAMP).exists()]
    if foreign:
        raise DoodlesError(
            f"doodles: {', '.join(foreign)} was not written by this command; move it away or "
            "give another folder as --out"
        )


def all_items(settings: Settings) -> list[Item]:
    """Every instance of every class, in the order of classes and numbers."""
    return [
        Item(class_name, number, values)
        for index, class_name in enumerate(CLASSES)
        for number, values in enumerate(
            attributes.of_class(settings.seed, index, settings.per_class)
        )
    ]


def draw_all(root: Path, items: list[Item], settings: Settings, workers: int) -> list[Drawn]:
    """Draws every instance beneath `root`, in this process or in `workers` of them."""
    for class_name in CLASSES:
        for domain in ("photo", "sketch"):
            (root / split(class_name) / domain / class_name).mkdir(parents=True)
    one = partial(draw, root, settings=settings)
    bar = partial(tqdm, total=len(items), desc="doodles", unit="instance", mininterval=0.5)
    if workers == 1:
        return [file for files in bar(map(one, items)) for file in files]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        return [file for files in bar(pool.map(one, items, chunksize=12)) for file in files]


def move_in(made: Path, target: Path, wanted: dict) -> None:
    """Moves a finished folder to its place; an older set gives way, an equal one stays."""
    if target.exists() and not is_finished(target, wanted):
        shutil.rmtree(target)
    try:
        made.rename(target)
    except OSError:
        if not is_finished(target, wanted):
            raise


def draw_dataset(
    out: str | Path,
    seed: int = 0,
    per_class: int = 24,
    size: int = 64,
    sketches: int = 3,
    workers: int | None = None,
) -> Path:
    """Draws doodles beneath `out` in all its layouts and returns `out`/doodles.

    `per_class`: instances a class; `size`: pixels a side; `sketches`: sketches an instance;
    `workers`: processes (default: one a core). The bytes depend on the first four only. Returns
    at once where the same set lies already. Raises DoodlesError before any work.
    """
    out, settings = Path(out), Settings(seed, per_class, size, sketches)
    wanted = stamp(settings)
    if all(is_finished(out / name, wanted) for name in FOLDERS):
        return out / "doodles"
    check_settings(settings)
    check_folder(out)
    items = all_items(settings)
    if workers is None:
        workers = min(os.cpu_count() or 1, 16) if len(items) >= SMALL else 1
    with tempfile.TemporaryDirectory(dir=out, prefix=".doodles-unfinished-") as unfinished:
        made = Path(unfinished)
        photos = made / "doodles"
        drawn = draw_all(photos, items, settings, max(1, workers))
        write_sketch_layout(photos, items, drawn)
        write_coco_layout(made / "doodles_captions", photos, items, settings)
        write_cirr_layout(made / "doodles_cirr", photos, items, settings)
        write_fashioniq_layout(made / "doodles_fashioniq", photos, items, settings)
        for name in FOLDERS:
            dump(made / name / STAMP, wanted)
        for name in FOLDERS:
            move_in(made / name, out / name, wanted)
    return out / "doodles"
