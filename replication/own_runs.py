"""Runs on samples and on the built-in data set at a glance: one number a run, with what a model
must beat. Never imports torch."""

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure

from replication import figures, paths
from replication.check_pages import table
from replication.comparison import FLOORS, demo_table, subset_table
from replication.deviations import COMMON
from replication.effect_words import signed
from replication.records import RunRecord

KINDS: dict[str, tuple[Callable, str]] = {
    "samples": (subset_table, "samples of real data sets"),
    "demos": (demo_table, "the built-in doodles")}
COLUMNS = ["paper", "run", "dataset", "metric", "chance", "floor", "floor_name", "model",
           "trained", "low", "high", "gain"]
CAPTION = ("Filled: the model, with its 95 % bootstrap interval over the queries (of several "
           "seeds, their spread). Hollow: the best floor, that is, the best of what a model must "
           "beat: chance (one random draw), raw pixels, the untrained network, one half of the "
           "query alone. In percent; the gain is the difference of the two, in points.")
INTERVAL = re.compile(r"([\d.]+) to ([\d.]+)|± ([\d.]+)")


def write(book: Path, names: dict[str, str], records: dict[str, list[RunRecord]]) -> list[Path]:
    """`_generated/overview_<samples|demos>.md` and their figures."""
    generated, written = book / "_generated", []
    for kind, (table_of, told) in KINDS.items():
        runs = headlines({name: table_of(records.get(name, [])) for name in names})
        files, shown = _figure(generated, f"overview_{kind}", runs, names, told, 8)
        text = f"{shown}\n{CAPTION}\n\n{markdown(runs, names)}" if files else shown
        written += [*files, paths.write_atomic(generated / f"overview_{kind}.md", text)]
    return written


def _figure(generated: Path, name: str, runs: pd.DataFrame, names: dict[str, str], told: str,
            width: float) -> tuple[list[Path], str]:
    if runs.empty:
        return [], f"No run on {told} yet.\n"
    return figures.pair(generated, name, lambda: dots(runs, names, width), alt(runs, names, told))


def headlines(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a run, columns `COLUMNS`: its first number in the common convention of its task, the
    best floor, the model that the record names first and the difference of the two."""
    rows = []
    for own in tables.values():
        shown = own[[COMMON.get(c) == m for c, m in zip(own.convention, own.metric, strict=True)]]
        rows += [_headline(row.dropna())
                 for _, row in shown.drop_duplicates(["experiment", "device", "run"]).iterrows()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _headline(row: pd.Series) -> dict:
    values = row.iloc[list(row.index).index("convention") + 1:list(row.index).index("interval")]
    floors = {k: float(v) for k, v in values.items() if k in FLOORS}
    models = {k: float(v) for k, v in values.items() if k not in FLOORS}
    # value and interval are of one model
    model = row.interval_of or next(iter(models), "")
    trained = models.get(model, float("nan"))
    best = max(floors, key=floors.get, default="")
    low, high = _ends(row.interval, trained)
    return {"paper": row.paper, "run": row.run, "dataset": f"{row.dataset} {row.split}",
            "metric": f"{row.metric} ({row.convention})",
            "chance": floors.get("chance"), "floor": floors.get(best), "floor_name": best,
            "model": model, "trained": trained, "low": low, "high": high,
            "gain": trained - floors[best] if floors else None}


def _ends(interval: str, value: float) -> tuple[float | None, float | None]:
    found = INTERVAL.search(interval)
    if not found:
        return None, None
    low, high, spread = found.groups()
    return ((float(low), float(high)) if low
            else (value - float(spread), value + float(spread)))


def markdown(runs: pd.DataFrame, names: dict[str, str]) -> str:
    """The runs as one table; what each is compared with is named."""
    lines = [[names[r.paper], r.run, f"{r.dataset}, {r.metric}", _points(r.chance),
              f"{_points(r.floor)} ({r.floor_name})" if r.floor_name else "",
              _points(r.trained) + (f" ({r.low:.1f} to {r.high:.1f})" if pd.notna(r.low) else ""),
              signed(r.gain) if pd.notna(r.gain) else ""] for r in runs.itertuples()]
    heads = ["paper", "run", "data set, metric", "chance", "best floor", "model (interval)",
             "gain"]
    return table(heads, lines, numbers=(3, 4, 5, 6))


def alt(runs: pd.DataFrame, names: dict[str, str], told: str) -> str:
    """What a reader who does not see the figure would miss."""
    parts = [f"{names[r.paper]} {_title(r.run)} {r.trained:.1f}"
             + (f" against {r.floor:.1f} ({r.floor_name})" if r.floor_name else "")
             for r in runs.itertuples()]
    return f"Dot plot of the runs on {told}. {'; '.join(parts)}."


def dots(runs: pd.DataFrame, names: dict[str, str], width: float) -> Figure:
    """`width` inches wide; a panel a metric, a line a run: chance, the best floor, the model and
    its interval."""
    metrics = list(dict.fromkeys(runs.metric))
    sizes = [(runs.metric == metric).sum() for metric in metrics]
    height = 0.6 + 0.4 * sum(sizes) + 1.05 * len(metrics)
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)
    axes = figure.subplots(len(metrics), squeeze=False, height_ratios=[n + 0.8 for n in sizes])
    for panel, metric in zip(axes[:, 0], metrics, strict=True):
        _panel(panel, runs[runs.metric == metric], names)
        panel.set_title(metric.replace("_", " "), loc="left")
        panel.set_xlabel("percent")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    return figure


def _panel(panel, runs: pd.DataFrame, names: dict[str, str]) -> None:
    places = range(len(runs))
    panel.scatter(runs.chance, places, marker="|", s=120, color="C7", label="chance", zorder=2)
    panel.scatter(runs.floor, places, marker="D", s=42, facecolors="none", edgecolors="C1",
                  linewidths=1.6, label="best floor", zorder=3)
    ends = [(runs.trained - runs.low).clip(lower=0), (runs.high - runs.trained).clip(lower=0)]
    panel.errorbar(runs.trained, places, xerr=ends, fmt="o", color="C0", capsize=3,
                   label="model", zorder=4)
    labels = [fill(f"{names[r.paper]}, {_title(r.run)}", 26) for r in runs.itertuples()]
    panel.set_yticks(places, labels)
    panel.set(ylim=(len(runs) - 0.4, -0.6), xlim=(0, None))
    panel.grid(axis="y", visible=False)
    panel.margins(x=0.08)


def _title(run: str) -> str:
    """A link's words, else the record's name."""
    found = re.match(r"\[([^\]]+)\]", run)
    return found[1] if found else Path(run.strip("`")).stem


def _points(value: float | None) -> str:
    return "" if pd.isna(value) else f"{value:.1f}"
