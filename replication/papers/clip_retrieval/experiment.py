"""A fine-tuning run: what it is made of, its training, its selections."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from replication import backbones, data, losses, paths, records, training
from replication.captioned import Captions, read_captioned
from replication.papers.clip_retrieval.checkpoint import starting_point
from replication.papers.clip_retrieval.config import Config
from replication.papers.clip_retrieval.encoding import Embedded, Encoder


@dataclass(frozen=True)
class Experiment:
    """A configured run. `about` is what its weights files say of themselves."""

    config: Config
    train: Captions
    dev: Captions | None
    test: Captions
    backbone: backbones.ClipBackbone
    fabric: Fabric
    about: dict

    @property
    def model(self) -> nn.Module:
        """The CLIP that is trained."""
        return self.backbone.model

    @property
    def folder(self) -> Path:
        """Where the run's checkpoint, log and weights lie."""
        return paths.user_path(self.config.checkpoint_path) / self.config.experiments

    @property
    def key(self) -> dict:
        """What decides the weights: a checkpoint continues a run with the same key."""
        return self.config.run_key() | {"weights_sha256": self.backbone.sha256,
                                        "manifest": self.train.manifest}

    @property
    def weights(self) -> records.Weights:
        """Name and hash of what the run starts from."""
        start = self.config.resume or self.config.weights
        return records.Weights(name=f"{self.backbone.name} {start}", sha256=self.backbone.sha256)

    @cached_property
    def encoder(self) -> Encoder:
        """What embeds images and captions with this model."""
        half = torch.bfloat16 if "bf16" in training.precision_of(self.fabric) else None
        return Encoder(self.backbone, self.fabric.device, half, self.config.eval_batch_size,
                       self.config.context_length)

    def embed(self, captions: Captions, progress: bool = False) -> Embedded:
        """The set's embeddings with the weights the model holds now."""
        return self.encoder.set(captions, self.config.prompt, progress)

    def write_weights(self, file: Path) -> None:
        """All tensors, under open_clip's names: any program that reads those reads the file."""
        about = json.dumps(self.about | {"name": self.config.name}, sort_keys=True)
        training.write_tensors(self.model.state_dict(), file, {"about": about})

    def load(self, selection: str) -> None:
        """Puts the weights of a selection into the model; raises as `backbones.load_own`."""
        backbones.load_own(self.model, self.folder / f"{selection}.safetensors", self.about,
                           "finetune.ipynb")

    def first_batch(self) -> dict[str, Tensor]:
        """The first pairs of training, pixels as bytes (b h w 3)."""
        pairs = Pairs(self.train, data.cached_pixels(self.train.images, self.backbone.preprocess),
                      self.encoder.tokens(self.train, self.config.prompt)[0], self.config.seed, 0,
                      self.config.flip)
        return pairs.__getitems__(list(range(min(self.config.batch_size, len(pairs)))))

    def __str__(self) -> str:
        count = sum(p.numel() for p in self.model.parameters())
        rule = self.backbone.preprocess
        gelu = "QuickGELU" if self.backbone.quick_gelu else "GELU"
        return (f"{self.backbone.name} from {self.weights.name}, {gelu}: {count:,} parameters, all "
                f"learn; {rule.size} px ({rule.resize}, {rule.interpolation})\n"
                f"{self.fabric.device}, {training.precision_of(self.fabric)}")


class Pairs(torch.utils.data.Dataset):
    """Every training caption once an epoch with its image. Order and mirroring depend on
    (seed, epoch) alone; `group` is the image: captions of one image are of one group."""

    def __init__(self, captions: Captions, pixels: np.ndarray, tokens: Tensor, seed: int,
                 epoch: int, flip: bool = False):
        rng = np.random.default_rng([seed, epoch])
        self.owner, self.pixels, self.tokens = captions.owner, pixels, tokens
        self.order = rng.permutation(len(captions.texts))
        self.mirrored = (rng.random(len(self.order)) < 0.5) & flip

    def __len__(self) -> int:
        return len(self.order)

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        caption = self.order[rows]
        image, mirrored = self.owner[caption], self.mirrored[rows]
        pictures = self.pixels[image]
        pictures[mirrored] = pictures[mirrored, :, ::-1]
        return {"image": torch.from_numpy(pictures), "text": self.tokens[caption],
                "group": torch.from_numpy(image), "row": torch.from_numpy(caption)}


