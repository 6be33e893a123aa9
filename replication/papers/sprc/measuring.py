"""What a run measures and records: trained weights, what they started from, and three baselines."""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from replication import backbones, paths, published, records, training
from replication.composed import Composed
from replication.composed_metrics import ComposedRanks, fashioniq_summary
from replication.data import DatasetError
from replication.papers.sprc.baselines import baselines, clip_vectors
from replication.papers.sprc.config import Config, Evaluate
from replication.papers.sprc.experiment import Experiment, read_sets
from replication.papers.sprc.retriever import Retriever, Vectors
from replication.papers.sprc.starting import trained_point
from replication.records import Metric

CIRR, FASHION_IQ = "cirr", "fashioniq"  # conventions
SPLITS = {("cirr", "test1"): "test"}  # as tables name it
Sets = dict[str, Composed]
"""Sets by the name of their split or type."""
Ranked = dict[str, ComposedRanks]
"""Ranks by the same names."""


@dataclass
class Results:
    """Rows of a record, the files they can be computed from again, and what there is to tell."""

    folder: Path
    sets: Sets
    rows: list[Metric] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ranked: dict[str, Ranked] = field(default_factory=dict)

    def add(self, vectors: dict[str, Vectors], variant: str, selection: str = "", chunk: int = 256
            ) -> Ranked:
        """Ranks of every set's queries, their rows, and the vectors in a file."""
        label = f"{variant} {selection}".strip()
        name = "-".join(filter(None, ("embeddings", variant, selection)))
        file = self.folder / f"{name}.safetensors"
        paths.save_file(file, lambda tmp: training.write_tensors(stored(vectors, self.sets), tmp))
        main = variant == "trained" and "embeddings" not in self.files
        parts = [] if main else [variant, *filter(None, (selection,))]
        self.files[":".join(["embeddings", *parts])] = file.name
        ranks = {kind: vectors[kind].ranks(own, chunk) for kind, own in self.sets.items()}
        self.rows += rows_of(ranks, self.sets, variant, selection)
        self.ranked[label] = ranks
        return ranks

    def table(self) -> pd.DataFrame:
        """Metrics down, rankings across, in percent."""
        frame = pd.DataFrame([(f"{m.variant} {m.selection}".strip(), m.metric, m.value)
                              for m in self.rows], columns=["ranking", "metric", "value"])
        made = frame.pivot_table(index="metric", columns="ranking", values="value", sort=False)
        return made.reindex(columns=dict.fromkeys(frame["ranking"])).round(1)


def rows_of(ranks: Ranked, sets: Sets, variant: str, selection: str = "") -> list[Metric]:
    """Recall in percent with 95 % intervals over queries: CIRR's eight and their mean, FashionIQ's
    by type and on average."""
    of = {"variant": variant, "selection": selection}
    if CIRR in ranks:
        return [_row(name, value, convention=CIRR, **of)
                for name, value in ranks[CIRR].summary().items()]
    rows = []
    for part, values in fashioniq_summary(ranks).items():
        own = {"n_query": len(sets[part]), "n_gallery": len(sets[part].images)} \
            if part in sets else {}
        rows += [_row(f"{part} {name}", value, convention=FASHION_IQ, **own, **of)
                 for name, value in values.items()]
    return rows


def _row(name: str, value: dict[str, float], **of) -> Metric:
    mean, low, high = (round(100 * value[key], 6) for key in ("mean", "low", "high"))
    return Metric(metric=name, value=mean, low=low, high=high, **of)


def stored(vectors: dict[str, Vectors], sets: Sets) -> dict[str, Tensor]:
    """What `verify` computes the ranks from: query, gallery and target of each set, CIRR's
    references and groups."""
    found = {}
    for kind, own in sets.items():
        found |= {f"{kind}.query": vectors[kind].query, f"{kind}.gallery": vectors[kind].gallery,
                  f"{kind}.target": torch.from_numpy(np.asarray(own.target))}
        if own.members is not None:
            found |= {f"{kind}.reference": torch.from_numpy(own.reference),
                      f"{kind}.members": torch.from_numpy(own.members)}
    return found


