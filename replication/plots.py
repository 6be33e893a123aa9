"""The book's pictures: one style, colour-blind safe, a mark beside every colour."""

import base64
import html
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator
from PIL import Image

from replication.transforms import read_image

RIGHT, WRONG, NEUTRAL = "#029e73", "#d55e00", "#56606b"
sns.set_theme("notebook", "whitegrid", "colorblind", rc={
    "figure.dpi": 96, "savefig.dpi": 88, "svg.hashsalt": "replication",
    "figure.facecolor": "white", "axes.titlesize": 11, "axes.labelsize": 10,
    "legend.frameon": False})


class Picture:
    """A figure as a notebook shows it: one image with a text for those who do not see it.

    kind `svg` for lines, `jpeg` for photographs (a tenth of the bytes).
    """

    def __init__(self, figure: plt.Figure, alt: str, kind: str = "svg"):
        self.figure, self.alt, self.kind = figure, alt, kind

    def _repr_html_(self) -> str:
        file = io.BytesIO()
        options = {"svg": {"metadata": {"Date": None}}, "jpeg": {"pil_kwargs": {"quality": 82}}}
        self.figure.savefig(file, format=self.kind, **options[self.kind])
        code = base64.b64encode(file.getvalue()).decode()
        mime = {"svg": "svg+xml"}.get(self.kind, self.kind)
        source = f"data:image/{mime};base64,{code}"
        return f'<img class="plot" alt="{html.escape(self.alt)}" src="{source}">'


def curves(history: Sequence[dict[str, float]], panels: dict[str, Sequence[str]]) -> Picture:
    """One panel a title, one line a log column, against the epoch. Columns are losses, but in
    percent where they hold '@' or begin with "val ". Two panels a row, keys below them."""
    panels = {title: [c for c in columns if c in history[-1]] for title, columns in panels.items()}
    panels = {title: columns for title, columns in panels.items() if columns}
    across, down = min(2, len(panels)), -(-len(panels) // 2)
    figure, axes = plt.subplots(down, across, figsize=(4.2 * across, 3.6 * down), squeeze=False,
                                layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12)
    epochs = [row["epoch"] for row in history]
    for axis in axes.flat[len(panels):]:
        axis.set_axis_off()
    for axis, (title, columns) in zip(axes.flat, panels.items(), strict=False):
        for column in columns:
            values = [row.get(column, np.nan) for row in history]
            axis.plot(epochs, values, marker="o", ms=3, label=column)
        percent = any("@" in c or c.startswith("val ") for c in columns)
        axis.set(title=title, xlabel="epoch", ylabel="percent" if percent else "loss")
        axis.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    last = ", ".join(f"{c} {history[-1][c]:.2f}" for cs in panels.values() for c in cs)
    return _done(figure, f"Curves over {len(epochs)} epochs; at the end {last}")


def framed(axis: plt.Axes, picture: Image.Image | np.ndarray, right: bool | None,
           title: str = "") -> None:
    """A picture with a green frame and a tick, an orange one and a cross, or grey (None)."""
    colour = NEUTRAL if right is None else RIGHT if right else WRONG
    mark = "" if right is None else "✓ " if right else "✗ "
    axis.imshow(picture)
    words = textwrap.fill(mark + title.replace("_", " "), 13, break_long_words=False)
    axis.set_title(words, fontsize=11, color=colour, pad=3)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set(visible=True, color=colour, linewidth=2.5)


def ranked(rows: Sequence[tuple[Path, str, Sequence[tuple[Path, bool | None, str]]]],
           side: int = 96) -> Picture:
    """Ranked results: a row a query (file, class), then its photos (file, right or not, class).

    Pictures are shown at `side` pixels; best first, from the left.
    """
    width = 1 + max(len(photos) for _, _, photos in rows)
    figure, axes = plt.subplots(len(rows), width, figsize=(1.15 * width, 1.6 * len(rows)),
                                squeeze=False, layout="constrained")
    for line, (query, name, photos) in zip(axes, rows, strict=True):
        framed(line[0], _small(query, side), None, f"query: {name or 'own picture'}")
        for axis, (file, right, title) in zip(line[1:], photos, strict=False):
            framed(axis, _small(file, side), right, title)
        for axis in line[1 + len(photos):]:
            axis.set_axis_off()
    told = "; ".join(f"{name or 'own picture'}: {sum(bool(r) for _, r, _ in photos)} of "
                     f"{len(photos)} right" for _, name, photos in rows)
    return _done(figure, f"Queries and their first photos, best first. {told}", "jpeg")


def mosaic(columns: dict[str, Sequence[tuple[np.ndarray, bool | None]]], rows: Sequence[str],
           side: int = 72) -> Picture:
    """Small pictures in a grid, a column a title: (picture (h, w, 3) in 0..1, right, wrong or
    None). One raster, so that it is quick enough to be drawn anew each epoch."""
    tile, edge = side + 8, 3
    canvas = np.ones((tile * len(rows), tile * len(columns), 3))
    label = 0.09 * max(map(len, rows))  # inches
    figure, axis = plt.subplots(layout="constrained", figsize=(
        canvas.shape[1] / 88 + label + 0.2, canvas.shape[0] / 88 + 0.4))
    for x, column in enumerate(columns.values()):
        for y, (picture, right) in enumerate(column):
            colour = {True: RIGHT, False: WRONG, None: "white"}[right]
            top, left = y * tile, x * tile
            canvas[top + 1:top + tile - 1, left + 1:left + tile - 1] = to_rgb(colour)
            inner = slice(top + 1 + edge, top + 1 + edge + side), \
                slice(left + 1 + edge, left + 1 + edge + side)
            canvas[inner] = _resized(picture, side)
            if right is not None:
                axis.text(left + tile - 4, top + 4, "✓" if right else "✗", fontsize=8, ha="right",
                          va="top", color="white", bbox={"color": colour, "pad": 1})
    axis.imshow(canvas, interpolation="none")
    axis.set_xticks(tile * (np.arange(len(columns)) + 0.5), list(columns), fontsize=8)
    axis.set_yticks(tile * (np.arange(len(rows)) + 0.5), list(rows), fontsize=8)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.grid(False)
    axis.set_frame_on(False)
    marks = {name: [r for _, r in column if r is not None] for name, column in columns.items()}
    told = ", ".join(f"{name}: {sum(m)} of {len(m)} right" for name, m in marks.items() if m)
    return _done(figure, f"A grid of pictures; columns {', '.join(columns)}; rows "
                         f"{', '.join(dict.fromkeys(rows))}. {told}", "jpeg")


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
    image = Image.fromarray((255 * picture).round().astype(np.uint8))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) / 255


