"""The built-in dataset: same bytes from the same seed, complete in every layout."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.doodles import CLASSES, SEEN, UNSEEN, DoodlesError, contact_sheet, draw_dataset
from data_prep.doodles.attributes import Attributes, of_class
from data_prep.doodles.classes import DRAWERS, individual
from data_prep.doodles.wording import modification, remarks

TINY = {"per_class": 6, "size": 32, "sketches": 2}
REPOSITORY = Path(__file__).resolve().parents[1]


def hashes(out: Path) -> dict[str, str]:
    """Path to hash of every file beneath `out`."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def read(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("doodles")
    draw_dataset(folder, seed=0, workers=1, **TINY)
    return folder


@pytest.fixture(scope="module")
def manifest(out) -> list[dict]:
    with open(out / "doodles" / "manifest.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_two_processes_with_another_hash_seed_draw_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.doodles.write.CLASSES", CLASSES[::6])
    draw_dataset(tmp_path / "one", seed=0, workers=1, **TINY)
    program = (
        "import sys; from data_prep.doodles import write; write.CLASSES = write.CLASSES[::6]; "
        "write.draw_dataset(sys.argv[1], 0, 6, 32, 2, workers=2)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1234"}
    command = [sys.executable, "-c", program, str(tmp_path / "two")]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    assert len(hashes(tmp_path / "two")) > 3 * 6 * len(CLASSES[::6])
    assert hashes(tmp_path / "two") == hashes(tmp_path / "one")


