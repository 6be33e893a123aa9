"""python -m replication run | keep | list | report | verify"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from replication import paths
from replication.published import (
    Experiment,
    Paper,
    check_paper,
    read_paper,
    read_papers,
    read_parameters,
)

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, rich_markup_mode=None,
                  pretty_exceptions_enable=False)
SIZES = ("demo", "tiny")


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; what goes wrong is told in one `error:` message, without a traceback."""
    try:
        app(paired(sys.argv[1:] if arguments is None else arguments), prog_name="replication")
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(1) from None


def paired(arguments: list[str]) -> list[str]:
    """Turns papermill's `-p key value` into one word, `-p key=value`."""
    words, result = list(arguments), []
    while words:
        word = words.pop(0)
        result.append(word)
        if word in ("-p", "--parameter") and len(words) > 1 and "=" not in words[0]:
            result.append(f"{words.pop(0)}={words.pop(0)}")
    return result


def parameter_value(text: str) -> Any:
    """What papermill makes of a value on its command line; lists and mappings are read as YAML."""
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return yaml.safe_load(text) if text[:1] in ("[", "{") else text


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="paper/experiment, or the path of a notebook")],
    parameter: Annotated[list[str] | None, typer.Option(
        "-p", "--parameter", metavar="KEY VALUE", help="overrides one parameter")] = None,
    file: Annotated[list[Path] | None, typer.Option(
        "-f", "--file", help="parameter file (YAML)")] = None,
    size: Annotated[str, typer.Option(help="demo, or tiny for the smallest run")] = "demo",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="executed notebook")] = None,
    force: Annotated[bool, typer.Option("--force", help="run again, replace the result")] = False,
    log: Annotated[bool, typer.Option("--log", help="show the notebook's own output")] = False,
) -> None:
    """Run one experiment; its notebook enters book/<paper>/runs only when all went well."""
    from replication.notebooks import check_parameters, run_notebook, source_hash, stamp_of
    from replication.records import code_version, environment

    if size not in SIZES:
        raise ValueError(f"--size {size}: choose one of {', '.join(SIZES)}")
    paper, experiment, notebook = _found(name)
    own = _own_parameters(paper, experiment, size)
    parameters = own | _given(file or [], parameter or [])
    target = paths.user_path(out) if out else _output(name, paper, experiment)
    stamp = {"experiment": name if paper else "", "size": size, "parameters": parameters,
             "source": source_hash(notebook)}
    check_parameters(notebook, parameters)
    _check_needs(experiment)
    if not force and _is_done(stamp_of(target), stamp, target):
        typer.echo(f"done already: {paths.shown(target)} (--force runs it again)")
        return
    made = environment()
    stamp |= {"code": code_version().model_dump(),
              "environment": {"python": made.python, "torch": made.packages.get("torch", "")}}
    record = run_notebook(
        notebook, parameters, target, experiment=experiment.name if experiment else "",
        needs_record=bool(experiment and experiment.record), stamp=stamp, log_output=log)
    typer.echo(str(record) if record else "no record")
    typer.echo(f"wrote {paths.shown(target)}")


@app.command()
def keep(name: Annotated[str, typer.Argument(help="paper/experiment that has run here")]) -> None:
    """Copy a run (notebook, record, its main embeddings) into book/<paper>/records, to commit.

    Kept records stand in the README and let `verify` work on another machine. Of many runs side
    by side (switches, ablations) the notebook is kept and their list, runs.csv; of one without
    a record the notebook alone.
    """
    from replication.records import read_record, write_record
    from replication.verification import located

    paper, experiment, _ = _found(name)
    source = _output(name, paper, experiment)
    if experiment and not experiment.record:
        return _keep_listed(name, paper, experiment, source)
    if not source.with_suffix(".json").exists():
        raise ValueError(f"{name} has no record here: python -m replication run {name}")
    target = paper.folder / "records" / source.name
    record = read_record(source.with_suffix(".json"))
    main = "embeddings" if "embeddings" in record.files else next(iter(record.files), "")
    embeddings = located(record, main) if main else None
    record.files = {main: f"{experiment.name}.safetensors"} if embeddings else {}
    if embeddings:
        paths.write_atomic(target.with_suffix(".safetensors"), embeddings.read_bytes())
    paths.write_atomic(target, source.read_bytes())
    typer.echo(f"kept {paths.shown(write_record(record, target.with_suffix('.json')))}")


