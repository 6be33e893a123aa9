"""CLIP image-text retrieval: tokens, encoding, the loss over processes, schedules, selections."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from replication import backbones, switches, training
from replication.captioned import read_captioned
from replication.data import DatasetError, cached_pixels
from replication.papers import clip_retrieval
from replication.papers.clip_retrieval import Config, Encoder, Pairs, Search, ZeroShot, tokens_of
from replication.papers.clip_retrieval.experiment import contrastive_loss
from replication.verification import AGREES, verified

TINY = {"embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1,
                       "head_width": 16},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2,
                     "layers": 1}}


@pytest.fixture
def tiny(monkeypatch, own_cache):
    """A CLIP that trains in a moment, by the name `tiny-clip`."""
    monkeypatch.setitem(backbones.OWN_CONFIGS, "tiny-clip", TINY)


@pytest.fixture
def given(doodles, tmp_path, tiny):
    return {"dataset_root": str(doodles), "dataset": "doodles", "vision_model": "tiny-clip",
            "weights": "none", "batch_size": 16, "epochs": 2, "lr": 1e-3, "warmup": 3,
            "num_workers": 0, "checkpoint_path": str(tmp_path / "out"), "seed": 3,
            "accelerator": "cpu"}


def encoder(device="cpu", **options) -> Encoder:
    return Encoder(backbones.clip("tiny-clip", "none", 0), torch.device(device), **options)


# ---------------------------------------------------------------------------------- encoding

TEXTS = ["A dog.", "two  DOGS &amp; a cat", "", "a much longer sentence that the small context "
         "of twelve tokens can never hold"]


def test_tokens_are_open_clips_and_what_is_cut_is_told():
    theirs = open_clip.SimpleTokenizer(context_length=12)
    tokens, cut = tokens_of(theirs, TEXTS, 0, 12)
    assert torch.equal(tokens, theirs(TEXTS)) and cut == [3]
    exact = "a b c d e f g h i j"  # ten words, with start and end just as long as the context
    assert tokens_of(theirs, [exact, f"{exact} k"], 0, 12)[1] == [1]


def test_a_shorter_context_reads_fewer_tokens_and_keeps_the_end():
    tokenizer = open_clip.SimpleTokenizer(context_length=12)
    tokens, cut = tokens_of(tokenizer, TEXTS, 6, 12)
    assert tokens.shape == (4, 12) and cut == [1, 3]
    assert tokens[3, 5] == tokenizer.eot_token_id and not tokens[3, 6:].any()
    whole = tokens_of(tokenizer, TEXTS, 0, 12)[0]
    assert torch.equal(tokens_of(tokenizer, TEXTS, 77, 12)[0], whole)
    with pytest.raises(ValueError, match="context_length=2"):
        tokens_of(tokenizer, TEXTS, 2, 12)


def test_every_image_and_caption_is_encoded_once(doodles, tiny, monkeypatch):
    captions, e = read_captioned(doodles, "doodles"), encoder(batch_size=7)
    seen = {"encode_image": 0, "encode_text": 0}
    for name in seen:
        real = getattr(e.model, name)

        def counted(batch, name=name, real=real):
            seen[name] += len(batch)
            return real(batch)

        monkeypatch.setattr(e.model, name, counted)
    embedded = e.set(captions)
    assert seen == {"encode_image": len(captions.images), "encode_text": len(captions.texts)}
    assert torch.allclose(embedded.images.norm(dim=1), torch.ones(len(captions.images)))
    assert np.array_equal(embedded.owner, captions.owner)


def test_embeddings_are_the_models_and_do_not_depend_on_the_batch(doodles, tiny):
    captions, e = read_captioned(doodles, "doodles"), encoder(batch_size=64)
    whole, apart = e.set(captions), replace(e, batch_size=3).set(captions)
    assert torch.allclose(whole.images, apart.images, atol=1e-6)
    assert torch.allclose(whole.texts, apart.texts, atol=1e-6)
    rule = open_clip.image_transform(32, is_train=False, interpolation="bicubic",
                                     resize_mode="shortest")
    row = len(captions.images) - 1
    picture = rule(Image.open(captions.images.path(row)).convert("RGB"))[None]
    text = e.backbone.tokenizer([captions.texts[-1]])
    with torch.no_grad():
        assert torch.allclose(e.model.encode_image(picture, normalize=True), whole.images[row],
                              atol=1e-5)
        assert torch.allclose(e.model.encode_text(text, normalize=True), whole.texts[-1],
                              atol=1e-5)


def test_a_prompt_stands_around_every_caption(doodles, tiny):
    captions, e = read_captioned(doodles, "doodles"), encoder()
    tokens, _ = e.tokens(captions, "a photo of {}")
    assert torch.equal(tokens[0], e.backbone.tokenizer([f"a photo of {captions.texts[0]}"])[0])


@pytest.mark.parametrize("prompt", ["a photo", "{} {}", "{caption}", "{} {x}"])
def test_a_prompt_without_one_place_is_refused(prompt):
    for make in (lambda: Config(prompt=prompt), lambda: ZeroShot(prompts=["{}", prompt]),
                 lambda: Search(prompt=prompt)):
        with pytest.raises(ValueError, match="once, where the caption goes"):
            make()


# ---------------------------------------------------------------------------------- training


def pairs_of(doodles, epoch=0, **options):
    captions = read_captioned(doodles, "doodles", "train")
    e = encoder()
    pixels = cached_pixels(captions.images, e.backbone.preprocess)
    return captions, Pairs(captions, pixels, e.tokens(captions)[0], 5, epoch, **options)


def test_an_epoch_takes_every_caption_once_with_its_image(doodles, tiny):
    captions, pairs = pairs_of(doodles)
    batch = pairs.__getitems__(list(range(len(pairs))))
    assert sorted(batch["row"].tolist()) == list(range(len(captions.texts)))
    assert np.array_equal(batch["group"], captions.owner[batch["row"]])
    tokens = encoder().tokens(captions)[0]
    assert torch.equal(batch["text"], tokens[batch["row"]])
    assert np.array_equal(batch["image"], np.asarray(pairs.pixels)[batch["group"]])


def test_order_and_mirroring_depend_on_seed_and_epoch_alone(doodles, tiny):
    (_, first), (_, again), (_, other) = (pairs_of(doodles, epoch, flip=True)
                                          for epoch in (0, 0, 1))
    rows = list(range(40))
    batch = first.__getitems__(rows)
    assert all(torch.equal(v, again.__getitems__(rows)[k]) for k, v in batch.items())
    assert not torch.equal(batch["row"], other.__getitems__(rows)["row"])
    plain = np.asarray(first.pixels)[batch["group"]]
    mirrored = first.mirrored[rows]
    assert 5 < mirrored.sum() < 35
    expected = np.where(mirrored[:, None, None, None], plain[:, :, ::-1], plain)
    assert np.array_equal(batch["image"], expected)
    assert not pairs_of(doodles)[1].mirrored.any()


def test_the_stated_schedule_warms_up_and_falls_to_0_over_the_batches():
    rate = clip_retrieval.rate_of(Config(warmup=10, epochs=4), 2560, 10)
    rates = [rate(e, b) for e in range(4) for b in range(10)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[25] == pytest.approx(0.5) and rates[-1] < 0.01
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_the_released_schedule_counts_captions():
    # the public code's log: 413,915 captions, batches of 128, 5 epochs, 2,069,575 "steps"
    rate = clip_retrieval.rate_of(Config(warmup=500, epochs=5, schedule="as-released"), 413_915,
                                  3_233)
    assert 1e-5 * rate(0, 20) == pytest.approx(4.2e-7)
    assert rate(0, 3_232) > 0.99999
    stairs = [rate(epoch, 0) for epoch in range(1, 5)]
    cosine = [(1 + np.cos(np.pi * epoch / 5)) / 2 for epoch in range(1, 5)]
    assert stairs == pytest.approx(cosine, abs=1e-3)
    assert rate(4, 0) - rate(4, 3_232) < 0.01


def test_captions_of_one_image_are_negatives_unless_they_are_left_out():
    g = torch.Generator().manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(6, 4, generator=g)) for _ in "ab")
    group, scale = torch.tensor([0, 1, 0, 2, 1, 3]), torch.tensor(8.0)
    fabric = training.start(0, accelerator="cpu")
    logits = scale * images @ texts.T

    def by_hand(keep) -> float:
        terms = []
        for rows in (logits, logits.T):
            for i in range(6):
                others = [j for j in range(6) if j == i or keep(i, j)]
                terms.append(torch.logsumexp(rows[i, others], 0) - rows[i, i])
        return float(sum(terms) / 12)

    found = {n: contrastive_loss(fabric, images, texts, scale, group, n).item()
             for n in ("all", "other images")}
    assert found["all"] == pytest.approx(by_hand(lambda i, j: True), abs=1e-6)
    assert found["other images"] == pytest.approx(by_hand(lambda i, j: group[i] != group[j]),
                                                  abs=1e-6)
    assert found["all"] > found["other images"]


def test_half_precision_holds_what_the_public_code_converts(tiny):
    model = encoder().model
    before = {k: v.clone() for k, v in model.state_dict().items()}
    clip_retrieval.round_to_half(model)
    after = model.state_dict()
    changed = {k for k in after if not torch.equal(after[k], before[k])}
    assert all(torch.equal(after[k], before[k].half().float()) for k in changed)
    block = "transformer.resblocks.0."
    assert {"visual.conv1.weight", "visual.proj", "text_projection", f"{block}mlp.c_fc.weight",
            f"{block}attn.in_proj_weight", f"{block}attn.out_proj.weight"} <= changed
    float32 = {"token_embedding.weight", "positional_embedding", "visual.class_embedding",
               "visual.positional_embedding", "ln_final.weight", "logit_scale"}
    assert not float32 & changed


def trained(given, **turned):
    e = clip_retrieval.prepare(Config(**given | turned))
    return e, clip_retrieval.train(e, progress=False)


def test_training_lowers_the_loss_and_keeps_three_selections(given):
    e, run = trained(given, epochs=3)
    assert run.history[-1]["loss"] < run.history[0]["loss"] - 0.1
    assert set(run.best) == {"test", "dev", "last"}
    for name in ("test", "dev"):
        means = [row[f"{name} mean_R@1"] for row in run.history]
        assert run.best[name]["epoch"] == 1 + int(np.argmax(means))
        now = e.embed(getattr(e, name)).ranks().metrics()  # the model holds the last weights
        assert all(run.history[-1][f"{name} {k}"] == pytest.approx(100 * v, abs=1e-6)
                   for k, v in now.items())
    assert run.best["last"]["epoch"] == 3
    assert run.history[0]["learning rate"] <= 1e-3
    clip_again = backbones.clip("tiny-clip", str(e.folder / "last.safetensors"))
    assert clip_again.sha256 == backbones.state_hash(e.model)


def test_every_parameter_learns(given):
    e = clip_retrieval.prepare(Config(**given))
    before = {k: v.clone() for k, v in e.model.state_dict().items()}
    clip_retrieval.train(e, progress=False, select=False)
    still = [k for k, v in e.model.state_dict().items() if torch.equal(v, before[k])]
    assert not still


def test_a_stopped_run_goes_on_to_the_same_weights(given, monkeypatch):
    whole, _ = trained(given, experiments="whole")
    steps, real = iter(range(10_000)), training.optimise
    second_epoch = len(whole.train.texts) // 16 + 2

    def interrupted(*args):
        if next(steps) == second_epoch:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(training, "optimise", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(given, experiments="parts")
    parts, run = trained(given, experiments="parts")
    assert run.epoch == 2
    one, two = (load_file(e.folder / "last.safetensors") for e in (whole, parts))
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("negatives", ["all", "other images"])
def test_two_processes_train_as_one(doodles, tmp_path, negatives):
    given = {"dataset_root": str(doodles), "dataset": "doodles", "vision_model": "doodle-clip",
             "weights": "none", "batch_size": 64, "epochs": 1, "lr": 1e-4, "warmup": 2,
             "num_workers": 0, "negatives": negatives, "accelerator": "cpu", "seed": 3,
             "train_split": "dev", "dev_split": ""}
    files, means = [], []
    for devices in (1, 2):
        e, run = trained(given, checkpoint_path=str(tmp_path / str(devices)), devices=devices)
        files.append(torch.load(e.folder / "checkpoint.pt", weights_only=True))
        means.append(run.history[0]["loss"])
    assert means[0] == pytest.approx(means[1], abs=1e-4)
    one, two = (f["modules"]["clip"] for f in files)
    assert all(torch.allclose(one[k], two[k], atol=2e-5) for k in one)
    # Adam's step hides the gradient's scale, its first moment does not
    one, two = (f["optimizers"]["adam"]["state"] for f in files)
    for i in one:
        a, b = one[i]["exp_avg"], two[i]["exp_avg"]
        assert (a - b).norm() <= 1e-2 * a.norm() + 1e-8


def test_a_batch_must_share_evenly():
    with pytest.raises(ValueError, match="batch_size=5 is not a multiple of devices=2"):
        Config(batch_size=5, devices=2)


# --------------------------------------------------------------------------- what is recorded


def test_a_run_is_recorded_and_computed_again(given):
    e = clip_retrieval.prepare(Config(**given))
    start = clip_retrieval.start_of(e, progress=False)
    run = clip_retrieval.train(e, progress=False)
    results = clip_retrieval.measure(e, run, start)
    made = clip_retrieval.record(e, run, results, "2026-01-01T00:00:00Z", 1.0)
    assert (made.dataset.kind, made.dataset.n_query, made.dataset.n_gallery) == (
        "demo", len(e.test.images), len(e.test.texts))
    found = {(m.variant, m.selection) for m in made.metrics}
    assert found == {("trained", "test"), ("trained", "dev"), ("trained", "last"),
                     ("untrained", ""), ("chance", "")}
    assert made.metrics[0].selection == "test"  # the reported selection comes first
    lines, outcome = verified(e.folder / "record.json")
    assert outcome == AGREES, lines
    e.load("last")
    again = e.embed(e.test).ranks().metrics()
    last = {m.metric: m.value for m in made.metrics
            if (m.variant, m.selection, m.convention) == ("trained", "last", "image_text")}
    assert all(last[k] == pytest.approx(100 * v, abs=1e-4) for k, v in again.items())


def test_a_spoilt_record_is_found_out(given):
    e = clip_retrieval.prepare(Config(**given, eval=True))
    start = clip_retrieval.start_of(e, progress=False)
    run = clip_retrieval.train(e, progress=False)
    clip_retrieval.record(e, run, clip_retrieval.measure(e, run, start), "2026-01-01T00:00:00Z", 0)
    file = e.folder / "record.json"
    content = json.loads(file.read_text())
    row = next(m for m in content["metrics"] if m["metric"] == "t2i_R@10")
    row["value"] = row["high"] = row["high"] + 1
    file.write_text(json.dumps(content))
    assert verified(file)[1] == "differs"


def test_eval_measures_the_resumed_checkpoint_and_trains_nothing(given, tmp_path):
    source = backbones.clip("tiny-clip", "none", 7).model
    file = tmp_path / "epoch3.pt"  # as the public code writes it
    state = {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
    torch.save({"epoch": 3, "name": "CLIP_ITM", "state_dict": state, "optimizer": {}}, file)
    e = clip_retrieval.prepare(Config(**given, eval=True, resume=str(file)))
    start = clip_retrieval.start_of(e, progress=False)
    run = clip_retrieval.train(e, progress=False)
    results = clip_retrieval.measure(e, run, start)
    assert not run.history and {(m.variant, m.selection) for m in results.rows} == {
        ("trained", "last"), ("chance", "")}
    alone = clip_retrieval.prepare(Config(**given, eval=True))
    as_it_comes = clip_retrieval.measure(alone, run, start)
    assert {m.variant for m in as_it_comes.rows} == {"untrained", "chance"}
    assert all(torch.equal(v, state[k].float()) for k, v in e.model.state_dict().items()
               if v.is_floating_point())


def test_the_published_checkpoints_keys_are_all_accounted_for(tiny):
    source, target = (backbones.clip("tiny-clip", "none", seed).model for seed in (1, 2))
    extra = {k: torch.tensor(1) for k in clip_retrieval.UNUSED}
    left = clip_retrieval.load_official(target, source.state_dict() | extra)
    assert sorted(left) == sorted(clip_retrieval.UNUSED)
    assert backbones.state_hash(source) == backbones.state_hash(target)
    state = source.state_dict()
    state["visual.other"] = torch.zeros(1)
    state["text_projection"] = torch.zeros(3, 3)
    with pytest.raises(backbones.WeightsError, match=r"text_projection.*\(3, 3\).*visual.other"):
        clip_retrieval.load_official(target, state)


def test_the_activation_is_read_from_this_projects_checkpoints(given):
    """A file of the run is taken by its path: what it computes comes with it, or is forced."""
    for told in ("on", "off"):
        e = clip_retrieval.prepare(Config(**given | {"quick_gelu": told, "experiments": told}))
        e.folder.mkdir(parents=True)
        e.write_weights(e.folder / "last.safetensors")
        file = str(e.folder / "last.safetensors")
        assert backbones.clip("tiny-clip", file).quick_gelu == (told == "on")
        assert backbones.clip("tiny-clip", file, quick_gelu=told == "off").quick_gelu != (
            told == "on")
        assert clip_retrieval.starting_point(Config(**given | {"resume": file})).quick_gelu == (
            told == "on")


def test_another_runs_weights_are_not_loaded(given):
    e, _ = trained(given)
    other = clip_retrieval.prepare(Config(**given | {"seed": 4}))  # the same folder
    with pytest.raises(ValueError, match="is of another run: start_sha256 is"):
        other.load("last")
    with pytest.raises(FileNotFoundError, match="no checkpoint .*best.safetensors"):
        e.load("best")


def test_switches_are_turned_one_at_a_time(given, tmp_path):
    given = given | {"epochs": 1, "dev_split": ""}
    del given["seed"]
    turned = {"held: half": clip_retrieval.SWITCHES["held: half"],
              "best on test": clip_retrieval.CHOICES["best on test"]}
    table = switches.run_all(clip_retrieval, given, turned, 2)
    assert list(table.index) == ["as stated", "held: half", "best on test"]
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert list(runs.turned) == ["as stated"] * 2 + ["held: half"] * 2 + ["best on test"] * 2
    ours, best = (runs[runs.turned == name] for name in ("as stated", "best on test"))
    assert best["mean_R@1 image_text"].tolist() == ours["mean_R@1 image_text"].tolist()
    assert [json.loads(p)["selection"] for p in best.parameters] == ["test"] * 2
    assert runs["mean_R@1 image_text half-precision scores"].between(0, 100).all()
    assert table["mean"].tolist() == pytest.approx(
        runs.groupby("turned")["mean_R@1 image_text"].mean().round(1).tolist())
    held = [json.loads(p)["held"] for p in runs.parameters]
    assert held == ["float32"] * 2 + ["half"] * 2 + ["float32"] * 2


# --------------------------------------------------------------------------------- zero-shot


def zero_shot(doodles, tmp_path, **turned) -> ZeroShot:
    return ZeroShot(**{"dataset_root": str(doodles), "dataset": "doodles", "accelerator": "cpu",
                       "save_root": str(tmp_path / "zs"), "weights": "none",
                       "models": ["tiny-clip"]} | turned)


def test_a_list_of_models_is_measured_under_every_protocol(doodles, tmp_path, tiny):
    weights = tmp_path / "other.pt"
    torch.save(backbones.clip("tiny-clip", "none", 9).model.state_dict(), weights)
    config = zero_shot(doodles, tmp_path, models=["tiny-clip", f"tiny-clip: {weights}"],
                       prompts=["{}", "a photo of {}"], other_activation=True, half_scores=True)
    captions, results, used = clip_retrieval.zero_shot(config, progress=False)
    names = {"tiny-clip", "tiny-clip other"}
    turned = ["", "zero-shot, prompt 'a photo of {}'", "zero-shot, GELU",
              "zero-shot, half-precision scores"]
    assert {(m.variant, m.protocol) for m in results.rows} == {
        (name, protocol) for name in names for protocol in turned} | {("chance", "")}
    assert len({w.sha256 for w in used}) == 2
    made = clip_retrieval.zero_shot_record(config, captions, results, used,
                                           "2026-01-01T00:00:00Z", 1.0)
    assert made.weights.name.count("tiny-clip") == 2
    lines, outcome = verified(tmp_path / "zs" / "record.json")
    assert outcome == AGREES and not any("missing" in line for line in lines), lines


def about(file, dataset):
    """Weights of the tiny CLIP that say what they were trained on."""
    tensors = backbones.clip("tiny-clip", "none", 9).model.state_dict()
    training.write_tensors(tensors, file, {"about": json.dumps({"dataset": dataset})})
    return f"tiny-clip: {file}"


def test_a_model_trained_on_the_set_is_not_zero_shot(doodles, tmp_path, tiny):
    own, other = (about(tmp_path / f"{name}.safetensors", name) for name in ("doodles", "coco"))
    turned = {"dataset_root": str(doodles), "prompts": ["{}", "a photo of {}"], "half_scores": True}

    def rows(*models):
        config = zero_shot(doodles, tmp_path, models=list(models), **turned)
        _, results, _ = clip_retrieval.zero_shot(config, progress=False)
        return results.protocol, {(m.variant, m.protocol) for m in results.rows}

    named = {"fine-tuned, prompt 'a photo of {}'", "fine-tuned, half-precision scores"}
    assert rows(own) == ("fine-tuned", {("tiny-clip doodles", p) for p in {"", *named}}
                         | {("chance", "")})
    protocol, both = rows(other, own)
    assert protocol == "zero-shot"
    assert {p for v, p in both if v == "tiny-clip doodles"} == {"fine-tuned", *named}
    assert ("tiny-clip coco", "") in both and ("chance", "") in both


def test_the_protocols_differ_in_the_numbers(doodles, tmp_path, tiny, monkeypatch):
    config = zero_shot(doodles, tmp_path, prompts=["{}", "a photo of {}"], other_activation=True)
    made, real = [], Encoder.images
    monkeypatch.setattr(Encoder, "images", lambda *a: made.append(a) or real(*a))
    _, results, _ = clip_retrieval.zero_shot(config, progress=False)
    assert len(made) == 2  # once a model; the other activation is another model
    files = {k: load_file(results.folder / v) for k, v in results.files.items()}
    main, prompt, gelu = files.values()
    assert torch.equal(main["images"], prompt["images"])
    assert not torch.allclose(main["texts"], prompt["texts"], atol=1e-3)
    assert not torch.equal(main["images"], gelu["images"])


def test_asked_again_nothing_is_encoded_again(doodles, tmp_path, tiny, monkeypatch):
    config = zero_shot(doodles, tmp_path)
    first = clip_retrieval.zero_shot(config, progress=False)[1]

    def never(*_, **__):
        raise AssertionError("encoded again")

    monkeypatch.setattr(Encoder, "images", never)
    again = clip_retrieval.zero_shot(config, progress=False)[1]
    assert again.rows == first.rows
    with pytest.raises(AssertionError, match="encoded again"):  # other weights are others
        clip_retrieval.zero_shot(replace(config, seed=1), progress=False)


def test_captions_that_were_cut_are_counted_and_told(doodles, tmp_path, tiny):
    captions, results, _ = clip_retrieval.zero_shot(zero_shot(doodles, tmp_path), progress=False)
    long = [t for t in captions.texts
            if len(open_clip.SimpleTokenizer().encode(t)) > 10]
    assert long and results.notes == [
        f"tiny-clip: {len(long):,} of {len(captions.texts):,} captions of test are longer than "
        f"the context and were cut, as {long[0][:60]!r}"]


def test_an_unknown_model_stops_the_list_before_any_work(doodles, tmp_path, tiny):
    config = zero_shot(doodles, tmp_path, models=["tiny-clip", "ViT-B/23"])
    with pytest.raises(backbones.WeightsError, match="ViT-B/23.*ViT-B-32"):
        clip_retrieval.zero_shot(config, progress=False)
    assert not list((tmp_path / "zs").glob("*"))


def test_the_nine_names_of_the_readme_are_models_of_open_clip():
    named = [backbones.clip_name(name) for name in clip_retrieval.MODELS]
    assert len(set(named)) == 9 and set(named) <= set(open_clip.list_models())
    assert all("openai" in open_clip.list_pretrained_tags_by_model(n) for n in named)


@pytest.mark.parametrize(("wrong", "told"), [
    ({"models": []}, "at least one"), ({"prompts": []}, "at least one"),
    ({"models": ["RN50", "RN50"]}, "named twice: RN50")])
def test_an_empty_or_doubled_list_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        ZeroShot(**wrong)


# ------------------------------------------------------------------------------------- search


@pytest.fixture
def index(doodles, tmp_path, tiny):
    return clip_retrieval.opened(Search(
        dataset_root=str(doodles), dataset="doodles", model="tiny-clip", weights="none",
        save_root=str(tmp_path / "search")), progress=False)


def test_a_sentence_finds_images_in_the_order_of_their_cosine(index):
    text = index.captions.texts[3]
    found = index.images_for(text, 5)
    scores = index.embedded.images @ index.embedded.texts[3]
    order = scores.sort(descending=True, stable=True).indices[:5].tolist()
    assert [file for file, _, _ in found] == [index.captions.images.path(i) for i in order]
    assert [right for _, right, _ in found] == [i == index.captions.owner[3] for i in order]
    assert all(right is None for _, right, _ in index.images_for("a sentence of my own", 3))


def test_an_image_finds_sentences(index, tmp_path):
    picture = index.captions.images.path(2)
    found = index.captions_for(picture, 7)
    scores = index.embedded.texts @ index.embedded.images[2]
    assert [s for _, _, s in found] == pytest.approx(sorted(scores.tolist(), reverse=True)[:7])
    own = index.captions.captions_of(2)
    assert all(right == (text in own) for text, right, _ in found)
    Image.open(picture).save(tmp_path / "mine.png")
    mine = index.captions_for(tmp_path / "mine.png", 7)
    assert {right for _, right, _ in mine} == {None}
    (tmp_path / "torn.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="torn.png is not a whole picture"):
        index.captions_for(tmp_path / "torn.png", 3)


def test_what_a_query_is(index):
    first = index.captions.images.path(0)
    assert index.query(first.name) == first and index.query(str(first)) == first
    assert index.query("a red fish") == "a red fish"
    assert index.query("", 1) in index.captions.texts
    with pytest.raises(FileNotFoundError, match="no picture 'cat.jpg'"):
        index.query("cat.jpg")


def test_the_index_is_made_once(index, doodles, tmp_path, monkeypatch):
    monkeypatch.setattr(Encoder, "set", lambda *_: pytest.fail("encoded again"))
    same = Search(dataset_root=str(doodles), dataset="doodles", model="tiny-clip", weights="none",
                  save_root=str(tmp_path / "search"))
    assert torch.equal(clip_retrieval.opened(same, False).embedded.texts, index.embedded.texts)
    with pytest.raises(pytest.fail.Exception, match="encoded again"):
        clip_retrieval.opened(replace(same, prompt="a photo of {}"), False)


# ---------------------------------------------------------------------------------- bad input


def test_dev_images_are_kept_out_of_training(given):
    e = clip_retrieval.prepare(Config(**given, dev_images=10))
    whole = read_captioned(given["dataset_root"], "doodles", "train")
    assert len(e.dev.images) == 10 and len(e.dev.texts) == 50
    assert not set(e.dev.images.files) & set(e.train.images.files)
    assert set(e.dev.images.files) | set(e.train.images.files) == set(whole.images.files)
    texts = {whole.images.files[i]: whole.captions_of(i) for i in range(len(whole.images))}
    for part in (e.dev, e.train):
        assert all(part.captions_of(i) == texts[f] for i, f in enumerate(part.images.files))
    with pytest.raises(DatasetError, match="dev_images=5000 of"):
        clip_retrieval.prepare(Config(**given, dev_images=5000))


def test_images_in_train_and_test_are_refused(given):
    with pytest.raises(DatasetError, match="images are in doodles test and test"):
        clip_retrieval.prepare(Config(**given | {"train_split": "test", "dev_split": ""}))


def test_the_set_may_lie_in_the_folder_itself(doodles):
    direct = read_captioned(Path(doodles) / "doodles_captions" / "coco", "coco", "test",
                            allow_partial=True)
    assert direct.texts == read_captioned(doodles, "doodles").texts


def test_a_full_split_of_a_table_is_full_and_any_other_is_not(doodles, monkeypatch):
    captions = read_captioned(doodles, "doodles")
    facts = clip_retrieval.measuring.dataset_facts
    owner = np.repeat(np.arange(1000), 5)
    files = tuple(f"{i}.jpg" for i in range(1000))
    images = replace(captions.images, files=files, labels=np.zeros(1000, np.int64))
    whole = replace(captions, name="flickr30k", kind="full", images=images, owner=owner,
                    texts=tuple(map(str, range(5000))))
    assert (facts(whole).kind, facts(whole).split) == ("full", "1k-test")
    assert facts(replace(whole, kind="subset")).kind == "subset"
    assert facts(replace(whole, name="flickr8k")).kind == "subset"
    assert facts(replace(whole, split="dev")).kind == "subset"
    assert facts(captions).kind == "demo"
