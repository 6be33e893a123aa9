"""What `replication verify` found in a data set, as pieces of Markdown. Never imports torch."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from replication.datasets import Facts

KEPT = "checks"  # folder of reports that are committed, in book/datasets
MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_{}[]<>#$~^&!@"})
VERIFY = "python -m replication verify"


def read_reports(name: str, book: Path, results: Path) -> list[dict[str, Any]]:
    """Reports of `replication verify` on a set: the kept ones, each with its file's name as
    `label`, then this machine's, unless a kept one is of the same files."""
    kept = []
    for file in sorted((book / "datasets" / KEPT).glob("*.json")):
        report = json.loads(file.read_text(encoding="utf-8"))
        kept += [{**report, "label": file.stem}] if report["name"] == name else []
    own = results / name / "report.json"
    if own.is_file():
        report = {**json.loads(own.read_text(encoding="utf-8")), "label": ""}
        same = [r for r in kept if _of_what(r) == _of_what(report)]
        kept += [] if same else [report]
    return kept


def _of_what(report: dict) -> tuple:
    return report["split"], report["manifest"], report["subset"]


def checks_markdown(name: str, reports: Sequence[dict]) -> str:
    """What `replication verify` found, a table a report, then its problems and notes in words."""
    if not reports:
        return (f"Not checked here. `{VERIFY} {name} --data-root DATA` checks a prepared set and "
                "draws a contact sheet, which the next build of the book shows.\n")
    return "\n\n".join(map(_checked, reports)) + "\n"


def _checked(report: dict) -> str:
    label = f" `{report['label']}`" if report["label"] else ""
    what = "a sample" if report["subset"] else "the whole set"
    versions = ", ".join(f"{k} {v}" for k, v in report["versions"].items())
    head = (f"**{plain(report['split'])}**, {what}{label}: {_verdict(report)}. "
            f"{report['made_at'][:10]}, commit {report['commit'][:9] or 'unknown'}, {versions}.")
    counts = ", ".join(f"{n:,} {part}" for part, n in report["counts"].items())
    seen = [", ".join(f"{plain(kind)} {n:,}" for kind, n in report["pictures"][of].items())
            for of in ("format", "mode", "size") if report["pictures"].get(of)]
    rows = [["counted", counts],
            ["pictures decoded", f"{report['n_pictures']:,} in {report['seconds']:,.0f} s"],
            ["formats, modes, sizes (the most common)", "; ".join(seen)],
            ["bytes", f"{report['pictures'].get('bytes', 0):,}"],
            ["cannot be decoded", f"{len(report['damaged']):,}"],
            ["the same bytes", _groups(report, "same_bytes")],
            [f"near-same, up to {report.get('near_bits', 4)} of 64 bits apart",
             _groups(report, "near_same")],
            ["manifest", f"`{report['manifest'][:80]}`"]]
    told = [f"- {kind}: {plain(line)}" for kind in ("problem", "note")
            for line in report[f"{kind}s"]]
    return "\n\n".join(filter(None, [head, table(["", ""], rows), "\n".join(told)]))


def _groups(report: dict, kind: str) -> str:
    counted = report.get(f"n_{kind}") or {of: len(rows) for of, rows in report[kind].items()}
    return f"{counted['within']:,} within and {counted['across']:,} across train, val and test"


def _verdict(report: dict) -> str:
    n = len(report["problems"])
    photos = [count for part, count in report["counts"].items() if part.endswith("/photo")]
    only = ", drawings only" if photos and not any(photos) else ""
    return ("no problem" if not n else "1 problem" if n == 1 else f"{n} problems") + only


def state_of(reports: Sequence[dict]) -> str:
    """The whole set where that was checked, else a sample."""
    whole = [r for r in reports if not r["subset"]]
    told = [f"{plain(r['split'])}: {_verdict(r)}" for r in whole or reports]
    return ("" if whole or not reports else "a sample, ") + "; ".join(told or ["no"])


def sheet_markdown(facts: Facts, report: dict | None = None) -> str:
    """A section with the contact sheet; nothing where there is none."""
    if report is None:
        return ""
    of = "a sample of it" if report["subset"] else "the whole set"
    framed = " Unseen classes are framed orange." if facts.kind == "sketch" else ""
    return (f"## What it looks like\n\n```{{figure}} ../_generated/dataset_{facts.name}.jpg\n"
            f":alt: Pictures of {facts.title}, drawn at random, with their classes or texts.\n\n"
            f"{facts.title}, drawn at random from {of} on this machine.{framed}\n```\n")


def speed_markdown(results: Path) -> str:
    """How fast sets are prepared and checked, and drawings drawn: the benchmarks' own records."""
    parts = []
    for file in sorted(results.glob("data_prep*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        what = "made-up files" if found["made_up"] else "files of the Sketchy sample"
        rows = [[kind, f"{took:.2f}", f"{found['times_floor'][kind]:.2f}",
                 f"{found['files'] / took:,.0f}"]
                for kind, took in found["seconds"].items() if kind != "prepared already"]
        heads = ["", "seconds", "times the floor, median of the rounds' ratios",
                 "files a second"]
        parts.append(f"{_machine(found)}; {found['files']:,} {what}, {found['bytes'] / 1e6:.0f} MB."
                     " The floor reads, hashes and decodes every file once, in one process.\n\n"
                     + table(heads, rows, (1, 2, 3)))
    for file in sorted(results.glob("quickdraw_drawing*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        floor = found["ms"]["png alone"]
        rows = [[kind, f"{took:.2f}", f"{took / floor:.2f}"] for kind, took in found["ms"].items()]
        parts.append(f"{_machine(found)}; drawings of {found['size']} pixels, by what draws them "
                     "(`agg` is used)\n\n"
                     + table(["", "ms a drawing", "times writing the png"], rows, (1, 2)))
    return "\n".join(parts) or "Not measured yet.\n"


def _machine(found: dict) -> str:
    return f"{found['machine']['cpu']}, {found['machine']['cores']} cores"


# ---------------------------------------------------------------------------------- Markdown


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()
          ) -> str:
    """A Markdown table; numbers: columns that are set to the right."""
    numbers = set(numbers)
    rule = ["---:" if i in numbers else "---" for i in range(len(columns))]
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row]
             for row in [columns, rule, *rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def plain(text: str) -> str:
    """Names of classes and files so that Markdown shows them letter by letter."""
    return " ".join(text.translate(MARKS).split())


def number(count: int | None, absent: str = "not stated") -> str:
    """A count with thousands apart, or `absent`."""
    return absent if count is None else f"{count:,}"


def sentence(text: str, capital: bool = True) -> str:
    """A text with a full stop, a capital first unless told otherwise."""
    text = " ".join(text.split())
    text = text[0].upper() + text[1:] if capital else text
    return text if text.endswith((".", "?")) else f"{text}."
