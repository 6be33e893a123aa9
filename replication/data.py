"""Prepared data sets: what is in them, how it is split, and pictures decoded once.

Sketch sets lie as `<root>/<name>/{train,val}/{sketch,photo}/<class>/<picture>`, the layout of the
original projects; a folder that a user already has in this layout needs no preparation.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from replication import paths
from replication.pictures import PICTURES
from replication.progress import bar
from replication.transforms import Preprocess, read_image

DOMAINS = ("sketch", "photo")


class DatasetError(ValueError):
    """A prepared set that is absent or not what its layout promises; says what to do."""


@dataclass(frozen=True)
class Images:
    """Picture files of one domain. `files` are relative to `folder`: `<class>/<picture>`, or the
    picture's name alone where there is one class. domain: where it is not the folder's name."""

    folder: Path
    files: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Int64[np.ndarray, " n"]
    domain: str = ""

    def __post_init__(self):
        object.__setattr__(self, "domain", self.domain or self.folder.name)

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        """The file of one picture."""
        return self.folder / self.files[index]

    def where(self, keep: np.ndarray, classes: tuple[str, ...]) -> "Images":
        """The pictures that `keep` marks, labelled by their place in `classes`."""
        place = {name: label for label, name in enumerate(classes)}
        labels = [place[self.classes[label]] for label in self.labels[keep]]
        files = tuple(np.array(self.files, dtype=object)[keep])
        return replace(self, files=files, classes=classes, labels=np.array(labels, np.int64))

    @cached_property
    def instances(self) -> tuple[str, ...]:
        """`<class>/<photo stem>` of each picture: sketch `X-k` depicts photo `X` (Sketchy), and so
        does `X_k` where no name holds a hyphen (ShoeV2, ChairV2)."""
        stems = [file.rsplit(".", 1)[0] for file in self.files]
        if self.domain != "sketch":
            return tuple(stems)
        mark = "-" if any("-" in s.rsplit("/", 1)[-1] for s in stems) else "_"
        return tuple(s.rsplit(mark, 1)[0] for s in stems)


@dataclass(frozen=True)
class Split:
    """Sketches and photos of the same classes, labelled alike (classes in sorted order)."""

    sketch: Images
    photo: Images

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self.sketch.classes

    def only(self, classes: tuple[str, ...]) -> "Split":
        """The same split with some of its classes only."""
        chosen = {self.classes.index(name) for name in classes}
        keep = [np.isin(images.labels, list(chosen)) for images in (self.sketch, self.photo)]
        return Split(self.sketch.where(keep[0], classes), self.photo.where(keep[1], classes))

    def hold_out(self, n_classes: int, seed: int = 0) -> tuple["Split", "Split"]:
        """(rest, held-out): `n_classes` classes drawn with `seed`, to select on seen classes."""
        if not 0 <= n_classes < len(self.classes) - 1:
            raise DatasetError(f"val_classes={n_classes}: training keeps at least two of the "
                               f"{len(self.classes)} seen classes, so choose 0 to "
                               f"{len(self.classes) - 2}")
        drawn = set(np.random.default_rng(seed).permutation(len(self.classes))[:n_classes])
        parts = [tuple(c for i, c in enumerate(self.classes) if (i in drawn) == held)
                 for held in (False, True)]
        return self.only(parts[0]), self.only(parts[1])


@dataclass(frozen=True)
class SketchSet:
    """A prepared sketch set: `train` holds the seen classes, `val` the unseen ones."""

    name: str
    folder: Path
    train: Split
    val: Split
    manifest: str

    @property
    def split_name(self) -> str:
        """`<seen>/<unseen>` class counts, the field's name of a split: `104/21`."""
        return f"{len(self.train.classes)}/{len(self.val.classes)}"

    def counts(self) -> dict[str, dict[str, int]]:
        """Pictures and classes a split, the numbers that a published result depends on."""
        return {part: {"classes": len(s.classes), "sketches": len(s.sketch), "photos": len(s.photo)}
                for part, s in (("train (seen)", self.train), ("val (unseen)", self.val))}


def read_sketch_set(data_root: str | Path, data_name: str) -> SketchSet:
    """Reads the file names of a prepared sketch set; no picture is opened.

    Raises DatasetError, naming every offender, when the set or a part of it is missing, a class is
    in one domain only, or a class stands in both splits.
    """
    folder = paths.user_path(data_root) / data_name
    if not folder.is_dir():
        raise DatasetError(_absent(folder))
    splits = {part: _read_split(folder, part) for part in ("train", "val")}
    both = set(splits["train"].classes) & set(splits["val"].classes)
    if both:
        raise DatasetError(f"{folder}: classes in train and val at once, so not unseen: "
                           f"{shortlist(sorted(both))}")
    return SketchSet(data_name, folder, **splits, manifest=manifest_hash(folder, splits))


