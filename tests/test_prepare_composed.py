"""Preparing FashionIQ, CIRR and CIRCO: made-up archives in the official layouts, and the official
annotation files with one made-up picture under every name."""

import csv
import http.server
import json
import os
import shutil
import threading
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from checking import about, told_when_gone
from damage import BROKEN, ODD, plain_jpg, plain_png, truncated_jpg
from PIL import Image
from test_circo import make_circo
from test_composed import SIZES, edit, make_cirr, make_fashioniq, write

from data_prep import circo as circo_prep
from data_prep import cirr, fashioniq, listed, picture_urls, preparing
from data_prep.composed import found_in
from data_prep.preparing import PreparationError
from replication import circo, composed
from replication.circo import read_circo
from replication.composed import TYPES, read_composed
from replication.data import DatasetError

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "annotations"
MODULES = {"cirr": cirr, "fashioniq": fashioniq, "circo": circo_prep}
FOLDER = {"cirr": "cirr_dataset", "fashioniq": "fashionIQ_dataset", "circo": "circo_dataset"}
# A picture of each set, of which one query or more can do without, and the part that lists it.
ONE = {"cirr": "dev/val-0-img0.jpg", "fashioniq": "images/DV0.jpg",
       "circo": "unlabeled2017/000000581880.jpg"}
PART = {"cirr": "val", "fashioniq": "val dress", "circo": "gallery"}


def fill(folder: Path) -> None:
    """Whole pictures for the empty files of a made-up set."""
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in (".jpg", ".png"):
            (plain_png if file.suffix == ".png" else plain_jpg)(file)


def raw_cirr(raw: Path) -> Path:
    """As the three archives of NLVR2 and the repository of the annotations unpack."""
    make_cirr(raw)
    (raw / "images").mkdir()
    (raw / "train").rename(raw / "images/train")
    write(raw / "cirr/captions_ext/cap.ext.rc2.val.json", [])
    return raw


def raw_fashioniq(raw: Path) -> Path:
    """As the repository of the annotations and a folder of pictures; test has no targets."""
    make_fashioniq(raw)
    for own in TYPES:
        names = [f"{own[0]}x{i}".upper() for i in range(3)] + ["ALL"]
        write(raw / f"captions/cap.{own}.test.json", [{"candidate": n, "captions": ["a", "b"]}
                                                      for n in names[:2]])
        write(raw / f"image_splits/split.{own}.test.json", names)
        for name in names[:3]:
            (raw / f"images/{name}.jpg").touch()
    return raw


@pytest.fixture
def raws(tmp_path, monkeypatch):
    """name of a set -> its raw folder in small, and the counts of the small sets as the official
    ones."""
    monkeypatch.setattr(composed, "N_OFFICIAL", SIZES)
    monkeypatch.setattr(circo, "N_QUERIES", {"val": 3, "test": 4})
    monkeypatch.setattr(circo, "N_IMAGES", 60)
    make = {"cirr": raw_cirr, "fashioniq": raw_fashioniq, "circo": make_circo}

    def made(name: str) -> Path:
        raw = make[name](tmp_path / "raw")
        fill(raw)
        return raw

    return made


