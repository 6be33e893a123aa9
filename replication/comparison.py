"""Published cells x run records -> tables, with a computed status. Never imports torch.

Only records on a whole published test set stand beside published numbers; runs on the built-in
dataset or on a subset have tables of their own.
"""

import json
from statistics import mean, stdev
from typing import Any

import pandas as pd

from replication import paths
from replication.published import FREE_PARAMETERS, Cell, Experiment, Paper
from replication.records import Metric, RunRecord, read_records

STATUSES = ("matched", "higher", "lower", "not comparable", "not run")
"""What can become of a published number."""
COLUMNS = ["id", "quoted", "table", "method", "variant", "dataset", "split", "protocol",
           "metric", "convention", "published", "reproduced", "spread", "seeds", "difference",
           "tolerance", "status", "reason", "counts", "run"]
_OWN = ["paper", "experiment", "dataset", "split", "protocol", "metric", "convention"]
_TAIL = ["interval", "interval_of", "seeds", "counts", "device", "run"]
SELECTIONS = ["unseen", "seen", "test", "dev", "val", "last"]
# What a model must beat.
FLOORS = ["chance", "pixels", "untrained sa", "untrained", "image-only", "text-only", "sum",
          "zero-shot"]
VARIANTS = [*FLOORS, "trained"]


def comparison(paper: Paper, records: list[RunRecord]) -> pd.DataFrame:
    """One row a published cell: the number, what came out, and how they relate.

    Status: `matched` (within the tolerance), `higher`, `lower`, `not comparable` (reason in
    words), `not run` (reason, and the command where there is one). `quoted` marks another
    method's number: none of this project's experiments aims at it. Where several aim at one cell,
    the first with a comparable run answers it; their runs are no seeds of each other.
    """
    full = [_named(paper, r) for r in records
            if r.paper == paper.name and r.dataset.kind == "full"]
    rows = [_cell_row(paper, cell, full) for cell in paper.cells]
    return pd.DataFrame(rows, columns=COLUMNS)


def demo_table(records: list[RunRecord]) -> pd.DataFrame:
    """Runs on the built-in dataset: chance, pixels, untrained and trained side by side.

    `interval` is that of the column which `interval_of` names.
    """
    return _own_table(records, "demo")


def subset_table(records: list[RunRecord]) -> pd.DataFrame:
    """Runs on a part of a real dataset, with the same columns as `demo_table`."""
    return _own_table(records, "subset")


def mismatches(paper: Paper, cell: Cell, experiment: Experiment, record: RunRecord) -> list[str]:
    """In words, every way in which a record measured something else than a published cell."""
    data = record.dataset
    found = [("dataset", paper.aliases.get(data.name, data.name), cell.dataset),
             ("split", data.split, cell.split)]
    protocols = {m.protocol or record.protocol for m in record.metrics}
    if cell.protocol not in protocols:
        found.append(("protocol", ", ".join(sorted(protocols)), cell.protocol))
    expected = paper.sets.get(cell.dataset, {}).get(cell.split)
    if expected and data.split == cell.split:
        found += [(name, getattr(data, name), count)
                  for name in ("n_query", "n_gallery", "n_classes")
                  if (count := getattr(expected, name)) is not None]
    found += [(f"parameter {name}", ours, theirs)
              for name, ours, theirs in _parameters(paper, experiment, record)]
    return [f"{name} is {_text(ours)}, published {_text(theirs)}"
            for name, ours, theirs in found if ours != theirs]


def _parameters(paper: Paper, experiment: Experiment, record: RunRecord
                ) -> list[tuple[str, Any, Any]]:
    """(name, a record's value, the experiment's) of each parameter that says what is measured."""
    free = FREE_PARAMETERS.union(experiment.free)
    return [(name, record.parameters[name], value)
            for name, value in sorted(paper.parameters(experiment).items())
            if name not in free and name in record.parameters]


def _named(paper: Paper, record: RunRecord) -> RunRecord:
    """The record under the name of the experiment whose parameters it ran with, where a notebook
    that papermill ran alone could not know it."""
    if record.experiment in {e.name for e in paper.experiments}:
        return record
    alike = [e.name for e in paper.experiments if e.targets
             and set(paper.parameters(e)) <= set(record.parameters)
             and all(ours == theirs for _, ours, theirs in _parameters(paper, e, record))]
    return record.model_copy(update={"experiment": alike[0]}) if alike else record


def latest(records: list[RunRecord]) -> list[RunRecord]:
    """The last finished record of each experiment and seed, ordered by both."""
    by_key = {(r.experiment, r.seed): r for r in sorted(records, key=lambda r: r.finished)}
    return [by_key[key] for key in sorted(by_key)]


def records_of(paper: str, book=None, kept_only: bool = False) -> list[RunRecord]:
    """A paper's records: kept ones (`records/`, committed) and this machine's (`runs/`)."""
    folder = (book or paths.BOOK) / paper
    kept = read_records(folder / "records")
    return kept if kept_only else read_records(folder / "runs") + kept


