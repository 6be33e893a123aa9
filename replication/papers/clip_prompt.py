"""ClipPrompt: learned prompts in CLIP's image towers for zero-shot sketch-based image retrieval.

Paper: Sain et al., CLIP for All Things Zero-Shot Sketch-Based Image Retrieval, Fine-Grained or
Not, CVPR 2023 (arXiv 2303.13440). The defaults follow the public re-implementation
leftthomas/ClipPrompt, whose table is the one to reproduce; where it parts from the paper or from
the authors' aneeshan95/Sketch_LVM, a field of Config switches.
Verified: embeddings, losses and gradient norms against values computed with the re-implementation
(tests/golden). Not verified: the published numbers, which need OpenAI's weights and the data sets.
"""

import copy
from dataclasses import asdict
from typing import Literal

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor, nn

from replication import (
    backbones,
    data,
    losses,
    metrics,
    paths,
    records,
    sketch_retrieval,
    training,
)
from replication.sketch_experiment import Experiment, begun
from replication.switches import Times
from replication.transforms import NORMALISATIONS, Preprocess


@pydantic_dataclass(frozen=True)
class Config:
    """The original's options under their names, with their defaults; then the switches."""

    data_root: str = "/home/data"
    data_name: str = "sketchy"  # sketchy, tuberlin, quickdraw, doodles
    prompt_num: PositiveInt = 3
    save_root: str = "result"
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 60
    triplet_margin: float = 0.3
    encoder_lr: float = 1e-4
    prompt_lr: float = 1e-3
    cls_weight: float = 0.5
    seed: int = -1  # -1: drawn, and written into the record

    backbone: str = "ViT-B-32"
    weights: str = "openai"
    token: Literal["prompt", "class"] = "prompt"  # which output token is the embedding
    logit_scale: Literal["parameter", "exponential"] = "parameter"  # 4.6 or exp(4.6) = 100
    normalisation: Literal["imagenet", "clip"] = "imagenet"
    resize: Literal["squash", "pad", "crop"] = "squash"
    towers: Literal["separate", "shared"] = "separate"
    selection: Literal["unseen", "seen", "last"] = "unseen"
    val_classes: NonNegativeInt = 0  # seen classes kept out of training, for selection="seen"
    gallery: Literal["all", "one-per-sketch"] = "all"
    prompt_template: str = "a photo of a {}"
    precision: str = "auto"
    compile: bool = False
    accelerator: str = "auto"
    devices: PositiveInt = 1
    num_workers: NonNegativeInt = 0

    def run_key(self) -> dict:
        """The fields that decide the weights: a checkpoint continues a run with the same ones."""
        elsewhere = ("data_root", "save_root", "epochs", "selection", "gallery", "accelerator",
                     "devices", "num_workers", "compile")
        return {k: v for k, v in asdict(self).items() if k not in elsewhere}


# What the chapter turns, one at a time; the last: tower, losses, margin and input at once.
SWITCHES = {
    "token: class": {"token": "class"},
    "logit scale: exponential": {"logit_scale": "exponential"},
    "normalisation: CLIP's": {"normalisation": "clip"},
    "resize: pad": {"resize": "pad"},
    "resize: crop": {"resize": "crop"},
    "towers: shared": {"towers": "shared"},
    "triplet only": {"cls_weight": 0.0},
    "margin: 0.2": {"triplet_margin": 0.2},
    "as the authors' code": {"towers": "shared", "cls_weight": 0.0, "triplet_margin": 0.2,
                             "resize": "pad"},
}
"""Where paper and codes part, each as the fields that switch it."""
# Further ones, turned where they are named. Rates and sizes are the authors' code's as multiples of
# the re-implementation's.
CHOICES = {
    "encoder rate / 100 + prompt rate / 10": {"encoder_lr": Times(0.01), "prompt_lr": Times(0.1)},
    "batch x 3": {"batch_size": Times(3)},
    "gallery: one photo a sketch": {"gallery": "one-per-sketch"},
    "epochs x 3": {"epochs": Times(3)},
    "epochs x 3 + best on unseen": {"epochs": Times(3), "selection": "unseen"},
}


