"""What every paper's chapter shows of its runs: cost, commands, notebooks. Never imports torch."""

import json
import shlex
import textwrap
from pathlib import Path
from typing import Any

from replication import notebooks, paths, run_facts
from replication.check_pages import plain
from replication.published import FREE_PARAMETERS, Experiment, Paper
from replication.records import RunRecord
from replication.run_facts import Run

DASH = "–"
NOT_TOLD = "A dash: not measured, or the device does not tell."
ENERGY_TRAINING = "energy in training"
ENERGY = ("Energy is read from a GPU's counter, with the package `nvidia-ml-py`, or from a "
          "processor's, where Linux lets it.")
WIDTH = 76  # of a comment in a block of commands, characters
FEW = 5  # experiments that stand open on the page; more are folded away
KINDS = ("On the built-in doodles, as `make book` runs them", "On the built-in doodles, in full",
         "On real sets, beside no published number", "At a published setting")
# Names that papermill's command line reads as another type than text.
NOT_TEXT = {"True", "False", "None"}


def write(book: Path, papers: dict[str, Paper], records: dict[str, list[RunRecord]]) -> list[Path]:
    """`_generated/<paper>_{cost,commands,notebooks}.md` for every paper's chapter to include."""
    written = []
    for name, paper in papers.items():
        runs = run_facts.runs_of(paper)
        pages = {"cost": cost_markdown(runs), "commands": commands_markdown(paper),
                 "notebooks": notebooks_markdown(paper, runs)}
        for kind, text in pages.items():
            file = book / "_generated" / f"{name}_{kind}.md"
            if not file.exists() or file.read_text() != text:
                paths.write_atomic(file, text)
            written.append(file)
    return written


# ------------------------------------------------------------------------------------------- cost


def cost_markdown(runs: list[Run]) -> str:
    """A line a run: where it ran, times, speed, memory, energy. Runs that tell none are left out,
    and what none of them tells."""
    lines = [line for run in runs if (line := _cost_line(run))]
    if not lines:
        return "No run has told its cost yet.\n"
    columns = ["run", "set", "device", "training", "evaluating", "items a second", "peak memory",
               ENERGY_TRAINING]
    told = [i for i in range(len(columns)) if any(line[i] != DASH for line in lines)]
    columns, *lines = [[line[i] for i in told] for line in (columns, *lines)]
    notes = [NOT_TOLD] if any(DASH in line for line in lines) else []
    notes += [ENERGY] if ENERGY_TRAINING in columns else []
    return "\n\n".join([_table(columns, lines), " ".join(notes)]).rstrip() + "\n"


def _cost_line(run: Run) -> list[str]:
    if run.record:
        c = run.record.cost
        told = [run_facts.seconds(c.seconds_train), run_facts.seconds(c.seconds_evaluate),
                run_facts.rate(c), run_facts.memory(c), run_facts.energy(c)]
    elif run.rows is not None:
        told = [run_facts.together(run), "", "", "", ""]
    else:
        return []
    return [_page(run, run.notebook.stem), plain(run.set_name), plain(run_facts.device(run)),
            *(text or DASH for text in told)]


# --------------------------------------------------------------------------------------- commands


def commands_markdown(paper: Paper) -> str:
    """Every experiment's command, of this project's tool and of plain papermill: demos, other runs,
    published settings. Long groups are folded away."""
    parts = [_group(paper, title, found) for title, found in groups(paper).items()]
    if options := _options(paper):
        parts.append("To add to a command, where its notebook has the parameter:\n\n" + options)
    return "\n\n".join(parts) + "\n"


def groups(paper: Paper) -> dict[str, list[Experiment]]:
    """A paper's experiments by what a reader wants of them; where many need the same, by that."""
    needs = [e.requires for e in paper.experiments]
    found: dict[str, list[Experiment]] = {}
    for kind in KINDS:
        for e in (e for e in paper.experiments if _kind(e) == kind):
            common = e.requires and needs.count(e.requires) > FEW
            found.setdefault(f"{kind}; needs {plain(e.requires)}" if common else kind,
                             []).append(e)
    return found


def _kind(e: Experiment) -> str:
    if e.targets or e.demo:
        return KINDS[3 if e.targets else 0]
    return KINDS[2 if e.requires else 1]


