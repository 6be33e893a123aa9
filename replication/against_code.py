"""The chapter "paper against code": every deviation of all papers, and what each does.

Never imports torch.
"""

import re
import textwrap
from pathlib import Path

from matplotlib.figure import Figure

from replication import figures, paths
from replication.deviations import Deviation, Effect, effect
from replication.effect_words import effect_cell, nil, numbers, plain, signed
from replication.published import Paper
from replication.records import RunRecord

PAGE = "paper_against_code"
MODULE = re.compile(r"automodule:: (\S+)")
BELOW = ("Effects are differences on the built-in doodles with their spread over seeds; a "
         "difference within its spread is called none. On which metric, against what, and why not, "
         f"is in [paper against code](/{PAGE}.md).")
FILE, CODE = re.compile(r"[\w./-]+\.(?:py|md|txt|npy)\b"), r"`\g<0>`"


def write(book: Path, papers: dict[str, Paper], records: dict[str, list[RunRecord]]) -> list[Path]:
    """The files of `_generated` that the page includes: counts, figure, what matters, table.

    Raises InvalidFile for a measurement whose list, row or column is not there.
    """
    papers = {name: paper for name, paper in papers.items() if paper.deviations}
    if not papers:
        return []
    found, folder = {name: effects(paper) for name, paper in papers.items()}, book / "_generated"
    names = {name: paper.known_as for name, paper in papers.items()}
    files, shown = figures.pair(folder, "against_code", lambda: drawn(found, names),
                                alt_text(found, names), CAPTION, narrow=True)
    pages = {"counts": counts(papers), "figure": shown, "matters": matters(papers, found),
             "table": table(papers, book)}
    return files + [paths.write_atomic(folder / f"against_code_{name}.md", text)
                    for name, text in pages.items()]


def effects(paper: Paper) -> list[tuple[Deviation, Effect]]:
    """Every measurement of a paper's deviations, each row of a list once, in their order."""
    seen, found = set(), []
    for deviation in paper.deviations:
        for measured in deviation.measured:
            made = effect(paper.folder, measured)
            key = measured.model_copy(update={"note": ""}).model_dump_json()
            if key not in seen:
                found.append((deviation, made))
            seen.add(key)
    return found


def counts(papers: dict[str, Paper]) -> str:
    """How many deviations there are, how many of them are measured."""
    every = [d for paper in papers.values() for d in paper.deviations]
    measured = sum(bool(d.measured or d.recorded) for d in every)
    without = sum(nil(d) for d in every)
    return (f"{len(every)} places in {len(papers)} papers: {measured} are measured below, "
            f"{without} have no effect by construction, {len(every) - measured - without} are not "
            "measured and say why.\n")


# ---------------------------------------------------------------------------------- the table


def table(papers: dict[str, Paper], book: Path) -> str:
    """All deviations of all papers in one table, every row with an anchor."""
    lines = ["| what | the paper says | the public code does | here | effect, in points |",
             "| --- | --- | --- | --- | --- |"]
    pages = api_pages(book)
    for paper in papers.values():
        lines += [f"| {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |"
                  for cells in (_cells(paper, d, pages) for d in paper.deviations)]
    jumps = " · ".join(f'<a href="#{anchor(name, paper.deviations[0])}">'
                       f"{paper.known_as}</a>" for name, paper in papers.items())
    body = "\n".join(lines)
    return f"{jumps}\n\n:::::{{container}} against-code\n\n{body}\n:::::\n"


def anchor(paper: str, deviation: Deviation) -> str:
    """The id of a row, the same in a link and in the table."""
    return f"{paper}-{deviation.id}".replace("_", "-")


def linked(paper: str, deviation: Deviation, up: str = "") -> str:
    """A link to the row from a page; `up` leads to the book's root."""
    return f'<a href="{up}{PAGE}.html#{anchor(paper, deviation)}">{deviation.what}</a>'


def _cells(paper: Paper, deviation: Deviation, pages: dict[str, str]) -> list[str]:
    what = (f'<span class="of" id="{anchor(paper.name, deviation)}">{paper.known_as}</span> '
            f"{deviation.what}")
    return [what, deviation.paper or "not stated", _public(deviation), _here(deviation, pages),
            effect_cell(paper, deviation)]


def _public(deviation: Deviation) -> str:
    both = deviation.authors_code and deviation.reimplementation
    told = [f"{label}: {value}" if both else value
            for value, label in ((deviation.authors_code, "the authors'"),
                                 (deviation.reimplementation, "the re-implementation")) if value]
    files = [f"<small>{FILE.sub(CODE, deviation.there)}</small>"] if deviation.there else []
    return "<br>".join([*(told or ["not known"]), *files])


def _here(deviation: Deviation, pages: dict[str, str]) -> str:
    """The names that make the choice, then what they are set to."""
    value = deviation.default
    small = isinstance(value, float) and 0 < value < 0.01
    default = f"{value:.0e}".replace("e-0", "e-") if small else "" if value is None else str(value)
    names = [code_name(name, pages) for name in deviation.names]
    return "<br>".join(filter(None, [*names, default]))


