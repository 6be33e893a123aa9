"""Class lists of the sketch sets and their zero-shot splits, as data: `<set>.yml` beside this."""

from pathlib import Path
from typing import NamedTuple

import yaml


class Split(NamedTuple):
    """seen, unseen: class names as the prepared set has them, sorted; source: whose list."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    source: str


class ClassLists(NamedTuple):
    """classes: all of the set, sorted; splits: by name, as `104/21`; aliases: class -> its name in
    the official archives where that differs by more than its spelling."""

    classes: tuple[str, ...]
    splits: dict[str, Split]
    aliases: dict[str, str]


def class_lists(name: str) -> ClassLists:
    """Reads `<name>.yml`: `classes`, `splits` (each `unseen`, `source`, and `seen` where it is not
    all the others), `aliases`."""
    file = Path(__file__).with_name(f"{name}.yml")
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    classes = tuple(sorted(content["classes"]))
    splits = {}
    for split, row in content["splits"].items():
        unseen = tuple(sorted(row["unseen"]))
        seen = tuple(sorted(row.get("seen") or set(classes) - set(unseen)))
        wrong = set(seen) & set(unseen) or (set(seen) | set(unseen)) - set(classes)
        if wrong:
            raise ValueError(f"{file.name} {split}: seen and unseen at once, or no class: {wrong}")
        splits[str(split)] = Split(seen, unseen, row["source"])
    return ClassLists(classes, splits, content.get("aliases") or {})
