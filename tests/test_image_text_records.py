"""Records of image-text retrieval: in tables, beside published numbers, and computed again."""

import json

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file
from test_records import a_record

from replication import report
from replication.comparison import comparison, counts_text
from replication.image_text import image_text_ranks
from replication.published import read_paper
from replication.records import InvalidFile, Metric, parse_record, read_record, write_record
from replication.verification import AGREES, DIFFERS, UNVERIFIABLE, first_places, verified

DATA = {"name": "coco", "split": "5k-test", "n_query": 5000, "n_gallery": 25000,
        "n_gallery_unique": 24890, "manifest": "m", "kind": "full", "query": "images",
        "gallery": "captions"}
HALF = "half-precision scores"


def row(variant="RN50", value=50.0, **changes) -> dict:
    return {"metric": "i2t_R@1", "convention": "image_text", "value": value, "variant": variant,
            "low": value - 1, "high": value + 1} | changes


def rank_row(variant="RN50", value=120.5, **changes) -> dict:
    return row(variant, value, metric="i2t_median_rank", unit="rank", **changes)


def a_run(*rows, kind="full", dataset=None, **changes):
    record = {"paper": "clip_retrieval", "experiment": "coco", "protocol": "zero-shot"} | changes
    return parse_record(a_record(dataset=DATA | {"kind": kind} | (dataset or {}),
                                 metrics=list(rows), **record), "test")


@pytest.fixture
def judged(tmp_path):
    """Statuses by model: what becomes of i2t_R@1 50.0 and i2t_median_rank 120 of two models."""
    cell = {"table": "t", "method": "CLIP", "dataset": "coco", "split": "5k-test", "grade": "A",
            "protocol": "zero-shot", "convention": "image_text", "source": "README"}
    cells = [cell | {"id": f"{model} {unit}", "ranking": model, "metric": metric, "value": value,
                     "unit": unit} for model in ("RN50", "RN101", "trained")
             for metric, value, unit in (("i2t_R@1", 50.0, "percent"),
                                         ("i2t_median_rank", 120, "rank"))]
    tolerance = {"points": 1.0, "reason": "as printed"}
    content = {"title": "x", "cells": cells,
               "tolerances": {"i2t_R@1": tolerance, "i2t_median_rank": tolerance},
               "experiments": [{"name": "coco", "notebook": "a.ipynb", "requires": "COCO",
                                "targets": [c["id"] for c in cells]}]}
    (tmp_path / "clip_retrieval").mkdir()
    (tmp_path / "clip_retrieval" / "paper.yml").write_text(yaml.safe_dump(content))
    paper = read_paper(tmp_path / "clip_retrieval" / "paper.yml")
    return lambda *records: comparison(paper, list(records)).set_index("id")


# ------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize(("dataset", "text"), [
    ({}, "5,000 images x 25,000 captions (24,890 different)"),
    ({"n_gallery_unique": 25000}, "5,000 images x 25,000 captions"),
    ({"n_classes": 80}, "5,000 images x 25,000 captions (24,890 different), 80 classes"),
    ({"query": "", "gallery": ""}, "5,000 sketches x 25,000 photos (24,890 unique)"),
    ({"query": "", "gallery": "", "n_classes": 21},
     "5,000 sketches x 25,000 photos (24,890 unique), 21 classes")])
def test_words_follow_the_numbers_and_no_classes_are_no_words(dataset, text):
    assert counts_text(a_run(row(), dataset=dataset)) == text


def test_a_metrics_own_gallery_has_the_words_too():
    metric = Metric(**row(n_gallery=500))
    assert counts_text(a_run(row()), metric) == "5,000 images x 500 captions"
    sketches = a_run(row(), dataset={"query": "", "gallery": "", "n_classes": 21})
    assert counts_text(sketches, metric) == "5,000 sketches x 500 photos, 21 query classes"


# --------------------------------------------------------------------- beside published numbers


def test_a_rank_answers_a_rank(judged):
    table = judged(a_run(row(), rank_row()))
    assert table.status["RN50 percent"] == table.status["RN50 rank"] == "matched"
    assert table.difference["RN50 rank"] == 0.5
    assert table.counts["RN50 rank"] == "5,000 images x 25,000 captions (24,890 different)"


