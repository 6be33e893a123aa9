"""The metrics chapter's tables and figures: one ranking, every convention.

Never imports torch.
"""

from itertools import groupby
from pathlib import Path
from statistics import mean

from matplotlib.figure import Figure

from replication import figures, paths
from replication.comparison import run_link
from replication.datasets import proper_name
from replication.published import Cell, Paper
from replication.records import Metric, RunRecord

SKETCH = ("clip_prompt", "acnet", "zse_sbir")
METRICS = ("mAP@all", "mAP@200", "P@100", "P@200")
# (divisor of the average precision at k, interpolated, ranks and divisor of the precision at k), in
# words; tests/test_metric_pages.py holds them against `metrics.CONVENTIONS`.
DEFINITIONS = {
    "clip_prompt": ("the hits within k", False, "k"),
    "acnet": ("min(k, P)", True, "k"),
    "zse_sbir": ("min(k, P)", True, "min(k, P)"),
    "trec": ("P", False, "k"),
}
MARKERS = {"clip_prompt": "o", "clip_prompt_torchmetrics_1_8": "v", "acnet": "s", "zse_sbir": "D",
           "trec": "P"}
CAPTION = ("One ranking a line; marks are the conventions, bars their 95 % intervals over queries. "
           "Nothing but the definition differs along a line.")


def write(book: Path, papers: dict[str, Paper], records: dict[str, list[RunRecord]]) -> list[Path]:
    """The files of `_generated` that these pages include."""
    generated = book / "_generated"
    runs = sketch_runs(papers, records)
    pages = {"perfect": perfect_markdown(papers, runs),
             "comparable": comparable_markdown(papers),
             "common": common_markdown(papers, runs),
             "conventions": conventions_markdown(papers, runs)}
    files, pages["parting"] = parting(generated, papers, runs)
    more, pages["front"] = parting(generated, papers, runs, ("mAP@200",), "front")
    return files + more + [paths.write_atomic(generated / f"metrics_{name}.md", text.encode())
                    for name, text in pages.items()]


def sketch_runs(papers: dict[str, Paper], records: dict[str, list[RunRecord]]) -> list[RunRecord]:
    """The zero-shot runs of the sketch papers that trained and hold every metric here, those on
    built-in data first."""
    found = [r for name in SKETCH if name in papers for r in records.get(name, [])
             if r.protocol == "zero-shot" and {m.metric for m in trained(r)} >= set(METRICS)]
    return sorted(found, key=lambda r: (r.dataset.kind, r.dataset.name, SKETCH.index(r.paper)))


def trained(record: RunRecord) -> list[Metric]:
    """A run's trained ranking, of its first selection, in its own protocol."""
    rows = [m for m in record.metrics if m.variant == "trained" and not m.protocol]
    return [m for m in rows if m.selection == rows[0].selection]


def named(papers: dict[str, Paper], record: RunRecord) -> str:
    """A run in two words: the method and its data."""
    name = proper_name(record.dataset.name)
    kinds = {"demo": "doodles", "subset": f"{name} sample"}
    return f"{papers[record.paper].known_as}, {kinds.get(record.dataset.kind, name)}"


# -- one ranking under every convention

def parting(generated: Path, papers: dict[str, Paper], runs: list[RunRecord],
            metrics: tuple[str, ...] = METRICS, name: str = "parting") -> tuple[list[Path], str]:
    """The figure of how far the conventions part: a panel a metric, a line a run, a mark a
    convention with its 95 % interval."""
    if not runs:
        return [], "No run of a sketch paper yet.\n"
    widest = max(((spread(values(run, metric)), metric, run) for run in runs for metric in metrics),
                 key=lambda found: found[0])
    alt = (f"A panel for {', '.join(metrics)}; each of {len(runs)} rankings is a line with a mark "
           f"a convention. They part by up to {widest[0]:.1f} points: {widest[1]} of "
           f"{named(papers, widest[2])}.")
    return figures.pair(generated, f"metrics_{name}",
                        lambda: parting_figure(papers, runs, metrics), alt,
                        CAPTION if metrics == METRICS else "", narrow=len(metrics) == 1)


def parting_figure(papers: dict[str, Paper], runs: list[RunRecord], metrics: tuple[str, ...]
                   ) -> Figure:
    """Two by two panels, so that a phone can show it; or one."""
    lines = -(-len(metrics) // 2)
    figure = Figure(figsize=(8.2 if lines > 1 else 5, lines * (1.05 + 0.31 * len(runs)) + 0.5),
                    layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08)
    axes = figure.subplots(lines, min(2, len(metrics)), sharey=True, squeeze=False)
    for axis, metric in zip(axes.flat, metrics, strict=True):
        _panel(axis, runs, metric)
    axes[0, 0].set_yticks(range(len(runs)), [named(papers, run) for run in runs])
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3 if lines > 1 else 2)
    return figure