def _keep_listed(name: str, paper: Paper, experiment: Experiment, source: Path) -> None:
    from replication.notebooks import stamp_of

    parameters = (stamp_of(source) or {}).get("parameters", {})
    places = (parameters[k] for k in ("save_root", "checkpoint_path", "save") if k in parameters)
    folder = next(places, "")
    runs = paths.user_path(folder) / "runs.csv"
    if not source.exists():
        raise ValueError(f"{name} has not run here: python -m replication run {name}")
    target = paper.folder / "records" / source.name
    if runs.is_file():
        paths.write_atomic(target.with_suffix(".csv"), runs.read_text())
    paths.write_atomic(target, source.read_bytes())
    typer.echo(f"kept {paths.shown(target)}")


@app.command(name="list")
def list_experiments() -> None:
    """Show every experiment, whether it has run here, and its command."""
    papers = read_papers(paths.BOOK)
    for paper in papers.values():
        for e in paper.experiments:
            done = (paper.folder / "runs" / f"{e.name}.ipynb").exists()
            state = "done" if done else "not run"
            needs = "; ".join(filter(None, [e.requires, *(f"after {n}" for n in e.needs)]))
            typer.echo(f"{state:8} {_command(paper, e):60} {needs}".rstrip())
        for problem in check_paper(paper, papers):
            typer.echo(f"problem  {problem}")


@app.command()
def report(
    check: Annotated[bool, typer.Option(
        "--check", help="only say whether the README is up to date (exit 1: it is not)")] = False,
) -> None:
    """Write every table of the book and the README's results from the records."""
    from replication.report import stale_readme, write_report

    if not check:
        for path in write_report():
            typer.echo(paths.shown(path))
    elif stale_readme():
        typer.echo("README.md is stale: python -m replication report", err=True)
        raise typer.Exit(1)


@app.command()
def verify(
    target: Annotated[list[str] | None, typer.Argument(
        help="data sets (sketchy, coco...) or records (.json); none: all records")] = None,
    data_root: Annotated[Path, typer.Option(help="folder of prepared sets")] = paths.DATA,
    folder: Annotated[str, typer.Option(help="name of the set's folder, where it is another")] = "",
    out: Annotated[Path | None, typer.Option(
        "-o", "--out", help="folder of the report; default result/datasets/<set>")] = None,
    subset: Annotated[bool, typer.Option(
        "--subset", help="counts may differ from the published ones")] = False,
    strict: Annotated[bool, typer.Option(
        "--strict", help="duplicates across splits and odd pictures are problems too")] = False,
    near: Annotated[int, typer.Option(
        help="bits of 64 in which near-same pictures' hashes may differ, 0 to 7")] = 4,
    label: Annotated[str, typer.Option(
        help="keep the report as book/datasets/checks/LABEL.json, to commit")] = "",
) -> None:
    """Check prepared data sets, or compute records' metrics again from their saved embeddings.

    A data set: counts against the published ones, every picture decoded once, the manifest,
    duplicates within and across splits; `report.md`, `report.json` and a contact sheet are written.
    Exit status: 0 nothing wrong, 1 a problem or a metric that differs, 2 embeddings are missing.
    """
    names = target or []
    sets = [name for name in names if not name.endswith(".json")]
    status = [_verify_set(name, data_root, folder, out, subset=subset, strict=strict, near=near,
                          label=label) for name in sets]
    if len(sets) < len(names) or not names:
        status.append(_verify_records([Path(name) for name in names if name not in sets]))
    raise typer.Exit(1 if 1 in status else max(status))