def counts_text(record: RunRecord, metric: Metric | None = None) -> str:
    """`12,694 sketches x 12,553 photos, 21 classes`, or `5,000 images x 25,000 captions` where the
    record names them and has no classes; how many of the gallery differ, where some are repeated.

    metric: one with queries or a gallery of its own, as one type of FashionIQ and the generalised
    setting have.
    """
    d, of, unique = record.dataset, "classes", ""
    n_query, n_gallery = d.n_query, d.n_gallery
    if metric is not None and metric.n_query is not None:
        n_query = metric.n_query
    if metric is not None and metric.n_gallery is not None:
        n_gallery, of = metric.n_gallery, "query classes"
    elif d.n_gallery_unique != d.n_gallery:
        unique = f" ({d.n_gallery_unique:,} {'different' if d.gallery else 'unique'})"
    sides = [f"{n_query:,} {d.query or 'sketches'}", f"{n_gallery:,} {d.gallery or 'photos'}"]
    classes = "" if d.n_classes is None else f", {d.n_classes} {of}"
    return f"{' x '.join(sides)}{unique}{classes}"


def _cell_row(paper: Paper, cell: Cell, records: list[RunRecord]) -> dict:
    shown = {"published": str(cell.value), "seeds": 0, "reason": "", "counts": "", "run": ""}
    row = cell.model_dump(include=set(COLUMNS) - {"reason"}) | shown
    aiming = {e.name: e for e in paper.experiments if cell.id in e.targets}
    row["quoted"] = not aiming and not cell.reason
    if tolerance := paper.tolerance(cell) if aiming else None:
        row["tolerance"] = tolerance.points
    there = [r for r in records if r.experiment in aiming]
    runs = latest([r for r in there if not _other_models(cell, r)])
    if not runs:
        return row | _not_run(paper, cell, list(aiming.values()), latest(there))
    judged = {name: [(r, *_judged(paper, cell, experiment, r)) for r in runs
                     if r.experiment == name] for name, experiment in aiming.items()}
    good = next(filter(None, ([(r, rows) for r, rows, why in own if not why]
                              for own in judged.values())), None)
    if good is None:
        record, rows, why = next(filter(None, judged.values()))[-1]
        return row | _seen([(record, rows)]) | {"status": "not comparable",
                                                "reason": "; ".join(why)}
    values = [mean(m.value for m in rows) for _, rows in good]
    return row | _seen(good) | _measured(cell, tolerance.points, values)


def _other_models(cell: Cell, record: RunRecord) -> list[str]:
    """The models of a record that holds several side by side, and not the one a cell is about;
    empty where it does, and for a record of one trained network, whatever rankings that lacks."""
    held = list(dict.fromkeys(m.variant for m in record.metrics))
    network = any(v == "" or v.startswith("trained") for v in held)
    if network or cell.ranking in ("trained", *held):
        return []
    return [v for v in held if v not in FLOORS] or held


def _not_run(paper: Paper, cell: Cell, aiming: list[Experiment], runs: list[RunRecord]) -> dict:
    """runs: those that there are, of other models."""
    if not aiming:
        return {"status": "not run", "reason": cell.reason or "another method, as published"}
    e = aiming[0]
    models = dict.fromkeys(model for r in runs for model in _other_models(cell, r))
    held = f"the run held {', '.join(models)}; " if models else ""
    needs = f"needs {e.requires}; " if e.requires else ""
    return {"status": "not run",
            "reason": f"{held}{needs}command: `python -m replication run {paper.name}/{e.name}`"}


def _judged(paper, cell, experiment, record) -> tuple[list[Metric], list[str]]:
    """The record's rows for a cell, and the reasons why they do not answer it."""
    why = mismatches(paper, cell, experiment, record)
    selections = [cell.selection] if cell.selection else ["", "last"]
    rows = [m for m in record.metrics
            if m.metric == cell.metric and m.variant in ("", cell.ranking)
            and (m.protocol or record.protocol) == cell.protocol
            and m.selection in selections and cell.convention in ("", m.convention)]
    fitting = [m for m in rows if m.unit == cell.unit]
    if not fitting:
        of = "/".join(filter(None, [cell.metric, cell.convention, cell.selection]))
        return rows, [*why, f"unit is {rows[0].unit}, published {cell.unit}" if rows
                      else f"the record has no {of}"]
    values = [m.value for m in fitting]
    if max(values) - min(values) > paper.tolerance(cell).points:
        why.append(f"the source does not define {cell.metric}; by definition the run gives "
                   f"{min(values):.1f} to {max(values):.1f}")
    return fitting, why


def _measured(cell: Cell, tolerance: float, values: list[float]) -> dict:
    difference = mean(values) - float(cell.value)
    inside = abs(difference) <= tolerance + 1e-9
    return {"reproduced": mean(values), "seeds": len(values), "difference": difference,
            "spread": stdev(values) if len(values) > 1 else None,
            "status": "matched" if inside else "higher" if difference > 0 else "lower"}


