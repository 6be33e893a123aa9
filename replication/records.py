"""The run record: one JSON file a run, written, validated and read. Never imports torch."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from replication import paths

SCHEMA_VERSION = 1
MIME = "application/vnd.replication.record+json"
PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow")

Measured = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number, zero or more."""
Count = Annotated[int, Field(ge=0)]
"""A whole number, zero or more."""


class InvalidFile(ValueError):
    """A file of the project that does not say what it must; the message names file and field."""


class Strict(BaseModel):
    """A model that refuses unknown field names, so that a misspelt one is found."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Dataset(Strict):
    """What was measured on. `kind` decides which table a run may stand in.

    `query` and `gallery` say in a word what they are ("images", "captions"), where not a sketch
    paper's; `n_classes` is absent where there are no classes.
    """

    name: str
    split: str
    n_query: Count
    n_gallery: Count
    n_gallery_unique: Count
    n_classes: Count | None = None
    n_train: Count | None = None
    manifest: str
    kind: Literal["demo", "subset", "full"]
    query: str = ""
    gallery: str = ""


class Metric(Strict):
    """One number with its 95 % bootstrap interval over the queries: in percent, or a rank of 1 (the
    best) and more.

    `variant` says what produced the ranking ("trained", "untrained", "pixels", "chance"; of a
    reference and a text "image-only", "text-only", "sum"), `selection` how the epoch was chosen
    ("unseen", "seen", "val", "last"); `protocol` is given only where it is not the record's own,
    and so are `n_query`, of a row on a part of the queries (one type of FashionIQ), and
    `n_gallery`, what a query is ranked against.
    """

    metric: str
    convention: str
    unit: Literal["percent", "rank"] = "percent"  # before the numbers, whose check reads it
    value: Measured
    low: Measured | None = None
    high: Measured | None = None
    variant: str = ""
    selection: str = ""
    protocol: str = ""
    n_query: Count | None = None
    n_gallery: Count | None = None

    @property
    def label(self) -> str:
        """What tells this number from the record's others."""
        parts = [self.metric, self.convention, self.variant, self.selection, self.protocol]
        return " ".join(filter(None, parts))

    @field_validator("value", "low", "high")
    @classmethod
    def percent_is_at_most_100(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and value > 100 and info.data.get("unit") == "percent":
            raise ValueError(f"{info.data.get('metric')} in percent is at most 100")
        return value

    @model_validator(mode="after")
    def interval_is_ordered(self) -> "Metric":
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"{self.metric}: low {self.low} is above high {self.high}")
        return self


class Weights(Strict):
    """The weights a run starts from, and their hash."""

    name: str
    sha256: str


class Code(Strict):
    """Git commit of the project; clean: without changes beside it."""

    commit: str
    clean: bool


class Environment(Strict):
    """Versions and the machine."""

    python: str
    torch: str = ""
    cuda: str = ""
    device: str = "cpu"
    cpu: str = ""
    cpu_count: int = 0
    os: str = ""
    packages: dict[str, str] = {}


class Cost(Strict):
    """What a run took: seconds, bytes, and items (images or pairs, as the notebook says) a second
    of training. Energy is that of training alone, absent where the device tells nothing;
    `energy_source` says whose counter it is."""

    seconds_train: float | None = Field(None, ge=0, allow_inf_nan=False)
    seconds_evaluate: float | None = Field(None, ge=0, allow_inf_nan=False)
    peak_memory_bytes: int | None = Field(None, ge=0)
    items_per_second: float | None = Field(None, ge=0, allow_inf_nan=False)
    energy_joules: float | None = Field(None, ge=0, allow_inf_nan=False)
    energy_source: str = ""


