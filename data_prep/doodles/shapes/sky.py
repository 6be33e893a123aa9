"""Things in the sky: each function draws one random individual as named parts."""

from __future__ import annotations

import numpy as np

from ..geometry import Part, arc, both, ellipse, line, polygon, turned


def moon(r: np.random.Generator) -> list[Part]:
    bite, turn = r.uniform(0.55, 1.0), r.uniform(-25, 15)
    outer = arc(0, 0, 1, 1, 60, 300)
    inner = arc(0.5, 0, bite, np.sin(np.radians(60)), 270, 90)
    parts = [polygon("crescent", turned(outer + inner, turn))]
    for _ in range(int(r.integers(0, 4))):
        a, size = np.radians(r.uniform(120, 240)), r.uniform(0.06, 0.12)
        parts.append(
            ellipse(
                "crater",
                *turned([(0.72 * np.cos(a), 0.72 * np.sin(a))], turn)[0],
                size,
                paint="accent",
            )
        )
    return parts


def star(r: np.random.Generator) -> list[Part]:
    count, inner = int(r.choice([5, 5, 6, 7])), r.uniform(0.36, 0.52)
    angles = np.radians(np.arange(2 * count) * 180 / count - 90)
    radii = np.where(np.arange(2 * count) % 2, inner, 1.0)
    outline = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    parts = [polygon("star", outline)]
    if r.random() < 0.4:
        parts += both(ellipse("eye", 0.15, -0.1, 0.07, 0.1, "dark"))
        parts.append(line("smile", arc(0, 0.05, 0.2, 0.18, 20, 160), 0.06))
    return parts


def sun(r: np.random.Generator) -> list[Part]:
    radius, count, long = r.uniform(0.42, 0.56), int(r.integers(7, 13)), r.uniform(0.25, 0.42)
    parts, start, wedge = [], r.uniform(0, 360), r.random() < 0.5
    for angle in np.arange(count) * 360 / count + start:
        if wedge:
            half = radius * np.sin(np.pi / count) * 0.8
            ray = [(radius * 0.95, -half), (radius + long, 0), (radius * 0.95, half)]
            parts.append(polygon("ray", turned(ray, angle), "accent"))
        else:
            parts.append(
                line("ray", turned([(radius + 0.1, 0), (radius + long, 0)], angle), 0.1, "main")
            )
    parts.append(ellipse("disc", 0, 0, radius))
    if r.random() < 0.5:
        parts += both(ellipse("eye", radius * 0.35, -radius * 0.2, 0.06, paint="dark"))
        parts.append(line("smile", arc(0, radius * 0.1, radius * 0.5, radius * 0.4, 20, 160), 0.06))
    return parts
