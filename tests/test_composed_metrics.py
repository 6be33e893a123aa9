"""Composed recall against golden numbers and loops; submissions and each of their faults."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from replication import composed_metrics
from replication.composed import Composed
from replication.composed_metrics import (
    ComposedRanks,
    cirr_submissions,
    composed_ranks,
    evaluate_composed,
    fashioniq_summary,
    submission_faults,
    write_submissions,
)
from replication.data import Images

GOLDEN = Path(__file__).parent / "golden"


def golden(part: str) -> tuple[dict, dict]:
    arrays = np.load(GOLDEN / "metrics_cir.npz")
    return json.loads((GOLDEN / "metrics2.json").read_text())[part], dict(arrays)


def drawn(n_query=60, n_gallery=90, levels=None, seed=0):
    """Scores (of a few levels: ties), and target, reference and group of each query."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((n_query, n_gallery), dtype=np.float32)
    if levels:
        scores = np.round(scores * levels / 4)
    members = np.stack([rng.choice(n_gallery, 6, replace=False) for _ in range(n_query)])
    return torch.from_numpy(scores), members[:, 4], members[:, 1], members


def a_set(n_query=60, n_gallery=90, split="val", groups=True) -> tuple[torch.Tensor, Composed]:
    scores, target, reference, members = drawn(n_query, n_gallery)
    names = tuple(f"{split}-{i}-img0" for i in range(n_gallery))
    images = Images(Path("none"), tuple(f"{name}.png" for name in names), ("",),
                    np.zeros(n_gallery, np.int64), "photo")
    pairs = tuple(str(9_990 + i) for i in range(n_query))
    return scores, Composed("made", split, (), images, names, reference,
                            None if split == "test1" else target, (("text",),) * n_query,
                            members if groups else None, pairs, "demo", "", "")


def slow_rank(scores, target, out=(), among=None) -> int:
    """The target's place in a full, stable sort of what may be found."""
    items = [i for i in range(len(scores)) if i not in out and (among is None or i in among)]
    return sorted(items, key=lambda i: (-float(scores[i]), i)).index(target) + 1


# recall


@pytest.mark.parametrize("chunk", [7, 512])
def test_cirr_is_the_golden(chunk):
    wanted, a = golden("cirr")
    scores = torch.from_numpy(a["sim"])
    found = composed_ranks(scores, a["target"], reference=a["reference"], members=a["members"],
                           chunk=chunk).metrics()
    for name, value in wanted.items():
        assert 100 * found[name.replace("Rs@", "Rsub@")] == pytest.approx(value, rel=1e-6), name
    assert found["Avg"] == pytest.approx((found["R@5"] + found["Rsub@1"]) / 2)
    assert 100 * found["Mean"] == pytest.approx(np.mean(list(wanted.values())), rel=1e-6)


def test_fashioniq_is_the_golden():
    wanted, a = golden("fashioniq")
    found = composed_ranks(torch.from_numpy(a["sim"]), a["target"]).metrics()
    for k in (10, 50):
        assert 100 * found[f"R@{k}"] == pytest.approx(wanted[f"recall_at{k}"], rel=1e-6)
    assert found["Avg"] == pytest.approx((found["R@10"] + found["R@50"]) / 2)


@pytest.mark.parametrize("levels", [None, 8, 2])
@pytest.mark.parametrize("chunk", [1, 17, 60, 100])
def test_ranks_are_those_of_a_stable_sort(levels, chunk):
    scores, target, reference, members = drawn(levels=levels)
    assert levels is None or any(len(row.unique()) < 30 for row in scores)
    whole = composed_ranks(scores, target, chunk=chunk)
    assert whole.group is None
    assert whole.gallery.tolist() == [slow_rank(*own) for own in zip(scores, target, strict=True)]
    found = composed_ranks(lambda rows: scores[rows], target, reference=reference, members=members,
                           chunk=chunk)
    queries = list(zip(scores, target, reference, members, strict=True))
    assert found.gallery.tolist() == [slow_rank(s, t, (r,)) for s, t, r, _ in queries]
    assert found.group.tolist() == [slow_rank(s, t, (r,), m) for s, t, r, m in queries]
    assert found.group.max() <= 5


