"""ZSE-SBIR's paper.yml: every published number, the original's settings, who answers what."""

import csv
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from test_records import a_record

from replication import published
from replication.comparison import comparison
from replication.papers.zse_sbir.config import DATASETS, TEST_CLASSES, Config
from replication.records import parse_record

BOOK = Path(__file__).resolve().parent.parent / "book"
PUBLISHED = BOOK.parent.parent / "shared" / "published" / "zse_sbir.csv"
PAPER = published.read_paper(BOOK / "zse_sbir" / "paper.yml")
FREE = {"test_sk", "test_im", "num_workers", "choose_cuda", "keep_scores_mb", "load", "data_path",
        "save"}
# The readme's defaults, with testall as it advises for a test.
ORIGINAL = {"data_path": "./datasets", "cls_number": 100, "d_model": 768, "d_ff": 1024, "head": 8,
            "number": 1, "pretrained": True, "anchor_number": 49, "batch": 15, "epoch": 30,
            "datasetLen": 10_000, "learning_rate": 1e-5, "weight_decay": 1e-2, "retrieval": "rn",
            "testall": True, "num_workers": 4, "choose_cuda": 0, "seed": 2021}
# What the code fixes.
FIXED = {"tower": "vit_base_patch16_224", "weights": "sam_in1k", "image_size": 224,
         "patch_stack": 64, "anchor_width": 512, "dropout": 0.1, "cross_rate": 1.0,
         "relation_rate": 1.0, "margin": 1.0, "triplet_weight": 2.0, "relation_weight": 4.0,
         "validate_from": 10, "sketch_step": 0, "photo_step": 0, "val_classes": 0,
         "selection": "unseen", "first_files": False, "keep_rate": 1.0, "layout": "as-released",
         "rerank_top_k": 0}
NAMES = {"sketchy": ("sketchy_extend", "test_class_sketchy25"),
         "tuberlin": ("tu_berlin", "test_class_tuberlin30"),
         "quickdraw": ("Quickdraw", "Quickdraw")}
# dataset, test_class, test_dataset, match of every run of the paper
RUNS = {"sketchy25": (*NAMES["sketchy"], "", "class"),
        "sketchy21": ("sketchy_extend", "test_class_sketchy21", "", "class"),
        "tuberlin30": (*NAMES["tuberlin"], "", "class"),
        "quickdraw30": (*NAMES["quickdraw"], "", "class"),
        **{f"{a}_to_{b}": (*NAMES[a], NAMES[b][0], "class")
           for a in NAMES for b in NAMES if a != b},
        "shoev2": ("shoev2", "", "", "instance"), "chairv2": ("chairv2", "", "", "instance"),
        "sketchy_fine_grained": ("sketchy_extend", "test_class_sketchy21", "", "instance")}
# of table 1: dataset, split, sketches, photos (different ones), classes
TABLE_1 = {"sketchy25": ("sketchy_ext", "100/25", 15_229, 17_101, 14_601, 25),
           "sketchy21": ("sketchy_ext", "104/21", 12_694, 12_553, 12_553, 21),
           "tuberlin30": ("tuberlin_ext", "220/30", 2_400, 27_989, 27_989, 30),
           "quickdraw30": ("quickdraw_ext", "80/30", 92_291, 54_151, 54_151, 30)}
OWN = [c for c in PAPER.cells if c.table == "paper-table-1" and c.method in ("ZSE-RN", "ZSE-Ret")]


def values_of(name: str) -> dict:
    return PAPER.parameters(PAPER.experiment(name))


# -------------------------------------------------------------------------- published numbers


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tables are not here")
def test_every_published_number_is_a_cell_once():
    fields = ("table", "method", "variant", "dataset", "split", "metric", "unit", "grade", "source",
              "note", "value")
    with PUBLISHED.open() as file:
        rows = Counter(tuple(row[f] for f in fields) for row in csv.DictReader(file))
    cells = Counter(tuple(str(getattr(cell, f)) for f in fields) for cell in PAPER.cells)
    assert set(rows.values()) == {1} and cells == rows


