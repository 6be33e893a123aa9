"""`python -m data_prep.doodles --out DIR`: draws the built-in dataset."""

from __future__ import annotations

import argparse
import sys

from .sheet import contact_sheet
from .write import DoodlesError, draw_dataset


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.doodles", description=__doc__)
    parser.add_argument("--out", required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-class", type=int, default=24, help="instances a class, 4 or more")
    parser.add_argument("--size", type=int, default=64, help="pixels a side, 32 or more")
    parser.add_argument("--sketches", type=int, default=3, help="sketches an instance")
    parser.add_argument("--workers", type=int, default=None, help="processes; default: one a core")
    parser.add_argument("--sheet", help="also write a picture of all classes to this PNG")
    return parser.parse_args()


def main() -> int:
    """Draws, says where; 2 and one message where it cannot."""
    given = arguments()
    try:
        root = draw_dataset(given.out, given.seed, given.per_class, given.size, given.sketches,
                            given.workers)  # fmt: skip
    except DoodlesError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"doodles are in {root}")
    if given.sheet:
        print(f"contact sheet: {contact_sheet(root, given.sheet)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
