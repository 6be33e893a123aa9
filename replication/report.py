"""Every table of the book and of the README, written from records. Never imports torch."""

import base64
import json
import re
from pathlib import Path

import pandas as pd

from replication import (
    against_code,
    chapter_tables,
    citing_pages,
    command_pages,
    effect_words,
    metric_pages,
    notebooks,
    paths,
    ranked_pages,
    result_pages,
    running_pages,
)
from replication.comparison import (
    FLOORS,
    STATUSES,
    comparison,
    demo_table,
    records_of,
    run_link,
    subset_table,
)
from replication.dataset_pages import write_pages
from replication.deviations import COMMON, main_column
from replication.published import Paper, read_papers
from replication.published_cells import SHOWN, counted, published_cells
from replication.records import Metric, RunRecord

__all__ = ["comparison", "demo_table", "subset_table", "run_link", "write_report",
           "stale_readme", "published_markdown", "own_markdown", "readme_results",
           "deviations_markdown"]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
# The benchmarks whose results a chapter shows.
BENCHMARKS = {"clip_retrieval": ("image_text",), "sprc": ("sprc_training", "composed_rank"),
              "zse_sbir": ("zse_pairs",)}
# What is timed in turns is compared round by round, so ratios are not those of the columns.
ROUNDS = ", median of the rounds' ratios"
CHANGED = "Made by `python -m replication report`."
SMALLEST = """:::{warning}
These runs are of the smallest size, a test of the code in which hardly anything is learned. The
text around speaks of those that `make book` makes.
:::

"""


def write_report(book: Path | None = None, readme: Path | None = None) -> list[Path]:
    """Writes `_generated/<paper>_{published,demo,subset,...}.md`, the data sets' pages
    `_generated/dataset_<set>_*.md`, and the README's results."""
    book, readme = book or paths.BOOK, readme or paths.ROOT / "README.md"
    papers = read_papers(book)
    kept = {name: records_of(name, book) for name in papers}
    written = []
    for name, paper in papers.items():
        records = kept[name]
        own = _own_protocol(records)
        table = comparison(paper, records)
        pages = {"published": published_markdown(paper, table),
                 "status": _status_line(table) + "\n" if len(table) else "",
                 "demo": _smallest(paper) + own_markdown(_shown(paper, demo_table(own)),
                                                         _no_demo(paper)),
                 "subset": own_markdown(_shown(paper, subset_table(own)),
                                        "No run on a real subset yet."),
                 "conventions": conventions_markdown(records),
                 "deviations": deviations_markdown(paper)}
        if files := speeds(name):
            pages["speed"] = speed_markdown(files)
        pages |= {file.stem: runs_markdown(file) for file in listed_runs(book, name)}
        for kind, text in pages.items():
            written.append(_write(book / "_generated" / f"{name}_{kind}.md", text))
        for notebook in sorted((book / name).glob("r*/explain*.ipynb")):
            picture = first_picture(notebook)
            if picture:
                file = book / "_generated" / f"{name}_{notebook.stem}.jpg"
                written.append(paths.write_atomic(file, picture))
    for pages in (result_pages, metric_pages, against_code, chapter_tables, ranked_pages,
                  command_pages, citing_pages, running_pages):
        written += pages.write(book, papers, kept)
    if (book / "datasets").is_dir():
        written += write_pages(book=book)
    return [*written, _write(readme, _with_results(readme, book))]


def stale_readme(book: Path | None = None, readme: Path | None = None) -> bool:
    """Whether the README's results differ from what the kept records give; writes nothing."""
    book, readme = book or paths.BOOK, readme or paths.ROOT / "README.md"
    return _with_results(readme, book) != readme.read_text()


