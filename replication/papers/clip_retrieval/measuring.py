"""What a run measures and records: fine-tuned weights, or a list of models as they come."""

import hashlib
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from replication import backbones, paths, published, records, training
from replication.captioned import Captions, read_captioned
from replication.image_text import FOLDS
from replication.papers.clip_retrieval.checkpoint import FORCED
from replication.papers.clip_retrieval.config import RAW, ZeroShot
from replication.papers.clip_retrieval.encoding import Embedded, Encoder, saved
from replication.papers.clip_retrieval.experiment import Experiment
from replication.progress import bar
from replication.records import Metric

TABLE = ("i2t_R@1", "i2t_R@5", "i2t_R@10", "t2i_R@1", "t2i_R@5", "t2i_R@10", "mean_R@1")
SPLITS = {("coco", "test"): "5k-test", ("flickr30k", "test"): "1k-test"}  # as tables name them
ZERO_SHOT, FINE_TUNED, HALF = "zero-shot", "fine-tuned", "half-precision scores"


@dataclass
class Results:
    """Rows of a record, the files they can be computed from again, and what there is to tell.
    `reported` is the ranking that was added first."""

    folder: Path
    protocol: str
    rows: list[Metric] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    reported: Embedded | None = None

    def add(self, embedded: Embedded, variant: str, selection: str = "", protocol: str = "",
            file: Path | None = None, *, half: bool = False) -> None:
        """Appends the ranking's rows: in one, and where the images allow it in five folds."""
        for convention, n_folds in FOLDS.items():
            if len(embedded.images) % n_folds == 0 and not (half and n_folds > 1):
                self.rows += rows_of(embedded, convention, variant, selection, protocol, half)
        self.reported = self.reported or embedded
        if file is not None:
            main = variant in ("", "trained") and "embeddings" not in self.files
            parts = [] if main else [variant, *filter(None, (selection, protocol))]
            self.files[":".join(["embeddings", *parts])] = file.name

    def table(self, convention: str = "image_text") -> pd.DataFrame:
        """Rankings down, recall across, in percent, and the median ranks."""
        chosen = [(m.protocol or self.protocol, f"{m.variant} {m.selection}".strip(), m.metric,
                   m.value) for m in self.rows if m.convention == convention]
        frame = pd.DataFrame(chosen, columns=["protocol", "ranking", "metric", "value"])
        if frame.empty:
            return frame
        return frame.pivot_table(index=["protocol", "ranking"], columns="metric", values="value",
                                 sort=False).round(2)


def rows_of(embedded: Embedded, convention: str, variant: str, selection: str = "",
            protocol: str = "", half: bool = False) -> list[Metric]:
    """Recall both ways in percent and median ranks, with 95 % intervals over images."""
    ranks = embedded.ranks(FOLDS[convention], half)
    of = {"convention": convention, "variant": variant, "selection": selection,
          "protocol": protocol}
    rows = [Metric(metric=name, value=round(100 * v["mean"], 6), low=round(100 * v["low"], 6),
                   high=round(100 * v["high"], 6), **of) for name, v in ranks.summary().items()]
    intervals = ranks.median_intervals()
    return rows + [Metric(metric=f"{side}_median_rank", unit="rank", value=value,
                          low=min(value, intervals[side][0]), high=max(value, intervals[side][1]),
                          **of) for side, value in ranks.median_ranks().items()]


def chance(captions: Captions, seed: int = 0) -> Embedded:
    """Random vectors: chance, measured under the very definitions of the other rows."""
    g = torch.Generator().manual_seed(seed)
    images, texts = (F.normalize(torch.randn(n, 64, generator=g))
                     for n in (len(captions.images), len(captions.texts)))
    return Embedded(images, texts, captions.owner)


def cut_note(cut: list[int], captions: Captions, model: str) -> str:
    """In words, the captions that are longer than the context; empty for none."""
    if not cut:
        return ""
    first = captions.texts[cut[0]]
    return (f"{model}: {len(cut):,} of {len(captions.texts):,} captions of {captions.split} are "
            f"longer than the context and were cut, as {first[:60]!r}")


