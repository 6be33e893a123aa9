"""What the benchmarks of networks share: a step timed to its end, and their options."""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds until the device has done what `run` asks of it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def options(description: str, repeats: int) -> argparse.ArgumentParser:
    """A parser with --device, --repeats and --out."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--out", type=Path, default=None)
    return parser


def write(record: dict, out: Path | None, name: str) -> None:
    """The record as JSON, in the results' folder unless a file is named."""
    out = out or RESULTS / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + os.linesep)
