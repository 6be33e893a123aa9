"""The run record: what it refuses, and that a reader sees a whole file or none."""

import json
import math

import pytest

from replication.records import (
    MIME,
    InvalidFile,
    RunRecord,
    code_version,
    environment,
    parse_record,
    read_record,
    read_records,
    utc_now,
    write_record,
)


def a_record(**changes) -> dict:
    """A valid record of a run on the built-in dataset, as a dictionary."""
    dataset = {"name": "doodles", "split": "30/10", "n_query": 40, "n_gallery": 50,
               "n_gallery_unique": 50, "n_classes": 10, "manifest": "abc", "kind": "demo"}
    metrics = [{"metric": "mAP@200", "convention": "trec", "value": 41.25, "low": 40.0,
                "high": 43.0, "variant": "trained"}]
    return {"paper": "clip_prompt", "experiment": "demo", "parameters": {"epochs": 2}, "seed": 0,
            "dataset": dataset, "protocol": "zero-shot", "metrics": metrics,
            "code": {"commit": "abc", "clean": True}, "environment": {"python": "3.11"},
            "started": "2024-05-01T12:00:00Z", "finished": "2024-05-01T12:01:00Z"} | changes


def with_metric(**changes) -> dict:
    record = a_record()
    record["metrics"][0] |= changes
    return record


def test_written_and_read_back_is_the_same(tmp_path):
    record = parse_record(a_record(), "x")
    path = write_record(record, tmp_path / "demo.json")
    again = read_record(path)
    assert again.model_dump() == record.model_dump()
    assert again.path == path
    text = path.read_text()
    assert text.startswith('{\n "code": {\n') and text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 100.1])
@pytest.mark.parametrize("field", ["value", "low", "high"])
def test_no_percent_is_refused_and_named(field, value):
    with pytest.raises(InvalidFile, match=rf"runs/demo\.json: metrics\.0\.{field}: .*found"):
        parse_record(with_metric(**{field: value}), "runs/demo.json")


@pytest.mark.parametrize("field", ["value", "low", "high"])
def test_a_rank_has_no_upper_limit_and_a_percent_is_named(field):
    record = parse_record(with_metric(unit="rank", value=1200.5, low=1000.0, high=2501.0), "x")
    assert (record.metrics[0].unit, record.metrics[0].high) == ("rank", 2501.0)
    with pytest.raises(InvalidFile, match=rf"metrics\.0\.{field}: .*mAP@200 in percent is at most "
                                          r"100 \(found 100\.5\)"):
        parse_record(with_metric(**{field: 100.5}), "x")


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_no_rank_is_refused_and_named(value):
    with pytest.raises(InvalidFile, match=r"metrics\.0\.value: "):
        parse_record(with_metric(unit="rank", value=value, low=None, high=None), "x")


def test_words_for_queries_and_gallery_stand_in_the_head():
    plain, dataset = a_record(), a_record()["dataset"] | {"query": "images", "gallery": "captions"}
    del dataset["n_classes"]
    assert "(demo): 40 queries x 50 gallery, seed 0" in str(parse_record(plain, "x"))
    record = parse_record(a_record(dataset=dataset), "x")
    assert record.dataset.n_classes is None
    assert "(demo): 40 images x 50 captions, seed 0" in str(record)


def test_numbers_stand_in_line_however_long_a_label_is():
    metrics = [{"metric": name, "convention": "trec", "value": 5.0} for name in ("P@1", "x" * 60)]
    _, *lines = str(parse_record(a_record(metrics=metrics), "x")).splitlines()
    assert len({line.index("5.00") for line in lines}) == 1


def test_nan_put_in_afterwards_is_not_written(tmp_path):
    record = parse_record(a_record(), "x")
    record.metrics[0].value = math.nan
    with pytest.raises(InvalidFile, match="metrics.0.value"):
        write_record(record, tmp_path / "demo.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("record", "message"), [
    (with_metric(low=43.5, high=43.0), "low 43.5 is above high 43.0"),
    (with_metric(unit="points"), "metrics.0.unit: Input should be 'percent' or 'rank'"),
    (with_metric(conventoin="trec"), "metrics.0.conventoin: Extra inputs"),
    (a_record(metrics=[]), "metrics: List should have at least 1 item"),
    (a_record(metrics=2 * a_record()["metrics"]), "more than once: mAP@200 trec trained"),
    (a_record(finished="2024-05-01T12:00:00"), "finished: .*not a UTC time"),
    (a_record(finished="2024-05-01T12:00:00+02:00"), "finished: .*not a UTC time"),
    (a_record(dataset=a_record()["dataset"] | {"kind": "whole"}), "dataset.kind"),
    (a_record(dataset=a_record()["dataset"] | {"n_query": -1}), "dataset.n_query"),
    (a_record(schema_version=2), "schema_version"),
])
def test_wrong_field_is_refused_and_named(record, message):
    with pytest.raises(InvalidFile, match=message):
        parse_record(record, "runs/demo.json")


def test_reading_names_the_file(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(a_record()))
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(InvalidFile, match="b.json: not JSON"):
        read_records(tmp_path)
    (tmp_path / "b.json").unlink()
    assert [r.path.name for r in read_records(tmp_path)] == ["a.json"]
    assert read_records(tmp_path / "absent") == []


def test_a_notebook_shows_its_record_under_the_mime_type():
    bundle = parse_record(a_record(), "x")._repr_mimebundle_()
    assert parse_record(bundle[MIME], "x") == parse_record(a_record(), "x")
    assert "41.25  [40.0, 43.0]" in bundle["text/plain"]


def test_a_new_record_fills_in_code_and_machine():
    fields = {k: v for k, v in a_record().items() if k not in ("code", "environment")}
    record = RunRecord(**fields | {"started": utc_now(), "finished": utc_now()})
    assert record.environment.python == environment().python != ""
    assert record.code == code_version()
    assert environment(torch="9.9", device="H200").torch == "9.9"


def test_outside_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr("replication.paths.ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert code_version().commit == "unknown"
    assert not code_version().clean
