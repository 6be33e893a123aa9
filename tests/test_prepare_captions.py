"""Preparing COCO, Flickr30K and Flickr8k: made-up archives in the official layouts, real lists."""

import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import damage
import numpy as np
import pytest
from checking import about, told_when_gone

from data_prep import captions, coco, flickr8k, flickr30k, listed
from data_prep.preparing import PreparationError
from data_prep.sources import source
from replication import captioned
from replication.captioned import read_captioned

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL_COCO, REAL_FLICKR8K = SAMPLE / "annotations" / "coco", SAMPLE / "flickr8k"
SPLITS = {"train": [1, 2, 3], "restval": [4, 5], "dev": [7, 6], "test": [11, 8, 10, 9]}
THREE = {part: SPLITS[part] for part in ("train", "dev", "test")}
SIZES = {name: {part: len(own) for part, own in SPLITS.items()}
         for name in ("coco", "flickr30k", "flickr8k")}
SETS = {"coco": coco, "flickr30k": flickr30k, "flickr8k": flickr8k}
PLACE = {"coco": "images/val2014", "flickr30k": "images", "flickr8k": "images"}
DEFECT = "2258277193_586949ec62.jpg.1"
AN_ARCHIVE = {"coco": "val2014.zip", "flickr30k": "flickr30k-images.tar.gz",
              "flickr8k": "Flickr8k_Dataset.zip"}


# made-up sets: image i has captions 10 i to 10 i + 4, image 10 a sixth; 12 and 13 are in no split


def texts_of(image: int) -> list[str]:
    return [f" Image {image},  caption {k} ." for k in range(6 if image == 10 else 5)]


def file_of(name: str, image: int) -> str:
    if name == "coco":
        return f"COCO_{'train' if image < 4 else 'val'}2014_{image:012d}.jpg"
    return {1: "Bär (groß) 1.jpg"}.get(image, f"{image}.jpg")


def write(file: Path, content) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_text(text, encoding="utf-8")
    return file


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    write(file, content)


def draw(folder: Path, name: str, images) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        damage.plain_jpg(folder / file_of(name, image))


def karpathy(file: Path, name: str, splits=SPLITS) -> Path:
    rows = [{"filename": file_of(name, i), "split": "val" if part == "dev" else part,
             "sentences": [{"raw": text, "tokens": []} for text in texts_of(i)]}
            for part, images in splits.items() for i in images]
    return write(file, {"images": rows, "dataset": name})


def save_ids(folder: Path, part: str, images) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"coco_{part}_ids.npy", np.array([10 * i + k for i in images
                                                       for k in range(5)]))


def make_coco(raw: Path) -> None:
    for year, images in (("train2014", range(1, 4)), ("val2014", range(4, 12))):
        rows = [{"id": 10 * i + k, "image_id": i, "caption": text} for i in images
                for k, text in enumerate(texts_of(i))]
        files = [{"id": i, "file_name": file_of("coco", i)} for i in images]
        whole = {"info": {}, "images": files, "licenses": [], "annotations": rows[::-1]}
        write(raw / f"annotations/captions_{year}.json", whole)
        for kind in ("instances", "person_keypoints"):
            write(raw / f"annotations/{kind}_{year}.json", {"annotations": []})
        draw(raw / year, "coco", images)
    for part, images in SPLITS.items():
        save_ids(raw / "data/coco/annotations", part, images)


def make_flickr30k(raw: Path) -> None:
    karpathy(raw / "dataset_flickr30k.json", "flickr30k", THREE)
    write(raw / "results_20130124.token", "1.jpg#0\tImage 1 .\n")
    draw(raw / "flickr30k-images", "flickr30k", [i for own in THREE.values() for i in own] + [12])


def make_flickr8k(raw: Path) -> None:
    lines = [f"{file_of('flickr8k', i)}#{k}\t{text}\n" for i in range(1, 14)
             for k, text in enumerate(texts_of(i))]
    lines += [f"{DEFECT}#{k}\tA picture that no archive has .\n" for k in range(5)]
    write(raw / "Flickr8k_text/Flickr8k.token.txt", "".join(lines))
    write(raw / "Flickr8k_text/readme.txt", "about")
    for part, images in THREE.items():
        write(raw / f"Flickr8k_text/Flickr_8k.{part}Images.txt",
              "".join(file_of("flickr8k", i) + "\n" for i in images))
    draw(raw / "Flicker8k_Dataset", "flickr8k", [i for own in THREE.values() for i in own] + [12])


MAKERS = {"coco": make_coco, "flickr30k": make_flickr30k, "flickr8k": make_flickr8k}


# the same folders as the official archives pack them


def zipped(archive: Path, files: dict[str, Path]) -> None:
    with zipfile.ZipFile(archive, "w") as content:
        for name, file in files.items():
            content.write(file, name)


