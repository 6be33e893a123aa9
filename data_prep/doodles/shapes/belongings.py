"""Things one owns and carries: each function draws one random individual as named parts."""

from __future__ import annotations

import numpy as np

from ..geometry import Part, arc, blob, both, box, ellipse, line, polygon, turned


def book(r: np.random.Generator) -> list[Part]:
    if r.random() < 0.5:
        high, sag = r.uniform(0.45, 0.65), r.uniform(0.1, 0.25)
        page = [
            (0, -high),
            (0.3, -high - sag),
            (0.95, -high - sag * 0.4),
            (0.95, high - sag * 0.4),
            (0.3, high - sag),
            (0, high),
        ]
        cover = polygon(
            "cover", [(-1.05, -high), (1.05, -high), (1.05, high + 0.1), (-1.05, high + 0.1)]
        )
        text = [
            line("text", [(0.2, y), (0.78, y + 0.03)], 0.045)
            for y in np.linspace(-high * 0.6, high * 0.5, int(r.integers(3, 5)))
        ]
        return [
            cover,
            *both(polygon("page", page, "light")),
            *(q for t in text for q in both(t)),
            line("spine", [(0, -high), (0, high)], 0.06),
        ]
    wide, thick = r.uniform(0.55, 0.7), r.uniform(0.12, 0.28)
    pages = [
        (wide, -0.85),
        (wide + thick, -0.85 - thick * 0.6),
        (wide + thick, 0.85 - thick * 0.6),
        (wide, 0.85),
    ]
    top = [
        (-wide, -0.85),
        (wide, -0.85),
        (wide + thick, -0.85 - thick * 0.6),
        (-wide + thick, -0.85 - thick * 0.6),
    ]
    return [
        polygon("page", pages, "light"),
        polygon("top", top, "light"),
        box("cover", -wide, -0.85, wide, 0.85),
        line("spine", [(-wide + 0.16, -0.85), (-wide + 0.16, 0.85)], 0.05),
        box("title", -wide + 0.35, -0.5, wide - 0.15, -0.15, "light"),
    ]


def envelope(r: np.random.Generator) -> list[Part]:
    high, tip, opened = r.uniform(0.5, 0.75), r.uniform(0.05, 0.35), r.random() < 0.35
    parts = [box("body", -1, -high, 1, high)]
    if opened:
        parts.insert(0, polygon("flap", [(-1, -high), (0, -high - 0.6), (1, -high)], "accent"))
        letter = box("letter", -0.75, -high - 0.3, 0.75, 0.2, "light")
        front = polygon("body", [(-1, -high), (0, tip), (1, -high), (1, high), (-1, high)])
        return [parts[0], letter, front]
    parts += both(line("fold", [(1, high), (0.25, tip * 0.5)], 0.05))
    parts.append(polygon("flap", [(-1, -high), (1, -high), (0, tip)], "accent"))
    if r.random() < 0.5:
        parts.append(ellipse("seal", 0, tip, 0.14, paint="dark"))
    return parts


def glasses(r: np.random.Generator) -> list[Part]:
    kind, wide, high = r.integers(3), r.uniform(0.36, 0.44), r.uniform(0.26, 0.4)
    gap = wide + r.uniform(0.1, 0.16)
    if kind == 0:
        shape = arc(gap, 0, wide, high, 0, 348)
    elif kind == 1:
        shape = [(gap - wide, -high), (gap + wide, -high), (gap + wide, high), (gap - wide, high)]
    else:
        shape = [
            (gap - wide, -high),
            (gap + wide * 1.1, -high * 1.2),
            (gap + wide * 0.9, high * 0.6),
            (gap, high * 1.1),
            (gap - wide * 0.9, high * 0.5),
        ]
    lens = blob("lens", shape, "light", 2 if kind else 0)
    rim = line("rim", [*lens.points, lens.points[0]], 0.13, "main")
    temple = [
        (gap + wide, -high * 0.4),
        (gap + wide + 0.25, -high - 0.3),
        (gap + wide + 0.12, -high - 0.38),
    ]
    return [
        *both(line("temple", temple, 0.1, "main")),
        *both(lens),
        *both(rim),
        line("bridge", arc(0, -0.02, gap - wide, 0.14, 180, 360), 0.1, "main"),
    ]


def guitar(r: np.random.Generator) -> list[Part]:
    low, up, waist = r.uniform(0.45, 0.55), r.uniform(0.32, 0.42), r.uniform(0.22, 0.3)
    neck = r.uniform(0.85, 1.15)
    half = [
        (0, -0.45),
        (up * 0.8, -0.42),
        (up, -0.15),
        (waist, 0.12),
        (low, 0.35),
        (low * 0.95, 0.7),
        (low * 0.4, 0.92),
        (0, 0.93),
    ]
    outline = half + [(-x, y) for x, y in half[-2:0:-1]]
    top = -0.4 - neck
    parts = [
        box("neck", -0.08, top, 0.08, -0.2, "dark"),
        polygon(
            "head", [(-0.1, top), (0.1, top), (0.17, top - 0.32), (-0.17, top - 0.32)], "accent"
        ),
    ]
    for k in range(2):
        y = top - 0.1 - 0.13 * k
        parts += both(line("peg", [(0.12, y), (0.28, y)], 0.07))
    parts += [
        blob("body", outline, rounds=3),
        ellipse("hole", 0, 0.12, 0.16, paint="dark"),
        box("bridge", -0.2, 0.58, 0.2, 0.66, "dark"),
    ]
    parts += [line("string", [(x, top), (x, 0.58)], 0.03, "light") for x in (-0.03, 0.03)]
    return [part.moved(turned(part.points, 30)) for part in parts]