def _panel(axis, runs: list[RunRecord], metric: str) -> None:
    for place, (convention, marker) in enumerate(MARKERS.items()):
        found = [(y, m) for y, run in enumerate(runs)
                 if (m := values(run, metric).get(convention))]
        shown = [m for _, m in found]
        axis.errorbar([m.value for m in shown], [y + 0.13 * (place - 2) for y, _ in found],
                      xerr=[[m.value - (m.value if m.low is None else m.low) for m in shown],
                            [(m.value if m.high is None else m.high) - m.value for m in shown]],
                      fmt=marker, ms=5, capsize=2, lw=1, label=convention)
    axis.set(title=metric, xlabel="percent")
    axis.set_xlim(left=-0.03 * axis.get_xlim()[1])  # a mark at zero is whole


def values(record: RunRecord, metric: str) -> dict[str, Metric]:
    """A metric of the trained ranking by convention."""
    return {m.convention: m for m in trained(record) if m.metric == metric}


def spread(found: dict[str, Metric]) -> float:
    """How far the conventions part, in points."""
    return max(m.value for m in found.values()) - min(m.value for m in found.values())


def conventions_markdown(papers: dict[str, Paper], runs: list[RunRecord]) -> str:
    """What the figure shows, as numbers."""
    if not runs:
        return "No run of a sketch paper yet.\n"
    lines = []
    for run in runs:
        for metric in METRICS:
            found = values(run, metric)
            numbers = [f"{found[c].value:.1f}" if c in found else "" for c in MARKERS]
            link = run_link(run).replace(f"[{run.path.stem}]" if run.path else "[]",
                                         f"[{named(papers, run)}]")
            lines.append([link, metric, *numbers,
                          f"{spread(found):.1f}"])
    columns = ["ranking", "metric", *(f"`{c}`" for c in MARKERS), "they part by"]
    return table(columns, lines, words=2)


# -- what a perfect ranking gets

def perfect_markdown(papers: dict[str, Paper], runs: list[RunRecord]) -> str:
    """What a ranking without a fault gets on each test set, by the photos a class has on average:
    the published sets, then those of the runs here."""
    sets = {(name, split): found for paper in papers.values() for name, splits in paper.sets.items()
            for split, found in splits.items() if found.n_classes and found.n_gallery}
    sizes = [(f"{name} {split}", found.n_gallery, found.n_classes)
             for (name, split), found in sorted(sets.items())]
    sizes += [(f"{name} {split}, of this book's runs", *counts) for (name, split), counts in {
        (r.dataset.name, r.dataset.split): (r.dataset.n_gallery, r.dataset.n_classes)
        for r in runs if r.dataset.n_classes}.items()]
    lines = [[told, f"{gallery / classes:,.0f}", *(f"{v:.1f}" for v in best(gallery / classes))]
             for told, gallery, classes in sizes]
    return table(["test set", "photos a class", "mAP@200 `trec`", "mAP@200, the others",
                  "P@200 `zse_sbir`", "P@200, the others"], lines)


def best(positives: float, k: int = 200) -> tuple[float, float, float, float]:
    """mAP@k divided by all positives, mAP@k otherwise, P@k over min(k, P), P@k over k: of a
    perfect ranking, in percent."""
    found = min(k, positives)
    return 100 * found / positives, 100.0, 100.0, 100 * found / k


# -- which published tables can be compared

def comparable_markdown(papers: dict[str, Paper]) -> str:
    """The published cells in classes that may be compared: same test set, protocol, selection and
    definition. Metrics whose tables are the same share a line."""
    classes: dict[tuple, dict[str, dict[str, list[str]]]] = {}
    for paper in papers.values():
        for cell in paper.cells:
            place = (cell.dataset, cell.split, cell.protocol, chosen_on(cell),
                     definition(cell.metric, cell.convention))
            tables = classes.setdefault(place, {}).setdefault(cell.metric, {})
            names = tables.setdefault(paper.known_as, [])
            names += [cell.table] if cell.table not in names else []
    lines = []
    for (dataset, split, protocol, selection, told), metrics in sorted(classes.items()):
        joined = {metric: "; ".join(f"{paper}: {in_words(names)}" for paper, names in by.items())
                  for metric, by in metrics.items()}
        for tables in dict.fromkeys(joined.values()):
            same = gathered([metric for metric, t in joined.items() if t == tables])
            lines.append([f"{dataset} {split}", protocol, same, told, selection, tables])
    return table(["test set", "protocol", "metrics", "definition", "epoch chosen on", "tables"],
                 lines, words=6)


