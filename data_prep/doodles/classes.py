"""The list of classes: how each is drawn, its plural, its theme, and which are unseen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .geometry import Part, normalised
from .shapes import (
    animals,
    belongings,
    buildings,
    crawlers,
    household,
    plants,
    sky,
    vehicles,
)

THEMES = {
    "nature": (animals, crawlers, plants),
    "indoors": (household, belongings),
    "outdoors": (buildings, vehicles, sky),
}


def drawers(modules: tuple) -> dict[str, Callable[[np.random.Generator], list[Part]]]:
    """Class name to drawing function: every function that is written in these modules."""
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
    }


DRAWERS = {theme: drawers(modules) for theme, modules in THEMES.items()}
CLASSES: tuple[str, ...] = tuple(sorted(name for group in DRAWERS.values() for name in group))
UNSEEN: tuple[str, ...] = (
    "airplane", "bicycle", "cactus", "castle", "crab", "guitar", "mushroom", "rabbit",
    "sailboat", "scissors", "snail", "teapot", "traffic_light", "umbrella",
)  # fmt: skip
SEEN: tuple[str, ...] = tuple(name for name in CLASSES if name not in UNSEEN)
IRREGULAR = {
    "butterfly": "butterflies", "cactus": "cactuses", "fish": "fish", "ice_cream": "ice creams",
    "glasses": "pairs of glasses", "scissors": "pairs of scissors", "snowman": "snowmen",
}  # fmt: skip


def theme(name: str) -> str:
    """The theme ("nature", "indoors" or "outdoors") of a class."""
    return next(theme for theme, names in DRAWERS.items() if name in names)


def split(name: str) -> str:
    """The folder of a class: "train" when seen, "val" when unseen."""
    return "val" if name in UNSEEN else "train"


def singular(name: str) -> str:
    """One of the class in words: "ice cream", "pair of scissors"."""
    words = name.replace("_", " ")
    return f"pair of {words}" if name in ("glasses", "scissors") else words


def plural(name: str) -> str:
    """Several of the class in words: "ice creams"."""
    words = name.replace("_", " ")
    return IRREGULAR.get(name) or words + ("es" if words.endswith(("ch", "sh", "s")) else "s")


def individual(name: str, rng: np.random.Generator) -> list[Part]:
    """One random individual: its parts from back to front, in drawing units."""
    return normalised(DRAWERS[theme(name)][name](rng))
