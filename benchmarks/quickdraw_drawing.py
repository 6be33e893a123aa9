"""Drawings to pictures: Quick, Draw! strokes to png files of 256 x 256 grey pixels.

`python -m benchmarks.quickdraw_drawing` measures `data_prep.strokes.rendered` (matplotlib's Agg)
against the same strokes as an svg path (resvg) and drawn four times too large (Pillow), all to the
same kind of png, on drawings of ../shared/data/quickdraw. Goal: the fastest of the three, and at
most 2.5 times the floor, which encodes finished pixels and draws nothing. It also measures a whole
preparation, which decodes and hashes every picture as well, and how long the first 3,000 drawings
of a file of 100 MB take to find; goal: a tenth of reading that file.
"""

import io
import itertools
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import resvg_py
import torch
from PIL import Image, ImageDraw

from benchmarks import timing
from benchmarks.evaluation import machine, peak_gb
from data_prep import strokes
from data_prep.drawings import choose, drawing_at, offsets
from data_prep.quickdraw import LISTS, WORDS, Drawn, prepare

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "quickdraw"
SIZE, WIDTH, MARGIN = Drawn().size, Drawn().stroke, Drawn().margin
LARGER = 4
CPU = torch.device("cpu")


def png(grey: Image.Image) -> bytes:
    content = io.BytesIO()
    grey.save(content, "PNG", compress_level=strokes.PNG_LEVEL)
    return content.getvalue()


def fitted(drawing: list) -> list[np.ndarray]:
    return strokes.fitted(drawing, SIZE, SIZE - 2 * MARGIN - WIDTH)


def by_resvg(drawing: list) -> bytes:
    lines = ("M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in [*points, *points[-1:]])
             for points in fitted(drawing))
    data = resvg_py.svg_to_bytes(skip_system_fonts=True, background="#ffffff", svg_string=(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE}" height="{SIZE}">'
        f'<path d="{"".join(lines)}" fill="none" stroke="#000" stroke-width="{WIDTH}" '
        'stroke-linecap="round" stroke-linejoin="round"/></svg>'))
    with Image.open(io.BytesIO(data)) as image:
        return png(image.convert("L"))


def by_pillow(drawing: list) -> bytes:
    """Lines have square ends and open corners: a disc on every point closes them."""
    image = Image.new("L", (SIZE * LARGER, SIZE * LARGER), 255)
    pen, radius = ImageDraw.Draw(image), WIDTH * LARGER / 2
    for points in fitted(drawing):
        places = [(float(x) * LARGER, float(y) * LARGER) for x, y in points]
        if len(places) > 1:
            pen.line(places, fill=0, width=round(2 * radius))
        for x, y in places:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
    return png(image.reduce(LARGER))


def difference(one: bytes, other: bytes) -> float:
    """Mean grey difference, of 255."""
    grey = [np.asarray(Image.open(io.BytesIO(data)), np.int16) for data in (one, other)]
    return float(np.abs(grey[0] - grey[1]).mean())


def rendering(drawings: list, repeats: int) -> dict:
    """Medians over interleaved repeats, in ms a drawing."""
    pixels = [Image.open(io.BytesIO(strokes.rendered(d, SIZE, WIDTH, MARGIN))).copy()
              for d in drawings]
    sides = {
        "agg": lambda: [strokes.rendered(d, SIZE, WIDTH, MARGIN) for d in drawings],
        "resvg": lambda: [by_resvg(d) for d in drawings],
        "pillow": lambda: [by_pillow(d) for d in drawings],
        "png alone": lambda: [png(image) for image in pixels]}
    times = alternating(sides, repeats)
    unlike = {name: statistics.mean(difference(way(d), by_resvg(d)) for d in drawings[:100])
              for name, way in (("agg", strokes.rendered), ("pillow", by_pillow))}
    ratios = [a / b for a, b in zip(times["agg"], times["png alone"], strict=True)]
    return {"ms": {name: 1000 * statistics.median(t) / len(drawings) for name, t in times.items()},
            "ratio_to_png_alone": statistics.median(ratios),
            "mean_grey_difference_from_resvg": unlike, "all_seconds": times}


