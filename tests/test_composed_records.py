"""Records of composed retrieval: in tables, beside published numbers, and computed again."""

import json

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file
from test_records import a_record

from replication import report, retrieval, verification
from replication.comparison import comparison, counts_text
from replication.published import read_paper
from replication.records import InvalidFile, Metric, parse_record, read_record, write_record
from replication.retrieval import max_scorer
from replication.verification import AGREES, DIFFERS, UNVERIFIABLE, first_places, verified

CIRR = {"name": "cirr", "split": "val", "n_query": 4181, "n_gallery": 2297,
        "n_gallery_unique": 2297, "manifest": "m", "kind": "full", "query": "queries",
        "gallery": "images"}
FASHION = CIRR | {"name": "fashioniq", "n_query": 6016, "n_gallery": 15536,
                  "n_gallery_unique": 15536}
TYPES = {"dress": (2017, 3817), "shirt": (2038, 6346), "toptee": (1961, 5373)}
SPLIT, VAL = "original split's gallery, reference in it", "VAL gallery"


def row(metric="R@1", value=50.0, variant="trained", **changes) -> dict:
    return {"metric": metric, "convention": "cirr", "value": value, "variant": variant,
            "low": max(0.0, value - 1), "high": min(100.0, value + 1)} | changes


def a_run(*rows, kind="full", dataset=None, **changes):
    data = {**CIRR, "kind": kind, **(dataset or {})}
    record = {"paper": "sprc", "experiment": "first", "protocol": "rc2", "parameters": {},
              "dataset": data} | changes
    return parse_record(a_record(metrics=list(rows), **record), "test")


def fashion_rows(value=50.0, **changes) -> list[dict]:
    """Nine rows of the types, which have counts of their own, and three of their average."""
    own = {kind: {"n_query": q, "n_gallery": g} for kind, (q, g) in TYPES.items()}
    return [row(f"{kind} {name}", value + i, convention="fashioniq", **counts, **changes)
            for i, (kind, counts) in enumerate((own | {"average": {}}).items())
            for name in ("R@10", "R@50", "Avg")]


# ------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize(("own", "text"), [
    ({}, "6,016 queries x 15,536 images (15,400 different)"),
    ({"n_query": 2017, "n_gallery": 3817}, "2,017 queries x 3,817 images"),
    ({"n_query": 2017}, "2,017 queries x 15,536 images (15,400 different)"),
    ({"n_query": 0, "n_gallery": 3817}, "0 queries x 3,817 images")])
def test_a_row_on_a_part_of_the_set_has_its_own_counts(own, text):
    record = a_run(row(), dataset=FASHION | {"n_gallery_unique": 15400})
    assert counts_text(record, Metric(**row(**own))) == text
    assert counts_text(record) == "6,016 queries x 15,536 images (15,400 different)"


def test_query_classes_are_of_sketch_papers():
    of = {"query": "", "gallery": "", "n_classes": 21}
    assert counts_text(a_run(row(), dataset=of), Metric(**row(n_gallery=500))) == (
        "4,181 sketches x 500 photos, 21 query classes")
    assert counts_text(a_run(row(), dataset=of), Metric(**row(n_query=500))) == (
        "500 sketches x 2,297 photos, 21 classes")


# --------------------------------------------------------------------------------- own tables


def test_baselines_stand_between_chance_and_the_trained():
    variants = ["trained", "sum", "text-only", "chance", "image-only", "untrained"]
    rows = [row(variant=v, selection=s) for v in variants
            for s in (("last", "val") if v == "trained" else ("",))]
    table = report.demo_table([a_run(*rows, kind="demo")])
    assert list(table.columns[7:-6]) == ["chance", "untrained", "image-only", "text-only", "sum",
                                         "trained (val)", "trained (last)"]


def test_the_interval_is_the_trained_ones_and_not_a_baselines():
    rows = [row(variant=v, value=x) for v, x in (("sum", 9.0), ("trained", 60.0))]
    assert report.demo_table([a_run(*rows, kind="demo")]).interval[0] == "59.0 to 61.0"
    assert report.demo_table([a_run(rows[0], kind="demo")]).interval[0] == ""