def rows(target: Path) -> dict[str, dict]:
    with open(target / "manifest.csv", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def read(name: str, root: Path, **options) -> list:
    """Every part of a set as its reader has it."""
    if name == "circo":
        return [read_circo(root, part, **options) for part in ("val", "test")]
    if name == "cirr":
        return [read_composed(root, name, part, **options) for part in ("train", "val", "test1")]
    return [read_composed(root, name, part, types=own, **options)
            for part in ("train", "val") for own in TYPES]


def zipped(archive: Path, folder: Path, inside: str = "") -> None:
    """Moves a folder into an archive, under `inside/`."""
    with zipfile.ZipFile(archive, "w") as content:
        for file in sorted(folder.rglob("*")):
            content.write(file, Path(inside, file.relative_to(folder)).as_posix())
    shutil.rmtree(folder)


# each of the three sets


@pytest.mark.parametrize(("name", "counts"), [
    ("cirr", {"annotations": 7, "train/images": 7, "val/images": 7, "test1/images": 7}),
    ("fashioniq", {"annotations": 18, "train/images": 12, "train+test/images": 1,
                   "val/images": 15, "test/images": 9}),
    ("circo", {"annotations": 3, "images": 60})])
def test_every_part_of_a_prepared_set_is_whole(raws, tmp_path, capsys, name, counts):
    raw = raws(name)
    target = MODULES[name].prepare(raw, tmp_path / "out")
    assert target == tmp_path / "out" / FOLDER[name]
    found = read(name, target)
    assert {one.kind for one in found} == {"full"} and not any(one.left_out for one in found)
    assert all(str(one) in capsys.readouterr().out for one in found[:1])
    assert about(target)["counts"] == counts and about(target)["missing"] == {}
    listed = {file.relative_to(target).as_posix() for file in target.rglob("*") if file.is_file()}
    assert listed == {*rows(target), "dataset.json", "manifest.csv"}
    assert (target / ONE[name]).samefile(raw / ONE[name])
    assert read(name, tmp_path / "out")[0].manifest == found[0].manifest  # where users look


@pytest.mark.parametrize("name", MODULES)
def test_the_check_reads_every_part_and_names_what_is_gone(raws, tmp_path, name):
    target = MODULES[name].prepare(raws(name), tmp_path / "out")
    told_when_gone(name, tmp_path / "out", target / ONE[name])


@pytest.mark.parametrize("name", MODULES)
def test_a_second_call_leaves_a_set_as_it_is(raws, tmp_path, capsys, name):
    raw = raws(name)
    target = MODULES[name].prepare(raw, tmp_path / "out")
    first = about(target), target.stat().st_mtime_ns
    shutil.rmtree(raw)  # nothing is looked for
    assert MODULES[name].main(["--raw", str(raw), "--out", str(tmp_path / "out")]) == 0
    assert (about(target), target.stat().st_mtime_ns) == first
    assert f"{target} is there already" in capsys.readouterr().out


@pytest.mark.parametrize("name", MODULES)
def test_a_folder_of_another_making_is_left(raws, tmp_path, capsys, name):
    (tmp_path / "out/own").mkdir(parents=True)
    assert MODULES[name].main(["--raw", str(raws(name)), "--out", str(tmp_path / "out"),
                               "--name", "own"]) == 1
    assert "was not made by this command" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out/own"]


@pytest.mark.parametrize("name", MODULES)
def test_a_killed_preparation_leaves_no_set_and_goes_on(raws, tmp_path, monkeypatch, name):
    raw, made, places = raws(name), preparing._made, []
    whole = MODULES[name].prepare(raw, tmp_path / "whole", workers=1)

    def killed(half, item):
        places.append(item.place)
        if len(places) == 12:
            raise KeyboardInterrupt
        return made(half, item)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(preparing, "_made", killed)
        MODULES[name].prepare(raw, tmp_path / "out", workers=1)
    half = tmp_path / "out" / f".{FOLDER[name]}.half-made"
    assert (half / places[0]).exists() and not (tmp_path / "out" / FOLDER[name]).exists()
    with pytest.raises(DatasetError):
        read(name, tmp_path / "out")
    target = MODULES[name].prepare(raw, tmp_path / "out", workers=1)
    assert about(target) == about(whole) and not half.exists()


@pytest.mark.parametrize("name", MODULES)
def test_missing_pictures_are_listed_by_part_and_left_out_where_allowed(raws, tmp_path, capsys,
                                                                        name):
    raw = raws(name)
    (raw / ONE[name]).unlink()
    arguments = ["--raw", str(raw), "--out", str(tmp_path / "out")]
    assert MODULES[name].main(arguments) == 1
    told, stem = capsys.readouterr().err, Path(ONE[name]).stem
    listed = {"cirr": 7, "fashioniq": 5, "circo": 60}[name]
    assert f"  {PART[name]}: 1 of {listed}: {stem}\n" in told and "--allow-missing" in told
    assert not (tmp_path / "out" / FOLDER[name]).exists()
    assert MODULES[name].main([*arguments, "--allow-missing"]) == 0
    assert "1 of {} listed pictures are missing".format(
        {"cirr": 21, "fashioniq": 37, "circo": 60}[name]) in capsys.readouterr().out
    target = tmp_path / "out" / FOLDER[name]
    assert about(target)["missing"] == {PART[name]: [stem]}
    found = read(name, target, allow_missing=True)
    assert "subset" in {one.kind for one in found}
    assert MODULES[name].main([*arguments, "--allow-missing"]) == 0
    assert MODULES[name].main(arguments) == 1
    assert "lacks 1 of the listed pictures" in capsys.readouterr().err


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("name", MODULES)
def test_a_broken_picture_is_named(raws, tmp_path, name, kind):
    raw = raws(name)
    BROKEN[kind](raw / ONE[name])
    with pytest.raises(PreparationError, match=f"1 files cannot be used:\n  {ONE[name]}: "):
        MODULES[name].prepare(raw, tmp_path / "out")
    assert not (tmp_path / "out" / FOLDER[name]).exists()
    target = MODULES[name].prepare(raw, tmp_path / "out", allow_damaged=True)
    assert list(about(target)["left_out"]) == [ONE[name]] and ONE[name] not in rows(target)
    assert "subset" in {one.kind for one in read(name, target, allow_missing=True)}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", MODULES)
def test_an_odd_picture_is_taken_as_it_is_and_named(raws, tmp_path, name, kind):
    make, told = ODD[kind]
    raw = raws(name)
    make(raw / ONE[name])
    target = MODULES[name].prepare(raw, tmp_path / "out")
    assert ONE[name] in about(target)["odd"][told]
    assert (target / ONE[name]).read_bytes() == (raw / ONE[name]).read_bytes()


@pytest.mark.parametrize("name", MODULES)
def test_names_with_blanks_umlauts_and_brackets(raws, tmp_path, name):
    raw = raws(name)
    old, new = Path(ONE[name]).stem, "Grün (1) ß"
    for file in raw.rglob("*.json"):
        file.write_text(file.read_text().replace(old, new), encoding="utf-8")
    (raw / ONE[name]).rename((raw / ONE[name]).with_stem(new))
    target = MODULES[name].prepare(raw, tmp_path / "out")
    assert Path(ONE[name]).with_stem(new).as_posix() in rows(target)
    assert {one.kind for one in read(name, target)} == {"full"}


@pytest.mark.parametrize("name", MODULES)
def test_what_no_split_names_stays_out_and_is_counted(raws, tmp_path, name):
    raw = raws(name)
    before = MODULES[name].prepare(raw, tmp_path / "before")
    folder = (raw / ONE[name]).parent
    for extra in ("dev-9-0-img1.png", "dev-9-0-img1.jpg", "9 (ä).jpg"):
        truncated_jpg(folder / extra)  # nobody looks at it
    for stranger in ("Thumbs.db", ".DS_Store", "._dev-9-0-img1.png"):
        (folder / stranger).write_text("x")
    target = MODULES[name].prepare(raw, tmp_path / "out")
    assert about(before)["unlisted"] == 0 and about(target)["unlisted"] == 2
    assert about(target)["several_files"] == []
    assert about(target)["ignored"] == sorted(f"{folder.name}/{stranger}" for stranger in
                                              ("Thumbs.db", ".DS_Store", "._dev-9-0-img1.png"))
    assert rows(target) == rows(before)


def pack(name: str, raw: Path) -> None:
    """Puts a raw folder into the official archives."""
    if name == "cirr":
        (raw / "cirr").rename(raw / "all")
        zipped(raw / "CIRR-cirr_dataset.zip", raw / "all", "CIRR-cirr_dataset")
        zipped(raw / "train_img.zip", raw / "images", "images")
        for part in ("dev", "test1"):
            zipped(raw / f"{part}_img.zip", raw / part, part)
    elif name == "fashioniq":
        (raw / "all").mkdir()
        for part in ("captions", "image_splits"):
            (raw / part).rename(raw / "all" / part)
        zipped(raw / "fashion-iq-master.zip", raw / "all", "fashion-iq-master")
        zipped(raw / "images.zip", raw / "images")
    else:
        (raw / "info").mkdir()
        info = "image_info_unlabeled2017"
        (raw / f"annotations/{info}.json").rename(raw / f"info/{info}.json")
        zipped(raw / f"{info}.zip", raw / "info", "annotations")
        (raw / "annotations").rename(raw / "rest")
        zipped(raw / "CIRCO-main.zip", raw / "rest", "CIRCO-main/annotations")
        zipped(raw / "unlabeled2017.zip", raw / "unlabeled2017", "unlabeled2017")


@pytest.mark.parametrize("name", MODULES)
def test_official_archives_make_the_same_set(raws, tmp_path, name):
    raw = raws(name)
    loose = MODULES[name].prepare(raw, tmp_path / "loose")
    pack(name, raw)
    assert all(file.suffix == ".zip" for file in raw.iterdir())
    target = MODULES[name].prepare(raw, tmp_path / "out")
    assert about(target) == about(loose) and rows(target) == rows(loose)


@pytest.mark.parametrize(("name", "archive"), [
    ("cirr", "dev_img.zip"), ("fashioniq", "images.zip"), ("circo", "unlabeled2017.zip")])
def test_an_archive_that_is_not_one_is_named(raws, tmp_path, name, archive):
    raw = raws(name)
    shutil.rmtree((raw / ONE[name]).parent)
    (raw / archive).write_text("<html>log in first</html>")
    with pytest.raises(PreparationError, match=archive):
        MODULES[name].prepare(raw, tmp_path / "out")
    assert not (tmp_path / "out" / FOLDER[name]).exists()


@pytest.mark.parametrize("name", MODULES)
def test_without_anything_the_error_says_what_to_get(tmp_path, capsys, name):
    (tmp_path / "raw").mkdir()
    assert MODULES[name].main(["--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    first = {"cirr": "cirr/captions/cap.rc2.train.json", "circo": "annotations/val.json",
             "fashioniq": "captions/cap.dress.train.json"}[name]
    assert f"{tmp_path / 'raw'} has no {first}, no " in told


@pytest.mark.parametrize(("name", "file", "content", "told"), [
    ("cirr", "cirr/image_splits/split.rc2.val.json", '{"val-0', "split.rc2.val.json is not whole"),
    ("cirr", "cirr/image_splits/split.rc2.val.json", ["val-0"], "does not map image names"),
    ("cirr", "cirr/image_splits/split.rc2.val.json", {"val-0": ""}, "does not map image names"),
    ("cirr", "cirr/image_splits/split.rc2.val.json", {"a": "./b/a.png", "c": "./dev/d.png"},
     "2 paths are not in train, dev or test1, or not of their image: b/a, dev/d"),
    ("cirr", "cirr/captions/cap.rc2.test1.json", "", "cap.rc2.test1.json is not whole"),
    ("fashioniq", "image_splits/split.shirt.test.json", {"B1": 1}, "is not a list: is it"),
    ("fashioniq", "image_splits/split.shirt.test.json", ["../B1"], "is not a list of image names"),
    ("circo", "annotations/image_info_unlabeled2017.json", {"images": [{"id": 1}]},
     "does not list images by file_name"),
    ("cirr", "cirr/captions/cap.rc2.val.json", {"a": []}, "cap.rc2.val.json is not a list"),
    ("fashioniq", "captions/cap.dress.test.json", 5, "cap.dress.test.json is not a list"),
    ("circo", "annotations/val.json", {"a": []}, "val.json is not a list"),
    ("circo", "annotations/test.json", "[{", "test.json is not whole")])
def test_an_annotation_file_that_is_none_is_named(raws, tmp_path, name, file, content, told):
    raw = raws(name)
    write(raw / file, content)
    with pytest.raises(PreparationError, match=told):
        MODULES[name].prepare(raw, tmp_path / "out")


@pytest.mark.parametrize(("name", "file"), [
    ("cirr", "cirr/captions/cap.rc2.val.json"), ("fashioniq", "captions/cap.dress.val.json"),
    ("circo", "annotations/val.json")])
def test_a_set_with_other_counts_than_the_official_is_not_made(raws, tmp_path, capsys, name, file):
    raw = raws(name)
    edit(raw / file, lambda c: c.pop())
    assert MODULES[name].main(["--raw", str(raw), "--out", str(tmp_path / "out")]) == 1
    assert "queries and" in capsys.readouterr().err
    assert not (tmp_path / "out" / FOLDER[name]).exists()


@pytest.mark.parametrize("name", ["cirr", "fashioniq"])
def test_a_part_without_a_whole_query_is_no_subset(raws, tmp_path, name):
    raw = raws(name)
    shutil.move(raw / ONE[name], raw / "one.jpg")
    for file in (raw / ONE[name]).parent.iterdir():
        file.unlink()
    shutil.move(raw / "one.jpg", raw / ONE[name])
    with pytest.raises(PreparationError, match=f"{PART[name]} cannot be used: .*not one has all of "
                                               "its images.*--parts prepare"):
        MODULES[name].prepare(raw, tmp_path / "out", allow_missing=True)
    assert not (tmp_path / "out" / FOLDER[name]).exists()


def test_dataset_json_of_circo_counts_what_the_files_list(raws, tmp_path):
    assert about(circo_prep.prepare(raws("circo"), tmp_path))["listed"] == {
        "gallery": {"images": 60}, "val": {"queries": 3}, "test": {"queries": 4}}


# CIRR


def as_authors_say(raw: Path) -> None:
    for folder in ("images/train", "dev", "test1"):
        (raw / folder).rename((raw / "cirr/img_raw").joinpath(Path(folder).name))


def without_subfolders(raw: Path) -> None:
    for file in (raw / "images/train/3").iterdir():
        file.rename(raw / "images/train" / file.name)


@pytest.mark.parametrize("change", [
    lambda raw: ((raw / "cirr/img_raw").mkdir(), as_authors_say(raw)), without_subfolders,
    lambda raw: (raw / "images/train").rename(raw / "train"),
    lambda raw: [(raw / "cirr" / part).rename(raw / part)
                 for part in ("captions", "captions_ext", "image_splits")]],
    ids=["img_raw", "flat", "train", "annotations"])
def test_cirr_is_found_in_other_layouts(raws, tmp_path, change):
    raw = raws("cirr")
    before = cirr.prepare(raw, tmp_path / "before")
    change(raw)
    assert rows(cirr.prepare(raw, tmp_path / "out")) == rows(before)


def test_parts_of_cirr(raws, tmp_path, capsys):
    raw = raws("cirr")
    (raw / "cirr/captions/cap.rc2.train.json").unlink()  # the parts asked for need none
    arguments = ["--raw", str(raw), "--out", str(tmp_path / "out")]
    assert cirr.main(arguments) == 1
    assert "no cirr/captions/cap.rc2.train.json" in capsys.readouterr().err
    assert cirr.main([*arguments, "--parts", "test1,val"]) == 0
    target = tmp_path / "out/cirr_dataset"
    assert about(target)["parts"] == ["val", "test1"] and about(target)["unlisted"] == 7
    assert about(target)["counts"] == {"annotations": 5, "val/images": 7, "test1/images": 7}
    assert about(target)["listed"]["val"] == {"images": 7, "queries": 3}
    assert "4,184" in about(target)["val_pairs"]
    assert cirr.main([*arguments, "--parts", "val"]) == 1
    assert "holds parts ['val', 'test1'], not ['val']" in capsys.readouterr().err
    assert cirr.main([*arguments, "--parts", "dev", "--name", "other"]) == 1
    assert "no part 'dev': choose of train, val, test1" in capsys.readouterr().err


def one_picture(folder: Path, places: list[str]) -> None:
    """One made-up picture under all of these names, as links."""
    picture = folder / "one.png"
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 2)).save(picture)
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        os.link(picture, folder / place)


