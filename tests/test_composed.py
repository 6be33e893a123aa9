"""FashionIQ and CIRR layouts: made-up sets, the official annotation files, doodles."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from replication import composed
from replication.composed import TYPES, query_text, read_composed
from replication.data import DatasetError

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "annotations"
SIZES = {"fashioniq": {"train": {"dress": (2, 5), "shirt": (2, 5), "toptee": (2, 5)},
                       "val": {"dress": (2, 5), "shirt": (2, 5), "toptee": (2, 5)}},
         "cirr": {part: {"": (3, 7)} for part in ("train", "val", "test1")}}


def write(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    write(file, content)


def touch(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def make_fashioniq(base: Path) -> Path:
    """Split s of a type holds B4 to B0 of its own: queries B1 -> B3 and B3 -> B0. In train, B0 of
    all types is one image."""
    for kind in TYPES:
        for split in ("train", "val"):
            name = [f"{kind[0]}{split[0]}{i}".upper() for i in range(5)]
            name[0] = "ALL" if split == "train" else name[0]
            rows = [{"candidate": name[1], "target": name[3], "captions": [" is red.", "Is SHORT"]},
                    {"candidate": name[3], "target": name[0], "captions": ["", f"is {kind}?"]}]
            write(base / f"captions/cap.{kind}.{split}.json", rows)
            write(base / f"image_splits/split.{kind}.{split}.json", name[::-1])
            for i, image in enumerate(name):
                touch(base / "images" / f"{image}{('.jpg', '.png', '.JPG')[i % 3]}")
    return base


def make_cirr(base: Path) -> Path:
    """Images 6 to 0 of each split, queries 10, 11, 12 with groups 0 to 5, 1 to 6, 0 to 5."""
    for split, folder in (("train", "train/3"), ("val", "dev"), ("test1", "test1")):
        name = [f"{split}-{i}-img0" for i in range(7)]
        rows = []
        for k, (reference, target, first) in enumerate([(0, 3, 0), (6, 1, 1), (2, 5, 0)]):
            members = name[first:first + 6][::-1]
            rows.append({"pairid": 10 + k, "reference": name[reference],
                         "target_hard": name[target], "target_soft": {name[target]: 1.0},
                         "caption": f"Make it {split} {k}.", "img_set": {
                             "id": k, "members": members, "reference_rank": 0}})
            if split == "test1":
                del rows[-1]["target_hard"], rows[-1]["target_soft"]
        write(base / f"cirr/captions/cap.rc2.{split}.json", rows)
        write(base / f"cirr/image_splits/split.rc2.{split}.json",
              {image: f"./{folder}/{image}.png" for image in name[::-1]})
        for i, image in enumerate(name):
            touch(base / folder / f"{image}.{'png' if i % 2 else 'jpg'}")
    return base


@pytest.fixture
def fashioniq(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(composed, "N_OFFICIAL", SIZES)
    return make_fashioniq(tmp_path / "fashionIQ_dataset")


@pytest.fixture
def cirr(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(composed, "N_OFFICIAL", SIZES)
    return make_cirr(tmp_path / "cirr_dataset")


# reading


def test_fashioniq_val_is_one_types_gallery_in_its_files_order(fashioniq, tmp_path):
    found = read_composed(tmp_path, "fashioniq", "val", types="shirt")
    assert found.names == ("SV4", "SV3", "SV2", "SV1", "SV0")
    assert found.images.files == tuple(f"images/SV{i}{s}" for i, s in zip(
        (4, 3, 2, 1, 0), (".png", ".jpg", ".JPG", ".png", ".jpg"), strict=True))
    assert all(found.images.path(row).is_file() for row in range(5))
    assert found.reference.tolist() == [3, 1] and found.target.tolist() == [1, 4]
    assert found.members is None and found.pair_ids == ("shirt.0", "shirt.1")
    assert found.captions == ((" is red.", "Is SHORT"), ("", "is shirt?"))
    assert (found.kind, found.types, found.left_out) == ("full", ("shirt",), {})
    assert found.counts == {"queries": 2, "images": 5, "different texts": 2, "empty captions": 1}
    assert "original split's gallery" in found.protocol and len(found) == 2


def test_fashioniq_train_joins_the_types(fashioniq, tmp_path):
    found = read_composed(tmp_path, "fashioniq", "train")
    assert len(found.images) == 13 and found.names.count("ALL") == 1
    assert found.names[:6] == ("DT4", "DT3", "DT2", "DT1", "ALL", "ST4")
    assert [found.names[row] for row in found.target] == ["DT3", "ALL", "ST3", "ALL", "TT3", "ALL"]
    assert found.pair_ids[2:4] == ("shirt.0", "shirt.1") and found.kind == "full"
    one = read_composed(tmp_path, "fashioniq", "train", types=["toptee", "dress"])
    assert one.types == ("dress", "toptee") and len(one) == 4 and one.kind == "full"


def test_the_val_gallery_is_a_named_choice(fashioniq, tmp_path):
    whole = read_composed(tmp_path, "fashioniq", "val", types="dress")
    small = read_composed(tmp_path, "fashioniq", "val", types="dress", gallery="VAL")
    assert small.names == ("DV3", "DV1", "DV0") and small.kind == "subset"
    assert small.reference.tolist() == [1, 0] and small.target.tolist() == [0, 2]
    assert "not comparable" in small.protocol and "not comparable" not in whole.protocol
    assert small.manifest != whole.manifest and small.left_out == {}


@pytest.mark.parametrize("split", ["train", "val", "test1"])
def test_cirr_rows_and_groups(cirr, tmp_path, split):
    found = read_composed(tmp_path, "cirr", split)
    assert found.names == tuple(f"{split}-{i}-img0" for i in (6, 5, 4, 3, 2, 1, 0))
    folder = {"train": "train/3", "val": "dev"}.get(split, split)
    assert found.images.files[0] == f"{folder}/{split}-6-img0.jpg"
    assert found.images.files[1] == f"{folder}/{split}-5-img0.png"
    assert found.reference.tolist() == [6, 0, 4] and found.pair_ids == ("10", "11", "12")
    assert (found.target is None) == (split == "test1")
    assert split == "test1" or found.target.tolist() == [3, 5, 1]
    assert found.members.tolist() == [[1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]
    assert found.texts == tuple(f"Make it {split} {k}." for k in range(3))
    assert found.kind == "full" and str(found).startswith(f"cirr {split} (full): 3 queries, 7 ")


@pytest.mark.parametrize("place", ["cirr/cirr_dataset", "cirr_dataset", "cirr", ""])
def test_a_set_is_found_where_users_put_it(tmp_path, monkeypatch, place):
    monkeypatch.setattr(composed, "N_OFFICIAL", SIZES)
    make_cirr(tmp_path / "root" / place)
    assert len(read_composed(tmp_path / "root", "cirr", "val")) == 3


def test_of_two_files_of_an_image_png_counts(cirr, tmp_path):
    touch(cirr / "dev/val-0-img0.png")
    touch(cirr / "dev/val-1-img0.jpg")
    touch(cirr / "dev/val-2-img0.txt")
    files = read_composed(tmp_path, "cirr", "val").images.files
    assert [Path(file).suffix for file in files] == [".jpg", ".png", ".jpg", ".png"] + [
        ".jpg", ".png", ".png"]


def test_manifest_is_of_names_sizes_captions_and_rows(cirr, tmp_path):
    seen = [read_composed(tmp_path, "cirr", "val").manifest]
    file = cirr / "cirr/captions/cap.rc2.val.json"
    for change in (lambda c: c[0].update(caption="Another"),
                   lambda c: c[0].update(target_hard="val-4-img0"),
                   lambda c: c[1]["img_set"]["members"].reverse()):
        edit(file, change)
        seen.append(read_composed(tmp_path, "cirr", "val").manifest)
    (cirr / "dev/val-5-img0.png").write_bytes(b"larger")
    seen.append(read_composed(tmp_path, "cirr", "val").manifest)
    assert len(set(seen)) == 5 and all(own.startswith("listing:") for own in seen)
    assert read_composed(tmp_path, "cirr", "val").manifest == seen[-1]


# texts


@pytest.mark.parametrize(("form", "text"), [
    ("A and b", "Is red and Is short. ok"), ("B and a", "Is short. ok and is RED"),
    ("A", "Is red"), ("B", "Is short. ok")])
def test_forms_of_two_captions(form, text):
    assert query_text((" is RED?.", ", Is short. ok"), form) == text
    assert query_text((" One of CIRR's. ",), form) == " One of CIRR's. "


def test_validation_text_is_always_a_and_b(fashioniq, tmp_path):
    found = read_composed(tmp_path, "fashioniq", "val", types="toptee")
    assert found.texts == ("Is red and Is SHORT", " and is toptee")


def test_training_forms_are_drawn_by_seed_epoch_and_row(fashioniq, tmp_path):
    file = fashioniq / "captions/cap.dress.train.json"
    edit(file, lambda rows: rows.extend(rows[0] | {"captions": ["is a", "is b"]}
                                        for _ in range(3_998)))
    found = read_composed(tmp_path, "fashioniq", "train", types="dress", allow_missing=True)
    first = found.training_texts(0, 0)[2:]
    assert first == found.training_texts(0, 0)[2:]
    count = Counter(first)
    assert set(count) == {"Is a and is b", "Is b and is a", "Is a", "Is b"}
    assert all(850 < n < 1150 for n in count.values())
    for other in (found.training_texts(1, 0), found.training_texts(0, 1)):
        assert 900 < sum(a == b for a, b in zip(first, other[2:], strict=True)) < 1100
    assert set(found.texts[2:]) == {"Is a and is b"}


def test_cirrs_training_text_is_its_caption(cirr, tmp_path):
    found = read_composed(tmp_path, "cirr", "train")
    assert found.training_texts(0, 5) == found.texts


# what is missing


def test_missing_images_are_named_or_left_out_with_their_queries(fashioniq, tmp_path):
    (fashioniq / "images/DV0.jpg").unlink()
    (fashioniq / "images/DV2.JPG").unlink()
    with pytest.raises(DatasetError, match="2 of the 5 images .*: DV2, DV0. .*allow_missing"):
        read_composed(tmp_path, "fashioniq", "val", types="dress")
    found = read_composed(tmp_path, "fashioniq", "val", types="dress", allow_missing=True)
    assert found.names == ("DV4", "DV3", "DV1") and found.pair_ids == ("dress.0",)
    assert found.reference.tolist() == [2] and found.target.tolist() == [1]
    assert found.kind == "subset" and found.left_out == {"images": 2, "queries": 1}
    assert str(found).endswith("left out: 2 images and 1 queries")


def test_a_group_that_lost_an_image_loses_its_queries(cirr, tmp_path):
    (cirr / "dev/val-6-img0.jpg").unlink()
    found = read_composed(tmp_path, "cirr", "val", allow_missing=True)
    assert found.pair_ids == ("10", "12") and found.left_out == {"images": 1, "queries": 1}
    (cirr / "dev/val-2-img0.jpg").unlink()
    with pytest.raises(DatasetError, match="3 queries .*not one has all of its images: 10, 11"):
        read_composed(tmp_path, "cirr", "val", allow_missing=True)
    shutil.rmtree(cirr / "dev")
    with pytest.raises(DatasetError, match="7 of the 7 images"):
        read_composed(tmp_path, "cirr", "val", allow_missing=True)


def test_allow_missing_with_nothing_missing_is_the_full_set(cirr, tmp_path):
    found = read_composed(tmp_path, "cirr", "val", allow_missing=True)
    assert found.kind == "full" and found.left_out == {}


@pytest.mark.parametrize(("change", "told"), [
    (lambda c: c.pop(), r"fashioniq dress train has 1 queries and 5 images, the official .* 2 and"),
    (None, "fashioniq dress train has 2 queries and 6 images")])
def test_other_counts_say_both(fashioniq, tmp_path, change, told):
    if change:
        edit(fashioniq / "captions/cap.dress.train.json", change)
    else:
        edit(fashioniq / "image_splits/split.dress.train.json", lambda c: c.append("DV0"))
    with pytest.raises(DatasetError, match=told):
        read_composed(tmp_path, "fashioniq", "train")
    assert read_composed(tmp_path, "fashioniq", "train", allow_missing=True).kind == "subset"


# damage


CAP, SPLIT = "captions/cap.dress.val.json", "image_splits/split.dress.val.json"
FASHIONIQ_DAMAGE = {
    "captions of shirt": (lambda f: shutil.copy(f / "captions/cap.shirt.val.json", f / CAP),
                          r"3 images of .*cap.dress.val.json are not in .*split.dress.val.json: "
                          r"SV1, SV3, SV0. split.shirt.val.json holds them"),
    "unknown id": (lambda f: edit(f / CAP, lambda c: c[1].update(target="B00NONE")),
                   "1 images of .* are not in .*: B00NONE. Take both"),
    "an empty pair": (lambda f: edit(f / CAP, lambda c: c[0].update(captions=[" ", "."])),
                      "1 of the 2 queries .* empty caption: dress.0"),
    "one caption": (lambda f: edit(f / CAP, lambda c: c[0].update(captions=["is red"])),
                    "1 of the 2 queries .* not names with 2 captions: dress.0"),
    "a text for two": (lambda f: edit(f / CAP, lambda c: c[1].update(captions="is")),
                       "1 of the 2 queries .* not names with 2 captions: dress.1"),
    "numbers": (lambda f: edit(f / CAP, lambda c: c[1].update(candidate=3)),
                "1 of the 2 queries .* not names .*: dress.1"),
    "target of null": (lambda f: edit(f / CAP, lambda c: c[1].update(target=None)),
                       "1 of the 2 queries .* not names .*: dress.1"),
    "no target": (lambda f: edit(f / CAP, lambda c: c[1].pop("target")),
                  "not every row .*candidate, target, captions"),
    "no queries": (lambda f: write(f / CAP, []), "cap.dress.val.json holds no query"),
    "torn captions": (lambda f: write(f / CAP, '[{"target": "DV'), "val.json is not whole"),
    "torn split": (lambda f: write(f / SPLIT, '["DV0", '), "split.dress.val.json is not whole"),
    "split of numbers": (lambda f: write(f / SPLIT, [1, 2]), "not a list of image names"),
    "empty split": (lambda f: write(f / SPLIT, []), "not a list of image names"),
    "an image twice": (lambda f: edit(f / SPLIT, lambda c: c.append("DV3")),
                       "1 images are in .* more than once: DV3"),
    "no captions": (lambda f: (f / CAP).unlink(), "no .*cap.dress.val.json .there are: "
                    "cap.dress.train.json, .*fashionIQ_dataset/ holds captions/"),
    "no split": (lambda f: (f / SPLIT).unlink(), "no .*split.dress.val.json"),
    "no folder": (lambda f: shutil.rmtree(f / "image_splits"),
                  "no image_splits/ in .*fashionIQ_dataset/ holds captions/"),
}


@pytest.mark.parametrize("damage", FASHIONIQ_DAMAGE)
def test_a_damaged_fashioniq_is_told(fashioniq, tmp_path, damage):
    change, told = FASHIONIQ_DAMAGE[damage]
    change(fashioniq)
    with pytest.raises(DatasetError, match=told):
        read_composed(tmp_path, "fashioniq", "val", types="dress")


def test_a_torn_neighbour_does_not_hide_the_fault(fashioniq, tmp_path):
    shutil.copy(fashioniq / "captions/cap.toptee.val.json", fashioniq / CAP)
    write(fashioniq / "image_splits/split.shirt.val.json", "[")
    with pytest.raises(DatasetError, match="split.toptee.val.json holds them"):
        read_composed(tmp_path, "fashioniq", "val", types="dress")


def member(row, old, new):
    def change(content):
        own = content[row]["img_set"]["members"]
        own[own.index(f"val-{old}-img0")] = f"val-{new}-img0"
    return change


CIRR_DAMAGE = {
    "group without reference": (member(0, 0, 6), "1 of the 3 queries .* reference that is not in "
                                "their group: 10"),
    "group without target": (member(1, 1, 0), "1 of the 3 queries .* target that is not in their "
                             "group: 11"),
    "group with one twice": (member(2, 4, 3), "group that is not 6 different images: 12"),
    "group of five": (lambda c: c[2]["img_set"]["members"].remove("val-0-img0"),
                      "group that is not 6 different images: 12"),
    "group of seven": (lambda c: c[2]["img_set"]["members"].append("val-0-img0"),
                       "group that is not 6 different images: 12"),
    "unknown member": (member(2, 4, 44), "1 images .* are not in .*: val-44-img0"),
    "no group": (lambda c: c[0].update(img_set={}), "'img_set' has members"),
    "target is reference": (lambda c: c[0].update(target_hard="val-0-img0"),
                            "have their reference as target.*: 10"),
    "pair twice": (lambda c: c[0].update(pairid=12), "1 pair ids .* more than once: 12"),
    "empty caption": (lambda c: c[1].update(caption=" "), "1 of the 3 .*empty caption: 11"),
    "no caption": (lambda c: c[1].update(caption=None), "not names with 1 caption: 11"),
    "queries of test1": (lambda c: c[1].pop("target_hard"), "not every row .*target_hard"),
    "other rows": (lambda c: c.insert(0, "pairid"), "not every row .*pairid"),
}


@pytest.mark.parametrize("damage", CIRR_DAMAGE)
def test_a_damaged_cirr_is_told(cirr, tmp_path, damage):
    change, told = CIRR_DAMAGE[damage]
    edit(cirr / "cirr/captions/cap.rc2.val.json", change)
    with pytest.raises(DatasetError, match=told):
        read_composed(tmp_path, "cirr", "val")


def test_cirrs_training_texts_are_not_searched_nor_its_targets_groups(cirr, tmp_path):
    edit(cirr / "cirr/captions/cap.rc2.train.json",
         lambda c: c[0].update(caption=" ", target_hard="train-6-img0"))
    assert read_composed(tmp_path, "cirr", "train").counts["empty captions"] == 1


def test_one_text_of_cirrs_test_is_known_to_be_empty(cirr, tmp_path):
    file = cirr / "cirr/captions/cap.rc2.test1.json"
    edit(file, lambda c: c[0].update(caption=" ", pairid=27098))
    assert read_composed(tmp_path, "cirr", "test1").counts["empty captions"] == 1
    edit(file, lambda c: c[1].update(caption=" "))
    with pytest.raises(DatasetError, match="1 of the 3 .*empty caption: 11"):
        read_composed(tmp_path, "cirr", "test1")


def test_paths_of_cirr_are_texts(cirr, tmp_path):
    write(cirr / "cirr/image_splits/split.rc2.val.json", {"val-0-img0": 3})
    with pytest.raises(DatasetError, match="nor of names and their paths"):
        read_composed(tmp_path, "cirr", "val")


@pytest.mark.parametrize(("asked", "told"), [
    ({"name": "fashion"}, "no composed set 'fashion': choose fashioniq, cirr, doodles_f"),
    ({"split": "test"}, "fashioniq has no split 'test': choose train, val"),
    ({"name": "cirr", "split": "dev"}, "cirr has no split 'dev': choose train, val, test1"),
    ({"types": ("dress", "skirt")}, "fashioniq has no type 'skirt': choose dress, shirt"),
    ({"name": "cirr", "types": "dress"}, "cirr has no type 'dress': only FashionIQ has"),
    ({}, "measured a type at a time.*choose one of dress, shirt, toptee"),
    ({"types": "dress", "gallery": "val"}, "val has no gallery 'val': choose split or VAL"),
    ({"split": "train", "gallery": "VAL"}, "train has no gallery 'VAL': choose split "),
    ({"name": "cirr", "gallery": "VAL"}, "cirr val has no gallery 'VAL': choose split "),
    ({"types": "dress"}, "no image_splits/ in .*fashionIQ_dataset/ holds"),
    ({"name": "cirr"}, "no cirr/image_splits/ in .*cirr_dataset/ holds"),
    ({"name": "doodles_cirr"}, "no cirr/image_splits/ in .*doodles_cirr.*data_prep.doodles"),
])
def test_what_is_not_there_is_said_with_what_is(tmp_path, asked, told):
    asked = {"name": "fashioniq", "split": "val"} | asked
    with pytest.raises(DatasetError, match=told):
        read_composed(tmp_path, **asked)


# doodles and the official files


def test_doodles_twins_read_alike(doodles):
    train = read_composed(doodles, "doodles_fashioniq", "train")
    val = [read_composed(doodles, "doodles_fashioniq", "val", types=kind) for kind in TYPES]
    for found in (train, *val):
        assert found.kind == "demo" and len(found) and found.members is None
        assert (found.reference != found.target).all()
        assert all(found.images.path(row).is_file() for row in range(len(found.images)))
    assert not {image for own in val for image in own.names} & set(train.names)


@pytest.mark.parametrize("split", ["train", "val", "test1"])
def test_doodles_of_cirr_have_groups(doodles, split):
    found = read_composed(doodles, "doodles_cirr", split)
    assert found.kind == "demo" and found.members.shape == (len(found), 4)  # tiny ones: of four
    assert ((found.members == found.reference[:, None]).sum(1) == 1).all()
    assert split == "test1" or ((found.members == found.target[:, None]).sum(1) == 1).all()


def test_doodles_groups_are_of_one_size(tmp_path):
    base = make_cirr(tmp_path / "doodles_cirr/cirr_dataset")
    assert read_composed(tmp_path, "doodles_cirr", "val").members.shape == (3, 6)
    edit(base / "cirr/captions/cap.rc2.val.json", CIRR_DAMAGE["group of five"][0])
    with pytest.raises(DatasetError, match="not 6 different images: 12"):
        read_composed(tmp_path, "doodles_cirr", "val")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The official annotations, with an empty file for every image."""
    if not REAL.is_dir():
        pytest.skip(f"no official annotations: {REAL} is not there")
    root = tmp_path_factory.mktemp("official")
    (root / "cirr_dataset").mkdir()
    (root / "cirr_dataset/cirr").symlink_to(REAL / "cirr")
    (root / "fashionIQ_dataset").mkdir()
    for part in ("captions", "image_splits"):
        (root / "fashionIQ_dataset" / part).symlink_to(REAL / "fashioniq" / part)
    places = {f"fashionIQ_dataset/images/{name}.png" for file in REAL.glob(
        "fashioniq/image_splits/*.val.json") for name in json.loads(file.read_text())}
    places |= {f"fashionIQ_dataset/images/{name}.png" for name in
               json.loads((REAL / "fashioniq/image_splits/split.dress.train.json").read_text())}
    for split in ("val", "test1"):
        file = REAL / f"cirr/image_splits/split.rc2.{split}.json"
        places |= {f"cirr_dataset/{place}" for place in json.loads(file.read_text()).values()}
    for folder in {Path(place).parent for place in places}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for place in places:
        (root / place).touch()
    yield root
    shutil.rmtree(root)


