"""SPRC's runs: processes, checkpoints, schedule; what is recorded, asked, and handed in."""

import hashlib
import json
import re
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_composed import SIZES, make_cirr
from test_sprc_runs import SMALL

from replication import backbones, composed, paths, training
from replication.backbones import WeightsError
from replication.composed import TYPES, read_composed
from replication.composed_metrics import evaluate_composed, fashioniq_summary, submission_faults
from replication.data import DatasetError
from replication.papers.sprc import experiment, measuring, querying
from replication.papers.sprc.baselines import baselines, clip_vectors
from replication.papers.sprc.config import Config, Evaluate, Retrieve, Submit
from replication.papers.sprc.experiment import Experiment, prepare, train
from replication.papers.sprc.measuring import Opened, Results
from replication.papers.sprc.querying import answers, asked_otherwise, query_of
from replication.records import RunRecord, read_record, write_record
from replication.verification import AGREES, DIFFERS, verified

STARTED = "2026-01-01T00:00:00Z"
CIRR_NAMES = ["R@1", "R@5", "R@10", "R@50", "Rsub@1", "Rsub@2", "Rsub@3", "Avg", "Mean"]
FASHION_NAMES = [f"{kind} {name}" for kind in (*TYPES, "average")
                 for name in ("R@10", "R@50", "Avg")]
RANKINGS = [("trained", "val"), ("trained", "last"), ("untrained", ""), ("chance", ""),
            ("image-only", ""), ("text-only", ""), ("sum", "")]


# ------------------------------------------------------------------------------- a few doodles