@pytest.mark.skipif(not (REAL / "cirr").is_dir(), reason="no ../shared/data here")
def test_the_official_annotations_of_cirr(tmp_path):
    splits = {part: json.loads((REAL / f"cirr/image_splits/split.rc2.{part}.json").read_text())
              for part in ("train", "val", "test1")}
    assert sum(map(len, splits.values())) == len({**splits["train"], **splits["val"],
                                                  **splits["test1"]}) == 21_551
    places = [*splits["val"].values(), *splits["test1"].values()]
    one_picture(tmp_path / "raw", [*places, "dev/dev-0-0-img0.png"])
    (tmp_path / "raw/cirr").symlink_to(REAL / "cirr")
    target = cirr.prepare(tmp_path / "raw", tmp_path / "out", parts=["val,test1"])
    val, test1 = (read_composed(tmp_path / "out", "cirr", part) for part in ("val", "test1"))
    assert (len(val), len(test1)) == (4_181, 4_148) and {val.kind, test1.kind} == {"full"}
    assert about(target)["counts"] == {"annotations": 6, "val/images": 2_297,
                                       "test1/images": 2_315}
    assert about(target)["unlisted"] == 1 and {Path(place).as_posix() for place in places} == {
        row["path"] for row in rows(target).values() if row["domain"] == "images"}


