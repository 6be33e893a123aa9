"""Facts of an executed notebook, in words: from its stamp, its record or its list of runs.

Never imports torch.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from replication import notebooks, paths
from replication.check_pages import plain
from replication.comparison import counts_text
from replication.deviations import AFTER
from replication.published import Experiment, Paper
from replication.records import Code, Cost, RunRecord, read_record

LAB = "http://localhost:8888/lab/tree"  # where `make lab` serves the project
START_LAB = "start make lab first"
KINDS = {"demo": "demo, on the built-in doodles", "subset": "sample, on a part of the real set",
         "full": "full, on the whole published test set"}
UNNAMED = "CPU (model not recorded)"
FOLDERS = ("save_root", "checkpoint_path", "save")  # what papers call the folder of results
SETS = ("data_name", "dataset")
# Columns of a list that look like numbers at times.
WORDS = dict.fromkeys(("dataset", "split", "commit", "torch", "device"), str)


@dataclass(frozen=True)
class Run:
    """An executed notebook of the book, and what lies beside it."""

    notebook: Path
    paper: Paper
    experiment: Experiment | None
    record: RunRecord | None

    @cached_property
    def stamp(self) -> dict[str, Any]:
        return notebooks.stamp_of(self.notebook)

    @cached_property
    def explained(self) -> dict[str, tuple[Any, str]]:
        """Default and comment of each parameter."""
        return notebooks.explained_parameters(self.notebook)

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters' values where nobody gives another."""
        return {name: default for name, (default, _) in self.explained.items()}

    @cached_property
    def given(self) -> dict[str, Any]:
        """The parameters that were given a value other than their default."""
        given = self.stamp.get("parameters", {})
        return {k: v for k, v in given.items() if k not in self.defaults or self.defaults[k] != v}

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter as the run had it: a record knows what was drawn or filled in, too."""
        return self.defaults | self.given | (self.record.parameters if self.record else {})

    @cached_property
    def list_file(self) -> Path | None:
        """The list of a notebook that trains many: kept beside it, else in its folder of results
        (not when that is newer: then another run has begun to write it)."""
        folder = next((self.parameters[k] for k in FOLDERS if self.parameters.get(k)), "")
        beside, made = self.notebook.with_suffix(".csv"), paths.user_path(folder) / "runs.csv"
        if beside.is_file():
            return beside
        there = folder and made.is_file() and self.record is None
        newer = there and made.stat().st_mtime > self.notebook.stat().st_mtime
        return made if there and not newer else None

    @cached_property
    def rows(self) -> pd.DataFrame | None:
        """The list, a row a run."""
        return pd.read_csv(self.list_file, dtype=WORDS) if self.list_file else None

    @property
    def trainings(self) -> pd.DataFrame:
        """The list's rows of different trainings: one that was measured in several ways has
        several rows, one that was not trained has 0 seconds."""
        own = self.rows.assign(parameters=self.rows.parameters.map(_trained_with))
        once = own.drop_duplicates(["seed", "parameters", "seconds_train"])
        return once[once.seconds_train > 0]

    @property
    def source(self) -> Path | None:
        """The notebook that was run."""
        return self.paper.folder / self.experiment.notebook if self.experiment else None

    @property
    def kind(self) -> str:
        """A key of KINDS; of a notebook without a record only `demo` can be told, else empty."""
        if self.record:
            return self.record.dataset.kind
        return "demo" if self.set_name.startswith("doodles") else ""

    @property
    def set_name(self) -> str:
        """The data set's name; empty where no parameter says it."""
        if self.record:
            return self.record.dataset.name
        if self.rows is not None:
            return str(self.rows.dataset.iloc[0])
        return str(next((self.parameters[k] for k in SETS if k in self.parameters), ""))


def _trained_with(parameters: str) -> str:
    """Of a row's parameters (JSON) those that decide the weights."""
    given = json.loads(parameters)
    return json.dumps({name: given[name] for name in sorted(given.keys() - AFTER)})


