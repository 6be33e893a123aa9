"""Writes the drawn instances in the layouts of the sketch, COCO, CIRR and FashionIQ datasets."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from .attributes import groups, subset_of
from .classes import CLASSES, UNSEEN, theme
from .records import Drawn, Item, Settings, generator
from .wording import captions, modification, remarks

PAIRS_PER_GROUP = 9  # about what a CIRR group has
CIRR_PARTS = {"train": "train", "val": "dev", "test1": "test"}
FASHION_PARTS = {"train": "train", "val": "dev", "test": "test"}
FASHION_TYPES = {"dress": "nature", "shirt": "indoors", "toptee": "outdoors"}
FASHION_README = """Not clothes: drawings in FashionIQ's layout.

FashionIQ has three types of garment, and its code knows no others, so three groups of drawn
classes stand in for them:
"""


def dump(path: Path, content: object, indent: int | None = 1) -> None:
    """Writes JSON; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=indent) + "\n", encoding="utf-8", newline="\n")


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_sketch_layout(root: Path, items: list[Item], drawn: list[Drawn]) -> None:
    """manifest.csv, parts.json and attributes.json beside the pictures in `root`."""
    drawn = sorted(drawn, key=lambda file: file.path)
    with open(root / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "split", "domain", "class", "instance", "sha256"])
        for one in drawn:
            split, domain, class_name, name = one.path.split("/")
            instance = name.split(".")[0].split("-")[0]
            rows.writerow([one.path, split, domain, class_name, instance, one.sha256])
    dump(root / "parts.json", {one.path: one.centres for one in drawn}, indent=None)
    dump(root / "attributes.json", {item.name: asdict(item.attributes) for item in items})


def subset(item: Item) -> str:
    """ "train", "dev" or "test": the split of the caption and composed layouts."""
    return subset_of(CLASSES.index(item.class_name), item.instance)


def coco_name(image_id: int, folder: str) -> str:
    """COCO's file name of an image."""
    return f"COCO_{folder}_{image_id:012d}.jpg"


def write_coco_layout(root: Path, photos: Path, items: list[Item], settings: Settings) -> None:
    """COCO captions beneath `root`/coco; dev and test share captions_val2014.json."""
    annotations = root / "coco" / "annotations"
    files: dict[str, dict] = {
        name: {"images": [], "annotations": []} for name in ("train", "val", "seen")
    }
    ids: dict[str, list[int]] = {"train": [], "dev": [], "test": []}
    for image_id, item in enumerate(items, start=1):
        name = "train" if subset(item) == "train" else "val"
        folder = f"{name}2014"
        link(
            photos / item.photo_path,
            root / "coco" / "images" / folder / coco_name(image_id, folder),
        )
        image = {"id": image_id, "file_name": coco_name(image_id, folder), "height": settings.size,
                 "width": settings.size, "license": 1, "doodle": item.photo_path}  # fmt: skip
        texts = captions(item.class_name, item.attributes, generator(settings.seed, item, 2))
        notes = [{"image_id": image_id, "id": 10 * image_id + k, "caption": text}
                 for k, text in enumerate(texts)]  # fmt: skip
        ids[subset(item)] += [note["id"] for note in notes]
        seen = name == "train" and item.class_name not in UNSEEN
        for key in (name, "seen") if seen else (name,):
            files[key]["images"].append(image)
            files[key]["annotations"] += notes
    for name, content in files.items():
        info = {"description": "doodles: drawn from a seed", "version": "1.0"}
        dump(annotations / f"captions_{name}2014.json",
             {"info": info, "licenses": [], "type": "captions", **content})  # fmt: skip
    for name, numbers in ids.items():
        np.save(annotations / f"coco_{name}_ids.npy", np.array(numbers, dtype=np.int64))


def grouped(items: list[Item]) -> list[list[Item]]:
    """The look-alike groups, in the order of the items."""
    of_class: dict[str, list[Item]] = {}
    for item in items:
        of_class.setdefault(item.class_name, []).append(item)
    return [[own[k] for k in group] for own in of_class.values() for group in groups(len(own))]


