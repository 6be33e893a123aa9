"""The published cells as a table of a page: whole without scripts, each row with a name of its own.

Never imports torch.
"""

from html import escape

import pandas as pd

from replication.published_cells import SHOWN, run_links

MARKS = {"matched": "=", "higher": "↑", "lower": "↓", "not comparable": "≠", "not run": "○",
         "quoted": "“"}
HEADS = ("Paper", "Method", "Data set", "Metric", "Published", "Reproduced", "Difference",
         "Status", "Command, or reason")
# Columns sorted by a number that is only a part of what they show.
NUMBERS = {"Reproduced": "reproduced", "Difference": "difference"}
OF = ("this paper", "another method")
# What a reader can choose by: the row's attribute, and its label.
FILTERS = {"paper": "Paper", "task": "Task", "dataset": "Data set", "metric": "Metric",
           "status": "Status", "of": "Whose number"}


def table_html(cells: pd.DataFrame, names: dict[str, str]) -> str:
    """Choices (shown by the script alone) and the table; `names` is what papers are called."""
    heads = "".join(f'<th scope="col">{head}</th>' for head in HEADS)
    rows = "\n".join(_row(cell, names[cell.paper]) for cell in cells.itertuples())
    jumps = ", ".join(f'<a href="#{_id(first)}">{escape(names[first.paper])}</a>'
                      for first in cells.drop_duplicates("paper").itertuples())
    return (f"{_filters(cells, names)}\n<noscript><p>Sorting and filtering need JavaScript. "
            f"Without it, this is the whole table. Go to {jumps}.</p></noscript>\n"
            '<div class="cells-box" tabindex="0" role="region" aria-label="Published numbers">\n'
            f'<table id="cells-table">\n<thead><tr>{heads}</tr></thead>\n'
            f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n")


def _filters(cells: pd.DataFrame, names: dict[str, str]) -> str:
    found = cells.assign(of=[OF[status == "quoted"] for status in cells.status])
    boxes = "".join(_box(key, label, found[key], names) for key, label in FILTERS.items())
    return (f'<form id="cells-filters" hidden>{boxes}\n<div class="cells-buttons">'
            '<button type="reset">Show all</button></div></form>')


def _box(key: str, label: str, values: pd.Series, names: dict[str, str]) -> str:
    count = values.value_counts(sort=False)
    order = [s for s in SHOWN if s in count] if key == "status" else dict.fromkeys(values)
    options = "".join(f'<option value="{escape(v)}">{escape(names.get(v, v))} ({count[v]})</option>'
                      for v in order)
    return (f'\n<label>{label}<select name="{key}"><option value="">all</option>{options}</select>'
            "</label>")


def _row(cell, name: str) -> str:
    of = OF[cell.status == "quoted"]
    kept = {"paper": cell.paper, "task": cell.task, "dataset": cell.dataset,
            "metric": cell.metric, "status": cell.status, "of": of}
    data = " ".join(f'data-{key}="{escape(value)}"' for key, value in kept.items())
    told = [_paper(cell, name), _two(f"{cell.method} {cell.variant}".strip(), cell.source),
            _two(f"{cell.dataset} {cell.split}", cell.protocol),
            _two(cell.metric, cell.convention or "definition not stated"), cell.published,
            _reproduced(cell), _difference(cell), _status(cell.status), _why(cell)]
    places = "".join(f"<td{_order(cell, head)}>{text}</td>"
                     for head, text in zip(HEADS, told, strict=True))
    return f'<tr id="{_id(cell)}" {data}>{places}</tr>'


def _order(cell, head: str) -> str:
    number = getattr(cell, NUMBERS[head]) if head in NUMBERS else None
    return f' data-order="{_points(number, "")}"' if head in NUMBERS else ""


def _id(cell) -> str:
    return f"{cell.paper}-{cell.cell}"


def _paper(cell, name: str) -> str:
    return (f'<a href="{cell.paper}/index.html#published">{escape(name)}</a> '
            f'<a class="here" href="#{_id(cell)}" aria-label="Link to this row">#</a>')


def _two(first: str, second: str) -> str:
    return f"{escape(first)}<small>{escape(second)}</small>"


def _reproduced(cell) -> str:
    if pd.isna(cell.reproduced):
        return ""
    digits = 2 if len(cell.published.partition(".")[2]) > 1 else 1
    spread = "" if pd.isna(cell.spread) else f" ± {cell.spread:.{digits}f}"
    seeds = "1 seed" if cell.seeds == 1 else f"{cell.seeds} seeds"
    return f"{cell.reproduced:.{digits}f}{spread}<small>{seeds}</small>"


def _difference(cell) -> str:
    """With what is allowed; empty where nothing is compared."""
    told = _points(round(cell.difference, 1) + 0.0, "+.1f")  # + 0.0: no zero has a minus
    tolerance = _points(cell.tolerance, "g") if told else ""
    return told + (f"<small>± {tolerance} points allowed</small>" if tolerance else "")


def _status(status: str) -> str:
    return (f'<span class="status {status.replace(" ", "-")}"><span aria-hidden="true">'
            f"{MARKS[status]}</span> {status}</span>")


def _why(cell) -> str:
    """Reason, counts and runs in words, then the commands, each on its own."""
    runs = [f'<a href="{page}">{escape(name)}</a>' if page else f"<code>{escape(name)}</code>"
            for name, page in run_links(cell.run)]
    told = [escape(cell.reason), escape(cell.counts), f"run {', '.join(runs)}" if runs else ""]
    commands = "".join(f'<code class="command">{escape(command)}</code>'
                       for command in cell.command.split(" or ") if command)
    return " ".join(filter(None, ["; ".join(filter(None, told)), commands]))


def _points(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)
