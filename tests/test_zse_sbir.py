"""ZSE-SBIR's networks against the official code's values, fast scores against a slow twin."""

import json
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from replication import backbones
from replication.papers import zse_sbir

GOLDEN = Path(__file__).parent / "golden"
ABOUT = json.loads((GOLDEN / "zse.json").read_text())
VALUES = np.load(GOLDEN / "zse.npz")


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def made_up(name: str, shape) -> torch.Tensor:
    """The tensor that the reference values were computed with."""
    x = rng(name).standard_normal(shape, dtype=np.float32)
    if len(shape) < 2:
        x = 1 + 0.1 * x if name.rsplit(".", 1)[-1] in ("weight", "a") else 0.1 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:]))
    return torch.as_tensor(np.asarray(x, np.float32))


def checkpoint() -> dict[str, torch.Tensor]:
    return {name: made_up(name, shape) for name, shape, _ in ABOUT["manifest"]}


def vit(name: str = "vit_base_patch16_224", **options) -> nn.Module:
    return timm.create_model(name, num_classes=0, norm_layer=partial(nn.LayerNorm, eps=1e-5),
                             **options)


def small(**options) -> zse_sbir.ZSE:
    """The same network at 64 pixels: 16 tokens, 4 anchors."""
    torch.manual_seed(0)
    tower = vit("vit_tiny_patch16_224", img_size=64, embed_dim=32, depth=3, num_heads=2)
    return zse_sbir.ZSE(tower, hidden=48, heads=4, anchors=4, anchor_width=24, **options).eval()


@pytest.fixture(scope="module")
def full() -> zse_sbir.ZSE:
    model = zse_sbir.ZSE(vit()).eval()
    left = zse_sbir.load_official(model, checkpoint())
    assert len(left) == 16 and all(k.startswith("ca.encoder.layers.") for k in left)
    return model


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(rng(f"input:zse.{name}").standard_normal(
        (4, 3, 224, 224), dtype=np.float32) * 0.5) for name in ("sketch", "photo"))


def close(ours: torch.Tensor, name: str) -> bool:
    wanted = VALUES[name]
    return np.abs(ours.detach().numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_tokens_scores_losses_and_gradients_are_the_official_codes(full, images):
    cls, relation = full(*images)
    assert close(cls, "cls") and close(relation, "rn")
    terms = zse_sbir.loss_terms(cls, relation)
    assert terms["triplet"].item() == pytest.approx(float(VALUES["tri"]), rel=1e-4)
    assert terms["relation"].item() == pytest.approx(float(VALUES["rl"]), rel=1e-4)
    full.zero_grad()
    terms["loss"].backward()
    norms = {n: p.grad.norm().item() for n, p in full.named_parameters()}
    wanted = {zse_sbir.checkpoint.own_name(k): v for k, v in ABOUT["grad_norms"].items()
              if v is not None}
    assert norms.keys() == wanted.keys()
    # a softmax does not feel a shift of its keys: their bias has rounding errors for a gradient
    felt = [k for k in norms if not k.endswith("self_attn.linears.1.bias")]
    assert {k: norms[k] for k in felt} == pytest.approx({k: wanted[k] for k in felt}, rel=1e-3)
    assert all(norms[k] < 1e-6 for k in norms if k not in felt)


def test_test_time_tokens_and_pair_scores_are_the_official_codes(full, images):
    with torch.inference_mode():
        sketch, photo = full.sa(images[0][:2]), full.sa(images[1][:3])
        assert close(sketch[:, 0], "sa_cls") and close(sketch.mean(1), "sa_mean")
        fast = zse_sbir.score_block(full, zse_sbir.projected(full, sketch, "sketch"),
                                    zse_sbir.projected(full, photo, "photo"), pairs=2)
    assert close(fast, "pair_scores")


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("pairs", [1, 3, 64])
def test_fast_scores_are_the_slow_twins(number, pairs):
    model = small(number=number)
    sketch, photo = torch.randn(3, 17, 32), torch.randn(5, 17, 32)
    fast = zse_sbir.score_block(model, zse_sbir.projected(model, sketch, "sketch"),
                                zse_sbir.projected(model, photo, "photo"), pairs)
    slow = zse_sbir.plain_block(model, sketch, photo, pairs)
    assert fast.shape == (3, 5) and fast.dtype == torch.float32
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-6)
    one = model.rn(*(model.anchors(x[:, 1:]) for x in model.ca(sketch[1:2], photo[4:5])))
    assert fast[1, 4].item() == pytest.approx(one.item(), rel=1e-4)


