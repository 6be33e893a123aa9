"""ACNet trained on tiny doodles: continued, in stages, on two processes, through its notebooks."""

import csv
import itertools
import json
import os
import shutil
from collections import Counter
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from test_acnet import SMALL, saved
from test_notebooks import code, execute

from replication import backbones, data, notebooks, paths, published, records, training
from replication.papers import acnet
from replication.papers.acnet import experiment
from replication.sketch_retrieval import save_ranking

pytestmark = pytest.mark.xdist_group("acnet")  # one worker, so one run of the notebooks

BOOK = Path(__file__).resolve().parent.parent / "book" / "acnet"
PUBLISHED = BOOK.parent.parent.parent / "shared" / "published" / "acnet.csv"
NAME = "doodles_doodle-resnet_8"


def options(doodles: Path, folder: Path, **more) -> dict:
    return {**SMALL, "data_root": str(doodles), "data_name": "doodles", "save_root": str(folder),
            "epochs": 1, "warmup": 0, "accelerator": "cpu", **more}


def prepared(doodles, folder, **more):
    return acnet.prepare(acnet.Config(**options(doodles, folder, **more)))


def train(doodles, folder, **more) -> training.Run:
    return acnet.train(prepared(doodles, folder, **more), progress=False)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def weights(run: training.Run, selection: str) -> dict[str, torch.Tensor]:
    return training.read_weights(run.weights(selection))[0]


def changed(a: dict, b: dict) -> set[str]:
    return {k for k in a if not torch.equal(a[k], b[k])}


# ------------------------------------------------------------------------------------- training


def test_a_class_without_photos_in_training_is_named(doodles, tmp_path):
    shutil.copytree(doodles / "doodles", tmp_path / "doodles", copy_function=os.link)
    folder = min((tmp_path / "doodles/train/photo").iterdir())
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(data.DatasetError, match=f"none in train/photo/{folder.name}$"):
        prepared(tmp_path, tmp_path / "r")


@pytest.mark.parametrize(("given", "stop"), [
    ({"epochs": 2, "warmup": 1, "color_jitter": 0.1, "val_classes": 2}, "joint"),
    ({"synthesis": "two-stage"}, "extractor")])
