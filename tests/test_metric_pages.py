"""The metrics chapter: what is worked out by hand, what may be compared, what the runs gave."""

import re
from fractions import Fraction

import pytest
import torch
from test_records import a_record

from replication import metric_pages, paths
from replication.metrics import CONVENTIONS, positive_ranks
from replication.published import Cell, read_papers
from replication.records import parse_record

SCORES = [0.9, 0.7, 0.4, 0.1, -0.2]
RELEVANT = [0, 1, 1, 0, 1]


def worked() -> dict[str, dict[str, str]]:
    """The chapter's table of five items: convention -> metric -> what is written."""
    text = (paths.BOOK / "metrics.md").read_text()
    table = re.search(r"\| convention \| (AP@all.*?) \|\n\| ---.*?\n((?:\|.*\n)+)", text)
    head, rows = table.groups()
    names = head.split(" | ")
    lines = [[c.strip(" `") for c in row.strip("|").split("|")] for row in rows.splitlines()]
    return {line[0]: dict(zip(names, line[1:], strict=True)) for line in lines}


def fraction(text: str) -> Fraction:
    """The value of sums and quotients of whole numbers, brackets first."""
    inner = re.fullmatch(r"\((.*)\) / (\d+)", text)
    if inner:
        return sum(map(Fraction, inner[1].split(" + ")), Fraction()) / int(inner[2])
    return Fraction(text)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_five_items_by_hand_agree_with_the_library(convention):
    ranks = positive_ranks(torch.tensor([SCORES]), torch.tensor([RELEVANT]).bool())
    for name, written in worked()[convention].items():
        steps, result = written.split(" = ")
        metric = "m" + name if name.startswith("AP") else name
        value = CONVENTIONS[convention].metrics(ranks, [metric])[metric].item()
        assert float(fraction(steps)) == pytest.approx(value, abs=1e-9)
        assert result == f"{value:.3f}"


def test_the_written_scores_are_those_that_are_checked():
    text = (paths.BOOK / "metrics.md").read_text().replace("−", "-")
    row = re.search(r"\| score \| (.*) \|", text)[1]
    assert [float(v) for v in row.split("|")] == SCORES
    row = re.search(r"\| relevant \| (.*) \|", text)[1]
    assert [int("yes" in v) for v in row.split("|")] == RELEVANT


@pytest.mark.parametrize("metric", ["mAP@all", "mAP@3", "mAP@12", "P@3", "P@12"])
@pytest.mark.parametrize("left", metric_pages.DEFINITIONS)
@pytest.mark.parametrize("right", metric_pages.DEFINITIONS)
def test_definitions_are_equal_in_words_where_the_numbers_are(metric, left, right):
    torch.manual_seed(0)
    relevance = torch.rand(40, 20) < 0.3  # classes of fewer items than 12 are among them
    relevance[:, 0] = True
    ranks = positive_ranks(torch.rand(40, 20), relevance)
    values = [CONVENTIONS[c].metrics(ranks, [metric])[metric] for c in (left, right)]
    words = [metric_pages.definition(metric, c) for c in (left, right)]
    same = torch.allclose(*values)
    if metric != "P@3":  # at a small k precision over min(k, P) is seldom another
        assert (words[0] == words[1]) == same
    elif words[0] == words[1]:
        assert same


def test_definition_names_what_is_not_known():
    assert metric_pages.definition("mAP@200", "") == "not stated"
    assert metric_pages.definition("i2t_R@1", "image_text") == "`image_text`"
    assert metric_pages.definition("mAP@200", "trec") == "divided by P"
    assert metric_pages.definition("mAP@200", "acnet") == "divided by min(k, P), interpolated"


@pytest.mark.parametrize(("given", "told"), [
    ({"protocol": "zero-shot", "convention": "image_text"}, "none"),
    ({"protocol": "zero-shot, captions cleaned", "convention": "image_text"}, "none"),
    ({"protocol": "fine-tuned", "convention": "image_text"}, "not stated"),
    ({"protocol": "fine-tuned", "convention": "image_text", "selection": "test"}, "test"),
    ({"protocol": "zero-shot", "convention": "trec"}, "not stated")])