def published_markdown(paper: Paper, table: pd.DataFrame) -> str:
    """The comparison, one small table a method and dataset (a line a variant where there are
    several), then the methods only quoted."""
    if table.empty:
        return "Nothing was published for this part.\n"
    parts = [_status_line(table)]
    ours, quoted = table[~table.quoted], table[table.quoted]
    for (name, *_), rows in ours.groupby(["table", "method", "dataset", "split"], sort=False):
        first, several = rows.iloc[0], rows.variant.nunique() > 1 and not rows.duplicated(
            ["variant", "metric", "convention"]).any()
        title = " ".join(filter(None, [first.method, "" if several else first.variant]))
        parts.append(f"**{title}**, {first.dataset} {first.split} ({name})\n\n"
                     + (_side_by_side(rows) if several else _compared(rows)))
    by = ["table", "dataset", "split", "protocol"]
    for (name, dataset, split, protocol), rows in quoted.groupby(by, sort=False):
        parts.append(f"Other methods, {dataset} {split}, {protocol}, as published ({name})\n\n"
                     + _pivot(rows))
    tolerances = [f"- {key}: {t.points:g} points ({t.reason})"
                  for key, t in sorted(paper.tolerances.items())]
    if tolerances:
        parts.append("Tolerances, fixed before any run:\n\n" + "\n".join(tolerances))
    return "\n\n".join(parts) + "\n"


def deviations_markdown(paper: Paper) -> str:
    """Every place where paper and codes part, the parameter that switches it, and what it does; the
    first column leads to the one table of all papers."""
    if not paper.deviations:
        return "None is known.\n"
    columns = {"paper": "paper", "authors' code": "authors_code",
               "re-implementation": "reimplementation"}
    columns = {k: v for k, v in columns.items() if any(getattr(d, v) for d in paper.deviations)}
    absent = {"paper": "not stated", "authors_code": "not known", "reimplementation": ""}
    lines = [[against_code.linked(paper.name, d, "../"),
              *(getattr(d, v) or absent[v] for v in columns.values()),
              ", ".join(f"`{s.strip()}`" for s in d.switch.split(",") if s.strip()),
              effect_words.short_cell(paper, d)] for d in paper.deviations]
    head = ["what", *columns, "parameter", "effect, in points"]
    return f"{_markdown(head, lines, numbers=False)}\n\n{against_code.BELOW}\n"


def conventions_markdown(records: list[RunRecord]) -> str:
    """The trained ranking of each demo run under every convention: one ranking, many numbers. Where
    a run trains nothing it is its last model's, named. Image-text runs, kept samples too, show
    every protocol beside their conventions."""
    parts = []
    for record in records:
        found = _one_ranking(record)
        one = len({m.convention for m in found if _image_text(m)}) == 1
        if not found or not (_turned(found) or record.dataset.kind == "demo" and not one):
            continue
        model = "" if found[0].variant == "trained" else f", {found[0].variant or 'result'}"
        table = _protocols(record, found) if _turned(found) else _conventions(found)
        parts.append(f"{record.paper}/{record.experiment}, run {run_link(record)}{model}, in "
                     f"percent:\n\n{table}")
    return "\n\n".join(parts or ["No demo run yet."]) + "\n"


def _conventions(found: list[Metric]) -> str:
    metrics = list(dict.fromkeys(m.metric for m in found))
    values = {(m.convention, m.metric): m.value for m in found}
    lines = [[f"`{c}`", *(f"{values[c, m]:.1f}" if (c, m) in values else "" for m in metrics)]
             for c in dict.fromkeys(m.convention for m in found)]
    return _markdown(["convention", *metrics], lines)


def _protocols(record: RunRecord, found: list[Metric]) -> str:
    """Recall under every protocol and in folds; a line says only what differs from the first."""
    own, main = record.protocol, found[0].convention
    recalls = list(dict.fromkeys(m.metric for m in found if m.metric[3:6] == "_R@"))
    values = {(m.protocol, m.convention, m.metric): f"{m.value:.1f}" for m in found}
    lines = []
    for protocol, convention in dict.fromkeys((m.protocol, m.convention) for m in found):
        told = [protocol.removeprefix(f"{own}, ")] if protocol else []
        told += [f"`{convention}`"] if convention != main else []
        lines.append([", ".join(told) or f"{own}, `{main}`",
                      *(values.get((protocol, convention, m), "") for m in recalls)])
    return _markdown(["", *recalls], lines)


