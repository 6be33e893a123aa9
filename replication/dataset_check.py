"""The check of a prepared set: counts against the published ones, every picture decoded once, the
manifest, duplicates within and across train and test; all problems in one list.
"""

import platform
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import imagehash
import PIL

from replication import paths
from replication.inventory import Inventory
from replication.pictures import Look, Near, TooMany, described, looks, near_pairs, sameness
from replication.progress import bar
from replication.records import code_version, utc_now

MOST = 200  # examples of one kind that a report names


def check(found: Inventory, *, subset: bool = False, strict: bool = False, near: int = 4,
          workers: int | None = None) -> dict:
    """The report of a set, as it is written to report.json.

    subset: counts may differ from the published ones, which then is a note. strict: duplicates
    across splits, and pictures that readers may treat otherwise, are problems too. near: bits of
    64 in which two perceptual hashes may differ (0 to 7).
    """
    started = time.perf_counter()
    files = found.files
    seen = list(bar(looks([found.folder / file for file in files], workers), total=len(files),
                    label=f"check {found.folder.name}", unit="img"))
    by_file = dict(zip(files, seen, strict=True))
    odd = _odd(by_file)
    damaged = [[file, one.problem] for file, one in by_file.items() if one.problem]
    problems, notes = list(found.problems), []
    same, alike = _duplicates(found, files, seen, near, notes)
    (notes if subset else problems).extend([*found.refused, *_count_differences(found)])
    problems += _of(damaged, "pictures cannot be decoded", lambda row: f"{row[0]} ({row[1]})")
    problems += _of(_changed(found, by_file), "files differ from manifest.csv")
    told = problems if strict else notes
    told += _of(_shared(found), "pictures are in more than one of train, val and test")
    told += _of(same["across"], "groups of the same bytes across splits", _group)
    told += _of(alike["across"], "near-same pairs across splits", _pair)
    notes += _of(same["within"], "groups of the same bytes within a split", _group)
    notes += _of(alike["within"], "near-same pairs within a split", _pair)
    for what, places in odd.items():
        told += _of(places, f"pictures: {what}")
    return {"name": found.facts.name, "folder": found.folder.name, "split": found.split,
            "subset": subset, "counts": found.counts, "per_class": _per_class(found),
            "manifest": " ".join(found.manifests), "n_pictures": len(files),
            "pictures": described(seen), "damaged": damaged,
            "odd": {what: places[:MOST] for what, places in odd.items()},
            "same_bytes": _cut(same), "near_same": _cut(alike),
            "n_same_bytes": {k: len(v) for k, v in same.items()},
            "n_near_same": {k: len(v) for k, v in alike.items()}, "near_bits": near,
            "problems": problems, "notes": notes,
            "seconds": round(time.perf_counter() - started, 2), "versions": _versions(),
            "commit": code_version().commit, "made_at": utc_now()}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "pillow": PIL.__version__,
            "imagehash": imagehash.__version__}


def _of(rows: Sequence, what: str, shown=str, most: int = 8) -> list[str]:
    """One line that counts and names the offenders; none where there are none."""
    if not rows:
        return []
    more = f" and {len(rows) - most:,} more" if len(rows) > most else ""
    return [f"{len(rows):,} {what}: {', '.join(map(shown, rows[:most]))}{more}"]


def _pair(row: list) -> str:
    return f"{row[0]} ~ {row[1]} ({row[2]} bits)"


def _group(names: list[str], most: int = 4) -> str:
    more = f" = {len(names) - most:,} more" if len(names) > most else ""
    return " = ".join(names[:most]) + more


def _cut(groups: dict[str, list]) -> dict[str, list]:
    return {kind: [row[:MOST] for row in rows[:MOST]] for kind, rows in groups.items()}


def _count_differences(found: Inventory) -> list[str]:
    published = found.facts.splits.get(found.split)
    if published is None:
        known = ", ".join(found.facts.splits)
        return [f"split {found.split} has no published counts (there are: {known})"]
    lines = [f"{part}: {found.counts[part]:,} here, {count:,} published ({published.source})"
             for part, count in published.counts.items()
             if count is not None and part in found.counts and found.counts[part] != count]
    for domain, count in published.per_class.items():
        of_class = _per_class(found).get(domain, {})
        wrong = [f"{name} {n}" for name, n in of_class.items() if n != count]
        lines += _of(wrong, f"classes without {count} {domain} pictures each")
    return lines


