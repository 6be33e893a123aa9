"""The library's docstrings as they are written, plain text with `names`, for sphinx.ext.autodoc.

A name in backticks becomes a link where the library documents it, else code. A class of fields
(dataclass, NamedTuple, pydantic) shows each with its type, default and the comment beside it, as in
the source.
"""

import ast
import dataclasses
import inspect
import re
import sys
import tokenize
from io import StringIO
from pathlib import Path
from textwrap import dedent

from docutils import nodes

LIBRARY = "replication"
LONG = 160  # characters of a constant's source
NAME = re.compile(r"(?<!`)`([^`]+)`(?!`)")
PLAIN = re.compile(r"[A-Za-z_][\w.]*(\(\))?")


def linked(match: re.Match, scope: dict, own: set[str]) -> str:
    """A link where the name stands for something documented, else code. `own`: a signature's
    names, which are never links."""
    text = " ".join(match[1].split())
    target = None if text in own or not PLAIN.fullmatch(text) else found(text, scope)
    return f":py:obj:`{text} <{target}>`" if target else f"``{text}``"


def found(name: str, scope: dict) -> str | None:
    """The full name of the library's public class or function that a name in a module means."""
    first, *rest = name.removesuffix("()").split(".")
    thing = scope.get(first)
    for part in rest:
        thing = None if inspect.ismodule(thing) and part.startswith("_") else getattr(
            thing, part, None)
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return None
    public = not thing.__qualname__.startswith("_") and "._" not in thing.__qualname__
    inside = thing.__module__.split(".")[0] == LIBRARY and inspect.getdoc(thing)
    return f"{thing.__module__}.{thing.__qualname__}" if public and inside else None


def prose(text: str, replaced) -> str:
    """A docstring as reST: its backticks are `replaced`, and an @ makes no address of mAP@200."""
    parts = NAME.split(text)  # text, name, text, name, ..., text
    return "".join(replaced(NAME.match(f"`{part}`")) if i % 2 else part.replace("@", r"\@")
                   for i, part in enumerate(parts))


def code(match: re.Match) -> str:
    """A name as code."""
    return f"``{match[1]}``"


def assigned(name: str) -> str:
    """The source of a module's constant, empty where it is long: `Rows = Callable[...]`."""
    module, _, constant = name.rpartition(".")
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == constant:
            written = re.sub(r"(['\"]) ", r"\1", ast.unparse(node).replace("'", '"'))
            return written if len(written) < LONG else ""
    return ""


def has_fields(thing: object) -> bool:
    """Whether it is a class whose annotations are its fields."""
    return inspect.isclass(thing) and (dataclasses.is_dataclass(thing)
                                       or hasattr(thing, "model_fields") or is_record(thing))


def is_record(thing: type) -> bool:
    """Whether it is a NamedTuple."""
    return issubclass(thing, tuple) and hasattr(thing, "_fields")


def comments(source: str) -> dict[int, str]:
    """Comments of a source by their line."""
    tokens = tokenize.generate_tokens(StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens
            if t.type == tokenize.COMMENT and not t.string.startswith("# noqa")}


def fields(thing: type) -> list[str]:
    """A line of reST for each field of a class: its source, then the comment beside it."""
    source = dedent(inspect.getsource(thing))
    beside, lines = comments(source), []
    for node in ast.parse(source).body[0].body:
        if isinstance(node, ast.AnnAssign) and not node.target.id.startswith("_"):
            written = re.sub(r"(['\"]) ", r"\1", ast.unparse(node).replace("'", '"'))
            said = beside.get(node.end_lineno, "")
            lines.append(f"- ``{written}``" + (f": {prose(said, code)}" if said else ""))
    return lines


def show_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Rewrites a docstring in place."""
    module = sys.modules.get(getattr(obj, "__module__", None) or name) or sys.modules.get(name)
    own = set(getattr(getattr(obj, "__code__", None), "co_varnames", ()))
    scope = vars(module) if module else {}
    lines[:] = prose("\n".join(lines), lambda name: linked(name, scope, own)).splitlines()
    if what == "module":
        lines[:0] = [f"``{name}``", ""]
    if what == "data" and (written := assigned(name)):
        lines += ["", f"``{written}``", ""]
    if what == "class" and has_fields(obj):
        lines += ["", *fields(obj), ""]


def show_signature(app, what, name, obj, options, signature, returns):
    """No signature for a class of fields, which are listed below it."""
    return ("", None) if what == "class" and has_fields(obj) else None


def skip_alias(app, what, name, obj, skip, options) -> bool | None:
    """Leaves out what Python itself says of a NamedTuple's field, which is listed already."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def without_internals(app, doctree) -> None:
    """Drops what pydantic makes of a constant's type, whose source is shown already."""
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if paragraph.astext().startswith("alias of ") and "FieldInfo(" in paragraph.astext():
            paragraph.parent.remove(paragraph)


def setup(app) -> dict:
    """Registers them, and puts the library on the path."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    app.connect("autodoc-process-docstring", show_docstring)
    app.connect("autodoc-process-signature", show_signature)
    app.connect("autodoc-skip-member", skip_alias)
    app.connect("doctree-read", without_internals)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
