"""Runs a notebook so that only a whole, checked result enters the book. Never imports torch.

Plain papermill runs the same notebooks; this adds refused misspelt parameters, a result that
appears only on success, stripped volatile metadata, and the run record beside the notebook.
"""

import ast
import difflib
import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from replication import paths
from replication.records import MIME, InvalidFile, RunRecord, as_json, parse_record, read_record

FAILED = paths.RESULT / "failed"
STAMP = "replication"


class RunFailed(RuntimeError):
    """A notebook that was refused or stopped; the message says why in a few lines."""


def run_notebook(
    notebook: str | Path,
    parameters: dict[str, Any],
    out: str | Path,
    *,
    experiment: str = "",
    needs_record: bool = False,
    stamp: dict[str, Any] | None = None,
    failed: Path | None = None,
    progress: bool = True,
    log_output: bool = False,
) -> RunRecord | None:
    """Executes `notebook` with papermill and moves the result to `out` when all went well.

    A record shown in an output (`display(record)`) is validated, given `experiment` as its name
    and written beside `out` as `<name>.json`. `stamp` is kept in the notebook's metadata.

    Raises RunFailed for a parameter the notebook does not have, for a failing cell, for a record
    that is missing although `needs_record`, doubled or invalid; `out` then stays as it was and
    the executed notebook lies in `failed` (default `result/failed`).
    """
    notebook, out = Path(notebook), Path(out)
    check_parameters(notebook, parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    running = out.with_name(f".{out.stem}.{os.getpid()}.ipynb")
    try:
        _execute(notebook, running, parameters, progress, log_output)
        executed = nbformat.read(running, as_version=4)
        record = _record(executed, out.stem, experiment, needs_record)
        _publish(executed, record, out, stamp or {})
    except BaseException as error:
        kept = _keep_failed(running, (failed or FAILED) / _failed_name(notebook, out))
        if isinstance(error, KeyboardInterrupt) or not isinstance(error, Exception):
            raise
        raise RunFailed(_told(notebook, error, kept)) from None
    finally:
        running.unlink(missing_ok=True)
    return record


def notebook_parameters(notebook: str | Path) -> dict[str, Any]:
    """Names and default values (None where it is no literal) of a notebook's parameters.

    Raises RunFailed when the notebook is missing or has no cell tagged `parameters`.
    """
    notebook = Path(notebook)
    if not notebook.is_file():
        raise RunFailed(f"{paths.shown(notebook)} does not exist")
    cells = nbformat.read(notebook, as_version=4).cells
    if not any("parameters" in cell.metadata.get("tags", []) for cell in cells):
        raise RunFailed(f"{paths.shown(notebook)} has no cell tagged `parameters`")
    found = papermill.inspect_notebook(str(notebook))
    return {name: _literal(about["default"]) for name, about in found.items()}


def explained_parameters(notebook: str | Path) -> dict[str, tuple[Any, str]]:
    """Default value and comment of each parameter, for a page: what papermill cannot read is left
    out without a warning."""
    log = logging.getLogger("papermill")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        found = papermill.inspect_notebook(str(notebook))
    finally:
        log.setLevel(level)
    return {name: (_literal(about["default"]), about["help"]) for name, about in found.items()}


def source_hash(notebook: str | Path) -> str:
    """What tells one state of a source notebook from another."""
    return hashlib.sha256(Path(notebook).read_bytes()).hexdigest()


def unknown_parameters(notebook: str | Path, names: Iterable[str]) -> dict[str, list[str]]:
    """The names that the notebook does not have, each with the nearest ones it has."""
    known = notebook_parameters(notebook)
    return {name: difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            for name in names if name not in known}


def check_parameters(notebook: str | Path, parameters: dict[str, Any]) -> None:
    """Raises RunFailed that lists every unknown name and every value of the wrong type."""
    known = notebook_parameters(notebook)
    problems = []
    for name, near in unknown_parameters(notebook, parameters).items():
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(known)}"
        problems.append(f"no parameter {name} in {paths.shown(notebook)}: {hint}")
    problems += [f"parameter {name} is {value!r}, its default is the {_kind(known[name])} "
                 f"{known[name]!r}" for name, value in parameters.items()
                 if name in known and not _fits(value, known[name])]
    if problems:
        raise RunFailed("\n".join(problems))


def stamp_of(notebook: str | Path) -> dict[str, Any]:
    """What `run_notebook` kept in an executed notebook's metadata; empty where there is none."""
    path = Path(notebook)
    return nbformat.read(path, as_version=4).metadata.get(STAMP, {}) if path.is_file() else {}


def _execute(notebook, running, parameters, progress, log_output) -> None:
    papermill.execute_notebook(
        str(notebook), str(running), parameters=parameters, kernel_name="python3",
        cwd=str(paths.ROOT), progress_bar=progress, log_output=log_output, autosave_cell_every=0)


def _record(executed, stem: str, experiment: str, needed: bool) -> RunRecord | None:
    bundles = [output.data[MIME] for cell in executed.cells if cell.cell_type == "code"
               for output in cell.outputs if MIME in output.get("data", {})]
    if len(bundles) > 1:
        raise InvalidFile(f"the notebook shows {len(bundles)} run records, not one")
    if needed and not bundles:
        raise InvalidFile(f"the notebook shows no run record (an output of type {MIME})")
    if not bundles:
        return None
    named = {"experiment": experiment} if experiment else {}
    return parse_record(dict(bundles[0]) | named, f"record of {stem}")


def _publish(executed, record: RunRecord | None, out: Path, stamp: dict) -> None:
    beside = out.with_suffix(".json")
    text = nbformat.writes(normalised(executed, stamp)) + "\n"
    if record is None:
        beside.unlink(missing_ok=True)
    else:
        paths.write_atomic(beside, as_json(record))
        record._path = read_record(beside).path
    paths.write_atomic(out, text)


def normalised(notebook, stamp: dict):
    """The notebook without times, machine paths and random ids: two equal runs, equal files."""
    made_by = notebook.metadata.pop("papermill", {})
    notebook.metadata["papermill"] = {"parameters": made_by.get("parameters", {})}
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata[STAMP] = stamp
    for index, cell in enumerate(notebook.cells):
        for volatile in ("papermill", "execution"):
            cell.metadata.pop(volatile, None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = f"injected-{index}"
    return notebook


def _failed_name(notebook: Path, out: Path) -> str:
    return f"{notebook.resolve().parent.name}-{out.stem}.ipynb"


def _keep_failed(running: Path, kept: Path) -> Path | None:
    if not running.exists():
        return None
    paths.write_atomic(kept, running.read_bytes())
    return kept


def _told(notebook: Path, error: Exception, kept: Path | None) -> str:
    if isinstance(error, PapermillExecutionError):
        source = [line for line in error.source.strip().splitlines() if line.strip()]
        what = f"{error.ename}: {error.evalue}\n  in the cell that begins: {source[0]}"
    else:
        what = str(error) if isinstance(error, InvalidFile) else f"{type(error).__name__}: {error}"
    where = f"\n  the notebook up to there: {paths.shown(kept)}" if kept else ""
    return f"{paths.shown(notebook)} failed: {what}{where}"


def _literal(source: str) -> Any:
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return None


def _kind(value: Any) -> str:
    return {"bool": "truth value", "int": "number", "float": "number", "str": "text"}.get(
        type(value).__name__, type(value).__name__)


def _fits(value: Any, default: Any) -> bool:
    """A truth value for a truth value, a number for a number; anything for the rest."""
    if value is None or not isinstance(default, bool | int | float):
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, int | float)