def test_an_epoch_is_chosen_only_where_something_is_trained(given, told):
    cell = {"id": "x", "table": "t", "method": "m", "dataset": "d", "split": "s", "metric": "m",
            "value": 1.0, "grade": "A", "source": "s"}
    assert metric_pages.chosen_on(Cell(**cell, **given)) == told


def test_a_perfect_ranking_gets_what_is_told():
    for positives in (4, 50):
        relevance = torch.zeros(1, 60, dtype=torch.bool)
        relevance[:, :positives] = True
        ranks = positive_ranks(torch.linspace(1, 0.1, 60)[None], relevance)
        got = [100 * CONVENTIONS[c].metrics(ranks, [m])[m].item()
               for c, m in (("trec", "mAP@10"), ("acnet", "mAP@10"), ("zse_sbir", "P@10"),
                            ("trec", "P@10"))]
        assert metric_pages.best(positives, 10) == pytest.approx(got)


def spread_out(gathered: str) -> list[str]:
    """The metrics that `gathered` put together."""
    names, _, sides = gathered.rstrip(")").partition(" (")
    both = [(side, name) for side in sides.split(", ") for name in names.split(", ")]
    return [name for side, name in both if not side] + [
        f"{side}{'_' if '2' in side else ' '}{name}" for side, name in both if side]


@pytest.mark.parametrize("metrics, told", [
    (["mAP@all", "P@100"], "mAP@all, P@100"),
    (["i2t_R@1", "i2t_R@5", "t2i_R@1", "t2i_R@5"], "R@1, R@5 (i2t, t2i)"),
    (["i2t_R@1", "i2t_R@5", "t2i_R@5"], "i2t_R@1, i2t_R@5, t2i_R@5"),
    (["dress R@10", "shirt R@10"], "R@10 (dress, shirt)")])
def test_metrics_of_several_things_are_told_once(metrics, told):
    assert metric_pages.gathered(metrics) == told
    assert sorted(spread_out(told)) == sorted(metrics)


def test_tables_of_one_kind_are_counted():
    tables = ["paper-table-10", "paper-table-2", "seed-benchmarks", "paper-fig-9"]
    assert metric_pages.in_words(tables) == "table 2, 10, seed benchmarks, fig 9"