def _absent(folder: Path) -> str:
    root = folder.parent
    there = sorted(p.parent.name for p in root.glob("*/train"))
    found = f"it holds {', '.join(there)}" if there else "it holds no prepared set"
    raw = "" if folder.name == "doodles" else "--raw FOLDER "
    return (f"no set {folder.name!r} in {root} ({found if root.is_dir() else 'no such folder'}). "
            f"Prepare it with `python -m data_prep.{folder.name} {raw}--out {root}` "
            "(--help says what it needs), or give its place as data_root and data_name")


def _read_split(folder: Path, part: str) -> Split:
    missing = [f"{part}/{d}" for d in DOMAINS if not (folder / part / d).is_dir()]
    if missing:
        raise DatasetError(f"{folder} lacks {', '.join(missing)}: the layout is "
                           "{train,val}/{sketch,photo}/<class>/<picture>")
    found = {domain: _pictures(folder / part / domain) for domain in DOMAINS}
    names = sorted({c for domain in DOMAINS for c in found[domain]})
    empty = [f"{part}/{d}/{c}" for d in DOMAINS for c in names if not found[d].get(c)]
    if empty or not names:
        raise DatasetError(f"{folder}: every class needs pictures in both domains; none in "
                           f"{shortlist(empty or [part])}")
    return Split(*(_images(folder / part / domain, found[domain]) for domain in DOMAINS))


def _pictures(folder: Path) -> dict[str, list[str]]:
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    return {c: sorted(e.name for e in os.scandir(folder / c)
                      if e.name.lower().endswith(PICTURES) and not e.name.startswith("."))
            for c in classes}


def _images(folder: Path, found: dict[str, list[str]]) -> Images:
    files = tuple(f"{name}/{file}" for name, group in found.items() for file in group)
    labels = np.repeat(np.arange(len(found)), [len(group) for group in found.values()])
    return Images(folder, files, tuple(found), labels.astype(np.int64))


def manifest_hash(folder: Path, splits: dict[str, Split]) -> str:
    """`sha256:` of manifest.csv (its rows hash every file); without one, `listing:` of the names
    and sizes. Raises DatasetError when manifest.csv and the folder do not name the same files."""
    listed = sorted(f"{part}/{images.folder.name}/{file}" for part, split in splits.items()
                    for images in (split.sketch, split.photo) for file in images.files)
    manifest = folder / "manifest.csv"
    if not manifest.exists():
        sizes = "".join(f"{name},{(folder / name).stat().st_size}\n" for name in listed)
        return "listing:" + hashlib.sha256(sizes.encode()).hexdigest()[:32]
    rows = manifest.read_text(encoding="utf-8")
    named = sorted(line.split(",", 1)[0].strip('"') for line in rows.splitlines()[1:] if line)
    differ = sorted(set(named) ^ set(listed))
    if differ:
        raise DatasetError(f"{manifest} and the folder differ in {len(differ)} files: "
                           f"{shortlist(differ)}; prepare the set again or remove manifest.csv")
    return "sha256:" + hashlib.sha256(rows.encode()).hexdigest()[:32]


