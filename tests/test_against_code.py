"""Deviations and their effects: the schema, the arithmetic, the page, and what paper.yml names."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import ValidationError

from replication import against_code, effect_words, figures, published, report
from replication.deviations import (
    Deviation,
    Measured,
    Recorded,
    effect,
    main_column,
    problems,
    recorded_difference,
)
from replication.published import check_paper, read_paper, read_papers
from replication.records import InvalidFile, parse_record, write_record
from tests.test_records import a_record

ROOT = Path(__file__).resolve().parent.parent
PAPERS = {name: paper for name, paper in read_papers().items() if paper.deviations}
EVERY = [(name, d) for name, paper in PAPERS.items() for d in paper.deviations]
IDS = [f"{name}-{d.id}" for name, d in EVERY]

# three seeds: what was turned, mAP@all and mAP@200 in two conventions, the parameters
ROWS = {"as released": ([10.0, 12.0, 14.0], {"lr": 1, "selection": "last"}),
        "rate / 10": ([7.0, 7.0, 7.0], {"lr": 0.1, "selection": "last"}),
        "within": ([11.0, 12.0, 12.0], {"lr": 2, "selection": "last"}),
        "best on unseen": ([10.5, 13.5, 15.0], {"lr": 1, "selection": "unseen",
                                                "save_root": "elsewhere"})}


def listed(folder: Path, rows=ROWS, seeds=(42, 43, 44), name: str = "switches-full") -> Path:
    """A kept list in `folder`/records."""
    lines = [{"turned": turned, "seed": seed, "mAP@all trec": value, "mAP@200 trec": value + 1,
              "mAP@200 acnet": value + 1 + seed - 40, "dataset": "doodles", "split": "val",
              "n_query": 5, "n_gallery": 7, "device": "cpu", "torch": "2",
              "parameters": json.dumps(parameters)}
             for turned, (values, parameters) in rows.items()
             for seed, value in zip(seeds, values, strict=True)]
    (folder / "records").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(lines).to_csv(folder / "records" / f"{name}.csv", index=False)
    return folder


def of(row: str, **given) -> Measured:
    return Measured(list="switches-full", row=row, **given)


# ------------------------------------------------------------------------------- the effect


def test_an_effect_is_the_difference_of_means_with_the_spread_of_both_sides(tmp_path):
    made = effect(listed(tmp_path), of("rate / 10"))
    assert (made.mean, made.spread, made.seeds) == (-5.0, 2.0, 3)
    assert (made.against, made.column, made.data) == ("as released", "mAP@all trec", "doodles val")
    assert not made.paired and not made.none
    other = effect(tmp_path, of("within", against="rate / 10"))
    assert other.mean == pytest.approx(14 / 3)
    assert other.spread == pytest.approx(np.std([11, 12, 12], ddof=1))


def test_a_difference_within_its_spread_is_none(tmp_path):
    made = effect(listed(tmp_path), of("within"))
    assert made.mean == pytest.approx(-1 / 3) and made.none
    assert effect_words.points(made) == "none (−0.3 ± 2.1)"
    assert effect_words.points(effect(tmp_path, of("rate / 10"))) == "**−5.0 ± 2.0**"


def test_one_training_is_compared_seed_by_seed(tmp_path):
    made = effect(listed(tmp_path), of("best on unseen"))
    assert made.paired and made.mean == 1.0
    assert made.spread == pytest.approx(np.std([0.5, 1.5, 1.0], ddof=1)) and not made.none


def test_two_columns_are_one_training(tmp_path):
    made = effect(listed(tmp_path), of("as released", column="mAP@200 acnet",
                                       against_column="mAP@200 trec"))
    assert made.paired and (made.mean, made.spread) == (3.0, 1.0)
    assert effect_words.turned(made) == "mAP@200 `acnet` against mAP@200 `trec`"
    turned = effect(tmp_path, of("rate / 10", column="mAP@200 acnet",
                                 against_column="mAP@200 trec"))
    assert (turned.against, turned.mean) == ("rate / 10", 3.0)
    other = effect(tmp_path, of("rate / 10", column="mAP@200 trec"))
    assert (other.column, other.against_column, other.against) == (
        "mAP@200 trec", "mAP@200 trec", "as released")


def test_seeds_are_matched_whatever_their_order(tmp_path):
    listed(tmp_path)
    file = tmp_path / "records" / "switches-full.csv"
    runs = pd.read_csv(file)
    first = runs[runs.turned == "as released"]
    pd.concat([first, runs[runs.turned == "best on unseen"][::-1]]).to_csv(file, index=False)
    assert effect(tmp_path, of("best on unseen")).spread == pytest.approx(0.5)


@pytest.mark.parametrize(("measured", "told"), [
    (of("no such row"), "has no row 'no such row'"),
    (of("within", against="no such row"), "has no row 'no such row'"),
    (of("within", column="R@1 cirr"), "has no column 'R@1 cirr'"),
    (of("within", against_column="R@1 cirr"), "has no column 'R@1 cirr'"),
    (of("as released"), "'as released' is set against itself"),
    (of("within", against="within"), "'within' is set against itself"),
    (Measured(list="other", row="within"), "other.csv does not exist"),
])
def test_what_a_list_lacks_is_named(tmp_path, measured, told):
    with pytest.raises(InvalidFile, match=re.escape(told)):
        effect(listed(tmp_path), measured)
    deviation = Deviation(id="x", what="x", here="replication", measured=[measured])
    assert [told in problem and "deviation x" in problem
            for problem in problems(tmp_path, [deviation])] == [True]


def test_other_seeds_are_refused(tmp_path):
    listed(tmp_path)
    file = tmp_path / "records" / "switches-full.csv"
    runs = pd.read_csv(file)
    runs[(runs.turned != "within") | (runs.seed != 44)].to_csv(file, index=False)
    with pytest.raises(InvalidFile, match="'within' and 'as released' have other seeds"):
        effect(tmp_path, of("within"))


def test_a_changed_list_is_read_again(tmp_path):
    before = effect(listed(tmp_path), of("rate / 10")).mean
    listed(tmp_path, {**ROWS, "rate / 10": ([9.0, 9.0, 9.0], {"lr": 0.1})})
    assert (before, effect(tmp_path, of("rate / 10")).mean) == (-5.0, -3.0)


def test_a_list_without_a_common_column_is_told():
    with pytest.raises(InvalidFile, match="has no column mAP@all trec or mean_R@1 image_text"):
        main_column(pd.DataFrame({"turned": []}), Path("x.csv"))


def test_the_rule_takes_nothing_for_something_once_in_six_times():
    rng = np.random.default_rng(0)
    ours, theirs = rng.standard_normal((2, 20_000, 3))
    difference = abs(ours.mean(1) - theirs.mean(1))
    spread = (ours.var(1, ddof=1) + theirs.var(1, ddof=1)) ** 0.5
    assert np.mean(difference > spread) == pytest.approx(1 / 6, abs=0.015)
    assert "once in six times" in (ROOT / "book/paper_against_code.md").read_text()


# --------------------------------------------------------------------- one run, read twice


def kept(folder: Path) -> Path:
    """A record of one run with two selections and a second protocol."""
    rows = [("unseen", "", 42.5), ("last", "", 41.0), ("last", "in halves", 40.0)]
    of_all = {"metric": "mAP@all", "convention": "trec", "low": 0, "high": 99}
    metrics = [{**of_all, "selection": selection, "protocol": protocol, "value": value,
                "variant": "trained"} for selection, protocol, value in rows]
    metrics += [{**of_all, "selection": "unseen", "value": 9, "variant": "trained sa"},
                {**of_all, "selection": "unseen", "value": 8, "metric": "P@100"},
                {**of_all, "selection": "unseen", "value": 7, "convention": "acnet"}]
    write_record(parse_record(a_record(metrics=metrics), "x"), folder / "records" / "sample.json")
    return folder


def read(**given) -> Recorded:
    return Recorded(record="sample", metric="mAP@all", convention="trec", **given)


def test_a_run_is_read_twice(tmp_path):
    value, record = recorded_difference(kept(tmp_path), read(selection="unseen",
                                                             against_selection="last"))
    assert value == 1.5 and record.dataset.name == "doodles"
    assert recorded_difference(tmp_path, read(selection="last", protocol="in halves"))[0] == -1.0


@pytest.mark.parametrize(("given", "told"), [
    (read(selection="seen", against_selection="last"), "no row trained ('seen', '') of mAP@all"),
    (read(selection="last", against_selection="seen"), "has no row trained ('seen', '')"),
    (read(selection="unseen"), "('unseen', '') is set against itself"),
    (read(selection="unseen", against_selection="last", variant="pixels"), "no row pixels"),
    (Recorded(record="absent", metric="a", convention="b", protocol="c"), "json does not exist")])
def test_what_a_record_lacks_is_named(tmp_path, given, told):
    with pytest.raises(InvalidFile, match=re.escape(told)):
        recorded_difference(kept(tmp_path), given)
    deviation = Deviation(id="x", what="x", here="replication", recorded=[given])
    assert [told in problem for problem in problems(tmp_path, [deviation])] == [True]


def test_one_run_has_no_spread_and_no_verdict(book):
    paper = read_papers(book)["mine"]
    kept(paper.folder)
    deviation = Deviation(id="x", what="x", here="x", recorded=[
        read(selection="unseen", against_selection="last"),
        read(selection="last", protocol="in halves")])
    of_run = ("<br><small>mAP@all `trec`, 1 seed, doodles 30/10 (demo), "
              "[sample](/mine/records/sample.ipynb)</small>")
    assert effect_words.effect_cell(paper, deviation) == (
        f"`unseen` against `last`: +1.5{of_run}<br>`in halves` against `zero-shot`: −1.0{of_run}")
    assert effect_words.short_cell(paper, deviation) == (
        "`unseen` against `last`: +1.5, 1 seed, on a real sample<br>"
        "`in halves` against `zero-shot`: −1.0, 1 seed, on a real sample")
    paper.deviations[:] = [deviation]
    assert against_code.counts({"mine": paper}).startswith("1 places in 1 papers: 1 are measured")


# ------------------------------------------------------------------------------- the schema


@pytest.mark.parametrize(("given", "told"), [
    ({}, "one of measured and reason, not neither"),
    ({"reason": "no", "measured": [{"list": "a", "row": "b"}]}, "one of measured and reason, not "
     "both"),
    ({"reason": "no", "id": "Not an id"}, "id"),
    ({"reason": "no", "here": ""}, "here"),
    ({"reason": "no", "effect": 3}, "effect"),
    ({"measured": [{"list": "a"}]}, "row"),
])
def test_a_deviation_that_says_too_little_or_too_much_is_refused(given, told):
    with pytest.raises(ValidationError, match=told):
        Deviation(**{"id": "x", "what": "x", "here": "replication"} | given)


def test_an_id_given_twice_is_refused(tmp_path):
    one = {"id": "x", "what": "x", "here": "replication", "reason": "no"}
    file = tmp_path / "paper.yml"
    file.write_text(yaml.safe_dump({"title": "x", "experiments": [], "deviations": [one, one]}))
    with pytest.raises(InvalidFile, match="deviation given twice: x"):
        read_paper(file)


def test_a_paper_that_names_an_absent_row_has_a_problem(tmp_path):
    one = {"id": "x", "what": "x", "here": "replication",
           "measured": [{"list": "switches-full", "row": "absent"}]}
    file = listed(tmp_path / "mine") / "paper.yml"
    file.write_text(yaml.safe_dump({"title": "x", "experiments": [], "deviations": [one]}))
    paper = read_paper(file)
    assert check_paper(paper, {}) == [
        f"mine: deviation x: {tmp_path}/mine/records/switches-full.csv has no row 'absent'"]


# --------------------------------------------------------------------- what paper.yml names


def named(name: str) -> object:
    """The module, class, function or field of a dotted name; AttributeError or KeyError."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            found = getattr(found, part) if hasattr(found, part) else \
                found.__dataclass_fields__[part]
        return found
    raise KeyError(name)


