"""Executed notebooks as pages: what ran, its record and its links, above the notebook's own cells.

Only what the page shows is changed. The file that readers download is the notebook as it ran.
"""

import json
import re
from functools import cache
from pathlib import Path

import yaml

from replication import paths, run_facts
from replication.check_pages import plain
from replication.published import Paper, read_paper
from replication.records import MIME, parse_record
from replication.run_facts import Run

PAGE = re.compile(r"([^/]+)/(?:runs|records)/[^/]+")
FOLDED = {"parameters": "The parameters' cell", "injected-parameters": "The parameters given",
          "start": "Imports and the start of the run"}
FINISHED_BAR = re.compile(r"(.*: )?100%\|.*\[.*\]\s*")
DEFAULTS = ("*This run was given other parameters than the notebook's defaults, of which the text "
            "below speaks; what it was given stands in the box.*\n\n")


def links(run: Run) -> str:
    """Where the notebook can be opened, and the files to save."""
    opened = [run_facts.in_lab(run.notebook, run.paper, "Open in JupyterLab")]
    saved = [(run.notebook, "Executed notebook")]
    if run.record:
        saved.append((run.record.path, "Record"))
    if run.list_file and run.list_file.parent == run.notebook.parent:
        saved.append((run.list_file, "List of runs"))
    if run.source and run.source.is_file():
        opened.append(run_facts.in_lab(run.source, run.paper, "Edit the source and run it anew"))
        saved.append((run.source, "Source notebook"))
    saved = [run_facts.download(file, run.paper, text) for file, text in saved]
    return (f":::{{container}} run-links\n{' · '.join(opened)} (start `make lab` first)\n\n"
            f"Download: {' · '.join(saved)}\n:::\n")


def introduction(run: Run) -> str:
    """What run this is, where it belongs, and the links."""
    what = f"`{run.paper.name}/{run.experiment.name if run.experiment else run.notebook.stem}`"
    title = plain(run.experiment.title) if run.experiment else ""
    chapter = run.paper.folder / "index.md"
    belongs = f", a run of the chapter [{_heading(chapter)}](/{run.paper.name}/index.md)" \
        if chapter.is_file() else ""
    said = f"{title}: {what}{belongs}" if title else f"{what}{belongs}"
    return f"{said}.\n\n{links(run)}"


def facts(run: Run) -> str:
    """The record in about eight lines, all parameters folded away below."""
    made = run.record.finished if run.record else \
        run.rows.finished.max() if run.rows is not None else ""
    weights = run.record.weights if run.record else None
    told = {"Command": run_facts.command(run), "Status": run_facts.status(run),
            "Data": run_facts.data(run), "Changed": run_facts.changed(run),
            "Starts from": f"{plain(weights.name)}, SHA-256 `{weights.sha256[:12]}`" if weights else
            _after(run),
            "Code": run_facts.commit(run), "Machine": plain(run_facts.machine(run)),
            "Cost": run_facts.cost(run), "Finished": made.replace("T", " ").replace("Z", " UTC"),
            "Record": _elsewhere(run)}
    lines = [f"{term}\n: {text}\n" for term, text in told.items() if text]
    return ("::::{container} run-facts\n" + "\n".join(lines) + f"\n{parameters(run)}{notes(run)}"
            "::::\n")


def parameters(run: Run) -> str:
    """Every parameter with its value, its default where that is another, and its comment."""
    lines = []
    for name, value in run.parameters.items():
        default, comment = run.explained.get(name, (value, ""))
        was = "" if value == default else f" (default {run_facts.code(repr(default))})"
        meaning = plain(comment).replace("|", "\\|")
        lines.append(f"| `{name}` | {run_facts.code(repr(value))}{was} | {meaning} |")
    table = "\n".join(["| parameter | value | meaning |", "| --- | --- | --- |", *lines])
    return f":::{{dropdown}} All {len(lines)} parameters\n{table}\n:::\n"


def notes(run: Run) -> str:
    """What the record notes beside its numbers."""
    if run.record is None or not run.record.notes:
        return ""
    listed = "\n".join(f"- {plain(note)}" for note in run.record.notes)
    return f":::{{dropdown}} Notes\n{listed}\n:::\n"


def _after(run: Run) -> str:
    """The runs that this one needs, whose pages say more."""
    needed = run.experiment.needs if run.experiment else []
    pages = {name: run_facts.page_of(name, run.paper.folder.parent) for name in needed}
    return ", ".join(f"[{name}](/{page})" if page else f"`{name}`" for name, page in pages.items())


def _elsewhere(run: Run) -> str:
    """Where the numbers are, of a notebook that has no record of its own."""
    if run.record:
        return ""
    if run.list_file and run.list_file.parent == run.notebook.parent:
        return f"a list of {len(run.rows)} lines, to download above"
    if run.list_file:
        return f"a list of {len(run.rows)} lines, on this machine in `{paths.shown(run.list_file)}`"
    return "none: no number of this run is compared"


