"""An SPRC run: what it is made of, its training, its selections."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from replication import backbones, data, paths, records, training
from replication.composed import TYPES, Composed, read_composed
from replication.papers.sprc.config import Config, Evaluate
from replication.papers.sprc.model import Features
from replication.papers.sprc.objectives import loss_terms
from replication.papers.sprc.retriever import Encode, Retriever, trimmed
from replication.papers.sprc.schedule import one_cycle
from replication.papers.sprc.starting import starting_point
from replication.wordpiece import Encoded, write_vocabulary


@dataclass(frozen=True)
class Experiment:
    """A configured run. `val` holds a set a FashionIQ type, one (called `cirr`) for CIRR. `about`
    is what its weights files say of themselves."""

    config: Config
    train: Composed
    val: dict[str, Composed]
    retriever: Retriever
    about: dict

    @property
    def folder(self) -> Path:
        """Where the run's checkpoint, log and weights lie."""
        return paths.user_path(self.config.save_root)

    @property
    def key(self) -> dict:
        """What decides the weights: a checkpoint continues a run with the same key."""
        return self.config.run_key() | {"start_sha256": self.about["start_sha256"],
                                        "encoder_sha256": self.about["encoder_sha256"],
                                        "manifest": self.train.manifest}

    @property
    def weights(self) -> records.Weights:
        """Name and hash of what the run starts from."""
        encoder = self.retriever.encoder
        name = f"Q-Former {self.config.weights}, {encoder.name} {encoder.weights}"
        return records.Weights(name=name, sha256=self.about["start_sha256"])

    def write_weights(self, file: Path) -> None:
        """All of SPRC's tensors under the published checkpoint's names."""
        header = {"about": json.dumps(self.about, sort_keys=True)}
        training.write_tensors(self.retriever.model.state_dict(), file, header)

    def load(self, selection: str) -> None:
        """Puts the weights of a selection into the model; raises as `backbones.load_own`."""
        backbones.load_own(self.retriever.model, self.folder / f"{selection}.safetensors",
                           self.about, "train.ipynb")

    def first_batch(self) -> dict[str, Tensor]:
        """The first triplets of training."""
        text = self.retriever.wordpiece.encode(self.train.training_texts(self.config.seed, 0))
        triplets = Triplets(self.train, self.retriever.features(self.train), text,
                            self.config.seed, 0)
        return triplets.__getitems__(list(range(min(self.config.batch_size, len(triplets)))))

    def __str__(self) -> str:
        return str(self.retriever)


class Triplets(torch.utils.data.Dataset):
    """Every training query once an epoch, in an order drawn from (seed, epoch)."""

    def __init__(self, composed: Composed, features: Encode, text: Encoded, seed: int,
                 epoch: int):
        self.composed, self.features, self.text = composed, features, text
        self.order = np.random.default_rng([seed, epoch]).permutation(len(composed))

    def __len__(self) -> int:
        return len(self.order)

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        query = self.order[rows]
        ids, mask = trimmed(self.text.ids[query], self.text.mask[query])
        return {"reference": self.features(self.composed.reference[query]),
                "target": self.features(self.composed.target[query]),
                "ids": ids, "mask": mask, "row": torch.from_numpy(query)}


def prepare(config: Config) -> Experiment:
    """Reads the sets, seeds, builds encoder and model; every input is checked before any work."""
    paths.writable_folder(config.save_root)
    train = read_set(config, "train")
    val = read_sets(config)
    fabric = training.start(config.seed, accelerator=config.accelerator,
                            precision=config.precision,
                            devices=config.devices if training.distributed() else 1)
    model, encoder, words = starting_point(config, train)
    about = {"paper": "sprc", "dataset": config.set_name, "encoder": encoder.name,
             "encoder_sha256": encoder.sha256, "image_weights": encoder.weights,
             "start_sha256": backbones.state_hash(model),
             "num_attention_heads": config.num_attention_heads,
             "preprocess": encoder.preprocess.digest()}
    retriever = Retriever(model.to(fabric.device), encoder, words, fabric, config.frozen_features,
                          config.chunk)
    return Experiment(config, train, val, retriever, about)


def read_set(config: Config | Evaluate, split: str, kind: str = "", gallery: str = "split"
             ) -> Composed:
    """One set of the config's data_path; raises DatasetError."""
    return read_composed(config.data_path, config.set_name, split, types=(kind,) if kind else (),
                         gallery=gallery, allow_missing=config.allow_missing)


