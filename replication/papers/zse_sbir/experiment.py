"""A ZSE-SBIR run: its data and model, its training, what is measured, one query."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from replication import (
    backbones,
    data,
    metrics,
    paths,
    records,
    retrieval,
    sketch_retrieval,
    training,
)
from replication.fine_grained import is_flat, read_instance_set
from replication.papers.zse_sbir.checkpoint import load_official
from replication.papers.zse_sbir.config import TEST_CLASSES, Config
from replication.papers.zse_sbir.networks import ZSE
from replication.papers.zse_sbir.objectives import loss_terms
from replication.papers.zse_sbir.scoring import (
    encoded,
    photo_scores,
    reranked,
    scored,
    shortlisted,
    tower_tokens,
)
from replication.sketch_experiment import Experiment, begun
from replication.sketch_retrieval import Gallery, Ranking, Results
from replication.transforms import NORMALISATIONS, Preprocess, read_image


def build(config: Config) -> tuple[ZSE, backbones.TimmBackbone, Preprocess]:
    """The model on its tower, and the Preprocess: photos squashed, sketches cut to their ink."""
    weights = config.weights if config.pretrained and not config.load else "none"
    tower = backbones.timm_model(config.tower, weights, max(config.seed, 0), num_classes=0,
                                 img_size=config.image_size, pos_drop_rate=config.dropout,
                                 proj_drop_rate=config.dropout,
                                 norm_layer=partial(nn.LayerNorm, eps=1e-5))
    _check_sizes(config, tower.model)
    model = ZSE(tower.model, hidden=config.d_ff, heads=config.head, number=config.number,
                anchors=config.anchor_number, anchor_width=config.anchor_width,
                dropout=config.dropout, keep_rate=config.keep_rate, stack=config.patch_stack,
                layout=config.layout)
    return model, tower, Preprocess(config.image_size, "squash", "bilinear",
                                    *NORMALISATIONS["half"], sketch_resize="ink")


def _check_sizes(config: Config, vit: nn.Module) -> None:
    if vit.embed_dim != config.d_model:
        raise ValueError(f"d_model={config.d_model}: {config.tower} has {vit.embed_dim}")
    joined = 2 * vit.patch_embed.patch_size[0]  # anchors are made of two by two patches
    side, rest = divmod(config.image_size, joined)
    if rest or not side:
        raise ValueError(f"image_size={config.image_size}: {config.tower} joins its patches two "
                         f"by two, so it is a multiple of {joined} pixels")
    if config.anchor_number != side**2:
        raise ValueError(f"anchor_number={config.anchor_number}: {config.tower} has {side**2} "
                         f"anchors at image_size={config.image_size}")


# --------------------------------------------------------------------------------------- data


def read_set(config: Config) -> data.SketchSet:
    """The set that is trained on; its `val` is that of the set that is tested on.

    Raises DatasetError for a set that is absent, a test_class that is not its split, and a
    cross-dataset test all of whose classes were trained on.
    """
    own = _read(config, config.data_name)
    _check_split(config, own)
    if config.test_name == config.data_name:
        return own
    other = _read(config, config.test_name)
    new = tuple(c for c in other.val.classes if c not in own.train.classes)
    if not new:
        raise data.DatasetError(f"test_dataset={config.test_dataset}: every unseen class of it is "
                                f"a seen class of {config.dataset}")
    return data.SketchSet(f"{own.name}-to-{other.name}", other.folder, own.train,
                          other.val.only(new), f"{own.manifest} {other.manifest}")


def _read(config: Config, name: str) -> data.SketchSet:
    if config.match == "instance" and is_flat(paths.user_path(config.data_path) / name):
        return read_instance_set(config.data_path, name)
    return data.read_sketch_set(config.data_path, name)


def _check_split(config: Config, own: data.SketchSet) -> None:
    wanted = config.test_class
    name, split = TEST_CLASSES.get(wanted, (own.name, wanted))
    if wanted and (own.name, own.split_name) != (name, split):
        choices = ", ".join([*TEST_CLASSES, "<seen>/<unseen>"])
        raise data.DatasetError(
            f"test_class={wanted} is {split} of {name}; {paths.shown(own.folder)} holds "
            f"{own.name} {own.split_name}. Prepare it with `python -m data_prep.{own.name} --split "
            f"...`, or choose a test_class that fits: {choices}, or nothing for the split that is "
            "there")


def subsampled(split: data.Split, steps: tuple[int, int]) -> data.Split:
    """Every n-th sketch and every m-th photo, in the order of their names, classes kept."""
    def every(images: data.Images, step: int) -> data.Images:
        return replace(images, files=images.files[::step], labels=images.labels[::step])

    return data.Split(every(split.sketch, steps[0]), every(split.photo, steps[1]))


@dataclass(frozen=True)
class Pairs(torch.utils.data.Dataset):
    """`length` items an epoch: two sketches and a photo of a class, a photo of another; the class
    is drawn first, uniformly, then files. All of it depends on (seed, epoch) alone.

    first_files: draw a class's first file too, which the released code never does. instances: a
    pair shares the photo that the sketches depict, and the other photo is of the same class where
    the class has one.
    """

    split: data.Split
    sketches: UInt8[np.ndarray, "s h w 3"]
    photos: UInt8[np.ndarray, "p h w 3"]
    length: int
    seed: int
    epoch: int
    first_files: bool = False
    instances: bool = False

    @cached_property
    def plan(self) -> Int64[np.ndarray, "n 4"]:
        """Rows of (sketch, second sketch, photo, other photo)."""
        rng = np.random.default_rng([self.seed, self.epoch])
        return self._of_instances(rng) if self.instances else self._of_classes(rng)

    def _of_classes(self, rng: np.random.Generator) -> np.ndarray:
        classes = len(self.split.classes)
        label = rng.integers(classes, size=self.length)
        other = (label + rng.integers(1, classes, self.length)) % classes
        sketch, photo = self.split.sketch.labels, self.split.photo.labels
        return np.stack([self._drawn(sketch, label, rng), self._drawn(sketch, label, rng),
                         self._drawn(photo, label, rng), self._drawn(photo, other, rng)], axis=1)

    def _drawn(self, labels: np.ndarray, wanted: np.ndarray, rng: np.random.Generator
               ) -> np.ndarray:
        """A row of each wanted class; `labels` are sorted."""
        count = np.bincount(labels, minlength=len(self.split.classes))
        first = np.cumsum(count) - count
        left = 0 if self.first_files else np.minimum(1, count - 1)[wanted]
        return first[wanted] + left + rng.integers(0, count[wanted] - left)

    def _of_instances(self, rng: np.random.Generator) -> np.ndarray:
        photos, sketches = self.split.photo, self.split.sketch
        place = {name: i for i, name in enumerate(photos.instances)}
        own = np.array([place.get(name, -1) for name in sketches.instances])
        usable = np.flatnonzero(own >= 0)
        sketch = rng.choice(usable, self.length)
        second = np.array([rng.choice(usable[own[usable] == p]) for p in own[sketch]])
        label = photos.labels[own[sketch]]
        count = np.bincount(photos.labels, minlength=len(photos.classes))
        first = np.cumsum(count) - count
        step = 1 + rng.integers(0, np.maximum(count[label] - 1, 1))
        other = first[label] + (own[sketch] - first[label] + step) % count[label]
        alone = count[label] < 2
        other[alone] = (own[sketch][alone] + 1) % len(photos)
        return np.stack([sketch, second, own[sketch], other], axis=1)

    def __len__(self) -> int:
        return self.length

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        names = ("sketch", "second", "photo", "other")
        pixels = (self.sketches, self.sketches, self.photos, self.photos)
        plan = self.plan[rows].T
        return {k: torch.from_numpy(p[i]) for k, p, i in zip(names, pixels, plan, strict=True)} | {
            "row": torch.from_numpy(plan[0])}


def pairs_of(e: Experiment, pixels: list[np.ndarray], epoch: int) -> Pairs:
    """One epoch's items."""
    c = e.config
    return Pairs(e.train, *pixels, c.datasetLen, c.seed, epoch, c.first_files,
                 c.match == "instance")


