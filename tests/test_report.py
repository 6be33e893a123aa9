"""Published cells against records: every status, and who may stand beside a published number."""

import json
import shutil
from decimal import Decimal
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from test_records import a_record

from replication import notebooks, published, report
from replication.comparison import COLUMNS, records_of
from replication.published import check_paper, read_paper
from replication.records import InvalidFile, parse_record, write_record

CELL = {"table": "t1", "method": "Ours", "dataset": "sketchy_ext", "split": "104/21",
        "protocol": "zero-shot", "metric": "mAP@200", "convention": "trec", "value": 70.0,
        "grade": "A", "source": "Table 1"}
BEFORE, AFTER = "# Title\n<!-- results:begin -->", "<!-- results:end -->\nend\n"


def a_paper(**changes) -> dict:
    return {
        "title": "A paper",
        "aliases": {"sketchy": "sketchy_ext"},
        "sets": {"sketchy_ext": {"104/21": {"n_query": 12694, "n_gallery": 12553,
                                            "n_classes": None}}},
        "tolerances": {"mAP@200": {"points": 1.0, "reason": "one seed"}},
        "experiments": [
            {"name": "demo", "notebook": "train.ipynb", "demo": True},
            {"name": "sketchy", "notebook": "train.ipynb", "parameters_file": "paper/sketchy.yml",
             "targets": ["ours"], "requires": "Sketchy Extended"}],
        "cells": [CELL | {"id": "ours"}, CELL | {"id": "other", "method": "ZS-SAKE"},
                  CELL | {"id": "never", "reason": "its code was never released"}],
    } | changes


@pytest.fixture
def folder(tmp_path) -> Path:
    """book/clip_prompt of a small book."""
    folder = tmp_path / "book" / "clip_prompt"
    (folder / "paper").mkdir(parents=True)
    (folder / "paper" / "sketchy.yml").write_text("epochs: 60\nseed: 42\n")
    (folder / "train.ipynb").write_text(nbformat.writes(nbformat.v4.new_notebook()))
    (folder / "paper.yml").write_text(yaml.safe_dump(a_paper()))
    (tmp_path / "README.md").write_text(f"{BEFORE}\n{AFTER}")
    return folder


def full(value=70.0, seed=42, dataset=None, metric=None, **changes):
    """A record on the whole published test set."""
    record = a_record(experiment="sketchy", seed=seed, parameters={"epochs": 60, "seed": seed})
    record["dataset"] = {"name": "sketchy", "split": "104/21", "n_query": 12694,
                         "n_gallery": 12553, "n_gallery_unique": 12553, "n_classes": 21,
                         "manifest": "m", "kind": "full"} | (dataset or {})
    record["metrics"] = [{"metric": "mAP@200", "convention": "trec", "value": value,
                          "variant": "trained"} | (metric or {}),
                         {"metric": "mAP@200", "convention": "trec", "value": 5.0,
                          "variant": "chance"}]
    return parse_record(record | changes, "test")


def ours(folder, *records):
    table = report.comparison(read_paper(folder / "paper.yml"), list(records))
    return table.set_index("id").loc["ours"]


@pytest.mark.parametrize(("value", "status"), [
    (70.0, "matched"), (71.0, "matched"), (69.0, "matched"), (71.1, "higher"), (68.9, "lower")])
def test_status_against_the_tolerance(folder, value, status):
    row = ours(folder, full(value))
    assert (row.status, row.seeds, row.tolerance) == (status, 1, 1.0)
    assert row.difference == pytest.approx(value - 70)
    assert row.counts == "12,694 sketches x 12,553 photos, 21 classes"


def test_seeds_are_averaged_and_a_repeated_seed_counts_once(folder):
    old = full(10.0, seed=1, finished="2024-05-01T11:00:00Z")
    row = ours(folder, full(72.0, seed=1), old, full(74.0, seed=2))
    assert (row.reproduced, row.seeds, row.status) == (73.0, 2, "higher")
    assert row.spread == pytest.approx(2**0.5)


@pytest.mark.parametrize(("record", "words"), [
    (full(dataset={"name": "tuberlin"}), "dataset is tuberlin, published sketchy_ext"),
    (full(dataset={"split": "100/25"}), "split is 100/25, published 104/21"),
    (full(dataset={"n_query": 600}), "n_query is 600, published 12,694"),
    (full(dataset={"n_gallery": 99}), "n_gallery is 99, published 12,553"),
    (full(protocol="generalised"), "protocol is generalised, published zero-shot"),
    (full(parameters={"epochs": 1}), "parameter epochs is 1, published 60"),
    (full(metric={"convention": "acnet"}), "the record has no mAP@200/trec"),
    (full(metric={"variant": "untrained"}), "the record has no mAP@200/trec"),
    (full(metric={"selection": "unseen"}), "the record has no mAP@200/trec"),
])
def test_not_comparable_says_in_words_why(folder, record, words):
    row = ours(folder, record)
    assert row.status == "not comparable"
    assert words in row.reason
    assert row.isna()[["reproduced", "difference"]].all()


