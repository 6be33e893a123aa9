"""Preparing ShoeV2 and ChairV2: made-up releases in every layout that is taken."""

import os
import shutil
import zipfile
from pathlib import Path

import damage
import pytest
from checking import about, report_of, rows
from PIL import Image

from data_prep import chairv2, preparing, qmul, shoev2, svg
from data_prep.preparing import PreparationError
from replication import fine_grained

LINE = ('<svg viewBox="0 0 400 200" xmlns="http://www.w3.org/2000/svg"><path stroke="black" '
        'fill="none" stroke-width="8" d="M10 {} L390 90"/></svg>')
PHOTOS = {"train": ["24 (ü)", "25"], "test": ["26"]}
SKETCHES = {"train": ["24 (ü)_1", "24 (ü)_2", "25_1"], "test": ["26_1", "26_7"]}
LAYOUTS = ["lists", "lists, png beside", "lists, png within", "part/domain", "domain/part",
           "A and B"]


def release(folder: Path, layout: str, name: str = "ShoeV2") -> Path:
    """A release in small; in the official one, `lists`, the sketches are svg."""
    for part in PHOTOS:
        for domain, stems in (("photo", PHOTOS[part]), ("sketch", SKETCHES[part])):
            where = {"part/domain": folder / part / domain, "domain/part": folder / domain / part,
                     "A and B": folder / f"{part}{'AB'[domain == 'photo']}"
                     }.get(layout, folder / f"{name}_{domain}")
            where.mkdir(parents=True, exist_ok=True)
            drawn = layout.startswith("lists") and domain == "sketch"
            for n, stem in enumerate(stems):
                if drawn:
                    (where / f"{stem}.svg").write_text(LINE.format(n + 10 * (part == "test")))
                else:
                    damage.plain_png(where / f"{stem}.png")
            if drawn and "png" in layout:
                png = folder / f"{name}_sketch{'_png' * ('beside' in layout)}"
                png.mkdir(exist_ok=True)
                for stem in stems:
                    damage.plain_png(png / f"{stem}.png")
            if layout.startswith("lists"):
                suffix = ".svg" if drawn else ".png"
                (folder / f"{domain}_{part}.txt").write_text(
                    "".join(f"{stem}{suffix}\n" for stem in stems), encoding="utf-8")
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("deep", ["", "ShoeV2", "both/ShoeV2/ShoeV2_F"])
def test_every_layout_makes_a_set_that_the_experiments_read(tmp_path, layout, deep):
    release(tmp_path / "raw" / deep, layout)
    folder = shoev2.prepare(tmp_path / "raw", tmp_path / "out")
    assert folder == tmp_path / "out/shoev2"
    found = fine_grained.read_instance_set(tmp_path / "out", "shoev2")
    assert found.train.photo.files == ("24 (ü).png", "25.png")
    assert found.val.sketch.files == ("26_1.png", "26_7.png")
    assert found.train.sketch.instances == ("24 (ü)", "24 (ü)", "25")
    instances = {r["path"]: r["instance"] for r in rows(folder)}
    assert instances["test/sketch/26_7.png"] == "26" == instances["test/photo/26.png"]
    assert about(folder)["counts"] == {"test/photo": 1, "test/sketch": 2, "train/photo": 2,
                                       "train/sketch": 3}
    assert ("drawn_by" in about(folder)) == (layout == "lists")


def test_the_other_set_beside_it_is_not_taken(tmp_path):
    release(tmp_path / "raw/both/ChairV2", "A and B", "ChairV2")
    with pytest.raises(PreparationError, match="no ShoeV2 pictures of train sketch, train photo"):
        shoev2.prepare(tmp_path / "raw", tmp_path / "out")
    release(tmp_path / "raw/both/ShoeV2", "lists")
    for module, size in ((chairv2, (24, 24)), (shoev2, (256, 128))):
        folder = module.prepare(tmp_path / "raw", tmp_path / "out")
        with Image.open(folder / "train/sketch/25_1.png") as image:
            assert image.size == size
    assert about(tmp_path / "out/chairv2")["name"] == "chairv2"