@pytest.mark.parametrize(("rows", "cell", "words"), [
    ([row(unit="rank")], "RN50 percent", "unit is rank, published percent"),
    ([rank_row(value=99.0) | {"unit": "percent"}], "RN50 rank", "unit is percent, published rank"),
    ([row()], "RN50 rank", "the record has no i2t_median_rank/image_text")])
def test_another_unit_answers_nothing(judged, rows, cell, words):
    table = judged(a_run(*rows))
    assert (table.status[cell], table.reason[cell]) == ("not comparable", words)


def test_a_model_that_the_run_did_not_hold_is_not_run(judged):
    table = judged(a_run(row(), row("ViT-B/32"), row("chance", 1.0)))
    assert table.status["RN50 percent"] == "matched"
    assert table.status["RN101 percent"] == "not run"
    assert table.reason["RN101 percent"] == ("the run held RN50, ViT-B/32; needs COCO; command: "
                                             "`python -m replication run clip_retrieval/coco`")
    assert table.counts["RN101 percent"] == table.run["RN101 percent"] == ""
    assert table.status["trained percent"] == "not comparable"


@pytest.mark.parametrize("variant", ["trained", "trained sa", ""])
def test_a_trained_networks_record_lacks_a_ranking_and_is_not_comparable(judged, variant):
    table = judged(a_run(row(variant, metric="t2i_R@1")))
    assert table.status["RN101 percent"] == "not comparable"
    assert table.reason["RN101 percent"] == "the record has no i2t_R@1/image_text"


def test_of_several_records_those_that_hold_the_model_are_judged(judged):
    both = a_run(row(value=40.0), row("RN101"), seed=1)
    table = judged(both, a_run(row(value=44.0), seed=2))
    assert (table.reproduced["RN50 percent"], table.seeds["RN50 percent"]) == (42.0, 2)
    assert (table.status["RN101 percent"], table.seeds["RN101 percent"]) == ("matched", 1)
    later = a_run(row(value=44.0), seed=1, finished="2024-05-02T12:00:00Z")
    table = judged(both, later)
    assert table.reproduced["RN50 percent"] == 44.0
    assert table.status["RN101 percent"] == "matched"


# --------------------------------------------------------------------------------- own tables


def own(*rows, records=None):
    return report.demo_table(records or [a_run(*rows, kind="demo")])


def test_floors_stand_first_and_selections_in_order():
    given = ["last", "dev", "test", "unseen"]
    rows = [row("trained", selection=s) for s in given]
    table = own(*rows, row("zero-shot"), row("untrained"), row("chance"), row("other"))
    columns = ["chance", "untrained", "zero-shot", "trained (unseen)", "trained (test)",
               "trained (dev)", "trained (last)", "other"]
    assert list(table.columns[7:-6]) == columns


@pytest.mark.parametrize(("rows", "interval", "of"), [
    ([row()], "49.0 to 51.0", "RN50"),
    ([row("chance", 1.0), row("untrained", 2.0), row("doodle-clip")], "49.0 to 51.0",
     "doodle-clip"),
    ([row(selection="dev")], "49.0 to 51.0", "RN50 (dev)"),
    ([row(low=None)], "", "RN50"),
    ([row(), row("ViT-B/32")], "", ""),
    ([row(), row("ViT-B/32"), row("trained", 60.0, selection="last")], "59.0 to 61.0",
     "trained (last)"),
    ([row("zero-shot"), row("trained", 60.0)], "59.0 to 61.0", "trained"),
    ([row("trained", 60.0, selection="last"), row("trained", 70.0, selection="test")],
     "59.0 to 61.0", "trained (last)"),
    ([row(), row("", 70.0)], "69.0 to 71.0", "result"),
    ([row("zero-shot"), row("pixels"), row("untrained sa")], "", "")])
def test_the_interval_is_the_models_and_says_whose(rows, interval, of):
    assert tuple(own(*rows).loc[0, ["interval", "interval_of"]]) == (interval, of)


def test_the_spread_over_seeds_names_the_model_too():
    records = [a_run(row(value=v), kind="demo", seed=seed) for seed, v in ((1, 50.0), (2, 52.0))]
    found = own(records=records).iloc[0]
    assert (found.interval, found.interval_of) == ("± 1.4 over seeds", "RN50")


