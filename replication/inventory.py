"""What lies in a prepared set, part by part, read as the experiments read it.

A set that a reader refuses is listed all the same, as far as its files go: the refusal becomes one
of the problems, so that a check can name all of them at once.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replication import captioned, circo, composed, data, fine_grained, paths
from replication.datasets import Facts
from replication.pictures import PICTURES


@dataclass(frozen=True)
class Part:
    """Pictures of one split and domain. files: relative to the set's folder; classes: of each file,
    empty where there are none; texts: what belongs to it, for the contact sheet."""

    split: str
    domain: str
    files: tuple[str, ...]
    classes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As `train/sketch`."""
        return f"{self.split}/{self.domain}"

    @property
    def side(self) -> str:
        """`train`, `val`, `test`...: pictures of different sides should differ. COCO's restval is
        trained on, FashionIQ's types share a side."""
        return {"restval": "train"}.get(first := self.split.split()[0], first)


@dataclass
class Inventory:
    """A set as it lies there. split: `104/21`, or whose lists; counts: part -> files, queries,
    captions or classes; hashes: file -> SHA-256 in manifest.csv; about: dataset.json; refused: why
    a reader takes a part only as a subset; problems: what no reader takes."""

    facts: Facts
    folder: Path
    split: str
    parts: list[Part] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    manifests: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)
    about: dict = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """Every picture once, in order of name."""
        return sorted({file for part in self.parts for file in part.files})


def take_inventory(facts: Facts, data_root: str | Path, name: str = "") -> Inventory:
    """Lists the prepared set `name` (default its usual folder) of `data_root`.

    Raises DatasetError where there is no such folder.
    """
    folder = paths.user_path(data_root) / (name or facts.folder)
    if not folder.is_dir():
        raise data.DatasetError(
            f"no {paths.shown(folder)}: prepare it with `python -m data_prep.{facts.name} --raw "
            f"FOLDER --out {paths.shown(folder.parent)}` (--help says what it needs), or give its "
            "place with --data-root and --folder")
    about = folder / "dataset.json"
    found = Inventory(facts, folder, next(iter(facts.splits)))
    if about.is_file():
        found.about = json.loads(about.read_text(encoding="utf-8"))
        found.split = _split_name(found.about) or found.split
    found.hashes = _manifest(folder)
    KINDS[facts.kind](found)
    found.problems, found.refused = (_said(own, folder) for own in (found.problems, found.refused))
    return found


def _said(lines: list[str], folder: Path) -> list[str]:
    """Each line once, without where on this machine the set lies: reports are kept."""
    return list(dict.fromkeys(line.replace(paths.shown(folder), folder.name) for line in lines))


def _split_name(about: dict) -> str:
    """The split whose published counts a set is held against: of some sets not only its classes,
    but a rule too."""
    return about.get("published_as") or about.get("split") or ""


def _manifest(folder: Path) -> dict[str, str]:
    file = folder / "manifest.csv"
    if not file.is_file():
        return {}
    with open(file, encoding="utf-8", newline="") as rows:
        return {row["path"]: row["sha256"] for row in csv.DictReader(rows) if row.get("sha256")}


def _told(found: Inventory, read: Callable):
    """What `read` returns, or None; a refusal is one of the problems."""
    try:
        return read()
    except (data.DatasetError, OSError, KeyError) as error:
        found.problems.append(str(error))
        return None


def _strictly_or_not(found: Inventory, split: str, read: Callable[[bool], Any]):
    """What `read(False)` returns, or else `read(True)`, which takes what is there. Why it had to is
    told: as a refusal where the latter works, or where the preparation named the part's missing
    pictures, else as a problem."""
    try:
        return read(False)
    except (data.DatasetError, OSError, KeyError) as error:
        part = _told_nothing(lambda: read(True))
        known = part is not None or split in found.about.get("missing", {})
        (found.refused if known else found.problems).append(str(error))
        return part


