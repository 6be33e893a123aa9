"""Every published cell in one table, samples and demos apart, and the front page's state.

Never imports torch.
"""

import base64
import json
import re
from pathlib import Path
from textwrap import fill
from urllib.parse import urlencode

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from replication import figures, own_runs, paths
from replication.cell_table import MARKS, table_html
from replication.check_pages import table
from replication.published import Paper
from replication.published_cells import SHOWN, counted, csv_text, published_cells
from replication.records import RunRecord

# A colour and a pattern a status.
LOOKS = {"matched": ("C2", ""), "higher": ("C0", "//"), "lower": ("C1", "\\\\"),
         "not comparable": ("C4", "xx"), "not run": ("C7", ""), "quoted": ("none", "..")}
# Whose executed notebook the front page's ranked results are from.
RANKED = "clip_prompt/runs/demo.ipynb"
RANKED_ALT = ("Sketches of unseen classes and the eight photos that ClipPrompt ranks first for "
              "each: right ones framed green with a tick, wrong ones orange with a cross.")


def write(book: Path, papers: dict[str, Paper], records: dict[str, list[RunRecord]]) -> list[Path]:
    """The files of `_generated` that these pages include."""
    generated, names = book / "_generated", {n: p.known_as for n, p in papers.items()}
    cells = published_cells(book, papers, records)
    texts = {"published_cells.csv": csv_text(cells),
             "published_cells.html": table_html(cells, names),
             "state.md": state_html(cells, names), "state_words.md": state_words(cells),
             "tolerances.md": tolerances_markdown(papers, names),
             "run_first.md": run_first(cells, papers, names)}
    written = own_runs.write(book, names, records)
    if len(cells):
        files, shown = figures.pair(generated, "state", lambda: state_bars(cells, names),
                                    state_alt(cells, names), narrow=True)
        written, texts = written + files, texts | {"state_figure.md": shown}
    picture = last_picture(book / RANKED)
    if picture:
        written.append(paths.write_atomic(generated / "front_ranked.jpg", picture))
    texts["front_ranked.md"] = figures.image("front_ranked.jpg", RANKED_ALT) if picture else (
        "Not run yet: `python -m replication run clip_prompt/demo`.\n")
    return written + [paths.write_atomic(generated / name, text) for name, text in texts.items()]


def state_words(cells: pd.DataFrame) -> str:
    """The state in two sentences."""
    own = cells[cells.status != "quoted"]
    runnable = ((own.status == "not run") & (own.command != "")).sum()
    count = own.status.value_counts()
    told = ", ".join(f"{count[s]:,} {s}" for s in SHOWN if s in count)
    told = f"all {count.index[0]}" if len(count) == 1 else told
    return (f"{len(cells):,} published numbers are kept: {len(own):,} of these papers' methods "
            f"({told}) and {len(cells) - len(own):,} that are quoted from other methods. For "
            f"{runnable:,} of those not run there is a command; for the rest, the reason why there "
            "is none.\n")


def state_html(cells: pd.DataFrame, names: dict[str, str]) -> str:
    """How many cells of each paper have each status, every number linked to those cells."""
    counts = counted(cells)
    empty = {s: "" if counts[s].any() else ' class="none"' for s in SHOWN}  # hidden on a phone
    heads = "".join(f'<th scope="col"{empty[s]}>{_linked(s, status=s)}</th>' for s in SHOWN)
    rows = "\n".join(
        f'<tr><th scope="row">{_linked(names[paper], paper=paper)}</th>'
        + "".join(f"<td{empty[s]}>{_linked(f'{n:,}', paper=paper, status=s) if n else 0}</td>"
                  for s, n in row.items()) + f"<td>{row.sum():,}</td></tr>"
        for paper, row in counts.iterrows())
    total = "".join(f"<td{empty.get(s, '')}>{n:,}</td>"
                    for s, n in [*counts.sum().items(), ("all", counts.to_numpy().sum())])
    return ('<div class="state-box" tabindex="0" role="region" aria-label="State by paper">\n'
            f'<table class="state">\n<thead><tr><th scope="col">paper</th>{heads}'
            f'<th scope="col">all</th></tr></thead>\n<tbody>\n{rows}\n'
            f'<tr><th scope="row">all</th>{total}</tr>\n</tbody>\n</table>\n</div>\n')


