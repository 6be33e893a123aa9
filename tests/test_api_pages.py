"""The library's reference: every module on one page, docstrings as they are meant, names linked."""

import ast
import contextlib
import io
import re
import sys
import types
from pathlib import Path

import pytest
import yaml
from docutils import nodes
from docutils.utils import new_document

ROOT = Path(__file__).resolve().parent.parent
LIBRARY, API = ROOT / "replication", ROOT / "book" / "api"
PAGES = {page.stem: page.read_text() for page in sorted(API.glob("*.md"))}

sys.path.insert(0, str(ROOT / "book" / "_ext"))
import api_docs  # noqa: E402


def modules():
    """Dotted names of the library's modules; packages that only hold others have no entry, and
    what is called from a command line is on the page of the commands."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path
             for path in LIBRARY.rglob("*.py") if path.name != "__main__.py"}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    return {k: v for k, v in names.items() if k not in ("replication", "replication.papers")}


def shown():
    return [name for text in PAGES.values()
            for name in re.findall(r"^\.\. automodule:: (\S+)$", text, re.MULTILINE)]


def test_every_module_is_on_one_page():
    assert sorted(shown()) == sorted(modules()), "book/api/*.md: one automodule for each module"


def test_every_page_is_in_the_table_of_contents():
    contents = (ROOT / "book" / "_toc.yml").read_text()
    listed = re.findall(r"file: api/(\w+)", contents)
    assert sorted(listed) == sorted(PAGES)


@pytest.mark.parametrize("name", modules())
def test_what_is_public_says_what_it_is(name):
    tree = ast.parse(modules()[name].read_text())
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)
              and not node.name.startswith("_")]
    assert ast.get_docstring(tree)
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_the_example_prints_what_the_page_says():
    text = PAGES["index"]
    source, said = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)[1]
                    for kind in ("python", "text"))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(source, {})
    assert printed.getvalue() == said


# --------------------------------------------------------------------------- names and fields


SOURCE = '''
"""A module."""
from dataclasses import dataclass
from typing import NamedTuple

Alias = dict[str, "a b"]
"""What it is."""
LONG = "LETTERS"

@dataclass
class Options:
    """Some."""

    rate: float = 0.1  # of `step`, mAP@200
    _hidden: int = 1
    name: str = "a"  # noqa: N815

class Place(NamedTuple):
    """Where."""

    row: int  # from 0

def step(batch, other):
    """One."""

def bare():
    pass

def _private():
    """Not shown."""
'''.replace("LETTERS", "x" * 200)


@pytest.fixture
def module(tmp_path, monkeypatch):
    file = tmp_path / "made.py"
    file.write_text(SOURCE)
    made = types.ModuleType("made")
    made.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "made", made)
    monkeypatch.setattr(api_docs, "LIBRARY", "made")
    exec(compile(SOURCE, str(file), "exec"), vars(made))
    return made


def docstring(module, text, what="function", name="made.step", obj=None):
    lines = text.splitlines()
    api_docs.show_docstring(None, what, name, obj or module.step, None, lines)
    return "\n".join(lines)


@pytest.mark.parametrize(("written", "made"), [
    ("`Options` and `step()`", ":py:obj:`Options <made.Options>` and :py:obj:`step() <made.step>`"),
    ("`batch` is its own", "``batch`` is its own"),
    ("`_private`, `bare`, `nobody`", "``_private``, ``bare``, ``nobody``"),
    ("`a + b`", "``a + b``"),
    ("`over\nlines`", "``over lines``"),
    ("``already`` code", "``already`` code"),
    ("mAP@200 in `mAP@all`", r"mAP\@200 in ``mAP@all``"),
])
def test_names_in_backticks_are_links_or_code(module, written, made):
    assert docstring(module, written) == made


def test_a_parameter_is_no_link_even_where_a_function_has_its_name(module):
    module.batch = module.step
    assert docstring(module, "`batch`") == "``batch``"


def test_a_class_of_fields_lists_them_with_their_comments(module):
    text = docstring(module, "Some.", "class", "made.Options", module.Options)
    assert text.splitlines()[2:] == [
        r"- ``rate: float = 0.1``: of ``step``, mAP\@200", '- ``name: str = "a"``']
    assert api_docs.show_signature(None, "class", "", module.Options, None, "(x)", "") == ("", None)
    assert api_docs.show_signature(None, "function", "", module.step, None, "(x)", "") is None


def test_a_named_tuple_lists_its_fields_once(module):
    text = docstring(module, "Where.", "class", "made.Place", module.Place)
    assert text.splitlines()[2:] == ["- ``row: int``: from 0"]
    assert api_docs.skip_alias(None, "class", "row", module.Place.row, False, None)
    assert api_docs.skip_alias(None, "class", "step", module.step, False, None) is None


def test_what_pydantic_makes_of_a_type_is_not_shown():
    tree = new_document("x")
    texts = ("alias of tuple[str]", "alias of Annotated[int, FieldInfo(required=True)]", "A text.")
    tree += [nodes.paragraph(text=text) for text in texts]
    api_docs.without_internals(None, tree)
    assert [p.astext() for p in tree.findall(nodes.paragraph)] == [texts[0], texts[2]]


def test_a_constant_shows_its_source_where_it_is_short(module):
    text = docstring(module, "What it is.", "data", "made.Alias", {})
    assert text.splitlines()[2] == '``Alias = dict[str, "a b"]``'
    assert docstring(module, "Long.", "data", "made.LONG", "") == "Long."


def test_a_module_says_how_it_is_imported(module):
    assert docstring(module, "A module.", "module", "made", module).splitlines()[0] == "``made``"


# ------------------------------------------------------------------------------------ built


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """One page built as the book builds it: (text of the page, warnings)."""
    sphinx = pytest.importorskip("sphinx.application")
    from sphinx.util.docutils import docutils_namespace

    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    own = {k: v for k, v in config.items()
           if k.startswith(("autodoc_", "python_", "add_module", "nitpick_", "toc_object"))}
    folder = tmp_path_factory.mktemp("api")
    (folder / "index.rst").write_text("A\n=\n\n.. automodule:: replication.losses\n\n"
                                      ".. automodule:: replication.metrics\n")
    warnings = io.StringIO()
    with docutils_namespace():
        app = sphinx.Sphinx(folder, None, folder / "out", folder / "trees", "text", {
            "extensions": ["sphinx.ext.autodoc", "api_docs"], "nitpicky": True, **own},
            status=None, warning=warnings)
        app.build()
        objects = {name for name, *_ in app.env.get_domain("py").get_objects()}
    return (folder / "out/index.txt").read_text(), warnings.getvalue(), objects


def test_a_built_page_has_no_warning(built):
    assert built[1] == ""


def test_shapes_can_be_read(built):
    text = built[0]
    assert "scores: Float[Tensor, 'query gallery']," in text
    assert "-> Float[Tensor, 'query']" in text and "jaxtyping." not in text
    assert '"n_gallery: Int[Tensor, "query"]": valid items that were ranked' in text


def test_functions_methods_and_aliases_are_there_once_and_private_ones_are_not(built):
    assert {"replication.metrics.average_precision", "replication.metrics.Ranks.above_zero",
            "replication.metrics.Relevance", "replication.losses.triplet"} <= built[2]
    assert not [name for name in built[2] if "._" in name]
    assert built[0].count("median_rank(") == 1
