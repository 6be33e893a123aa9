"""Recall both ways at COCO's size: 5,000 images x 25,000 captions x 512, from given embeddings.

`python -m benchmarks.image_text` measures `replication.image_text.image_text_ranks` (ranks of all
30,000 queries, both directions) against the matrix product alone in the same blocks and the same
run, which no evaluation by scores can do without. Goals: at most 2 times that, and memory that is
the embeddings' and a block's, not the 500 MB of all scores. The product in blocks of whole rows
and the 1K protocol are shown too.
"""

from __future__ import annotations

import statistics

import torch

from benchmarks import timing
from benchmarks.evaluation import machine, peak_gb
from benchmarks.timing import seconds
from replication.captioned import PER_IMAGE
from replication.image_text import image_text_ranks
from replication.retrieval import cosine_scorer, iter_scores

N_IMAGES, DIM, FOLDS = 5_000, 512, 5


def embeddings(n: int, device: torch.device, noise: float = 7.0):
    """Images, five noisy captions of each, and the captions' owners."""
    draw = torch.Generator().manual_seed(0)
    images, owner = torch.randn(n, DIM, generator=draw), torch.arange(n)
    owner = owner.repeat_interleave(PER_IMAGE)
    texts = images[owner] + noise * torch.randn(len(owner), DIM, generator=draw)
    return images.to(device), texts.to(device), owner


def product(images, texts, chunk: int) -> None:
    """Every score once, in the blocks of the evaluation, dropped."""
    scorers = [cosine_scorer(images, part) for part in texts.split(PER_IMAGE * chunk)]
    for start in range(0, len(images), chunk):
        for scorer in scorers:
            scorer(slice(start, start + chunk))


def product_of_rows(images, texts, chunk: int) -> None:
    for _ in iter_scores(images, texts, chunk):
        pass


def grown(run, device: torch.device) -> float:
    """GB by which the peak memory of the process (CUDA: of the device) grows."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e9
    before = peak_gb()
    run()
    return peak_gb() - before


def measured(options) -> dict:
    """Medians over interleaved repeats: a busy moment of the machine hits every side alike."""
    device, found = torch.device(options.device), {}
    images, texts, owner = embeddings(options.images, device)

    def ranks(name: str, n_folds: int = 1) -> None:
        found[name] = image_text_ranks(images, texts, owner, n_folds=n_folds, chunk=options.chunk)

    sides = {"ranks": lambda: ranks("ranks"),
             "product": lambda: product(images, texts, options.chunk),
             "product_of_rows": lambda: product_of_rows(images, texts, options.chunk),
             "ranks_1k": lambda: ranks("ranks_1k", FOLDS)}
    product(images[:options.chunk], texts[:PER_IMAGE * options.chunk], options.chunk)  # warms up
    growth = grown(sides["ranks"], device)  # before any other side could raise the peak
    times = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, side in sides.items():
            times[name].append(seconds(side, device))
    bootstrap = seconds(lambda: found["ranks"].summary(), torch.device("cpu"))
    pairs = len(images) * len(texts)
    return {"images": len(images), "captions": len(texts), "dim": DIM, "chunk": options.chunk,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "seconds": {name: statistics.median(values) for name, values in times.items()},
            "ratio": paired(times, "product"), "ratio_of_best": min(times["ranks"])
            / min(times["product"]), "ratio_to_product_of_rows": paired(times, "product_of_rows"),
            "pairs_per_second": pairs / statistics.median(times["ranks"]),
            "bootstrap_seconds": bootstrap, "grown_gb": growth, "all_scores_gb": 4 * pairs / 1e9,
            "block_gb": 4 * PER_IMAGE * options.chunk**2 / 1e9, "peak_gb": peak_gb(),
            "metrics": {name: r.metrics() | r.median_ranks() for name, r in found.items()},
            "all_seconds": times}


def paired(times: dict[str, list[float]], floor: str) -> float:
    return statistics.median(a / b for a, b in zip(times["ranks"], times[floor], strict=True))


def main() -> None:
    parser = timing.options(__doc__.splitlines()[0], 5)
    parser.add_argument("--images", type=int, default=N_IMAGES, help="a multiple of 5")
    parser.add_argument("--chunk", type=int, default=512, help="images of a block of scores")
    options = parser.parse_args()
    record = {"machine": machine()} | measured(options)
    timing.write(record, options.out, f"image_text_{options.device}")
    print(f"{record['images']:,} images x {record['captions']:,} captions x {DIM}, "
          f"{record['device']}, median seconds")
    for name, value in record["seconds"].items():
        print(f"{name:28}{value:9.3f}")
    print(f"{'ratio to the product':28}{record['ratio']:9.2f}   goal 2 or less")
    print(f"{'ratio of best repeats':28}{record['ratio_of_best']:9.2f}")
    print(f"{'ratio to product of rows':28}{record['ratio_to_product_of_rows']:9.2f}")
    print(f"{'memory grown, GB':28}{record['grown_gb']:9.3f}   all scores would be "
          f"{record['all_scores_gb']:.3f}")


if __name__ == "__main__":
    main()