def _told_nothing(read: Callable):
    try:
        return read()
    except (data.DatasetError, OSError, KeyError):
        return None


def _sketch(found: Inventory) -> None:
    root, name = found.folder.parent, found.folder.name
    if found.about.get("sketches_only"):
        found.refused.append(f"{name} was prepared without photos: no run can use it")
        found.manifests.append(found.about["manifest"])
    elif read := _told(found, lambda: data.read_sketch_set(root, name)):
        found.manifests.append(read.manifest)
        found.split = _split_name(found.about) or read.split_name
    for split in ("train", "val"):
        for domain in data.DOMAINS:
            _walk(found, split, domain, found.folder / split / domain)
        found.counts[f"{split}/classes"] = len({c for part in found.parts if part.split == split
                                                for c in part.classes})


def _walk(found: Inventory, split: str, domain: str, folder: Path) -> None:
    files = sorted(f.relative_to(found.folder) for f in folder.glob("*/*")
                   if f.suffix.lower() in PICTURES and not f.name.startswith("."))
    part = Part(split, domain, tuple(f.as_posix() for f in files),
                tuple(f.parent.name for f in files))
    found.parts.append(part)
    found.counts[part.name] = len(files)


def _instance(found: Inventory) -> None:
    root, name = found.folder.parent, found.folder.name
    read = _told(found, lambda: fine_grained.read_instance_set(root, name))
    if read is None:
        return
    found.manifests.append(read.manifest)
    for split, own in (("train", read.train), ("val", read.val)):
        for images in (own.sketch, own.photo):
            _add(found, split, images.domain, images)


def _captions(found: Inventory) -> None:
    name = found.facts.name
    for split in _wanted(found, list(captioned.N_IMAGES[name])):
        def read(partial: bool, split=split):
            return captioned.read_captioned(found.folder, name, split, allow_partial=partial)
        own = _strictly_or_not(found, split, read)
        if own:
            texts = tuple(own.captions_of(row)[0] for row in range(len(own.images)))
            _add(found, split, "images", own.images, texts)
            found.counts[f"{split}/captions"] = len(own.texts)
            found.manifests.append(own.manifest)


def _composed(found: Inventory) -> None:
    if found.facts.name == "circo":
        return _circo(found)
    layout = found.facts.name
    for split in _wanted(found, list(composed.N_OFFICIAL[layout])):
        for which in found.about.get("types") or composed.N_OFFICIAL[layout][split]:
            def read(missing: bool, split=split, which=which):
                return composed.read_composed(found.folder, layout, split, types=which or (),
                                              allow_missing=missing)
            part = f"{split} {which}".strip()
            own = _strictly_or_not(found, part, read)
            if own:
                _add(found, part, "images", own.images, own.names)
                found.counts[f"{part}/queries"] = len(own)
                found.manifests.append(own.manifest)
    return None


def _circo(found: Inventory) -> None:

    for split in _wanted(found, ["val", "test"]):
        def read(missing: bool, split=split):
            return circo.read_circo(found.folder, split, allow_missing=missing)
        own = _strictly_or_not(found, split, read)
        if own:
            found.counts[f"{split}/queries"] = len(own)
            found.manifests.append(own.manifest)
            if not found.parts:  # one gallery for both
                _add(found, "val", "images", own.images, tuple(map(str, own.image_ids)))


def _wanted(found: Inventory, splits: list[str]) -> list[str]:
    """The splits that were prepared: all, unless dataset.json says which."""
    return [split for split in splits if split in (found.about.get("parts") or splits)]


def _add(found: Inventory, split: str, domain: str, images: data.Images,
         texts: tuple[str, ...] = ()) -> None:
    start = images.folder.relative_to(found.folder).as_posix()
    files = tuple(file if start == "." else f"{start}/{file}" for file in images.files)
    part = Part(split, domain, files, texts=texts)
    found.parts.append(part)
    found.counts[part.name] = len(files)


KINDS = {"sketch": _sketch, "instance": _instance, "captions": _captions, "composed": _composed}
