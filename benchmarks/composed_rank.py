"""Composed ranks at CIRR's size: 4,181 queries x 2,297 images x 32 vectors x 256, float32.

`python -m benchmarks.composed_rank` measures `replication.composed_metrics.composed_ranks` over
`replication.retrieval.max_scorer` (ranks in the gallery and in groups of six) against the matrix
product alone in the same blocks and the same run. Goals: at most 1.5 times that, and memory that is
a block's and a chunk of scores', not the 1.2 GB of all products. The product of each chunk of
queries with all vectors at once is shown too.
"""

from __future__ import annotations

import statistics

import torch
from torch.nn import functional as F

from benchmarks import timing
from benchmarks.evaluation import machine, peak_gb
from benchmarks.image_text import grown, paired
from benchmarks.timing import seconds
from replication.composed_metrics import composed_ranks
from replication.retrieval import PRODUCTS, cosine_scorer, max_scorer

N_QUERY, N_IMAGES, VECTORS, DIM, GROUP = 4_181, 2_297, 32, 256, 6


def a_set(n: int, device: torch.device, noise: float = 4.0):
    """Unit vectors, a query near one of its target's; groups that hold target and reference."""
    draw = torch.Generator().manual_seed(0)
    images = F.normalize(torch.randn(N_IMAGES, VECTORS, DIM, generator=draw), dim=-1)
    groups = torch.rand(n, N_IMAGES, generator=draw).topk(GROUP).indices
    target, reference = groups[:, 0], groups[:, 1]
    near = images[target, torch.randint(VECTORS, (n,), generator=draw)]
    query = near + noise * F.normalize(torch.randn(n, DIM, generator=draw), dim=-1)
    return F.normalize(query, dim=-1).to(device), images.to(device), target, reference, groups


def product(query, images, chunk: int) -> None:
    """Every product once, in the blocks of the evaluation, dropped."""
    step = max(1, PRODUCTS // (chunk * VECTORS))
    scorers = [cosine_scorer(query, part.flatten(0, 1)) for part in images.split(step)]
    for start in range(0, len(query), chunk):
        for scorer in scorers:
            scorer(slice(start, start + chunk))


def product_of_rows(query, images, chunk: int) -> None:
    scorer = cosine_scorer(query, images.flatten(0, 1))
    for start in range(0, len(query), chunk):
        scorer(slice(start, start + chunk))


def measured(options) -> dict:
    """Medians over interleaved repeats: a busy moment of the machine hits both sides alike."""
    device, found = torch.device(options.device), {}
    query, images, target, reference, groups = a_set(options.queries, device)

    def ranks() -> None:
        found["ranks"] = composed_ranks(max_scorer(query, images), target, reference=reference,
                                        members=groups, chunk=options.chunk)

    sides = {"ranks": ranks, "product": lambda: product(query, images, options.chunk),
             "product_of_rows": lambda: product_of_rows(query, images, options.chunk)}
    composed_ranks(max_scorer(query[:8], images), target[:8], chunk=8)  # warms up
    growth = grown(ranks, device)  # before the other side could raise the peak
    times = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, side in sides.items():
            times[name].append(seconds(side, device))
    return {"queries": len(query), "images": len(images), "vectors": VECTORS, "dim": DIM,
            "chunk": options.chunk,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "seconds": {name: statistics.median(values) for name, values in times.items()},
            "ratio": paired(times, "product"),
            "ratio_of_best": min(times["ranks"]) / min(times["product"]),
            "ratio_to_product_of_rows": paired(times, "product_of_rows"), "grown_gb": growth,
            "all_products_gb": 4 * len(query) * len(images) * VECTORS / 1e9,
            "peak_gb": peak_gb(), "metrics": found["ranks"].metrics(), "all_seconds": times}


def main() -> None:
    parser = timing.options(__doc__.splitlines()[0], 5)
    parser.add_argument("--queries", type=int, default=N_QUERY)
    parser.add_argument("--chunk", type=int, default=256, help="queries whose scores are held")
    options = parser.parse_args()
    record = {"machine": machine()} | measured(options)
    timing.write(record, options.out, f"composed_rank_{options.device}")
    print(f"{record['queries']:,} queries x {record['images']:,} images x {VECTORS} x {DIM}, "
          f"{record['device']}, median seconds")
    for name, value in record["seconds"].items():
        print(f"{name:28}{value:9.3f}")
    print(f"{'ratio to the product':28}{record['ratio']:9.2f}   goal 1.5 or less")
    print(f"{'ratio of best repeats':28}{record['ratio_of_best']:9.2f}")
    print(f"{'ratio to product of rows':28}{record['ratio_to_product_of_rows']:9.2f}")
    print(f"{'memory grown, GB':28}{record['grown_gb']:9.3f}   all products would be "
          f"{record['all_products_gb']:.3f}")


if __name__ == "__main__":
    main()