def test_an_interrupted_run_ends_with_the_weights_of_one_left_alone(
        doodles, tmp_path, monkeypatch, given, stop):
    torch.set_num_threads(1)
    alone = train(doodles, tmp_path / "alone", **given)
    terms, stopped = experiment.loss_terms, []

    def interrupted(*args, stage, **kwargs):
        stored = (tmp_path / "stopped" / NAME / "checkpoint.pt").exists()
        stopped.extend([0] if stored and stage == stop else [])
        if len(stopped) == 2:  # the second step after the first epoch
            raise KeyboardInterrupt
        return terms(*args, stage=stage, **kwargs)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(experiment, "loss_terms", interrupted)
        train(doodles, tmp_path / "stopped", **given)
    e = prepared(doodles, tmp_path / "stopped", **given)
    torch.rand(5), np.random.rand(5)  # the random state comes from the checkpoint
    again = acnet.train(e, progress=False)
    assert len(again.history) == 2
    for one, other in zip(again.history, alone.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert again.best == alone.best and "unseen" in again.best
    for selection in again.best:
        assert same(weights(again, selection), weights(alone, selection)), selection


def test_in_the_warm_up_the_extractors_body_stays_and_its_last_layer_learns(doodles, tmp_path):
    e = prepared(doodles, tmp_path, warmup=1)
    start = {k: v.clone() for k, v in e.model.state_dict().items()}
    acnet.train(e, progress=False, select=False)
    learned = changed(start, e.model.state_dict())
    assert {k for k in learned if k.startswith("extractor")} == {
        "extractor.backbone.fc.weight", "extractor.backbone.fc.bias"}
    assert {"proxies", "generator.in_conv.0.weight", "discriminator.conv1.0.weight"} <= learned
    assert all(p.requires_grad for p in e.model.parameters())
    more = prepared(doodles, tmp_path, warmup=1, epochs=2)
    acnet.train(more, progress=False, select=False)
    assert "extractor.backbone.conv1.weight" in changed(start, more.model.state_dict())


def test_two_stages_train_the_generator_then_the_extractor(doodles, tmp_path, monkeypatch):
    e = prepared(doodles, tmp_path, synthesis="two-stage")
    taken = [training.trainable(e.model)]
    save = training.Run.save

    def recorded(run, modules, optimizers):
        taken.append(training.trainable(modules["model"]))
        save(run, modules, optimizers)

    monkeypatch.setattr(training.Run, "save", recorded)
    run = acnet.train(e, progress=False)
    assert len(taken) == 3
    stages = [{k.split(".")[0] for k in changed(a, b)} for a, b in itertools.pairwise(taken)]
    assert stages == [{"generator", "discriminator"}, {"extractor", "proxies"}]
    assert "class" not in run.history[0] and "adversarial" not in run.history[1]
    assert [any(k.startswith("unseen") for k in row) for row in run.history] == [False, True]
    assert run.best.keys() == {"unseen", "last"} and run.best["unseen"]["epoch"] == 2


def test_without_epochs_the_start_is_measured(doodles, tmp_path):
    e = prepared(doodles, tmp_path, epochs=0)
    start, untrained = training.trainable(e.model), e.embed(e.sketch_set.val)
    run = acnet.train(e, progress=False)
    assert not run.history and {v["epoch"] for v in run.best.values()} == {0}
    for selection in ("unseen", "last"):
        assert same(weights(run, selection), start), selection
    again = prepared(doodles, tmp_path, epochs=0, seed=1)
    again.load("unseen")
    assert torch.equal(again.embed(e.sketch_set.val).query, untrained.query)


@pytest.fixture
def published_model(doodles, tmp_path) -> acnet.ACNet:
    """A model of other weights, its files written as the original writes them."""
    n_classes = len(data.read_sketch_set(doodles, "doodles").train.classes)
    model = acnet.build(acnet.Config(**SMALL, seed=9), n_classes)[0]
    saved(model, tmp_path / "theirs")
    return model


def test_a_published_checkpoint_without_epochs_gives_its_embeddings(
        doodles, tmp_path, published_model):
    model = published_model
    e = prepared(doodles, tmp_path, epochs=0, checkpoint=str(tmp_path / "theirs"))
    assert e.weights.sha256 == backbones.state_hash(model) and e.weights.name.endswith("theirs")
    acnet.train(e, progress=False)
    e.load("unseen")
    found, val = e.embed(e.sketch_set.val), e.sketch_set.val
    for vectors, images, encode in ((found.query, val.sketch, model.encode_sketch),
                                    (found.gallery, val.photo, model.encode_photo)):
        pixels = torch.from_numpy(np.array(data.cached_pixels(images, e.preprocess)[:6]))
        with torch.no_grad():
            wanted = encode(e.preprocess.normalised(pixels))
        torch.testing.assert_close(vectors[:6], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("more", "told"), [
    ({"emb_dim": 16}, r"theirs does not fit .* proxies: file \(8, 38\), model \(16, 38\)"),
    ({"val_classes": 2}, r"theirs does not fit .* proxies: file \(8, 38\), model \(8, 36\)"),
    ({"checkpoint": "mine"}, "no file .*mine_extractor.pth")])
def test_a_checkpoint_that_does_not_fit_is_refused_before_training(
        doodles, tmp_path, published_model, more, told):
    with pytest.raises(backbones.WeightsError, match=told):
        prepared(doodles, tmp_path / "r", **{"checkpoint": str(tmp_path / "theirs"), **more})
    assert not list((tmp_path / "r").iterdir())


def test_two_processes_train_as_one(doodles, tmp_path):
    given = {"extractor_lr": 1e-3, "discriminator_lr": 1e-3}  # a wrong step would be seen
    one = train(doodles, tmp_path / "one", **given)
    two = train(doodles, tmp_path / "two", devices=2, **given)
    a, b = (weights(run, "last") for run in (one, two))
    # A bias before an instance norm has no effect, and for a gradient rounding errors, of which
    # Adam makes whole steps.
    ends = ("generator.out_conv", "discriminator.conv1", "discriminator.conv5", "extractor")
    felt = [k for k in a if not k.endswith(".bias") or k.startswith(ends)]
    assert len(a) - len(felt) == 7 + 3
    for key in felt:
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=1e-5,
                                   msg=lambda told, key=key: f"{key}: {told}")
    for term in ("loss", "class", "adversarial", "identity", "discriminator"):
        assert two.history[0][term] == pytest.approx(one.history[0][term], rel=1e-3), term
    for figure in (k for k in one.history[0] if k.startswith("unseen")):
        assert two.history[0][figure] == pytest.approx(one.history[0][figure], abs=0.5)


