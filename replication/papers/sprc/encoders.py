"""The frozen image encoders that SPRC starts from: every token of an image tower, without its norm.

Papers: Li et al., BLIP-2, ICML 2023 (arXiv 2301.12597), section 3; Fang et al., EVA, CVPR 2023
(arXiv 2211.07636). The towers are timm's Eva and open_clip's VisionTransformer. Verified: names,
shapes and outputs of small instances against transformers' BLIP-2 where that is installed (tests).
Not verified: values with published weights, half precision on CUDA, and that LAVIS' image tower
of ViT-L holds the tensors of OpenAI's CLIP.
"""

import re
from dataclasses import dataclass

import torch
from jaxtyping import Float
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.models.eva import Eva
from torch import Tensor, nn

from replication import backbones
from replication.backbones import WeightsError
from replication.papers.sprc import checkpoint, files
from replication.transforms import CLIP, Preprocess

EVA_G = {"img_size": 224, "patch_size": 14, "embed_dim": 1408, "depth": 39, "num_heads": 16,
         "mlp_ratio": 6144 / 1408}
CLIP_L = {"image_size": 224, "patch_size": 14, "width": 1024, "layers": 23, "heads": 16,
          "mlp_ratio": 4.0}  # CLIP's 24 layers less the last one
DEFAULT = {"eva-g": "Salesforce/blip2-itm-vit-g", "clip-L": "openai", "doodle-clip": "doodles"}
RESIZE = {"targetpad": "targetpad", "squarepad": "squarepad", "clip": "shortest"}
# What files of an image tower alone may hold beside it: the norm, the layer, the head behind it.
BEHIND = {"eva-g": ("norm.", "fc_norm.", "head.", "post_layernorm.", f"blocks.{EVA_G['depth']}."),
          "clip-L": ("ln_post.", "proj", f"transformer.resblocks.{CLIP_L['layers']}.")}