def _one_ranking(record: RunRecord) -> list[Metric]:
    """Rows of the trained ranking, else of the last model that is no floor; of one selection. Of
    image-text models every protocol, of others the record's own."""
    rows = [m for m in record.metrics if m.variant not in FLOORS]
    own = [m for m in rows if not m.protocol]
    variants = {m.variant for m in own}
    shown = "trained" if "trained" in variants else own[-1].variant if own else ""
    own = [m for m in own if m.variant == shown]
    return [m for m in rows if own and (m.variant, m.selection) == (shown, own[0].selection)
            and (not m.protocol or _image_text(m))]


def _image_text(metric: Metric) -> bool:
    return metric.convention.startswith("image_text")


def _turned(found: list[Metric]) -> bool:
    """Whether a ranking was measured under several protocols."""
    return len({m.protocol for m in found}) > 1


def _own_protocol(records: list[RunRecord]) -> list[RunRecord]:
    """The records without image-text rows of another protocol, which `conventions_markdown`
    shows."""
    return [r.model_copy(update={"metrics": kept}) for r in records
            if (kept := [m for m in r.metrics if not (m.protocol and _image_text(m))])]


def listed_runs(book: Path, paper: str) -> list[Path]:
    """A paper's kept lists of runs side by side (switches, ablations)."""
    return sorted((book / paper / "records").glob("*.csv"))


def runs_markdown(file: Path) -> str:
    """A kept list of runs: each choice's mean over seeds, its spread, and the difference to what
    stands first, with the spread of that difference's two sides together."""
    runs = pd.read_csv(file)
    main = main_column(runs, file)
    convention = main.rpartition(" ")[2]
    grouped = runs.groupby("turned", sort=False)
    values = grouped[main].agg(["mean", "std", "count"])
    base = values.iloc[0]
    lines = [[name, f"{v['mean']:.1f}", f"{v['std']:.1f}",
              effect_words.signed(v["mean"] - base["mean"]),
              f"{(v['std'] ** 2 + base['std'] ** 2) ** 0.5:.1f}"] for name, v in values.iterrows()]
    lines[0][3:] = ["", ""]
    others = [c for c in runs.columns if c.startswith(f"{main} ")]  # of another ranking
    for column in others:
        also = grouped[column].agg(["mean", "std"])
        for line, v in zip(lines, also.itertuples(), strict=True):
            line += [f"{v.mean:.1f}", f"{v.std:.1f}"]
    first = runs.iloc[0]
    of, counts = "", "{:,} queries x {:,} images"
    if convention == "trec":
        of, counts = " on the unseen classes", "{:,} sketches x {:,} photos"
    if convention == "image_text":
        counts = "{:,} images x {:,} captions"
    head = (f"{COMMON[convention].replace('_', ' ')} ({convention}){of}, in percent, "
            f"{first.dataset} {first.split}, {counts.format(first.n_query, first.n_gallery)}; "
            f"{int(base['count'])} seeds; differences, in points, of the means before rounding; "
            f"{first.device}, torch {first.torch}; every run: `records/{file.name}`")
    rankings = all(name in FLOORS or name.startswith("trained") for name in values.index)
    columns = ["ranking" if rankings else "what was changed", "mean", "spread over seeds",
               "difference", "its spread"]
    for name in (c.removeprefix(f"{main} ") for c in others):
        columns += [f"{name}: mean", f"{name}: spread"]
    return f"{head}\n\n{_markdown(columns, lines)}\n"


def first_picture(notebook: Path) -> bytes:
    """The first photograph-like picture (JPEG) that an executed notebook shows; empty for none."""
    cells = json.loads(notebook.read_text())["cells"]
    shown = ("".join(o.get("data", {}).get("text/html", "")) for c in cells
             for o in c.get("outputs", []))
    found = next(filter(None, (re.search(r"data:image/jpeg;base64,([^\"]+)", h) for h in shown)),
                 None)
    return base64.b64decode(found[1]) if found else b""


def speeds(paper: str) -> list[Path]:
    """Results of a paper's own benchmarks, a file a device: pair scores, recall, training steps."""
    return [file for name in BENCHMARKS.get(paper, ())
            for file in sorted(paths.ROOT.glob(f"benchmarks/results/{name}_*.json"))]


def speed_markdown(files: list[Path]) -> str:
    """One small table a file, by what was measured."""
    found = [json.loads(file.read_text()) for file in files]
    tables = {"captions": _rank_speed, "vectors": _rank_speed, "encoder_parameters": _frozen_speed}
    parts = [next((tables[key] for key in tables if key in f), _pair_speed)(f) for f in found]
    return "\n\n".join(parts) + "\n"