@pytest.mark.parametrize(("kind", "n", "images", "small", "empty"), [
    ("dress", 2_017, 3_817, 2_628, 0), ("shirt", 2_038, 6_346, 3_089, 1),
    ("toptee", 1_961, 5_373, 2_902, 2)])
def test_official_fashioniq(real, kind, n, images, small, empty):
    found = read_composed(real, "fashioniq", "val", types=kind)
    assert found.kind == "full" and len(found.images) == images and len(found) == n
    assert found.counts["empty captions"] == empty
    file = REAL / f"fashioniq/captions/cap.{kind}.val.json"
    for row, query in enumerate(json.loads(file.read_text())):
        assert found.names[found.reference[row]] == query["candidate"]
        assert found.names[found.target[row]] == query["target"]
    own = read_composed(real, "fashioniq", "val", types=kind, gallery="VAL")
    assert len(own.images) == small and len(own) == n and own.kind == "subset"


def test_official_fashioniq_train(real):
    found = read_composed(real, "fashioniq", "train", types="dress")
    assert (len(found), len(found.images), found.kind) == (5_985, 11_452, "full")
    assert found.counts["empty captions"] == 1
    with pytest.raises(DatasetError, match="of the 45,429 images of fashioniq train are not in"):
        read_composed(real, "fashioniq", "train")


