"""An official backbone and its Preprocess as a pair."""

import difflib
import hashlib
import json
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import open_clip
import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from replication import paths
from replication.transforms import Preprocess

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

OPENAI_EXTRA = ("input_resolution", "context_length", "vocab_size")  # in OpenAI's state, unused
RESIZE = ("shortest", "squash")  # open_clip's rules that Preprocess has, equal to the byte


class WeightsError(ValueError):
    """Weights that are absent, cannot be fetched or do not fit; the message says what to do."""


@dataclass(frozen=True)
class ClipBackbone:
    """A CLIP of open_clip with its tokenizer, its own Preprocess and where its weights are from.

    quick_gelu: whether a tower of the model computes open_clip's QuickGELU.
    """

    name: str
    model: nn.Module
    tokenizer: object
    preprocess: Preprocess
    weights: str
    sha256: str
    quick_gelu: bool


def clip(name: str = "ViT-B-32", weights: str = "openai", seed: int = 0,
         quick_gelu: bool | None = None) -> ClipBackbone:
    """A CLIP by its open_clip name, by OpenAI's (`ViT-L/14@336px`), or `doodle-clip`.

    weights: an open_clip tag (`openai`, `laion2b_s34b_b79k`, ...), a local file (.safetensors,
    .pt read with weights_only, or the .pt that OpenAI publishes), `doodles` (made by
    book/pretrain/clip.ipynb) or `none` (random from `seed`). quick_gelu: the towers' activation;
    None takes that of the weights: QuickGELU with a tag of open_clip that says so (`openai`), with
    `doodles`, with a `-quickgelu` name, with OpenAI's own file and with a file whose name holds
    `openai` or `quickgelu`. Raises WeightsError.
    """
    name = clip_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _create(name, weights, quick_gelu)
    quick = any(isinstance(m, open_clip.transformer.QuickGELU) for m in model.modules())
    return ClipBackbone(name, model.float(), _tokenizer(name, model), _preprocess(name, model),
                        weights, state_hash(model), quick)


def clip_name(name: str) -> str:
    """open_clip's spelling of a name: `ViT-L/14@336px` and `ViT-L/14 (336px)` are ViT-L-14-336.
    Any case. Raises WeightsError that names the nearest."""
    plain = re.sub(r"\s*[/@(]\s*", "-", name.strip().lower()).removesuffix(")").removesuffix("px")
    known = {k.lower(): k for k in [*OWN_CONFIGS, *open_clip.list_models()]}
    if plain not in known:
        near = difflib.get_close_matches(plain, known, 3, 0.5) or ["vit-b-32"]
        raise WeightsError(f"open_clip knows no model {name!r}; nearest: "
                           + ", ".join(known[k] for k in near))
    return known[plain]


def _config(name: str) -> dict:
    return OWN_CONFIGS[name] if name in OWN_CONFIGS else open_clip.get_model_config(name)


def _tokenizer(name: str, model: nn.Module) -> object:
    hub = _config(name)["text_cfg"].get("hf_tokenizer_name")
    if not hub:
        return open_clip.SimpleTokenizer(context_length=model.context_length)
    try:
        return open_clip.get_tokenizer(name)
    except Exception as error:  # the hub client raises a dozen kinds
        lacks = "the package transformers (pip install transformers sentencepiece)" \
            if isinstance(error, ImportError) else f"the tokenizer's files of {hub} on the " \
            "Hugging Face hub, in its cache (HF_HOME): fetch them where there is a network"
        raise WeightsError(f"{name} reads text with the tokenizer {hub}, which could not be made "
                           f"({type(error).__name__}). Missing: {lacks}") from error


