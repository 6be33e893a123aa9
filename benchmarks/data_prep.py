"""Preparing and checking a set: 6,250 pictures of 256 x 256 in Sketchy's layout.

`python -m benchmarks.data_prep [--raw FOLDER]` prepares an archive (without --raw a made-up one:
smooth photos, line sketches) with one process and with one a core, with links and with copies, and
checks the set as `python -m replication verify` does. The baseline of the same run is the floor:
every file read, hashed and decoded once, in a plain loop of one process. Goals: the whole
preparation of 6,250 files under 20 s on two cores, and a speed that grows with the cores.
"""

from __future__ import annotations

import hashlib
import io
import os
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image, ImageDraw

from data_prep import sketchy
from replication.datasets import read_facts

# What needs torch is imported where it is used: a worker process imports this file again, as it
# does the command's, which needs none.
EACH = 25  # photos, and sketches, of a class
SPLIT = "100/25"


def made_up(raw: Path) -> Path:
    """An archive with as many files as the real sample: 125 classes x 25 x 2."""
    rng = np.random.default_rng(0)
    for name in sketchy.CLASSES:
        for domain in ("photo", "sketch"):
            folder = raw / "256x256" / domain / "tx_000000000000" / name
            folder.mkdir(parents=True)
            for k in range(EACH):
                if domain == "photo":
                    photo(rng).save(folder / f"n0_{k}.jpg", quality=70)
                else:
                    sketch(rng).save(folder / f"n0_{k}-1.png")
    return raw


def photo(rng: np.random.Generator) -> Image.Image:
    coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    return coarse.resize((256, 256), Image.Resampling.BICUBIC)


def sketch(rng: np.random.Generator) -> Image.Image:
    drawing = Image.new("RGB", (256, 256), "white")
    points = rng.integers(20, 236, (12, 2))
    ImageDraw.Draw(drawing).line([tuple(map(int, p)) for p in points], "black", 2)
    return drawing


def floor(files: list[Path]) -> None:
    for file in files:
        content = file.read_bytes()
        hashlib.sha256(content).hexdigest()
        with Image.open(io.BytesIO(content)) as image:
            image.load()


def seconds(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measured(raw: Path, work: Path, repeats: int) -> dict:
    """Medians over interleaved repeats; every preparation starts from nothing."""
    from replication.dataset_check import check
    from replication.inventory import take_inventory

    files = sorted(f for f in raw.rglob("*") if f.suffix in (".jpg", ".png"))
    floor(files)  # so that no run reads from a cold disk
    facts, cores = read_facts("sketchy"), os.cpu_count() or 1
    times: dict[str, list[float]] = {}

    def prepared(kind: str, workers: int) -> Path:
        out = work / f"{kind}-{len(times.get(kind, ()))}"
        times.setdefault(kind, []).append(
            seconds(lambda: sketchy.prepare(raw, out, SPLIT, workers=workers)))
        return out

    for _ in range(repeats):
        times.setdefault("floor", []).append(seconds(lambda: floor(files)))
        prepared("prepare, one process", 1)
        out = prepared("prepare, one a core", cores)
        with mock.patch("os.link", side_effect=OSError):
            prepared("prepare with copies, one process", 1)
        found = take_inventory(facts, out)
        for kind, workers in (("check, one process", 1), ("check, one a core", cores)):
            times.setdefault(kind, []).append(
                seconds(lambda n=workers, own=found: check(own, subset=True, workers=n)))
        times.setdefault("prepared already", []).append(
            seconds(lambda out=out: sketchy.prepare(raw, out, SPLIT)))
    middle = {kind: statistics.median(values) for kind, values in times.items()}
    ratio = {kind: statistics.median(a / b for a, b in zip(values, times["floor"], strict=True))
             for kind, values in times.items()}
    return {"files": len(files), "bytes": sum(f.stat().st_size for f in files), "cores": cores,
            "seconds": middle, "times_floor": ratio, "all_seconds": times}


def main() -> None:
    from benchmarks import timing
    from benchmarks.evaluation import machine

    parser = timing.options(__doc__.splitlines()[0], 3)
    parser.add_argument("--raw", type=Path, default=None, help="an unpacked Sketchy archive")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        raw = options.raw or made_up(work / "raw")
        record = {"machine": machine(), "made_up": options.raw is None,
                  **measured(raw, work, options.repeats)}
    timing.write(record, options.out, "data_prep" + ("" if record["made_up"] else "_sample"))
    print(f"{record['files']:,} files, {record['bytes'] / 1e6:.0f} MB, {record['cores']} cores: "
          "seconds, times the floor (read, hash, decode in one process)")
    for kind, took in record["seconds"].items():
        print(f"{kind:36}{took:8.2f}{record['times_floor'][kind]:8.2f}")


if __name__ == "__main__":
    main()
