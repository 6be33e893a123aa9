"""What every paper's chapter shows of its runs: cost, commands, notebooks. Never imports torch."""

from pathlib import Path

from replication.published import Paper
from replication.records import RunRecord


def write(book: Path, papers: dict[str, Paper], records: dict[str, list[RunRecord]]) -> list[Path]:
    """The files of `_generated` that these pages include."""
    return []
