"""The frozen image encoders that SPRC starts from: every token of an image tower, without its norm.

Papers: Li et al., BLIP-2, ICML 2023 (arXiv 2301.12597), section 3; Fang et al., EVA, CVPR 2023
(arXiv 2211.07636). The towers are timm's Eva and open_clip's VisionTransformer. Verified: names,
shapes and outputs of small instances against transformers' BLIP-2 where that is installed (tests).
Not verified: values with published weights, half precision on CUDA, and that LAVIS' image tower
of ViT-L holds the tensors of OpenAI's CLIP.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from jaxtyping import Float
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.models.eva import Eva
from torch import Tensor, nn

from replication import backbones, paths
from replication.backbones import WeightsError
from replication.papers.sprc import checkpoint
from replication.transforms import CLIP, Preprocess

EVA_G = {"img_size": 224, "patch_size": 14, "embed_dim": 1408, "depth": 39, "num_heads": 16,
         "mlp_ratio": 6144 / 1408}
CLIP_L = {"image_size": 224, "patch_size": 14, "width": 1024, "layers": 23, "heads": 16,
          "mlp_ratio": 4.0}  # CLIP's 24 layers less the last one
DEFAULT = {"eva-g": "Salesforce/blip2-itm-vit-g", "clip-L": "openai", "doodle-clip": "doodles"}
RESIZE = {"targetpad": "targetpad", "squarepad": "squarepad", "clip": "shortest"}
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".json")
INDEX = "model.safetensors.index.json"
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


# ----------------------------------------------------------------------------------- the files


def read(weights: str, name: str) -> tuple[dict[str, Tensor], str]:
    """The image tower's tensors, without a prefix, and what to call their place in messages.

    weights: a local file or folder, or a repository's name on the Hugging Face hub. Raises
    WeightsError."""
    place = paths.user_path(weights)
    if not place.exists():
        if place.suffix in SUFFIXES or not re.fullmatch(r"[\w.-]+/[\w.-]+", weights):
            raise WeightsError(f"no file or folder {paths.shown(place)} (parameter weights). "
                               f"{name}: give one, `default` ({DEFAULT[name]}) or `none`")
        place = _fetched(weights, name)
    file = _file_in(place) if place.is_dir() else place
    source = paths.shown(file)
    state = _sharded(file) if file.suffix == ".json" else backbones.read_state(file)
    return _image_tower(state, source, name), source


def _fetched(repository: str, name: str) -> Path:
    try:
        return Path(snapshot_download(repository, allow_patterns=["*.safetensors", INDEX]))
    except Exception as error:  # the hub client raises a dozen kinds
        raise WeightsError(
            f"the weights {repository} of {name} could not be fetched ({type(error).__name__}). "
            f"They are published: model.safetensors, or {INDEX} and all files that it names, of "
            f"{repository} on the Hugging Face hub. Download them where there is a network and "
            "pass the file or its folder with the parameter weights") from error


def _file_in(folder: Path) -> Path:
    """The index of shards, the whole file, or the only checkpoint of a folder."""
    found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES[:-1])
    for known in (INDEX, "model.safetensors"):
        if (folder / known).is_file():
            return folder / known
    if len(found) == 1:
        return found[0]
    there = ", ".join(p.name for p in found[:6]) or "none"
    raise WeightsError(f"{paths.shown(folder)} holds neither {INDEX} nor model.safetensors nor a "
                       f"single checkpoint (there: {there}): pass one file with the parameter "
                       "weights")


def _sharded(index: Path) -> dict[str, Tensor]:
    """The tensors that an index names, from the files beside it."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{paths.shown(index)} is not an index of shards: it has no weight_map "
                           f"of tensors and files ({type(error).__name__})") from error
    if missing := [s for s in shards if not (index.parent / s).is_file()]:
        raise WeightsError(f"{paths.shown(index)} names {len(shards)} files, of which "
                           f"{', '.join(missing)} are not beside it: download them too")
    state = {}
    for shard in shards:
        state |= backbones.read_state(index.parent / shard)
    if absent := [key for key in places if key not in state]:
        raise WeightsError(f"{paths.shown(index)} names {len(absent)} tensors that its files do "
                           f"not hold: {', '.join(absent[:6])}; download them again")
    return state


def _image_tower(state: dict, source: str, name: str) -> dict[str, Tensor]:
    """The image tower of a whole checkpoint, or of a file that holds it alone or in a CLIP."""
    if not isinstance(state, dict):
        raise WeightsError(f"{source} is not a state dict but a {type(state).__name__}")
    if any(key in state for key in ALONE):
        clips = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
        return clips or state
    if tower := checkpoint.image_encoder(state, source):
        return tower
    raise WeightsError(
        f"{source} holds a Q-Former but no image encoder; LAVIS publishes that as a file by itself "
        f"({'eva_vit_g.pth' if name == 'eva-g' else 'clip_vit_L.pth'}), transformers inside "
        f"{DEFAULT['eva-g']}: pass one of those as the image encoder's weights")