def test_svg_sketches_are_drawn_in_the_size_that_is_asked_for(tmp_path):
    release(tmp_path / "raw", "lists")
    folder = shoev2.prepare(tmp_path / "raw", tmp_path / "out", size=64)
    with Image.open(folder / "train/sketch/25_1.png") as image:
        assert (image.size, image.mode) == ((64, 32), "L")
    with pytest.raises(PreparationError, match="size 64, not 256: choose another --name"):
        shoev2.prepare(tmp_path / "raw", tmp_path / "out")
    with pytest.raises(PreparationError, match="--size 9: choose 16 to 4096"):
        shoev2.prepare(tmp_path / "raw", tmp_path / "out", size=9)


@pytest.mark.parametrize("layout", ["lists", "A and B"])
def test_a_packed_release_makes_the_same_set(tmp_path, layout):
    release(tmp_path / "raw", layout)
    plain = shoev2.prepare(tmp_path / "raw", tmp_path / "plain")
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed/ShoeV2.zip", "w") as packed:
        for file in sorted((tmp_path / "raw").rglob("*")):
            packed.write(file, Path("ShoeV2_F", file.relative_to(tmp_path / "raw")))
    assert rows(shoev2.prepare(tmp_path / "packed", tmp_path / "out")) == rows(plain)


def test_what_lies_unpacked_is_not_unpacked_again(tmp_path):
    release(tmp_path / "raw/ShoeV2", "lists")
    damage.text(tmp_path / "raw/ShoeV2.zip")
    shoev2.prepare(tmp_path / "raw", tmp_path / "out")
    assert not (tmp_path / "out/.unpacked").exists()


def test_no_release_is_told_with_what_to_get(tmp_path):
    with pytest.raises(PreparationError, match="raw is no folder: --raw names the one with"):
        chairv2.prepare(tmp_path / "raw", tmp_path / "out")
    (tmp_path / "raw").mkdir()
    with pytest.raises(PreparationError, match=r"(?s)no ChairV2 pictures .*ChairV2\.zip \(always"):
        chairv2.prepare(tmp_path / "raw", tmp_path / "out")
    damage.text(tmp_path / "raw/ChairV2.zip")
    with pytest.raises(PreparationError, match="ChairV2.zip"):
        chairv2.prepare(tmp_path / "raw", tmp_path / "out")


@pytest.mark.parametrize(("layout", "wrong", "told"), [
    ("part/domain", lambda f: (f / "train/photo/24 (ü).png").unlink(),
     r"2 train sketches show a photo that is not in train: 24 \(ü\)_1, 24 \(ü\)_2"),
    ("A and B", lambda f: damage.plain_png(f / "testA/nothing.png"),
     "1 test sketches show a photo that is not in test: nothing"),
    ("domain/part", lambda f: shutil.copy(f / "photo/train/25.png", f / "photo/test/25.png"),
     "1 photos are in train and in test: 25"),
    ("part/domain", lambda f: shutil.copy(f / "train/sketch/25_1.png", f / "test/sketch"),
     r"(?s)1 test sketches show .*: 25_1\n1 sketches are in train and in test: 25_1"),
    ("lists", lambda f: (f / "ShoeV2_sketch/26_7.svg").unlink(),
     "1 sketches of sketch_test.txt are absent: 26_7.svg"),
    ("lists", lambda f: shutil.copy(f / "photo_train.txt", f / "photo_test.txt"),
     r"(?s)2 test sketches show .*2 photos are in train and in test: 24 \(ü\), 25"),
    ("part/domain", lambda f: shutil.rmtree(f / "test/sketch"),
     "no ShoeV2 pictures of test sketch\n"),
])
def test_a_release_that_is_wrong_is_told(tmp_path, layout, wrong, told):
    wrong(release(tmp_path / "raw", layout))
    with pytest.raises(PreparationError, match=told):
        shoev2.prepare(tmp_path / "raw", tmp_path / "out")
    assert not (tmp_path / "out/shoev2").exists()


def test_what_no_list_names_and_what_is_no_picture_is_named(tmp_path, capsys):
    folder = release(tmp_path / "raw", "lists")
    damage.plain_png(folder / "ShoeV2_photo/99.png")
    damage.text(folder / "ShoeV2_photo/read me.txt")
    with open(folder / "photo_train.txt", "a") as file:
        file.write("25.png\n\n")
    made = about(shoev2.prepare(folder, tmp_path / "out"))
    assert made["unlisted"] == {"sketch": [], "photo": ["99"]}
    assert made["listed_twice"] == {"train/photo": ["25.png"]}
    assert made["ignored"] == ["ShoeV2_photo/read me.txt"] and made["counts"]["train/photo"] == 2
    assert "1 files are no pictures" in capsys.readouterr().out


