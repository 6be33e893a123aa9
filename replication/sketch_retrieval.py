"""What the sketch papers share: embed a split once, evaluate it under every protocol and
convention, select an epoch, keep gallery vectors, rank one picture.

A model enters as two functions from a batch of pixels to embeddings, one for sketches, one for
photos, and ranks as `Embedded`; a network that scores pairs ranks as `Scored`.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from safetensors import safe_open
from torch import Tensor

from replication import paths, records, retrieval
from replication.data import Images, SketchSet, Split, cached_pixels
from replication.metrics import CONVENTIONS, SKETCH_METRICS, Convention
from replication.progress import bar
from replication.published import Paper
from replication.records import Metric
from replication.training import Run, write_tensors
from replication.transforms import Preprocess, read_image

Encoder = Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b d"]]
"""A function from a batch of normalised pixels to embeddings."""
ALL_CONVENTIONS = tuple(CONVENTIONS.values())


@dataclass(frozen=True)
class Ranking(ABC):
    """Sketches (queries) and photos (gallery) of a split, and what ranks the photos for each."""

    split: Split

    @property
    def query_labels(self) -> Int64[Tensor, " q"]:
        """Each sketch's class."""
        return torch.from_numpy(self.split.sketch.labels)

    @property
    def gallery_labels(self) -> Int64[Tensor, " g"]:
        """Each photo's class."""
        return torch.from_numpy(self.split.photo.labels)

    @abstractmethod
    def scores(self, rows: slice | list[int]) -> Float[Tensor, "chunk g"]:
        """Scores of some sketches with every photo; higher is better."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What a file has to hold so that the scores can be computed again; empty: not kept."""


@dataclass(frozen=True)
class Embedded(Ranking):
    """Ranked by the cosine of embeddings (float32, CPU)."""

    query: Float[Tensor, "q d"]
    gallery: Float[Tensor, "g d"]

    def scores(self, rows: slice | list[int]) -> Float[Tensor, "chunk g"]:
        """Cosines of some sketches with every photo."""
        return retrieval.cosine_scorer(self.query, self.gallery)(rows)

    def tensors(self) -> dict[str, Tensor]:
        """Both sides' embeddings."""
        return {"query": self.query, "gallery": self.gallery}


@dataclass(frozen=True)
class Scored(Ranking):
    """Ranked by a network that scores pairs: a matrix, which may lie in a memory-mapped file.

    keep: whether the matrix is saved with a record; a large one is measured and left.
    """

    matrix: Float[Tensor, "q g"]
    keep: bool = True

    def scores(self, rows: slice | list[int]) -> Float[Tensor, "chunk g"]:
        """Rows of the matrix."""
        return self.matrix[rows]

    def tensors(self) -> dict[str, Tensor]:
        """The matrix, where it is kept."""
        return {"scores": self.matrix} if self.keep else {}


def embed(encode_sketch: Encoder, encode_photo: Encoder, split: Split, preprocess: Preprocess, *,
          device: torch.device | str = "cpu", batch_size: int = 256,
          autocast: torch.dtype | None = None, progress: bool = False) -> Embedded:
    """Every picture of the split through its encoder, once."""
    parts = []
    for encoder, images in ((encode_sketch, split.sketch), (encode_photo, split.photo)):
        pixels = cached_pixels(images, preprocess, progress=progress)
        starts = range(0, len(pixels), batch_size)
        shown = bar(starts, label=f"encode {images.domain}", shown=progress)
        blocks = (torch.from_numpy(np.array(pixels[s:s + batch_size])) for s in shown)
        batches = (preprocess.normalised(block.to(device)) for block in blocks)
        parts.append(retrieval.encode(encoder, batches, device=device, autocast=autocast))
    return Embedded(split, *parts)


def pixel_floor(split: Split, size: int = 32) -> Embedded:
    """Nearest neighbour on pixels: grey `size` x `size` pictures, mean removed, as embeddings."""
    rule = Preprocess(size, "squash")
    return embed(_grey, _grey, split, rule)