def _pair_speed(found: dict) -> str:
    """Pairs a second against the plain loop of the same run, and hours for the full test."""
    names = {"plain": "plain loop, float32", "fast": "projected once, float32",
             "plain_bf16": "plain loop, bf16", "fast_bf16": "projected once, bf16"}
    lines = [[told, f"{found['pairs_per_second'][k]:,.0f}", f"{found['times_plain'][k]:.2f}",
              f"{found['largest_difference'][k]:.0e}",
              f"{found['hours_for_sketchy_25'][k]:,.0f}"] for k, told in names.items()]
    return (f"{_machine(found)}; {found['sketches']} x {found['photos']} pairs; the arithmetic "
            f"that is saved allows {found['arithmetic_allows']:.2f} times\n\n" + _markdown(
                ["", "pairs a second", f"times plain{ROUNDS}", "largest difference",
                 "hours for Sketchy 100/25"], lines))


def _rank_speed(found: dict) -> str:
    """Ranks of all queries against the matrix product of the same run, and the memory of both: of
    images and captions both ways, or of composed queries against images of several vectors."""
    composed, seconds = "vectors" in found, found["seconds"]
    sides = f"{found['queries']:,} queries x {found['images']:,} images x {found['vectors']} " \
        "vectors" if composed else f"{found['images']:,} images x {found['captions']:,} captions"
    what, key = ("in gallery and group", "products") if composed else ("both ways", "scores")
    lines = [["matrix product alone", f"{seconds['product']:.3g}", "1"],
             [f"ranks of all queries, {what}", f"{seconds['ranks']:.3g}", f"{found['ratio']:.2f}"]]
    return (f"{_machine(found)}; {sides} x {found['dim']}; memory grows by "
            f"{1000 * found['grown_gb']:,.0f} MB, all {key} are "
            f"{1000 * found[f'all_{key}_gb']:,.0f} MB\n\n"
            + _markdown(["", "seconds", f"times the product{ROUNDS}"], lines))


def _frozen_speed(found: dict) -> str:
    """Training steps with stored features against the encoder in the loop."""
    seconds, rate = found["seconds"], found["samples_per_second"]
    epoch = found["encoder_seconds_an_epoch_of_cirr"]
    lines = [["encoder in the loop", f"{seconds['in the loop']:.3g}",
              f"{rate['in the loop']:.3g}", "1"],
             ["features from the store", f"{seconds['stored']:.3g}", f"{rate['stored']:.3g}",
              f"{found['ratio']:.1f}"]]
    return (f"{_machine(found)}; {found['batch']} triplets a step, an image encoder of "
            f"{found['encoder_parameters'] / 1e6:,.0f} million parameters "
            f"({found['image_tokens']} x {found['width']}), "
            f"{found['trained_parameters'] / 1e6:,.0f} million learn; this encoder takes "
            f"{epoch['stored, once'] / 60:,.0f} minutes for CIRR's training pictures once, "
            f"{epoch['in the loop, every epoch'] / 60:,.0f} minutes in every epoch\n\n"
            + _markdown(["", "seconds a step", "triplets a second", f"times as many{ROUNDS}"],
                        lines))


def _machine(found: dict) -> str:
    """The accelerator's name, or the processor's with its cores; and torch's version."""
    machine = found["machine"]
    cores = f"{machine['cpu']}, {machine['cores']} cores"
    return f"{cores if found['device'] == 'cpu' else found['device']}, torch {machine['torch']}"


def own_markdown(table: pd.DataFrame, nothing: str) -> str:
    """Runs on the built-in dataset or on a subset, one small table a group of runs. Its head says
    the unit, and on what each metric is where they are on several parts of the set."""
    if table.empty:
        return nothing + "\n"
    keys = ["paper", "experiment", "dataset", "split", "protocol", "device", "run"]
    parts = []
    for _, rows in table.groupby(keys, sort=False):
        first = rows.iloc[0]
        head = (f"**{first.paper}/{first.experiment}**, {first.dataset} {first.split}, "
                f"{first.protocol}: {_counts(rows)}; {_seeds(first)}; {first.device}; "
                f"run {first.run}; {_unit(rows)}")
        parts.append(head + "\n\n" + _values(rows))
    return "\n\n".join(parts) + "\n"