def test_a_name_that_is_not_there_is_found_out():
    assert named("replication.papers.sprc.Config.loss_rtc") == 0.4
    assert named("replication.papers.clip_retrieval.ZeroShot.prompts").name == "prompts"
    for wrong in ("replication.papers.sprc.Config.loss_x", "nowhere.at.all", "replication.nothing"):
        with pytest.raises((AttributeError, KeyError)):
            named(wrong)


@pytest.mark.parametrize(("paper", "deviation"), EVERY, ids=IDS)
def test_every_name_of_code_can_be_imported(paper, deviation):
    for name in deviation.names:
        assert named(name) is not None
    switches = [s.strip() for s in deviation.switch.split(",") if s.strip()]
    given = {name.rpartition(".")[2] for name in deviation.names}
    assert paper == "clip_retrieval" or set(switches) <= given


@pytest.mark.parametrize("deviation", [d for _, d in EVERY if d.test],
                         ids=[i for i, (_, d) in zip(IDS, EVERY, strict=True) if d.test])
def test_every_test_that_is_named_is_there(deviation):
    file, _, test = deviation.test.partition("::")
    assert f"\ndef {test}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("name", PAPERS)
def test_every_measurement_is_in_its_kept_list_with_three_seeds(name):
    paper = PAPERS[name]
    assert problems(paper.folder, paper.deviations) == []
    for deviation in paper.deviations:
        for measured in deviation.measured:
            assert effect(paper.folder, measured).seeds == 3
            assert (paper.folder / "records" / f"{measured.list}.ipynb").is_file()


