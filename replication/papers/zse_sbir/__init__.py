"""ZSE-SBIR: sketch and photo are matched token by token, and the matches make the score.

Paper: Lin et al., Zero-Shot Everything Sketch-Based Image Retrieval, and in Explainable Style,
CVPR 2023 (arXiv 2303.14348). The defaults follow the authors' code buptLinfy/ZSE-SBIR.
Verified: tokens, relation scores, losses and gradient norms against values computed with that
code (tests/golden). Not verified: the published numbers, which need ImageNet weights and the data
sets; token selection, which the released code switches off.
"""

from replication.papers.zse_sbir.checkpoint import UNUSED, load_official
from replication.papers.zse_sbir.config import CHOICES, SWITCHES, Config
from replication.papers.zse_sbir.experiment import (
    Pairs,
    build,
    first_batch,
    gallery_of,
    measure,
    measure_selected,
    nearest,
    prepare,
    query_tokens,
    rankings,
    shortlist_loss,
    subsampled,
    train,
)
from replication.papers.zse_sbir.explanation import (
    check_parts,
    correspondences,
    drawn_pairs,
    explain,
    read_parts,
    synthesis,
)
from replication.papers.zse_sbir.matching import pair_scores, plain_block, projected, score_block
from replication.papers.zse_sbir.networks import ZSE
from replication.papers.zse_sbir.objectives import loss_terms

__all__ = ["CHOICES", "SWITCHES", "UNUSED", "ZSE", "Config", "Pairs", "build", "check_parts",
           "correspondences", "drawn_pairs", "explain", "first_batch", "gallery_of",
           "load_official", "loss_terms", "measure", "measure_selected", "nearest", "pair_scores",
           "plain_block", "prepare", "projected", "query_tokens", "rankings", "read_parts",
           "score_block", "shortlist_loss", "subsampled", "synthesis", "train"]
