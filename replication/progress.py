"""A progress bar that stays one line: in a terminal, in JupyterLab and in papermill's output."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


class _NotebookLine:
    """A file whose last written line is shown in place, through one updated display."""

    def __init__(self):
        from IPython.display import display

        self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        if text.strip():
            self.handle.update({"text/plain": text.strip("\r\n ")}, raw=True)

    def flush(self) -> None:
        pass


def in_notebook() -> bool:
    """True in a Jupyter kernel, papermill's included."""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return bool(shell) and "kernel" in type(shell).__module__


def shown_in_place(picture, handle=None):
    """Shows a picture in a notebook, in the place of the one that `handle` stands for; returns
    the handle. Elsewhere it does nothing."""
    if not in_notebook():
        return None
    from IPython.display import display

    if handle is None:
        return display(picture, display_id=True)
    handle.update(picture)
    return handle


def bar(iterable: Iterable | None = None, *, total: int | None = None, label: str = "",
        unit: str = "it", shown: bool = True) -> tqdm:
    """tqdm, written so that an executed notebook keeps the last state and nothing else."""
    notebook = shown and in_notebook()
    return tqdm(iterable, total=total, desc=label, unit=unit, disable=not shown, ascii=notebook,
                file=_NotebookLine() if notebook else sys.stderr,
                mininterval=1.0 if notebook else 0.2, ncols=88, dynamic_ncols=False)
