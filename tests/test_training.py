"""The loop: seeded, resumable after a real kill, stopped by NaN, safe on a full disk."""

import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest
import torch

from replication import backbones, training
from replication.papers import clip_prompt


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of the demo's CLIP, shrunk to one layer a tower."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(backbones._empty("doodle-clip", True).state_dict(), file)
    return file


def options(doodles, weights, folder, **more) -> dict:
    return {"data_root": str(doodles), "data_name": "doodles", "save_root": str(folder),
            "backbone": "doodle-clip", "weights": str(weights), "seed": 1, "epochs": 2,
            "batch_size": 32, "val_classes": 2, "accelerator": "cpu", **more}


def train(**given) -> training.Run:
    experiment = clip_prompt.prepare(clip_prompt.Config(**given))
    return clip_prompt.train(experiment, progress=False)


def same_weights(a, b) -> bool:
    one, two = (training.read_weights(f)[0] for f in (a, b))
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def figures(run: training.Run) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]


PROGRAM = """
    import json, sys
    from replication.papers import clip_prompt
    from replication import training
    def slow(fabric, adam, loss, batch, optimise=training.optimise):
        optimise(fabric, adam, loss, batch)
        print("step", flush=True)
    training.optimise = slow
    clip_prompt.train(clip_prompt.prepare(clip_prompt.Config(**json.loads(sys.argv[1]))), False)
"""


def started(given: dict) -> subprocess.Popen:
    import json

    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(PROGRAM), json.dumps(given)],
                            stdout=subprocess.PIPE, text=True)


def test_a_killed_run_ends_with_the_weights_of_one_left_alone(doodles, weights, tmp_path):
    torch.set_num_threads(1)
    alone = train(**options(doodles, weights, tmp_path / "alone"))
    given = options(doodles, weights, tmp_path / "killed")
    process = started(given)
    steps_an_epoch = -(-len(clip_prompt.prepare(clip_prompt.Config(**given)).train.sketch) // 32)
    for _ in range(steps_an_epoch + 2):  # into the middle of the second epoch
        assert process.stdout.readline() == "step\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    stored = training._load_checkpoint(tmp_path / "killed" / "doodles_3" / "checkpoint.pt")
    assert stored["epoch"] == 1
    again = train(**given)
    assert figures(again) == figures(alone)
    assert again.best == alone.best
    for selection in ("unseen", "seen", "last"):
        assert same_weights(again.weights(selection), alone.weights(selection)), selection


def test_another_seed_gives_other_weights(doodles, weights, tmp_path):
    one = train(**options(doodles, weights, tmp_path / "a", epochs=1))
    two = train(**options(doodles, weights, tmp_path / "b", epochs=1, seed=2))
    assert not same_weights(one.weights("last"), two.weights("last"))


def test_a_finished_run_is_not_trained_again_and_more_epochs_continue(doodles, weights, tmp_path):
    given = options(doodles, weights, tmp_path)
    first = train(**{**given, "epochs": 1})
    before = time.perf_counter()
    again = train(**{**given, "epochs": 1})
    assert again.history == first.history and time.perf_counter() - before < 30
    more = train(**given)
    assert more.history[0] == first.history[0] and len(more.history) == 2


def test_other_parameters_move_the_earlier_run_aside(doodles, weights, tmp_path, capsys):
    train(**options(doodles, weights, tmp_path, epochs=1))
    train(**options(doodles, weights, tmp_path, epochs=1, triplet_margin=0.5))
    assert "held a run with other triplet_margin" in capsys.readouterr().out
    assert (tmp_path / "doodles_3.earlier-1" / "checkpoint.pt").exists()
    assert (tmp_path / "doodles_3" / "checkpoint.pt").exists()


def test_nan_stops_with_epoch_step_and_items_and_keeps_the_checkpoint(
        doodles, weights, tmp_path, monkeypatch):
    given = options(doodles, weights, tmp_path, batch_size=64)
    good = train(**{**given, "epochs": 1})
    kept = good.checkpoint.read_bytes()
    terms, calls = clip_prompt.loss_terms, []

    def poisoned(*args):
        calls.append(0)
        found = terms(*args)
        return found if len(calls) < 2 else {**found, "loss": found["loss"] * torch.nan}

    monkeypatch.setattr(clip_prompt, "loss_terms", poisoned)
    with pytest.raises(training.NonFiniteLoss,
                       match=r"loss is nan in epoch 2, step 2, items \[\d+.*holds epoch 1"):
        train(**given)
    assert good.checkpoint.read_bytes() == kept


def test_a_full_disk_leaves_the_old_checkpoint(doodles, weights, tmp_path):
    """A real failing write: the process may write no file of more than 20 kB."""
    given = options(doodles, weights, tmp_path, batch_size=64)
    good = train(**{**given, "epochs": 1})
    kept = good.checkpoint.read_bytes()

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    import json

    done = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM), json.dumps(given)],
                          capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode
    assert re.search(r"could not write .*(safetensors|checkpoint.pt).*earlier file is intact",
                     done.stderr), done.stderr[-500:]
    assert good.checkpoint.read_bytes() == kept
    assert not list(good.folder.glob(".*"))
    assert len(train(**given).history) == 2


