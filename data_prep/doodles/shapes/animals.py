"""Animals with legs, wings or a shell on the back: one random individual a function."""

from __future__ import annotations

import numpy as np

from ..geometry import Part, arc, blob, both, ellipse, line, polygon, turned


def bird(r: np.random.Generator) -> list[Part]:
    rx, ry, head = r.uniform(0.5, 0.65), r.uniform(0.33, 0.5), r.uniform(0.22, 0.32)
    hx, hy, leg = -rx * 0.75, -ry - head * 0.35, r.uniform(0.3, 0.55)
    beak = r.uniform(0.2, 0.4)
    tail = [(rx * 0.6, -0.1), (rx + 0.5, r.uniform(-0.4, 0.05)), (rx + 0.42, 0.2), (rx * 0.6, 0.2)]
    wing = [(-0.25, -0.15), (0.25, -0.2), (0.6, 0.15), (0.1, 0.25)]
    feet = [
        line("leg", [(x, ry * 0.7), (x, ry + leg), (x - 0.15, ry + leg)], 0.07)
        for x in (-0.12, 0.16)
    ]
    return [
        *feet,
        polygon("tail", tail, "accent"),
        polygon("beak", [(hx, hy - 0.1), (hx - head - beak, hy + 0.06), (hx, hy + 0.12)], "dark"),
        ellipse("body", 0, 0, rx, ry, turn=12),
        ellipse("head", hx, hy, head),
        blob("wing", wing, "accent"),
        ellipse("eye", hx - 0.07, hy - 0.06, 0.06, paint="dark"),
    ]


def cat(r: np.random.Generator) -> list[Part]:
    rx, ry, ear = r.uniform(0.55, 0.7), r.uniform(0.45, 0.58), r.uniform(0.35, 0.55)
    ear_part = polygon("ear", [(0.15, -ry * 0.8), (rx * 0.9, -ry - ear), (rx, -ry * 0.1)])
    parts = []
    if r.random() < 0.5:
        width, height = r.uniform(0.45, 0.6), r.uniform(0.8, 1.1)
        tail = [
            (width * 0.6, ry + height - 0.1),
            (width + 0.5, ry + height - 0.1),
            (width + 0.45, ry + height * 0.4),
            (width + 0.7, ry + height * 0.1),
        ]
        parts += [
            line("tail", tail, 0.16, "main", 3),
            ellipse("body", 0, ry + height * 0.4, width, height * 0.62),
        ]
    parts += [*both(ear_part), ellipse("head", 0, 0, rx, ry)]
    parts += both(ellipse("eye", rx * 0.42, -0.1, 0.08, 0.12, "dark"))
    for dy in (-0.07, 0.08):
        parts += both(line("whisker", [(0.2, 0.16 + dy / 2), (rx + 0.2, 0.14 + dy * 2)], 0.05))
    return [*parts, polygon("nose", [(-0.1, 0.08), (0.1, 0.08), (0, 0.2)], "light")]


def duck(r: np.random.Generator) -> list[Part]:
    long, neck, head = r.uniform(0.7, 0.85), r.uniform(0.35, 0.65), r.uniform(0.24, 0.32)
    body = [
        (-long, 0),
        (-0.5, -0.12),
        (0.3, -0.05),
        (long + 0.15, -0.4),
        (long, 0.25),
        (0.4, 0.55),
        (-0.45, 0.55),
    ]
    hx, hy = -0.52, -neck - 0.1
    bill = [
        (hx - head * 0.7, hy - 0.08),
        (hx - head - 0.32, hy + 0.04),
        (hx - head - 0.32, hy + 0.14),
        (hx - head * 0.7, hy + 0.16),
    ]
    wing = [(-0.25, 0.1), (0.2, 0.0), (0.65, 0.05), (0.3, 0.38), (-0.1, 0.35)]
    return [
        blob("bill", bill, "dark", 1),
        blob(
            "neck", [(hx - 0.17, hy), (hx + 0.17, hy), (hx + 0.26, 0.3), (hx - 0.2, 0.3)], rounds=1
        ),
        blob("body", body),
        ellipse("head", hx, hy, head),
        blob("wing", wing, "accent"),
        ellipse("eye", hx - 0.06, hy - 0.07, 0.06, paint="dark"),
    ]


def rabbit(r: np.random.Generator) -> list[Part]:
    head, ear, wide = r.uniform(0.4, 0.5), r.uniform(0.75, 1.1), r.uniform(0.11, 0.18)
    tilt, lop = r.uniform(4, 28), r.random() < 0.3
    outline = arc(0.18, -head * 0.7 - ear / 2, wide, ear / 2, 0, 345)
    points = turned(outline, tilt, (0.18, -head * 0.7))
    if lop:
        points[:, 0] += np.clip(-head - ear * 0.55 - points[:, 1], 0, None) * 0.9
    parts = both(polygon("ear", points))
    if r.random() < 0.6:
        belly = r.uniform(0.5, 0.7)
        parts += [
            ellipse("tail", belly * 0.95, head + 0.85, 0.18, paint="light"),
            ellipse("body", 0, head + 0.5, belly, 0.62),
        ]
        parts += both(ellipse("foot", 0.33, head + 1.05, 0.26, 0.13, "accent"))
    parts += [ellipse("head", 0, 0, head, head * 0.92)]
    parts += both(ellipse("eye", head * 0.4, -0.06, 0.06, 0.09, "dark"))
    return [
        *parts,
        ellipse("nose", 0, 0.13, 0.08, 0.06, "dark"),
        polygon("teeth", [(-0.08, 0.24), (0.08, 0.24), (0.08, 0.42), (-0.08, 0.42)], "light"),
    ]


def turtle(r: np.random.Generator) -> list[Part]:
    wide, high, head = r.uniform(0.6, 0.75), r.uniform(0.45, 0.8), r.uniform(0.17, 0.25)
    hx, hy = -wide - head - 0.12, r.uniform(-0.35, 0.05)
    leg = r.uniform(0.22, 0.4)
    shell = [*arc(0, 0.1, wide, high, 180, 360)]
    marks = [
        line("mark", [(x, 0.1 - high * 0.12), (x * 0.55, -high * 0.72)], 0.055)
        for x in (-0.35, 0.0, 0.35)
    ]
    neck = [(-wide * 0.7, -0.05), (hx, hy - 0.08), (hx, hy + 0.12), (-wide * 0.7, 0.2)]
    legs = [
        blob(
            "leg",
            [(x - 0.13, 0.05), (x + 0.13, 0.05), (x + 0.15, 0.15 + leg), (x - 0.15, 0.15 + leg)],
            "accent",
            1,
        )
        for x in (-wide * 0.6, wide * 0.6)
    ]
    return [
        polygon("tail", [(wide * 0.9, 0), (wide + 0.3, 0.2), (wide * 0.8, 0.2)], "accent"),
        polygon("neck", neck, "accent"),
        *legs,
        ellipse("head", hx, hy, head, head * 0.85, "accent"),
        polygon("shell", shell),
        *marks,
        ellipse("eye", hx - 0.05, hy - 0.05, 0.05, paint="dark"),
    ]
