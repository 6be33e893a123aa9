"""An SPRC run: what it is made of, its training, its ranking."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor

from replication import backbones, data, paths, training
from replication.composed import TYPES, Composed, read_composed
from replication.composed_metrics import ComposedRanks, evaluate_composed
from replication.feature_store import FeatureStore
from replication.papers.sprc.checkpoint import load_official
from replication.papers.sprc.config import BACKBONES, Config
from replication.papers.sprc.encoders import ImageEncoder, image_encoder
from replication.papers.sprc.model import SPRC, similarity
from replication.papers.sprc.objectives import loss_terms
from replication.papers.sprc.qformer import QFormerConfig
from replication.papers.sprc.schedule import one_cycle
from replication.progress import bar
from replication.wordpiece import Encoded, WordPiece, build_vocabulary, read_wordpiece

Features = Callable[[np.ndarray], Float[Tensor, "b n w"]]


@dataclass(frozen=True)
class Experiment:
    """A configured run. `val` holds a set a FashionIQ type, one (under "") for CIRR. `about` is
    what its weights files say of themselves."""

    config: Config
    train: Composed
    val: dict[str, Composed]
    model: SPRC
    encoder: ImageEncoder
    wordpiece: WordPiece
    fabric: Fabric
    about: dict

    @property
    def folder(self) -> Path:
        return paths.user_path(self.config.save_root)

    @property
    def key(self) -> dict:
        """What decides the weights: a checkpoint continues a run with the same key."""
        return self.config.run_key() | {"start_sha256": self.about["start_sha256"],
                                        "manifest": self.train.manifest}

    def features(self, composed: Composed, progress: bool = True) -> Features:
        """A function from gallery rows to the frozen encoder's output: from the store that is made
        once, or (frozen_features=False) by the encoder, each time."""
        if self.config.frozen_features:
            return FeatureStore.open_or_build(composed.images, self.encoder, self.fabric.device,
                                              progress=progress).__getitem__
        pixels = data.cached_pixels(composed.images, self.encoder.preprocess, progress=progress)
        return lambda rows: self.encoded(torch.from_numpy(np.array(pixels[rows])))

    @torch.inference_mode()
    def encoded(self, pixels: Tensor) -> Float[Tensor, "b n w"]:
        """The frozen encoder on bytes (b h w 3), half precision, as the store keeps it."""
        images = self.encoder.preprocess.normalised(pixels.to(self.fabric.device))
        tower = self.encoder.model.to(self.fabric.device)
        kind = next(tower.parameters()).dtype
        return tower(images.to(kind)).half().cpu()

    def write_weights(self, file: Path) -> None:
        """All of SPRC's tensors under the published checkpoint's names."""
        header = {"about": json.dumps(self.about, sort_keys=True)}
        training.write_tensors(self.model.state_dict(), file, header)

    def load(self, selection: str) -> None:
        """Puts the weights of a selection into the model; raises as `backbones.load_own`."""
        backbones.load_own(self.model, self.folder / f"{selection}.safetensors", self.about,
                           "train.ipynb")

    @torch.inference_mode()
    def rank(self, composed: Composed, progress: bool = False) -> ComposedRanks:
        """The set's ranks with the weights that the model holds now."""
        query, target = self.vectors(composed, progress)

        def scores(rows: slice) -> Float[Tensor, "chunk gallery"]:
            return similarity(query[rows], target)

        return evaluate_composed(scores, composed, chunk=self.config.chunk)

    @torch.inference_mode()
    def vectors(self, composed: Composed, progress: bool = False
                ) -> tuple[Float[Tensor, "query e"], Float[Tensor, "gallery q e"]]:
        """Query features, and those of every gallery image, each encoded once."""
        model, found = self.model.eval(), self.features(composed, progress)
        text, device = self.wordpiece.encode(composed.texts), self.fabric.device
        target, query, size = [], [], self.config.chunk
        shown = bar(range(0, len(composed.images), size), label="encode gallery", shown=progress)
        for start in shown:
            rows = np.arange(start, min(start + size, len(composed.images)))
            with self.fabric.autocast():
                target.append(model.encode_target(found(rows).to(device)).float())
        for start in range(0, len(composed), size):
            rows = slice(start, start + size)
            given = [x.to(device) for x in (found(composed.reference[rows]), text.ids[rows],
                                            text.mask[rows])]
            with self.fabric.autocast():
                query.append(model.encode_query(*given).float())
        return torch.cat(query), torch.cat(target)

    def __str__(self) -> str:
        learns = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        e = self.encoder
        return (f"SPRC on {e.name} ({e.weights}), {e.tokens} tokens of {e.width}: {learns:,} "
                f"parameters learn; {len(self.wordpiece):,} word pieces\n{self.fabric.device}, "
                f"{training.precision_of(self.fabric)}")


class Triplets(torch.utils.data.Dataset):
    """Every training query once an epoch, in an order drawn from (seed, epoch)."""

    def __init__(self, composed: Composed, features: Features, text: Encoded, seed: int,
                 epoch: int):
        self.composed, self.features, self.text = composed, features, text
        self.order = np.random.default_rng([seed, epoch]).permutation(len(composed))

    def __len__(self) -> int:
        return len(self.order)

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        query = self.order[rows]
        return {"reference": self.features(self.composed.reference[query]),
                "target": self.features(self.composed.target[query]),
                "ids": self.text.ids[query], "mask": self.text.mask[query],
                "row": torch.from_numpy(query)}


