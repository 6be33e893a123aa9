"""Composed retrieval: recall of FashionIQ and CIRR, and the files of CIRR's test server.

FashionIQ keeps the reference in the gallery; CIRR takes it out, and measures the target's place
within its group of six as well.
"""

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from replication import metrics, paths
from replication.composed import N_OFFICIAL, Composed
from replication.retrieval import best

TOP = (1, 5, 10, 50)  # R@k of CIRR
TOP_GROUP = (1, 2, 3)  # Rsub@k of CIRR
TOP_FASHION = (10, 50)
SUBMITTED = {"recall": 50, "recall_subset": 3}  # metric of a submission -> names a query
VERSION = "rc2"
Scores = Float[Tensor, "query gallery"] | Callable[[slice], Float[Tensor, "chunk gallery"]]
"""Higher is better: a matrix, or a function from a slice of queries to their rows."""
Rows = Int64[np.ndarray, " query"] | Int64[Tensor, " query"]
"""One gallery index a query."""


@dataclass(frozen=True)
class ComposedRanks:
    """Each query's rank of its target, 1 is best: in the gallery, and (CIRR) in its group."""

    gallery: Int64[Tensor, " query"]
    group: Int64[Tensor, " query"] | None = None

    def per_query(self) -> dict[str, Float[Tensor, " query"]]:
        """Values in 0..1 whose mean is the metric. FashionIQ: R@10, R@50 and their mean Avg. CIRR:
        R@1, 5, 10, 50; Rsub@1, 2, 3; Avg, the mean of R@5 and Rsub@1; Mean, that of the seven, by
        which the paper selects its epoch."""
        if self.group is None:
            values = {f"R@{k}": (self.gallery <= k).double() for k in TOP_FASHION}
            return values | {"Avg": (values["R@10"] + values["R@50"]) / 2}
        values = {f"R@{k}": (self.gallery <= k).double() for k in TOP}
        values |= {f"Rsub@{k}": (self.group <= k).double() for k in TOP_GROUP}
        return values | {"Avg": (values["R@5"] + values["Rsub@1"]) / 2,
                         "Mean": torch.stack(list(values.values())).mean(0)}

    def metrics(self) -> dict[str, float]:
        """The means of `per_query`."""
        return {name: float(values.mean()) for name, values in self.per_query().items()}

    def means(self) -> dict[str, float]:
        """Arithmetic, harmonic and geometric mean of the recalls, as the released code prints
        them; CIRR's seven, FashionIQ's two."""
        own = self.per_query()
        values = [float(v.mean()) for k, v in own.items() if k not in ("Avg", "Mean")]
        return {"arithmetic": statistics.mean(values), "harmonic": statistics.harmonic_mean(values),
                "geometric": statistics.geometric_mean(values) if all(values) else 0.0}

    def summary(self, n_bootstrap: int = 1000, seed: int = 0) -> dict[str, dict[str, float]]:
        """`metrics` with 95 % intervals over queries (`metrics.summary`)."""
        return metrics.summary(self.per_query(), n_bootstrap, seed)


def evaluate_composed(scores: Scores, composed: Composed, *, chunk: int = 512) -> ComposedRanks:
    """Ranks as the set's protocol has them: with groups (CIRR) the reference is taken out.

    scores: higher is better; a function from a slice of queries to their scores on the whole
    gallery, or the matrix. Raises ValueError where targets are private, and as `composed_ranks`.
    """
    if composed.target is None:
        raise ValueError(f"the targets of {composed.name} {composed.split} are private: write the "
                         "submission files (write_submissions)")
    cirr = composed.members is not None
    return composed_ranks(scores, composed.target, n_gallery=len(composed.images), chunk=chunk,
                          reference=composed.reference if cirr else None, members=composed.members)


@torch.no_grad()
def composed_ranks(scores: Scores, target: Rows, *, reference: Rows | None = None,
                   members: Int64[np.ndarray, "query member"] | Int64[Tensor, "query member"]
                   | None = None, n_gallery: int | None = None, chunk: int = 512) -> ComposedRanks:
    """Ranks by counting what is ahead of the target, on the device of the scores; the result lies
    on the CPU.

    Equal scores: the lower gallery index first, in the group too. reference: gallery rows that are
    taken out, of the group as well. members: gallery rows of each query's group, in any order,
    target and reference among them. Raises TypeError for half precision and ValueError for a wrong
    shape or row, or a NaN, with the query's number.
    """
    target, reference, members = (None if rows is None else torch.as_tensor(rows).long().cpu()
                                  for rows in (target, reference, members))
    _check_rows(target, reference, members)
    parts = []
    for rows in _slices(scores, len(target), chunk):
        block = _block(scores, rows, n_gallery)
        own = [None if x is None else x[rows].to(block.device) for x in (target, reference)]
        _check_inside(block, rows, own, members)
        ranks = [_rank(block, *own)]
        if members is not None:
            group = members[rows].to(block.device).sort(dim=1).values
            own = [(group == x[:, None]).int().argmax(1) for x in own]
            ranks.append(_rank(block.gather(1, group), *own))
        parts.append([rank.cpu() for rank in ranks])
    return ComposedRanks(*map(torch.cat, zip(*parts, strict=True)))


