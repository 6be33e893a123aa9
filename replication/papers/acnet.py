"""ACNet: sketches become photo-like images before they are embedded, learned jointly.

Paper: Ren et al., ACNet: Approaching-and-Centralizing Network for Zero-Shot Sketch-Based Image
Retrieval, IEEE TCSVT 33(9), 2023 (arXiv 2111.12757). The defaults follow the authors' code
leftthomas/ACNet; where it parts from the paper, a field of Config switches.
Verified: generated images, embeddings and every loss term against values computed with that code,
for both backbones (tests/golden). Not verified: the published numbers, which need ImageNet weights
and the data sets; the definitions of the paper's ablation losses, which no code shows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor, nn
from torchvision.transforms import v2

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
from replication.sketch_experiment import Experiment
from replication.sketch_retrieval import Embedded
from replication.transforms import NORMALISATIONS, Preprocess

CLASS_ON = ("sketch", "photo", "generated")
TUBERLIN_PHOTOS = 400  # the code leaves TU-Berlin's unseen classes with fewer photos out


@pydantic_dataclass(frozen=True)
class Config:
    """The original's options under their names, with their defaults; then what it fixes in code,
    the switches and the paper's ablations."""

    data_root: str = "/home/data"
    data_name: str = "sketchy"  # sketchy, tuberlin, doodles
    backbone_type: str = "resnet50"  # resnet50, vgg16, any classifier of timm
    emb_dim: PositiveInt = 512
    batch_size: PositiveInt = 64  # images: half are sketches, half photos
    epochs: NonNegativeInt = 10  # 0: measures the start
    warmup: NonNegativeInt = 1  # epochs in which only the extractor's last layer learns
    save_root: str = "result"

    seed: int = 1
    weights: str = "default"  # the extractor's
    checkpoint: str = ""  # published files to start from, up to their _extractor.pth
    image_size: PositiveInt = 224
    extractor_lr: NonNegativeFloat = 1e-5
    proxy_lr: NonNegativeFloat = 1e-3
    generator_lr: NonNegativeFloat = 1e-3
    discriminator_lr: NonNegativeFloat = 1e-4
    temperature: PositiveFloat = 0.05
    min_photos: int = -1  # of an unseen class; -1: 400 for tuberlin, else 0
    selection: Literal["unseen", "seen", "last"] = "unseen"
    val_classes: NonNegativeInt = 0

    class_reduction: Literal["mean", "sum"] = "mean"
    synthesis: Literal["joint", "two-stage", "none"] = "joint"
    loss_type: Literal["normalised_softmax", "cross_entropy", "proxy_anchor", "margin",
                       "triplet"] = "normalised_softmax"
    class_on: str = ", ".join(CLASS_ON)
    adversarial_weight: NonNegativeFloat = 1.0
    identity_weight: NonNegativeFloat = 0.1
    class_weight: NonNegativeFloat = 10.0
    channels: PositiveInt = 8
    blocks: NonNegativeInt = 8
    color_jitter: NonNegativeFloat = 0.0
    solarize: NonNegativeFloat = 0.0

    precision: str = "auto"
    channels_last: bool = True
    compile: bool = False
    accelerator: str = "auto"
    devices: PositiveInt = 1
    num_workers: NonNegativeInt = 0

    @field_validator("batch_size")
    @classmethod
    def whole_pairs(cls, value: int) -> int:
        if value % 2:
            raise ValueError("batch_size counts images, a sketch and a photo each: give an even one")
        return value

    @field_validator("class_on")
    @classmethod
    def known_parts(cls, value: str) -> str:
        wrong = set(_named(value)) - set(CLASS_ON)
        if wrong or not value:
            raise ValueError(f"class_on names {', '.join(wrong) or 'nothing'}: choose from "
                             f"{', '.join(CLASS_ON)}")
        return value

    @property
    def classified(self) -> tuple[str, ...]:
        """The images that the class loss sees; without synthesis none is generated."""
        drop = {"generated"} if self.synthesis == "none" else set()
        return tuple(k for k in CLASS_ON if k in _named(self.class_on) and k not in drop)

    @property
    def photos_needed(self) -> int:
        rule = TUBERLIN_PHOTOS if self.data_name == "tuberlin" else 0
        return rule if self.min_photos < 0 else self.min_photos

    def run_key(self) -> dict:
        """The fields that decide the weights: a checkpoint continues a run with the same ones."""
        elsewhere = ("data_root", "save_root", "selection", "accelerator", "devices",
                     "num_workers", "compile", "channels_last")
        # stage two begins where stage one's epochs end; elsewhere a run may be given more
        elsewhere += () if self.synthesis == "two-stage" else ("epochs",)
        return {k: v for k, v in asdict(self).items() if k not in elsewhere}


