"""A frozen encoder's features on disk: made once, resumed, refused where they are not sound."""

import multiprocessing
import pickle
import shutil
import time
from collections import namedtuple
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from replication import feature_store
from replication.data import DatasetError, Images
from replication.feature_store import FeatureError, FeatureStore, store_key
from replication.papers.sprc.encoders import image_encoder
from replication.transforms import Preprocess, read_image

N, TOKENS, WIDTH = 11, 3, 5
ROW = TOKENS * WIDTH * 2


class Tower(nn.Module):
    """Row sums of a picture times numbers; counts its pictures; does `event` at the count `at`."""

    def __init__(self, seed: int = 0):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(8, TOKENS * WIDTH, generator=rng))
        self.seen, self.at, self.event, self.pause = 0, None, None, 0.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(self.pause)
        if self.at is not None and self.seen >= self.at:
            return self.event(images)
        self.seen += len(images)
        return (images.mean((1, 3)) @ self.weight).unflatten(1, (TOKENS, WIDTH))


@dataclass(frozen=True)
class Made:
    """An encoder as feature_store asks for one."""

    model: Tower
    preprocess: Preprocess = Preprocess(8, "targetpad", "bicubic")
    name: str = "made-up"
    width: int = WIDTH
    tokens: int = TOKENS
    sha256: str = "0"


@pytest.fixture
def encoder() -> Made:
    return Made(Tower())


@pytest.fixture
def images(tmp_path, own_cache) -> Images:
    """Eleven pictures of several shapes whose order of names is not that of their rows."""
    rng = np.random.default_rng(0)
    names = tuple(f"{(7 * i) % N:02d}.png" for i in range(N))
    (tmp_path / "photo").mkdir()
    for name in names:
        size = (*rng.integers(6, 30, 2), 3)
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(tmp_path / "photo" / name)
    return Images(tmp_path / "photo", names, ("",), np.zeros(N, np.int64))


def built(images: Images, encoder, batch_size: int = 4) -> FeatureStore:
    return FeatureStore.open_or_build(images, encoder, batch_size=batch_size, progress=False)


def directly(images: Images, encoder) -> torch.Tensor:
    """One picture at a time, without a store."""
    rule = encoder.preprocess
    pixels = [rule.resized(read_image(images.path(i))) for i in range(len(images))]
    with torch.no_grad():
        return torch.cat([encoder.model(rule.normalised(torch.from_numpy(p.copy())[None]))
                          for p in pixels])


def part_of(store_or_folder: Path) -> Path:
    return next(store_or_folder.glob("*.part"))


def test_features_are_the_encoders(images, encoder):
    store, wanted = built(images, encoder), directly(images, encoder)
    assert store[:].dtype == torch.float16 and store[:].shape == (N, TOKENS, WIDTH)
    assert torch.allclose(store[:].float(), wanted, rtol=2e-3, atol=1e-4)
    assert len(store) == N and store.file.stat().st_size == N * ROW


def test_the_demos_encoder_in_a_store(images):
    """The published interface: what image_encoder gives is what the store takes."""
    encoder = image_encoder("doodle-clip", "none", transform="squarepad")
    store = built(images, encoder)
    assert torch.allclose(store[:].float(), directly(images, encoder), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("rows", [
    [7, 0, 7, 3], np.array([10, 2]), torch.tensor([1, 9]), slice(2, 5), 4, [], -1,
    np.arange(N) % 2 == 0])
def test_rows_in_the_order_asked(rows, images, encoder):
    found, whole = built(images, encoder)[rows], directly(images, encoder).half()
    wanted = whole[rows if not isinstance(rows, list) else torch.tensor(rows, dtype=torch.long)]
    assert found.shape == wanted.shape and torch.allclose(found, wanted, rtol=2e-3, atol=1e-3)
    found += 1  # a copy: the file is read-only


def test_built_once(images, encoder, capsys):
    built(images, encoder)
    told = capsys.readouterr().out
    assert "11 x 3 x 5 x 2 bytes" in told and "made-up" in told
    store = built(images, encoder)
    assert encoder.model.seen == N and capsys.readouterr().out == ""
    assert [p.name for p in store.file.parent.iterdir()] == [store.file.name]


def test_the_size_is_told_in_gb(images, encoder, capsys, monkeypatch):
    """FashionIQ's: 77,684 pictures of BLIP-2's encoder, before the disk is asked."""
    store = FeatureStore(Path("/x/y.f16"), 77_684, 257, 1408)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 10**10))
    with pytest.raises(OSError, match=r"56\.22 GB.*10\.00 GB are free.*REPLICATION_CACHE"):
        feature_store._announce(store, "eva-g", 0)
    assert "77,684 x 257 x 1408 x 2 bytes = 56.22 GB" in capsys.readouterr().out
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 10**10))
    feature_store._announce(store, "eva-g", 70_000)
    assert "70,000 are there already" in capsys.readouterr().out


