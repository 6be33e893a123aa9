"""The pretraining of the small ResNet: it continues after a stop, norms' statistics included."""

import pytest
import torch

from replication import backbones, classification, training


def config(doodles, folder, **more) -> classification.Config:
    return classification.Config(data_root=str(doodles), save_root=str(folder), image_size=16,
                                 batch_size=32, warmup=2, **{"epochs": 2, **more})


def test_a_stopped_run_ends_with_the_weights_of_one_left_alone(doodles, tmp_path, monkeypatch):
    file, whole = classification.train(config(doodles, tmp_path / "whole"), progress=False)
    save = training.Run.save

    def stopped(run, *given):
        save(run, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Run, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        classification.train(config(doodles, tmp_path / "stopped"), progress=False)
    monkeypatch.undo()
    again, run = classification.train(config(doodles, tmp_path / "stopped"), progress=False)
    assert len(run.history) == len(whole.history) == 2
    one, two = backbones.read_state(file), backbones.read_state(again)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert one["bn1.running_mean"].abs().sum() > 0 and one["bn1.num_batches_tracked"] > 0


def test_the_log_holds_the_share_named_right_of_what_was_kept_out(doodles, tmp_path):
    c = config(doodles, tmp_path, epochs=1)
    pixels, labels, classes = classification.pictures(c)
    _, run = classification.train(c, progress=False)
    kept_out = slice(9, None, 10)
    model = backbones.timm_model("doodle-resnet", "none", num_classes=len(classes),
                                 global_pool="max").model
    backbones.load_exactly(model, backbones.read_state(tmp_path / "resnet.safetensors"), "file")
    found = classification.named(model, classification.rule(c), pixels[kept_out],
                                 torch.device("cpu"))
    assert model.training
    assert run.history[0]["accuracy"] == pytest.approx(100 * (found == labels[kept_out]).mean())


def test_it_starts_a_backbone_with_another_last_layer(doodles, tmp_path):
    file, _ = classification.train(config(doodles, tmp_path, epochs=1), progress=False)
    started = backbones.timm_model("doodle-resnet", str(file), num_classes=7, global_pool="max")
    state = backbones.read_state(file)
    assert started.model.fc.weight.shape == (7, 512)
    assert torch.equal(started.model.state_dict()["bn1.running_var"], state["bn1.running_var"])


def test_warm_up_rises_in_a_line_then_falls_to_nothing():
    rates = [training.warmup_cosine(step, 4, 20) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and rates[4] == 1.0
    assert all(a > b for a, b in zip(rates[4:], rates[5:], strict=False)) and rates[-1] < 0.02
