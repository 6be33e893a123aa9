"""The chapter on data: for every set its published counts, files, class lists, defects and checks,
as pieces of Markdown that the pages include. Never imports torch.
"""

import json
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from data_prep.class_lists import ClassLists, Split, class_lists
from data_prep.sources import File, sources
from replication import paths
from replication.check_pages import (
    checks_markdown,
    number,
    plain,
    read_reports,
    sentence,
    sheet_markdown,
    speed_markdown,
    state_of,
    table,
)
from replication.datasets import Claim, Facts, all_facts

KINDS = {"sketch": "sketches and photos by class", "instance": "sketches of single photos",
         "captions": "pictures with captions", "composed": "a picture and a text"}
HOW = {"https": "downloaded", "page": "by hand", "form": "by hand, after a form",
       "login": "by hand, after a login"}
FEW = 3  # files of a kind that are named one by one
PLURAL = {"sketch": "sketches", "photo": "photos"}


def write_pages(out: Path | None = None, *, book: Path | None = None, results: Path | None = None
                ) -> list[Path]:
    """Writes `dataset_<name>_{about,counts,files,classes,defects,checks,sheet}.md`, contact sheets,
    `datasets.md` and `datasets_speed.md` into `out` (default: the `_generated` of the book).

    results: folder of this machine's checks, default result/datasets.
    """
    book, results = book or paths.BOOK, results or paths.RESULT / "datasets"
    out, found = out or book / "_generated", all_facts(book / "datasets")
    checks = {name: read_reports(name, book, results) for name in found}
    written = []
    for name, facts in found.items():
        pages = {"about": about_markdown(facts, book), "defects": defects_markdown(facts),
                 "counts": counts_markdown(facts, checks[name]),
                 "checks": checks_markdown(name, checks[name]),
                 "sheet": _with_sheet(facts, results / name, out)}
        if name in sources():
            pages["files"] = files_markdown(name, sources()[name].files)
        if facts.kind == "sketch":
            pages["classes"] = classes_markdown(lists_of(name))
        written += [paths.write_atomic(out / f"dataset_{name}_{kind}.md", text)
                    for kind, text in pages.items()]
    order = sorted(found.values(), key=lambda facts: (list(KINDS).index(facts.kind), facts.title))
    overview = overview_markdown(order, checks, book)
    speed = speed_markdown(paths.ROOT / "benchmarks/results")
    return [*written, paths.write_atomic(out / "datasets.md", overview),
            paths.write_atomic(out / "datasets_speed.md", speed)]


# ------------------------------------------------------------------------------- what is known


def about_markdown(facts: Facts, book: Path) -> str:
    """Owners, licence, who uses the set here, which command prepares it."""
    papers = ", ".join(f"{{cite}}`{key}`" for key in facts.cite)
    rows = [["published in", papers], ["owners' page", f"<{facts.home}>" if facts.home else ""],
            ["licence, as the owners state it", facts.licence],
            ["used here by", _users(facts, book) or "no chapter yet"],
            ["prepared by", f"`python -m data_prep.{facts.name}`, into `<data>/{facts.folder}/`"]]
    return table(["", ""], [row for row in rows if row[1]])


def _users(facts: Facts, book: Path) -> str:
    return ", ".join(_chapter(book, name) for name in facts.used_by)


def _chapter(book: Path, name: str) -> str:
    """A link to a chapter by its title; a folder without a page of its own by its name."""
    page = book / name / "index.md"
    if not page.is_file():
        return name
    title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    return f"[{title}](/{name}/index.md)"


def counts_markdown(facts: Facts, reports: Sequence[dict]) -> str:
    """What is stated of the whole set and of each split, beside what was counted here, and what
    others state. Splits of the same counts share a table; a sample has a column that says so."""
    parts = []
    if facts.whole:
        parts.append(f"The whole set: {_size(facts)} ({facts.whole.source}).")
    for names in _alike(facts):
        split = facts.splits[names[0]]
        own = [r for r in reports if r["split"] in names]
        sources = "; ".join(dict.fromkeys(facts.splits[n].source for n in names))
        parts.append(f"**{', '.join(names)}** ({sources})\n\n{_beside(split.counts, own)}")
    for split in dict.fromkeys(r["split"] for r in reports if r["split"] not in facts.splits):
        own = [r for r in reports if r["split"] == split]
        parts.append(f"**{plain(split)}**, of which no source states counts\n\n{_beside({}, own)}")
    if facts.claims:
        rows = [_claimed(facts, claim) for claim in facts.claims]
        columns = ["of", "count", "against the above", "who counts so", "why"]
        parts.append("Other counts:\n\n" + table(columns, rows, numbers=(1, 2)))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _size(facts: Facts) -> str:
    counts = facts.whole.counts if facts.whole else {}
    return ", ".join(f"{n:,} {PLURAL.get(part, part)}" for part, n in counts.items()
                     if n is not None)


