"""CIRCO: made-up sets in the prepared and in the authors' layout, its metric, its submission."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from replication import circo
from replication.circo import circo_metrics, read_circo, write_submission
from replication.data import DatasetError

IDS = [581_929 - 7 * i for i in range(60)]  # the gallery is not in the order of its ids


def write(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    write(file, content)


def make_circo(base: Path, coco: str = "") -> Path:
    """Sixty pictures; query q of val has the image q as reference and 3 q + 1 ground truths from
    image 5 on. coco: the folder of COCO's files in base."""
    images = [{"license": 2, "id": i, "file_name": f"{i:012d}.jpg", "height": 427} for i in IDS]
    write(base / coco / "annotations/image_info_unlabeled2017.json", {"info": {}, "images": images})
    for image in images:
        file = base / coco / "unlabeled2017" / image["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for split, n in (("val", 3), ("test", 4)):
        rows = [{"reference_img_id": IDS[q], "relative_caption": f"has {q} dogs",
                 "shared_concept": "a dog", "id": q} for q in range(n)]
        for q, row in enumerate(rows if split == "val" else []):
            truths = IDS[5:6 + 3 * q]
            row |= {"target_img_id": truths[0], "gt_img_ids": truths,
                    "semantic_aspects": ["cardinality"] * (q > 0)}
        write(base / f"annotations/{split}.json", rows)
    return base


@pytest.fixture(autouse=True)
def sizes(monkeypatch):
    monkeypatch.setattr(circo, "N_QUERIES", {"val": 3, "test": 4})
    monkeypatch.setattr(circo, "N_IMAGES", 60)


@pytest.fixture
def made(tmp_path) -> Path:
    return make_circo(tmp_path / "circo_dataset")


# reading


def test_val_has_its_ground_truths_as_rows_of_the_gallery(made, tmp_path):
    found = read_circo(tmp_path, "val")
    assert found.image_ids.tolist() == IDS and found.images.files[1] == "000000581922.jpg"
    assert all(found.images.path(row).is_file() for row in range(60))
    assert found.reference.tolist() == [0, 1, 2] and found.query_ids == (0, 1, 2)
    assert found.ground_truths == ((5,), (5, 6, 7, 8), tuple(range(5, 12)))
    assert found.captions[2] == "has 2 dogs" and found.shared_concepts == ("a dog",) * 3
    assert found.aspects == ((), ("cardinality",), ("cardinality",))
    assert (found.kind, found.left_out, len(found)) == ("full", {}, 3)
    assert str(found) == ("circo val (full): 3 queries, 60 images, 12 ground truths; reference in "
                          "the gallery, several ground truths")


def test_the_ground_truths_of_test_are_private(made, tmp_path):
    found = read_circo(tmp_path, "test")
    assert found.ground_truths is None and len(found) == 4 and found.kind == "full"
    assert found.manifest != read_circo(tmp_path, "val").manifest


@pytest.mark.parametrize(("place", "coco"), [
    ("CIRCO", "COCO2017_unlabeled"), ("circo", ""), ("", ""), ("", "COCO2017_unlabeled")])
def test_a_set_is_found_where_users_put_it(tmp_path, place, coco):
    make_circo(tmp_path / "root" / place, coco)
    make_circo(tmp_path / "other/circo_dataset")
    found = read_circo(tmp_path / "root", "val")
    assert found.kind == "full"
    assert found.manifest == read_circo(tmp_path / "other", "val").manifest


def test_the_manifest_knows_texts_sizes_and_order(made, tmp_path):
    first = read_circo(tmp_path, "val").manifest
    (made / "unlabeled2017/000000581929.jpg").write_text("x")
    second = read_circo(tmp_path, "val").manifest
    edit(made / "annotations/val.json", lambda c: c[0].update(relative_caption="other"))
    third = read_circo(tmp_path, "val").manifest
    edit(made / "annotations/image_info_unlabeled2017.json", lambda c: c["images"].reverse())
    assert len({first, second, third, read_circo(tmp_path, "val").manifest}) == 4


def test_missing_images_are_named_and_left_out_where_allowed(made, tmp_path):
    for image in (IDS[7], IDS[40]):
        (made / f"unlabeled2017/{image:012d}.jpg").unlink()
    with pytest.raises(DatasetError, match="2 of the 60 images of circo are not in .*: "
                                           "000000581880.jpg, 000000581649.jpg"):
        read_circo(tmp_path, "val")
    found = read_circo(tmp_path, "val", allow_missing=True)
    assert found.query_ids == (0,) and found.kind == "subset"
    assert found.left_out == {"images": 2, "queries": 2} and len(found.images) == 58
    assert found.ground_truths == ((5,),) and found.image_ids[7] == IDS[8]


def info(made: Path) -> Path:
    return made / "annotations/image_info_unlabeled2017.json"


def queries(change):
    return lambda made: edit(made / "annotations/val.json", change)


@pytest.mark.parametrize(("damage", "told"), [
    (lambda made: (made / "annotations/val.json").unlink(), "no annotations/val.json in"),
    (lambda made: info(made).unlink(), "no .*image_info_unlabeled2017.json: circo_dataset/ holds"),
    (lambda made: (made / "unlabeled2017").rename(made / "pictures"), "no pictures in"),
    (lambda made: write(made / "annotations/val.json", '[{"id": 0'), "is not whole"),
    (lambda made: write(info(made), {"annotations": []}), "not every row of 'images'"),
    (lambda made: edit(info(made), lambda c: c["images"][3].update(file_name="../x.jpg")),
     r"1 images of .* are not a number and a file name: \(581908, '../x.jpg'\)"),
    (lambda made: edit(info(made), lambda c: c["images"].append(c["images"][0])),
     "1 ids are in .* more than once: 581929"),
    (lambda made: edit(info(made), lambda c: c["images"].pop()),
     "has 3 queries and 59 images, the official split 3 and 60"),
    (queries(lambda c: c.pop()), "has 2 queries and 60 images"),
    (queries(lambda c: c[2].pop("shared_concept")), "shared_concept"),
    (queries(lambda c: c[0].pop("gt_img_ids")), "not every row of 'queries' has .*gt_img_ids"),
    (queries(lambda c: c[1].update(relative_caption=" ")), "texts that are not empty: 1. "),
    (queries(lambda c: c[1].update(gt_img_ids=5)), "not ids of images .*: 1. "),
    (queries(lambda c: c[1].update(reference_img_id="5")), "not ids of images .*: 1. "),
    (queries(lambda c: c[1].update(id=2)), "1 query ids are in .* more than once: 2"),
    (queries(lambda c: c[1]["gt_img_ids"].reverse()), "do not begin with the target: 1"),
    (queries(lambda c: c[2]["gt_img_ids"].append(IDS[5])), "ground truths that repeat, .*: 2"),
    (queries(lambda c: c[2].update(reference_img_id=1)), "does not hold: 2"),
])
def test_what_is_wrong_is_named(made, tmp_path, damage, told):
    damage(made)
    with pytest.raises(DatasetError, match=told):
        read_circo(tmp_path, "val")


def test_only_val_and_test(made, tmp_path):
    with pytest.raises(DatasetError, match="no split 'train': choose val, test"):
        read_circo(tmp_path, "train")


def test_older_files_without_aspects_are_read(made, tmp_path):
    edit(made / "annotations/val.json", lambda c: [row.pop("semantic_aspects") for row in c])
    assert read_circo(tmp_path, "val").aspects == ((), (), ())


# the metric


def looped(ranking, truths, k: int) -> float:
    """Average precision at k of one query, by the definition."""
    hits, total = 0, 0.0
    for place, image in enumerate(ranking[:k], 1):
        if image in truths:
            hits += 1
            total += hits / place
    return total / min(k, len(truths))


def test_a_ranking_worked_by_hand():
    truths = [[4, 9, 2], [0, 1, 2, 3, 4, 5, 6]]
    ranking = np.array([[4, 0, 9, 1, 3, 5, 2, 6, 7, 8], [9, 0, 1, 8, 7, 2, 3, 4, 5, 6]])
    found = circo_metrics(ranking, truths, (5, 10))
    assert found["mAP@5"].tolist() == pytest.approx([(1 + 2 / 3) / 3, (1 / 2 + 2 / 3) / 5])
    hits = 1 / 2 + 2 / 3 + 3 / 6 + 4 / 7 + 5 / 8 + 6 / 9 + 7 / 10
    assert found["mAP@10"].tolist() == pytest.approx([(1 + 2 / 3 + 3 / 7) / 3, hits / 7])


@pytest.mark.parametrize("seed", range(5))
def test_the_metric_is_that_of_plain_loops(seed):
    draw = np.random.default_rng(seed)
    truths = [draw.permutation(200)[:draw.integers(1, 24)].tolist() for _ in range(40)]
    ranking = np.stack([draw.permutation(200)[:60] for _ in truths])
    for row, own in zip(ranking[::2], truths[::2], strict=True):  # half of them find something
        rest = [image for image in row if image not in own]
        row[:] = draw.permutation((own + rest)[:60])
    found = circo_metrics(ranking, truths)
    assert list(found) == ["mAP@5", "mAP@10", "mAP@25", "mAP@50"]
    for name, values in found.items():
        k = int(name[4:])
        loops = [looped(row, own, k) for row, own in zip(ranking.tolist(), truths, strict=True)]
        assert values.tolist() == pytest.approx(loops, abs=1e-12) and 0 < np.mean(loops) < 1
    tensors = circo_metrics(torch.from_numpy(ranking), truths)
    assert all(torch.equal(tensors[name], found[name]) for name in found)


@pytest.mark.parametrize(("ranking", "truths", "told"), [
    ([[1, 2, 3, 4, 2]], [[1]], "query 0 has an image twice"),
    ([[1, 2, 3, 4]], [[1]], "5 or more for each of 1 queries"),
    ([[1, 2, 3, 4, 5]], [[1], [2]], "for each of 2 queries"),
    ([[1.0, 2, 3, 4, 5]], [[1]], "whole numbers"),
    ([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]], [[1], []], "query 1 has no ground truth"),
])
def test_rankings_that_are_none_are_refused(ranking, truths, told):
    with pytest.raises(ValueError, match=told):
        circo_metrics(np.array(ranking), truths, (5,))


