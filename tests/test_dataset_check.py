"""The check of a prepared set: every kind of fault is found, named and told by the exit status."""

import json
import shutil
from pathlib import Path

import damage
import numpy as np
import pytest
from PIL import Image

from replication import __main__, dataset_check, paths, pictures
from replication.contact_sheet import write_contact_sheet
from replication.data import DatasetError
from replication.dataset_check import as_markdown, check
from replication.datasets import Facts, Split
from replication.inventory import Inventory, Part, take_inventory

REPO = Path(__file__).resolve().parent.parent
SAMPLE = REPO.parent / "shared" / "data"
COUNTS = {"train/sketch": 152, "train/photo": 152, "train/classes": 38, "val/sketch": 56,
          "val/photo": 56, "val/classes": 14}


def facts(counts=COUNTS, per_class=None, **others) -> Facts:
    split = Split(source="these tests", counts=counts, per_class=per_class or {})
    return Facts(**{"name": "doodles", "title": "", "kind": "sketch", "folder": "doodles",
                    "cite": [], "home": "", "licence": "", "used_by": [],
                    "splits": {"38/14": split}, **others})


@pytest.fixture
def root(doodles, tmp_path) -> Path:
    """The tiny doodles, in a copy that a test may damage."""
    shutil.copytree(doodles / "doodles", tmp_path / "doodles")
    return tmp_path


def checked(root: Path, known: Facts | None = None, **options) -> dict:
    return check(take_inventory(known or facts(), root), workers=1, **options)


def photos(root: Path, part: str = "train") -> list[Path]:
    return sorted((root / "doodles" / part / "photo").glob("*/*"))


def test_a_whole_set_has_no_problem(root):
    report = checked(root, facts(per_class={"sketch": 4, "photo": 4}))
    assert report["problems"] == [] and report["damaged"] == []
    assert report["counts"] == COUNTS and report["n_pictures"] == 416
    assert report["per_class"]["photo"]["apple"] == 4 and report["split"] == "38/14"
    assert report["pictures"]["size"] == {"32 x 32": 416}
    assert report["manifest"].startswith("sha256:")
    json.dumps(report)


def test_counts_are_held_against_the_published_ones(root):
    other = facts({**COUNTS, "val/photo": 57, "val/sketch": None}, {"photo": 5})
    told = " | ".join(checked(root, other)["problems"])
    assert "val/photo: 56 here, 57 published (these tests)" in told
    assert "52 classes without 5 photo pictures each: " in told and "val/sketch" not in told
    sample = checked(root, other, subset=True)
    assert sample["problems"] == [] and "57 published" in sample["notes"][0] and sample["subset"]
    unknown = checked(root, facts(splits={"1/2": Split(source="", counts={})}))
    assert "split 38/14 has no published counts (there are: 1/2)" in unknown["problems"]


def test_a_rule_of_the_preparation_chooses_the_published_counts(root):
    (root / "doodles/dataset.json").write_text(
        json.dumps({"split": "38/14", "published_as": "38/14, each photo once"}))
    known = facts()
    once = Split(source="a rule", counts={**COUNTS, "val/photo": 55})
    report = checked(root, facts(splits={**known.splits, "38/14, each photo once": once}))
    assert report["split"] == "38/14, each photo once"
    assert report["problems"] == ["val/photo: 56 here, 55 published (a rule)"]


@pytest.mark.parametrize("kind", sorted(damage.BROKEN))
def test_damaged_pictures_are_named(root, kind):
    files = photos(root)[3:5]
    for file in files:
        damage.BROKEN[kind](file)
    report = checked(root)
    assert len(report["damaged"]) == 2 and files[0].name in report["damaged"][0][0]
    assert "2 pictures cannot be decoded" in report["problems"][0] and report["odd"] == {}


def test_a_changed_file_is_told_from_the_manifest(root):
    Image.new("RGB", (32, 32)).save(photos(root)[0])
    told = checked(root)["problems"]
    name = photos(root)[0].relative_to(root / "doodles").as_posix()
    assert told == [f"1 files differ from manifest.csv: {name} (changed)"]


def test_all_faults_are_in_one_list(root):
    first, second, third = photos(root)[:3]
    first.unlink()
    damage.text(second)
    damage.plain_jpg(third.with_name("new.jpg"))
    shutil.rmtree(root / "doodles/val/sketch" / photos(root, "val")[0].parent.name)
    told = "\n".join(checked(root)["problems"])
    for part in ("every class needs pictures in both domains", f"{first.name} (absent)",
                 "new.jpg (not listed)", "1 pictures cannot be decoded", "val/sketch: 52 here"):
        assert part in told


def test_duplicates_are_told_within_and_across(root):
    one, other = photos(root)[:2]
    unseen = photos(root, "val")[0]
    (root / "doodles/manifest.csv").unlink()
    shutil.copy(one, one.with_name("again.jpg"))
    shutil.copy(other, unseen.with_name("leaked.jpg"))
    report = checked(root)
    names = [Path(name).name for name in report["same_bytes"]["across"][0]]
    assert sorted(names) == sorted([other.name, "leaked.jpg"])
    assert report["n_same_bytes"] == {"within": 1, "across": 1}
    assert any("1 groups of the same bytes across splits" in n for n in report["notes"])
    strict = checked(root, strict=True)["problems"]
    assert any("1 groups of the same bytes across splits" in p for p in strict)