def test_types_of_one_record_are_one_table_in_its_order_with_their_counts():
    rows = [*fashion_rows(60.0), *fashion_rows(5.0, variant="chance")]
    made = a_run(*rows, kind="demo", dataset=FASHION | {"kind": "demo"}, protocol=SPLIT)
    text = report.own_markdown(report.demo_table([made]), "")
    head, _, *lines = text.splitlines()
    counts = ("dress 2,017 queries x 3,817 images, shirt 2,038 queries x 6,346 images, "
              "toptee 1,961 queries x 5,373 images, average 6,016 queries x 15,536 images")
    assert head == (f"**sprc/first**, fashioniq val, {SPLIT}: {counts}; 1 seed; cpu; run first; "
                    "in percent; chance is one random draw")
    assert lines[0] == "| metric (fashioniq) | chance | trained | interval of trained |"
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        f"| {kind} {name}" for kind in (*TYPES, "average") for name in ("R@10", "R@50", "Avg")]
    assert lines[2] == "| dress R@10 | 5.0 | 60.0 | 59.0 to 61.0 |"
    assert lines[-1].endswith("| 8.0 | 63.0 | 62.0 to 64.0 |")


def test_one_part_keeps_its_counts_in_the_head():
    text = report.own_markdown(report.demo_table([a_run(row(), row("R@5"), kind="demo")]), "")
    assert "cirr val, rc2: 4,181 queries x 2,297 images; 1 seed" in text
    assert "| metric (cirr) | trained | interval of trained |\n" in text


@pytest.mark.parametrize(("convention", "metric"), [("cirr", "Avg"), ("fashioniq", "average Avg")])
def test_a_kept_list_of_composed_runs_becomes_a_table(tmp_path, convention, metric):
    file = tmp_path / "many.csv"
    rows = [{"turned": name, "seed": seed, f"{metric} {convention}": value, "dataset": "doodles",
             "split": "val", "n_query": 315, "n_gallery": 1210, "device": "cpu", "torch": "2.15"}
            for name, pair in {"as released": (30.0, 34.0), "no rtc": (40.0, 40.0)}.items()
            for seed, value in enumerate(pair)]
    pd.DataFrame(rows).to_csv(file, index=False)
    text = report.runs_markdown(file)
    assert text.startswith(f"{metric} ({convention}), in percent, doodles val, 315 queries x 1,210 "
                           "images; ")
    assert "| no rtc | 40.0 | 0.0 | +8.0 | 2.8 |" in text


# --------------------------------------------------------------------- beside published numbers


@pytest.fixture
def judged(tmp_path):
    """What becomes of CIRR's R@1 50.0, which three experiments aim at, and of FashionIQ's dress
    and average R@10 of 50.0."""
    cell = {"table": "t", "method": "SPRC", "grade": "A", "source": "Table 1", "value": 50.0,
            "split": "val"}
    fashion = cell | {"dataset": "fashioniq", "protocol": SPLIT, "convention": "fashioniq"}
    cells = [cell | {"id": "R@1", "dataset": "cirr", "protocol": "rc2", "metric": "R@1",
                     "convention": "cirr"},
             *(fashion | {"id": kind, "metric": f"{kind} R@10"} for kind in ("dress", "average"))]
    content = {
        "title": "x", "cells": cells,
        "sets": {"fashioniq": {"val": {"n_query": 6016, "n_gallery": 15536}}},
        "tolerances": {c["metric"]: {"points": 1.0, "reason": "one seed"} for c in cells},
        "experiments": [{"name": name, "notebook": "a.ipynb", "requires": name.upper(),
                         "parameters": {"epochs": 9}, "targets": ["R@1"]}
                        for name in ("first", "second", "another")]
        + [{"name": "types", "notebook": "a.ipynb", "targets": ["dress", "average"]}]}
    (tmp_path / "sprc").mkdir()
    (tmp_path / "sprc" / "paper.yml").write_text(yaml.safe_dump(content))
    paper = read_paper(tmp_path / "sprc" / "paper.yml")
    return lambda *records: comparison(paper, list(records)).set_index("id")


def test_of_several_experiments_the_first_with_a_comparable_run_answers(judged):
    runs = {name: a_run(row(value=value), experiment=name)
            for name, value in (("first", 50.5), ("second", 53.0), ("another", 40.0))}
    for names, value, status in ((("another", "second", "first"), 50.5, "matched"),
                                 (("another", "second"), 53.0, "higher"),
                                 (("another",), 40.0, "lower")):
        found = judged(*(runs[name] for name in names)).loc["R@1"]
        assert (found.reproduced, found.status, found.seeds) == (value, status, 1)
        assert found.run == names[-1] and pd.isna(found.spread)