def first_batch(e: Experiment) -> dict[str, Tensor]:
    """The first items of training, as pixels (uint8, b h w 3)."""
    pixels = [data.cached_pixels(i, e.preprocess) for i in (e.train.sketch, e.train.photo)]
    return pairs_of(e, pixels, 0).__getitems__(list(range(min(8, e.config.datasetLen))))


# ------------------------------------------------------------------------------------ the run


def prepare(config: Config) -> Experiment:
    """Reads the sets, seeds, builds the model; every input is checked here, before any work."""
    paths.writable_folder(config.save)
    sketch_set = read_set(config)
    if not config.testall:
        sketch_set = replace(sketch_set, val=subsampled(sketch_set.val, config.steps))
    rest, held_out = sketch_set.train.hold_out(config.val_classes) if config.val_classes else \
        (sketch_set.train, None)
    if config.match == "class" and len(rest.classes) < 2:
        raise data.DatasetError(f"{paths.shown(sketch_set.folder)} has one class: a photo of "
                                "another is needed; match=instance trains on single photos")
    if config.match == "instance" and not set(rest.sketch.instances) & set(rest.photo.instances):
        raise data.DatasetError("match=instance: no sketch names its photo (a sketch X-1 or X_1 "
                                "depicts the photo X)")
    devices = config.devices if training.distributed() else 1
    fabric = training.start(config.seed, accelerator=config.accelerator,
                            precision=config.precision, devices=devices, cuda=config.choose_cuda)
    model, tower, preprocess = build(config)
    start = records.Weights(name=f"{tower.name} {config.weights}" if config.pretrained else
                            f"{tower.name} none", sha256=tower.sha256)
    if config.load:
        load(model, config.load)
        start = records.Weights(name=config.load, sha256=backbones.state_hash(model))
    fields = ("tower", "image_size", "d_ff", "head", "number", "anchor_number", "anchor_width",
              "patch_stack", "layout", "keep_rate", "match", "val_classes")
    about = {"paper": "zse_sbir", "data_name": config.data_name, "weights_sha256": start.sha256}
    return Experiment("zse_sbir", config, sketch_set.name, sketch_set, rest, held_out,
                      model.to(fabric.device), preprocess, fabric, start,
                      about | {k: getattr(config, k) for k in fields}, metrics.ZSE_SBIR)