def tarred(archive: Path, files: dict[str, Path]) -> None:
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as content:
        for name, file in files.items():
            content.add(file, name)


def below(raw: Path, folder: str, flat: bool = False) -> dict[str, Path]:
    files = [f for f in sorted((raw / folder).rglob("*")) if f.is_file()]
    return {f.name if flat else f.relative_to(raw).as_posix(): f for f in files}


def pack(name: str, raw: Path, packed: Path) -> Path:
    packed.mkdir()
    if name == "coco":
        for year in ("train2014", "val2014"):
            zipped(packed / f"{year}.zip", below(raw, year))
        zipped(packed / "annotations_trainval2014.zip", below(raw, "annotations"))
        tarred(packed / "data.tar", below(raw, "data"))
    elif name == "flickr30k":
        tarred(packed / "flickr30k-images.tar.gz", below(raw, "flickr30k-images"))
        other = karpathy(raw / "other.json", "coco")
        zipped(packed / "caption_datasets.zip", {
            "dataset_coco.json": other, "dataset_flickr30k.json": raw / "dataset_flickr30k.json"})
    else:
        ghosts = {f"__MACOSX/Flicker8k_Dataset/._{n}.jpg": raw / "Flickr8k_text/readme.txt"
                  for n in range(3)}
        zipped(packed / "Flickr8k_Dataset.zip", below(raw, "Flicker8k_Dataset") | ghosts)
        zipped(packed / "Flickr8k_text.zip", below(raw, "Flickr8k_text", flat=True) | {
            "__MACOSX/._Flickr8k.token.txt": raw / "Flickr8k_text/readme.txt"})
    return packed


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Makes the unpacked archives of a set by name, whose official parts are as small."""
    monkeypatch.setattr(captioned, "N_IMAGES", SIZES)

    def make(name: str) -> Path:
        MAKERS[name](tmp_path / "raw")
        return tmp_path / "raw"
    return make


def manifest(target: Path) -> list[list[str]]:
    with open(target / "manifest.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def all_texts(root: Path, name: str) -> dict[str, tuple]:
    parts = {part: read_captioned(root, name, part) for part in SETS[name].PARTS}
    assert {part.kind for part in parts.values()} == {"full"}
    return {part: found.texts for part, found in parts.items()}


# what is made


@pytest.mark.parametrize("name", SETS)
def test_the_official_archives_become_a_whole_set(raw, tmp_path, name, capsys):
    packed = pack(name, raw(name), tmp_path / "packed")
    target = SETS[name].prepare(packed, tmp_path / "out")
    splits, told = SPLITS if name == "coco" else THREE, capsys.readouterr().out
    for part, images in splits.items():
        found = read_captioned(tmp_path / "out", name, part)
        assert [Path(f).name for f in found.images.files] == [file_of(name, i) for i in images]
        assert list(found.texts) == [text for i in images for text in texts_of(i)[:5]]
        assert found.kind == "full" and f"{name} {part} (full): {len(images)} images" in told
    pictures = {row[0]: row[1] for row in manifest(target)[1:] if row[2] == "images"}
    assert sorted(pictures.values()) == sorted(p for p, own in splits.items() for _ in own)
    assert about(target)["missing"] == {} and about(target)["parts"] == list(splits)
    assert about(target)["listed"]["test"]["images"] == 4


@pytest.mark.parametrize("name", SETS)
def test_the_check_reads_every_part_and_names_what_is_gone(raw, tmp_path, name):
    target = SETS[name].prepare(raw(name), tmp_path / "out")
    told_when_gone(name, tmp_path / "out", next(target.glob("images/**/*.jpg")))


def test_coco_is_laid_out_by_year_and_only_captions_are_taken(raw, tmp_path):
    target = coco.prepare(pack("coco", raw("coco"), tmp_path / "packed"), tmp_path / "out")
    annotations = sorted(f.name for f in (target / "annotations").iterdir())
    assert annotations == ["captions_train2014.json", "captions_val2014.json",
                           *sorted(f"coco_{part}_ids.npy" for part in SPLITS)]
    years = {year: len(list((target / "images" / year).iterdir()))
             for year in ("train2014", "val2014")}
    assert years == {"train2014": 3, "val2014": 8}
    assert about(target)["split"] == "vse" and about(target)["unlisted"] == 0
    assert about(target)["captions_there"]["test"] == {"captions": 21,
                                                       "images_with_more_than_five": 1}
    assert about(target)["counts"] == {"annotations": 6, "train/images": 3, "restval/images": 2,
                                       "dev/images": 2, "test/images": 4}


def test_flickr8k_keeps_its_lists_and_names_the_captions_of_no_picture(raw, tmp_path):
    target = flickr8k.prepare(pack("flickr8k", raw("flickr8k"), tmp_path / "p"), tmp_path / "out")
    assert sorted(f.name for f in target.iterdir()) == [
        "captions.token.txt", "dataset.json", "dev_images.txt", "images", "manifest.csv",
        "test_images.txt", "train_images.txt"]
    found = about(target)
    assert found["captioned_but_no_picture"] == [DEFECT] and found["captioned_images"] == 14
    assert found["captions_there"] == 13 * 5 + 1 + 5 and found["unlisted"] == 1


def test_flickr30k_takes_the_listed_pictures_only(raw, tmp_path):
    folder = raw("flickr30k")
    damage.text(folder / "flickr30k-images/readme.txt")
    damage.plain_jpg(folder / "flickr30k-images/._1.jpg")
    target = flickr30k.prepare(folder, tmp_path / "out")
    assert len(list((target / "images").iterdir())) == 9
    assert not (target / "results_20130124.token").exists() and about(target)["unlisted"] == 1
    assert about(target)["ignored"] == ["flickr30k-images/._1.jpg", "flickr30k-images/readme.txt"]
    assert os.path.samefile(folder / "flickr30k-images/9.jpg", target / "images/9.jpg")


def loose(raw: Path) -> None:
    """Ids beside the archives, and VSE++'s folder gone."""
    for file in (raw / "data/coco/annotations").iterdir():
        file.rename(raw / file.name)
    shutil.rmtree(raw / "data")