def readme_results(book: Path | None = None) -> str:
    """Status counts of the published cells, from kept records: every number is in the book."""
    papers = read_papers(book)
    kept = {name: records_of(name, book, kept_only=True) for name in papers}
    table = counted(published_cells(book or paths.BOOK, papers, kept))
    lines = [[paper, row.sum(), *row] for paper, row in table.iterrows()]
    return "\n\n".join([
        "Published numbers, by what became of them; `quoted` are other methods' numbers from the "
        "same sources:", _markdown(["paper", "numbers", *SHOWN], lines),
        "Every number, its status and the command that would change it: `results.html` of the book "
        "that `make book` builds. Runs on the built-in data set and on samples of real sets are on "
        "pages of their own there, because they cannot be compared with published numbers."])


def _with_results(readme: Path, book: Path) -> str:
    if not readme.is_file():
        raise ValueError(f"{paths.shown(readme)} does not exist, so its results are not written")
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{paths.shown(readme)} needs one line {BEGIN} and, after it, one {END}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{readme_results(book)}\n{END}{rest.split(END)[1]}"


def _compared(rows: pd.DataFrame) -> str:
    """One method's cells on one dataset; reasons and runs as numbered notes under the table."""
    notes: list[str] = []
    lines = [[_metric(row), row.published, _reproduced(row), _points(row.difference, "+.1f"),
              _points(row.tolerance, "g"), f"{row.status} [{_note(row, notes)}]"]
             for row in rows.itertuples()]
    columns = ["metric", "published", "reproduced", "difference", "tolerance", "status"]
    listed = "\n".join(f"{i}. {note}" for i, note in enumerate(notes, 1))
    return _markdown(columns, lines) + "\n\n" + listed


MARKS = {"matched": "=", "higher": "↑", "lower": "↓", "not comparable": "≠"}


def _side_by_side(rows: pd.DataFrame) -> str:
    """Variants down, metrics across: the published number, under it what came out, its difference
    and a mark; the line's statuses in words, with numbered notes as in `_compared`."""
    notes: list[str] = []
    one = rows.convention.nunique() == 1
    names = {row.Index: row.metric if one else _metric(row) for row in rows.itertuples()}
    metrics = list(dict.fromkeys(names.values()))
    lines = []
    for variant, group in rows.groupby("variant", sort=False):
        cells = {names[row.Index]: _cell(row) for row in group.itertuples()}
        count = group.status.value_counts()
        told = ", ".join(f"{count[s]} {s}" for s in STATUSES if s in count)
        told = count.index[0] if len(count) == 1 else told
        numbers = sorted({_note(row, notes) for row in group.itertuples()})
        lines.append([variant, *(cells.get(m, "") for m in metrics),
                      f"{told} {''.join(f'[{n}]' for n in numbers)}"])
    listed = "\n".join(f"{i}. {note}" for i, note in enumerate(notes, 1))
    tolerances = ", ".join(f"{t:g}" for t in sorted(set(rows.tolerance.dropna())))
    told = [f"Convention `{rows.convention.iloc[0]}`."] if one and rows.convention.iloc[0] else []
    told += [f"Tolerance {tolerances} points."] if tolerances else []
    return "\n\n".join(filter(None, [_markdown(["", *metrics, "status"], lines), " ".join(told),
                                     listed]))


def _cell(row) -> str:
    if pd.isna(row.reproduced):
        return row.published
    return (f"{row.published}<br>{_reproduced(row).split(' (')[0]} "
            f"({row.difference:+.1f}) {MARKS[row.status]}")


def _note(row, notes: list[str]) -> int:
    """The number of a row's note: why, on what and where from; equal notes are written once."""
    counts = f"{row.counts}; run {row.run}" if row.run else ""
    note = "; ".join(filter(None, [row.reason, counts]))
    if note not in notes:
        notes.append(note)
    return notes.index(note) + 1


