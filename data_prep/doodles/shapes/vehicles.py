"""Things that drive, sail and fly: each function draws one random individual as named parts."""

from __future__ import annotations

import numpy as np

from ..geometry import Part, arc, blob, both, box, ellipse, line, polygon


def airplane(r: np.random.Generator) -> list[Part]:
    thick, sweep, span = r.uniform(0.14, 0.2), r.uniform(0.2, 0.5), r.uniform(0.55, 0.8)
    chord = r.uniform(0.3, 0.42)
    body = [
        (-1, 0),
        (-0.8, -thick),
        (0.6, -thick),
        (1, -thick * 0.5),
        (0.9, thick * 0.6),
        (-0.8, thick),
    ]
    fin = [
        (0.6, -thick * 0.7),
        (0.85, -thick - r.uniform(0.3, 0.45)),
        (1.08, -thick - 0.3),
        (0.98, 0),
    ]
    near = [(-0.3, 0.03), (-0.3 + chord, 0.03), (sweep + chord * 0.6, span), (sweep + 0.05, span)]
    far = [
        (-0.25, -thick * 0.7),
        (-0.25 + chord, -thick * 0.7),
        (sweep + 0.2, -span * 0.75),
        (sweep, -span * 0.75),
    ]
    ports = [
        ellipse("window", x, -thick * 0.4, 0.045, paint="light")
        for x in np.linspace(-0.55, 0.5, int(r.integers(4, 7)))
    ]
    tail = [(0.7, 0), (0.88, 0), (1.12, 0.24), (1.0, 0.24)]
    return [
        polygon("far wing", far, "accent"),
        polygon("fin", fin, "accent"),
        blob("body", body, rounds=2),
        *ports,
        polygon("near wing", near, "accent"),
        polygon("tail wing", tail, "accent"),
    ]


def bicycle(r: np.random.Generator) -> list[Part]:
    wheel, gap = r.uniform(0.36, 0.46), r.uniform(0.56, 0.62)
    seat, bar = r.uniform(0.5, 0.65), r.uniform(0.55, 0.75)
    back, front, crank = (gap, 0.0), (-gap, 0.0), (0.08, 0.02)
    saddle, head = (gap * 0.35, -seat), (-gap * 0.7, -bar)
    rims = []
    for x, y in (back, front):
        rim = arc(x, y, wheel, wheel, 0, 348)
        rims.append(line("wheel", [*rim, rim[0]], 0.09))
        rims.append(ellipse("hub", x, y, 0.06, paint="dark"))
    frame = [
        line("frame", p, 0.09, "main")
        for p in (
            [back, crank, saddle, back],
            [crank, (head[0] - 0.02, head[1] + 0.2), (saddle[0], saddle[1] + 0.12)],
            [head, front],
        )
    ]
    grips = (
        [(head[0] - 0.18, head[1] - 0.06), head, (head[0] + 0.15, head[1] - 0.05)]
        if r.random() < 0.5
        else [
            head,
            (head[0] - 0.2, head[1]),
            (head[0] - 0.24, head[1] + 0.14),
            (head[0] - 0.1, head[1] + 0.2),
        ]
    )
    return [
        *rims,
        *frame,
        line("handlebar", grips, 0.08),
        line("saddle", [(saddle[0] - 0.18, saddle[1]), (saddle[0] + 0.16, saddle[1])], 0.13),
        ellipse("pedal", *crank, 0.1, paint="dark"),
    ]


def car(r: np.random.Generator) -> list[Part]:
    cabin, high, wheel = r.uniform(0.3, 0.45), r.uniform(0.28, 0.4), r.uniform(0.17, 0.24)
    front, back = r.choice([(-0.5, 0.5), (-0.35, 0.85), (-0.45, 0.3)])
    roof = [(front - 0.15, 0), (front + 0.1, -cabin), (back - 0.15, -cabin), (back + 0.1, 0)]
    glass = [
        (front + 0.02, -0.02),
        (front + 0.16, -cabin + 0.08),
        (back - 0.2, -cabin + 0.08),
        (back - 0.03, -0.02),
    ]
    body = [(-1, 0.12), (-0.85, 0), (0.9, 0), (1, 0.1), (1, high), (-1, high)]
    middle = (front + back) / 2
    parts = [
        polygon("cabin", roof),
        polygon("window", glass, "light"),
        line("post", [(middle, -0.02), (middle, -cabin + 0.05)], 0.06),
        blob("body", body, rounds=1),
    ]
    for x in (-0.55, 0.55):
        parts += [
            ellipse("wheel", x, high, wheel, paint="dark"),
            ellipse("hub", x, high, wheel * 0.45, paint="light"),
        ]
    return parts


