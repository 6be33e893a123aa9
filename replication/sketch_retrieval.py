"""What the sketch papers share: embed a split once, evaluate it under every protocol and
convention, select an epoch, keep gallery vectors, rank one picture.

A model enters as two functions from a batch of pixels to embeddings, one for sketches, one for
photos; a network that scores pairs enters at `retrieval.evaluate_scores`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from replication import paths, retrieval
from replication.data import Images, Split, cached_pixels
from replication.metrics import COMMON, CONVENTIONS, Convention
from replication.progress import bar
from replication.records import Metric
from replication.training import Run
from replication.transforms import Preprocess, read_image

Encoder = Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b d"]]
ALL_CONVENTIONS = tuple(CONVENTIONS.values())


@dataclass(frozen=True)
class Embedded:
    """Unit embeddings (float32, CPU) of a split's sketches (queries) and photos (gallery)."""

    split: Split
    query: Float[Tensor, "q d"]
    gallery: Float[Tensor, "g d"]

    @property
    def query_labels(self) -> Int64[Tensor, " q"]:
        return torch.from_numpy(self.split.sketch.labels)

    @property
    def gallery_labels(self) -> Int64[Tensor, " g"]:
        return torch.from_numpy(self.split.photo.labels)


def embed(encode_sketch: Encoder, encode_photo: Encoder, split: Split, preprocess: Preprocess, *,
          device: torch.device | str = "cpu", batch_size: int = 256,
          autocast: torch.dtype | None = None, progress: bool = False) -> Embedded:
    """Every picture of the split through its encoder, once."""
    parts = []
    for encoder, images in ((encode_sketch, split.sketch), (encode_photo, split.photo)):
        pixels = cached_pixels(images, preprocess, progress=progress)
        starts = range(0, len(pixels), batch_size)
        batches = (preprocess.normalised(torch.from_numpy(pixels[s:s + batch_size]).to(device))
                   for s in bar(starts, label=f"encode {images.folder.name}", shown=progress))
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


def zero_shot(embedded: Embedded, conventions: Sequence[Convention] = ALL_CONVENTIONS
              ) -> retrieval.Evaluation:
    """Category retrieval: relevant is every photo of the sketch's class."""
    return retrieval.evaluate(embedded.query, embedded.gallery, embedded.query_labels,
                              embedded.gallery_labels, conventions=conventions)


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


def fine_grained(embedded: Embedded) -> retrieval.Evaluation:
    """Instance retrieval inside the class: relevant is the sketch's own photo, the gallery the
    photos of its class; Acc@1 and Acc@5. Sketches whose photo is absent are left out (NaN)."""
    photo = embedded.split.photo
    place = {name: i for i, name in enumerate(photo.instances)}
    own = [np.array([place[s]] if s in place else [], np.int64)
           for s in embedded.split.sketch.instances]
    same = lambda rows: embedded.query_labels[rows, None] == embedded.gallery_labels  # noqa: E731
    return retrieval.evaluate(embedded.query, embedded.gallery, relevance=lambda rows: own[rows],
                              valid=same, names=("Acc@1", "Acc@5"))


def metric_rows(evaluation: retrieval.Evaluation, variant: str, selection: str = ""
                ) -> list[Metric]:
    """The record's rows of one ranking: every metric and convention, percent, with interval."""
    return [Metric(metric=name, convention=convention, variant=variant, selection=selection,
                   **{k: round(100 * v, 6) for k, v in values.items()})
            for convention, metrics in evaluation.summary().items()
            for name, values in metrics.items()]


def mean_of_four(embedded: Embedded, convention: Convention) -> tuple[float, dict[str, float]]:
    """The original selections' figure: mean of mAP@all, mAP@200, P@100 and P@200, in percent."""
    per_query = zero_shot(embedded, (convention,)).per_query[convention.name]
    values = {k: 100 * float(v.nanmean()) for k, v in per_query.items()}
    return sum(values.values()) / len(values), values


def selection(run: Run, embed_split: Callable[[Split], Embedded], splits: dict[str, Split],
              convention: Convention, write: Callable[[Path], object]
              ) -> Callable[[int], dict[str, float]]:
    """An `after_epoch` that evaluates each of `splits` (`unseen`, `seen`), keeps the best weights
    by its mean of the four metrics, and the last ones. All selections of one run are recorded."""

    def after_epoch(epoch: int) -> dict[str, float]:
        figures = {}
        for name, split in splits.items():
            mean, values = mean_of_four(embed_split(split), convention)
            run.keep_if_best(name, mean, write)
            figures |= {f"{name} {metric}": value for metric, value in values.items()}
        paths.save_file(run.weights("last"), write)
        run.best["last"] = {"value": 0.0, "epoch": epoch + 1}
        return figures

    return after_epoch


# ------------------------------------------------------------------------- files and one query


def save_embeddings(embedded: Embedded, file: Path, about: dict) -> Path:
    """Query and gallery vectors with their file names, classes and labels, as safetensors."""
    sketch, photo = embedded.split.sketch, embedded.split.photo
    header = {"about": json.dumps(about, sort_keys=True), "classes": json.dumps(photo.classes),
              "query_files": json.dumps(sketch.files), "gallery_files": json.dumps(photo.files)}
    tensors = {"query": embedded.query, "gallery": embedded.gallery,
               "query_labels": embedded.query_labels, "gallery_labels": embedded.gallery_labels}
    return paths.save_file(file, lambda tmp: save_file(
        {k: v.contiguous() for k, v in tensors.items()}, tmp, header))


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
                                "with the same data_name, prompt_num and save_root writes them)")
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
           device: torch.device | str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """(gallery indices, cosine scores) of the `k` best photos for one picture, best first."""
    try:
        pixels = preprocess.resized(read_image(query, upright=True))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{query} is not a whole picture ({str(error)[:80]})") from error
    batch = preprocess.normalised(torch.from_numpy(pixels.copy())[None].to(device))
    vector = retrieval.encode(encode, [batch], device=device)
    indices, scores = retrieval.top_k(vector, gallery.vectors, min(k, len(gallery.files)))
    return indices[0].numpy(), scores[0].numpy()


def common(evaluation: retrieval.Evaluation) -> dict[str, float]:
    """The common convention's values in percent, for a line of text."""
    return {k: 100 * v["mean"] for k, v in evaluation.summary(1)[COMMON.name].items()}