def test_a_collapsed_model_is_chance_not_perfect():
    _, target, reference, members = drawn(500)
    found = composed_ranks(torch.zeros(500, 90), target, reference=reference, members=members)
    assert found.metrics()["R@10"] == pytest.approx(10 / 89, abs=0.05)
    assert found.metrics()["Rsub@1"] == pytest.approx(1 / 5, abs=0.06)


def test_the_sets_protocol_decides_on_the_reference():
    scores, cirr = a_set()
    fashion = replace(cirr, members=None)
    for rows, score in ((cirr.reference, 99.0), (cirr.target, 98.0)):  # as models tend to
        scores[torch.arange(60), torch.from_numpy(rows)] = score
    assert evaluate_composed(scores, fashion).gallery.tolist() == [2] * 60
    assert evaluate_composed(scores, fashion).group is None
    assert evaluate_composed(scores, cirr).gallery.tolist() == [1] * 60
    assert evaluate_composed(scores, cirr).group.tolist() == [1] * 60


def test_scores_come_a_chunk_at_a_time_each_once():
    scores, cirr = a_set()
    asked = []
    evaluate_composed(lambda rows: asked.append(rows) or scores[rows], cirr, chunk=25)
    assert [(rows.start, rows.stop) for rows in asked] == [(0, 25), (25, 50), (50, 60)]


def test_metrics_of_given_ranks():
    ranks = ComposedRanks(torch.tensor([1, 5, 10, 50, 51]), torch.tensor([1, 2, 3, 4, 5]))
    assert ranks.metrics() == pytest.approx({
        "R@1": 0.2, "R@5": 0.4, "R@10": 0.6, "R@50": 0.8, "Rsub@1": 0.2, "Rsub@2": 0.4,
        "Rsub@3": 0.6, "Avg": 0.3, "Mean": 3.2 / 7})
    assert replace(ranks, group=None).metrics() == pytest.approx(
        {"R@10": 0.6, "R@50": 0.8, "Avg": 0.7})


def test_intervals_hold_the_mean_and_follow_the_seed():
    scores, cirr = a_set()
    found = evaluate_composed(scores, cirr)
    first = found.summary(300, seed=3)
    assert first == found.summary(300, seed=3) != found.summary(300, seed=4)
    for name, value in found.metrics().items():
        assert first[name]["mean"] == pytest.approx(value)
        assert first[name]["low"] <= value <= first[name]["high"]
        assert first[name]["high"] - first[name]["low"] < 0.3  # 4 x 0.5 / sqrt(60), rounded up
    assert first["R@50"]["high"] - first["R@50"]["low"] > 0.1


# FashionIQ's mean over types


def test_types_count_alike_in_the_mean():
    ranks = {"dress": ComposedRanks(torch.tensor([1] * 9 + [20])),
             "shirt": ComposedRanks(torch.tensor([99] * 100)),
             "toptee": ComposedRanks(torch.tensor([30, 60]))}
    found = fashioniq_summary(ranks, 200)
    assert list(found) == ["dress", "shirt", "toptee", "average"]
    assert found["dress"] == ranks["dress"].summary(200)
    assert found["average"]["R@10"]["mean"] == pytest.approx(0.9 / 3)
    assert found["average"]["R@50"]["mean"] == pytest.approx(1.5 / 3)
    assert found["average"]["Avg"]["mean"] == pytest.approx(2.4 / 6)


