"""Encoding, chunked scoring and ranking against their whole-matrix twins."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from replication import retrieval
from replication.metrics import ACNET, CLIP_PROMPT, COMMON, ZSE_SBIR, first_rank, positive_ranks
from replication.retrieval import (
    cosine_scores,
    encode,
    evaluate,
    evaluate_scores,
    iter_scores,
    label_relevance,
    top_k,
)

ALL = (CLIP_PROMPT, ACNET, ZSE_SBIR, COMMON)
NAMES = ("mAP@all", "mAP@5", "P@5", "Acc@1")
CHUNKS = (1, 7, 23, 512)


@pytest.fixture
def tied():
    """Signs in 16 dimensions: cosines are exact multiples of 1/8, so nearly all tie."""
    draw = torch.Generator().manual_seed(0)
    signs = [torch.randint(0, 2, (n, 16), generator=draw) * 2.0 - 1 for n in (23, 61)]
    labels = [torch.randint(0, 6, (n,), generator=draw) for n in (23, 61)]
    labels[0][4] = 99  # no such class in the gallery
    return *signs, *labels


def scores_and_relevance(tied):
    query, gallery, query_labels, gallery_labels = tied
    return cosine_scores(query, gallery), query_labels[:, None] == gallery_labels


def check(found, scores, relevance, valid=None):
    ranks = positive_ranks(scores, relevance, valid=valid)
    for convention in ALL:
        for name, wanted in convention.metrics(ranks, NAMES).items():
            torch.testing.assert_close(
                found.per_query[convention.name][name], wanted, rtol=0, atol=1e-12, equal_nan=True
            )
    torch.testing.assert_close(found.first_rank, first_rank(ranks), equal_nan=True)
    assert torch.equal(found.n_positive, ranks.n_positive)
    assert found.n_gallery == scores.shape[1]


# encoding


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Dropout(0.5))


def test_encode_is_the_model_in_evaluation_mode():
    model, images = net(), torch.randn(10, 3, 2, 2)
    found = encode(model, images.split(4), normalize=False)
    assert model.training and not found.requires_grad and found.dtype == torch.float32
    torch.testing.assert_close(found, model[1](images.flatten(1)).detach())
    unit = encode(model, ((part, "label") for part in images.split(3)))
    torch.testing.assert_close(unit, nn.functional.normalize(found, dim=1))


def test_encode_takes_a_function_and_reduced_precision():
    seen = []

    def model(images):
        seen.append(torch.is_autocast_enabled("cpu"))
        return images.flatten(1) @ torch.ones(12, 5)

    found = encode(model, [torch.randn(4, 3, 2, 2)], autocast=torch.bfloat16)
    assert seen == [True] and found.dtype == torch.float32


def test_encode_names_a_bad_batch():
    good, bad = torch.ones(2, 12), torch.full((2, 12), torch.nan)
    model = net()
    with pytest.raises(ValueError, match="batch 1 "):
        encode(model, [good, bad])
    assert model.training
    with pytest.raises(ValueError, match="no batches"):
        encode(model, [])


def test_progress_bar_only_when_asked(capsys, tied):
    encode(net(), [torch.ones(2, 12)])
    evaluate(*tied)
    assert capsys.readouterr().err == ""
    encode(net(), [torch.ones(2, 12)], progress="gallery")
    evaluate(*tied, progress="queries")
    shown = capsys.readouterr().err
    assert "gallery" in shown and "queries" in shown


# scores


def test_cosine_scores_are_float32_whatever_is_set(monkeypatch):
    query, gallery = torch.randn(5, 64), torch.randn(9, 64)
    wanted = nn.functional.cosine_similarity(query[:, None].double(), gallery.double(), dim=2)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    used, real = [], torch.set_float32_matmul_precision
    monkeypatch.setattr(
        torch, "set_float32_matmul_precision", lambda name: used.append(name) or real(name)
    )  # a CPU without bfloat16 would not show it in the scores
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = cosine_scores(query, gallery)
        assert used == ["highest", "medium"]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_chunks_are_the_whole(tied, chunk):
    query, gallery, *_ = tied
    rows, parts = zip(*iter_scores(query, gallery, chunk), strict=True)
    assert torch.equal(torch.cat(parts), cosine_scores(query, gallery))
    assert [r.start for r in rows] == list(range(0, 23, chunk))


# evaluation


@pytest.mark.parametrize("chunk", CHUNKS)
def test_evaluation_in_chunks_is_the_full_one(tied, chunk):
    scores, relevance = scores_and_relevance(tied)
    assert len(scores.unique()) < 20
    check(evaluate(*tied, conventions=ALL, names=NAMES, chunk=chunk), scores, relevance)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_masks_and_functions_of_a_slice(tied, chunk):
    query, gallery, *_ = tied
    scores, relevance = scores_and_relevance(tied)
    valid = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)) < 0.7
    run = partial(evaluate, query, gallery, conventions=ALL, names=NAMES, chunk=chunk)
    check(run(relevance=relevance, valid=valid), scores, relevance, valid)
    functions = {"relevance": lambda rows: relevance[rows], "valid": lambda rows: valid[rows]}
    check(run(**functions), scores, relevance, valid)


def test_a_pair_scoring_network_enters_at_scores(tied):
    query, gallery, query_labels, gallery_labels = tied
    scores, relevance = scores_and_relevance(tied)
    seen = []

    def pair_scores(rows):
        seen.append(rows)
        return -torch.cdist(query[rows], gallery, p=1)

    by_label = label_relevance(query_labels, gallery_labels)
    found = evaluate_scores(pair_scores, 23, by_label, conventions=ALL, names=NAMES, chunk=10)
    check(found, scores, relevance)  # L1 distance of signs orders as their cosine
    assert seen == [slice(0, 10), slice(10, 20), slice(20, 23)]
    check(evaluate_scores(scores, 23, relevance, conventions=ALL, names=NAMES), scores, relevance)


def test_every_convention_from_one_scoring_and_one_ranking(tied, monkeypatch):
    calls = []

    def counted(*arguments, **options):
        calls.append(1)
        return positive_ranks(*arguments, **options)

    monkeypatch.setattr(retrieval, "positive_ranks", counted)
    evaluate(*tied, conventions=ALL, chunk=10)
    assert len(calls) == 3


def test_labels_are_numbers_or_names():
    query, gallery = ["cat", "dog", "cow"], ["dog", "cat", "dog"]
    rows = label_relevance(query, gallery)(slice(0, 3))
    assert [own.tolist() for own in rows] == [[1], [0, 2], []]
    numbers = label_relevance(torch.tensor([5, 7]), np.array([7, 7, 5]))(slice(1, 2))
    assert [own.tolist() for own in numbers] == [[0, 1]]


def test_summary_is_by_convention_and_metric(tied):
    found = evaluate(*tied, conventions=(CLIP_PROMPT, COMMON), names=("mAP@all",))
    intervals = found.summary(n_bootstrap=50, seed=3)
    assert intervals.keys() == {"clip_prompt", "trec"}
    for name, values in found.per_query.items():
        one = intervals[name]["mAP@all"]
        assert one["mean"] == pytest.approx(values["mAP@all"].nanmean().item())
        assert one["low"] < one["mean"] < one["high"]


def test_no_tensor_of_queries_by_gallery(monkeypatch):
    """The largest block that is scored or ranked is one chunk."""
    sizes = []
    real = retrieval._product
    monkeypatch.setattr(retrieval, "_product", lambda a, b: sizes.append(len(a)) or real(a, b))
    labels = torch.arange(200) % 4
    evaluate(torch.randn(200, 8), torch.randn(200, 8), labels, labels, chunk=16)
    assert max(sizes) == 16 and len(sizes) == 13


# the best k


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("k", [1, 5, 60, 61])
def test_top_k_is_a_stable_sort(tied, k, chunk):
    query, gallery, *_ = tied
    indices, scores = top_k(query, gallery, k, chunk=chunk)
    full = cosine_scores(query, gallery).sort(dim=1, descending=True, stable=True)
    assert torch.equal(indices, full.indices[:, :k])
    assert torch.equal(scores, full.values[:, :k])


def test_top_k_without_ties_and_with_a_mask():
    draw = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(6, 8, generator=draw), torch.randn(30, 8, generator=draw)
    best, _ = top_k(query, gallery, 4)
    scores = cosine_scores(query, gallery)
    assert torch.equal(best, scores.argsort(dim=1, descending=True)[:, :4])
    valid = torch.ones_like(scores, dtype=torch.bool).scatter_(1, best[:, :1], False)
    assert torch.equal(top_k(query, gallery, 3, valid=valid)[0], best[:, 1:])
    assert torch.equal(top_k(query, gallery, 3, valid=lambda rows: valid[rows])[0], best[:, 1:])


# errors


def test_nan_names_its_queries(tied):
    query, *rest = tied
    query = query.clone().index_fill_(0, torch.tensor(13), torch.nan)
    with pytest.raises(ValueError, match="queries 10 to 19: row 3 "):
        evaluate(query, *rest, chunk=10)


def test_wrong_input_is_named(tied):
    query, gallery, query_labels, gallery_labels = tied
    with pytest.raises(ValueError, match="or relevance"):
        evaluate(query, gallery)
    with pytest.raises(ValueError, match="or relevance"):
        evaluate(*tied, relevance=scores_and_relevance(tied)[1])
    with pytest.raises(ValueError, match="labels for 23 queries, 61"):
        evaluate(query, gallery, gallery_labels, query_labels)
    with pytest.raises(ValueError, match="differ"):
        evaluate(query[:, :3], gallery, query_labels, gallery_labels)
    with pytest.raises(ValueError, match="chunk is 0"):
        evaluate(*tied, chunk=0)
    with pytest.raises(ValueError, match="no queries"):
        evaluate(query[:0], gallery, query_labels[:0], gallery_labels)
    with pytest.raises(ValueError, match="the gallery has 61"):
        top_k(query, gallery, 62)