def _alike(facts: Facts) -> list[list[str]]:
    """Names of splits, those of the same counts together."""
    groups: dict[str, list[str]] = {}
    for name, split in facts.splits.items():
        groups.setdefault(json.dumps(split.counts), []).append(name)
    return list(groups.values())


def _beside(stated: dict[str, int | None], reports: Sequence[dict]) -> str:
    """A line a part and counter: what is stated, then each report's own."""
    parts = list(dict.fromkeys([*stated, *(part for r in reports for part in r["counts"])]))
    several = len({r["label"] for r in reports if r["subset"]}) > 1
    counters = [("stated", stated, "not stated")] if stated else []
    counters += [(_head(r, stated, several), r["counts"], "") for r in reports]
    kinds = list(dict.fromkeys(part.rpartition("/")[2] for part in parts))
    rows = [[split, who, *(number(counts.get(f"{split}/{kind}"), absent) if f"{split}/{kind}" in
                           parts else "" for kind in kinds)]
            for split in dict.fromkeys(part.rpartition("/")[0] for part in parts)
            for who, counts, absent in counters if any(f"{split}/{k}" in counts for k in kinds)]
    heads = ["part", "", *(PLURAL.get(kind, kind) for kind in kinds)]
    return table(heads, rows, numbers=range(2, len(heads)))


def _head(report: dict, stated: dict[str, int | None], several: bool) -> str:
    """`here` is the whole set and nothing else."""
    if report["subset"]:
        of = f": {plain(report['label']) or 'this machine'}" if several else ""
        return f"here (a sample{of})"
    other = [p for p, n in report["counts"].items() if stated.get(p) not in (None, n)]
    return "here (not the stated set)" if other else "here"


def _claimed(facts: Facts, claim: Claim) -> list[str]:
    stated = facts.splits[claim.split] if claim.split else facts.whole
    other = stated.counts.get(claim.part) if stated else None
    against = "" if other is None else "the same" if other == claim.count else \
        f"{claim.count - other:+,}"
    of = f"{claim.split} {claim.part}" if len(facts.splits) > 1 else claim.part
    cite = f" {{cite}}`{claim.cite}`" if claim.cite else ""
    return [of.strip() if claim.split else f"all {PLURAL.get(claim.part, claim.part)}",
            number(claim.count), against, claim.source + cite, claim.note]


def files_markdown(name: str, files: Sequence[File]) -> str:
    """The official files, those of one kind in a row: what they hold, their size, how to come by
    them; and what there is to know for that."""
    groups: dict[tuple, list[File]] = {}
    for file in files:
        folder = file.name.rpartition("/")[0] or file.name
        groups.setdefault((folder, file.holds, file.needed, file.how), []).append(file)
    rows = [[_names(own), _way(own), own[0].needed, _bytes([file.bytes for file in own]),
             _told(own[0].holds)] for own in groups.values()]
    hints = {file.instructions: [f for f in files if f.instructions == file.instructions]
             for file in files if file.instructions}
    listed = "".join(f"- {_names(own)}: {_told(hint)}\n" for hint, own in hints.items())
    head = "All of it is downloaded by hand, into `FOLDER`, under the name that stands here;"
    fetched = f"`python -m data_prep.fetch {name} --raw FOLDER` downloads"
    ways = {file.how == "https" for file in files}
    if ways == {True}:
        head = f"{fetched} all of it;"
    elif True in ways:
        head = (f"{fetched} what needs no form and no login. The rest goes into `FOLDER` by hand, "
                "under the name that stands here;")
    return (f"{head} archives may stay packed.\n\n"
            + table(["file", "from", "needed", "size", "what it holds"], rows, numbers=(3,))
            + (f"\n{listed}" if listed else ""))


