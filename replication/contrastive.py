"""Contrastive language-image training of a CLIP on captioned pictures.

The demo's CLIP comes from here: the small instance of open_clip's class, about a minute on two
cores, on captions of the SEEN classes of doodles alone, so that unseen classes stay unseen.
"""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from safetensors.torch import save_file
from torch import Tensor

from replication import backbones, data, losses, paths, training


@dataclass(frozen=True)
class Config:
    """AdamW with linear warm-up and cosine decay; `source` says where captions come from.

    source `coco`: `<data_root>/<captions>/annotations/captions_<split>2014.json`; source
    `classes`: class names of the seen split of sketch set `data_name`, sketches and photos.
    """

    data_root: str = "data"
    source: str = "coco"
    captions: str = "doodles_captions/coco"
    split: str = "seen"
    data_name: str = "doodles"
    save_root: str = "result/pretrain"
    name: str = "clip"
    backbone: str = "doodle-clip"
    weights: str = "none"
    batch_size: PositiveInt = 128
    epochs: PositiveInt = 20
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 40
    augment: bool = True
    seed: int = 0
    precision: str = "auto"
    num_workers: int = 0


class Captioned(torch.utils.data.Dataset):
    """Each picture once an epoch with one of its captions, drawn from (seed, epoch)."""

    def __init__(self, pixels: np.ndarray, tokens: Tensor, owner: np.ndarray, groups: np.ndarray,
                 seed: int, epoch: int, augment: bool):
        rng = np.random.default_rng([seed, epoch])
        first = np.searchsorted(owner, np.arange(len(pixels)))
        count = np.bincount(owner, minlength=len(pixels))
        self.pixels, self.tokens, self.groups = pixels, tokens, groups
        self.order = rng.permutation(len(pixels))
        self.caption = first + rng.integers(0, count)
        self.augment, self.rng_seed = augment, [seed, epoch]

    def __len__(self) -> int:
        return len(self.order)

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        index = self.order[rows]
        pictures = self.pixels[index]
        if self.augment:
            pictures = shifted(pictures, np.random.default_rng([*self.rng_seed, rows[0]]))
        return {"image": torch.from_numpy(pictures), "text": self.tokens[self.caption[index]],
                "group": torch.from_numpy(self.groups[index]), "row": torch.from_numpy(index)}


def shifted(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each picture shifted by up to an eighth (edges repeated); a fifth of them made grey, so
    that colour alone does not carry a caption."""
    side = pictures.shape[1]
    pad = side // 8
    padded = np.pad(pictures, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    moves = rng.integers(0, 2 * pad + 1, (len(pictures), 2))
    out = np.stack([p[y:y + side, x:x + side] for p, (y, x) in zip(padded, moves, strict=True)])
    grey = rng.random(len(out)) < 0.2
    out[grey] = out[grey].mean(-1, keepdims=True).astype(np.uint8)
    return out


def sources(config: Config) -> tuple[list[data.Images], list[list[str]], str]:
    """Pictures (a list of folders), their captions in the same order, and a line that counts."""
    root = paths.user_path(config.data_root)
    if config.source == "coco":
        images, captions = data.read_captions(root / config.captions, config.split)
        return [images], captions, f"{len(images):,} pictures, {sum(map(len, captions)):,} captions"
    if config.source != "classes":
        raise ValueError(f"source={config.source!r}: choose 'coco' or 'classes'")
    seen = data.read_sketch_set(root, config.data_name).train
    parts = [(seen.photo, "a photo of a {}"), (seen.sketch, "a sketch of a {}")]
    captions = [[template.format(images.classes[label].replace("_", " "))]
                for images, template in parts for label in images.labels]
    counted = f"{len(seen.photo):,} photos and {len(seen.sketch):,} sketches of seen classes"
    return [p for p, _ in parts], captions, counted


def train(config: Config, progress: bool = True) -> tuple[Path, training.Run]:
    """Trains and writes `<save_root>/<name>.safetensors`; continues a stopped run."""
    folder = paths.writable_folder(config.save_root) / config.name
    fabric = training.start(config.seed, precision=config.precision)
    backbone = backbones.clip(config.backbone, config.weights, config.seed)
    images, captions, _ = sources(config)
    pixels = np.concatenate([data.cached_pixels(i, backbone.preprocess, progress=progress)
                             for i in images])
    tokens = backbone.tokenizer([c for group in captions for c in group])
    owner = np.repeat(np.arange(len(captions)), [len(group) for group in captions])
    groups = np.unique(["\n".join(g) for g in captions], return_inverse=True)[1]
    run = training.Run(folder, asdict(config) | {"data_root": "", "save_root": ""})
    model = backbone.model.requires_grad_(True)
    forward, adam = fabric.setup(model, _optimizer(model, config))
    n_batches = -(-len(pixels) // config.batch_size)
    count = iter(())  # replaced at each epoch: the step number that the schedule reads

    def batches_of(epoch: int):
        nonlocal count
        count = iter(range(epoch * n_batches, (epoch + 1) * n_batches))
        set_ = Captioned(pixels, tokens, owner, groups, config.seed, epoch, config.augment)
        return data.batches(set_, config.batch_size, num_workers=config.num_workers)

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rate = config.lr * _schedule(next(count), config.warmup, n_batches * config.epochs)
        for group in adam.param_groups:
            group["lr"] = rate
        picture, text, scale = forward(backbone.preprocess.normalised(batch["image"]),
                                       batch["text"])[:3]
        loss = losses.symmetric_contrastive(picture, text, scale, batch["group"])
        training.optimise(fabric, adam, loss, batch)
        with torch.no_grad():
            model.logit_scale.clamp_(max=float(np.log(100)))
        return {"loss": loss}

    training.fit(fabric, run, {"clip": model}, {"adam": adam}, batches_of, step,
                 epochs=config.epochs, progress=progress)
    state = {k: v.cpu().contiguous() for k, v in model.state_dict().items()}
    file = folder.with_suffix(".safetensors")
    paths.save_file(file, lambda tmp: save_file(state, tmp))
    return file, run


def _optimizer(model, config: Config) -> torch.optim.AdamW:
    """No weight decay on gains, biases, embeddings and the temperature (CLIP, table 18)."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay},
              {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), eps=1e-6)


def _schedule(step: int, warmup: int, total: int) -> float:
    """Linear warm-up, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@torch.inference_mode()
def unseen_accuracy(config: Config, file: Path) -> tuple[float, float]:
    """(accuracy, chance) in percent: unseen photos of set `data_name` named by the nearest text
    feature of `a photo of a {class}`."""
    photos = data.read_sketch_set(config.data_root, config.data_name).val.photo
    backbone = backbones.clip(config.backbone, str(file))
    model = backbone.model.eval()
    texts = [f"a photo of a {name.replace('_', ' ')}" for name in photos.classes]
    prototypes = model.encode_text(backbone.tokenizer(texts))
    pixels = torch.from_numpy(np.array(data.cached_pixels(photos, backbone.preprocess)))
    logits = torch.cat([losses.class_logits(model.encode_image(backbone.preprocess.normalised(p)),
                                            prototypes, 1.0) for p in pixels.split(256)])
    right = (logits.argmax(1) == torch.from_numpy(photos.labels)).float().mean()
    return 100 * float(right), 100 / len(photos.classes)
