"""The command line that every preparation has."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_prep.preparing import ABOUT


def parser(name: str, doc: str, splits: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The options that every preparation has; a module adds its own."""
    result = argparse.ArgumentParser(f"python -m data_prep.{name}", description=doc,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--raw", type=Path, required=True,
                        help="folder of the official archives, packed or unpacked")
    result.add_argument("--out", type=Path, required=True, help="folder of prepared sets")
    if splits:
        result.add_argument("--split", choices=splits, default=splits[0],
                            help=f"default {splits[0]}")
    result.add_argument("--name", default=None, help="name of the prepared folder")
    result.add_argument("--fetch", action="store_true",
                        help="first download into --raw what needs no login or form")
    result.add_argument("--allow-damaged", action="store_true",
                        help="leave damaged pictures out and name them: not the published set")
    result.add_argument("--max-unpacked", type=float, default=200, metavar="GB",
                        help="largest content of an archive that is unpacked (default 200)")
    result.add_argument("--workers", type=int, default=None, help="processes (default one a core)")
    return result


def shared(given: argparse.Namespace) -> dict[str, Any]:
    """What every `prepare` takes of these options."""
    return {"allow_damaged": given.allow_damaged, "max_unpacked": given.max_unpacked,
            "workers": given.workers}


def finish(make: Callable[[], Path]) -> int:
    """Calls `make`, prints what it made; what goes wrong is one message and exit status 1."""
    try:
        target = make()
        about = json.loads((target / ABOUT).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counted = ", ".join(f"{n:,} {what}" for what, n in about["counts"].items())
    print(f"{target}: {counted}")
    for oddity, places in about.get("odd", {}).items():
        print(f"  note: {len(places):,} pictures: {oddity}, as {places[0]}")
    if about.get("left_out"):
        print(f"  {len(about['left_out']):,} damaged pictures were left out: see {ABOUT}; this is "
              "not the published set")
    return 0