def run_of(notebook: Path, paper: Paper) -> Run:
    """The run that an executed notebook of a paper's `runs` or `records` holds."""
    beside = notebook.with_suffix(".json")
    name = notebooks.stamp_of(notebook).get("experiment", "").rpartition("/")[2]
    known = {e.name: e for e in paper.experiments}
    return Run(notebook, paper, known.get(name, known.get(notebook.stem)),
               read_record(beside) if beside.is_file() else None)


def runs_of(paper: Paper) -> list[Run]:
    """Every run of a paper that is a page of the book: this machine's, then the kept ones."""
    return [run_of(p, paper) for kind in ("runs", "records")
            for p in sorted((paper.folder / kind).glob("*.ipynb")) if is_page(p)]


def is_page(notebook: Path) -> bool:
    """Whether an executed notebook is in the book's table of contents."""
    book = notebook.parents[2]
    name, contents = notebook.relative_to(book).with_suffix("").as_posix(), book / "_toc.yml"
    return contents.is_file() and f"file: {name}\n" in contents.read_text()


def page_of(name: str, book: Path) -> str:
    """The page of an experiment's run, by the experiment's name (`acnet/demo`), counted from the
    book's folder; empty where no run of it is a page."""
    paper, _, experiment = name.partition("/")
    files = [book / paper / kind / f"{experiment}.ipynb" for kind in ("runs", "records")]
    return next((f.relative_to(book).as_posix() for f in files if f.is_file() and is_page(f)), "")


def place(file: Path, paper: Paper) -> str:
    """A file as the book's pages name it, counted from the book's folder: `acnet/runs/demo.ipynb`.
    """
    return file.relative_to(paper.folder.parent).as_posix()


# -------------------------------------------------------------------------------------- in words


def in_lab(file: Path, paper: Paper, text: str) -> str:
    """A link that opens a notebook in JupyterLab while `make lab` runs."""
    return f'[{text}]({LAB}/book/{place(file, paper)} "{START_LAB}")'


def download(file: Path, paper: Paper, text: str) -> str:
    """A link that saves a file of the book."""
    return f"{{download}}`{text} </{place(file, paper)}>`"


def status(run: Run) -> str:
    """What kind of run it is, and whether its numbers may be compared."""
    if not run.kind:
        return f"on `{run.set_name}`, without a record" if run.set_name else "without a record"
    size = "the smallest size, a test of the code; " if run.stamp.get("size") == "tiny" else ""
    apart = "" if run.kind == "full" else "; never comparable with a published number"
    return f"{size}**{KINDS[run.kind].replace(',', '**,', 1)}{apart}"


def data(run: Run) -> str:
    """Set, split, protocol, counts and seed; empty where neither record nor list says them."""
    if run.record:
        d = run.record.dataset
        trained = f"{d.n_train:,} to train on" if d.n_train else ""
        parts = [f"{d.name} {d.split}, {run.record.protocol}", counts_text(run.record), trained,
                 f"seed {run.record.seed}"]
    elif run.rows is not None:
        first = run.rows.iloc[0]
        seeds = ", ".join(str(s) for s in sorted(run.rows.seed.unique()))
        parts = [f"{first.dataset} {first.split}",
                 f"{first.n_query:,} queries x {first.n_gallery:,}", f"seeds {seeds}"]
    else:
        parts = []
    return plain("; ".join(filter(None, parts)))


def command(run: Run) -> str:
    """What runs it again; empty of a notebook that is no experiment's."""
    size = " --size tiny" if run.stamp.get("size") == "tiny" else ""
    return code(f"python -m replication run {run.paper.name}/{run.experiment.name}{size}") \
        if run.experiment else ""


def changed(run: Run) -> str:
    """The parameters that differ from the notebook's own values, long ones cut."""
    told = [code(f"{k}={v!r}", 70) for k, v in run.given.items()]
    return ", ".join(told) or "none: the notebook's own values"


