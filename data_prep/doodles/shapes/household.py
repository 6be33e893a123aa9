"""Furniture and tableware: each function draws one random individual as named parts."""

from __future__ import annotations

import numpy as np

from ..geometry import Part, arc, blob, both, box, ellipse, line, polygon, turned


def bottle(r: np.random.Generator) -> list[Part]:
    wide, neck, high = r.uniform(0.26, 0.4), r.uniform(0.09, 0.14), r.uniform(0.3, 0.6)
    slope = r.uniform(0.12, 0.4)
    half = [(neck, -0.95), (neck, -0.95 + high), (wide, -0.95 + high + slope), (wide, 1), (0, 1)]
    outline = half + [(-x, y) for x, y in half[-2::-1]]
    label = r.uniform(0.2, 0.35)
    return [
        blob("body", outline, rounds=1),
        box("cap", -neck - 0.03, -1.15, neck + 0.03, -0.93, "dark"),
        box("label", -wide, 0.45 - label, wide, 0.45 + label, "light"),
    ]


def candle(r: np.random.Generator) -> list[Part]:
    wide, high, flame = r.uniform(0.14, 0.28), r.uniform(0.55, 0.85), r.uniform(0.3, 0.45)
    top = -high
    drop = [
        (0, top - 0.12 - flame * 1.4),
        (flame * 0.42, top - 0.1 - flame * 0.4),
        (0.0, top - 0.08),
        (-flame * 0.42, top - 0.1 - flame * 0.4),
    ]
    parts = [
        line("wick", [(0, top), (0, top - 0.16)], 0.06),
        blob("flame", drop, "light", 2),
        box("wax", -wide, top, wide, 0.5),
    ]
    if r.random() < 0.5:
        parts.append(
            blob(
                "drip",
                [(-wide, top), (-wide * 0.2, top), (-wide * 0.3, top + 0.4), (-wide, top + 0.3)],
                "accent",
                1,
            )
        )
    if r.random() < 0.6:
        grip = line("handle", arc(0.62, 0.55, 0.2, 0.17, -150, 150), 0.07)
        return [
            grip,
            *parts,
            blob("holder", [(-0.6, 0.45), (0.6, 0.45), (0.45, 0.7), (-0.45, 0.7)], "accent", 1),
        ]
    return [
        *parts,
        box("holder", -wide * 1.5, 0.45, wide * 1.5, 0.7, "accent"),
        box("foot", -0.5, 0.7, 0.5, 0.82, "accent"),
    ]


def chair(r: np.random.Generator) -> list[Part]:
    tall, leg, seat = r.uniform(0.75, 1.15), r.uniform(0.5, 0.8), r.uniform(0.5, 0.65)
    back = [(-seat + 0.02, -tall), (seat * 0.4, -tall), (seat * 0.4, 0), (-seat + 0.02, 0)]
    legs = [
        line("leg", [(x, y), (x, y + leg)], 0.1)
        for x, y in ((-seat + 0.05, 0), (seat * 0.4, 0), (-seat + 0.4, 0.25), (seat + 0.25, 0.25))
    ]
    top = [(-seat, -0.05), (seat * 0.45, -0.05), (seat + 0.3, 0.28), (-seat + 0.35, 0.28)]
    parts = [*legs[:2]]
    if r.random() < 0.5:
        parts += [line("post", [(x, 0), (x, -tall)], 0.1) for x in (-seat + 0.05, seat * 0.4)]
        parts += [
            line("rail", [(-seat + 0.05, -tall * t), (seat * 0.4, -tall * t)], 0.13, "main")
            for t in (0.35, 0.65, 0.95)
        ]
    else:
        parts.append(blob("back", back, rounds=1))
    return [*parts, *legs[2:], polygon("seat", top)]


def clock(r: np.random.Generator) -> list[Part]:
    alarm, square = r.random() < 0.5, r.random() < 0.35
    parts = []
    if alarm:
        parts += both(line("leg", [(0.4, 0.55), (0.65, 0.95)], 0.12))
        parts += both(ellipse("bell", 0.48, -0.72, 0.27, 0.2, "accent", turn=38))
    parts += [box("case", -0.75, -0.75, 0.75, 0.75) if square else ellipse("case", 0, 0, 0.78)]
    parts += [ellipse("face", 0, 0, 0.6, paint="light")]
    for a in range(0, 360, 90):
        parts.append(line("mark", turned([(0.44, 0), (0.55, 0)], a), 0.06))
    hour, minute = r.uniform(0, 360), r.uniform(0, 360)
    parts.append(line("hour hand", turned([(0, 0), (0.28, 0)], hour), 0.09))
    return [*parts, line("minute hand", turned([(0, 0), (0.45, 0)], minute), 0.06)]


