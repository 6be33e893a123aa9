"""Retrieval metrics from the ranks of the positives, every convention by name.

A metric here never sees a full ranking. `positive_ranks` finds the places of the relevant
items once; average precision, precision and recall of any definition are functions of them.
On one ranking "mAP@200" has several values, one a definition, so a definition is a `Convention`,
and a number is reported with its name. Scores are higher-is-better.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ABSENT = torch.iinfo(torch.int32).max  # pads `Ranks.ranks`: beyond every real rank
BLOCK = 32  # rows a thread sorts at once: 2 MB of scores on Sketchy
SKETCH_METRICS = ("mAP@all", "mAP@200", "P@100", "P@200")
"""What the sketch papers report."""
Relevance = Bool[Tensor, "query gallery"] | Sequence[np.ndarray]
"""Which gallery items are right for each query: a mask, or for each query an array of their gallery
indices."""


@dataclass(frozen=True)
class Ranks:
    """Where each query's positives lie in its ranking; 1 is the best place."""

    ranks: Int[Tensor, "query positive"]  # int32, ascending, padded with ABSENT
    n_positive: Int[Tensor, " query"]
    n_gallery: Int[Tensor, " query"]  # valid items that were ranked
    n_above_zero: Int[Tensor, " query"]  # positives whose score is > 0: the first of `ranks`

    def above_zero(self) -> Ranks:
        """The same ranking with only the positives whose score is above zero called positive."""
        slot = torch.arange(self.ranks.shape[1], device=self.ranks.device)
        kept = self.ranks.masked_fill(slot >= self.n_above_zero[:, None], ABSENT)
        return replace(self, ranks=kept, n_positive=self.n_above_zero)


def positive_ranks(
    scores: Float[Tensor, "query gallery"],
    relevance: Relevance,
    *,
    valid: Bool[Tensor, "query gallery"] | None = None,
) -> Ranks:
    """Ranks of every query's positives in the order of a stable descending sort.

    Equal scores: the lower gallery index comes first. `relevance` is a mask, or for each query
    an array of the gallery indices of its positives (no repeats). `valid` takes items out of a
    query's gallery, positives included. float32 and float64 are ranked as they are, integers
    cast up. The result lies on CUDA for CUDA scores, else on the CPU.

    Raises TypeError for half precision scores (they make ties: compute scores in float32) and
    ValueError for a wrong shape or a NaN score of a valid item, with the query's row.
    """
    scores = scores.detach()
    if scores.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(f"scores are {scores.dtype}, which makes ties: compute them in float32")
    scores = scores if scores.is_floating_point() else scores.double()
    _check_shapes(scores, relevance, valid)
    if scores.is_cuda:
        return _ranks_by_sort(scores, relevance, valid)
    return _ranks_by_search(scores.cpu(), relevance, None if valid is None else valid.cpu())


def _check_shapes(scores, relevance, valid) -> None:
    wanted = tuple(scores.shape)
    for name, mask in (("relevance", relevance), ("valid", valid)):
        if isinstance(mask, Tensor) and (tuple(mask.shape) != wanted or mask.dtype != torch.bool):
            raise ValueError(f"{name} is {mask.dtype} {tuple(mask.shape)}, not bool {wanted}")
    if len(relevance) != len(scores):
        raise ValueError(f"relevance has {len(relevance)} rows, scores {len(scores)}")