def _grey(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
    grey = images.mean(1).flatten(1)
    return grey - grey.mean(1, keepdim=True)


def random_floor(split: Split, seed: int = 0) -> Embedded:
    """A random ranking: chance, measured under the very definitions of the other rows."""
    g = torch.Generator().manual_seed(seed)
    draw = [F.normalize(torch.randn(len(images), 64, generator=g)) for images in
            (split.sketch, split.photo)]
    return Embedded(split, *draw)


# --------------------------------------------------------------------------------- protocols


def zero_shot(ranking: Ranking, conventions: Sequence[Convention] = ALL_CONVENTIONS
              ) -> retrieval.Evaluation:
    """Category retrieval: relevant is every photo of the sketch's class."""
    relevance = retrieval.label_relevance(ranking.query_labels, ranking.gallery_labels)
    return _evaluated(ranking, relevance, conventions=conventions)


def _evaluated(ranking: Ranking, relevance: retrieval.Rows, **options) -> retrieval.Evaluation:
    scores = ranking.scores
    if isinstance(ranking, Embedded):  # the gallery is normalised once, not for every chunk
        scores = retrieval.cosine_scorer(ranking.query, ranking.gallery)
    return retrieval.evaluate_scores(scores, len(ranking.split.sketch), relevance, **options)


def one_photo_a_sketch(embedded: Embedded, seed: int = 0) -> Embedded:
    """The authors' validation gallery: for each sketch one random photo of its class, drawn with
    replacement. Not comparable with the full gallery; offered so that the gap can be seen."""
    rng = np.random.default_rng(seed)
    photo, sketch = embedded.split.photo, embedded.split.sketch
    drawn = np.array([rng.choice(np.flatnonzero(photo.labels == label)) for label in sketch.labels])
    files = tuple(photo.files[i] for i in drawn)
    gallery = Images(photo.folder, files, photo.classes, photo.labels[drawn])
    return Embedded(Split(sketch, gallery), embedded.query, embedded.gallery[drawn])


def generalised(unseen: Embedded, seen: Embedded) -> Embedded:
    """Generalised setting: unseen sketches against photos of unseen AND seen classes."""
    split, classes = unseen.split, unseen.split.classes + seen.split.classes
    labels = np.concatenate([split.photo.labels, seen.split.photo.labels + len(split.classes)])
    files = split.photo.files + tuple(f"../../train/photo/{f}" for f in seen.split.photo.files)
    photos = Images(split.photo.folder, files, classes, labels)
    sketches = Images(split.sketch.folder, split.sketch.files, classes, split.sketch.labels)
    return Embedded(Split(sketches, photos), unseen.query,
                    torch.cat([unseen.gallery, seen.gallery]))


def fine_grained(ranking: Ranking) -> retrieval.Evaluation:
    """Instance retrieval inside the class: relevant is the sketch's own photo, the gallery the
    photos of its class; Acc@1 and Acc@5. Sketches whose photo is absent are left out (NaN)."""
    place = {name: i for i, name in enumerate(ranking.split.photo.instances)}
    own = [np.array([place[s]] if s in place else [], np.int64)
           for s in ranking.split.sketch.instances]
    same = lambda rows: ranking.query_labels[rows, None] == ranking.gallery_labels  # noqa: E731
    return _evaluated(ranking, lambda rows: own[rows], valid=same, names=("Acc@1", "Acc@5"))


def metric_rows(evaluation: retrieval.Evaluation, variant: str, selection: str = ""
                ) -> list[Metric]:
    """The record's rows of one ranking: every metric and convention, percent, with interval."""
    return [Metric(metric=name, convention=convention, variant=variant, selection=selection,
                   value=round(100 * v["mean"], 6), low=round(100 * v["low"], 6),
                   high=round(100 * v["high"], 6))
            for convention, metrics in evaluation.summary().items()
            for name, v in metrics.items()]


def four_metrics(ranking: Ranking, convention: Convention) -> dict[str, float]:
    """mAP@all, mAP@200, P@100 and P@200, in percent."""
    per_query = zero_shot(ranking, (convention,)).per_query[convention.name]
    return {k: 100 * float(v.nanmean()) for k, v in per_query.items()}


def instance_metrics(ranking: Ranking) -> dict[str, float]:
    """Acc@1 and Acc@5 of the fine-grained setting, in percent."""
    return {k: 100 * float(v.nanmean())
            for k, v in next(iter(fine_grained(ranking).per_query.values())).items()}


def selection(run: Run, measured: Callable[[Split], dict[str, float]], splits: dict[str, Split],
              write: Callable[[Path], object], *, figure: Sequence[str] = SKETCH_METRICS,
              first: int = 0) -> Callable[[int], dict[str, float]]:
    """An `after_epoch` that measures each of `splits` (`unseen`, `seen`), keeps the best weights
    by the mean of the metrics in `figure`, and the last ones. All selections are recorded.

    first: epochs (counted from 0) before it are not evaluated.
    """

    def after_epoch(epoch: int) -> dict[str, float]:
        figures = {}
        for name, split in splits.items() if epoch >= first or epoch < 0 else ():
            values = measured(split)
            run.keep_if_best(name, sum(values[m] for m in figure) / len(figure), write)
            figures |= {f"{name} {metric}": value for metric, value in values.items()}
        paths.save_file(run.weights("last"), write)
        run.best["last"] = {"value": 0.0, "epoch": epoch + 1}
        return figures

    return after_epoch


# ------------------------------------------------------------------------- files and one query


def save_ranking(ranking: Ranking, file: Path, about: dict, *, instances: bool = False) -> Path:
    """Embeddings or scores with the file names, classes and labels, as safetensors.

    instances: labels are photo instances and groups are classes, the fine-grained protocol.
    """
    sketch, photo = ranking.split.sketch, ranking.split.photo
    header = {"about": json.dumps(about, sort_keys=True), "classes": json.dumps(photo.classes),
              "query_files": json.dumps(sketch.files), "gallery_files": json.dumps(photo.files)}
    labels, tensors = [ranking.query_labels, ranking.gallery_labels], ranking.tensors()
    if instances:
        tensors |= {"query_groups": labels[0], "gallery_groups": labels[1]}
        place = {name: i for i, name in enumerate(photo.instances)}
        labels = [torch.tensor([place.get(n, -1) for n in sketch.instances]),
                  torch.arange(len(photo))]
    tensors |= {"query_labels": labels[0], "gallery_labels": labels[1]}
    return paths.save_file(file, lambda tmp: write_tensors(tensors, tmp, header))


@dataclass(frozen=True)
class Gallery:
    """Saved gallery vectors: what a query is ranked against."""

    vectors: Float[Tensor, "g d"]
    files: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Int64[Tensor, " g"]
    about: dict


def load_gallery(file: Path) -> Gallery:
    """Raises FileNotFoundError or ValueError that names the file and the command that makes it."""
    if not file.exists():
        raise FileNotFoundError(f"no gallery vectors {paths.shown(file)}: train first (train.ipynb "
                                "with the same parameters writes them)")
    try:
        with safe_open(file, "pt") as stored:
            header = {k: json.loads(v) for k, v in stored.metadata().items()}
            return Gallery(stored.get_tensor("gallery"), tuple(header["gallery_files"]),
                           tuple(header["classes"]), stored.get_tensor("gallery_labels"),
                           header["about"])
    except Exception as error:  # safetensors raises its own kind
        raise ValueError(f"{paths.shown(file)} holds no gallery vectors ({str(error)[:80]}): "
                         "remove it and run train.ipynb again") from error


def query_image(query_name: str, split: Split) -> tuple[Path, str]:
    """The query's file and class ("" for a user's own picture).

    `query_name` is a path of any picture, or `<class>/<file>` or `<file>` of the set's sketches.
    Raises FileNotFoundError with the nearest names.
    """
    path = paths.user_path(query_name)
    names = {f: i for i, f in enumerate(split.sketch.files)}
    names |= {f.split("/", 1)[1]: i for f, i in list(names.items())}
    if path.is_file():
        known = path.parent.name in split.classes and "sketch" in path.parts
        return path, path.parent.name if known else ""
    if query_name in names:
        index = names[query_name]
        return split.sketch.path(index), split.classes[split.sketch.labels[index]]
    examples = ", ".join(split.sketch.files[:: max(1, len(names) // 8)][:3])
    raise FileNotFoundError(f"no picture {query_name!r}: query_name is a picture file, or a sketch "
                            f"of the set, as {examples}")


def ranked(encode: Encoder, query: Path, gallery: Gallery, preprocess: Preprocess, k: int,
           device: torch.device | str = "cpu", domain: str = "sketch"
           ) -> tuple[np.ndarray, np.ndarray]:
    """(gallery indices, cosine scores) of the `k` best photos for one picture, best first."""
    try:
        pixels = preprocess.of(domain).resized(read_image(query, upright=True))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{query} is not a whole picture ({str(error)[:80]})") from error
    batch = preprocess.normalised(torch.from_numpy(pixels.copy())[None].to(device))
    vector = retrieval.encode(encode, [batch], device=device)
    indices, scores = retrieval.top_k(vector, gallery.vectors, min(k, len(gallery.files)))
    return indices[0].numpy(), scores[0].numpy()


# ------------------------------------------------------------------------------ what is recorded


@dataclass
class Results:
    """Rows of a record and the embeddings or scores they can be computed from again."""

    rows: list[Metric]
    files: dict[str, str]
    folder: Path
    about: dict

    def add(self, ranking: Ranking, variant: str, selection: str = "", protocol: str = "", *,
            save: bool = True) -> retrieval.Evaluation:
        """Evaluates one ranking, appends its rows and, with `save`, stores its embeddings or
        scores under the name that `python -m replication verify` looks for. The first one added
        is the run's main ranking, `embeddings`."""
        instances = protocol == "fine-grained"
        evaluation = fine_grained(ranking) if instances else zero_shot(ranking)
        photos = len(ranking.split.photo) if protocol else None
        parts = filter(None, (variant, selection, protocol))
        key = ":".join(["embeddings", *parts]) if self.rows else "embeddings"
        self.rows += [row.model_copy(update={"protocol": protocol, "n_gallery": photos})
                      for row in metric_rows(evaluation, variant, selection)]
        if save and ranking.tensors():
            name = re.sub(r"[: ]", "-", key)
            file = save_ranking(ranking, self.folder / f"{name}.safetensors", self.about,
                                instances=instances)
            self.files[key] = file.name
        return evaluation

    @staticmethod
    def instances(ranking: Ranking) -> bool:
        """Whether sketches name their photo, so that the fine-grained setting has answers."""
        split = ranking.split
        return bool(set(split.sketch.instances) & set(split.photo.instances))

    def table(self, convention: Convention, metrics: Sequence[str]) -> pd.DataFrame:
        """The rows of one convention: rankings down, metrics across, in percent."""
        rows = [(m.protocol or "zero-shot", f"{m.variant} {m.selection}".strip(), m.metric, m.value)
                for m in self.rows if m.convention == convention.name and m.metric in metrics]
        frame = pd.DataFrame(rows, columns=["protocol", "ranking", "metric", "percent"])
        table = frame.pivot_table(index=["protocol", "ranking"], columns="metric",
                                  values="percent", sort=False)
        return table.round(1)[list(metrics)] if len(table) else table


def dataset_facts(sketch_set: SketchSet, split: Split, n_train: int, paper: Paper
                  ) -> records.Dataset:
    """The record's account of the set; `full` only where the published counts are all met."""
    photos, name = split.photo, paper.aliases.get(sketch_set.name, sketch_set.name)
    ours = {"n_query": len(split.sketch), "n_gallery": len(photos),
            "n_classes": len(split.sketch.classes)}
    expected = paper.sets.get(name, {}).get(sketch_set.split_name)
    full = expected is not None and all(getattr(expected, k) in (None, v) for k, v in ours.items())
    kind = "demo" if sketch_set.name.startswith("doodles") else "full" if full else "subset"
    return records.Dataset(name=sketch_set.name, split=sketch_set.split_name, kind=kind,
                           n_gallery_unique=len(set(photos.files)), n_train=n_train,
                           manifest=sketch_set.manifest, **ours)


def ranked_examples(ranking: Ranking, n: int = 5, k: int = 8, seed: int = 0) -> list:
    """Rows for `plots.ranked`: `n` queries of different classes, drawn with `seed`, and their
    `k` best photos. Drawn, not chosen: good and bad ones appear as they come."""
    rng, split = np.random.default_rng(seed), ranking.split
    present = rng.permutation(np.unique(split.sketch.labels))[:n]
    drawn = [int(rng.choice(np.flatnonzero(split.sketch.labels == label))) for label in present]
    indices, _ = retrieval.best(ranking.scores(drawn), min(k, len(split.photo)))
    return [(split.sketch.path(q), split.sketch.classes[split.sketch.labels[q]],
             [(split.photo.path(g), bool(split.photo.labels[g] == split.sketch.labels[q]),
               split.photo.classes[split.photo.labels[g]]) for g in row.tolist()])
            for q, row in zip(drawn, indices, strict=True)]
