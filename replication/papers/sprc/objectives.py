"""SPRC's losses. The paper names two, the released code has three."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from replication.papers.sprc.model import Features, similarity

CIRR = {"rtc_weight": 0.4, "align_weight": 0.4}  # 0.6 and 0.6 in earlier commits
FASHION_IQ = {"rtc_weight": 1.0, "align_weight": 1.0}


def contrastive(query: Float[Tensor, "b e"], target: Float[Tensor, "b q e"],
                temp: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Cross-entropy over the batch of similarity / temp, from query to target only."""
    logits = similarity(query, target) / temp
    return F.cross_entropy(logits, torch.arange(len(query), device=query.device))


def alignment(prompt: Float[Tensor, "b q d"], prompt_tokens: Float[Tensor, "1 q d"]
              ) -> Float[Tensor, ""]:
    """Mean squared error between the means over q of sentence-level and of learned prompts; no
    gradient into the learned ones."""
    mean, wanted = prompt.float().mean(1), prompt_tokens.detach().float().mean(1)
    return F.mse_loss(mean, wanted.expand_as(mean))


def loss_terms(features: Features, prompt_tokens: Float[Tensor, "1 q d"], temp: Float[Tensor, ""],
               *, itc_weight: float = 1.0, rtc_weight: float = 0.4, align_weight: float = 0.4
               ) -> dict[str, Tensor]:
    """itc, rtc and align, and their weighted sum `loss`; the default weights are CIRR's."""
    terms = {"itc": contrastive(features.query, features.target, temp),
             "rtc": contrastive(features.prompted, features.target, temp),
             "align": alignment(features.prompt, prompt_tokens)}
    weights = {"itc": itc_weight, "rtc": rtc_weight, "align": align_weight}
    return {"loss": sum(weights[k] * v for k, v in terms.items()), **terms}