def test_selection_on_seen_classes_needs_held_out_ones(doodles, tmp_path):
    with pytest.raises(ValueError, match="set val_classes"):
        train(doodles, tmp_path, selection="seen")
    assert not (tmp_path / NAME).exists()


TURNED = acnet.ABLATIONS | acnet.SWITCHES


@pytest.mark.parametrize("name", TURNED)
def test_every_ablation_and_switch_changes_what_it_names(name):
    turned, released = asdict(acnet.Config(**TURNED[name])), asdict(acnet.Config())
    assert {k: v for k, v in turned.items() if v != released[k]} == TURNED[name]


@pytest.fixture(scope="module")
def batch(doodles, tmp_path_factory):
    e = prepared(doodles, tmp_path_factory.mktemp("batch"), batch_size=16)
    made = acnet.first_batch(e)
    images = (e.preprocess.normalised(made[k]) for k in ("sketch", "photo"))
    return *images, made["label"], len(e.train.classes)


@pytest.mark.parametrize("loss_type", ["normalised_softmax", "cross_entropy", "proxy_anchor",
                                       "margin", "triplet"])
@pytest.mark.parametrize("synthesis", ["joint", "two-stage", "none"])
def test_a_step_of_each_loss_with_each_synthesis_is_finite(batch, loss_type, synthesis):
    *images, labels, n_classes = batch
    config = acnet.Config(**SMALL, loss_type=loss_type, synthesis=synthesis)
    model = acnet.build(config, n_classes)[0]
    adam = acnet.optimizers(model, config)["retrieval"]
    for stage in {"joint": ["joint"], "two-stage": ["generator", "extractor"],
                  "none": ["extractor"]}[synthesis]:
        adam.zero_grad()
        terms, _ = acnet.loss_terms(model, *images, labels, config, stage=stage)
        terms["loss"].backward()
        adam.step()
        assert terms["loss"].item() > 0 and all(torch.isfinite(t) for t in terms.values())
    assert all(torch.isfinite(p).all() for p in model.parameters())


# -------------------------------------------------------------------------------------- galleries


@pytest.fixture(scope="module")
def gallery(doodles, tmp_path_factory):
    """(experiment, its embeddings)."""
    e = prepared(doodles, tmp_path_factory.mktemp("gallery"))
    return e, e.embed(e.sketch_set.val)


@pytest.mark.parametrize(("field", "value"), [
    ("emb_dim", 16), ("data_name", "sketchy"), ("backbone_type", "resnet50"),
    ("weights_sha256", "0"), ("paper", "clip_prompt")])
def test_vectors_of_another_model_or_set_are_refused_by_field(gallery, tmp_path, field, value):
    e, found = gallery
    file = save_ranking(found, tmp_path / "other.safetensors", e.about | {field: value})
    told = f"other.safetensors was made by another .*: {field} is {value!r}, asked " \
           f"{e.about[field]!r}. Give"
    with pytest.raises(ValueError, match=told):
        acnet.gallery_of(e, str(file))


def test_vectors_of_this_model_are_read(gallery, tmp_path):
    e, found = gallery
    file = save_ranking(found, tmp_path / "own.safetensors", e.about)
    read = acnet.gallery_of(e, str(file))
    assert torch.equal(read.vectors, found.gallery)
    assert read.files == e.sketch_set.val.photo.files and read.classes == e.sketch_set.val.classes


