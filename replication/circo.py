"""CIRCO (Baldrati et al., ICCV 2023): composed queries with several ground truths, on the 123,403
unlabeled images of COCO 2017, and its mAP@k. It has no training part.

A query is a reference image, a text that says how the target differs from it, and what the two
share. The reference stays in the gallery, as in the authors' evaluation.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from replication import paths
from replication.annotations import fields, refuse, whole
from replication.data import DatasetError, Images
from replication.metrics import ABSENT, Convention, Ranks

N_QUERIES = {"val": 220, "test": 800}  # the authors' readme
N_IMAGES = 123_403
TOP = (5, 10, 25, 50)
SUBMITTED = 50  # image ids of a query that the server takes
INFO = "image_info_unlabeled2017.json"
PICTURES = ("unlabeled2017", "COCO2017_unlabeled/unlabeled2017")  # prepared, or as the authors do
LAYOUT = (f"circo_dataset/ holds annotations/val.json, annotations/test.json, annotations/{INFO} "
          "and the pictures in unlabeled2017/; the authors' own folder CIRCO/ is read as well")
MISSING = "allow_missing=True takes what is there and calls it a subset"
CIRCO = Convention("circo", "The authors' evaluation.py: the sum of the precisions at the ground "
                   "truths within the top k, divided by min(k, ground truths).",
                   ap_denominator="min_k")
Ranking = Int64[np.ndarray, "query k"] | Int64[Tensor, "query k"]
"""Gallery indices of each query's best k, best first."""


@dataclass(frozen=True)
class Circo:
    """Queries on a gallery. `reference` and `ground_truths` are rows of the gallery `images`, whose
    COCO ids are `image_ids`. ground_truths: of each query, the target for which the text was
    written first; None where they are private (test). aspects: names of what a text asks for, empty
    where the file has none. kind: `full` is an official split with all of its images. left_out:
    images and queries that allow_missing dropped. manifest: hash of queries, ids and sizes."""

    split: str
    images: Images
    image_ids: Int64[np.ndarray, " image"]
    query_ids: tuple[int, ...]
    reference: Int64[np.ndarray, " query"]
    captions: tuple[str, ...]
    shared_concepts: tuple[str, ...]
    ground_truths: tuple[tuple[int, ...], ...] | None
    aspects: tuple[tuple[str, ...], ...]
    kind: Literal["subset", "full"]
    manifest: str
    left_out: dict[str, int] = field(default_factory=dict)
    name: str = "circo"
    protocol: str = "reference in the gallery, several ground truths"

    def __len__(self) -> int:
        return len(self.query_ids)

    @property
    def counts(self) -> dict[str, int]:
        """Queries, gallery images, and ground truths over all queries."""
        return {"queries": len(self), "images": len(self.images),
                "ground truths": sum(map(len, self.ground_truths or ()))}

    def __str__(self) -> str:
        counted = ", ".join(f"{n:,} {what}" for what, n in self.counts.items() if n)
        told = " and ".join(f"{n:,} {what}" for what, n in self.left_out.items())
        return (f"circo {self.split} ({self.kind}): {counted}; {self.protocol}"
                f"{f'; left out: {told}' if told else ''}")


def read_circo(data_root: str | Path, split: str, *, allow_missing: bool = False) -> Circo:
    """Reads `val` or `test` in data_root/circo_dataset/, data_root/CIRCO/ or data_root itself. No
    picture is opened. allow_missing: images that are not on disk are left out with the queries that
    name them, counts may differ from the official ones, and then the set is a `subset`.

    Raises DatasetError that names the offenders: absent or damaged files, an unknown split, ids
    that the gallery does not hold, images that are not there, empty texts, counts that differ.
    """
    if split not in N_QUERIES:
        raise DatasetError(f"circo has no split {split!r}: choose {', '.join(N_QUERIES)}")
    base = _base(paths.user_path(data_root), split)
    listed = _gallery(_file(base, INFO))
    file = base / "annotations" / f"{split}.json"
    queries = _queries(file, split, listed)
    counts = len(queries), len(listed)
    official = counts == (N_QUERIES[split], N_IMAGES)
    if not official and not allow_missing:
        raise DatasetError(f"circo {split} has {counts[0]:,} queries and {counts[1]:,} images, the "
                           f"official split {N_QUERIES[split]:,} and {N_IMAGES:,}. Copy its files "
                           f"again; {MISSING}")
    folder, sizes = _pictures(base)
    missing = [name for name in listed.values() if name not in sizes]
    refuse(missing if not allow_missing or len(missing) == len(listed) else [],
           f"of the {len(listed):,} images of circo are not in {paths.shown(base)}",
           f"{LAYOUT}; {MISSING}")
    there = {image: name for image, name in listed.items() if name in sizes}
    kept = [q for q in queries if there.keys() >= {q["reference_img_id"], *q["gt_img_ids"]}]
    refuse([] if kept else [q["id"] for q in queries],
           f"queries of circo {split}: not one has all of its images", LAYOUT)
    left = {"images": len(listed) - len(there), "queries": len(queries) - len(kept)}
    return _made(split, folder, there, sizes, kept, official and not any(left.values()),
                 left if any(left.values()) else {})


