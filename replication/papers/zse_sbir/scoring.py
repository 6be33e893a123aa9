"""Whole splits scored: each picture passes the tower once, tokens and scores lie on disk, and
`test_sk` and `test_im` bound the memory in use, whatever the gallery's size."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from replication import data, paths, retrieval, training
from replication.papers.zse_sbir.matching import pair_scores, projected, score_block
from replication.progress import bar
from replication.sketch_experiment import Experiment
from replication.sketch_retrieval import Embedded, Ranking, Scored
from replication.transforms import read_image


class OnDisk:
    """A folder for arrays that are needed for a while; it goes when nothing refers to it."""

    def __init__(self):
        (paths.CACHE / "scores").mkdir(parents=True, exist_ok=True)
        self.folder = tempfile.TemporaryDirectory(dir=paths.CACHE / "scores")

    def array(self, name: str, shape: tuple[int, ...], dtype) -> np.memmap:
        """A new array in a file of the folder."""
        return np.lib.format.open_memmap(Path(self.folder.name) / f"{name}.npy", "w+", dtype,
                                         shape)


@dataclass(frozen=True)
class Tokens:
    """The tower's tokens of a split's sketches and photos: float16 where the network runs in half
    precision, else float32."""

    split: data.Split
    sketch: Float[np.memmap, "q t d"]
    photo: Float[np.memmap, "g t d"]
    disk: OnDisk

    def embedded(self) -> Embedded:
        """Class tokens, as retrieval `sa` compares them."""
        return Embedded(self.split, *(F.normalize(torch.from_numpy(
            part[:, 0].astype(np.float32)), dim=1) for part in (self.sketch, self.photo)))


@torch.inference_mode()
def encoded(e: Experiment, split: data.Split, progress: bool = False, batch_size: int = 64
            ) -> Tokens:
    """Every picture of the split through the tower, once."""
    dtype, disk = np.float16 if half(e) else np.float32, OnDisk()
    was_training, parts = e.model.training, []
    e.model.eval()
    for images in (split.sketch, split.photo):
        pixels, out = data.cached_pixels(images, e.preprocess, progress=progress), None
        starts = range(0, len(pixels), batch_size)
        for start in bar(starts, label=f"encode {images.domain}", shown=progress):
            tokens = tower_tokens(e, np.array(pixels[start:start + batch_size])).cpu().numpy()
            if out is None:
                out = disk.array(images.domain, (len(pixels), *tokens.shape[1:]), dtype)
            out[start:start + len(tokens)] = tokens
        parts.append(out)
    e.model.train(was_training)
    return Tokens(split, *parts, disk)


@torch.inference_mode()
def tower_tokens(e: Experiment, pixels: UInt8[np.ndarray, "b h w 3"]) -> Float[Tensor, "b t d"]:
    """The tower's tokens of pictures that are resized already, float32 on the run's device."""
    with e.fabric.autocast():
        return e.model.sa(e.preprocess.normalised(
            torch.from_numpy(pixels).to(e.fabric.device))).float()


def half(e: Experiment) -> bool:
    """Whether the network runs in half precision."""
    return "16" in training.precision_of(e.fabric)


def _on_device(e: Experiment, tokens: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(tokens)).to(e.fabric.device).float()


@torch.inference_mode()
def scored(e: Experiment, tokens: Tokens, progress: bool = False) -> Scored:
    """Relation scores of every sketch with every photo, float32, written to disk as they come.

    In memory at once: the projections of `test_sk` sketches and `test_im` photos, and as many
    pairs as photos.
    """
    c, (queries, photos) = e.config, (len(tokens.sketch), len(tokens.photo))
    matrix = tokens.disk.array("scores", (queries, photos), np.float32)
    was_training = e.model.training
    e.model.eval()
    with bar(total=queries * photos, label="score pairs", unit="pair", shown=progress) as shown:
        for first in range(0, queries, c.test_sk):
            rows = slice(first, min(first + c.test_sk, queries))
            with e.fabric.autocast():
                sketch = projected(e.model, _on_device(e, tokens.sketch[rows]), "sketch")
            for start in range(0, photos, c.test_im):
                columns = slice(start, min(start + c.test_im, photos))
                with e.fabric.autocast():
                    photo = projected(e.model, _on_device(e, tokens.photo[columns]), "photo")
                    block = score_block(e.model, sketch, photo, c.test_im)
                matrix[rows, columns] = block.cpu().numpy()
                shown.update(block.numel())
    e.model.train(was_training)
    return _Matrix(tokens.split, torch.from_numpy(matrix),
                   matrix.nbytes <= c.keep_scores_mb * 2**20, tokens.disk)


@dataclass(frozen=True)
class _Matrix(Scored):
    disk: OnDisk | None = None  # held, so that the matrix's file stays


@dataclass(frozen=True)
class Shortlisted(Ranking):
    """The best k photos by one ranking, put in the order of another, before all the rest in
    their own order. Scores are float64: 2 and more for the shortlist."""

    rest: Ranking
    indices: np.ndarray  # (q, k)
    order: Float[np.ndarray, "q k"]  # scores in 0..1

    def scores(self, rows) -> Tensor:
        """Scores of some sketches with every photo; higher is better."""
        out = self.rest.scores(rows).double()
        return out.scatter_(1, torch.from_numpy(self.indices[rows]),
                            torch.from_numpy(self.order[rows]).double() + 2)

    def tensors(self) -> dict[str, Tensor]:
        """Nothing: a shortlist is measured and left."""
        return {}


def reranked(rest: Embedded, scores: Scored, k: int) -> Shortlisted:
    """`Shortlisted` from a whole matrix of scores."""
    indices, _ = retrieval.top_k(rest.query, rest.gallery, k)
    return Shortlisted(rest.split, rest, indices.numpy(),
                       scores.matrix.gather(1, indices).numpy())


@torch.inference_mode()
def shortlisted(e: Experiment, tokens: Tokens, k: int, progress: bool = False) -> Shortlisted:
    """The best `k` photos by sa in the order of rn; only those pairs are scored."""
    c, rest = e.config, tokens.embedded()
    k = min(k, len(tokens.photo))
    indices = retrieval.top_k(rest.query, rest.gallery, k)[0].numpy()
    order, was_training = np.zeros(indices.shape, np.float32), e.model.training
    e.model.eval()
    for first in bar(range(0, len(indices), c.test_sk), label="score shortlists", shown=progress):
        rows = range(first, min(first + c.test_sk, len(indices)))
        with e.fabric.autocast():
            sketch = projected(e.model, _on_device(e, tokens.sketch[rows.start:rows.stop]),
                               "sketch")
            wanted = np.unique(indices[rows.start:rows.stop])
            for some in np.array_split(wanted, -(-len(wanted) // c.test_im)):
                photo = projected(e.model, _on_device(e, tokens.photo[some]), "photo")
                for i, row in enumerate(rows):
                    places = np.flatnonzero(np.isin(indices[row], some))
                    if len(places):
                        at = torch.from_numpy(np.searchsorted(some, indices[row, places]))
                        one = sketch[i:i + 1].repeated(len(places))
                        order[row, places] = pair_scores(
                            e.model, one, photo[at.to(e.fabric.device)]).float().cpu().numpy()
    e.model.train(was_training)
    return Shortlisted(rest.split, rest, indices, order)


@torch.inference_mode()
def photo_scores(e: Experiment, sketch: Float[Tensor, "1 t d"], files: Sequence[Path]
                 ) -> Float[np.ndarray, " g"]:
    """Relation scores of one sketch's tokens with some photos, which pass the tower now."""
    rule, found = e.preprocess.of("photo"), []
    with e.fabric.autocast():
        one = projected(e.model, sketch, "sketch")
    for start in range(0, len(files), e.config.test_im):
        some = files[start:start + e.config.test_im]
        tokens = tower_tokens(e, np.stack([rule.resized(read_image(file)) for file in some]))
        with e.fabric.autocast():
            photo = projected(e.model, tokens, "photo")
            found.append(score_block(e.model, one, photo, e.config.test_im)[0].cpu().numpy())
    return np.concatenate(found)
