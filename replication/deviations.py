"""Where a paper and the public codes part, and what that does to the number.

An effect is a difference between two rows of a kept list of runs side by side
(`book/<paper>/records/<list>.csv`), or between two of its columns. Never imports torch.
"""

import json
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, model_validator

from replication import paths
from replication.records import InvalidFile, RunRecord, Strict, read_record

# The convention that every record of a task holds, and its first metric: the columns of runs side
# by side.
COMMON = {"trec": "mAP@all", "image_text": "mean_R@1", "cirr": "Avg", "fashioniq": "average Avg"}
AFTER = {"selection", "gallery"}  # parameters that are looked at when the weights stand
PLACES = {"save", "save_root", "checkpoint_path"}


class Measured(Strict):
    """Two sides of a kept list: `row` and `column` against `against` and `against_column`.

    against: the list's first row where it is empty. column: the common convention's where it is
    empty; against_column: the same column. note: what else the row turns, or stands in for.
    """

    list: str
    row: str
    against: str = ""
    column: str = ""
    against_column: str = ""
    note: str = ""


class Recorded(Strict):
    """Two readings of one kept record, of one seed and without a spread: another selection of the
    epoch, or another protocol."""

    record: str
    metric: str
    convention: str
    variant: str = "trained"
    selection: str = ""
    against_selection: str = ""
    protocol: str = ""
    against_protocol: str = ""


class Deviation(Strict):
    """A place where the paper and the public codes part, the parameter that switches it, and what
    it does: `measured` over seeds or `recorded` in one run, or the `reason` why not, with the
    `test` that shows it where one does.

    here: Python names in this project; there: files of the public code. Both several, by commas.
    """

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    what: str
    paper: str = ""
    authors_code: str = ""
    reimplementation: str = ""
    switch: str = ""
    default: Any = None
    here: str = Field(min_length=1)
    there: str = ""
    measured: list[Measured] = []
    recorded: list[Recorded] = []
    reason: str = ""
    test: str = ""

    @model_validator(mode="after")
    def measured_or_reason(self) -> "Deviation":
        if bool(self.measured or self.recorded) == bool(self.reason):
            raise ValueError(f"deviation {self.id} needs one of measured and reason, not "
                             + ("both" if self.reason else "neither"))
        return self

    @property
    def names(self) -> list[str]:
        """The Python names of `here`."""
        return [name.strip() for name in self.here.split(",") if name.strip()]


@dataclass(frozen=True)
class Effect:
    """A difference in points: mean and spread over seeds. `paired`: both sides are of one training,
    seed by seed, and the spread is of the differences; else of the two sides together."""

    measured: Measured
    column: str
    against_column: str
    against: str
    mean: float
    spread: float
    seeds: int
    paired: bool
    data: str

    @property
    def none(self) -> bool:
        """Whether the difference is within the spread."""
        return abs(self.mean) <= self.spread


def effect(folder: Path, measured: Measured) -> Effect:
    """What a row of a kept list says. Raises InvalidFile for an absent list, row or column, for
    other seeds on the two sides, and where both sides are one."""
    file = folder / "records" / f"{measured.list}.csv"
    runs = _runs(file)
    column = measured.column or main_column(runs, file)
    other = measured.against_column or column
    against = measured.against or (measured.row if measured.against_column else runs.turned.iloc[0])
    if (measured.row, column) == (against, other):
        raise InvalidFile(f"{paths.shown(file)}: {measured.row!r} is set against itself")
    ours, theirs = (_side(runs, file, row, name)
                    for row, name in ((measured.row, column), (against, other)))
    if list(ours.index) != list(theirs.index):
        raise InvalidFile(f"{paths.shown(file)}: {measured.row!r} and {against!r} have other seeds")
    paired = _one_training(runs, measured.row, against)
    spread = (ours - theirs).std() if paired else (ours.var() + theirs.var()) ** 0.5
    first = runs.iloc[0]
    return Effect(measured, column, other, against, float((ours - theirs).mean()), float(spread),
                  len(ours), paired, f"{first.dataset} {first.split}")


def recorded_difference(folder: Path, recorded: Recorded) -> tuple[float, RunRecord]:
    """(points, the record that they are of). Raises InvalidFile for an absent record or row, and
    where both sides are one."""
    file = folder / "records" / f"{recorded.record}.json"
    if not file.is_file():
        raise InvalidFile(f"{paths.shown(file)} does not exist")
    record = read_record(file)
    sides = [(recorded.selection, recorded.protocol),
             (recorded.against_selection or recorded.selection, recorded.against_protocol)]
    if sides[0] == sides[1]:
        raise InvalidFile(f"{paths.shown(file)}: {sides[0]} is set against itself")
    values = {(m.selection, m.protocol): m.value for m in record.metrics
              if (m.metric, m.convention, m.variant) == (recorded.metric, recorded.convention,
                                                         recorded.variant)}
    if absent := [side for side in sides if side not in values]:
        raise InvalidFile(f"{paths.shown(file)} has no row {recorded.variant} {absent[0]} of "
                          f"{recorded.metric} ({recorded.convention})")
    return values[sides[0]] - values[sides[1]], record


def main_column(runs: pd.DataFrame, file: Path) -> str:
    """The column that a list is told in. Raises InvalidFile for a list without one."""
    columns = [f"{metric} {convention}" for convention, metric in COMMON.items()]
    found = next((name for name in columns if name in runs.columns), None)
    if found is None:
        raise InvalidFile(f"{paths.shown(file)} has no column {' or '.join(columns)}")
    return found


def problems(folder: Path, deviations: list[Deviation]) -> list[str]:
    """What the measurements name and the lists lack."""
    found = []
    for deviation in deviations:
        reads = [partial(effect, folder, m) for m in deviation.measured]
        for read in reads + [partial(recorded_difference, folder, r) for r in deviation.recorded]:
            try:
                read()
            except InvalidFile as error:
                found.append(f"deviation {deviation.id}: {error}")
    return found


def _side(runs: pd.DataFrame, file: Path, row: str, column: str) -> pd.Series:
    if column not in runs.columns:
        raise InvalidFile(f"{paths.shown(file)} has no column {column!r}")
    chosen = runs[runs.turned == row].set_index("seed")[column].dropna().sort_index()
    if chosen.empty:
        raise InvalidFile(f"{paths.shown(file)} has no row {row!r}")
    return chosen


def _one_training(runs: pd.DataFrame, *rows: str) -> bool:
    """Whether the rows' parameters part in nothing but what is looked at after training."""
    first, second = (json.loads(runs[runs.turned == row].parameters.iloc[0]) for row in rows)
    return {k for k in {*first, *second} if first.get(k) != second.get(k)} <= AFTER | PLACES


@cache
def _read(file: Path, changed: int) -> pd.DataFrame:
    return pd.read_csv(file)


def _runs(file: Path) -> pd.DataFrame:
    if not file.is_file():
        raise InvalidFile(f"{paths.shown(file)} does not exist")
    return _read(file, file.stat().st_mtime_ns)
