"""Composed-retrieval sets in their original layouts: FashionIQ, CIRR and their doodles twins.

A query is a reference image and a text that says how the target differs from it. The gallery is
the images of a split, in the order of the split's file.
"""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int64

from replication import paths
from replication.annotations import fields, refuse, whole
from replication.data import DatasetError, Images

TYPES = ("dress", "shirt", "toptee")  # FashionIQ's
FORMS = ("A and b", "B and a", "A", "B")  # of FashionIQ's training text
GROUP = 6  # images of a CIRR group, the reference among them
N_OFFICIAL = {  # layout -> split -> type ("" where there is none) -> queries, images
    "fashioniq": {
        "train": {"dress": (5_985, 11_452), "shirt": (5_988, 19_036), "toptee": (6_027, 16_121)},
        "val": {"dress": (2_017, 3_817), "shirt": (2_038, 6_346), "toptee": (1_961, 5_373)}},
    "cirr": {"train": {"": (28_225, 16_939)}, "val": {"": (4_181, 2_297)},
             "test1": {"": (4_148, 2_315)}},
}
KNOWN_EMPTY = {("cirr", "test1"): ("27098",)}  # the official file's one text of a blank
FOLDER = {"fashioniq": "fashionIQ_dataset", "cirr": "cirr_dataset"}
SUFFIXES = (".png", ".jpg", ".jpeg")  # where an image is there twice, the first of these
LAYOUT = {
    "fashioniq": "fashionIQ_dataset/ holds captions/cap.<type>.<split>.json, "
                 "image_splits/split.<type>.<split>.json and images/<id>.jpg or .png; "
                 "python -m data_prep.fashioniq makes it",
    "cirr": "cirr_dataset/ holds cirr/captions/cap.rc2.<split>.json, "
            "cirr/image_splits/split.rc2.<split>.json and the pictures in train/, dev/, test1/; "
            "python -m data_prep.cirr makes it",
}
DRAW = "prepare the set with `python -m data_prep.doodles --out <data_root>`"
MISSING = "allow_missing=True takes what is there and calls it a subset"


class Query(NamedTuple):
    """A row of a caption file, images by name."""

    pair_id: str
    reference: str
    target: str | None
    captions: tuple[str, ...]
    members: tuple[str, ...] = ()


Part = tuple[dict[str, str], list[Query]]  # image name -> its place without a suffix; the queries
"""Image name to its place without a suffix; the queries."""


@dataclass(frozen=True)
class Composed:
    """Queries on a gallery. `reference`, `target` and `members` are rows of the gallery `images`,
    whose `names` are the annotations' own. captions: raw, two a query in FashionIQ, one in CIRR.
    target: None where the targets are private (test1). members: CIRR's group of six, the reference
    among them; None in FashionIQ. pair_ids: CIRR's, `<type>.<row of the file>` in FashionIQ. kind:
    `full` is an official split with all of its images, `subset` any other part. left_out: images
    and queries that allow_missing dropped. manifest: hash of names, sizes, captions and rows."""

    name: str
    split: str
    types: tuple[str, ...]
    images: Images
    names: tuple[str, ...]
    reference: Int64[np.ndarray, " query"]
    target: Int64[np.ndarray, " query"] | None
    captions: tuple[tuple[str, ...], ...]
    members: Int64[np.ndarray, "query member"] | None
    pair_ids: tuple[str, ...]
    kind: Literal["demo", "subset", "full"]
    protocol: str
    manifest: str
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pair_ids)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Each query's text as it is evaluated: CIRR's caption, FashionIQ's `A and b`."""
        return tuple(query_text(captions) for captions in self.captions)

    def training_texts(self, seed: int, epoch: int) -> tuple[str, ...]:
        """Each query's text in one epoch: FashionIQ's is one of FORMS, drawn by (seed, epoch, row);
        CIRR's is always its caption. An empty caption is drawn like another, as the paper's code
        does: 13 of the 18,000 training pairs hold one."""
        forms = np.random.default_rng([seed, epoch]).integers(0, len(FORMS), len(self))
        return tuple(query_text(captions, FORMS[form])
                     for captions, form in zip(self.captions, forms, strict=True))

    @property
    def counts(self) -> dict[str, int]:
        """Queries, gallery images, different texts, and captions without a word."""
        return {"queries": len(self), "images": len(self.images),
                "different texts": len(set(self.texts)),
                "empty captions": sum(_empty(c) for captions in self.captions for c in captions)}

    def __str__(self) -> str:
        counted = ", ".join(f"{n:,} {what}" for what, n in self.counts.items() if n)
        told = " and ".join(f"{n:,} {what}" for what, n in self.left_out.items())
        return (f"{' '.join((self.name, *self.types, self.split))} ({self.kind}): {counted}; "
                f"{self.protocol}{f'; left out: {told}' if told else ''}")


