"""A frozen encoder's features of a set of pictures, computed once and kept on disk.

They are float16, a row per picture. BLIP-2's are large: 257 x 1,408 x 2 bytes are 0.72 MB a
picture, 56 GB for FashionIQ's 77,684; so the size is told, and the disk looked at, first.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor, nn

from replication import paths
from replication.data import DatasetError, Images, cache_key, shortlist
from replication.progress import bar
from replication.transforms import Preprocess, read_image

SPARE = 2**28  # bytes that stay free beside a store


class Encoder(Protocol):
    """A frozen model that turns `preprocess`'s float images into (b, tokens, width). sha256: of its
    weights."""

    name: str
    model: nn.Module
    preprocess: Preprocess
    width: int
    tokens: int
    sha256: str


class FeatureError(ValueError):
    """Features that cannot be stored as they are; names the pictures."""


@dataclass(frozen=True)
class FeatureStore:
    """Features of `n` pictures in the order of their Images, a memory map that is read as needed.

    `store[rows]` takes what numpy takes (an index, a list, a slice, an array or a tensor of int)
    and copies those rows. A pickled store is its path: a loader's worker maps the file anew.
    """

    file: Path
    n: int
    tokens: int
    width: int

    @classmethod
    def open_or_build(cls, images: Images, encoder: Encoder, device: str | torch.device = "cpu",
                      batch_size: int = 32, progress: bool = True) -> "FeatureStore":
        """The store of these pictures, built where it is not there whole.

        Its name hashes the files (name, size, time), the Preprocess, the encoder's name and
        weights; not the device, whose half precision differs by rounding. A build that is stopped
        leaves a `.part`, of which the next one keeps the rows; a second process waits for the
        first. The encoder is on the CPU afterwards. Raises OSError where the disk is too small or
        full, DatasetError that lists every unreadable picture, FeatureError for features that half
        precision cannot hold.
        """
        if not len(images):
            raise DatasetError(f"no pictures of {paths.shown(images.folder)} to store features of")
        file = paths.CACHE / "features" / f"{store_key(images, encoder)}.f16"
        store = cls(file, len(images), encoder.tokens, encoder.width)
        if not store.whole():
            _build(store, images, encoder, torch.device(device), batch_size, progress)
        return store

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's features, float16."""
        return self.tokens * self.width * 2

    def whole(self) -> bool:
        """Whether the file is there, in its full length."""
        return self.file.exists() and self.file.stat().st_size == self.n * self.row_bytes

    @cached_property
    def _map(self) -> np.memmap:
        return np.memmap(self.file, np.float16, "r", shape=(self.n, self.tokens, self.width))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, rows) -> Float16[Tensor, "r tokens width"]:
        if not isinstance(rows, slice):
            rows = np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows)
            rows = rows if rows.size else rows.astype(np.int64)
        return torch.from_numpy(np.array(self._map[rows]))

    def __reduce__(self) -> tuple:
        return FeatureStore, (self.file, self.n, self.tokens, self.width)


def store_key(images: Images, encoder: Encoder) -> str:
    """What decides the features: the files, how they are read, and the encoder."""
    rule = encoder.preprocess.of(images.domain)
    about = (cache_key(images, rule), rule.digest(), encoder.name, encoder.sha256, encoder.tokens,
             encoder.width)
    return hashlib.sha256(repr(about).encode()).hexdigest()[:32]


# ------------------------------------------------------------------------------------ building


def _build(store: FeatureStore, images: Images, encoder: Encoder, device: torch.device,
           batch_size: int, progress: bool) -> None:
    """Appends rows to `<name>.part`, whose length says how many are done; moves it when whole."""
    part = store.file.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with _alone(part) as file:
        if store.whole():  # another process has just finished it
            if not os.fstat(file.fileno()).st_size:
                part.unlink(missing_ok=True)
            return
        done = _rows_done(file, store)
        _announce(store, encoder.name, done)
        try:
            _append(file, done, images, encoder, device, batch_size, progress)
            os.fsync(file.fileno())
            if os.name == "nt":  # where an open file cannot be moved; nothing is locked there
                file.close()
            os.replace(part, store.file)
        except OSError as error:
            raise OSError(f"could not write {paths.shown(part)}: {error}. Its rows are kept: free "
                          "some space and start again, it continues from there") from error
        finally:
            encoder.model.to("cpu")  # its memory is the training's


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """The file, opened to append, once no other process has it; a killed process's lock goes with
    it. Without fcntl (Windows) nothing is locked."""
    with part.open("ab", buffering=0) as file:
        try:
            import fcntl
        except ImportError:
            yield file
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process computes {paths.shown(part)}: waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _rows_done(file: BinaryIO, store: FeatureStore) -> int:
    """Whole rows in the file; a torn last one goes, and so does a file that is too long."""
    size = os.fstat(file.fileno()).st_size
    done = size // store.row_bytes if size <= store.n * store.row_bytes else 0
    file.truncate(done * store.row_bytes)
    return done


