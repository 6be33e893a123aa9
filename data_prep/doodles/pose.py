"""Where and how an individual lies in its picture.

A pose maps drawing units (-1 to 1) to picture coordinates (0 to 1, y down).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .attributes import Attributes

RADIUS = {"small": 0.23, "medium": 0.31, "large": 0.4}  # half the drawing's longer side
CROWD = {1: 1.0, 2: 0.72, 3: 0.58}  # each copy's size where there are several
SHIFT = {"middle": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}


@dataclass(frozen=True)
class Pose:
    """Linear map [2, 2], perspective [2] and centre [2] (fractions of the picture)."""

    matrix: np.ndarray
    perspective: np.ndarray
    centre: np.ndarray
    radius: float

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points [n, 2] in drawing units to picture coordinates [n, 2]."""
        depth = 1 + points @ self.perspective
        return points @ self.matrix.T / depth[:, None] * self.radius + self.centre


def note_centre(centres: dict[str, list[list[float]]], name: str, spot: np.ndarray) -> None:
    """Adds where a part lies (fractions [2]), unless that is outside the picture."""
    if (np.abs(spot - 0.5) <= 0.5).all():
        centres.setdefault(name, []).append([round(float(v), 4) for v in spot])


def random_matrix(
    rng: np.random.Generator, angle: float, shear: float, stretch: float
) -> np.ndarray:
    """Turn (standard deviation `angle` degrees), shear, stretch and, half the time, a flip."""
    a = np.radians(np.clip(rng.normal(0, angle), -2.2 * angle, 2.2 * angle))
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    skew = np.array([[1, rng.uniform(-shear, shear)], [0, 1]])
    x, y = np.exp(rng.uniform(-stretch, stretch, 2))
    return turn @ skew @ np.diag([x * rng.choice([-1, 1]), y])


def photo_poses(a: Attributes, rng: np.random.Generator) -> list[Pose]:
    """One pose for each copy: size and place as the attributes say, the rest at random."""
    radius = RADIUS[a.size] * CROWD[a.count] * rng.uniform(0.94, 1.06)
    reach = min(0.25, max(0.13, 0.52 - radius))
    centre = 0.5 + reach * np.array(SHIFT[a.place]) + rng.normal(0, 0.015, 2)
    across = np.array([0.0, 1.0]) if a.place in ("left", "right") else np.array([1.0, 0.0])
    gap = min(2.0 * radius, 2 * (0.5 - 0.85 * radius) / max(1, a.count - 1))
    matrix = random_matrix(rng, 11, 0.13, 0.07)
    poses = []
    for k in range(a.count):
        spot = centre + across * gap * (k - (a.count - 1) / 2) + rng.normal(0, 0.01, 2)
        own = random_matrix(rng, 4, 0.02, 0.02) if k else np.eye(2)
        own = own if np.linalg.det(own) > 0 else own @ np.diag([-1, 1])
        poses.append(Pose(own @ matrix, rng.uniform(-0.09, 0.09, 2), spot, radius))
    return poses


def sketch_pose(rng: np.random.Generator) -> Pose:
    """A pose of its own, whatever the photo's is."""
    matrix = random_matrix(rng, 8, 0.1, 0.09)
    return Pose(
        matrix, rng.uniform(-0.08, 0.08, 2), 0.5 + rng.normal(0, 0.025, 2), rng.uniform(0.34, 0.43)
    )
