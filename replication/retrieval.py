"""Encode once, score in chunks (float32), rank: retrieval whose memory is one chunk of scores.

Embedding models enter at `evaluate`; a network that scores pairs enters at `evaluate_scores`
with its own function from a slice of queries to a chunk of scores. What counts as relevant and
which gallery items a query may see are masks, or functions from a slice to a mask: that is all
in which category, image-text and composed retrieval differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from replication.metrics import (
    COMMON,
    SKETCH_METRICS,
    Convention,
    Ranks,
    Relevance,
    first_rank,
    positive_ranks,
    summary,
)

Rows = Callable[[slice], Relevance]
"""A function from a slice of queries to what is relevant for them."""
Mask = Bool[Tensor, "query gallery"] | Callable[[slice], Bool[Tensor, "chunk gallery"]]
"""Which gallery items a query may see, or is answered by: a mask, or a function from a slice to its
rows."""
PRODUCTS = 2**21  # that `max_scorer` holds at once, 8 MB


@torch.inference_mode()
def encode(
    model: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor | Sequence],
    *,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
    normalize: bool = True,
    progress: str | None = None,
) -> Float[Tensor, "item dim"]:
    """Embeddings of every item, float32 on the CPU, in the order of the batches.

    A batch is a tensor, or a tuple whose first part is the tensor. A module in training mode is
    put into evaluation mode for the while. `normalize`: to unit length, in float32. `progress`
    is the text of a progress bar. Raises ValueError, with the batch's number, for an embedding
    that is not finite, and where there are no batches.
    """
    device, parts = torch.device(device), []
    training = isinstance(model, torch.nn.Module) and model.training
    if training:
        model.eval()
    try:
        for i, batch in enumerate(_shown(batches, progress)):
            images = batch if isinstance(batch, Tensor) else batch[0]
            with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
                embeddings = model(images.to(device, non_blocking=True))
            parts.append(_finite(embeddings.float().cpu(), i))
    finally:
        if training:
            model.train()
    if not parts:
        raise ValueError("no batches to encode")
    embeddings = torch.cat(parts)
    return F.normalize(embeddings, dim=1) if normalize else embeddings


def _finite(embeddings: Tensor, batch: int) -> Tensor:
    if not embeddings.isfinite().all():
        raise ValueError(f"an embedding of batch {batch} is NaN or infinite")
    return embeddings


def _shown(items: Iterable, text: str | None, total: int | None = None) -> Iterable:
    if text is None:
        return items
    from tqdm.auto import tqdm

    return tqdm(items, desc=text, total=total)


def cosine_scores(
    query: Float[Tensor, "query dim"], gallery: Float[Tensor, "gallery dim"]
) -> Float[Tensor, "query gallery"]:
    """Cosine similarity of every pair in full float32, whatever autocast or TF32 is set."""
    return _product(_unit(query), _unit(gallery))


def iter_scores(
    query: Float[Tensor, "query dim"], gallery: Float[Tensor, "gallery dim"], chunk: int = 512
) -> Iterator[tuple[slice, Float[Tensor, "chunk gallery"]]]:
    """`cosine_scores` a slice of queries at a time; the gallery is normalised once."""
    scores = cosine_scorer(query, gallery)
    for rows in _slices(len(query), chunk):
        yield rows, scores(rows)


def cosine_scorer(
    query: Float[Tensor, "query dim"], gallery: Float[Tensor, "gallery dim"]
) -> Callable[[slice], Float[Tensor, "chunk gallery"]]:
    """A function from a slice of queries to their cosine scores."""
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(f"embeddings {tuple(query.shape)} and {tuple(gallery.shape)} differ")
    unit = _unit(gallery)
    return lambda rows: _product(_unit(query[rows]), unit)


def max_scorer(
    query: Float[Tensor, "query dim"], gallery: Float[Tensor, "gallery vector dim"]
) -> Callable[[slice], Float[Tensor, "chunk gallery"]]:
    """A function from a slice of queries to the largest inner product with one of each gallery
    item's vectors, in full float32 whatever autocast or TF32 is set. Nothing is normalised.

    Memory beside the scores: PRODUCTS, or those of one item. Raises ValueError for shapes that do
    not fit, and for items without a vector.
    """
    if query.ndim != 2 or gallery.ndim != 3 or query.shape[1] != gallery.shape[2]:
        raise ValueError(f"embeddings {tuple(query.shape)} and {tuple(gallery.shape)} do not fit: "
                         "query x dim and gallery x vectors x dim are wanted")
    n, each = gallery.shape[:2]
    if not each:
        raise ValueError(f"embeddings {tuple(gallery.shape)}: the gallery's items have no vector")
    vectors = gallery.float().flatten(0, 1)  # (gallery * vector, dim)

    def scores(rows: slice) -> Float[Tensor, "chunk gallery"]:
        asked = query[rows].float()
        found = asked.new_empty(len(asked), n)
        for items in _slices(n, max(1, PRODUCTS // max(1, len(asked) * each))):
            part = vectors[items.start * each:items.stop * each]
            found[:, items] = _product(asked, part).unflatten(1, (-1, each)).amax(-1)
        return found

    return scores


def _unit(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings.float(), dim=1)


@torch.no_grad()
def _product(query: Tensor, gallery: Tensor) -> Tensor:
    """query @ gallery.T; reduced-precision products make ties."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(query.device.type, enabled=False):
            return query @ gallery.T
    finally:
        torch.set_float32_matmul_precision(before)