def pairs(group: list[Item], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Up to nine (reference, target) positions whose attributes differ in one or two values."""
    near = [(i, j) for i, a in enumerate(group) for j, b in enumerate(group)
            if i != j and len(a.attributes.differences(b.attributes)) <= 2]  # fmt: skip
    chosen = rng.permutation(len(near))[:PAIRS_PER_GROUP]
    return [near[k] for k in sorted(chosen)]


def cirr_names(items: list[Item]) -> dict[str, tuple[str, str]]:
    """Instance name to (CIRR name, CIRR path), in CIRR's style: `dev-12-0-img0`."""
    folder = {"train": "train", "dev": "dev", "test": "test1"}
    names = {}
    for number, item in enumerate(items):
        prefix = folder[subset(item)]
        name = f"{prefix}-{number // 2}-0-img{number % 2}"
        inside = f"{number // 100}/" if prefix == "train" else ""
        names[item.name] = (name, f"./{prefix}/{inside}{name}.jpg")
    return names


def write_cirr_layout(root: Path, photos: Path, items: list[Item], settings: Settings) -> None:
    """CIRR beneath `root`/cirr_dataset; the targets of test1 are withheld, as in CIRR."""
    base, names = root / "cirr_dataset", cirr_names(items)
    for item in items:
        link(photos / item.photo_path, base / names[item.name][1])
    queries: dict[str, list[dict]] = {name: [] for name in CIRR_PARTS}
    labels = {value: key for key, value in CIRR_PARTS.items()}
    pair_id = 0
    for set_id, group in enumerate(grouped(items)):
        rng = generator(settings.seed, group[0], 1_000_001)
        members = [names[item.name][0] for item in group]
        label = labels[subset(group[0])]
        for i, j in pairs(group, rng):
            pair_id += 1
            query = {"pairid": pair_id, "reference": members[i]}
            text = modification(group[i].attributes, group[j].attributes, rng)
            image_set = {"id": set_id, "members": members, "reference_rank": i}
            if label != "test1":
                query |= {"target_hard": members[j], "target_soft": {members[j]: 1.0}}
                image_set["target_rank"] = j
            queries[label].append(query | {"caption": text, "img_set": image_set})
    for label, kept in CIRR_PARTS.items():
        dump(base / "cirr" / "captions" / f"cap.rc2.{label}.json", queries[label])
        paths = dict(names[item.name] for item in items if subset(item) == kept)
        dump(base / "cirr" / "image_splits" / f"split.rc2.{label}.json", paths)


def write_fashioniq_layout(root: Path, photos: Path, items: list[Item], settings: Settings) -> None:
    """FashionIQ beneath `root`/fashionIQ_dataset; test targets are withheld, as in FashionIQ."""
    base = root / "fashionIQ_dataset"
    for item in items:
        link(photos / item.photo_path, base / "images" / f"{item.name}.jpg")
    for kind, kept_theme in FASHION_TYPES.items():
        own = [item for item in items if theme(item.class_name) == kept_theme]
        for label, kept in FASHION_PARTS.items():
            names = [item.name for item in own if subset(item) == kept]
            dump(base / "image_splits" / f"split.{kind}.{label}.json", names)
            chosen = [group for group in grouped(own) if subset(group[0]) == kept]
            queries = [query for group in chosen for query in fashion_queries(group, settings)]
            if label == "test":
                queries = [{k: v for k, v in query.items() if k != "target"} for query in queries]
            dump(base / "captions" / f"cap.{kind}.{label}.json", queries)
    lines = [f"{kind}: {', '.join(name for name in CLASSES if theme(name) == kept)}"
             for kind, kept in FASHION_TYPES.items()]  # fmt: skip
    (base / "README.txt").write_text(FASHION_README + "\n".join(lines) + "\n", encoding="utf-8")


def fashion_queries(group: list[Item], settings: Settings) -> list[dict]:
    """The FashionIQ queries of one group."""
    rng = generator(settings.seed, group[0], 1_000_002)
    return [
        {
            "target": group[j].name,
            "candidate": group[i].name,
            "captions": remarks(group[i].attributes, group[j].attributes, rng),
        }
        for i, j in pairs(group, rng)
    ]
