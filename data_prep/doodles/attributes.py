"""What distinguishes the instances of a class in words, and how they are grouped and split.

Within a class no two instances have the same attributes, so a reference and a full description
of the change name exactly one target.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

GROUP = 6  # look-alikes in a group, as in CIRR
COLOURS = {
    "red": (208, 44, 44), "orange": (238, 132, 28), "yellow": (240, 206, 40),
    "green": (52, 152, 66), "blue": (48, 98, 206), "purple": (134, 62, 176),
    "pink": (244, 128, 176), "brown": (126, 80, 46),
}  # fmt: skip
VALUES: dict[str, tuple] = {
    "colour": tuple(COLOURS),
    "texture": ("plain", "striped", "dotted", "checked"),
    "size": ("small", "medium", "large"),
    "place": ("middle", "left", "right", "top", "bottom"),
    "setting": ("meadow", "beach", "night", "snow", "room"),
    "count": (1, 2, 3),
}
CHANCE = {
    "colour": 0.3,
    "texture": 0.2,
    "size": 0.13,
    "place": 0.13,
    "setting": 0.16,
    "count": 0.08,
}
COUNT_CHANCE = (0.92, 0.05, 0.03)


@dataclass(frozen=True)
class Attributes:
    """What captions say about one instance."""

    colour: str
    texture: str
    size: str
    place: str
    setting: str
    count: int

    def differences(self, other: Attributes) -> tuple[str, ...]:
        """Names of the attributes in which two instances differ."""
        mine, theirs = asdict(self), asdict(other)
        return tuple(name for name in mine if mine[name] != theirs[name])


def drawn_at_random(rng: np.random.Generator) -> Attributes:
    """Independent attributes; one copy most of the time."""
    values = {name: options[rng.integers(len(options))] for name, options in VALUES.items()}
    values["count"] = int(rng.choice(VALUES["count"], p=COUNT_CHANCE))
    return Attributes(**values)


def changed(base: Attributes, rng: np.random.Generator) -> Attributes:
    """`base` with one or two attributes changed."""
    names = rng.choice(
        list(CHANCE), size=rng.integers(1, 3), replace=False, p=list(CHANCE.values())
    )
    for name in names:
        others = [value for value in VALUES[name] if value != getattr(base, name)]
        base = replace(base, **{str(name): others[rng.integers(len(others))]})
    return base


def of_class(seed: int, class_index: int, per_class: int) -> list[Attributes]:
    """Attributes of a class's instances, all different; each six are variations of their first."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, class_index]))
    found: list[Attributes] = []
    while len(found) < per_class:
        first = len(found) // GROUP * GROUP
        new = drawn_at_random(rng) if first == len(found) else changed(found[first], rng)
        if new not in found:
            found.append(new)
    return found


def groups(per_class: int) -> list[range]:
    """The look-alike groups: full sixes, or all there are where a class has fewer than six."""
    if per_class < GROUP:
        return [range(per_class)]
    return [range(start, start + GROUP) for start in range(0, per_class - GROUP + 1, GROUP)]


def subset_of(class_index: int, instance: int) -> str:
    """Caption split of an instance: whole groups, two thirds train, a sixth dev, a sixth test."""
    return {4: "dev", 5: "test"}.get((class_index + instance // GROUP) % 6, "train")
