"""All published cells of all papers as one frame and as a CSV file. Never imports torch."""

import re
from pathlib import Path

import pandas as pd
import yaml

from replication.comparison import STATUSES, comparison
from replication.published import Paper
from replication.records import RunRecord

QUOTED = "quoted"  # another method's number: nothing here could reproduce it
SHOWN = (*STATUSES, QUOTED)
COLUMNS = ["paper", "cell", "task", "method", "variant", "dataset", "split", "protocol", "metric",
           "convention", "unit", "published", "reproduced", "spread", "seeds", "difference",
           "tolerance", "status", "reason", "command", "counts", "run", "source"]
_LINK = re.compile(r"\[([^\]]+)\]\(/([^)]+)\)")


def published_cells(book: Path, papers: dict[str, Paper],
                    records: dict[str, list[RunRecord]]) -> pd.DataFrame:
    """One row a published cell, columns `COLUMNS`, a paper's own before those it quotes:
    `comparison` with its task, its source, and the commands that would change it (` or ` between
    several, empty for none)."""
    tasks = tasks_of(book)
    found = [_of_paper(paper, tasks.get(name, ""), records.get(name, []))
             for name, paper in papers.items() if paper.cells]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)


def _of_paper(paper: Paper, task: str, records: list[RunRecord]) -> pd.DataFrame:
    table = comparison(paper, records).sort_values("quoted", kind="stable")
    commands = commands_of(paper)
    cells = {cell.id: cell for cell in paper.cells}
    return table.assign(
        paper=paper.name, cell=table.id, task=task,
        source=[cells[i].source for i in table.id], unit=[cells[i].unit for i in table.id],
        status=table.status.where(~table.quoted, QUOTED),
        reason=[_without_command(reason) for reason in table.reason],
        command=[" or ".join(commands.get(i, ())) for i in table.id])[COLUMNS]


def commands_of(paper: Paper) -> dict[str, list[str]]:
    """The commands whose runs answer a cell, by the cell's id."""
    found: dict[str, list[str]] = {}
    for experiment in paper.experiments:
        for target in experiment.targets:
            found.setdefault(target, []).append(
                f"python -m replication run {paper.name}/{experiment.name}")
    return found


def tasks_of(book: Path) -> dict[str, str]:
    """The part of the book that each paper's chapter is in, as the table of contents names it."""
    toc = book / "_toc.yml"
    parts = yaml.safe_load(toc.read_text()).get("parts", []) if toc.is_file() else []
    return {Path(chapter["file"]).parent.name: part["caption"] for part in parts
            for chapter in part["chapters"] if chapter["file"].endswith("/index")}


def csv_text(cells: pd.DataFrame) -> str:
    """The frame as CSV: numbers as they are, runs as the paths of their notebooks or records."""
    plain = cells.assign(run=[_LINK.sub(r"\2", run).replace("`", "") for run in cells.run])
    return plain.to_csv(index=False, lineterminator="\n")


def counted(cells: pd.DataFrame) -> pd.DataFrame:
    """How many cells of each paper (rows, in the order of the cells) have each of `SHOWN`."""
    table = pd.crosstab(cells.paper, cells.status)
    return table.reindex(index=list(dict.fromkeys(cells.paper)), columns=list(SHOWN), fill_value=0)


def run_links(run: str) -> list[tuple[str, str]]:
    """(name, page) of each run of a row; the page is empty for a record that no page shows."""
    found = [_LINK.fullmatch(part.strip()) for part in run.split(", ")] if run else []
    names = [part.strip(" `") for part in run.split(", ")] if run else []
    return [(m[1], m[2].removesuffix(".ipynb") + ".html") if m else (name, "")
            for m, name in zip(found, names, strict=True)]


def _without_command(reason: str) -> str:
    return re.sub(r"(; )?command: `[^`]*`$", "", reason)