def _rank(scores: Float[Tensor, "query item"], target: Tensor, reference: Tensor | None
          ) -> Int64[Tensor, " query"]:
    own = scores.gather(1, target[:, None])
    lower = torch.arange(scores.shape[1], device=scores.device) < target[:, None]
    ahead = torch.where(lower, scores >= own, scores > own)
    if reference is not None:
        ahead.scatter_(1, reference[:, None], False)
    return 1 + ahead.sum(1)


def _check_rows(target: Tensor, reference: Tensor | None, members: Tensor | None) -> None:
    if target.ndim != 1 or not len(target):
        raise ValueError(f"target is {tuple(target.shape)}: a row for each query, of one or more")
    if reference is not None and reference.shape != target.shape:
        raise ValueError(f"{tuple(reference.shape)} references for {len(target)} targets")
    if reference is not None and (same := (reference == target).nonzero().flatten()).numel():
        raise ValueError(f"the target of query {int(same[0])} is its reference, which is taken out")
    if members is None:
        return
    if reference is None or members.ndim != 2 or len(members) != len(target):
        raise ValueError(f"members are {tuple(members.shape)}: a group for each of {len(target)} "
                         "queries, and its reference is given")
    for what, rows in (("target", target), ("reference", reference)):
        if (out := ((members == rows[:, None]).sum(1) != 1).nonzero().flatten()).numel():
            raise ValueError(f"the {what} of query {int(out[0])} is not once in its group")


def _slices(scores: Scores, n: int, chunk: int) -> list[slice]:
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}: it must be 1 or more")
    if not callable(scores) and len(scores) != n:
        raise ValueError(f"scores are {tuple(scores.shape)}, there are {n} queries")
    return [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]


def _block(scores: Scores, rows: slice, n_gallery: int | None) -> Tensor:
    """Scores of a slice of queries, of the right shape and without a NaN."""
    block = (scores(rows) if callable(scores) else scores[rows]).detach()
    wanted = rows.stop - rows.start, n_gallery or block.shape[-1]
    if block.shape != wanted:
        raise ValueError(f"scores of queries {rows.start} to {rows.stop - 1} are "
                         f"{tuple(block.shape)}, not {wanted}")
    if block.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(f"scores are {block.dtype}, which makes ties: compute them in float32")
    block = block if block.is_floating_point() else block.double()
    if (bad := block.isnan().any(1).nonzero().flatten()).numel():
        raise ValueError(f"a score of query {rows.start + int(bad[0])} is NaN")
    return block


def _check_inside(block: Tensor, rows: slice, own: list, members: Tensor | None) -> None:
    for index in (*own, None if members is None else members[rows]):
        if index is not None and not 0 <= int(index.min()) <= int(index.max()) < block.shape[1]:
            raise ValueError(f"queries {rows.start} to {rows.stop - 1} name a row that the gallery "
                             f"of {block.shape[1]} images does not have")


# ------------------------------------------------------------------------------------ FashionIQ


def fashioniq_summary(ranks: Mapping[str, ComposedRanks], n_bootstrap: int = 1000, seed: int = 0
                      ) -> dict[str, dict[str, dict[str, float]]]:
    """Type -> metric -> mean and 95 % interval, and `average`: the means over types of R@10, of
    R@50, and of both (Avg). Types count alike however many queries they have; their queries are
    drawn within each type."""
    if not ranks or any(own.group is not None for own in ranks.values()):
        raise ValueError("give the ranks of each FashionIQ type")
    found = {name: own.summary(n_bootstrap, seed) for name, own in ranks.items()}
    draw = np.random.default_rng(seed)
    drawn = np.mean([_resampled(own, n_bootstrap, draw) for own in ranks.values()], axis=0)
    low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
    average = {name: {"mean": float(np.mean([own[name]["mean"] for own in found.values()])),
                      "low": float(low[i]), "high": float(high[i])}
               for i, name in enumerate(("R@10", "R@50", "Avg"))}
    return found | {"average": average}


def _resampled(ranks: ComposedRanks, n_bootstrap: int, draw: np.random.Generator
               ) -> Float[np.ndarray, "sample 3"]:
    """R@10, R@50 and their mean of resamples of the queries: these count as within 10, within 50
    and beyond, so that a resample is a multinomial draw."""
    at = [float(ranks.per_query()[name].mean()) for name in ("R@10", "R@50")]
    n = len(ranks.gallery)
    count = draw.multinomial(n, [at[0], max(0.0, at[1] - at[0]), max(0.0, 1 - at[1])], n_bootstrap)
    both = np.cumsum(count, axis=1)[:, :2] / n
    return np.column_stack([both, both.mean(axis=1)])


