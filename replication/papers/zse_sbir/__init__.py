"""ZSE-SBIR: sketch and photo are matched token by token, and the matches make the score.

Paper: Lin et al., Zero-Shot Everything Sketch-Based Image Retrieval, and in Explainable Style,
CVPR 2023 (arXiv 2303.14348). The defaults follow the authors' code buptLinfy/ZSE-SBIR.
Verified: tokens, relation scores, losses and gradient norms against values computed with that
code (tests/golden). Not verified: the published numbers, which need ImageNet weights and the data
sets; token selection, which the released code switches off.
"""

from replication.papers.zse_sbir.checkpoint import UNUSED, load_official
from replication.papers.zse_sbir.matching import pair_scores, plain_block, projected, score_block
from replication.papers.zse_sbir.networks import ZSE
from replication.papers.zse_sbir.objectives import loss_terms

__all__ = ["UNUSED", "ZSE", "load_official", "loss_terms", "pair_scores", "plain_block",
           "projected", "score_block"]
