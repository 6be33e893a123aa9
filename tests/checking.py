"""What a prepared set says of itself, and its check, for the tests of preparations; no test of its
own."""

import csv
import json
from pathlib import Path

from replication.dataset_check import check
from replication.datasets import read_facts
from replication.inventory import take_inventory


def rows(folder: Path) -> list[dict]:
    """The manifest, a file a row."""
    with open(folder / "manifest.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def about(folder: Path) -> dict:
    """dataset.json."""
    return json.loads((folder / "dataset.json").read_text(encoding="utf-8"))


def report_of(name: str, root: Path, **options) -> dict:
    """The report on the set `name` of `root`; made-up counts are never the published ones."""
    return check(take_inventory(read_facts(name), root), workers=1, **options)


def told_when_gone(name: str, root: Path, picture: Path) -> None:
    """Asserts that a whole set has no problem, and that an absent picture is named in one."""
    whole = report_of(name, root, subset=True)
    assert whole["problems"] == [] and whole["n_pictures"] > 0 and whole["manifest"]
    assert all(whole["counts"].values())
    picture.unlink()
    report = report_of(name, root)
    assert any("not in" in line and picture.stem in line for line in report["problems"])
    assert any(f"{picture.name} (absent)" in line for line in report["problems"])
    assert str(root) not in str(report)
    assert report["n_pictures"] == whole["n_pictures"] - 1