def test_a_comparable_run_wins_over_one_that_is_not(folder):
    row = ours(folder, full(1.0, seed=1, parameters={"epochs": 1}), full(70.0))
    assert (row.status, row.reproduced, row.seeds) == ("matched", 70.0, 1)


def test_a_protocol_of_one_metric_is_compared(folder):
    row = ours(folder, full(protocol="generalised", metric={"protocol": "zero-shot"}))
    assert row.status == "matched"


def test_an_undefined_metric_is_compared_only_when_the_definitions_agree(folder):
    paper = a_paper(cells=[CELL | {"id": "ours", "convention": ""}])
    (folder / "paper.yml").write_text(yaml.safe_dump(paper))
    record = full(70.0).model_dump()
    for other, status in ((70.5, "matched"), (24.0, "not comparable")):
        record["metrics"][1] = record["metrics"][0] | {"convention": "acnet", "value": other}
        row = ours(folder, parse_record(record, "test"))
        assert row.status == status
    assert "does not define mAP@200; by definition the run gives 24.0 to 70.0" in row.reason


def test_not_run_gives_the_reason_and_the_command(folder):
    table = report.comparison(read_paper(folder / "paper.yml"), []).set_index("id")
    assert list(table.status) == ["not run"] * 3
    assert table.reason["ours"] == ("needs Sketchy Extended; command: "
                                    "`python -m replication run clip_prompt/sketchy`")
    assert table.reason["never"] == "its code was never released"
    assert list(table.quoted) == [False, True, False]
    assert set(COLUMNS) == {"id", *table.columns}


@pytest.mark.parametrize("kind", ["demo", "subset"])
def test_a_sample_never_stands_beside_a_published_number(folder, kind):
    record = full(70.0, dataset={"kind": kind})
    assert ours(folder, record).status == "not run"
    write_record(record, folder / "runs" / "sketchy.json")
    write_record(record, folder / "records" / "sketchy.json")
    book = folder.parent
    report.write_report(book, book.parent / "README.md")
    pages = {k: (book / "_generated" / f"clip_prompt_{k}.md").read_text()
             for k in ("published", "demo", "subset")}
    assert "sketchy.json" in pages.pop(kind)
    assert not any("sketchy.json" in page or "(1 seed)" in page for page in pages.values())
    assert "| clip_prompt | 3 | 0 | 0 | 0 | 0 | 2 | 1 |" in (book.parent / "README.md").read_text()


def test_own_tables_set_floors_beside_the_trained_model():
    values = {"trained": 60.0, "chance": 4.0, "untrained": 9.0, "pixels": 7.0}
    records = []
    for seed, shift in ((1, 0.0), (2, 2.0)):
        record = a_record(seed=seed)
        record["metrics"] = [{"metric": "mAP@all", "convention": "trec", "variant": variant,
                              "value": value + shift} for variant, value in values.items()]
        records.append(parse_record(record, "test"))
    table = report.demo_table(records)
    row = table.iloc[0]
    assert len(table) == 1 and report.subset_table(records).empty
    assert [row[v] for v in ("chance", "pixels", "untrained", "trained")] == [5, 8, 10, 61]
    assert (row.seeds, row.interval, row.interval_of) == (2, "± 1.4 over seeds", "trained")
    other = records[0].model_copy(update={"seed": 3, "parameters": {"epochs": 9}})
    assert len(report.demo_table([*records, other])) == 2


def test_a_selection_has_its_own_column_and_the_interval_is_shown():
    record = a_record()
    record["metrics"][0]["selection"] = "unseen"
    table = report.demo_table([parse_record(record, "test")])
    assert table["trained (unseen)"][0] == 41.25
    text = report.own_markdown(table, "")
    assert "| metric (trec) | trained (unseen) | interval of trained (unseen) |" in text
    assert "| mAP@200 | 41.2 | 40.0 to 43.0 |" in text
    assert "doodles 30/10, zero-shot: 40 sketches x 50 photos, 10 classes; 1 seed; cpu" in text
    assert "; in percent\n" in text


def test_a_table_of_several_conventions_or_models_names_them_in_its_lines():
    record = a_record()
    first = record["metrics"][0] | {"variant": "trained", "selection": "last"}
    record["metrics"] = [first, first | {"metric": "P@100", "convention": "acnet",
                                         "variant": "trained sa"}]
    text = report.own_markdown(report.demo_table([parse_record(record, "test")]), "")
    assert "| metric | trained (last) | trained sa (last) | interval |" in text
    assert "| mAP@200 (trec) | 41.2 |  | 40.0 to 43.0 (trained (last)) |" in text
    assert "| P@100 (acnet) |  | 41.2 | 40.0 to 43.0 (trained sa (last)) |" in text


