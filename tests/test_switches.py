"""Choices side by side: what is turned, what is trained once, what a line of the list holds."""

from dataclasses import asdict, dataclass
from types import SimpleNamespace

import pandas as pd
import pytest

from replication import sketch_experiment, switches
from replication.papers import acnet, clip_prompt, clip_retrieval, sprc, zse_sbir
from replication.published import read_papers
from replication.records import parse_record
from replication.switches import Times
from tests.test_records import a_record


@dataclass(frozen=True)
class Config:
    save_root: str = ""
    rate: float = 0.5
    batch: int = 64
    selection: str = "last"
    gallery: str = "all"
    seed: int = 0


@pytest.fixture
def paper():
    """A paper whose mAP is its rate, one more on the best epoch; it notes what it trains."""
    trained = []

    def train(e, progress, select):
        trained.append((e.save_root.rsplit("/", 1)[-1], e.batch, select))

    def measure_selected(e):
        return (e,)

    def record(e, run, measured, started, seconds):
        value = 10 * measured.rate + (measured.selection == "unseen") + measured.seed - 42
        rows = [{"metric": "mAP@all", "convention": "trec", "value": value, "low": 0, "high": 99,
                 "variant": "trained", "selection": e.selection},
                {"metric": "mAP@all", "convention": "trec", "value": 1, "low": 0, "high": 99,
                 "variant": "trained sa", "selection": e.selection},
                {"metric": "mAP@all", "convention": "trec", "value": 2, "low": 0, "high": 99,
                 "variant": "trained", "selection": e.selection, "protocol": "in halves"},
                {"metric": "mAP@all", "convention": "trec", "value": 3, "low": 0, "high": 99,
                 "variant": "other", "selection": e.selection, "protocol": "zero-shot"}]
        return parse_record(a_record(metrics=rows, seed=e.seed, parameters={
            "rate": e.rate, "selection": e.selection, "save_root": e.save_root},
            weights={"name": "w", "sha256": "a" * 64}), "x")

    return SimpleNamespace(Config=Config, prepare=lambda config: config, train=train,
                           measure_selected=measure_selected, record=record, trained=trained)


def test_a_multiple_is_of_what_is_given_else_of_the_default_and_keeps_its_kind():
    turned = {"rate": Times(0.1), "batch": Times(3), "gallery": "one"}
    assert switches.resolved(turned, {"rate": 4.0}, Config) == {
        "rate": 0.4, "batch": 192, "gallery": "one"}
    assert isinstance(switches.resolved({"batch": Times(0.5)}, {}, Config)["batch"], int)


def test_choices_beyond_the_switches_are_turned_only_by_name():
    own, more = {"a": {"rate": 1}, "b": {}}, {"c": {"rate": 2}}
    assert switches.chosen(own, "", more) == own
    assert switches.chosen(own, "c, a", more) == {"a": {"rate": 1}, "c": {"rate": 2}}
    with pytest.raises(ValueError, match="no switch d; there are: a, b, c"):
        switches.chosen(own, "c, d", more)


def test_what_parts_after_training_shares_one():
    assert switches.trainings({"base": {}, "gallery": {"gallery": "one"}, "long": {"rate": 2},
                               "best": {"selection": "unseen", "rate": 2}}) == {
        "base": "base", "gallery": "base", "long": "long", "best": "long"}


def test_runs_share_a_folder_and_look_for_the_best_epoch_only_where_it_is_asked(paper, tmp_path):
    given = {"save_root": str(tmp_path), "rate": 2.0, "selection": "seen"}
    table = switches.run_all(paper, given, {
        "half": {"rate": Times(0.5)}, "half + best": {"rate": Times(0.5), "selection": "unseen"},
        "small": {"batch": Times(0.25)}}, 2)
    assert paper.trained == [("as-released-42", 64, False), ("as-released-43", 64, False),
                             ("half-42", 64, True), ("half-43", 64, True),
                             ("half-42", 64, True), ("half-43", 64, True),
                             ("small-42", 16, False), ("small-43", 16, False)]
    assert table["mean"].to_dict() == {"as released": 20.5, "half": 10.5, "half + best": 11.5,
                                       "small": 20.5}
    assert table["difference"].tolist() == [0, -10, -9, 0]
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert runs.seed.tolist() == [42, 43] * 4
    assert runs.parameters.str.contains('"selection": "unseen"').tolist() == [False] * 4 + [
        True] * 2 + [False] * 2
    assert runs.parameters.str.contains('"selection": "last"').sum() == 6


def test_a_line_tells_rankings_and_protocols_apart(paper, tmp_path):
    switches.run_all(paper, {"save_root": str(tmp_path)}, {}, 1)
    line = pd.read_csv(tmp_path / "runs.csv").iloc[0]
    assert {k: line[k] for k in line.index if k.startswith("mAP")} == {
        "mAP@all trec": 5, "mAP@all trec sa": 1, "mAP@all trec in halves": 2,
        "mAP@all trec other": 3}


def test_the_metric_is_the_first_of_the_papers_that_the_record_has(paper, tmp_path):
    paper.SWITCH_METRICS = (("Avg", "cirr"), ("mAP@all", "trec"))
    paper.SWITCH_BASE = "as stated"
    table = switches.run_all(paper, {"save_root": str(tmp_path)}, {}, 1)
    assert table["mean"].to_dict() == {"as stated": 5.0}
    assert switches.shown(table).loc["as stated"].tolist() == [5.0, "\u2013", 0.0, "5.0"]
    assert table.spread.isna().all() and table.index.name == "what was changed"


@pytest.mark.parametrize("selection", ["last", "unseen"])
def test_a_sketch_papers_selection_is_measured_alone(monkeypatch, selection):
    added = []
    monkeypatch.setattr(sketch_experiment, "_selected", lambda e, name: f"vectors of {name}")
    monkeypatch.setattr(sketch_experiment, "Results", lambda *given: SimpleNamespace(
        add=lambda *row: added.append(row)))
    e = SimpleNamespace(folder="", about={}, config=SimpleNamespace(selection=selection))
    assert sketch_experiment.measure_selected(e)[1] == f"vectors of {selection}"
    assert added == [(f"vectors of {selection}", "trained", selection)]


CHOICES = [(paper, name) for paper in (acnet, clip_prompt, clip_retrieval, sprc, zse_sbir)
           for name in paper.CHOICES]


@pytest.mark.parametrize(("paper", "name"), CHOICES, ids=[name for _, name in CHOICES])
def test_a_papers_choice_is_of_its_config_and_can_be_named_in_a_list(paper, name):
    values = switches.resolved(paper.CHOICES[name], {}, paper.Config)
    released, turned = (asdict(paper.Config(**given)) for given in ({}, values))
    assert {k: v for k, v in turned.items() if v != released[k]} == {
        k: v for k, v in values.items() if v != released[k]}
    assert set(values) <= set(released) and switches.chosen({}, name, paper.CHOICES)
    paper_yml = read_papers()[paper.__name__.rpartition(".")[2]]
    told = [str(e.parameters.get("only", "")) for e in paper_yml.experiments]
    assert any(name in [n.strip() for n in only.split(",")] for only in told), name