# ------------------------------------------------------------------------- CIRR's test server


def cirr_submissions(scores: Scores, composed: Composed, *, chunk: int = 512
                     ) -> dict[str, dict[str, str | list[str]]]:
    """What CIRR's server takes, `recall` and `recall_subset`: the best 50 names of the gallery, and
    the best 3 of the group, the reference in neither. Scores and ties as in `composed_ranks`.

    Raises ValueError for a set without groups or with fewer than 51 images.
    """
    if composed.members is None or len(composed.images) <= SUBMITTED["recall"]:
        raise ValueError(f"a submission is made of CIRR's groups and {SUBMITTED['recall']} images "
                         f"beside the reference: {composed.name} {composed.split} has not got them")
    made = {metric: {"version": VERSION, "metric": metric} for metric in SUBMITTED}
    names, members = np.array(composed.names), np.sort(composed.members, axis=1)
    for rows in _slices(scores, len(composed), chunk):
        block = _block(scores, rows, len(names)).cpu()
        reference, group = (torch.from_numpy(x[rows]) for x in (composed.reference, members))
        block = block.scatter(1, reference[:, None], -torch.inf)
        within = best(block.gather(1, group), SUBMITTED["recall_subset"])[0]
        for metric, best_rows in (("recall", best(block, SUBMITTED["recall"])[0]),
                                  ("recall_subset", group.gather(1, within))):
            made[metric] |= dict(zip(composed.pair_ids[rows], names[best_rows.numpy()].tolist(),
                                     strict=True))
    return made


def write_submissions(folder: str | Path, scores: Scores, composed: Composed, *,
                      chunk: int = 512) -> dict[str, Path]:
    """Writes `recall.json` and `recall_subset.json` (keys sorted) and returns their places.

    Raises ValueError that lists the faults of a submission that the server would not take; then
    nothing is written.
    """
    made = cirr_submissions(scores, composed, chunk=chunk)
    faults = [f"{metric}: {fault}" for metric in made
              for fault in submission_faults(made[metric], metric, composed)]
    if faults:
        raise ValueError("not a submission: " + "; ".join(faults[:12])
                         + (f"; and {len(faults) - 12:,} more" if len(faults) > 12 else ""))
    folder = paths.writable_folder(folder)
    return {metric: paths.write_atomic(folder / f"{metric}.json",
                                       json.dumps(content, sort_keys=True))
            for metric, content in made.items()}


def submission_faults(submission: str | Path | Mapping, metric: str, composed: Composed
                      ) -> list[str]:
    """Every fault of a submission (or its file) for a set of CIRR's, none where it is sound.

    metric: `recall` or `recall_subset`. Raises ValueError for another, OSError for a file that
    cannot be read.
    """
    if metric not in SUBMITTED:
        raise ValueError(f"no metric {metric!r}: choose {' or '.join(SUBMITTED)}")
    if not isinstance(submission, Mapping):
        try:
            submission = json.loads(paths.user_path(submission).read_bytes())
        except ValueError as error:
            return [f"the file is not JSON ({error})"]
        if not isinstance(submission, dict):
            return ["the file is not a JSON object"]
    wanted = {"version": VERSION, "metric": metric}
    faults = [f"{key} is {submission.get(key)!r}, not {value!r}" for key, value in wanted.items()
              if submission.get(key) != value]
    pairs = {key: names for key, names in submission.items() if key not in wanted}
    faults += _pair_faults(pairs, composed)
    known = set(composed.names)
    return faults + [f"pair {pair}: {fault}" for row, pair in enumerate(composed.pair_ids)
                     if pair in pairs
                     for fault in _name_faults(pairs[pair], metric, composed, row, known)]


def _pair_faults(pairs: Mapping, composed: Composed) -> list[str]:
    official = N_OFFICIAL.get(composed.name, {}).get(composed.split, {"": (len(composed), 0)})[""]
    faults = []
    if len(pairs) != official[0]:
        faults.append(f"there are {len(pairs):,} pairs, not {official[0]:,}")
    faults += [f"pair {pair} is absent" for pair in composed.pair_ids if pair not in pairs]
    known = set(composed.pair_ids)
    return faults + [f"there is no pair {pair}" for pair in pairs if pair not in known]


def _name_faults(names, metric: str, composed: Composed, row: int, known: set[str]) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ["not a list of names"]
    reference = composed.names[composed.reference[row]]
    group = {composed.names[member] for member in composed.members[row]}
    many = SUBMITTED[metric]
    faults = [] if len(names) == many else [f"{len(names)} names, not {many}"]
    faults += [f"{name} is its reference" for name in names if name == reference][:1]
    faults += [f"{name} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    faults += [f"no image {name}" for name in names if name not in known]
    return faults + [f"{name} is not in its group" for name in names
                     if metric == "recall_subset" and name in known and name not in group]
