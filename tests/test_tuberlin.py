"""Preparing TU-Berlin: made-up archives in the official layout, and real svg sketches."""

import io
import os
import shutil
import zipfile
from pathlib import Path

import damage
import numpy as np
import pytest
from checking import about, rows
from PIL import Image

from data_prep import preparing, sketch_sets, svg, tuberlin
from data_prep.preparing import PreparationError
from replication import data

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data"
CLASSES, UNSEEN = tuberlin.LISTS.classes, tuberlin.LISTS.splits["220/30"].unseen
LINE = ('<svg viewBox="0 0 800 800" xmlns="http://www.w3.org/2000/svg"><path stroke="black" '
        'fill="none" stroke-width="8" d="M100 {0} L700 690"/></svg>')
LISTS = pytest.mark.skipif(not (SAMPLE / "splits").is_dir(), reason="no ../shared/data here")


@pytest.fixture
def archive(tmp_path):
    """In small: `png/<class>/<n>.png` with its filelist, `svg/<class>/<n>.svg` and
    `ImageResized/<class>/`, a file a class."""
    raw = tmp_path / "raw"
    damage.plain_jpg(tmp_path / "p.jpg")
    damage.plain_png(tmp_path / "s.png")
    for n, c in enumerate(CLASSES):
        for kind in ("png", "svg", "ImageResized"):
            (raw / kind / c).mkdir(parents=True)
        os.link(tmp_path / "s.png", raw / f"png/{c}/{80 * n + 1}.png")
        os.link(tmp_path / "p.jpg", raw / f"ImageResized/{c}/n01_{n}.JPEG")
        (raw / f"svg/{c}/{80 * n + 1}.svg").write_text(LINE.format(n))
    names = sorted(f.relative_to(raw / "png").as_posix() for f in (raw / "png").rglob("*.png"))
    (raw / "png/filelist.txt").write_text("\n".join(names) + "\n")
    return raw


def make(archive: Path, out: Path, split: str = "220/30", **options) -> Path:
    return tuberlin.prepare(archive, out, split, workers=1, **options)


def test_classes_go_to_their_split_and_counts_that_differ_are_noted(archive, tmp_path, capsys):
    folder = make(archive, tmp_path / "out")
    found = data.read_sketch_set(tmp_path / "out", "tuberlin")
    assert found.split_name == "220/30" and found.val.classes == UNSEEN
    assert len(rows(folder)) == 500 and "wrist-watch" in found.train.classes
    assert (folder / "val/sketch/bottle opener").is_dir()
    assert about(folder)["classes_without_80_sketches"] == dict.fromkeys(CLASSES, 1)
    assert about(folder)["absent_of_filelist"] == [] == about(folder)["ignored"]
    assert "250 classes have other than 80 sketches" in capsys.readouterr().out


def test_a_sketch_of_filelist_that_is_absent_is_noted(archive, tmp_path, capsys):
    with open(archive / "png/filelist.txt", "a") as file:
        file.write("ant/9999.png\n")
    folder = make(archive, tmp_path / "out")
    assert about(folder)["absent_of_filelist"] == ["ant/9999.png"]
    assert "1 sketches of" in capsys.readouterr().out


def test_a_class_of_80_is_not_noted(archive, tmp_path):
    for n in range(79):
        shutil.copy(tmp_path / "s.png", archive / f"png/ant/more {n}.png")
    assert "ant" not in about(make(archive, tmp_path / "out"))["classes_without_80_sketches"]


def test_photo_folders_may_be_spelled_otherwise(archive, tmp_path):
    photos = archive / "ImageResized"
    for name in ("hot-dog", "bear (animal)", "t-shirt", "wrist-watch"):
        (photos / name).rename(photos / name.replace("-", "_").replace("(", "").replace(")", ""))
    (photos / "ant").rename(photos / "Ant")
    photos.rename(archive / "ImageResized_ready")
    (archive / "png").rename(archive / "png_ready")
    folder = make(archive, tmp_path / "out")
    assert len(list((folder / "train/photo/bear (animal)").iterdir())) == 1
    assert (folder / "val/photo/ant").is_dir() and not (folder / "val/photo/Ant").exists()