def _announce(store: FeatureStore, name: str, done: int) -> None:
    """Prints how much the store takes, before a byte of it is written. Raises OSError."""
    whole = store.n * store.row_bytes
    kept = f"; {done:,} are there already" if done else ""
    print(f"features of {store.n:,} pictures by {name}: {store.n:,} x {store.tokens} x "
          f"{store.width} x 2 bytes = {_size(whole)} in {paths.shown(store.file.parent)}{kept}",
          flush=True)
    need, free = whole - done * store.row_bytes, shutil.disk_usage(store.file.parent).free
    if need + SPARE > free:
        raise OSError(f"too little space for the features: {_size(need)} and {_size(SPARE)} to "
                      f"spare are needed in {paths.shown(store.file.parent)}, {_size(free)} are "
                      "free. Free some, or set REPLICATION_CACHE to a folder on a larger disk")


def _size(n: int) -> str:
    return f"{n / 1e9:,.2f} GB" if n >= 1e9 else f"{n / 1e6:,.2f} MB"


def _append(file: BinaryIO, done: int, images: Images, encoder: Encoder, device: torch.device,
            batch_size: int, progress: bool) -> None:
    """Encodes from row `done` on; the next batch is decoded meanwhile."""
    model = encoder.model.to(device).eval()
    rule = encoder.preprocess.of(images.domain)
    starts = range(done, len(images), batch_size)
    with (ThreadPoolExecutor(os.cpu_count()) as pool, ThreadPoolExecutor(1) as ahead,
          bar(total=len(images), unit="img", label=f"encode {encoder.name}",
              shown=progress) as shown):
        shown.update(done)

        def decoded(start: int):
            return _decoded(images, range(start, min(start + batch_size, len(images))), rule, pool)

        coming = ahead.submit(decoded, done) if starts else None
        for start in starts:
            pixels = coming.result()
            if start + batch_size < len(images):
                coming = ahead.submit(decoded, start + batch_size)
            features = _encoded(model, rule, pixels, encoder, device)
            _check_finite(features, images, start)
            _write(file, memoryview(features.numpy()).cast("B"))
            shown.update(len(features))


def _write(file: BinaryIO, data: memoryview) -> None:
    """All of it: a nearly full disk takes a part, and refuses only the next."""
    while len(data):
        data = data[file.write(data):]


def _decoded(images: Images, rows: range, rule: Preprocess, pool: ThreadPoolExecutor
             ) -> UInt8[Tensor, "b h w 3"]:
    """A batch of pictures. Where one cannot be read, all that follow are tried, to list them."""
    tried = list(pool.map(lambda row: _picture(images, row, rule), rows))
    if any(isinstance(t, str) for t in tried):
        rest = pool.map(lambda row: _picture(images, row, rule), range(rows.stop, len(images)))
        broken = [t for t in [*tried, *(t for t in rest if isinstance(t, str))]
                  if isinstance(t, str)]
        raise DatasetError(f"{len(broken)} pictures cannot be read: {shortlist(broken)}. Replace "
                           "them from the original archive, or remove them knowingly: a result "
                           "on fewer pictures is not comparable")
    return torch.from_numpy(np.stack(tried))


def _picture(images: Images, row: int, rule: Preprocess) -> np.ndarray | str:
    try:
        return rule.resized(read_image(images.path(row)))
    except (OSError, SyntaxError, ValueError) as error:
        return f"{paths.shown(images.path(row))} ({str(error).splitlines()[0][:80]})"


@torch.inference_mode()
def _encoded(model: nn.Module, rule: Preprocess, pixels: Tensor, encoder: Encoder,
             device: torch.device) -> Float16[Tensor, "b tokens width"]:
    found = model(rule.normalised(pixels.to(device)))
    if found.shape != (len(pixels), encoder.tokens, encoder.width):
        raise FeatureError(f"{encoder.name} gives {tuple(found.shape)} for {len(pixels)} pictures, "
                           f"not ({len(pixels)}, {encoder.tokens}, {encoder.width})")
    return found.half().cpu()


def _check_finite(features: Float16[Tensor, "b tokens width"], images: Images, start: int) -> None:
    bad = (~features.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
    if bad:
        names = shortlist([paths.shown(images.path(start + row)) for row in bad])
        raise FeatureError(f"features of {len(bad)} pictures are not finite in half precision: "
                           f"{names}. Look at the pictures; where they are sound, the weights are "
                           "not, or too large for float16 (try device='cpu')")
