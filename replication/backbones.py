"""An official backbone and its Preprocess as a pair."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import open_clip
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from replication import paths
from replication.transforms import CLIP, Preprocess

# The demo's CLIP: open_clip's own class, sized so that two CPU cores train it in about a minute.
DOODLE_CLIP = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 128, "layers": 4,
                   "head_width": 32},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
OWN_CONFIGS = {"doodle-clip": DOODLE_CLIP}
DOODLE_WEIGHTS = paths.RESULT / "pretrain" / "clip.safetensors"

# Small instances of timm's classes for the demos: timm's name and what differs. The ResNet has one
# bottleneck a stage and a quarter of the width; the ViT a grid of 6 x 6 patches.
OWN_TIMM = {
    "doodle-resnet": ("resnet50", {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)}),
    "doodle-vit": ("vit_tiny_patch16_224", {"img_size": 48, "patch_size": 8, "embed_dim": 128,
                                            "depth": 3, "num_heads": 4, "mlp_ratio": 2,
                                            "fc_norm": False}),
}
DOODLE_TIMM_WEIGHTS = {name: paths.RESULT / "pretrain" / f"{name.split('-')[1]}.safetensors"
                       for name in OWN_TIMM}


class WeightsError(ValueError):
    """Weights that are absent, cannot be fetched or do not fit; the message says what to do."""


@dataclass(frozen=True)
class ClipBackbone:
    """A CLIP of open_clip with its tokenizer, its own Preprocess and where its weights are from."""

    name: str
    model: nn.Module
    tokenizer: object
    preprocess: Preprocess
    weights: str
    sha256: str


def clip(name: str = "ViT-B-32", weights: str = "openai", seed: int = 0) -> ClipBackbone:
    """A CLIP by its open_clip name (`ViT-B/32` is read as `ViT-B-32`) or `doodle-clip`.

    weights: an open_clip tag (`openai`, `laion2b_s34b_b79k`, ...), a local file (.safetensors,
    or .pt read with weights_only), `doodles` (made by book/pretrain/clip.ipynb) or `none` (random
    from `seed`). QuickGELU comes with `openai` weights, with `doodles`, with a `-quickgelu` name
    and with a file whose name holds `openai` or `quickgelu`. Raises WeightsError.
    """
    name = name.replace("/", "-").replace("@", "-").removesuffix("px")
    _check_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _create(name, weights)
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    preprocess = Preprocess(_side(model.visual.image_size), "crop", "bicubic", *CLIP)
    return ClipBackbone(name, model.float(), tokenizer, preprocess, weights, state_hash(model))


def _check_name(name: str) -> None:
    known = [*OWN_CONFIGS, *open_clip.list_models()]
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.5) or ["ViT-B-32"]
        raise WeightsError(f"open_clip knows no model {name!r}; nearest: {', '.join(near)}")


def _create(name: str, weights: str) -> nn.Module:
    if weights == "doodles":
        return _from_file(name, DOODLE_WEIGHTS, quick_gelu=True)
    if weights == "none":
        return _empty(name, quick_gelu=name in OWN_CONFIGS or name.endswith("quickgelu"))
    if Path(weights).suffix in (".safetensors", ".pt", ".pth", ".bin"):
        file = paths.user_path(weights)
        quick = any(word in f"{name} {file.name}".lower() for word in ("openai", "quickgelu"))
        return _from_file(name, file, quick_gelu=quick or name in OWN_CONFIGS)
    return _published(name, weights)


def _empty(name: str, quick_gelu: bool) -> nn.Module:
    if name in OWN_CONFIGS:
        config = OWN_CONFIGS[name]
        return open_clip.CLIP(config["embed_dim"], open_clip.CLIPVisionCfg(**config["vision_cfg"]),
                              open_clip.CLIPTextCfg(**config["text_cfg"]), quick_gelu=quick_gelu)
    return open_clip.create_model(name, pretrained=None, force_quick_gelu=quick_gelu)


def _from_file(name: str, file: Path, quick_gelu: bool) -> nn.Module:
    if not file.exists():
        made = ("; it is made in about a minute by `python -m replication run pretrain/clip`"
                if file == DOODLE_WEIGHTS else "")
        raise WeightsError(f"no weights file {paths.shown(file)} (parameter weights){made}")
    state = read_state(file)
    model = _empty(name, quick_gelu)
    load_exactly(model, {k.removeprefix("module."): v for k, v in state.items()}, paths.shown(file))
    return model


def _published(name: str, tag: str) -> nn.Module:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise WeightsError(f"{name} has no published weights {tag!r}; it has: {', '.join(tags)}; "
                           "or give a local file, `none` for random weights")
    source = open_clip.get_pretrained_cfg(name, tag)
    try:
        return open_clip.create_model(name, pretrained=tag, force_quick_gelu=tag == "openai")
    except Exception as error:  # the hub client raises a dozen kinds
        hub = source.get("hf_hub", "").rstrip("/")
        where = f"open_clip_model.safetensors of {hub} on the Hugging Face hub" if hub else \
            source.get("url") or "see open_clip's PRETRAINED page"
        raise WeightsError(
            f"the weights {name} / {tag} could not be fetched ({type(error).__name__}). They are "
            f"published: {where}. Download the file where there is a network and pass its path "
            "with the parameter weights (for OpenAI's weights keep 'openai' in the file name: it "
            "switches QuickGELU on)") from error


@dataclass(frozen=True)
class TimmBackbone:
    """A model of timm and where its weights are from."""

    name: str
    model: nn.Module
    weights: str
    sha256: str


def timm_model(name: str, weights: str = "default", seed: int = 0, **options) -> TimmBackbone:
    """A model by its timm name (`resnet50`, `vgg16`, ...), `doodle-resnet` or `doodle-vit`.

    weights: `default` (the tag timm loads by itself), another tag (`ram_in1k`), a local file
    (.safetensors, or .pth read with weights_only), `doodles` (made by book/pretrain) or `none`
    (random from `seed`). The classifier is always new, from `seed`. options: timm's own, as
    num_classes and global_pool; img_size is passed on to models that are made for one size. Raises
    WeightsError.
    """
    base, own = OWN_TIMM.get(name, (name, {}))
    if not timm.is_model(base.split(".")[0]):
        known = [*OWN_TIMM, *timm.list_models()]
        near = difflib.get_close_matches(name, known, 3, 0.5) or ["resnet50", "vgg16"]
        raise WeightsError(f"timm knows no model {name!r}; nearest: {', '.join(near)}")
    if not timm.get_pretrained_cfg(base.split(".")[0]).fixed_input_size:
        options.pop("img_size", None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _create_timm(base, weights, name, own | options)
    return TimmBackbone(name, model.float(), weights, state_hash(model))


def _create_timm(base: str, weights: str, name: str, options: dict) -> nn.Module:
    file = DOODLE_TIMM_WEIGHTS.get(name) if weights == "doodles" else None
    if weights == "doodles" and file is None:
        raise WeightsError(f"weights='doodles' are for {', '.join(OWN_TIMM)}, not for {name}")
    if Path(weights).suffix in (".safetensors", ".pt", ".pth", ".bin"):
        file = paths.user_path(weights)
    if file is None and weights != "none":
        return _published_timm(base, weights, options)
    try:
        model = timm.create_model(base, pretrained=False, **options)
    except (TypeError, AssertionError, ValueError) as error:
        raise WeightsError(f"timm's {name} cannot be made with {options}: {error}") from error
    if file is not None:
        _load_but_classifier(model, file)
    return model


def _load_but_classifier(model: nn.Module, file: Path) -> None:
    """Every tensor of `file` but the classifier's, which is another task's."""
    if not file.exists():
        made = (f"; it is made in half a minute by `python -m replication run pretrain/{file.stem}`"
                if file in DOODLE_TIMM_WEIGHTS.values() else "")
        raise WeightsError(f"no weights file {paths.shown(file)} (parameter weights){made}")
    state, own = read_state(file), model.state_dict()
    classifier = model.default_cfg.get("classifier", "classifier")
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    ours = {k: v for k, v in own.items() if k.startswith(tuple(f"{h}." for h in heads))}
    kept = {k: v for k, v in state.items() if not k.startswith(tuple(f"{h}." for h in heads))}
    load_exactly(model, kept | ours, paths.shown(file))


def _published_timm(base: str, tag: str, options: dict) -> nn.Module:
    tagged = base if tag == "default" or "." in base else f"{base}.{tag}"
    tags = timm.list_pretrained(f"{base.split('.')[0]}.*")
    if tagged not in [base, *tags]:
        raise WeightsError(f"{base} has no published weights {tag!r}; it has: "
                           f"{', '.join(t.split('.', 1)[1] for t in tags)}; or give a local file, "
                           "`none` for random weights")
    try:
        return timm.create_model(tagged, pretrained=True, **options)
    except Exception as error:  # the hub client raises a dozen kinds
        source = timm.get_pretrained_cfg(tagged)
        where = f"model.safetensors of {source.hf_hub_id} on the Hugging Face hub" \
            if source and source.hf_hub_id else "see timm's page of the model"
        raise WeightsError(
            f"the weights of {tagged} could not be fetched ({type(error).__name__}). They are "
            f"published: {where}. Download the file where there is a network and pass its path "
            "with the parameter weights; `none` starts from random ones") from error


def read_state(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint; nothing in the file is run. Raises WeightsError."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torn, of another kind, or asking to run code
        raise WeightsError(f"{paths.shown(file)} is not a whole checkpoint of tensors "
                           f"({str(error).splitlines()[0][:120]})") from error
    return state.get("state_dict", state) if isinstance(state, dict) else state


def load_exactly(model: nn.Module, state: dict[str, torch.Tensor], source: str,
                 unused: tuple[str, ...] = ()) -> list[str]:
    """Loads every tensor of `state` or says why not; returns the keys left out.

    unused: prefixes of keys that are known and left. Raises WeightsError that names missing,
    unknown and wrongly shaped keys, before anything is changed.
    """
    own = model.state_dict()
    left = [k for k in state if k not in own and k.startswith(unused or ("\0",))]
    problems = [f"{k}: file {tuple(state[k].shape)}, model {tuple(own[k].shape)}"
                for k in state if k in own and state[k].shape != own[k].shape]
    problems += [f"{k}: not in the file" for k in own if k not in state]
    problems += [f"{k}: not in the model" for k in state if k not in own and k not in left]
    if problems:
        raise WeightsError(f"{source} does not fit the model in {len(problems)} places: "
                           + "; ".join(problems[:6]) + ("; ..." if len(problems) > 6 else ""))
    model.load_state_dict({k: v for k, v in state.items() if k in own})
    return left


def state_hash(model: nn.Module) -> str:
    """SHA-256 over names and bytes of all tensors: what the weights are, not where they came from.
    """
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
                      if value.ndim else str(value.item()).encode())
    return digest.hexdigest()


def _side(image_size: int | tuple[int, int]) -> int:
    return image_size if isinstance(image_size, int) else image_size[0]