def _names(files: Sequence[File]) -> str:
    """Names as code; many that are every combination of some parts as one: `{a,b}.{x,y}.json`."""
    names = [re.split(r"([./])", file.name) for file in files]
    if len(names) > FEW and len({len(parts) for parts in names}) == 1:
        parts = [list(dict.fromkeys(own)) for own in zip(*names, strict=True)]
        if math.prod(map(len, parts)) == len(names):
            joined = ("{" + ",".join(own) + "}" if len(own) > 1 else own[0] for own in parts)
            return f"`{''.join(joined)}`"
    return ", ".join(f"`{file.name}`" for file in files)


def _way(files: Sequence[File]) -> str:
    file = files[0]
    where = file.page if len(files) > 1 or file.classes or not file.url else file.url
    known = ", hash known" if all(f.sha256 or f.md5 for f in files) else ""
    return f"[{HOW[file.how]}](<{where}>){known}"


def _told(text: str) -> str:
    """Plain words; addresses as links, names of files and options as code."""
    return " ".join(_word(word) for word in re.findall(r"(?:<[^<>]*>|\S)+", text))


def _word(word: str) -> str:
    bare = word.lstrip("(").rstrip(".,;:)")
    before, after = word.split(bare, 1) if bare else (word, "")
    if bare.startswith(("http://", "https://")) and not set(bare) & set("{}<>"):
        return f"{before}<{bare}>{after}"
    is_name = bare.startswith("--") or set(bare) & set("_<>{}*/\\") or re.search(r"\w\.\w", bare)
    return f"{before}`{bare}`{after}" if is_name else plain(word)


def _bytes(sizes: Sequence[int | None]) -> str:
    if None in sizes:
        return "not known"
    n = sum(sizes)
    return f"{n / 1e9:.1f}\u00a0GB" if n >= 1e9 else f"{n / 1e6:.1f}\u00a0MB"


def defects_markdown(facts: Facts) -> str:
    """What is wrong or surprising in the published files, and what is done about it here."""
    if not facts.defects:
        return "None is known.\n"
    return "\n".join(f"- **{d.what}.** {sentence(d.detail)} *Here:* {sentence(d.handled, False)}"
                     for d in facts.defects) + "\n"


def lists_of(name: str) -> ClassLists:
    """The class lists of a sketch set; of doodles those that it is drawn by."""
    if name != "doodles":
        return class_lists(name)
    from data_prep.doodles.classes import CLASSES, SEEN, UNSEEN

    return ClassLists(CLASSES, {f"{len(SEEN)}/{len(UNSEEN)}":
                                Split(SEEN, UNSEEN, "fixed in the drawing code")}, {})


def classes_markdown(lists: ClassLists) -> str:
    """Seen and unseen classes of every split, folded away."""
    parts = []
    for name, split in lists.splits.items():
        head = f"{name}: {len(split.seen)} seen and {len(split.unseen)} unseen classes"
        unseen, seen = (", ".join(map(plain, own)) for own in (split.unseen, split.seen))
        parts.append(f"````{{dropdown}} {head}\n{sentence(split.source)}\n\n**Unseen:** {unseen}"
                     f"\n\n**Seen:** {seen}\n````")
    return "\n\n".join(parts) + "\n"


def _with_sheet(facts: Facts, results: Path, out: Path) -> str:
    """Copies the contact sheet of this machine's check, or takes an old copy away."""
    copy, report = out / f"dataset_{facts.name}.jpg", results / "report.json"
    copy.unlink(missing_ok=True)
    if not (report.is_file() and (results / "contact.jpg").is_file()):
        return sheet_markdown(facts)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(results / "contact.jpg", copy)
    return sheet_markdown(facts, json.loads(report.read_text(encoding="utf-8")))


def overview_markdown(known: Sequence[Facts], checks: dict[str, list[dict]], book: Path) -> str:
    """One line a set: what it is, who uses it, its stated size, and what was checked here."""
    rows = [[f"[{facts.title}](/datasets/{facts.name}.md)", KINDS[facts.kind],
             _users(facts, book) or "no chapter yet", _size(facts), state_of(checks[facts.name])]
            for facts in known]
    return table(["set", "kind", "used by", "stated size", "checked here"], rows)
