"""What every preparation shares, on made-up files."""

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import damage
import pytest
from checking import rows

from data_prep import class_folders, command, preparing
from data_prep.class_folders import canonical, matched
from data_prep.preparing import Item, PreparationError, prepare

SETTINGS = {"name": "made_up", "split": "1/1"}


@pytest.fixture
def items(tmp_path) -> list[Item]:
    """Six pictures in raw/, three of each split, and a text file."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "about.txt").write_text("about")
    made = [Item("about.txt", raw / "about.txt", picture=False)]
    for index in range(6):
        file = raw / f"Bär (groß) {index}.jpg"
        damage.plain_jpg(file)
        split = ("train", "val")[index % 2]
        made.append(Item(f"{split}/photo/a/{file.name}", file, split, "photo", "a", str(index)))
    return made


def test_a_set_holds_links_a_manifest_and_what_it_is(items, tmp_path):
    target = prepare(tmp_path / "out/made_up", SETTINGS, items, notes={"ignored": ["x"]})
    about = json.loads((target / "dataset.json").read_text())
    assert about["counts"] == {"": 1, "train/photo": 3, "val/photo": 3}
    assert about["split"] == "1/1" and about["ignored"] == ["x"] and about["left_out"] == {}
    assert [row["path"] for row in rows(target)] == sorted(i.place for i in items)
    for item in items:
        assert os.path.samefile(item.source, target / item.place)
    assert sorted(f.name for f in target.iterdir()) == ["about.txt", "dataset.json", "manifest.csv",
                                                        "train", "val"]
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["made_up"]


def test_a_second_call_does_nothing_and_another_split_is_refused(items, tmp_path, capsys):
    target = prepare(tmp_path / "out", SETTINGS, items)
    before = (target / "manifest.csv").stat()
    prepare(target, SETTINGS, [])
    assert "is there already" in capsys.readouterr().out
    assert (target / "manifest.csv").stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(PreparationError, match="holds split 1/1, not 2/2: choose another --name"):
        prepare(target, {**SETTINGS, "split": "2/2"}, items)


def test_a_folder_of_someone_else_is_left_alone(items, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(PreparationError, match="was not made by this command"):
        prepare(tmp_path / "mine", SETTINGS, items)
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("kind", sorted(damage.BROKEN))
def test_every_damaged_picture_is_named_and_no_set_is_left(items, tmp_path, kind):
    for item in items[2:4]:
        damage.BROKEN[kind](item.source)
    with pytest.raises(PreparationError, match="2 files cannot be used") as told:
        prepare(tmp_path / "out", SETTINGS, items)
    assert all(item.place in str(told.value) for item in items[2:4])
    assert items[4].place not in str(told.value) and not (tmp_path / "out").exists()
    damage.plain_jpg(items[2].source)
    items[3].source.unlink()
    damage.plain_jpg(items[3].source)
    assert len(rows(prepare(tmp_path / "out", SETTINGS, items))) == 7


def test_damaged_pictures_are_left_out_only_when_allowed(items, tmp_path):
    damage.truncated_jpg(items[1].source)
    target = prepare(tmp_path / "out", SETTINGS, items, allow_damaged=True)
    about = json.loads((target / "dataset.json").read_text())
    assert list(about["left_out"]) == [items[1].place] and "runcated" in str(about["left_out"])
    assert not (target / items[1].place).exists() and len(rows(target)) == 6


@pytest.mark.parametrize("kind", sorted(damage.ODD))
def test_an_odd_picture_goes_in_and_is_named(items, tmp_path, kind):
    make, told = damage.ODD[kind]
    make(items[1].source)
    target = prepare(tmp_path / "out", SETTINGS, items)
    odd = json.loads((target / "dataset.json").read_text())["odd"]
    assert odd[told] == [items[1].place] and set(odd) <= {told, "PNG named .jpg"}


def drawn(log: Path, number: int) -> bytes:
    with open(log, "a") as lines:
        lines.write(f"{number}\n")
    damage.plain_png(file := log.with_name(f"{number}.png"))
    return file.read_bytes()


def stopped(log: Path, number: int) -> bytes:
    raise KeyboardInterrupt


def test_a_killed_preparation_goes_on_where_it_stopped(tmp_path):
    log = tmp_path / "log"
    def made(last) -> list[Item]:
        return [Item(f"train/sketch/a/{n}.png", functools.partial(f, log, n), "train", "sketch",
                     "a") for n, f in [*((n, drawn) for n in range(5)), (5, last)]]

    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "out/set", SETTINGS, made(stopped))
    assert not (tmp_path / "out/set").exists() and log.read_text().split() == list("01234")
    target = prepare(tmp_path / "out/set", SETTINGS, made(drawn))
    assert log.read_text().split() == list("012345") and len(rows(target)) == 6


def test_a_killed_preparation_of_other_settings_is_thrown_away(tmp_path):
    log = tmp_path / "log"
    one = Item("a.png", functools.partial(drawn, log, 0))
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "set", SETTINGS, [one, Item("b.png",
                                                       functools.partial(stopped, log, 1))])
    prepare(tmp_path / "set", {**SETTINGS, "size": 64}, [one])
    assert log.read_text().split() == ["0", "0"]


def test_what_is_no_longer_named_does_not_stay(items, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "_write_about", stopped)
    with pytest.raises((KeyboardInterrupt, TypeError)):
        prepare(tmp_path / "set", SETTINGS, items)
    monkeypatch.undo()
    target = prepare(tmp_path / "set", SETTINGS, items[:3])
    assert sum(f.is_file() for f in target.rglob("*")) == 3 + 2


def test_a_killed_process_leaves_no_lock(items, tmp_path):
    code = ("import sys, time, pathlib; from data_prep.preparing import Item, prepare\n"
            "def slow():\n    print('in', flush=True)\n    time.sleep(60)\n"
            "prepare(pathlib.Path(sys.argv[1]), {'name': 'made_up', 'split': '1/1'},"
            " [Item('a.jpg', slow)])")
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "set")],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             cwd=Path(__file__).parent.parent)
    assert other.stdout.readline() == b"in\n"
    with pytest.raises(PreparationError, match="another process prepares"):
        prepare(tmp_path / "set", SETTINGS, items)
    other.kill()
    other.wait()
    for _ in range(100):
        try:
            prepare(tmp_path / "set", SETTINGS, items)
            break
        except PreparationError:
            time.sleep(0.05)
    assert len(rows(tmp_path / "set")) == 7


def test_where_no_link_can_be_made_files_are_copied(items, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    target = prepare(tmp_path / "set", SETTINGS, items)
    assert not os.path.samefile(items[1].source, target / items[1].place)
    assert (target / items[1].place).read_bytes() == items[1].source.read_bytes()


def test_links_to_pictures_become_their_files(items, tmp_path):
    link = tmp_path / "raw/link.jpg"
    link.symlink_to(items[1].source)
    target = prepare(tmp_path / "set", SETTINGS, [items[1]._replace(source=link)])
    assert not (target / items[1].place).is_symlink()
    assert os.path.samefile(items[1].source, target / items[1].place)


def test_places_are_checked_before_any_work(items, tmp_path):
    for place, told in (("../out.jpg", "outside the set"), ("/tmp/out.jpg", "outside the set"),
                        (items[2].place, "two files for one place")):
        with pytest.raises(PreparationError, match=told):
            prepare(tmp_path / "set", SETTINGS, [items[2], items[1]._replace(place=place)])
    with pytest.raises(PreparationError, match="nothing to prepare"):
        prepare(tmp_path / "set", SETTINGS, [])
    assert not list(tmp_path.glob("*set*"))


def test_a_check_that_refuses_leaves_no_set(items, tmp_path):
    def refuse(folder: Path):
        assert (folder / "manifest.csv").exists()
        raise ValueError("counts differ")

    with pytest.raises(ValueError, match="counts differ"):
        prepare(tmp_path / "set", SETTINGS, items, check=refuse)
    assert not (tmp_path / "set").exists()
    prepare(tmp_path / "set", SETTINGS, items, check=lambda folder: None)
    assert (tmp_path / "set").exists()


def test_the_bytes_do_not_depend_on_the_number_of_processes(items, tmp_path):
    texts = {(prepare(tmp_path / f"set{n}", SETTINGS, items, workers=n) / "manifest.csv"
              ).read_bytes() for n in (1, 2)}
    assert len(texts) == 1


@pytest.mark.parametrize(("one", "other"), [
    ("fire_hydrant", "Fire hydrant"), ("hot-air_balloon", "hot air balloon"),
    ("mouse (animal)", "mouse_animal"), ("Ba\u0308r", "b\u00e4r")])
def test_spellings_of_a_class_are_one(one, other):
    assert canonical(one) == canonical(other) != canonical(one + "s")


def test_classes_are_matched_and_every_offender_is_named():
    found = matched(["Fire Hydrant", "crocodile"], ["fire_hydrant", "crocodilian"], "raw",
                    {"crocodilian": "crocodile"})
    assert found == {"fire_hydrant": "Fire Hydrant", "crocodilian": "crocodile"}
    with pytest.raises(PreparationError) as told:
        matched(["a", "b", "z"], ["a", "c", "d"], "raw")
    assert str(told.value) == "raw: 3 classes, expected 3; absent: c, d; too many: b, z"


def test_what_is_no_picture_is_a_stranger(tmp_path):
    (tmp_path / "cup").mkdir()
    for name in ("2.JPG", "1.png", "Thumbs.db", "._1.png"):
        (tmp_path / "cup" / name).touch()
    (tmp_path / "readme.txt").touch()
    found, strangers = class_folders.pictures_by_class(tmp_path)
    assert [f.name for f in found["cup"]] == ["1.png", "2.JPG"]
    assert {f.name for f in strangers} == {"readme.txt", "Thumbs.db", "._1.png"}
    with pytest.raises(PreparationError, match="is missing"):
        class_folders.pictures_by_class(tmp_path / "absent")


def test_the_command_tells_what_it_made_and_what_went_wrong(items, tmp_path, capsys):
    damage.cmyk_jpg(items[1].source)
    assert command.finish(lambda: prepare(tmp_path / "set", SETTINGS, items)) == 0
    told = capsys.readouterr().out
    assert "3 train/photo, 3 val/photo" in told and "1 pictures: mode CMYK" in told

    def wrong():
        raise PreparationError("all of this is wrong")

    assert command.finish(wrong) == 1
    assert capsys.readouterr().err == "error: all of this is wrong\n"