def _group(paper: Paper, title: str, experiments: list[Experiment]) -> str:
    told = "; needs " in title
    tabs = [_tab(label, [f"# {_said(e, told)}\n{command(paper, e)}" for e in experiments])
            for label, command in (("replication", run_command), ("papermill", papermill))]
    shown = f"::::{{tab-set}}\n:sync-group: command\n\n{chr(10).join(tabs)}\n::::"
    if len(experiments) <= FEW:
        return f"**{title}**\n\n{shown}"
    return f":::::{{dropdown}} {title}: {len(experiments)} runs\n{shown}\n:::::"


def _tab(label: str, commands: list[str]) -> str:
    return (f":::{{tab-item}} {label}\n:sync: {label}\n\n"
            f"```bash\n{(chr(10) * 2).join(commands)}\n```\n:::")


def _said(e: Experiment, told: bool) -> str:
    """A comment: what an experiment is, what it needs where that is not told, when and how long."""
    needs = "" if told or not e.requires else f"needs {e.requires}"
    after = f"after {', '.join(e.needs)}" if e.needs else ""
    when = "; ".join(filter(None, [after, e.time]))
    lines = [line for part in (e.title or e.name, needs, when)
             for line in textwrap.wrap(part, WIDTH, break_on_hyphens=False)]
    return "\n# ".join(lines)


def run_command(paper: Paper, e: Experiment) -> str:
    """The command that also refuses misspelt parameters and keeps what came out."""
    return f"python -m replication run {paper.name}/{e.name}"


def papermill(paper: Paper, e: Experiment) -> str:
    """The command of plain papermill, with the same parameters."""
    folder = f"book/{paper.name}"
    words = ["papermill", f"{folder}/{e.notebook}", "out.ipynb"]
    words += ["-f", f"{folder}/{e.parameters_file}"] if e.parameters_file else []
    for name, value in e.parameters.items():
        words += _given(name, value)
    return shlex.join(words)


def _given(name: str, value: Any) -> list[str]:
    """papermill's words for one parameter, which make it of the same type again."""
    if isinstance(value, list | dict):
        return ["-y", json.dumps({name: value})]
    if isinstance(value, str):
        return ["-r", name, value] if value in NOT_TEXT or _number(value) else ["-p", name, value]
    return ["-p", name, str(value)]


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _options(paper: Paper) -> str:
    """Parameters that say where and how fast a run goes, with the notebooks' own comments."""
    found = sorted(map(notebooks.explained_parameters, sources(paper)), key=len)
    told = {name: comment for known in found for name, (_, comment) in known.items() if comment}
    lines = [[f"`-p {name} …`", plain(told[name])] for name in sorted(told)
             if name in FREE_PARAMETERS]
    return _table(["option", "its comment"], lines) if lines else ""


# -------------------------------------------------------------------------------------- notebooks


def notebooks_markdown(paper: Paper, runs: list[Run]) -> str:
    """Links to every executed notebook and to every source notebook: the page, JupyterLab, the
    file."""
    ran = [[_page(run, plain(_title(run))), run_facts.status(run).partition(";")[0],
            run_facts.in_lab(run.notebook, paper, "open"),
            run_facts.download(run.notebook, paper, "save")] for run in runs]
    own = [[plain(heading(file)), f"`{file.name}`", run_facts.in_lab(file, paper, "open"),
            run_facts.download(file, paper, "save")] for file in sources(paper)]
    parts = [_table(["executed notebook", "what it ran on", "JupyterLab", "file"], ran)] if ran \
        else []
    parts += [_table(["source notebook", "name", "JupyterLab", "file"], own)] if own else []
    return "\n\n".join([*parts, "JupyterLab's links lead to the server that `make lab` starts."]) \
        + "\n"


def sources(paper: Paper) -> list[Path]:
    """The paper's source notebooks, in the order in which its experiments name them."""
    files = dict.fromkeys(paper.folder / e.notebook for e in paper.experiments)
    return [file for file in files if file.is_file()]


def heading(notebook: Path) -> str:
    """The title that a notebook's first cell begins with."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    first = "".join(cells[0]["source"]).partition("\n")[0] if cells else ""
    return first.removeprefix("# ") or notebook.stem


def _title(run: Run) -> str:
    return run.experiment.title if run.experiment and run.experiment.title else \
        heading(run.notebook)


def _page(run: Run, text: str) -> str:
    return f"[{text}](/{run_facts.place(run.notebook, run.paper)})"


def _table(columns: list[str], lines: list[list[str]]) -> str:
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
