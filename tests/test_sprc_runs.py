"""SPRC's run: its schedule, its features from the store or in the loop, training, baselines."""

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from replication import backbones, training
from replication.composed import read_composed
from replication.composed_metrics import evaluate_composed
from replication.papers.sprc import experiment
from replication.papers.sprc.baselines import baselines, clip_vectors
from replication.papers.sprc.config import Config
from replication.papers.sprc.schedule import one_cycle

SMALL = {"backbone": "doodle-clip", "weights": "none", "image_weights": "none", "hidden_size": 32,
         "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
         "embed_dim": 16, "num_prompts": 4, "batch_size": 16, "num_epochs": 2,
         "learning_rate": 1e-3, "schedule_epochs": 4, "accelerator": "cpu", "seed": 5}


@pytest.fixture
def given(doodles, tmp_path, own_cache):
    return SMALL | {"dataset": "doodles_cirr", "data_path": str(doodles),
                    "save_root": str(tmp_path / "out")}


def trained(given, **turned):
    e = experiment.prepare(Config(**given | turned))
    return e, experiment.train(e, progress=False)


@pytest.mark.parametrize("config", [Config(num_epochs=50, learning_rate=1e-5), Config(
    dataset="FashionIQ", num_epochs=30, learning_rate=2e-5)])
def test_the_cycle_is_torchs_and_goes_on_where_it_stopped(config):
    def adam():
        return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)

    theirs, ours, later = adam(), adam(), adam()
    epochs = config.cycle["epochs"]
    assert epochs == (30 if config.fashion else 80)
    wanted = torch.optim.lr_scheduler.OneCycleLR(theirs, config.learning_rate, steps_per_epoch=3,
                                                 **config.cycle)
    at, resumed = one_cycle(ours, config, 3), one_cycle(later, config, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(3 * config.num_epochs):
            at(step)
            for name in ("lr", "betas"):
                assert ours.param_groups[0][name] == theirs.param_groups[0][name]
            theirs.step()
            wanted.step()
        resumed(3 * config.num_epochs - 1)
    assert later.param_groups[0]["lr"] == ours.param_groups[0]["lr"]
    with pytest.raises(ValueError, match="step 0 is behind step"):
        resumed(0)
    resumed(10_000)  # beyond the cycle: its last rate
    assert later.param_groups[0]["lr"] < 1e-4 * config.learning_rate


def test_stored_features_and_the_encoder_in_the_loop_give_the_same_losses(given):
    rows = [trained(given, frozen_features=frozen, save_root=f"{given['save_root']}-{frozen}",
                    num_epochs=1)[1].history[0] for frozen in (True, False)]
    for name in ("loss", "itc", "rtc", "align"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-4)


def test_an_image_of_the_store_is_encoded_once(given, monkeypatch):
    e = experiment.prepare(Config(**given))
    tower = e.retriever.encoder.model
    seen, real = [], tower.forward
    monkeypatch.setattr(tower, "forward", lambda x: seen.append(len(x)) or real(x))
    experiment.train(e, progress=False)
    images = len(e.train.images) + sum(len(s.images) for s in e.val.values())
    assert sum(seen) == images


def test_a_stopped_run_goes_on_to_the_same_weights(given, tmp_path, monkeypatch):
    whole, _ = trained(given, save_root=str(tmp_path / "whole"))
    steps, real = iter(range(10_000)), training.optimise
    second = len(whole.train) // 16 + 1

    def interrupted(*args):
        if next(steps) == second:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(training, "optimise", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(given)
    parts, run = trained(given)
    assert run.epoch == 2
    one, two = (load_file(e.folder / "last.safetensors") for e in (whole, parts))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_training_lowers_its_loss_on_few_queries(given):
    e, run = trained(given, num_epochs=6, dropout=0.0, schedule_epochs=6)
    assert run.history[-1]["loss"] < run.history[0]["loss"] - 0.05
    assert set(run.best) == {"val", "last"}
    means = [row["val cirr Mean"] for row in run.history]
    assert run.best["val"]["epoch"] == 1 + int(np.argmax(means))
    e.load("last")
    now = e.retriever.vectors(e.val["cirr"]).ranks(e.val["cirr"]).metrics()
    assert all(run.history[-1][f"val cirr {k}"] == pytest.approx(100 * v) for k, v in now.items())


def test_the_three_types_of_fashioniq_are_trained_together_and_measured_apart(given):
    e, run = trained(given, dataset="doodles_fashioniq", num_epochs=1)
    assert e.train.types == ("dress", "shirt", "toptee") and set(e.val) == set(e.train.types)
    assert {f"val {kind} R@{k}" for kind in e.val for k in (10, 50)} <= set(run.history[0])


def test_a_querys_vector_does_not_depend_on_the_chunk(given):
    vectors = []
    for chunk in (7, 256):
        e = experiment.prepare(Config(**given, chunk=chunk))
        vectors.append(e.retriever.vectors(e.val["cirr"]))
    for name in ("query", "gallery"):
        one, other = (getattr(v, name) for v in vectors)
        assert torch.allclose(one, other, atol=1e-5)


def test_baselines_are_cosines_of_reference_text_and_their_sum(given):
    composed = read_composed(given["data_path"], "doodles_cirr", "val")
    clip = backbones.clip("doodle-clip", "none")
    images, texts = clip_vectors(clip, composed, torch.device("cpu"), batch_size=5)
    assert len(images) == len(composed.images) and len(texts) == len(composed)
    found = baselines(images, texts, composed)
    reference = images[composed.reference]
    both = torch.nn.functional.normalize(reference + texts)
    for name, query in (("image-only", reference), ("text-only", texts), ("sum", both)):
        assert torch.allclose(found[name], query, atol=1e-6)
    alone = evaluate_composed(found["image-only"] @ images.T, composed).metrics()
    assert 0 <= alone["R@1"] <= 1  # the reference itself is out of its own gallery


@pytest.mark.parametrize(("wrong", "told"), [
    ({"dataset": "COCO"}, "dataset='COCO': choose CIRR, FashionIQ"),
    ({"backbone": "resnet"}, "no image encoder 'resnet'"),
    ({"vocabulary": "nowhere.txt"}, "no vocabulary .*nowhere.txt")])
def test_bad_input_stops_before_any_work(given, wrong, told):
    with pytest.raises(ValueError, match=told):
        experiment.prepare(Config(**given | wrong))
