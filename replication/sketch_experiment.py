"""One run of a sketch paper: what it is made of, what it measures, what it records, one query.

A paper's `prepare(config)` returns an Experiment; its `train(experiment)` trains it.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from replication import paths, published, records, sketch_retrieval, training
from replication.data import SketchSet, Split, Triplets, cached_pixels
from replication.metrics import Convention
from replication.plots import Picture
from replication.sketch_retrieval import Embedded, Gallery, Ranking, Results
from replication.transforms import Preprocess


@dataclass(frozen=True)
class Experiment:
    """A configured run. `model` has encode_sketch and encode_photo; `about` is what its weights
    file says of itself, and what a file is asked for before it is loaded. A config without
    `devices` is trained in one process."""

    paper: str
    config: Any
    name: str
    sketch_set: SketchSet
    train: Split
    held_out: Split | None
    model: nn.Module
    preprocess: Preprocess
    fabric: Fabric
    weights: records.Weights
    about: dict
    convention: Convention

    @property
    def folder(self) -> Path:
        """Where the run's checkpoint, log and weights lie."""
        return paths.user_path(self.config.save_root) / self.name

    @property
    def key(self) -> dict:
        """What decides the weights: a checkpoint continues a run with the same key."""
        return self.config.run_key() | {"weights_sha256": self.weights.sha256,
                                        "manifest": self.sketch_set.manifest}

    def embed(self, split: Split, progress: bool = False) -> Embedded:
        """The split's embeddings with the weights the model holds now, in evaluation mode."""
        half = torch.bfloat16 if "bf16" in training.precision_of(self.fabric) else None
        with training.evaluating(self.model) as model:
            return sketch_retrieval.embed(model.encode_sketch, model.encode_photo, split,
                                          self.preprocess, device=self.fabric.device,
                                          autocast=half, progress=progress)

    def four_metrics(self, split: Split) -> dict[str, float]:
        """The split measured in the paper's convention with the weights the model holds now."""
        return sketch_retrieval.four_metrics(self.embed(split), self.convention)

    def splits(self) -> dict[str, Split]:
        """What each epoch is evaluated on: unseen classes, and held-out seen ones."""
        held_out = {"seen": self.held_out} if self.held_out else {}
        return {"unseen": self.sketch_set.val, **held_out}

    def write_weights(self, file: Path) -> None:
        """Writes the trainable weights with the facts that reading them checks."""
        training.write_weights(self.model, self.about, file)

    def load(self, selection: str) -> None:
        """Puts the weights of a selection into the model.

        Raises FileNotFoundError for an absent file, ValueError for one of another model.
        """
        file = self.folder / f"{selection}.safetensors"
        if not file.exists():
            raise FileNotFoundError(f"no checkpoint {paths.shown(file)}: run train.ipynb with the "
                                    "same parameters first" + _others(file))
        state, about = training.read_weights(file)
        if wrong := differences(about, self.about):
            raise ValueError(f"{paths.shown(file)} is of another model: {wrong}")
        training.load_trainable(self.model, state)

    def first_batch(self) -> dict[str, torch.Tensor]:
        """The first triplets of training, as pixels (uint8, b h w 3)."""
        pixels = [cached_pixels(i, self.preprocess) for i in (self.train.sketch, self.train.photo)]
        triplets = Triplets(self.train, *pixels, self.config.seed, 0)
        return triplets.__getitems__(list(range(min(self.config.batch_size, len(triplets)))))

    def __str__(self) -> str:
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in self.model.parameters())
        held = f", {len(self.held_out.classes)} seen classes held out" if self.held_out else ""
        return (f"{type(self.model).__name__} on {self.weights.name}: {trained:,} of {total:,} "
                f"parameters learn\n{len(self.train.sketch):,} training sketches{held}; "
                f"{self.fabric.device}, {training.precision_of(self.fabric)}")


def differences(found: dict, asked: dict) -> str:
    """In words, where what a file says of itself is not what is asked; empty where it is."""
    return "; ".join(f"{k} is {found.get(k)!r}, asked {v!r}" for k, v in asked.items()
                     if found.get(k) != v)


def _others(file: Path) -> str:
    there = sorted(p.stem for p in file.parent.glob("*.safetensors") if "embed" not in p.stem)
    return f" (that folder holds: {', '.join(there)})" if there else ""


def drawn_seed(config):
    """The config with a seed of -1 replaced by a drawn one, so that the run can be repeated."""
    return config if config.seed >= 0 else replace(config, seed=int(np.random.randint(2**31)))


def begun(e: Experiment, progress: bool = True) -> tuple[training.Run, list[np.ndarray]]:
    """(the run in the experiment's folder, pixels of the training sketches and photos).

    With several devices the training is done when this returns: torchrun has run the paper's
    module in as many processes. Raises ValueError where the selection lacks its classes.
    """
    c = e.config
    if c.selection == "seen" and not e.held_out:
        raise ValueError("selection='seen' needs held-out seen classes: set val_classes to 2 or "
                         "more (a tenth of the seen classes is usual)")
    run = training.Run(e.folder, e.key)
    if getattr(c, "devices", 1) > 1 and not training.distributed():
        training.launch(f"replication.papers.{e.paper}", asdict(c), c.devices)
        run = training.Run(e.folder, e.key)
    return run, [cached_pixels(images, e.preprocess, progress=progress)
                 for images in (e.train.sketch, e.train.photo)]


