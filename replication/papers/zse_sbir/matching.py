"""Relation scores of many sketches against many photos: what needs one picture alone is computed
once a picture, only what needs both is computed for each pair.

Of a pair's plain cost the six projections into queries, keys and values are 38 %; the attention,
its output projection, the feed-forward, the anchors and the relation network remain.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from replication.papers.zse_sbir.networks import ZSE, CrossLayer


@dataclass(frozen=True)
class Projected:
    """One domain's pictures: tokens, and for the first layer the query and value of their own
    attention and the key that the other domain's queries meet."""

    tokens: Float[Tensor, "b t d"]
    query: Float[Tensor, "b h t e"]
    value: Float[Tensor, "b h t e"]
    key: Float[Tensor, "b h t e"]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows) -> "Projected":
        return Projected(self.tokens[rows], self.query[rows], self.value[rows], self.key[rows])

    def repeated(self, n: int) -> "Projected":
        """One picture beside itself `n` times, without a copy."""
        return Projected(*(x.expand(n, *x.shape[1:]) for x in
                           (self.tokens, self.query, self.value, self.key)))


def projected(model: ZSE, tokens: Float[Tensor, "b t d"], domain: str) -> Projected:
    """The first layer's projections of sketches or photos, from the tower's tokens."""
    layers = model.ca.encoder.layer1[0], model.ca.encoder.layer2[0]
    return _projected(*(layers if domain == "sketch" else reversed(layers)), tokens)


def _projected(own: CrossLayer, other: CrossLayer, tokens: Tensor) -> Projected:
    return Projected(tokens, own.project(0, tokens), own.project(2, tokens),
                     other.project(1, tokens))


def pair_scores(model: ZSE, sketch: Projected, photo: Projected) -> Float[Tensor, " b"]:
    """Relation scores of pairs in order: the i-th sketch with the i-th photo."""
    layers = list(zip(model.ca.encoder.layer1, model.ca.encoder.layer2, strict=True))
    for (of_sketch, of_photo), after in pairwise(layers):  # these start from what the pair made
        a, b = (of_sketch(sketch.query, photo.key, sketch.value, sketch.tokens),
                of_photo(photo.query, sketch.key, photo.value, photo.tokens))
        sketch, photo = _projected(*after, a), _projected(*reversed(after), b)
    of_sketch, of_photo = layers[-1]  # the class tokens are not compared: no query for them
    a = of_sketch(sketch.query[:, :, 1:], photo.key, sketch.value, sketch.tokens[:, 1:])
    b = of_photo(photo.query[:, :, 1:], sketch.key, photo.value, photo.tokens[:, 1:])
    return model.rn(model.anchors(a), model.anchors(b)).flatten()


@torch.inference_mode()
def score_block(model: ZSE, sketch: Projected, photo: Projected, pairs: int = 64
                ) -> Float[Tensor, "s p"]:
    """Every sketch against every photo, float32; `pairs` bounds the memory in use at once."""
    rows = []
    for i in range(len(sketch)):
        one, row = sketch[i:i + 1], []
        for start in range(0, len(photo), pairs):
            some = photo[start:start + pairs]
            row.append(pair_scores(model, one.repeated(len(some)), some).float())
        rows.append(torch.cat(row))
    return torch.stack(rows)


@torch.inference_mode()
def plain_block(model: ZSE, sketch: Float[Tensor, "s t d"], photo: Float[Tensor, "p t d"],
                pairs: int = 64) -> Float[Tensor, "s p"]:
    """The slow twin: both pictures' tokens pass the whole cross-attention for every pair."""
    rows = []
    for one in sketch:
        row = []
        for some in photo.split(pairs):
            a, b = model.ca(one.expand(len(some), -1, -1), some)
            row.append(model.rn(model.anchors(a[:, 1:]), model.anchors(b[:, 1:])).flatten().float())
        rows.append(torch.cat(row))
    return torch.stack(rows)