def _base(root: Path, split: str) -> Path:
    places = [root / "circo_dataset", root / "CIRCO", root / "circo", root]
    found = next((p for p in places if (p / "annotations" / f"{split}.json").is_file()), None)
    if found is None:
        raise DatasetError(f"no annotations/{split}.json in {paths.shown(places[0])} or "
                           f"{paths.shown(places[1])}: {LAYOUT}")
    return found


def _file(base: Path, name: str) -> Path:
    places = [base / "annotations" / name, base / "COCO2017_unlabeled/annotations" / name]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DatasetError(f"no {paths.shown(places[0])}: {LAYOUT}")
    return found


def _gallery(file: Path) -> dict[int, str]:
    """COCO id -> file name, in the file's order, which is the authors' gallery order."""
    rows = fields(file, whole(file, json.loads), "images", "id", "file_name")
    if bad := [row for row in rows if not isinstance(row[0], int) or Path(str(row[1])).name
               != row[1]]:
        refuse(bad, f"images of {paths.shown(file)} are not a number and a file name",
               "Is it another file?")
    for column, what in ((0, "ids"), (1, "file names")):
        refuse([own for own, n in Counter(row[column] for row in rows).items() if n > 1],
               f"{what} are in {paths.shown(file)} more than once", "Copy it again")
    return dict(rows)


def _queries(file: Path, split: str, listed: dict[int, str]) -> list[dict]:
    """The rows of an annotation file, checked; `gt_img_ids` empty in test."""
    content = {"queries": whole(file, json.loads)}
    names = ("id", "reference_img_id", "relative_caption", "shared_concept")
    extra = ("target_img_id", "gt_img_ids") if split == "val" else ()
    fields(file, content, "queries", *names, *extra)
    of, copy = f"queries of {paths.shown(file)}", "Copy it again"
    queries = [{"gt_img_ids": [], "semantic_aspects": [], **row} for row in content["queries"]]
    refuse([q["id"] for q in queries if not _sound(q)],
           f"{of} are not ids of images and texts that are not empty", copy)
    refuse([i for i, n in Counter(q["id"] for q in queries).items() if n > 1],
           f"query ids are in {paths.shown(file)} more than once", copy)
    refuse([q["id"] for q in queries if split == "val" and
            (q["target_img_id"] != next(iter(q["gt_img_ids"]), None)
             or len(set(q["gt_img_ids"])) < len(q["gt_img_ids"]))],
           f"{of} have ground truths that repeat, or do not begin with the target", copy)
    refuse([q["id"] for q in queries
            if not listed.keys() >= {q["reference_img_id"], *q["gt_img_ids"]}],
           f"{of} name images that {INFO} does not hold", "Take both from their official places")
    return queries


def _sound(query: dict) -> bool:
    images, texts = query["gt_img_ids"], (query["relative_caption"], query["shared_concept"])
    return isinstance(images, list) and all(
        isinstance(i, int) for i in (query["id"], query["reference_img_id"], *images)) and all(
        isinstance(text, str) and text.strip() for text in texts)


def _pictures(base: Path) -> tuple[Path, dict[str, int]]:
    """The folder of the pictures, and the size in bytes of each file."""
    folder = next((base / place for place in PICTURES if (base / place).is_dir()), None)
    if folder is None:
        raise DatasetError(f"no pictures in {paths.shown(base)}: {LAYOUT}")
    return folder, {entry.name: entry.stat().st_size for entry in os.scandir(folder)}


