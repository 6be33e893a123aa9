"""Prepared sets, their splits, the pixel cache and triplets."""

import multiprocessing
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from replication import data
from replication.transforms import Preprocess, ink_box, read_image


@pytest.fixture
def sketch_set(tmp_path):
    """A hand-made set in the original layout, without a manifest: 4 seen, 2 unseen classes."""
    for part, classes in (("train", "abcd"), ("val", "xy")):
        for domain, count in (("sketch", 3), ("photo", 2)):
            for c in classes:
                folder = tmp_path / "toy" / part / domain / c
                folder.mkdir(parents=True)
                for i in range(count):
                    name = f"n_{i % 2}-{i}.png" if domain == "sketch" else f"n_{i}.jpg"
                    colour = (40 * i, 10 * ord(c) % 255, 90)
                    Image.new("RGB", (20 + i, 30), colour).save(folder / name)
    return tmp_path


def test_a_users_folder_works_without_preparation(sketch_set):
    toy = data.read_sketch_set(sketch_set, "toy")
    assert toy.split_name == "4/2"
    assert toy.counts()["train (seen)"] == {"classes": 4, "sketches": 12, "photos": 8}
    assert toy.manifest.startswith("listing:")
    assert toy.val.sketch.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert set(toy.val.sketch.instances) == set(toy.val.photo.instances)


def test_the_doodles_are_read_with_their_manifest(doodles):
    found = data.read_sketch_set(doodles, "doodles")
    assert found.manifest.startswith("sha256:") and len(found.val.classes) >= 10
    assert set(found.val.sketch.instances) <= set(found.val.photo.instances)


def test_an_absent_set_is_told_with_what_is_there(sketch_set):
    with pytest.raises(data.DatasetError, match="no set 'sketchy'.*holds toy.*data_prep.sketchy"):
        data.read_sketch_set(sketch_set, "sketchy")
    with pytest.raises(data.DatasetError, match="no such folder"):
        data.read_sketch_set(sketch_set / "nowhere", "toy")


def test_every_class_without_a_picture_is_named(sketch_set):
    shutil.rmtree(sketch_set / "toy/train/photo/b")
    for file in (sketch_set / "toy/train/photo/d").iterdir():
        file.unlink()
    with pytest.raises(data.DatasetError, match="train/photo/b, train/photo/d"):
        data.read_sketch_set(sketch_set, "toy")


def test_a_class_seen_and_unseen_at_once_is_refused(sketch_set):
    for domain in ("sketch", "photo"):
        shutil.copytree(sketch_set / f"toy/train/{domain}/a", sketch_set / f"toy/val/{domain}/a")
    with pytest.raises(data.DatasetError, match="train and val at once.*: a"):
        data.read_sketch_set(sketch_set, "toy")


def test_a_file_that_the_manifest_does_not_know_is_named(doodles, tmp_path):
    shutil.copytree(doodles / "doodles", tmp_path / "doodles")
    photo = next((tmp_path / "doodles/val/photo").glob("*/*.jpg"))
    photo.rename(photo.with_name("stranger.jpg"))
    with pytest.raises(data.DatasetError, match="differ in 2 files.*stranger.jpg"):
        data.read_sketch_set(tmp_path, "doodles")


def test_held_out_classes_leave_training(sketch_set):
    train = data.read_sketch_set(sketch_set, "toy").train
    rest, held = train.hold_out(2)
    assert sorted(rest.classes + held.classes) == ["a", "b", "c", "d"] and len(held.classes) == 2
    assert {f.split("/")[0] for f in rest.photo.files} == set(rest.classes)
    assert set(held.sketch.labels.tolist()) == {0, 1}
    with pytest.raises(data.DatasetError, match="val_classes=3.*0 to 2"):
        train.hold_out(3)


@pytest.mark.parametrize("rule", ["squash", "crop", "pad"])
def test_preprocess_makes_a_square_and_normalises_back(rule):
    import torch

    rule = Preprocess(16, rule)
    pixels = rule.resized(Image.new("RGB", (40, 20), (200, 100, 50)))
    assert pixels.shape == (16, 16, 3)
    batch = rule.normalised(torch.from_numpy(pixels.copy())[None])
    assert batch.shape == (1, 3, 16, 16)
    assert np.abs(rule.displayable(batch)[0] * 255 - pixels).max() < 1e-3
    centre, corner = pixels[8, 8].tolist(), pixels[0, 0].tolist()
    assert centre == [200, 100, 50]
    assert (corner == [255, 255, 255]) == (rule.resize == "pad")


