"""An ACNet run: what it is made of, its training, its published checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torchvision.transforms import v2

from replication import backbones, data, metrics, paths, records, sketch_retrieval, training
from replication.papers.acnet.config import Config
from replication.papers.acnet.networks import ACNet
from replication.papers.acnet.objectives import discriminator_loss, frozen, loss_terms
from replication.sketch_experiment import Experiment, begun, differences, saved_gallery
from replication.sketch_retrieval import Embedded
from replication.transforms import NORMALISATIONS, Preprocess, read_image


def build(config: Config, n_classes: int) -> tuple[ACNet, backbones.TimmBackbone, Preprocess]:
    """The model on its backbone, and the Preprocess: squashed, mean and deviation 0.5."""
    if config.image_size % 4:
        raise ValueError(f"image_size={config.image_size}: the generator needs a multiple of 4")
    weights = "none" if config.checkpoint else config.weights  # the checkpoint holds them all
    backbone = backbones.timm_model(config.backbone_type, weights, max(config.seed, 0),
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
    start = records.Weights(name=f"{backbone.name} {config.weights}", sha256=backbone.sha256)
    if config.checkpoint:
        load_official(model, read_official(config.checkpoint), config.checkpoint)
        start = records.Weights(name=config.checkpoint, sha256=backbones.state_hash(model))
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    fields = ("data_name", "backbone_type", "emb_dim", "image_size", "synthesis", "channels",
              "blocks", "val_classes")
    about = {"paper": "acnet", "weights_sha256": start.sha256} | {
        k: getattr(config, k) for k in fields}
    return Experiment(
        "acnet", config, f"{config.data_name}_{config.backbone_type}_{config.emb_dim}",
        sketch_set, rest, held_out if config.val_classes else None, model.to(fabric.device),
        preprocess, fabric, start, about, metrics.ACNET)


@dataclass(frozen=True)
class Pairs(data.Triplets):
    """Every training sketch once an epoch with a random photo of its class, each image mirrored
    with p 0.5. All of it depends on (seed, epoch) alone."""

    @cached_property
    def mirrored(self) -> Bool[np.ndarray, "s 2"]:
        """Whether each sketch and photo of this epoch is flipped, half of them."""
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


def first_batch(e: Experiment) -> dict[str, Tensor]:
    """The first pairs of training, as pixels (uint8, b h w 3), mirrored as they will be."""
    pixels = [data.cached_pixels(i, e.preprocess) for i in (e.train.sketch, e.train.photo)]
    pairs = Pairs(e.train, *pixels, e.config.seed, 0)
    return pairs.__getitems__(list(range(min(e.config.batch_size // 2, len(pairs)))))


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
          show: Callable[[int, Embedded], object] = lambda epoch, found: None) -> training.Run:
    """Trains to the last epoch, from the folder's checkpoint where it holds one of this run.

    select: evaluate every epoch to keep the best; without it only the last weights are kept.
    show: called with each epoch's number and its embeddings of the unseen classes. Two-stage
    synthesis takes `epochs` for the generator, then as many for the extractor.
    """
    c = e.config
    run, pixels = begun(e, progress)
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

    def measured(split: data.Split) -> dict[str, float]:
        found = e.embed(split)
        if split is e.sketch_set.val:
            show(run.epoch, found)
        return sketch_retrieval.four_metrics(found, e.convention)

    keep = sketch_retrieval.selection(run, measured, e.splits() if select else {}, e.write_weights)

    def after_epoch(epoch: int) -> dict[str, float]:
        return {} if stage == "generator" else keep(epoch)  # of no use without an extractor

    training.fit(e.fabric, run, {"model": e.model}, adams, batches_of, step,
                 epochs=c.epochs * len(stages), after_epoch=after_epoch, progress=progress)
    if not c.epochs:
        keep(-1)  # what is measured is the start: the untrained model, or published weights
    return run


def gallery_of(e: Experiment, data_base: str = "") -> sketch_retrieval.Gallery:
    """Gallery vectors of the file `data_base`, made by this model on this set; without a name
    those that training saved.

    Raises FileNotFoundError or ValueError that names the field in which they differ.
    """
    if data_base.endswith(".pth"):
        raise ValueError(f"{data_base}: the original's vectors have no file names and classes that "
                         "could be checked; run train.ipynb with checkpoint=<their prefix> and "
                         "epochs=0 to make embeddings.safetensors with the same weights")
    if not data_base:
        return saved_gallery(e)
    gallery = sketch_retrieval.load_gallery(paths.user_path(data_base))
    if wrong := differences(gallery.about, e.about):
        raise ValueError(f"data_base {data_base} was made by another model or of another set: "
                         f"{wrong}. Give the parameters it was made with, or another "
                         "data_base")
    return gallery


def synthesised(e: Experiment, query: Path) -> dict[str, np.ndarray]:
    """A query picture as the model gets it and what the generator makes of it, (1, h, w, 3) in
    0..1; empty without synthesis. The weights are those in the model now."""
    if not e.model.generates:
        return {}
    pixels = torch.from_numpy(e.preprocess.resized(read_image(query, upright=True)).copy())[None]
    with torch.inference_mode():
        made = e.model.generator(e.preprocess.normalised(pixels.to(e.fabric.device)))
    return {"query": pixels.numpy(), "generated": e.preprocess.displayable(made)}
