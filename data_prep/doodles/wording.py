"""Captions of an instance and texts that ask for a change from one instance to another."""

from __future__ import annotations

import numpy as np

from .attributes import VALUES, Attributes
from .classes import plural, singular

NUMBER = {1: "one", 2: "two", 3: "three"}
SIZE = {"small": ("small", "little", "tiny"), "medium": ("medium-sized", "mid-sized"),
        "large": ("large", "big", "huge")}  # fmt: skip
TEXTURE = {
    "plain": ("plain", "unpatterned"), "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"), "checked": ("checked", "chequered"),
}  # fmt: skip
PLACE = {
    "middle": ("in the middle", "at the centre"), "left": ("on the left", "at the left side"),
    "right": ("on the right", "at the right side"), "top": ("at the top", "in the upper part"),
    "bottom": ("at the bottom", "in the lower part"),
}  # fmt: skip
SETTING = {
    "meadow": ("in a meadow", "on the grass"), "beach": ("on a beach", "on the sand"),
    "night": ("at night", "under a night sky"), "snow": ("in the snow", "on snow"),
    "room": ("in a room", "indoors"),
}  # fmt: skip
OPENINGS = (
    "",
    "",
    "a picture of ",
    "a photo of ",
    "there {be} ",
    "we see ",
    "this is a picture of ",
)
FACTS = ("colour", "texture", "size", "place", "setting")


def pick(rng: np.random.Generator, options: tuple) -> str:
    """One of the options at random."""
    return options[rng.integers(len(options))]


def counted(class_name: str, adjectives: list[str], count: int) -> str:
    """A noun phrase: "a red house", "two small cups"."""
    if count > 1:
        return " ".join([NUMBER[count], *adjectives, plural(class_name)])
    words = " ".join([*adjectives, singular(class_name)])
    return ("an " if words[0] in "aeiou" and not words.startswith("uni") else "a ") + words


def sentence(text: str) -> str:
    """First letter capital, a full stop at the end."""
    return text[0].upper() + text[1:] + "."


def caption(class_name: str, a: Attributes, facts: set[str], rng: np.random.Generator) -> str:
    """One sentence that names the class, the count and the given facts."""
    adjectives = [pick(rng, SIZE[a.size])] if "size" in facts else []
    adjectives += [a.colour] if "colour" in facts else []
    adjectives += [pick(rng, TEXTURE[a.texture])] if "texture" in facts else []
    if rng.random() < 0.3 and len(adjectives) > 1:
        adjectives = adjectives[::-1]
    places = [pick(rng, PLACE[a.place])] if "place" in facts else []
    places += [pick(rng, SETTING[a.setting])] if "setting" in facts else []
    opening = pick(rng, OPENINGS).format(be="is" if a.count == 1 else "are")
    return sentence(" ".join([opening + counted(class_name, adjectives, a.count), *places]))


def captions(class_name: str, a: Attributes, rng: np.random.Generator) -> list[str]:
    """Five sentences; each leaves out two of the five facts, each fact is in three of them."""
    order = list(rng.permutation(FACTS))
    left_out = [{order[k], order[(k + 1) % 5]} for k in range(5)]
    return [caption(class_name, a, set(FACTS) - out, rng) for out in left_out]


def demand(name: str, reference: Attributes, target: Attributes) -> tuple[str, ...]:
    """Ways to ask for one attribute of the target ("make it red")."""
    value = getattr(target, name)
    if name == "colour":
        return (f"make it {value}", f"change the colour to {value}", f"it should be {value}")
    if name == "texture":
        if value == "plain":
            return ("remove the pattern", "make it plain")
        noun = {"striped": "stripes", "dotted": "dots", "checked": "checks"}[value]
        return (f"make it {value}", f"put {noun} on it", f"show it with {noun}")
    if name == "size":
        word = "medium-sized" if value == "medium" else value
        grown = VALUES["size"].index(value) > VALUES["size"].index(reference.size)
        return (f"make it {word}", f"{'enlarge' if grown else 'shrink'} it until it is {word}")
    if name == "place":
        return tuple(f"move it so that it is {words}" for words in PLACE[value])
    if name == "setting":
        return (f"put it {SETTING[value][0]}", f"show it {SETTING[value][1]}")
    return (f"show {NUMBER[value]} of them", f"there should be {NUMBER[value]}")


def remark(name: str, reference: Attributes, target: Attributes) -> tuple[str, ...]:
    """Ways to describe one attribute of the target against the reference ("is red instead")."""
    value = getattr(target, name)
    if name == "colour":
        return (f"is {value}", f"is {value} instead of {reference.colour}", f"is {value} in colour")
    if name == "texture":
        return tuple(f"is {word}" for word in TEXTURE[value])
    if name == "size":
        return tuple(f"is {word}" for word in SIZE[value])
    if name == "place":
        return tuple(f"is {words}" for words in PLACE[value])
    if name == "setting":
        return tuple(f"is {words}" for words in SETTING[value])
    return (
        f"has {NUMBER[value]} of them",
        f"shows {NUMBER[value]} instead of {NUMBER[reference.count]}",
    )


def modification(reference: Attributes, target: Attributes, rng: np.random.Generator) -> str:
    """CIRR's manner: one instruction that names every difference."""
    names = rng.permutation(reference.differences(target))
    return " and ".join(pick(rng, demand(name, reference, target)) for name in names)


def remarks(reference: Attributes, target: Attributes, rng: np.random.Generator) -> list[str]:
    """FashionIQ's manner: two remarks on the target, which together name every difference."""
    names = list(rng.permutation(reference.differences(target)))
    ways = [list(rng.permutation(remark(name, reference, target))) for name in names]
    first, whole = ways[0][0], " and ".join([ways[0][1], *(way[0] for way in ways[1:])])
    return [first, whole] if rng.random() < 0.5 else [whole, first]