def test_lists_are_of_clean_commits():
    lists = {paper.folder / "records" / f"{m.list}.csv" for paper in PAPERS.values()
             for d in paper.deviations for m in d.measured}
    for file in lists:
        runs = pd.read_csv(file)
        assert runs.clean.all() and runs.commit.str.fullmatch("[0-9a-f]{40}").all(), file
        assert set(runs.dataset) <= {"doodles", "doodles_cirr", "doodles_fashioniq"}


def test_no_effect_by_construction_names_its_test():
    for name, deviation in EVERY:
        assert deviation.test or not effect_words.nil(deviation), (name, deviation.id)


def test_options_of_no_effect_are_read_nowhere():
    """Outside the classes that hold them and the key that leaves them out."""
    for paper, option in (("sprc", "loss_itm"), ("zse_sbir", "cls_number")):
        folder = ROOT / "replication" / "papers" / paper
        read = {file.name for file in folder.glob("*.py") if option in file.read_text()}
        assert read == {"config.py"}, option
        text = (folder / "config.py").read_text()
        assert f".{option}" not in text and text.count(option) <= 2


# --------------------------------------------------------------------------------- the page


@pytest.fixture
def book(tmp_path) -> Path:
    """A book of two papers: one with measurements, one whose chapter has none."""
    measured = [{"list": "switches-full", "row": "rate / 10", "note": "at once"},
                {"list": "switches-full", "row": "within"}]
    first = [{"id": "rate", "what": "the `rate` | of all", "paper": "1", "authors_code": "2",
              "reimplementation": "3", "switch": "lr", "default": 1e-3, "there": "train.py; x/y.md",
              "here": "replication.papers.mine.Config.lr", "measured": measured},
             {"id": "again", "what": "again", "here": "replication.x",
              "measured": [{**measured[0], "note": "again"}]},
             {"id": "epoch", "what": "epoch", "here": "replication.x",
              "measured": [{"list": "switches-full", "row": "best on unseen"}]}]
    second = [{"id": "unseen", "what": "unseen", "here": "replication.y",
               "reason": "needs a picture"},
              {"id": "nil", "what": "nil", "here": "replication.y", "authors_code": "twice",
               "reason": "of no effect: once", "test": "tests/x.py::test_x"}]
    for name, deviations in (("mine", first), ("other_one", second), ("bare", [])):
        folder = listed(tmp_path / name)
        (folder / "paper.yml").write_text(yaml.safe_dump(
            {"title": name, "method": {"mine": "Mine"}.get(name, ""), "experiments": [],
             "deviations": deviations}))
    return tmp_path