def test_seeds_are_those_of_the_one_experiment(judged):
    found = judged(a_run(row(value=50.0), seed=1), a_run(row(value=51.0), seed=2),
                   a_run(row(value=90.0), experiment="second", seed=3)).loc["R@1"]
    assert (found.reproduced, found.seeds, found.run) == (50.5, 2, "first, first")


def test_an_experiment_whose_run_is_not_comparable_is_passed_over(judged):
    short = {"parameters": {"epochs": 1}}
    good = a_run(row(value=51.0), experiment="another")
    found = judged(a_run(row(), **short), a_run(row(), experiment="second", protocol="VAL"), good)
    assert (found.status["R@1"], found.run["R@1"]) == ("matched", "another")
    assert found.reproduced["R@1"] == 51.0


def test_where_none_is_comparable_the_first_that_ran_says_why(judged):
    other = a_run(row(), experiment="another", parameters={"epochs": 2})
    second = a_run(row(), experiment="second", protocol="VAL")
    found = judged(other, second).loc["R@1"]
    assert (found.status, found.run) == ("not comparable", "second")
    assert found.reason == "protocol is VAL, published rc2; the record has no R@1/cirr"
    assert judged(other).reason["R@1"] == "parameter epochs is 2, published 9"


def test_the_command_is_the_first_experiments(judged):
    found = judged().loc["R@1"]
    assert found.status == "not run" and found.reason == (
        "needs FIRST; command: `python -m replication run sprc/first`")


def test_a_cell_of_one_type_shows_that_types_counts(judged):
    made = a_run(*fashion_rows(50.0), dataset=FASHION, protocol=SPLIT, experiment="types")
    table = judged(made)
    assert table.status["dress"] == "matched" and table.reproduced["average"] == 53.0
    assert table.counts["dress"] == "2,017 queries x 3,817 images"
    assert table.counts["average"] == "6,016 queries x 15,536 images"


def test_the_other_gallery_is_not_comparable(judged):
    made = a_run(*fashion_rows(50.0), dataset=FASHION | {"n_gallery": 9000}, protocol=VAL,
                 experiment="types")
    table = judged(made)
    assert table.status["dress"] == table.status["average"] == "not comparable"
    assert table.reason["dress"].startswith(f"protocol is {VAL}, published {SPLIT}; "
                                            "n_gallery is 9,000, published 15,536")


# ------------------------------------------------------------------------------ computed again


def drawn(kind: str, n=90, images=70, vectors=4, seed=0) -> dict[str, torch.Tensor]:
    """A composed file's tensors: small whole numbers, so that scores are exact and many tie."""
    g = torch.Generator().manual_seed(seed)
    tensors = {"query": torch.randint(-1, 2, (n, 6), generator=g).float(),
               "gallery": torch.randint(-1, 2, (images, vectors, 6), generator=g).float()}
    rows = torch.stack([torch.randperm(images, generator=g)[:6] for _ in range(n)])
    tensors["target"] = rows[:, 3].clone()
    if kind == "cirr":
        tensors |= {"reference": rows[:, 0].clone(), "members": rows}
    return {f"{kind}.{name}": tensor for name, tensor in tensors.items()}


def scores_of(tensors, kind: str, query: int) -> list[float]:
    """One query's scores by a plain loop."""
    asked = tensors[f"{kind}.query"][query].tolist()
    return [max(sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in item)
            for item in tensors[f"{kind}.gallery"].tolist()]


def place(scores: list[float], target: int, rows, out: int | None) -> int:
    """The target's rank among rows, `out` left out; of equal scores the lower row is first."""
    order = sorted((r for r in rows if r != out), key=lambda r: (-scores[r], r))
    return 1 + order.index(target)


def share(ranks: list[int], k: int) -> float:
    return 100 * sum(rank <= k for rank in ranks) / len(ranks)


def cirr_values(tensors) -> dict[str, float]:
    whole, group = [], []
    for i, target in enumerate(tensors["cirr.target"].tolist()):
        scores, out = scores_of(tensors, "cirr", i), int(tensors["cirr.reference"][i])
        whole.append(place(scores, target, range(len(scores)), out))
        group.append(place(scores, target, tensors["cirr.members"][i].tolist(), out))
    seven = {f"R@{k}": share(whole, k) for k in (1, 5, 10, 50)}
    seven |= {f"Rsub@{k}": share(group, k) for k in (1, 2, 3)}
    return seven | {"Avg": (seven["R@5"] + seven["Rsub@1"]) / 2, "Mean": sum(seven.values()) / 7}


