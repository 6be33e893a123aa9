"""Thick lines with round corners, which Pillow draws slowly itself."""

from __future__ import annotations

import numpy as np
from PIL import ImageDraw


def is_corner(points: np.ndarray, degrees: float = 20.0) -> np.ndarray:
    """Bool [n]: the ends, and where the line [n, 2] turns by more than `degrees`."""
    steps = np.diff(points, axis=0)
    angles = np.arctan2(steps[:, 1], steps[:, 0])
    bend = np.abs((np.diff(angles) + np.pi) % (2 * np.pi) - np.pi)
    return np.concatenate([[True], bend > np.radians(degrees), [True]])


def stroke(draw: ImageDraw.ImageDraw, points: np.ndarray, width: float, ink: int) -> None:
    """Draws a line through points [n, 2] in pixels, its ends and corners rounded."""
    draw.line(points.ravel().tolist(), fill=ink, width=max(1, round(width)))
    radius = width / 2 - 0.5
    if radius < 0.75:
        return
    for x, y in points[is_corner(points)].tolist():
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=ink)


def filled(draw: ImageDraw.ImageDraw, points: np.ndarray, ink: int) -> None:
    """Fills the polygon with corners [n, 2] in pixels."""
    draw.polygon(points.ravel().tolist(), fill=ink)