def chosen_on(cell: Cell) -> str:
    """What the reported epoch was chosen on; none where nothing was trained, as for zero-shot
    image-text retrieval (a sketch paper's zero-shot is of unseen classes, after training)."""
    untrained = cell.protocol.startswith("zero-shot") and cell.convention.startswith("image_text")
    return cell.selection or ("none" if untrained else "not stated")


def in_words(tables: list[str]) -> str:
    """Tables by their names in paper.yml, said shortly: `paper-table-4` is table 4."""
    names = [name.removeprefix("paper-").replace("-", " ") for name in tables]
    kinds = {}
    for name in names:
        kind, _, number = name.rpartition(" ")
        kinds.setdefault(kind if number.isdigit() else name, []).append(number)
    return ", ".join(f"{kind} {', '.join(sorted(numbers, key=int))}" if numbers[0].isdigit()
                     else kind for kind, numbers in kinds.items())


def gathered(metrics: list[str]) -> str:
    """Metrics that differ in what they are of, said once: `R@1, R@5 (i2t, t2i)`."""
    of: dict[str, list[str]] = {}
    for metric in metrics:
        what, _, name = metric.replace("_R@", " R@").rpartition(" ")
        of.setdefault(name, []).append(what)
    sides = list(dict.fromkeys(map(tuple, of.values())))
    if len(sides) > 1 or sides == [("",)]:
        return ", ".join(metrics)
    return f"{', '.join(of)} ({', '.join(sides[0])})"


def definition(metric: str, convention: str) -> str:
    """What a published metric means, in words that are equal where the numbers are: at `all` every
    divisor is the number of positives P, and P@k over k is one thing by any name."""
    kind, _, cut = metric.partition("@")
    if convention not in DEFINITIONS:
        return f"`{convention}`" if convention else "not stated"
    divisor, interpolated, precision = DEFINITIONS[convention]
    if kind == "P":
        return f"over {precision}"
    divisor = "P" if cut == "all" else divisor
    return f"divided by {divisor}{', interpolated' if interpolated else ''}"


# -- the common convention across papers

def common_markdown(papers: dict[str, Paper], runs: list[RunRecord]) -> str:
    """The sketch papers side by side in the common convention, a table a prepared set: runs whose
    gallery is the same, file by file."""
    tables = []
    for _, group in groupby(runs, key=lambda r: (r.dataset.kind, r.dataset.manifest)):
        found = list(group)
        if len(found) > 1:
            tables.append(side_by_side(papers, found))
    return "\n\n".join(tables or ["No two runs on one set yet."]) + "\n"


def side_by_side(papers: dict[str, Paper], runs: list[RunRecord]) -> str:
    """One set's runs as columns, its floors first; the interval stands under each number."""
    first = runs[0].dataset
    kind = {"demo": "built-in", "subset": "a sample"}.get(first.kind, first.kind)
    counts = "; ".join(f"{papers[r.paper].known_as}: {r.dataset.n_query:,} queries" for r in runs)
    head = (f"**{first.name} {first.split}** ({kind}), {first.n_gallery:,} photos of "
            f"{first.n_classes} unseen classes; {counts}; in percent")
    floors = [v for v in ("chance", "pixels") if all(floor(r, v, "mAP@all") for r in runs)]
    lines = [[metric, *(f"{mean(floor(r, v, metric).value for r in runs):.1f}" for v in floors),
              *(with_interval(values(r, metric)["trec"]) for r in runs)] for metric in METRICS]
    columns = [*(f"{v} (mean of the runs)" for v in floors),
               *(f"{papers[r.paper].known_as} ({run_link(r)})" for r in runs)]
    return head + "\n\n" + table(["", *columns], lines)


def floor(record: RunRecord, variant: str, metric: str) -> Metric | None:
    """A floor's row in the common convention, None where the run has none."""
    return next((m for m in record.metrics if (m.variant, m.metric, m.convention, m.protocol) == (
        variant, metric, "trec", "")), None)


def with_interval(metric: Metric) -> str:
    """A number and its 95 % interval over queries."""
    if metric.low is None or metric.high is None:
        return f"{metric.value:.1f}"
    return f"{metric.value:.1f} ({metric.low:.1f} to {metric.high:.1f})"


def table(columns: list[str], lines: list[list[str]], words: int = 1) -> str:
    """A Markdown table whose first `words` columns are text, the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(columns) - words)
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, rule, *lines])
