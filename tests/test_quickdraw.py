"""Preparing QuickDraw-Extended: made-up files in the official formats, and the real sample."""

import contextlib
import csv
import io
import json
import os
import random
import shutil
import struct
import zipfile
from pathlib import Path

import damage
import numpy as np
import pytest
from checking import about
from PIL import Image

from benchmarks.quickdraw_drawing import by_pillow, by_resvg, difference
from data_prep import preparing, quickdraw, sketch_sets, sources, strokes
from data_prep.class_folders import canonical
from data_prep.drawings import DrawingError, choose, drawing_at, file_format, offsets
from data_prep.fetch import how_to_get
from data_prep.preparing import PreparationError
from data_prep.quickdraw import LISTS, Drawn, prepare
from replication import data

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_sample = pytest.mark.skipif(not (SAMPLE / "quickdraw").is_dir(),
                                  reason="no ../shared/data here")
# Official categories whose names are not the class with blanks for underscores.
OFFICIAL = {"crocodilian": "crocodile", "motorcycle": "motorbike", "teddy_bear": "teddy-bear",
            "eiffel tower": "The Eiffel Tower", "hot-air_balloon": "hot air balloon"}
TWO = Drawn(size=64, per_class=2)
CROSS = [([0, 255], [0, 100]), ([255, 0], [0, 100])]
SUFFIX = {"simplified": ".ndjson", "raw": ".ndjson", "binary": ".bin"}


def category(class_: str) -> str:
    return OFFICIAL.get(class_, class_.replace("_", " "))


def scribble(seed: int) -> list:
    """Three strokes within 0 to 255 that touch all four sides, and a dot."""
    draw = random.Random(seed)
    made = [([draw.randrange(256) for _ in range(9)], [draw.randrange(256) for _ in range(9)])
            for _ in range(2)]
    return [*made, ([0, 255], [0, 255]), ([128], [128])]


def line(key: int, word: str, drawing: list, recognized: bool = True) -> bytes:
    record = {"word": word, "countrycode": "DE", "timestamp": "2017-03-01 20:41:36.70725 UTC",
              "recognized": recognized, "key_id": str(key), "drawing": drawing}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def as_raw(drawing: list) -> list:
    """The same strokes as a large screen took them: shifted, in fractions, with times."""
    return [([2.5 * x - 300.25 for x in xs], [2.5 * y + 41.5 for y in ys],
             list(range(0, 17 * len(xs), 17))) for xs, ys in drawing]


def as_binary(key: int, drawing: list, recognized: bool = True) -> bytes:
    made = struct.pack("<Q2sBIH", key, b"DE", recognized, 1488400896, len(drawing))
    for xs, ys in drawing:
        made += struct.pack(f"<H{len(xs)}B{len(ys)}B", len(xs), *xs, *ys)
    return made


def record(form: str, key: int, word: str, drawing: list, recognized: bool = True) -> bytes:
    if form == "binary":
        return as_binary(key, drawing, recognized)
    return line(key, word, as_raw(drawing) if form == "raw" else drawing, recognized)