def _preprocess(name: str, model: nn.Module) -> Preprocess:
    """What open_clip notes at the model; CLIP's own where it notes nothing."""
    rule = asdict(open_clip.transform.PreprocessCfg()) | open_clip.get_model_preprocess_cfg(model)
    size = rule["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise WeightsError(f"{name} takes pictures of {height} x {width} pixels: only models for "
                           "square ones are supported")
    if rule["resize_mode"] not in RESIZE or rule["interpolation"] not in ("bilinear", "bicubic"):
        raise WeightsError(f"{name} resizes pictures by open_clip's rule {rule['resize_mode']!r}, "
                           f"{rule['interpolation']}; supported: {', '.join(RESIZE)}, bilinear or "
                           "bicubic")
    return Preprocess(height, rule["resize_mode"], rule["interpolation"], tuple(rule["mean"]),
                      tuple(rule["std"]))


def _create(name: str, weights: str, quick_gelu: bool | None = None) -> nn.Module:
    own = name in OWN_CONFIGS or _config(name).get("quick_gelu", False)
    if weights == "doodles":
        return _from_file(name, DOODLE_WEIGHTS, quick_gelu, quick_gelu=True)
    if weights == "none":
        return _empty(name, own if quick_gelu is None else quick_gelu)
    if Path(weights).suffix in (".safetensors", ".pt", ".pth", ".bin"):
        file = paths.user_path(weights)
        told = any(word in f"{name} {file.name}".lower() for word in ("openai", "quickgelu"))
        return _from_file(name, file, quick_gelu, quick_gelu=told or own)
    return _published(name, weights, quick_gelu)


def _empty(name: str, quick_gelu: bool) -> nn.Module:
    if name in OWN_CONFIGS:
        config = OWN_CONFIGS[name]
        return open_clip.CLIP(config["embed_dim"], open_clip.CLIPVisionCfg(**config["vision_cfg"]),
                              open_clip.CLIPTextCfg(**config["text_cfg"]), quick_gelu=quick_gelu)
    return open_clip.create_model(name, pretrained=None, quick_gelu=quick_gelu)


def _from_file(name: str, file: Path, forced: bool | None = None, *, quick_gelu: bool
               ) -> nn.Module:
    """The model with a file's tensors. quick_gelu: where neither `forced` nor the tensors tell."""
    if not file.exists():
        made = ("; it is made in about a minute by `python -m replication run pretrain/clip`"
                if file == DOODLE_WEIGHTS else "")
        raise WeightsError(f"no weights file {paths.shown(file)} (parameter weights){made}")
    archive = is_torchscript(file)
    state = _read_openai(file, name) if archive else read_state(file)
    openai = archive or (isinstance(state, dict) and OPENAI_EXTRA[0] in state)
    told = about_of(file).get("quick_gelu", quick_gelu or openai) if forced is None else forced
    model = _empty(name, told)
    load_clip(model, state, paths.shown(file))
    rule = open_clip.get_model_preprocess_cfg(model) | _shared_rule(name, file)
    open_clip.set_model_preprocess_cfg(model, asdict(open_clip.transform.PreprocessCfg()) | rule)
    return model


def about_of(file: Path) -> dict:
    """What a safetensors file of this project says of itself; empty for any other file."""
    if file.suffix != ".safetensors" or not file.exists():
        return {}
    try:
        with safe_open(file, "pt") as stored:
            found = json.loads((stored.metadata() or {}).get("about", "{}"))
            return found if isinstance(found, dict) else {}
    except (OSError, SafetensorError, ValueError):  # torn: reading its tensors will say so
        return {}


def load_own(model: nn.Module, file: Path, about: dict, notebook: str) -> None:
    """Loads a checkpoint that a run of this project wrote with `about` in its header.

    Raises FileNotFoundError that names the notebook which makes it, ValueError for a checkpoint of
    another run, WeightsError for tensors that do not fit.
    """
    if not file.exists():
        raise FileNotFoundError(f"no checkpoint {paths.shown(file)}: run {notebook} with the same "
                                "parameters first")
    found = about_of(file)
    if wrong := [f"{k} is {found.get(k)!r}, asked {v!r}" for k, v in about.items()
                 if found.get(k) != v]:
        raise ValueError(f"{paths.shown(file)} is of another run: {'; '.join(wrong)}")
    load_exactly(model, read_state(file), paths.shown(file))


