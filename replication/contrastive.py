"""Contrastive language-image training of a CLIP on captioned pictures.

The demo's CLIP comes from here: the small instance of open_clip's class, about a minute on two
cores, on captions of the SEEN classes of doodles alone, so that unseen classes stay unseen.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor

from replication import backbones, data, losses, paths, retrieval, training


@pydantic_dataclass(frozen=True)
class Config:
    """AdamW with linear warm-up and cosine decay.

    captions: folder of COCO captions (`annotations/captions_<split>2014.json`) in data_root, or
    empty. data_name: a sketch set whose seen photos and sketches join with sentences of their
    class, or empty.
    """

    data_root: str = "data"
    captions: str = "doodles_captions/coco"
    split: str = "seen"
    data_name: str = "doodles"
    save_root: str = "result/pretrain"
    name: str = "clip"
    backbone: str = "doodle-clip"
    weights: str = "none"
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 16
    lr: float = 5e-4
    weight_decay: float = 0.1
    warmup: int = 50
    seed: int = 0
    precision: str = "auto"
    num_workers: int = 0


@dataclass(frozen=True)
class Source:
    """Pictures of one folder with their captions; `mirrored`: no caption speaks of a side."""

    images: data.Images
    captions: list[list[str]]
    mirrored: bool


def sources(config: Config) -> list[Source]:
    """What the config names; raises DatasetError for an absent set."""
    root, found = paths.user_path(config.data_root), []
    if config.captions:
        found.append(Source(*data.read_captions(root / config.captions, config.split), False))
    if config.data_name:
        seen = data.read_sketch_set(root, config.data_name).train
        found += [Source(seen.photo, class_captions(seen.photo, "photo"), True),
                  Source(seen.sketch, class_captions(seen.sketch, "drawing"), True)]
    if not found:
        raise ValueError("nothing to train on: give captions, data_name or both")
    return found


def class_captions(images: data.Images, kind: str) -> list[list[str]]:
    """Two sentences a picture: `a {class}`, the same in both domains, and `a {kind} of a {class}`.
    """
    names = [images.classes[label].replace("_", " ") for label in images.labels]
    return [[f"a {name}", f"a {kind} of a {name}"] for name in names]


class Captioned(torch.utils.data.Dataset):
    """Each picture once an epoch with one of its captions, half of those that may be mirrored;
    drawn from (seed, epoch). `group` is the caption's text: equal texts are not each other's
    negatives."""

    def __init__(self, pixels: np.ndarray, tokens: Tensor, text: np.ndarray, owner: np.ndarray,
                 mirrored: np.ndarray, seed: int, epoch: int):
        rng = np.random.default_rng([seed, epoch])
        first, count = np.searchsorted(owner, np.arange(len(pixels))), np.bincount(owner)
        self.pixels, self.tokens, self.text = pixels, tokens, text
        self.order = rng.permutation(len(pixels))
        self.caption = first + rng.integers(0, count)
        self.flip = mirrored & (rng.random(len(pixels)) < 0.5)

    def __len__(self) -> int:
        return len(self.order)

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        index = self.order[rows]
        pictures, flip = self.pixels[index], self.flip[index]
        pictures[flip] = pictures[flip, :, ::-1]
        text = self.text[self.caption[index]]
        return {"image": torch.from_numpy(pictures), "text": self.tokens[text],
                "group": torch.from_numpy(text), "row": torch.from_numpy(index)}


def train(config: Config, progress: bool = True) -> tuple[Path, training.Run]:
    """Trains and writes `<save_root>/<name>.safetensors`; continues a stopped run."""
    folder = paths.writable_folder(config.save_root) / config.name
    fabric = training.start(config.seed, precision=config.precision)
    backbone = backbones.clip(config.backbone, config.weights, config.seed)
    parts = sources(config)
    pixels = np.concatenate([data.cached_pixels(p.images, backbone.preprocess, progress=progress)
                             for p in parts])
    captions = [group for p in parts for group in p.captions]
    owner = np.repeat(np.arange(len(captions)), [len(group) for group in captions])
    texts, text = np.unique([c for group in captions for c in group], return_inverse=True)
    tokens = backbone.tokenizer(texts.tolist())
    mirrored = np.concatenate([np.full(len(p.images), p.mirrored) for p in parts])
    run = training.Run(folder, asdict(config) | {"data_root": "", "save_root": ""})
    model = backbone.model.requires_grad_(True)
    forward, adam = fabric.setup(model, _optimizer(model, config))
    n_batches = -(-len(pixels) // config.batch_size)
    count = iter(())  # replaced at each epoch: the step number that the schedule reads

    def batches_of(epoch: int):
        nonlocal count
        count = iter(range(epoch * n_batches, (epoch + 1) * n_batches))
        drawn = Captioned(pixels, tokens, text, owner, mirrored, config.seed, epoch)
        return data.batches(drawn, config.batch_size, num_workers=config.num_workers)

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        rate = config.lr * training.warmup_cosine(next(count), config.warmup,
                                                 n_batches * config.epochs)
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
    file = folder.with_suffix(".safetensors")
    paths.save_file(file, lambda tmp: training.write_tensors(model.state_dict(), tmp))
    return file, run


def _optimizer(model, config: Config) -> torch.optim.AdamW:
    """No weight decay on gains, biases, embeddings and the temperature (CLIP, table 18)."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay},
              {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), eps=1e-6, fused=True)


@torch.inference_mode()
def caption_recall(config: Config, file: Path, split: str = "val", k: int = 10
                   ) -> tuple[float, float, int]:
    """(text-to-image R@k %, chance %, pictures): captions of split `split`, which were not trained
    on, find their own picture among all of them."""
    root = paths.user_path(config.data_root)
    images, captions = data.read_captions(root / config.captions, split)
    backbone = backbones.clip(config.backbone, str(file))
    model, rule = backbone.model.eval(), backbone.preprocess
    pixels = torch.from_numpy(np.array(data.cached_pixels(images, rule)))
    gallery = torch.cat([model.encode_image(rule.normalised(p)) for p in pixels.split(256)])
    query = model.encode_text(backbone.tokenizer([c for group in captions for c in group]))
    owner = torch.tensor([i for i, group in enumerate(captions) for _ in group])
    found = retrieval.evaluate(query, gallery, owner, torch.arange(len(images)), names=(f"R@{k}",))
    recall = found.per_query["trec"][f"R@{k}"].mean()
    return 100 * float(recall), 100 * k / len(images), len(images)