def prepare(config: Config) -> Experiment:
    """Reads the sets, seeds, builds the model; every input is checked here, before any work."""
    paths.writable_folder(config.checkpoint_path)
    train, dev, test = read_sets(config)
    fabric = training.start(config.seed, accelerator=config.accelerator,
                            precision=config.precision,
                            devices=config.devices if training.distributed() else 1)
    backbone = starting_point(config)
    if config.grad_checkpointing:
        backbone.model.set_grad_checkpointing(True)
    backbone.model.requires_grad_(True).to(fabric.device)
    about = {"paper": "clip_retrieval", "model": backbone.name, "start_sha256": backbone.sha256,
             "quick_gelu": backbone.quick_gelu, "dataset": config.dataset}
    return Experiment(config, train, dev, test, backbone, fabric, about)


def read_sets(config: Config) -> tuple[Captions, Captions | None, Captions]:
    """Training, dev and test captions. Without a dev split on disk `dev_images` of the training
    images, drawn with seed 0, are kept out. Raises DatasetError where train and test share images.
    """
    def read(split: str) -> Captions:
        return read_captioned(config.dataset_root, config.dataset, split,
                              allow_partial=config.allow_partial)

    train, test = read(config.train_split), read(config.test_split)
    dev = None
    if config.dev_images:
        if not 0 < config.dev_images < len(train.images) - 1:
            raise data.DatasetError(f"dev_images={config.dev_images} of {len(train.images):,} "
                                    "training images leaves fewer than two")
        order = np.random.default_rng(0).permutation(len(train.images))
        dev = train.only(np.sort(order[:config.dev_images]), "held out")
        train = train.only(np.sort(order[config.dev_images:]), train.split)
    elif config.dev_split:
        dev = read(config.dev_split)
    for other in filter(None, (dev, test)):
        if both := sorted(set(train.images.files) & set(other.images.files)):
            raise data.DatasetError(f"{len(both):,} images are in {config.dataset} {train.split} "
                                    f"and {other.split}: {', '.join(both[:6])}")
    return train, dev, test


def rate_of(config: Config, n_captions: int, n_batches: int):
    """A function from (epoch, batch) to the share of the peak learning rate.

    `stated`: warm-up and cosine over the run's batches. `as-released`: the public code counts
    captions, so the total is captions x epochs and the step jumps by the captions of an epoch:
    within an epoch the rate hardly moves, from one to the next it falls by a stair of the cosine.
    """
    jump = n_batches if config.schedule == "stated" else n_captions
    total = jump * config.epochs
    return lambda epoch, batch: training.warmup_cosine(jump * epoch + batch, config.warmup, total)