def test_the_table_has_a_row_a_deviation_with_its_anchor(book):
    papers = {n: p for n, p in read_papers(book).items() if p.deviations}
    text = against_code.table(papers, book)
    rows = [line for line in text.splitlines() if line.startswith("| <")]
    assert [re.search('id="([^"]+)"', row)[1] for row in rows] == [
        "mine-rate", "mine-again", "mine-epoch", "other-one-unseen", "other-one-nil"]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)
    assert rows[0] == (
        '| <span class="of" id="mine-rate">Mine</span> the `rate` \\| of all | 1 | the authors\': 2'
        "<br>the re-implementation: 3<br><small>`train.py`; `x/y.md`</small> | "
        "`mine.Config.lr`<br>1e-3 | `rate / 10`: **−5.0 ± 2.0**; at once<br>`within`: none "
        "(−0.3 ± 2.1)<br><small>mAP@all `trec`, 3 seeds, doodles val, switches-full</small> |")
    assert rows[3].endswith("not stated | not known | `y` | not measured: needs a picture |")
    assert rows[4].endswith("| not stated | twice | `y` | of no effect: once<br><small>"
                            "`tests/x.py::test_x`</small> |")
    assert text.startswith('<a href="#mine-rate">Mine</a> · <a href="#other-one-unseen">other_one')