def test_every_published_cell_is_in_one_class():
    papers = read_papers()
    table = metric_pages.comparable_markdown(papers)
    rows = [[c.strip() for c in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    for paper in papers.values():
        for cell in paper.cells:
            found = [r for r in rows if r[0].strip("| ") == f"{cell.dataset} {cell.split}"
                     and r[1] == cell.protocol and cell.metric in spread_out(r[2])
                     and r[3] == metric_pages.definition(cell.metric, cell.convention)
                     and r[4] == metric_pages.chosen_on(cell)]
            assert len(found) == 1, cell.id
            assert paper.method in found[0][5]
            kind, _, number = metric_pages.in_words([cell.table]).rpartition(" ")
            assert re.search(rf"{kind}[\d ,]* {number}\b" if number.isdigit() else number,
                             " " + found[0][5])


def rows(convention: str, value: float, **more) -> list[dict]:
    return [{"metric": m, "convention": convention, "variant": "trained", "selection": "last",
             "value": value, "low": value - 1, "high": value + 1, **more}
            for m in metric_pages.METRICS]


def made(paper: str, shift: float, **dataset):
    raw = a_record()
    raw |= {"paper": paper, "experiment": "demo", "protocol": "zero-shot",
            "metrics": [row for n, c in enumerate(metric_pages.MARKERS)
                        for row in rows(c, 50 + shift + n)]
            + rows("trec", 5, variant="chance", selection="")
            + rows("trec", 99, selection="unseen")}
    raw["dataset"] |= {"kind": "demo", "n_gallery": 20, "n_classes": 4, **dataset}
    return parse_record(raw, "x")


@pytest.fixture
def papers():
    return {name: paper for name, paper in read_papers().items() if name in metric_pages.SKETCH}


def test_runs_stand_side_by_side_only_where_the_gallery_is_one(papers):
    runs = {"clip_prompt": [made("clip_prompt", 0)], "acnet": [made("acnet", 10)],
            "zse_sbir": [made("zse_sbir", 20, manifest="sha256:other")]}
    table = metric_pages.common_markdown(papers, metric_pages.sketch_runs(papers, runs))
    assert "ClipPrompt" in table and "ACNet" in table and "ZSE-SBIR" not in table
    assert "in percent\n" in table and "|  | chance (mean of the runs) | ClipPrompt (" in table
    line = next(row for row in table.splitlines() if row.startswith("| mAP@all"))
    assert line == "| mAP@all | 5.0 | 54.0 (53.0 to 55.0) | 64.0 (63.0 to 65.0) |"


def test_the_spread_of_a_ranking_is_told(papers):
    runs = metric_pages.sketch_runs(papers, {"acnet": [made("acnet", 0)]})
    line = metric_pages.conventions_markdown(papers, runs).splitlines()[2]
    assert line.endswith("| mAP@all | 50.0 | 51.0 | 52.0 | 53.0 | 54.0 | 4.0 |")


def test_the_figure_comes_in_two_themes(papers, tmp_path):
    runs = metric_pages.sketch_runs(papers, {"acnet": [made("acnet", 0)]})
    axis = metric_pages.parting_figure(papers, runs, ("mAP@200",)).axes[0]
    assert -5 < axis.get_xlim()[0] < 0, "a mark at zero is whole"
    files, shown = metric_pages.parting(tmp_path, papers, runs)
    assert [f.name for f in files] == ["metrics_parting-light.svg", "metrics_parting-dark.svg"]
    assert all(f.read_text().startswith("<?xml") for f in files)
    assert "part by up to 4.0 points" in shown and files[0].read_bytes() != files[1].read_bytes()


def test_a_book_without_runs_says_so(papers, tmp_path):
    assert metric_pages.parting(tmp_path, papers, []) == ([], "No run of a sketch paper yet.\n")
    assert "No two runs" in metric_pages.common_markdown(papers, [])
    assert "No run" in metric_pages.conventions_markdown(papers, [])


def test_other_protocols_and_selections_stay_out(papers):
    raw = made("acnet", 0).model_dump(mode="json")
    raw.pop("path", None)
    raw["protocol"] = "generalised"
    assert metric_pages.sketch_runs(papers, {"acnet": [parse_record(raw, "x")]}) == []
    assert {m.selection for m in metric_pages.trained(made("acnet", 0))} == {"last"}


def test_a_run_that_lacks_a_metric_stays_out(papers):
    raw = made("acnet", 0).model_dump(mode="json")
    raw["metrics"] = [m for m in raw["metrics"] if m["metric"] != "P@200"]
    assert metric_pages.sketch_runs(papers, {"acnet": [parse_record(raw, "x")]}) == []


def test_the_front_page_shows_one_metric_alone(papers, tmp_path):
    runs = metric_pages.sketch_runs(papers, {"acnet": [made("acnet", 0)]})
    axes = metric_pages.parting_figure(papers, runs, ("mAP@200",)).axes
    assert [axis.get_title() for axis in axes] == ["mAP@200"]
    whole = metric_pages.parting_figure(papers, runs, metric_pages.METRICS).axes
    assert [axis.get_title() for axis in whole] == list(metric_pages.METRICS)
    files, shown = metric_pages.parting(tmp_path, papers, runs, ("mAP@200",), "front")
    assert files[0].name == "metrics_front-light.svg" and metric_pages.CAPTION not in shown
    assert "book-figure narrow\n" in shown