ALONE = ("cls_token", "class_embedding", "visual.class_embedding", "embeddings.class_embedding")
_TRANSFORMERS = [(r"^embeddings\.class_embedding$", "cls_token"),
                 (r"^embeddings\.position_embedding$", "pos_embed"),
                 (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
                 (r"^encoder\.layers\.(\d+)\.", r"blocks.\1."),
                 (r"\.layer_norm([12])\.", r".norm\1."),
                 (r"\.self_attn\.projection\.", ".attn.proj."), (r"\.self_attn\.", ".attn.")]


class Tokens(nn.Module):
    """An image tower, frozen: its class token, then the patches' in rows, as its last layer leaves
    them. On CUDA it computes in half precision (autocast: products in float16, norms in float32).
    """

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Tokens":
        """Stays as for inference: a frozen encoder has no training mode."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n w"]:
        """The tower's tokens, class token first; float16 on a GPU."""
        with torch.autocast("cuda", torch.float16, enabled=images.is_cuda):
            found = self.tower(images)
        if isinstance(found, tuple):  # open_clip's: class token, patches
            return torch.cat([found[0][:, None], found[1]], dim=1)
        return found


@dataclass(frozen=True)
class ImageEncoder:
    """A frozen image tower with its Preprocess and where its weights are from. width: of a token;
    tokens: of an image. sha256: of all tensors as float32, wherever they were read."""

    name: str
    model: Tokens
    preprocess: Preprocess
    width: int
    tokens: int
    weights: str
    sha256: str


def image_encoder(name: str = "eva-g", weights: str = "default", seed: int = 0, *,
                  transform: str = "targetpad", ratio: float = 1.25) -> ImageEncoder:
    """`eva-g` (EVA-CLIP's ViT-g/14 of BLIP-2: 1408 wide, 257 tokens at 224 px), `clip-L` (CLIP's
    ViT-L/14 less its last layer: 1024, 257) or `doodle-clip` (the demo's CLIP: 128, 17 at 64 px).

    weights: `default` (DEFAULT's); for eva-g and clip-L a local file or folder (.safetensors, an
    index of shards, .pth or .pt: SPRC's or LAVIS' checkpoint, transformers' BLIP-2, or the image
    tower alone) or a repository's name on the Hugging Face hub; for clip-L also `openai`; for
    doodle-clip what `backbones.clip` takes; `none` is random from `seed`. transform: `targetpad`
    with its `ratio`, `squarepad`, or `clip` (no padding). On the CPU, in float32: eva-g takes
    4 GB. Raises WeightsError, and ValueError for another transform.
    """
    if name not in DEFAULT:
        raise WeightsError(f"no image encoder {name!r}: choose {', '.join(DEFAULT)}")
    if transform not in RESIZE:
        raise ValueError(f"transform {transform!r}: choose {', '.join(RESIZE)}")
    weights = DEFAULT[name] if weights == "default" else weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower, width, patch, size = _TOWERS[name](weights, seed)
    rule = Preprocess(size, RESIZE[transform], "bicubic", *CLIP, ratio=ratio)
    return ImageEncoder(name, Tokens(tower.float()), rule, width, (size // patch) ** 2 + 1, weights,
                        backbones.state_hash(tower))


def _eva_g(weights: str, seed: int) -> tuple[nn.Module, int, int, int]:
    if weights == "none":
        tower = eva(**EVA_G)
    else:
        with torch.device("meta"):  # no time and no second 4 GB for a random start
            tower = eva(**EVA_G)
        load_eva(tower.to_empty(device="cpu"), *read(weights, "eva-g"), BEHIND["eva-g"])
    return tower, EVA_G["embed_dim"], EVA_G["patch_size"], EVA_G["img_size"]


def _clip_l(weights: str, seed: int) -> tuple[nn.Module, int, int, int]:
    tower = vit(**CLIP_L)
    if weights == "openai":
        whole = backbones.clip("ViT-L-14", weights).model.visual.state_dict()
        backbones.load_exactly(tower, whole, "OpenAI's ViT-L/14", BEHIND["clip-L"])
    elif weights != "none":
        backbones.load_exactly(tower, *read(weights, "clip-L"), BEHIND["clip-L"])
    return tower, CLIP_L["width"], CLIP_L["patch_size"], CLIP_L["image_size"]


def _doodle_clip(weights: str, seed: int) -> tuple[nn.Module, int, int, int]:
    """All layers; the final norm is left out as in the published encoders: ln_vision follows."""
    tower = _all_tokens(backbones.clip("doodle-clip", weights, seed).model.visual)
    return tower, tower.conv1.out_channels, tower.patch_size[0], tower.image_size[0]


_TOWERS = {"eva-g": _eva_g, "clip-L": _clip_l, "doodle-clip": _doodle_clip}


# ----------------------------------------------------------------------------------- the towers


def eva(**sizes) -> Eva:
    """A tower of EVA-CLIP, parameters named as in LAVIS: queries and values biased, keys not,
    learned positions, no norm behind the last layer."""
    return Eva(**sizes, num_classes=0, global_pool="", use_post_transformer_norm=False,
               use_fc_norm=False)


def vit(**sizes) -> VisionTransformer:
    """An image tower of OpenAI's CLIP, parameters named as there, without norm and projection."""
    return _all_tokens(VisionTransformer(**sizes, output_dim=1, act_layer=QuickGELU))


def _all_tokens(tower: VisionTransformer) -> VisionTransformer:
    tower.ln_post, tower.proj, tower.output_tokens = nn.Identity(), None, True
    return tower


def load_eva(tower: Eva, state: dict[str, Tensor], source: str,
             unused: tuple[str, ...] = ()) -> list[str]:
    """Loads a tower's tensors in LAVIS' or in transformers' names, half precision turned to the
    tower's; returns the keys left out (those of `unused`). Raises WeightsError."""
    left = backbones.load_exactly(tower, lavis_names(state), source, unused)
    for block in tower.blocks:  # k_bias, zero and in no file; garbage after to_empty
        block.attn.init_non_persistent_buffers()
    return left


def lavis_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of transformers' Blip2VisionModel in LAVIS' names; others stay.

    qkv.bias becomes q_bias and v_bias: the keys' part, which transformers fills with zeros, adds
    the same to all scores of a query, so it changes no attention, whatever it holds.
    """
    named = {}
    for key, value in state.items():
        for pattern, ours in _TRANSFORMERS:
            key = re.sub(pattern, ours, key)
        if key.endswith(".attn.qkv.bias"):
            stem = key.removesuffix("qkv.bias")
            named[f"{stem}q_bias"], _, named[f"{stem}v_bias"] = value.tensor_split(3)
        else:
            named[key] = value
    return named


def read(weights: str, name: str) -> tuple[dict[str, Tensor], str]:
    """The image tower's tensors, without a prefix, and what to call their place in messages;
    weights and errors as `files.read`."""
    state, source = files.read(weights, name)
    return _image_tower(state, source, name), source


def _image_tower(state: dict, source: str, name: str) -> dict[str, Tensor]:
    """The image tower of a whole checkpoint, or of a file that holds it alone or in a CLIP."""
    if any(key in state for key in ALONE):
        clips = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
        return clips or state
    if tower := checkpoint.image_encoder(state, source):
        return tower
    raise WeightsError(
        f"{source} holds a Q-Former but no image encoder; LAVIS publishes that as a file by itself "
        f"({'eva_vit_g.pth' if name == 'eva-g' else 'clip_vit_L.pth'}), transformers inside "
        f"{files.DEFAULT['eva-g']}: pass one of those with the parameter image_weights")
