"""One choice turned at a time, everything else alike, over several seeds: what a deviation does.

Each training is kept in a folder of its own with its record, and `runs.csv` lists every choice, so
that a table row can be looked up.
"""

import json
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pandas as pd

from replication import paths, records, sketch_experiment
from replication.metrics import COMMON
from replication.progress import bar
from replication.published import FREE_PARAMETERS
from replication.records import Metric, RunRecord

RUNS = "runs.csv"
BASE = "as released"
MAP = (("mAP@all", COMMON.name),)
AFTER = ("selection", "gallery")  # looked at when the weights stand: no other training


@dataclass(frozen=True)
class Times:
    """What a switch sets to a multiple of the run's own value, so that it fits every size."""

    factor: float


def chosen(switches: dict[str, dict], only: str, more: dict[str, dict] | None = None
           ) -> dict[str, dict]:
    """The switches named in `only` (separated by commas), all of them for none; `more` are turned
    only where they are named.

    Raises ValueError for another name.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = switches | (more or {})
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"no switch {', '.join(unknown)}; there are: {', '.join(known)}")
    return {name: values for name, values in known.items() if name in (names or switches)}


def run_all(paper: ModuleType, given: dict, switches: dict[str, dict], n_seeds: int
            ) -> pd.DataFrame:
    """Trains each choice with each seed; one row a choice, the unturned one first.

    Every run is a line of `runs.csv` in `save_root` (`save` or `checkpoint_path`, where a paper
    calls it so). Choices that part only after training (AFTER) share one. Columns: mean and spread
    over seeds, the difference to the unturned choice, the seeds' values; of mAP@all on the unseen
    classes (common convention), or of the paper's SWITCH_METRICS the first that its record has, in
    percent, at the last epoch unless `selection` is turned. The unturned choice is called
    `as released`, or as the paper's SWITCH_BASE says.
    """
    base = getattr(paper, "SWITCH_BASE", BASE)
    runs = {base: {}} | {name: resolved(turned, given, paper.Config)
                         for name, turned in switches.items()}
    seeds, shared = range(42, 42 + n_seeds), trainings(runs)
    jobs = [(name, seed) for name in runs for seed in seeds]
    values: dict[str, list[float]] = {name: [] for name in runs}
    rows = []
    for name, seed in bar(jobs, label="runs", unit="run"):
        select = any(runs[other].get("selection", "last") != "last"
                     for other in runs if shared[other] == shared[name])
        made = _run(paper, {**given, "selection": "last", **runs[name], "seed": seed},
                    f"{shared[name]}-{seed}", select)
        rows.append(row(name, made))
        values[name].append(_value(made, getattr(paper, "SWITCH_METRICS", MAP)))
        listed = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
        paths.write_atomic(paths.user_path(given[_folder_of(given)]) / RUNS, listed)
    table = pd.DataFrame({name: {"mean": pd.Series(v).mean(), "spread": pd.Series(v).std(ddof=1)}
                          for name, v in values.items()}).T
    table["difference"] = table["mean"] - table.loc[base, "mean"]
    table = table.round(1) + 0.0  # no minus before a zero
    table["value by seed"] = [", ".join(f"{v:.1f}" for v in values[name]) for name in table.index]
    return table.rename_axis("what was changed")


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as a page shows it: a dash where one seed has no spread."""
    return table.astype(object).where(table.notna(), "\u2013")


def resolved(turned: dict[str, Any], given: dict, config: type) -> dict[str, Any]:
    """A switch's values with every `Times` multiplied out: of what is given, else the default."""
    def value(name: str, asked: Any) -> Any:
        if not isinstance(asked, Times):
            return asked
        own = given.get(name, getattr(config, name, None))
        return type(own)(asked.factor * own)

    return {name: value(name, asked) for name, asked in turned.items()}


def trainings(runs: dict[str, dict]) -> dict[str, str]:
    """The first of the choices that train the same, for each choice."""
    first: dict[str, str] = {}
    keys = {name: json.dumps({k: v for k, v in turned.items() if k not in AFTER}, sort_keys=True)
            for name, turned in runs.items()}
    return {name: first.setdefault(key, name) for name, key in keys.items()}


def _run(paper: ModuleType, values: dict, name: str, select: bool) -> RunRecord:
    where, started = _folder_of(values), records.utc_now()
    folder = f"{values[where]}/{re.sub('[ /:,]+', '-', name)}"
    e = paper.prepare(paper.Config(**{**values, where: folder}))
    run = paper.train(e, progress=False, select=select)
    results = getattr(paper, "measure_selected", sketch_experiment.measure_selected)(e)
    record = getattr(paper, "record", sketch_experiment.record)
    return record(e, run, *results, started, 0.0)


def _folder_of(given: dict) -> str:
    return next(name for name in ("save_root", "checkpoint_path", "save") if name in given)


def _value(made: RunRecord, wanted: tuple[tuple[str, str], ...]) -> float:
    return next(m.value for m in made.metrics if (m.metric, m.convention) in wanted)


def row(name: str, made: RunRecord) -> dict:
    """One run in a line: what was turned, what came out, where and with what."""
    found = {_column(m, made.protocol): m.value for m in made.metrics}
    machine, turned = made.environment, {k: made.parameters[k] for k in sorted(made.parameters)
                                         if k not in FREE_PARAMETERS}
    return {"turned": name, "seed": made.seed, **found, "dataset": made.dataset.name,
            "split": made.dataset.split, "manifest": made.dataset.manifest,
            "n_query": made.dataset.n_query, "n_gallery": made.dataset.n_gallery,
            "weights_sha256": made.weights.sha256, "seconds_train": made.cost.seconds_train,
            "commit": made.code.commit, "clean": made.code.clean, "torch": machine.torch,
            "device": machine.device, "finished": made.finished,
            "parameters": json.dumps(turned)}


def _column(metric: Metric, protocol: str) -> str:
    """What `runs.csv` calls it: metric, convention, ranking and, where it is another one's than the
    record's, protocol."""
    ranking = metric.variant.removeprefix("trained").strip()
    other = metric.protocol if metric.protocol != protocol else ""
    return " ".join(filter(None, [metric.metric, metric.convention, ranking, other]))