def query_text(captions: tuple[str, ...], form: str = "A and b") -> str:
    """One caption as it is; two, each without `.?, ` at its ends, in one of FORMS: the first that
    is used begins with a capital, the only one."""
    if len(captions) == 1:
        return captions[0]
    first, second = (caption.strip(".?, ") for caption in captions)
    first, second = (first, second) if form[0] == "A" else (second, first)
    return f"{first.capitalize()} and {second}" if "and" in form else first.capitalize()


def _empty(caption: str) -> bool:
    return not caption.strip(".?, \t\r\n")


def read_composed(data_root: str | Path, name: str, split: str, *, types: str | Sequence[str] = (),
                  gallery: Literal["split", "VAL"] = "split", allow_missing: bool = False
                  ) -> Composed:
    """Reads `fashioniq`, `cirr`, `doodles_fashioniq` or `doodles_cirr` in the original layout, in
    data_root/<name>/ or data_root itself. No picture is opened.

    split: `train` or `val`, CIRR also `test1`. types: FashionIQ's: one for val, where each has its
    own gallery; for train one or several, by default all three, whose galleries are joined.
    gallery: `VAL` keeps, in FashionIQ's val, only the images of its queries, which raises recall.
    allow_missing: images that are not on disk are left out with their queries (the group counts
    too), counts may differ from the official ones, and then the set is a `subset`.

    Raises DatasetError that names the offenders: absent or damaged files, an unknown split or type,
    names that the split does not hold, images that are not there, groups without their reference
    or (CIRR val) target, empty captions, counts that differ. Two captions of which one is empty
    are read: the official files have 16 such pairs. CIRR's training texts are not searched.
    """
    layout = name.removeprefix("doodles_")
    types = _types(name, layout, split, (types,) if isinstance(types, str) else tuple(types))
    _check_gallery(name, layout, split, gallery)
    base = _base(paths.user_path(data_root), name, layout)
    parts = {which: _part(base, name, layout, split, which) for which in types or ("",)}
    complete = _counted(name, split, parts, allow_missing)
    listed = {image: place for images, _ in parts.values() for image, place in images.items()}
    queries = [query for _, own in parts.values() for query in own]
    files, kept = _present(base, f"{name} {split}", layout, listed, queries, allow_missing)
    left = {"images": len(listed) - len(files), "queries": len(queries) - len(kept)}
    if gallery == "VAL":
        used = {image for query in kept for image in _images_of(query)}
        files = {image: file for image, file in files.items() if image in used}
    full = complete and len(files) == len(listed)
    kind = "demo" if name != layout else "full" if full else "subset"
    return _made(base, name, split, types, files, kept, kind, _protocol(layout, split, gallery),
                 left if any(left.values()) else {})


def _types(name: str, layout: str, split: str, types: tuple[str, ...]) -> tuple[str, ...]:
    if layout not in FOLDER:
        raise DatasetError(f"no composed set {name!r}: choose "
                           + ", ".join([*FOLDER, *(f"doodles_{n}" for n in FOLDER)]))
    if split not in N_OFFICIAL[layout]:
        raise DatasetError(f"{name} has no split {split!r}: choose "
                           + ", ".join(N_OFFICIAL[layout]))
    known = TYPES if layout == "fashioniq" else ()
    if unknown := [own for own in types if own not in known]:
        raise DatasetError(f"{name} has no type {', '.join(map(repr, unknown))}"
                           + (f": choose {', '.join(known)}" if known else ": only FashionIQ has"))
    types = tuple(own for own in known if own in types or not types)
    if split == "val" and len(types) > 1:
        raise DatasetError(f"{name} val is measured a type at a time, each in its own gallery: "
                           f"choose one of {', '.join(types)} as types")
    return types


def _check_gallery(name: str, layout: str, split: str, gallery: str) -> None:
    of = ("split", "VAL") if (layout, split) == ("fashioniq", "val") else ("split",)
    if gallery not in of:
        raise DatasetError(f"{name} {split} has no gallery {gallery!r}: choose {' or '.join(of)} "
                           "(VAL is of FashionIQ's val)")


def _base(root: Path, name: str, layout: str) -> Path:
    """The folder that is called fashionIQ_dataset or cirr_dataset, or holds what that does."""
    folder = FOLDER[layout]
    places = [root / name / folder]
    if name == layout:
        places += [root / folder, root / name, root]
    mark = "cirr/image_splits" if layout == "cirr" else "image_splits"
    found = next((place for place in places if (place / mark).is_dir()), None)
    if found is None:
        shown = " or ".join(paths.shown(place) for place in places[:2])
        how = LAYOUT[layout] if name == layout else DRAW
        raise DatasetError(f"no {mark}/ in {shown}. {name}: {how}")
    return found


