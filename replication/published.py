"""Reads book/<paper>/paper.yml: what was published, and which experiments aim at it.

Never imports torch.
"""

from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, PrivateAttr, ValidationError, model_validator

from replication import deviations as parted
from replication import paths
from replication.deviations import Deviation
from replication.records import Count, InvalidFile, Strict, described

SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# They say where and how fast a run goes, not what is measured.
FREE_PARAMETERS = frozenset({
    "seed", "data_root", "save_root", "cache_root", "device", "devices", "num_workers", "workers",
    "weights_path", "checkpoint", "progress", "chunk_size", "compile", "channels_last",
    "accelerator", "precision"})
"""Parameters that say where and how fast a run goes, not what is measured."""


class OfficialCode(Strict):
    """A public code of a paper; `commit` is the one that was read."""

    name: str
    url: str
    commit: str = ""
    licence: str = ""


class Cell(Strict):
    """One published number, as printed.

    `convention` stays empty where the source does not define the metric; `ranking` is which of a
    run's rankings answers the number, a metric row's `variant`; `reason` says why no experiment
    aims at the number.
    """

    id: str
    table: str
    method: str
    variant: str = ""
    dataset: str
    split: str
    protocol: str
    metric: str
    convention: str = ""
    selection: str = ""
    ranking: str = "trained"
    value: Decimal
    unit: str = "percent"
    grade: str
    source: str
    note: str = ""
    reason: str = ""


class Experiment(Strict):
    """One run that a person can ask for by name.

    `targets` are ids of published cells, `requires` says in words what a run needs beyond this
    repository, `tiny` holds the overrides of the smallest size.
    """

    name: str
    notebook: str
    title: str = ""
    parameters: dict[str, Any] = {}
    parameters_file: str = ""
    demo: bool = False
    tiny: dict[str, Any] = {}
    needs: list[str] = []
    targets: list[str] = []
    requires: str = ""
    time: str = ""
    record: bool = True
    free: list[str] = []


class Tolerance(Strict):
    """By how many points a reproduced number may differ, fixed before any run, and why."""

    points: float = Field(ge=0)
    reason: str


class TestSet(Strict):
    """Expected counts of a published test set; null where no source states them."""

    n_query: Count | None = None
    n_gallery: Count | None = None
    n_classes: Count | None = None
    source: str = ""


class Paper(Strict):
    """What one paper.yml says. `method` is the name by which the field knows what it replicates."""

    title: str
    method: str = ""
    citation: str = ""
    official_code: list[OfficialCode] = []
    sources: dict[str, str] = {}
    aliases: dict[str, str] = {}
    sets: dict[str, dict[str, TestSet]] = {}
    tolerances: dict[str, Tolerance] = {}
    deviations: list[Deviation] = []
    experiments: list[Experiment]
    cells: list[Cell] = []
    _path: Path = PrivateAttr(Path("paper.yml"))

    @property
    def folder(self) -> Path:
        """The paper's folder in the book."""
        return self._path.parent

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def known_as(self) -> str:
        """What the book calls it: the method's name, else the folder's."""
        return self.method or self.name

    @model_validator(mode="after")
    def names_are_unique(self) -> "Paper":
        for what, names in (("cell id", [c.id for c in self.cells]),
                            ("deviation", [d.id for d in self.deviations]),
                            ("experiment", [e.name for e in self.experiments])):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{what} given twice: {', '.join(twice)}")
        return self

    @model_validator(mode="after")
    def targets_exist(self) -> "Paper":
        known = {c.id: c for c in self.cells}
        for experiment in self.experiments:
            missing = [t for t in experiment.targets if t not in known]
            if missing:
                raise ValueError(f"experiment {experiment.name} targets no such cell: "
                                 + ", ".join(missing))
            bare = sorted({_key(known[t]) for t in experiment.targets
                           if self.tolerance(known[t]) is None})
            if bare:
                raise ValueError(f"tolerances lack {', '.join(bare)}, which experiment "
                                 f"{experiment.name} targets")
        return self

    def tolerance(self, cell: Cell) -> Tolerance | None:
        """The tolerance of the cell's protocol, of `metric/convention` or of `metric`, the first
        that there is; fixed before a run."""
        keys = (cell.protocol, _key(cell), cell.metric)
        return next((self.tolerances[k] for k in keys if k in self.tolerances), None)

    def experiment(self, name: str) -> Experiment:
        """The experiment of that name; KeyError lists the names there are."""
        for experiment in self.experiments:
            if experiment.name == name:
                return experiment
        raise KeyError(f"{self.name} has no experiment {name}; it has: "
                       + ", ".join(e.name for e in self.experiments))

    def parameters(self, experiment: Experiment) -> dict[str, Any]:
        """An experiment's parameters: its file's, then its own."""
        values = {}
        if experiment.parameters_file:
            values = read_parameters(self.folder / experiment.parameters_file)
        return values | experiment.parameters


def read_paper(path: str | Path) -> Paper:
    """Reads a paper.yml; InvalidFile names the file and every wrong field."""
    path = Path(path)
    shown = paths.shown(path)
    try:
        paper = Paper.model_validate(_yaml(path))
    except ValidationError as error:
        raise InvalidFile(described(error, shown)) from None
    paper._path = path
    return paper


def read_papers(book: str | Path | None = None) -> dict[str, Paper]:
    """Every paper of the book by the name of its folder."""
    found = sorted(Path(book or paths.BOOK).glob("*/paper.yml"))
    return {path.parent.name: read_paper(path) for path in found}


def read_parameters(path: str | Path) -> dict[str, Any]:
    """A papermill parameter file: a mapping of names to values."""
    values = _yaml(Path(path))
    if not isinstance(values, dict):
        raise InvalidFile(f"{paths.shown(path)}: not a mapping of parameter names to values")
    return values


def check_paper(paper: Paper, papers: dict[str, Paper] | None = None) -> list[str]:
    """What a paper.yml names and the disk lacks: notebooks, parameter files, experiments, rows of
    kept lists."""
    problems = []
    papers = papers if papers is not None else read_papers(paper.folder.parent)
    known = {f"{p.name}/{e.name}" for p in [*papers.values(), paper] for e in p.experiments}
    for e in paper.experiments:
        files = [("notebook", e.notebook), ("parameters_file", e.parameters_file)]
        problems += [f"{paper.name}/{e.name}: {field} {name} does not exist"
                     for field, name in files if name and not (paper.folder / name).is_file()]
        problems += [f"{paper.name}/{e.name}: needs {n}, which no paper.yml has"
                     for n in e.needs if n not in known]
    return problems + [f"{paper.name}: {problem}"
                       for problem in parted.problems(paper.folder, paper.deviations)]


def _key(cell: Cell) -> str:
    return f"{cell.metric}/{cell.convention}" if cell.convention else cell.metric


def _yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(), Loader=SafeLoader)
    except FileNotFoundError:
        raise InvalidFile(f"{paths.shown(path)} does not exist") from None
    except yaml.YAMLError as error:
        raise InvalidFile(f"{paths.shown(path)}: not YAML: {error}") from None