def prepare(config: Config) -> Experiment:
    """Reads the sets, seeds, builds encoder and model; every input is checked before any work."""
    paths.writable_folder(config.save_root)
    train, val = read_sets(config)
    fabric = training.start(config.seed, accelerator=config.accelerator,
                            precision=config.precision,
                            devices=config.devices if training.distributed() else 1)
    encoder = image_encoder(BACKBONES.get(config.backbone, config.backbone), config.weights,
                            config.seed, transform=config.transform, ratio=config.target_ratio)
    wordpiece = vocabulary(config, train)
    model = build(config, encoder, len(wordpiece))
    about = {"paper": "sprc", "encoder": encoder.name, "encoder_sha256": encoder.sha256,
             "start_sha256": backbones.state_hash(model), "dataset": config.set_name}
    return Experiment(config, train, val, model.to(fabric.device), encoder, wordpiece, fabric,
                      about)


def read_sets(config: Config) -> tuple[Composed, dict[str, Composed]]:
    """Training queries of all types together, and the validation sets by type ("" for CIRR)."""
    def read(split: str, types: tuple[str, ...] = (), gallery: str = "split") -> Composed:
        return read_composed(config.data_path, config.set_name, split, types=types,
                             gallery=gallery, allow_missing=config.allow_missing)

    kinds = TYPES if config.fashion else ("",)
    return read("train"), {kind: read("val", (kind,) if kind else (), config.gallery)
                           for kind in kinds}


def vocabulary(config: Config, train: Composed) -> WordPiece:
    """bert-base-uncased's from its file, or the training captions' own."""
    if config.vocabulary:
        return read_wordpiece(config.vocabulary)
    texts = [caption for captions in train.captions for caption in captions]
    return WordPiece(build_vocabulary([*texts, *train.texts]))


def build(config: Config, encoder: ImageEncoder, n_tokens: int) -> SPRC:
    """The model at the config's size, random from its seed; from published weights where `weights`
    names them."""
    sizes = {k: getattr(config, k) for k in ("hidden_size", "num_hidden_layers",
                                             "num_attention_heads", "intermediate_size")}
    made = QFormerConfig(**sizes, vocab_size=n_tokens, encoder_width=encoder.width,
                         num_query_token=config.num_prompts,
                         hidden_dropout_prob=config.dropout,
                         attention_probs_dropout_prob=config.dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = SPRC(made, config.embed_dim)
    file = paths.user_path(config.weights)
    if file.suffix in (".pt", ".pth") and file.exists():
        load_official(model, torch.load(file, map_location="cpu", weights_only=True),
                      paths.shown(file))
    return model


def train(e: Experiment, progress: bool = True, select: bool = True) -> training.Run:
    """Trains to the last epoch, from the folder's checkpoint where it holds one of this run.

    select: evaluate every validation_frequency epochs and keep the best by the paper's mean.
    """
    c = e.config
    run = training.Run(e.folder, e.key)
    if c.devices > 1 and not training.distributed():
        training.launch("replication.papers.sprc.experiment", asdict(c), c.devices)
        run = training.Run(e.folder, e.key)
    features = e.features(e.train, progress)
    learned = [p for p in e.model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(learned, lr=c.learning_rate, betas=(c.beta1, c.beta2), eps=c.eps,
                             weight_decay=c.weight_decay)
    n_batches = max(1, len(e.train) // c.batch_size)  # an incomplete last one is left out
    schedule, steps = one_cycle(adam, c, n_batches), iter(())
    forward, adam = e.fabric.setup(e.model, adam)

    def batches_of(epoch: int):
        nonlocal steps
        e.model.train()
        steps = iter(range(epoch * n_batches, (epoch + 1) * n_batches))
        text = e.wordpiece.encode(e.train.training_texts(c.seed, epoch))
        triplets = Triplets(e.train, features, text, c.seed, epoch)
        whole = torch.utils.data.Subset(triplets,
                                        range(min(len(triplets), n_batches * c.batch_size)))
        return data.batches(whole, c.batch_size, num_workers=0,
                            rank=e.fabric.global_rank, world=e.fabric.world_size)

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        schedule(next(steps))
        found = forward(batch["reference"], batch["target"], batch["ids"], batch["mask"])
        terms = loss_terms(found, e.model.prompt_tokens, e.model.temp, itc_weight=c.loss_itc,
                           rtc_weight=c.loss_rtc, align_weight=c.loss_align)
        training.optimise(e.fabric, adam, terms["loss"], batch)
        return terms

    training.fit(e.fabric, run, {"sprc": e.model}, {"adam": adam}, batches_of, step,
                 epochs=c.num_epochs, progress=progress, after_epoch=selections(e, run, select))
    return run


def selections(e: Experiment, run: training.Run, select: bool):
    """An `after_epoch` that keeps the last weights, and the best by the paper's mean on val: CIRR's
    of the seven recalls, FashionIQ's of R@10 and R@50 over the types."""
    def after_epoch(epoch: int) -> dict[str, float]:
        figures = {}
        if select and (epoch + 1) % e.config.validation_frequency == 0:
            found = {kind: e.rank(composed).metrics() for kind, composed in e.val.items()}
            figures = {f"val {kind} {name}".replace("  ", " "): 100 * value
                       for kind, values in found.items() for name, value in values.items()}
            name = "Avg" if e.config.fashion else "Mean"
            run.keep_if_best("val", sum(v[name] for v in found.values()) / len(found),
                             e.write_weights)
        paths.save_file(run.weights("last"), e.write_weights)
        run.best["last"] = {"value": 0.0, "epoch": epoch + 1}
        return figures

    return after_epoch


if __name__ == "__main__":  # one of several processes, started by training.launch
    train(prepare(Config(**training.launched_config())))