def _protocol(layout: str, split: str, gallery: str) -> str:
    if layout == "cirr":
        return "rc2, reference out of the gallery"
    if split == "train":
        return "original split"
    return ("original split's gallery, reference in it" if gallery == "split" else
            "VAL gallery: only the queries' images, not comparable with the original split's")


# ---------------------------------------------------------------------------------- one part


def _part(base: Path, name: str, layout: str, split: str, which: str) -> Part:
    """One caption file with its split file, both checked."""
    inner, middle = (base, which) if layout == "fashioniq" else (base / "cirr", "rc2")
    captions, listed = (_file(inner / folder / f"{start}.{middle}.{split}.json", layout) for
                        folder, start in (("captions", "cap"), ("image_splits", "split")))
    images, read = _split(listed), _fashioniq if layout == "fashioniq" else _cirr
    queries = read(captions, split, which)
    _check(captions, queries, 2 if layout == "fashioniq" else 1, split != "test1")
    _check_names(captions, listed, queries, images)
    if layout == "cirr":
        size = GROUP if name == layout else len(queries[0].members)  # tiny doodles: four or five
        _check_groups(captions, queries, split, size)
    _check_texts(captions, queries, layout, split)
    return images, queries


def _file(file: Path, layout: str) -> Path:
    if not file.is_file():
        there = ", ".join(sorted(other.name for other in file.parent.glob("*.json")))
        raise DatasetError(f"no {paths.shown(file)}{f' (there are: {there})' if there else ''}. "
                           f"{LAYOUT[layout]}")
    return file


def _split(file: Path) -> dict[str, str]:
    """FashionIQ lists names, CIRR maps each to its path."""
    content = whole(file, json.loads)
    names = list(content) if isinstance(content, list | dict) else []
    if not names or not all(isinstance(n, str) for n in names) or isinstance(content, dict) and \
            not all(isinstance(place, str) for place in content.values()):
        raise DatasetError(f"{paths.shown(file)} is not a list of image names, nor of names and "
                           "their paths; is it another file?")
    refuse([name for name, n in Counter(names).items() if n > 1],
           f"images are in {paths.shown(file)} more than once", "Copy it again")
    if isinstance(content, list):
        return {name: f"images/{name}" for name in names}
    return {name: PurePosixPath(place).with_suffix("").as_posix()
            for name, place in content.items()}


def _fashioniq(file: Path, split: str, which: str) -> list[Query]:
    rows = fields(file, {"queries": whole(file, json.loads)}, "queries",
                   "candidate", "target", "captions")
    return [Query(f"{which}.{i}", reference, target, _tuple(captions))
            for i, (reference, target, captions) in enumerate(rows)]


def _cirr(file: Path, split: str, which: str) -> list[Query]:
    content = {"queries": whole(file, json.loads)}
    rows = fields(file, content, "queries", "pairid", "reference", "caption", "img_set")
    groups = fields(file, {"img_set": [row[-1] for row in rows]}, "img_set", "members")
    targets = [(None,)] * len(rows) if split == "test1" else \
        fields(file, content, "queries", "target_hard")
    return [Query(str(pair), reference, target, (caption,), _tuple(members))
            for (pair, reference, caption, _), (target,), (members,) in
            zip(rows, targets, groups, strict=True)]


def _tuple(content) -> tuple:
    return tuple(content) if isinstance(content, list) else ()


def _images_of(query: Query) -> Iterable[str]:
    return (query.reference, *([] if query.target is None else [query.target]), *query.members)


def _check(file: Path, queries: list[Query], n_captions: int, targets: bool) -> None:
    shown = paths.shown(file)
    if not queries:
        raise DatasetError(f"{shown} holds no query; copy it again")
    refuse([q.pair_id for q in queries if len(q.captions) != n_captions or
            targets != (q.target is not None) or
            not all(isinstance(text, str) for text in (*_images_of(q), *q.captions))],
           f"of the {len(queries):,} queries of {shown} are not names with {n_captions} caption"
           f"{'s' * (n_captions > 1)}", "Is it another file?")
    refuse([pair for pair, n in Counter(q.pair_id for q in queries).items() if n > 1],
           f"pair ids are in {shown} more than once", "Copy it again")


def _check_names(file: Path, listed: Path, queries: list[Query], images: dict[str, str]) -> None:
    unknown = list(dict.fromkeys(image for q in queries for image in _images_of(q)
                                 if image not in images))
    if unknown:
        others = [other.name for other in sorted(listed.parent.glob("split.*.json"))
                  if other != listed and _holds(other, unknown)]
        hint = (f"{', '.join(others)} holds them: is it the captions of another type or split?"
                if others else "Take both files from one archive")
        refuse(unknown, f"images of {paths.shown(file)} are not in {paths.shown(listed)}", hint)