def _reproduced(row) -> str:
    if pd.isna(row.reproduced):
        return ""
    digits = 2 if len(row.published.partition(".")[2]) > 1 else 1
    spread = "" if pd.isna(row.spread) else f" ± {row.spread:.{digits}f}"
    return f"{row.reproduced:.{digits}f}{spread} ({_seeds(row)})"


def _seeds(row) -> str:
    return "1 seed" if row.seeds == 1 else f"{row.seeds} seeds"


def _pivot(rows: pd.DataFrame) -> str:
    metrics = list(dict.fromkeys(rows.metric))
    lines = []
    for (method, variant), group in rows.groupby(["method", "variant"], sort=False):
        values = dict(zip(group.metric, group.published, strict=True))
        lines.append([" ".join(filter(None, [method, variant])),
                      *(values.get(m, "") for m in metrics)])
    return _markdown(["method", *metrics], lines)


def _counts(rows: pd.DataFrame) -> str:
    """What a table's metrics are on, of several parts (`dress R@10`, `shirt R@10`) each."""
    if rows.counts.nunique() == 1:
        return rows.counts.iloc[0]
    parts = {metric.rpartition(" ")[0] or metric: counts
             for metric, counts in zip(rows.metric, rows.counts, strict=True)}
    return ", ".join(f"{part} {counts}" for part, counts in parts.items())


def _unit(rows: pd.DataFrame) -> str:
    """What the numbers are, where a small one is good, and that chance is drawn."""
    told = "in percent"
    if rows.metric.str.endswith("_rank").any():
        told += ", but median ranks, of which a lower one is better"
    drawn = "chance" in rows and rows.chance.notna().any()
    return told + ("; chance is one random draw" if drawn else "")


def _values(rows: pd.DataFrame) -> str:
    """Metrics down, models across; what all lines share is in the header."""
    tail = rows.columns.get_loc("interval")
    variants = [c for c in rows.columns[7:tail] if rows[c].notna().any()]
    given = rows[rows.interval != ""]
    one, alike = rows.convention.nunique() == 1, given.interval_of.nunique() == 1
    head = [f"metric ({rows.convention.iloc[0]})" if one else "metric", *variants]
    if len(given):
        head.append(f"interval of {given.interval_of.iloc[0]}" if alike else "interval")
    lines = []
    for _, row in rows.iterrows():
        whose = f" ({row.interval_of})" if row.interval and not alike else ""
        line = [row.metric if one else _metric(row), *(_points(row[v], ".1f") for v in variants),
                row.interval + whose]
        lines.append(line[:len(head)])
    return _markdown(head, lines)


def _status_line(table: pd.DataFrame) -> str:
    count = table[~table.quoted].status.value_counts()
    told = ", ".join(f"{count[s]} {s}" for s in STATUSES if s in count)
    return (f"{len(table)} published numbers: {told}; {table.quoted.sum()} of other methods. "
            + CHANGED)


def _metric(row) -> str:
    return f"{row.metric} ({row.convention})" if row.convention else row.metric


def _points(value, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)


def _markdown(columns: list[str], lines: list[list[str]], numbers: bool = True) -> str:
    rule = ["---"] + ["---:" if numbers else "---"] * (len(columns) - 1)
    rows = [[str(v).replace("|", "\\|") for v in line] for line in [columns, rule, *lines]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shown(paper: Paper, table: pd.DataFrame) -> pd.DataFrame:
    """The rows in the paper's own convention and in the common one."""
    return table[table.convention.isin({*COMMON, *(cell.convention for cell in paper.cells)})]


def _smallest(paper: Paper) -> str:
    """A warning above demo runs of the smallest size, of which the chapter's text does not speak.
    """
    runs = (paper.folder / "runs").glob("*.ipynb")
    return SMALLEST if any(notebooks.stamp_of(run).get("size") == "tiny" for run in runs) else ""


def _no_demo(paper: Paper) -> str:
    names = [e.name for e in paper.experiments if e.demo and e.record]
    commands = ", ".join(f"`python -m replication run {paper.name}/{name}`" for name in names)
    return f"Not run yet: {commands}." if names else "This part has no run of its own."


def _write(path: Path, text: str) -> Path:
    if not path.exists() or path.read_text() != text:
        paths.write_atomic(path, text)
    return path
