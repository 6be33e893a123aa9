"""Effects of deviations in words: for tables, links and figures. Never imports torch."""

from replication.deviations import Deviation, Effect, Recorded, effect, recorded_difference
from replication.published import Paper

MINUS = "\u2212"


def points(made: Effect) -> str:
    """`+2.1 ± 1.8`, bold where it is beyond its spread, else called none."""
    return f"none ({numbers(made)})" if made.none else f"**{numbers(made)}**"


def numbers(made: Effect) -> str:
    """Mean and spread to one decimal, or to two where one would not tell which is larger."""
    if f"{abs(made.mean):.1f}" == f"{made.spread:.1f}" != "0.0":
        return f"{made.mean:+.2f} ± {made.spread:.2f}".replace("-", MINUS)
    return f"{signed(made.mean)} ± {made.spread:.1f}"


def signed(value: float) -> str:
    """One decimal with its sign; a rounded zero has none."""
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def turned(made: Effect) -> str:
    """What is set against what, as the list calls it."""
    own = made.measured
    if own.against_column:
        return f"{_column(made.column)} against {_column(made.against_column)}"
    return f"`{own.row}`" + (f" against `{made.against}`" if own.against else "")


def effect_cell(paper: Paper, deviation: Deviation) -> str:
    """A deviation's effects with their notes, on what they are measured; or why they are not."""
    if deviation.reason:
        told = deviation.reason if nil(deviation) else f"not measured: {deviation.reason}"
        return told + (f"<br><small>`{deviation.test}`</small>" if deviation.test else "")
    lines, last = [], ""
    for measured in deviation.measured:
        made = effect(paper.folder, measured)
        note = f"; {measured.note}" if measured.note else ""
        if (where := _where(paper, made)) != last and last:
            lines.append(f"<small>{last}</small>")
        last = where
        lines.append(f"{turned(made)}: {points(made)}{note}")
    lines += [f"<small>{last}</small>"] if last else []
    return "<br>".join([*lines, *(_read(paper, r) for r in deviation.recorded)])


def _read(paper: Paper, recorded: Recorded) -> str:
    """One run's two readings: no spread, so no verdict."""
    record = recorded_difference(paper.folder, recorded)[1]
    return (f"{_readings(paper, recorded)}<br><small>{recorded.metric} "
            f"`{recorded.convention}`, 1 seed, {record.dataset.name} {record.dataset.split} "
            f"({record.dataset.kind}), "
            f"[{recorded.record}](/{paper.name}/records/{recorded.record}.ipynb)</small>")


def _readings(paper: Paper, recorded: Recorded) -> str:
    value, record = recorded_difference(paper.folder, recorded)
    ours, theirs = ((recorded.selection, recorded.against_selection) if recorded.against_selection
                    else (recorded.protocol, recorded.against_protocol or record.protocol))
    return f"`{ours}` against `{theirs}`: {signed(value)}"


def short_cell(paper: Paper, deviation: Deviation) -> str:
    """The effects alone, for a chapter's own table; with their data where they are of several."""
    if deviation.reason:
        return "none by construction" if nil(deviation) else "not measured"
    made = [effect(paper.folder, measured) for measured in deviation.measured]
    several = len({one.data for one in made}) > 1
    told = [f"{plain(one)}{f' ({one.data})' if several else ''}{_with(one)}: {points(one)}"
            for one in made]
    return "<br>".join(told + [f"{_readings(paper, recorded)}, 1 seed, on a real sample"
                               for recorded in deviation.recorded])


def _with(made: Effect) -> str:
    """What both sides share beyond the list's first row, where `plain` leaves it out."""
    own = made.measured
    shared = own.against and not own.against_column and own.against not in plain(made)
    return f" (both with {own.against})" if shared else ""


def _where(paper: Paper, made: Effect) -> str:
    """Metric, seeds, data and the list, linked to its notebook where that is kept."""
    name = made.measured.list
    notebook = paper.folder / "records" / f"{name}.ipynb"
    told = f"[{name}](/{paper.name}/records/{name}.ipynb)" if notebook.is_file() else name
    metric = "" if made.measured.against_column else f"{_column(made.column)}, "
    return f"{metric}{made.seeds} seeds, {made.data}, {told}"


def _column(name: str) -> str:
    """`mAP@all trec sa` as a metric and, in code, the convention with what follows it."""
    metric, _, rest = name.rpartition(" ") if name.startswith("average ") else name.partition(" ")
    return f"{metric} `{rest}`" if rest else metric


def nil(deviation: Deviation) -> bool:
    """Whether a deviation has no effect by construction, as its reason says."""
    return deviation.reason.startswith("of no effect")


def plain(made: Effect, data: str = "") -> str:
    """What is turned, without marks and without what both sides share, for links and figures; with
    the data where they are not `data`."""
    own = made.measured
    if own.against_column:
        ours, theirs = (c.partition(" ") for c in (made.column, made.against_column))
        told = f"{ours[0]}: {_beyond(ours[2], theirs[2], ' ')}"
    else:
        told = _beyond(own.row, own.against, " + ")
    return told if made.data == (data or made.data) else f"{told} ({made.data})"


def _beyond(ours: str, theirs: str, sign: str) -> str:
    """The parts of `ours` where it holds all of `theirs`, else one against the other."""
    own, other = ours.split(sign), [part for part in theirs.split(sign) if part]
    if not set(other) <= set(own):
        return f"{ours} against {theirs}"
    return sign.join(part for part in own if part not in other)
