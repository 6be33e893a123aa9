"""ZSE-SBIR's two losses."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MATCH, NO_MATCH = 0.99, 0.01  # the relation network's targets


def loss_terms(cls: Float[Tensor, "4*b d"], relation: Float[Tensor, "2*b 1"], *,
               margin: float = 1.0, triplet_weight: float = 2.0, relation_weight: float = 4.0
               ) -> dict[str, Tensor]:
    """Weighted triplet and relation terms, and their sum `loss`.

    cls: class tokens after cross-attention of b sketches, b more sketches of the same classes,
    b photos of the first sketches' classes, b photos of others. relation: scores of the pairs
    (sketch, its photo), then (second sketch, other photo). The distance is Euclidean.
    """
    sketch, _, photo, other = cls.float().chunk(4)
    target = torch.full_like(relation, NO_MATCH)
    target[:len(sketch)] = MATCH
    terms = {"triplet": triplet_weight * F.triplet_margin_loss(sketch, photo, other, margin),
             "relation": relation_weight * F.mse_loss(relation.float(), target.float())}
    return {"loss": sum(terms.values()), **terms}
