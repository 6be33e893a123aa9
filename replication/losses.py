"""Losses that more than one paper uses, and those of metric learning: pure functions."""

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


def normalised_softmax(embeddings: Float[Tensor, "b d"], labels: Int64[Tensor, " b"],
                       proxies: Float[Tensor, "d c"], temperature: float) -> Float[Tensor, ""]:
    """-log softmax_y(cos(z, w_c) / temperature), a learned proxy w_c a class, a column each.

    Source: Zhai and Wu, Classification is a Strong Baseline for Deep Metric Learning, eq. 3.
    """
    return F.cross_entropy(class_logits(embeddings, proxies.T, 1 / temperature), labels)


def proxy_anchor(embeddings: Float[Tensor, "b d"], labels: Int64[Tensor, " b"],
                 proxies: Float[Tensor, "d c"], margin: float = 0.1, alpha: float = 32.0
                 ) -> Float[Tensor, ""]:
    """mean over the proxies present of log(1 + sum exp(-alpha (cos - margin))) over their own
    embeddings, plus mean over all proxies of log(1 + sum exp(alpha (cos + margin))) over the rest.

    Source: Kim et al., Proxy Anchor Loss for Deep Metric Learning (arXiv 2003.13911), eq. 4.
    """
    cosine = class_logits(embeddings, proxies.T, 1.0)  # (b, c)
    own = F.one_hot(labels, proxies.shape[1]).bool()
    zero = cosine.new_zeros(1, proxies.shape[1])  # the 1 inside the logarithm

    def pulled(terms: Tensor, chosen: Tensor) -> Tensor:
        kept = terms.masked_fill(~chosen, float("-inf"))
        return torch.logsumexp(torch.cat([zero, kept]), dim=0)

    present = own.any(0)
    positive = pulled(-alpha * (cosine - margin), own)[present].mean()
    return positive + pulled(alpha * (cosine + margin), ~own).mean()


def margin_pairs(embeddings: Float[Tensor, "b d"], labels: Int64[Tensor, " b"],
                 margin: float = 0.2, boundary: float = 1.2) -> Float[Tensor, ""]:
    """Of two of one class max(0, margin + distance - boundary), of two of different ones
    max(0, margin - distance + boundary); each kind's mean over its pairs that are not yet right,
    added. Distance between unit vectors.

    Source: Wu et al., Sampling Matters in Deep Embedding Learning (arXiv 1706.07567), eq. 4. There
    pairs are sampled, as many of one kind as of the other; here two means weigh them alike.
    """
    distance, same = _distances(embeddings), labels[:, None] == labels
    pairs = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    together = _mean_of_active(F.relu(margin + distance - boundary)[same & pairs])
    return together + _mean_of_active(F.relu(margin - distance + boundary)[~same])


def batch_triplets(embeddings: Float[Tensor, "b d"], labels: Int64[Tensor, " b"],
                   margin: float = 0.3) -> Float[Tensor, ""]:
    """mean over the batch's triplets that are not yet right of max(0, margin + d(a, p) - d(a, n));
    distance between unit vectors. Every triplet of the batch counts (no mining)."""
    distance, same = _distances(embeddings), labels[:, None] == labels
    other = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    anchor, positive = (same & other).nonzero(as_tuple=True)
    gap = margin + distance[anchor, positive][:, None] - distance[anchor]  # (pairs, b)
    return _mean_of_active(F.relu(gap)[~same[anchor]])


def _distances(embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b b"]:
    unit = F.normalize(embeddings, dim=-1)
    return (2 - 2 * unit @ unit.T).clamp_min(1e-8).sqrt()  # the root's gradient at 0 is infinite


def _mean_of_active(terms: Tensor) -> Float[Tensor, ""]:
    return terms.sum() / (terms > 0).sum().clamp_min(1)