def hot_air_balloon(r: np.random.Generator) -> list[Part]:
    wide, high, drop = r.uniform(0.62, 0.8), r.uniform(0.65, 0.8), r.uniform(0.25, 0.45)
    half = [
        (0, -high),
        (wide * 0.7, -high * 0.9),
        (wide, -0.2),
        (wide * 0.8, high * 0.35),
        (0.22, high * 0.95),
    ]
    outline = half + [(-x, y) for x, y in half[:0:-1]]
    low = high * 0.85
    ropes = both(line("rope", [(0.17, low), (0.17, low + drop)], 0.05))
    seams = both(
        line("seam", [(0.05, -high * 0.9), (wide * 0.45, -0.1), (0.12, low)], 0.05, rounds=2)
    )
    basket = box("basket", -0.22, low + drop, 0.22, low + drop + r.uniform(0.22, 0.34), "dark")
    return [*ropes, basket, blob("envelope", outline), *seams]


def rocket(r: np.random.Generator) -> list[Part]:
    wide, nose, flare = r.uniform(0.22, 0.34), r.uniform(0.4, 0.6), r.uniform(0.25, 0.42)
    fire = r.uniform(0.25, 0.5)
    flame = [
        (-wide * 0.6, 0.6),
        (wide * 0.6, 0.6),
        (wide * 0.3, 0.6 + fire * 0.6),
        (0, 0.6 + fire),
        (-wide * 0.3, 0.6 + fire * 0.6),
    ]
    fin = [(wide * 0.9, 0.15), (wide + flare, 0.55), (wide + flare, 0.8), (wide * 0.9, 0.6)]
    body = [(-wide, 0.62), (-wide, -0.5), (wide, -0.5), (wide, 0.62)]
    ports = [
        ellipse("window", 0, y, wide * 0.45, paint="light")
        for y in (-0.25, 0.2)[: int(r.integers(1, 3))]
    ]
    tip = [
        (-wide, -0.48),
        (-wide * 0.6, -0.5 - nose * 0.6),
        (0, -0.5 - nose),
        (wide * 0.6, -0.5 - nose * 0.6),
        (wide, -0.48),
    ]
    return [
        polygon("flame", flame, "light"),
        *both(polygon("fin", fin, "accent")),
        polygon("body", body),
        polygon("nose", tip, "accent"),
        *ports,
    ]


def sailboat(r: np.random.Generator) -> list[Part]:
    tall, deep, lean = r.uniform(1.0, 1.4), r.uniform(0.25, 0.4), r.uniform(0.15, 0.3)
    main, fore = r.uniform(0.55, 0.8), r.uniform(0.35, 0.65)
    hull = [(-0.9, 0.15), (0.95, 0.15), (0.95 - lean, 0.15 + deep), (-0.9 + lean, 0.15 + deep)]
    parts = [
        line("mast", [(0, 0.2), (0, -tall)], 0.08),
        polygon("hull", hull, "accent"),
        polygon("main sail", [(0.07, -tall + 0.05), (0.07 + main, 0), (0.07, 0)]),
    ]
    if r.random() < 0.7:
        parts.append(
            polygon("fore sail", [(-0.07, -tall + 0.25), (-0.07, 0), (-0.07 - fore, 0)], "light")
        )
    if r.random() < 0.5:
        parts.append(polygon("flag", [(0, -tall - 0.22), (0.3, -tall - 0.1), (0, -tall)], "dark"))
    return parts