Usage = namedtuple("Usage", "total used free")


def test_a_small_disk_is_refused_before_a_byte(images, encoder, own_cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, 1000))
    with pytest.raises(OSError, match="too little space for the features"):
        built(images, encoder)
    assert encoder.model.seen == 0 and part_of(own_cache / "features").stat().st_size == 0


def test_a_disk_that_fills_up_keeps_the_rows(images, encoder, own_cache, monkeypatch):
    """A nearly full disk takes a part of a batch, then refuses: nothing is torn afterwards."""
    room = [6 * ROW + 7]

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if not room[0]:
                raise OSError(28, "No space left on device")
            taken = self.file.write(data[:room[0]])
            room[0] -= taken
            return taken

    write = feature_store._write
    monkeypatch.setattr(feature_store, "_write", lambda file, data: write(Full(file), data))
    with pytest.raises(OSError, match="No space left.*rows are kept"):
        built(images, encoder)
    assert part_of(own_cache / "features").stat().st_size == 6 * ROW + 7
    monkeypatch.undo()
    monkeypatch.setattr(feature_store.paths, "CACHE", own_cache)
    encoder.model.seen = 0
    store = built(images, encoder)
    assert encoder.model.seen == N - 6
    assert torch.allclose(store[:].float(), directly(images, encoder), rtol=2e-3, atol=1e-4)


def test_a_write_that_takes_a_part_is_repeated():
    taken = []

    class Slow:
        def write(self, data):
            taken.append(bytes(data[:3]))
            return len(taken[-1])

    feature_store._write(Slow(), memoryview(b"12345678"))
    assert taken == [b"123", b"456", b"78"]


def stop(images: torch.Tensor):
    raise KeyboardInterrupt


def test_resumed_after_an_interruption(images, encoder, own_cache, capsys):
    model = encoder.model
    model.at, model.event = 8, stop
    with pytest.raises(KeyboardInterrupt):
        built(images, encoder)
    assert not list((own_cache / "features").glob("*.f16"))
    model.at, model.seen = None, 0
    store = built(images, encoder, batch_size=2)
    assert model.seen == N - 8 and "8 are there already" in capsys.readouterr().out
    assert torch.allclose(store[:].float(), directly(images, encoder), rtol=2e-3, atol=1e-4)


def build_in_process(images: Images, encoder: Made, cache: Path, results) -> None:
    torch.set_num_threads(1)
    feature_store.paths.CACHE = cache
    store = built(images, encoder, 1)
    results.put((encoder.model.seen, store[:].float().numpy()))


def test_a_killed_build_is_not_whole_and_is_resumed(images, encoder, own_cache):
    context = multiprocessing.get_context("fork")
    encoder.model.pause = 0.1
    child = context.Process(target=build_in_process,
                            args=(images, encoder, own_cache, context.Queue()))
    child.start()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        parts = list((own_cache / "features").glob("*.part"))
        if parts and parts[0].stat().st_size >= 3 * ROW:
            break
        time.sleep(0.01)
    child.kill()
    child.join()
    done = part_of(own_cache / "features").stat().st_size // ROW
    assert 3 <= done < N and not list((own_cache / "features").glob("*.f16"))
    encoder.model.pause = 0.0
    store = built(images, encoder)
    assert encoder.model.seen == N - done
    assert torch.allclose(store[:].float(), directly(images, encoder), rtol=2e-3, atol=1e-4)


