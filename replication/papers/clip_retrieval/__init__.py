"""CLIP for image-text retrieval: nine models as they come, and fine-tuned on captions.

Paper: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML
2021 (arXiv 2103.00020). The zero-shot protocol and the fine-tuning are those of leolee99/CLIP_ITM;
where its code parts from its readme, a field of Config switches.
Verified: recall against reference values and a plain loop, preprocessing against open_clip's, the
two-process step against one. Not verified: the published numbers, which need the weights and data.
"""

from replication.papers.clip_retrieval.checkpoint import UNUSED, load_official, starting_point
from replication.papers.clip_retrieval.config import (
    CHOICES,
    MODELS,
    SWITCH_BASE,
    SWITCH_METRICS,
    SWITCHES,
    Config,
    Search,
    ZeroShot,
)
from replication.papers.clip_retrieval.encoding import Embedded, Encoder, tokens_of
from replication.papers.clip_retrieval.experiment import (
    Experiment,
    Pairs,
    prepare,
    rate_of,
    round_to_half,
    train,
)
from replication.papers.clip_retrieval.measuring import (
    TABLE,
    chance,
    measure,
    measure_selected,
    record,
    start_of,
    zero_shot,
    zero_shot_record,
)
from replication.papers.clip_retrieval.search import Index, examples, opened

__all__ = ["CHOICES", "MODELS", "SWITCHES", "SWITCH_BASE", "SWITCH_METRICS", "TABLE", "UNUSED",
           "Config", "Embedded", "Encoder", "Experiment", "Index", "Pairs", "Search", "ZeroShot",
           "chance", "examples", "load_official", "measure", "measure_selected", "opened",
           "prepare", "rate_of", "record", "round_to_half", "start_of", "starting_point",
           "tokens_of", "train", "zero_shot", "zero_shot_record"]