def dataset_facts(sets: Sets, n_train: int | None = None) -> records.Dataset:
    """The record's account of what was measured, FashionIQ's types together; `full` only where
    paper.yml's counts are met."""
    paper = published.read_paper(paths.BOOK / "sprc" / "paper.yml")
    first, each = next(iter(sets.values())), list(sets.values())
    n_query, n_gallery = (sum(map(len, x)) for x in (each, [own.images for own in each]))
    split = SPLITS.get((first.name, first.split), first.split)
    expected = paper.sets.get(first.name, {}).get(split)
    full = expected is not None and all(own.kind == "full" for own in each) and (
        expected.n_query, expected.n_gallery) == (n_query, n_gallery)
    kind = "demo" if first.kind == "demo" else "full" if full else "subset"
    files = {(str(own.images.folder), file) for own in each for file in own.images.files}
    return records.Dataset(name=first.name, split=split, kind=kind, n_query=n_query,
                           n_gallery=n_gallery, n_gallery_unique=len(files), n_train=n_train,
                           query="queries", gallery="images", manifest=_joined(each))


def _joined(sets: list[Composed]) -> str:
    names = "".join(own.manifest for own in sets)
    return sets[0].manifest if len(sets) == 1 else hashlib.sha256(names.encode()).hexdigest()


def notes_of(sets: Sets, retriever: Retriever) -> list[str]:
    """In words: images that were left out, texts that were cut or have no word."""
    notes = []
    for kind, own in sets.items():
        of = " ".join(dict.fromkeys((kind, own.split)))
        if own.left_out:
            told = " and ".join(f"{n:,} {what}" for what, n in own.left_out.items())
            notes.append(f"{of}: {told} were left out (allow_missing)")
        if cut := retriever.wordpiece.encode(own.texts).n_cut:
            notes.append(f"{of}: {cut:,} of {len(own):,} texts were cut to "
                         f"{retriever.wordpiece.max_tokens} tokens")
        if empty := own.counts["empty captions"]:
            notes.append(f"{of}: {empty:,} captions hold no word")
    return notes


# ------------------------------------------------------------------------------------ rankings


def encoded(retriever: Retriever, sets: Sets, progress: bool = False) -> dict[str, Vectors]:
    """Every set's vectors with the weights that the model holds now."""
    return {kind: retriever.vectors(own, progress) for kind, own in sets.items()}


def chance(sets: Sets, seed: int = 0) -> dict[str, Vectors]:
    """Random vectors: chance, measured under the very definitions of the other rows."""
    g = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> Tensor:
        return F.normalize(torch.randn(*shape, generator=g), dim=-1)

    return {kind: Vectors(unit(len(own), 64), unit(len(own.images), 1, 64))
            for kind, own in sets.items()}


def clip_baselines(name: str, weights: str, sets: Sets, device: torch.device
                   ) -> dict[str, dict[str, Vectors]]:
    """`image-only`, `text-only` and `sum`: cosines of a CLIP's vectors, by set."""
    clip, found = backbones.clip(name, weights), {}
    clip.model.to(device)
    for kind, own in sets.items():
        images, texts = (x.cpu() for x in clip_vectors(clip, own, device))
        for variant, query in baselines(images, texts, own).items():
            found.setdefault(variant, {})[kind] = Vectors(query, images[:, None])
    return found


def measure(e: Experiment, run: training.Run, start: dict[str, Vectors]) -> Results:
    """Trained, for each selection, the reported one first; then where the run started, chance, and
    the baselines of the CLIP that the config names (none for an empty name)."""
    results, chosen = Results(e.folder, e.val), e.config.selection
    chunk = e.config.chunk
    if run.best and chosen not in run.best:
        raise ValueError(f"selection={chosen!r}: the run kept {', '.join(run.best)}")
    for selection in sorted(run.best, key=lambda s: (s != chosen, s)):
        e.load(selection)
        results.add(encoded(e.retriever, e.val), "trained", selection, chunk)
    results.add(start, "untrained", chunk=chunk)
    results.add(chance(e.val), "chance", chunk=chunk)
    if e.config.baseline:
        for variant, vectors in clip_baselines(e.config.baseline, e.config.baseline_weights, e.val,
                                               e.retriever.fabric.device).items():
            results.add(vectors, variant, chunk=chunk)
    results.notes = notes_of({"train": e.train, **e.val}, e.retriever)
    return results