def cup(r: np.random.Generator) -> list[Part]:
    wide, high, foot = r.uniform(0.5, 0.65), r.uniform(0.45, 0.75), r.uniform(0.6, 1.0)
    grip = line(
        "handle", arc(wide * 0.9, 0, r.uniform(0.3, 0.45), high * 0.6, -85, 85), 0.14, "main"
    )
    body = [(-wide, -high), (wide, -high), (wide * foot, high), (-wide * foot, high)]
    parts = [grip, polygon("body", body), ellipse("rim", 0, -high, wide, 0.13, "dark")]
    if r.random() < 0.5:
        parts.append(ellipse("saucer", 0, high + 0.06, wide * 1.4, 0.1, "accent"))
    if r.random() < 0.4:
        parts += [
            line(
                "steam",
                [
                    (x, -high - 0.2),
                    (x + 0.1, -high - 0.35),
                    (x, -high - 0.5),
                    (x + 0.1, -high - 0.65),
                ],
                0.05,
                "light",
                2,
            )
            for x in (-0.2, 0.15)
        ]
    return parts


def lamp(r: np.random.Generator) -> list[Part]:
    top, low, high = r.uniform(0.22, 0.4), r.uniform(0.6, 0.8), r.uniform(0.5, 0.75)
    tall, foot = r.uniform(0.5, 1.0), r.uniform(0.35, 0.5)
    shade = [(-top, -high), (top, -high), (low, 0), (-low, 0)]
    base = (
        ellipse("base", 0, tall, foot, 0.12, "accent")
        if r.random() < 0.5
        else polygon(
            "base",
            [(-0.15, tall - 0.25), (0.15, tall - 0.25), (foot, tall + 0.1), (-foot, tall + 0.1)],
            "accent",
        )
    )
    cord = line("cord", [(low * 0.5, 0), (low * 0.5, tall * 0.4)], 0.04)
    return [line("pole", [(0, -0.1), (0, tall)], 0.11), cord, base, polygon("shade", shade)]


def table(r: np.random.Generator) -> list[Part]:
    high, deep, leg = r.uniform(0.75, 1.15), r.uniform(0.12, 0.3), r.uniform(0.09, 0.14)
    round_top = r.random() < 0.4
    back = [line("back leg", [(x, 0), (x, high * 0.75)], leg * 0.8) for x in (-0.55, 0.55)]
    front = [
        line("front leg", [(x, 0.05), (x * r.uniform(0.9, 1.1), high)], leg) for x in (-0.8, 0.8)
    ]
    if round_top:
        pole = line("front leg", [(0, 0), (0, high)], leg * 1.6)
        foot = [line("foot", [(0, high - 0.1), (x, high + 0.1)], leg) for x in (-0.45, 0.45)]
        return [pole, *foot, ellipse("top", 0, 0, 1, deep)]
    top = [(-0.75, -deep), (0.75, -deep), (1, deep * 0.5), (-1, deep * 0.5)]
    edge = box("edge", -1, deep * 0.5, 1, deep * 0.5 + 0.12, "accent")
    return [*back, *front, edge, polygon("top", top)]


def teapot(r: np.random.Generator) -> list[Part]:
    wide, high = r.uniform(0.52, 0.66), r.uniform(0.4, 0.6)
    spout = [
        (-wide * 0.7, high * 0.35),
        (-wide * 0.85, -0.15),
        (-wide - 0.42, -high * 0.75),
        (-wide - 0.25, -high * 0.85),
        (-wide * 0.6, -high * 0.5),
    ]
    grip = line(
        "handle", arc(wide * 0.9, -0.02, r.uniform(0.3, 0.42), high * 0.7, -100, 100), 0.12, "main"
    )
    lid = [*arc(0, -high * 0.75, wide * 0.55, 0.24, 180, 360)]
    return [
        grip,
        blob("spout", spout, rounds=2),
        box("foot", -wide * 0.5, high * 0.8, wide * 0.5, high + 0.1, "accent"),
        ellipse("body", 0, 0, wide, high),
        polygon("lid", lid, "accent"),
        ellipse("knob", 0, -high * 0.75 - 0.3, r.uniform(0.07, 0.12), paint="dark"),
    ]
