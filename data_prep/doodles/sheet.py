"""One picture of all classes: a photo and a sketch of each, named, unseen classes marked."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .classes import CLASSES, UNSEEN, split

INK, SEEN_COLOUR, UNSEEN_COLOUR = (40, 40, 44), (214, 220, 228), (240, 150, 60)


def picture(path: Path, side: int) -> Image.Image:
    """An image enlarged to `side` pixels."""
    with Image.open(path) as image:
        return image.convert("RGB").resize((side, side), Image.LANCZOS)


def cell(root: Path, class_name: str, instance: int, side: int) -> Image.Image:
    """Photo and sketch of one class side by side, its name below, a frame in the split's colour."""
    name, gap, unseen = f"{class_name}_{instance:04d}", side // 24, class_name in UNSEEN
    frame = UNSEEN_COLOUR if unseen else SEEN_COLOUR
    tile = Image.new("RGB", (2 * side + 3 * gap, side + 2 * gap + side // 4), frame)
    folder = root / split(class_name)
    tile.paste(picture(folder / "photo" / class_name / f"{name}.jpg", side), (gap, gap))
    sketch = picture(folder / "sketch" / class_name / f"{name}-1.png", side)
    tile.paste(sketch, (side + 2 * gap, gap))
    font = ImageFont.load_default(size=side // 6)
    label = class_name.replace("_", " ") + (" (unseen)" if unseen else "")
    at = (tile.width / 2, side + gap + side // 8 + gap / 2)
    ImageDraw.Draw(tile).text(at, label, fill=INK, font=font, anchor="mm")
    return tile


def shown(root: Path, class_name: str, instance: int | None) -> int:
    """The instance to show: the one asked for, else a single, large, central one of the first."""
    if instance is not None:
        return instance
    known = json.loads((root / "attributes.json").read_text(encoding="utf-8"))

    def clarity(number: int) -> tuple:
        about = known[f"{class_name}_{number:04d}"]
        return about["count"] == 1, about["setting"] != "night", about["size"] == "large"

    numbers = [k for k in range(24) if f"{class_name}_{k:04d}" in known]
    return max(numbers, key=clarity)


def contact_sheet(
    root: str | Path,
    out_png: str | Path,
    columns: int = 6,
    side: int = 96,
    instance: int | None = None,
) -> Path:
    """Writes the sheet of the set in `root` (the folder `doodles`) and returns its path.

    `side`: pixels of one picture; `instance`: which one of every class; without it, one that
    shows a single large copy by day.
    """
    root, out_png = Path(root), Path(out_png)
    tiles = [cell(root, name, shown(root, name, instance), side) for name in CLASSES]
    gap, rows = side // 8, -(-len(tiles) // columns)
    width, height = tiles[0].width + gap, tiles[0].height + gap
    sheet = Image.new("RGB", (columns * width + gap, rows * height + gap), "white")
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (gap + k % columns * width, gap + k // columns * height))
    out_png.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out_png)
    return out_png
