"""Vector figures of the book's own pages, each drawn twice: for a light page and for a dark one.

Colours are seaborn's colour-blind ones, and whatever a colour says a mark or a word says too. Never
imports torch.
"""

import io
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib
import seaborn as sns
from matplotlib.figure import Figure

from replication import paths

# What a page of the theme has: text, lines of a grid; the first colour, whose blue of seaborn's is
# hardly seen on a dark page.
THEMES = {"light": {"text": "#22313f", "grid": "#d5dae0", "first": "#0173b2"},
          "dark": {"text": "#e6e9ee", "grid": "#48505a", "first": "#56b4e9"}}


def style(theme: str) -> dict[str, object]:
    """matplotlib's settings for one theme; the background is the page's own."""
    text, grid = THEMES[theme]["text"], THEMES[theme]["grid"]
    colours = sns.color_palette("colorblind").as_hex()
    colours[0] = THEMES[theme]["first"]
    return sns.plotting_context("notebook") | sns.axes_style("whitegrid") | {
        "axes.prop_cycle": matplotlib.cycler(color=colours),
        "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
        "text.color": text, "axes.labelcolor": text, "axes.titlecolor": text,
        "xtick.color": text, "ytick.color": text, "xtick.labelcolor": text,
        "ytick.labelcolor": text, "axes.edgecolor": grid, "grid.color": grid,
        "axes.linewidth": 0.8, "grid.linewidth": 0.6, "axes.titlesize": 11, "axes.labelsize": 10,
        "xtick.labelsize": 9, "ytick.labelsize": 9,
        "legend.fontsize": 9, "legend.frameon": False, "svg.hashsalt": "replication"}


def drawn(draw: Callable[[], Figure], theme: str) -> bytes:
    """The SVG of a figure in one theme; `draw` makes it with `Figure`, not with pyplot, and leaves
    the colours of text and lines to the style."""
    file = io.BytesIO()
    with matplotlib.rc_context(style(theme)):
        draw().savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return file.getvalue()


def pair(generated: Path, name: str, draw: Callable[[], Figure], alt: str, caption: str = "",
         narrow: bool = False) -> tuple[list[Path], str]:
    """Writes `<name>-light.svg` and `<name>-dark.svg` to the folder of generated pages: the files,
    and the markdown that shows the one that fits the reader's page. `alt` says what a reader who
    does not see the figure would miss."""
    files, shown = [], []
    for theme in THEMES:
        files.append(paths.write_atomic(generated / f"{name}-{theme}.svg", drawn(draw, theme)))
        shown.append(image(f"{name}-{theme}.svg", alt, theme))
    return files, figure("".join(shown), caption, narrow)


def image(file: str, alt: str, theme: str = "") -> str:
    """Markdown of one generated picture, of one theme only where it is named."""
    only = f":class: only-{theme}\n" if theme else ""
    return f"```{{image}} /_generated/{file}\n:alt: {alt}\n{only}```\n"


def figure(images: str, caption: str = "", narrow: bool = False) -> str:
    """Pictures and the line below them as one thing; on a phone it scrolls but where it is
    narrow."""
    kind = "book-figure narrow" if narrow else "book-figure"
    return f"::::{{container}} {kind}\n{images}{caption and chr(10) + caption + chr(10)}::::\n"


# The colours that the drawn architectures use, and what they are on a dark page.
DARK = {"#ffffff": "#14181e", "#fafafa": "#1a2027", "#f3f4f6": "#232a33", "#e5e7eb": "#2f3843",
        "#e8eef5": "#22303f", "#111": "#e6e9ee", "#444": "#b9c0c9", "#8a8f98": "#9aa3ad",
        "#fdf0d9": "#4a3712", "#e3f4ec": "#12392d", "#d3eee5": "#17493c", "#d6e6f2": "#153a55",
        "#017a59": "#4fd1a5", "#029e73": "#35c49a", "#0173b2": "#5ab4e6", "#c0399f": "#e07cc6",
        "#de8f05": "#de8f05"}


def dark_twin(svg: str) -> str:
    """A drawing of the book for a dark page: the same shapes in other colours. KeyError names a
    colour that has no dark one."""
    return re.sub(r"#(?:[0-9a-f]{6}|[0-9a-f]{3})\b", lambda m: DARK[m[0]], svg)
