"""What a picture file is: whole or broken, how it is stored, and hashes that find it again."""

import hashlib
import io
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import imagehash
import numpy as np
from PIL import ExifTags, Image, ImageOps

SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "BMP": (".bmp",), "WEBP": (".webp",)}
PICTURES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
PLAIN = ("RGB", "L", "1")  # modes that become RGB without a choice
GREY = 16  # pixels a side of the small grey copy
FEW = 256  # pictures below which starting processes costs more than it saves
T, Made = TypeVar("T"), TypeVar("Made")


class Look(NamedTuple):
    """One decoded picture. n_bytes: of the file; mode, format: Pillow's; size: width, height in
    pixels; orientation: EXIF's 1 to 8; phash: 64-bit perceptual hash; grey: 16 x 16 bytes;
    problem: why it cannot be read, empty for a whole picture."""

    sha256: str = ""
    n_bytes: int = 0
    format: str = ""
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    phash: int = 0
    grey: bytes = b""
    problem: str = ""

    def oddities(self, suffix: str) -> list[str]:
        """What a reader may treat otherwise than this project: all of it decodes."""
        wrong = suffix.lower() not in SUFFIXES.get(self.format, ())
        return [text for told, text in (
            (wrong, f"{self.format} named {suffix}"),
            (self.mode not in PLAIN, f"mode {self.mode}"),
            (self.orientation != 1, f"EXIF orientation {self.orientation}, read as stored"),
        ) if told]


def as_rgb(image: Image.Image, *, upright: bool = False) -> Image.Image:
    """A loaded picture as RGB: transparent parts become white (a drawing on no paper), 16 bits a
    pixel become 8. upright: turn it as its EXIF tag says."""
    image = ImageOps.exif_transpose(image) if upright else image
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def look(file: str | Path | bytes, alike: bool = True) -> Look:
    """Decodes a picture file whole; what cannot be decoded has a `problem` instead of an error.
    alike: compute what `near_pairs` compares too, which takes longer than the decoding."""
    data = b""
    try:
        data = file if isinstance(file, bytes) else Path(file).read_bytes()
        found = Look(hashlib.sha256(data).hexdigest(), len(data))
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            found = found._replace(
                format=image.format or "", mode=image.mode, size=image.size,
                orientation=image.getexif().get(ExifTags.Base.Orientation, 1))
            return _hashed(found, as_rgb(image)) if alike else found
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "empty file" if not data and not isinstance(error, OSError) else str(error)
        return Look(hashlib.sha256(data).hexdigest() if data else "", len(data),
                    problem=(reason.splitlines() or ["unreadable"])[0][:120])


def _hashed(found: Look, rgb: Image.Image) -> Look:
    small = rgb.convert("L").resize((GREY, GREY), Image.Resampling.BOX)
    return found._replace(phash=int(str(imagehash.phash(rgb)), 16), grey=small.tobytes())


def spread(work: Callable[[T], Made], tasks: Sequence[T], workers: int | None = None
           ) -> Iterator[Made]:
    """`work` of each task in order, over processes (default one a core; few tasks: in this one)."""
    workers = workers or (os.cpu_count() or 1 if len(tasks) >= FEW else 1)
    if workers == 1:
        yield from map(work, tasks)
        return
    chunk = max(1, min(64, len(tasks) // (4 * workers)))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        yield from pool.map(work, tasks, chunksize=chunk)


def looks(files: Iterable[str | Path], workers: int | None = None) -> Iterator[Look]:
    """`look` at every file, in order, over the cores."""
    return spread(look, list(files), workers)


class TooMany(ValueError):
    """So many pictures look alike that their pairs are not worth a list."""


class Near(NamedTuple):
    """Two pictures that look alike: rows, bits in which their hashes differ, and the correlation of
    their small grey copies (1: the same up to brightness and contrast)."""

    one: int
    other: int
    bits: int
    correlation: float


def near_pairs(found: Sequence[Look], bits: int = 4, correlation: float = 0.98,
               most: int = 100_000) -> list[Near]:
    """Pairs of different files whose perceptual hashes differ in at most `bits` of 64 (0 to 7) and
    whose small grey copies correlate at least so much: the hash finds, the copy confirms.

    Candidates share one of eight bytes of the hash exactly, which two hashes that differ in at
    most seven bits must (pigeonhole), so no pair is lost. Of files with the same bytes the first
    stands for all. Raises ValueError for other `bits`, TooMany beyond `most` candidates.
    """
    if not 0 <= bits <= 7:
        raise ValueError(f"near {bits}: choose 0 to 7 bits")
    first = {one.sha256: row for row, one in reversed(list(enumerate(found))) if one.grey}
    whole = sorted(first.values())
    if not whole:
        return []
    hashes = np.array([found[row].phash for row in whole], np.uint64)
    copies = _standard(np.stack([np.frombuffer(found[row].grey, np.uint8) for row in whole]))
    pairs: set[tuple[int, int]] = set()
    for byte in hashes.view(np.uint8).reshape(-1, 8).T:
        for some in _sharing(byte, hashes, bits):
            pairs |= some
            if len(pairs) > most:
                raise TooMany(f"more than {most:,} near pairs: most of these pictures look alike; "
                              "--near takes fewer bits")
    result = []
    for one, other in sorted(pairs):
        alike = float(copies[one] @ copies[other])
        a, b = whole[one], whole[other]
        if alike >= correlation:
            result.append(Near(a, b, int(hashes[one] ^ hashes[other]).bit_count(), alike))
    return result


def _standard(copies: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1; of a flat picture, all the same, so that two of them agree."""
    centred = copies - copies.mean(1, keepdims=True, dtype=np.float64)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = np.full(copies.shape[1], copies.shape[1] ** -0.5)
    return np.where(lengths > 0, centred / np.maximum(lengths, 1e-9), flat)


def _sharing(byte: np.ndarray, hashes: np.ndarray, bits: int) -> Iterator[set[tuple[int, int]]]:
    """Pairs with the same byte whose hashes are at most `bits` apart, a block of rows at a time."""
    order = np.argsort(byte, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(byte[order])) + 1):
        for start in range(0, len(group), 256):
            rows = group[start:start + 256]
            apart = np.bitwise_count(hashes[rows, None] ^ hashes[None, group])
            one, other = np.nonzero(apart <= bits)
            yield {(int(a), int(b)) for a, b in
                   zip(rows[one], group[other], strict=True) if a < b}


def sameness(found: Sequence[Look]) -> list[list[int]]:
    """Groups of rows whose files hold the same bytes."""
    groups: dict[str, list[int]] = {}
    for row, one in enumerate(found):
        if one.sha256:
            groups.setdefault(one.sha256, []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def described(found: Sequence[Look]) -> dict[str, Any]:
    """Counts of formats, modes and sizes, the most common first."""
    whole = [one for one in found if not one.problem]
    def count(values: Iterable[str]) -> dict[str, int]:
        names, times = np.unique(list(values), return_counts=True)
        order = np.argsort(-times, kind="stable")
        return {str(names[i]): int(times[i]) for i in order[:12]}
    return {"format": count(one.format for one in whole), "mode": count(one.mode for one in whole),
            "size": count("{} x {}".format(*one.size) for one in whole),
            "bytes": sum(one.n_bytes for one in found)}