def test_two_processes_at_once(images, encoder, own_cache):
    """The second waits; each sees the whole; together they compute every row once."""
    context = multiprocessing.get_context("fork")
    encoder.model.pause = 0.05
    results = context.Queue()
    children = [context.Process(target=build_in_process, args=(images, encoder, own_cache, results))
                for _ in range(2)]
    for child in children:
        child.start()
    found = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert sum(seen for seen, _ in found) == N
    for _, values in found:
        assert np.allclose(values, directly(images, encoder), rtol=2e-3, atol=1e-4)
    assert len(list((own_cache / "features").iterdir())) == 1


def test_one_that_comes_when_the_other_has_just_finished(images, encoder):
    """It looked before the file was there and locks after: it leaves no empty `.part`."""
    store = built(images, encoder)
    feature_store._build(store, images, encoder, torch.device("cpu"), 4, False)
    assert encoder.model.seen == N
    assert [p.name for p in store.file.parent.iterdir()] == [store.file.name]


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b[:ROW], lambda b: b + b"0"])
def test_a_store_of_the_wrong_length_is_built_again(change, images, encoder):
    store = built(images, encoder)
    content = store.file.read_bytes()
    store.file.write_bytes(change(content))
    assert built(images, encoder).file.read_bytes() == content


@pytest.mark.parametrize("extra", [1, ROW, -1])
def test_a_part_of_another_length(extra, images, encoder):
    """Too long: begun anew. A torn row: computed again. Whole: moved into place."""
    store = built(images, encoder)
    content = store.file.read_bytes()
    part = store.file.with_suffix(".part")
    store.file.rename(part)
    part.write_bytes(content + b"x" * extra if extra > 0 else content[:extra])
    encoder.model.seen = 0
    assert built(images, encoder).file.read_bytes() == content
    assert encoder.model.seen == (N if extra > 0 else 1)


def test_what_makes_another_store(images, encoder):
    key = store_key(images, encoder)
    others = [replace(encoder, sha256="1"), replace(encoder, name="x"),
              replace(encoder, preprocess=replace(encoder.preprocess, ratio=1.5)),
              replace(encoder, preprocess=replace(encoder.preprocess, mean=(0., 0., 0.)))]
    keys = [key, *(store_key(images, other) for other in others)]
    keys.append(store_key(replace(images, files=images.files[::-1]), encoder))
    Image.new("RGB", (9, 9)).save(images.path(0))
    keys.append(store_key(images, encoder))
    assert len(set(keys)) == 7 and store_key(images, encoder) == keys[-1]


@pytest.mark.parametrize("value", [float("nan"), 1e5])
def test_features_that_half_precision_cannot_hold(value, images, encoder, own_cache):
    """The picture is named; the rows before its batch stay."""
    encoder.model.at = 4

    def spoiled(batch: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(batch), TOKENS, WIDTH)
        out[2, 1, 0] = value
        return out

    encoder.model.event = spoiled
    with pytest.raises(FeatureError, match="1 pictures") as error:
        built(images, encoder)
    assert images.files[6] in str(error.value) and images.files[5] not in str(error.value)
    assert part_of(own_cache / "features").stat().st_size == 4 * ROW


def test_features_of_another_shape(images, encoder):
    with pytest.raises(FeatureError, match=r"gives \(4, 3, 5\).*not \(4, 3, 6\)"):
        built(images, replace(encoder, width=6))


def test_pictures_that_cannot_be_read_are_all_listed(images, encoder, own_cache):
    for row in (5, 6, 10):
        images.path(row).write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="3 pictures cannot be read") as error:
        built(images, encoder)
    assert all(images.files[row] in str(error.value) for row in (5, 6, 10))
    assert part_of(own_cache / "features").stat().st_size == 4 * ROW
    with pytest.raises(DatasetError, match="no pictures"):
        built(images.where(np.zeros(N, bool), ("",)), encoder)


def test_a_pickled_store_is_its_path(images, encoder):
    store = built(images, encoder)
    whole = store[:]
    kept = pickle.dumps(store)
    assert whole[0].numpy().tobytes() not in kept and torch.equal(pickle.loads(kept)[:], whole)