def measure(e: Experiment, run: training.Run, untrained: Embedded) -> tuple[Results, Embedded]:
    """Every row of the record, and the embeddings of the selection that is reported.

    Trained on the unseen classes, for each selection; the generalised and the fine-grained
    setting with the reported weights; untrained, pixels and chance beside them.
    """
    results, chosen = Results([], {}, e.folder, e.about), e.config.selection
    if chosen not in run.best:
        raise ValueError(f"selection={chosen!r}: the run kept {', '.join(run.best)}")
    reported = _selected(e, chosen)
    results.add(reported, "trained", chosen)
    for selection in (s for s in sorted(run.best) if s != chosen):
        results.add(_selected(e, selection), "trained", selection)
    e.load(chosen)
    seen = e.embed(e.sketch_set.train)
    full = e.embed(e.sketch_set.val)
    results.add(sketch_retrieval.generalised(full, seen), "trained", chosen, "generalised")
    floors = {"untrained": untrained, "pixels": sketch_retrieval.pixel_floor(e.sketch_set.val),
              "chance": sketch_retrieval.random_floor(e.sketch_set.val)}
    if results.instances(full):
        results.add(full, "trained", chosen, "fine-grained")
    for variant, embedded in floors.items():
        results.add(embedded, variant, save=variant == "untrained")
        if results.instances(full):
            results.add(embedded, variant, "", "fine-grained", save=False)
    return results, reported


def measure_selected(e: Experiment) -> tuple[Results, Embedded]:
    """Only the config's selection on the unseen classes: enough to compare choices."""
    results = Results([], {}, e.folder, e.about)
    embedded = _selected(e, e.config.selection)
    results.add(embedded, "trained", e.config.selection)
    return results, embedded


def _selected(e: Experiment, selection: str) -> Embedded:
    e.load(selection)
    embedded = e.embed(e.sketch_set.val)
    one = getattr(e.config, "gallery", "all") == "one-per-sketch"
    return sketch_retrieval.one_photo_a_sketch(embedded) if one else embedded


def record(e: Experiment, run: training.Run, results: Results, reported: Ranking, started: str,
           seconds_evaluate: float) -> records.RunRecord:
    """The run's record, written as `record.json` beside the weights."""
    split = reported.split
    paper = published.read_paper(paths.BOOK / e.paper / "paper.yml")
    seconds = sum(row["seconds"] for row in run.history)
    items = getattr(e.config, "datasetLen", len(e.train.sketch))  # an epoch
    rate = round(items * len(run.history) / seconds, 2) if seconds else None
    cost = records.Cost(seconds_train=round(seconds, 2), items_per_second=rate,
                        seconds_evaluate=round(seconds_evaluate, 2),
                        peak_memory_bytes=training.peak_memory(e.fabric.device),
                        **training.energy_cost(run, e.fabric.device))
    whole = getattr(e.config, "gallery", "all") == "all"
    made = records.RunRecord(
        paper=e.paper, experiment=e.sketch_set.name, parameters=asdict(e.config),
        seed=e.config.seed, protocol="zero-shot" if whole else "one photo a sketch",
        metrics=results.rows, weights=e.weights, cost=cost,
        dataset=sketch_retrieval.dataset_facts(e.sketch_set, split, len(e.train.sketch), paper),
        environment=records.environment(device=training.device_name(e.fabric.device)),
        files={k: paths.shown(e.folder / v) for k, v in results.files.items()},
        started=started, finished=records.utc_now())
    records.write_record(made, e.folder / "record.json")
    return made


# --------------------------------------------------------------------------------- one query


def saved_gallery(e: Experiment) -> Gallery:
    """The gallery vectors that training saved for the config's selection."""
    chosen = e.config.selection
    files = [e.folder / f"embeddings-trained-{chosen}.safetensors",
             e.folder / "embeddings.safetensors"]
    return sketch_retrieval.load_gallery(next((f for f in files if f.exists()), files[-1]))


def query_of(e: Experiment, query_name: str) -> tuple[Path, str]:
    """The query's file and class; an empty name draws an unseen sketch with the config's seed."""
    sketches = e.sketch_set.val.sketch
    if not query_name:
        query_name = sketches.files[np.random.default_rng(e.config.seed).integers(len(sketches))]
    return sketch_retrieval.query_image(query_name, e.sketch_set.val)


def nearest(e: Experiment, query: Path, query_class: str, gallery: Gallery, k: int,
            domain: str = "sketch") -> list[tuple[Path, bool | None, str, float]]:
    """The `k` best photos: file, right or wrong (None: the query has no class), class, cosine."""
    encoders = {"sketch": e.model.encode_sketch, "photo": e.model.encode_photo}
    if domain not in encoders:
        raise ValueError(f"domain={domain!r}: choose 'sketch' or 'photo'")
    e.load(e.config.selection)
    with training.evaluating(e.model):
        indices, scores = sketch_retrieval.ranked(encoders[domain], query, gallery, e.preprocess,
                                                  k, e.fabric.device, domain)
    names = [gallery.classes[gallery.labels[i]] for i in indices]
    return [(e.sketch_set.val.photo.folder / gallery.files[i],
             name == query_class if query_class else None, name, float(score))
            for i, name, score in zip(indices, names, scores, strict=True)]


def save_picture(e: Experiment, picture: Picture, name: str) -> Path:
    """Saves a ranked result as `<run folder>/retrieved/<name>.png`."""
    file = e.folder / "retrieved" / f"{name}.png"
    return paths.save_file(file, lambda tmp: picture.figure.savefig(tmp, format="png"))
