"""Preparing Sketchy: a made-up archive in the official layout, and the real sample."""

import csv
import os
from pathlib import Path

import pytest
from PIL import Image

from data_prep import sketchy
from replication import data

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data"
CLASSES = sorted({*sketchy.UNSEEN["104/21"], *sketchy.UNSEEN["100/25"]})
CLASSES += [f"filler_{i:03d}" for i in range(sketchy.N_CLASSES - len(CLASSES))]


@pytest.fixture
def archive(tmp_path):
    """rendered_256x256 in small, every file a whole picture of 2 x 2 pixels."""
    Image.new("RGB", (2, 2)).save(tmp_path / "p.jpg")
    Image.new("RGB", (2, 2)).save(tmp_path / "s.png")
    for c in CLASSES:
        for domain, name in (("photo", "n0_1.jpg"), ("sketch", "n0_1-2.png")):
            folder = tmp_path / "raw/256x256" / domain / "tx_000000000000" / c
            folder.mkdir(parents=True)
            os.link(tmp_path / (domain[0] + Path(name).suffix), folder / name)
    return tmp_path / "raw"


@pytest.mark.parametrize("split", ["104/21", "100/25"])
def test_classes_go_to_their_split(archive, tmp_path, split):
    sketchy.prepare(archive, tmp_path / "out", split)
    found = data.read_sketch_set(tmp_path / "out", "sketchy")
    assert found.split_name == split and set(found.val.classes) == set(sketchy.UNSEEN[split])
    assert found.manifest.startswith("sha256:")
    text = (tmp_path / "out/sketchy/manifest.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 250 and {r["instance"] for r in rows} == {"n0_1"}


def test_the_extension_joins_and_a_name_in_both_counts_once(archive, tmp_path):
    extended = archive / sketchy.EXTENSION / "tree"
    extended.mkdir(parents=True)
    for name in ("n0_1.jpg", "ext_5.jpg"):
        os.link(tmp_path / "p.jpg", extended / name)
    sketchy.prepare(archive, tmp_path / "out")
    photos = sorted(p.name for p in (tmp_path / "out/sketchy/val/photo/tree").iterdir())
    assert photos == ["ext_5.jpg", "n0_1.jpg"]


def test_a_second_call_leaves_the_set_and_another_split_is_refused(archive, tmp_path, capsys):
    sketchy.prepare(archive, tmp_path / "out")
    sketchy.prepare(archive, tmp_path / "out")
    assert "is there already" in capsys.readouterr().out
    assert sketchy.main(["--raw", str(archive), "--out", str(tmp_path / "out"), "--split",
                         "100/25"]) == 1
    assert "holds split 104/21: choose another --name" in capsys.readouterr().err


def test_a_stopped_preparation_leaves_no_set(archive, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sketchy, "_write_about", stop)
    with pytest.raises(KeyboardInterrupt):
        sketchy.prepare(archive, tmp_path / "out")
    assert not (tmp_path / "out/sketchy").exists()
    monkeypatch.undo()
    sketchy.prepare(archive, tmp_path / "out")
    assert (tmp_path / "out/sketchy/dataset.json").exists()


@pytest.mark.parametrize(("damage", "told"), [
    (lambda raw: (raw / "256x256/photo/tx_000000000000/bat/n0_1.jpg").unlink(), "photo/bat"),
    (lambda raw: (raw / "256x256/sketch").rename(raw / "256x256/drawing"), "unpack the archive"),
    (lambda raw: (raw / "256x256/photo/tx_000000000000/dog").mkdir(), "126 classes, expected 125"),
])
def test_an_archive_that_is_not_one_is_told(archive, tmp_path, damage, told):
    damage(archive)
    with pytest.raises(sketchy.PreparationError, match=told):
        sketchy.prepare(archive, tmp_path / "out")
    assert not (tmp_path / "out/sketchy").exists()


@pytest.mark.skipif(not (SAMPLE / "sketchy_subset").is_dir(), reason="no ../shared/data here")
@pytest.mark.parametrize(("split", "folder", "unseen"), [
    ("100/25", "sketchy_zeroshot1_100_25", 625), ("104/21", "sketchy_zeroshot0_104_21", 525)])
def test_the_real_sample_has_the_official_classes_and_counts(tmp_path, split, folder, unseen):
    official = (SAMPLE / "splits" / folder / "cname_cid_zero.txt").read_text().splitlines()
    assert {line.rsplit(" ", 1)[0] for line in official} == set(sketchy.UNSEEN[split])
    sketchy.prepare(SAMPLE / "sketchy_subset", tmp_path, split)
    found = data.read_sketch_set(tmp_path, "sketchy")
    assert (len(found.val.sketch), len(found.val.photo)) == (unseen, unseen)
    assert len(found.train.sketch) == len(found.train.photo) == 3125 - unseen
    assert set(found.val.sketch.instances) <= set(found.val.photo.instances)