def _per_class(found: Inventory) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter] = {}
    for part in found.parts:
        counts.setdefault(part.domain, Counter()).update(part.classes)
    return {domain: dict(sorted(own.items())) for domain, own in counts.items() if own}


def _changed(found: Inventory, by_file: dict[str, Look]) -> list[str]:
    """Pictures whose bytes are not those that the preparation hashed, and files on one side only.
    """
    if not found.hashes:
        return []
    changed = [f"{file} (changed)" for file, sha256 in found.hashes.items()
               if file in by_file and by_file[file].sha256 != sha256]
    gone = [f"{file} (absent)" for file in found.hashes
            if file not in by_file and not (found.folder / file).is_file()]
    new = [f"{file} (not listed)" for file in by_file if file not in found.hashes]
    return sorted(changed + gone + new)


def _sides(found: Inventory) -> dict[str, set[str]]:
    sides: dict[str, set[str]] = {}
    for part in found.parts:
        for file in part.files:
            sides.setdefault(file, set()).add(part.side)
    return sides


def _shared(found: Inventory) -> list[str]:
    return sorted(file for file, sides in _sides(found).items() if len(sides) > 1)


def _duplicates(found: Inventory, files: list[str], seen: list[Look], near: int, notes: list[str]
                ) -> tuple[dict[str, list], dict[str, list]]:
    """Same bytes and near-same pictures, each `within` a split and `across` splits. Sketches are
    compared with sketches, photos with photos."""
    sides = _sides(found)
    domain = {file: part.domain for part in found.parts for file in part.files}
    same, alike = {"within": [], "across": []}, {"within": [], "across": []}
    for group in sameness(seen):
        names = [files[row] for row in group]
        same[_where([sides[name] for name in names])].append(names)
    for own in dict.fromkeys(domain.values()):
        rows = [row for row, file in enumerate(files) if domain[file] == own]
        for pair in _near(own, [seen[row] for row in rows], near, notes):
            names = [files[rows[pair.one]], files[rows[pair.other]]]
            alike[_where([sides[name] for name in names])].append([*names, pair.bits])
    return same, alike


def _near(domain: str, seen: list[Look], near: int, notes: list[str]) -> list[Near]:
    try:
        return near_pairs(seen, near)
    except TooMany as error:
        notes.append(f"{domain}: {error}")
        return []


def _where(sides: list[set[str]]) -> str:
    return "within" if len(set().union(*sides)) == 1 else "across"


def _odd(by_file: dict[str, Look]) -> dict[str, list[str]]:
    odd: dict[str, list[str]] = {}
    for file, one in by_file.items():
        if not one.problem:
            for what in one.oddities(Path(file).suffix):
                odd.setdefault(what, []).append(file)
    return dict(sorted(odd.items()))


def as_markdown(report: dict) -> str:
    """The report for people: verdict, problems, notes, counts, pictures."""
    state = "no problem" if not report["problems"] else f"{len(report['problems'])} problems"
    split = f", split {report['split']}" if report["split"] else ""
    lines = [f"# {report['name']}{split}: {state}", "",
             f"{report['n_pictures']:,} pictures decoded in {report['seconds']} s; manifest "
             f"`{report['manifest'][:80]}`; {report['made_at']}, commit {report['commit'][:9]}."]
    for title, rows in (("Problems", report["problems"]), ("Notes", report["notes"])):
        if rows:
            lines += ["", f"## {title}", "", *(f"- {row}" for row in rows)]
    lines += ["", "## Counts", "", "| part | here |", "| --- | ---: |",
              *(f"| {part} | {n:,} |" for part, n in report["counts"].items())]
    lines += ["", "## Pictures", "", "| | |", "| --- | --- |"]
    lines += [f"| {what} | {', '.join(f'{k}: {n:,}' for k, n in own.items())} |"
              for what, own in report["pictures"].items() if isinstance(own, dict)]
    return "\n".join(lines) + "\n"


def default_folder(name: str) -> Path:
    """Where a check's report, its Markdown and its contact sheet are written."""
    return paths.RESULT / "datasets" / name