def _slices(n: int, chunk: int) -> list[slice]:
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}: it must be 1 or more")
    return [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]


def label_relevance(
    query_labels: Int[Tensor, " query"], gallery_labels: Int[Tensor, " gallery"]
) -> Rows:
    """Category retrieval: relevant is what has the query's label.

    Returns a function from a slice of queries to the gallery indices of their positives: each
    class's columns are listed once, no [query, gallery] mask is made. Labels are integers or
    strings, a tensor or a sequence.
    """
    query, gallery = _labels(query_labels), _labels(gallery_labels)
    order = np.argsort(gallery, kind="stable")
    names, starts = np.unique(gallery[order], return_index=True)
    columns = dict(zip(names.tolist(), np.split(order, starts)[1:], strict=True))
    none = np.empty(0, np.int64)
    return lambda rows: [columns.get(label, none) for label in query[rows].tolist()]


def _labels(labels) -> np.ndarray:
    return np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)


@dataclass(frozen=True)
class Evaluation:
    """Per-query values of every convention, from one scoring and one ranking."""

    per_query: dict[str, dict[str, Float[Tensor, " query"]]]  # convention name -> metric -> 0..1
    first_rank: Float[Tensor, " query"]  # rank of the best positive, NaN where there is none
    n_positive: Int[Tensor, " query"]
    n_gallery: int

    def summary(
        self, n_bootstrap: int = 1000, seed: int = 0
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Convention name -> metric -> mean and 95 % interval over queries (`metrics.summary`)."""
        return {name: summary(values, n_bootstrap, seed) for name, values in self.per_query.items()}


def evaluate(
    query: Float[Tensor, "query dim"],
    gallery: Float[Tensor, "gallery dim"],
    query_labels: Int[Tensor, " query"] | None = None,
    gallery_labels: Int[Tensor, " gallery"] | None = None,
    *,
    relevance: Mask | Rows | None = None,
    valid: Mask | None = None,
    conventions: Sequence[Convention] = (COMMON,),
    names: Iterable[str] = SKETCH_METRICS,
    chunk: int = 512,
    progress: str | None = None,
) -> Evaluation:
    """Every metric of every convention for cosine retrieval, a chunk of queries at a time.

    Relevance comes from both label arrays or from `relevance` ([query, gallery] mask or function
    of a slice); `valid` takes items out of a query's gallery (composed retrieval: its
    reference). Memory: embeddings and a few chunks of scores. Raises ValueError where relevance
    is given twice or not at all or where lengths differ; see `positive_ranks` for NaN.
    """
    if (relevance is None) == (query_labels is None or gallery_labels is None):
        raise ValueError("give query_labels and gallery_labels, or relevance")
    if relevance is None:
        if (n := (len(query_labels), len(gallery_labels))) != (len(query), len(gallery)):
            raise ValueError(f"{n} labels for {len(query)} queries, {len(gallery)} gallery items")
        relevance = label_relevance(query_labels, gallery_labels)
    return evaluate_scores(
        cosine_scorer(query, gallery), len(query), relevance, valid=valid,
        conventions=conventions, names=names, chunk=chunk, progress=progress,
    )  # fmt: skip


def evaluate_scores(
    scores: Float[Tensor, "query gallery"] | Callable[[slice], Float[Tensor, "chunk gallery"]],
    n_query: int,
    relevance: Mask | Rows,
    *,
    valid: Mask | None = None,
    conventions: Sequence[Convention] = (COMMON,),
    names: Iterable[str] = SKETCH_METRICS,
    chunk: int = 512,
    progress: str | None = None,
) -> Evaluation:
    """`evaluate` for a model that scores pairs: `scores` maps a slice of queries to
    [chunk, gallery], higher is better (or is the whole matrix)."""
    names, parts, n_gallery = tuple(names), [], 0
    slices = _slices(n_query, chunk)
    for rows in _shown(slices, progress):
        block = _rows(scores, rows)
        n_gallery = block.shape[1]
        parts.append(_values(_ranked(block, rows, relevance, valid), conventions, names))
    if not parts:
        raise ValueError("no queries to evaluate")
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    first, n_positive = joined.pop("first_rank"), joined.pop("n_positive")
    per_query = {c.name: {name: joined[c.name, name] for name in names} for c in conventions}
    return Evaluation(per_query, first, n_positive, n_gallery)


def _rows(source: Mask | Rows, rows: slice):
    return source(rows) if callable(source) else source[rows]


def _ranked(scores: Tensor, rows: slice, relevance: Mask | Rows, valid: Mask | None) -> Ranks:
    valid = None if valid is None else _rows(valid, rows)
    try:
        return positive_ranks(scores, _rows(relevance, rows), valid=valid)
    except ValueError as error:
        raise ValueError(f"queries {rows.start} to {rows.stop - 1}: {error}") from None


def _values(ranks: Ranks, conventions: Sequence[Convention], names: tuple[str, ...]) -> dict:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a chunk's ranks are so few that sharing them costs more
    try:
        values = {
            (convention.name, name): value.cpu()
            for convention in conventions
            for name, value in convention.metrics(ranks, names).items()
        }
    finally:
        torch.set_num_threads(threads)
    return values | {"first_rank": first_rank(ranks).cpu(), "n_positive": ranks.n_positive.cpu()}


def top_k(
    query: Float[Tensor, "query dim"],
    gallery: Float[Tensor, "gallery dim"],
    k: int,
    *,
    valid: Mask | None = None,
    chunk: int = 512,
) -> tuple[Int[Tensor, "query k"], Float[Tensor, "query k"]]:
    """Gallery indices and cosine scores of each query's best k, best first, on the CPU.

    Equal scores: the lower gallery index first. Items that `valid` takes out score -inf, so
    they come last. Raises ValueError where k exceeds the gallery.
    """
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k is {k}, the gallery has {len(gallery)} items")
    parts = []
    for rows, scores in iter_scores(query, gallery, chunk):
        if valid is not None:
            scores.masked_fill_(~_rows(valid, rows).to(scores.device), -torch.inf)
        parts.append(best(scores, k))
    indices, scores = zip(*parts, strict=True)
    return torch.cat(indices).cpu(), torch.cat(scores).cpu()


def best(scores: Float[Tensor, "query gallery"], k: int
         ) -> tuple[Int[Tensor, "query k"], Float[Tensor, "query k"]]:
    """Indices and scores of each row's best k, best first; equal scores: the lower index first."""
    # a stable descending sort, cut; only rows tied at the cut are sorted in full
    values, indices = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    tied = values[:, k - 1] == values[:, -1] if values.shape[1] > k else torch.zeros(0)
    indices = indices[:, :k].sort(dim=1).values
    order = scores.gather(1, indices).sort(dim=1, descending=True, stable=True).indices
    indices = indices.gather(1, order)
    if tied.any():
        full = scores[tied].sort(dim=1, descending=True, stable=True).indices
        indices[tied] = full[:, :k]
    return indices, scores.gather(1, indices)
