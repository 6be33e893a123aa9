"""Damaged and odd picture files, as archives and half downloads have them; no test of its own.

`from damage import BROKEN, ODD` in a test: both map a kind to a function that writes `file`.
"""

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image


def _drawn(side: int = 24) -> Image.Image:
    """A picture that is not the same turned or mirrored, and that no format stores as one colour:
    a dark corner and a slope of grey."""
    grey = np.linspace(60, 250, side * side).reshape(side, side).astype(np.uint8)
    grey[: side // 3, : side // 3] = 0
    return Image.fromarray(grey)


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def plain_jpg(file: Path) -> None:
    """A whole RGB picture."""
    file.write_bytes(_saved(_drawn().convert("RGB"), "JPEG", quality=70))


def plain_png(file: Path) -> None:
    """A whole grey drawing."""
    file.write_bytes(_saved(_drawn(), "PNG"))


def truncated_jpg(file: Path) -> None:
    """A jpg that ends in the middle of its pixels."""
    whole = _saved(_drawn(96).convert("RGB"), "JPEG", quality=95)
    file.write_bytes(whole[: 2 * len(whole) // 3])


def truncated_png(file: Path) -> None:
    """A png that ends in the middle of its pixels."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    whole = _saved(Image.fromarray(noise), "PNG")
    file.write_bytes(whole[: len(whole) // 2])


def empty(file: Path) -> None:
    """No byte."""
    file.write_bytes(b"")


def text(file: Path) -> None:
    """What a server sends where a picture is no longer."""
    file.write_text("<html><body>404 Not Found</body></html>\n")


def png_inside(file: Path) -> None:
    """A whole png, whatever suffix `file` has."""
    plain_png(file)


def jpg_inside(file: Path) -> None:
    """A whole jpg, whatever suffix `file` has."""
    plain_jpg(file)


def cmyk_jpg(file: Path) -> None:
    """A jpg in print colours."""
    file.write_bytes(_saved(_drawn().convert("CMYK"), "JPEG", quality=70))


def sixteen_bit_png(file: Path) -> None:
    """A grey png of 16 bits a pixel."""
    file.write_bytes(_saved(Image.fromarray(np.asarray(_drawn()).astype(np.uint16) << 8), "PNG"))


def grey_jpg(file: Path) -> None:
    """A jpg of one channel."""
    file.write_bytes(_saved(_drawn(), "JPEG", quality=70))


def palette_png(file: Path) -> None:
    """A png of palette colours; its light half is transparent."""
    image = _drawn().quantize(16)
    palette = np.array(image.getpalette()[:48]).reshape(-1, 3).mean(axis=1)
    alpha = bytes(0 if light > 128 else 255 for light in palette)
    file.write_bytes(_saved(image, "PNG", transparency=alpha))


def transparent_png(file: Path) -> None:
    """Black strokes on nothing, as drawing tools save them."""
    pixels = np.zeros((24, 24, 4), np.uint8)
    pixels[8:12, :, 3] = 255
    file.write_bytes(_saved(Image.fromarray(pixels), "PNG"))


def rotated_jpg(file: Path) -> None:
    """A jpg that its EXIF tag turns by 90 degrees."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    file.write_bytes(_saved(_drawn().convert("RGB").crop((0, 0, 24, 16)), "JPEG", quality=70,
                            exif=exif))


# Which cannot be read at all: kind -> writer. They are named `.jpg` or `.png` as a test likes.
BROKEN = {f.__name__: f for f in (truncated_jpg, truncated_png, empty, text)}

# Which can, and what `dataset.json` names them under `odd` where the file is named .jpg.
ODD = {
    "png_inside": (png_inside, "PNG named .jpg"),
    "cmyk_jpg": (cmyk_jpg, "mode CMYK"),
    "sixteen_bit_png": (sixteen_bit_png, "mode I;16"),
    "palette_png": (palette_png, "mode P"),
    "transparent_png": (transparent_png, "mode RGBA"),
    "rotated_jpg": (rotated_jpg, "EXIF orientation 6, read as stored"),
}
