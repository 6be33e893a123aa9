"""The "sketch" of an individual: jittered dark strokes on white, deformed and incomplete."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .geometry import Part, centre
from .pen import filled, stroke
from .photo import Centres
from .pose import note_centre, sketch_pose

SUPER = 4


def warp(rng: np.random.Generator, strength: float):
    """A smooth deformation of the plane: drawing units [n, 2] to drawing units [n, 2]."""
    waves, phases = rng.uniform(1.0, 2.6, (2, 2)), rng.uniform(0, 2 * np.pi, 2)

    def bend(points: np.ndarray) -> np.ndarray:
        return points + strength * np.sin(points @ waves + phases)

    return bend


def wobbled(
    points: np.ndarray, closed: bool, rng: np.random.Generator, strength: float
) -> np.ndarray:
    """An outline followed by an unsteady hand: slow noise along it, in drawing units."""
    knots = max(3, len(points) // 6)
    noise = rng.normal(0, strength, (knots, 2))
    if closed:
        noise = np.concatenate([noise, noise[:1]])
    at = np.linspace(0, len(noise) - 1, len(points) + closed)[: len(points)]
    slow = np.stack([np.interp(at, np.arange(len(noise)), n) for n in noise.T], axis=1)
    return points + slow + rng.normal(0, 0.02, 2)


def strokes(
    part: Part, points: np.ndarray, rng: np.random.Generator, missing: float
) -> list[np.ndarray]:
    """The pencil strokes of one part: open runs of points, some of it left out."""
    if part.closed:
        first = int(rng.integers(len(points)))
        points = np.concatenate([points[first:], points[: first + 1 + len(points) // 20]])
    count = len(points)
    if count < 8 or rng.random() > 0.25 + missing:
        return [points]
    gap, start = int(count * rng.uniform(0.06, 0.12 + missing)), int(rng.integers(count))
    return [run for run in (points[:start], points[start + gap :]) if len(run) > 1]


def shown(parts: list[Part], rng: np.random.Generator) -> list[Part]:
    """The parts without a few small ones that were forgotten."""
    extents = [(part.points.max(axis=0) - part.points.min(axis=0)).max() for part in parts]
    forgotten = rng.random(len(parts)) < 0.12
    limit = 0.33 * max(extents)
    return [part for part, extent, lost in zip(parts, extents, forgotten, strict=True)
            if extent > limit or not lost]  # fmt: skip


def sketch(parts: list[Part], rng: np.random.Generator, size: int) -> tuple[Image.Image, Centres]:
    """The grey sketch [size, size] and the centres (0 to 1) of the parts that it shows."""
    side, pose = size * SUPER, sketch_pose(rng)
    bend, shake = warp(rng, rng.uniform(0.02, 0.07)), rng.uniform(0.008, 0.03)
    missing, pen = rng.uniform(0, 0.2), size / 64 * rng.uniform(1.0, 2.1) * SUPER
    ink = int(rng.integers(0, 70))
    image = Image.new("L", (side, side), 255)
    draw, centres = ImageDraw.Draw(image), {}
    for part in shown(parts, rng):
        points = pose(wobbled(bend(part.points), part.closed, rng, shake))
        note_centre(centres, part.name, centre(part.moved(points)))
        if part.closed:
            filled(draw, points * side, 255)
        for run in strokes(part, points * side, rng, missing):
            stroke(draw, run, pen * rng.uniform(0.85, 1.15), ink)
    return image.resize((size, size), Image.BOX), centres
