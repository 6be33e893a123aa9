"""One choice turned at a time, everything else alike, over several seeds: what a deviation does.

Each run is kept in a folder of its own with its record, and `runs.csv` lists them all, so that a
table row can be looked up.
"""

import json
import re
from types import ModuleType

import pandas as pd

from replication import paths, records, sketch_experiment
from replication.metrics import COMMON
from replication.progress import bar
from replication.published import FREE_PARAMETERS
from replication.records import RunRecord

RUNS = "runs.csv"
BASE = "as released"
MAP = ("mAP@all", COMMON.name)


def chosen(switches: dict[str, dict], only: str) -> dict[str, dict]:
    """The switches named in `only` (separated by commas), all of them for none.

    Raises ValueError for another name.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = sorted(set(names) - set(switches))
    if unknown:
        raise ValueError(f"no switch {', '.join(unknown)}; there are: {', '.join(switches)}")
    return {name: values for name, values in switches.items() if not names or name in names}


def run_all(paper: ModuleType, given: dict, switches: dict[str, dict], n_seeds: int
            ) -> pd.DataFrame:
    """Trains each choice with each seed; one row a choice, the unturned one first.

    Every run is a line of `runs.csv` in `save_root` (`save` or `checkpoint_path`, where a paper
    calls it so). Columns: mean and spread over seeds, the difference to the unturned choice, the
    seeds' values; of mAP@all on the unseen classes (common convention), or of the paper's
    SWITCH_METRIC, at the last epoch, in percent. The unturned choice is called `as released`, or
    as the paper's SWITCH_BASE says.
    """
    base = getattr(paper, "SWITCH_BASE", BASE)
    runs, seeds = {base: {}, **switches}, range(42, 42 + n_seeds)
    jobs = [(name, seed) for name in runs for seed in seeds]
    values: dict[str, list[float]] = {name: [] for name in runs}
    rows = []
    for name, seed in bar(jobs, label="runs", unit="run"):
        made = _run(paper, {**given, **runs[name], "seed": seed}, name, seed)
        rows.append(row(name, made))
        values[name].append(_value(made, *getattr(paper, "SWITCH_METRIC", MAP)))
        listed = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
        paths.write_atomic(paths.user_path(given[_folder_of(given)]) / RUNS, listed)
    table = pd.DataFrame({name: {"mean": pd.Series(v).mean(), "spread": pd.Series(v).std(ddof=1)}
                          for name, v in values.items()}).T
    table["difference"] = table["mean"] - table.loc[base, "mean"]
    table["seeds"] = [", ".join(f"{v:.1f}" for v in values[name]) for name in table.index]
    return table.round({"mean": 1, "spread": 1, "difference": 1}).rename_axis("turned")


def _run(paper: ModuleType, given: dict, name: str, seed: int) -> RunRecord:
    where, started = _folder_of(given), records.utc_now()
    folder = f"{given[where]}/{re.sub('[ /:,]+', '-', name)}-{seed}"
    config = paper.Config(**{**given, where: folder, "selection": "last"})
    e = paper.prepare(config)
    run = paper.train(e, progress=False, select=False)
    results = getattr(paper, "measure_last", sketch_experiment.measure_last)(e)
    record = getattr(paper, "record", sketch_experiment.record)
    return record(e, run, *results, started, 0.0)


def _folder_of(given: dict) -> str:
    return next(name for name in ("save_root", "checkpoint_path", "save") if name in given)


def _value(made: RunRecord, metric: str, convention: str) -> float:
    return next(m.value for m in made.metrics
                if (m.metric, m.convention) == (metric, convention))


def row(name: str, made: RunRecord) -> dict:
    """One run in a line: what was turned, what came out, where and with what."""
    found = {f"{m.metric} {m.convention}{m.variant.removeprefix('trained')}": m.value
             for m in made.metrics}
    machine, turned = made.environment, {k: made.parameters[k] for k in sorted(made.parameters)
                                         if k not in FREE_PARAMETERS}
    return {"turned": name, "seed": made.seed, **found, "dataset": made.dataset.name,
            "split": made.dataset.split, "manifest": made.dataset.manifest,
            "n_query": made.dataset.n_query, "n_gallery": made.dataset.n_gallery,
            "weights_sha256": made.weights.sha256, "seconds_train": made.cost.seconds_train,
            "commit": made.code.commit, "clean": made.code.clean, "torch": machine.torch,
            "device": machine.device, "finished": made.finished,
            "parameters": json.dumps(turned)}