def load(model: ZSE, file: str) -> None:
    """A whole checkpoint: the published .pth, or a selection's .safetensors of another run. Raises
    WeightsError."""
    path = paths.user_path(file)
    if not path.exists():
        raise backbones.WeightsError(f"no checkpoint {paths.shown(path)} (parameter load): the "
                                     "published best_checkpoint.pth is linked in the README of "
                                     "buptLinfy/ZSE-SBIR")
    state = backbones.read_state(path)
    state = state.get("model", state)
    if any(k.removeprefix("module.").startswith("sa.vit.") for k in state):
        backbones.load_exactly(model, state, paths.shown(path))
    else:
        load_official(model, state, paths.shown(path))


def optimizer(model: ZSE, config: Config) -> torch.optim.AdamW:
    """AdamW with one learning rate, as released, or with others behind the tower."""
    rates = ((model.sa, 1.0), (model.ca, config.cross_rate), (model.conv2d, config.relation_rate),
             (model.rn, config.relation_rate))
    groups = [{"params": list(part.parameters()), "lr": config.learning_rate * rate}
              for part, rate in rates]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay,
                             fused=True if next(model.parameters()).is_cuda else None)


def train(e: Experiment, progress: bool = True, select: bool = True) -> training.Run:
    """Trains to the last epoch, from the folder's checkpoint where it holds one of this run.

    select: from `validate_from` on every epoch is evaluated by mAP@all of `retrieval` on a
    subsample of the unseen classes, as published (match=instance: by Acc@1); without it only the
    last weights are kept.
    """
    c = e.config
    run, pixels = begun(e, progress)
    adam = optimizer(e.model, c)
    forward, adam = e.fabric.setup(e.model, adam)

    def batches_of(epoch: int):
        return data.batches(pairs_of(e, pixels, epoch), c.batch, rank=e.fabric.global_rank,
                            world=e.fabric.world_size, num_workers=c.num_workers,
                            pin=e.fabric.device.type == "cuda")

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pictures = (torch.cat([batch[a], batch[b]]) for a, b in (("sketch", "second"),
                                                                 ("photo", "other")))
        terms = loss_terms(*forward(*map(e.preprocess.normalised, pictures)), margin=c.margin,
                           triplet_weight=c.triplet_weight, relation_weight=c.relation_weight)
        training.optimise(e.fabric, adam, terms["loss"], batch)
        return terms

    splits = {k: v if k == "unseen" and not c.testall else subsampled(v, c.steps)
              for k, v in e.splits().items()} if select else {}
    keep = sketch_retrieval.selection(run, partial(measured, e), splits, e.write_weights,
                                      figure=("Acc@1",) if c.match == "instance" else ("mAP@all",),
                                      first=min(c.validate_from, c.epoch - 1))
    training.fit(e.fabric, run, {"model": e.model}, {"adam": adam}, batches_of, step,
                 epochs=c.epoch, after_epoch=keep, progress=progress)
    if not c.epoch:
        keep(-1)  # what is measured is the start: the untrained model, or a published checkpoint
    return run