def test_squash_is_torchvisions_resize():
    from torchvision.transforms import functional as tv

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    wanted = np.asarray(tv.resize(noise, [32, 32]))
    assert np.array_equal(Preprocess(32).resized(noise), wanted)


def test_transparent_paper_is_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png")).min() == 255


def toy_photos(root) -> data.Images:
    return data.read_sketch_set(root, "toy").train.photo


def test_cache_holds_what_decoding_gives_and_is_made_once(sketch_set, own_cache, monkeypatch):
    photos, rule = toy_photos(sketch_set), Preprocess(8)
    pixels = data.cached_pixels(photos, rule, progress=False)
    for i in range(len(photos)):
        assert np.array_equal(pixels[i], rule.resized(read_image(photos.path(i))))
    monkeypatch.setattr(data, "read_image", None)
    assert np.array_equal(data.cached_pixels(photos, rule, progress=False), pixels)


def test_a_changed_file_or_rule_makes_a_new_cache(sketch_set, own_cache):
    photos = toy_photos(sketch_set)
    data.cached_pixels(photos, Preprocess(8), progress=False)
    data.cached_pixels(photos, Preprocess(8, "pad"), progress=False)
    Image.new("RGB", (9, 9), "red").save(photos.path(0))
    changed = data.cached_pixels(photos, Preprocess(8), progress=False)
    assert len(list((own_cache / "pixels").iterdir())) == 3
    assert changed[0, 0, 0].tolist()[0] > 240


def test_normalisation_shares_one_cache(sketch_set, own_cache):
    photos = toy_photos(sketch_set)
    data.cached_pixels(photos, Preprocess(8), progress=False)
    data.cached_pixels(photos, Preprocess(8, mean=(0, 0, 0)), progress=False)
    assert len(list((own_cache / "pixels").iterdir())) == 1


def test_a_truncated_cache_is_made_anew(sketch_set, own_cache):
    photos = toy_photos(sketch_set)
    whole = np.array(data.cached_pixels(photos, Preprocess(8), progress=False))
    file = next((own_cache / "pixels").iterdir())
    with open(file, "r+b") as opened:
        opened.truncate(100)
    assert np.array_equal(data.cached_pixels(photos, Preprocess(8), progress=False), whole)


def build_cache(root, cache, queue):
    from pathlib import Path

    from replication import data, paths
    paths.CACHE = Path(cache)
    queue.put(int(data.cached_pixels(toy_photos(root), Preprocess(64), progress=False).sum()))


def test_two_processes_build_one_cache(sketch_set, own_cache):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    both = [context.Process(target=build_cache, args=(sketch_set, str(own_cache), queue))
            for _ in range(2)]
    for process in both:
        process.start()
    sums = {queue.get(timeout=120) for _ in both}
    for process in both:
        process.join()
    assert len(sums) == 1 and len(list((own_cache / "pixels").iterdir())) == 1


