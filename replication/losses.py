"""Losses that more than one paper uses: pure functions, the equation named."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


def cosine_distance(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """1 - cos(a, b), in 0..2."""
    return 1 - F.cosine_similarity(a, b)


def triplet(anchor: Float[Tensor, "b d"], positive: Float[Tensor, "b d"],
            negative: Float[Tensor, "b d"], margin: float, distance=cosine_distance
            ) -> Float[Tensor, ""]:
    """mean of max(0, margin + distance(anchor, positive) - distance(anchor, negative))."""
    return F.relu(margin + distance(anchor, positive) - distance(anchor, negative)).mean()


def class_logits(embeddings: Float[Tensor, "b d"], prototypes: Float[Tensor, "c d"],
                 scale: float | Tensor) -> Float[Tensor, "b c"]:
    """scale x cosine of every embedding with every class's prototype (a text feature, a proxy)."""
    return scale * F.normalize(embeddings, dim=-1) @ F.normalize(prototypes, dim=-1).T


def symmetric_contrastive(images: Float[Tensor, "b d"], texts: Float[Tensor, "b d"],
                          scale: Tensor, same: Int64[Tensor, " b"] | None = None
                          ) -> Float[Tensor, ""]:
    """CLIP's loss: cross-entropy over the batch, image to text and text to image, averaged.

    same: an item's group; pairs of one group that are not the pair itself leave the denominator.
    Source: CLIP (arXiv 2103.00020), figure 3.
    """
    logits = class_logits(images, texts, scale)
    target = torch.arange(len(images), device=images.device)
    if same is not None:
        twins = (same[:, None] == same[None, :]) & (target[:, None] != target[None, :])
        logits = logits.masked_fill(twins, float("-inf"))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
