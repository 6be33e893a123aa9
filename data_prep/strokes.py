"""Strokes of a drawing to a picture: black on white, anti-aliased, round caps and joins.

Drawn by matplotlib's Agg. `benchmarks/quickdraw_drawing.py` measures it against an svg renderer
and Pillow drawing four times too large.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path as Outline
from matplotlib.transforms import IdentityTransform
from PIL import Image

from data_prep.drawings import Stroke, drawing_at

DOT = 1e-3  # pixels; Agg draws no line without a length
PNG_LEVEL = 4  # half the time of Pillow's 6 for 1 % more bytes
SIZES = (16, 4096)


def check(size: int, width: float, margin: float) -> None:
    """ValueError for a picture in which no stroke has room."""
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size {size}: choose {SIZES[0]} to {SIZES[1]} pixels")
    if not width > 0 or not margin >= 0 or not 2 * margin + width < size:
        raise ValueError(f"stroke {width:g} and margin {margin:g}: the stroke has to be above 0, "
                         f"the margin not below 0, and both together narrower than {size} pixels")


def rendered(strokes: Sequence[Stroke], size: int = 256, width: float = 3.0,
             margin: float = 8.0) -> bytes:
    """A drawing as a png of size x size grey pixels (8 bits).

    strokes: of any range, y downwards; one of a single point is a dot. width: of a stroke, in
    pixels of the result; margin: white pixels left around the ink at the longer side of its
    bounding box, which is centred; the aspect ratio is kept. Raises ValueError without a point.
    """
    check(size, width, margin)
    grey = Image.fromarray(255 - ink(fitted(strokes, size, size - 2 * margin - width), size, width))
    content = io.BytesIO()
    grey.save(content, "PNG", compress_level=PNG_LEVEL)
    return content.getvalue()


def picture(file: Path, offset: int, size: int, width: float, margin: float) -> bytes:
    """`rendered` of the drawing that starts at a byte of a file."""
    return rendered(drawing_at(file, offset).strokes, size, width, margin)


def fitted(strokes: Sequence[Stroke], size: int, room: float) -> list[np.ndarray]:
    """Points [n, 2] of each stroke, in pixels: the bounding box of all of them is centred and its
    longer side is `room` long. A drawing that is one point lies in the middle."""
    points = [np.array(stroke, np.float64).T for stroke in strokes if len(stroke[0])]
    if not points:
        raise ValueError("a drawing without a point")
    every = np.concatenate(points)
    low, high = every.min(axis=0), every.max(axis=0)
    extent = float((high - low).max())
    scale = room / extent if extent else 0.0
    return [(p - (low + high) / 2) * scale + size / 2 for p in points]


def ink(points: Sequence[np.ndarray], size: int, width: float) -> np.ndarray:
    """How much of each pixel the strokes cover: uint8 [size, size], 255 for all of it."""
    lines = [_with_length(p) for p in points]
    vertices = np.concatenate(lines)
    vertices[:, 1] = size - vertices[:, 1]  # Agg counts from the lower edge
    codes = np.full(len(vertices), Outline.LINETO, Outline.code_type)
    codes[np.cumsum([0, *map(len, lines[:-1])])] = Outline.MOVETO
    outline = Outline(vertices, codes)
    outline.should_simplify = False  # a user's matplotlibrc must not change pictures
    canvas = RendererAgg(size, size, 72)  # 72 dots an inch: a point is a pixel
    pen = canvas.new_gc()
    pen.set_linewidth(width)
    pen.set_capstyle("round")
    pen.set_joinstyle("round")
    pen.set_antialiased(True)
    pen.set_snap(False)
    canvas.draw_path(pen, outline, IdentityTransform(), None)
    return np.asarray(canvas.buffer_rgba())[..., 3]


def _with_length(points: np.ndarray) -> np.ndarray:
    if (points == points[0]).all():
        return np.stack([points[0], points[0] + (DOT, 0)])
    return points.copy()