def _heading(page: Path) -> str:
    """The title of a page in Markdown."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return next((line[2:].strip() for line in lines if line.startswith("# ")), page.parent.name)


# --------------------------------------------------------------------------------------- the page


def with_header(notebook: dict, run: Run, name: str = "") -> dict:
    """The notebook as its page shows it: title, introduction, contract, facts, then its cells; the
    parameters, which the facts hold, the imports and the record are folded away.

    name: what the table of contents calls the page, empty where it calls it by its own title.
    """
    first, *rest = notebook["cells"]
    title, _, contract = "".join(first["source"]).partition("\n")
    title = f"# {_whole(name, run.paper)}" if name else title
    other = DEFAULTS if run.notebook.parent.name == "records" and run.given else ""
    first = {**first,
             "source": f"{title}\n\n{introduction(run)}\n{other}{contract.strip()}\n"}
    shown = {"cell_type": "markdown", "id": "run-facts", "metadata": {}, "source": facts(run)}
    start = next((cell for cell in rest if cell["cell_type"] == "code" and not _part(cell)), None)
    cells = [_folded(cell, "start" if cell is start else _part(cell)) for cell in rest]
    return {**notebook, "cells": [first, shown, *(c for cell in cells for c in _shown(cell))]}


def _whole(name: str, paper: Paper) -> str:
    """A page's name in the table of contents, with its chapter's where that goes without saying."""
    has_chapter = (paper.folder / "index.md").is_file()
    return f"{name} ({paper.known_as})" if has_chapter and paper.known_as not in name else name


def _shown(cell: dict) -> list[dict]:
    """A cell without its finished progress bars; a record that it shows comes after it, folded
    away, its columns in line."""
    if not cell.get("outputs"):
        return [cell]
    outputs = [o for o in cell["outputs"] if not FINISHED_BAR.fullmatch(_plain_text(o))]
    records = [o for o in outputs if MIME in o.get("data", {})]
    left = {**cell, "outputs": [o for o in outputs if o not in records]}
    return [left, *(_record(cell, output) for output in records)]


def _record(cell: dict, output: dict) -> dict:
    """A cell of its own for a record that another one shows; its source, without which there would
    be no cell, is not shown again."""
    record = parse_record(output["data"][MIME], "the notebook's record")
    shown = {**output, "data": {**output["data"], "text/plain": str(record)}}
    alone = {**cell, "id": f"{cell['id']}-record", "outputs": [shown],
             "metadata": {"tags": ["remove-input"]}}
    return _hidden(alone, "hide-output", f"The record's {len(record.metrics)} numbers")


def _plain_text(output: dict) -> str:
    """What an output shows where it has nothing but plain text; else empty."""
    data = output.get("data", {})
    return "".join(data["text/plain"]) if list(data) == ["text/plain"] else ""


def _part(cell: dict) -> str:
    """Which of papermill's cells of parameters it is; empty for another cell."""
    return next((tag for tag in cell["metadata"].get("tags", []) if tag in FOLDED), "")


def _folded(cell: dict, part: str) -> dict:
    """A cell whose source is folded away under a word for its part; as it is where it has none."""
    return _hidden(cell, "hide-input", FOLDED[part]) if part else cell


def _hidden(cell: dict, tag: str, words: str) -> dict:
    """A cell of which a part is folded away under `words`."""
    about = {"tags": [*cell["metadata"].get("tags", []), tag],
             "mystnb": {"code_prompt_show": words, "code_prompt_hide": words}}
    return {**cell, "metadata": {**cell["metadata"], **about}}


def titles(entry: dict) -> dict[str, str]:
    """Names that a table of contents gives to pages, below an entry of it."""
    own = {entry["file"]: entry["title"]} if {"file", "title"} <= entry.keys() else {}
    below = (e for key in ("parts", "chapters", "sections") for e in entry.get(key, []))
    return own | {file: name for e in below for file, name in titles(e).items()}


@cache
def contents(file: Path, changed: int) -> dict[str, str]:
    """The names of a _toc.yml; `changed` tells one edit from the next."""
    return titles(yaml.safe_load(file.read_text(encoding="utf-8")))


@cache
def known(about: Path, changed: int) -> Paper:
    """A paper.yml, read once a build and not once a run; `changed` tells one edit from the next."""
    return read_paper(about)


def read(app, docname: str, source: list[str]) -> None:
    """Sphinx's `source-read`: puts the header into the text of an executed notebook."""
    file = Path(app.env.doc2path(docname))
    found = PAGE.fullmatch(docname)
    if not found or file.suffix != ".ipynb":
        return
    about = Path(app.srcdir) / found[1] / "paper.yml"
    if not about.is_file():
        return
    paper = known(about, about.stat().st_mtime_ns)
    run = run_facts.run_of(file, paper)
    for used in (about, run.record and run.record.path, run.list_file):
        if used:
            app.env.note_dependency(str(used))
    toc = Path(app.srcdir) / "_toc.yml"
    names = contents(toc, toc.stat().st_mtime_ns) if toc.is_file() else {}
    source[0] = json.dumps(with_header(json.loads(source[0]), run, names.get(docname, "")))


def setup(app) -> dict:
    """Listens to what is read."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
