"""Computes a record's metrics again from its saved embeddings or scores."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from replication import paths
from replication.metrics import CONVENTIONS
from replication.records import Metric, RunRecord, read_record
from replication.retrieval import (
    best,
    cosine_scorer,
    evaluate_scores,
    label_relevance,
    max_scorer,
    top_k,
)

TOLERANCE = 1e-4  # points, ranks
"""Points, or ranks, by which a recomputed metric may differ."""
CHUNK = 256  # composed queries whose scores are held at once
HALF = "half-precision scores"  # a protocol that ends so differs in nothing but the scores
AGREES, DIFFERS, UNVERIFIABLE = "agrees", "differs", "not verifiable"


def verified(path: str | Path) -> tuple[list[str], str]:
    """A line for each metric of the record, and the outcome: agrees, differs, not verifiable.

    `files` of a record names safetensors files with the tensors query, gallery (float32), or
    scores (query x gallery) in their place, query_labels and gallery_labels (int64), and, where a
    query sees its own group only, query_groups and gallery_groups; for image-text retrieval images,
    texts (float32) and owner (int64, row of each caption's image). For composed retrieval, for each
    kind (`cirr`, or a type of FashionIQ): <kind>.query (n e), .gallery (g q e; both float32) and
    .target (n, int64, gallery rows); of CIRR .reference (n) and .members (n 6) too. `embeddings` is
    what its trained metrics (of the selection listed first) were computed from,
    `embeddings:<variant>` another variant's. Variants without a file are listed and do not change
    the outcome. The record itself decides nothing.
    """
    record = read_record(path)
    lines, outcomes = [], []
    by_file = _by_file(record)
    for key, metrics in by_file.items():
        if key not in record.files:
            lines += [f"  not saved   {m.label}" for m in metrics]
            continue
        file = located(record, key)
        if file is None:
            lines.append(f"  missing     {key}: {record.files[key]}")
            outcomes.append(UNVERIFIABLE)
            continue
        told, outcome = _compared(file, metrics)
        lines += told
        outcomes += outcome
    lines += _hubs(record, by_file)
    if not outcomes:
        lines.append("  the record names no embeddings file")
    worst = [o for o in (DIFFERS, UNVERIFIABLE) if o in outcomes]
    return lines, worst[0] if worst else AGREES if outcomes else UNVERIFIABLE


def located(record: RunRecord, key: str) -> Path | None:
    """A file of the record: beside it, else from the project's root; None where neither has it."""
    name = record.files[key]
    folders = [record.path.parent, paths.ROOT] if record.path else [paths.ROOT]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def first_places(file: Path) -> str:
    """How the first places are shared: where few photos take them all, those are hubs. Of images
    and captions those that captions give to images; of composed queries those of each kind."""
    saved = load_file(file)
    if kinds := _kinds(saved):
        return "; ".join(f"{kind}: {_composed_places(part)}" if len(kinds) > 1 else
                         _composed_places(part) for kind, part in kinds.items())
    if "images" in saved:
        found, _ = top_k(saved["texts"], saved["images"], 1)
        return _shared(found, f"{len(found):,} captions", f"{len(saved['images']):,} images")
    scored = "scores" in saved
    photos = saved["scores"].shape[1] if scored else len(saved["gallery"])
    found, _ = best(saved["scores"], 1) if scored else top_k(saved["query"], saved["gallery"], 1)
    return _shared(found, f"{len(found)} queries", f"{photos} photos")


def _composed_places(part: dict[str, Tensor]) -> str:
    """A query's reference takes no place where it is out of the gallery."""
    scores, found = max_scorer(part["query"], part["gallery"]), []
    for start in range(0, len(part["query"]), CHUNK):
        rows = slice(start, start + CHUNK)
        block = scores(rows)
        if "reference" in part:
            block.scatter_(1, part["reference"][rows][:, None], -torch.inf)
        found.append(best(block, 1)[0])
    return _shared(torch.cat(found), f"{len(part['query']):,} queries",
                   f"{len(part['gallery']):,} images")


def _kinds(saved: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A composed file's tensors by kind and name; none of another file."""
    kinds = sorted(name.removesuffix(".target") for name in saved if name.endswith(".target"))
    return {kind: {name.removeprefix(f"{kind}."): tensor for name, tensor in saved.items()
                   if name.startswith(f"{kind}.")} for kind in kinds}


def _shared(found: Tensor, queries: str, gallery: str) -> str:
    taken = found.flatten().bincount().sort(descending=True).values
    return (f"first places of {queries} go to {int((taken > 0).sum())} of {gallery}, "
            f"{100 * taken[:3].sum() / len(found):.0f} % of them to three")


def _hubs(record: RunRecord, by_file: dict[str, list[Metric]]) -> list[str]:
    """`first_places` of the main ranking; of each saved model's, named, where there is no main."""
    keys = ["embeddings"] if "embeddings" in {*by_file, *record.files} else list(by_file)
    lines = []
    for key in (key for key in keys if key in record.files):
        if file := located(record, key):
            of = key.partition(":")[2]
            lines.append(f"  {of}: {first_places(file)}" if of else f"  {first_places(file)}")
    return lines


def _by_file(record: RunRecord) -> dict[str, list[Metric]]:
    """Metrics by the key of the file they can be computed from. Half-precision scores are of the
    same embeddings, so that those without a file of their own take that of the full scores."""
    trained = [m for m in record.metrics if m.variant in ("", "trained")]
    main = (trained[0].selection, trained[0].protocol) if trained else ("", "")
    grouped: dict[str, list[Metric]] = {"embeddings": []}
    for m in record.metrics:
        keys = [_key(m, protocol, main) for protocol in _protocols(m, record)]
        key = next((key for key in keys if key in record.files), keys[0])
        grouped.setdefault(key, []).append(m)
    return {key: metrics for key, metrics in grouped.items() if metrics}


def _protocols(m: Metric, record: RunRecord) -> list[str]:
    """The row's protocol, and for half-precision scores that of the full ones."""
    full = m.protocol.removesuffix(HALF).rstrip(" ,;")
    own = "" if full == record.protocol else full
    return [m.protocol, own] if m.protocol.endswith(HALF) else [m.protocol]


def _key(m: Metric, protocol: str, main: tuple[str, str]) -> str:
    is_main = m.variant in ("", "trained") and (m.selection, protocol) == main
    named = [] if is_main else [m.variant or "trained", m.selection, protocol]
    return ":".join(["embeddings", *filter(None, named)])


def _compared(file: Path, metrics: list[Metric]) -> tuple[list[str], list[str]]:
    saved = load_file(file)
    computed = _composed if _kinds(saved) else _image_text if "images" in saved else _sketches
    values = computed(saved, metrics)
    known = [m for m in metrics if m.label in values]
    defined = {m.convention for m in known}
    lines = [f"  no such {'metric' if m.convention in defined else 'convention'} {m.label}"
             for m in metrics if m not in known]
    outcomes = [UNVERIFIABLE] * len(lines)
    for m in known:
        again = values[m.label]
        same = abs(again - m.value) <= TOLERANCE
        outcomes.append(AGREES if same else DIFFERS)
        lines.append(f"  {outcomes[-1]:11} {m.label}: recorded {m.value:.4f}, "
                     f"computed {again:.4f}")
    return lines, outcomes


def _image_text(saved: dict[str, Tensor], metrics: list[Metric]) -> dict[str, float]:
    """Percent and median ranks by the row's label: one scoring a convention and precision."""
    from replication.image_text import FOLDS, image_text_ranks

    known = [m for m in metrics if m.convention in FOLDS]
    found = {}
    for way in dict.fromkeys(map(_way, known)):
        ranks = image_text_ranks(saved["images"], saved["texts"], saved["owner"],
                                 n_folds=FOLDS[way[0]], half=way[1])
        values = {name: 100 * value for name, value in ranks.metrics().items()}
        values |= {f"{side}_median_rank": value for side, value in ranks.median_ranks().items()}
        found |= {m.label: values[m.metric] for m in known
                  if _way(m) == way and m.metric in values}
    return found


def _way(m: Metric) -> tuple[str, bool]:
    return m.convention, m.protocol.endswith(HALF)


def _composed(saved: dict[str, Tensor], metrics: list[Metric]) -> dict[str, float]:
    """Percent by the row's label: CIRR's of a kind with groups, FashionIQ's of the others, a type
    in front of each, and their average."""
    from replication.composed_metrics import composed_ranks, fashioniq_summary

    ranks = {kind: composed_ranks(max_scorer(part["query"], part["gallery"]), part["target"],
                                  n_gallery=len(part["gallery"]), chunk=CHUNK,
                                  reference=part.get("reference"), members=part.get("members"))
             for kind, part in _kinds(saved).items()}
    found = {("cirr", name): value for own in ranks.values() if own.group is not None
             for name, value in own.metrics().items()}
    if types := {kind: own for kind, own in ranks.items() if own.group is None}:
        found |= {("fashioniq", f"{kind} {name}"): value["mean"]
                  for kind, own in fashioniq_summary(types, n_bootstrap=1).items()
                  for name, value in own.items()}
    return {m.label: 100 * found[m.convention, m.metric] for m in metrics
            if (m.convention, m.metric) in found}


def _sketches(saved: dict[str, Tensor], metrics: list[Metric]) -> dict[str, float]:
    """Percent by the row's label, from one scoring of the saved embeddings."""
    metrics, valid = [m for m in metrics if m.convention in CONVENTIONS], None
    if not metrics:
        return {}
    if "query_groups" in saved:
        def valid(rows):
            return saved["query_groups"][rows][:, None] == saved["gallery_groups"][None]
    names = dict.fromkeys(m.metric for m in metrics)
    conventions = [CONVENTIONS[c] for c in dict.fromkeys(m.convention for m in metrics)]
    scores = saved["scores"] if "scores" in saved else \
        cosine_scorer(saved["query"], saved["gallery"])
    relevance = label_relevance(saved["query_labels"], saved["gallery_labels"])
    result = evaluate_scores(scores, len(saved["query_labels"]), relevance, valid=valid,
                             conventions=conventions, names=names)
    return {m.label: 100 * float(result.per_query[m.convention][m.metric].nanmean())
            for m in metrics}