def hammer(r: np.random.Generator) -> list[Part]:
    head, thick, claw = r.uniform(0.3, 0.45), r.uniform(0.14, 0.2), r.random() < 0.6
    grip, handle = r.uniform(0.09, 0.13), [(-0.08, -0.6), (0.08, -0.6)]
    parts = [
        polygon("handle", [*handle, (grip, 1.1), (-grip, 1.1)]),
        box("head", -head, -0.6 - thick, head * 0.6, -0.6 + thick, "dark"),
        box("face", -head - 0.14, -0.68 - thick, -head, -0.52 + thick, "dark"),
    ]
    if claw:
        tip = [
            (head * 0.6, -0.6 - thick),
            (head + 0.35, -0.6 + thick * 0.2),
            (head + 0.42, -0.6 + thick * 2),
            (head * 0.6, -0.6 + thick),
        ]
        parts.append(blob("claw", tip, "dark", 1))
    else:
        parts.append(
            box("face", head * 0.6, -0.66 - thick, head * 0.6 + 0.14, -0.54 + thick, "dark")
        )
    return [part.moved(turned(part.points, 30)) for part in parts]


def hat(r: np.random.Generator) -> list[Part]:
    kind, high = r.integers(3), r.uniform(0.6, 0.95)
    if kind == 0:
        wide, flare = r.uniform(0.42, 0.55), r.uniform(0.9, 1.15)
        crown = polygon(
            "crown", [(-wide * flare, -high), (wide * flare, -high), (wide, 0), (-wide, 0)]
        )
    else:
        wide = r.uniform(0.5, 0.6)
        crown = polygon(
            "crown", [(-wide, 0), *arc(0, -0.25, wide * 0.95, high * 0.6, 180, 360), (wide, 0)]
        )
    brim = ellipse("brim", 0, 0.05, r.uniform(0.85, 1.05), r.uniform(0.1, 0.2))
    band = box("band", -wide, -r.uniform(0.2, 0.3), wide, -0.04, "dark")
    return [brim, crown, band]


def key(r: np.random.Generator) -> list[Part]:
    bow, teeth, long = r.uniform(0.3, 0.42), int(r.integers(2, 4)), r.uniform(1.25, 1.6)
    square = r.random() < 0.4
    head = (
        blob("bow", [(-bow, -bow), (bow, -bow), (bow, bow), (-bow, bow)], rounds=2)
        if square
        else ellipse("bow", 0, 0, bow)
    )
    parts = [
        box("shaft", 0, -0.09, long, 0.09),
        head,
        ellipse("hole", 0, 0, bow * 0.5, paint="light"),
    ]
    for k in range(teeth):
        x, deep = long - 0.12 - 0.24 * k, r.uniform(0.25, 0.42)
        parts.insert(0, box("tooth", x - 0.07, 0, x + 0.08, deep))
    return [part.moved(turned(part.points, 45)) for part in parts]


def scissors(r: np.random.Generator) -> list[Part]:
    spread, blade, ring = r.uniform(14, 30), r.uniform(0.95, 1.25), r.uniform(0.22, 0.32)
    parts = []
    for sign in (-1, 1):
        edge = [(-0.1, 0.15), (0.1, 0.15), (0.06 * sign, -blade)]
        hole = arc(0.06 * sign, 0.4 + ring * 1.15, ring * 0.8, ring * 1.15, 0, 348)
        parts.append(polygon("blade", turned(edge, -sign * spread), "light"))
        parts.append(line("shank", turned([(0, 0), (0, 0.4)], -sign * spread), 0.15, "main"))
        parts.append(line("handle", turned([*hole, hole[0]], -sign * spread), 0.15, "main"))
    return [*parts, ellipse("screw", 0, 0.02, 0.08, paint="dark")]


def shoe(r: np.random.Generator) -> list[Part]:
    toe, ankle = r.uniform(0.2, 0.38), r.uniform(0.55, 0.95)
    upper = [
        (0.85, 0.35),
        (0.8, -ankle),
        (0.2, -ankle),
        (0.1, -0.2),
        (-0.6, 0.35 - toe * 1.2),
        (-1, 0.32 - toe * 0.4),
        (-1, 0.35),
    ]
    laces = [
        line(
            "lace",
            [(0.13 - 0.17 * k, -0.3 + 0.12 * k), (0.4 - 0.17 * k, -0.12 + 0.1 * k)],
            0.06,
            "light",
        )
        for k in range(int(r.integers(2, 5)))
    ]
    sole = [(-1.02, 0.32), (0.9, 0.32), (0.9, 0.5), (-1.0, 0.5)]
    parts = [blob("upper", upper, rounds=1), *laces, polygon("sole", sole, "light")]
    if r.random() < 0.4:
        parts.append(box("heel", 0.4, 0.5, 0.9, 0.72, "dark"))
    return parts


def umbrella(r: np.random.Generator) -> list[Part]:
    high, ribs, pole = r.uniform(0.55, 0.85), int(r.integers(3, 6)), r.uniform(0.85, 1.1)
    edge = np.linspace(1, -1, ribs + 1)
    scallops = [
        p
        for a, b in zip(edge[:-1], edge[1:], strict=True)
        for p in arc((a + b) / 2, 0, (a - b) / 2, 0.14, 0, -180)[1:]
    ]
    hook = [(0, -0.2), (0, pole), *arc(0.16, pole, 0.16, 0.16, 180, 10)]
    parts = [line("pole", hook, 0.09), polygon("canopy", arc(0, 0, 1, high, 180, 360) + scallops)]
    parts += [
        line("rib", [(0, -high), (x * 0.85, -high * 0.35), (x, 0)], 0.045, rounds=1)
        for x in edge[1:-1]
    ]
    return [*parts, line("tip", [(0, -high), (0, -high - 0.18)], 0.08)]
