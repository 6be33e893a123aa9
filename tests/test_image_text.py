"""Captioned sets in made-up and real files, ranks both ways against loops and golden numbers."""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from replication import captioned, data, image_text
from replication.captioned import read_captioned
from replication.data import DatasetError
from replication.image_text import ImageTextRanks, image_text_ranks
from replication.metrics import positive_ranks
from replication.retrieval import cosine_scores
from replication.transforms import Preprocess

GOLDEN = Path(__file__).parent / "golden"
SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data"
FLICKR8K, COCO = SAMPLE / "flickr8k", SAMPLE / "annotations" / "coco"
SPLITS = {"train": [1, 2, 3], "restval": [4, 5], "dev": [7, 6], "test": [11, 8, 10, 9]}
SIZES = {"coco": {part: len(own) for part, own in SPLITS.items()},
         "flickr30k": {"train": 3, "dev": 2, "test": 4},
         "flickr8k": {"train": 3, "dev": 2, "test": 4}}


# made-up sets: image i has captions 10 i to 10 i + 4, image 10 a sixth


def texts_of(image: int) -> list[str]:
    return [f" Image {image},  caption {k} ." for k in range(6 if image == 10 else 5)]


def file_of(image: int) -> str:
    return f"COCO_{'train' if image < 4 else 'val'}2014_{image:012d}.jpg"


def write(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    write(file, content)


def draw(folder: Path, names) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 6), "red").save(folder / name)


def make_coco(root: Path) -> Path:
    folder = root / "coco"
    for year, images in (("train", range(1, 4)), ("val", range(4, 12))):
        rows = [{"id": 10 * i + k, "image_id": i, "caption": text} for i in images
                for k, text in enumerate(texts_of(i))]
        files = [{"id": i, "file_name": file_of(i)} for i in images]
        write(folder / f"annotations/captions_{year}2014.json",
              {"images": files, "annotations": rows[::-1]})
        draw(folder / f"images/{year}2014", map(file_of, images))
    for part, images in SPLITS.items():
        ids = [10 * i + k for i in images for k in range(len(texts_of(i)))]
        np.save(folder / f"annotations/coco_{part}_ids.npy", np.array(ids))
    return folder


def make_karpathy(root: Path, name: str, splits=SPLITS) -> Path:
    folder = root / name
    rows = [{"filename": file_of(i), "split": "val" if part == "dev" else part,
             "sentences": [{"raw": text, "tokens": []} for text in texts_of(i)]}
            for part, images in splits.items() for i in images]
    write(folder / f"dataset_{name}.json", {"images": rows, "dataset": name})
    draw(folder / "images", (row["filename"] for row in rows))
    return folder


def make_flickr8k(root: Path) -> Path:
    folder = root / "flickr8k"
    lines = [f"{i}.jpg#{k}\t{text}\n" for i in range(1, 12) for k, text in enumerate(texts_of(i))]
    write(folder / "captions.token.txt", "".join(lines[::-1]))
    for part in ("train", "dev", "test"):
        write(folder / f"{part}_images.txt", "".join(f"{i}.jpg\n" for i in SPLITS[part]))
    draw(folder / "images", (f"{i}.jpg" for i in range(1, 12)))
    return folder