def _done(figure: plt.Figure, alt: str, kind: str = "svg") -> Picture:
    plt.close(figure)  # a notebook shows what it is given, not every open figure once more
    return Picture(figure, alt, kind)


def _small(file: Path, side: int) -> Image.Image:
    picture = read_image(file)
    picture.thumbnail((side, side))
    return picture


def pictures(columns: dict[str, np.ndarray], most: int = 8) -> Picture:
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
    return _done(figure, f"The first {count} pictures of a batch: {', '.join(columns)}", "jpeg")


def matches(rows: Sequence, titles: Sequence[str], k: int = 8) -> Picture:
    """Why pairs match, a row a pair: where the class token looks in the sketch and in the photo
    (brighter is more), the `k` strongest correspondences of patches as lines, and the sketch made
    of the photo's patches.

    rows: objects with sketch, photo (h w 3, 0..1), sketch_attention, photo_attention, `lines(k)`
    and `synthesis()`; titles: a word on each.
    """
    figure, axes = plt.subplots(len(rows), 4, squeeze=False, layout="constrained",
                                figsize=(8.4, 1.9 * len(rows)),
                                width_ratios=(1, 1, 2.2, 1))
    for line, pair, title in zip(axes, rows, titles, strict=True):
        for axis in line:
            axis.set_axis_off()
        for axis, picture, weight in zip(line, (pair.sketch, pair.photo),
                                         (pair.sketch_attention, pair.photo_attention),
                                         strict=False):
            _lit(axis, picture, weight)
        _joined(line[2], pair, k)
        line[3].imshow(pair.synthesis())
        line[0].set_title(title, fontsize=9, loc="left", pad=3)
    for axis, name in zip(axes[0, 1:], ("attention", "correspondences", "made of the photo"),
                          strict=True):
        axis.set_title(name, fontsize=9, pad=3)
    return _done(figure, f"A row a pair ({'; '.join(titles)}): attention in sketch and photo, "
                         f"the {k} strongest correspondences as lines, the sketch made of photo "
                         "patches", "jpeg")


