"""Checkpoints: the public code's, OpenAI's, this project's."""

from torch import Tensor, nn

from replication import backbones, paths
from replication.papers.clip_retrieval.config import Config

UNUSED = backbones.OPENAI_EXTRA  # OpenAI's files say their sizes in three numbers, no weights
FORCED = {"on": True, "off": False}


def load_official(model: nn.Module, state: dict[str, Tensor], source: str = "the checkpoint"
                  ) -> list[str]:
    """Loads the state dict of a CLIP as OpenAI and the public fine-tuning code name it, half
    precision turned to float32; returns the keys left out, of UNUSED only.

    Raises WeightsError, before anything is changed, that names wrong shapes (another
    vision_model), missing and unknown keys.
    """
    return backbones.load_clip(model, state, source)


def starting_point(config: Config) -> backbones.ClipBackbone:
    """The CLIP that a run starts from: `resume`, else `weights`. QuickGELU comes with the weights;
    a checkpoint of the public code, which says nothing, was made from OpenAI's, so it has it."""
    quick, source = FORCED.get(config.quick_gelu), config.resume or config.weights
    if config.resume and quick is None:
        quick = backbones.about_of(paths.user_path(config.resume)).get("quick_gelu", True)
    return backbones.clip(config.vision_model, source, config.seed, quick_gelu=quick)