def test_each_metric_has_its_interval_and_a_rank_its_decimal():
    text = report.own_markdown(own(row(), row("chance", 1.0), rank_row()), "")
    assert "| metric (image_text) | chance | RN50 | interval of RN50 |" in text
    assert "| i2t_R@1 | 1.0 | 50.0 | 49.0 to 51.0 |" in text
    assert "| i2t_median_rank |  | 120.5 | 119.5 to 121.5 |" in text
    assert "5,000 images x 25,000 captions (24,890 different); 1 seed" in text
    assert ("in percent, but median ranks, of which a lower one is better; chance is one random "
            "draw\n") in text


def test_the_demo_page_shows_the_convention_that_no_cell_names(tmp_path):
    paper = {"title": "x", "experiments": []}
    (tmp_path / "paper.yml").write_text(yaml.safe_dump(paper))
    table = report._shown(read_paper(tmp_path / "paper.yml"), own(row(), row(convention="other")))
    assert list(table.convention) == ["image_text"]


@pytest.mark.parametrize(("rows", "told"), [
    ([row("chance", 1.0), row(value=40.0), row("doodle-clip"), rank_row("doodle-clip"),
      row("doodle-clip", 49.9, protocol=HALF), row("zero-shot", 9.0)],
     ", doodle-clip, in percent:\n\n|  | i2t_R@1 |\n| --- | ---: |\n"
     "| zero-shot, `image_text` | 50.0 |\n"
     f"| {HALF} | 49.9 |"),
    ([row("trained", 60.0, selection="test"), row("trained", 55.0, selection="last"), row(),
      row("trained", 80.0, selection="test", convention="image_text_5_folds")],
     ", in percent:\n\n| convention | i2t_R@1 |\n| --- | ---: |\n| `image_text` | 60.0 |\n"
     "| `image_text_5_folds` | 80.0 |")])
def test_the_conventions_are_the_models_where_nothing_is_trained(rows, told):
    text = report.conventions_markdown([a_run(*rows, kind="demo")])
    assert text == f"clip_retrieval/coco, run coco{told}\n"


@pytest.mark.parametrize("rows", [[row("chance")], [row("zero-shot")], [row(protocol=HALF)],
                                  [row("trained")]])  # one convention: nothing to compare
def test_floors_alone_have_no_conventions_page(rows):
    assert report.conventions_markdown([a_run(*rows, kind="demo")]) == "No demo run yet.\n"


# ------------------------------------------------------------------------------ computed again


def embeddings(seed: int, noise: float = 3.0, n: int = 200) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    images, owner = torch.randn(n, 8, generator=draw), torch.arange(n).repeat_interleave(5)
    texts = images[owner] + noise * torch.randn(5 * n, 8, generator=draw)
    return {"images": images, "texts": texts, "owner": owner}


def alike(tensors) -> dict[str, torch.Tensor]:
    """Cosines close to 1, which half precision cannot tell apart."""
    return tensors | {name: tensors[name] + 50 for name in ("images", "texts")}


def rows_of(saved, variant, selection="", protocol="", folds=1, half=False) -> list[dict]:
    ranks = image_text_ranks(**saved, n_folds=folds, half=half)
    named = {"variant": variant, "selection": selection, "protocol": protocol,
             "convention": "image_text" if folds == 1 else "image_text_5_folds"}
    return [*({"metric": name, "value": 100 * value, **named}
              for name, value in ranks.metrics().items()),
            *({"metric": f"{side}_median_rank", "value": value, "unit": "rank", **named}
              for side, value in ranks.median_ranks().items())]


@pytest.fixture
def saved(tmp_path):
    """Writes a record and its files, by key; gives the record's path."""
    def write(rows, files, **changes):
        for i, tensors in enumerate(files.values()):
            save_file(tensors, tmp_path / f"{i}.safetensors")
        names = {key: f"{i}.safetensors" for i, key in enumerate(files)}
        return write_record(a_run(*rows, files=names, **changes), tmp_path / "record.json")
    return write


def changed(path, label: str, by: float):
    record = read_record(path)
    next(m for m in record.metrics if m.label == label).value += by
    return write_record(record, path)


