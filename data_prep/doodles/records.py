"""One drawn instance: its names, its random generators, its files."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .attributes import Attributes
from .classes import CLASSES, individual, split
from .photo import Centres, photo
from .sketch import sketch


@dataclass(frozen=True)
class Settings:
    """What a set is drawn from; the same settings give the same bytes."""

    seed: int = 0
    per_class: int = 24
    size: int = 64
    sketches: int = 3


@dataclass(frozen=True)
class Item:
    """One instance of a class, for example `house_0007`."""

    class_name: str
    instance: int
    attributes: Attributes

    @property
    def name(self) -> str:
        return f"{self.class_name}_{self.instance:04d}"

    @property
    def photo_path(self) -> str:
        """Path of the photo inside the sketch layout."""
        return f"{split(self.class_name)}/photo/{self.class_name}/{self.name}.jpg"

    def sketch_path(self, number: int) -> str:
        """Path of the sketch `number` (from 1) inside the sketch layout."""
        return f"{split(self.class_name)}/sketch/{self.class_name}/{self.name}-{number}.png"


@dataclass(frozen=True)
class Drawn:
    """A file that was drawn: path in the sketch layout, hash, where its parts lie."""

    path: str
    sha256: str
    centres: Centres


def generator(seed: int, item: Item, purpose: int) -> np.random.Generator:
    """The instance's own stream: 0 shape, 1 photo, 2 words, 3 and on the sketches."""
    entropy = [seed, CLASSES.index(item.class_name), item.instance]
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(purpose,)))


def written(root: Path, path: str, image, centres: Centres, **options) -> Drawn:
    """Encodes an image, writes it beneath `root` and returns what was drawn."""
    buffer = io.BytesIO()
    image.save(buffer, **options)
    (root / path).write_bytes(buffer.getvalue())
    return Drawn(path, hashlib.sha256(buffer.getvalue()).hexdigest(), centres)


def draw(root: Path, item: Item, settings: Settings) -> list[Drawn]:
    """Draws and writes the photo and the sketches of one instance; folders must exist."""
    parts = individual(item.class_name, generator(settings.seed, item, 0))
    image, centres = photo(parts, item.attributes, generator(settings.seed, item, 1), settings.size)
    files = [written(root, item.photo_path, image, centres, format="JPEG", quality=88)]
    for number in range(1, settings.sketches + 1):
        image, centres = sketch(parts, generator(settings.seed, item, 2 + number), settings.size)
        files.append(written(root, item.sketch_path(number), image, centres, format="PNG"))
    return files