def shortlist(names: list[str], most: int = 12) -> str:
    """The first names, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# ------------------------------------------------------------------------------- decoded once


def cached_pixels(images: Images, preprocess: Preprocess, *, progress: bool = True
                  ) -> UInt8[np.ndarray, "n size size 3"]:
    """All pictures decoded and resized, as a read-only memory map of uint8.

    Built once under a name that hashes the files (name, size, time) and the resize rule, so a
    changed file or rule makes a new cache. It is moved into place when whole: two processes that
    build it at once each finish their own. A file of the wrong length is rebuilt. Raises
    DatasetError that lists every unreadable picture.
    """
    preprocess = preprocess.of(images.domain)
    shape = (len(images), preprocess.size, preprocess.size, 3)
    target = paths.CACHE / "pixels" / f"{cache_key(images, preprocess)}.u8"
    if not target.exists() or target.stat().st_size != int(np.prod(shape)):
        paths.save_file(target, lambda tmp: _decode_all(images, preprocess, tmp, shape, progress))
    return np.memmap(target, np.uint8, "r", shape=shape)


def cache_key(images: Images, preprocess: Preprocess) -> str:
    """What cached pixels depend on: preprocessing, and each file's name, size and time."""
    digest = hashlib.sha256(preprocess.pixel_key().encode())
    for index, file in enumerate(images.files):
        stat = images.path(index).stat()
        digest.update(f"{images.folder}/{file},{stat.st_size},{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _decode_all(images: Images, preprocess: Preprocess, file: Path, shape, progress: bool) -> None:
    pixels = np.memmap(file, np.uint8, "w+", shape=shape)

    def decode(index: int) -> str | None:
        try:
            pixels[index] = preprocess.resized(read_image(images.path(index)))
        except (OSError, SyntaxError, ValueError) as error:
            return f"{paths.shown(images.path(index))} ({str(error).splitlines()[0][:80]})"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = bar(pool.map(decode, range(len(images))), total=len(images), unit="img",
                   label=f"decode {images.domain}", shown=progress)
        broken = [problem for problem in done if problem]
    if broken:
        raise DatasetError(f"{len(broken)} pictures cannot be read: {shortlist(broken)}. Replace "
                           "them from the original archive, or remove them knowingly: a result "
                           "on fewer pictures is not comparable")
    pixels.flush()


# ------------------------------------------------------------------------------------ batches


@dataclass(frozen=True)
class Triplets(torch.utils.data.Dataset):
    """Every training sketch once an epoch, with a random photo of its class and a random photo of
    a random other class. The draw depends on (seed, epoch) alone, so a continued run repeats it."""

    split: Split
    sketches: UInt8[np.ndarray, "s h w 3"]
    photos: UInt8[np.ndarray, "p h w 3"]
    seed: int
    epoch: int

    @cached_property
    def plan(self) -> Int64[np.ndarray, "s 3"]:
        """Rows of (sketch, photo of its class, photo of another class), in shuffled order."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.split.sketch))
        label = self.split.sketch.labels[order]
        other = (label + rng.integers(1, len(self.split.classes), len(order))) \
            % len(self.split.classes)
        return np.stack([order, self._photo_of(label, rng), self._photo_of(other, rng)], axis=1)

    def _photo_of(self, label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count = np.bincount(self.split.photo.labels, minlength=len(self.split.classes))
        first = np.cumsum(count) - count  # photos lie sorted by class
        return first[label] + rng.integers(0, count[label])

    def __len__(self) -> int:
        return len(self.split.sketch)

    def __getitems__(self, rows: list[int]) -> dict[str, torch.Tensor]:
        sketch, positive, negative = self.plan[rows].T
        pictures = {"sketch": self.sketches[sketch], "positive": self.photos[positive],
                    "negative": self.photos[negative]}
        return {**{k: torch.from_numpy(v) for k, v in pictures.items()},
                "label": torch.from_numpy(self.split.sketch.labels[sketch]),
                "row": torch.from_numpy(sketch)}


def batches(dataset, batch_size: int, *, rank: int = 0, world: int = 1, num_workers: int = 0,
            pin: bool = False) -> torch.utils.data.DataLoader:
    """Consecutive batches in the data set's own order; of each, process `rank` of `world` gets
    every `world`-th item, so that all processes together see one process's batches."""
    starts = range(0, len(dataset), batch_size)
    share = [list(range(s, min(s + batch_size, len(dataset))))[rank::world] for s in starts]
    return torch.utils.data.DataLoader(dataset, batch_sampler=[s for s in share if s],
                                       collate_fn=_as_fetched, num_workers=num_workers,
                                       pin_memory=pin, persistent_workers=False)


def _as_fetched(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return batch  # `__getitems__` has made a batch already


def describe(sketch_set: SketchSet) -> str:
    """One line a split: classes, sketches, photos; and the manifest's hash."""
    lines = [f"{part:12s} " + "  ".join(f"{n:,} {what}" for what, n in row.items())
             for part, row in sketch_set.counts().items()]
    return "\n".join([f"{sketch_set.name} {sketch_set.split_name}  {sketch_set.manifest}", *lines])


def read_captions(folder: Path, split: str) -> tuple[Images, list[list[str]]]:
    """COCO captions: pictures of `annotations/captions_<split>2014.json` with their captions."""
    file = folder / "annotations" / f"captions_{split}2014.json"
    if not file.exists():
        raise DatasetError(f"no {file}: prepare the set (for doodles: `python -m "
                           f"data_prep.doodles --out {paths.shown(paths.DATA)}`)")
    content = json.loads(file.read_text(encoding="utf-8"))
    captions: dict[int, list[str]] = {}
    for annotation in sorted(content["annotations"], key=lambda a: a["id"]):
        captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
    named = [(image["file_name"], captions[image["id"]]) for image in content["images"]]
    subset = next(p for p in ("train2014", "val2014", "") if named and (
        folder / "images" / p / named[0][0]).exists())
    images = Images(folder / "images" / subset, tuple(n for n, _ in named), ("",),
                    np.zeros(len(named), np.int64))
    return images, [c for _, c in named]