def _linked(text: str, **chosen: str) -> str:
    return f'<a href="results.html?{urlencode(chosen)}#cells">{text}</a>'.replace("&", "&amp;")


def state_bars(cells: pd.DataFrame, names: dict[str, str]) -> Figure:
    """A bar a paper, its cells by status as parts of a hundred, with their numbers."""
    counts = counted(cells)
    share = 100 * counts.div(counts.sum(axis=1), axis=0)
    figure = Figure(figsize=(6.5, 0.9 + 0.45 * len(counts)), layout="constrained")
    axes = figure.subplots()
    left = 0 * share.iloc[:, 0]
    for status in [s for s in SHOWN if counts[s].any()]:
        colour, hatch = LOOKS[status]
        bars = axes.barh([fill(f"{names[p]} ({n:,})", 20) for p, n in counts.sum(axis=1).items()],
                         share[status], left=left, color=colour, hatch=hatch, height=0.7,
                         edgecolor="#808080", linewidth=0.8, label=f"{MARKS[status]} {status}")
        axes.bar_label(bars, [f"{n:,}" if w >= 6 else "" for n, w in
                              zip(counts[status], share[status], strict=True)],
                       label_type="center", color="black", fontsize=9,
                       bbox={"facecolor": "#ffffffcc", "edgecolor": "none", "pad": 1.5})
        left = left + share[status]
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xticks=[])
    axes.grid(visible=False)
    sns.despine(ax=axes, left=True, bottom=True)
    figure.legend(loc="outside lower center", ncols=6)
    return figure


def state_alt(cells: pd.DataFrame, names: dict[str, str]) -> str:
    """What a reader who does not see the bars would miss."""
    told = [f"{names[paper]}: " + ", ".join(f"{n:,} {s}" for s, n in row.items() if n)
            for paper, row in counted(cells).iterrows()]
    return f"Bars of the published numbers by status. {'; '.join(told)}."


def tolerances_markdown(papers: dict[str, Paper], names: dict[str, str]) -> str:
    """The tolerances of every paper, those of one size and reason together."""
    lines = []
    for name, paper in papers.items():
        alike: dict[tuple[float, str], list[str]] = {}
        for key, tolerance in paper.tolerances.items():
            alike.setdefault((tolerance.points, tolerance.reason), []).append(f"`{key}`")
        lines += [f"- {names[name]}, {', '.join(keys)}: **{points:g} points** ({reason})"
                  for (points, reason), keys in alike.items()]
    return "\n".join(lines) + "\n"


def run_first(cells: pd.DataFrame, papers: dict[str, Paper], names: dict[str, str]) -> str:
    """Of each paper the experiment that answers the most cells that are not run."""
    open_cells = cells[cells.status == "not run"]
    waiting = set(zip(open_cells.paper, open_cells.cell, strict=True))
    lines = []
    for name, paper in papers.items():
        answers = {e.name: sum((name, t) in waiting for t in e.targets) for e in paper.experiments}
        first = max(answers, key=answers.get, default="")
        if answers.get(first):
            lines.append([names[name], str(answers[first]), paper.experiment(first).requires,
                          f"`python -m replication run {name}/{first}`"])
    lines.sort(key=lambda line: -int(line[1]))
    return table(["paper", "numbers", "needs", "command"], lines, numbers=(1,))


def last_picture(notebook: Path) -> bytes:
    """The last JPEG that an executed notebook shows; empty for none."""
    if not notebook.is_file():
        return b""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    shown = "".join("".join(o.get("data", {}).get("text/html", "")) for c in cells
                    for o in c.get("outputs", []))
    found = re.findall(r"data:image/jpeg;base64,([^\"]+)", shown)
    return base64.b64decode(found[-1]) if found else b""
