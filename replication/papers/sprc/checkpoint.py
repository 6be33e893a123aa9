"""The published weights that SPRC starts from or ends with, in the names of its own checkpoint."""

import re
from typing import NamedTuple

from torch import Tensor

from replication import backbones
from replication.papers.sprc.model import SPRC

IMAGE_ENCODER = ("visual_encoder.", "vision_model.")  # as LAVIS, as transformers call it
UNUSED = (*IMAGE_ENCODER, "Qformer.cls.",  # BERT's head for words: no loss of SPRC calls it
          "Qformer.bert.embeddings.position_ids")  # 0, 1, 2, ...
WORDS = "Qformer.bert.embeddings.word_embeddings.weight"
TWIN = "Qformer.cls.predictions.decoder.weight"  # the same tensor in the public code
_TRANSFORMERS = {"vision_model.post_layernorm": "ln_vision", "vision_projection": "vision_proj",
                 "text_projection": "text_proj", "embeddings": "Qformer.bert.embeddings",
                 "qformer.layernorm": "Qformer.bert.embeddings.LayerNorm",
                 "qformer.encoder": "Qformer.bert.encoder"}


class Loaded(NamedTuple):
    """What did not meet: keys of the file that were left (of UNUSED only), and parameters that are
    not in the file and keep their start."""

    left: list[str]
    new: list[str]


def own_name(key: str) -> str:
    """The name here of a tensor in transformers' BLIP-2 for retrieval; others stay."""
    for theirs, ours in _TRANSFORMERS.items():
        if key.startswith(f"{theirs}."):
            key = ours + key.removeprefix(theirs)
            return re.sub(r"attention\.attention\.", "attention.self.", key)
    return key


def tensors(checkpoint: dict, source: str = "the checkpoint") -> dict[str, Tensor]:
    """The state dict of a checkpoint, whatever it is kept under (a class's name, `model`,
    `state_dict`): the level that holds `query_tokens`. Raises WeightsError."""
    levels = [checkpoint]
    while levels:
        level = levels.pop(0)
        named = {k.removeprefix("module."): v for k, v in level.items() if isinstance(k, str)}
        if "query_tokens" in named:
            return named
        levels += [v for v in level.values() if isinstance(v, dict)]
    raise backbones.WeightsError(
        f"{source} holds no query_tokens, so it is no BLIP-2 of the first stage and no SPRC; its "
        f"first keys: {', '.join(map(str, list(checkpoint)[:6]))}")


def image_encoder(checkpoint: dict, source: str = "the checkpoint") -> dict[str, Tensor]:
    """The image encoder's tensors of a checkpoint, without their prefix, as they are stored; empty
    where it has none. Raises WeightsError."""
    state = tensors(checkpoint, source)
    return {k.removeprefix(prefix): v for prefix in IMAGE_ENCODER for k, v in state.items()
            if k.startswith(prefix) and own_name(k) == k}


def load_official(model: SPRC, checkpoint: dict, source: str = "the checkpoint") -> Loaded:
    """Loads SPRC's own checkpoint, LAVIS' BLIP-2 of the first stage, or transformers' BLIP-2 for
    retrieval, half precision turned to the model's.

    checkpoint: as `backbones.read_state` gives it. A BLIP-2 has no prompt_tokens, transformers' has
    no temp either: these are `new`. Raises WeightsError, before anything is changed, that names
    wrong shapes, missing and unknown keys, and another vocabulary.
    """
    stored = tensors(checkpoint, source)
    state = {own_name(k): v for k, v in stored.items()}
    if TWIN in state and WORDS in state:  # where they differ, loading in order ends with this one
        state[WORDS] = state.pop(TWIN)
    own, converted = model.state_dict(), any(k.startswith("qformer.") for k in stored)
    new = [k for k in ("prompt_tokens", "temp")[:1 + converted] if k not in state]
    _same_vocabulary(state, own, source)
    left = backbones.load_exactly(model, state | {k: own[k] for k in new}, source, UNUSED)
    return Loaded(left, new)


def _same_vocabulary(state: dict[str, Tensor], own: dict[str, Tensor], source: str) -> None:
    theirs, ours = (len(s[WORDS]) if WORDS in s else None for s in (state, own))
    if theirs not in (None, ours):
        raise backbones.WeightsError(
            f"{source} has a vocabulary of {theirs:,} words, the model one of {ours:,} "
            f"(vocab_size); BLIP-2's is bert-base-uncased's 30,522 and [DEC]: 30,523")
