"""ClipPrompt against the re-implementation's values, its switches, its checkpoint, its options."""

import json
import zlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from replication import backbones, losses
from replication.papers import clip_prompt

GOLDEN = Path(__file__).parent / "golden"
ABOUT = json.loads((GOLDEN / "clipprompt.json").read_text())
VALUES = np.load(GOLDEN / "clipprompt.npz")
CLASSES = ("airplane", "alarm_clock", "wheelchair")
LABELS = torch.tensor([2, 0])


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def made_up(name: str, shape) -> torch.Tensor:
    """The tensor that the reference values were computed with; twins share the tower's name."""
    name = name.replace("clip_model.visual.", "sketch_encoder.")
    x = rng(name).standard_normal(shape, dtype=np.float32)
    if name.endswith("logit_scale"):
        x = np.float32(np.log(1 / 0.07))
    elif len(shape) < 2:
        x = 1 + 0.1 * x if name.endswith("weight") else 0.1 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:]))
    return torch.as_tensor(np.asarray(x, np.float32))


def checkpoint(size: str) -> dict[str, torch.Tensor]:
    return {name: made_up(name, shape) for name, shape, _ in ABOUT[size]["params"]}


def empty_model(size: str, **switches) -> clip_prompt.ClipPrompt:
    c = ABOUT[size]["config"]
    vision = open_clip.CLIPVisionCfg(
        image_size=c["image_resolution"], patch_size=c["vision_patch_size"],
        width=c["vision_width"], layers=c["vision_layers"], head_width=64)
    text = open_clip.CLIPTextCfg(
        context_length=c["context_length"], vocab_size=c["vocab_size"],
        width=c["transformer_width"], heads=c["transformer_heads"], layers=c["transformer_layers"])
    clip = open_clip.CLIP(c["embed_dim"], vision, text, quick_gelu=True)
    return clip_prompt.ClipPrompt(clip, 3, **switches)


def pictures(size: str) -> list[torch.Tensor]:
    side = ABOUT[size]["config"]["image_resolution"]
    return [torch.from_numpy(rng(f"input:{size}.{name}").standard_normal(
        (2, 3, side, side), dtype=np.float32) * 0.5) for name in ("sketch", "pos", "neg")]


@pytest.fixture(scope="module")
def tiny() -> clip_prompt.ClipPrompt:
    model = empty_model("tiny")
    clip_prompt.load_official(model, checkpoint("tiny"))
    return model