# FashionIQ


@pytest.mark.parametrize("folder", ["resized_image", "resized_images", "images/dress", "dress",
                                    "fashionIQ_dataset/images"])
def test_fashioniq_pictures_are_found_in_other_folders(raws, tmp_path, folder):
    raw = raws("fashioniq")
    before = fashioniq.prepare(raw, tmp_path / "before")
    (raw / "images").rename(raw / "pictures")
    (raw / folder).parent.mkdir(exist_ok=True)
    (raw / "pictures").rename(raw / folder)
    assert rows(fashioniq.prepare(raw, tmp_path / "out")) == rows(before)


def test_a_folder_of_pictures_can_be_named(raws, tmp_path, capsys):
    raw = raws("fashioniq")
    before = fashioniq.prepare(raw, tmp_path / "before")
    (raw / "images").rename(tmp_path / "elsewhere")
    arguments = ["--raw", str(raw), "--out", str(tmp_path / "out"), "--images"]
    assert fashioniq.main([*arguments, str(tmp_path / "nowhere")]) == 1
    assert "nowhere is no folder" in capsys.readouterr().err
    assert fashioniq.main([*arguments, str(tmp_path / "elsewhere")]) == 0
    assert rows(tmp_path / "out/fashionIQ_dataset") == rows(before)


