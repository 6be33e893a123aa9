"""SPRC: composed image retrieval with sentence-level prompts.

Paper: Bai et al., Sentence-level Prompts Benefit Composed Image Retrieval, ICLR 2024
(arXiv 2310.05473). The defaults follow the authors' code chunmeifeng/SPRC.
Verified: features, similarities, losses and gradient norms against values computed with that code
on given image features (tests/golden). Not verified: the image encoder, which is outside; the
published numbers, which need its weights and the data sets.
"""

from replication.papers.sprc.checkpoint import UNUSED, Loaded, image_encoder, load_official
from replication.papers.sprc.model import SPRC, Features, similarity
from replication.papers.sprc.objectives import CIRR, FASHION_IQ, loss_terms
from replication.papers.sprc.qformer import QFormer, QFormerConfig

__all__ = ["CIRR", "FASHION_IQ", "SPRC", "UNUSED", "Features", "Loaded", "QFormer",
           "QFormerConfig", "image_encoder", "load_official", "loss_terms", "similarity"]
