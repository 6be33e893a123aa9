"""Who imports whom, read from the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parent.parent / "replication"
TORCH_FREE = ["report", "comparison", "records", "published", "notebooks", "paths", "datasets",
              "dataset_pages", "check_pages", "pictures", "figures", "result_pages",
              "metric_pages", "against_code", "chapter_tables", "ranked_pages", "energy",
              "run_facts", "command_pages", "citing_pages", "running_pages", "published_cells",
              "cell_table", "own_runs", "deviations", "effect_words"]
# What brings torch in when it is imported.
TORCH = {"torch", "torchvision", "open_clip", "timm", "torchmetrics", "lightning_fabric",
         "lightning", "transformers"}


def imports(source: str, package: str = "replication") -> set[str]:
    """Dotted names that a source of `package` imports, `from replication import x` as the module.
    """
    tree, found = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = package.split(".")[:len(package.split(".")) - node.level + 1]
                module = ".".join([*above, *filter(None, [module])])
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= names if module in ("replication", "replication.papers") else {module}
    return found


def papers_in(source: str, package: str = "replication") -> set[str]:
    """Papers (`clip_prompt`, `acnet`) that a source of `package` imports, parts of one as it."""
    names = (name.split(".") for name in imports(source, package))
    return {name[2] if len(name) > 2 else "" for name in names
            if name[:2] == ["replication", "papers"]}


def file_of(module: str) -> Path | None:
    """The library's file that a dotted name stands for, None where it is another package's."""
    if module.split(".")[0] != "replication":
        return None
    path = LIBRARY.joinpath(*module.split(".")[1:])
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def reached(start: Path) -> dict[str, str]:
    """Foreign packages that importing a file reaches inside the library: name -> by which file."""
    found, seen, waiting = {}, set(), [start]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imports(path.read_text()):
            inside = file_of(module)
            if inside:
                waiting.append(inside)
            else:
                found[module.split(".")[0]] = path.name
    return found


@pytest.mark.parametrize("module", TORCH_FREE)
def test_no_torch_in_what_the_book_is_built_with(module):
    found = reached(LIBRARY / f"{module}.py")
    assert not TORCH & set(found), {name: found[name] for name in TORCH & set(found)}


def test_no_torch_in_a_fresh_process():
    names = ", ".join(f"replication.{name}" for name in [*TORCH_FREE, "__main__"])
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=LIBRARY.parent, check=True)


def test_metrics_need_only_torch_and_numpy():
    found = {name.split(".")[0] for name in imports((LIBRARY / "metrics.py").read_text())}
    assert found - set(sys.stdlib_module_names) <= {"torch", "numpy", "jaxtyping"}


PAPERS = LIBRARY / "papers"
PAPER_FILES = sorted(PAPERS.rglob("*.py"))


@pytest.mark.parametrize("path", PAPER_FILES, ids=lambda p: str(p.relative_to(PAPERS)))
def test_papers_never_import_each_other(path):
    inside = path.relative_to(PAPERS)
    package = ".".join(("replication.papers", *inside.parts[:-1]))
    own = {inside.with_suffix("").parts[0]}
    assert papers_in(path.read_text(), package) <= own, inside


def test_every_file_of_every_paper_is_looked_at():
    found = {str(path.relative_to(PAPERS)) for path in PAPER_FILES}
    assert {"clip_prompt.py", "acnet/__init__.py", "acnet/networks.py"} <= found


def test_the_library_never_imports_a_paper():
    for path in LIBRARY.rglob("*.py"):
        if PAPERS not in path.parents:
            package = ".".join(("replication", *path.relative_to(LIBRARY).parts[:-1]))
            assert not papers_in(path.read_text(), package), path.name


@pytest.mark.parametrize(("source", "found"), [
    ("from replication import paths, report", {"replication.paths", "replication.report"}),
    ("from . import acnet", {"replication.acnet"}),
    ("from .acnet import Config", {"replication.acnet"}),
    ("def f():\n    import torch.nn as nn", {"torch.nn"}),
    ("from replication.papers.acnet import Config", {"replication.papers.acnet"}),
])
def test_every_spelling_of_an_import_is_seen(source, found):
    assert imports(source) == found


def test_a_relative_import_counts_from_its_package():
    assert imports("from . import acnet", "replication.papers") == {"replication.papers.acnet"}


@pytest.mark.parametrize(("source", "package", "found"), [
    ("from replication.papers.acnet.networks import ACNet", "replication.papers", {"acnet"}),
    ("from replication.papers import acnet, clip_prompt", "replication",
     {"acnet", "clip_prompt"}),
    ("import replication.papers.acnet.config as c", "replication", {"acnet"}),
    ("from .networks import ACNet", "replication.papers.acnet", {"acnet"}),
    ("from . import clip_prompt", "replication.papers", {"clip_prompt"}),
    ("from .. import clip_prompt", "replication.papers.acnet", {"clip_prompt"}),
    ("from ..clip_prompt import Config", "replication.papers.acnet", {"clip_prompt"}),
    ("from ...papers import acnet", "replication.papers.clip", {"acnet"}),
    ("import replication.papers", "replication", {""}),
    ("from replication import paths, papers", "replication", {""}),
    ("from ... import losses", "replication.papers.acnet", set()),
])
def test_a_paper_is_seen_in_every_spelling(source, package, found):
    assert papers_in(source, package) == found
