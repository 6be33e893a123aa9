"""Small animals that crawl, flutter or swim: one random individual a function."""

from __future__ import annotations

import numpy as np

from ..geometry import Part, arc, blob, both, ellipse, line, polygon


def butterfly(r: np.random.Generator) -> list[Part]:
    up, wide, low = r.uniform(0.6, 0.85), r.uniform(0.7, 1.0), r.uniform(0.5, 0.8)
    point = r.random() < 0.4
    upper = [(0.05, 0), (0.15, -up * 0.7), (wide * 0.7, -up), (wide, -up * 0.7), (wide * 0.7, 0)]
    lower = [
        (0.05, 0),
        (wide * 0.6, 0),
        (wide * 0.8, low * 0.5),
        (wide * 0.5, low),
        (0.2, low * 0.6),
    ]
    spot = ellipse("spot", wide * 0.6, -up * 0.5, r.uniform(0.09, 0.18), paint="light")
    feeler = line("feeler", [(0.03, -0.4), (0.12, -0.65), (0.3, -0.85)], 0.05, rounds=2)
    return [
        *both(blob("lower wing", lower, "accent", 1 if point else 3)),
        *both(blob("upper wing", upper, rounds=1 if point else 3)),
        *both(spot),
        *both(feeler),
        ellipse("body", 0, 0, 0.09, 0.5, "dark"),
    ]


def crab(r: np.random.Generator) -> list[Part]:
    wide, high, claw = r.uniform(0.5, 0.68), r.uniform(0.3, 0.42), r.uniform(0.22, 0.32)
    cx, cy = wide + 0.2, -r.uniform(0.5, 0.75)
    pincer = [(cx, cy), *arc(cx, cy, claw, claw * 1.15, -60, 240)]
    parts = both(
        line("arm", [(wide * 0.7, -0.1), (cx + 0.08, -0.15), (cx, cy + 0.15)], 0.11, "accent")
    )
    for dy, out in ((0.05, 0.42), (0.2, 0.36), (0.32, 0.22)):
        leg = [(wide * 0.75, dy), (wide + out, dy + 0.05), (wide + out + 0.05, dy + 0.33)]
        parts += both(line("leg", leg, 0.08, "accent"))
    parts += both(polygon("claw", pincer))
    parts += both(line("eye stalk", [(0.2, -high * 0.7), (0.22, -high - 0.22)], 0.06))
    return [
        *parts,
        ellipse("body", 0, 0, wide, high),
        *both(ellipse("eye", 0.22, -high - 0.25, 0.09, paint="dark")),
    ]


def fish(r: np.random.Generator) -> list[Part]:
    rx, ry, tail = 0.75, r.uniform(0.28, 0.6), r.uniform(0.25, 0.5)
    fork = r.choice([0.0, 0.15, 0.3])
    back = [(0.55, 0), (0.7 + 0.3, -tail), (1.0 - fork, 0), (0.7 + 0.3, tail)]
    fin_x, fin_h = r.uniform(-0.3, 0.2), r.uniform(0.15, 0.4)
    fin = [(fin_x - 0.3, -ry * 0.75), (fin_x + 0.1, -ry - fin_h), (fin_x + 0.35, -ry * 0.6)]
    return [
        polygon("tail", back, "accent"),
        polygon("fin", fin, "accent"),
        ellipse("body", -0.1, 0, rx, ry),
        ellipse("eye", -0.58, -0.08, 0.08, paint="dark"),
        line("gill", arc(-0.55, 0, 0.25, ry * 0.7, -50, 50), 0.06),
    ]


def snail(r: np.random.Generator) -> list[Part]:
    shell, turns, sx = r.uniform(0.5, 0.65), r.uniform(1.6, 2.6), r.uniform(0.05, 0.25)
    neck = r.uniform(0.3, 0.65)
    body = [
        (1.0, 0.55),
        (0.2, 0.28),
        (-0.5, 0.25),
        (-0.62, -neck),
        (-0.95, -neck),
        (-1.0, 0.1),
        (-0.8, 0.55),
    ]
    angles = np.linspace(0, turns * 2 * np.pi, 50)
    radii = shell * (1 - angles / angles[-1] * 0.92)
    spiral = np.stack([sx + radii * np.cos(angles), -0.1 + radii * np.sin(angles)], axis=1)
    tip = r.uniform(0.25, 0.4)
    return [
        line("feeler", [(-0.88, -neck), (-1.02, -neck - tip)], 0.07),
        line("feeler", [(-0.72, -neck), (-0.6, -neck - tip)], 0.07),
        blob("body", body, "accent"),
        ellipse("shell", sx, -0.1, shell),
        line("spiral", spiral, 0.07),
        ellipse("eye", -0.82, -neck + 0.12, 0.05, paint="dark"),
    ]


def snake(r: np.random.Generator) -> list[Part]:
    waves, height, thick = r.uniform(1.2, 2.3), r.uniform(0.25, 0.45), r.uniform(0.2, 0.3)
    x = np.linspace(-0.75, 1.0, 40)
    y = height * np.sin((x + 0.75) / 1.75 * 2 * np.pi * waves + r.uniform(0, 1))
    slope = np.gradient(y, x)
    normal = np.stack([-slope, np.ones(40)], axis=1) / np.hypot(slope, 1)[:, None]
    taper = (thick / 2 * np.linspace(1.1, 0.15, 40))[:, None]
    spine = np.stack([x, y], axis=1)
    body = np.concatenate([spine + normal * taper, (spine - normal * taper)[::-1]])
    hx, hy = x[0] - 0.05, y[0]
    fork = [(hx - 0.15, hy), (hx - 0.38, hy), (hx - 0.5, hy - 0.08)]
    return [
        line("tongue", fork, 0.05),
        line("tongue", [(hx - 0.38, hy), (hx - 0.5, hy + 0.09)], 0.05),
        polygon("body", body),
        ellipse("head", hx, hy, 0.24, thick * 0.85),
        ellipse("eye", hx - 0.05, hy - 0.04, 0.05, paint="dark"),
    ]


def spider(r: np.random.Generator) -> list[Part]:
    body, head, reach = r.uniform(0.32, 0.45), r.uniform(0.18, 0.26), r.uniform(0.75, 1.05)
    knee = r.uniform(0.15, 0.45)
    parts = []
    for k, angle in enumerate((-55, -18, 18, 52)):
        a = np.radians(angle)
        foot = (reach * np.cos(a), reach * np.sin(a) * 1.1 + 0.25)
        mid = (reach * 0.55 * np.cos(a) + 0.1, reach * 0.6 * np.sin(a) - knee * (1 - 0.2 * k))
        parts += both(line("leg", [(0.1, 0), mid, foot], 0.075))
    if r.random() < 0.4:
        parts.insert(0, line("thread", [(0, -1.3), (0, -body)], 0.05, "light"))
    parts += [
        ellipse("body", 0, -0.05, body, body * r.uniform(0.9, 1.25)),
        ellipse("head", 0, body + 0.08, head, paint="accent"),
    ]
    return [*parts, *both(ellipse("eye", 0.08, body + 0.12, 0.05, paint="light"))]