@pytest.mark.parametrize("size", ["demo", "tiny"])
def test_demo_runs_of_the_smallest_size_are_said_to_be(folder, size):
    write_record(full(dataset={"kind": "demo"}), folder / "runs" / "sketchy.json")
    run = nbformat.v4.new_notebook(metadata={notebooks.STAMP: {"size": size}})
    (folder / "runs" / "sketchy.ipynb").write_text(nbformat.writes(run))
    report.write_report(folder.parent, folder.parent.parent / "README.md")
    text = (folder.parent / "_generated" / "clip_prompt_demo.md").read_text()
    assert ("smallest size" in text) is (size == "tiny") and "mAP@200" in text


def test_report_is_deterministic_and_readme_holds_kept_records_only(folder):
    book, readme = folder.parent, folder.parent.parent / "README.md"
    assert report.stale_readme(book, readme)
    report.write_report(book, readme)
    first = readme.read_text()
    assert first.startswith(BEFORE) and first.endswith(AFTER)
    assert not report.stale_readme(book, readme)
    write_record(full(), folder / "runs" / "sketchy.json")
    report.write_report(book, readme)
    assert readme.read_text() == first
    assert "matched [1]" in (book / "_generated" / "clip_prompt_published.md").read_text()
    write_record(full(), folder / "records" / "sketchy.json")
    assert report.stale_readme(book, readme)
    assert readme.read_text() == first
    report.write_report(book, readme)
    assert "| clip_prompt | 3 | 1 | 0 | 0 | 0 | 1 | 1 |" in readme.read_text()
    assert len(records_of("clip_prompt", book)) == 2


@pytest.mark.parametrize("text", ["", BEFORE, AFTER, AFTER + BEFORE, 2 * (BEFORE + AFTER)])
def test_a_readme_without_its_markers_is_an_error(folder, text):
    readme = folder.parent.parent / "README.md"
    readme.write_text(text)
    with pytest.raises(ValueError, match="README.md needs one line <!-- results:begin -->"):
        report.write_report(folder.parent, readme)
    assert readme.read_text() == text


@pytest.mark.parametrize(("changes", "message"), [
    ({"cells": 2 * [CELL | {"id": "ours"}]}, "cell id given twice: ours"),
    ({"experiments": 2 * [{"name": "demo", "notebook": "a.ipynb"}]}, "experiment given twice"),
    ({"cells": []}, "experiment sketchy targets no such cell: ours"),
    ({"tolerances": {}}, "tolerances lack mAP@200/trec, which experiment sketchy targets"),
    ({"cells": [CELL | {"id": "ours", "value": "n/a"}]}, r"paper.yml: cells.0.value: .*'n/a'"),
    ({"cels": []}, "paper.yml: cels: Extra inputs are not permitted"),
])
def test_a_wrong_paper_file_is_refused_and_named(folder, changes, message):
    (folder / "paper.yml").write_text(yaml.safe_dump(a_paper(**changes)))
    with pytest.raises(InvalidFile, match=message):
        read_paper(folder / "paper.yml")


def test_check_names_what_the_disk_lacks(folder):
    assert check_paper(read_paper(folder / "paper.yml")) == []
    (folder / "train.ipynb").unlink()
    shutil.rmtree(folder / "paper")
    experiment = {"name": "last", "notebook": "train.ipynb", "needs": ["clip_prompt/first"]}
    (folder / "paper.yml").write_text(yaml.safe_dump({"title": "x", "experiments": [experiment]}))
    assert check_paper(read_paper(folder / "paper.yml")) == [
        "clip_prompt/last: notebook train.ipynb does not exist",
        "clip_prompt/last: needs clip_prompt/first, which no paper.yml has"]


def test_clip_prompt_keeps_every_published_cell(repo):
    paper = read_paper(repo / "book" / "clip_prompt" / "paper.yml")
    assert len(paper.cells) == 124
    value = {c.id: c.value for c in paper.cells}
    assert value["seed-clipprompt-sketchy-map200"] == Decimal("71.9")
    assert str(value["t1-cross-grad-sketchy-acc5"]) == "34.90"
    assert {e.name for e in paper.experiments if e.targets} == {"sketchy", "tuberlin", "quickdraw"}
    text = report.published_markdown(paper, report.comparison(paper, []))
    assert "| B-IP | 69.1 | 71.1 |" in text


def test_every_paper_of_the_book_is_valid(repo):
    for paper in published.read_papers(repo / "book").values():
        assert check_paper(paper) == []