def test_a_trained_run_is_computed_again(saved):
    last, best = embeddings(0), embeddings(1)
    rows = [*rows_of(last, "trained", "last"), *rows_of(last, "trained", "last", folds=5),
            *rows_of(best, "trained", "test"), *rows_of(best, "zero-shot"), row("chance", 1.0)]
    path = saved(rows, {"embeddings": last, "embeddings:trained:test": best})
    lines, outcome = verified(path)
    assert outcome == AGREES and sum(line.startswith("  agrees") for line in lines) == 27
    assert sum("not saved" in line for line in lines) == 10
    assert sum("first places of 1,000 captions" in line for line in lines) == 1
    assert "  " + first_places(path.parent / "0.safetensors") in lines
    for label, by in (("mean_R@1 image_text trained last", 2e-4),
                      ("t2i_R@5 image_text_5_folds trained last", 2e-4),
                      ("t2i_median_rank image_text trained test", 0.5)):
        lines, outcome = verified(changed(path, label, by))
        assert outcome == DIFFERS and sum(line.startswith("  differs") for line in lines) == 1
        changed(path, label, -by)


def test_models_side_by_side_have_a_file_each(saved):
    models = {"RN50": embeddings(0), "ViT-B/32": embeddings(1)}
    rows = [r for name, tensors in models.items() for r in rows_of(tensors, name)]
    lines, outcome = verified(saved(rows, {f"embeddings:{k}": v for k, v in models.items()}))
    assert outcome == AGREES and sum(line.startswith("  agrees") for line in lines) == 18
    assert [line.split(": ")[0] for line in lines if "first places" in line] == [
        "  RN50", "  ViT-B/32"]


@pytest.mark.parametrize("variant", ["trained", "RN50"])
@pytest.mark.parametrize("protocol", [HALF, f"zero-shot, {HALF}", f"1K, {HALF}"])
def test_half_precision_scores_are_of_the_same_embeddings(saved, variant, protocol):
    tensors, own = alike(embeddings(0)), "1K" if "1K" in protocol else ""
    full, half = (rows_of(tensors, variant, "last", p, half=h)
                  for p, h in ((own, False), (protocol, True)))
    assert [r["value"] for r in full] != [r["value"] for r in half]
    parts = [variant, "last", own] if variant != "trained" else []
    key = ":".join(["embeddings", *filter(None, parts)])
    lines, outcome = verified(saved([*full, *half], {key: tensors}))
    assert outcome == AGREES and sum(line.startswith("  agrees") for line in lines) == 18
    other = alike(embeddings(5))
    exact = f"embeddings:{variant}:last:{protocol}"
    rows = [*full, *rows_of(other, variant, "last", protocol, half=True)]
    assert verified(saved(rows, {key: tensors, exact: other}))[1] == AGREES


def test_another_protocols_embeddings_do_not_stand_in(saved):
    tensors = embeddings(0)
    rows = [*rows_of(tensors, "RN50"), *rows_of(embeddings(1), "RN50", protocol=f"1K, {HALF}")]
    lines, outcome = verified(saved(rows, {"embeddings:RN50": tensors}))
    assert outcome == AGREES and sum("not saved" in line for line in lines) == 9


@pytest.mark.parametrize(("change", "told"), [
    ({"convention": "trec"}, "no such convention i2t_R@1 trec RN50"),
    ({"metric": "i2t_R@7"}, "no such metric i2t_R@7 image_text RN50")])
def test_what_the_file_does_not_give_is_told(saved, change, told):
    tensors = embeddings(0)
    rows = rows_of(tensors, "RN50")
    lines, outcome = verified(saved([rows[0] | change, *rows[1:]], {"embeddings:RN50": tensors}))
    assert outcome == UNVERIFIABLE and f"  {told}" in lines


def test_captions_first_images_are_counted(tmp_path):
    axes = torch.eye(5)
    drawn = [0] * 4 + [1] * 3 + [2] * 2 + [3]  # the fifth image comes first for none
    save_file({"images": axes, "texts": axes[drawn].clone(), "owner": torch.arange(5)
               .repeat_interleave(2)}, tmp_path / "e.safetensors")
    assert first_places(tmp_path / "e.safetensors") == (
        "first places of 10 captions go to 4 of 5 images, 90 % of them to three")


