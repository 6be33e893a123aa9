"""Computes a record's metrics again from its saved embeddings or scores."""

from pathlib import Path

from safetensors.torch import load_file

from replication import paths
from replication.metrics import CONVENTIONS
from replication.records import Metric, RunRecord, read_record
from replication.retrieval import best, cosine_scorer, evaluate_scores, label_relevance, top_k

TOLERANCE = 1e-4  # points
AGREES, DIFFERS, UNVERIFIABLE = "agrees", "differs", "not verifiable"


def verified(path: str | Path) -> tuple[list[str], str]:
    """A line for each metric of the record, and the outcome: agrees, differs, not verifiable.

    `files` of a record names safetensors files with the tensors query, gallery (float32), or
    scores (query x gallery) in their place, query_labels and gallery_labels (int64), and, where a
    query sees its own group only, query_groups and gallery_groups. `embeddings` is what its trained
    metrics (of the selection listed first) were computed from, `embeddings:<variant>` another
    variant's. Variants without a file are listed and do not change the outcome. The record itself
    decides nothing.
    """
    record = read_record(path)
    lines, outcomes = [], []
    for key, metrics in _by_file(record).items():
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
    if main := located(record, "embeddings") if "embeddings" in record.files else None:
        lines.append(f"  {first_places(main)}")
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
    """How the first places are shared: where few photos take them all, those are hubs."""
    saved = load_file(file)
    scored = "scores" in saved
    photos = saved["scores"].shape[1] if scored else len(saved["gallery"])
    found, _ = best(saved["scores"], 1) if scored else top_k(saved["query"], saved["gallery"], 1)
    taken = found.flatten().bincount().sort(descending=True).values
    return (f"first places of {len(found)} queries go to {int((taken > 0).sum())} of "
            f"{photos} photos, {100 * taken[:3].sum() / len(found):.0f} % of them to three")


def _by_file(record: RunRecord) -> dict[str, list[Metric]]:
    """Metrics by the key of the file they can be computed from."""
    trained = [m for m in record.metrics if m.variant in ("", "trained")]
    main = (trained[0].selection, trained[0].protocol) if trained else ("", "")
    grouped: dict[str, list[Metric]] = {"embeddings": []}
    for m in record.metrics:
        is_main = m.variant in ("", "trained") and (m.selection, m.protocol) == main
        named = [] if is_main else [m.variant or "trained", m.selection, m.protocol]
        parts = filter(None, named)
        grouped.setdefault(":".join(["embeddings", *parts]), []).append(m)
    return {key: metrics for key, metrics in grouped.items() if metrics}


def _compared(file: Path, metrics: list[Metric]) -> tuple[list[str], list[str]]:
    known = [m for m in metrics if m.convention in CONVENTIONS]
    lines = [f"  no such convention {m.label}" for m in metrics if m not in known]
    outcomes = [UNVERIFIABLE] * len(lines)
    values = _values(file, known) if known else {}
    for m in known:
        again = values[m.convention][m.metric]
        same = abs(again - m.value) <= TOLERANCE
        outcomes.append(AGREES if same else DIFFERS)
        lines.append(f"  {outcomes[-1]:11} {m.label}: recorded {m.value:.4f}, "
                     f"computed {again:.4f}")
    return lines, outcomes


def _values(file: Path, metrics: list[Metric]) -> dict[str, dict[str, float]]:
    """Percent by convention and metric, from one scoring of the saved embeddings."""
    saved = load_file(file)
    valid = None
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
    return {c: {name: 100 * float(values.nanmean()) for name, values in by_name.items()}
            for c, by_name in result.per_query.items()}