def test_a_torn_or_foreign_checkpoint_is_named(doodles, weights, tmp_path):
    run = train(**options(doodles, weights, tmp_path, epochs=1))
    whole = run.checkpoint.read_bytes()
    run.checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="checkpoint.pt cannot be read.*start this run anew"):
        train(**options(doodles, weights, tmp_path, epochs=2))


def test_weights_of_another_prompt_num_or_paper_are_refused(doodles, weights, tmp_path):
    run = train(**options(doodles, weights, tmp_path, epochs=1))
    other = clip_prompt.prepare(clip_prompt.Config(
        **options(doodles, weights, tmp_path, prompt_num=5)))
    other.folder.mkdir()
    os.link(run.weights("unseen"), other.folder / "unseen.safetensors")
    with pytest.raises(ValueError, match="prompt_num is 3, asked 5"):
        other.load("unseen")
    with pytest.raises(FileNotFoundError, match="no checkpoint .*last.safetensors.*unseen"):
        other.load("last")
    (other.folder / "last.safetensors").write_bytes(b"\\x00" * 64)
    with pytest.raises(ValueError, match="is not a checkpoint of this project"):
        other.load("last")


def test_two_processes_train_as_one(doodles, weights, tmp_path):
    given = options(doodles, weights, tmp_path / "one", epochs=1, batch_size=64)
    one = train(**given)
    two = train(**{**given, "save_root": str(tmp_path / "two"), "devices": 2})
    a, b = (training.read_weights(r.weights("last"))[0] for r in (one, two))
    assert all(torch.allclose(a[k], b[k], rtol=1e-3, atol=1e-5) for k in a)
    assert one.history[0]["unseen mAP@all"] == pytest.approx(two.history[0]["unseen mAP@all"],
                                                             abs=0.5)


class TwoProcesses:
    """Fabric as the second of two processes sees it, when the first holds two items of three."""

    world_size = 2

    def all_reduce(self, items, reduce_op):
        return (items + 2) / 2

    def backward(self, loss):
        loss.backward()


def test_a_process_weighs_as_many_items_as_it_holds():
    weight = torch.nn.Parameter(torch.zeros(()))
    sgd = torch.optim.SGD([weight], lr=1.0)
    training.optimise(TwoProcesses(), sgd, 3 * weight, {"row": torch.zeros(1)})
    assert weight.item() == pytest.approx(-3 * 1 / 1.5)


def test_a_file_is_replaced_whole_never_written_over(tmp_path):
    from replication import paths

    (tmp_path / "a").write_text("old")
    os.link(tmp_path / "a", tmp_path / "reader")
    paths.write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "reader").read_text() == "old" and (tmp_path / "a").read_text() == "new"


def test_selection_on_seen_classes_needs_held_out_ones(doodles, weights, tmp_path):
    with pytest.raises(ValueError, match="set val_classes"):
        train(**options(doodles, weights, tmp_path, selection="seen", val_classes=0))
    assert not (tmp_path / "doodles_3").exists()


def test_log_has_a_row_an_epoch(doodles, weights, tmp_path):
    run = train(**options(doodles, weights, tmp_path, epochs=1))
    head, row = (run.folder / "log.csv").read_text().splitlines()
    assert head.split(",")[:2] == ["epoch", "loss"] and "unseen mAP@200" in head
    assert len(row.split(",")) == len(head.split(","))


def test_a_model_is_evaluated_and_then_goes_on_as_it_was():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.5))
    model[1].eval()  # a part that its paper keeps in evaluation mode
    with pytest.raises(KeyError), training.evaluating(model) as inside:
        assert inside is model and not any(part.training for part in model.modules())
        raise KeyError
    assert [part.training for part in model.modules()] == [True, True, False]


class Normed(torch.nn.Module):
    """One batch norm over the mean colour, which in training mode sees the whole batch."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)

    def encode_sketch(self, images):
        return self.norm(images.mean((2, 3)))

    encode_photo = encode_sketch


def test_a_split_is_embedded_in_evaluation_mode(doodles, weights, own_cache, tmp_path):
    given = options(doodles, weights, tmp_path)
    made = replace(clip_prompt.prepare(clip_prompt.Config(**given)), model=Normed())
    few = made.sketch_set.val.only(made.sketch_set.val.classes[:2])
    one, all_ = made.embed(few), made.embed(made.sketch_set.val)
    rows = [made.sketch_set.val.photo.files.index(f) for f in few.photo.files]
    torch.testing.assert_close(all_.gallery[rows], one.gallery)
    assert made.model.training and made.model.norm.num_batches_tracked == 0
