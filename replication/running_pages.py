"""What the page "running it" shows of the records: what each run took, and on what.

Never imports torch.
"""

from pathlib import Path

from replication import paths
from replication.published import Paper
from replication.records import RunRecord

COLUMNS = ("run", "data", "on", "training", "items a second", "measuring", "peak memory")


def write(book: Path, papers: dict[str, Paper], records: dict[str, list[RunRecord]]) -> list[Path]:
    """`_generated/running_costs.md`."""
    found = [record for own in records.values() for record in own]
    return [paths.write_atomic(book / "_generated/running_costs.md", costs_markdown(found))]


def costs_markdown(records: list[RunRecord]) -> str:
    """A line a run, its record's own numbers; then whether any was made on a GPU."""
    if not records:
        return "No run yet.\n"
    ordered = sorted(records, key=lambda r: (r.dataset.kind != "demo", r.paper, r.experiment))
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(_line, ordered)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{devices_sentence(records)}\n"


def devices_sentence(records: list[RunRecord]) -> str:
    """Which accelerators the records were made on."""
    names = sorted({r.environment.device for r in records} - {"cpu"})
    if not names:
        return "None of these was made on a GPU: times there are not measured."
    return f"On a GPU: {', '.join(names)}; the others on a CPU."


def _line(record: RunRecord) -> tuple[str, ...]:
    cost, machine = record.cost, record.environment
    on = machine.device if machine.device != "cpu" else f"{machine.cpu_count} CPU cores"
    return (f"`{record.paper}/{record.experiment}`",
            f"{record.dataset.name} {record.dataset.split} ({record.dataset.kind})", on,
            _time(cost.seconds_train), _rate(cost.items_per_second),
            _time(cost.seconds_evaluate), _memory(cost.peak_memory_bytes))


def _time(seconds: float | None) -> str:
    if not seconds:
        return "–"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _rate(items: float | None) -> str:
    return f"{items:,.0f}" if items else "–"


def _memory(count: int | None) -> str:
    return f"{count / 1e9:.1f} GB" if count else "–"