def dataset_facts(captions: Captions, n_train: int | None = None) -> records.Dataset:
    """The record's account of the set; `full` only for an official split of a published table."""
    paper = published.read_paper(paths.BOOK / "clip_retrieval" / "paper.yml")
    split = SPLITS.get((captions.name, captions.split), captions.split)
    counts, expected = captions.counts, paper.sets.get(captions.name, {}).get(split)
    full = expected is not None and captions.kind == "full" and (
        expected.n_query, expected.n_gallery) == (counts["images"], counts["captions"])
    kind = "demo" if captions.kind == "demo" else "full" if full else "subset"
    return records.Dataset(name=captions.name, split=split, kind=kind, n_query=counts["images"],
                           n_gallery=counts["captions"], query="images", gallery="captions",
                           n_gallery_unique=counts["different captions"], n_train=n_train,
                           manifest=captions.manifest)


# ------------------------------------------------------------------------------- fine-tuned


def start_of(e: Experiment, progress: bool = True) -> Embedded:
    """The test set with the weights that the run starts from."""
    return e.embed(e.test, progress)


def measure(e: Experiment, run: training.Run, start: Embedded) -> Results:
    """Trained, for each selection, the reported one first; the start and chance beside them."""
    results, chosen = Results(e.folder, FINE_TUNED), e.config.selection
    if run.best and chosen not in run.best:
        raise ValueError(f"selection={chosen!r}: the run kept {', '.join(run.best)}")
    for selection in sorted(run.best, key=lambda s: (s != chosen, s)):
        e.load(selection)
        _kept(results, e, e.embed(e.test), "trained", selection)
    measured = e.config.eval and e.config.resume  # a checkpoint that somebody has trained
    scratch = e.config.weights == "none" and not e.config.resume
    began = "trained" if measured else "untrained" if scratch else "zero-shot"
    _kept(results, e, start, began, "last" if measured else "")
    results.add(chance(e.test), "chance")
    for captions in (e.train, e.test):
        cut = e.encoder.tokens(captions, e.config.prompt)[1]
        results.notes.append(cut_note(cut, captions, e.backbone.name))
    results.notes = [note for note in results.notes if note]
    return results


def measure_selected(e: Experiment) -> tuple[Results]:
    """Only the config's selection, and its scores in half precision beside it: enough to compare
    choices."""
    selection = e.config.selection
    e.load(selection)
    results, embedded = Results(e.folder, FINE_TUNED), e.embed(e.test)
    _kept(results, e, embedded, "trained", selection)
    results.add(embedded, "trained", selection, HALF, half=True)
    return (results,)


def _kept(results: Results, e: Experiment, embedded: Embedded, variant: str, selection: str
          ) -> None:
    name = "-".join(filter(None, ("embeddings", variant, selection)))
    file = embedded.save(e.folder / f"{name}.safetensors", e.about)
    results.add(embedded, variant, selection, file=file)


def record(e: Experiment, run: training.Run, results: Results, started: str,
           seconds_evaluate: float) -> records.RunRecord:
    """The run's record, written as `record.json` beside the weights."""
    seconds = sum(row["seconds"] for row in run.history)
    pairs = len(e.train.texts) * len(run.history)
    cost = records.Cost(seconds_train=round(seconds, 2),
                        items_per_second=round(pairs / seconds, 2) if seconds else None,
                        seconds_evaluate=round(seconds_evaluate, 2),
                        peak_memory_bytes=training.peak_memory(e.fabric.device),
                        **training.energy_cost(run, e.fabric.device))
    return _written(results, e.config.dataset, asdict(e.config), e.config.seed, e.weights,
                    dataset_facts(e.test, len(e.train.images)), cost, e.fabric.device, started)


def _written(results: Results, experiment: str, parameters: dict, seed: int,
             weights: records.Weights, dataset: records.Dataset, cost: records.Cost,
             device: torch.device, started: str) -> records.RunRecord:
    made = records.RunRecord(
        paper="clip_retrieval", experiment=experiment, parameters=parameters, seed=seed,
        dataset=dataset, protocol=results.protocol, metrics=results.rows, weights=weights,
        cost=cost, environment=records.environment(device=training.device_name(device)),
        files={k: paths.shown(results.folder / v) for k, v in results.files.items()},
        notes=results.notes, started=started, finished=records.utc_now())
    records.write_record(made, results.folder / "record.json")
    return made


# -------------------------------------------------------------------------------- zero-shot