def _made(split: str, folder: Path, there: dict[int, str], sizes: dict[str, int],
          queries: list[dict], full: bool, left_out: dict[str, int]) -> Circo:
    row = {image: i for i, image in enumerate(there)}
    listing = [[image, name, sizes[name]] for image, name in there.items()]
    digest = hashlib.sha256(json.dumps([queries, listing], sort_keys=True).encode())
    images = Images(folder, tuple(there.values()), ("",), np.zeros(len(there), np.int64), "photo")
    truths = tuple(tuple(row[image] for image in q["gt_img_ids"]) for q in queries)
    return Circo(
        split, images, np.array(list(there)), tuple(q["id"] for q in queries),
        np.array([row[q["reference_img_id"]] for q in queries]),
        tuple(q["relative_caption"] for q in queries), tuple(q["shared_concept"] for q in queries),
        truths if split == "val" else None, tuple(tuple(q["semantic_aspects"]) for q in queries),
        "full" if full else "subset", "listing:" + digest.hexdigest()[:32], left_out)


# ------------------------------------------------------------------------------- what is measured


def circo_metrics(ranking: Ranking, ground_truths: Sequence[Sequence[int]],
                  tops: Sequence[int] = TOP) -> dict[str, Float[Tensor, " query"]]:
    """Average precision of each query in 0..1, whose mean is `mAP@k` as the authors define it.

    ranking: gallery rows of each query's best images, the best first, at least max(tops) of them
    (or the whole gallery). ground_truths: gallery rows, as `Circo` has them. Raises ValueError,
    with the query's number, for a shape that does not fit, a row that comes twice, and a query
    without a ground truth.
    """
    ranking = _ranking(ranking, len(ground_truths), max(tops))
    ranks = np.full((len(ranking), max(map(len, ground_truths), default=1)), ABSENT, np.int32)
    for query, (own, truths) in enumerate(zip(ranking, ground_truths, strict=True)):
        if not len(truths):
            raise ValueError(f"query {query} has no ground truth")
        places = 1 + np.flatnonzero(np.isin(own, truths))
        ranks[query, :len(places)] = places
    n = torch.tensor([len(truths) for truths in ground_truths])
    n_gallery = torch.full_like(n, ranking.shape[1])
    return CIRCO.metrics(Ranks(torch.from_numpy(ranks), n, n_gallery, n),
                         [f"mAP@{k}" for k in tops])


def _ranking(ranking: Ranking, n: int, k: int) -> Int64[np.ndarray, "query k"]:
    ranking = ranking.cpu().numpy() if isinstance(ranking, Tensor) else np.asarray(ranking)
    if ranking.ndim != 2 or len(ranking) != n or ranking.shape[1] < k or ranking.dtype.kind != "i":
        raise ValueError(f"the ranking is {ranking.dtype} {ranking.shape}: it must be whole "
                         f"numbers, {k} or more for each of {n} queries")
    ordered = np.sort(ranking, axis=1)
    if (bad := np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(1))).size:
        raise ValueError(f"the ranking of query {bad[0]} has an image twice")
    return ranking


def write_submission(file: str | Path, ranking: Ranking, circo: Circo) -> Path:
    """Writes what the authors' server takes: `{"<query id>": [the best 50 image ids]}` of every
    query, and returns its place. ranking: as in `circo_metrics`, 50 rows or more.

    Raises ValueError for a subset (the server wants all queries), and as `circo_metrics` does.
    """
    if circo.kind != "full":
        raise ValueError(f"a submission holds every query of an official split, this is a "
                         f"subset: {circo}")
    best = _ranking(ranking, len(circo), SUBMITTED)[:, :SUBMITTED]
    if not 0 <= best.min() <= best.max() < len(circo.images):
        raise ValueError(f"the ranking names a row that the gallery of {len(circo.images):,} "
                         "images does not have")
    found = {str(query): row for query, row in
             zip(circo.query_ids, circo.image_ids[best].tolist(), strict=True)}
    return paths.write_atomic(paths.user_path(file), json.dumps(found))