def test_another_seed_draws_another_set(out, manifest, tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.doodles.write.CLASSES", CLASSES[::7])
    draw_dataset(tmp_path, seed=1, per_class=4, size=32, sketches=1, workers=1)
    with open(tmp_path / "doodles" / "manifest.csv", encoding="utf-8", newline="") as file:
        other = {row["path"]: row["sha256"] for row in csv.DictReader(file)}
    mine = {row["path"]: row["sha256"] for row in manifest}
    assert len(other) == 2 * 4 * len(CLASSES[::7])
    assert all(mine[path] != sha256 for path, sha256 in other.items())


def test_a_finished_set_is_left_as_it_is(out):
    before = (out / "doodles" / "manifest.csv").stat().st_mtime_ns
    assert draw_dataset(out, seed=0, **TINY) == out / "doodles"
    assert (out / "doodles" / "manifest.csv").stat().st_mtime_ns == before


def test_an_interrupted_run_leaves_nothing_that_passes_for_a_set(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("data_prep.doodles.write.draw_all", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path, workers=1, **TINY)
    assert not list(tmp_path.iterdir())


def test_an_older_set_is_replaced_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.doodles.write.CLASSES", CLASSES[:6])
    draw_dataset(tmp_path, per_class=5, size=32, sketches=1, workers=1)
    draw_dataset(tmp_path, per_class=4, size=32, sketches=1, workers=1)
    assert read(tmp_path / "doodles_cirr" / "doodles.json")["settings"]["per_class"] == 4
    assert len(list((tmp_path / "doodles").rglob("*.jpg"))) == 4 * 6


def test_classes_are_enough_and_the_split_is_clean():
    assert len(SEEN) >= 32 and len(UNSEEN) >= 12 and len(CLASSES) >= 44
    assert set(SEEN) | set(UNSEEN) == set(CLASSES) and not set(SEEN) & set(UNSEEN)
    assert sum(len(group) for group in DRAWERS.values()) == len(CLASSES)


@pytest.mark.parametrize("class_name", CLASSES)
def test_individuals_differ_and_fill_the_drawing(class_name):
    drawn = [individual(class_name, np.random.default_rng(seed)) for seed in range(8)]
    outlines = {np.concatenate([part.points for part in parts]).tobytes() for parts in drawn}
    assert len(outlines) == len(drawn)
    for parts in drawn:
        points = np.concatenate([part.points for part in parts])
        assert len({part.name for part in parts}) >= 1
        assert np.isfinite(points).all() and np.isclose(np.abs(points).max(), 1)


def test_manifest_lists_every_picture_with_its_hash(out, manifest):
    root = out / "doodles"
    paths = [row["path"] for row in manifest]
    pictures = [p for p in root.rglob("*") if p.suffix in (".jpg", ".png")]
    assert paths == sorted(p.relative_to(root).as_posix() for p in pictures)
    for row in manifest:
        assert hashlib.sha256((root / row["path"]).read_bytes()).hexdigest() == row["sha256"]
        assert row["path"].split("/")[:3] == [row["split"], row["domain"], row["class"]]


def test_every_class_has_its_pictures_in_both_domains(manifest):
    count = {}
    for row in manifest:
        key = row["split"], row["domain"], row["class"]
        count[key] = count.get(key, 0) + 1
    expected = {("train", "photo", name): 6 for name in SEEN}
    expected |= {("train", "sketch", name): 12 for name in SEEN}
    expected |= {("val", "photo", name): 6 for name in UNSEEN}
    expected |= {("val", "sketch", name): 12 for name in UNSEEN}
    assert count == expected


def test_every_sketch_names_its_photo(manifest):
    photos = {row["path"] for row in manifest if row["domain"] == "photo"}
    sketches = [row for row in manifest if row["domain"] == "sketch"]
    for row in sketches:
        stem, number = Path(row["path"]).stem.rsplit("-", 1)
        assert stem == row["instance"] and number in ("1", "2")
        assert f"{row['split']}/photo/{row['class']}/{stem}.jpg" in photos


def test_pictures_are_of_the_size_and_not_blank(out, manifest):
    for row in manifest[::7]:
        with Image.open(out / "doodles" / row["path"]) as image:
            pixels = np.asarray(image.convert("L"), dtype=float)
        assert pixels.shape == (32, 32)
        if row["domain"] == "photo":
            assert pixels.std() > 4
        else:
            assert 0.02 < (pixels < 200).mean() < 0.6 and np.median(pixels) == 255


def test_parts_lie_inside_the_picture_and_agree_between_domains(out, manifest):
    parts = read(out / "doodles" / "parts.json")
    assert set(parts) == {row["path"] for row in manifest}
    for row in manifest:
        spots = [spot for found in parts[row["path"]].values() for spot in found]
        assert spots and (np.array(spots) >= 0).all() and (np.array(spots) <= 1).all()
    shared = 0
    for row in (row for row in manifest if row["domain"] == "sketch"):
        photo = f"{row['split']}/photo/{row['class']}/{row['instance']}.jpg"
        shared += bool(set(parts[row["path"]]) & set(parts[photo]))
    assert shared > 0.95 * sum(row["domain"] == "sketch" for row in manifest)


def test_captions_are_five_consecutive_ids_of_one_image(out):
    folder = out / "doodles_captions" / "coco"
    all_ids = []
    for name, year_file in (("train", "train"), ("dev", "val"), ("test", "val")):
        content = read(folder / "annotations" / f"captions_{year_file}2014.json")
        notes = {note["id"]: note for note in content["annotations"]}
        images = {image["id"]: image for image in content["images"]}
        ids = np.load(folder / "annotations" / f"coco_{name}_ids.npy")
        assert ids.dtype == np.int64 and len(ids) and len(ids) % 5 == 0
        for five in ids.reshape(-1, 5):
            assert len({notes[i]["image_id"] for i in five}) == 1
            assert len({notes[i]["caption"] for i in five}) > 1
            image = images[notes[five[0]]["image_id"]]
            assert (folder / "images" / f"{year_file}2014" / image["file_name"]).is_file()
        all_ids += ids.tolist()
    assert len(set(all_ids)) == len(all_ids) == 5 * 6 * len(CLASSES)


def test_captions_tell_the_truth(out):
    known = read(out / "doodles" / "attributes.json")
    content = read(out / "doodles_captions" / "coco" / "annotations" / "captions_train2014.json")
    names = {image["id"]: Path(image["doodle"]).stem for image in content["images"]}
    colours = {about["colour"] for about in known.values()}
    for note in content["annotations"]:
        name = names[note["image_id"]]
        words = set(note["caption"].lower().strip(".").split())
        named = {colour for colour in colours if colour in words}
        assert named <= {known[name]["colour"]}
        number = {2: "two", 3: "three"}.get(known[name]["count"])
        assert number is None or number in words
        assert name.rsplit("_", 1)[0].split("_")[0][:5] in note["caption"].lower()


def test_captions_for_pretraining_leave_out_unseen_classes_and_test_images(out):
    folder = out / "doodles_captions" / "coco" / "annotations"
    seen = read(folder / "captions_seen2014.json")["images"]
    train = {image["doodle"] for image in read(folder / "captions_train2014.json")["images"]}
    expected = {path for path in train if path.split("/")[2] in SEEN}
    assert {image["doodle"] for image in seen} == expected and expected < train


@pytest.mark.parametrize("label", ["train", "val", "test1"])
def test_cirr_groups_hold_reference_and_target(out, label):
    base = out / "doodles_cirr" / "cirr_dataset"
    queries = read(base / "cirr" / "captions" / f"cap.rc2.{label}.json")
    paths = read(base / "cirr" / "image_splits" / f"split.rc2.{label}.json")
    assert queries and all((base / path).is_file() for path in paths.values())
    for query in queries:
        members = query["img_set"]["members"]
        assert len(set(members)) == 6 and set(members) <= set(paths)
        assert members[query["img_set"]["reference_rank"]] == query["reference"]
        assert query["caption"].strip()
        if label == "test1":
            assert "target_hard" not in query and "target_rank" not in query["img_set"]
            continue
        assert query["target_hard"] != query["reference"]
        assert members[query["img_set"]["target_rank"]] == query["target_hard"]
        assert query["target_soft"][query["target_hard"]] == 1.0


def test_cirr_images_are_in_one_split_only(out):
    folder = out / "doodles_cirr" / "cirr_dataset" / "cirr" / "image_splits"
    names = [set(read(folder / f"split.rc2.{label}.json")) for label in ("train", "val", "test1")]
    assert sum(map(len, names)) == len(set().union(*names)) == 6 * len(CLASSES)


@pytest.mark.parametrize("kind", ["dress", "shirt", "toptee"])
@pytest.mark.parametrize("label", ["train", "val", "test"])
def test_fashioniq_references_resolve(out, kind, label):
    base = out / "doodles_fashioniq" / "fashionIQ_dataset"
    queries = read(base / "captions" / f"cap.{kind}.{label}.json")
    names = read(base / "image_splits" / f"split.{kind}.{label}.json")
    assert queries and len(names) == len(set(names))
    assert all((base / "images" / f"{name}.jpg").is_file() for name in names)
    for query in queries:
        assert query["candidate"] in names and len(query["captions"]) == 2
        assert ("target" in query) == (label != "test")
        assert query.get("target", names[0]) in names
        assert query.get("target") != query["candidate"]


def test_fashioniq_types_are_three_and_share_no_image(out):
    base = out / "doodles_fashioniq" / "fashionIQ_dataset"
    names = [name for file in base.glob("image_splits/*.json") for name in read(file)]
    assert len(names) == len(set(names)) == 6 * len(CLASSES)
    assert all(kind in (base / "README.txt").read_text() for kind in ("dress", "shirt", "toptee"))


def test_look_alikes_differ_in_few_attributes_and_never_in_none():
    found = of_class(0, 3, 24)
    assert len(set(found)) == 24
    for start in range(0, 24, 6):
        steps = [len(found[start].differences(other)) for other in found[start + 1 : start + 6]]
        assert all(step in (1, 2) for step in steps)


def test_modification_names_every_difference():
    reference = Attributes("red", "plain", "small", "left", "room", 1)
    target = Attributes("green", "plain", "large", "left", "room", 1)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        text = modification(reference, target, rng)
        assert "green" in text and "large" in text and "left" not in text
        both = " ".join(remarks(reference, target, rng))
        assert "green" in both and any(word in both for word in ("large", "big", "huge"))


def test_contact_sheet_shows_all_classes(out, tmp_path):
    path = contact_sheet(out / "doodles", tmp_path / "sheet.png", columns=4, side=48)
    with Image.open(path) as image:
        pixels = np.asarray(image)
        assert image.width > 4 * 2 * 48 and image.height > 13 * 48
    assert (pixels != 255).any(axis=2).mean() > 0.4


@pytest.mark.parametrize(
    ("wrong", "named"), [({"per_class": 3}, "per_class is 3"), ({"size": 16}, "size is 16"),
                         ({"sketches": 0}, "sketches is 0"), ({"seed": -1}, "seed is -1")]
)  # fmt: skip
def test_wrong_numbers_are_named_before_any_work(tmp_path, wrong, named):
    with pytest.raises(DoodlesError, match=named):
        draw_dataset(tmp_path / "new", **(TINY | wrong))
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DoodlesError, match="cannot write to .*file"):
        draw_dataset(tmp_path / "file", **TINY)


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "doodles").mkdir()
    (tmp_path / "doodles" / "mine.txt").write_text("x")
    with pytest.raises(DoodlesError, match="not written by this command"):
        draw_dataset(tmp_path, **TINY)
    assert (tmp_path / "doodles" / "mine.txt").read_text() == "x"


def test_the_command_says_what_is_wrong(tmp_path):
    command = [sys.executable, "-m", "data_prep.doodles", "--out", str(tmp_path), "--size", "8"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert "size is 8" in done.stderr and "Traceback" not in done.stderr