def zero_shot(config: ZeroShot, progress: bool = True
              ) -> tuple[Captions, Results, list[records.Weights]]:
    """Every model of the list on the set. Embeddings are kept, and taken from there when the same
    is asked again: a stopped list goes on where it was.

    All names are checked before the first model is made. Raises WeightsError or DatasetError.
    """
    captions = read_captioned(config.dataset_root, config.dataset, config.split,
                              allow_partial=config.allow_partial)
    folder = paths.writable_folder(config.save_root)
    for _, name, _ in config.entries():
        backbones.clip_name(name)
    fabric = training.start(config.seed, accelerator=config.accelerator,
                            precision=config.precision)
    kinds = {protocol_of(source, config.dataset) for *_, source in config.entries()}
    results = Results(folder, ZERO_SHOT if ZERO_SHOT in kinds else FINE_TUNED)
    weights = []
    for label, name, source in bar(config.entries(), label="models", unit="model", shown=progress):
        quick = FORCED.get(config.quick_gelu)
        backbone = backbones.clip(name, source, config.seed, quick_gelu=quick)
        weights.append(records.Weights(name=f"{name} {source}", sha256=backbone.sha256))
        encoder, kind = _encoder(config, fabric, backbone), protocol_of(source, config.dataset)
        images = None
        for prompt in config.prompts:
            plain = "" if kind == results.protocol else kind
            turned = f"{kind}, prompt {prompt!r}" if prompt != RAW else plain
            images = _add(results, encoder, captions, label, prompt, turned, progress,
                          f"{kind}, {HALF}" if config.half_scores and prompt == RAW else "",
                          images)
        if config.other_activation:
            other = backbones.clip(name, source, config.seed, quick_gelu=not backbone.quick_gelu)
            turned = f"{kind}, {'QuickGELU' if other.quick_gelu else 'GELU'}"
            _add(results, _encoder(config, fabric, other), captions, label, config.prompts[0],
                 turned, progress)
    results.add(chance(captions), "chance")
    return captions, results, weights


def protocol_of(source: str, dataset: str) -> str:
    """Fine-tuned for a checkpoint that says it was trained on the set, else zero-shot."""
    trained_on = backbones.about_of(paths.user_path(source)).get("dataset")
    return FINE_TUNED if trained_on == dataset else ZERO_SHOT


def _encoder(config: ZeroShot, fabric: Fabric, backbone: backbones.ClipBackbone) -> Encoder:
    backbone.model.to(fabric.device)
    half = torch.bfloat16 if "bf16" in training.precision_of(fabric) else None
    return Encoder(backbone, fabric.device, half, config.eval_batch_size, config.context_length)


def _add(results: Results, encoder: Encoder, captions: Captions, label: str, prompt: str,
         protocol: str, progress: bool, half: str = "", images: Tensor | None = None
         ) -> Tensor:
    """One model under one prompt; its scores in half precision too under the protocol `half`.
    images: their embeddings where another prompt has made them; returns them."""
    parts = filter(None, (label, captions.name, captions.split, protocol))
    file = results.folder / (re.sub(r"[^\w.@-]+", "-", " ".join(parts)) + ".safetensors")
    backbone = encoder.backbone
    about = {"sha256": backbone.sha256, "quick_gelu": backbone.quick_gelu, "prompt": prompt,
             "manifest": captions.manifest, "preprocess": backbone.preprocess.digest(),
             "autocast": str(encoder.autocast), "context_length": encoder.context_length}
    tokens, cut = encoder.tokens(captions, prompt)
    embedded = saved(file, about)
    if embedded is None:
        images = encoder.images(captions, progress) if images is None else images
        embedded = Embedded(images, encoder.texts(tokens, progress), captions.owner)
        embedded.save(file, about)
    results.add(embedded, label, protocol=protocol, file=file)
    if half:
        results.add(embedded, label, protocol=half, half=True)
    if note := cut_note(cut, captions, f"{label} {protocol}".strip()):
        results.notes.append(note)
    return embedded.images


def zero_shot_record(config: ZeroShot, captions: Captions, results: Results,
                     weights: list[records.Weights], started: str, seconds: float
                     ) -> records.RunRecord:
    """The run's record, written as `record.json` beside the embeddings."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cost = records.Cost(seconds_evaluate=round(seconds, 2),
                        peak_memory_bytes=training.peak_memory(device))
    return _written(results, config.dataset, asdict(config), config.seed, joined(weights),
                    dataset_facts(captions), cost, device, started)


def joined(weights: list[records.Weights]) -> records.Weights:
    """One account of several models' weights: their names, and the hash of their hashes."""
    if len(weights) == 1:
        return weights[0]
    digest = hashlib.sha256("".join(w.sha256 for w in weights).encode()).hexdigest()
    return records.Weights(name=", ".join(w.name for w in weights), sha256=digest)
