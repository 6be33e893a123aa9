"""Metrics against golden numbers of the papers' codes, plain loops, and what definitions imply."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_precision

from replication import metrics
from replication.metrics import (
    ABSENT,
    ACNET,
    CLIP_PROMPT,
    CLIP_PROMPT_TORCHMETRICS_1_8,
    COMMON,
    CONVENTIONS,
    ZSE_SBIR,
    Convention,
    average_precision,
    first_rank,
    median_rank,
    positive_ranks,
    precision,
    recall_at,
    summary,
)

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("mAP@all", "mAP@1", "mAP@5", "mAP@200", "P@1", "P@5", "P@200", "R@1", "Acc@5")
FIELDS = ("ranks", "n_positive", "n_gallery", "n_above_zero")


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def golden(name: str) -> dict:
    return json.loads((GOLDEN / name).read_text())


def unit(array: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(array.astype(np.float32)), dim=1)


# slow twins: one query at a time, a full stable sort, lists


def slow_ranking(scores, valid) -> list[int]:
    """Gallery indices, best first; equal scores by index (Python's sort is stable)."""
    return sorted(np.flatnonzero(valid).tolist(), key=lambda j: -scores[j].item())


def slow_hits(scores, relevance, valid) -> list[bool]:
    return [bool(relevance[j]) for j in slow_ranking(scores, valid)]


def slow_average_precision(hits: list[bool], k, denominator, interpolation) -> float:
    top = hits[: k or len(hits)]
    precisions = [sum(top[: i + 1]) / (i + 1) for i in range(len(top))]
    if interpolation == "voc":
        precisions = [max(precisions[i:]) for i in range(len(top))]
    total = sum(p for p, hit in zip(precisions, top, strict=True) if hit)
    positives = sum(hits)
    divisors = {"positives": positives, "min_k": min(k or positives, positives), "hits": sum(top)}
    return total / divisors[denominator] if divisors[denominator] else 0.0


def slow_precision(hits: list[bool], k: int, denominator: str, window: str) -> float:
    least = min(k, sum(hits))
    return sum(hits[: k if window == "k" else least]) / (k if denominator == "k" else least)


def slow_metric(convention: Convention, name: str, scores, relevance, valid) -> float:
    had_positive = bool((relevance & valid).any())
    if convention.positive_scores_only:
        relevance = relevance & (scores > 0)
    hits = slow_hits(scores, relevance, valid)
    if not had_positive or not any(hits):
        return 0.0 if convention.empty == "zero" else float("nan")
    kind, cut = name.split("@")
    k = None if cut == "all" else int(cut)
    if kind == "mAP":
        c = convention
        return slow_average_precision(hits, k, c.ap_denominator, c.ap_interpolation)
    if kind == "P":
        return slow_precision(
            hits, k, convention.precision_denominator, convention.precision_window
        )
    return float(any(hits[:k]))


def drawn(seed: int, n_query=12, n_gallery=40, levels: int | None = None, n_positive=0.2):
    """Scores, relevance and a mask; `levels` rounds scores to that many values, so many tie."""
    draw = np.random.default_rng(seed)
    scores = draw.standard_normal((n_query, n_gallery)).astype(np.float32)
    if levels:
        scores = np.round(scores * levels / 4) / levels
    relevance = draw.random((n_query, n_gallery)) < n_positive
    valid = draw.random((n_query, n_gallery)) < 0.8
    relevance[0], relevance[1], relevance[2] = False, True, False
    relevance[2, 0] = True
    return torch.from_numpy(scores), torch.from_numpy(relevance), torch.from_numpy(valid)


def equal(a: metrics.Ranks, b: metrics.Ranks) -> bool:
    return all(torch.equal(getattr(a, field), getattr(b, field)) for field in FIELDS)


# golden numbers


CODES = {
    "clipprompt": CLIP_PROMPT_TORCHMETRICS_1_8,
    "clipprompt_torchmetrics_before_1_8": CLIP_PROMPT,
    "acnet": ACNET,
    "zse": ZSE_SBIR,
}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("case", ["small", "rare", "hard"])
def test_sketch_metrics_are_the_papers(case, code):
    c, g = golden("metrics.json")[case], rng("metrics:" + case)
    query_labels, gallery_labels = (
        g.integers(0, c["ncls"], c["nq"]),
        g.integers(0, c["ncls"], c["ng"]),
    )
    centres = g.standard_normal((c["ncls"], c["dim"]))
    query = centres[query_labels] + c["noise"] * g.standard_normal((c["nq"], c["dim"]))
    gallery = centres[gallery_labels] + c["noise"] * g.standard_normal((c["ng"], c["dim"]))
    relevance = torch.from_numpy(query_labels[:, None] == gallery_labels)
    ranks = positive_ranks(unit(query) @ unit(gallery).T, relevance)
    values = CODES[code].metrics(ranks, c[code])
    for name, wanted in c[code].items():
        assert values[name].mean().item() == pytest.approx(wanted, abs=1e-6), name


def test_image_text_recall_is_the_papers():
    c, g = golden("metrics2.json")["itm"], rng("metrics:itm")
    images = g.standard_normal((c["n_images"], c["dim"])).astype(np.float32)
    noise = g.standard_normal((c["n_images"] * c["captions"], c["dim"]))
    texts = (np.repeat(images, c["captions"], 0) + c["noise"] * noise).astype(np.float32)
    owner = np.repeat(np.arange(c["n_images"]), c["captions"])
    relevance = torch.from_numpy(np.arange(c["n_images"])[:, None] == owner)  # [image, text]
    scores = unit(images) @ unit(texts).T
    to_text, to_image = positive_ranks(scores, relevance), positive_ranks(scores.T, relevance.T)
    found = {}
    for k in (1, 5, 10):
        found[f"i2t_R@{k}"] = 100 * recall_at(to_text, k).mean().item()
        found[f"t2i_R@{k}"] = 100 * recall_at(to_image, k).mean().item()
    found["mean_R1"] = (found["i2t_R@1"] + found["t2i_R@1"]) / 2
    for name, value in found.items():
        assert value == pytest.approx(c[name], rel=1e-6), name


def test_composed_recall_is_the_papers():
    wanted, arrays = golden("metrics2.json"), np.load(GOLDEN / "metrics_cir.npz")
    scores = torch.from_numpy(arrays["sim"])
    item = np.arange(scores.shape[1])
    relevance = torch.from_numpy(arrays["target"][:, None] == item)
    others = torch.from_numpy(arrays["reference"][:, None] != item)
    group = torch.from_numpy((arrays["members"][:, :, None] == item).any(1)) & others

    def percent(k, valid):
        return 100 * recall_at(positive_ranks(scores, relevance, valid=valid), k).mean().item()

    fashion = {f"recall_at{k}": percent(k, None) for k in (10, 50)}
    cirr = {f"R@{k}": percent(k, others) for k in (1, 5, 10, 50)}
    cirr |= {f"Rs@{k}": percent(k, group) for k in (1, 2, 3)}
    for name, value in fashion.items():
        assert value == pytest.approx(wanted["fashioniq"][name], rel=1e-6), name
    for name, value in cirr.items():
        assert value == pytest.approx(wanted["cirr"][name], rel=1e-6), name


# against loops


@pytest.mark.parametrize("levels", [None, 2, 8])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("path", [positive_ranks, metrics._ranks_by_sort])
def test_ranks_are_a_stable_sorts(path, masked, levels):
    scores, relevance, valid = drawn(0, levels=levels)
    ranks = path(scores, relevance, valid=valid if masked else None)
    valid = valid if masked else torch.ones_like(valid)
    for i in range(len(scores)):
        hits = slow_hits(scores[i], relevance[i], valid[i])
        wanted = [place for place, hit in enumerate(hits, 1) if hit]
        assert ranks.ranks[i, : len(wanted)].tolist() == wanted
        assert (ranks.ranks[i, len(wanted) :] == ABSENT).all()
        assert ranks.n_positive[i] == len(wanted)
        assert ranks.n_gallery[i] == len(hits)
        assert ranks.n_above_zero[i] == (relevance[i] & valid[i] & (scores[i] > 0)).sum()


@pytest.mark.parametrize("levels", [1, 4, 64, 512, 1 << 14])
@pytest.mark.parametrize("masked", [False, True])
def test_fast_path_is_its_slow_twin(masked, levels):
    """Few values tie many items (one sort a row), many tie a few (looked at alone)."""
    scores, relevance, valid = drawn(1, 80, 1500, levels)
    valid = valid if masked else None
    fast = positive_ranks(scores, relevance, valid=valid)
    assert equal(fast, metrics._ranks_by_sort(scores, relevance, valid))
    indices = [np.flatnonzero(own) for own in relevance.numpy()]
    assert equal(fast, positive_ranks(scores, indices, valid=valid))


def test_duplicated_gallery_ties_positives_only():
    scores, relevance, _ = drawn(2, 10, 300)
    scores, relevance = torch.cat([scores, scores], 1), torch.cat([relevance, relevance], 1)
    twin = metrics._ranks_by_sort(scores, relevance, None)
    assert equal(positive_ranks(scores, relevance), twin)


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_every_convention_is_its_loop(name, levels, masked):
    scores, relevance, valid = drawn(3, 10, 30, levels)
    scores = scores - 0.3
    valid = valid if masked else torch.ones_like(valid)
    ranks = positive_ranks(scores, relevance, valid=valid)
    for metric, values in CONVENTIONS[name].metrics(ranks, NAMES).items():
        rows = zip(scores, relevance, valid, strict=True)
        wanted = [slow_metric(CONVENTIONS[name], metric, *row) for row in rows]
        np.testing.assert_allclose(values.numpy(), wanted, atol=1e-12, err_msg=metric)


@pytest.mark.parametrize("denominator", ["positives", "min_k", "hits"])
@pytest.mark.parametrize("interpolation", [None, "voc"])
@pytest.mark.parametrize("k", [None, 1, 7, 30, 100])
def test_average_precision_is_its_loop(denominator, interpolation, k):
    scores, relevance, valid = drawn(4, 10, 30, 5)
    values = average_precision(positive_ranks(scores, relevance), k, denominator, interpolation)
    for i in range(1, len(scores)):
        hits = slow_hits(scores[i], relevance[i], torch.ones_like(valid[i]))
        wanted = slow_average_precision(hits, k, denominator, interpolation)
        assert values[i].item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("denominator", ["k", "min_k"])
@pytest.mark.parametrize("window", ["k", "min_k"])
@pytest.mark.parametrize("k", [1, 7, 30, 100])
def test_precision_is_its_loop(denominator, window, k):
    scores, relevance, valid = drawn(5, 10, 30, 5)
    values = precision(positive_ranks(scores, relevance), k, denominator, window)
    for i in range(1, len(scores)):
        hits = slow_hits(scores[i], relevance[i], torch.ones_like(valid[i]))
        assert values[i].item() == pytest.approx(slow_precision(hits, k, denominator, window))


@pytest.mark.parametrize("k", [None, 5, 20])
def test_torchmetrics_agrees(k):
    """The installed torchmetrics drops scores <= 0; on scores above 0 it is CLIP_PROMPT's."""
    scores, relevance, _ = drawn(6)
    for shifted, convention in (
        (scores, CLIP_PROMPT_TORCHMETRICS_1_8),
        (scores - scores.min() + 1, CLIP_PROMPT),
    ):
        names = (f"mAP@{k or 'all'}", f"P@{k or 3}")
        values = convention.metrics(positive_ranks(shifted, relevance), names)
        for i, (row, relevant) in enumerate(zip(shifted, relevance, strict=True)):
            wanted = retrieval_average_precision(row, relevant, top_k=k).item()
            assert values[names[0]][i].item() == pytest.approx(wanted, abs=1e-6)
            wanted = retrieval_precision(row, relevant, top_k=k or 3).item()
            assert values[names[1]][i].item() == pytest.approx(wanted, abs=1e-6)


def test_first_and_median_rank():
    scores = torch.tensor([[3.0, 2.0, 1.0]] * 4)
    relevance = torch.tensor([[1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 0, 0]]).bool()
    ranks = positive_ranks(scores, relevance)
    np.testing.assert_array_equal(first_rank(ranks), [1, 3, 2, np.nan])
    assert median_rank(ranks) == 2.0
    np.testing.assert_array_equal(recall_at(ranks, 2), [1, 0, 1, np.nan])


# what the definitions imply


def values_of(scores, relevance, names=NAMES, conventions=(CLIP_PROMPT, ACNET, ZSE_SBIR, COMMON)):
    ranks = positive_ranks(scores, relevance)
    return torch.stack([v for c in conventions for v in c.metrics(ranks, names).values()])


def same(a, b):
    np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_gallery_order_does_not_matter_without_ties():
    scores, relevance, _ = drawn(7)
    order = torch.randperm(scores.shape[1], generator=torch.Generator().manual_seed(0))
    same(values_of(scores, relevance), values_of(scores[:, order], relevance[:, order]))


@pytest.mark.parametrize("change", [lambda s: s + 3, lambda s: 0.5 * s, torch.atan, torch.exp])
def test_monotone_changes_do_not_matter(change):
    scores, relevance, _ = drawn(8)
    same(values_of(scores, relevance), values_of(change(scores.double()), relevance))


def test_masked_items_are_absent_items():
    scores, relevance, _ = drawn(9)
    valid = (torch.arange(scores.shape[1]) % 3 > 0).expand_as(scores)
    kept = positive_ranks(scores[:, valid[0]], relevance[:, valid[0]])
    assert equal(positive_ranks(scores, relevance, valid=valid), kept)
    hidden = scores.masked_fill(~valid, torch.nan)
    assert equal(positive_ranks(hidden, relevance, valid=valid), kept)
    assert equal(metrics._ranks_by_sort(hidden, relevance, valid), kept)


def test_infinite_scores_rank_at_the_ends():
    scores = torch.tensor([[-torch.inf, 1.0, torch.inf, -torch.inf, 0.0]])
    relevance = torch.tensor([[False, False, True, True, False]])
    for valid, wanted in ((None, [1, 5]), (torch.tensor([[False] + [True] * 4]), [1, 4])):
        assert positive_ranks(scores, relevance, valid=valid).ranks.tolist() == [wanted]


@pytest.mark.parametrize("name", CONVENTIONS)
def test_perfect_ranking_is_one(name):
    _, relevance, _ = drawn(10, n_gallery=60, n_positive=0.5)
    ranks = positive_ranks(relevance[1:] + 0.5, relevance[1:])
    values = CONVENTIONS[name].metrics(ranks, ("mAP@all", "P@1", "R@1"))
    assert all((value == 1).all() for value in values.values())


def test_conventions_differ_on_one_ranking():
    scores, relevance = torch.arange(10.0, 0, -1)[None], torch.zeros(1, 10, dtype=torch.bool)
    relevance[0, [1, 3, 9]] = True  # precisions 1/2, 2/4, 3/10

    def value(convention):
        found = convention.metrics(positive_ranks(scores, relevance), ("mAP@2", "mAP@5", "P@5"))
        return [metric.item() for metric in found.values()]

    assert value(CLIP_PROMPT) == pytest.approx([1 / 2, 1 / 2, 2 / 5])
    assert value(COMMON) == pytest.approx([1 / 2 / 3, 1 / 3, 2 / 5])
    assert value(ACNET) == pytest.approx([1 / 2 / 2, 1 / 3, 2 / 5])
    assert value(ZSE_SBIR) == pytest.approx([1 / 2 / 2, 1 / 3, 1 / 3])


def test_voc_looks_only_within_the_top_k():
    scores, relevance = torch.arange(6.0, 0, -1)[None], torch.tensor([[0, 1, 0, 1, 1, 1]]).bool()
    ranks = positive_ranks(scores, relevance)
    assert average_precision(ranks, 2, "min_k", "voc").item() == pytest.approx(0.5 / 2)
    assert average_precision(ranks, None, "min_k", "voc").item() == pytest.approx(4 / 6)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_query_without_a_positive_is_skipped_or_zero(name):
    scores, relevance, _ = drawn(11)
    values = CONVENTIONS[name].metrics(positive_ranks(scores, relevance), NAMES)
    for value in values.values():
        assert value[0] == 0 if CONVENTIONS[name].empty == "zero" else value[0].isnan()
        assert not value[1:].isnan().any()
    means, wanted = summary(values, 10), values["mAP@all"].nanmean().item()
    assert means["mAP@all"]["mean"] == pytest.approx(wanted)


def test_no_positives_at_all():
    ranks = positive_ranks(torch.rand(3, 5), torch.zeros(3, 5, dtype=torch.bool))
    assert ranks.ranks.shape == (3, 1)
    assert np.isnan(summary(COMMON.metrics(ranks), 10)["mAP@all"]["mean"])
    assert summary(CLIP_PROMPT.metrics(ranks), 10)["mAP@all"]["mean"] == 0


# errors


@pytest.mark.parametrize("path", [positive_ranks, metrics._ranks_by_sort])
def test_nan_names_its_row(path):
    scores, relevance, _ = drawn(12)
    scores[7, 3] = torch.nan
    with pytest.raises(ValueError, match="row 7 "):
        path(scores, relevance, valid=None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_refused(dtype):
    scores, relevance, _ = drawn(13)
    with pytest.raises(TypeError, match="float32"):
        positive_ranks(scores.to(dtype), relevance)


def test_integer_and_double_scores_keep_their_order():
    close = torch.tensor([[1.0, 1.0 + 1e-12]], dtype=torch.float64)
    relevance = torch.tensor([[False, True]])
    assert positive_ranks(close, relevance).ranks.item() == 1
    assert positive_ranks(torch.tensor([[2**40, 2**40 + 1]]), relevance).ranks.item() == 1


def test_wrong_shapes_and_choices_are_named():
    scores, relevance, valid = drawn(14)
    with pytest.raises(ValueError, match="relevance is"):
        positive_ranks(scores, relevance[:, :5])
    with pytest.raises(ValueError, match="valid is"):
        positive_ranks(scores, relevance, valid=valid.int())
    with pytest.raises(ValueError, match="11 rows"):
        positive_ranks(scores, [np.zeros(1, np.int64)] * 11)
    ranks = positive_ranks(scores, relevance)
    for wrong in ("mAP", "mAP@", "P@all", "P@0", "recall@5", "P@-1"):
        with pytest.raises(ValueError, match="no metric"):
            COMMON.metrics(ranks, [wrong])
    with pytest.raises(ValueError, match="denominator"):
        average_precision(ranks, 5, "k")
    with pytest.raises(ValueError, match="window"):
        precision(ranks, 5, window="hits")


# bootstrap


def test_interval_holds_the_mean_and_repeats():
    values = {"a": torch.rand(300, generator=torch.Generator().manual_seed(0)).double()}
    values["b"] = values["a"].clone().index_fill_(0, torch.arange(50), torch.nan)
    first, again, other = summary(values), summary(values), summary(values, seed=1)
    assert first == again != other
    for key, value in values.items():
        known = value[~value.isnan()]
        error = known.std().item() / len(known) ** 0.5  # of the mean
        assert first[key]["mean"] == pytest.approx(known.mean().item())
        assert first[key]["low"] < first[key]["mean"] < first[key]["high"]
        assert first[key]["high"] - first[key]["low"] == pytest.approx(3.92 * error, rel=0.1)


def test_one_value_has_no_spread():
    found = summary({"a": torch.full((20,), 0.25)})["a"]
    assert found == {"mean": 0.25, "low": 0.25, "high": 0.25}
