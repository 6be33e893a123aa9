"""SPRC as it is used: a set's pictures and queries to vectors, vectors to ranks."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64
from lightning_fabric import Fabric
from torch import Tensor

from replication import data, training
from replication.composed import Composed
from replication.composed_metrics import ComposedRanks, evaluate_composed
from replication.feature_store import FeatureStore
from replication.papers.sprc.encoders import ImageEncoder
from replication.papers.sprc.model import SPRC
from replication.progress import bar
from replication.retrieval import max_scorer
from replication.wordpiece import Encoded, WordPiece

Encode = Callable[[np.ndarray], Float16[Tensor, "b n w"]]
"""A function from images (uint8, b h w 3) to their tokens."""


@dataclass(frozen=True)
class Vectors:
    """A set's query features and those of every gallery picture, float32, on the CPU."""

    query: Float[Tensor, "query e"]
    gallery: Float[Tensor, "gallery q e"]

    def scores(self, rows: slice) -> Float[Tensor, "chunk gallery"]:
        """Of a slice of queries on the whole gallery."""
        return max_scorer(self.query, self.gallery)(rows)

    def ranks(self, composed: Composed, chunk: int = 256) -> ComposedRanks:
        """Ranks under the set's protocol; chunk: queries scored at once."""
        return evaluate_composed(self.scores, composed, chunk=chunk)


@dataclass(frozen=True)
class Retriever:
    """A model with its frozen image encoder and its words. stored: features are computed once and
    kept on disk, else the encoder runs whenever they are asked for. chunk: items at once."""

    model: SPRC
    encoder: ImageEncoder
    wordpiece: WordPiece
    fabric: Fabric
    stored: bool = True
    chunk: int = 256

    def features(self, composed: Composed, progress: bool = True) -> Encode:
        """A function from gallery rows to the frozen encoder's output, half precision."""
        if self.stored:
            return FeatureStore.open_or_build(composed.images, self.encoder, self.fabric.device,
                                              progress=progress).__getitem__
        pixels = data.cached_pixels(composed.images, self.encoder.preprocess, progress=progress)
        return lambda rows: self.encoded(torch.from_numpy(np.array(pixels[rows])))

    @torch.inference_mode()
    def encoded(self, pixels: Tensor) -> Float16[Tensor, "b n w"]:
        """The frozen encoder on bytes (b h w 3), half precision, as the store keeps it."""
        images = self.encoder.preprocess.normalised(pixels.to(self.fabric.device))
        tower = self.encoder.model.to(self.fabric.device)
        kind = next(tower.parameters()).dtype
        return tower(images.to(kind)).half().cpu()

    @torch.inference_mode()
    def queries(self, reference: Float16[Tensor, "b n w"], text: Encoded) -> Float[Tensor, "b e"]:
        """Query features of reference pictures and as many texts."""
        ids, mask = trimmed(text.ids, text.mask)
        with self.fabric.autocast():
            return self.model.encode_query(*(x.to(self.fabric.device) for x in
                                             (reference, ids, mask))).float().cpu()

    @torch.inference_mode()
    def gallery(self, composed: Composed, progress: bool = False) -> Float[Tensor, "gallery q e"]:
        """Target features of every gallery picture, each encoded once."""
        model, found, n = self.model.eval(), self.features(composed, progress), len(composed.images)
        made = []
        for start in bar(range(0, n, self.chunk), label="gallery", shown=progress):
            rows = np.arange(start, min(start + self.chunk, n))
            with self.fabric.autocast():
                made.append(model.encode_target(found(rows).to(self.fabric.device)).float().cpu())
        return torch.cat(made)

    def vectors(self, composed: Composed, progress: bool = False) -> Vectors:
        """What the set's ranks are computed from."""
        gallery, found = self.gallery(composed, progress), self.features(composed, progress)
        text, made = self.wordpiece.encode(composed.texts), []
        for start in range(0, len(composed), self.chunk):
            rows = slice(start, start + self.chunk)
            part = Encoded(text.ids[rows], text.mask[rows], text.cut[rows])
            made.append(self.queries(found(composed.reference[rows]), part))
        return Vectors(torch.cat(made), gallery)

    def __str__(self) -> str:
        learns = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        e = self.encoder
        return (f"SPRC on {e.name} ({e.weights}), {e.tokens} tokens of {e.width}: {learns:,} "
                f"parameters learn; {len(self.wordpiece):,} word pieces\n{self.fabric.device}, "
                f"{training.precision_of(self.fabric)}")


def trimmed(ids: Int64[Tensor, "b t"], mask: Int64[Tensor, "b t"]
            ) -> tuple[Int64[Tensor, "b s"], Int64[Tensor, "b s"]]:
    """Without the columns that are padding in every row: no text token looks at padding."""
    longest = max(1, int(mask.sum(1).max()))
    return ids[:, :longest], mask[:, :longest]