@pytest.mark.parametrize("kind", sorted(damage.BROKEN))
def test_a_damaged_picture_is_named_and_left_out_only_when_allowed(tmp_path, kind):
    folder = release(tmp_path / "raw", "part/domain")
    damage.BROKEN[kind](folder / "test/sketch/26_7.png")
    with pytest.raises(PreparationError, match="1 files .*\n  test/sketch/26_7.png"):
        shoev2.prepare(folder, tmp_path / "out")
    assert not (tmp_path / "out/shoev2").exists()
    made = shoev2.prepare(folder, tmp_path / "out", allow_damaged=True)
    assert list(about(made)["left_out"]) == ["test/sketch/26_7.png"] and len(rows(made)) == 7


def test_a_damaged_photo_that_a_sketch_shows_is_never_left_out(tmp_path):
    folder = release(tmp_path / "raw", "part/domain")
    damage.empty(folder / "train/photo/25.png")
    with pytest.raises(ValueError, match="1 photos that train sketches depict are absent: 25"):
        shoev2.prepare(folder, tmp_path / "out", allow_damaged=True)
    assert not (tmp_path / "out/shoev2").exists()


def test_odd_pictures_go_in_and_are_named(tmp_path):
    folder = release(tmp_path / "raw", "A and B")
    for number, (write, _) in enumerate(damage.ODD.values()):
        write(folder / f"trainB/odd{number}.jpg")
    made = about(shoev2.prepare(folder, tmp_path / "out"))
    for number, (_, told) in enumerate(damage.ODD.values()):
        assert f"train/photo/odd{number}.jpg" in made["odd"][told]


def test_a_second_call_does_nothing(tmp_path, capsys):
    folder = release(tmp_path / "raw", "lists")
    shoev2.prepare(folder, tmp_path / "out")
    shutil.rmtree(folder)
    shoev2.prepare(folder, tmp_path / "out")
    assert "is there already" in capsys.readouterr().out


def test_a_stopped_preparation_makes_nothing_again(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    folder = release(tmp_path / "raw", "lists")
    monkeypatch.setattr(preparing, "_write_about", stop)
    with pytest.raises(KeyboardInterrupt):
        shoev2.prepare(folder, tmp_path / "out")
    assert not (tmp_path / "out/shoev2").exists()
    monkeypatch.undo()
    monkeypatch.setattr(os, "link", stop)
    monkeypatch.setattr(svg.resvg_py, "svg_to_bytes", stop)
    assert len(rows(shoev2.prepare(folder, tmp_path / "out"))) == 8


@pytest.mark.parametrize("module", [shoev2, chairv2])
def test_the_commands_take_every_option(tmp_path, capsys, module):
    release(tmp_path / "raw", "lists", module.OFFICIAL)
    command = ["--raw", str(tmp_path / "raw"), "--out", str(tmp_path), "--size", "32"]
    assert module.main([*command, "--name", "mine"]) == 0
    assert "2 test/sketch, 2 train/photo" in capsys.readouterr().out
    assert about(tmp_path / "mine")["name"] == module.NAME
    assert module.main([*command[:4], "--name", "mine"]) == 1
    assert "size 32, not 256" in capsys.readouterr().err


def test_both_commands_have_their_own_help(capsys):
    for module in (shoev2, chairv2):
        with pytest.raises(SystemExit):
            module.main(["--help"])
        told = capsys.readouterr().out
        assert f"data_prep.{module.NAME} --raw" in told and f"{module.OFFICIAL}_sketch" in told
        assert qmul.__doc__ not in told


def test_the_check_reads_both_parts_and_names_what_is_gone(tmp_path):
    target = shoev2.prepare(release(tmp_path / "raw" / "ShoeV2", "lists"), tmp_path / "out")
    report = report_of("shoev2", tmp_path / "out", subset=True)
    assert report["problems"] == [] and report["counts"] == {
        "train/sketch": 3, "train/photo": 2, "val/sketch": 2, "val/photo": 1}
    (target / "test/sketch/26_7.png").unlink()
    assert report_of("shoev2", tmp_path / "out", subset=True)["problems"] == [
        "1 files differ from manifest.csv: test/sketch/26_7.png (absent)"]
    (target / "test/photo/26.png").unlink()
    assert any("photos that test sketches depict are absent: shoev2/26" in line or "no test photo"
               in line for line in report_of("shoev2", tmp_path / "out")["problems"])
