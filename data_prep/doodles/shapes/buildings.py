"""Things that stand outdoors: each function draws one random individual as named parts."""

from __future__ import annotations

import numpy as np

from ..geometry import Part, arc, blob, both, box, ellipse, line, polygon, turned


def castle(r: np.random.Generator) -> list[Part]:
    wall, tower, thick = r.uniform(0.4, 0.6), r.uniform(0.95, 1.3), r.uniform(0.2, 0.28)
    pointed = r.random() < 0.55
    edge = [(-0.7, 0.6), (-0.7, 0.6 - wall - 0.2)]
    for k, x in enumerate(np.linspace(-0.7, 0.7, 8)[:-1]):
        y = 0.6 - wall - 0.2 * (k % 2 == 0)
        edge += [(x, y), (x + 0.2, y)]
    parts = [polygon("wall", [*edge, (0.7, 0.6)])]
    body = box("tower", 0.75 - thick, 0.6 - tower, 0.75 + thick, 0.6)
    parts += both(body)
    top = 0.6 - tower
    if pointed:
        cone = [(0.75 - thick - 0.08, top), (0.75, top - 0.55), (0.75 + thick + 0.08, top)]
        parts += both(polygon("roof", cone, "accent"))
    else:
        for x in (0.75 - thick, 0.75 - thick * 0.25, 0.75 + thick * 0.5):
            parts += both(box("battlement", x, top - 0.17, x + thick * 0.5, top + 0.02))
    parts += both(box("window", 0.7, top + 0.2, 0.8, top + 0.45, "dark"))
    return [
        *parts,
        polygon("gate", [(-0.18, 0.6), *arc(0, 0.35, 0.18, 0.2, 180, 360), (0.18, 0.6)], "dark"),
    ]


def house(r: np.random.Generator) -> list[Part]:
    wide, high, roof = r.uniform(0.6, 0.9), r.uniform(0.6, 0.95), r.uniform(0.4, 0.8)
    ridge = r.choice([0.0, 0.35]) * wide
    side, door = r.choice([-1, 1]), r.uniform(-0.3, 0.3) * wide
    parts = []
    if r.random() < 0.6:
        x = side * wide * 0.6
        parts.append(box("chimney", x - 0.1, -roof - 0.05, x + 0.1, 0, "dark"))
    parts += [
        box("wall", -wide, 0, wide, high),
        polygon(
            "roof", [(-wide - 0.15, 0), (-ridge, -roof), (ridge, -roof), (wide + 0.15, 0)], "accent"
        ),
        box("door", door - 0.13, high * 0.45, door + 0.13, high, "dark"),
    ]
    windows = (-0.65, 0.65) if wide > 0.7 else (0.65 * np.sign(-door - 1e-9),)
    return [
        *parts,
        *(
            box("window", x * wide - 0.13, high * 0.25, x * wide + 0.13, high * 0.55, "light")
            for x in windows
        ),
    ]


def ladder(r: np.random.Generator) -> list[Part]:
    rungs, wide, taper = int(r.integers(4, 8)), r.uniform(0.24, 0.36), r.uniform(0.65, 1.0)
    step = [
        line("rung", [(-wide * s, y), (wide * s, y)], 0.1, "main")
        for y, s in zip(np.linspace(0.8, -0.8, rungs), np.linspace(1, taper, rungs), strict=True)
    ]
    if r.random() < 0.35:
        step = [*both(line("prop", [(wide * taper, -1), (wide + 0.4, 1)], 0.07)), *step]
    rail = line("rail", [(wide * 1.04, 1), (wide * taper, -1)], 0.13, "main")
    return [*step, *both(rail)]