def _ranks_by_search(scores, relevance, valid) -> Ranks:
    """CPU: sort each row's values, look the positives up; blocks of rows shared by threads."""
    n_gallery = np.full(len(scores), scores.shape[1])
    if valid is not None:
        relevance, n_gallery = _as_mask(relevance, scores) & valid, valid.sum(1).numpy()
        scores = scores.masked_fill(~valid, torch.nan)  # sorts last and equals nothing
    if isinstance(relevance, Tensor):
        relevance = [np.flatnonzero(own) for own in relevance.cpu().numpy()]
    rows, threads = scores.numpy(), torch.get_num_threads()
    n_positive, above = (
        np.array([len(own) for own in relevance], np.int64),
        np.zeros_like(n_gallery),
    )
    ranks = np.full((len(rows), max(1, n_positive.max(initial=0))), ABSENT, np.int32)

    def search(thread: int) -> None:  # np.sort and searchsorted release the GIL
        buffer = np.empty((BLOCK, rows.shape[1]), rows.dtype)
        for start in range(thread * BLOCK, len(rows), threads * BLOCK):
            ordered = buffer[: len(rows) - start]
            ordered[:] = rows[start : start + BLOCK]
            ordered.sort(axis=1)
            for i, values in enumerate(ordered, start):
                values = values[: n_gallery[i]]
                if len(values) and np.isnan(values[-1]):
                    raise ValueError(f"row {i} of the scores holds a NaN")
                own = np.sort(rows[i][relevance[i]])
                above[i] = len(own) - own.searchsorted(0, "right")
                ranks[i, : len(own)] = _row_ranks(rows[i], relevance[i], values, own)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(search, range(threads)))
    return Ranks(*map(torch.from_numpy, (ranks, n_positive, n_gallery, above)))


def _row_ranks(row, positives, ordered, own) -> np.ndarray:
    """Ascending ranks of one row's positives; `ordered`, `own`: all scores and theirs, sorted."""
    upto = ordered.searchsorted(own, "right")  # items with at most this score
    if (ordered[upto - 2] == own).any():  # the next lower item scores the same
        return _tied_ranks(row, positives, ordered, own)
    return (len(ordered) + 1 - upto)[::-1]


def _tied_ranks(row, positives, ordered, own) -> np.ndarray:
    """The same where positives are tied: gallery order counts only for values that positives
    share with others; each is looked at alone, or the row is sorted where they are many."""
    left, own_left = ordered.searchsorted(own), own.searchsorted(own)
    others = ordered.searchsorted(own, "right") - left - own.searchsorted(own, "right") + own_left
    mixed = np.unique(own[others > 0])
    relevant = np.zeros(len(row), bool)
    relevant[positives] = True
    if len(mixed) > 64:
        return np.flatnonzero(relevant[np.argsort(-row, kind="stable")]) + 1
    ranks = len(ordered) - (left + np.arange(len(own)) - own_left)
    for value in mixed:
        tied = np.flatnonzero(row == value)  # by gallery index
        better = len(ordered) - ordered.searchsorted(value, "right")
        ranks[own == value] = better + 1 + np.flatnonzero(relevant[tied])[::-1]
    return ranks[::-1]


def _ranks_by_sort(scores, relevance, valid) -> Ranks:
    """CUDA (right on any device): a full stable sort there."""
    relevance = _as_mask(relevance, scores)
    valid = torch.ones_like(relevance) if valid is None else valid.to(scores.device)
    relevance = relevance & valid
    if nan := (scores.isnan() & valid).any(1).nonzero().flatten().tolist():
        raise ValueError(f"row {nan[0]} of the scores holds a NaN")
    order = scores.sort(dim=1, descending=True, stable=True).indices
    hit, place = relevance.gather(1, order), valid.gather(1, order).cumsum(1)
    n_positive = relevance.sum(1)
    width = max(1, int(n_positive.max())) if len(scores) else 1
    ranks = torch.full((len(scores), width), ABSENT, dtype=torch.int32, device=scores.device)
    query, column = hit.nonzero(as_tuple=True)
    ranks[query, hit.cumsum(1)[query, column] - 1] = place[query, column].int()
    return Ranks(ranks, n_positive, valid.sum(1), (relevance & (scores > 0)).sum(1))


def _as_mask(relevance, scores) -> Bool[Tensor, "query gallery"]:
    if isinstance(relevance, Tensor):
        return relevance.to(scores.device)
    mask = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    query = np.repeat(np.arange(len(scores)), [len(own) for own in relevance])
    column = np.concatenate([*relevance, np.empty(0, np.int64)]).astype(np.int64)
    mask[torch.from_numpy(query), torch.from_numpy(column)] = True
    return mask


