"""What the page "running it" shows of the records: what each run took, and on what.

Never imports torch.
"""

from pathlib import Path

from replication import paths
from replication.published import Paper
from replication.records import RunRecord

COLUMNS = ("run", "data", "machine", "training", "items a second", "measuring", "peak memory")
MACHINE = COLUMNS.index("machine")


def write(book: Path, papers: dict[str, Paper], records: dict[str, list[RunRecord]]) -> list[Path]:
    """`_generated/running_costs.md`."""
    found = [record for own in records.values() for record in own]
    return [paths.write_atomic(book / "_generated/running_costs.md", costs_markdown(found))]


def costs_markdown(records: list[RunRecord]) -> str:
    """A line a run, its record's own numbers; then where they were made."""
    if not records:
        return "No run yet.\n"
    ordered = sorted(records, key=lambda r: (r.dataset.kind != "demo", r.paper, r.experiment))
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(_row, ordered)]
    if len({machine(r) for r in records}) == 1:  # said below, once
        rows = [row[:MACHINE] + row[MACHINE + 1:] for row in rows]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{machines_sentence(records)}\n"


def machine(record: RunRecord) -> str:
    """The GPU's name, or the number of CPU cores."""
    made = record.environment
    return made.device if made.device != "cpu" else f"{made.cpu_count} CPU cores"


def machines_sentence(records: list[RunRecord]) -> str:
    """Where the records were made, and whether any on a GPU."""
    machines = ", ".join(sorted({machine(r) for r in records}))
    measured = any(r.environment.device != "cpu" for r in records)
    return f"Made on {machines}." + ("" if measured else " Times on a GPU are not measured.")


def _row(record: RunRecord) -> tuple[str, ...]:
    cost = record.cost
    return (f"`{record.paper}/{record.experiment}`",
            f"{record.dataset.name} {record.dataset.split} ({record.dataset.kind})",
            machine(record), _time(cost.seconds_train), _rate(cost.items_per_second),
            _time(cost.seconds_evaluate), _memory(cost.peak_memory_bytes))


def _time(seconds: float | None) -> str:
    if not seconds:
        return "–"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _rate(items: float | None) -> str:
    return f"{items:,.0f}" if items else "–"


def _memory(count: int | None) -> str:
    return f"{count / 1e9:.1f} GB" if count else "–"