@pytest.mark.parametrize(("data_base", "error", "told"), [
    ("x_vectors.pth", ValueError, "x_vectors.pth: the original's vectors .*epochs=0"),
    ("none.safetensors", FileNotFoundError, "no gallery vectors .*none.safetensors"),
    ("", FileNotFoundError, f"no gallery vectors .*{NAME}/embeddings.safetensors.*train.ipynb")])
def test_vectors_that_cannot_be_read_are_named(gallery, data_base, error, told):
    with pytest.raises(error, match=told):
        acnet.gallery_of(gallery[0], data_base)


# -------------------------------------------------------------------------------------- notebooks


@pytest.fixture(scope="module")
def trained(doodles, tmp_path_factory):
    """pretrain and train through plain papermill, as a user would, on tiny doodles."""
    folder = tmp_path_factory.mktemp("run")
    common = {"data_root": str(doodles), "epochs": 1}
    execute(BOOK.parent / "pretrain/resnet.ipynb", folder / "resnet.ipynb", folder, {
        **common, "image_size": 32, "save_root": str(folder / "pretrain")})
    given = {**SMALL, **common, "data_name": "doodles", "warmup": 0, "val_classes": 2,
             "save_root": str(folder / "result"),
             "weights": str(folder / "pretrain/resnet.safetensors")}
    execute(BOOK / "train.ipynb", folder / "train.ipynb", folder, given)
    return folder, given


def test_training_leaves_a_valid_record_in_folder_and_notebook(trained):
    folder, given = trained
    record = records.read_record(folder / "result" / NAME / "record.json")
    assert record.dataset.kind == "demo" and record.seed == 1 and record.paper == "acnet"
    assert record.parameters["emb_dim"] == 8
    shown = [o["data"][records.MIME] for c in code(folder / "train.ipynb") for o in c.outputs
             if records.MIME in o.get("data", {})]
    assert len(shown) == 1
    assert shown[0]["metrics"] == json.loads(records.as_json(record))["metrics"]
    kinds = {(m.variant, m.selection, m.protocol) for m in record.metrics}
    assert {("trained", s, "") for s in ("unseen", "seen", "last")} <= kinds
    assert {("chance", "", ""), ("pixels", "", ""), ("untrained", "", ""),
            ("trained", "unseen", "generalised"), ("trained", "unseen", "fine-grained")} <= kinds
    assert {"acnet", "trec"} <= {m.convention for m in record.metrics if m.variant == "trained"}


def test_a_records_numbers_can_be_computed_again(trained):
    from replication.verification import AGREES, verified

    lines, outcome = verified(trained[0] / "result" / NAME / "record.json")
    assert outcome == AGREES
    assert sum("agrees" in line for line in lines) > 60
    assert not any("not saved" in line and "trained" in line.split() for line in lines)


def test_pictures_have_a_text_and_bars_leave_one_line(trained):
    outputs = [o for c in code(trained[0] / "train.ipynb") for o in c.outputs]
    html = [o["data"]["text/html"] for o in outputs
            if "<img" in o.get("data", {}).get("text/html", "")]
    assert len(html) == 4 and all('alt="' in h for h in html)
    assert all(len(str(o.get("text", "")).splitlines()) < 15 for o in outputs)
    assert (trained[0] / "train.ipynb").stat().st_size < 1_000_000


def test_a_drawing_of_ones_own_finds_photos_and_what_it_became_is_saved(trained, tmp_path):
    from PIL import Image, ImageDraw

    drawing = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    ImageDraw.Draw(drawing).ellipse((50, 40, 250, 160), outline="black", width=5)
    drawing.save(tmp_path / "own drawing.png")
    folder, given = trained
    values = {k: given[k] for k in notebooks.notebook_parameters(BOOK / "retrieve.ipynb")
              if k in given}
    execute(BOOK / "retrieve.ipynb", folder / "retrieve.ipynb", folder, {
        **values, "query_name": tmp_path / "own drawing.png", "num": 3})
    told = "".join(o.get("text", "") for c in code(folder / "retrieve.ipynb") for o in c.outputs)
    assert "class unknown" in told and "  3  " in told and "  4  " not in told
    for name in ("own drawing.png", "own drawing-generated.png"):
        assert (folder / "result" / NAME / "retrieved" / name).exists(), name