@pytest.mark.parametrize(("split", "n", "images"), [("val", 4_181, 2_297), ("test1", 4_148, 2_315)])
def test_official_cirr(real, split, n, images):
    found = read_composed(real, "cirr", split)
    assert (found.kind, len(found), len(found.images)) == ("full", n, images)
    assert found.members.shape == (n, 6) and (found.target is None) == (split == "test1")
    rows = json.loads((REAL / f"cirr/captions/cap.rc2.{split}.json").read_text())
    for row, query in enumerate(rows):
        assert found.pair_ids[row] == str(query["pairid"])
        assert found.names[found.reference[row]] == query["reference"]
        assert [found.names[i] for i in found.members[row]] == query["img_set"]["members"]
        assert split == "test1" or found.names[found.target[row]] == query["target_hard"]


def test_official_captions_of_one_type_with_the_split_of_another(real, tmp_path):
    base = tmp_path / "fashionIQ_dataset"
    for part, kind in (("captions/cap", "shirt"), ("image_splits/split", "dress")):
        write(base / f"{part}.dress.val.json",
              (REAL / f"fashioniq/{part}.{kind}.val.json").read_text())
    with pytest.raises(DatasetError, match="3,0[0-9]+ images of .* are not in"):
        read_composed(tmp_path, "fashioniq", "val", types="dress")


def test_official_counts_are_the_published_ones():
    val = composed.N_OFFICIAL["fashioniq"]["val"]
    assert [val[kind] for kind in TYPES] == [(2_017, 3_817), (2_038, 6_346), (1_961, 5_373)]
    cirr = composed.N_OFFICIAL["cirr"]
    assert sum(part[""][0] for part in cirr.values()) == 36_554  # the CIRR paper's pairs