def edited(file: Path, change) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def some(rows: list, n: int) -> list:
    return rows[::max(1, len(rows) // n)][:n]


def few_doodles(doodles: Path, root: Path) -> Path:
    """24 training queries of each set. CIRR's test1 has ten of the training queries, on 64 of
    their pictures: a submission names 50."""
    for name, inner in (("doodles_cirr", "cirr"), ("doodles_fashioniq", "")):
        source = next((doodles / name).glob("*_dataset"))
        base = root / name / source.name
        for part in ("captions", "image_splits"):
            shutil.copytree(source / inner / part, base / inner / part)
        for folder in source.iterdir():
            if folder.is_dir() and folder.name not in ("cirr", "captions", "image_splits"):
                (base / folder.name).symlink_to(folder)
    cirr, fashion = root / "doodles_cirr/cirr_dataset/cirr", \
        root / "doodles_fashioniq/fashionIQ_dataset"
    rows = json.loads((cirr / "captions/cap.rc2.train.json").read_text())
    places = json.loads((cirr / "image_splits/split.rc2.train.json").read_text())
    for split, own in (("train", some(rows, 24)), ("test1", some(rows, 10))):
        used = {m for row in own for m in row["img_set"]["members"]}
        used |= set([p for p in places if p not in used][:64 - len(used)]) if split == "test1" \
            else set()
        for row in own if split == "test1" else ():
            del row["target_hard"], row["target_soft"]
        (cirr / f"captions/cap.rc2.{split}.json").write_text(json.dumps(own))
        (cirr / f"image_splits/split.rc2.{split}.json").write_text(
            json.dumps({p: place for p, place in places.items() if p in used}))
        rows = json.loads(json.dumps(rows))
    for kind in TYPES:
        file = fashion / f"captions/cap.{kind}.train.json"
        edited(file, lambda own: some(own, 8))
        used = {row[k] for row in json.loads(file.read_text()) for k in ("candidate", "target")}
        edited(fashion / f"image_splits/split.{kind}.train.json",
               lambda own, used=used: [image for image in own if image in used])
    return root


@pytest.fixture(scope="module")
def few(doodles, tmp_path_factory) -> Path:
    return few_doodles(doodles, tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Features of this file's own, also for the processes that it starts."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "CACHE", folder)
        patch.setenv("REPLICATION_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> str:
    """A random CLIP in a file, as the demo's comes."""
    return written_tower(tmp_path_factory.mktemp("tower") / "clip.safetensors", 5)


def written_tower(file: Path, seed: int) -> str:
    training.write_tensors(backbones.clip("doodle-clip", "none", seed).model.state_dict(), file)
    return str(file)


@pytest.fixture
def given(few, tower, tmp_path):
    return SMALL | {"dataset": "doodles_cirr", "data_path": str(few), "batch_size": 8,
                    "image_weights": tower, "save_root": str(tmp_path / "out")}


def trained(given, select=False, **turned):
    e = prepare(Config(**given | turned))
    return e, train(e, progress=False, select=select)


def checkpoint_of(e: Experiment) -> dict:
    return torch.load(e.folder / "checkpoint.pt", weights_only=True)


# ------------------------------------------------------------------------------------ training


def test_two_processes_train_as_one(given, tmp_path):
    """FashionIQ: its texts are drawn, and its text lengths differ between the processes."""
    found, rows = [], []
    for devices in (1, 2):
        e, run = trained(given, dataset="doodles_fashioniq", num_epochs=1, dropout=0.0,
                         devices=devices, save_root=str(tmp_path / str(devices)))
        found.append(checkpoint_of(e))
        rows.append(run.history[0])
    for name in ("loss", "itc", "rtc", "align"):
        assert rows[0][name] == pytest.approx(rows[1][name], abs=1e-4)
    one, two = (f["modules"]["sprc"] for f in found)
    assert one.keys() == two.keys() and len(one) > 50
    assert all(torch.allclose(one[k], two[k], atol=2e-5) for k in one)
    # Adam's step hides the gradient's scale, its moments do not
    one, two = (f["optimizers"]["adam"]["state"] for f in found)
    assert one.keys() == two.keys()
    for i in one:
        for name in ("exp_avg", "exp_avg_sq"):
            a, b = one[i][name], two[i][name]
            assert (a - b).norm() <= 2e-2 * a.norm() + 1e-8
    last = [load_file(tmp_path / f"{n}/last.safetensors") for n in (1, 2)]
    assert all(torch.allclose(last[0][k], last[1][k], atol=2e-5) for k in last[0])


@pytest.mark.parametrize("n", [1, 5, 24, 100])
def test_any_batch_trains(given, n):
    """Of one query, of some with a rest left out, of all, and of more than there are."""
    e = prepare(Config(**given | {"batch_size": n, "num_epochs": 1}))
    before = {k: v.clone() for k, v in e.retriever.model.state_dict().items()}
    run = train(e, progress=False, select=False)
    row = run.history[0]
    assert np.isfinite([row[k] for k in ("loss", "itc", "rtc", "align")]).all()
    assert (row["itc"] == 0) == (n == 1)  # a query alone has nothing to be told from
    own = e.retriever.model.state_dict()
    assert not torch.equal(own["query_tokens"], before["query_tokens"])
    state = checkpoint_of(e)["optimizers"]["adam"]["state"]
    assert {int(s["step"]) for s in state.values()} == {max(1, 24 // n)}


@pytest.mark.parametrize(("options", "kept"), [
    ({"save_training": True}, {"val", "last", "epoch-1", "epoch-2", "epoch-3"}),
    ({"save_training": True, "validation_frequency": 2}, {"val", "last", "epoch-2"}),
    ({"save_training": True, "save_best": True}, {"val", "last"}),
    ({}, {"val", "last"})])
def test_which_epochs_are_kept(given, options, kept):
    e, run = trained(given, select=True, num_epochs=3, **options)
    assert {file.stem for file in e.folder.glob("*.safetensors")} == kept
    every = options.get("validation_frequency", 1)
    evaluated = [row["epoch"] for row in run.history if "val cirr Mean" in row]
    assert evaluated == list(range(every, 4, every))
    assert run.best["val"]["epoch"] in evaluated and run.best["last"]["epoch"] == 3
    means = {row["epoch"]: row["val cirr Mean"] / 100 for row in run.history
             if row["epoch"] in evaluated}
    assert run.best["val"]["value"] == pytest.approx(max(means.values()))
    last = load_file(e.folder / "last.safetensors")
    if "epoch-3" in kept:
        same = load_file(e.folder / "epoch-3.safetensors")
        assert all(torch.equal(last[k], same[k]) for k in last)


def test_fashioniqs_epoch_is_chosen_by_the_mean_over_the_types(given):
    _, run = trained(given, select=True, dataset="doodles_fashioniq", num_epochs=2)
    of = [np.mean([row[f"val {kind} R@{k}"] for kind in TYPES for k in (10, 50)])
          for row in run.history]
    assert run.best["val"] == {"value": pytest.approx(max(of) / 100),
                               "epoch": 1 + int(np.argmax(of))}


def test_another_encoder_or_start_moves_the_earlier_run_aside(given, tmp_path, capsys):
    """Files are told by what they hold, not by their names."""
    tower, start = tmp_path / "clip.safetensors", tmp_path / "start.safetensors"
    options = {"num_epochs": 1, "weights": str(start), "image_weights": str(tower),
               "vocabulary": "training"}

    def begun(encoder: int, weights: int):
        written_tower(tower, encoder)
        prepare(Config(**given | {"seed": weights})).write_weights(start)
        e, run = trained(given, **options)
        return e, [line for line in capsys.readouterr().out.splitlines() if "held a run" in line]

    first, told = begun(5, 1)
    assert told == []
    same, told = begun(5, 1)
    assert told == [] and same.key == first.key
    earlier = (first.folder / "last.safetensors").read_bytes()
    other, told = begun(6, 1)
    [line] = told
    assert line.endswith("other encoder_sha256: moved to out.earlier-1")
    assert (tmp_path / "out.earlier-1/last.safetensors").read_bytes() == earlier
    again, told = begun(6, 2)
    [line] = told
    assert line.endswith("other start_sha256: moved to out.earlier-2")
    with pytest.raises(ValueError, match="is of another run: .*start_sha256 is"):
        other.load("last")


def test_a_loss_that_is_no_number_stops_with_its_step(given, monkeypatch):
    steps, real = iter(range(100)), experiment.loss_terms

    def spoilt(*args, **options):
        terms = real(*args, **options)
        return terms if next(steps) < 4 else terms | {"loss": terms["loss"] * float("nan")}

    monkeypatch.setattr(experiment, "loss_terms", spoilt)
    with pytest.raises(training.NonFiniteLoss, match=r"loss is nan in epoch 2, step 2, items \[.*"
                       r"checkpoint.pt holds epoch 1. Lower the learning rate"):
        trained(given)
    e = prepare(Config(**given))
    assert checkpoint_of(e)["epoch"] == 1
    weights = load_file(e.folder / "last.safetensors")
    assert all(v.isfinite().all() for v in weights.values())


CYCLES = [("doodles_cirr", 0, 80), ("doodles_fashioniq", 0, 2), ("doodles_cirr", -1, 2),
          ("doodles_fashioniq", -1, 2), ("doodles_cirr", 3, 3), ("doodles_cirr", 1, 1)]


@pytest.mark.parametrize(("dataset", "spans", "epochs", "cycle_momentum"), [
    *((*cycle, True) for cycle in CYCLES), (*CYCLES[0], False), (*CYCLES[5], False)])
def test_the_last_steps_rate_and_beta(given, dataset, spans, epochs, cycle_momentum):
    """Of two epochs of three batches; by hand: a cosine up, a cosine down, 10,000 times below the
    first rate at the end."""
    e, _ = trained(given, dataset=dataset, schedule_epochs=spans, cycle_momentum=cycle_momentum)
    start, divided = (1.5 / 30, 100) if "fashion" in dataset else (1 / 50, 25)
    total, step = 3 * epochs, min(5, 3 * epochs - 1)
    peak, top, floor = start * total - 1, 1e-3, 1e-3 / divided / 1e4

    def between(a: float, b: float, share: float) -> float:
        return b + (a - b) / 2 * (1 + np.cos(np.pi * share))

    share = (step - peak) / (total - 1 - peak)
    rate = between(1e-3 / divided, top, step / peak) if step <= peak else \
        between(top, floor, share)
    beta = between(0.95, 0.85, step / peak) if step <= peak else between(0.85, 0.95, share)
    [group] = checkpoint_of(e)["optimizers"]["adam"]["param_groups"]
    assert group["lr"] == pytest.approx(rate)
    assert group["betas"] == pytest.approx((beta if cycle_momentum else 0.9, 0.98))
    assert (group["weight_decay"], group["eps"]) == (0.05, 1e-7)


# ---------------------------------------------------------------------------- what is recorded


class Made(NamedTuple):
    e: Experiment
    run: training.Run
    start: dict
    results: Results
    record: RunRecord


def a_run(few, tower, folder, dataset) -> Made:
    e = prepare(Config(**SMALL | {
        "dataset": dataset, "data_path": str(few), "batch_size": 8, "image_weights": tower,
        "save_root": str(folder), "baseline": "doodle-clip", "baseline_weights": "none"}))
    start = measuring.encoded(e.retriever, e.val)
    run = train(e, progress=False)
    results = measuring.measure(e, run, start)
    return Made(e, run, start, results, measuring.record(e, run, results, STARTED, 1.0))


@pytest.fixture(scope="module")
def cirr(few, tower, tmp_path_factory) -> Made:
    return a_run(few, tower, tmp_path_factory.mktemp("runs") / "cirr", "doodles_cirr")


@pytest.fixture(scope="module")
def fashion(few, tower, tmp_path_factory) -> Made:
    return a_run(few, tower, tmp_path_factory.mktemp("runs") / "fashion", "doodles_fashioniq")


def values(record: RunRecord, variant: str, selection: str = "") -> dict[str, float]:
    return {m.metric: m.value for m in record.metrics
            if (m.variant, m.selection) == (variant, selection)}


def rankings(record: RunRecord) -> list[tuple[str, str]]:
    return list(dict.fromkeys((m.variant, m.selection) for m in record.metrics))


def test_a_cirr_run_is_recorded(cirr):
    record, val = cirr.record, cirr.e.val["cirr"]
    assert rankings(record) == RANKINGS  # the reported one first
    assert all(list(values(record, *ranking)) == CIRR_NAMES for ranking in RANKINGS)
    assert {(m.convention, m.protocol, m.n_query, m.n_gallery) for m in record.metrics} == {
        ("cirr", "", None, None)}
    assert all(m.low <= m.value <= m.high for m in record.metrics)
    about = record.dataset
    assert (about.name, about.split, about.kind) == ("doodles_cirr", "val", "demo")
    assert (about.n_query, about.n_gallery, about.n_gallery_unique, about.n_train) == (
        len(val), len(val.images), len(val.images), 24)
    assert (about.manifest, about.query, about.gallery) == (val.manifest, "queries", "images")
    assert record.protocol == "rc2, reference out of the gallery" and record.seed == 5
    assert record.parameters == asdict(cirr.e.config) and record.notes == []
    assert record.weights.sha256 == cirr.e.about["start_sha256"]
    assert read_record(cirr.e.folder / "record.json").metrics == record.metrics


def test_a_fashioniq_run_is_recorded_type_by_type(fashion):
    record, val = fashion.record, fashion.e.val
    assert rankings(record) == RANKINGS
    for ranking in RANKINGS:
        own = values(record, *ranking)
        assert list(own) == FASHION_NAMES
        for name in ("R@10", "R@50", "Avg"):
            assert own[f"average {name}"] == pytest.approx(
                np.mean([own[f"{kind} {name}"] for kind in TYPES]), abs=1e-5)
    for m in record.metrics:
        kind = m.metric.split()[0]
        assert (m.n_query, m.n_gallery) == (
            (len(val[kind]), len(val[kind].images)) if kind in val else (None, None))
        assert m.convention == "fashioniq" and m.low <= m.value <= m.high
    about = record.dataset
    assert (about.n_query, about.n_gallery) == (
        sum(map(len, val.values())), sum(len(own.images) for own in val.values()))
    assert about.n_gallery_unique == len({f for own in val.values() for f in own.images.files})
    assert (about.name, about.split, about.kind, about.n_train) == (
        "doodles_fashioniq", "val", "demo", 24)
    assert about.manifest not in {own.manifest for own in val.values()}
    assert record.protocol == "original split's gallery, reference in it"


@pytest.mark.parametrize("which", ["cirr", "fashion"])
def test_a_record_is_computed_again_and_a_changed_number_found(which, request, tmp_path):
    made = request.getfixturevalue(which)
    lines, outcome = verified(made.e.folder / "record.json")
    agree = [line for line in lines if line.startswith("  agrees")]
    assert outcome == AGREES and len(agree) == len(made.record.metrics), lines
    assert set(made.record.files) == {"embeddings", "embeddings:trained:last",
                                      *(f"embeddings:{v}" for v, _ in RANKINGS[2:])}
    record = made.record.model_copy(deep=True)
    record.files = {k: str(made.e.folder / Path(v).name) for k, v in record.files.items()}
    for row in (0, len(record.metrics) // 2, -1):
        changed = record.model_copy(deep=True)
        own = changed.metrics[row]
        own.value += 0.01 if own.value < 50 else -0.01
        own.low, own.high = min(own.low, own.value), max(own.high, own.value)
        lines, outcome = verified(write_record(changed, tmp_path / "record.json"))
        assert outcome == DIFFERS
        assert [line for line in lines if "differs" in line][0].startswith(
            f"  differs     {own.label}:")


def test_each_ranking_is_of_what_its_name_says(cirr):
    val, record = cirr.e.val["cirr"], cirr.record
    clip = backbones.clip("doodle-clip", "none")
    images, texts = clip_vectors(clip, val, torch.device("cpu"))
    found = {name: query @ images.T for name, query in baselines(images, texts, val).items()}
    found["untrained"] = cirr.start["cirr"].scores(slice(None))
    for selection in ("val", "last"):
        cirr.e.load(selection)
        now = measuring.encoded(cirr.e.retriever, cirr.e.val)["cirr"]
        found["trained", selection] = now.scores(slice(None))
    for ranking, scores in found.items():
        ranking = ranking if isinstance(ranking, tuple) else (ranking, "")
        wanted = evaluate_composed(scores, val).metrics()
        assert values(record, *ranking) == pytest.approx(
            {k: 100 * v for k, v in wanted.items()}, abs=1e-4), ranking
    rows = {m.selection: m.value for m in record.metrics
            if (m.metric, m.variant) == ("Mean", "trained")}
    assert rows["val"] == pytest.approx(100 * cirr.run.best["val"]["value"], abs=1e-4)


def test_the_table_is_the_rows(fashion):
    table = fashion.results.table()
    assert list(table.columns) == [f"{v} {s}".strip() for v, s in RANKINGS]
    assert list(table.index) == FASHION_NAMES
    assert table.loc["dress R@10", "sum"] == round(values(fashion.record, "sum")["dress R@10"], 1)


def test_the_reported_selection_comes_first(cirr, tmp_path):
    for selection in cirr.run.best:
        shutil.copy(cirr.e.folder / f"{selection}.safetensors", tmp_path)
    e = replace(cirr.e, config=replace(cirr.e.config, selection="last", baseline="",
                                       save_root=str(tmp_path)))
    record = measuring.record(e, cirr.run, measuring.measure(e, cirr.run, cirr.start), STARTED, 0)
    assert rankings(record) == [("trained", "last"), ("trained", "val"), *RANKINGS[2:4]]
    lines, outcome = verified(e.folder / "record.json")
    assert outcome == AGREES and not any("not saved" in line for line in lines)
    assert values(record, "trained", "last") == values(cirr.record, "trained", "last")


def test_a_selection_that_was_not_kept_is_told(cirr, tmp_path):
    run = training.Run(tmp_path, {})
    run.best = {"last": {"value": 0.0, "epoch": 1}}
    with pytest.raises(ValueError, match="selection='val': the run kept last"):
        measuring.measure(cirr.e, run, cirr.start)


@pytest.mark.parametrize("selection", ["val", "last"])
def test_one_selection_is_enough_for_choices(cirr, selection):
    e = replace(cirr.e, config=replace(cirr.e.config, selection=selection))
    [results] = measuring.measure_selected(e)
    assert {(m.variant, m.selection) for m in results.rows} == {("trained", selection)}
    assert {m.metric: m.value for m in results.rows} == values(cirr.record, "trained", selection)


def test_without_an_epoch_only_the_start_is_measured(given):
    e, run = trained(given, num_epochs=0)
    start = measuring.encoded(e.retriever, e.val)
    record = measuring.record(e, run, measuring.measure(e, run, start), STARTED, 1.0)
    assert rankings(record) == [("untrained", ""), ("chance", "")]
    assert verified(e.folder / "record.json")[1] == AGREES


def many(own, n: int = 3000):
    """The set with n queries whose references, targets and groups are drawn."""
    rng = np.random.default_rng(0)
    members = np.stack([rng.permutation(len(own.images))[:6] for _ in range(n)])
    return replace(own, reference=members[:, 0], target=members[:, 1],
                   members=None if own.members is None else members,
                   captions=own.captions[:1] * n, pair_ids=tuple(map(str, range(n))))


def test_chance_is_k_of_the_gallery(cirr, fashion):
    """In 3,000 queries a share p is found with a deviation of sqrt(p (1 - p) / 3000) < 1 %."""
    own = many(cirr.e.val["cirr"])
    ranks = measuring.chance({"cirr": own})["cirr"].ranks(own).metrics()
    others = len(own.images) - 1  # the reference is out
    wanted = {f"R@{k}": min(1, k / others) for k in (1, 5, 10, 50)}
    wanted |= {f"Rsub@{k}": k / 5 for k in (1, 2, 3)}
    assert {k: ranks[k] for k in wanted} == pytest.approx(wanted, abs=0.03)
    sets = {kind: many(fashion.e.val[kind]) for kind in ("shirt", "toptee")}
    found = measuring.chance(sets)
    for kind, own in sets.items():
        ranks = found[kind].ranks(own).metrics()
        assert ranks["R@10"] == pytest.approx(min(1, 10 / len(own.images)), abs=0.03)
    again, other = measuring.chance(sets), measuring.chance(sets, seed=1)
    assert torch.equal(found["shirt"].query, again["shirt"].query)
    assert not torch.equal(found["shirt"].query, other["shirt"].query)
    assert found["toptee"].gallery.shape == (len(sets["toptee"].images), 1, 64)


def test_notes_tell_what_was_left_out_cut_and_empty(given, few, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(few, root)  # pictures too
    base = root / "doodles_fashioniq/fashionIQ_dataset"
    long = " ".join(["red"] * 60)
    shirts = read_composed(root, "doodles_fashioniq", "val", types="shirt")
    edited(base / "captions/cap.shirt.val.json", lambda rows: [
        rows[0] | {"captions": [long, "is red"]}, rows[1] | {"captions": ["", "is blue"]},
        *rows[2:]])
    read = read_composed(few, "doodles_fashioniq", "train")
    used = {str(read.images.path(row).name) for row in read.target[:1]}
    for file in (base / "images").iterdir():
        if file.name in used:
            file.unlink()
    options = given | {"dataset": "doodles_fashioniq", "data_path": str(root), "num_epochs": 0}
    with pytest.raises(DatasetError, match="1 of the .* images of doodles_fashioniq train"):
        prepare(Config(**options))
    e, run = trained(options, allow_missing=True)
    notes = measuring.measure(e, run, measuring.encoded(e.retriever, e.val)).notes
    lost = e.train.left_out["queries"]
    cut = e.retriever.wordpiece.encode(shirts.texts[1:]).n_cut  # few words are known: some are cut
    assert 1 <= lost < 24
    assert notes[0] == f"train: 1 images and {lost} queries were left out (allow_missing)"
    assert [note for note in notes if note.startswith("shirt")] == [
        f"shirt val: {1 + cut} of {len(shirts)} texts were cut to 32 tokens",
        "shirt val: 1 captions hold no word"]
    assert all("cut" in note for note in notes if note[:5] not in ("shirt", "train"))


def test_what_kind_of_set_was_measured(cirr, tmp_path, monkeypatch):
    """`full` has all images of the official split and paper.yml's counts."""
    monkeypatch.setattr(composed, "N_OFFICIAL", SIZES)
    base = make_cirr(tmp_path / "cirr_dataset")
    whole = read_composed(tmp_path, "cirr", "val")
    assert whole.kind == "full"
    assert measuring.dataset_facts({"cirr": whole}).kind == "subset"  # not paper.yml's counts
    paper = measuring.published.read_paper(paths.BOOK / "sprc/paper.yml")
    for split, read in (("val", whole), ("test", read_composed(tmp_path, "cirr", "test1"))):
        counts = paper.sets["cirr"][split].model_copy(update={"n_query": 3, "n_gallery": 7})
        own = paper.model_copy(update={"sets": {"cirr": {split: counts}}})
        monkeypatch.setattr(measuring.published, "read_paper", lambda file, own=own: own)
        facts = measuring.dataset_facts({"cirr": read})
        assert (facts.kind, facts.name, facts.split, facts.n_query, facts.n_gallery) == (
            "full", "cirr", split, 3, 7)
        same = replace(read, kind="subset")  # other pictures, as many
        assert measuring.dataset_facts({"cirr": same}).kind == "subset"
    (base / "dev/val-6-img0.jpg").unlink()
    part = read_composed(tmp_path, "cirr", "val", allow_missing=True)
    facts = measuring.dataset_facts({"cirr": part}, 9)
    assert (facts.kind, facts.n_query, facts.n_gallery, facts.n_train) == ("subset", 2, 6, 9)
    left = replace(cirr.e.val["cirr"], left_out={"images": 1, "queries": 0})
    assert measuring.dataset_facts({"cirr": left}).kind == "demo"


# ------------------------------------------------------------------------------ opened again


def evaluation(made: Made, selection: str, folder: Path, **turned) -> Evaluate:
    own = made.e.config
    return Evaluate(**{
        "dataset": own.dataset, "backbone": "doodle-clip", "data_path": own.data_path,
        "model_path": str(made.e.folder / f"{selection}.safetensors"), "accelerator": "cpu",
        "save_root": str(folder)} | turned)


@pytest.mark.parametrize("which", ["cirr", "fashion"])
@pytest.mark.parametrize("selection", ["val", "last"])
def test_a_runs_weights_are_opened_to_the_same_vectors(which, selection, request, tmp_path):
    """Nothing is told but the file: sizes, heads, words and the image encoder come with it."""
    made = request.getfixturevalue(which)
    config = evaluation(made, selection, tmp_path)
    checkpoint, results = measuring.evaluate(config, progress=False)
    assert (checkpoint.selection, checkpoint.notes) == (selection, [])
    file = f"embeddings-trained-{selection}.safetensors"
    one, two = load_file(made.e.folder / file), load_file(tmp_path / file)
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    record = measuring.evaluation_record(config, checkpoint, results, STARTED, 1.0)
    assert values(record, "trained", selection) == values(made.record, "trained", selection)
    assert verified(tmp_path / "record.json")[1] == AGREES
    assert record.files.keys() == {"embeddings"} and record.dataset.n_train is None
    made.e.load(selection)
    assert record.weights.sha256 == backbones.state_hash(made.e.retriever.model)
    assert record.weights.name.endswith(f"{which}/{selection}.safetensors")


def test_a_file_that_is_not_called_after_an_epoch_has_no_selection(cirr, tmp_path):
    shutil.copy(cirr.e.folder / "val.safetensors", tmp_path / "epoch-1.safetensors")
    shutil.copy(cirr.e.folder / "vocab.txt", tmp_path)
    checkpoint = measuring.opened(evaluation(cirr, "", tmp_path, model_path=str(
        tmp_path / "epoch-1.safetensors")))
    assert checkpoint.selection == ""


def test_what_differs_from_training_is_told_or_refused(cirr, tmp_path):
    turned = measuring.opened(evaluation(cirr, "val", tmp_path, transform="squarepad"))
    assert turned.notes == ["trained with another transform than squarepad 1.25"]
    other = written_tower(tmp_path / "other.safetensors", 6)
    with pytest.raises(WeightsError, match="val.safetensors was trained on other weights of "
                       "doodle-clip than .*other.safetensors: give those with image_weights"):
        measuring.opened(evaluation(cirr, "val", tmp_path, image_weights=other))
    with pytest.raises(WeightsError, match=r"on the image encoder doodle-clip, asked is eva-g "):
        measuring.opened(evaluation(cirr, "val", tmp_path, backbone="pretrain"))
    (tmp_path / "short.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    with pytest.raises(ValueError, match="short.txt makes 5 tokens"):
        measuring.opened(evaluation(cirr, "val", tmp_path, vocabulary=str(tmp_path / "short.txt")))
    with pytest.raises(DatasetError, match="targets of doodles_cirr test1 are private: submit"):
        measuring.evaluate(evaluation(cirr, "absent", tmp_path, split="test1"))


# --------------------------------------------------------------------------------- own queries


@pytest.fixture(scope="module")
def checkpoint(cirr, tmp_path_factory) -> Opened:
    return measuring.opened(evaluation(cirr, "val", tmp_path_factory.mktemp("opened")))


def asked(made: Made, **turned) -> Retrieve:
    own = made.e.config
    return Retrieve(**{"dataset": own.dataset, "data_path": own.data_path, "model_path": "x",
                       "dress_type": "toptee"} | turned)


def test_a_query_by_its_row(cirr):
    val = cirr.e.val["cirr"]
    query = query_of(asked(cirr, reference=" 3 "), val)
    assert query == querying.Query(val.images.path(val.reference[3]), val.texts[3],
                                   int(val.reference[3]), int(val.target[3]))
    assert query_of(asked(cirr, reference=3), val) == query  # as papermill gives it
    other = query_of(asked(cirr, reference="3", text="make it red"), val)
    assert (other.text, other.reference, other.target) == ("make it red", query.reference, None)
    private = read_composed(cirr.e.config.data_path, "doodles_cirr", "test1")
    assert query_of(asked(cirr, reference="0"), private).target is None


def test_a_query_by_a_name_of_the_gallery_or_a_file(cirr, checkpoint, tmp_path):
    val = cirr.e.val["cirr"]
    named = query_of(asked(cirr, reference=val.names[5], text="make it red"), val)
    assert named == querying.Query(val.images.path(5), "make it red", 5)
    own = tmp_path / f"mine{val.images.path(5).suffix}"
    shutil.copy(val.images.path(5), own)
    filed = query_of(asked(cirr, reference=str(own), text="make it red"), val)
    assert filed == querying.Query(own, "make it red")
    one, two = (querying.query_vector(checkpoint.retriever, q) for q in (named, filed))
    assert one.shape == (1, 16) and torch.allclose(one, two, atol=1e-6)


def test_a_name_of_digits_is_a_name(cirr):
    """FashionIQ's gallery has two."""
    val = cirr.e.val["cirr"]
    numbered = replace(val, names=("9789814259", "1", *val.names[2:]))
    for name, row in (("9789814259", 0), ("1", 1)):
        query = query_of(asked(cirr, reference=name, text="make it red"), numbered)
        assert (query.reference, query.target, query.text) == (row, None, "make it red")
    assert query_of(asked(cirr, reference="0"), numbered).reference == val.reference[0]


def test_what_no_query_is_told(cirr, checkpoint, tmp_path):
    val = cirr.e.val["cirr"]

    def told(**turned) -> str:
        with pytest.raises(DatasetError) as error:
            querying.query_vector(checkpoint.retriever, query_of(asked(cirr, **turned), val))
        return str(error.value)

    assert told(reference=str(len(val))) == (
        f"reference={len(val)}: the set has queries 0 to {len(val) - 1}")
    assert "is a picture: say in text what shall differ" in told(reference=val.names[0])
    assert "is a picture: say in text" in told(reference=val.names[0], text="  ")
    for name in ("cat.jpg", "²", ""):
        found = told(reference=name, text="make it red")
        assert f"no picture {name!r}: reference is a number" in found and val.names[0] in found
    (tmp_path / "torn.png").write_bytes(b"no picture")
    found = told(reference=str(tmp_path / "torn.png"), text="make it red")
    assert "torn.png is not a whole picture" in found


def test_a_vector_is_the_sets_own(cirr, checkpoint):
    val = cirr.e.val["cirr"]
    vectors = checkpoint.retriever.vectors(val)
    for row in (0, 7):
        found = querying.query_vector(checkpoint.retriever, query_of(
            asked(cirr, reference=str(row)), val))
        assert torch.allclose(found[0], vectors.query[row], atol=2e-3)  # stored in halves


def test_a_text_that_is_too_long_is_told(cirr, checkpoint, capsys):
    val = cirr.e.val["cirr"]
    known = next(t for t in checkpoint.retriever.wordpiece.tokens if t.isalpha() and len(t) > 2)
    for text, cut in ((f"{known} " * 30, False), (f"{known} " * 31, True)):
        querying.query_vector(checkpoint.retriever, querying.Query(val.images.path(0), text, 0))
        assert ("longer than 32 tokens" in capsys.readouterr().out) == cut


def test_answers_are_the_best_in_order_as_the_protocol_has_them(cirr, fashion):
    """CIRR's reference is out of its gallery, FashionIQ's in it, and so is one's own picture."""
    for made, kind in ((cirr, "cirr"), (fashion, "toptee")):
        val = made.e.val[kind]
        vectors = made.e.retriever.vectors(val)
        query = query_of(asked(made, reference="2"), val)
        vector, n = vectors.query[2][None], len(val.images)
        scores = [max(float(vector[0] @ v) for v in own) for own in vectors.gallery]
        order = sorted(range(n), key=lambda row, scores=scores: (-scores[row], row))
        kept = [row for row in order if row != query.reference] if made is cirr else order
        found = answers(query, vector, vectors.gallery, val, 5)
        assert [row for row, _ in found] == kept[:5]
        assert [s for _, s in found] == pytest.approx([scores[row] for row in kept[:5]], abs=1e-5)
        assert [row for row, _ in answers(query, vector, vectors.gallery, val, 999)] == kept
        own = replace(query, reference=None, target=None)
        assert [row for row, _ in answers(own, vector, vectors.gallery, val, 999)] == order
    rank = int(made.e.retriever.vectors(val).ranks(val).gallery[2])
    assert kept.index(query.target) == rank - 1


def test_asked_otherwise_the_target_is_not_known(cirr):
    query = query_of(asked(cirr, reference="2"), cirr.e.val["cirr"])
    assert asked_otherwise(query, query.text) is query
    other = asked_otherwise(query, "make it red")
    assert other == replace(query, text="make it red", target=None)
    drawn = querying.drawn_row(query, [(query.target, 0.5), (0, 0.4)], cirr.e.val["cirr"], "two")
    assert [right for _, right in drawn[2]] == [True, query.target == 0] and drawn[3] == "two"
    assert {right for _, right in querying.drawn_row(other, [(1, 0.5)], cirr.e.val["cirr"])[2]
            } == {None}
    assert drawn[0].ndim == 3 and max(drawn[0].shape) <= querying.SIDE


def told_rows(rows) -> list:
    return [(picture.tobytes(), text, [(p.tobytes(), right) for p, right in found], caption)
            for picture, text, found, caption in rows]


def test_examples_are_drawn_by_the_seed(cirr):
    val = cirr.e.val["cirr"]
    vectors = cirr.e.retriever.vectors(val)
    one, two, other = (told_rows(querying.examples(val, vectors, 4, 6, seed=seed))
                       for seed in (3, 3, 4))
    assert one == two and one != other and len(one) == 4
    ranks = dict(zip(zip(val.reference, val.texts, strict=True),
                     vectors.ranks(val).gallery.tolist(), strict=True))
    texts = {text for _, text in ranks}
    for _, text, found, caption in one:
        assert text in texts and len(found) == 6
        rank = int(caption.removeprefix("target at "))
        assert [right for _, right in found] == [i == rank for i in range(1, 7)]


def test_one_type_of_fashioniq_is_searched(fashion, cirr):
    found = querying.opened_set(asked(fashion, dress_type="shirt"))
    assert found.types == ("shirt",) and len(found) == len(fashion.e.val["shirt"])
    small = querying.opened_set(asked(fashion, dress_type="toptee", gallery="VAL"))
    assert len(small.images) <= len(fashion.e.val["toptee"].images)
    assert querying.opened_set(asked(cirr)).types == ()


# ------------------------------------------------------------------------------- CIRR's server


ANSWER = {"server_recall": [40.0, 70.25, 82.0, 96.0], "server_recall_subset": [60.75, 80.0, 90.0]}


def submission(made: Made, folder: Path, **turned) -> Submit:
    given = asdict(evaluation(made, "val", folder))
    return Submit(**given | {"split": "test1"} | turned)


@pytest.fixture(scope="module")
def submitted(cirr, checkpoint, tmp_path_factory):
    config = submission(cirr, tmp_path_factory.mktemp("submitted"), **ANSWER)
    return config, *querying.submit(config, checkpoint.retriever, progress=False)


def test_both_files_are_what_the_server_takes(cirr, submitted):
    config, test1, vectors, files = submitted
    assert len(test1.images) == 64 and test1.target is None and len(test1) == 10
    folder = Path(config.save_root)
    assert files == {m: folder / f"{m}.json" for m in ("recall", "recall_subset")}
    assert all(submission_faults(file, m, test1) == [] for m, file in files.items())
    scores = vectors.scores(slice(None))
    for metric, file in files.items():
        content = json.loads(file.read_text())
        assert (content.pop("version"), content.pop("metric")) == ("rc2", metric)
        assert list(content) == sorted(test1.pair_ids)
        for row, pair in enumerate(test1.pair_ids):
            allowed = range(64) if metric == "recall" else sorted(test1.members[row])
            order = sorted((r for r in allowed if r != test1.reference[row]),
                           key=lambda r, row=row: -scores[row, r])
            assert content[pair] == [test1.names[r] for r in order[:len(content[pair])]]
    changed = json.loads(files["recall"].read_text())
    changed[test1.pair_ids[0]][0] = test1.names[test1.reference[0]]
    assert submission_faults(changed, "recall", test1)


def test_what_the_server_answered_is_recorded_with_what_was_sent(submitted, checkpoint):
    config, test1, _, files = submitted
    record = querying.server_record(config, test1, files, checkpoint, STARTED)
    assert read_record(Path(config.save_root) / "record.json").metrics == record.metrics
    assert values(record, "trained", "val") == {
        "R@1": 40.0, "R@5": 70.25, "R@10": 82.0, "R@50": 96.0, "Rsub@1": 60.75, "Rsub@2": 80.0,
        "Rsub@3": 90.0, "Avg": 65.5}
    assert {m.convention for m in record.metrics} == {"cirr"}
    assert (record.experiment, record.weights) == ("cirr-test", checkpoint.weights)
    assert (record.dataset.kind, record.dataset.n_query, record.dataset.n_gallery) == (
        "demo", 10, 64)
    assert record.protocol == "rc2, reference out of the gallery" and not record.files
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files.values()]
    assert [re.findall(r"(recall\w*)\.json, SHA-256 (\w+)$", note) for note in record.notes] == [
        [("recall", hashes[0])], [("recall_subset", hashes[1])]]


def test_a_gallery_that_is_too_small_is_not_handed_in(cirr, checkpoint, tmp_path):
    with pytest.raises(ValueError, match="50 images beside the reference: doodles_cirr val"):
        querying.submit(submission(cirr, tmp_path, split="val"), checkpoint.retriever, False)
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(("wrong", "told"), [
    ({"rerank": True}, "rerank=True: .* never .*released"),
    ({"dataset": "FashionIQ"}, "dataset=FashionIQ: only CIRR has a test server"),
    ({"server_recall": [1.0, 2.0, 3.0, 4.0]}, "4 and 0 numbers were given"),
    ({"server_recall": [1.0, 2.0, 3.0, 4.0], "server_recall_subset": [1.0, 2.0]}, "4 and 2 num"),
    ({"server_recall_subset": [1.0, 2.0, 3.0]}, "0 and 3 numbers were given")])
def test_what_cannot_be_handed_in_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        Submit(**{"model_path": "x"} | wrong)


def test_the_average_over_types_is_the_summarys(fashion):
    """By type, not by query: the types have 9, 17 and 41."""
    ranks = fashion.results.ranked["trained val"]
    assert len(Counter(map(len, fashion.e.val.values()))) == 3
    wanted = fashioniq_summary(ranks)["average"]["Avg"]["mean"]
    own = values(fashion.record, "trained", "val")
    assert own["average Avg"] == pytest.approx(100 * wanted, abs=1e-5)
    every = torch.cat([r.per_query()["Avg"] for r in ranks.values()]).mean()
    assert own["average Avg"] != pytest.approx(100 * float(every), abs=1e-3)
