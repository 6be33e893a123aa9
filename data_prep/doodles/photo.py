"""The "photo" of an individual: filled, textured and shaded on a busy background.

Drawn `SUPER` times larger than asked for and reduced; colours are float32 0 to 255 [h, w, 3].
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .attributes import COLOURS, Attributes
from .geometry import Part, centre
from .pen import filled, stroke
from .pose import Pose, note_centre, photo_poses

SUPER = 3
SETTINGS = {  # colours above and below the horizon
    "meadow": ((150, 200, 235), (112, 172, 84)),
    "beach": ((130, 196, 226), (232, 208, 150)),
    "night": ((58, 68, 134), (86, 82, 122)),
    "snow": ((190, 206, 222), (240, 243, 248)),
    "room": ((226, 206, 178), (150, 112, 84)),
}
Centres = dict[str, list[list[float]]]


def smooth_noise(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """Cloudy noise [side, side], about -1 to 1, of `cells` x `cells` patches."""
    coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.BICUBIC))


def clutter(image: Image.Image, rng: np.random.Generator, tint: np.ndarray) -> None:
    """Draws shapes without meaning, in colours near the setting's, into the background."""
    draw, side = ImageDraw.Draw(image, "RGBA"), image.width
    for _ in range(int(rng.integers(9, 18))):
        colour = 0.55 * tint + 0.45 * rng.uniform(0, 255, 3)
        paint = (*(int(c) for c in colour), int(rng.integers(70, 170)))
        x, y = rng.uniform(-0.1, 1.1, 2) * side
        w, h = rng.uniform(0.05, 0.28, 2) * side
        kind = rng.integers(4)
        if kind == 0:
            draw.ellipse([x - w / 2, y - h / 2, x + w / 2, y + h / 2], fill=paint)
        elif kind == 1:
            corners = np.array([x, y]) + rng.uniform(-1, 1, (int(rng.integers(3, 6)), 2)) * (w, h)
            draw.polygon([tuple(p) for p in corners], fill=paint)
        elif kind == 2:
            draw.rectangle([x, y, x + w, y + h / 2], fill=paint)
        else:
            end = (x + rng.normal(0, 0.3) * side, y + rng.normal(0, 0.3) * side)
            draw.line([(x, y), end], fill=paint, width=int(side * rng.uniform(0.01, 0.03)))


def background(a: Attributes, rng: np.random.Generator, size: int) -> np.ndarray:
    """The setting: gradients, a horizon, noise and clutter [size x SUPER, size x SUPER, 3]."""
    above, below = (np.float32(c) + rng.normal(0, 9, 3) for c in SETTINGS[a.setting])
    height = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    level = rng.uniform(0.42, 0.7) + 0.05 * smooth_noise(rng, size, 4)
    ground = np.clip((height - level) * rng.uniform(8, 30) + 0.5, 0, 1)[..., None]
    colours = above * (1 - ground) + below * ground
    colours = colours * (1 + 0.22 * (height[..., None] - 0.5) * rng.choice([-1, 1]))
    colours += (
        14 * smooth_noise(rng, size, 5)[..., None] + 9 * smooth_noise(rng, size, 24)[..., None]
    )
    image = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
    image = image.resize((size * SUPER, size * SUPER), Image.BILINEAR)
    clutter(image, rng, (above + below) / 2)
    return np.array(image, dtype=np.float32)


def pattern(texture: str, points: np.ndarray, period: float) -> np.ndarray:
    """Where the second colour goes, Bool [...], for positions [..., 2] in the object's frame."""
    x, y = points[..., 0] / period, points[..., 1] / period
    if texture == "striped":
        return x % 1 < 0.45
    if texture == "dotted":
        return (x % 1 - 0.5) ** 2 + (y % 1 - 0.5) ** 2 < 0.095
    if texture == "checked":
        return (np.floor(2 * x) + np.floor(2 * y)) % 2 < 1
    return np.zeros(points.shape[:-1], dtype=bool)