def test_a_picture_stored_again_is_near_same(root):
    (root / "doodles/manifest.csv").unlink()
    rng = np.random.default_rng(0)
    unlike = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((96, 96))
    first = photos(root)[0].with_name("first.png")
    unlike.save(first)
    copy = photos(root, "val")[0].with_name("smaller.jpg")
    unlike.resize((64, 64)).save(copy, quality=80)
    across = checked(root)["near_same"]["across"]
    assert any({Path(a).name, Path(b).name} == {"first.png", "smaller.jpg"} for a, b, _ in across)


def test_a_sketch_is_not_held_against_a_photo(root):
    (root / "doodles/manifest.csv").unlink()
    rng = np.random.default_rng(0)
    unlike = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((96, 96))
    unlike.save(photos(root)[0].with_name("first.png"))
    sketch = next((root / "doodles/train/sketch/apple").iterdir())
    unlike.resize((64, 64)).save(sketch.with_name("smaller-1.png"))
    assert not any("first.png" in a + b for a, b, _ in checked(root)["near_same"]["within"])


def test_a_picture_of_two_splits_is_told_but_not_of_two_types(root):
    files = tuple(f.relative_to(root / "doodles").as_posix() for f in photos(root)[:3])
    found = Inventory(facts(), root / "doodles", "38/14", counts=dict(COUNTS), parts=[
        Part("train dress", "images", files), Part("train shirt", "images", files[:2]),
        Part("val shirt", "images", files[2:])])
    told = check(found, workers=1)["notes"]
    assert f"1 pictures are in more than one of train, val and test: {files[2]}" in told


def test_many_of_the_same_bytes_are_one_short_line_and_no_near_pairs(root):
    (root / "doodles/manifest.csv").unlink()
    for file in photos(root)[1:60]:
        shutil.copy(photos(root)[0], file)
    report = checked(root)
    line = next(n for n in report["notes"] if "same bytes within" in n)
    assert line.endswith("= 56 more") and report["n_near_same"]["within"] == 0
    assert len(report["same_bytes"]["within"][0]) == 60


def test_too_many_near_pairs_are_said_not_listed(root, monkeypatch):
    def many(*_):
        raise pictures.TooMany("more than 3 near pairs")

    monkeypatch.setattr(dataset_check, "near_pairs", many)
    assert "photo: more than 3 near pairs" in checked(root)["notes"]


def test_odd_pictures_are_noted_and_strictly_refused(root):
    (root / "doodles/manifest.csv").unlink()
    damage.cmyk_jpg(photos(root)[0])
    report = checked(root)
    assert report["odd"]["mode CMYK"] and report["problems"] == []
    assert any("mode CMYK" in line for line in checked(root, strict=True)["problems"])


def test_an_absent_set_says_how_to_prepare_it(tmp_path):
    with pytest.raises(DatasetError, match="python -m data_prep.doodles"):
        take_inventory(facts(), tmp_path)


def test_the_report_for_people_names_what_the_other_one_does(root):
    damage.text(photos(root)[0])
    report = checked(root)
    text = as_markdown(report)
    assert f"{len(report['problems'])} problems" in text and all(p in text for p in
                                                                 report["problems"])
    assert "| val/photo | 56 |" in text and "JPEG: " in text


def test_the_contact_sheet_shows_both_splits(root, tmp_path):
    found = take_inventory(facts(), root)
    file = write_contact_sheet(found, tmp_path / "sheet.jpg")
    with Image.open(file) as sheet:
        assert sheet.size == (6 * 136 + 8, 4 * 170 + 8)
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    orange = (abs(pixels - (240, 150, 60)).sum(-1) < 60).sum()
    assert orange > 12 * 4 * 128
    again = write_contact_sheet(found, tmp_path / "again.jpg")
    assert again.read_bytes() == file.read_bytes()


def test_a_set_of_sketches_alone_is_a_sample_and_has_a_sheet(root, tmp_path):
    for part in ("train", "val"):
        shutil.rmtree(root / "doodles" / part / "photo")
    (root / "doodles/manifest.csv").unlink()
    (root / "doodles/dataset.json").write_text(json.dumps(
        {"split": "38/14", "sketches_only": True, "manifest": "sha256:0"}))
    assert "without photos" in checked(root)["problems"][0]
    report = checked(root, subset=True)
    assert report["problems"] == [] and report["manifest"] == "sha256:0"
    assert report["counts"]["val/sketch"] == 56 and report["counts"]["val/photo"] == 0
    file = write_contact_sheet(take_inventory(facts(), root), tmp_path / "sheet.jpg")
    with Image.open(file) as sheet:
        assert sheet.size == (6 * 136 + 8, 2 * 170 + 8)


def test_the_command_writes_its_reports_and_its_status_tells(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "BOOK", tmp_path / "book")
    known = facts().model_dump()
    (tmp_path / "book/datasets").mkdir(parents=True)
    (tmp_path / "book/datasets/doodles.yml").write_text(json.dumps(known))
    call = ["verify", "doodles", "--data-root", str(root), "--out", str(tmp_path / "report")]
    assert status(call) == 0
    assert "no problem" in capsys.readouterr().out
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["counts"] == COUNTS
    assert {f.name for f in (tmp_path / "report").iterdir()} == {"report.json", "report.md",
                                                                 "contact.jpg"}
    damage.text(photos(root)[0])
    assert status([*call, "--label", "sample"]) == 1
    assert "problem: 1 pictures cannot be decoded" in capsys.readouterr().out
    assert (tmp_path / "book/datasets/checks/sample.json").is_file()
    assert status(["verify", "nothing"]) == 1
    assert "no data set 'nothing': choose doodles" in capsys.readouterr().err


def status(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        __main__.main(arguments)
    return stopped.value.code or 0