def test_the_relation_network_sees_every_pair_of_anchors_in_order():
    model = small()
    sketch, photo = torch.randn(1, 4, 24), torch.randn(1, 4, 24)
    cosine = [float(torch.cosine_similarity(a, b, dim=0)) for a in sketch[0] for b in photo[0]]
    wanted = model.rn.rn(torch.tensor([cosine]))
    torch.testing.assert_close(model.rn(sketch, photo), wanted)


def test_the_norm_divides_by_the_unbiased_deviation():
    from replication.papers.zse_sbir.networks import Norm

    x = torch.tensor([[1.0, 2.0, 4.0, 9.0]])
    deviation = np.std(x.numpy(), ddof=1)
    wanted = (x - 4.0) / (deviation + 1e-6)
    torch.testing.assert_close(Norm(4)(x), wanted.float())


def test_losses_are_what_loops_give():
    cls, relation = torch.randn(8, 6), torch.rand(4, 1)
    triplet = np.mean([max(0.0, 1 + float((cls[i] - cls[4 + i] + 1e-6).norm())
                           - float((cls[i] - cls[6 + i] + 1e-6).norm())) for i in range(2)])
    targets = (0.99, 0.99, 0.01, 0.01)
    square = np.mean([(float(r) - t) ** 2 for r, t in zip(relation, targets, strict=True)])
    terms = zse_sbir.loss_terms(cls, relation)
    assert terms["loss"].item() == pytest.approx(2 * triplet + 4 * square, rel=1e-5)


def test_a_keep_rate_drops_the_least_attended_tokens_and_keeps_places():
    model, whole = small(keep_rate=0.75), small()
    assert model.sa.selecting == {1, 2}
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        tokens = model.sa(images)
        assert tokens.shape == whole.sa(images).shape == (2, 17, 32)
    empty = (tokens == 0).all(-1)
    assert empty.sum(1).tolist() == [16 - 9] * 2  # 16 -> 12 -> 9
    assert not empty[:, 0].any(), "the class token stays"


def test_keeping_all_in_the_selecting_way_is_the_plain_tower():
    model = small()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        plain = model.sa(images)
        model.sa.keep_rate = 0.999  # rounds to all of 16 tokens, by way of the selection
        torch.testing.assert_close(model.sa(images), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("damage", "told"), [
    (lambda s: s.pop("conv2d.bias"), "conv2d.bias: not in the file"),
    (lambda s: s.update({"rn.rn.0.weight": torch.zeros(343, 100)}), r"rn.rn.0.weight: file \(343"),
    (lambda s: s.update({"sa.model.head.weight": torch.zeros(1)}), "head.weight: not in the model"),
])
def test_another_checkpoint_is_refused_by_name(full, damage, told):
    state = checkpoint()
    damage(state)
    before = full.conv2d.weight.detach().clone()
    with pytest.raises(backbones.WeightsError, match=told):
        zse_sbir.load_official(full, state)
    assert torch.equal(full.conv2d.weight, before)


def test_the_chapters_counts_of_parameters_are_the_models(full, repo):
    text = (repo / "book/zse_sbir/index.md").read_text()
    for part in (full.sa, full.ca, full.conv2d, full.rn):
        assert f"{sum(p.numel() for p in part.parameters()):,}" in text


def test_the_chapters_arithmetic_of_a_pair_is_the_benchmarks(repo):
    from benchmarks.zse_pairs import FULL, multiplications

    text = (repo / "book/zse_sbir/index.md").read_text()
    assert f"about {multiplications(True):.1f} billion multiply-adds" in text
    assert f"{FULL / 1e6:.0f} million" in text