def test_a_kept_notebook_is_linked(book):
    (book / "mine" / "records" / "switches-full.ipynb").write_text("{}")
    paper = read_papers(book)["mine"]
    assert "[switches-full](/mine/records/switches-full.ipynb)" in effect_words.effect_cell(
        paper, paper.deviations[0])


def test_a_cell_says_the_metric_once_and_the_data_after_each_list(book):
    paper = read_papers(book)["mine"]
    listed(paper.folder, name="choices-full")
    columns = of("within", column="mAP@200 acnet", against_column="mAP@200 trec")
    other = Measured(list="choices-full", row="within")
    deviation = Deviation(id="x", what="x", here="x", measured=[columns, other])
    assert effect_words.effect_cell(paper, deviation) == (
        "mAP@200 `acnet` against mAP@200 `trec`: **+3.0 ± 1.0**<br><small>3 seeds, doodles val, "
        "switches-full</small><br>`within`: none (−0.3 ± 2.1)<br><small>mAP@all `trec`, 3 seeds, "
        "doodles val, choices-full</small>")


@pytest.mark.parametrize("name, shown", [
    ("replication.papers.acnet.Config.lr", "[`acnet.Config.lr`](/api/acnet.md)"),
    ("replication.losses.triplet", "[`losses.triplet`](/api/losses.md)"),
    ("replication.papers.sprc", "`sprc`"),
    ("data_prep.sketchy.prepare", "`data_prep.sketchy.prepare`")])
def test_names_lead_to_the_page_of_their_module(tmp_path, name, shown):
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "acnet.md").write_text(".. automodule:: replication.papers.acnet.config\n")
    (tmp_path / "api" / "losses.md").write_text(".. automodule:: replication.losses\n")
    assert against_code.code_name(name, against_code.api_pages(tmp_path)) == shown


def test_what_matters_is_sorted_and_within_its_spread_is_apart(book):
    papers = {n: p for n, p in read_papers(book).items() if p.deviations}
    found = {n: against_code.effects(p) for n, p in papers.items()}
    assert [e.measured.row for _, e in found["mine"]] == ["rate / 10", "within", "best on unseen"]
    text = against_code.matters(papers, found)
    trained, counted, none = text.split("**")[2::2]
    assert trained.strip() == '- Mine: <a href="#mine-rate">rate / 10</a> −5.0 ± 2.0'
    assert counted.strip() == '- Mine: <a href="#mine-epoch">best on unseen</a> +1.0 ± 0.5'
    assert none.strip() == '- Mine: <a href="#mine-rate">within</a>'