def test_intervals_of_the_mean_are_drawn_within_types():
    rng = torch.Generator().manual_seed(0)
    ranks = {name: ComposedRanks(torch.randint(1, 100, (400,), generator=rng))
             for name in ("dress", "shirt", "toptee")}
    found = fashioniq_summary(ranks, 4_000)["average"]
    for name, k in (("R@10", 10), ("R@50", 50)):
        p = torch.stack([(own.gallery <= k).double().mean() for own in ranks.values()])
        width = 3.92 * float(((p * (1 - p)).sum() / 400).sqrt()) / 3
        assert found[name]["high"] - found[name]["low"] == pytest.approx(width, rel=0.1)
        assert found[name]["low"] < found[name]["mean"] < found[name]["high"]
    first, again, other = (fashioniq_summary(ranks, 50, seed)["average"] for seed in (1, 1, 2))
    assert first == again != other
    sure = {"a": ComposedRanks(torch.ones(30)), "b": ComposedRanks(torch.full((9,), 99))}
    assert set(fashioniq_summary(sure, 50)["average"]["R@10"].values()) == {0.5}


def test_the_mean_is_of_fashioniqs_types():
    scores, cirr = a_set()
    for wrong in ({}, {"dress": evaluate_composed(scores, cirr)}):
        with pytest.raises(ValueError, match="each FashionIQ type"):
            fashioniq_summary(wrong)


# wrong input


def test_wrong_input_is_named():
    scores, target, reference, members = drawn()
    bad = scores.clone()
    bad[23, 4] = torch.nan
    with pytest.raises(ValueError, match="score of query 23 is NaN"):
        composed_ranks(bad, target, chunk=10)
    with pytest.raises(TypeError, match="float16, which makes ties"):
        composed_ranks(scores.half(), target)
    with pytest.raises(ValueError, match=r"scores are \(59, 90\), there are 60 queries"):
        composed_ranks(scores[:59], target)
    with pytest.raises(ValueError, match=r"queries 0 to 9 are \(10, 90\), not \(10, 91\)"):
        composed_ranks(scores, target, n_gallery=91, chunk=10)
    with pytest.raises(ValueError, match=r"queries 50 to 59 are \(9, 90\), not \(10, 90\)"):
        composed_ranks(lambda rows: scores[:59][rows], target, chunk=10)
    with pytest.raises(ValueError, match="chunk is 0"):
        composed_ranks(scores, target, chunk=0)
    with pytest.raises(ValueError, match="target is .0,."):
        composed_ranks(scores[:0], target[:0])
    for rows in (target + 90, target - 90):
        with pytest.raises(ValueError, match="name a row that the gallery of 90"):
            composed_ranks(scores, rows)


def test_wrong_rows_are_named():
    scores, target, reference, members = drawn()
    same = reference.copy()
    same[31] = target[31]
    with pytest.raises(ValueError, match="target of query 31 is its reference"):
        composed_ranks(scores, target, reference=same)
    with pytest.raises(ValueError, match=r"\(59,\) references for 60"):
        composed_ranks(scores, target, reference=reference[1:])
    for own in (members[1:], members[:, 0]):
        with pytest.raises(ValueError, match="a group for each of 60"):
            composed_ranks(scores, target, reference=reference, members=own)
    with pytest.raises(ValueError, match="its reference is given"):
        composed_ranks(scores, target, members=members)
    for column, what in ((4, "target"), (1, "reference")):
        own = members.copy()
        own[12, column] = next(i for i in range(90) if i not in members[12])
        with pytest.raises(ValueError, match=f"the {what} of query 12 is not once in its group"):
            composed_ranks(scores, target, reference=reference, members=own)


def test_private_targets_have_no_recall():
    scores, test1 = a_set(split="test1")
    with pytest.raises(ValueError, match="made test1 are private: write the submission"):
        evaluate_composed(scores, test1)


# submissions