def together(raw: Path) -> None:
    """All pictures in one folder, as fine-tuning code likes them."""
    (raw / "images").mkdir()
    for file in [f for year in ("train2014", "val2014") for f in (raw / year).iterdir()]:
        file.rename(raw / "images" / file.name)
    for year in ("train2014", "val2014"):
        (raw / year).rmdir()


def as_prepared(raw: Path) -> None:
    """The layout of the result."""
    loose(raw)
    for file in raw.glob("*.npy"):
        file.rename(raw / "annotations" / file.name)
    (raw / "images").mkdir()
    for year in ("train2014", "val2014"):
        (raw / year).rename(raw / "images" / year)


def wrapped(raw: Path) -> None:
    """Everything in one folder more."""
    raw.rename(raw.with_name("inner"))
    raw.mkdir()
    raw.with_name("inner").rename(raw / "COCO")


def wrapped_as_prepared(raw: Path) -> None:
    """Both."""
    as_prepared(raw)
    wrapped(raw)


def half_packed(raw: Path) -> None:
    """An archive beside what a stopped unpacking left of it."""
    zipped(raw / "val2014.zip", below(raw, "val2014"))
    for image in (9, 10):
        (raw / "val2014" / file_of("coco", image)).unlink()


@pytest.mark.parametrize("change", [loose, together, as_prepared, wrapped,
                                    wrapped_as_prepared, half_packed])
def test_unpacked_archives_give_the_same_coco_however_they_lie(raw, tmp_path, change):
    wanted = coco.prepare(pack("coco", raw("coco"), tmp_path / "packed"), tmp_path / "one")
    change(tmp_path / "raw")
    target = coco.prepare(tmp_path / "raw", tmp_path / "out")
    assert manifest(target) == manifest(wanted) and about(target) == about(wanted)


@pytest.mark.parametrize(("name", "old", "new"), [
    ("flickr30k", "flickr30k-images", "flickr30k_images"),
    ("flickr30k", "flickr30k-images", "flickr30k_images/flickr30k_images"),
    ("flickr30k", "flickr30k-images", "images"),
    ("flickr8k", "Flicker8k_Dataset", "Flickr8k_Dataset/Flicker8k_Dataset"),
    ("flickr8k", "Flicker8k_Dataset", "Flickr8k_Dataset"),
    ("flickr8k", "Flicker8k_Dataset", "images")])
def test_pictures_are_found_under_each_name_of_their_folder(raw, tmp_path, name, old, new):
    folder = raw(name)
    (folder / new).parent.mkdir(exist_ok=True)
    (folder / old).rename(folder / new)
    SETS[name].prepare(folder, tmp_path / "out")
    assert set(all_texts(tmp_path / "out", name)) == set(THREE)


def test_flickr8k_is_read_from_its_own_result(raw, tmp_path):
    one = flickr8k.prepare(raw("flickr8k"), tmp_path / "one")
    two = flickr8k.prepare(one, tmp_path / "two")
    assert manifest(two) == manifest(one)


# whose split, which parts


