"""Captioned sets in their original layouts: COCO, Flickr30K, Flickr8k, doodles.

A set is images in a fixed order and, beneath each other, the captions of each image.
"""

import hashlib
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64

from replication import paths
from replication.annotations import fields, refuse, whole
from replication.data import DatasetError, Images

PER_IMAGE = 5  # captions of an image that count: the first ones
N_IMAGES = {  # of the official splits
    "coco": {"train": 82_783, "restval": 30_504, "dev": 5_000, "test": 5_000},
    "flickr30k": {"train": 29_000, "dev": 1_014, "test": 1_000},
    "flickr8k": {"train": 6_000, "dev": 1_000, "test": 1_000},
}
PLACES = ("images", "images/val2014", "images/train2014", "val2014", "train2014",
          "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "Flickr8k_Dataset")
PREPARED = "python -m data_prep.{} --raw FOLDER --out <data_root> makes it of the archives"
LAYOUT = {
    "coco": "annotations/ holds captions_{train,val}2014.json and VSE++'s coco_<split>_ids.npy or "
            "Karpathy's dataset_coco.json; images/ the pictures, or its train2014/ and val2014/; "
            + PREPARED.format("coco"),
    "flickr30k": "Karpathy's dataset_flickr30k.json and the pictures in images/; "
                 + PREPARED.format("flickr30k"),
    "flickr8k": "captions.token.txt, {train,dev,test}_images.txt (or as the archive calls them) "
                "and the pictures in images/; " + PREPARED.format("flickr8k"),
    "doodles": "prepare the set with `python -m data_prep.doodles --out <data_root>`",
}
PARTIAL = "allow_partial=True takes what is there and calls it a subset"
Entry = tuple[str, list[str]]  # an image's file name, its captions in order
"""An image's file name and its captions, in their order."""


@dataclass(frozen=True)
class Captions:
    """Images and the captions of each, image by image. owner: the image's row of each caption,
    ascending. kind: `full` is an official split with all of its images, `subset` any other part.
    protocol: whose lists make the split. manifest: hash of names, sizes and captions."""

    name: str
    split: str
    images: Images
    texts: tuple[str, ...]
    owner: Int64[np.ndarray, " caption"]
    kind: Literal["demo", "subset", "full"]
    protocol: str
    manifest: str

    @property
    def counts(self) -> dict[str, int]:
        """Images, captions and different captions: images may share one word for word."""
        return {"images": len(self.images), "captions": len(self.texts),
                "different captions": len(set(self.texts))}

    def captions_of(self, row: int) -> tuple[str, ...]:
        """The captions of one image, in order."""
        return self.texts[slice(*np.searchsorted(self.owner, (row, row + 1)))]

    def only(self, rows: Int64[np.ndarray, " image"], split: str) -> "Captions":
        """The images of some rows, ascending, with their captions, as a split of another name."""
        chosen = np.isin(self.owner, rows)
        files = tuple(self.images.files[row] for row in rows)
        images = replace(self.images, files=files, labels=self.images.labels[rows])
        texts = tuple(self.texts[row] for row in np.flatnonzero(chosen))
        digest = hashlib.sha256(json.dumps([self.manifest, files]).encode()).hexdigest()[:32]
        return replace(self, split=split, images=images, texts=texts, manifest=f"listing:{digest}",
                       owner=np.searchsorted(rows, self.owner[chosen]).astype(np.int64),
                       kind="demo" if self.kind == "demo" else "subset")

    def __str__(self) -> str:
        counted = ", ".join(f"{n:,} {what}" for what, n in self.counts.items())
        return f"{self.name} {self.split} ({self.kind}): {counted}; {self.protocol}"


def read_captioned(data_root: str | Path, data_name: str, split: str = "test", *,
                   allow_partial: bool = False) -> Captions:
    """Reads `coco`, `flickr30k`, `flickr8k` or `doodles` in its original layout: data_root/<name>,
    or data_root itself where that holds the set.

    split: `train`, `dev` (or `val`), `test`; COCO has `restval` too, and `train+restval` joins two.
    COCO is split by VSE++'s id arrays, without any by Karpathy's file. No picture is opened.
    allow_partial: images that are not on disk are left out, counts may differ from the official
    ones, and the set is a `subset`. Raises DatasetError that lists the offenders: an absent file or
    split, ids without a caption, images that are not there or have fewer than five captions, counts
    that differ.
    """
    if data_name not in LAYOUT:
        raise DatasetError(f"no captioned set {data_name!r}: choose {', '.join(LAYOUT)}")
    folder = _folder(paths.user_path(data_root), data_name)
    read, protocol = READERS[data_name]
    if data_name == "coco" and not any(folder.glob("annotations/coco_*_ids.npy")):
        read, protocol = READERS["flickr30k"]
    parts = ["dev" if part == "val" else part for part in split.split("+")]
    entries = [entry for part in parts for entry in read(folder, data_name, part)]
    place = {entry.name: f"{place}/{entry.name}" for place in reversed(PLACES)
             if (folder / place).is_dir() for entry in os.scandir(folder / place)}
    _check(folder, data_name, split, entries, place, allow_partial)
    entries = [(image, texts[:PER_IMAGE]) for image, texts in entries if image in place]
    kind = _kind(data_name, parts, entries, allow_partial)
    return _made(folder, data_name, "+".join(parts), entries, place, kind, protocol)


def _folder(root: Path, name: str) -> Path:
    inside = root / ("doodles_captions/coco" if name == "doodles" else name)
    marks = ("annotations", f"dataset_{name}.json", "captions.token.txt", "Flickr8k.token.txt")
    itself = not inside.is_dir() and any((root / mark).exists() for mark in marks)
    return root if itself else inside


def _coco(folder: Path, name: str, part: str) -> Iterator[Entry]:
    """Caption ids, those of an image one after the other."""
    folder, year = folder / "annotations", "train2014" if part == "train" else "val2014"
    listed = _one_of(name, [folder / f"coco_{part}_ids.npy"], folder.glob("coco_*_ids.npy"))
    file = _one_of(name, [folder / f"captions_{year}.json"])
    content, ids = whole(file, json.loads), whole(listed, _ids)
    of_id = {i: (image, text) for i, image, text in
             fields(file, content, "annotations", "id", "image_id", "caption")}
    file_of = dict(fields(file, content, "images", "id", "file_name"))
    refuse([i for i in ids if i not in of_id or of_id[i][0] not in file_of],
           f"of the {len(ids):,} ids of {paths.shown(listed)} are not in {paths.shown(file)}",
           f"The first image there is {next(iter(file_of.values()), None)}: is it the captions "
           "file of another split?")
    refuse([i for i, n in Counter(ids).items() if n > 1],
           f"ids are in {paths.shown(listed)} more than once", "Copy it again")
    for image, group in itertools.groupby(ids, lambda i: of_id[i][0]):
        yield file_of[image], [of_id[i][1] for i in group]


def _karpathy(folder: Path, name: str, part: str) -> Iterator[Entry]:
    """An image's folder, which COCO's file names too, is not needed: images are found by name."""
    wanted, part = f"dataset_{name}.json", "val" if part == "dev" else part
    file = _one_of(name, [folder / wanted, folder / "annotations" / wanted])
    content = whole(file, json.loads)
    rows = fields(file, content, "images", "split", "filename", "sentences")
    if (found := content.get("dataset", name)) != name:
        raise DatasetError(f"{paths.shown(file)} is of {found!r}, not of {name!r}")
    if part not in (there := dict.fromkeys(own for own, *_ in rows)):
        raise DatasetError(f"{paths.shown(file)} has no split {part!r}; it has {', '.join(there)}")
    for own, image, sentences in rows:
        if own == part:
            yield image, [text for text, in fields(file, {image: sentences}, image, "raw")]


def _flickr8k(folder: Path, name: str, part: str) -> Iterator[Entry]:
    """A line of captions is `<image>#<k>`, tab, caption; a line of a split is an image."""
    file = _one_of(name, [folder / n for n in ("captions.token.txt", "Flickr8k.token.txt")])
    names = (f"{part}_images.txt", f"Flickr_8k.{part}Images.txt")
    listed = _one_of(name, [folder / n for n in names], folder.glob("*mages.txt"))
    captions: dict[str, list[tuple[int, str]]] = {}
    for line in whole(file, _lines):
        key, tab, text = line.partition("\t")
        image, _, k = key.rpartition("#")
        if not (tab and image and k.isdecimal()):
            raise DatasetError(f"{paths.shown(file)}: {line[:60]!r} is not <image>#<k>, tab, "
                               "caption; unpack it again")
        captions.setdefault(image, []).append((int(k), text))
    images = whole(listed, _lines)
    refuse([image for image in images if image not in captions],
           f"of the {len(images):,} images of {paths.shown(listed)} have no caption in "
           f"{paths.shown(file)}", "Take both from one archive")
    for image in images:
        yield image, [text for _, text in sorted(captions[image])]


READERS = {"coco": (_coco, "VSE++ caption ids"), "doodles": (_coco, "as COCO's caption ids"),
           "flickr30k": (_karpathy, "Karpathy split"), "flickr8k": (_flickr8k, "official lists")}


def _one_of(name: str, files: list[Path], others: Iterable[Path] = ()) -> Path:
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        there = ", ".join(sorted(file.name for file in others))
        raise DatasetError(f"no {' or '.join(map(paths.shown, files))}"
                           f"{f' (there are: {there})' if there else ''}. {name}: {LAYOUT[name]}")
    return found


def _lines(content: bytes) -> list[str]:
    lines = content.decode("utf-8").replace("\r\n", "\n").split("\n")
    return [line for line in lines if line.strip()]


def _ids(content: bytes) -> list[int]:
    ids = np.load(io.BytesIO(content), allow_pickle=False)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"{ids.dtype} {ids.shape}, not caption ids")
    return ids.tolist()