@pytest.mark.parametrize("size", ["tiny", "vitb32"])
def test_embeddings_losses_and_gradients_are_the_reimplementations(size):
    model = empty_model(size)
    clip_prompt.load_official(model, checkpoint(size))
    tokens = open_clip.SimpleTokenizer(context_length=77)(clip_prompt.class_texts(CLASSES))
    text = model.text_features(tokens)
    embeddings = model(*pictures(size))
    for name, embedding in zip(("sketch", "pos", "neg"), embeddings, strict=True):
        wanted = VALUES[f"{size}.{name}"]
        assert np.abs(embedding.detach().numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()
    wanted = torch.from_numpy(VALUES[f"{size}.text"])
    torch.testing.assert_close(torch.nn.functional.normalize(text), wanted, rtol=0, atol=1e-5)
    terms = clip_prompt.loss_terms(embeddings, LABELS, text, model.class_scale, 0.3, 0.5)
    for ours, theirs in {"loss": "loss", "triplet": "tri", "class_sketch": "cls_sketch",
                         "class_photo": "cls_photo"}.items():
        assert terms[ours].item() == pytest.approx(float(VALUES[f"{size}.{theirs}"]), rel=1e-4)
    terms["loss"].backward()
    norms = {n: p.grad.norm().item() for n, p in model.named_parameters() if p.grad is not None}
    assert norms == pytest.approx(ABOUT[size]["grad_norms"], rel=1e-3)


def test_what_learns_is_what_the_paper_says():
    model = empty_model("vitb32")
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 870_912
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names == set(ABOUT["vitb32"]["grad_norms"])


def test_gradients_reach_what_learns_and_nothing_else(tiny):
    tiny.zero_grad()
    sum(e.square().sum() for e in tiny(*pictures("tiny"))).backward()
    for name, p in tiny.named_parameters():
        reached = p.grad is not None and bool(p.grad.abs().sum() > 0)
        assert reached == p.requires_grad, name


def test_an_embedding_does_not_depend_on_its_batch(tiny):
    images = torch.cat(pictures("tiny"))
    with torch.no_grad():
        together = tiny.encode_photo(images)
        alone = torch.cat([tiny.encode_photo(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_the_photo_tower_is_a_copy_and_shared_when_asked(tiny):
    assert tiny.photo_encoder is not tiny.sketch_encoder
    shared = empty_model("tiny", towers="shared")
    assert shared.photo_encoder is shared.sketch_encoder
    assert sum(p.numel() for p in shared.parameters() if p.requires_grad) < \
        sum(p.numel() for p in tiny.parameters() if p.requires_grad)


def test_token_and_scale_switches_change_what_is_read(tiny):
    other = empty_model("tiny", token="class", logit_scale="exponential")
    clip_prompt.load_official(other, checkpoint("tiny"))
    image = pictures("tiny")[0]
    with torch.no_grad():
        assert (tiny.encode_sketch(image) - other.encode_sketch(image)).abs().max() > 0.1
    assert tiny.class_scale.item() == pytest.approx(np.log(1 / 0.07), rel=1e-5)
    assert other.class_scale.item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_class_token_without_prompts_influence_is_open_clips_own_embedding(tiny):
    """With prompts left out, the class token's output is what open_clip computes."""
    model = empty_model("tiny", token="class")
    clip_prompt.load_official(model, checkpoint("tiny"))
    image, tower = pictures("tiny")[0], model.sketch_encoder
    model.prompt_num = 0
    with torch.no_grad():
        ours = model._encode(tower, model.sketch_prompt[:0], image)
        torch.testing.assert_close(ours, tower(image), rtol=1e-5, atol=1e-5)


def test_loss_terms_are_what_plain_loops_give():
    g = torch.Generator().manual_seed(1)
    s, p, n = (torch.randn(5, 8, generator=g) for _ in range(3))
    text, labels = torch.randn(4, 8, generator=g), torch.tensor([0, 3, 1, 1, 2])

    def cosine(a, b):
        return float((a * b).sum() / (a.norm() * b.norm()))

    triplet = [max(0.0, 0.3 + (1 - cosine(a, b)) - (1 - cosine(a, c)))
               for a, b, c in zip(s, p, n, strict=True)]
    classes = 0.0
    for rows in (s, p):
        for row, label in zip(rows, labels.tolist(), strict=True):
            logits = [4.6 * cosine(row, t) for t in text]
            classes += (np.log(sum(np.exp(logits))) - logits[label]) / 5
    terms = clip_prompt.loss_terms((s, p, n), labels, text, torch.tensor(4.6), 0.3, 0.5)
    assert terms["loss"].item() == pytest.approx(np.mean(triplet) + 0.5 * classes, rel=1e-5)


def test_contrastive_loss_leaves_twins_out():
    g = torch.Generator().manual_seed(2)
    a, b = torch.randn(4, 6, generator=g), torch.randn(4, 6, generator=g)
    logits = losses.class_logits(a, b, 10.0).tolist()
    total = 0.0
    for matrix in (logits, [list(column) for column in zip(*logits, strict=True)]):
        for i, row in enumerate(matrix):
            kept = [v for j, v in enumerate(row) if j == i or {i, j} != {0, 2}]
            total += (np.log(np.sum(np.exp(kept))) - row[i]) / 8
    loss = losses.symmetric_contrastive(a, b, torch.tensor(10.0), torch.tensor([7, 1, 7, 2]))
    assert loss.item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("damage", "told"), [
    (lambda s: s.pop("photo_prompt"), "photo_prompt: not in the file"),
    (lambda s: s.update({"sketch_prompt": torch.zeros(5, 128)}),
     r"sketch_prompt: file \(5, 128\), model \(3, 128\)"),
    (lambda s: s.update({"generator.conv.weight": torch.zeros(1)}),
     "generator.conv.weight: not in the model"),
    (lambda s: s.update({"clip_model.visual.proj": s["sketch_encoder.proj"] + 1}),
     "clip_model.visual.proj differs"),
])
def test_another_checkpoint_is_refused_by_name_and_changes_nothing(tiny, damage, told):
    state = checkpoint("tiny")
    damage(state)
    before = backbones.state_hash(tiny)
    with pytest.raises(backbones.WeightsError, match=told):
        clip_prompt.load_official(tiny, state)
    assert backbones.state_hash(tiny) == before


def test_every_option_of_the_original_keeps_its_name_and_default():
    original = {"data_root": "/home/data", "data_name": "sketchy", "prompt_num": 3,
                "save_root": "result", "batch_size": 64, "epochs": 60, "triplet_margin": 0.3,
                "encoder_lr": 1e-4, "prompt_lr": 1e-3, "cls_weight": 0.5, "seed": -1}
    defaults = {f.name: f.default for f in fields(clip_prompt.Config)}
    assert {k: defaults[k] for k in original} == original
    assert (defaults["backbone"], defaults["weights"]) == ("ViT-B-32", "openai")


@pytest.mark.parametrize(("option", "value"), [
    ("token", "cls"), ("towers", "one"), ("epochs", 0), ("prompt_num", "three"), ("resize", "fit")])
def test_a_wrong_option_is_refused_by_name(option, value):
    from replication import training

    with pytest.raises(ValueError, match=option):
        training.chosen(clip_prompt.Config, {option: value})


def test_weights_that_cannot_be_had_are_told_with_the_way_out():
    with pytest.raises(backbones.WeightsError, match="nearest: .*ViT-B-32"):
        backbones.clip("ViT-B-23")
    with pytest.raises(backbones.WeightsError, match="has no published weights 'opnai'.*openai"):
        backbones.clip("ViT-B/32", "opnai")
    with pytest.raises(backbones.WeightsError, match="no weights file .*here.pt .parameter w"):
        backbones.clip("ViT-B/32", "/no/where/here.pt")


def test_unreachable_weights_name_file_and_parameter(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    told = "published: open_clip_model.safetensors of timm/.*parameter weights"
    with pytest.raises(backbones.WeightsError, match=told):
        backbones.clip("ViT-B-32", "openai")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(backbones.WeightsError, match="not a whole checkpoint"):
        backbones.clip("doodle-clip", str(tmp_path / "evil.pt"))
    assert not (tmp_path / "ran").exists()


def test_quick_gelu_comes_with_openai_weights_from_a_path(tmp_path):
    model = backbones._empty("doodle-clip", quick_gelu=True)
    file = tmp_path / "any.pt"
    torch.save(model.state_dict(), file)
    loaded = backbones.clip("doodle-clip", str(file)).model
    assert any("QuickGELU" in type(m).__name__ for m in loaded.modules())
    assert backbones.state_hash(loaded) == backbones.state_hash(model)


@pytest.mark.parametrize(("file", "quick"), [("ViT-B-32-openai.pt", True), ("ViT-B-32.pt", False)])
def test_quick_gelu_follows_the_file_name(monkeypatch, file, quick):
    asked = {}
    monkeypatch.setattr(backbones, "_from_file", lambda *args, quick_gelu: asked.update(
        quick=quick_gelu))
    backbones._create("ViT-B-32", file)
    assert asked == {"quick": quick}