def test_without_ids_karpathys_file_is_the_split(raw, tmp_path):
    folder = raw("coco")
    coco.prepare(folder, tmp_path / "ids")
    wanted = all_texts(tmp_path / "ids", "coco")
    shutil.rmtree(folder / "data")
    zipped(folder / "caption_datasets.zip",
           {"dataset_coco.json": karpathy(tmp_path / "k.json", "coco")})
    target = coco.prepare(folder, tmp_path / "out")
    assert about(target)["split"] == "karpathy" and all_texts(tmp_path / "out", "coco") == wanted
    assert [f.name for f in (target / "annotations").iterdir()] == ["dataset_coco.json"]
    assert about(target)["captions_there"]["test"] == {"captions": 21,
                                                       "images_with_more_than_five": 1}


def test_of_both_the_ids_decide_and_whether_they_agree_is_said(raw, tmp_path):
    folder = raw("coco")
    karpathy(folder / "dataset_coco.json", "coco")
    target = coco.prepare(folder, tmp_path / "out")
    found = read_captioned(tmp_path / "out", "coco")
    assert about(target)["split"] == "both" and "VSE++" in found.protocol
    assert about(target)["karpathy"]["test"] == "the same 4 images"
    assert (target / "annotations/dataset_coco.json").exists()
    other = {**SPLITS, "dev": [7, 9], "test": [11, 8, 10, 6]}
    karpathy(folder / "dataset_coco.json", "coco", other)
    told = about(coco.prepare(folder, tmp_path / "other"))["karpathy"]
    assert told["train"] == "the same 3 images" and told["test"] == (
        f"1 only in VSE++'s ids: {file_of('coco', 9)}; 1 only in Karpathy's file: "
        f"{file_of('coco', 6)}")


@pytest.mark.parametrize("split", ["vse", "karpathy"])
def test_the_split_that_is_not_chosen_is_not_looked_at(raw, tmp_path, split):
    folder = raw("coco")
    if split == "vse":
        (folder / "caption_datasets.zip").write_text("<html>404</html>")
    else:
        to_karpathy("coco")(folder)
        (folder / "data.tar").write_text("<html>404</html>")
    found = about(coco.prepare(folder, tmp_path / "out", split))
    assert found["split"] == split and "karpathy" not in found
    with pytest.raises(PreparationError, match="caption_datasets.zip|data.tar"):
        coco.prepare(folder, tmp_path / "other")


def test_an_evaluation_needs_no_training_pictures(raw, tmp_path):
    packed = pack("coco", raw("coco"), tmp_path / "packed")
    (packed / "train2014.zip").write_text("<html>404</html>")
    (tmp_path / "raw/annotations/captions_train2014.json").unlink()
    (tmp_path / "raw/data/coco/annotations/coco_train_ids.npy").unlink()
    zipped(packed / "annotations_trainval2014.zip", below(tmp_path / "raw", "annotations"))
    tarred(packed / "data.tar", below(tmp_path / "raw", "data"))
    target = coco.prepare(packed, tmp_path / "out", parts=["test"])
    assert read_captioned(tmp_path / "out", "coco", "test").kind == "full"
    assert [f.name for f in (target / "images").iterdir()] == ["val2014"]
    assert len(list((target / "images/val2014").iterdir())) == 4 and about(target)["unlisted"] == 4
    assert [f.name for f in sorted((target / "annotations").iterdir())] == [
        "captions_val2014.json", "coco_test_ids.npy"]


def test_only_pictures_of_the_years_of_the_parts_are_looked_at(raw, tmp_path):
    target = coco.prepare(raw("coco"), tmp_path / "out", parts=["dev"])
    assert about(target)["unlisted"] == 6  # of 8 in val2014


def test_parts_are_a_list_or_repeated_and_val_is_dev(raw, tmp_path, capsys):
    folder, out = raw("flickr8k"), tmp_path / "out"
    common = ["--raw", str(folder), "--out", str(out)]
    assert flickr8k.main([*common, "--parts", "test,val", "--parts", "dev"]) == 0
    assert about(out / "flickr8k")["parts"] == ["dev", "test"]
    assert not (out / "flickr8k/train_images.txt").exists()
    assert flickr8k.main([*common, "--parts", "tests,all"]) == 1
    assert "no part all, tests: choose of train, dev, test" in capsys.readouterr().err


# once, whole or not at all


@pytest.mark.parametrize("name", SETS)
def test_a_second_call_needs_nothing_and_other_settings_are_refused(raw, tmp_path, name, capsys):
    folder = raw(name)
    target = SETS[name].prepare(folder, tmp_path / "out")
    before = (target / "manifest.csv").stat().st_mtime_ns
    shutil.rmtree(folder)
    SETS[name].prepare(folder, tmp_path / "out")
    SETS[name].prepare(folder, tmp_path / "out", allow_missing=True)
    assert capsys.readouterr().out.count("is there already") == 2
    assert (target / "manifest.csv").stat().st_mtime_ns == before
    with pytest.raises(PreparationError, match="holds parts .*: choose another --name"):
        SETS[name].prepare(folder, tmp_path / "out", parts=["test"])