def test_where_nothing_is_found_that_is_said(book):
    paper = read_papers(book)["mine"]
    paper.deviations[:] = [paper.deviations[1]]  # `rate / 10` alone
    text = against_code.matters({"mine": paper}, {"mine": against_code.effects(paper)})
    assert [part.strip() for part in text.split("**")[4::2]] == ["Nothing beyond its spread.",
                                                                 "Nothing."]


def test_the_largest_come_first(book):
    paper = read_papers(book)["mine"]
    rows = {f"r{n}": ([10.0 + n, 12.0 + n, 14.0 + n], {"lr": n}) for n in (-9, 3, -7, 5, 8)}
    listed(paper.folder, {"as released": ROWS["as released"], **rows})
    deviation = paper.deviations[0].model_copy(update={"measured": [of(row) for row in rows]})
    paper.deviations[:] = [deviation]
    text = against_code.matters({"mine": paper}, {"mine": against_code.effects(paper)})
    assert re.findall(r">(r-?\d)</a> (\S+)", text.split("**")[2]) == [
        ("r-9", "−9.0"), ("r8", "+8.0"), ("r-7", "−7.0"), ("r5", "+5.0"), ("r3", "+3.0")]


@pytest.mark.parametrize(("row", "against", "told"), [
    ("a + b", "a", "b"), ("a + b", "b", "a"), ("a + b + c", "a + c", "b"), ("a", "", "a"),
    ("a", "b", "a against b"), ("a + b", "a + c", "a + b against a + c")])
def test_what_both_sides_share_is_left_out(row, against, told):
    made = made_of(of(row, against=against))
    assert effect_words.plain(made) == told
    assert effect_words.plain(made, "doodles val") == told
    assert effect_words.plain(made, "others") == f"{told} (doodles val)"


def test_a_tie_is_told_by_its_second_decimal():
    assert effect_words.points(made_of(of("a"), 0.54, 0.46)) == "**+0.54 ± 0.46**"
    assert effect_words.points(made_of(of("a"), -0.46, 0.54)) == "none (−0.46 ± 0.54)"
    assert effect_words.points(made_of(of("a"), 0.01, 0.02)) == "none (0.0 ± 0.0)"


def test_numbers_in_the_pages_words_are_those_of_the_lists():
    text = (ROOT / "book/paper_against_code.md").read_text()
    told = re.search(r"ACNet's seed 42 has ([\d.]+) and ([\d.]+)", text).groups()
    for value, name in zip(told, ("ablation-full", "choices-full"), strict=True):
        runs = pd.read_csv(ROOT / f"book/acnet/records/{name}.csv")
        [own] = runs[(runs.turned == "as released") & (runs.seed == 42)]["mAP@all trec"]
        assert value == f"{own:.1f}"
    runs = pd.read_csv(ROOT / "book/sprc/records/fashioniq-choices.csv")
    assert set(runs.n_gallery) == {204, 210}
    assert "six of the doodles' 210 pictures" in (ROOT / "book/sprc/index.md").read_text()


def test_a_chapters_table_names_the_base_and_the_data_where_they_are_others(book):
    paper = read_papers(book)["mine"]
    listed(paper.folder, {"as released": ROWS["as released"], "a": ([10, 12, 14], {"lr": 1}),
                          "a + b": ([20, 22, 24], {"lr": 2})})
    for against, told in (("a", "b (both with a)"), ("", "a + b")):
        deviation = Deviation(id="x", what="x", here="x", measured=[of("a + b", against=against)])
        assert effect_words.short_cell(paper, deviation).startswith(f"{told}: ")
    runs = paper.folder / "records" / "switches-full.csv"
    other = runs.read_text().replace("doodles", "sketchy")
    runs.with_name("other.csv").write_text(other)
    measured = [of("a"), Measured(list="other", row="a")]
    deviation = Deviation(id="x", what="x", here="x", measured=measured)
    assert re.findall(r"a \((\w+) val\)", effect_words.short_cell(paper, deviation)) == [
        "doodles", "sketchy"]


def made_of(measured: Measured, mean: float = 1.0, spread: float = 0.5, paired: bool = False):
    from replication.deviations import Effect

    column = measured.column or "mAP@all trec"
    return Effect(measured, column, measured.against_column or column, measured.against or "base",
                  mean, spread, 3, paired, "doodles val")