def read_sets(config: Config | Evaluate, split: str = "val") -> dict[str, Composed]:
    """The sets that a split is measured on: one a FashionIQ type, `cirr` for CIRR."""
    if not config.fashion:
        return {"cirr": read_set(config, split, gallery=config.gallery)}
    return {kind: read_set(config, split, kind, config.gallery) for kind in TYPES}


def train(e: Experiment, progress: bool = True, select: bool = True) -> training.Run:
    """Trains to the last epoch, from the folder's checkpoint where it holds one of this run.

    select: evaluate every validation_frequency epochs and keep the best by the paper's mean.
    """
    c = e.config
    run = training.Run(e.folder, e.key)
    if c.devices > 1 and not training.distributed():
        training.launch("replication.papers.sprc.experiment", asdict(c), c.devices)
        run = training.Run(e.folder, e.key)
    retriever, model = e.retriever, e.retriever.model
    fabric = retriever.fabric
    write_vocabulary(e.folder / "vocab.txt", retriever.wordpiece.tokens)
    features = retriever.features(e.train, progress)
    learned = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(learned, lr=c.learning_rate, betas=(c.beta1, c.beta2), eps=c.eps,
                             weight_decay=c.weight_decay, fused=fabric.device.type == "cuda")
    n_batches = max(1, len(e.train) // c.batch_size)  # an incomplete last one is left out
    schedule, steps = one_cycle(adam, c, n_batches), iter(())
    forward, adam = fabric.setup(model, adam)

    def batches_of(epoch: int):
        nonlocal steps
        model.train()
        steps = iter(range(epoch * n_batches, (epoch + 1) * n_batches))
        text = retriever.wordpiece.encode(e.train.training_texts(c.seed, epoch))
        triplets = Triplets(e.train, features, text, c.seed, epoch)
        whole = torch.utils.data.Subset(triplets,
                                        range(min(len(triplets), n_batches * c.batch_size)))
        return data.batches(whole, c.batch_size, rank=fabric.global_rank, world=fabric.world_size,
                            num_workers=c.num_workers if c.frozen_features else 0,
                            pin=fabric.device.type == "cuda")

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        schedule(next(steps))
        found = forward(batch["reference"], batch["target"], batch["ids"], batch["mask"])
        found = gathered(fabric, found)
        terms = loss_terms(found, model.prompt_tokens, model.temp, itc_weight=c.loss_itc,
                           rtc_weight=c.loss_rtc, align_weight=c.loss_align)
        training.optimise(fabric, adam, terms["loss"], batch)
        return terms

    training.fit(fabric, run, {"sprc": model}, {"adam": adam}, batches_of, step,
                 epochs=c.num_epochs, progress=progress, after_epoch=selections(e, run, select))
    return run


def gathered(fabric: Fabric, features: Features) -> Features:
    """What the contrastive losses compare, of all processes: the batch's other targets are the
    negatives, wherever they lie. Gathering keeps gradients; `prompt` stays each process's own, its
    loss is a mean over items."""
    if fabric.world_size == 1:
        return features
    query, prompted, target = (fabric.all_gather(x, sync_grads=True).flatten(0, 1)
                               for x in features[:3])
    return Features(query, prompted, target, features.prompt)


def selections(e: Experiment, run: training.Run, select: bool):
    """An `after_epoch` that keeps the last weights, and the best by the paper's mean on val: CIRR's
    of the seven recalls, FashionIQ's of R@10 and R@50 over the types."""
    def after_epoch(epoch: int) -> dict[str, float]:
        figures = {}
        if select and (epoch + 1) % e.config.validation_frequency == 0:
            found = {kind: e.retriever.vectors(composed).ranks(composed, e.config.chunk).metrics()
                     for kind, composed in e.val.items()}
            figures = {f"val {kind} {name}": 100 * value
                       for kind, values in found.items() for name, value in values.items()}
            name = "Avg" if e.config.fashion else "Mean"
            run.keep_if_best("val", sum(v[name] for v in found.values()) / len(found),
                             e.write_weights)
            if e.config.save_training and not e.config.save_best:
                paths.save_file(run.weights(f"epoch-{epoch + 1}"), e.write_weights)
        paths.save_file(run.weights("last"), e.write_weights)
        run.best["last"] = {"value": 0.0, "epoch": epoch + 1}
        return figures

    return after_epoch


if __name__ == "__main__":  # one of several processes, started by training.launch
    train(prepare(Config(**training.launched_config())))
