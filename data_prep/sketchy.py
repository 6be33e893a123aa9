"""Sketchy: the official archives to a prepared zero-shot set.

    python -m data_prep.sketchy --raw FOLDER --out DATA --split 104/21

FOLDER holds `256x256/{photo,sketch}/tx_000000000000/<class>/` (the archive rendered_256x256) and,
for the extended set, `EXTEND_image_sketchy/<class>/*.jpg`. The result is
`DATA/sketchy/{train,val}/{sketch,photo}/<class>/`, as hard links where the file system allows.
Sources: Sangkloy et al., The Sketchy Database (2016); extension: Liu et al., DSH (2017); splits:
104/21 from Yelamarthi et al. (2018), 100/25 from Shen et al. (2018).
"""

import argparse
import csv
import hashlib
import io
import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

UNSEEN = {
    "104/21": (
        "bat cabin cow dolphin door giraffe helicopter mouse pear raccoon rhinoceros saw scissors "
        "seagull skyscraper songbird sword tree wheelchair windmill window").split(),
    "100/25": (
        "airplane bell butterfly camel chicken cup deer harp horse parrot pineapple ray rifle "
        "scissors snail squirrel swan tank teddy_bear tree umbrella volcano wheelchair windmill "
        "wine_bottle"
    ).split(),
}
N_CLASSES = 125
EXTENSION = "EXTEND_image_sketchy"
FIELDS = ("path", "split", "domain", "class", "instance", "sha256")


class PreparationError(ValueError):
    """The archive is not what its layout promises; the message lists every offender."""


def source_files(raw: Path) -> dict[str, dict[str, list[Path]]]:
    """domain -> class -> files of the archives; raises PreparationError naming what is missing."""
    base = next((p for p in (raw / "256x256", raw / "rendered_256x256" / "256x256", raw)
                 if (p / "photo").is_dir() and (p / "sketch").is_dir()), None)
    if base is None:
        raise PreparationError(f"{raw} holds no 256x256/photo and 256x256/sketch: unpack the "
                               "archive rendered_256x256 of Sketchy there")
    found = {d: _by_class(base / d / "tx_000000000000") for d in ("photo", "sketch")}
    if (raw / EXTENSION).is_dir():
        for name, files in _by_class(raw / EXTENSION).items():
            found["photo"][name] = _merged(found["photo"].get(name, []), files)
    _check_classes(found, base)
    return found


def _by_class(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise PreparationError(f"{folder} is missing")
    return {c.name: sorted(f for f in c.iterdir() if f.suffix.lower() in (".jpg", ".png", ".jpeg"))
            for c in sorted(folder.iterdir()) if c.is_dir()}


def _merged(photos: list[Path], extended: list[Path]) -> list[Path]:
    """Both archives' photos, a name that stands in both once."""
    return sorted({f.name: f for f in [*extended, *photos]}.values(), key=lambda f: f.name)


def _check_classes(found: dict[str, dict[str, list[Path]]], base: Path) -> None:
    names = {c for domain in found.values() for c in domain}
    empty = sorted(f"{d}/{c}" for d in found for c in names if not found[d].get(c))
    absent = sorted(set(UNSEEN["104/21"] + UNSEEN["100/25"]) - names)
    if empty or absent or len(names) != N_CLASSES:
        raise PreparationError(f"{base}: {len(names)} classes, expected {N_CLASSES}"
                               + (f"; without pictures: {', '.join(empty)}" if empty else "")
                               + (f"; absent: {', '.join(absent)}" if absent else ""))


def prepare(raw: Path, out: Path, split: str = "104/21", name: str = "sketchy") -> Path:
    """Makes `out/name` whole or not at all; a finished one of the same split is left alone."""
    target = out / name
    if (target / "dataset.json").exists():
        made = json.loads((target / "dataset.json").read_text())["split"]
        if made == split:
            print(f"{target} is there already")
            return target
        raise PreparationError(f"{target} holds split {made}: choose another --name for {split}")
    if target.exists():
        raise PreparationError(f"{target} exists and was not made by this command: move it, or "
                               "choose another --name")
    found = source_files(raw)
    half = out / f".{name}.half-made"
    shutil.rmtree(half, ignore_errors=True)
    rows = _link_all(found, half, set(UNSEEN[split]))
    _write_about(half, rows, split)
    half.rename(target)
    return target


def _link_all(found: dict, half: Path, unseen: set[str]) -> list[dict]:
    jobs = [(file, "val" if c in unseen else "train", domain, c)
            for domain, classes in found.items() for c, files in classes.items() for file in files]
    for part, domain, c in {job[1:] for job in jobs}:
        (half / part / domain / c).mkdir(parents=True)

    def link(job) -> dict:
        file, part, domain, c = job
        place = f"{part}/{domain}/{c}/{file.name}"
        try:
            os.link(file, half / place)
        except OSError:
            shutil.copyfile(file, half / place)
        stem = file.stem.rsplit("-", 1)[0] if domain == "sketch" else file.stem
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        return dict(zip(FIELDS, (place, part, domain, c, stem, sha256), strict=True))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(link, jobs), total=len(jobs), desc="link and hash", unit="img"))


def _write_about(half: Path, rows: list[dict], split: str) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: row["path"]))
    (half / "manifest.csv").write_text(text.getvalue(), encoding="utf-8")
    kinds = sorted({(r["split"], r["domain"]) for r in rows})
    counts = {f"{p}/{d}": sum((r["split"], r["domain"]) == (p, d) for r in rows) for p, d in kinds}
    about = {"name": "sketchy", "split": split, "counts": counts}
    (half / "dataset.json").write_text(json.dumps(about, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("data_prep.sketchy", description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, required=True, help="folder of the unpacked archives")
    parser.add_argument("--out", type=Path, required=True, help="folder of prepared sets")
    parser.add_argument("--split", choices=sorted(UNSEEN), default="104/21",
                        help="seen/unseen classes (default 104/21, ClipPrompt's)")
    parser.add_argument("--name", default="sketchy", help="name of the prepared set")
    chosen = parser.parse_args(arguments)
    try:
        target = prepare(chosen.raw, chosen.out, chosen.split, chosen.name)
    except (PreparationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{target}: {json.loads((target / 'dataset.json').read_text())['counts']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
