"""What is known of each data set: reads `book/datasets/<name>.yml`, facts with their sources."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from replication import paths


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(_Facts):
    """counts: part -> files, None where no source states it. Parts are `train/sketch`,
    `val/photo`, `val/classes` (sketch sets; `val` holds the unseen classes, or the official test
    part), `test/images`, `test/captions` (captioned), `val/queries`, `val/images` or, a type,
    `val dress/queries` (composed); of a whole set `sketch`, `photo`, `classes`, `images`,
    `captions`, `queries`. per_class: domain -> files of every class."""

    source: str
    counts: dict[str, int | None]
    per_class: dict[str, int] = {}


class Claim(_Facts):
    """A count that a source states of a part: of a split, or, without one, of the whole set. cite:
    a key of references.bib; note: why it differs, where known."""

    source: str
    cite: str = ""
    split: str = ""
    part: str
    count: int
    note: str = ""


class Defect(_Facts):
    """Something wrong or surprising in the published files; handled: what is done about it here."""

    what: str
    detail: str
    handled: str


class Facts(_Facts):
    """One data set. name: of its module in data_prep; folder: of the prepared set; cite: keys of
    references.bib; home: page of the authors; used_by: folders of the book's chapters; whole: the
    set before any split."""

    name: str
    title: str
    kind: Literal["sketch", "instance", "captions", "composed"]
    folder: str
    cite: list[str]
    home: str
    licence: str
    used_by: list[str]
    whole: Split | None = None
    splits: dict[str, Split]
    claims: list[Claim] = []
    defects: list[Defect] = []


def read_facts(name: str, folder: Path | None = None) -> Facts:
    """The facts of one set; ValueError for a set without any, which names those there are."""
    folder = folder or paths.BOOK / "datasets"
    file = folder / f"{name}.yml"
    if not file.is_file():
        known = ", ".join(sorted(f.stem for f in folder.glob("*.yml")))
        raise ValueError(f"no data set {name!r}: choose {known}")
    return Facts.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))


def all_facts(folder: Path | None = None) -> dict[str, Facts]:
    """name -> facts of every set, sorted."""
    folder = folder or paths.BOOK / "datasets"
    return {f.stem: read_facts(f.stem, folder) for f in sorted(folder.glob("*.yml"))}


def proper_name(name: str) -> str:
    """How texts call a set: its title, without what it was extended by; a set without facts by its
    name."""
    known = all_facts()
    return known[name].title.partition(",")[0] if name in known else name