def _named(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


# Where paper and code part, and the paper's ablations (tables II, V, VII, VIII, X, figs 9, 10).
SWITCHES = {
    "class losses: sum": {"class_reduction": "sum"},
    "one learning rate": {"extractor_lr": 1e-3, "discriminator_lr": 1e-3},
    "no warm-up": {"warmup": 0},
}
TRIPLET, ALONE = {"loss_type": "triplet"}, {"synthesis": "none"}
ABLATIONS = {
    "untrained": {"epochs": 0},
    "no synthesis": ALONE,
    "two-stage synthesis": {"synthesis": "two-stage"},
    "triplet loss": TRIPLET,
    "triplet loss, no synthesis": TRIPLET | ALONE,
    "triplet loss, two-stage synthesis": TRIPLET | {"synthesis": "two-stage"},
    "no identity loss": {"identity_weight": 0.0},
    "no class loss on sketches": {"class_on": "photo, generated"},
    "no class loss on sketches, no identity loss": {"class_on": "photo, generated",
                                                    "identity_weight": 0.0},
    "weights 1 and 1": {"identity_weight": 1.0, "class_weight": 1.0},
    "weights 10 and 0.1": {"identity_weight": 10.0, "class_weight": 0.1},
    "cross-entropy": {"loss_type": "cross_entropy"},
    "margin loss": {"loss_type": "margin"},
    "proxy anchor": {"loss_type": "proxy_anchor"},
    "color jitter, no synthesis": ALONE | {"color_jitter": 0.4},
    "solarization, no synthesis": ALONE | {"solarize": 0.5},
    "color jitter and solarization, no synthesis": ALONE | {"color_jitter": 0.4, "solarize": 0.5},
    **{f"channels {n}": {"channels": n} for n in (4, 16, 32, 64)},
    **{f"residual blocks {n}": {"blocks": n} for n in (4, 6, 9)},
}


# ------------------------------------------------------------------------------------ networks


def _conv(before: int, after: int, kernel: int, *, stride: int = 1, up: bool = False,
          reflect: bool = False) -> list[nn.Module]:
    """Convolution, instance norm and ReLU."""
    conv = nn.ConvTranspose2d(before, after, kernel, stride, 1, output_padding=1) if up else \
        nn.Conv2d(before, after, kernel, stride, kernel // 2,
                  padding_mode="reflect" if reflect else "zeros")
    return [conv, nn.InstanceNorm2d(after), nn.ReLU(inplace=True)]


class ResidualBlock(nn.Module):
    """Two reflect-padded 3 x 3 convolutions with a bypass; no ReLU after the sum."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Sequential(*_conv(channels, channels, 3, reflect=True),
                                  *_conv(channels, channels, 3, reflect=True)[:-1])

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.conv(x)


class Generator(nn.Module):
    """Sketch to photo-like image of the same size, in -1..1. Sides are multiples of 4 pixels."""

    def __init__(self, channels: int = 8, blocks: int = 8):
        super().__init__()
        c = channels
        self.in_conv = nn.Sequential(*_conv(3, c, 7, reflect=True))
        self.down_sample = nn.Sequential(*_conv(c, 2 * c, 3, stride=2),
                                         *_conv(2 * c, 4 * c, 3, stride=2))
        self.convs = nn.Sequential(*(ResidualBlock(4 * c) for _ in range(blocks)))
        self.up_sample = nn.Sequential(*_conv(4 * c, 2 * c, 3, stride=2, up=True),
                                       *_conv(2 * c, c, 3, stride=2, up=True))
        self.out_conv = nn.Sequential(nn.Conv2d(c, 3, 7, padding=3, padding_mode="reflect"),
                                      nn.Tanh())

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.out_conv(self.up_sample(self.convs(self.down_sample(self.in_conv(images)))))


class Discriminator(nn.Module):
    """PatchGAN: one score for each patch of 70 pixels; 1 is a photo, 0 a generated image."""

    def __init__(self, channels: int = 8):
        super().__init__()
        c = channels
        self.conv1 = nn.Sequential(nn.Conv2d(3, c, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True))
        self.conv2 = self._normed(c, 2 * c, 2)
        self.conv3 = self._normed(2 * c, 4 * c, 2)
        self.conv4 = self._normed(4 * c, 8 * c, 1)
        self.conv5 = nn.Conv2d(8 * c, 1, 4, 1, 1)

    @staticmethod
    def _normed(before: int, after: int, stride: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(before, after, 4, stride, 1), nn.InstanceNorm2d(after),
                             nn.LeakyReLU(0.2, inplace=True))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 i j"]:
        return self.conv5(self.conv4(self.conv3(self.conv2(self.conv1(images)))))


class Extractor(nn.Module):
    """A timm network with global max pooling and a new last layer of `emb_dim`; unit length.

    Its batch norms keep the pretrained running statistics: they stay in evaluation mode.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.train()

    def train(self, mode: bool = True) -> "Extractor":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def body(self) -> list[nn.Parameter]:
        """All that the warm-up leaves alone: every parameter but the last layer's."""
        last = set(self.backbone.get_classifier().parameters())
        return [p for p in self.parameters() if p not in last]

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return F.normalize(self.backbone(images).float(), dim=-1)


class ACNet(nn.Module):
    """Generator, discriminator, extractor and the proxies of the training classes.

    Without synthesis (`generates` False) a sketch is embedded as it is.
    """

    def __init__(self, backbone: nn.Module, emb_dim: int, n_classes: int, channels: int = 8,
                 blocks: int = 8, *, generates: bool = True):
        super().__init__()
        self.generator, self.discriminator = Generator(channels, blocks), Discriminator(channels)
        self.extractor, self.generates = Extractor(backbone), generates
        self.proxies = nn.Parameter(torch.randn(emb_dim, n_classes))

    def encode_sketch(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embeddings of sketches, by way of the generated image."""
        return self.extractor(self.generator(images) if self.generates else images)

    def encode_photo(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embeddings of photos."""
        return self.extractor(images)


# -------------------------------------------------------------------------------------- losses


@contextmanager
def frozen(parameters) -> Iterator[None]:
    """What is computed inside has no gradient for `parameters`, and passes gradients through."""
    changed = [p for p in parameters if p.requires_grad]
    for p in changed:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in changed:
            p.requires_grad_(True)


def class_terms(embeddings: dict[str, Tensor], labels: Tensor, proxies: Tensor, config: Config
                ) -> dict[str, Tensor]:
    """The class loss, one term an image kind; of the pair losses one over all kinds together."""
    if config.loss_type in ("margin", "triplet"):
        pairs = {"margin": losses.margin_pairs, "triplet": losses.batch_triplets}[config.loss_type]
        every = torch.cat(list(embeddings.values()))
        return {"class": pairs(every, labels.repeat(len(embeddings)))}
    term = {"normalised_softmax": lambda z: losses.normalised_softmax(z, labels, proxies,
                                                                      config.temperature),
            "cross_entropy": lambda z: F.cross_entropy(z @ proxies, labels),
            "proxy_anchor": lambda z: losses.proxy_anchor(z, labels, proxies)}[config.loss_type]
    terms = {f"class_{kind}": term(z) for kind, z in embeddings.items()}
    total = sum(terms.values())
    mean = config.class_reduction == "mean"
    return {"class": total / len(terms) if mean else total, **terms}


def synthesis_terms(model: ACNet, sketch: Tensor, photo: Tensor, config: Config
                    ) -> tuple[Tensor, dict[str, Tensor]]:
    """(generated images, LSGAN term and identity term); both domains pass the generator at once."""
    if config.identity_weight:
        generated, same = model.generator(torch.cat([sketch, photo])).chunk(2)
        terms = {"identity": F.l1_loss(same, photo)}
    else:
        generated, terms = model.generator(sketch), {}
    with frozen(model.discriminator.parameters()):
        score = model.discriminator(generated)
    return generated, {"adversarial": F.mse_loss(score, torch.ones_like(score)), **terms}


def discriminator_loss(model: ACNet, photo: Tensor, generated: Tensor) -> Float[Tensor, ""]:
    """LSGAN: mean of (D(photo) - 1)^2 and D(generated)^2; no gradient reaches the generator."""
    real, fake = model.discriminator(torch.cat([photo, generated.detach()])).chunk(2)
    return (F.mse_loss(real, torch.ones_like(real)) + F.mse_loss(fake, torch.zeros_like(fake))) / 2


def loss_terms(model: ACNet, sketch: Tensor, photo: Tensor, labels: Tensor, config: Config, *,
               stage: str = "joint", extractor: Callable[[Tensor], Tensor] | None = None
               ) -> tuple[dict[str, Tensor], Tensor | None]:
    """(terms with their weighted sum `loss`, generated images or None), each image made once.

    stage: `joint`; `generator` and `extractor` are the two of the two-stage synthesis.
    extractor: a compiled one.
    """
    terms, generated, weights = {}, None, {"adversarial": config.adversarial_weight,
                                           "identity": config.identity_weight,
                                           "class": config.class_weight}
    if stage == "extractor" and config.synthesis != "none":
        with torch.no_grad():
            generated = model.generator(sketch)
    elif stage != "extractor":
        generated, terms = synthesis_terms(model, sketch, photo, config)
    if stage != "generator":
        images = {"sketch": sketch, "photo": photo, "generated": generated}
        parts = [images[kind] for kind in config.classified]
        found = (extractor or model.extractor)(torch.cat(parts)).chunk(len(parts))
        embeddings = dict(zip(config.classified, found, strict=True))
        terms |= class_terms(embeddings, labels, model.proxies, config)
    loss = sum(weights[k] * terms[k] for k in weights if k in terms)
    return {"loss": loss, **terms}, generated


# -------------------------------------------------------------------------------- making a run


def build(config: Config, n_classes: int) -> tuple[ACNet, backbones.TimmBackbone, Preprocess]:
    """The model on its backbone, and the Preprocess: squashed, mean and deviation 0.5."""
    if config.image_size % 4:
        raise ValueError(f"image_size={config.image_size}: the generator needs a multiple of 4")
    backbone = backbones.timm_model(config.backbone_type, config.weights, max(config.seed, 0),
                                    num_classes=config.emb_dim, global_pool="max")
    model = ACNet(backbone.model, config.emb_dim, n_classes, config.channels, config.blocks,
                  generates=config.synthesis != "none")
    return model, backbone, Preprocess(config.image_size, "squash", "bilinear",
                                       *NORMALISATIONS["half"])


def optimizers(model: ACNet, config: Config) -> dict[str, torch.optim.Adam]:
    """`retrieval` steps extractor, proxies and generator; then `discriminator` steps."""
    fused = True if next(model.parameters()).is_cuda else None
    groups = [{"params": list(model.extractor.parameters()), "lr": config.extractor_lr},
              {"params": [model.proxies], "lr": config.proxy_lr},
              {"params": list(model.generator.parameters()), "lr": config.generator_lr,
               "betas": (0.5, 0.999)}]
    return {"retrieval": torch.optim.Adam(groups, fused=fused),
            "discriminator": torch.optim.Adam(model.discriminator.parameters(), fused=fused,
                                              lr=config.discriminator_lr, betas=(0.5, 0.999))}


def load_official(model: ACNet, states: dict[str, dict[str, Tensor]], source: str = "checkpoint"
                  ) -> None:
    """Loads the state dicts of the published `*_extractor.pth`, `*_generator.pth`,
    `*_discriminator.pth` and `*_proxies.pth`; every key is used.

    Raises WeightsError, before anything is changed, that names wrong shapes (another dimension,
    other classes), missing and unknown keys (another backbone, one file for another).
    """
    parts = {k: getattr(model, k) for k in ("extractor", "generator", "discriminator")}
    absent = [k for k in (*parts, "proxies") if k not in states]
    if absent:
        raise backbones.WeightsError(f"{source}: no {', '.join(absent)}")
    joint = {f"{part}.{k}": v for part in parts for k, v in states[part].items()}
    joint |= {"proxies" if k == "W" else f"proxies.{k}": v for k, v in states["proxies"].items()}
    backbones.load_exactly(model, {k: v.float() if v.is_floating_point() else v
                                   for k, v in joint.items()}, source)


def read_official(prefix: str) -> dict[str, dict[str, Tensor]]:
    """The four files `<prefix>_<part>.pth`; raises WeightsError naming those that are absent."""
    files = {part: paths.user_path(f"{prefix}_{part}.pth")
             for part in ("extractor", "generator", "discriminator", "proxies")}
    absent = [paths.shown(f) for f in files.values() if not f.exists()]
    if absent:
        raise backbones.WeightsError(f"no file {', '.join(absent)}: checkpoint is what the "
                                     "published files' names have in common, as "
                                     "/data/sketchy_resnet50_512 (the README of leftthomas/ACNet "
                                     "says where they are)")
    return {part: backbones.read_state(file) for part, file in files.items()}


def with_photos(sketch_set: data.SketchSet, n: int) -> data.SketchSet:
    """The set without the unseen classes that have fewer than `n` photos."""
    photos = sketch_set.val.photo
    count = np.bincount(photos.labels, minlength=len(photos.classes))
    kept = tuple(c for c, k in zip(photos.classes, count, strict=True) if k >= n)
    if not kept:
        raise data.DatasetError(f"min_photos={n}: no unseen class of {sketch_set.folder} has as "
                                f"many; the most is {count.max()}. min_photos=0 keeps all")
    return sketch_set if len(kept) == len(count) else replace(sketch_set,
                                                              val=sketch_set.val.only(kept))


def prepare(config: Config) -> Experiment:
    """Reads the set, seeds, builds the model; every input is checked here, before any work."""
    paths.writable_folder(config.save_root)
    sketch_set = data.read_sketch_set(config.data_root, config.data_name)
    sketch_set = with_photos(sketch_set, config.photos_needed)
    rest, held_out = sketch_set.train.hold_out(config.val_classes)
    fabric = training.start(config.seed, accelerator=config.accelerator,
                            precision=config.precision,
                            devices=config.devices if training.distributed() else 1)
    model, backbone, preprocess = build(config, len(rest.classes))
    if config.checkpoint:
        load_official(model, read_official(config.checkpoint), config.checkpoint)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    fields = ("data_name", "backbone_type", "emb_dim", "image_size", "synthesis", "channels",
              "blocks")
    about = {"paper": "acnet", "weights_sha256": backbone.sha256} | {
        k: getattr(config, k) for k in fields}
    return Experiment(
        "acnet", config, f"{config.data_name}_{config.backbone_type}_{config.emb_dim}",
        sketch_set, rest, held_out if config.val_classes else None, model.to(fabric.device),
        preprocess, fabric, records.Weights(name=f"{backbone.name} {config.weights}",
                                            sha256=backbone.sha256), about, metrics.ACNET)


@dataclass(frozen=True)
class Pairs(data.Triplets):
    """Every training sketch once an epoch with a random photo of its class, each image mirrored
    with p 0.5. All of it depends on (seed, epoch) alone."""

    @cached_property
    def mirrored(self) -> Bool[np.ndarray, "s 2"]:
        return np.random.default_rng([self.seed, self.epoch, 1]).random((len(self), 2)) < 0.5

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        sketch, photo, _ = self.plan[rows].T
        flip = self.mirrored[rows]
        pictures = {"sketch": self.sketches[sketch], "photo": self.photos[photo]}
        for column, batch in enumerate(pictures.values()):
            batch[flip[:, column]] = batch[flip[:, column], :, ::-1]
        return {**{k: torch.from_numpy(v) for k, v in pictures.items()},
                "label": torch.from_numpy(self.split.sketch.labels[sketch]),
                "row": torch.from_numpy(sketch)}


def augmentation(config: Config) -> Callable[[Tensor], Tensor]:
    """Color jitter and solarization on bytes (b, h, w, 3), drawn for each image (table X).

    The paper gives no strengths: color_jitter is torchvision's for brightness, contrast and
    saturation and a quarter of it for hue; solarize is the probability, threshold 128.
    """
    j = config.color_jitter
    steps = [v2.ColorJitter(j, j, j, min(j / 4, 0.5))] if j else []
    steps += [v2.RandomSolarize(128, config.solarize)] if config.solarize else []
    if not steps:
        return lambda images: images
    change = v2.Compose(steps)
    return lambda images: torch.stack(
        [change(i) for i in images.permute(0, 3, 1, 2)]).permute(0, 2, 3, 1)


def train(e: Experiment, progress: bool = True, select: bool = True,
          show: Callable[[int, Embedded], None] = lambda epoch, embedded: None) -> training.Run:
    """Trains to the last epoch, from the folder's checkpoint where it holds one of this run.

    select: evaluate every epoch to keep the best; without it only the last weights are kept.
    show: called with each epoch's number and its embeddings of the unseen classes. Two-stage
    synthesis takes `epochs` for the generator, then as many for the extractor.
    """
    c = e.config
    if c.selection == "seen" and not e.held_out:
        raise ValueError("selection='seen' needs held-out seen classes: set val_classes to 2 or "
                         "more (a tenth of the seen classes is usual)")
    run = training.Run(e.folder, e.key)
    if c.devices > 1 and not training.distributed():
        training.launch("replication.papers.acnet", asdict(c), c.devices)
        run = training.Run(e.folder, e.key)
    pixels = [data.cached_pixels(i, e.preprocess, progress=progress)
              for i in (e.train.sketch, e.train.photo)]
    adams = {k: e.fabric.setup_optimizers(adam) for k, adam in optimizers(e.model, c).items()}
    for adam in adams.values():
        training.average_gradients(e.fabric, adam.optimizer)
    extractor = torch.compile(e.model.extractor) if c.compile else e.model.extractor
    stages = ["generator", "extractor"] if c.synthesis == "two-stage" else \
        ["extractor" if c.synthesis == "none" else "joint"]
    augment, stage, warming = augmentation(c), "", False
    layout = torch.channels_last if c.channels_last else torch.contiguous_format

    def batches_of(epoch: int):
        nonlocal stage, warming
        stage, warming = stages[epoch // c.epochs], epoch % c.epochs < c.warmup
        pairs = Pairs(e.train, *pixels, c.seed, epoch)
        return data.batches(pairs, c.batch_size // 2, rank=e.fabric.global_rank,
                            world=e.fabric.world_size, num_workers=c.num_workers,
                            pin=e.fabric.device.type == "cuda")

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        sketch, photo = (e.preprocess.normalised(augment(batch[k])).to(memory_format=layout)
                         for k in ("sketch", "photo"))
        with e.fabric.autocast(), frozen(e.model.extractor.body() if warming else ()):
            terms, generated = loss_terms(e.model, sketch, photo, batch["label"], c, stage=stage,
                                          extractor=extractor)
        training.optimise(e.fabric, adams["retrieval"], terms["loss"], batch)
        if stage == "extractor":
            return terms
        with e.fabric.autocast():
            terms["discriminator"] = discriminator_loss(e.model, photo, generated)
        training.optimise(e.fabric, adams["discriminator"], terms["discriminator"], batch)
        return terms

    def embed(split: data.Split) -> Embedded:
        embedded = e.embed(split)
        if split is e.sketch_set.val:
            show(run.epoch, embedded)
        return embedded

    keep = sketch_retrieval.selection(run, embed, e.splits() if select else {}, e.convention,
                                      e.write_weights)

    def after_epoch(epoch: int) -> dict[str, float]:
        return {} if stage == "generator" else keep(epoch)  # of no use without an extractor

    training.fit(e.fabric, run, {"model": e.model}, adams, batches_of, step,
                 epochs=c.epochs * len(stages), after_epoch=after_epoch, progress=progress)
    if not c.epochs:
        keep(-1)  # what is measured is the start: the untrained model, or published weights
    return run


def gallery_of(e: Experiment, data_base: str) -> sketch_retrieval.Gallery:
    """Gallery vectors of the file `data_base`, made by this model on this set.

    Raises FileNotFoundError or ValueError that names the field in which they differ.
    """
    file = paths.user_path(data_base)
    if file.suffix == ".pth":
        raise ValueError(f"{data_base}: the original's vectors have no file names and classes that "
                         "could be checked; run train.ipynb with checkpoint=<their prefix> and "
                         "epochs=0 to make embeddings.safetensors from the same weights")
    gallery = sketch_retrieval.load_gallery(file)
    wrong = [f"{k} is {gallery.about.get(k)!r}, here {v!r}" for k, v in e.about.items()
             if gallery.about.get(k) != v]
    if wrong:
        raise ValueError(f"{paths.shown(file)} was made by another model or set: "
                         f"{'; '.join(wrong)}. Give the parameters it was trained with, or "
                         "another data_base")
    return gallery


if __name__ == "__main__":  # one of several processes, started by training.launch
    train(prepare(Config(**training.launched_config())))