@pytest.mark.parametrize("ties", [False, True])
def test_submissions_hold_the_best_names_in_order(ties):
    scores, test1 = a_set(split="test1")
    scores = scores.mul(2).round() if ties else scores
    made = cirr_submissions(scores, test1, chunk=23)
    assert {own["metric"] for own in made.values()} == set(made) == {"recall", "recall_subset"}
    for row, pair in enumerate(test1.pair_ids):
        order = sorted(set(range(90)) - {test1.reference[row]},
                       key=lambda i: (-float(scores[row, i]), i))
        assert made["recall"][pair] == [test1.names[i] for i in order[:50]]
        group = [i for i in order if i in test1.members[row]]
        assert made["recall_subset"][pair] == [test1.names[i] for i in group[:3]]


def test_submissions_agree_with_recall():
    scores, val = a_set()
    made, ranks = cirr_submissions(scores, val), evaluate_composed(scores, val)
    target = [val.names[row] for row in val.target]
    for metric, own, k in (("recall", ranks.gallery, 10), ("recall_subset", ranks.group, 3)):
        hits = [name in made[metric][pair][:k]
                for pair, name in zip(val.pair_ids, target, strict=True)]
        assert hits == (own <= k).tolist() and 0 < sum(hits) < 60


def test_files_are_sorted_sound_and_whole(tmp_path):
    scores, test1 = a_set(split="test1")
    before = scores.clone()
    files = write_submissions(tmp_path / "new", scores, test1)
    assert torch.equal(scores, before)
    for metric, file in files.items():
        assert file == tmp_path / "new" / f"{metric}.json"
        content = json.loads(file.read_text())
        assert list(content) == sorted(content) and len(content) == 62
        assert content["version"] == "rc2" and content["metric"] == metric
        assert submission_faults(file, metric, test1) == []
    assert {file.name for file in (tmp_path / "new").iterdir()} == {
        "recall.json", "recall_subset.json"}


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    scores, test1 = a_set(split="test1")
    (tmp_path / "recall.json").write_text("earlier")

    def full(path, data):
        path.touch()
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="recall.json: no space left .the earlier file is intact"):
        write_submissions(tmp_path, scores, test1)
    assert (tmp_path / "recall.json").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_unsound_is_written(tmp_path):
    scores, test1 = a_set(split="test1")
    scores[5] = -torch.inf  # the reference ties with all others
    with pytest.raises(ValueError, match="not a submission: recall: pair 9995: .*its reference"):
        write_submissions(tmp_path / "new", scores, test1)
    assert not (tmp_path / "new").exists()


def test_sets_that_make_no_submission_are_told(tmp_path):
    scores, fashion = a_set(groups=False)
    with pytest.raises(ValueError, match="made val has not got them"):
        write_submissions(tmp_path, scores, fashion)
    scores, small = a_set(n_gallery=50, split="test1")
    with pytest.raises(ValueError, match="50 images beside the reference: made test1"):
        cirr_submissions(scores, small)
    assert cirr_submissions(*a_set(n_gallery=51, split="test1"))["recall"]
    scores, test1 = a_set(split="test1")
    scores[7, 7] = torch.nan
    with pytest.raises(ValueError, match="score of query 7 is NaN"):
        cirr_submissions(scores, test1)
    with pytest.raises(ValueError, match=r"there are 60 queries"):
        cirr_submissions(scores[:40], test1)


def other(test1: Composed, row: int) -> str:
    return next(name for i, name in enumerate(test1.names) if i not in test1.members[row])


def put(pair: str, place: int, name):
    """Puts a name (or what a function makes of the set) into one pair's list."""
    def change(content, test1):
        row = test1.pair_ids.index(pair)
        content[pair][place] = name(test1, row) if callable(name) else name
    return change


