"""ZSE-SBIR on tiny doodles: data, options, rankings, training, explanations, notebooks."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw
from test_notebooks import code, execute

from replication import (
    backbones,
    data,
    fine_grained,
    metrics,
    notebooks,
    paths,
    records,
    sketch_retrieval,
    training,
)
from replication.papers import zse_sbir
from replication.papers.zse_sbir import experiment, explanation, scoring

pytestmark = pytest.mark.xdist_group("zse_sbir")  # one worker, so one run of the notebooks

BOOK = Path(__file__).resolve().parent.parent / "book" / "zse_sbir"
SMALL = {"dataset": "doodles", "test_class": "", "d_model": 128, "d_ff": 32, "head": 4,
         "anchor_number": 4, "anchor_width": 16, "patch_stack": 4, "tower": "doodle-vit",
         "weights": "none", "image_size": 32, "datasetLen": 24, "batch": 10, "epoch": 1,
         "num_workers": 0, "validate_from": 0, "sketch_step": 2, "photo_step": 2}


def config(doodles: Path, folder: Path, **more) -> zse_sbir.Config:
    return zse_sbir.Config(**SMALL | {"data_path": str(doodles), "save": str(folder),
                                      "accelerator": "cpu"} | more)


def prepared(doodles, folder, **more):
    return zse_sbir.prepare(config(doodles, folder, **more))


def train(doodles, folder, **more) -> training.Run:
    return zse_sbir.train(prepared(doodles, folder, **more), progress=False)


def weights(run: training.Run, selection: str) -> dict[str, torch.Tensor]:
    return training.read_weights(run.weights(selection))[0]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---------------------------------------------------------------------------------------- options


def test_the_originals_options_have_its_names_and_defaults():
    c = zse_sbir.Config()
    original = {"data_path": "./datasets", "dataset": "sketchy_extend",
                "test_class": "test_class_sketchy25", "cls_number": 100, "d_model": 768,
                "d_ff": 1024, "head": 8, "number": 1, "pretrained": True, "anchor_number": 49,
                "batch": 15, "epoch": 30, "datasetLen": 10000, "learning_rate": 1e-5,
                "weight_decay": 1e-2, "retrieval": "rn", "testall": False, "test_sk": 20,
                "test_im": 20, "num_workers": 4, "choose_cuda": 0, "seed": 2021}
    assert {k: getattr(c, k) for k in original} == original
    names = set(notebooks.notebook_parameters(BOOK / "train.ipynb"))
    assert {*original, "save", "load"} <= names
    elsewhere = {"accelerator"}
    assert names == set(zse_sbir.Config.__dataclass_fields__) - elsewhere


@pytest.mark.parametrize(("given", "error", "told"), [
    ({"image_size": 8, "anchor_number": 1}, ValueError, "image_size=8: .* a multiple of 16 pixels"),
    ({"anchor_number": 9}, ValueError, "anchor_number=9: doodle-vit has 4 anchors"),
    ({"d_model": 64}, ValueError, "d_model=64: doodle-vit has 128"),
    ({"head": 3}, ValueError, "head=3 does not divide"),
    ({"test_class": "test_class_sketchy25"}, data.DatasetError,
     "test_class_sketchy25 is 100/25 of sketchy; .* holds doodles 38/14"),
    ({"test_class": "30/22"}, data.DatasetError, "holds doodles 38/14"),
    ({"dataset": "tu_berlin"}, data.DatasetError, "no set 'tuberlin' .*data_prep.tuberlin"),
    ({"load": "none.pth"}, backbones.WeightsError, "no checkpoint none.pth .*buptLinfy/ZSE-SBIR"),
    ({"selection": "seen"}, ValueError, "val_classes")])
def test_what_does_not_fit_is_said_before_any_work(doodles, tmp_path, given, error, told):
    with pytest.raises(error, match=told):
        zse_sbir.train(prepared(doodles, tmp_path, **given), progress=False)


def test_a_test_class_that_fits_is_taken(doodles, tmp_path):
    e = prepared(doodles, tmp_path, test_class="38/14", testall=True)
    assert len(e.sketch_set.val.photo) == 14 * 4
    half = prepared(doodles, tmp_path, test_class="38/14").sketch_set.val
    assert half.sketch.files == e.sketch_set.val.sketch.files[::2]
    assert half.photo.files == e.sketch_set.val.photo.files[::2]
    published = config(doodles, tmp_path, dataset="sketchy_extend", sketch_step=0, photo_step=0)
    assert published.steps == (20, 10)
    assert replace(published, dataset="Quickdraw").steps == (120, 30)
    assert replace(published, test_dataset="tu_berlin").steps == (3, 20)


# ------------------------------------------------------------------------------------------- data


def test_items_are_of_one_class_and_another_and_never_a_first_file(doodles):
    split = data.read_sketch_set(doodles, "doodles").train
    twice = replace(split.sketch, files=tuple(np.repeat(split.sketch.files, 3)),
                    labels=np.repeat(split.sketch.labels, 3))
    split = data.Split(twice, split.photo)
    empty = np.zeros((1, 1, 1, 3), np.uint8)
    pairs = zse_sbir.Pairs(split, empty, empty, 4000, 1, 0)
    sketch, second, photo, other = pairs.plan.T
    label = split.sketch.labels[sketch]
    assert (label == split.sketch.labels[second]).all()
    assert (label == split.photo.labels[photo]).all()
    assert (label != split.photo.labels[other]).all()
    count = np.bincount(label, minlength=38)
    assert count.min() > 60 and count.max() < 160  # 4000 / 38 = 105: classes are drawn evenly
    for rows, labels in ((sketch, split.sketch.labels), (other, split.photo.labels)):
        first = np.searchsorted(labels, np.arange(38))
        assert not np.isin(rows, first).any()
        assert set(np.delete(np.arange(len(labels)), first)) == set(rows)
    every = replace(pairs, first_files=True).plan[:, 0]
    assert set(every) == set(range(len(split.sketch)))
    assert (replace(pairs).plan == pairs.plan).all()
    assert (replace(pairs, epoch=1).plan != pairs.plan).any()
    assert (replace(pairs, seed=2).plan != pairs.plan).any()


def test_single_photos_are_told_from_others_of_their_class(doodles):
    split = data.read_sketch_set(doodles, "doodles").train
    empty = np.zeros((1, 1, 1, 3), np.uint8)
    plan = zse_sbir.Pairs(split, empty, empty, 500, 1, 0, instances=True).plan
    sketches, photos = np.array(split.sketch.instances), np.array(split.photo.instances)
    sketch, second, photo, other = plan.T
    assert (sketches[sketch] == photos[photo]).all() and (sketches[second] == photos[photo]).all()
    assert (photos[other] != photos[photo]).all()
    assert (split.photo.labels[other] == split.photo.labels[photo]).all()


def blank(doodles: Path, root: Path, domain: str = "sketch") -> Path:
    shutil.copytree(doodles / "doodles", root / "doodles", copy_function=os.link)
    (root / "doodles" / "manifest.csv").unlink()
    return min((root / "doodles" / "val" / domain).rglob("*.png" if domain == "sketch" else "*"))


def test_an_all_white_sketch_is_named(doodles, tmp_path, own_cache):
    file = blank(doodles, tmp_path)
    file.unlink()
    Image.new("RGB", (32, 32), "white").save(file)
    e = prepared(tmp_path, tmp_path / "r", testall=True)
    with pytest.raises(data.DatasetError, match=f"{file.name} .no ink"):
        zse_sbir.rankings(e, e.sketch_set.val)
    with pytest.raises(ValueError, match="no ink"):
        zse_sbir.query_tokens(e, file, "sketch")


def test_a_picture_smaller_than_a_patch_is_enlarged(doodles, tmp_path):
    dot = Image.new("RGB", (5, 3), "white")
    dot.putpixel((2, 1), (0, 0, 0))
    dot.save(tmp_path / "dot.png")
    e = prepared(doodles, tmp_path)
    assert zse_sbir.query_tokens(e, tmp_path / "dot.png", "sketch").shape == (1, 17, 128)


def test_a_class_without_photos_is_named(doodles, tmp_path):
    shutil.copytree(doodles / "doodles", tmp_path / "doodles", copy_function=os.link)
    shutil.rmtree(tmp_path / "doodles/train/photo/apple")
    with pytest.raises(data.DatasetError, match="none in train/photo/apple"):
        prepared(tmp_path, tmp_path / "r")


def test_another_sets_unseen_classes_can_be_the_test(doodles, tmp_path):
    shutil.copytree(doodles / "doodles", tmp_path / "other", copy_function=os.link)
    (tmp_path / "other/manifest.csv").unlink()
    moved = min(p.name for p in (tmp_path / "other/val/sketch").iterdir())
    seen = min(p.name for p in (tmp_path / "other/train/sketch").iterdir())
    for domain in ("sketch", "photo"):  # a class that is trained on, in the other set's test
        (tmp_path / "other/train" / domain / seen).rename(tmp_path / "other/val" / domain / seen)
    (tmp_path / "doodles").symlink_to(doodles / "doodles")
    e = prepared(tmp_path, tmp_path / "r", test_dataset="other", testall=True)
    assert e.sketch_set.name == "doodles-to-other" and e.sketch_set.split_name == "38/14"
    assert moved in e.sketch_set.val.classes and seen not in e.sketch_set.val.classes
    assert e.folder.name == "doodles-to-other"
    zse_sbir.train(e, progress=False)
    for part in ("sketch", "photo"):
        for name in e.sketch_set.val.classes:
            shutil.rmtree(tmp_path / "other/val" / part / name)
    with pytest.raises(data.DatasetError, match="every unseen class of it is a seen class"):
        prepared(tmp_path, tmp_path / "r", test_dataset="other")


# --------------------------------------------------------------------------------------- rankings


@pytest.fixture(scope="module")
def ranked(doodles, tmp_path_factory):
    e = prepared(doodles, tmp_path_factory.mktemp("r"), testall=True, test_sk=5, test_im=9)
    return e, zse_sbir.rankings(e, e.sketch_set.val)


def test_a_splits_scores_are_the_slow_twins(ranked):
    e, found = ranked
    split = e.sketch_set.val
    e.model.eval()
    tokens = [scoring.tower_tokens(e, np.array(data.cached_pixels(i, e.preprocess)))
              for i in (split.sketch, split.photo)]
    slow = zse_sbir.plain_block(e.model, *tokens)
    assert found["rn"].matrix.dtype == torch.float32
    torch.testing.assert_close(found["rn"].matrix, slow, rtol=1e-4, atol=1e-6)
    alone = e.embed(split)
    torch.testing.assert_close(found["sa"].query, alone.query, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["sa"].gallery, alone.gallery, rtol=1e-4, atol=1e-5)


def test_every_picture_passes_the_tower_once(doodles, tmp_path, monkeypatch):
    e = prepared(doodles, tmp_path, testall=True, test_sk=3)
    passed, tower = [], e.model.sa.forward
    monkeypatch.setattr(e.model.sa, "forward", lambda x: passed.append(len(x)) or tower(x))
    zse_sbir.rankings(e, e.sketch_set.val)
    assert sum(passed) == len(e.sketch_set.val.sketch) + len(e.sketch_set.val.photo)


def test_memory_is_bounded_by_test_sk_and_test_im(doodles, tmp_path, monkeypatch):
    e = prepared(doodles, tmp_path, testall=True, test_sk=3, test_im=4)
    seen, made = [], scoring.projected
    monkeypatch.setattr(scoring, "projected", lambda m, t, d: seen.append((d, len(t))) or
                        made(m, t, d))
    zse_sbir.rankings(e, e.sketch_set.val)
    assert max(n for d, n in seen if d == "sketch") == 3
    assert max(n for d, n in seen if d == "photo") == 4


def test_half_precision_scores_come_out_in_float32(ranked):
    e, found = ranked
    with torch.autocast("cpu", torch.bfloat16):
        scores = e.model.rn(torch.randn(6, 4, 16).bfloat16(), torch.randn(6, 4, 16).bfloat16())
    assert scores.dtype == torch.float32 and scores.unique().numel() == 6


@pytest.mark.parametrize("k", [1, 7, 56, 1000])
def test_a_shortlist_is_ordered_by_rn_before_the_rest_by_sa(ranked, doodles, tmp_path, k):
    e, found = ranked
    short = prepared(doodles, tmp_path, testall=True, test_sk=5, test_im=9, rerank_top_k=k)
    short.model.load_state_dict(e.model.state_dict())
    ranking = zse_sbir.rankings(short, e.sketch_set.val)["rn"]
    cut = min(k, 56)
    order = ranking.scores(slice(0, 100)).argsort(dim=1, descending=True, stable=True)
    by_sa = found["sa"].scores(slice(0, 100)).argsort(dim=1, descending=True, stable=True)
    for row, (ours, sa) in enumerate(zip(order, by_sa, strict=True)):
        wanted = found["rn"].matrix[row, sa[:cut]]
        assert set(ours[:cut].tolist()) == set(sa[:cut].tolist())
        assert found["rn"].matrix[row, ours[:cut]].diff().le(1e-6).all()
        assert ours[cut:].tolist() == sa[cut:].tolist()
        assert wanted.max() == pytest.approx(found["rn"].matrix[row, ours[0]].item())
    whole = scoring.reranked(found["sa"], found["rn"], cut)
    torch.testing.assert_close(whole.scores(slice(0, 9)), ranking.scores(slice(0, 9)))


def test_the_loss_of_a_shortlist_ends_at_nothing(ranked):
    rows = zse_sbir.shortlist_loss(ranked[1], (5, 20, 500))
    four = {k: sketch_retrieval.four_metrics(v, metrics.COMMON) for k, v in ranked[1].items()}
    assert [r["photos scored"] for r in rows] == [0, 5, 20, 56]
    assert rows[0]["mAP@all"] == pytest.approx(four["sa"]["mAP@all"])
    assert rows[-1]["mAP@all"] == pytest.approx(four["rn"]["mAP@all"])
    assert rows[-1]["share of pairs"] == 100


# --------------------------------------------------------------------------------------- training


def test_an_interrupted_run_ends_with_the_weights_of_one_left_alone(
        doodles, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    given = {"epoch": 2, "dropout": 0.1, "val_classes": 3}
    alone = train(doodles, tmp_path / "alone", **given)
    terms, steps = experiment.loss_terms, []

    def interrupted(*args, **kwargs):
        steps.append(0)
        if len(steps) == 5:  # three steps an epoch: the second one of the second epoch
            raise KeyboardInterrupt
        return terms(*args, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(experiment, "loss_terms", interrupted)
        train(doodles, tmp_path / "stopped", **given)
    e = prepared(doodles, tmp_path / "stopped", **given)
    torch.rand(5), np.random.rand(5)
    again = zse_sbir.train(e, progress=False)
    assert again.best == alone.best and again.best.keys() == {"unseen", "seen", "last"}
    for selection in again.best:
        assert same(weights(again, selection), weights(alone, selection)), selection


def test_two_processes_train_as_one(doodles, tmp_path):
    given = {"dropout": 0.0, "batch": 4, "datasetLen": 10, "precision": "32-true"}
    one = train(doodles, tmp_path / "one", **given)
    two = train(doodles, tmp_path / "two", devices=2, **given)
    a, b = weights(one, "last"), weights(two, "last")
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-4, atol=1e-5, msg=key)
    assert two.history[0]["loss"] == pytest.approx(one.history[0]["loss"], rel=1e-4)


def test_every_part_learns_at_its_own_rate(doodles, tmp_path):
    e = prepared(doodles, tmp_path, cross_rate=0.0, relation_rate=2.0)
    rates = [g["lr"] for g in experiment.optimizer(e.model, e.config).param_groups]
    assert rates == pytest.approx([1e-5, 0, 2e-5, 2e-5])
    start = {k: v.clone() for k, v in e.model.state_dict().items()}
    zse_sbir.train(e, progress=False, select=False)
    now = e.model.state_dict()
    assert {k.split(".")[0] for k in start if not torch.equal(start[k], now[k])} == {
        "sa", "conv2d", "rn"}


def test_epochs_before_validate_from_are_not_evaluated(doodles, tmp_path):
    run = train(doodles, tmp_path, epoch=3, validate_from=1)
    assert ["unseen mAP@all" in row for row in run.history] == [False, True, True]
    short = train(doodles, tmp_path / "short", epoch=1, validate_from=10)
    assert short.best.keys() == {"unseen", "last"}, "the last epoch is evaluated"


def test_a_run_of_no_epochs_measures_a_checkpoint_that_was_loaded(doodles, tmp_path):
    first = train(doodles, tmp_path / "first")
    e = prepared(doodles, tmp_path / "again", load=str(first.weights("last")), epoch=0)
    run = zse_sbir.train(e, progress=False)
    assert same(weights(run, "unseen"), weights(first, "last"))
    assert e.weights.name.endswith("last.safetensors")


def test_the_published_names_of_a_checkpoint_are_read(doodles, tmp_path):
    e = prepared(doodles, tmp_path)
    tower = {"pos_embed": "pos_embedding", "cls_token": "cls", "patch_embed.proj": "embedding",
             "norm": "transformer.encoder_norm", "patch_embed.stack": "scale.seq"}
    inner = {"norm1": "layer_norm_input", "norm2": "layer_norm_out", "attn.qkv":
             "attention.to_qkv", "attn.proj": "attention.to_out.0", "mlp.fc1": "mlp.net.0",
             "mlp.fc2": "mlp.net.3"}

    def official(key: str) -> str:
        if not key.startswith("sa.vit."):
            return key
        key = key.removeprefix("sa.vit.")
        for ours, theirs in inner.items():
            if key.startswith("blocks.") and f".{ours}." in key:
                number = key.split(".")[1]
                return f"sa.model.transformer.layers.{number}.0.{theirs}.{key.split('.')[-1]}"
        ours = next(o for o in tower if key.startswith(o))
        return "sa.model." + key.replace(ours, tower[ours], 1)

    state = {official(k): v + 1 for k, v in e.model.state_dict().items()}
    state["ca.encoder.layers.0.norm.a"] = torch.zeros(3)
    torch.save({"model": state}, tmp_path / "best_checkpoint.pth")
    before = {k: v.clone() for k, v in e.model.state_dict().items()}
    loaded = prepared(doodles, tmp_path, load=str(tmp_path / "best_checkpoint.pth"))
    now = loaded.model.state_dict()
    assert all(torch.equal(now[k], before[k] + 1) for k in before)


# --------------------------------------------------------------------------------- what is measured


@pytest.fixture(scope="module")
def measured(doodles, tmp_path_factory):
    e = prepared(doodles, tmp_path_factory.mktemp("m"), val_classes=2, generalised=True, epoch=2)
    untrained = zse_sbir.rankings(e, e.sketch_set.val)
    run = zse_sbir.train(e, progress=False)
    return e, run, zse_sbir.measure(e, run, untrained, progress=False), untrained


def test_both_rankings_are_recorded_under_their_names(measured):
    e, run, (results, reported), _ = measured
    kinds = {(m.variant, m.selection, m.protocol) for m in results.rows}
    for variant in ("trained", "trained sa"):
        assert {(variant, s, "") for s in ("unseen", "seen", "last")} <= kinds
        assert {(variant, "unseen", "generalised"), (variant, "unseen", "fine-grained")} <= kinds
    assert {("untrained", "", ""), ("untrained sa", "", ""), ("pixels", "", ""),
            ("chance", "", "")} <= kinds
    assert results.files["embeddings"] == "embeddings.safetensors"
    rows = {(m.variant, m.selection): m.value for m in results.rows
            if (m.metric, m.convention, m.protocol) == ("mAP@all", "trec", "")}
    for mode, name in (("rn", "trained"), ("sa", "trained sa")):
        four = sketch_retrieval.four_metrics(reported[mode], metrics.COMMON)
        assert rows[name, "unseen"] == pytest.approx(four["mAP@all"], abs=1e-5)


def test_a_record_with_scores_can_be_verified(measured):
    from replication.verification import AGREES, DIFFERS, verified

    e, run, (results, reported), _ = measured
    record = sketch_experiment_record(e, run, results, reported["rn"])
    lines, outcome = verified(e.folder / "record.json")
    assert outcome == AGREES and any("first places" in line for line in lines)
    assert record.dataset.n_query == len(e.sketch_set.val.sketch)
    assert record.cost.items_per_second and record.parameters["retrieval"] == "rn"
    changed = json.loads((e.folder / "record.json").read_text())
    changed["metrics"][0]["value"] += 1
    changed["metrics"][0]["high"] += 1
    (e.folder / "changed.json").write_text(json.dumps(changed))
    assert verified(e.folder / "changed.json")[1] == DIFFERS


def sketch_experiment_record(e, run, results, ranking):
    from replication import sketch_experiment

    return sketch_experiment.record(e, run, results, ranking, records.utc_now(), 1.0)


def test_scores_above_the_limit_are_measured_and_not_kept(doodles, tmp_path):
    e = prepared(doodles, tmp_path, keep_scores_mb=0)
    run = zse_sbir.train(e, progress=False)
    results, _ = zse_sbir.measure(e, run, {}, progress=False)
    assert "embeddings" not in results.files, "another ranking must not stand for the main one"
    assert results.files["embeddings:trained sa:unseen"] == \
        "embeddings-trained-sa-unseen.safetensors"
    assert any(m.variant == "trained" for m in results.rows)


def test_retrieval_sa_never_scores_a_pair(doodles, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "score_block", None)
    e = prepared(doodles, tmp_path, retrieval="sa")
    untrained = zse_sbir.rankings(e, e.sketch_set.val)
    run = zse_sbir.train(e, progress=False)
    results, reported = zse_sbir.measure(e, run, untrained, progress=False)
    assert set(reported) == {"sa"} and {m.variant for m in results.rows} == {
        "trained", "untrained", "pixels", "chance"}
    gallery = zse_sbir.gallery_of(e)
    assert len(gallery.files) == len(e.sketch_set.val.photo)


def test_scores_left_behind_by_a_ranking_are_removed(doodles, tmp_path, own_cache):
    e = prepared(doodles, tmp_path)
    found = zse_sbir.rankings(e, e.sketch_set.val)
    assert len(list((own_cache / "scores").iterdir())) == 1
    assert found["rn"].matrix.shape == (28, 28)
    del found
    assert not list((own_cache / "scores").iterdir())


# ------------------------------------------------------------------------------------ fine-grained


def shoes(root: Path, layout: str) -> Path:
    """A made-up set of three training and two test photos with two sketches each."""
    folder = root / "ShoeV2"
    rng = np.random.default_rng(0)
    for part, ids in (("train", (11, 12, 13)), ("test", (21, 22))):
        listed = {"sketch": [], "photo": []}
        for number in ids:
            for domain, names in (("photo", [f"{number}.png"]),
                                  ("sketch", [f"{number}_1.png", f"{number}_2.png"])):
                where = {"nested": folder / part / domain, "turned": folder / domain / part,
                         "letters": folder / f"{part}{'A' if domain == 'sketch' else 'B'}",
                         "listed": folder / f"ShoeV2_{domain}"}[layout]
                where.mkdir(parents=True, exist_ok=True)
                for name in names:
                    Image.fromarray(rng.integers(0, 255, (40, 30, 3), np.uint8)).save(where / name)
                    listed[domain].append(name)
        if layout == "listed":
            for domain, names in listed.items():
                (folder / f"{domain}_{part}.txt").write_text("\n".join(names))
    return folder


@pytest.mark.parametrize("layout", ["nested", "turned", "letters", "listed"])
def test_shoes_are_read_in_every_layout(tmp_path, layout):
    folder = shoes(tmp_path, layout)
    assert fine_grained.is_flat(folder)
    found = fine_grained.read_instance_set(tmp_path, "ShoeV2")
    assert found.counts() == {"train (seen)": {"classes": 1, "sketches": 6, "photos": 3},
                              "val (unseen)": {"classes": 1, "sketches": 4, "photos": 2}}
    for split in (found.train, found.val):
        assert set(split.sketch.instances) == set(split.photo.instances)
        assert (split.sketch.domain, split.photo.domain) == ("sketch", "photo")
        assert all(i.path(n).is_file() for i in (split.sketch, split.photo) for n in range(len(i)))
    next(folder.rglob("21.png")).unlink()
    if layout != "listed":
        with pytest.raises(data.DatasetError, match="1 photos that test sketches depict .* 21"):
            fine_grained.read_instance_set(tmp_path, "ShoeV2")


def test_an_empty_part_is_named(tmp_path):
    folder = shoes(tmp_path, "letters")
    shutil.rmtree(folder / "testB")
    with pytest.raises(data.DatasetError, match="no test photo pictures.* testB/"):
        fine_grained.read_instance_set(tmp_path, "ShoeV2")


def test_the_fine_grained_setting_trains_and_selects_by_the_own_photo(tmp_path):
    shoes(tmp_path, "letters")
    with pytest.raises(data.DatasetError, match="no set 'ShoeV2'|lacks"):
        prepared(tmp_path, tmp_path / "r", dataset="ShoeV2")
    e = prepared(tmp_path, tmp_path / "r", dataset="ShoeV2", match="instance", sketch_step=0,
                 photo_step=0)
    run = zse_sbir.train(e, progress=False)
    assert run.best["unseen"]["value"] == pytest.approx(run.history[0]["unseen Acc@1"])
    results, _ = zse_sbir.measure(e, run, {}, progress=False)
    assert {"Acc@1", "Acc@5"} <= {m.metric for m in results.rows
                                  if (m.variant, m.protocol) == ("trained", "fine-grained")}


# -------------------------------------------------------------------------------------- explained


def test_released_anchors_have_no_place_and_a_grids_have_one(ranked):
    model = ranked[0].model
    tokens = torch.randn(1, 16, 128)
    touched = tokens.clone()
    touched[:, [0, 1, 4, 5]] += 1  # the first two by two patches of four by four
    try:
        with torch.inference_mode():
            moved = {}
            for layout in ("as-released", "grid"):
                model.layout = layout
                moved[layout] = (model.anchors(tokens) != model.anchors(touched)).any(-1)[0]
    finally:
        model.layout = "as-released"
    assert moved["grid"].tolist() == [True, False, False, False]
    assert moved["as-released"].all()


def test_correspondences_are_what_loops_give(ranked):
    e, _ = ranked
    e.model.eval()
    sketch, photo = torch.randn(2, 17, 128), torch.randn(2, 17, 128)
    found = zse_sbir.correspondences(e.model, sketch, photo)
    a, b = e.model.ca(sketch, photo)
    for i, j in ((0, 3), (15, 2)):
        wanted = torch.cosine_similarity(a[1, 1 + i], b[1, 1 + j], dim=0)
        assert found[1, i, j].item() == pytest.approx(wanted.item(), abs=1e-5)
    layer = e.model.ca.encoder.layer1[0]
    heads = [torch.softmax(layer.project(0, sketch)[0, h, 5] @ layer.project(1, photo)[0, h].T
                           / 32 ** 0.5, 0) for h in range(4)]
    weight = zse_sbir.correspondences(e.model, sketch, photo, "attention")
    assert weight.shape == (2, 16, 16)
    torch.testing.assert_close(weight[0, 4], torch.stack(heads).mean(0)[1:])
    with pytest.raises(ValueError, match="layout='grid'"):
        zse_sbir.correspondences(e.model, sketch, photo, "anchors")
    grid = zse_sbir.build(replace(e.config, layout="grid"))[0].eval()
    assert zse_sbir.correspondences(grid, sketch, photo, "anchors").shape == (2, 4, 4)


def test_class_attention_is_the_last_layers(ranked):
    e, _ = ranked
    images = torch.randn(2, 3, 32, 32)
    seen, vit = [], e.model.eval().sa.vit
    hook = vit.blocks[-1].attn.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    vit(images)
    hook.remove()
    q, k, _ = vit.blocks[-1].attn.qkv(seen[0]).reshape(2, 17, 3, 4, 32).permute(2, 0, 3, 1, 4)
    weight = (q[:, :, :1] @ k.transpose(2, 3) / 32 ** 0.5).softmax(-1).mean(1)[:, 0, 1:]
    found = explanation.class_attention(e.model, images)
    torch.testing.assert_close(found, weight / weight.sum(1, keepdim=True), rtol=1e-4, atol=1e-6)


def test_a_sketch_is_made_of_the_photo_patches_it_matches():
    photo = np.random.default_rng(0).random((32, 32, 3))
    order = np.random.default_rng(1).permutation(16)
    weight = np.zeros((16, 16))
    weight[np.arange(16), order] = 1
    made = zse_sbir.synthesis(weight, photo)
    for i, j in enumerate(order):
        one, other = (np.s_[8 * (n // 4):8 * (n // 4) + 8, 8 * (n % 4):8 * (n % 4) + 8]
                      for n in (i, j))
        assert np.array_equal(made[one], photo[other])


def test_the_strongest_lines_use_no_patch_twice():
    weight = np.random.default_rng(0).random((16, 16))
    rows = np.arange(16) % 2 == 0
    found = explanation.strongest(weight, 5, rows)
    values = weight[found[:, 0], found[:, 1]]
    assert (np.diff(values) <= 0).all() and values[0] == weight[rows].max()
    assert len(set(found[:, 0])) == len(set(found[:, 1])) == 5 and (found[:, 0] % 2 == 0).all()
    assert len(explanation.strongest(weight, 99, rows)) == 8


def test_a_place_of_a_sketch_is_found_in_the_networks_input(doodles, tmp_path):
    e = prepared(doodles, tmp_path)
    picture = Image.new("RGB", (200, 100), "white")
    ImageDraw.Draw(picture).line((60, 40, 150, 70), fill="black", width=2)
    picture.putpixel((60, 40), (200, 0, 0))  # a red end: still ink by its sum
    picture.save(tmp_path / "line.png")
    rule = replace(e.preprocess.of("sketch"), size=256)
    seen = rule.resized(picture).astype(int)
    y, x = np.argwhere(seen[..., 0] - seen[..., 2] > 60).mean(0)
    place = explanation.in_input(np.array([[60.5 / 200, 40.5 / 100]]), tmp_path / "line.png")[0]
    assert place * 256 == pytest.approx((x + 0.5, y + 0.5), abs=2)


def test_parts_are_found_by_right_correspondences_and_not_by_wrong_ones(
        doodles, tmp_path, monkeypatch):
    e = prepared(doodles, tmp_path, testall=True)
    split, parts = e.sketch_set.val, zse_sbir.read_parts(e.sketch_set.folder)
    middles = (np.indices((4, 4)).reshape(2, -1).T[:, ::-1] + 0.5) / 4
    place = {name: i for i, name in enumerate(split.photo.instances)}
    pairs = [(i, place[s]) for i, s in enumerate(split.sketch.instances)]

    def told(right: bool):
        weights = []
        for s, p in pairs:
            of_sketch = parts[f"val/sketch/{split.sketch.files[s]}"]
            of_photo = parts[f"val/photo/{split.photo.files[p]}"]
            names = [n for n, spots in of_photo.items() for _ in spots]
            spots = np.array([x for found in of_photo.values() for x in found])
            near = np.array(names)[np.linalg.norm(middles[:, None] - spots, axis=2).argmin(1)]
            weight = np.zeros((16, 16), np.float32)
            for name, centres in of_sketch.items():
                x, y = (explanation.in_input(np.array(centres), split.sketch.path(s)) * 4) \
                    .astype(int).clip(0, 3).T
                weight[y * 4 + x] = (near == name) if right else (near != name)
            weights.append(weight)
        return torch.from_numpy(np.stack(weights))

    shares = {}
    for right in (True, False):
        weights = told(right)
        monkeypatch.setattr(explanation, "correspondences", lambda m, s, p, by, w=weights: w)
        shares[right] = explanation.check_parts(e, split, parts, batch=1000).table()
    # not 100 and 0: parts share patches, and small ones own none
    assert shares[True]["matched"]["mean"] > 60 > 20 > shares[False]["matched"]["mean"]
    assert 15 < shares[True]["random"]["mean"] < 45
    with pytest.raises(data.DatasetError, match="only the built-in doodles"):
        zse_sbir.read_parts(tmp_path)


def test_pairs_to_explain_are_drawn_or_named(ranked):
    e, _ = ranked
    drawn = zse_sbir.drawn_pairs(e, n=3)
    assert len({p.name for p in drawn}) == 3 and drawn == zse_sbir.drawn_pairs(e, n=3)
    for pair in drawn:
        assert pair.photo.stem == pair.sketch.stem.rsplit("-", 1)[0]
        assert pair.other.parent.name == pair.other_name != pair.name == pair.photo.parent.name
    name = e.sketch_set.val.sketch.files[5]
    assert zse_sbir.drawn_pairs(e, name)[0].sketch == e.sketch_set.val.sketch.path(5)
    with pytest.raises(data.DatasetError, match="named cat/none.png"):
        zse_sbir.drawn_pairs(e, "cat/none.png")
    one = zse_sbir.explain(e, drawn[0].sketch, drawn[0].photo)
    place = [p for p, s in enumerate(e.sketch_set.val.photo.files)
             if s.endswith(drawn[0].photo.name)]
    row = [p for p, s in enumerate(e.sketch_set.val.sketch.files)
           if s.endswith(drawn[0].sketch.name)]
    assert one.score == pytest.approx(ranked[1]["rn"].matrix[row[0], place[0]].item(), abs=1e-5)


# -------------------------------------------------------------------------------------- notebooks


@pytest.fixture(scope="module")
def trained(doodles, tmp_path_factory):
    """pretrain and train through plain papermill, as a user would, on tiny doodles."""
    folder = tmp_path_factory.mktemp("run")
    execute(BOOK.parent / "pretrain/vit.ipynb", folder / "vit.ipynb", folder, {
        "data_root": str(doodles), "epochs": 1, "image_size": 32,
        "save_root": str(folder / "pretrain")})
    given = {k: v for k, v in SMALL.items() if k != "test_class"} | {
        "data_path": str(doodles), "save": str(folder / "result"), "test_im": 30,
        "weights": str(folder / "pretrain/vit.safetensors")}
    execute(BOOK / "train.ipynb", folder / "train.ipynb", folder, given)
    return folder, given


def given_to(notebook: str, given: dict) -> dict:
    names = notebooks.notebook_parameters(BOOK / notebook)
    return {k: v for k, v in given.items() if k in names}


def told(notebook: Path) -> str:
    return "".join(o.get("text", "") for c in code(notebook) for o in c.outputs)


def test_training_leaves_a_valid_record_and_pictures_with_a_text(trained):
    folder, _ = trained
    record = records.read_record(folder / "result/doodles/record.json")
    assert record.paper == "zse_sbir" and record.seed == 2021 and record.dataset.kind == "demo"
    outputs = [o for c in code(folder / "train.ipynb") for o in c.outputs]
    shown = [o["data"][records.MIME] for o in outputs if records.MIME in o.get("data", {})]
    assert len(shown) == 1
    html = [o["data"]["text/html"] for o in outputs
            if "<img" in o.get("data", {}).get("text/html", "")]
    assert len(html) == 3 and all('alt="' in h for h in html)
    assert "photos scored" in str(outputs)


def test_a_drawing_of_ones_own_finds_photos_and_is_explained(trained, tmp_path):
    folder, given = trained
    drawing = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    ImageDraw.Draw(drawing).ellipse((50, 40, 250, 160), outline="black", width=5)
    drawing.save(tmp_path / "own drawing.png")
    execute(BOOK / "retrieve.ipynb", folder / "retrieve.ipynb", folder, {
        **given_to("retrieve.ipynb", given), "query_name": tmp_path / "own drawing.png",
        "num": 3, "rerank_top_k": 6})
    text = told(folder / "retrieve.ipynb")
    assert "class unknown" in text and "  3  " in text and "  4  " not in text
    for name in ("own drawing.png", "own drawing-explained.png"):
        assert (folder / "result/doodles/retrieved" / name).exists(), name


def test_one_query_finds_what_the_whole_ranking_finds(doodles, tmp_path):
    e = prepared(doodles, tmp_path)
    run = zse_sbir.train(e, progress=False)
    _, reported = zse_sbir.measure(e, run, {}, progress=False)
    query = prepared(doodles, tmp_path, rerank_top_k=0)
    sketch = e.sketch_set.val.sketch.path(3)
    found = zse_sbir.nearest(query, sketch, "any", zse_sbir.gallery_of(query), 5)
    scores, order = reported["rn"].matrix[3].sort(descending=True, stable=True)
    assert [f for f, *_ in found] == [e.sketch_set.val.photo.path(i) for i in order[:5]]
    assert [s for *_, s in found] == pytest.approx(scores[:5].tolist(), abs=1e-5)


def test_pairs_are_explained_and_parts_counted(trained):
    folder, given = trained
    execute(BOOK / "explain.ipynb", folder / "explain.ipynb", folder,
            {**given_to("explain.ipynb", given), "n_pairs": 2})
    assert "parts of 56 sketches" in told(folder / "explain.ipynb")
    outputs = str([o for c in code(folder / "explain.ipynb") for o in c.outputs])
    assert "random patch" in outputs and "trained, attention" in outputs
    assert outputs.count("correspondences as lines") == 2


def test_switches_list_every_run_with_both_rankings(trained):
    folder, given = trained
    execute(BOOK / "switches.ipynb", folder / "switches.ipynb", folder, {
        **given_to("switches.ipynb", given), "n_seeds": 1, "only": "untrained",
        "save": str(folder / "switches")})
    runs = pd.read_csv(folder / "switches/runs.csv")
    assert list(runs.turned) == ["as released", "untrained"]
    assert {"mAP@all trec", "mAP@all trec sa"} <= set(runs.columns)
    assert (runs["mAP@all trec"] != runs["mAP@all trec sa"]).all()


def test_the_demos_recipe_is_the_notebooks(repo):
    from replication import classification

    values = notebooks.notebook_parameters(repo / "book/pretrain/vit.ipynb")
    recipe = classification.Config(**classification.RECIPES["doodle-vit"])
    assert all(getattr(recipe, k) == v for k, v in values.items() if k != "save_root")
    assert backbones.DOODLE_TIMM_WEIGHTS["doodle-vit"].name == "vit.safetensors"
    assert paths.RESULT in backbones.DOODLE_TIMM_WEIGHTS["doodle-vit"].parents