def average_precision(
    ranks: Ranks,
    k: int | None = None,
    denominator: Literal["positives", "min_k", "hits"] = "positives",
    interpolation: Literal["voc"] | None = None,
) -> Float[Tensor, " query"]:
    """Sum of the precision at each positive within the top k (None: all), divided.

    By all positives, by min(k, positives), or by the positives found within the top k (0 when
    none is). "voc" replaces a precision by the best one at the same or a later place of the
    top k (Everingham et al. 2010, after 2009's change). float64; NaN without a positive.
    """
    own = ranks.ranks[:, :k]  # the j-th positive lies at place j or later
    hits = own <= (ABSENT - 1 if k is None else k)
    count = torch.arange(1, own.shape[1] + 1, device=own.device, dtype=torch.float64)
    precisions = (count / own.double()).mul_(hits)
    if _one_of("interpolation", interpolation, (None, "voc")) == "voc":
        precisions = precisions.flip(1).cummax(1).values
    _one_of("denominator", denominator, ("positives", "min_k", "hits"))
    divisor = hits.sum(1).clamp(min=1) if denominator == "hits" else ranks.n_positive
    divisor = divisor.clamp(max=k) if k and denominator == "min_k" else divisor
    return _known(precisions.sum(1) / divisor, ranks)


def precision(
    ranks: Ranks,
    k: int,
    denominator: Literal["k", "min_k"] = "k",
    window: Literal["k", "min_k"] = "k",
) -> Float[Tensor, " query"]:
    """Positives within the window, divided: each k or min(k, positives).

    Divided by k also where the gallery is smaller than k. float64; NaN without a positive.
    """
    least = ranks.n_positive.clamp(max=k)
    full = torch.full_like(least, k)
    wide = _one_of("window", window, ("k", "min_k")) == "k"
    by_k = _one_of("denominator", denominator, ("k", "min_k")) == "k"
    hits = ranks.ranks[:, :k] <= (full if wide else least)[:, None]
    return _known(hits.sum(1).double() / (full if by_k else least), ranks)


def recall_at(ranks: Ranks, k: int) -> Float[Tensor, " query"]:
    """1.0 where any positive is within the top k, else 0.0: R@k of image-text and composed
    retrieval, Acc@k of instance retrieval. NaN without a positive."""
    return _known((ranks.ranks[:, 0] <= k).double(), ranks)


def first_rank(ranks: Ranks) -> Float[Tensor, " query"]:
    """Rank of the best positive (1 is best), float64; NaN without a positive."""
    return _known(ranks.ranks[:, 0].double(), ranks)


def median_rank(ranks: Ranks) -> float:
    """Median over queries of the best positive's rank, queries without a positive left out.

    The mean of the middle two for an even number of queries.
    """
    return float(first_rank(ranks).nanquantile(0.5))


def _known(values: Tensor, ranks: Ranks) -> Float[Tensor, " query"]:
    return values.masked_fill(ranks.n_positive == 0, torch.nan)


def _one_of(name: str, value, choices: tuple):
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: choose one of {choices}")
    return value


@dataclass(frozen=True)
class Convention:
    """One definition of mAP@k and P@k. `empty`: a query without a positive is left out of
    the mean ("skip") or counts as 0 ("zero"). `source`: the evidence for the definition."""

    name: str
    source: str
    ap_denominator: Literal["positives", "min_k", "hits"] = "positives"
    ap_interpolation: Literal["voc"] | None = None
    precision_denominator: Literal["k", "min_k"] = "k"
    precision_window: Literal["k", "min_k"] = "k"
    empty: Literal["skip", "zero"] = "skip"
    positive_scores_only: bool = False

    def metrics(
        self, ranks: Ranks, names: Iterable[str] = SKETCH_METRICS
    ) -> dict[str, Float[Tensor, " query"]]:
        """Per-query values of "mAP@k", "mAP@all", "P@k", "R@k" or "Acc@k" (the last two: any
        positive within k), in 0..1, float64. A query without a positive is NaN under "skip".

        Raises ValueError for another name.
        """
        ranks = ranks.above_zero() if self.positive_scores_only else ranks
        values = {name: self._metric(ranks, name) for name in names}
        if self.empty == "zero":
            values = {name: value.nan_to_num(nan=0.0) for name, value in values.items()}
        return values

    def _metric(self, ranks: Ranks, name: str) -> Float[Tensor, " query"]:
        kind, _, cut = name.partition("@")
        k = int(cut) if cut.isdecimal() and int(cut) > 0 else None
        if kind == "mAP" and (k or cut == "all"):
            return average_precision(ranks, k, self.ap_denominator, self.ap_interpolation)
        if kind == "P" and k:
            return precision(ranks, k, self.precision_denominator, self.precision_window)
        if kind in ("R", "Acc") and k:
            return recall_at(ranks, k)
        raise ValueError(f"no metric {name!r}: mAP@k, mAP@all, P@k, R@k or Acc@k")