def commit(run: Run) -> str:
    """The commit of the code that ran, whether it was clean, and whether its notebook is still the
    same."""
    made = [run.record.code] if run.record else []
    if not made and run.rows is not None:
        made = [Code(commit=c, clean=bool(clean)) for c, clean
                in run.rows[["commit", "clean"]].drop_duplicates().itertuples(index=False)]
    elif not made and "code" in run.stamp:
        made = [Code(**run.stamp["code"])]
    told = [f"`{c.commit[:10]}`, {'clean' if c.clean else 'with changes that were not committed'}"
            for c in made]
    return "; ".join([", ".join(told) or "commit not recorded", *_source_now(run)])


def _source_now(run: Run) -> list[str]:
    """In words, how the source notebook of today differs from what ran."""
    if run.source is None or "source" not in run.stamp:
        return []
    if not run.source.is_file():
        return ["its source notebook is no longer there"]
    same = notebooks.source_hash(run.source) == run.stamp["source"]
    return [] if same else ["the source notebook has changed since"]


def machine(run: Run) -> str:
    """Device, Python and torch, as far as they are recorded; empty where nothing says them."""
    if run.record:
        e = run.record.environment
        cuda = "" if e.device in ("", "cpu") else e.cuda
        return ", ".join(filter(None, [device(run), f"Python {e.python}", _named("torch", e.torch),
                                       _named("CUDA", cuda)]))
    if run.rows is not None:
        return f"{device(run)}, torch {', '.join(run.rows.torch.unique())}"
    found = run.stamp.get("environment", {})
    told = [_named(name, found.get(name.lower(), "")) for name in ("Python", "torch")]
    return ", ".join(["processor not recorded", *filter(None, told)]) if any(told) else ""


def device(run: Run) -> str:
    """The accelerator's name, or the processor's with its cores; a list knows no more than that it
    was a CPU."""
    if run.record is None:
        found = run.rows.device.unique() if run.rows is not None else []
        return ", ".join(UNNAMED if name == "cpu" else name for name in found)
    e = run.record.environment
    if e.device not in ("", "cpu"):
        return e.device
    return f"{e.cpu}, {e.cpu_count} cores" if e.cpu else UNNAMED


def cost(run: Run) -> str:
    """Times, speed, memory and energy in one line; empty where nothing says them."""
    if run.record:
        c = run.record.cost
        told = {"training {}": seconds(c.seconds_train),
                "evaluating {}": seconds(c.seconds_evaluate),
                "{} items a second": rate(c), "at most {} of memory": memory(c),
                "{} in training": energy(c)}
        return ", ".join(text.format(value) for text, value in told.items() if value)
    return f"training {together(run)}" if run.rows is not None else ""


def together(run: Run) -> str:
    """The time of all trainings of a list."""
    found = run.trainings
    return f"{seconds(found.seconds_train.sum())} for {len(found)} runs together"


def seconds(value: float | None) -> str:
    """`0.8 s`, `51 s`, `3.4 min`, `2.5 h`; empty for None."""
    if value is None:
        return ""
    size, unit = next(((s, u) for s, u in ((3600, "h"), (60, "min")) if value >= 2 * s), (1, "s"))
    return f"{value / size:.{0 if value >= 10 * size else 1}f} {unit}"


def rate(c: Cost) -> str:
    """Items a second of training; empty where the record has none."""
    return "" if c.items_per_second is None else f"{c.items_per_second:,.0f}"


def memory(c: Cost) -> str:
    """The most memory that was held, in GiB; empty where the record has none."""
    return "" if c.peak_memory_bytes is None else f"{c.peak_memory_bytes / 2**30:.1f} GiB"


def energy(c: Cost) -> str:
    """Watt-hours; empty where the device told nothing."""
    if c.energy_joules is None:
        return ""
    return f"{c.energy_joules / 3600:.3g} Wh ({c.energy_source})"


def code(value: object, most: int = 400) -> str:
    """A value as code in Markdown, its pipes safe in a table; cut where it is long."""
    text = " ".join(str(value).split())
    text = text if len(text) <= most else f"{text[:most]}…"
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|") if text else "` `"


def _named(name: str, version: str) -> str:
    return f"{name} {version}" if version else ""