def _seen(found: list[tuple[RunRecord, list[Metric]]]) -> dict:
    """What was counted and which runs, of records and their rows that are shown."""
    counts = [counts_text(record, metric) for record, rows in found for metric in rows or [None]]
    return {"counts": "; ".join(dict.fromkeys(counts)),
            "run": ", ".join(run_link(record) for record, _ in found)}


def run_link(record: RunRecord) -> str:
    """A link to the run's notebook where it is a page of the book, else the record's name.

    The link counts from the book's folder, so that any page can include it.
    """
    if record.path is None:
        return record.experiment
    notebook = record.path.with_suffix(".ipynb")
    page = f"{record.paper}/{record.path.parent.name}/{notebook.stem}"
    toc = record.path.parents[2] / "_toc.yml"
    listed = toc.exists() and f"file: {page}\n" in toc.read_text()
    if notebook.exists() and listed:
        return f"[{record.path.stem}](/{page}.ipynb)"
    return f"`{record.path.parent.name}/{record.path.name}`"


def _own_table(records: list[RunRecord], kind: str) -> pd.DataFrame:
    groups: dict[tuple, list[RunRecord]] = {}
    for record in sorted(records, key=lambda r: (r.paper, r.experiment, r.seed, r.finished)):
        if record.dataset.kind == kind:
            groups.setdefault(_group(record), []).append(record)
    rows = [row for _, group in sorted(groups.items()) for row in _group_rows(group)]
    given = {name for row in rows for name in row if name not in _OWN and name not in _TAIL}
    variants = [v for v in VARIANTS if v in given]
    extra = sorted(given - set(variants), key=_column_place)
    return pd.DataFrame(rows, columns=_OWN + variants + extra + _TAIL)


def _column_place(name: str) -> tuple:
    """Trained ones first, in the order of SELECTIONS, then whatever else there is."""
    selection = name.partition("(")[2].rstrip(")")
    place = SELECTIONS.index(selection) if selection in SELECTIONS else len(SELECTIONS)
    return (not name.startswith("trained"), place, name)


def _group(record: RunRecord) -> tuple[str, ...]:
    """Runs that differ in their seed only are one group."""
    fixed = {k: v for k, v in record.parameters.items() if k not in FREE_PARAMETERS}
    return (record.paper, record.experiment, record.protocol, record.environment.device,
            record.dataset.model_dump_json(), json.dumps(fixed, sort_keys=True))


def _group_rows(group: list[RunRecord]) -> list[dict]:
    group = latest(group)
    first = group[0]
    head = {"paper": first.paper, "experiment": first.experiment, "dataset": first.dataset.name,
            "split": first.dataset.split}
    tail = _seen([(r, []) for r in group]) | {"device": _device(first), "seeds": len(group)}
    rows: dict[tuple, dict] = {}
    columns: dict[tuple, dict[str, list[Metric]]] = {}
    for key, found in _by_metric(group).items():
        *place, column = key
        names = dict(zip(("protocol", "metric", "convention"), place, strict=True))
        row = rows.setdefault(tuple(place), head | names | tail)
        row[column] = mean(m.value for m in found)
        row["counts"] = counts_text(first, found[0])
        columns.setdefault(tuple(place), {})[column] = found
    return [row | _row_interval(columns[place]) for place, row in rows.items()]


def _row_interval(columns: dict[str, list[Metric]]) -> dict[str, str]:
    """The interval of the record's first trained ranking, else of its one model that is no floor,
    and which column that is; empty where there are several such models."""
    models = {name: found for name, found in columns.items() if found[0].variant not in FLOORS}
    trained = [name for name, found in models.items()
               if not found[0].variant or found[0].variant.startswith("trained")]
    one = len({found[0].variant for found in models.values()}) == 1
    name = next(iter(trained or (models if one else [])), "")
    return {"interval": _interval(columns[name]) if name else "", "interval_of": name}


def _device(record: RunRecord) -> str:
    """The accelerator's name; a processor's with its cores."""
    machine = record.environment
    cores = f"{machine.cpu}, {machine.cpu_count} cores" if machine.cpu else "cpu"
    return cores if machine.device in ("", "cpu") else machine.device


def _by_metric(group: list[RunRecord]) -> dict[tuple[str, ...], list[Metric]]:
    """Metrics of all seeds by protocol, metric, convention and column of the table."""
    found: dict[tuple[str, ...], list[Metric]] = {}
    for record, metric in ((r, m) for r in group for m in r.metrics):
        column = metric.variant or "result"
        column += f" ({metric.selection})" if metric.selection else ""
        key = (metric.protocol or record.protocol, metric.metric, metric.convention, column)
        found.setdefault(key, []).append(metric)
    return found


def _interval(found: list[Metric]) -> str:
    """Spread over seeds, or one run's 95 % interval."""
    if len(found) > 1:
        return f"± {stdev(m.value for m in found):.1f} over seeds"
    low, high = found[0].low, found[0].high
    return "" if low is None or high is None else f"{low:.1f} to {high:.1f}"


def _text(value) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