def test_the_papers_reference_is_in_the_book():
    assert f"{{{PAPER.citation}," in (BOOK / "references.bib").read_text()


def test_each_number_of_table_1_is_aimed_at_by_one_run_of_its_set():
    aimed = Counter(t for e in PAPER.experiments for t in e.targets)
    assert len(OWN) == 16 and aimed == Counter(c.id for c in OWN)
    assert {e.name for e in PAPER.experiments if e.targets} == set(TABLE_1)
    cells = {c.id: c for c in OWN}
    for experiment in (e for e in PAPER.experiments if e.targets):
        name, split = TEST_CLASSES[values_of(experiment.name)["test_class"]]
        assert {(cells[t].dataset, cells[t].split) for t in experiment.targets} == {
            (PAPER.aliases[name], split)}


def test_ret_is_answered_by_class_tokens_and_rn_by_the_main_ranking():
    assert {(c.method, c.ranking) for c in OWN} == {("ZSE-RN", "trained"),
                                                    ("ZSE-Ret", "trained sa")}
    assert {(c.convention, c.selection, c.protocol) for c in OWN} == {
        ("zse_sbir", "unseen", "zero-shot")}


def test_what_no_run_aims_at_is_another_methods_or_says_why():
    for cell in (c for c in PAPER.cells if c not in OWN):
        assert bool(cell.reason) == cell.method.startswith("ZSE"), cell.id
    assert sum(bool(c.reason) for c in PAPER.cells) == 5


def test_the_published_sets_have_their_counts():
    for dataset, split, *counts in TABLE_1.values():
        found = PAPER.sets[dataset][split]
        assert [found.n_query, found.n_gallery, found.n_classes] == [*counts[:2], counts[3]]


def test_a_deviations_parameter_is_an_option_with_that_default():
    default = asdict(Config())
    for deviation in PAPER.deviations:
        names = [name.strip() for name in deviation.switch.split(",") if name.strip()]
        assert set(names) <= set(default), deviation.what
        if len(names) == 1 and names != ["precision"]:
            assert deviation.default == default[names[0]], deviation.what


# ---------------------------------------------------------------------------- parameter files


def test_there_is_a_parameter_file_for_each_run_of_the_paper():
    files = {p.stem for p in (BOOK / "zse_sbir" / "paper").glob("*.yml")}
    used = {e.name: e for e in PAPER.experiments if e.parameters_file}
    assert files == set(used) == set(RUNS)
    for name, experiment in used.items():
        assert (experiment.parameters_file, experiment.notebook, set(experiment.free)) == (
            f"paper/{name}.yml", "train.ipynb", FREE)
        assert experiment.record and not experiment.demo and not experiment.parameters


@pytest.mark.parametrize("name", RUNS)
def test_a_parameter_file_holds_the_originals_values(name):
    values = values_of(name)
    dataset, test_class, test_dataset, match = RUNS[name]
    assert values == ORIGINAL | FIXED | {
        "dataset": dataset, "test_class": test_class, "test_dataset": test_dataset, "match": match,
        "save": f"./checkpoints/{name}", "load": "", "test_sk": 64, "test_im": 256}
    run = Config(**values)
    assert (run.data_name, run.test_name) == (
        DATASETS.get(dataset, dataset),
        DATASETS.get(test_dataset or dataset, test_dataset or dataset))


@pytest.mark.parametrize("name", RUNS)
def test_no_turned_switch_can_stand_beside_a_published_number(name):
    """What a file leaves out cannot differ from it: only what changes no number of its may."""
    free = published.FREE_PARAMETERS | FREE | {"generalised"}  # adds rows of its own
    assert set(Config.__dataclass_fields__) - free <= set(values_of(name))


# ---------------------------------------------------------------- a run against the numbers