def test_a_kept_list_of_runs_becomes_a_table(tmp_path):
    file = tmp_path / "many.csv"
    lines = ["turned,seed,mAP@all trec,dataset,split,n_query,n_gallery,device,torch"]
    lines += [f"{name},{seed},{value},doodles,38/14,1008,336,cpu,2.15"
              for name, values in {"as released": (10.0, 14.0), "no x": (20.0, 20.0)}.items()
              for seed, value in enumerate(values)]
    file.write_text("\n".join(lines) + "\n")
    text = report.runs_markdown(file)
    assert "in percent, doodles 38/14, 1,008 sketches x 336 photos; 2 seeds; " in text
    assert "`records/many.csv`" in text
    assert "| what was changed | mean |" in text and "of the means before rounding; cpu" in text
    assert "| as released | 12.0 | 2.8 |  |  |" in text
    assert "| no x | 20.0 | 0.0 | +8.0 | 2.8 |" in text
    both = pd.read_csv(file).assign(**{"mAP@all trec sa": [1.0, 2.0, 5.0, 5.0]})
    both.to_csv(file, index=False)
    text = report.runs_markdown(file)
    assert "| its spread | sa: mean | sa: spread |" in text
    assert "| no x | 20.0 | 0.0 | +8.0 | 2.8 | 5.0 | 0.0 |" in text


@pytest.mark.parametrize(("second", "difference"), [
    ((9.0, 13.0), "\u22121.0"), ((11.96, 12.0), "0.0"), ((12.04, 12.0), "0.0")])
def test_a_list_of_rankings_is_called_so_and_no_zero_has_a_sign(tmp_path, second, difference):
    rows = [{"turned": name, "seed": seed, "Avg cirr": value, "dataset": "d", "split": "val",
             "n_query": 5, "n_gallery": 7, "device": "cpu", "torch": "2"}
            for name, values in {"trained (val)": (12.0, 12.0), "text-only": second}.items()
            for seed, value in enumerate(values)]
    pd.DataFrame(rows).to_csv(tmp_path / "many.csv", index=False)
    text = report.runs_markdown(tmp_path / "many.csv")
    assert "| ranking | mean | spread over seeds |" in text
    assert text.splitlines()[-1].split(" | ")[3] == difference


def test_a_benchmark_of_pairs_becomes_a_table(repo):
    [file] = [f for f in report.speeds("zse_sbir") if f.stem.endswith("cpu")]
    found, text = json.loads(file.read_text()), report.speed_markdown([file])
    row = next(line for line in text.splitlines() if "projected once, float32" in line)
    assert f"| {found['pairs_per_second']['fast']:,.0f} |" in row
    assert f"| {found['times_plain']['fast']:.2f} |" in row
    assert report.speeds("acnet") == report.speeds("zse_other") == []


def test_the_first_picture_of_a_notebook_is_found(tmp_path):
    shown = [{"text/html": "<p>no picture</p>"},
             {"text/html": ['<img src="data:image/svg+xml;base64,', 'AAAA">']},
             {"text/html": '<img alt="x" src="data:image/jpeg;base64,aGVsbG8=">'}]
    cells = [{"cell_type": "markdown", "source": ""},
             {"cell_type": "code", "outputs": [{"data": d} for d in shown]}]
    file = tmp_path / "explain.ipynb"
    file.write_text(json.dumps({"cells": cells}))
    assert report.first_picture(file) == b"hello"
    file.write_text(json.dumps({"cells": cells[:1]}))
    assert report.first_picture(file) == b""


def test_variants_of_one_table_stand_side_by_side(folder):
    """A line a variant, its numbers across; what came out stands under what was published."""
    both = [CELL | {"id": f"{variant} {metric}", "variant": variant, "metric": metric}
            for variant in ("small", "large") for metric in ("mAP@200", "P@100")]
    paper = a_paper(cells=[c | {"reason": "" if c["id"] == "large mAP@200" else "never run"}
                           for c in both])
    paper["experiments"][1]["targets"] = ["large mAP@200"]
    (folder / "paper.yml").write_text(yaml.safe_dump(paper))
    paper = read_paper(folder / "paper.yml")
    value = float(CELL["value"])
    for given, mark, status in ((value + 0.5, "=", "matched"), (value - 2, "↓", "lower")):
        text = report.published_markdown(paper, report.comparison(paper, [full(value=given)]))
        head, _, small, large = (line for line in text.splitlines() if line.startswith("|"))
        assert head == "|  | mAP@200 | P@100 | status |" and "Convention `trec`." in text
        assert small == f"| small | {CELL['value']} | {CELL['value']} | not run [1] |"
        assert f"{CELL['value']}<br>{given:.1f} ({given - value:+.1f}) {mark} |" in large
        assert f"| 1 {status}, 1 not run [1][2] |" in large and "1. never run" in text
