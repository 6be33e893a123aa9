"""SPRC: composed image retrieval with sentence-level prompts.

Paper: Bai et al., Sentence-level Prompts Benefit Composed Image Retrieval, ICLR 2024
(arXiv 2310.05473). The defaults follow the authors' code chunmeifeng/SPRC.
Verified: features, similarities, losses and gradient norms against values computed with that code
on given image features (tests/golden). Not verified: the image encoder's published weights; the
published numbers, which need those and the data sets.
"""

from replication.papers.sprc.checkpoint import UNUSED, Loaded, load_official
from replication.papers.sprc.config import (
    BACKBONES,
    CHOICES,
    SWITCH_METRICS,
    SWITCHES,
    Config,
    Evaluate,
    Retrieve,
    Submit,
)
from replication.papers.sprc.encoders import ImageEncoder, image_encoder
from replication.papers.sprc.experiment import Experiment, Triplets, prepare, train
from replication.papers.sprc.measuring import (
    Opened,
    Results,
    chance,
    encoded,
    evaluate,
    evaluation_record,
    measure,
    measure_selected,
    opened,
    record,
)
from replication.papers.sprc.model import SPRC, Features, similarity
from replication.papers.sprc.objectives import CIRR, FASHION_IQ, loss_terms
from replication.papers.sprc.pretraining import (
    Pretraining,
    caption_recall,
    ensure_qformer,
    pretrain,
)
from replication.papers.sprc.qformer import QFormer, QFormerConfig
from replication.papers.sprc.querying import (
    answers,
    asked_otherwise,
    drawn_row,
    examples,
    opened_set,
    query_of,
    query_vector,
    server_record,
    submit,
)
from replication.papers.sprc.retriever import Retriever, Vectors
from replication.papers.sprc.seeds import run_seeds

__all__ = ["BACKBONES", "CHOICES", "CIRR", "Config", "Evaluate", "Experiment", "FASHION_IQ",
           "Features", "ImageEncoder", "Loaded", "Opened", "Pretraining", "QFormer",
           "QFormerConfig", "Results", "Retrieve", "Retriever", "SPRC", "SWITCHES",
           "SWITCH_METRICS", "Submit", "Triplets", "UNUSED", "Vectors", "answers",
           "asked_otherwise", "caption_recall", "chance", "drawn_row", "encoded", "ensure_qformer",
           "evaluate", "evaluation_record", "examples", "image_encoder", "load_official",
           "loss_terms", "measure", "measure_selected", "opened", "opened_set", "prepare",
           "pretrain", "query_of", "query_vector", "record", "run_seeds", "server_record",
           "similarity", "submit", "train"]