def test_columns_are_told_by_what_differs():
    both = of("x", column="mAP@all trec sa", against_column="mAP@all trec")
    assert effect_words.plain(made_of(both)) == "mAP@all: sa"
    other = of("x", column="mAP@200 acnet", against_column="mAP@200 trec")
    assert effect_words.plain(made_of(other)) == "mAP@200: acnet against trec"


@pytest.mark.parametrize(("value", "told"), [(0.04, "0.0"), (-0.04, "0.0"), (1.25, "+1.2"),
                                             (-3.0, "−3.0")])
def test_a_sign_is_a_sign_and_nothing_has_none(value, told):
    assert effect_words.signed(value) == told


def test_the_figure_has_a_mark_a_measurement_and_tells_none_apart(book):
    papers = {n: p for n, p in read_papers(book).items() if p.deviations}
    found = {n: against_code.effects(p) for n, p in papers.items()}
    names = {n: p.known_as for n, p in papers.items()}
    figure = against_code.drawn(found, names)
    [axes] = figure.axes  # a paper without measurements has no panel
    assert [t.get_text() for t in axes.get_yticklabels()] == ["within", "best on unseen",
                                                              "rate / 10"]
    marks = [line for line in axes.lines if line.get_marker() in ("o", "s")]
    assert [m.get_xdata()[0] for m in marks] == pytest.approx([-1 / 3, 1.0, -5.0])
    assert [m.get_marker() for m in marks] == ["o", "s", "o"]
    assert [m.get_markerfacecolor() == "none" for m in marks] == [True, False, False]
    spread = axes.containers[2].lines[2][0].get_segments()[0][:, 0]
    assert spread.tolist() == [-7.0, -3.0]
    assert axes.get_title(loc="left") == "Mine"
    assert against_code.alt_text(found, names).endswith("Mine 2 of 3, the largest rate / 10 −5.0")


def test_the_pages_are_written_in_both_themes(book):
    files = against_code.write(book, read_papers(book), {})
    assert {f.name for f in files} == {
        *(f"against_code_{n}.md" for n in ("counts", "figure", "matters", "table")),
        *(f"against_code-{theme}.svg" for theme in figures.THEMES)}
    generated = book / "_generated"
    assert (generated / "against_code_counts.md").read_text() == (
        "5 places in 2 papers: 3 are measured below, 1 have no effect by construction, 1 are not "
        "measured and say why.\n")
    assert "/_generated/against_code-dark.svg" in (generated / "against_code_figure.md").read_text()


def test_nothing_is_written_without_deviations(tmp_path):
    assert against_code.write(tmp_path, {}, {}) == [] and not list(tmp_path.iterdir())


def test_an_absent_list_stops_the_report(book):
    (book / "mine" / "records" / "switches-full.csv").unlink()
    with pytest.raises(InvalidFile, match="switches-full.csv does not exist"):
        against_code.write(book, read_papers(book), {})


def test_a_chapters_table_has_the_effects_and_leads_to_the_one_table(book):
    papers = read_papers(book)
    lines = report.deviations_markdown(papers["mine"]).splitlines()
    assert lines[0].endswith("| parameter | effect, in points |")
    assert lines[2].startswith('| <a href="../paper_against_code.html#mine-rate">the `rate`')
    assert lines[2].endswith("| `lr` | rate / 10: **−5.0 ± 2.0**<br>within: none (−0.3 ± 2.1) |")
    assert lines[-1] == against_code.BELOW
    other = report.deviations_markdown(papers["other_one"])
    assert "not measured |" in other and "none by construction |" in other
    assert report.deviations_markdown(papers["bare"]) == "None is known.\n"


def test_the_page_includes_what_is_written():
    text = (ROOT / "book/paper_against_code.md").read_text()
    assert re.findall(r"_generated/against_code_(\w+)\.md", text) == ["counts", "figure", "matters",
                                                                      "table"]


def test_published_takes_the_schema_from_one_place():
    assert published.Deviation is Deviation