def test_a_name_of_several_types_and_parts_is_one_picture(raws, tmp_path):
    target = fashioniq.prepare(raws("fashioniq"), tmp_path)
    row = rows(target)["images/ALL.jpg"]
    assert (row["split"], row["class"]) == ("train+test", "dress+shirt+toptee")
    row = rows(target)["images/SV4.png"]
    assert (row["split"], row["class"], row["domain"]) == ("val", "shirt", "images")
    assert about(target)["listed"]["test dress"] == {"images": 4, "queries": 2}


def test_of_several_files_of_a_name_counts_the_one_that_is_read(raws, tmp_path):
    raw = raws("fashioniq")
    plain_png(raw / "images/DV0.png")
    (raw / "image_url/broken_links").mkdir(parents=True)
    plain_png(raw / "image_url/broken_links/DV3.png")  # only where there is no other
    (raw / "images/DV1.png").rename(raw / "image_url/broken_links/DV1.png")
    target = fashioniq.prepare(raw, tmp_path / "out")
    assert about(target)["several_files"] == ["DV0", "DV3"]
    assert {"images/DV0.png", "images/DV1.png", "images/DV3.jpg"} <= rows(target).keys()
    assert {"images/DV0.jpg", "images/DV3.png"}.isdisjoint(rows(target))
    assert about(target)["names"]["pictures from broken_links"] == 1