# ------------------------------------------------------------------------------- what is measured


def rankings(e: Experiment, split: data.Split, mode: str = "", progress: bool = False
             ) -> dict[str, Ranking]:
    """`sa` and, where `mode` (the config's without one) is `rn`, `rn`; each picture passes the
    tower once. With rerank_top_k the ranking `rn` scores the best photos of `sa` alone."""
    c = e.config
    if (mode or c.retrieval) == "sa":
        return {"sa": e.embed(split, progress)}
    tokens = encoded(e, split, progress)
    found = {"sa": tokens.embedded()}
    if c.rerank_top_k:
        return found | {"rn": shortlisted(e, tokens, c.rerank_top_k, progress)}
    return found | {"rn": scored(e, tokens, progress)}


def measured(e: Experiment, split: data.Split) -> dict[str, float]:
    """What selects an epoch, by the ranking that `retrieval` asks for, in percent."""
    found = rankings(e, split)[e.config.retrieval]
    four = sketch_retrieval.four_metrics(found, e.convention)
    return four | (sketch_retrieval.instance_metrics(found) if e.config.match == "instance" else {})


def variant(e: Experiment, name: str, mode: str) -> str:
    """A record's name of a ranking: that of `retrieval` is plain, the other one says its mode."""
    return name if mode == e.config.retrieval else f"{name} {mode}"


def measure(e: Experiment, run: training.Run, untrained: dict[str, Ranking],
            progress: bool = True) -> tuple[Results, dict[str, Ranking]]:
    """Every row of the record, and both rankings of the selection that is reported.

    Trained and untrained, by `retrieval` and, where that is rn, by sa too; for each selection; the
    generalised and the fine-grained setting with the reported weights; pixels and chance.
    """
    results, chosen, c = Results([], {}, e.folder, e.about), e.config.selection, e.config
    if chosen not in run.best:
        raise ValueError(f"selection={chosen!r}: the run kept {', '.join(run.best)}")
    e.load(chosen)
    reported = rankings(e, e.sketch_set.val, progress=progress)
    modes = sorted(reported, key=lambda mode: mode != c.retrieval)
    for mode in modes:
        results.add(reported[mode], variant(e, "trained", mode), chosen)
    _generalised(e, results, chosen, reported, progress)
    if results.instances(reported["sa"]):
        for mode in modes:
            results.add(reported[mode], variant(e, "trained", mode), chosen, "fine-grained")
    for mode, found in untrained.items():
        results.add(found, variant(e, "untrained", mode))
    floors = {"pixels": sketch_retrieval.pixel_floor(e.sketch_set.val),
              "chance": sketch_retrieval.random_floor(e.sketch_set.val)}
    for name, found in floors.items():
        results.add(found, name)
        if results.instances(found):
            results.add(found, name, "", "fine-grained", save=False)
    for other in (s for s in sorted(run.best) if s != chosen):
        if run.best[other]["epoch"] == run.best[chosen]["epoch"]:
            found = reported  # the same weights under another name
        else:
            e.load(other)
            found = rankings(e, e.sketch_set.val, progress=progress)
        for mode in modes:
            again = found is reported and mode == "rn"  # the same scores are not kept twice
            results.add(found[mode], variant(e, "trained", mode), other, save=not again)
    e.load(chosen)
    return results, reported