def write_drawings(folder: Path, form: str = "simplified", n: int = 3, prefix: str = "") -> None:
    """A file of n drawings for each of the 110 classes, under its official name."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, class_ in enumerate(LISTS.classes):
        content = b"".join(record(form, 1000 * index + k, category(class_),
                                  scribble(1000 * index + k)) for k in range(n))
        (folder / f"{prefix}{category(class_)}{SUFFIX[form]}").write_bytes(content)


def write_pictures(folder: Path, name: str, suffix: str) -> None:
    one = folder.with_suffix(suffix)
    folder.mkdir(parents=True)
    (damage.plain_jpg if suffix == ".jpg" else damage.plain_png)(one)
    for class_ in LISTS.classes:
        (folder / class_).mkdir()
        os.link(one, folder / class_ / f"{name}{suffix}")


@pytest.fixture
def raw(tmp_path) -> Path:
    """Simplified drawings, three a class, and a photo of each class."""
    write_drawings(tmp_path / "raw")
    write_pictures(tmp_path / "raw/QuickDraw_images_final", "Foto (ü) 1", ".jpg")
    return tmp_path / "raw"


def made(raw: Path, out: Path, **options) -> Path:
    return prepare(raw, out, **{"drawn": TWO, "workers": 1, **options})


def rows(target: Path) -> list[dict]:
    return list(csv.DictReader((target / "manifest.csv").read_text().splitlines()))


def pixels(png: bytes | Path) -> np.ndarray:
    """Ink of a picture, 0 to 1."""
    with Image.open(io.BytesIO(png) if isinstance(png, bytes) else png) as image:
        assert image.mode == "L" and image.format == "PNG"
        return 1 - np.asarray(image, np.float64) / 255


def change(raw: Path, class_: str, content: bytes) -> Path:
    file = raw / f"{category(class_)}.ndjson"
    file.write_bytes(content)
    return file


# ------------------------------------------------------------------------------------ the picture


def box(ink: np.ndarray) -> tuple[int, int, int, int]:
    rows_, columns = np.nonzero(ink.max(axis=1))[0], np.nonzero(ink.max(axis=0))[0]
    return columns[0], rows_[0], ink.shape[1] - 1 - columns[-1], ink.shape[0] - 1 - rows_[-1]


@pytest.mark.parametrize(("size", "width", "margin"), [(256, 3, 8), (224, 6, 0), (64, 1, 12)])
def test_the_longer_side_fills_the_picture_up_to_the_margin_and_all_is_centred(size, width,
                                                                               margin):
    left, top, right, bottom = box(pixels(strokes.rendered(CROSS, size, width, margin)))
    assert left in (margin, margin - 1) and right in (margin, margin - 1)
    high = (size - 2 * margin - width) * 100 / 255 + width  # the aspect ratio is kept
    assert abs(top - bottom) <= 1 and abs(top - (size - high) / 2) <= 1


def test_strokes_are_anti_aliased_black_on_white():
    ink = pixels(strokes.rendered(scribble(1), 128))
    values = np.unique(ink)
    assert values[0] == 0 and values[-1] == 1 and len(values) > 40
    assert ink[0].max() == ink[-1].max() == ink[:, 0].max() == ink[:, -1].max() == 0


@pytest.mark.parametrize("size", [96, 384])
@pytest.mark.parametrize("width", [1.0, 2.5, 5.0])
def test_ink_is_the_length_of_the_stroke_times_its_width(size, width):
    ink = pixels(strokes.rendered([([0, 90], [0, 40])], size, width, 8)).sum()
    length = (size - 16 - width) * np.hypot(90, 40) / 90
    assert ink == pytest.approx(length * width + np.pi * width**2 / 4, rel=0.02)


def test_caps_and_joins_are_round():
    ink = pixels(strokes.rendered([([0, 0, 100], [100, 0, 0])], 128, 30, 5))
    corner = ink[:40, :40]  # the join is at 20, 20
    y, x = np.mgrid[:40, :40] + 0.5
    outside = (np.hypot(x - 20, y - 20) > 16) & (x < 20) & (y < 20)
    assert corner[outside].max() < 0.2 and corner[20, 8] > 0.9
    end = ink[88:, :40]  # the cap is around 20, 108
    assert end[20 + 13, 20] > 0.9 and end[20 + 13, 8] < 0.1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_other_renderers_draw_the_same(seed):
    drawing = scribble(seed)
    ours = strokes.rendered(drawing)
    assert difference(ours, by_resvg(drawing)) < 1 and difference(ours, by_pillow(drawing)) < 2
    assert difference(ours, by_resvg(scribble(seed + 1))) > 10  # of 255
    turned = [(xs, [255 - y for y in ys]) for xs, ys in drawing]
    assert difference(ours, by_resvg(turned)) > 10


@pytest.mark.parametrize("point", [([7], [9]), ([3, 3, 3], [4, 4, 4])])
def test_a_stroke_of_one_point_is_a_round_dot_in_the_middle(point):
    ink = pixels(strokes.rendered([point], 64, 12, 4))
    assert ink.sum() == pytest.approx(np.pi * 36, rel=0.05)
    assert box(ink)[0] == box(ink)[1] and ink[32, 32] == 1
    with_line = pixels(strokes.rendered([([0, 100], [0, 0]), ([50], [50])], 64, 4, 4))
    assert with_line[40:, 28:36].sum() == pytest.approx(np.pi * 4, rel=0.1)


def test_the_same_drawing_looks_alike_in_the_three_formats(tmp_path):
    pictures = {}
    for form, suffix in SUFFIX.items():
        file = tmp_path / f"{form}{suffix}"
        file.write_bytes(b"".join(record(form, k, "cat", scribble(k)) for k in range(5)))
        assert file_format(file) == form
        drawn = [drawing_at(file, offset) for offset in offsets(file)]
        assert [d.key_id for d in drawn] == list("01234") and all(d.recognized for d in drawn)
        pictures[form] = np.stack([pixels(strokes.rendered(d.strokes)) for d in drawn])
    assert np.array_equal(pictures["simplified"], pictures["binary"])
    assert np.abs(pictures["simplified"] - pictures["raw"]).max() < 0.01
    assert np.abs(pictures["raw"][0] - pictures["raw"][1]).mean() > 0.02


@pytest.mark.parametrize(("options", "told"), [
    ({"size": 8}, "size 8: choose 16 to 4096"), ({"size": 5000}, "size 5000"),
    ({"width": 0}, "stroke 0"), ({"margin": -1}, "margin -1"), ({"margin": 127}, "margin 127"),
    ({"strokes": [([], [])]}, "without a point")])
def test_a_picture_without_room_is_refused(options, told):
    with pytest.raises(ValueError, match=told):
        strokes.rendered(**{"strokes": CROSS, **options})


# ---------------------------------------------------------------------------------------- the set


def test_classes_go_to_their_split_in_the_published_spelling(raw, tmp_path):
    target = made(raw, tmp_path / "out")
    found = data.read_sketch_set(tmp_path / "out", "quickdraw")
    assert found.split_name == "80/30"
    assert set(found.val.classes) == set(LISTS.splits["80/30"].unseen)
    assert set(found.train.classes) == set(LISTS.splits["80/30"].seen) and len(
        found.train.classes) == 80
    assert len(found.val.sketch) == 60 and len(found.val.photo) == 30
    assert {r["instance"] for r in rows(target) if r["class"] == "crocodilian"} == {
        f"{1000 * LISTS.classes.index('crocodilian') + k}" for k in range(2)} | {"Foto (ü) 1"}
    assert (target / "val/sketch/fire_hydrant").is_dir()
    told = about(target)
    assert told["counts"] == {"train/photo": 80, "train/sketch": 160, "val/photo": 30,
                              "val/sketch": 60}
    assert {k: told[k] for k in ("name", "split", "format", "size", "stroke", "margin", "per_class",
                                 "recognized_only", "seed", "sketches_only")} == {
        "name": "quickdraw", "split": "80/30", "format": "simplified", "size": 64, "stroke": 3.0,
        "margin": 8.0, "per_class": 2, "recognized_only": False, "seed": None,
        "sketches_only": False}
    assert told["drawn_by"].startswith("matplotlib ") and told["other_categories"] == 0
    assert told["published_sketches"] is False and told["ignored"] == []


@pytest.mark.parametrize(("form", "place", "prefix"), [
    ("raw", "", ""), ("raw", "raw", ""), ("raw", "full/raw", "full_raw_"), ("binary", "binary", ""),
    ("binary", "quickdraw_dataset/full/binary", ""), ("simplified", "simplified", ""),
    ("simplified", "full/simplified", "full%2Fsimplified%2F")])
def test_every_format_is_found_where_it_may_lie(tmp_path, form, place, prefix):
    write_drawings(tmp_path / "raw" / place, form, 1, prefix)
    target = made(tmp_path / "raw", tmp_path / "out", sketches_only=True,
                  drawn=TWO._replace(per_class=1))
    key = 1000 * LISTS.classes.index("apple")
    expected = strokes.rendered(scribble(key), 64)
    assert np.abs(pixels(target / f"train/sketch/apple/{key}.png") - pixels(expected)).max() < 0.01
    assert about(target)["format"] == form and len(rows(target)) == 110


def test_the_first_of_a_file_are_taken_and_the_rest_is_not_read(tmp_path):
    file = tmp_path / "cat.ndjson"
    file.write_bytes(b"".join(line(k, "cat", CROSS) for k in (7, 3, 9)))
    start = file.stat().st_size
    with open(file, "r+b") as content:
        content.truncate(2**43)  # 8 TB of nothing, which the disk does not hold
        content.seek(2**43)
        content.write(b"\n" + line(1, "cat", CROSS))
    chosen = choose(file, "cat", 3)
    assert list(chosen.taken) == ["7", "3", "9"] and max(chosen.taken.values()) < start
    assert chosen.unusable == [] and chosen.twice == []


def test_the_first_of_a_binary_file_are_taken_and_the_rest_is_not_read(tmp_path):
    file = tmp_path / "cat.bin"
    file.write_bytes(b"".join(as_binary(k, CROSS) for k in (7, 3, 9)))
    os.truncate(file, 2**43)
    assert list(choose(file, "cat", 3).taken) == ["7", "3", "9"]


@pytest.mark.parametrize("form", ["simplified", "binary"])
def test_a_seed_takes_a_random_choice_of_the_whole_file(tmp_path, form):
    file = tmp_path / f"cat{SUFFIX[form]}"
    file.write_bytes(b"".join(record(form, k, "cat", CROSS) for k in range(200)))
    keys = [set(choose(file, "cat", 20, seed=seed).taken) for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2] and len(keys[0]) == 20
    assert max(map(int, keys[0] | keys[2])) > 150
    assert list(choose(file, "cat", 20).taken) == [str(k) for k in range(20)]
    assert set(choose(file, "cat", 200, seed=3).taken) == {str(k) for k in range(200)}


@pytest.mark.parametrize("form", ["simplified", "raw", "binary"])
def test_recognized_only_leaves_the_others_out(tmp_path, form):
    file = tmp_path / f"cat{SUFFIX[form]}"
    file.write_bytes(b"".join(record(form, k, "cat", CROSS, k % 2 == 1) for k in range(6)))
    assert list(choose(file, "cat", 3, recognized_only=True).taken) == ["1", "3", "5"]
    assert list(choose(file, "cat", 3).taken) == ["0", "1", "2"]


def test_the_set_holds_the_choice_that_was_asked_for(raw, tmp_path):
    file = change(raw, "cat", b"".join(line(k, "cat", CROSS, k % 2 == 1) for k in range(60)))
    target = made(raw, tmp_path / "out", drawn=TWO._replace(seed=8, recognized_only=True))
    keys = {f.stem for f in (target / "train/sketch/cat").iterdir()}
    assert keys == set(choose(file, "cat", 2, seed=8, recognized_only=True).taken)
    assert keys != set(choose(file, "cat", 2, seed=8).taken) and keys != {"1", "3"}


def test_the_pictures_do_not_depend_on_the_processes(raw, tmp_path):
    one = made(raw, tmp_path / "one")
    two = made(raw, tmp_path / "two", workers=2)
    assert (one / "manifest.csv").read_bytes() == (two / "manifest.csv").read_bytes()


def test_a_second_call_leaves_the_set_and_other_settings_are_refused(raw, tmp_path, capsys):
    target = made(raw, tmp_path / "out")
    before = (target / "manifest.csv").stat().st_mtime_ns
    shutil.rmtree(raw)
    for form in (None, "simplified"):
        assert made(raw, tmp_path / "out", form=form) == target
        assert "is there already" in capsys.readouterr().out
    assert (target / "manifest.csv").stat().st_mtime_ns == before
    for options, told in (({"drawn": TWO._replace(size=65)}, "holds size 64, not 65"),
                          ({"drawn": TWO._replace(stroke=2)}, "holds stroke 3.0, not 2"),
                          ({"drawn": TWO._replace(seed=1)}, "holds seed None, not 1"),
                          ({"drawn": TWO._replace(per_class=1)}, "holds per_class 2, not 1"),
                          ({"form": "raw"}, "holds format simplified, not raw"),
                          ({"sketches_only": True}, "holds sketches_only False, not True")):
        with pytest.raises(PreparationError, match=told):
            made(raw, tmp_path / "out", **options)


def test_a_killed_preparation_leaves_no_set_and_goes_on(raw, tmp_path, monkeypatch):
    whole = made(raw, tmp_path / "whole")
    drawn, real = [], strokes.rendered

    def counted(*arguments):
        drawn.append(arguments)
        if len(drawn) == 100:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(strokes, "rendered", counted)
    with pytest.raises(KeyboardInterrupt):
        made(raw, tmp_path / "out")
    assert not (tmp_path / "out/quickdraw").exists()
    target = made(raw, tmp_path / "out")
    assert len(drawn) == 220 + 1  # the picture that was being drawn is drawn again
    assert (target / "manifest.csv").read_bytes() == (whole / "manifest.csv").read_bytes()
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["quickdraw"]


def test_other_categories_are_counted_and_those_of_the_split_have_to_be_there(raw, tmp_path):
    for name in ("zigzag", "The Mona Lisa"):
        (raw / f"{name}.ndjson").write_bytes(b"not even read")
    assert about(made(raw, tmp_path / "out"))["other_categories"] == 2
    for name in ("motorbike", "sea turtle"):
        (raw / f"{name}.ndjson").unlink()
    with pytest.raises(PreparationError, match="108 classes, expected 110; absent: motorbike, "
                                               "sea turtle") as told:
        made(raw, tmp_path / "out2")
    assert str(told.value).endswith(how_to_get("quickdraw"))


def test_without_photos_only_the_drawings_are_prepared_on_request(raw, tmp_path):
    shutil.rmtree(raw / "QuickDraw_images_final")
    with pytest.raises(PreparationError, match="no QuickDraw_images_final/<class>/.*; "
                                               "--sketches-only does without"):
        made(raw, tmp_path / "out")
    target = made(raw, tmp_path / "out", sketches_only=True)
    assert about(target)["sketches_only"] is True and not (target / "val/photo").exists()
    assert about(target)["counts"] == {"train/sketch": 160, "val/sketch": 60}


def test_what_is_missing_of_drawings_and_photos_is_one_message(raw, tmp_path):
    (raw / "cat.ndjson").unlink()
    shutil.rmtree(raw / "QuickDraw_images_final/cow")
    with pytest.raises(PreparationError) as told:
        made(raw, tmp_path / "out")
    assert "absent: cat" in str(told.value) and "absent: cow" in str(told.value)
    with pytest.raises(PreparationError, match="holds no drawings"):
        made(tmp_path / "nowhere", tmp_path / "out")


def test_two_formats_have_to_be_chosen_from(raw, tmp_path):
    write_drawings(raw / "binary", "binary")
    write_drawings(raw / "raw", "raw")
    with pytest.raises(PreparationError, match=r"simplified \(110 of 110 classes\), raw \(110 of "
                                               r"110 classes\), binary \(110 .* with --format"):
        made(raw, tmp_path / "out")
    for form in SUFFIX:
        assert about(made(raw, tmp_path / "out", form=form, name=form))["format"] == form
    shutil.copy(raw / "cat.ndjson", raw / "full_simplified_cat.ndjson")
    with pytest.raises(PreparationError, match="two files of a class") as told:
        made(raw, tmp_path / "out2", form="simplified")
    assert "full_simplified_cat.ndjson" in str(told.value)


@pytest.mark.parametrize(("options", "asked"), [
    ({}, ["simplified", "QuickDraw_images_final.zip"]),
    ({"form": "binary", "sketches_only": True}, ["binary"]),
    ({"form": "rendered", "drawn": None}, ["QuickDraw_sketches_final.zip",
                                           "QuickDraw_images_final.zip"])])
def test_what_is_downloaded_is_what_is_prepared_and_known_to_the_sources(
        raw, tmp_path, monkeypatch, options, asked):
    got = []
    monkeypatch.setattr(sketch_sets, "fetch", lambda name, raw, only: got.extend([name, *only]))
    with contextlib.suppress(PreparationError):
        made(raw, tmp_path / "out", download=True, **options)
    assert got == ["quickdraw", *asked]
    known = {file.name for file in sources.source("quickdraw").files}
    assert all(name in known or any(k.startswith(f"{name}/") for k in known) for name in asked)


def test_the_downloads_have_the_official_names():
    files = [f for f in sources.source("quickdraw").files if f.classes]
    spelling = {c: files[0].spelling.get(c) or LISTS.aliases.get(c) or c.replace("_", " ")
                for c in LISTS.classes}
    assert len(files) == 3 and spelling == {c: category(c) for c in LISTS.classes}


# ------------------------------------------------------------------------------------- the damage


DAMAGED = {
    "torn": (line(1, "cat", CROSS)[:-20], "it is torn"),
    "no_json": (b"<html>404 Not Found</html>\n", "no JSON"),
    "list": (b"[1, 2]\n", "not as documented"),
    "nested": (b"[" * 100_000 + b"\n", "no JSON"),
    "other_word": (line(1, "dog", CROSS), "its word is 'dog', not 'cat'"),
    "no_strokes": (line(1, "cat", []), "no points"),
    "no_points": (line(1, "cat", [([], []), ([], [])]), "no points"),
    "no_number": (line(1, "cat", [([0, float("nan")], [0, 1])]), "no number or out of range"),
    "endless": (line(1, "cat", [([0, float("inf")], [0, 1])]), "no number or out of range"),
    "text": (line(1, "cat", [("ab", "cd")]), "not as documented"),
    "unequal": (line(1, "cat", [([0, 1, 2], [0, 1])]), "more x than y"),
    "one_row": (line(1, "cat", [([0, 1],)]), "not as documented"),
    "path": (line(1, "cat", CROSS).replace(b'"1"', b'"../../1"'), "is no number"),
    "recognized": (line(1, "cat", CROSS).replace(b"true", b'"yes"'), "recognized is 'yes'"),
    "no_key": (line(1, "cat", CROSS).replace(b"key_id", b"key"), "not as documented"),
}


@pytest.mark.parametrize("kind", sorted(DAMAGED))
def test_a_drawing_that_is_none_is_told_or_left_out_knowingly(raw, tmp_path, kind):
    bad, told = DAMAGED[kind]
    good = [line(k, "cat", CROSS) for k in (11, 12)]
    change(raw, "cat", b"".join([good[0], good[1], bad] if kind == "torn" else
                                [good[0], bad, good[1]]))
    change(raw, "cow", line(21, "cow", []) + line(22, "cow", CROSS) + line(23, "cow", CROSS))
    with pytest.raises(PreparationError, match="2 drawings that cannot be used") as error:
        made(raw, tmp_path / "out")
    assert told in str(error.value) and "cat.ndjson" in str(error.value)
    assert "cow.ndjson at byte 0: no points" in str(error.value)
    assert not (tmp_path / "out/quickdraw").exists()
    target = made(raw, tmp_path / "out", allow_damaged=True)
    assert sorted(f.name for f in (target / "train/sketch/cat").iterdir()) == ["11.png", "12.png"]
    assert sorted(f.name for f in (target / "val/sketch/cow").iterdir()) == ["22.png", "23.png"]
    assert len(about(target)["unusable"]) == 2 and told in " ".join(about(target)["unusable"])


@pytest.mark.parametrize("cut", [1, 5, 20, 30])
def test_a_torn_binary_file_is_told_where_it_is_read_to_its_end(tmp_path, cut):
    file = tmp_path / "cat.bin"
    file.write_bytes((as_binary(1, scribble(1)) + as_binary(2, scribble(2)))[:-cut])
    chosen = choose(file, "cat", 2)
    assert list(chosen.taken) == ["1"] and "it is torn" in chosen.unusable[0]


def test_a_file_of_other_content_is_told_without_reading_all_of_it(raw, tmp_path):
    change(raw, "cat", b"".join(line(k, "dog", CROSS) for k in range(500)))
    change(raw, "cow", b"x\n" * 500)
    (raw / "bat.ndjson").write_bytes(b"")
    with pytest.raises(PreparationError, match="2 files of drawings cannot be used") as told:
        made(raw, tmp_path / "out")
    assert "cow.ndjson: no Quick, Draw! file (no JSON" in str(told.value)
    assert "bat.ndjson: no Quick, Draw! file (empty file)" in str(told.value)
    chosen = choose(raw / "cat.ndjson", "cat", 2)
    assert len(chosen.unusable) == 21 and not chosen.taken
    with pytest.raises(DrawingError, match="no Quick, Draw! file"):
        file_format(raw / "cow.ndjson")


def test_many_damaged_drawings_are_left_out_as_well_where_that_is_allowed(raw, tmp_path):
    change(raw, "cat", line(1, "cat", CROSS) + b"x\n" * 30 + line(2, "cat", CROSS))
    with pytest.raises(PreparationError, match="21 drawings that cannot be used") as told:
        made(raw, tmp_path / "out")
    assert "fewer drawings" not in str(told.value)  # the file was not read to its end
    target = made(raw, tmp_path / "out", allow_damaged=True)
    assert len(about(target)["unusable"]) == 30
    assert (target / "train/sketch/cat/2.png").exists()


def test_files_with_too_few_drawings_are_all_told(raw, tmp_path):
    for class_ in ("cat", "crocodilian"):
        change(raw, class_, line(1, category(class_), CROSS))
    with pytest.raises(PreparationError, match="2 files with fewer drawings") as told:
        made(raw, tmp_path / "out")
    assert "cat.ndjson: 1 of 2" in str(told.value)
    assert "crocodile.ndjson: 1 of 2" in str(told.value)


def test_a_key_that_comes_again_is_told_and_taken_once_a_class(raw, tmp_path, capsys):
    change(raw, "cat", b"".join(line(10**9 + k, "cat", CROSS) for k in (1, 1, 2)))
    change(raw, "cow", b"".join(line(10**9 + k, "cow", CROSS) for k in (2, 5, 6)))
    target = made(raw, tmp_path / "out")
    assert about(target)["duplicates"] == ["1000000001 (cat, cat)", "1000000002 (cat, cow)"]
    told = "note: 2 key_ids are there more than once, as 1000000001 (cat, cat)"
    assert told in capsys.readouterr().out
    assert sorted(f.stem[-1] for f in (target / "train/sketch/cat").iterdir()) == ["1", "2"]
    assert sorted(f.stem[-1] for f in (target / "val/sketch/cow").iterdir()) == ["2", "5"]


@pytest.mark.parametrize("kind", sorted(damage.BROKEN))
def test_a_damaged_photo_is_named(raw, tmp_path, kind):
    photo = raw / "QuickDraw_images_final/cat/kaputt (1).jpg"
    damage.BROKEN[kind](photo)
    with pytest.raises(PreparationError, match="1 files cannot be used") as told:
        made(raw, tmp_path / "out")
    assert "train/photo/cat/kaputt (1).jpg" in str(told.value)
    target = made(raw, tmp_path / "out", allow_damaged=True)
    assert list(about(target)["left_out"]) == ["train/photo/cat/kaputt (1).jpg"]


@pytest.mark.parametrize("kind", sorted(damage.ODD))
def test_an_odd_photo_is_taken_and_told(raw, tmp_path, kind):
    write, told = damage.ODD[kind]
    write(raw / "QuickDraw_images_final/cat/odd.jpg")
    target = made(raw, tmp_path / "out")
    assert "train/photo/cat/odd.jpg" in about(target)["odd"][told]


def test_files_beside_the_photos_are_named_and_stay_out(raw, tmp_path):
    for name in ("s.sh", ".DS_Store"):
        (raw / "QuickDraw_images_final/cactus" / name).write_text("x")
    target = made(raw, tmp_path / "out")
    assert about(target)["ignored"] == ["QuickDraw_images_final/cactus/.DS_Store",
                                        "QuickDraw_images_final/cactus/s.sh"]
    (raw / "QuickDraw_images_final/dragon").mkdir()
    with pytest.raises(PreparationError, match="111 classes, expected 110; too many: dragon"):
        made(raw, tmp_path / "out2")


# --------------------------------------------------------------------- sketches rendered by others


@pytest.mark.parametrize("packed", [False, True])
def test_rendered_sketches_are_taken_as_they_are(tmp_path, packed):
    raw = tmp_path / "raw"
    write_pictures(raw / "QuickDraw_sketches_final", "5344373355053056", ".png")
    write_pictures(raw / "QuickDraw_images_final", "1", ".jpg")
    (raw / "QuickDraw_images_final/eiffel tower").rename(raw / "QuickDraw_images_final/"
                                                         "effiel_tower")
    if packed:
        with zipfile.ZipFile(raw / "QuickDraw_sketches_final.zip", "w") as archive:
            for file in sorted((raw / "QuickDraw_sketches_final").rglob("*.png")):
                archive.write(file, file.relative_to(raw))
        shutil.rmtree(raw / "QuickDraw_sketches_final")
    target = made(raw, tmp_path / "out", drawn=None)
    assert about(target)["format"] == "rendered" and "size" not in about(target)
    assert about(target)["published_sketches"] is True
    assert about(target)["counts"]["val/sketch"] == 30
    assert (target / "train/photo/eiffel tower/1.jpg").exists()
    plain = raw.joinpath("QuickDraw_sketches_final.png").read_bytes()
    assert (target / "train/sketch/axe/5344373355053056.png").read_bytes() == plain
    assert made(raw, tmp_path / "out", drawn=None) == target
    with pytest.raises(PreparationError, match="--size, --per-class cannot change sketches"):
        made(raw, tmp_path / "out")
    with pytest.raises(PreparationError, match="--size, --per-class cannot change sketches"):
        made(raw, tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_rendered_sketches_beside_drawings_have_to_be_chosen_from(raw, tmp_path):
    (raw / "QuickDraw_sketches_final.zip").write_bytes(b"not opened")
    with pytest.raises(PreparationError, match="classes\\), rendered: choose one with --format"):
        made(raw, tmp_path / "out")
    assert about(made(raw, tmp_path / "out", form="simplified"))["format"] == "simplified"


# ---------------------------------------------------------------------------------------- the rest


def test_the_command_makes_the_set_and_says_what_is_wrong(raw, tmp_path, capsys):
    arguments = ["--raw", str(raw), "--out", str(tmp_path / "out"), "--size", "32", "--margin", "2",
                 "--stroke", "1.5", "--seed", "4", "--recognized-only", "--workers", "1",
                 "--name", "small"]
    assert quickdraw.main([*arguments, "--per-class", "9"]) == 1
    assert "cat.ndjson: 3 of 9" in capsys.readouterr().err
    assert quickdraw.main([*arguments, "--per-class", "1"]) == 0
    assert "small: 80 train/photo, 80 train/sketch" in capsys.readouterr().out
    told = about(tmp_path / "out/small")
    assert (told["size"], told["margin"], told["stroke"], told["seed"], told["per_class"],
            told["recognized_only"], told["name"]) == (32, 2, 1.5, 4, 1, True, "quickdraw")
    for wrong, message in ((["--per-class", "0"], "--per-class 0: choose 1 or more"),
                           (["--size", "9"], "size 9: choose 16 to 4096 pixels")):
        assert quickdraw.main([*arguments, *wrong]) == 1
        assert message in capsys.readouterr().err


def test_the_lists_are_80_and_30_classes_and_three_have_another_category():
    split = LISTS.splits["80/30"]
    assert (len(split.seen), len(split.unseen), len(LISTS.classes)) == (80, 30, 110)
    assert LISTS.aliases == {c: w for c, w in OFFICIAL.items() if canonical(c) != canonical(w)}


@needs_sample
def test_the_lists_are_the_published_ones():
    for part, name in (("seen", "cname_cid.txt"), ("unseen", "cname_cid_zero.txt")):
        lines = (SAMPLE / "splits/quickdraw" / name).read_text().splitlines()
        assert {row.rsplit(" ", 1)[0] for row in lines} == set(
            getattr(LISTS.splits["80/30"], part))


@needs_sample
def test_every_drawing_of_the_real_sample_is_read_and_drawn():
    files = sorted((SAMPLE / "quickdraw").glob("*.ndjson"))
    assert len(files) == 344 and {file_format(f) for f in files} == {"simplified"}
    for file in files:
        chosen = choose(file, file.stem, 25)
        assert len(chosen.taken) == 25 and not chosen.unusable and not chosen.twice
    for file in files[::20]:
        for offset in offsets(file):
            ink = pixels(strokes.picture(file, offset, 128, 2, 4))
            sides = box(ink)
            assert sides[0] in (3, 4) and sides[2] in (3, 4) or sides[1] in (3, 4) and (
                sides[3] in (3, 4)), file
            assert abs(sides[0] - sides[2]) <= 1 and abs(sides[1] - sides[3]) <= 1


@needs_sample
def test_the_real_sample_makes_the_set_in_three_formats(tmp_path):
    write_pictures(tmp_path / "photos/QuickDraw_images_final", "1", ".jpg")
    sets, keys = {}, {}
    for form, suffix in SUFFIX.items():
        raw = tmp_path / form
        shutil.copytree(tmp_path / "photos", raw)
        for file in (SAMPLE / "quickdraw").glob("*.ndjson"):
            drawn = [json.loads(text) for text in file.read_text().splitlines()[:3]]
            (raw / f"{file.stem}{suffix}").write_bytes(b"".join(
                record(form, int(d["key_id"]), d["word"], d["drawing"], d["recognized"])
                for d in drawn))
        sets[form] = made(raw, tmp_path / "out" / form, drawn=Drawn(per_class=3))
        assert about(sets[form])["other_categories"] == 234
        keys[form] = {r["path"] for r in rows(sets[form])}
    assert keys["simplified"] == keys["raw"] == keys["binary"] and len(keys["raw"]) == 440
    assert (sets["simplified"] / "manifest.csv").read_bytes() == (
        sets["binary"] / "manifest.csv").read_bytes()
    for place in sorted(keys["raw"])[::9]:
        if "/sketch/" in place:
            assert np.abs(pixels(sets["raw"] / place)
                          - pixels(sets["simplified"] / place)).max() < 0.02, place
    assert preparing.is_prepared(sets["raw"], {"format": "raw", "per_class": 3, "size": 256})