def palette(a: Attributes, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The colours of this photo: main, its second colour, accent, dark and light."""
    main = np.clip(
        np.array(COLOURS[a.colour]) * rng.uniform(0.9, 1.08) + rng.normal(0, 6, 3), 0, 255
    )
    pale, deep = 0.3 * main + 0.7 * 250, 0.5 * main
    accents = (
        0.55 * main + 0.45 * 250,
        0.55 * main,
        np.array([205, 186, 150]),
        np.array([140, 140, 146]),
    )
    colours = {
        "main": main,
        "second": pale if main.mean() < 165 else deep * 0.8,
        "accent": accents[rng.integers(4)] + rng.normal(0, 5, 3),
        "dark": np.array([30, 25, 28]) + rng.normal(0, 6, 3),
        "light": np.array([244, 240, 226]) + rng.normal(0, 5, 3),
    }
    return {name: colour.astype(np.float32) for name, colour in colours.items()}


def outline_mask(part: Part, points: np.ndarray, unit: float, side: int) -> Image.Image:
    """Coverage of one part, 8 bit [side, side]; points in pixels, `unit` pixels a drawing unit."""
    mask = Image.new("L", (side, side), 0)
    if part.closed:
        filled(ImageDraw.Draw(mask), points, 255)
    else:
        stroke(ImageDraw.Draw(mask), points, max(part.width * unit, 1.1 * SUPER), 255)
    return mask


def shaded(colour: np.ndarray, y: np.ndarray, x: np.ndarray, light: np.ndarray) -> np.ndarray:
    """A flat colour [..., 3] with light falling in from the direction `light`, inside one part."""
    across = x / max(x.max(), 1) * light[0] + y / max(y.max(), 1) * light[1]
    return colour * (1.13 - 0.36 * (across - across.min())).astype(np.float32)[..., None]


def paint_part(canvas: np.ndarray, part: Part, pose: Pose, scene: dict) -> None:
    """Paints one part of one copy onto the canvas, inside its bounding box only."""
    side = canvas.shape[0]
    mask = outline_mask(part, pose(part.points) * side, pose.radius * side, side)
    bounds = mask.getbbox()
    if bounds is None:
        return
    x0, y0, x1, y1 = bounds
    cover = np.asarray(mask.crop(bounds), dtype=np.float32)[..., None] / 255
    y, x = np.mgrid[0 : y1 - y0, 0 : x1 - x0].astype(np.float32)
    colours = scene["palette"]
    colour = np.broadcast_to(colours[part.paint], (*y.shape, 3))
    if part.paint == "main" and scene["texture"] != "plain":
        place = np.stack([x + x0, y + y0], axis=-1) / np.float32(side) - np.float32(pose.centre)
        second = pattern(scene["texture"], place @ scene["frame"], scene["period"])
        colour = np.where(second[..., None], colours["second"], colour)
    colour = shaded(colour, y, x, scene["light"])
    if part.closed and min(y.shape) > 8:
        rim = mask.crop(bounds).filter(ImageFilter.MinFilter(3 if SUPER < 3 else 5))
        colour = colour * (
            1 - scene["rim"] * (1 - np.asarray(rim, dtype=np.float32) / 255)[..., None]
        )
    patch = canvas[y0:y1, x0:x1]
    patch += cover * (colour - patch)


def cast_shadow(canvas: np.ndarray, parts: list[Part], poses: list[Pose], scene: dict) -> None:
    """Darkens the ground where the object keeps the light off; a dark object on it glows."""
    side, size = canvas.shape[0], canvas.shape[0] // SUPER
    glows = max(canvas.mean(), scene["palette"]["main"].mean()) < 125
    offset = 0.0 if glows else 0.035 * scene["light"]
    whole = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(whole)
    for pose in poses:
        for part in parts:
            points = (pose(part.points) + offset) * size
            if part.closed:
                filled(draw, points, 255)
            else:
                stroke(draw, points, 2 * size / 64, 255)
    soft = whole.filter(ImageFilter.GaussianBlur(size * (0.045 if glows else 0.02)))
    cover = np.asarray(soft.resize((side, side)), dtype=np.float32)[..., None] / 255
    canvas += cover * (0.5 * (235 - canvas) if glows else -0.45 * canvas)


def camera(canvas: np.ndarray, rng: np.random.Generator, size: int) -> Image.Image:
    """What a camera makes of it: reduced, vignetted, off-white, a little blurred and noisy."""
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8)).resize(
        (size, size), Image.BOX
    )
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(size / 64 * rng.uniform(0.3, 0.6)))
    pixels = np.asarray(image, dtype=np.float32) * (rng.uniform(0.88, 1.1) + rng.normal(0, 0.02, 3))
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    pixels = pixels * (1 - rng.uniform(0, 0.14) * (x * x + y * y))[..., None]
    pixels += rng.uniform(2, 6) * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def photo(
    parts: list[Part], a: Attributes, rng: np.random.Generator, size: int
) -> tuple[Image.Image, Centres]:
    """The RGB photo [size, size] and the centres (0 to 1) of the parts of every copy."""
    canvas = background(a, rng, size)
    poses = photo_poses(a, rng)
    angle, side_of_light = rng.uniform(0, np.pi), rng.choice([-1.0, 1.0])
    scene = {
        "palette": palette(a, rng),
        "texture": a.texture,
        "frame": np.float32([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]),
        "period": max(0.085, 0.3 * poses[0].radius) * rng.uniform(0.9, 1.15),
        "light": np.float32([side_of_light * rng.uniform(0.2, 0.7), rng.uniform(0.4, 0.8)]),
        "rim": rng.uniform(0.2, 0.55),
    }
    cast_shadow(canvas, parts, poses, scene)
    centres: Centres = {}
    for pose in poses:
        for part in parts:
            paint_part(canvas, part, pose, scene)
            note_centre(centres, part.name, pose(centre(part)[None])[0])
    return camera(canvas, rng, size), centres