def _lit(axis: plt.Axes, picture: np.ndarray, weight: np.ndarray) -> None:
    """The picture under its attention, as bright as the square root of the weight's share."""
    light = np.sqrt(weight / weight.max())
    light = np.asarray(Image.fromarray((255 * light).astype(np.uint8)).resize(
        picture.shape[1::-1], Image.Resampling.BICUBIC)) / 255
    axis.imshow(picture * (0.25 + 0.75 * light[..., None]))


def _joined(axis: plt.Axes, pair, k: int) -> None:
    """Sketch and photo side by side, lines between the middles of matched patches; each line has
    its own colour and its number at both ends, 1 the strongest."""
    height, width = pair.sketch.shape[:2]
    gap = width // 5
    axis.imshow(np.concatenate([pair.sketch, np.ones((height, gap, 3)), pair.photo], axis=1))
    side, lines = len(pair.sketch_attention), pair.lines(k)
    step = width / side
    colours = sns.color_palette("colorblind", len(lines))
    for number, ((i, j), colour) in enumerate(zip(lines, colours, strict=True), 1):
        start = ((i % side + 0.5) * step, (i // side + 0.5) * step)
        end = ((j % side + 0.5) * step + width + gap, (j // side + 0.5) * step)
        axis.plot(*zip(start, end, strict=True), color=colour, lw=1.3, marker="o", ms=3)
        for (x, y), across in ((start, "right"), (end, "left")):
            axis.annotate(str(number), (x, y), fontsize=6, ha=across, va="bottom", color="black",
                          bbox={"color": "white", "alpha": 0.6, "pad": 0.4})


def differences(table: pd.DataFrame, metric: str = "mAP@all") -> Picture:
    """A dot a choice: its difference to the first row, in points, with the spread over seeds of
    the two as a bar. `table` as `switches.run_all` returns it."""
    rows = table.iloc[1:][::-1]
    base = table["spread"].fillna(0).iloc[0]
    figure, axis = plt.subplots(figsize=(7.2, 1.3 + 0.32 * len(rows)))
    spread = np.hypot(rows["spread"].fillna(0), base)
    axis.errorbar(rows["difference"], range(len(rows)), xerr=spread, fmt="o", capsize=3)
    axis.axvline(0, color=NEUTRAL, linewidth=1)
    axis.set_yticks(range(len(rows)), rows.index)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4))  # five ticks at most
    axis.set_xlabel(f"difference in {metric} from '{table.index[0]}', points\n"
                    "bars: spread over seeds")
    figure.tight_layout()
    told = ", ".join(f"{name} {row['difference']:+.1f}" for name, row in rows[::-1].iterrows())
    return _done(figure, f"Differences to {table.index[0]}, in points: {told}")


def image_text(rows: Sequence[tuple[str | Path, Sequence[tuple[str | Path, bool | None, float]]]],
               side: int = 128) -> Picture:
    """A row a query, a sentence or a picture, with what it found, best first: (picture or
    sentence, right, wrong or None, cosine). Pictures are framed, sentences listed."""
    heights = [1.5 if isinstance(found[0][0], Path) else max(1.5, 0.3 + 0.2 * len(found))
               for _, found in rows]
    figure = plt.figure(figsize=(9.4, sum(heights)), layout="constrained")
    grids = figure.add_gridspec(len(rows), 1, height_ratios=heights)
    for (query, found), line in zip(rows, grids, strict=True):
        pictures = isinstance(found[0][0], Path)
        widths = [1.6] + [1] * len(found) if pictures else [1.6, 6.4]
        axes = [figure.add_subplot(cell) for cell in line.subgridspec(
            1, len(widths), width_ratios=widths)]
        _asked(axes[0], query, side)
        if pictures:
            for axis, (file, right, score) in zip(axes[1:], found, strict=True):
                framed(axis, _small(file, side), right, f"{score:.2f}")
        else:
            _sentences(axes[1], found)
    told = "; ".join(f"{query if isinstance(query, str) else 'a picture'}: "
                     f"{sum(bool(r) for _, r, _ in found)} of {len(found)} right"
                     for query, found in rows)
    return _done(figure, f"Queries and what they found, best first. {told}", "jpeg")


def _asked(axis: plt.Axes, query: str | Path, side: int) -> None:
    if isinstance(query, Path):
        framed(axis, _small(query, side), None, "query")
        return
    axis.set_axis_off()
    axis.text(0, 0.5, textwrap.fill(query, 20), fontsize=10, va="center", transform=axis.transAxes)


def _sentences(axis: plt.Axes, found: Sequence[tuple[str, bool | None, float]]) -> None:
    axis.set_axis_off()
    step = 1 / max(len(found), 1)
    for place, (text, right, score) in enumerate(found):
        colour = NEUTRAL if right is None else RIGHT if right else WRONG
        mark = {True: "✓", False: "✗", None: " "}[right]
        shown = textwrap.shorten(text, 84, placeholder=" ...")
        axis.text(0, 1 - step * (place + 0.5), f"{mark} {score:.2f}  {shown}", fontsize=10,
                  color=colour, va="center", transform=axis.transAxes)


def composed(shown: Sequence[tuple[np.ndarray, str, Sequence[tuple[np.ndarray, bool | None]], str]]
             ) -> Picture:
    """A row a composed query: its reference picture, its text, then what it found, best first.

    shown: (reference, text, found, caption); found holds (picture, right, wrong or None), pictures
    are uint8 (h, w, 3) of any size. The caption stands under the text and may be empty: "target at
    3". A long text is cut.
    """
    most = max(len(found) for _, _, found, _ in shown)
    figure, axes = plt.subplots(len(shown), 2 + most, squeeze=False,
                                figsize=(1.15 * (most + 1) + 2.3, 1.55 * len(shown)),
                                width_ratios=[1.15, 2.3] + [1.15] * most)
    for line, (reference, text, found, caption) in zip(axes, shown, strict=True):
        framed(line[0], reference, None, "reference")
        _worded(line[1], text, caption)
        for place, axis in enumerate(line[2:]):
            if place < len(found):
                framed(axis, *found[place], str(place + 1))
            else:
                axis.set_axis_off()
    figure.tight_layout(pad=0.4)
    told = "; ".join(f"{text}: {', '.join(filter(None, (_place(found), caption)))}"
                     for _, text, found, caption in shown)
    return _done(figure, "Queries of a reference picture and a text, and what they found, best "
                         f"first. {told}", "jpeg")


def _place(found: Sequence[tuple[np.ndarray, bool | None]]) -> str:
    """Where the right ones stand among those shown; empty where right and wrong are not known."""
    marks = [right for _, right in found]
    places = ", ".join(str(place) for place, right in enumerate(marks, 1) if right)
    if places:
        return f"right at {places}"
    return f"not among the first {len(marks)}" if False in marks else ""


def _worded(axis: plt.Axes, text: str, caption: str) -> None:
    """A text over its caption, in the axis's middle."""
    axis.set_axis_off()
    lines = textwrap.fill(textwrap.shorten(text, 130, placeholder=" ..."), 26)
    place = {"fontsize": 10, "transform": axis.transAxes, "parse_math": False}
    if not caption:
        axis.text(0, 0.5, lines, va="center", **place)
        return
    # the caption's own height, in points, keeps it clear of the text's last line
    body = axis.text(0, 0.56, lines, va="center", **place)
    axis.annotate(caption, (0, 0), xycoords=body, xytext=(0, -3), textcoords="offset points",
                  fontsize=9, va="top", color=NEUTRAL, annotation_clip=False)


def recalls(rows: Sequence) -> Picture:
    """Recall at 1, 5 and 10 of every ranking, both directions, a dot each with its 95 % interval.
    rows: a record's metrics of one convention or more; the whole set's (one fold) are shown."""
    chosen = [m for m in rows if m.convention == "image_text" and "R@" in m.metric
              and m.metric != "mean_R@1"]
    names = list(dict.fromkeys(" ".join(filter(None, (m.variant, m.selection, m.protocol)))
                               for m in chosen))
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 0.9 + 0.32 * len(names)), sharey=True)
    for axis, (side, title) in zip(axes, (("i2t", "image to text"), ("t2i", "text to image")),
                                   strict=True):
        for k, marker in ((1, "o"), (5, "s"), (10, "D")):
            found = [m for m in chosen if m.metric == f"{side}_R@{k}"]
            values, low, high = (np.array([getattr(m, f) for m in found])
                                 for f in ("value", "low", "high"))
            axis.errorbar(values, range(len(found)), xerr=[values - low, high - values], ms=4,
                          fmt=marker, capsize=2, label=f"R@{k}")
        axis.set(title=title, xlabel="recall (percent)")
    axes[0].set_yticks(range(len(names)), names, fontsize=8)
    axes[0].invert_yaxis()
    axes[1].legend(fontsize=8)
    figure.tight_layout()
    return _done(figure, f"Recall of {', '.join(names)}")