# ---------------------------------------------------------------------------- runs side by side


def test_a_kept_list_of_captioned_runs_becomes_a_table(tmp_path):
    file = tmp_path / "many.csv"
    values = {"as released": (30.0, 34.0), "no x": (40.0, 40.0)}
    rows = [{"turned": name, "seed": seed, "mean_R@1 image_text": value, "i2t_R@1 image_text": 1.0,
             "mean_R@1 image_text_5_folds": 2.0, "dataset": "doodles", "split": "test",
             "n_query": 1008, "n_gallery": 5040, "device": "cpu", "torch": "2.15"}
            for name, pair in values.items() for seed, value in enumerate(pair)]
    pd.DataFrame(rows).to_csv(file, index=False)
    text = report.runs_markdown(file)
    assert text.startswith("mean R@1 (image_text), in percent, doodles test, 1,008 images x 5,040 "
                           "captions; 2 seeds; differences, in points, of the means before "
                           "rounding; cpu, torch 2.15; every run: `records/many.csv`\n")
    assert "| what was changed | mean | spread over seeds | difference | its spread |\n" in text
    assert "| as released | 32.0 | 2.8 |  |  |" in text
    assert "| no x | 40.0 | 0.0 | +8.0 | 2.8 |" in text
    pd.DataFrame(rows).drop(columns="mean_R@1 image_text").to_csv(file, index=False)
    with pytest.raises(InvalidFile, match="many.csv has no column mAP@all trec or mean_R@1 image_"):
        report.runs_markdown(file)


def test_a_benchmark_of_recall_becomes_a_table(tmp_path, monkeypatch):
    found = {"machine": {"cpu": "Xeon", "cores": 4, "torch": "2.15"}, "images": 5000,
             "captions": 25000, "dim": 512, "device": "cpu", "ratio": 1.414, "grown_gb": 0.0531,
             "all_scores_gb": 0.5, "pairs_per_second": 4e8,
             "seconds": {"product": 0.5123, "ranks": 0.7456}}
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    monkeypatch.setattr("replication.paths.ROOT", tmp_path)
    assert report.speeds("clip_retrieval") == []
    for device in ("cpu", "cuda"):
        record = found | {"device": "H200" if device == "cuda" else "cpu"}
        (folder / f"image_text_{device}.json").write_text(json.dumps(record))
    (folder / "zse_pairs_cpu.json").write_text("{}")
    files = report.speeds("clip_retrieval")
    assert [f.name for f in files] == ["image_text_cpu.json", "image_text_cuda.json"]
    assert report.speeds("clip_prompt") == []
    told = ("5,000 images x 25,000 captions x 512; memory grows by 53 MB, all scores are 500 MB"
            "\n\n|  | seconds | times the product, median of the rounds' ratios |\n"
            "| --- | ---: | ---: |\n"
            "| matrix product alone | 0.512 | 1 |\n"
            "| ranks of all queries, both ways | 0.746 | 1.41 |\n")
    assert report.speed_markdown(files) == (f"Xeon, 4 cores, torch 2.15; {told}\n"
                                            f"H200, torch 2.15; {told}")


def test_the_benchmarks_fields_are_those_of_the_table(tmp_path, capsys, monkeypatch):
    from benchmarks import image_text

    monkeypatch.setattr("sys.argv", ["x", "--device", "cpu", "--images", "10", "--repeats", "1",
                                     "--out", str(tmp_path / "a.json")])
    image_text.main()
    assert "10 images x 50 captions x 512" in report.speed_markdown([tmp_path / "a.json"])


def test_protocols_stand_on_the_page_of_conventions_and_nowhere_else():
    made = a_run(row(value=40.0), row(value=70.0, convention="image_text_5_folds"),
                 row(value=39.0, protocol="zero-shot, GELU"), kind="subset")
    text = report.conventions_markdown([made])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[2:] == ["| zero-shot, `image_text` | 40.0 |", "| `image_text_5_folds` | 70.0 |",
                         "| GELU | 39.0 |"]
    own = report._own_protocol([made])
    assert [m.value for m in own[0].metrics] == [40.0, 70.0]
    assert report.conventions_markdown(own) == "No demo run yet.\n"  # a sample of one protocol