def fashion_values(tensors, kinds=tuple(TYPES)) -> dict[str, float]:
    found = {}
    for kind in kinds:
        ranks = []
        for i, target in enumerate(tensors[f"{kind}.target"].tolist()):
            scores = scores_of(tensors, kind, i)
            ranks.append(place(scores, target, range(len(scores)), None))
        found |= {f"{kind} R@{k}": share(ranks, k) for k in (10, 50)}
        found[f"{kind} Avg"] = (found[f"{kind} R@10"] + found[f"{kind} R@50"]) / 2
    names = ("R@10", "R@50", "Avg")
    return found | {f"average {name}": sum(found[f"{kind} {name}"] for kind in kinds) / len(kinds)
                    for name in names}


def fashion(seed=0, **changes) -> dict[str, torch.Tensor]:
    sizes = {"dress": (60, 55), "shirt": (41, 80), "toptee": (17, 64)}
    return {name: tensor for i, (kind, (n, images)) in enumerate(sizes.items())
            for name, tensor in drawn(kind, n, images, seed=10 * seed + i, **changes).items()}


def rows_of(values: dict[str, float], convention: str, variant="trained", selection="val"):
    return [row(name, round(value, 6), variant, convention=convention, selection=selection)
            for name, value in values.items()]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several chunks of queries, and several blocks of the gallery in each."""
    monkeypatch.setattr(verification, "CHUNK", 16)
    monkeypatch.setattr(retrieval, "PRODUCTS", 1000)


@pytest.fixture
def saved(tmp_path):
    """Writes a record and its files, by key; gives the record's path."""
    def write(rows, files, **changes):
        for i, tensors in enumerate(files.values()):
            save_file(tensors, tmp_path / f"{i}.safetensors")
        names = {key: f"{i}.safetensors" for i, key in enumerate(files)}
        return write_record(a_run(*rows, files=names, **changes), tmp_path / "record.json")
    return write


def told(lines: list[str], word: str) -> int:
    return sum(line.startswith(f"  {word}") for line in lines)


def test_the_loop_has_ties_that_matter():
    tensors = drawn("cirr")
    turned = tensors | {"cirr.gallery": tensors["cirr.gallery"].flip(0),
                        **{f"cirr.{name}": 69 - tensors[f"cirr.{name}"]
                           for name in ("target", "reference", "members")}}
    before, after = cirr_values(tensors), cirr_values(turned)  # the same but for who is first
    assert all(before[name] != after[name] for name in ("R@1", "R@10", "Rsub@1", "Mean"))


def test_a_cirr_run_is_computed_again_with_its_baselines(saved):
    files = {"embeddings": drawn("cirr"), "embeddings:trained:last": drawn("cirr", seed=1),
             "embeddings:sum": drawn("cirr", vectors=1, seed=2)}
    values = [cirr_values(tensors) for tensors in files.values()]
    rows = [*rows_of(values[0], "cirr"), *rows_of(values[1], "cirr", selection="last"),
            *rows_of(values[2], "cirr", "sum", ""), row(variant="chance", value=1.0)]
    path = saved(rows, files)
    lines, outcome = verified(path)
    assert (outcome, told(lines, "agrees"), told(lines, "not saved")) == (AGREES, 27, 1)
    assert f"  {first_places(path.parent / '0.safetensors')}" in lines


def test_a_fashioniq_run_is_computed_again(saved):
    files = {"embeddings": fashion(), "embeddings:text-only": fashion(1, vectors=1)}
    rows = [*rows_of(fashion_values(files["embeddings"]), "fashioniq"),
            *rows_of(fashion_values(files["embeddings:text-only"]), "fashioniq", "text-only", "")]
    lines, outcome = verified(saved(rows, files, dataset=FASHION, protocol=SPLIT))
    assert (outcome, told(lines, "agrees"), len(rows)) == (AGREES, 24, 24)
    [places] = [line for line in lines if "first places" in line]
    assert [part.split(":")[0].strip() for part in places.split(";")] == list(TYPES)


@pytest.mark.parametrize("name", [*cirr_values(drawn("cirr")), *fashion_values(fashion())])
def test_a_changed_number_is_found(saved, name):
    cirr = " " not in name
    tensors = drawn("cirr") if cirr else fashion()
    values = cirr_values(tensors) if cirr else fashion_values(tensors)
    path = saved(rows_of(values, "cirr" if cirr else "fashioniq"), {"embeddings": tensors})
    record = read_record(path)
    metric = next(m for m in record.metrics if m.metric == name)
    metric.value += 2e-4 if metric.value < 50 else -2e-4
    lines, outcome = verified(write_record(record, path))
    assert (outcome, told(lines, "differs")) == (DIFFERS, 1)
    assert any(line.startswith(f"  differs     {metric.label}:") for line in lines)


