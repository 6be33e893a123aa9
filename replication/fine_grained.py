"""Instance-level sets of one class, as ShoeV2 and ChairV2: sketch `X_k` depicts photo `X`.

Three layouts are in use and taken: a folder each for sketches and photos of each part
(`train/sketch` or `sketch/train`, with `test` beside `train`); `trainA` and `testA` (sketches),
`trainB` and `testB` (photos); a sketch and a photo folder with the lists of file names
`sketch_train.txt`, `sketch_test.txt`, `photo_train.txt`, `photo_test.txt`.
"""

import hashlib
from pathlib import Path

import numpy as np

from replication import paths
from replication.data import DatasetError, Images, SketchSet, Split
from replication.pictures import PICTURES

DOMAINS = {"sketch": "A", "photo": "B"}
PARTS = {"train": "train", "val": "test"}  # our names: the official ones


def is_flat(folder: Path) -> bool:
    """Whether the folder holds a set in one of these layouts: no class folders."""
    return bool(_found(folder, "sketch", "train")[1])


def read_instance_set(data_root: str | Path, data_name: str) -> SketchSet:
    """Reads the file names; `val` is the official test part, and the folder's name the class.

    Raises DatasetError where a part is empty, and with the names of photos that sketches of a part
    depict and that are absent.
    """
    folder = paths.user_path(data_root) / data_name
    splits = {ours: _split(folder, official) for ours, official in PARTS.items()}
    digest = hashlib.sha256()
    for images in (i for split in splits.values() for i in (split.sketch, split.photo)):
        for index, file in enumerate(images.files):
            digest.update(f"{images.folder.relative_to(folder)}/{file},"
                          f"{images.path(index).stat().st_size}\n".encode())
    return SketchSet(data_name, folder, **splits, manifest=f"listing:{digest.hexdigest()[:32]}")


def _split(folder: Path, part: str) -> Split:
    images = []
    for domain in DOMAINS:
        where, files = _found(folder, domain, part)
        if not files:
            raise DatasetError(
                f"{folder}: no {part} {domain} pictures. It may be laid out as {part}/{domain}/, "
                f"as {part}{DOMAINS[domain]}/, or as a folder {domain}/ with the list "
                f"{domain}_{part}.txt")
        images.append(Images(where, files, (folder.name,), np.zeros(len(files), np.int64), domain))
    split = Split(*images)
    lost = sorted(set(split.sketch.instances) - set(split.photo.instances))
    if lost:
        raise DatasetError(f"{folder}: {len(lost)} photos that {part} sketches depict are absent: "
                           f"{', '.join(lost[:8])}")
    return split


def _found(folder: Path, domain: str, part: str) -> tuple[Path, tuple[str, ...]]:
    """The folder and the picture names of a part in whichever layout is there."""
    listed = folder / f"{domain}_{part}.txt"
    holding = next((f for f in (folder / domain, folder / f"{folder.name}_{domain}")
                    if f.is_dir()), None)
    if listed.exists() and holding:
        return holding, tuple(sorted(line.strip() for line in listed.read_text().splitlines()
                                     if line.strip()))
    for where in (folder / part / domain, folder / domain / part,
                  folder / f"{part}{DOMAINS[domain]}"):
        files = sorted(f.name for f in where.glob("*") if f.suffix.lower() in PICTURES)
        if files:
            return where, tuple(files)
    return folder, ()
