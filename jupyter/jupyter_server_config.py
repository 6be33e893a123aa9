"""Source notebooks are saved without outputs, so that a changed number is the whole diff.

Applies to servers started by `make lab`. Notebooks in a run, record or build folder are results
and are saved as they are.
"""

import warnings
from pathlib import Path

import nbformat
from nbstripout import strip_output

BOOK = Path(__file__).resolve().parent.parent / "book"
RESULTS = {"runs", "records", "_build", "_generated"}


def is_source(path):
    """Whether a file is a notebook of the book that belongs into version control."""
    path = Path(path).resolve()
    if path.suffix != ".ipynb" or not path.is_relative_to(BOOK):
        return False
    return RESULTS.isdisjoint(path.relative_to(BOOK).parts)


def strip_source(model, path, contents_manager, **_):
    """Take outputs and execution counts from a source notebook about to be written.

    Jupyter's `pre_save_hook`: `path` is relative to the server's root and `model` is changed in
    place. The interpreter's exact version goes too: it differs between readers' machines.
    """
    file = Path(contents_manager.root_dir, path.strip("/"))
    if model["type"] != "notebook" or not is_source(file):
        return
    model["content"] = strip_output(
        nbformat.from_dict(model["content"]),
        keep_output=False,
        keep_count=False,
        keep_id=True,
        extra_keys=["metadata.language_info.version"],
    )


# JupyterLab applies its configuration twice, and would warn that the hook replaces itself.
warnings.filterwarnings("ignore", "Overriding existing pre_save_hook")
c.ContentsManager.pre_save_hook = strip_source