def many_photos(archive: Path, tmp_path: Path, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        for n in range(count - 1):
            os.link(tmp_path / "p.jpg", archive / f"ImageResized/{name}/more_{n}.jpg")


def test_unseen_classes_with_few_photos_stay_out_of_220_30_400(archive, tmp_path, capsys):
    many_photos(archive, tmp_path, {"ant": 400, "bread": 399, "zebra": 2})
    folder = make(archive, tmp_path / "out", "220/30-400")
    found = data.read_sketch_set(tmp_path / "out", "tuberlin")
    assert found.val.classes == ("ant",) and len(found.train.classes) == 220
    assert len(found.val.photo) == 400 and len(found.val.sketch) == 1
    left = about(folder)["classes_left_out"]
    assert left["bread"] == 399 and len(left) == 29 and "zebra" not in left
    assert about(folder)["split"] == "220/30-400"
    assert "fewer than 400 photos stay out: banana (1)" in capsys.readouterr().out
    with pytest.raises(PreparationError, match="holds split 220/30-400, not 220/30"):
        make(archive, tmp_path / "out")


def test_220_30_400_needs_a_class_with_so_many(archive, tmp_path):
    many_photos(archive, tmp_path, {"ant": 7})
    with pytest.raises(PreparationError, match="the most is 7: take --split 220/30"):
        make(archive, tmp_path / "out", "220/30-400")


def test_svg_sketches_are_drawn(archive, tmp_path):
    folder = make(archive, tmp_path / "out", sketches="svg", size=64)
    with Image.open(folder / "val/sketch/ant/241.png") as image:
        assert (image.format, image.size, image.mode) == ("PNG", (64, 64), "L")
    assert about(folder)["drawn_by"] == svg.DRAWN_BY and about(folder)["size"] == 64
    assert len({r["sha256"] for r in rows(folder) if r["domain"] == "sketch"}) == 250
    data.read_sketch_set(tmp_path / "out", "tuberlin")
    with pytest.raises(PreparationError, match="size 64, not 1111"):
        make(archive, tmp_path / "out", sketches="svg")
    with pytest.raises(PreparationError, match="sketches svg, not png"):
        make(archive, tmp_path / "out")


def test_a_size_that_is_none_is_refused(archive, tmp_path):
    with pytest.raises(PreparationError, match="--size 0: choose 16 to 4096"):
        make(archive, tmp_path / "out", sketches="svg", size=0)


@pytest.mark.parametrize(("content", "told"), [
    ("", "empty"), ("<html>404</html>", ""), (LINE.format(5)[:90], ""),
    ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>', "draws nothing")])
def test_an_svg_that_cannot_be_drawn_is_named(archive, tmp_path, content, told):
    (archive / "svg/ant/1 (ü).svg").write_text(content)
    with pytest.raises(PreparationError, match=rf"1 files .*\n.*ant/1 \(ü\).png: .*{told}"):
        make(archive, tmp_path / "out", sketches="svg", size=32)
    folder = make(archive, tmp_path / "out", sketches="svg", size=32, allow_damaged=True)
    assert list(about(folder)["left_out"]) == ["val/sketch/ant/1 (ü).png"]


def test_a_stopped_preparation_draws_no_sketch_again(archive, tmp_path, monkeypatch):
    draw, drawn = svg.resvg_py.svg_to_bytes, []

    def drawing(**options) -> bytes:
        if len(drawn) == 100:
            raise KeyboardInterrupt
        drawn.append(options["svg_string"])
        return draw(**options)

    monkeypatch.setattr(svg.resvg_py, "svg_to_bytes", drawing)
    with pytest.raises(KeyboardInterrupt):
        make(archive, tmp_path / "out", sketches="svg", size=32)
    assert not (tmp_path / "out/tuberlin").exists()
    first, drawn[:] = drawn[:], ["that call"] * 101
    make(archive, tmp_path / "out", sketches="svg", size=32)
    assert len(drawn) == 101 + 150 and not set(first) & set(drawn)


def pack(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(folder.rglob("*")):
            packed.write(file, file.relative_to(folder.parent))


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_packed_archives_make_the_same_set(archive, tmp_path, kind):
    plain = make(archive, tmp_path / "plain", sketches=kind, size=32)
    packed = tmp_path / "packed"
    packed.mkdir()
    pack(archive / kind, packed / f"sketches_{kind}.zip")
    pack(archive / "ImageResized", packed / "ImageResized.zip")
    assert rows(make(packed, tmp_path / "out", sketches=kind, size=32)) == rows(plain)
    for file in packed.iterdir():
        file.unlink()
    make(packed, tmp_path / "out", sketches=kind, size=32)  # prepared: nothing is looked for


@pytest.mark.parametrize(("broken", "told"), [
    (lambda raw: shutil.rmtree(raw / "png/zebra"), "png: 249 classes, .*; absent: zebra"),
    (lambda raw: (raw / "ImageResized/zebrá").mkdir(), "251 classes, .*; too many: zebrá"),
    (lambda raw: (raw / "png/zebra/19921.png").unlink(), "png: 1 classes without .*: zebra"),
    (lambda raw: shutil.rmtree(raw / "ImageResized"),
     r"(?s)no ImageResized/<class>/ with the photos.*ImageResized\.zip \(always"),
    (lambda raw: (shutil.rmtree(raw / "png"), damage.text(raw / "sketches_png.zip")),
     "sketches_png.zip"),
])
def test_an_archive_that_is_not_one_is_told(archive, tmp_path, broken, told):
    broken(archive)
    with pytest.raises(PreparationError, match=told):
        make(archive, tmp_path / "out")
    assert not (tmp_path / "out/tuberlin").exists()


def test_damaged_and_odd_pictures_are_named(archive, tmp_path):
    for kind, write in damage.BROKEN.items():
        write(archive / f"ImageResized/ant/({kind}) ü.jpg")
    for kind, (write, _) in damage.ODD.items():
        write(archive / f"ImageResized/bread/{kind}.jpg")
    damage.text(archive / "ImageResized/bread/extra.txt")
    with pytest.raises(PreparationError, match="4 files cannot be used"):
        make(archive, tmp_path / "out")
    folder = make(archive, tmp_path / "out", allow_damaged=True)
    assert set(about(folder)["left_out"]) == {f"val/photo/ant/({kind}) ü.jpg"
                                              for kind in damage.BROKEN}
    for kind, (_, told) in damage.ODD.items():
        assert f"val/photo/bread/{kind}.jpg" in about(folder)["odd"][told]
    assert about(folder)["ignored"] == ["ImageResized/bread/extra.txt"]


def test_a_stopped_preparation_leaves_no_set(archive, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "_write_about", stop)
    with pytest.raises(KeyboardInterrupt):
        make(archive, tmp_path / "out")
    assert not (tmp_path / "out/tuberlin").exists()
    monkeypatch.undo()
    assert len(rows(make(archive, tmp_path / "out"))) == 500


@LISTS
def test_the_classes_are_those_of_the_published_lists():
    def names(file: str) -> list[str]:
        lines = (SAMPLE / "splits" / file).read_text().splitlines()
        return sorted(line.rsplit(" ", 1)[0] for line in lines)

    assert names("tuberlin_220_30/cname_cid_zero.txt") == list(UNSEEN)
    assert set(names("tuberlin_220_30/cname_cid.txt")) == set(CLASSES) - set(UNSEEN)
    whole = (SAMPLE / "splits/test_class_tuberlin30.txt").read_text().splitlines()
    assert sorted(whole) == list(UNSEEN) and len(CLASSES) == 250


@LISTS
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_published_lists_name_70_training_sketches_a_class(archive, tmp_path, kind):
    """The lists are real, the sketches made up: 80 of every class, numbered as the archive's."""
    names = {c: [] for c in CLASSES}
    for part in ("train", "zero"):
        file = SAMPLE / f"splits/tuberlin_220_30/png_ready_filelist_{part}.txt"
        for line in file.read_text().splitlines():
            path = Path(line.rsplit(" ", 1)[0])
            names[path.parent.name].append(int(path.stem))
    shutil.rmtree(archive / kind)
    for c, listed in names.items():
        (archive / kind / c).mkdir(parents=True)
        first = (min(listed) - 1) // 80 * 80 + 1
        for n in range(first, first + 80):
            (archive / f"{kind}/{c}/{n}.{kind}").write_text("")
    found, _ = tuberlin._found(archive, kind, tmp_path / "into", 1)
    lists = tuberlin.read_lists(SAMPLE / "splits/tuberlin_220_30")
    chosen, noted = tuberlin.only_listed(lists, found, tuberlin.LISTS.splits["220/30"])
    assert {len(chosen["sketch"][c]) for c in CLASSES if c not in UNSEEN} == {70}
    assert {len(chosen["sketch"][c]) for c in UNSEEN} == {80}
    assert noted["not_listed"] == {"train/sketch": 2200, "val/sketch": 0}
    assert noted["taken_whole"] == ["train/photo", "val/photo"]
    assert {Path(f).stem for f in chosen["sketch"]["ant"]} == set(map(str, names["ant"]))


@LISTS
def test_listed_sketches_that_are_absent_are_told(archive, tmp_path):
    with pytest.raises(PreparationError, match="files that .*tuberlin_220_30 lists are absent:\n"
                                               "(  png_ready/.*\n){50}  and "):
        make(archive, tmp_path / "out", lists=SAMPLE / "splits/tuberlin_220_30")


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_fetch_asks_for_what_the_sketches_need_and_not_for_a_prepared_set(archive, tmp_path, kind,
                                                                          monkeypatch):
    asked = []
    monkeypatch.setattr(sketch_sets, "fetch", lambda *what: asked.append(what))
    for _ in range(2):
        assert tuberlin.main(["--raw", str(archive), "--out", str(tmp_path), "--sketches", kind,
                              "--size", "32", "--workers", "1", "--fetch"]) == 0
    assert asked == [("tuberlin", archive, (f"sketches_{kind}.zip", "ImageResized.zip"))]


def test_the_command_takes_every_option(archive, tmp_path, capsys):
    assert tuberlin.main(["--raw", str(archive), "--out", str(tmp_path), "--sketches", "svg",
                          "--size", "48", "--name", "drawn", "--workers", "1"]) == 0
    assert "30 val/sketch" in capsys.readouterr().out
    assert about(tmp_path / "drawn")["size"] == 48


@pytest.mark.skipif(not (SAMPLE / "tuberlin_svg").is_dir(), reason="no ../shared/data here")
@pytest.mark.parametrize("size", [1111, 256])
def test_real_sketches_are_drawn_as_the_official_png_are(size):
    files = sorted((SAMPLE / "tuberlin_svg").glob("*/*.svg"))
    assert len(files) == 15
    for file in files:
        with Image.open(io.BytesIO(svg.drawn(file, size))) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (size, size), "L")
            grey = np.asarray(image)
        assert (grey == 255).mean() > 0.8 and {*grey[0], *grey[:, 0]} == {255}, "white paper"
        assert 0.002 < (grey < 128).mean() < 0.2 and grey.min() < 32, "ink"
        assert len(np.unique(grey)) > 12, "anti-aliased"


@pytest.mark.skipif(not (SAMPLE / "tuberlin_svg").is_dir(), reason="no ../shared/data here")
def test_real_sketches_go_through_the_preparation(archive, tmp_path):
    for file in (SAMPLE / "tuberlin_svg").glob("*/*.svg"):
        shutil.copy(file, archive / "svg" / file.parent.name)
    folder = make(archive, tmp_path / "out", sketches="svg", size=64)
    drawn = folder / "train/sketch/alarm clock/83.png"
    real = SAMPLE / "tuberlin_svg/alarm clock/83.svg"
    assert drawn.read_bytes() == svg.drawn(real, 64) and len(rows(folder)) >= 512