def test_types_and_parts_of_fashioniq(raws, tmp_path, capsys):
    raw = raws("fashioniq")
    target = fashioniq.prepare(raw, tmp_path, types=["dress,toptee"], parts=["val", "train"])
    assert about(target)["types"] == ["dress", "toptee"]
    assert about(target)["parts"] == ["train", "val"] and about(target)["counts"] == {
        "annotations": 8, "train/images": 9, "val/images": 10}
    assert about(target)["unlisted"] == 4 + 5 + 9
    with pytest.raises(PreparationError, match="no type 'hat': choose of dress, shirt, toptee"):
        fashioniq.prepare(raw, tmp_path, types=["hat"])
    with pytest.raises(PreparationError, match=r"holds types \['dress', 'toptee'\]"):
        fashioniq.prepare(raw, tmp_path, parts=["val,train"])


def url_lists(raw: Path, urls: dict[str, str]) -> None:
    """Names with their URLs, spread over the three lists, as the official ones are written."""
    for i, own in enumerate(TYPES):
        lines = [f"{name} \t {url}" for name, url in list(urls.items())[i::3]]
        write(raw / f"image_url/asin2url.{own}.txt", "\n".join([*lines, ""]))


def test_the_report_counts_what_a_plain_loop_counts(raws, tmp_path, capsys):
    raw = raws("fashioniq")
    splits = [json.loads(file.read_text()) for file in (raw / "image_splits").iterdir()]
    every = sorted({name for names in splits for name in names})
    url_lists(raw, {name: f"http://x.invalid/{name}.jpg" for name in [*every[::2], "B9", "B8"]})
    for name in [own for own in every if own[-1] in "24" or own[1] == "X"]:  # of no query's
        next((raw / "images").glob(f"{name}.*")).unlink()
    plain_jpg(raw / "images/B9.jpg")
    lists = "".join(file.read_text() for file in (raw / "image_url").iterdir())
    with_url = {line.split()[0] for line in lists.splitlines()}
    there = {file.stem for file in (raw / "images").iterdir()}
    count = Counter()
    for name in every:
        count["url"] += name not in with_url
        count["only url"] += name in with_url and name not in there
        count["neither"] += name not in with_url and name not in there
        count["picture"] += name not in there
    assert fashioniq.main(["--raw", str(raw), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().out
    wanted = {"names in the split files": sum(map(len, splits)), "different names": len(every),
              "names in no URL list": count["url"],
              "names with a URL and without a picture": count["only url"],
              "names with neither": count["neither"], "names without a picture": count["picture"],
              "pictures from broken_links": 0, "pictures of no name": 1}
    assert all(wanted[what] for what in list(wanted)[:6])
    assert told.splitlines()[:8] == [f"  {what}: {n}" for what, n in wanted.items()]
    target = fashioniq.prepare(raw, tmp_path / "out", allow_missing=True)
    assert about(target)["names"] == wanted


def test_url_lists_that_are_none_are_named(raws, tmp_path):
    raw = raws("fashioniq")
    url_lists(raw, {"DV1": "http://x.invalid/1.jpg", "SV1": "http://x.invalid/2.jpg"})
    write(raw / "image_url/asin2url.shirt.txt", "SV1\thttp://x.invalid/2.jpg\n\n<html>\n")
    with pytest.raises(PreparationError, match="asin2url.shirt.txt, line 3 is not a name, a tab"):
        fashioniq.prepare(raw, tmp_path / "out")
    (raw / "image_url/asin2url.shirt.txt").unlink()
    with pytest.raises(PreparationError, match="has no asin2url.shirt.txt, packed"):
        fashioniq.prepare(raw, tmp_path / "out")


@pytest.mark.skipif(not (REAL / "fashioniq").is_dir(), reason="no ../shared/data here")
def test_the_official_annotations_of_fashioniq(tmp_path, capsys):
    names = json.loads((REAL / "fashioniq/image_splits/split.dress.val.json").read_text())
    one_picture(tmp_path / "raw/images", [f"{name}.png" for name in names])
    for folder in ("captions", "image_splits"):
        (tmp_path / "raw" / folder).symlink_to(REAL / "fashioniq" / folder)
    with pytest.raises(PreparationError, match="  train shirt: 19,03[0-6] of 19,036: B"):
        fashioniq.prepare(tmp_path / "raw", tmp_path / "out")
    told = capsys.readouterr().out
    assert "names in the split files: 77,683\n" in told and "different names: 74,381\n" in told
    target = fashioniq.prepare(tmp_path / "raw", tmp_path / "out", types=["dress"], parts=["val"])
    found = read_composed(target, "fashioniq", "val", types="dress")
    assert (len(found), len(found.images), found.kind) == (2_017, 3_817, "full")
    assert about(target)["counts"] == {"annotations": 2, "val/images": 3_817}
    assert about(target)["unlisted"] == 1  # the picture that all the others are


# FashionIQ's pictures from their URLs


class Shop(http.server.BaseHTTPRequestHandler):
    """Answers /<name> as ANSWERS says; 404 else."""

    answers: dict[str, list[tuple[int, bytes]]] = {}
    asked: list[str] = []

    def do_GET(self):
        name = self.path.strip("/")
        self.asked.append(name)
        answers = self.answers.get(name) or [(404, b"gone")]
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + 100 * (name == "torn")))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A server on this machine; (its address, its answers, what it was asked)."""
    monkeypatch.setattr(picture_urls, "RETRY", picture_urls.RETRY.new(backoff_factor=0.0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(Shop, "answers", {})
    monkeypatch.setattr(Shop, "asked", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Shop.answers, Shop.asked
    server.shutdown()
    thread.join()
    server.server_close()


def content(make, tmp_path: Path) -> bytes:
    make(tmp_path / "one")
    return (tmp_path / "one").read_bytes()


def test_pictures_come_from_their_urls_and_failures_are_told(shop, tmp_path):
    address, answers, asked = shop
    jpg, png = (content(make, tmp_path) for make in (plain_jpg, plain_png))
    tiny, gif = tmp_path / "tiny.png", tmp_path / "one.gif"
    Image.new("L", (1, 1)).save(tiny)
    Image.new("L", (40, 40)).save(gif)
    answers |= {"good": [(200, jpg)], "inside": [(200, png)], "busy": [(503, b""), (200, jpg)],
                "html": [(200, b"<html>sorry</html>")], "tiny": [(200, tiny.read_bytes())],
                "gif": [(200, gif.read_bytes())], "cut": [(200, jpg[:200])], "torn": [(200, jpg)],
                "down": [(500, b"")]}
    names = [*answers, "gone"]
    urls = {name: [f"{address}/{name}"] for name in names}
    urls |= {"two": [f"{address}/gone", f"{address}/good"], "odd": ["http://127.0.0.1:9/x"]}
    folder = tmp_path / "images"
    folder.mkdir()
    plain_jpg(folder / "there.jpg")
    urls["there"] = [f"{address}/there"]
    failed = picture_urls.download(urls, folder)
    made = {file.name for file in folder.iterdir()}
    assert made == {"good.jpg", "inside.png", "busy.jpg", "two.jpg", "there.jpg"}
    assert (folder / "busy.jpg").read_bytes() == jpg and asked.count("busy") == 2
    assert asked.count("gone") == 2 and asked.count("down") == 4 and "there" not in asked
    assert failed.keys() == {"html", "tiny", "gif", "cut", "torn", "down", "gone", "odd"}
    assert failed["gone"] == f"{address}/gone: HTTP 404"
    assert "no whole picture" in failed["html"] and "no whole picture" in failed["cut"]
    assert "1 x 1 pixels" in failed["tiny"] and "a GIF" in failed["gif"]
    asked.clear()
    assert picture_urls.download(urls, folder).keys() == failed.keys()
    assert set(asked) == {"html", "tiny", "gif", "cut", "torn", "down", "gone"}


def test_an_answer_without_an_end_is_left(shop, tmp_path, monkeypatch):
    address, answers, _ = shop
    monkeypatch.setattr(picture_urls, "MOST_BYTES", 100)
    answers["good"] = [(200, content(plain_jpg, tmp_path))]
    failed = picture_urls.download({"good": [f"{address}/good"]}, tmp_path)
    assert "more than" in failed["good"] and not list(tmp_path.glob("*good*"))


def test_missing_pictures_of_fashioniq_are_downloaded(shop, raws, tmp_path, capsys):
    address, answers, asked = shop
    raw = raws("fashioniq")
    arguments = ["--raw", str(raw), "--out", str(tmp_path / "out"), "--download-pictures"]
    for name in ("DV0.jpg", "DV1.png", "SV1.png"):
        (raw / "images" / name).unlink()
    assert fashioniq.main(arguments) == 1
    assert "has no image_url/asin2url.dress.txt, no " in capsys.readouterr().err
    url_lists(raw, {"DV0": f"{address}/DV0", "DV1": f"{address}/DV1", "SV1": f"{address}/SV1",
                    "DV2": f"{address}/DV2"})
    answers |= {name: [(200, content(plain_jpg, tmp_path))] for name in ("DV0", "DV1")}
    assert fashioniq.main(arguments) == 1
    told = capsys.readouterr()
    assert "2 pictures downloaded into" in told.out and "1 failed" in told.out
    assert "  val shirt: 1 of 5: SV1\n" in told.err
    report = json.loads((raw / "fashioniq_downloads.json").read_text())
    assert report == {"asked": 3, "failed": {"SV1": f"{address}/SV1: HTTP 404"}}
    answers["SV1"] = [(200, content(plain_png, tmp_path))]
    asked.clear()
    assert fashioniq.main(arguments) == 0 and asked == ["SV1"]
    target = tmp_path / "out/fashionIQ_dataset"
    assert {"images/DV1.jpg", "images/SV1.png"} <= rows(target).keys()


# looking for pictures


def test_a_folder_in_another_and_a_link_that_goes_round_count_once(tmp_path):
    plain_png(tmp_path / "a.png")
    (tmp_path / "in/side").mkdir(parents=True)
    plain_png(tmp_path / "in/side/b.png")
    (tmp_path / "in/round").symlink_to(tmp_path)
    found = found_in([tmp_path, tmp_path / "in", tmp_path / "in/side"])
    assert sorted(found.file) == ["a", "b"] and found.several == [] and found.strangers == []


@pytest.mark.parametrize("name", MODULES)
def test_fetch_comes_first_but_not_for_a_set_that_is_there(raws, tmp_path, monkeypatch, name):
    raw, asked = raws(name), []
    monkeypatch.setattr(listed, "fetch", lambda *given: asked.append(given))
    call = ["--raw", str(raw), "--out", str(tmp_path / "out"), "--fetch"]
    assert MODULES[name].main(call) == 0 and asked == [(name, raw, ())]
    assert MODULES[name].main(call) == 0 and len(asked) == 1


def test_a_name_that_leads_out_of_the_folder_is_not_fetched(tmp_path):
    (tmp_path / "in").mkdir()
    failed = picture_urls.download({"../out": ["http://127.0.0.1:9/a.jpg"]}, tmp_path / "in")
    assert failed == {"../out": "its name leads out of the folder"}
    assert [f.name for f in tmp_path.iterdir()] == ["in"]