MAKERS = {"coco": make_coco, "flickr8k": make_flickr8k,
          "flickr30k": lambda root: make_karpathy(
              root, "flickr30k", {p: SPLITS[p] for p in ("train", "dev", "test")})}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes a set by name, whose official splits are as small; returns its folder."""
    monkeypatch.setattr(captioned, "N_IMAGES", SIZES)
    return lambda name: MAKERS[name](tmp_path)


# reading


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_images_and_each_ones_captions_come_in_the_lists_order(made, tmp_path, name, split):
    made(name)
    found, images = read_captioned(tmp_path, name, split), SPLITS[split]
    stems = [f"{i}.jpg" if name == "flickr8k" else file_of(i) for i in images]
    assert [found.images.path(row).name for row in range(len(images))] == stems
    assert all(found.images.path(row).is_file() for row in range(len(images)))
    wanted = [text for i in images for text in texts_of(i)[:5]]
    assert list(found.texts) == wanted  # a sixth caption does not count, blanks stay
    assert found.owner.tolist() == [row for row in range(len(images)) for _ in range(5)]
    assert found.captions_of(1) == tuple(wanted[5:10])
    assert found.counts["images"] == len(images) and found.counts["captions"] == len(wanted)
    assert found.kind == "full" and (found.name, found.split) == (name, split)


def test_val_is_dev_and_two_parts_join(made, tmp_path):
    made("coco")
    assert read_captioned(tmp_path, "coco", "val").texts == \
        read_captioned(tmp_path, "coco", "dev").texts
    joined = read_captioned(tmp_path, "coco", "train+restval")
    assert len(joined.images) == 5 and joined.kind == "full"
    assert joined.captions_of(3)[0] == texts_of(4)[0] and joined.owner[-1] == 4


def test_without_id_arrays_karpathys_file_is_the_split(made, tmp_path):
    arrays = made("coco")
    by_ids = {part: read_captioned(tmp_path, "coco", part) for part in SPLITS}
    for file in arrays.glob("annotations/*.npy"):
        file.unlink()
    make_karpathy(tmp_path, "coco")
    (arrays / "dataset_coco.json").rename(arrays / "annotations/dataset_coco.json")
    for part, wanted in by_ids.items():
        found = read_captioned(tmp_path, "coco", part)
        assert (found.texts, found.kind) == (wanted.texts, "full")
        assert "Karpathy" in found.protocol and "VSE++" in wanted.protocol
        assert [Path(f).name for f in found.images.files] == \
            [Path(f).name for f in wanted.images.files]


@pytest.mark.parametrize("place", ["images", "val2014"])
def test_images_lie_together_or_as_the_archives_unpack(made, tmp_path, place):
    folder = made("coco")
    before = read_captioned(tmp_path, "coco")
    (folder / "images/val2014").rename(folder / "moved")
    for folder_left in ("images/train2014", "images"):
        for file in (folder / folder_left).glob("*.jpg"):
            file.unlink()
        (folder / folder_left).rmdir()
    (folder / "moved").rename(folder / place)
    found = read_captioned(tmp_path, "coco")
    assert {Path(file).parent.name for file in found.images.files} == {place}
    assert found.manifest == before.manifest


def test_flickr8k_is_found_under_the_archives_names(made, tmp_path):
    folder = made("flickr8k")
    wanted = read_captioned(tmp_path, "flickr8k")
    (folder / "captions.token.txt").rename(folder / "Flickr8k.token.txt")
    (folder / "test_images.txt").rename(folder / "Flickr_8k.testImages.txt")
    (folder / "images").rename(folder / "Flicker8k_Dataset")
    found = read_captioned(tmp_path, "flickr8k")
    assert (found.texts, found.manifest) == (wanted.texts, wanted.manifest)


def test_lines_of_windows_are_lines(made, tmp_path):
    folder = made("flickr8k")
    wanted = read_captioned(tmp_path, "flickr8k").texts
    for file in folder.glob("*.txt"):
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_captioned(tmp_path, "flickr8k").texts == wanted


def test_manifest_is_of_names_sizes_and_captions(made, tmp_path):
    folder = made("flickr8k")
    seen = {read_captioned(tmp_path, "flickr8k").manifest}
    write(folder / "test_images.txt", "8.jpg\n11.jpg\n10.jpg\n9.jpg\n")
    seen.add(read_captioned(tmp_path, "flickr8k").manifest)
    text = (folder / "captions.token.txt").read_text()
    write(folder / "captions.token.txt", text.replace("Image 8,  caption 0", "Another"))
    seen.add(read_captioned(tmp_path, "flickr8k").manifest)
    (folder / "images/8.jpg").write_bytes(b"larger" * 1000)
    seen.add(read_captioned(tmp_path, "flickr8k").manifest)
    for file in ("captions.token.txt", "test_images.txt"):
        write(folder / file, (folder / file).read_text().replace("8.jpg", "88.jpg"))
    (folder / "images/8.jpg").rename(folder / "images/88.jpg")
    seen.add(read_captioned(tmp_path, "flickr8k").manifest)
    assert len(seen) == 5 and all(manifest.startswith("listing:") for manifest in seen)


# counts, subsets


@pytest.mark.parametrize("name", MAKERS)
def test_other_counts_than_the_official_say_both(made, tmp_path, monkeypatch, name):
    made(name)
    monkeypatch.setitem(SIZES[name], "test", 5)
    with pytest.raises(DatasetError, match="test has 4 images with 20 captions, .* 5 with 25"):
        read_captioned(tmp_path, name)
    found = read_captioned(tmp_path, name, allow_partial=True)
    assert found.kind == "subset" and len(found.images) == 4 and "(subset)" in str(found)
    monkeypatch.setitem(SIZES[name], "test", 4)
    assert read_captioned(tmp_path, name, allow_partial=True).kind == "full"


def test_published_test_sets_have_their_counts():
    published = {"coco": 5_000, "flickr30k": 1_000, "flickr8k": 1_000}
    assert {name: own["test"] for name, own in captioned.N_IMAGES.items()} == published


@pytest.mark.parametrize("name", MAKERS)
def test_a_missing_image_is_named_or_left_out_knowingly(made, tmp_path, name):
    made(name)
    whole = read_captioned(tmp_path, name)
    gone = whole.images.path(1)
    gone.unlink()
    with pytest.raises(DatasetError, match=f"1 of the 4 images .*: {gone.name}. .*allow_partial"):
        read_captioned(tmp_path, name)
    found = read_captioned(tmp_path, name, allow_partial=True)
    assert found.kind == "subset" and found.images.files == \
        tuple(f for f in whole.images.files if not f.endswith(gone.name))
    assert found.texts == whole.texts[:5] + whole.texts[10:]
    assert found.owner.tolist() == whole.owner[:15].tolist()
    for file in gone.parent.glob("*.jpg"):
        file.unlink()
    with pytest.raises(DatasetError, match="4 of the 4 images"):
        read_captioned(tmp_path, name, allow_partial=True)


def test_all_missing_images_are_counted_and_twelve_named(made, tmp_path):
    folder = made("flickr8k")
    names = [f"a{i:02d}.jpg" for i in range(40)]
    lines = [f"{name}#{k}\ttext\n" for name in names for k in range(5)]
    write(folder / "captions.token.txt", "".join(lines))
    write(folder / "test_images.txt", "\n".join(names))
    with pytest.raises(DatasetError) as told:
        read_captioned(tmp_path, "flickr8k")
    assert "40 of the 40 images" in str(told.value) and "a11.jpg and 28 more" in str(told.value)
    assert "a12.jpg" not in str(told.value)


def test_few_captions_are_refused_or_a_subset(made, tmp_path):
    folder = made("coco")
    np.save(folder / "annotations/coco_test_ids.npy", [*range(80, 85), *range(90, 93)])
    with pytest.raises(DatasetError, match="1 of the 2 images .* fewer than 5 .*000009.jpg"):
        read_captioned(tmp_path, "coco")
    found = read_captioned(tmp_path, "coco", allow_partial=True)
    assert found.owner.tolist() == [0] * 5 + [1] * 3 and found.kind == "subset"


# damage


def ids(numbers):
    return lambda folder: np.save(folder / "annotations/coco_test_ids.npy", numbers)


def captions_of_train(folder):
    (folder / "annotations/captions_train2014.json").replace(
        folder / "annotations/captions_val2014.json")


VAL = "annotations/captions_val2014.json"
COCO_DAMAGE = {
    "unknown ids": (ids([*range(80, 85), 999, 1000]), "2 of the 7 ids .*: 999, 1000. .*val2014_"),
    "image without a file": (lambda f: edit(f / VAL, lambda c: c["images"].pop()),
                             "5 of the 21 ids .* 110, 111"),
    "no image": (lambda f: edit(f / VAL, lambda c: c.update(images=[])), "21 of the 21 ids"),
    "captions of train": (captions_of_train,
                          "21 of the 21 ids .* 9 more.*is COCO_train2014_0+1.jpg"),
    "an id twice": (ids([80, 81, 82, 83, 84, 80]), "1 ids are in .* more than once: 80"),
    "captions apart": (ids([80, 81, 90, 91, 92, 93, 94, 82, 83, 84]),
                       "1 of the 3 images .* not together: .*000008.jpg"),
    "floats": (ids([80.0, 81.0]), "float64 .*not caption ids"),
    "a matrix": (ids([[80, 81]]), "not caption ids"),
    "torn array": (lambda f: (f / "annotations/coco_test_ids.npy").write_bytes(b"\x93NUM"),
                   "coco_test_ids.npy is not whole"),
    "empty array": (lambda f: (f / "annotations/coco_test_ids.npy").write_bytes(b""),
                    "coco_test_ids.npy is not whole"),
    "objects": (ids(np.array([{}], object)), "coco_test_ids.npy is not whole"),
    "no such array": (lambda f: (f / "annotations/coco_test_ids.npy").unlink(),
                      "no .*coco_test_ids.npy .there are: coco_dev_ids.npy, .*captions_"),
    "no captions": (lambda f: (f / VAL).unlink(), "no .*captions_val2014.json.*captions_"),
    "torn captions": (lambda f: (f / VAL).write_text('{"images": ['), "val2014.json is not whole"),
    "no annotations": (lambda f: write(f / VAL, {"images": []}), "'annotations' has .*caption"),
    "instances": (lambda f: write(f / VAL, {"images": [], "annotations": [{"id": 1}]}),
                  "'annotations' has .*another file"),
    "a list": (lambda f: write(f / VAL, [1]), "'annotations' has .*another file"),
}


@pytest.mark.parametrize("damage", COCO_DAMAGE)
def test_a_damaged_coco_is_told(made, tmp_path, damage):
    change, told = COCO_DAMAGE[damage]
    change(made("coco"))
    with pytest.raises(DatasetError, match=told):
        read_captioned(tmp_path, "coco")


def repeat(content):
    content["images"].append(content["images"][-1])


def without_raw(content):
    del content["images"][-1]["sentences"][2]["raw"]


KARPATHY_DAMAGE = {
    "of COCO": (lambda c: c.update(dataset="coco"), "is of 'coco', not of 'flickr30k'"),
    "no test": (lambda c: c.update(images=c["images"][:5]), "no split 'test'; it has train, val"),
    "an image twice": (repeat, "1 of the 5 images .* more than once"),
    "no raw text": (without_raw, "has raw .*another file"),
    "no captions": (lambda c: c["images"][-1].update(sentences=[]), "fewer than 5"),
    "other rows": (lambda c: c.update(images=[{"split": "test"}]), "split, filename, sentences"),
}


@pytest.mark.parametrize("damage", KARPATHY_DAMAGE)
def test_a_damaged_karpathy_file_is_told(made, tmp_path, damage):
    change, told = KARPATHY_DAMAGE[damage]
    edit(made("flickr30k") / "dataset_flickr30k.json", change)
    with pytest.raises(DatasetError, match=told):
        read_captioned(tmp_path, "flickr30k")


FLICKR8K_DAMAGE = {
    "captions of Flickr30K": ({"captions.token.txt": "1.jpg#0\ta\n"},
                              "4 of the 4 images .* no caption .*: 11.jpg, 8.jpg"),
    "no tab": ({"captions.token.txt": "1.jpg#0 a\n"}, "'1.jpg#0 a' is not <image>#<k>, tab"),
    "no caption": ({"captions.token.txt": "1.jpg#0\n"}, "'1.jpg#0' is not <image>#<k>, tab"),
    "no number": ({"captions.token.txt": "1.jpg\ta\n"}, "is not <image>#<k>, tab"),
    "an image twice": ({"test_images.txt": "8.jpg\n9.jpg\n8.jpg\n"}, "more than once.*8.jpg"),
    "a picture for a list": ({"test_images.txt": b"\xff\xd8\xff"}, "test_images.txt is not whole"),
    "an empty list": ({"test_images.txt": "\n"}, "0 images .* official split 4"),
}


@pytest.mark.parametrize("damage", FLICKR8K_DAMAGE)
def test_a_damaged_flickr8k_is_told(made, tmp_path, damage):
    changed, told = FLICKR8K_DAMAGE[damage]
    folder = made("flickr8k")
    for name, content in changed.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError, match=told):
        read_captioned(tmp_path, "flickr8k")


@pytest.mark.parametrize(("name", "told"), [
    ("coco", "dataset_coco.json.*captions_.*coco_<split>_ids.npy"), ("flickr8k", "token.txt"),
    ("flickr30k", "dataset_flickr30k.json"), ("doodles", "python -m data_prep.doodles"),
    ("coco2017", "choose coco, flickr30k, flickr8k, doodles")])
def test_an_absent_set_says_what_it_is_made_of(tmp_path, name, told):
    with pytest.raises(DatasetError, match=told):
        read_captioned(tmp_path, name)


# doodles


def test_doodles_are_read_as_coco_is(doodles, own_cache):
    found = read_captioned(doodles, "doodles", "train")
    images, captions = data.read_captions(doodles / "doodles_captions/coco", "train")
    assert found.kind == "demo" and [Path(f).name for f in found.images.files] == \
        list(images.files)
    assert list(found.texts) == [text for group in captions for text in group]
    dev, test = (read_captioned(doodles, "doodles", part) for part in ("dev", "test"))
    assert not set(dev.images.files) & set(test.images.files) and len(test.images) > 4
    pixels = data.cached_pixels(test.images, Preprocess(16), progress=False)
    assert pixels.shape == (len(test.images), 16, 16, 3)


# real files


@pytest.mark.skipif(not FLICKR8K.is_dir(), reason="no ../shared/data here")
def test_real_flickr8k_has_its_counts_and_order():
    found = read_captioned(SAMPLE, "flickr8k")
    assert (len(found.images), len(found.texts), found.kind) == (1_000, 5_000, "full")
    names = (FLICKR8K / "test_images.txt").read_text().split()
    assert [Path(file).name for file in found.images.files] == names
    lines = dict(line.split("\t") for line in
                 (FLICKR8K / "captions.token.txt").read_text().splitlines())
    assert list(found.texts) == [lines[f"{name}#{k}"] for name in names for k in range(5)]
    with pytest.raises(DatasetError, match="5,000 of the 6,000 images of flickr8k train .* more"):
        read_captioned(SAMPLE, "flickr8k", "train")
    part = read_captioned(SAMPLE, "flickr8k", "train", allow_partial=True)
    assert (len(part.images), part.kind) == (1_000, "subset")


@pytest.mark.skipif(not COCO.is_dir(), reason="no ../shared/data here")
def test_real_id_arrays_have_their_counts_and_share_no_caption():
    arrays = {part: np.load(COCO / f"coco_{part}_ids.npy") for part in captioned.N_IMAGES["coco"]}
    assert {part: len(own) for part, own in arrays.items()} == \
        {"train": 413_915, "restval": 152_520, "dev": 25_000, "test": 25_000} == \
        {part: 5 * n for part, n in captioned.N_IMAGES["coco"].items()}
    everything = np.concatenate(list(arrays.values()))
    assert len(np.unique(everything)) == len(everything)


@pytest.mark.skipif(not COCO.is_dir(), reason="no ../shared/data here")
def test_real_coco_captions_lie_together(tmp_path):
    """captions_val2017.json holds the captions of 593 of the 5,000 test images."""
    notes = json.loads((COCO / "captions_val2017.json").read_text())
    image_of = {note["id"]: note["image_id"] for note in notes["annotations"]}
    groups = np.load(COCO / "coco_test_ids.npy").reshape(-1, 5).tolist()
    known = [group for group in groups if set(group) & set(image_of)]
    assert len(groups) == 5_000 and len(known) == 593
    assert all(len({image_of[i] for i in group}) == 1 for group in known)

    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/images").mkdir()
    (tmp_path / "coco" / VAL).symlink_to(COCO / "captions_val2017.json")
    for group in known:
        (tmp_path / f"coco/images/{image_of[group[0]]:012d}.jpg").touch()
    np.save(tmp_path / "coco/annotations/coco_test_ids.npy", np.concatenate(known))
    with pytest.raises(DatasetError, match="593 images with 2,965 captions.* 5,000 with 25,000"):
        read_captioned(tmp_path, "coco")
    found = read_captioned(tmp_path, "coco", allow_partial=True)
    text_of = {note["id"]: note["caption"] for note in notes["annotations"]}
    assert list(found.texts) == [text_of[i] for group in known for i in group]
    assert [Path(file).stem for file in found.images.files] == \
        [f"{image_of[group[0]]:012d}" for group in known]

    np.save(tmp_path / "coco/annotations/coco_test_ids.npy", np.load(COCO / "coco_test_ids.npy"))
    with pytest.raises(DatasetError, match="22,035 of the 25,000 ids .* and 22,023 more"):
        read_captioned(tmp_path, "coco", allow_partial=True)


# ranks


def slow_ranks(scores, owner) -> tuple[list[int], list[int]]:
    """One query at a time: a stable sort of the whole gallery, then the best right place."""
    def first(row, right) -> int:
        order = sorted(range(len(row)), key=lambda j: -row[j])
        return 1 + min(order.index(j) for j in right)

    rows = scores.tolist()
    return ([first(row, [j for j, o in enumerate(owner) if o == i]) for i, row in enumerate(rows)],
            [first([row[j] for row in rows], [o]) for j, o in enumerate(owner)])


@pytest.fixture
def tied():
    """Signs in 16 dimensions: cosines are exact multiples of 1/8, so nearly all tie."""
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(23).repeat_interleave(torch.arange(23) % 5 + 1)
    images, texts = (torch.randint(0, 2, (n, 16), generator=generator) * 2.0 - 1
                     for n in (23, len(owner)))
    return images, texts, owner


def drawn(n: int = 40, noise: float = 2.0, dim: int = 32):
    generator = torch.Generator().manual_seed(1)
    images, owner = torch.randn(n, dim, generator=generator), torch.arange(n).repeat_interleave(5)
    return images, images[owner] + noise * torch.randn(5 * n, dim, generator=generator), owner


@pytest.mark.parametrize("chunk", [7, 512])
def test_recall_is_the_papers(chunk):
    c = json.loads((GOLDEN / "metrics2.json").read_text())["itm"]
    g = np.random.default_rng(zlib.crc32(b"metrics:itm"))
    images = g.standard_normal((c["n_images"], c["dim"])).astype(np.float32)
    noise = g.standard_normal((c["n_images"] * c["captions"], c["dim"]))
    texts = (np.repeat(images, c["captions"], 0) + c["noise"] * noise).astype(np.float32)
    owner = np.repeat(np.arange(c["n_images"]), c["captions"])
    found = image_text_ranks(*map(torch.from_numpy, (images, texts)), owner, chunk=chunk).metrics()
    found["mean_R1"] = found.pop("mean_R@1")
    assert len(found) == 7
    for name, value in found.items():
        assert 100 * value == pytest.approx(c[name], rel=1e-6), name


@pytest.mark.parametrize("chunk", [1, 4, 7, 22, 23, 100])
def test_ties_rank_as_a_stable_sort_does(tied, chunk):
    images, texts, owner = tied
    scores = cosine_scores(images, texts)
    assert len(scores.unique()) < 20
    found = image_text_ranks(images, texts, owner, chunk=chunk)
    to_text, to_image = slow_ranks(scores, owner.tolist())
    assert found.image_to_text.tolist() == to_text and found.text_to_image.tolist() == to_image


@pytest.mark.parametrize("chunk", [3, 40])
def test_counting_is_the_librarys_sort(chunk):
    images, texts, owner = drawn(noise=4.0)
    scores, relevance = cosine_scores(images, texts), torch.arange(40)[:, None] == owner
    found = image_text_ranks(images, texts, owner, chunk=chunk)
    for ranks, wanted in ((found.image_to_text, positive_ranks(scores, relevance)),
                          (found.text_to_image, positive_ranks(scores.T, relevance.T))):
        assert ranks.tolist() == wanted.ranks[:, 0].tolist() and len(ranks.unique()) > 5


def test_a_collapsed_model_is_chance_not_perfect():
    images, owner = torch.ones(50, 16), torch.arange(50).repeat_interleave(5)
    found = image_text_ranks(images, torch.ones(250, 16), owner, chunk=16).metrics()
    assert found["i2t_R@1"] == found["t2i_R@1"] == 1 / 50


def test_every_pair_is_scored_once_a_block_at_a_time(monkeypatch):
    sizes, real = [], image_text.cosine_scorer

    def counted(query, gallery):
        scorer = real(query, gallery)
        return lambda rows: sizes.append(scores := scorer(rows)) or scores

    monkeypatch.setattr(image_text, "cosine_scorer", counted)
    image_text_ranks(*drawn(), chunk=16)
    assert sum(scores.numel() for scores in sizes) == 40 * 200
    assert max(scores.numel() for scores in sizes) == 16 * 80
    assert {scores.dtype for scores in sizes} == {torch.float32}


def test_scores_are_float32_of_half_embeddings_too():
    images, texts, owner = drawn(200, 3.0)
    half = [x.half() for x in (images, texts)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = image_text_ranks(*half, owner)
    wanted = image_text_ranks(*(x.float() for x in half), owner)
    assert torch.equal(found.image_to_text, wanted.image_to_text)
    assert torch.equal(found.text_to_image, wanted.text_to_image)


def test_the_order_of_images_does_not_matter_without_ties():
    images, texts, owner = drawn()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    columns = (5 * order[:, None] + torch.arange(5)).flatten()
    found, moved = (image_text_ranks(*x, owner, chunk=16) for x in
                    ((images, texts), (images[order], texts[columns])))
    assert torch.equal(moved.image_to_text, found.image_to_text[order])
    assert torch.equal(moved.text_to_image, found.text_to_image[columns])
    assert moved.metrics() == pytest.approx(found.metrics())


def test_uneven_captions_each_count_as_a_query(tied):
    found = image_text_ranks(*tied)
    for k in (1, 5, 10):
        assert found.metrics()[f"t2i_R@{k}"] == \
            pytest.approx((found.text_to_image <= k).double().mean().item())
        assert found.metrics()[f"i2t_R@{k}"] == \
            pytest.approx((found.image_to_text <= k).double().mean().item())


def test_metrics_of_given_ranks():
    ranks = ImageTextRanks(torch.tensor([1, 6, 2, 11]), torch.tensor([1, 1, 5, 10, 12, 1, 1, 1]),
                           torch.arange(4).repeat_interleave(2))
    assert ranks.metrics() == {"i2t_R@1": 0.25, "i2t_R@5": 0.5, "i2t_R@10": 0.75,
                               "t2i_R@1": 0.625, "t2i_R@5": 0.75, "t2i_R@10": 0.875,
                               "mean_R@1": 0.4375}
    assert ranks.median_ranks() == {"i2t": 4.0, "t2i": 1.0}


# folds


def test_folds_are_consecutive_and_their_mean_counts():
    images, texts, owner = drawn(50, noise=7.0)
    found = image_text_ranks(images, texts, owner, n_folds=5, chunk=4)
    folds = [image_text_ranks(images[10 * i:10 * i + 10], texts[50 * i:50 * i + 50], owner[:50])
             for i in range(5)]
    assert torch.equal(found.image_to_text, torch.cat([f.image_to_text for f in folds]))
    assert torch.equal(found.text_to_image, torch.cat([f.text_to_image for f in folds]))
    for name, value in found.metrics().items():
        own = [fold.metrics()[name] for fold in folds]
        assert value == pytest.approx(np.mean(own)) and (len(set(own)) > 1 or value == 1), name
    assert found.median_ranks() != replace(found, n_folds=1).median_ranks()
    for side, value in found.median_ranks().items():
        assert value == pytest.approx(np.mean([fold.median_ranks()[side] for fold in folds]))
    whole = image_text_ranks(images, texts, owner).metrics()
    assert whole["mean_R@1"] < found.metrics()["mean_R@1"]


@pytest.mark.parametrize("n_folds", [3, 51])
def test_folds_of_different_sizes_are_refused(n_folds):
    with pytest.raises(ValueError, match=f"do not make {n_folds} folds"):
        image_text_ranks(*drawn(50), n_folds=n_folds)


def test_folds_of_different_captions_are_refused(tied):
    images, texts, owner = tied
    with pytest.raises(ValueError, match="22 images with .* do not make 2 folds"):
        image_text_ranks(images[:22], texts[owner < 22], owner[owner < 22], n_folds=2)


# intervals


def test_intervals_hold_the_mean_and_follow_the_seed():
    found = image_text_ranks(*drawn(200, 4.0))
    first, again = found.summary(200, seed=3), found.summary(200, seed=3)
    assert first == again != found.summary(200, seed=4)
    for name, value in found.metrics().items():
        assert first[name]["mean"] == pytest.approx(value)
        assert first[name]["low"] < value < first[name]["high"]


def test_captions_of_one_image_are_not_independent_queries():
    """All five of an image right or all wrong: the error is that of the images."""
    n, right = 400, torch.arange(400) % 2 == 0
    ranks = torch.where(right, 1, 99)
    owner = torch.arange(n).repeat_interleave(5)
    found = ImageTextRanks(ranks, ranks[owner], owner).summary(2000)
    for name in ("i2t_R@1", "t2i_R@1", "mean_R@1"):
        width = found[name]["high"] - found[name]["low"]
        assert width == pytest.approx(3.92 * (0.25 / n) ** 0.5, rel=0.1), name


# errors


def test_wrong_input_is_named():
    images, texts, owner = drawn()
    for row, what in ((13, "image"), (139, "caption")):
        bad = [images.clone(), texts.clone()]
        bad[what == "caption"][row, 3] = torch.nan
        with pytest.raises(ValueError, match=f"embedding of {what} {row} is NaN"):
            image_text_ranks(*bad, owner)
    for wrong in (owner.flip(0), owner + 1, owner.clamp(max=38), owner.clamp(min=1)):
        with pytest.raises(ValueError, match="owner must ascend"):
            image_text_ranks(images, texts, wrong)
    for broken in ((images, texts[:-1], owner), (images[0], texts, owner)):
        with pytest.raises(ValueError, match="two matrices, and a row for each caption"):
            image_text_ranks(*broken)
    with pytest.raises(ValueError, match="differ"):
        image_text_ranks(images[:, :3], texts, owner)
    for options in ({"chunk": 0}, {"n_folds": 0}):
        with pytest.raises(ValueError, match="must be 1 or more"):
            image_text_ranks(images, texts, owner, **options)
    with pytest.raises(ValueError, match="0 images"):
        image_text_ranks(images[:0], texts[:0], owner[:0])