def _holds(file: Path, names: list[str]) -> bool:
    with contextlib.suppress(DatasetError):
        return set(names) <= set(_split(file))
    return False


def _check_groups(file: Path, queries: list[Query], split: str, size: int) -> None:
    of = f"of the {len(queries):,} queries of {paths.shown(file)}"
    refuse([q.pair_id for q in queries if not len(q.members) == len(set(q.members)) == size],
           f"{of} have a group that is not {size} different images", "Copy it again")
    refuse([q.pair_id for q in queries if q.reference not in q.members],
           f"{of} have a reference that is not in their group", "Copy it again")
    refuse([q.pair_id for q in queries if split == "val" and q.target not in q.members],
           f"{of} have a target that is not in their group", "Copy it again")
    refuse([q.pair_id for q in queries if q.target == q.reference],
           f"{of} have their reference as target, which is not in the gallery", "Copy it again")


def _check_texts(file: Path, queries: list[Query], layout: str, split: str) -> None:
    known = KNOWN_EMPTY.get((layout, split), ())
    if (layout, split) != ("cirr", "train"):
        refuse([q.pair_id for q in queries if all(map(_empty, q.captions))
                and q.pair_id not in known],
               f"of the {len(queries):,} queries of {paths.shown(file)} have an empty caption",
               "Copy it again")


# ------------------------------------------------------------------------------------ the set


def _counted(name: str, split: str, parts: dict[str, Part], allow_missing: bool) -> bool:
    """Whether counts are the official ones; doodles have none."""
    if name not in N_OFFICIAL:
        return False
    found = {which: (len(queries), len(images)) for which, (images, queries) in parts.items()}
    wrong = [f"{' '.join(filter(None, (name, which, split)))} has {n[0]:,} queries and {n[1]:,} "
             "images, the official split {:,} and {:,}".format(*N_OFFICIAL[name][split][which])
             for which, n in found.items() if n != N_OFFICIAL[name][split][which]]
    if wrong and not allow_missing:
        raise DatasetError(f"{'; '.join(wrong)}. Copy its files again; {MISSING}")
    return not wrong


def _present(base: Path, what: str, layout: str, listed: dict[str, str], queries: list[Query],
             allow_missing: bool) -> tuple[dict[str, str], list[Query]]:
    """The files of the images that are there, and the queries that have all of theirs."""
    files = _on_disk(base, listed)
    missing = [image for image in listed if image not in files]
    refuse(missing if not allow_missing or not files else [],
           f"of the {len(listed):,} images of {what} are not in {paths.shown(base)}",
           f"{LAYOUT[layout]}; {MISSING}")
    kept = [query for query in queries if all(image in files for image in _images_of(query))]
    refuse([] if kept else [query.pair_id for query in queries],
           f"queries of {what}: not one has all of its images", LAYOUT[layout])
    return files, kept


def _on_disk(base: Path, listed: dict[str, str]) -> dict[str, str]:
    """Name -> file of those images that are there, whatever their suffix."""
    found: dict[str, str] = {}
    for folder in sorted({place.rpartition("/")[0] for place in listed.values()}):
        if (base / folder).is_dir():
            names = [entry.name.rpartition(".") for entry in os.scandir(base / folder)]
            for stem, dot, suffix in sorted(names, key=_preference, reverse=True):
                if dot + suffix.lower() in SUFFIXES:
                    found[f"{folder}/{stem}"] = f"{folder}/{stem}{dot}{suffix}"
    return {name: found[place] for name, place in listed.items() if place in found}


def _preference(name: tuple[str, str, str]) -> int:
    suffix = name[1] + name[2].lower()
    return SUFFIXES.index(suffix) if suffix in SUFFIXES else len(SUFFIXES)


def _made(base: Path, name: str, split: str, types: tuple[str, ...], files: dict[str, str],
          queries: list[Query], kind: str, protocol: str, left_out: dict[str, int]) -> Composed:
    row = {image: i for i, image in enumerate(files)}
    digest = hashlib.sha256(json.dumps(queries).encode())
    for image, file in files.items():
        digest.update(json.dumps([image, (base / file).stat().st_size]).encode())
    images = Images(base, tuple(files.values()), ("",), np.zeros(len(files), np.int64), "photo")
    members = [[row[image] for image in q.members] for q in queries if q.members]
    target = [row[q.target] for q in queries if q.target is not None]
    return Composed(
        name, split, types, images, tuple(files), np.array([row[q.reference] for q in queries]),
        np.array(target) if target else None, tuple(q.captions for q in queries),
        np.array(members) if members else None, tuple(q.pair_id for q in queries), kind, protocol,
        "listing:" + digest.hexdigest()[:32], left_out)
