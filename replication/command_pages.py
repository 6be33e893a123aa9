"""The page of the command line, from what each command itself says of its options.

Never imports torch.
"""

import io
import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import typer

from replication import paths
from replication.published import Paper
from replication.records import RunRecord

WIDTH = "88"  # columns of a help text
FETCH = "fetch"


def write(book: Path, papers: dict[str, Paper], records: dict[str, list[RunRecord]]) -> list[Path]:
    """`_generated/commands.md` and `_generated/commands_data.md`."""
    pages = {"commands": commands_markdown(), "commands_data": preparations_markdown()}
    return [paths.write_atomic(book / "_generated" / f"{name}.md", text)
            for name, text in pages.items()]


def commands_markdown() -> str:
    """Every command of `python -m replication`: what it does, its usage, a line an option."""
    group = typer.main.get_command(import_module("replication.__main__").app)
    return "\n\n".join(_command(name, command) for name, command in group.commands.items()) + "\n"


def _command(name: str, command) -> str:
    words = [f"python -m replication {name}", *map(_argument, command.params), "[OPTIONS]"]
    options = "\n".join(map(_option, command.params))
    return (f"### {name}\n\n```text\n{' '.join(filter(None, words))}\n```\n\n"
            f"{_prose(command.help)}\n\n{options}").rstrip()


def _argument(parameter) -> str:
    """An argument as it stands in the usage; an option: nothing."""
    if parameter.param_type_name != "argument":
        return ""
    name = parameter.name.upper() + (" ..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _option(parameter) -> str:
    """`-o`, `--out`: what it says of itself (default)."""
    argument = parameter.param_type_name == "argument"
    names = [parameter.name.upper()] if argument else [*parameter.opts, *parameter.secondary_opts]
    said = _prose(parameter.help or "").rstrip(".")
    value = paths.shown(parameter.default) if isinstance(parameter.default, Path) else (
        parameter.default)
    plain = isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    default = f" (default `{value}`)" if plain else ""
    return f"- {', '.join(f'`{n}`' for n in names)}: {said}{default}."


def _prose(text: str) -> str:
    """A help text as Markdown: nothing in it is markup."""
    return re.sub(r"([<>*_\[\]])", r"\\\1", text)


def preparations() -> dict[str, Callable]:
    """`python -m data_prep.NAME`: the name and the function that is called, the built-in set
    first."""
    folder = paths.ROOT / "data_prep"
    names = [p.stem for p in sorted(folder.glob("*.py"))
             if 'if __name__ == "__main__"' in p.read_text() and p.stem != FETCH]
    modules = {"doodles": "data_prep.doodles.__main__"} | {
        name: f"data_prep.{name}" for name in [*names, FETCH]}
    return {name: import_module(module).main for name, module in modules.items()}


def preparations_markdown() -> str:
    """The help of every preparation, word for word."""
    return "\n\n".join(f":::{{dropdown}} python -m data_prep.{name}\n```text\n"
                       f"{help_text(name, main)}\n```\n:::"
                       for name, main in preparations().items()) + "\n"


def help_text(name: str, main: Callable) -> str:
    """What `python -m data_prep.NAME --help` prints."""
    printed = io.StringIO()
    with (patch.object(sys, "argv", [f"python -m data_prep.{name}", "--help"]),
          patch.dict(os.environ, {"COLUMNS": WIDTH}), redirect_stdout(printed),
          suppress(SystemExit)):
        main()
    return printed.getvalue().strip()