def a_run(name: str, rn: float = 1.0, sa: float = -1.0, drop: str = "", **given):
    """A record of a whole run: RN as published plus `rn` points, Ret plus `sa`, among rows that
    answer nothing. drop: the variant whose rows are left out."""
    dataset, split, queries, photos, unique, classes = TABLE_1[name]
    record = a_record(paper="zse_sbir", experiment=name, seed=2021,
                      parameters=asdict(Config(**values_of(name) | given)))
    folder = {full: short for short, full in PAPER.aliases.items()}[dataset]
    record["dataset"] = {"name": folder, "split": split, "n_query": queries, "n_gallery": photos,
                         "n_gallery_unique": unique, "n_classes": classes, "manifest": "m",
                         "kind": "full"}
    right = {"convention": "zse_sbir", "selection": "unseen"}
    decoys = [{"variant": v} for v in ("untrained", "untrained sa", "pixels", "chance")]
    decoys += [{"variant": v, "selection": "last"} for v in ("trained", "trained sa")]
    decoys += [{"variant": v, "convention": "trec"} for v in ("trained", "trained sa")]
    decoys += [{"variant": v, "protocol": "generalised"} for v in ("trained", "trained sa")]
    record["metrics"] = []
    for cell in (c for c in OWN if c.id in PAPER.experiment(name).targets):
        shift = rn if cell.method == "ZSE-RN" else sa
        record["metrics"].append({**right, "metric": cell.metric, "variant": cell.ranking,
                                  "value": float(cell.value) + shift})
        if cell.method == "ZSE-RN":
            record["metrics"] += [{**right, "metric": cell.metric, "value": 0.5, **d}
                                  for d in decoys]
    record["metrics"] = [m for m in record["metrics"] if m["variant"] != drop]
    return parse_record(record, "test")


def judged(*records):
    return comparison(PAPER, list(records)).set_index("id")


@pytest.mark.parametrize("name", TABLE_1)
def test_one_run_answers_rn_and_ret(name):
    table = judged(a_run(name))
    answered = table.loc[PAPER.experiment(name).targets]
    assert len(answered) == 4 and set(answered.status) == {"matched"}
    assert answered.groupby("method").difference.agg(list).to_dict() == {
        "ZSE-RN": pytest.approx([1.0, 1.0]), "ZSE-Ret": pytest.approx([-1.0, -1.0])}
    assert set(table.drop(answered.index).status) == {"not run"}
    assert (name == "sketchy25") == ("17,101 photos (14,601 unique)" in answered.counts.iloc[0])


def test_rankings_are_judged_apart():
    table = judged(a_run("tuberlin30", rn=1.6, sa=-1.6)).loc[
        PAPER.experiment("tuberlin30").targets]
    assert table.groupby("method").status.agg(set).to_dict() == {
        "ZSE-RN": {"higher"}, "ZSE-Ret": {"lower"}}


@pytest.mark.parametrize(("drop", "lost"), [("trained", "ZSE-RN"), ("trained sa", "ZSE-Ret")])
def test_the_other_ranking_never_stands_in(drop, lost):
    table = judged(a_run("quickdraw30", drop=drop)).loc[PAPER.experiment("quickdraw30").targets]
    assert set(table[table.method == lost].status) == {"not comparable"}
    assert table[table.method == lost].reason.str.contains("the record has no .*/unseen").all()
    assert set(table[table.method != lost].status) == {"matched"}


@pytest.mark.parametrize(("given", "words"), [
    ({"layout": "grid"}, "parameter layout is grid, published as-released"),
    ({"retrieval": "sa"}, "parameter retrieval is sa, published rn"),
    ({"epoch": 1}, "parameter epoch is 1, published 30"),
    ({"rerank_top_k": 100}, "parameter rerank_top_k is 100, published 0")])
def test_another_setting_is_not_comparable(given, words):
    table = judged(a_run("sketchy21", **given)).loc[PAPER.experiment("sketchy21").targets]
    assert set(table.status) == {"not comparable"} and set(table.reason) == {words}


def test_where_and_how_fast_a_run_goes_is_free():
    elsewhere = {"test_sk": 20, "test_im": 20, "num_workers": 0, "choose_cuda": 1,
                 "keep_scores_mb": 0, "data_path": "d", "save": "s", "precision": "32-true"}
    table = judged(a_run("sketchy21", **elsewhere)).loc[PAPER.experiment("sketchy21").targets]
    assert set(table.status) == {"matched"}
