"""Pairs a second of ZSE-SBIR's relation scores at the published size, on already encoded tokens.

`python -m benchmarks.zse_pairs` measures `score_block` (projections once a picture) against the
plain loop `plain_block` (the whole cross-attention for every pair) of the same run, in float32 and
under bf16 autocast, compares the scores, and projects the time of the full evaluation on Sketchy
100/25: 15,229 sketches x 17,101 photos. Goal on the CPU: 1.5 times the plain loop or more; the
arithmetic that is saved allows 1.6.
"""

from __future__ import annotations

import statistics
from functools import partial

import timm
import torch
from torch import nn

from benchmarks import timing
from benchmarks.evaluation import machine
from benchmarks.timing import seconds
from replication.papers import zse_sbir

FULL = 15_229 * 17_101
TOKENS, WIDTH, HIDDEN, ANCHORS, ANCHOR_WIDTH = 197, 768, 1024, 49, 512


def multiplications(projected_once: bool) -> float:
    """Multiply-adds of one pair, in units of 1e9."""
    linear = TOKENS * WIDTH * WIDTH
    attention = 2 * TOKENS * TOKENS * WIDTH
    side = attention + linear + 2 * TOKENS * WIDTH * HIDDEN + 4 * ANCHORS * WIDTH * ANCHOR_WIDTH
    side += 0 if projected_once else 3 * linear
    return (2 * side + ANCHORS**2 * ANCHOR_WIDTH + ANCHORS**2 * 7 * ANCHORS) / 1e9


def model() -> zse_sbir.ZSE:
    torch.manual_seed(0)
    vit = timm.create_model("vit_base_patch16_224", num_classes=0,
                            norm_layer=partial(nn.LayerNorm, eps=1e-5))
    return zse_sbir.ZSE(vit).eval()


@torch.inference_mode()
def measured(options) -> dict:
    """Medians over interleaved repeats; projecting the block's pictures is part of the time."""
    device = torch.device(options.device)
    network = model().to(device)
    draw = torch.Generator().manual_seed(0)
    sketch, photo = (torch.randn(n, TOKENS, WIDTH, generator=draw).to(device)
                     for n in (options.sketches, options.photos))

    def fast():
        s, p = (zse_sbir.projected(network, x, d) for x, d in ((sketch, "sketch"),
                                                               (photo, "photo")))
        return zse_sbir.score_block(network, s, p, options.pairs)

    def plain():
        return zse_sbir.plain_block(network, sketch, photo, options.pairs)

    sides = {"plain": (plain, False), "fast": (fast, False), "plain_bf16": (plain, True),
             "fast_bf16": (fast, True)}
    times, found = {name: [] for name in sides}, {}
    for repeat in range(options.repeats + 1):  # the first warms up
        for name, (run, half) in sides.items():
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                took = seconds(lambda run=run, name=name: found.update({name: run()}), device)
            times[name] += [took] if repeat else []
    count = options.sketches * options.photos
    rate = {name: count / statistics.median(values) for name, values in times.items()}
    ratio = {name: statistics.median(a / b for a, b in zip(times["plain"], values, strict=True))
             for name, values in times.items()}
    half = statistics.median(a / b for a, b in zip(times["plain_bf16"], times["fast_bf16"],
                                                   strict=True))
    return {"sketches": options.sketches, "photos": options.photos, "pairs_at_once": options.pairs,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "pairs_per_second": rate, "times_plain": ratio, "bf16_times_plain_bf16": half,
            "arithmetic_allows": multiplications(False) / multiplications(True),
            "tera_multiply_adds_per_second": {k: v * multiplications(k.startswith("fast")) / 1e3
                                              for k, v in rate.items()},
            "hours_for_sketchy_25": {k: FULL / v / 3600 for k, v in rate.items()},
            "largest_difference": {k: float((v - found["plain"]).abs().max())
                                   for k, v in found.items()},
            "spread_of_scores": float(found["plain"].std()), "all_seconds": times}


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = timing.options(__doc__.splitlines()[0], 10 if cuda else 3)
    parser.add_argument("--sketches", type=int, default=32 if cuda else 8)
    parser.add_argument("--photos", type=int, default=512 if cuda else 64)
    parser.add_argument("--pairs", type=int, default=256 if cuda else 8, help="scored at once")
    options = parser.parse_args()
    record = {"machine": machine()} | measured(options)
    timing.write(record, options.out, f"zse_pairs_{options.device}")
    print(f"{record['device']}: pairs a second, times the plain float32 loop, difference, hours "
          "for Sketchy 25")
    for name, rate in record["pairs_per_second"].items():
        print(f"{name:12}{rate:10.1f}{record['times_plain'][name]:8.2f}"
              f"{record['largest_difference'][name]:10.1e}"
              f"{record['hours_for_sketchy_25'][name]:12.1f}")
    print(f"bf16: {record['bf16_times_plain_bf16']:.2f} times the plain bf16 loop; the arithmetic "
          f"allows {record['arithmetic_allows']:.2f}")


if __name__ == "__main__":
    main()