def test_every_unreadable_picture_is_listed_and_no_cache_is_left(sketch_set, own_cache):
    photos = toy_photos(sketch_set)
    half = photos.path(1).read_bytes()
    photos.path(1).write_bytes(half[: len(half) // 2])
    photos.path(5).write_text("not a picture")
    with pytest.raises(data.DatasetError) as told:
        data.cached_pixels(photos, Preprocess(8), progress=False)
    assert "2 pictures" in str(told.value)
    assert all(photos.files[i] in str(told.value) for i in (1, 5))
    assert not list((own_cache / "pixels").iterdir())


def triplets(root, seed=3, epoch=0) -> data.Triplets:
    train = data.read_sketch_set(root, "toy").train
    pixels = [data.cached_pixels(i, Preprocess(8), progress=False)
              for i in (train.sketch, train.photo)]
    return data.Triplets(train, *pixels, seed, epoch)


def test_triplets_are_of_the_right_classes_and_every_sketch_comes_once(sketch_set, own_cache):
    drawn = triplets(sketch_set)
    sketch, positive, negative = drawn.plan.T
    split = drawn.split
    assert sorted(sketch) == list(range(12))
    assert (split.photo.labels[positive] == split.sketch.labels[sketch]).all()
    assert (split.photo.labels[negative] != split.sketch.labels[sketch]).all()


def test_triplets_repeat_by_seed_and_epoch(sketch_set, own_cache):
    plan = triplets(sketch_set).plan
    assert np.array_equal(plan, triplets(sketch_set).plan)
    assert not np.array_equal(plan, triplets(sketch_set, epoch=1).plan)
    assert not np.array_equal(plan, triplets(sketch_set, seed=4).plan)


def test_negatives_reach_every_photo_of_other_classes(sketch_set, own_cache):
    found = {i for epoch in range(60) for i in triplets(sketch_set, epoch=epoch).plan[:, 2]}
    assert found == set(range(8))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_two_processes_are_one_processes_batches(sketch_set, own_cache, workers):
    drawn = triplets(sketch_set)
    whole = [b["row"].tolist() for b in data.batches(drawn, 5, num_workers=workers)]
    halves = [[b["row"].tolist() for b in data.batches(drawn, 5, rank=r, world=2)]
              for r in (0, 1)]
    assert [len(b) for b in whole] == [5, 5, 2]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert sorted(first + second) == sorted(batch) and abs(len(first) - len(second)) <= 1


def test_a_folder_that_cannot_be_written_is_told_before_work(tmp_path):
    from replication import paths

    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match="cannot write into .*save_root"):
        paths.writable_folder(tmp_path / "file" / "below")
    if os.getuid():
        (tmp_path / "shut").mkdir(mode=0o500)
        with pytest.raises(PermissionError, match="shut"):
            paths.writable_folder(tmp_path / "shut")


def test_sketches_may_have_a_rule_of_their_own():
    drawing = Image.new("RGB", (100, 80), "white")
    drawing.paste((20, 20, 20), (40, 30, 60, 35))  # a stroke of 20 x 5
    drawing.paste((101, 100, 100), (0, 0, 3, 3))  # too light to be one
    rule = Preprocess(80, sketch_resize="ink")
    found = rule.of("sketch").resized(drawing)
    stroke = np.argwhere(found.sum(2) <= 300)
    # 10 pixels around make 40 x 25, scaled by the longer side to 80 x 50, then white above, below
    assert np.abs(stroke.min(0) - (15 + 20, 20)).max() <= 1
    assert np.abs(stroke.max(0) - (15 + 30 - 1, 60 - 1)).max() <= 1
    assert (found[:15] == 255).all() and (found[65:] == 255).all()
    assert np.array_equal(rule.of("photo").resized(drawing), Preprocess(80).resized(drawing))
    assert rule.of("sketch").pixel_key() != rule.of("photo").pixel_key() == rule.pixel_key()


def test_faint_strokes_are_found_and_dark_ones_keep_the_published_limit():
    faint = Image.new("RGB", (100, 100), (240, 240, 240))
    faint.putpixel((50, 60), (150, 150, 150))
    assert ink_box(faint) == (40, 50, 61, 71)
    dark = Image.new("RGB", (100, 100), "white")
    dark.putpixel((50, 60), (100, 100, 100))
    dark.putpixel((20, 20), (101, 100, 100))  # a sum of 301 is paper
    assert ink_box(dark) == (40, 50, 61, 71)


def test_a_sketch_without_ink_is_named(sketch_set, own_cache):
    train, rule = data.read_sketch_set(sketch_set, "toy").train, Preprocess(8, sketch_resize="ink")
    for index in range(len(train.sketch)):
        Image.new("RGB", (9, 9), "black").save(train.sketch.path(index))
    data.cached_pixels(train.sketch, rule, progress=False)
    Image.new("RGB", (9, 9), (200, 200, 200)).save(train.sketch.path(1))
    told = f"{train.sketch.path(1).name} .no ink: .*is it an empty sketch"
    with pytest.raises(data.DatasetError, match=told):
        data.cached_pixels(train.sketch, rule, progress=False)
    data.cached_pixels(train.photo, rule, progress=False)