def measure_selected(e: Experiment) -> tuple[Results]:
    """Only the config's selection: enough to compare choices."""
    e.load(e.config.selection)
    results = Results(e.folder, e.val)
    results.add(encoded(e.retriever, e.val), "trained", e.config.selection, e.config.chunk)
    return (results,)


class Opened(NamedTuple):
    """A checkpoint ready to rank, what its record says of it, which epoch's it is (`val`: the best
    on val, as the authors' are; `last`; empty: not known), and what differs from its training."""

    retriever: Retriever
    weights: records.Weights
    selection: str
    notes: list[str]


def opened(config: Evaluate) -> Opened:
    """The checkpoint in model_path. Raises as `starting.trained_point`."""
    fabric = training.start(config.seed, accelerator=config.accelerator,
                            precision=config.precision)
    model, encoder, words, about = trained_point(config)
    file = paths.user_path(config.model_path)
    weights = records.Weights(name=paths.shown(file), sha256=backbones.state_hash(model))
    retriever = Retriever(model.to(fabric.device), encoder, words, fabric, config.frozen_features,
                          config.chunk)
    now, own = encoder.preprocess.digest(), file.stem if file.stem in ("val", "last") else ""
    notes = [f"trained with another transform than {config.transform} {config.target_ratio}"] \
        if about.get("preprocess", now) != now else []
    return Opened(retriever, weights, own if about else "val", notes)


def evaluate(config: Evaluate, progress: bool = True) -> tuple[Opened, Results]:
    """A checkpoint, measured. Raises as `opened` and `read_composed`."""
    folder, sets = paths.writable_folder(config.save_root), read_sets(config, config.split)
    if any(own.target is None for own in sets.values()):
        raise DatasetError(f"the targets of {config.dataset} {config.split} are private: "
                           "submit.ipynb writes the files that CIRR's server takes")
    checkpoint = opened(config)
    results = Results(folder, sets)
    results.add(encoded(checkpoint.retriever, sets, progress), "trained", checkpoint.selection,
                config.chunk)
    results.notes = notes_of(sets, checkpoint.retriever) + checkpoint.notes
    return checkpoint, results


# ------------------------------------------------------------------------------------- records


def record(e: Experiment, run: training.Run, results: Results, started: str,
           seconds_evaluate: float) -> records.RunRecord:
    """The run's record, written as `record.json` beside the weights."""
    seconds = sum(row["seconds"] for row in run.history)
    pairs = len(e.train) * len(run.history)
    cost = records.Cost(seconds_train=round(seconds, 2),
                        items_per_second=round(pairs / seconds, 2) if seconds else None,
                        seconds_evaluate=round(seconds_evaluate, 2),
                        peak_memory_bytes=training.peak_memory(e.retriever.fabric.device),
                        **training.energy_cost(run, e.retriever.fabric.device))
    return written(results, e.config, e.weights, dataset_facts(e.val, len(e.train)), cost,
                   e.retriever.fabric.device, started)


def evaluation_record(config: Evaluate, checkpoint: Opened, results: Results, started: str,
                      seconds: float) -> records.RunRecord:
    """The record of a measured checkpoint, written as `record.json`."""
    device = checkpoint.retriever.fabric.device
    cost = records.Cost(seconds_evaluate=round(seconds, 2),
                        peak_memory_bytes=training.peak_memory(device))
    made = dataset_facts(results.sets)
    return written(results, config, checkpoint.weights, made, cost, device, started,
                   f"{made.name}-checkpoint")


def written(results: Results, config: Config | Evaluate, weights: records.Weights,
            dataset: records.Dataset, cost: records.Cost, device: torch.device, started: str,
            experiment: str = "") -> records.RunRecord:
    """A record of results, on disk. Its protocol is its sets', its experiment is called like its
    set, unless it is named."""
    protocol = next(iter(results.sets.values())).protocol
    made = records.RunRecord(
        paper="sprc", experiment=experiment or dataset.name, parameters=asdict(config),
        seed=config.seed, dataset=dataset, protocol=protocol, metrics=results.rows,
        weights=weights, cost=cost,
        environment=records.environment(device=training.device_name(device)),
        files={k: paths.shown(results.folder / v) for k, v in results.files.items()},
        notes=results.notes, started=started, finished=records.utc_now())
    records.write_record(made, results.folder / "record.json")
    return made