class ClipPrompt(nn.Module):
    """Two image towers of one CLIP, each with its own prompts, and its frozen text tower.

    The modules bear the published checkpoint's names; `clip_model.visual` is `sketch_encoder`.
    """

    def __init__(self, clip: nn.Module, prompt_num: int = 3, *, token: str = "prompt",
                 towers: str = "separate", logit_scale: str = "parameter"):
        super().__init__()
        width = clip.visual.class_embedding.shape[0]
        self.token, self.scale_rule, self.prompt_num = token, logit_scale, prompt_num
        self.sketch_prompt = nn.Parameter(torch.randn(prompt_num, width))
        self.photo_prompt = nn.Parameter(torch.randn(prompt_num, width))
        clip.requires_grad_(False)
        self.sketch_encoder = clip.visual  # named before clip_model: parameters bear this name
        self.photo_encoder = clip.visual if towers == "shared" else copy.deepcopy(clip.visual)
        self.clip_model = clip
        for tower in (self.sketch_encoder, self.photo_encoder):
            tower.proj.requires_grad_(True)
            for module in tower.modules():
                module.requires_grad_(True) if isinstance(module, nn.LayerNorm) else None

    def _encode(self, tower: nn.Module, prompt: Tensor, images: Float[Tensor, "b 3 h w"]
                ) -> Float[Tensor, "b d"]:
        patches = tower.conv1(images).flatten(2).transpose(1, 2)  # (b, n, width)
        first = tower.class_embedding.expand(len(images), 1, -1)
        tokens = torch.cat([first, patches], dim=1) + tower.positional_embedding
        prompts = prompt.expand(len(images), -1, -1).to(tokens.dtype)
        tokens = tower.ln_pre(torch.cat([prompts, tokens], dim=1))  # (b, p + 1 + n, width)
        tokens = tower.transformer(tokens)
        read = 0 if self.token == "prompt" else self.prompt_num
        return (tower.ln_post(tokens[:, read]) @ tower.proj).float()

    def encode_sketch(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embeddings of sketches, not normalised."""
        return self._encode(self.sketch_encoder, self.sketch_prompt, images)

    def encode_photo(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embeddings of photos, not normalised."""
        return self._encode(self.photo_encoder, self.photo_prompt, images)

    def forward(self, sketch, positive, negative) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of a batch of triplets; the photos pass their tower together."""
        photos = self.encode_photo(torch.cat([positive, negative]))
        return self.encode_sketch(sketch), *photos.chunk(2)

    @torch.no_grad()
    def text_features(self, tokens: Tensor) -> Float[Tensor, "c d"]:
        """The frozen text tower's features of tokenised class names; computed once a run."""
        return self.clip_model.encode_text(tokens).float()

    @property
    def class_scale(self) -> Tensor:
        """What multiplies the class cosines: CLIP's own parameter, or its exponential."""
        scale = self.clip_model.logit_scale.detach()
        return scale.exp() if self.scale_rule == "exponential" else scale


def class_texts(classes: tuple[str, ...], template: str = "a photo of a {}") -> list[str]:
    """The sentence of every class; underscores become spaces."""
    return [template.format(name.replace("_", " ")) for name in classes]


def loss_terms(embeddings: tuple[Tensor, Tensor, Tensor], labels: Tensor, text: Tensor,
               scale: Tensor, margin: float, cls_weight: float) -> dict[str, Tensor]:
    """Triplet plus `cls_weight` x (cross-entropy of the sketch + of the positive photo)."""
    sketch, positive, negative = embeddings
    terms = {"triplet": losses.triplet(sketch, positive, negative, margin)}
    for name, embedding in (("class_sketch", sketch), ("class_photo", positive)):
        terms[name] = F.cross_entropy(losses.class_logits(embedding, text, scale), labels)
    classes = terms["class_sketch"] + terms["class_photo"]
    return {"loss": terms["triplet"] + cls_weight * classes, **terms}


def build(config: Config) -> tuple[ClipPrompt, backbones.ClipBackbone, Preprocess]:
    """The model on its backbone, and the Preprocess that the switches ask for."""
    backbone = backbones.clip(config.backbone, config.weights, max(config.seed, 0))
    if not hasattr(backbone.model.visual, "class_embedding"):
        raise backbones.WeightsError(f"backbone {config.backbone!r} has no class token to put "
                                     "prompts in front of: choose a ViT of open_clip, as ViT-B-32")
    model = ClipPrompt(backbone.model, config.prompt_num, token=config.token,
                       towers=config.towers, logit_scale=config.logit_scale)
    size = backbone.preprocess.size
    mean, std = NORMALISATIONS[config.normalisation]
    return model, backbone, Preprocess(size, config.resize, "bilinear", mean, std)


def optimizer(model: ClipPrompt, config: Config) -> torch.optim.Adam:
    """Adam with one rate for LayerNorms and projections, another for the prompts."""
    prompts = [model.sketch_prompt, model.photo_prompt]
    encoders = [p for n, p in model.named_parameters() if p.requires_grad and "prompt" not in n]
    groups = [{"params": encoders, "lr": config.encoder_lr},
              {"params": prompts, "lr": config.prompt_lr}]
    return torch.optim.Adam(groups, fused=torch.cuda.is_available() or None)


def load_official(model: ClipPrompt, state: dict[str, Tensor], source: str = "the checkpoint"
                  ) -> None:
    """Loads the re-implementation's published state dict; every key is used.

    Raises WeightsError that names wrong shapes, missing and unknown keys (another paper's file,
    another prompt_num), or a `clip_model.visual` that differs from `sketch_encoder`.
    """
    for key, value in state.items():
        twin = state.get(key.replace("clip_model.visual.", "sketch_encoder."))
        if twin is not None and not torch.equal(twin, value):
            raise backbones.WeightsError(f"{source}: {key} differs from its sketch_encoder twin")
    backbones.load_exactly(model, {k: v.float() for k, v in state.items()}, source)


def prepare(config: Config) -> Experiment:
    """Reads the set, seeds, builds the model; every input is checked here, before any work."""
    paths.writable_folder(config.save_root)
    sketch_set = data.read_sketch_set(config.data_root, config.data_name)
    rest, held_out = sketch_set.train.hold_out(config.val_classes)
    fabric = training.start(config.seed, accelerator=config.accelerator,
                            precision=config.precision,
                            devices=config.devices if training.distributed() else 1)
    model, backbone, preprocess = build(config)
    about = {"paper": "clip_prompt", "prompt_num": config.prompt_num, "towers": config.towers,
             "token": config.token, "backbone": backbone.name, "weights_sha256": backbone.sha256}
    return Experiment(
        "clip_prompt", config, f"{config.data_name}_{config.prompt_num}", sketch_set, rest,
        held_out if config.val_classes else None, model.to(fabric.device), preprocess, fabric,
        records.Weights(name=f"{backbone.name} {config.weights}", sha256=backbone.sha256), about,
        metrics.CLIP_PROMPT)


def train(e: Experiment, progress: bool = True, select: bool = True) -> training.Run:
    """Trains to the last epoch, from the folder's checkpoint where it holds one of this run.

    select: evaluate every epoch to keep the best; without it only the last weights are kept.
    """
    c = e.config
    run, pixels = begun(e, progress)
    text = class_features(e)
    adam = optimizer(e.model, c)
    forward, adam = e.fabric.setup(torch.compile(e.model) if c.compile else e.model, adam)

    def batches_of(epoch: int):
        triplets = data.Triplets(e.train, *pixels, c.seed, epoch)
        return data.batches(triplets, c.batch_size, rank=e.fabric.global_rank,
                            world=e.fabric.world_size, num_workers=c.num_workers,
                            pin=e.fabric.device.type == "cuda")

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pictures = [e.preprocess.normalised(batch[k]) for k in ("sketch", "positive", "negative")]
        terms = loss_terms(forward(*pictures), batch["label"], text, e.model.class_scale,
                           c.triplet_margin, c.cls_weight)
        training.optimise(e.fabric, adam, terms["loss"], batch)
        return terms

    keep = sketch_retrieval.selection(run, e.four_metrics, e.splits() if select else {},
                                      e.write_weights)
    training.fit(e.fabric, run, {"model": e.model}, {"adam": adam}, batches_of, step,
                 epochs=c.epochs, after_epoch=keep, progress=progress)
    return run


def class_features(e: Experiment) -> Float[Tensor, "c d"]:
    """Text features of the training classes, from the frozen text tower, once a run."""
    tokenizer = open_clip.SimpleTokenizer(context_length=e.model.clip_model.context_length)
    tokens = tokenizer(class_texts(e.train.classes, e.config.prompt_template))
    return e.model.text_features(tokens.to(e.fabric.device))


if __name__ == "__main__":  # one of several processes, started by training.launch
    train(prepare(Config(**training.launched_config())))