def _verify_set(name: str, data_root: Path, folder: str, out: Path | None, *, label: str,
                subset: bool, strict: bool, near: int) -> int:
    from replication.datasets import read_facts

    facts = read_facts(name)
    from replication.contact_sheet import write_contact_sheet
    from replication.dataset_check import as_markdown, check, default_folder
    from replication.inventory import take_inventory

    found = take_inventory(facts, data_root, folder)
    report = check(found, subset=subset, strict=strict, near=near)
    place = paths.user_path(out) if out else default_folder(name)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    for kept in [place / "report.json", *([paths.BOOK / f"datasets/checks/{label}.json"]
                                          if label else [])]:
        paths.write_atomic(kept, text)
    paths.write_atomic(place / "report.md", as_markdown(report))
    write_contact_sheet(found, place / "contact.jpg")
    for kind in ("problems", "notes"):
        for line in report[kind]:
            typer.echo(f"{kind[:-1]}: {line}")
    counted = ", ".join(f"{n:,} {part}" for part, n in report["counts"].items())
    verdict = f"{len(report['problems'])} problems" if report["problems"] else "no problem"
    typer.echo(f"{name} {report['split']}: {counted}; {report['n_pictures']:,} pictures decoded in "
               f"{report['seconds']} s; {verdict}; {paths.shown(place / 'report.md')}")
    return 1 if report["problems"] else 0


def _verify_records(given: list[Path]) -> int:
    from replication.verification import DIFFERS, UNVERIFIABLE, verified

    found = [paths.user_path(r) for r in given] or sorted(
        p for kind in ("records", "runs") for p in paths.BOOK.glob(f"*/{kind}/*.json"))
    outcomes = []
    for path in found:
        lines, outcome = verified(path)
        typer.echo("\n".join([f"{paths.shown(path)}: {outcome}", *lines]))
        outcomes.append(outcome)
    counts = ", ".join(f"{outcomes.count(o)} {o}" for o in dict.fromkeys(outcomes))
    typer.echo(f"{len(found)} records" + (f": {counts}" if counts else ""))
    return 1 if DIFFERS in outcomes else 2 if UNVERIFIABLE in outcomes else 0


def _found(name: str) -> tuple[Paper | None, Experiment | None, Path]:
    """The experiment called `paper/experiment`, or a notebook by its path."""
    if name.endswith(".ipynb"):
        notebook = paths.user_path(name)
        if not notebook.is_file():
            raise ValueError(f"{name} does not exist")
        return None, None, notebook
    folder, _, experiment = name.partition("/")
    if not (paths.BOOK / folder / "paper.yml").is_file():
        known = sorted(path.parent.name for path in paths.BOOK.glob("*/paper.yml"))
        raise ValueError(f"no paper {folder}: NAME is paper/experiment with a paper of "
                         + ", ".join(known))
    paper = read_paper(paths.BOOK / folder / "paper.yml")
    found = paper.experiment(experiment)
    notebook = paper.folder / found.notebook
    if not notebook.is_file():
        raise ValueError(f"{name}: its notebook {paths.shown(notebook)} does not exist")
    return paper, found, notebook


def _own_parameters(paper, experiment, size: str) -> dict[str, Any]:
    if experiment is None:
        return {}
    return paper.parameters(experiment) | (experiment.tiny if size == "tiny" else {})


def _given(files: list[Path], pairs: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for path in files:
        values |= read_parameters(paths.user_path(path))
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found:
            raise ValueError(f"-p {key} needs a value: -p {key} VALUE")
        values[key] = parameter_value(value)
    return values


def _output(name: str, paper, experiment) -> Path:
    if paper is None:
        raise ValueError(f"{name} is a notebook's path: name its output with -o OUT.ipynb")
    return paper.folder / "runs" / f"{experiment.name}.ipynb"


def _check_needs(experiment: Experiment | None) -> None:
    missing = [n for n in (experiment.needs if experiment else [])
               if not (paths.BOOK / n.replace("/", "/runs/")).with_suffix(".ipynb").exists()]
    if missing:
        commands = "; ".join(f"python -m replication run {n}" for n in missing)
        raise ValueError(f"run first what this needs: {commands}")


def _is_done(old: dict, new: dict, target: Path) -> bool:
    """Same settings and notebook: done. Other settings: refused, lest a long run be lost."""
    if not target.exists():
        return False
    settings = ("experiment", "size", "parameters")
    if any(_plain(old.get(k)) != _plain(new[k]) for k in settings):
        raise ValueError(f"{paths.shown(target)} holds a run with other settings: --force replaces "
                         "it, -o OUT.ipynb writes elsewhere")
    return old.get("source") == new["source"]


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _command(paper: Paper, experiment: Experiment) -> str:
    return f"python -m replication run {paper.name}/{experiment.name}"


if __name__ == "__main__":
    main()