def utc_now() -> str:
    """The time now in UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def code_version() -> Code:
    """Git commit of the project and whether the working tree is clean; "unknown" outside git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return Code(commit=commit, clean=not _git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return Code(commit="unknown", clean=False)


def environment(device: str = "", cuda: str = "", torch: str = "") -> Environment:
    """Versions and machine. Torch's facts come as arguments or from a torch already imported."""
    loaded = sys.modules.get("torch")
    if loaded is not None:
        torch = torch or str(loaded.__version__)
        cuda = cuda or (loaded.version.cuda or "")
    return Environment(
        python=platform.python_version(), torch=torch, cuda=cuda, device=device or "cpu",
        cpu=_cpu_name(), cpu_count=os.cpu_count() or 0, os=platform.platform(terse=True),
        packages=_package_versions())


class RunRecord(Strict):
    """Everything one number needs to be judged and made again."""

    schema_version: Literal[1] = SCHEMA_VERSION
    paper: str
    experiment: str
    parameters: dict[str, Any]
    seed: int
    dataset: Dataset
    protocol: str
    metrics: list[Metric] = Field(min_length=1)
    weights: Weights | None = None
    code: Code = Field(default_factory=code_version)
    environment: Environment = Field(default_factory=environment)
    cost: Cost = Field(default_factory=Cost)
    files: dict[str, str] = {}
    notes: list[str] = []
    started: str
    finished: str
    _path: Path | None = PrivateAttr(None)

    @property
    def path(self) -> Path | None:
        """The file this record was read from."""
        return self._path

    @field_validator("started", "finished")
    @classmethod
    def is_utc(cls, value: str) -> str:
        if datetime.fromisoformat(value).utcoffset() != timedelta(0):
            raise ValueError(f"{value} is not a UTC time such as 2024-05-01T12:00:00Z")
        return value

    @model_validator(mode="after")
    def metrics_are_distinct(self) -> "RunRecord":
        labels = [m.label for m in self.metrics]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError("given more than once: " + ", ".join(twice))
        return self

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """`display(record)` in a notebook hands the record to `python -m replication run`."""
        return {MIME: json.loads(as_json(self)), "text/plain": str(self)}

    def __str__(self) -> str:
        d = self.dataset
        head = (f"{self.paper}/{self.experiment} on {d.name} {d.split} ({d.kind}): "
                f"{d.n_query:,} {d.query or 'queries'} x {d.n_gallery:,} {d.gallery or 'gallery'}, "
                f"seed {self.seed}")
        width = max(len(m.label) for m in self.metrics)
        return "\n".join([head, *(_metric_line(m, width) for m in self.metrics)])


def as_json(record: RunRecord) -> str:
    """The record as the file holds it: sorted keys, one space of indent, no NaN."""
    return json.dumps(record.model_dump(), sort_keys=True, indent=1, allow_nan=False) + "\n"


def parse_record(content: str | bytes | dict, source: str | Path) -> RunRecord:
    """Validates a record; InvalidFile names `source` and every wrong field."""
    try:
        data = content if isinstance(content, dict) else json.loads(content)
        return RunRecord.model_validate(data)
    except ValidationError as error:
        raise InvalidFile(described(error, source)) from None
    except ValueError as error:
        raise InvalidFile(f"{source}: not JSON: {error}") from None


def write_record(record: RunRecord, path: str | Path) -> Path:
    """Writes the record whole or not at all. Values changed since it was made are checked too."""
    checked = parse_record(record.model_dump(), paths.shown(path))
    return paths.write_atomic(path, as_json(checked))


def read_record(path: str | Path) -> RunRecord:
    """Reads one record; InvalidFile names the file and the field, FileNotFoundError the file."""
    path = Path(path)
    record = parse_record(path.read_bytes(), paths.shown(path))
    record._path = path
    return record


def read_records(folder: str | Path) -> list[RunRecord]:
    """All records of a folder in the order of their names; an absent folder holds none."""
    return [read_record(path) for path in sorted(Path(folder).glob("*.json"))]


def described(error: ValidationError, source: str | Path) -> str:
    """A pydantic error as lines of file, field, reason and the value found; of a rule of the whole
    file there is no field."""
    lines = []
    for item in error.errors(include_url=False):
        field = ".".join(map(str, item["loc"]))
        field, reason = field and f"{field}: ", item["msg"].removeprefix("Value error, ")
        found = item.get("input")
        shown = f" (found {found!r})" if isinstance(found, int | float | str | None) else ""
        lines.append(f"{source}: {field}{reason}{shown}")
    return "\n".join(lines)


def _metric_line(m: Metric, width: int) -> str:
    interval = "" if m.low is None or m.high is None else f"  [{m.low:.1f}, {m.high:.1f}]"
    return f"  {m.label:<{width}} {m.value:6.2f}{interval}"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=paths.ROOT, capture_output=True, text=True,
                          check=True, timeout=30)
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _package_versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