def test_another_target_is_found(saved):
    tensors = drawn("cirr")
    rows = rows_of(cirr_values(tensors), "cirr")
    target, members = tensors["cirr.target"].clone(), tensors["cirr.members"]
    target[0] = next(m for m in members[0] if m not in (target[0], members[0, 0]))
    assert verified(saved(rows, {"embeddings": tensors | {"cirr.target": target}}))[1] == DIFFERS


def test_the_reference_is_out_of_the_gallery_only_where_there_are_groups(saved):
    """References that are like their queries take a place before many targets."""
    tensors = drawn("cirr")
    near = tensors["cirr.gallery"][tensors["cirr.reference"], 0]
    tensors["cirr.query"] = near + torch.eye(6)[torch.arange(90) % 6]
    values = cirr_values(tensors)
    plain = {name.replace("cirr", "dress"): tensor for name, tensor in tensors.items()
             if name.split(".")[1] in ("query", "gallery", "target")}
    inside = fashion_values(plain, ("dress",))
    assert inside["dress R@10"] < values["R@10"]
    for found, convention, files in ((inside, "fashioniq", plain), (values, "cirr", tensors)):
        assert verified(saved(rows_of(found, convention), {"embeddings": files}))[1] == AGREES


def test_a_missing_file_is_told(saved):
    tensors = drawn("cirr")
    path = saved(rows_of(cirr_values(tensors), "cirr"), {"embeddings": tensors})
    (path.parent / "0.safetensors").unlink()
    lines, outcome = verified(path)
    assert outcome == UNVERIFIABLE
    assert lines == ["  missing     embeddings: 0.safetensors"]


@pytest.mark.parametrize(("change", "word"), [
    ({"convention": "trec"}, "no such convention R@1 trec trained val"),
    ({"metric": "R@7"}, "no such metric R@7 cirr trained val"),
    ({"metric": "dress R@10", "convention": "fashioniq"},
     "no such convention dress R@10 fashioniq trained val")])
def test_what_the_file_does_not_give_is_told(saved, change, word):
    tensors = drawn("cirr")
    first, *rows = rows_of(cirr_values(tensors), "cirr")
    lines, outcome = verified(saved([first | change, *rows], {"embeddings": tensors}))
    assert outcome == UNVERIFIABLE and f"  {word}" in lines


def test_a_type_that_the_file_lacks_is_told_and_the_average_differs(saved):
    tensors = fashion()
    rows = rows_of(fashion_values(tensors), "fashioniq")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("toptee")}
    lines, outcome = verified(saved(rows, {"embeddings": kept}))
    assert outcome == DIFFERS and "  no such metric toptee R@10 fashioniq trained val" in lines
    assert all("average" in line for line in lines if line.startswith("  differs"))


def test_first_places_leave_the_reference_out_and_are_told_by_kind(tmp_path):
    axes = torch.eye(5)
    asked = [0] * 8 + [1] * 6 + [2] * 4 + [3] * 2
    part = {"query": axes[asked].clone(), "gallery": axes[:, None].repeat(1, 2, 1).contiguous(),
            "target": torch.full((20,), 4)}
    file = tmp_path / "e.safetensors"
    save_file({f"dress.{name}": tensor for name, tensor in part.items()}, file)
    hub = "first places of 20 queries go to 4 of 5 images, 90 % of them to three"
    assert first_places(file) == hub
    save_file({f"{kind}.{name}": tensor.clone() for name, tensor in part.items()
               for kind in ("shirt", "dress")}, file)
    assert first_places(file) == f"dress: {hub}; shirt: {hub}"
    part["reference"] = torch.tensor(asked)  # which would come first: now the lowest of the others
    part["members"] = torch.arange(5).repeat(20, 1)
    save_file({f"cirr.{name}": tensor for name, tensor in part.items()}, file)
    assert first_places(file) == (
        "first places of 20 queries go to 2 of 5 images, 100 % of them to three")


# --------------------------------------------------------------------------------- the scorer


