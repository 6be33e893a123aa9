"""The published checkpoint of ZSE-SBIR, in this project's names."""

import re

from torch import Tensor

from replication import backbones
from replication.papers.zse_sbir.networks import ZSE

UNUSED = ("ca.encoder.layers.",)  # in the checkpoint, never called by the released code
_TOWER = {"pos_embedding": "pos_embed", "cls": "cls_token",
          "embedding.weight": "patch_embed.proj.weight",
          "embedding.bias": "patch_embed.proj.bias",
          "transformer.encoder_norm.weight": "norm.weight",
          "transformer.encoder_norm.bias": "norm.bias"}
_BLOCK = {"layer_norm_input": "norm1", "layer_norm_out": "norm2", "attention.to_qkv": "attn.qkv",
          "attention.to_out.0": "attn.proj", "mlp.net.0": "mlp.fc1", "mlp.net.3": "mlp.fc2"}


def own_name(key: str) -> str:
    """The name that a tensor of the published checkpoint has here."""
    if not key.startswith("sa.model."):
        return key
    key = key.removeprefix("sa.model.")
    if key.startswith("scale.seq."):
        return f"sa.vit.patch_embed.stack.{key.removeprefix('scale.seq.')}"
    block = re.fullmatch(r"transformer\.layers\.(\d+)\.0\.(.+)\.(weight|bias)", key)
    if block and block[2] in _BLOCK:
        return f"sa.vit.blocks.{block[1]}.{_BLOCK[block[2]]}.{block[3]}"
    return f"sa.vit.{_TOWER.get(key, key)}"


def load_official(model: ZSE, state: dict[str, Tensor], source: str = "the checkpoint"
                  ) -> list[str]:
    """Loads the published state dict; returns the keys left out, all of layers that the released
    code never calls (UNUSED).

    Raises WeightsError, before anything is changed, that names wrong shapes, missing and unknown
    keys.
    """
    named = {own_name(k.removeprefix("module.")): v.float() for k, v in state.items()}
    return backbones.load_exactly(model, named, source, unused=UNUSED)