def snowman(r: np.random.Generator) -> list[Part]:
    low, mid, head = r.uniform(0.48, 0.58), r.uniform(0.34, 0.42), r.uniform(0.24, 0.3)
    my, hy = -low * 0.75 - mid * 0.3, -low * 0.75 - mid - head * 0.75
    arms = [
        line("arm", [(s * mid * 0.8, my), (s * (mid + 0.45), my - r.uniform(-0.1, 0.4))], 0.06)
        for s in (-1, 1)
    ]
    parts = [
        *arms,
        ellipse("bottom", 0, 0.2, low),
        ellipse("middle", 0, my, mid),
        ellipse("head", 0, hy, head),
    ]
    parts += [ellipse("button", 0, my + dy, 0.05, paint="dark") for dy in (-0.1, 0.12)]
    parts += both(ellipse("eye", head * 0.4, hy - 0.05, 0.045, paint="dark"))
    parts.append(
        polygon("nose", [(0, hy + 0.02), (-head - 0.12, hy + 0.08), (0, hy + 0.12)], "accent")
    )
    if r.random() < 0.6:
        parts += [
            box("hat", -head * 0.65, hy - head - 0.3, head * 0.65, hy - head * 0.7, "dark"),
            box("brim", -head * 1.1, hy - head * 0.8, head * 1.1, hy - head * 0.55, "dark"),
        ]
    else:
        parts.append(
            line(
                "scarf",
                [(-mid * 0.7, hy + head * 0.8), (mid * 0.7, hy + head * 0.8)],
                0.13,
                "accent",
            )
        )
    return parts


def tent(r: np.random.Generator) -> list[Part]:
    high, wide, deep = r.uniform(0.8, 1.15), r.uniform(0.5, 0.75), r.uniform(0.4, 0.75)
    slope = r.uniform(0.05, 0.2)
    side = [(0, -high), (deep, -high + slope), (deep + wide * 0.9, -0.05), (wide, 0.1)]
    flap = r.uniform(0.15, 0.3)
    front = polygon("front", [(-wide, 0.1), (0, -high), (wide, 0.1)], "accent")
    return [
        polygon("side", side),
        front,
        polygon("door", [(-flap, 0.1), (0, -high * 0.75), (flap, 0.1)], "dark"),
        line("pole", [(0, -high), (0, -high - 0.15)], 0.07),
        line("rope", [(deep + wide * 0.9, -0.05), (deep + wide + 0.2, 0.12)], 0.05),
        line("rope", [(-wide * 0.9, -0.02), (-wide - 0.25, 0.12)], 0.05),
    ]


def traffic_light(r: np.random.Generator) -> list[Part]:
    wide, high, lit = r.uniform(0.27, 0.36), r.uniform(0.7, 0.85), int(r.integers(3))
    parts = [box("pole", -0.07, high * 0.5, 0.07, 1.3, "dark")]
    if r.random() < 0.5:
        parts += [
            q
            for y in (-0.5, 0.0, 0.5)
            for q in both(
                polygon(
                    "visor",
                    [
                        (wide, y * high - 0.1),
                        (wide + 0.2, y * high - 0.15),
                        (wide, y * high + 0.14),
                    ],
                    "dark",
                )
            )
        ]
    else:
        parts.append(box("base", -0.3, 1.2, 0.3, 1.35, "dark"))
    parts.append(
        blob("box", [(-wide, -high), (wide, -high), (wide, high), (-wide, high)], rounds=1)
    )
    return [
        *parts,
        *(
            ellipse("lamp", 0, y * high, wide * 0.58, high * 0.21, "light" if k == lit else "dark")
            for k, y in enumerate((-0.6, 0.0, 0.6))
        ),
    ]


def windmill(r: np.random.Generator) -> list[Part]:
    top, low, sail = r.uniform(0.2, 0.3), r.uniform(0.38, 0.55), r.uniform(0.75, 0.95)
    start, hub, blade = r.uniform(10, 80), (0, -0.42), r.uniform(0.18, 0.26)
    parts = [
        polygon("tower", [(-top, -0.4), (top, -0.4), (low, 1), (-low, 1)]),
        polygon("cap", arc(0, -0.38, top * 1.15, 0.34, 180, 360), "accent"),
        box("door", -0.12, 0.65, 0.12, 1, "dark"),
        box("window", -0.09, 0.05, 0.09, 0.25, "light"),
    ]
    for angle in np.arange(4) * 90 + start:
        cloth = [(0.2, 0), (sail, 0), (sail, blade), (0.2, blade)]
        parts.append(polygon("sail", turned(cloth, angle) + hub, "light"))
        parts.append(line("arm", turned([(0, 0), (sail, 0)], angle) + hub, 0.07))
    return [*parts, ellipse("hub", *hub, 0.08, paint="dark")]