# the server's file


def test_a_submission_holds_the_best_fifty_ids_of_every_query(made, tmp_path):
    found = read_circo(tmp_path, "test")
    draw = np.random.default_rng(0)
    ranking = np.stack([draw.permutation(60) for _ in range(4)])
    file = write_submission(tmp_path / "out/test.json", torch.from_numpy(ranking), found)
    content = json.loads(file.read_text())
    assert list(content) == ["0", "1", "2", "3"]
    assert content == {str(q): [IDS[row] for row in ranking[q, :50]] for q in range(4)}


def test_a_submission_that_the_server_would_not_take_is_not_written(made, tmp_path):
    found = read_circo(tmp_path, "test")
    ranking = np.tile(np.arange(60), (4, 1))
    for wrong, told in ((ranking[:, :49], "50 or more"), (ranking[:3], "4 queries"),
                        (ranking + 11, "a row that the gallery of 60"),
                        (ranking - 1, "a row that the gallery of 60")):
        with pytest.raises(ValueError, match=told):
            write_submission(tmp_path / "test.json", wrong, found)
    (made / f"unlabeled2017/{IDS[59]:012d}.jpg").unlink()
    with pytest.raises(ValueError, match="this is a subset: circo test"):
        write_submission(tmp_path / "test.json", ranking,
                         read_circo(tmp_path, "test", allow_missing=True))
    assert not (tmp_path / "test.json").exists()
