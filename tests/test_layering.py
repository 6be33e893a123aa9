"""Who imports whom, read from the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parent.parent / "replication"
TORCH_FREE = ["report", "comparison", "records", "published", "notebooks", "paths"]
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
                module = f"{package}.{module}".rstrip(".")
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= names if module in ("replication", "replication.papers") else {module}
    return found


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


def test_papers_never_import_each_other():
    for path in (LIBRARY / "papers").glob("*.py"):
        others = {name for name in imports(path.read_text(), "replication.papers")
                  if ".papers" in name}
        assert others <= {f"replication.papers.{path.stem}"}, path.name


def test_the_library_never_imports_a_paper():
    for path in LIBRARY.glob("*.py"):
        assert not {n for n in imports(path.read_text()) if ".papers" in n}, path.name


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