def test_another_split_of_coco_is_refused(raw, tmp_path, capsys):
    common = ["--raw", str(raw("coco")), "--out", str(tmp_path / "out")]
    assert coco.main(common) == 0 and coco.main([*common, "--split", "vse"]) == 0
    assert coco.main([*common, "--split", "both"]) == 1
    assert "holds split vse, not both: choose another --name" in capsys.readouterr().err


@pytest.mark.parametrize("name", SETS)
def test_a_stopped_preparation_goes_on(raw, tmp_path, monkeypatch, name):
    def stop(*_, **__):
        raise KeyboardInterrupt

    wanted = SETS[name].prepare(raw(name), tmp_path / "one")
    packed = pack(name, tmp_path / "raw", tmp_path / "packed")
    monkeypatch.setattr(captions, "_read", stop)
    with pytest.raises(KeyboardInterrupt):
        SETS[name].prepare(packed, tmp_path / "out")
    assert not (tmp_path / "out" / name).exists()
    a_picture = f"{PLACE[name]}/{file_of(name, 9)}"
    inode = (tmp_path / f"out/.{name}.half-made" / a_picture).stat().st_ino
    monkeypatch.undo()
    monkeypatch.setattr(captioned, "N_IMAGES", SIZES)
    target = SETS[name].prepare(packed, tmp_path / "out")
    assert (target / a_picture).stat().st_ino == inode and manifest(target) == manifest(wanted)


