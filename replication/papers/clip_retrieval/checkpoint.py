"""Checkpoints: the public code's, OpenAI's, this project's."""

from pathlib import Path

from torch import Tensor, nn

from replication import backbones, paths, training
from replication.papers.clip_retrieval.config import Config

# OpenAI's files say their sizes in three scalars that are no weights.
UNUSED = ("input_resolution", "context_length", "vocab_size")
FORCED = {"on": True, "off": False}


def load_official(model: nn.Module, state: dict[str, Tensor], source: str = "the checkpoint"
                  ) -> list[str]:
    """Loads the state dict of a CLIP as OpenAI and the public fine-tuning code name it, half
    precision turned to float32; returns the keys left out, of UNUSED only.

    Raises WeightsError, before anything is changed, that names wrong shapes (another
    vision_model), missing and unknown keys.
    """
    kept = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    return backbones.load_exactly(model, kept, source, unused=UNUSED)


def starting_point(config: Config) -> backbones.ClipBackbone:
    """The CLIP that a run starts from: `resume`, else `weights`. QuickGELU comes with the weights;
    a checkpoint to resume has it unless its own header says otherwise."""
    quick = FORCED.get(config.quick_gelu)
    if not config.resume:
        return backbones.clip(config.vision_model, config.weights, config.seed, quick_gelu=quick)
    if quick is None:
        quick = header_of(paths.user_path(config.resume)).get("quick_gelu", True)
    return backbones.clip(config.vision_model, config.resume, config.seed, quick_gelu=quick)


def header_of(file: Path) -> dict:
    """What a checkpoint of this project says of itself; empty for any other file."""
    try:
        return training.read_weights(file)[1] if file.suffix == ".safetensors" else {}
    except ValueError:
        return {}
