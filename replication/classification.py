"""A timm backbone trained to name the pictures of a sketch set's seen classes.

The demos' small networks come from here: what ImageNet's photos are to the published settings,
the pictures of the SEEN classes of doodles are to the demo, so that unseen classes stay unseen.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor

from replication import backbones, data, paths, training
from replication.transforms import NORMALISATIONS, Preprocess


@pydantic_dataclass(frozen=True)
class Config:
    """AdamW with linear warm-up and cosine decay; every tenth picture is kept out of training."""

    data_root: str = "data"
    data_name: str = "doodles"
    domains: Literal["photo", "sketch", "both"] = "photo"
    save_root: str = "result/pretrain"
    name: str = "resnet"
    backbone: str = "doodle-resnet"
    weights: str = "none"
    global_pool: str = "max"
    image_size: PositiveInt = 48
    normalisation: Literal["imagenet", "clip", "half"] = "half"
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 15
    lr: float = 4e-3
    warmup: int = 50
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    seed: int = 0
    precision: str = "auto"
    num_workers: int = 0


# How the demos' networks are trained, where it is not Config's defaults. The ViT learns from
# sketches too: on the 912 photos alone it names hardly a class. With max pooling every patch is
# asked what it shows; the class token it leaves to ZSE-SBIR.
RECIPES = {"doodle-resnet": {},
           "doodle-vit": {"backbone": "doodle-vit", "name": "vit", "domains": "both",
                          "batch_size": 32, "epochs": 8, "lr": 2e-3}}


@dataclass(frozen=True)
class Labelled(torch.utils.data.Dataset):
    """Each picture once an epoch, mirrored or not, in an order drawn from (seed, epoch)."""

    pixels: np.ndarray
    labels: np.ndarray
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, self.epoch])
        index = rng.permutation(len(self))[rows]
        flip = (rng.random(len(self)) < 0.5)[rows]
        pictures = np.where(flip[:, None, None, None], self.pixels[index][:, :, ::-1],
                            self.pixels[index])
        return {"image": torch.from_numpy(pictures), "row": torch.from_numpy(index),
                "label": torch.from_numpy(self.labels[index])}


def rule(config: Config) -> Preprocess:
    """How the pictures become the network's input."""
    return Preprocess(config.image_size, "squash", "bilinear",
                      *NORMALISATIONS[config.normalisation])


def pictures(config: Config) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(pixels, labels, class names) of the seen classes, in the chosen domains."""
    seen = data.read_sketch_set(config.data_root, config.data_name).train
    chosen = {"photo": [seen.photo], "sketch": [seen.sketch], "both": [seen.photo, seen.sketch]}
    parts = chosen[config.domains]
    pixels = np.concatenate([data.cached_pixels(images, rule(config)) for images in parts])
    return pixels, np.concatenate([images.labels for images in parts]), seen.classes


def train(config: Config, progress: bool = True) -> tuple[Path, training.Run]:
    """Trains and writes `<save_root>/<name>.safetensors`; continues a stopped run.

    The log's `accuracy` is the share of the pictures kept out that are named right.
    """
    folder = paths.writable_folder(config.save_root) / config.name
    fabric = training.start(config.seed, precision=config.precision)
    pixels, labels, classes = pictures(config)
    held_out = np.arange(len(pixels)) % 10 == 9
    backbone = backbones.timm_model(config.backbone, config.weights, config.seed,
                                    img_size=config.image_size,
                                    num_classes=len(classes), global_pool=config.global_pool)
    adam = torch.optim.AdamW(backbone.model.parameters(), config.lr,
                             weight_decay=config.weight_decay, fused=True)
    forward, adam = fabric.setup(backbone.model, adam)
    n_batches = -(-int((~held_out).sum()) // config.batch_size)
    run = training.Run(folder, asdict(config) | {"data_root": "", "save_root": ""})
    count = iter(())  # replaced at each epoch: the step number that the schedule reads

    def batches_of(epoch: int):
        nonlocal count
        count = iter(range(epoch * n_batches, (epoch + 1) * n_batches))
        drawn = Labelled(pixels[~held_out], labels[~held_out], config.seed, epoch)
        return data.batches(drawn, config.batch_size, num_workers=config.num_workers)

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rate = config.lr * training.warmup_cosine(next(count), config.warmup,
                                                  n_batches * config.epochs)
        for group in adam.param_groups:
            group["lr"] = rate
        logits = forward(rule(config).normalised(batch["image"]))
        loss = F.cross_entropy(logits.float(), batch["label"],
                               label_smoothing=config.label_smoothing)
        training.optimise(fabric, adam, loss, batch)
        return {"loss": loss}

    def after_epoch(epoch: int) -> dict[str, float]:
        right = named(backbone.model, rule(config), pixels[held_out], fabric.device) \
            == labels[held_out]
        return {"accuracy": 100 * float(right.mean())}

    training.fit(fabric, run, {"model": backbone.model}, {"adam": adam}, batches_of, step,
                 epochs=config.epochs, after_epoch=after_epoch, progress=progress)
    file = folder.with_suffix(".safetensors")
    paths.save_file(file, lambda tmp: training.write_tensors(backbone.model.state_dict(), tmp))
    return file, run


@torch.inference_mode()
def named(model: torch.nn.Module, preprocess: Preprocess, pixels: np.ndarray,
          device: torch.device) -> np.ndarray:
    """The class (its index) that the model, in evaluation mode, gives to each picture."""
    before = model.training
    model.eval()
    parts = [model(preprocess.normalised(torch.from_numpy(pixels[s:s + 256]).to(device)))
             .argmax(1).cpu().numpy() for s in range(0, len(pixels), 256)]
    model.train(before)
    return np.concatenate(parts)