def _generalised(e: Experiment, results: Results, chosen: str, reported: dict[str, Ranking],
                 progress: bool) -> None:
    """Photos of seen classes join the gallery: by sa always, by rn where it is asked for."""
    joined = sketch_retrieval.generalised(reported["sa"], e.embed(e.sketch_set.train))
    modes = {"sa": joined}
    if e.config.generalised and e.config.retrieval == "rn":
        modes["rn"] = rankings(e, joined.split, progress=progress)["rn"]
    for mode, found in modes.items():
        results.add(found, variant(e, "trained", mode), chosen, "generalised")


def measure_selected(e: Experiment) -> tuple[Results, Ranking]:
    """The config's selection on the unseen classes: enough to compare choices."""
    results, selection = Results([], {}, e.folder, e.about), e.config.selection
    e.load(selection)
    found = rankings(e, e.sketch_set.val)
    for mode in sorted(found, key=lambda mode: mode != e.config.retrieval):
        results.add(found[mode], variant(e, "trained", mode), selection, save=False)
    return results, found[e.config.retrieval]


def shortlist_loss(found: dict[str, Ranking], tops: tuple[int, ...]) -> list[dict]:
    """What a shortlist by sa costs: mAP@all and P@100 (common convention, percent) of the best k
    by sa ordered by rn, and the share of pairs that rn has to score."""
    photos, rows = len(found["sa"].split.photo), []
    for k in (0, *(k for k in tops if k < photos), photos):
        ranked = found["sa"] if not k else reranked(found["sa"], found["rn"], k)
        values = sketch_retrieval.four_metrics(ranked, metrics.COMMON)
        rows.append({"photos scored": k, "share of pairs": round(100 * k / photos, 1),
                     "mAP@all": values["mAP@all"], "P@100": values["P@100"]})
    return rows


# ---------------------------------------------------------------------------------- one query


def gallery_of(e: Experiment) -> Gallery:
    """Class tokens of the test photos that training saved, for the config's selection."""
    name = "trained" if e.config.retrieval == "sa" else "trained-sa"
    files = [e.folder / f"embeddings-{name}-{e.config.selection}.safetensors"]
    files += [e.folder / "embeddings.safetensors"] if e.config.retrieval == "sa" else []
    return sketch_retrieval.load_gallery(next((f for f in files if f.exists()), files[0]))


@torch.inference_mode()
def query_tokens(e: Experiment, query: Path, domain: str) -> Float[Tensor, "1 t d"]:
    """The tower's tokens of one picture. Raises ValueError for one that cannot be read, and for
    a sketch without a stroke."""
    try:
        picture = read_image(query, upright=True)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{query} is not a whole picture ({str(error)[:80]})") from error
    e.model.eval()
    return tower_tokens(e, e.preprocess.of(domain).resized(picture)[None].copy())


def nearest(e: Experiment, query: Path, query_class: str, gallery: Gallery, k: int
            ) -> list[tuple[Path, bool | None, str, float]]:
    """The `k` best photos: file, right or wrong (None: the query has no class), class, score.

    By sa from the saved vectors; with rn the best `rerank_top_k` of them (all for 0) pass the
    tower and are scored as pairs.
    """
    e.load(e.config.selection)
    tokens = query_tokens(e, query, "sketch")
    wanted = k if e.config.retrieval == "sa" else e.config.rerank_top_k or len(gallery.files)
    indices, scores = retrieval.top_k(tokens[:, 0].float().cpu(), gallery.vectors,
                                      min(max(wanted, k), len(gallery.files)))
    indices, scores = indices[0].numpy(), scores[0].numpy()
    if e.config.retrieval == "rn":
        folder = e.sketch_set.val.photo.folder
        scores = photo_scores(e, tokens, [folder / gallery.files[i] for i in indices])
        order = np.argsort(-scores, kind="stable")[:k]
        indices, scores = indices[order], scores[order]
    names = [gallery.classes[gallery.labels[i]] for i in indices]
    return [(e.sketch_set.val.photo.folder / gallery.files[i],
             name == query_class if query_class else None, name, float(score))
            for i, name, score in zip(indices, names, scores, strict=True)]
