"""Annotation files of published sets: read whole, checked, their offenders named."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from replication import paths
from replication.data import DatasetError

Parsed = TypeVar("Parsed")


def whole(file: Path, parse: Callable[[bytes], Parsed]) -> Parsed:
    """What `parse` makes of a file's bytes; DatasetError for a torn one, or another file."""
    try:
        return parse(file.read_bytes())
    except (ValueError, EOFError) as error:
        raise DatasetError(f"{paths.shown(file)} is not whole, or another file ({error}): unpack "
                           "it again") from None


def fields(file: Path, content: dict, key: str, *names: str) -> list[tuple]:
    """The named fields of every row of the list `content[key]`; DatasetError where some lack."""
    try:
        return [tuple(row[name] for name in names) for row in content[key]]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{paths.shown(file)}: not every row of {key!r} has {', '.join(names)} "
                           f"({error}); is it another file?") from None


def refuse(bad: list, told: str, what_to_do: str, most: int = 12) -> None:
    """Raises DatasetError that counts and names the offenders, if there are any."""
    if bad:
        more = f" and {len(bad) - most:,} more" if len(bad) > most else ""
        raise DatasetError(f"{len(bad):,} {told}: {', '.join(map(str, bad[:most]))}{more}. "
                           f"{what_to_do}")