def test_the_largest_product_is_a_loops_however_the_gallery_is_cut(monkeypatch):
    tensors = drawn("x", n=20, images=33, vectors=5)
    query, gallery = tensors["x.query"], tensors["x.gallery"]
    wanted = torch.tensor([scores_of(tensors, "x", i) for i in range(20)])
    for most in (1, 5, 7 * 5 * 3, 10**9):
        monkeypatch.setattr(retrieval, "PRODUCTS", most)
        scores = max_scorer(query, gallery)
        assert torch.equal(torch.cat([scores(slice(s, s + 7)) for s in (0, 7, 14)]), wanted)
    assert scores(slice(0, 0)).shape == (0, 33)


def test_scores_are_float32_and_nothing_is_normalised():
    query, gallery = torch.full((1, 3), 2.0), torch.full((2, 1, 3), 5.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = max_scorer(query.half(), gallery.bfloat16())(slice(0, 1))
    assert found.dtype == torch.float32 and found.tolist() == [[30.0, 30.0]]


def test_products_are_never_held_all_at_once(monkeypatch):
    sizes, product = [], retrieval._product

    def watched(query, gallery):
        sizes.append(len(query) * len(gallery))
        return product(query, gallery)

    monkeypatch.setattr(retrieval, "_product", watched)
    tensors = drawn("cirr", n=90, images=70, vectors=4)
    max_scorer(tensors["cirr.query"], tensors["cirr.gallery"])(slice(0, 90))
    assert max(sizes) <= 1000 and sum(sizes) == 90 * 70 * 4


@pytest.mark.parametrize(("query", "gallery", "words"), [
    ((3, 4), (5, 4), "do not fit"), ((3, 4), (5, 2, 6), "do not fit"),
    ((4,), (5, 2, 4), "do not fit"), ((3, 4), (5, 0, 4), "have no vector")])
def test_shapes_that_do_not_fit_are_refused(query, gallery, words):
    with pytest.raises(ValueError, match=words):
        max_scorer(torch.zeros(query), torch.zeros(gallery))


def test_a_negative_count_of_a_row_is_refused():
    with pytest.raises(InvalidFile, match=r"metrics\.0\.n_query: .*greater than or equal to 0"):
        a_run(row(n_query=-1))


# -------------------------------------------------------------------------------- the benchmark


def test_the_benchmark_becomes_a_table(tmp_path, capsys, monkeypatch):
    from benchmarks import composed_rank

    monkeypatch.setattr("sys.argv", ["x", "--device", "cpu", "--queries", "10", "--repeats", "1",
                                     "--out", str(tmp_path / "a.json")])
    composed_rank.main()
    found = json.loads((tmp_path / "a.json").read_text())
    text = report.speed_markdown([tmp_path / "a.json"])
    assert ("; 10 queries x 2,297 images x 32 vectors x 256; memory grows by " in text
            and " MB, all products are 3 MB\n\n|  | seconds | times the product, median of the "
            "rounds' ratios |" in text)
    ranks, ratio = found["seconds"]["ranks"], found["ratio"]
    assert f"| ranks of all queries, in gallery and group | {ranks:.3g} | {ratio:.2f} |" in text
    monkeypatch.setattr("replication.paths.ROOT", tmp_path)
    assert report.speeds("sprc") == []
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "composed_rank_cpu.json").write_text("{}")
    assert [file.name for file in report.speeds("sprc")] == ["composed_rank_cpu.json"]


def test_the_training_benchmark_becomes_a_table(tmp_path, monkeypatch):
    from benchmarks import sprc_training

    monkeypatch.setattr(sprc_training, "VIT_S", {
        "img_size": 28, "patch_size": 14, "embed_dim": 16, "depth": 1, "num_heads": 2,
        "mlp_ratio": 2.0})
    monkeypatch.setattr(sprc_training, "SMALL", {"hidden_size": 16, "num_hidden_layers": 1,
                                                 "num_attention_heads": 2,
                                                 "intermediate_size": 16})
    monkeypatch.setattr("sys.argv", ["x", "--device", "cpu", "--batch", "2", "--repeats", "1",
                                     "--out", str(tmp_path / "a.json")])
    sprc_training.main()
    found, text = json.loads((tmp_path / "a.json").read_text()), report.speed_markdown(
        [tmp_path / "a.json"])
    assert found["bytes_an_image"] == 5 * 16 * 2 and found["image_tokens"] == 5
    assert "; 2 triplets a step, an image encoder of 0 million parameters (5 x 16), " in text
    assert f"| features from the store | {found['seconds']['stored']:.3g} | " in text
    assert found["ratio"] == pytest.approx(
        found["seconds"]["in the loop"] / found["seconds"]["stored"])
