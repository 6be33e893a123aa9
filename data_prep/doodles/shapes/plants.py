"""Plants and food: each function draws one random individual as named parts."""

from __future__ import annotations

import numpy as np

from ..geometry import Part, arc, blob, box, ellipse, line, polygon, turned


def apple(r: np.random.Generator) -> list[Part]:
    wide, high, dip = r.uniform(0.68, 0.85), r.uniform(0.65, 0.85), r.uniform(0.12, 0.25)
    half = [
        (0, -high + dip),
        (0.3, -high - 0.02),
        (wide * 0.85, -high * 0.75),
        (wide, -0.1),
        (wide * 0.75, high * 0.7),
        (0.3, high),
        (0, high - 0.1),
    ]
    outline = half + [(-x, y) for x, y in half[-2:0:-1]]
    lean, side = r.uniform(-0.15, 0.15), r.choice([-1, 1])
    leaf = [
        (0.02 * side, -high - 0.05),
        (side * 0.2, -high - 0.35),
        (side * 0.6, -high - 0.4),
        (side * 0.4, -high - 0.1),
    ]
    return [
        blob("body", outline, rounds=3),
        line("stem", [(0, -high + dip), (lean, -high - 0.35)], 0.1),
        blob("leaf", leaf, "accent", 2),
    ]


def cactus(r: np.random.Generator) -> list[Part]:
    thick, tall = r.uniform(0.17, 0.25), r.uniform(0.85, 1.1)
    parts = []
    for side in (-1, 1)[: int(r.integers(1, 3))]:
        out, low, high = r.uniform(0.5, 0.65) * side, r.uniform(-0.05, 0.25), r.uniform(0.3, 0.6)
        parts.append(
            line("arm", [(0, low), (out, low), (out, low - high)], thick * 1.25, "main", 2)
        )
    stem = [
        (-thick, 0.65),
        (-thick, -tall * 0.7),
        (-thick * 0.6, -tall),
        (thick * 0.6, -tall),
        (thick, -tall * 0.7),
        (thick, 0.65),
    ]
    parts += [blob("stem", stem, rounds=2)]
    parts += [
        line("rib", [(x, 0.5), (x, -tall * 0.7)], 0.045) for x in (-thick * 0.35, thick * 0.35)
    ]
    pot = [(-0.42, 0.55), (0.42, 0.55), (0.3, 1.1), (-0.3, 1.1)]
    return [*parts, polygon("pot", pot, "accent"), box("rim", -0.48, 0.48, 0.48, 0.64, "accent")]


def flower(r: np.random.Generator) -> list[Part]:
    count, long, heart = int(r.integers(5, 9)), r.uniform(0.3, 0.42), r.uniform(0.15, 0.24)
    wide, stem = min(0.2, 1.1 * long / count * 2), r.uniform(0.8, 1.15)
    petals = []
    for angle in np.arange(count) * 360 / count + r.uniform(0, 360):
        x, y = turned([(heart + long * 0.7, 0)], angle)[0]
        petals.append(ellipse("petal", x, y - 0.4, long, wide, turn=angle))
    side = r.choice([-1, 1])
    leaf = [
        (0, stem * 0.65),
        (side * 0.2, stem * 0.3),
        (side * 0.6, stem * 0.25),
        (side * 0.4, stem * 0.6),
    ]
    return [
        line("stem", [(0, -0.2), (0.04 * side, stem)], 0.09),
        blob("leaf", leaf, "accent", 2),
        *petals,
        ellipse("heart", 0, -0.4, heart, paint="light"),
    ]


def ice_cream(r: np.random.Generator) -> list[Part]:
    scoops, radius, cone = int(r.integers(1, 4)), r.uniform(0.36, 0.46), r.uniform(0.9, 1.2)
    parts = [polygon("cone", [(-radius, 0), (radius, 0), (0, cone)], "accent")]
    for sign in (-1, 1):
        for t in (0.25, 0.6):
            start, end = (sign * radius * (1 - t), t * cone), (-sign * radius * t * 0.9, 0.1 * t)
            parts.append(line("waffle", [start, end], 0.04))
    for k in range(scoops):
        size = radius * (1 - 0.1 * k)
        parts.insert(0, ellipse("scoop", 0, -radius * 0.5 - 0.95 * radius * k, size * 1.1, size))
    scoop_parts = sorted(parts[:scoops], key=lambda part: part.points[:, 1].min())
    top = min(part.points[:, 1].min() for part in scoop_parts)
    if r.random() < 0.6:
        scoop_parts.append(ellipse("cherry", 0, top - 0.08, 0.13, paint="dark"))
    return [*parts[scoops:], *scoop_parts]


def mushroom(r: np.random.Generator) -> list[Part]:
    wide, high = r.uniform(0.6, 0.95), r.uniform(0.5, 0.85)
    stem, tall, bulge = r.uniform(0.16, 0.28), r.uniform(0.5, 0.85), r.uniform(1.0, 1.6)
    foot = [(-stem, -0.05), (stem, -0.05), (stem * bulge, tall), (-stem * bulge, tall)]
    spots = [
        ellipse("spot", wide * x, -high * y, 0.11 * s, 0.09 * s, "light")
        for x, y, s in ((-0.5, 0.32, 1.0), (0.05, 0.62, 1.3), (0.5, 0.28, 1.1))
    ]
    cap = [*arc(0, 0, wide, high, 180, 360), *arc(0, 0, wide, 0.12, 0, 180)[1:-1]]
    return [blob("stem", foot, "light", 1), polygon("cap", cap), *spots]


def pineapple(r: np.random.Generator) -> list[Part]:
    wide, high, leaf = r.uniform(0.4, 0.55), r.uniform(0.58, 0.75), r.uniform(0.5, 0.75)
    leaves = []
    for angle in (-50, 50, -25, 25, 0):
        blade = [(-0.13, 0), (0, -leaf), (0.13, 0)]
        leaves.append(polygon("leaf", turned(blade, angle) + (0, -high * 0.85), "accent"))
    parts = [*leaves, ellipse("body", 0, 0, wide, high)]
    for t in np.linspace(-0.55, 0.55, int(r.integers(3, 5))):
        x = wide * np.sqrt(1 - t * t) * 0.9
        parts.append(line("mesh", [(-x, high * (t - 0.2)), (x, high * (t + 0.2))], 0.045))
        parts.append(line("mesh", [(-x, high * (t + 0.2)), (x, high * (t - 0.2))], 0.045))
    return parts


def tree(r: np.random.Generator) -> list[Part]:
    trunk, tall, wide = r.uniform(0.09, 0.17), r.uniform(0.5, 0.9), r.uniform(0.5, 0.75)
    foot = polygon(
        "trunk", [(-trunk, -0.1), (trunk, -0.1), (trunk * 1.3, tall), (-trunk * 1.3, tall)], "dark"
    )
    if r.random() < 0.5:
        tiers = int(r.integers(2, 4))
        crown = [
            polygon(
                "crown",
                [(-wide * s, 0.15 - 0.45 * k), (0, -0.75 - 0.42 * k), (wide * s, 0.15 - 0.45 * k)],
            )
            for k, s in enumerate(np.linspace(1, 0.6, tiers))
        ]
        return [foot, *crown]
    lobes = int(r.integers(6, 9))
    radius = 0.55 * (1 + 0.12 * np.cos(np.linspace(0, 2 * np.pi * lobes, 72, endpoint=False)))
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    outline = np.stack(
        [radius * np.cos(angles) * wide * 1.6, radius * np.sin(angles) * 1.1 - 0.5], 1
    )
    return [foot, polygon("crown", outline)]