FAULTS = {
    "version": ("recall", lambda c, s: c.update(version="rc1"), ["version is 'rc1', not 'rc2'"]),
    "metric": ("recall", lambda c, s: c.pop("metric"), ["metric is None, not 'recall'"]),
    "the other's": ("recall_subset", lambda c, s: c.update(metric="recall"),
                    ["metric is 'recall', not 'recall_subset'"]),
    "a pair less": ("recall", lambda c, s: c.pop("9993"),
                    ["there are 59 pairs, not 60", "pair 9993 is absent"]),
    "a pair more": ("recall", lambda c, s: c.update({"7": []}),
                    ["there are 61 pairs, not 60", "there is no pair 7"]),
    "49 names": ("recall", lambda c, s: c["9990"].pop(), ["pair 9990: 49 names, not 50"]),
    "2 names": ("recall_subset", lambda c, s: c["9990"].pop(), ["pair 9990: 2 names, not 3"]),
    "a name twice": ("recall", lambda c, s: c["9990"].__setitem__(0, c["9990"][1]),
                     ["pair 9990: test1-.*-img0 is there twice"]),
    "the reference": ("recall", put("9991", 0, lambda s, row: s.names[s.reference[row]]),
                      ["pair 9991: test1-.*-img0 is its reference"]),
    "the reference of a group": (
        "recall_subset", put("9991", 0, lambda s, row: s.names[s.reference[row]]),
        ["pair 9991: test1-.*-img0 is its reference"]),
    "an unknown name": ("recall", put("9992", 3, "test1-99"), ["pair 9992: no image test1-99"]),
    "unknown in a group": ("recall_subset", put("9992", 1, "x"), ["pair 9992: no image x"]),
    "outside the group": ("recall_subset", put("9992", 1, other),
                          ["pair 9992: test1-.*-img0 is not in its group"]),
    "numbers": ("recall", put("9992", 1, 3), ["pair 9992: not a list of names"]),
    "a text": ("recall", lambda c, s: c.update({"9992": "abc"}),
               ["pair 9992: not a list of names"]),
    "three": ("recall", lambda c, s: (c["9990"].pop(), c["9991"].pop(), c.update(version=2)),
              ["version is 2, .*", "pair 9990: 49 names, not 50", "pair 9991: 49 names, not 50"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_listed(fault):
    metric, change, told = FAULTS[fault]
    scores, test1 = a_set(split="test1")
    content = cirr_submissions(scores, test1)[metric]
    assert submission_faults(content, metric, test1) == []
    change(content, test1)
    found = submission_faults(content, metric, test1)
    assert len(found) == len(told)
    for line, wanted in zip(found, told, strict=True):
        assert re.fullmatch(wanted, line), line


def test_the_official_test_has_4148_pairs():
    scores, test1 = a_set(split="test1")
    official = replace(test1, name="cirr")
    found = submission_faults(cirr_submissions(scores, official)["recall"], "recall", official)
    assert found == ["there are 60 pairs, not 4,148"]


@pytest.mark.parametrize(("content", "told"), [
    ("{", "the file is not JSON"), ("[]", "the file is not a JSON object")])
def test_another_file_is_told(tmp_path, content, told):
    (tmp_path / "recall.json").write_text(content)
    found = submission_faults(tmp_path / "recall.json", "recall", a_set()[1])
    assert len(found) == 1 and found[0].startswith(told)
    with pytest.raises(ValueError, match="no metric 'R@1': choose recall or recall_subset"):
        submission_faults(tmp_path / "recall.json", "R@1", a_set()[1])


def test_many_faults_are_counted(tmp_path, monkeypatch):
    monkeypatch.setitem(composed_metrics.SUBMITTED, "recall_subset", 2)
    scores, test1 = a_set(split="test1")
    made = cirr_submissions(scores, test1)
    monkeypatch.setattr(composed_metrics, "cirr_submissions", lambda *a, **k: made)
    monkeypatch.setitem(composed_metrics.SUBMITTED, "recall_subset", 3)
    with pytest.raises(ValueError, match="subset: pair 9990: 2 names.*; and 48 more") as told:
        write_submissions(tmp_path, scores, test1)
    assert str(told.value).count("2 names") == 12
