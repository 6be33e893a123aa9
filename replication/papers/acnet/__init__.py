"""ACNet: sketches become photo-like images before they are embedded, learned jointly.

Paper: Ren et al., ACNet: Approaching-and-Centralizing Network for Zero-Shot Sketch-Based Image
Retrieval, IEEE TCSVT 33(9), 2023 (arXiv 2111.12757). The defaults follow the authors' code
leftthomas/ACNet; where it parts from the paper, a field of Config switches.
Verified: generated images, embeddings and every loss term against values computed with that code,
for both backbones (tests/golden). Not verified: the published numbers, which need ImageNet weights
and the data sets; the definitions of the paper's ablation losses, which no code shows.
"""

from replication.papers.acnet.config import ABLATIONS, CHOICES, SWITCHES, Config
from replication.papers.acnet.experiment import (
    build,
    first_batch,
    gallery_of,
    load_official,
    optimizers,
    prepare,
    read_official,
    synthesised,
    train,
    with_photos,
)
from replication.papers.acnet.film import Film
from replication.papers.acnet.networks import ACNet, Discriminator, Extractor, Generator
from replication.papers.acnet.objectives import discriminator_loss, loss_terms

__all__ = ["ABLATIONS", "CHOICES", "SWITCHES", "ACNet", "Config", "Discriminator", "Extractor",
           "Film", "Generator", "build", "discriminator_loss", "first_batch", "gallery_of",
           "load_official", "loss_terms", "optimizers", "prepare", "read_official", "synthesised",
           "train", "with_photos"]