def alternating(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            times[name].append(timing.seconds(side, CPU))
    return times


def write(file: Path, lines: list[bytes], n: int, first: int = 0) -> None:
    """n drawings, the given ones over and over, each under a key_id of its own."""
    with open(file, "wb") as content:
        for key, line in zip(range(first, first + n), itertools.cycle(lines), strict=False):
            drawing = {**json.loads(line), "word": file.stem, "key_id": str(key)}
            content.write(json.dumps(drawing, separators=(",", ":")).encode() + b"\n")


def finding(folder: Path, lines: list[bytes], repeats: int) -> dict:
    """The first 3,000 of a file of 100 MB against reading all its drawings."""
    file = folder / "cat.ndjson"
    write(file, lines, int(100e6 / statistics.mean(map(len, lines))))
    sides = {"first 3,000": lambda: choose(file, "cat", 3000),
             "random 3,000": lambda: choose(file, "cat", 3000, seed=0),
             "all": lambda: [json.loads(line) for line in open(file, "rb")]}  # noqa: SIM115
    times = alternating(sides, repeats)
    seconds = {name: statistics.median(t) for name, t in times.items()}
    return {"mb": file.stat().st_size / 1e6, "seconds": seconds,
            "first_to_all": seconds["first 3,000"] / seconds["all"]}


def preparing(folder: Path, lines: list[bytes], per_class: int) -> dict:
    """Drawings a second of a whole preparation, by processes; their start is in it."""
    found, n = {}, per_class * len(LISTS.classes)
    for index, word in enumerate(WORDS.values()):
        write(folder / f"{word}.ndjson", lines, per_class, index * per_class)
    for workers in sorted({1, os.cpu_count() or 1}):
        out = folder / str(workers)
        taken = timing.seconds(lambda w=workers, o=out: prepare(
            folder, o, drawn=Drawn(per_class=per_class), sketches_only=True, workers=w), CPU)
        found[workers] = n / taken
        shutil.rmtree(out)
    return {"drawings": n, "drawings_a_second": found,
            "minutes_for_330,000": {w: 330_000 / rate / 60 for w, rate in found.items()}}


def main() -> None:
    parser = timing.options(__doc__.splitlines()[0], 5)
    parser.add_argument("--sample", type=Path, default=SAMPLE, help="folder of simplified ndjson")
    parser.add_argument("--drawings", type=int, default=1000, help="how many are drawn")
    parser.add_argument("--per-class", type=int, default=100, help="of 110 that are prepared")
    options = parser.parse_args()
    files = sorted(options.sample.glob("*.ndjson"))
    if not files:
        parser.error(f"{options.sample} holds no ndjson file: name a folder with --sample")
    every = [(file, offset) for file in files for offset in offsets(file)]
    chosen = every[::max(1, len(every) // options.drawings)][:options.drawings]
    lines = [line for file in files[::8] for line in file.read_bytes().splitlines()]
    record = {"machine": machine(), "drawings": len(chosen), "size": SIZE, "stroke": WIDTH}
    record |= rendering([drawing_at(*place).strokes for place in chosen], options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        record["finding"] = finding(Path(folder), lines, options.repeats)
        record["preparing"] = preparing(Path(folder), lines, options.per_class)
    record["peak_gb"] = peak_gb()
    timing.write(record, options.out, "quickdraw_drawing")
    report(record)


def report(record: dict) -> None:
    print(f"{record['drawings']:,} drawings of {SIZE} pixels, ms a drawing")
    for name, value in record["ms"].items():
        print(f"{name:28}{value:9.2f}")
    print(f"{'agg to png alone':28}{record['ratio_to_png_alone']:9.2f}   goal 2.5 or less")
    for name, value in record["finding"]["seconds"].items():
        print(f"{f'find {name}, s':28}{value:9.2f}")
    print(f"{'first 3,000 to all':28}{record['finding']['first_to_all']:9.3f}   goal 0.1 or less")
    for workers, rate in record["preparing"]["drawings_a_second"].items():
        print(f"{f'prepared a second, {workers} proc.':28}{rate:9.0f}   "
              f"{record['preparing']['minutes_for_330,000'][workers]:.0f} minutes for 330,000")


if __name__ == "__main__":
    main()