def load_clip(model: nn.Module, state: dict[str, torch.Tensor], source: str) -> list[str]:
    """Loads a CLIP's state dict, of any float type and with or without DataParallel's `module.`,
    as float32; returns the keys left out (OpenAI's OPENAI_EXTRA). Raises WeightsError."""
    odd = [k for k, v in state.items() if not isinstance(v, torch.Tensor)] \
        if isinstance(state, dict) else [type(state).__name__]
    if odd:
        raise WeightsError(f"{source} is not a state dict, nor one under the key state_dict: "
                           f"{', '.join(map(str, odd[:6]))} are no tensors")
    named = {k.removeprefix("module."): v.float() if v.is_floating_point() else v
             for k, v in state.items()}
    return load_exactly(model, named, source, unused=OPENAI_EXTRA)


def _shared_rule(name: str, file: Path) -> dict:
    """What all published weights of `name` ask of a picture, or those whose tag is in the file's
    name; empty where they differ or there are none."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    told = [t for t in tags if t in file.name.lower().replace("-", "_")]
    rules = [{k: open_clip.get_pretrained_cfg(name, tag)[k]
              for k in ("mean", "std", "interpolation", "resize_mode")} for tag in told or tags]
    return rules[0] if rules and all(rule == rules[0] for rule in rules) else {}


def is_torchscript(file: Path) -> bool:
    """Whether a file is an archive of torch.jit.save: code and tensors. Nothing of it is run."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(n.split("/")[1:] == ["constants.pkl"] for n in archive.namelist())


def openai_hashes() -> set[str]:
    """SHA-256 of the nine files that OpenAI publishes; each is a part of its file's address."""
    names = open_clip.list_pretrained_models_by_tag("openai")
    return {open_clip.get_pretrained_cfg(n, "openai")["url"].split("/")[-2] for n in names}


def _read_openai(file: Path, name: str) -> dict[str, torch.Tensor]:
    """Tensors of a TorchScript archive, opened only where it is OpenAI's own file."""
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 not in openai_hashes():
        where = _address(open_clip.get_pretrained_cfg(name, "openai"))
        raise WeightsError(
            f"{paths.shown(file)} is a TorchScript archive, which holds code; it is opened only "
            f"where it is OpenAI's own file, and its SHA-256 {sha256} is none of those. "
            + (f"Use {where}, or, where" if where else "Where") + " you trust the file, convert "
            "it: torch.save(torch.jit.load(file).state_dict(), another)")
    try:
        return dict(torch.jit.load(file, map_location="cpu").state_dict())
    except Exception as error:
        raise WeightsError(f"{paths.shown(file)} cannot be opened by torch.jit.load "
                           f"({str(error).splitlines()[0][:120]})") from error


def _published(name: str, tag: str, quick_gelu: bool | None = None) -> nn.Module:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise WeightsError(f"{name} has no published weights {tag!r}; it has: {', '.join(tags)}; "
                           "or give a local file, `none` for random weights")
    source = open_clip.get_pretrained_cfg(name, tag)
    own = source.get("quick_gelu", False) or _config(name).get("quick_gelu", False)
    quick = own if quick_gelu is None else quick_gelu
    try:  # force_quick_gelu cannot switch it off; without it open_clip warns of a mismatch
        return open_clip.create_model(name, pretrained=tag, force_quick_gelu=quick,
                                      quick_gelu=quick)
    except Exception as error:  # the hub client raises a dozen kinds
        where = _address(source) or "see open_clip's PRETRAINED page"
        raise WeightsError(
            f"the weights {name} / {tag} could not be fetched ({type(error).__name__}). They are "
            f"published: {where}. Download the file where there is a network and pass its path "
            "with the parameter weights (for OpenAI's weights keep 'openai' in the file name: it "
            "switches QuickGELU on)") from error


def _address(source: dict) -> str:
    """Where an entry of open_clip's table lies; empty where it says nothing."""
    hub = source.get("hf_hub", "").rstrip("/")
    return f"open_clip_model.safetensors of {hub} on the Hugging Face hub" if hub else \
        source.get("url", "")


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