def _check(folder: Path, name: str, split: str, entries: list[Entry], place: dict[str, str],
           allow_partial: bool) -> None:
    of = f"of the {len(entries):,} images of {name} {split}"
    refuse([image for image, n in Counter(image for image, _ in entries).items() if n > 1],
           f"{of} are listed more than once, or their captions not together", "Copy the lists "
           "again")
    few = [image for image, texts in entries if len(texts) < PER_IMAGE]
    refuse([] if allow_partial else few, f"{of} have fewer than {PER_IMAGE} captions",
           f"Take the lists from one source; {PARTIAL}")
    missing = [image for image, _ in entries if image not in place]
    refuse(missing if not allow_partial or len(missing) == len(entries) else [],
           f"{of} are not in {paths.shown(folder)}", f"{name}: {LAYOUT[name]}; {PARTIAL}")


def _kind(name: str, parts: list[str], entries: list[Entry], allow_partial: bool) -> str:
    official = [N_IMAGES.get(name, {}).get(part) for part in parts]
    if None in official:
        return "demo" if name == "doodles" else "subset"
    counts = len(entries), sum(len(texts) for _, texts in entries)
    wanted = sum(official), PER_IMAGE * sum(official)
    if counts != wanted and not allow_partial:
        raise DatasetError(f"{name} {'+'.join(parts)} has {counts[0]:,} images with {counts[1]:,} "
                           f"captions, the official split {wanted[0]:,} with {wanted[1]:,}. Copy "
                           f"its lists again; {PARTIAL}")
    return "full" if counts == wanted else "subset"


def _made(folder: Path, name: str, split: str, entries: list[Entry], place: dict[str, str],
          kind: str, protocol: str) -> Captions:
    files, digest = tuple(place[image] for image, _ in entries), hashlib.sha256()
    for file, (image, texts) in zip(files, entries, strict=True):
        digest.update(json.dumps([image, (folder / file).stat().st_size, texts]).encode())
    images = Images(folder, files, ("",), np.zeros(len(files), np.int64), "photo")
    owner = np.repeat(np.arange(len(files)), [len(texts) for _, texts in entries])
    return Captions(name, split, images, tuple(text for _, texts in entries for text in texts),
                    owner.astype(np.int64), kind, f"{protocol}, first {PER_IMAGE} captions, raw",
                    "listing:" + digest.hexdigest()[:32])
