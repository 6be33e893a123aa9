"""Parts of a drawing and the outlines they are made of.

Coordinates are drawing units: x to the right, y down, a drawing spans about -1 to 1.
Points are float64 arrays [n, 2]; angles are degrees, 0 to the right, 90 down, -90 up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

STEP = 0.07  # drawing units between neighbouring outline points


@dataclass(frozen=True)
class Part:
    """One named part: a filled outline (closed) or a stroke of some width (open).

    `paint` is "main" (the attribute colour, textured), "accent", "dark" or "light".
    """

    name: str
    points: np.ndarray
    closed: bool = True
    paint: str = "main"
    width: float = 0.0

    def moved(self, points: np.ndarray) -> Part:
        """The same part at other points [n, 2]."""
        return replace(self, points=points)


def dense(points: Sequence, closed: bool, step: float = STEP) -> np.ndarray:
    """The outline with points put in until no edge is longer than `step`; corners stay."""
    corners = np.asarray(points, dtype=float)
    starts = corners if closed else corners[:-1]
    edges = np.concatenate([corners[1:], corners[:1]])[: len(starts)] - starts
    counts = np.maximum(1, np.ceil(np.hypot(*edges.T) / step)).astype(int)
    edge = np.repeat(np.arange(len(starts)), counts)
    along = (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[edge]
    inside = starts[edge] + edges[edge] * along[:, None]
    return inside if closed else np.concatenate([inside, corners[-1:]])


def rounded(points: Sequence, closed: bool, rounds: int) -> np.ndarray:
    """Corners cut `rounds` times (Chaikin), which tends to a smooth curve."""
    corners = np.asarray(points, dtype=float)
    for _ in range(rounds):
        after = np.concatenate([corners[1:], corners[:1]])
        cut = np.stack([0.75 * corners + 0.25 * after, 0.25 * corners + 0.75 * after], axis=1)
        if closed:
            corners = cut.reshape(-1, 2)
        else:
            corners = np.concatenate([corners[:1], cut[:-1].reshape(-1, 2), corners[-1:]])
    return corners


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list:
    """Points of an elliptic arc around (x, y) from angle `start` to `end`."""
    angles = np.radians(np.linspace(start, end, max(6, int(abs(end - start) / 12))))
    return [(x + rx * np.cos(a), y + ry * np.sin(a)) for a in angles]


def polygon(name: str, points: Sequence, paint: str = "main") -> Part:
    """A filled part with straight edges."""
    return Part(name, dense(points, True), True, paint)


def blob(name: str, points: Sequence, paint: str = "main", rounds: int = 3) -> Part:
    """A filled part whose corners are rounded off."""
    return Part(name, dense(rounded(points, True, rounds), True), True, paint)


def box(name: str, x0: float, y0: float, x1: float, y1: float, paint: str = "main") -> Part:
    """A filled upright rectangle with opposite corners (x0, y0) and (x1, y1)."""
    return polygon(name, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], paint)


def ellipse(
    name: str,
    x: float,
    y: float,
    rx: float,
    ry: float | None = None,
    paint: str = "main",
    turn: float = 0.0,
) -> Part:
    """A filled ellipse (a circle without `ry`), turned by `turn` degrees."""
    points = np.array(arc(0, 0, rx, rx if ry is None else ry, 0, 360)[:-1])
    return Part(name, dense(turned(points, turn) + (x, y), True), True, paint)


def line(
    name: str, points: Sequence, width: float = 0.09, paint: str = "dark", rounds: int = 0
) -> Part:
    """A stroke of the given width along the points."""
    return Part(name, dense(rounded(points, False, rounds), False), False, paint, width)


def turned(points: Sequence, degrees: float, about: tuple = (0.0, 0.0)) -> np.ndarray:
    """Points turned clockwise (y is down) about a point."""
    a = np.radians(degrees)
    matrix = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    return (np.asarray(points, dtype=float) - about) @ matrix + about


def both(part: Part) -> list[Part]:
    """A part and its mirror image on the other side of x = 0."""
    return [part, part.moved(part.points * (-1, 1))]


def normalised(parts: Sequence[Part]) -> list[Part]:
    """The drawing centred on (0, 0), its longer side from -1 to 1."""
    everything = np.concatenate([part.points for part in parts])
    low, high = everything.min(axis=0), everything.max(axis=0)
    half = (high - low).max() / 2
    return [part.moved((part.points - (low + high) / 2) / half) for part in parts]


def centre(part: Part) -> np.ndarray:
    """Centre of a part [2]: of its area when closed, the mean of its points when open."""
    if not part.closed:
        return part.points.mean(axis=0)
    offsets = part.points - part.points[0]
    after = np.concatenate([offsets[1:], offsets[:1]])
    cross = offsets[:, 0] * after[:, 1] - after[:, 0] * offsets[:, 1]
    if abs(cross.sum()) < 1e-9:
        return part.points.mean(axis=0)
    return cross @ (offsets + after) / (3 * cross.sum()) + part.points[0]
