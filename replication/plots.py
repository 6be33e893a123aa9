"""The book's pictures: one style, colour-blind safe, a mark beside every colour."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from PIL import Image

from replication.transforms import read_image

RIGHT, WRONG, NEUTRAL = "#029e73", "#d55e00", "#56606b"
sns.set_theme("notebook", "whitegrid", "colorblind", rc={
    "figure.dpi": 96, "savefig.dpi": 96, "figure.facecolor": "white", "axes.titlesize": 11,
    "axes.labelsize": 10, "legend.frameon": False})


def curves(history: Sequence[dict[str, float]], panels: dict[str, Sequence[str]]) -> plt.Figure:
    """One panel a title, one line a log column, against the epoch. Percent columns hold '@'."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), squeeze=False)
    epochs = [row["epoch"] for row in history]
    for axis, (title, columns) in zip(axes[0], panels.items(), strict=True):
        for column in (c for c in columns if c in history[-1]):
            axis.plot(epochs, [row[column] for row in history], marker="o", ms=3, label=column)
        percent = any("@" in c for c in columns)
        axis.set(title=title, xlabel="epoch", ylabel="percent" if percent else "loss (nats)")
        axis.legend(fontsize=8)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.tight_layout()
    return _done(figure)


def framed(axis: plt.Axes, picture: Image.Image | np.ndarray, right: bool | None,
           title: str = "") -> None:
    """A picture with a green frame and a tick, a red one and a cross, or grey (None)."""
    colour = NEUTRAL if right is None else RIGHT if right else WRONG
    mark = "" if right is None else "✓ " if right else "✗ "
    axis.imshow(picture)
    axis.set_title(mark + title, fontsize=8, color=colour, pad=3)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.5)


def ranked(rows: Sequence[tuple[Path, str, Sequence[tuple[Path, bool | None, str]]]],
           side: int = 112) -> plt.Figure:
    """Ranked results: a row a query (file, class), then its photos (file, right or not, class).

    Pictures are shown at `side` pixels; best first, from the left.
    """
    width = 1 + max(len(photos) for _, _, photos in rows)
    figure, axes = plt.subplots(len(rows), width, figsize=(1.15 * width, 1.4 * len(rows)),
                                squeeze=False)
    for line, (query, name, photos) in zip(axes, rows, strict=True):
        framed(line[0], _small(query, side), None, f"query: {name or 'own picture'}")
        for axis, (file, right, title) in zip(line[1:], photos, strict=False):
            framed(axis, _small(file, side), right, title)
        for axis in line[1 + len(photos):]:
            axis.set_axis_off()
    figure.tight_layout(pad=0.4)
    return _done(figure)


def _done(figure: plt.Figure) -> plt.Figure:
    plt.close(figure)  # a notebook shows what it is given, not every open figure once more
    return figure


def _small(file: Path, side: int) -> Image.Image:
    picture = read_image(file)
    picture.thumbnail((side, side))
    return picture


def pictures(columns: dict[str, np.ndarray], most: int = 8) -> plt.Figure:
    """The first pictures of a batch, a row a name: what the model is given. 0..1, (b, h, w, 3)."""
    count = min(most, *(len(c) for c in columns.values()))
    figure, axes = plt.subplots(len(columns), count, squeeze=False,
                                figsize=(1.1 * count, 1.15 * len(columns)))
    for line, (name, batch) in zip(axes, columns.items(), strict=True):
        for axis, picture in zip(line, batch, strict=False):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
        line[0].set_ylabel(name, fontsize=9)
    figure.tight_layout(pad=0.3)
    return _done(figure)


def bars(values: dict[str, dict[str, tuple[float, float, float]]], ylabel: str = "percent"
         ) -> plt.Figure:
    """Groups of bars with intervals: group -> bar -> (value, low, high)."""
    figure, axis = plt.subplots(figsize=(7.2, 3.4))
    names = list(dict.fromkeys(n for group in values.values() for n in group))
    step = 0.8 / len(names)
    for i, name in enumerate(names):
        place = [g + i * step for g, group in enumerate(values.values()) if name in group]
        found = np.array([group[name] for group in values.values() if name in group])
        error = np.abs(found[:, 1:] - found[:, :1]).T
        axis.bar(place, found[:, 0], step * 0.92, label=name, yerr=error, capsize=2,
                 error_kw={"linewidth": 1})
    axis.set_xticks([g + 0.4 - step / 2 for g in range(len(values))], list(values))
    axis.set_ylabel(ylabel)
    axis.grid(False, axis="x")
    axis.legend(fontsize=8, ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, 1.16))
    figure.tight_layout()
    return _done(figure)


def differences(table: pd.DataFrame) -> plt.Figure:
    """A dot a choice: its difference to the first row, in points, with the spread over seeds of
    the two as a line. `table` as `switches.run_all` returns it."""
    rows = table.iloc[1:][::-1]
    base = table["spread"].fillna(0).iloc[0]
    figure, axis = plt.subplots(figsize=(7.2, 0.6 + 0.32 * len(rows)))
    spread = np.hypot(rows["spread"].fillna(0), base)
    axis.errorbar(rows["difference"], range(len(rows)), xerr=spread, fmt="o", capsize=3)
    axis.axvline(0, color=NEUTRAL, linewidth=1)
    axis.set_yticks(range(len(rows)), rows.index)
    axis.set_xlabel(f"difference in mAP@all to {table.index[0]} (points)")
    figure.tight_layout()
    return _done(figure)