def test_the_ablation_runs(trained, tmp_path):
    given = {k: v for k, v in trained[1].items() if k != "val_classes"}
    execute(BOOK / "ablation.ipynb", tmp_path / "o.ipynb", tmp_path, {
        **given, "n_seeds": 1, "only": "no synthesis", "save_root": str(tmp_path / "s")})
    assert len(list((tmp_path / "s").glob(f"*/{NAME}/record.json"))) == 2
    rows = list(csv.DictReader((tmp_path / "s" / "runs.csv").open()))
    assert [row["turned"] for row in rows] == ["as released", "no synthesis"]


@pytest.mark.parametrize("notebook", ["train", "retrieve", "ablation"])
def test_a_misspelling_given_to_plain_papermill_is_refused(doodles, notebook):
    """What papermill runs, without a kernel: its cell of given values after the parameters'."""
    parameters, work = (c.source for c in code(BOOK / f"{notebook}.ipynb")[:2])
    given = {"data_root": str(doodles), "weights": "none"}
    exec(work, namespace := {**cell(parameters), **given})
    assert namespace["given" if notebook == "ablation" else "config"]
    with pytest.raises(ValueError, match="no parameter emb_dm: did you mean emb_dim"):
        exec(work, {**cell(parameters), **given, "emb_dm": 5})


def cell(source: str) -> dict:
    exec(source, found := {})
    return found


# ------------------------------------------------------------------------ what the book publishes


def test_every_option_of_the_original_is_a_parameter():
    names = set(notebooks.notebook_parameters(BOOK / "train.ipynb"))
    assert {"data_root", "data_name", "backbone_type", "emb_dim", "batch_size", "epochs", "warmup",
            "save_root"} <= names
    query = set(notebooks.notebook_parameters(BOOK / "retrieve.ipynb"))
    assert {"data_root", "query_name", "data_base", "num", "save_root"} <= query
    fields = set(acnet.Config.__dataclass_fields__)
    assert fields - {"accelerator"} <= names, "a field of Config that no notebook offers"


def test_retrieval_offers_what_decides_which_weights_fit(gallery):
    offered = set(notebooks.notebook_parameters(BOOK / "retrieve.ipynb"))
    assert gallery[0].about.keys() - {"paper", "weights_sha256"} <= offered


AXES = list(itertools.product(("sketchy", "tuberlin"), ("resnet50", "vgg16"), (64, 512, 4096)))
FREE = {"data_root", "save_root", "num_workers"}


def test_there_is_a_parameter_file_for_each_published_setting():
    assert {p.stem for p in (BOOK / "paper").glob("*.yml")} == {
        f"{name}_{backbone}_{dim}" for name, backbone, dim in AXES} and len(AXES) == 12


@pytest.mark.parametrize(("name", "backbone", "dim"), AXES)
def test_published_settings_are_the_configs_defaults(name, backbone, dim):
    """Also where a file leaves a parameter to the notebook, whose own are the demo's."""
    values = published.read_parameters(BOOK / "paper" / f"{name}_{backbone}_{dim}.yml")
    notebooks.check_parameters(BOOK / "train.ipynb", values)
    run = training.chosen(acnet.Config,
                          notebooks.notebook_parameters(BOOK / "train.ipynb") | values)
    wanted = acnet.Config(data_name=name, backbone_type=backbone, emb_dim=dim)
    assert {k: v for k, v in asdict(run).items() if k not in FREE} == {
        k: v for k, v in asdict(wanted).items() if k not in FREE}
    assert values["save_root"] == f"result/acnet/{name}_{backbone}_{dim}"
    assert paths.user_path(run.data_root) == Path("/home/data")


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tables are not here")
def test_every_published_number_is_a_cell_once():
    fields = ("table", "method", "variant", "dataset", "split", "metric", "unit", "grade", "source",
              "note")
    rows = Counter((*(row[f] for f in fields), Decimal(row["value"]))
                   for row in csv.DictReader(PUBLISHED.open()))
    cells = Counter((*(getattr(cell, f) for f in fields), cell.value)
                    for cell in published.read_paper(BOOK / "paper.yml").cells)
    assert set(rows.values()) == {1} and cells == rows