# Each convention but COMMON agrees with the paper's public code to 1e-6 on
# tests/golden/metrics.json. No query there has more than 200 positives, so that mAP@200 is
# divided by min(200, positives) and not by all of them rests on notes of the ACNet and ZSE-SBIR
# codes alone. `empty` is torchmetrics' 0 for CLIP_PROMPT and a choice for the others.
CLIP_PROMPT = Convention(
    "clip_prompt",
    "Re-implementation's torchmetrics retrieval_average_precision(top_k) before 1.8, with which "
    "the table was made: divided by the positives within the top k.",
    ap_denominator="hits",
    empty="zero",
)
"""ClipPrompt's numbers: average precision within the top k, divided by the positives found there;
0 where there is none."""
CLIP_PROMPT_TORCHMETRICS_1_8 = replace(
    CLIP_PROMPT,
    name="clip_prompt_torchmetrics_1_8",
    source="The same call from torchmetrics 1.8 on: positives whose score is <= 0 count as not "
    "relevant, in average precision and in precision.",
    positive_scores_only=True,
)
"""What ClipPrompt's code gives with torchmetrics 1.8 and later: as `CLIP_PROMPT`, but a positive
whose score is 0 or less counts as not relevant."""
ACNET = Convention(
    "acnet",
    "Official code: VOC-interpolated within the top k, divided by min(k, positives); P@k over k.",
    ap_denominator="min_k",
    ap_interpolation="voc",
)
"""ACNet's numbers: average precision of the interpolated curve (VOC) within the top k, divided by
the smaller of k and the number of positives; P@k over k."""
ZSE_SBIR = replace(
    ACNET,
    name="zse_sbir",
    source="Official code: average precision as ACNet's; P@k over the first min(k, positives).",
    precision_denominator="min_k",
    precision_window="min_k",
)
"""ZSE-SBIR's numbers: average precision as in `ACNET`; P@k over the first min(k, positives)
items."""
COMMON = Convention(
    "trec",
    "trec_eval's map, map_cut_k and P_k: divided by all positives, P@k over k. The same for "
    "every paper here, so their numbers can be compared.",
)
"""trec_eval's definition, the same for all papers, so that they can be compared: average precision
divided by all positives, P@k over k."""
CONVENTIONS = {
    convention.name: convention
    for convention in (CLIP_PROMPT, CLIP_PROMPT_TORCHMETRICS_1_8, ACNET, ZSE_SBIR, COMMON)
}
"""Every convention by its name."""


def summary(
    per_query: Mapping[str, Float[Tensor, " query"]], n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Mean over queries and its 95 % percentile bootstrap interval, {"mean", "low", "high"}.

    NaN queries are left out, of each resample too. All metrics share the resamples.
    """
    values = np.stack([np.asarray(value.cpu(), np.float64) for value in per_query.values()])
    known = ~np.isnan(values)
    values = np.where(known, values, 0.0)  # [metric, query]
    draw, parts = np.random.default_rng(seed), []
    for start in range(0, n_bootstrap, 50):  # 50 resamples at a time bound the memory
        weights = _resamples(draw, min(50, n_bootstrap - start), values.shape[1])
        parts.append(_ratio(values @ weights, known @ weights))
    means = _ratio(values.sum(1), known.sum(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no query has a value: NaN
        low, high = np.nanquantile(np.concatenate(parts, axis=1), (0.025, 0.975), axis=1)
    return {
        name: {"mean": float(m), "low": float(lo), "high": float(hi)}
        for name, m, lo, hi in zip(per_query, means, low, high, strict=True)
    }


def _resamples(draw: np.random.Generator, n: int, size: int) -> Float[np.ndarray, "query sample"]:
    picks = draw.integers(0, size, (n, size)) + size * np.arange(n)[:, None]
    return np.bincount(picks.ravel(), minlength=n * size).reshape(n, size).T.astype(np.float64)


def _ratio(total, count):
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
