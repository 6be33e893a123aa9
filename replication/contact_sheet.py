"""One picture that shows what a set looks like: a few pictures of it with their classes or texts.
"""

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from replication import paths
from replication.inventory import Inventory, Part
from replication.pictures import as_rgb

SIDE, COLUMNS, ROWS, GAP = 128, 6, 4, 8
LABEL = 34  # pixels below a picture
INK, PAPER, SEEN, UNSEEN = (40, 40, 44), "white", (214, 220, 228), (240, 150, 60)


def write_contact_sheet(found: Inventory, file: Path, seed: int = 0) -> Path | None:
    """Draws 24 pictures (JPEG): of a sketch set a sketch and a photo of each of 12 classes, the
    unseen ones framed orange; of another set pictures drawn with `seed`. None for an empty set."""
    rng = np.random.default_rng(seed)
    pairs = found.facts.kind == "sketch"
    tiles = _of_classes(found, rng) if pairs else _of_files(found, rng)
    if not tiles:
        return None
    width = COLUMNS * (SIDE + GAP) + GAP
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (width, rows * (SIDE + LABEL + GAP) + GAP), PAPER)
    for index, tile in enumerate(tiles):
        down, across = divmod(index, COLUMNS)
        sheet.paste(tile, (GAP + across * (SIDE + GAP), GAP + down * (SIDE + LABEL + GAP)))
    return paths.save_file(file, lambda temporary: sheet.save(temporary, "JPEG", quality=85))


def _of_classes(found: Inventory, rng: np.random.Generator) -> list[Image.Image]:
    """Half of the classes unseen, as far as there are; a sketch beside a photo of each."""
    of = {part.name: part for part in found.parts if part.classes}
    chosen = []
    for split in ("train", "val"):
        there = [part for part in (f"{split}/sketch", f"{split}/photo") if part in of]
        both = [set(of[part].classes) for part in there] or [set()]
        names = sorted(set.intersection(*both))
        take = min(len(names), COLUMNS * ROWS // 4)
        chosen += [(part, name) for name in sorted(rng.choice(names, take, replace=False))
                   for part in there]
    return [_tile(found, of[part], name, rng) for part, name in chosen]


def _tile(found: Inventory, part: Part, name: str, rng: np.random.Generator) -> Image.Image:
    files = [file for file, own in zip(part.files, part.classes, strict=True) if own == name]
    unseen = part.split == "val"
    return _drawn(found.folder / files[rng.integers(len(files))],
                  name.replace("_", " ") + " (unseen)" * unseen, UNSEEN if unseen else SEEN)


def _of_files(found: Inventory, rng: np.random.Generator) -> list[Image.Image]:
    """Pictures of all parts in turn, with the text that goes with each."""
    parts = [part for part in found.parts if part.files]
    each = -(-COLUMNS * ROWS // max(1, len(parts)))
    tiles = []
    for part in parts:
        for row in rng.choice(len(part.files), min(each, len(part.files)), replace=False):
            text = part.texts[row] if part.texts else f"{part.split} {part.domain}"
            tiles.append(_drawn(found.folder / part.files[row], text, SEEN))
    return tiles[:COLUMNS * ROWS]


def _drawn(file: Path, label: str, frame) -> Image.Image:
    """A picture with a frame and up to two lines of its label; a cross for a damaged one."""
    tile = Image.new("RGB", (SIDE, SIDE + LABEL), PAPER)
    try:
        with Image.open(file) as image:
            inner = ImageOps.pad(as_rgb(image), (SIDE - 4, SIDE - 4), color=PAPER)
    except (OSError, SyntaxError, ValueError):
        inner = Image.new("RGB", (SIDE - 4, SIDE - 4), PAPER)
        ImageDraw.Draw(inner).line((0, 0, SIDE, SIDE), UNSEEN, 3)
    tile.paste(frame, (0, 0, SIDE, SIDE))
    tile.paste(inner, (2, 2))
    lines = textwrap.wrap(label, 22)[:2] or [""]
    font = ImageFont.load_default(size=11)
    ImageDraw.Draw(tile).multiline_text((SIDE / 2, SIDE + 3), "\n".join(lines), fill=INK,
                                        font=font, anchor="ma", align="center", spacing=2)
    return tile
