"""Evaluation at the size of zero-shot Sketchy: 15,229 queries x 17,101 photos x 512, 25 classes.

`python -m benchmarks.evaluation` measures `replication.retrieval.evaluate` (mAP@all, mAP@200,
P@100, P@200 under two conventions, one pass) against what no ranking by scores can go below by
much, measured in the same run: the matrix product in the same chunks and ONE numpy.sort of each
chunk. Goals: at most 1.5 times that, and less than 2 GB of memory for the whole process.
The matrix product is also shown alone, and the floor with its sort spread over all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from replication.metrics import CLIP_PROMPT, COMMON
from replication.retrieval import evaluate, iter_scores

N_QUERY, N_GALLERY, DIM, CLASSES, CHUNK = 15_229, 17_101, 512, 25, 512
RESULTS = Path(__file__).parent / "results" / "evaluation.json"


def embeddings(n_query: int, n_gallery: int, seed: int = 0):
    """Class centres plus noise, so that the ranking is neither random nor perfect."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((CLASSES, DIM), dtype=np.float32)
    sides = []
    for n in (n_query, n_gallery):
        labels = draw.integers(0, CLASSES, n)
        noise = draw.standard_normal((n, DIM), dtype=np.float32)
        sides += [torch.from_numpy(centres[labels] + 4 * noise), torch.from_numpy(labels)]
    return sides


def product(query, gallery) -> None:
    for _ in iter_scores(query, gallery, CHUNK):
        pass


def product_and_sort(query, gallery) -> None:
    for _, scores in iter_scores(query, gallery, CHUNK):
        np.sort(scores.numpy(), axis=1)


def product_and_threaded_sort(query, gallery) -> None:
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _, scores in iter_scores(query, gallery, CHUNK):
            list(pool.map(np.sort, np.array_split(scores.numpy(), 4 * torch.get_num_threads())))


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_gb() -> float:
    """Largest resident memory of this process so far; Linux counts KiB, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def measured(scale: float, repeats: int) -> dict:
    """Medians over interleaved repeats: a busy moment of the machine hits every side alike."""
    query, query_labels, gallery, gallery_labels = embeddings(
        round(N_QUERY * scale), round(N_GALLERY * scale)
    )
    labels = (query_labels, gallery_labels)
    result = None

    def evaluation() -> None:
        nonlocal result
        result = evaluate(
            query, gallery, *labels, conventions=(CLIP_PROMPT, COMMON), chunk=CHUNK
        )  # fmt: skip

    sides = {
        "evaluate": evaluation,
        "product": lambda: product(query, gallery),
        "floor": lambda: product_and_sort(query, gallery),
        "floor_threaded_sort": lambda: product_and_threaded_sort(query, gallery),
    }
    product(query[:CHUNK], gallery)  # warm-up: threads, allocator
    before = peak_gb()
    seconds(evaluation)
    peak = peak_gb()  # before any baseline could raise it
    times = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            times[name].append(seconds(side))
    interval = seconds(lambda: result.summary())
    return {
        "n_query": len(query),
        "n_gallery": len(gallery),
        "dim": DIM,
        "chunk": CHUNK,
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "all_seconds": times,
        "ratio": paired(times, "floor"),
        "ratio_of_best": min(times["evaluate"]) / min(times["floor"]),
        "ratio_to_threaded_floor": paired(times, "floor_threaded_sort"),
        "bootstrap_seconds": interval,
        "peak_gb": peak,
        "peak_gb_before": before,
        "metrics": {
            name: {key: value.nanmean().item() for key, value in values.items()}
            for name, values in result.per_query.items()
        },
    }


def paired(times: dict[str, list[float]], floor: str) -> float:
    return statistics.median(a / b for a, b in zip(times["evaluate"], times[floor], strict=True))


def machine() -> dict:
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_at_start": os.getloadavg()[0],  # above 0: other programs share the cores
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0, help="part of queries and gallery")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    record = {"machine": machine(), "scale": options.scale} | measured(
        options.scale, options.repeats
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{record['n_query']} queries x {record['n_gallery']} gallery x {DIM}, median seconds")
    for name, value in record["seconds"].items():
        print(f"{name:24}{value:8.2f}")
    print(f"{'ratio to floor':24}{record['ratio']:8.2f}   goal 1.5 or less")
    print(f"{'ratio of best repeats':24}{record['ratio_of_best']:8.2f}")
    print(f"{'ratio, threaded sort':24}{record['ratio_to_threaded_floor']:8.2f}")
    print(f"{'peak memory, GB':24}{record['peak_gb']:8.2f}   goal below 2")


if __name__ == "__main__":
    main()