KILLED = """
import sys, time
from pathlib import Path
from data_prep import flickr8k, preparing
from replication import captioned
captioned.N_IMAGES = {"flickr8k": {"train": 3, "dev": 2, "test": 4}}
def slow(half, item, made=preparing._made):
    if item.place == "images/9.jpg":
        print("nearly", flush=True)
        time.sleep(60)
    return made(half, item)
preparing._made = slow
flickr8k.prepare(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_process_leaves_no_set_and_the_next_finishes_it(raw, tmp_path, repo):
    wanted = flickr8k.prepare(raw("flickr8k"), tmp_path / "one")
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path / "raw", tmp_path / "out"],
                          cwd=repo, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"nearly\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out/flickr8k").exists()
    assert (tmp_path / "out/.flickr8k.half-made/images/8.jpg").exists()
    assert manifest(flickr8k.prepare(tmp_path / "raw", tmp_path / "out")) == manifest(wanted)


# damage


def picture(raw: Path, name: str, image: int = 9) -> Path:
    return next(raw.rglob(file_of(name, image)))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("kind", sorted(damage.BROKEN))
def test_a_damaged_picture_is_named_and_left_out_only_when_allowed(raw, tmp_path, name, kind):
    folder = raw(name)
    damage.BROKEN[kind](picture(folder, name))
    place = f"{PLACE[name]}/{file_of(name, 9)}"
    with pytest.raises(PreparationError, match="1 files cannot be used") as told:
        SETS[name].prepare(folder, tmp_path / "out")
    assert place in str(told.value) and not (tmp_path / "out" / name).exists()
    target = SETS[name].prepare(folder, tmp_path / "out", allow_damaged=True)
    found = read_captioned(tmp_path / "out", name, allow_partial=True)
    assert list(about(target)["left_out"]) == [place]
    assert (found.kind, len(found.images)) == ("subset", 3)


@pytest.mark.parametrize("kind", sorted(damage.ODD))
def test_an_odd_picture_goes_in_and_is_named(raw, tmp_path, kind):
    make, told = damage.ODD[kind]
    folder = raw("flickr30k")
    make(picture(folder, "flickr30k"))
    target = flickr30k.prepare(folder, tmp_path / "out")
    assert about(target)["odd"][told] == ["images/9.jpg"]


@pytest.mark.parametrize("name", SETS)
def test_an_archive_that_is_none_is_told(raw, tmp_path, name):
    packed = pack(name, raw(name), tmp_path / "packed")
    (packed / AN_ARCHIVE[name]).write_text("<html>404 Not Found</html>")
    with pytest.raises(PreparationError, match=AN_ARCHIVE[name]):
        SETS[name].prepare(packed, tmp_path / "out")
    assert not (tmp_path / "out" / name).exists()


@pytest.mark.parametrize("name", SETS)
def test_an_archive_beside_what_it_holds_is_not_unpacked(raw, tmp_path, name):
    folder = raw(name)
    (folder / AN_ARCHIVE[name]).write_text("<html>404 Not Found</html>")
    SETS[name].prepare(folder, tmp_path / "out")
    assert [f.name for f in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.parametrize("name", SETS)
def test_missing_pictures_are_all_told_or_left_out_knowingly(raw, tmp_path, name, capsys):
    folder = raw(name)
    for image in (7, 6, 9):
        picture(folder, name, image).unlink()
    with pytest.raises(PreparationError, match="not there") as told:
        SETS[name].prepare(folder, tmp_path / "out")
    assert f"dev: 2 of 2: {file_of(name, 7)}, {file_of(name, 6)}" in str(told.value)
    assert f"test: 1 of 4: {file_of(name, 9)}" in str(told.value)
    assert str(told.value).endswith(listed.how_to_get(name))
    target = SETS[name].prepare(folder, tmp_path / "out", allow_missing=True)
    assert about(target)["missing"] == {"dev": [file_of(name, 7), file_of(name, 6)],
                                        "test": [file_of(name, 9)]}
    assert f"{name} test (subset): 3 images" in capsys.readouterr().out
    assert read_captioned(tmp_path / "out", name, "train").kind == "full"
    with pytest.raises(PreparationError, match="lacks 3 of the listed pictures: --allow-missing"):
        SETS[name].prepare(folder, tmp_path / "out")
    assert SETS[name].prepare(folder, tmp_path / "out", allow_missing=True) == target


def test_many_missing_pictures_are_counted_and_twelve_named(raw, tmp_path, monkeypatch):
    folder = raw("flickr30k")
    karpathy(folder / "dataset_flickr30k.json", "flickr30k", {**THREE, "train": range(100, 140)})
    monkeypatch.setitem(SIZES["flickr30k"], "train", 40)
    with pytest.raises(PreparationError, match="train: 40 of 40: 100.jpg.* 111.jpg and 28 more"):
        flickr30k.prepare(folder, tmp_path / "out")


VAL, IDS = "annotations/captions_val2014.json", "data/coco/annotations/coco_test_ids.npy"


def ids(*images):
    return lambda raw: save_ids((raw / IDS).parent, "test", images)


def to_karpathy(name: str, splits=SPLITS):
    def change(raw: Path) -> None:
        shutil.rmtree(raw / "data")
        karpathy(raw / "dataset_coco.json", name, splits)
    return change


COCO_DAMAGE = {
    "ids of dev": (ids(7, 6), r"2 images are in the lists more than once: .*0007.jpg \(dev and "),
    "ids of train": (ids(1, 2, 3), r"15 of the 15 ids of .*raw/data/.*test_ids.npy are not in "
                                   r".*raw/annotations/captions_val2014.json"),
    "ids cut short": (ids(11, 8), "coco test has 2 images with 10 captions, the official part 4"),
    "ids of other captions": (ids(11, 8, 10, 99), "5 of the 20 ids"),
    "torn ids": (lambda raw: (raw / IDS).write_bytes(b"\x93NUM"), "raw/.*_ids.npy is not whole"),
    "no ids": (lambda raw: (raw / IDS).unlink(), "raw has no coco_test_ids.npy, packed"),
    "torn captions": (lambda raw: write(raw / VAL, '{"images": ['), "val2014.json is not whole"),
    "instances": (lambda raw: write(raw / VAL, {"images": [], "annotations": [{"id": 1}]}),
                  "another file"),
    "no captions": (lambda raw: (raw / VAL).unlink(), "raw has no captions_val2014.json, packed"),
    "no list": (lambda raw: shutil.rmtree(raw / "data"),
                r"raw has no coco_<part>_ids.npy of VSE\+\+ nor Karpathy's dataset_coco.json"),
    "some ids": (lambda raw: [f.unlink() for f in (raw / IDS).parent.iterdir()
                              if "_test_" not in f.name],
                 "raw has no coco_train_ids.npy, no coco_restval_ids.npy, no coco_dev_ids.npy, p"),
    "Karpathy's file of Flickr30K": (to_karpathy("flickr30k"), "is of 'flickr30k', not of 'coco'"),
    "Karpathy's file without restval": (to_karpathy("coco", THREE), "no split 'restval'"),
    "Karpathy's file with an image twice": (
        to_karpathy("coco", {**SPLITS, "test": [11, 8, 10, 7]}), r"0007.jpg \(dev and test\)"),
    "no folder": (shutil.rmtree, "raw is no folder"),
}


@pytest.mark.parametrize("damaged", COCO_DAMAGE)
def test_wrong_lists_of_coco_are_told_before_any_work(raw, tmp_path, damaged):
    change, told = COCO_DAMAGE[damaged]
    change(folder := raw("coco"))
    with pytest.raises(PreparationError, match=told) as error:
        coco.prepare(folder, tmp_path / "out")
    assert str(Path(tempfile.gettempdir(), "tmp")) not in str(error.value)
    assert not (tmp_path / "out/coco").exists()
    assert not (tmp_path / "out/.coco.half-made").exists()


def test_lists_cut_short_are_a_subset_only_when_allowed(raw, tmp_path):
    folder = raw("coco")
    ids(11, 8)(folder)
    coco.prepare(folder, tmp_path / "out", allow_missing=True)
    assert read_captioned(tmp_path / "out", "coco", allow_partial=True).kind == "subset"


TEXT = "Flickr8k_text"
FLICKR8K_DAMAGE = {
    "an image in two lists": (lambda raw: write(raw / TEXT / "Flickr_8k.testImages.txt",
                                                "11.jpg\n8.jpg\n10.jpg\n7.jpg\n"),
                              r"1 images are in the lists more than once: 7.jpg \(dev and test\)"),
    "a list cut short": (lambda raw: write(raw / TEXT / "Flickr_8k.testImages.txt", "11.jpg\n"),
                         "flickr8k test has 1 images with 5 captions, the official part 4"),
    "no caption": (lambda raw: write(raw / TEXT / "Flickr8k.token.txt", "1.jpg#0\tOne .\n"),
                   "3 of the 3 images of .*raw/Flickr8k_text/Flickr_8k.trainImages.txt have no"),
    "other lines": (lambda raw: write(raw / TEXT / "Flickr8k.token.txt", "image,caption\n"),
                    "is not <image>#<k>, tab, caption"),
    "no text": (lambda raw: shutil.rmtree(raw / TEXT), "no captions.token.txt or Flickr8k.token.txt"
                ".*no dev_images.txt or Flickr_8k.devImages.txt"),
}


@pytest.mark.parametrize("damaged", FLICKR8K_DAMAGE)
def test_wrong_lists_of_flickr8k_are_told(raw, tmp_path, damaged):
    change, told = FLICKR8K_DAMAGE[damaged]
    change(folder := raw("flickr8k"))
    with pytest.raises(PreparationError, match=told):
        flickr8k.prepare(folder, tmp_path / "out")


def test_wrong_lists_of_flickr30k_are_told(raw, tmp_path):
    file = raw("flickr30k") / "dataset_flickr30k.json"
    prepare = functools.partial(flickr30k.prepare, file.parent, tmp_path / "out")
    edit(file, lambda c: c.update(dataset="flickr8k"))
    with pytest.raises(PreparationError, match="raw/dataset_flickr30k.json is of 'flickr8k'"):
        prepare()
    karpathy(file, "flickr30k", {**THREE, "test": [11, 8, 10]})
    with pytest.raises(PreparationError, match="test has 3 images with 15 .* 4 with 20"):
        prepare()
    file.unlink()
    with pytest.raises(PreparationError, match="no dataset_flickr30k.json") as told:
        prepare()
    assert str(told.value).endswith(listed.how_to_get("flickr30k"))


def test_a_set_of_someone_else_is_left_alone(raw, tmp_path, capsys):
    (tmp_path / "out/coco").mkdir(parents=True)
    assert coco.main(["--raw", str(raw("coco")), "--out", str(tmp_path / "out")]) == 1
    assert "was not made by this command" in capsys.readouterr().err
    assert list((tmp_path / "out/coco").iterdir()) == []


# the command line


@pytest.mark.parametrize("name", SETS)
def test_the_command_says_what_it_made_and_help_tells_the_layout(raw, tmp_path, name, capsys):
    common = ["--raw", str(raw(name)), "--out", str(tmp_path / "out"), "--name", "small"]
    assert SETS[name].main([*common, "--parts", "test", "--workers", "1"]) == 0
    assert "4 test/images" in capsys.readouterr().out
    assert read_captioned(tmp_path / "out/small", name, "test").kind == "full"
    with pytest.raises(SystemExit):
        SETS[name].main(["--help"])
    shown = capsys.readouterr().out
    assert "--allow-missing" in shown and f"DATA/{name}/" in shown and AN_ARCHIVE[name] in shown


@pytest.mark.parametrize(("parts", "needless"), [
    ([], []), (["--parts", "test,val"], ["train2014.zip"]),
    (["--parts", "train"], ["val2014.zip"])])
def test_fetch_comes_first_without_what_no_part_needs(tmp_path, monkeypatch, parts, needless):
    asked = []

    def fetch(name, into, only):
        asked.append((name, into, sorted(only)))
        make_coco(into)

    monkeypatch.setattr(listed, "fetch", fetch)
    monkeypatch.setattr(captioned, "N_IMAGES", SIZES)
    common = ["--raw", str(tmp_path / "new"), "--out", str(tmp_path / "out"), "--fetch", *parts]
    assert coco.main(common) == 0 and coco.main(common) == 0
    files = [file.name for file in source("coco").files if file.needed == "always"]
    assert {"train2014.zip", "val2014.zip"} <= set(files)
    assert asked == [("coco", tmp_path / "new", sorted(set(files) - set(needless)))]


def test_importing_a_preparation_needs_no_torch(repo):
    code = ("import sys; from data_prep import coco, flickr30k, flickr8k; "
            "sys.exit('torch' in sys.modules)")
    subprocess.run([sys.executable, "-c", code], cwd=repo, check=True)


def test_options_reach_the_preparation(raw, tmp_path, capsys):
    packed = pack("flickr30k", raw("flickr30k"), tmp_path / "packed")
    common = ["--raw", str(packed), "--out", str(tmp_path / "out")]
    assert flickr30k.main([*common, "--max-unpacked", "0.000000001"]) == 1
    assert "--max-unpacked" in capsys.readouterr().err
    folder = tmp_path / "raw"
    picture(folder, "flickr30k").unlink()
    damage.empty(picture(folder, "flickr30k", 10))
    common[1] = str(folder)
    assert flickr30k.main(common) == 1 and "--allow-missing" in capsys.readouterr().err
    assert flickr30k.main([*common, "--allow-missing"]) == 1
    assert "--allow-damaged" in capsys.readouterr().err
    assert flickr30k.main([*common, "--allow-missing", "--allow-damaged"]) == 0
    assert "2 test/images" in capsys.readouterr().out


# real lists and pictures


@pytest.mark.skipif(not REAL_COCO.is_dir(), reason="no ../shared/data here")
def test_the_real_ids_are_five_an_image_in_order_and_in_one_part(tmp_path):
    numbers = {part: np.load(REAL_COCO / f"coco_{part}_ids.npy") for part in coco.PARTS}
    official = captioned.N_IMAGES["coco"]
    assert {part: len(own) for part, own in numbers.items()} == \
        {part: 5 * n for part, n in official.items()}
    assert sum(official.values()) == 123_287
    assert len(np.unique(np.concatenate(list(numbers.values())))) == 5 * 123_287
    rows = json.loads((REAL_COCO / "captions_val2017.json").read_text())["annotations"]
    of_image: dict[int, list[int]] = {}
    for row in rows:
        of_image.setdefault(row["image_id"], []).append(row["id"])
    first = {tuple(sorted(own)[:5]): image for image, own in of_image.items()}
    known = {part: [five for five in map(tuple, own.reshape(-1, 5).tolist()) if five in first]
             for part, own in numbers.items()}
    assert {part: len(own) for part, own in known.items()} == \
        {"train": 0, "restval": 3_799, "dev": 608, "test": 593}  # all 5,000 images of val2017


@pytest.mark.skipif(not REAL_COCO.is_dir(), reason="no ../shared/data here")
def test_real_ids_meet_real_captions(tmp_path):
    content = json.loads((REAL_COCO / "captions_val2017.json").read_text())
    there = {row["id"] for row in content["annotations"]}
    own = np.load(REAL_COCO / "coco_test_ids.npy")
    np.save(tmp_path / "ids.npy", own[[i in there for i in own.tolist()]])
    lists = {"annotations/coco_test_ids.npy": tmp_path / "ids.npy",
             "annotations/captions_val2014.json": REAL_COCO / "captions_val2017.json"}
    entries = captions.read_lists("coco", lists, ["test"])
    assert len(entries["test"]) == 593 and {len(texts) for _, texts in entries["test"]} == {5}
    found = coco._captions_there(lists, entries)
    assert found == {"test": {"captions": 2_966, "images_with_more_than_five": 1}}
    with pytest.raises(PreparationError, match="test has 593 images .*, the official part 5,000"):
        captions.check_lists("coco", entries, allow_missing=False)


@pytest.mark.skipif(not REAL_FLICKR8K.is_dir(), reason="no ../shared/data here")
def test_the_real_flickr8k_sample_is_a_subset_and_its_test_part_is_whole(tmp_path, capsys):
    with pytest.raises(PreparationError, match="train: 5,000 of 6,000.*\n.*dev: 1,000 of 1,000"):
        flickr8k.prepare(REAL_FLICKR8K, tmp_path)
    target = flickr8k.prepare(REAL_FLICKR8K, tmp_path, allow_missing=True)
    told = about(target)
    assert {part: len(images) for part, images in told["missing"].items()} == \
        {"train": 5_000, "dev": 1_000}
    assert told["counts"] == {"annotations": 4, "train/images": 1_000, "test/images": 1_000}
    assert (told["captions_there"], told["captioned_images"]) == (40_455, 8_091)
    assert told["captioned_but_no_picture"] == [] and told["unlisted"] == 0
    whole = read_captioned(tmp_path, "flickr8k", "test")
    assert whole.kind == "full" and len(whole.texts) == 5_000
    assert "flickr8k train (subset): 1,000 images" in capsys.readouterr().out
    alone = flickr8k.prepare(REAL_FLICKR8K, tmp_path, name="test_only", parts=["test"])
    assert read_captioned(alone, "flickr8k", "test").manifest == whole.manifest