def api_pages(book: Path) -> dict[str, str]:
    """The API's page of every module that is on one."""
    return {module: page.stem for page in sorted((book / "api").glob("*.md"))
            for module in MODULE.findall(page.read_text())}


def code_name(name: str, pages: dict[str, str]) -> str:
    """A Python name without the packages in front, linked to the API's page of the module that it
    is in; a package's names are on the page of its modules."""
    shown = f"`{name.removeprefix('replication.').removeprefix('papers.')}`"
    parts = name.split(".")
    for end in range(len(parts), 1, -1):
        module = ".".join(parts[:end])
        page = pages.get(module) or next((p for m, p in pages.items()
                                          if m.startswith(module + ".")), "")
        if page and module not in ("replication.papers", "replication"):
            return f"[{shown}](/api/{page}.md)"
    return shown


# --------------------------------------------------------------------------- what matters


def matters(papers: dict[str, Paper], found: dict[str, list[tuple[Deviation, Effect]]]) -> str:
    """The effects of each kind beyond their spread, then what was found to be none."""
    kinds = [("Trained otherwise", False), ("Counted otherwise, one training", True)]
    parts = []
    for title, paired in kinds:
        lines = [f"- {papers[name].known_as}: {_beyond_spread(name, made, paired)}"
                 for name, made in found.items() if _beyond_spread(name, made, paired)]
        parts.append(f"**{title}**\n\n" + "\n".join(lines or ["Nothing beyond its spread."]))
    within = [f"- {papers[name].known_as}: " + ", ".join(
        f'<a href="#{anchor(name, d)}">{plain(e, made[0][1].data)}</a>'
        for d, e in made if e.none) for name, made in found.items() if any(e.none for _, e in made)]
    parts.append("**None beyond the spread**\n\n" + "\n".join(within or ["Nothing."]))
    return "\n\n".join(parts) + "\n"


def _beyond_spread(paper: str, made: list[tuple[Deviation, Effect]], paired: bool) -> str:
    """The effects of one kind beyond their spread, largest first; empty where there is none."""
    chosen = sorted(((d, e) for d, e in made if e.paired is paired and not e.none),
                    key=lambda both: -abs(both[1].mean))
    return ", ".join(f'<a href="#{anchor(paper, d)}">{plain(e, made[0][1].data)}</a> '
                     f"{numbers(e)}" for d, e in chosen)


# ----------------------------------------------------------------------------------- figure

CAPTION = ("Every measured deviation, in points of its list's metric, largest first. A line is the "
           "spread over seeds; a hollow mark lies within it and counts as none. Squares are one "
           "training counted in two ways.")


def alt_text(found: dict[str, list[tuple[Deviation, Effect]]], names: dict[str, str]) -> str:
    """For each paper how many effects there are, how many beyond their spread, and the largest."""
    told = []
    for name, made in found.items():
        if made:
            beyond = sorted((e for _, e in made if not e.none), key=lambda e: -abs(e.mean))
            largest = "".join(f", the largest {plain(e)} {signed(e.mean)}" for e in beyond[:1])
            told.append(f"{names[name]} {len(beyond)} of {len(made)}{largest}")
    return "Differences beyond their spread by paper: " + "; ".join(told)


def drawn(found: dict[str, list[tuple[Deviation, Effect]]], names: dict[str, str]) -> Figure:
    """A panel a paper, a mark a measurement, sorted by size, with the spread over seeds."""
    shown = {name: sorted((e for _, e in made), key=lambda e: abs(e.mean))
             for name, made in found.items() if made}
    rows = [len(made) for made in shown.values()]
    figure = Figure(figsize=(5.6, 0.3 * sum(rows) + 0.85 * len(rows)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)
    axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False,
                           gridspec_kw={"height_ratios": [n + 1 for n in rows]})[:, 0]
    for ax, (name, made) in zip(axes, shown.items(), strict=True):
        _panel(ax, made, found[name][0][1].data)
        ax.set_title(names[name], loc="left")
        ax.set_xlabel("difference in points")
        ax.tick_params(labelbottom=True)
    return figure


def _panel(ax, made: list[Effect], data: str) -> None:
    for y, one in enumerate(made):
        colour = "C0" if one.paired else "C1"
        ax.errorbar(one.mean, y, xerr=one.spread, fmt="s" if one.paired else "o", color=colour,
                    markersize=6, markerfacecolor="none" if one.none else colour, capsize=2)
    ax.axvline(0, color=ax.spines["left"].get_edgecolor(), linewidth=1, zorder=0)
    ax.set_yticks(range(len(made)), [textwrap.fill(plain(one, data), 38) for one in made])
    ax.set_ylim(-0.7, len(made) - 0.3)
    ax.grid(visible=False, axis="y")