@torch.no_grad()
def round_to_half(model: nn.Module) -> None:
    """Rounds what the public code holds in half precision between steps: weights and biases of
    convolutions, linear and attention layers and both projections; the rest stays float32."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.MultiheadAttention)
    chosen = {id(p): p for m in model.modules() if isinstance(m, kinds) for p in
              m.parameters(recurse=False)}
    chosen |= {id(p): p for name, p in model.named_parameters()
               if name.rsplit(".", 1)[-1] in ("text_projection", "proj")}
    for p in chosen.values():
        p.copy_(p.half())


def train(e: Experiment, progress: bool = True, select: bool = True) -> training.Run:
    """Trains to the last epoch, from the folder's checkpoint where it holds one of this run.

    select: evaluate dev and test every epoch and keep the best of each by mean R@1; without it
    only the last weights are kept.
    """
    c = e.config
    run = training.Run(e.folder, e.key)
    if c.devices > 1 and not training.distributed():
        training.launch("replication.papers.clip_retrieval.experiment", asdict(c), c.devices)
        run = training.Run(e.folder, e.key)
    pixels = data.cached_pixels(e.train.images, e.backbone.preprocess, progress=progress)
    tokens = e.encoder.tokens(e.train, c.prompt)[0]
    adam = torch.optim.AdamW(e.model.parameters(), lr=c.lr, betas=(c.beta1, c.beta2), eps=c.eps,
                             weight_decay=c.weight_decay, fused=e.fabric.device.type == "cuda")
    forward, adam = e.fabric.setup(torch.compile(e.model) if c.compile else e.model, adam)
    n_batches = max(1, len(e.train.texts) // c.batch_size)  # an incomplete last one is left out
    rate, places = rate_of(c, len(e.train.texts), n_batches), iter(())

    def batches_of(epoch: int):
        nonlocal places
        places = ((epoch, batch) for batch in range(n_batches))
        pairs = Pairs(e.train, pixels, tokens, c.seed, epoch, c.flip)
        whole = torch.utils.data.Subset(pairs, range(min(len(pairs), n_batches * c.batch_size)))
        return data.batches(whole, c.batch_size, rank=e.fabric.global_rank,
                            world=e.fabric.world_size, num_workers=c.num_workers,
                            pin=e.fabric.device.type == "cuda")

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        now = c.lr * rate(*next(places))
        for group in adam.param_groups:
            group["lr"] = now
        images, texts, scale = forward(e.backbone.preprocess.normalised(batch["image"]),
                                       batch["text"])[:3]
        loss = contrastive_loss(e.fabric, images, texts, scale, batch["group"], c.negatives)
        training.optimise(e.fabric, adam, loss, batch)
        if c.held == "half":
            round_to_half(e.model)
        return {"loss": loss, "learning rate": torch.tensor(now, device=loss.device)}

    training.fit(e.fabric, run, {"clip": e.model}, {"adam": adam}, batches_of, step,
                 epochs=0 if c.eval else c.epochs, progress=progress,
                 after_epoch=selections(e, run, select))
    return run


def contrastive_loss(fabric: Fabric, images: Tensor, texts: Tensor, scale: Tensor,
                     group: Tensor, negatives: str) -> Tensor:
    """The symmetric cross-entropy over the whole batch, which lies spread over the processes.

    Gathering keeps gradients: each process computes the same loss, and the mean of their
    gradients is that of one process with the whole batch.
    """
    if fabric.world_size > 1:
        images, texts = (fabric.all_gather(x, sync_grads=True).flatten(0, 1)
                         for x in (images, texts))
        group = fabric.all_gather(group).flatten(0, 1)
    same = group if negatives == "other images" else None
    return losses.symmetric_contrastive(images.float(), texts.float(), scale, same)


def selections(e: Experiment, run: training.Run, select: bool):
    """An `after_epoch` that keeps the last weights and the best by mean R@1 on dev and on test."""
    sets = {"test": e.test, "dev": e.dev} if select else {}

    def after_epoch(epoch: int) -> dict[str, float]:
        figures = {}
        for name, captions in sets.items():
            if captions is not None:
                values = e.embed(captions).ranks().metrics()
                run.keep_if_best(name, values["mean_R@1"], e.write_weights)
                figures |= {f"{name} {metric}": 100 * v for metric, v in values.items()}
        paths.save_file(run.weights("last"), e.write_weights)
        run.best["last"] = {"value": 0.0, "epoch": epoch + 1}
        return figures

    return after_epoch


if __name__ == "__main__":  # one of several processes, started by training.launch
    train(prepare(Config(**training.launched_config())))
