"""What chapters show of their runs: costs, commands that a shell takes, links to notebooks."""

import re
import shlex

import executed_book
import pytest
import yaml
from papermill import cli
from test_records import a_record

from replication import chapter_tables, run_facts
from replication.chapter_tables import commands_markdown, cost_markdown, notebooks_markdown
from replication.published import Experiment, read_paper, read_papers
from replication.records import parse_record, write_record


@pytest.fixture
def paper(tmp_path):
    return executed_book.made(tmp_path)


def with_experiments(paper, *experiments, **more):
    about = {"title": "x", "experiments": list(experiments)} | more
    (paper.folder / "paper.yml").write_text(yaml.safe_dump(about))
    return read_paper(paper.folder / "paper.yml")


def rows(markdown: str) -> list[list[str]]:
    """Cells of every line of every table, heads too."""
    lines = (line for line in markdown.splitlines() if line.startswith("| "))
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


# ------------------------------------------------------------------------------------------- cost


def test_every_run_that_tells_its_cost_has_a_line(paper):
    found = rows(cost_markdown(run_facts.runs_of(paper)))
    assert found[0] == ["run", "set", "device", "training", "evaluating", "items a second",
                        "peak memory", "energy in training"]
    assert found[2:] == [
        ["[demo](/clip_prompt/runs/demo.ipynb)", "doodles", "NVIDIA H200", "2.2 min", "5.4 s",
         "1,239", "1.2 GiB", "2 Wh (NVML)"],
        ["[many](/clip_prompt/records/many.ipynb)", "doodles", run_facts.UNNAMED,
         "4.0 min for 2 runs together", "–", "–", "–", "–"]]
    assert chapter_tables.ENERGY in cost_markdown(run_facts.runs_of(paper))


def test_what_is_not_known_is_a_dash_and_one_note(paper):
    cost = {"seconds_train": 90.0, "items_per_second": 20.0}
    write_record(parse_record(a_record(cost=cost), "x"), paper.folder / "runs" / "demo.json")
    text = cost_markdown(run_facts.runs_of(paper))
    assert rows(text)[3][3:] == ["4.0 min for 2 runs together", "–"]
    assert text.count(chapter_tables.NOT_TOLD) == 1


def test_what_no_run_tells_has_no_column_and_no_note(paper):
    cost = {"seconds_train": 90.0}
    write_record(parse_record(a_record(cost=cost), "x"), paper.folder / "runs" / "demo.json")
    (paper.folder / "records" / "many.csv").unlink()
    text = cost_markdown(run_facts.runs_of(paper))
    assert rows(text) == [["run", "set", "device", "training"], ["---"] * 4, [
        "[demo](/clip_prompt/runs/demo.ipynb)", "doodles", run_facts.UNNAMED, "90 s"]]
    assert text.count("\n\n") == 0
    known = run_facts.runs_of(executed_book.made(paper.folder / "other"))[:1]
    assert chapter_tables.NOT_TOLD not in cost_markdown(known)


def test_without_a_run_the_page_says_so(paper):
    assert cost_markdown([]) == "No run has told its cost yet.\n"
    assert "executed notebook" not in notebooks_markdown(paper, [])


# --------------------------------------------------------------------------------------- commands


def group(markdown: str, title: str) -> str:
    """The part of a page that begins with a title."""
    rest = markdown[markdown.index(title):]
    return re.split(r"\n(?=\*\*On |\*\*At |:{5}\{dropdown\}|To add)", rest)[0]


FULL = {"notebook": "train.ipynb", "parameters_file": "paper/full.yml", "targets": ["c"]}
CELL = {"id": "c", "table": "t", "method": "m", "dataset": "d", "split": "s", "protocol": "p",
        "metric": "R", "value": 1, "grade": "A", "source": "x"}
CELLS = {"cells": [CELL], "tolerances": {"R": {"points": 1, "reason": "one seed"}}}


def test_demos_stand_first_then_other_runs_then_published_settings(paper):
    paper = with_experiments(
        paper, FULL | {"name": "full", "requires": "Sketchy"},
        {"name": "sample", "notebook": "train.ipynb", "requires": "a part of data_root"},
        {"name": "many", "notebook": "train.ipynb"},
        {"name": "demo", "notebook": "train.ipynb", "demo": True, "title": "Train",
         "time": "a minute", "needs": ["pretrain/clip"]}, **CELLS)
    text = commands_markdown(paper)
    found = chapter_tables.groups(paper)
    assert [[e.name for e in es] for es in found.values()] == [["demo"], ["many"], ["sample"],
                                                               ["full"]]
    assert list(found) == list(chapter_tables.KINDS)
    places = [text.index(f"**{kind}**") for kind in chapter_tables.KINDS]
    assert places == sorted(places)
    assert ("# Train\n# after pretrain/clip; a minute\npython -m replication run clip_prompt/demo\n"
            ) in group(text, chapter_tables.KINDS[0])
    assert "# sample\n# needs a part of data_root\n" in group(text, chapter_tables.KINDS[2])


def test_many_that_need_the_same_are_folded_away_by_what_they_need(paper):
    many = [FULL | {"name": f"{s}{i}", "requires": s} for s in ("Sketchy", "TU") for i in range(7)]
    text = commands_markdown(with_experiments(
        paper, *many, FULL | {"name": "other", "requires": "QuickDraw"}, **CELLS))
    folded = group(text, ":::::{dropdown} At a published setting; needs Sketchy: 7 runs")
    assert folded.count("python -m replication run clip_prompt/Sketchy") == 7
    assert "TU" not in folded and "# needs" not in folded
    assert "**At a published setting**" in text and "# needs QuickDraw" in text


def test_long_words_about_a_run_are_several_lines(paper):
    long = "a very long title of a run " * 6
    text = commands_markdown(with_experiments(paper, {"name": "a", "notebook": "train.ipynb",
                                                      "title": long}))
    lines = [line for line in text.splitlines() if line.startswith("# ")]
    assert len(lines) == 6 and max(map(len, lines)) <= chapter_tables.WIDTH + 2


@pytest.mark.parametrize("parameters", [
    {"epochs": 3, "lr": 1e-5, "fast": True, "name": "it's a set, of 3", "empty": ""},
    {"word": "True", "number": "12", "none": "None", "small": "1e-5"},
    {"models": ["a: b", "c"], "nothing": None}, {"negative": -1, "path": "-x"}])
@pytest.mark.parametrize("file", ["", "paper/full.yml"])
def test_papermill_is_given_the_parameters_of_the_experiment(paper, monkeypatch, parameters, file):
    experiment = Experiment(name="x", notebook="train.ipynb", parameters=parameters,
                            parameters_file=file)
    given = {}
    monkeypatch.setattr(cli, "execute_notebook", lambda **options: given.update(options))
    monkeypatch.chdir(paper.folder.parents[1])
    words = shlex.split(chapter_tables.papermill(paper, experiment))
    assert words[0] == "papermill"
    cli.papermill.main(words[1:], standalone_mode=False)
    assert given["input_path"] == "book/clip_prompt/train.ipynb"
    assert given["output_path"] == "out.ipynb"
    assert given["parameters"] == paper.parameters(experiment)
    assert {k: type(v) for k, v in given["parameters"].items()} == \
        {k: type(v) for k, v in paper.parameters(experiment).items()}


def test_every_experiment_of_the_book_has_both_commands(repo):
    for paper in read_papers(repo / "book").values():
        text = commands_markdown(paper)
        for e in paper.experiments:
            assert f"\n{chapter_tables.run_command(paper, e)}\n" in text, e.name
            assert f"\n{chapter_tables.papermill(paper, e)}\n" in text, e.name


def test_options_are_told_in_the_words_of_the_notebook_with_the_most(paper):
    found = rows(commands_markdown(paper).split("To add to a command")[1])
    assert found[2:] == [["`-p devices …`", "torchrun's processes"], ["`-p seed …`", "-1: drawn"]]
    few = paper.folder / "look.ipynb"
    few.write_text((paper.folder / "train.ipynb").read_text().replace("-1: drawn", "other words")
                   .replace('data_name: str', '# data_name: str'))
    assert "other words" not in commands_markdown(paper)


# -------------------------------------------------------------------------------------- notebooks


def test_every_notebook_that_ran_and_every_source_is_linked(paper):
    found = rows(notebooks_markdown(paper, run_facts.runs_of(paper)))
    ran, own = found[2:5], found[7:]
    assert [line[0] for line in ran] == [
        "[Train on the doodles](/clip_prompt/runs/demo.ipynb)",
        "[Look at one](/clip_prompt/runs/look.ipynb)",
        "[Every switch](/clip_prompt/records/many.ipynb)"]
    assert ran[0][1] == "**demo**, on the built-in doodles"
    assert [line[:2] for line in own] == [["ClipPrompt: train", "`train.ipynb`"],
                                          ["ClipPrompt: look", "`look.ipynb`"]]
    for line, file in zip([*ran, *own], ["runs/demo", "runs/look", "records/many", "train", "look"],
                          strict=True):
        assert f"]({run_facts.LAB}/book/clip_prompt/{file}.ipynb " in line[2]
        assert line[3] == f"{{download}}`save </clip_prompt/{file}.ipynb>`"


def test_only_pages_of_the_book_are_linked(paper):
    toc = paper.folder.parent / "_toc.yml"
    toc.write_text(toc.read_text().replace("clip_prompt/runs/look", "clip_prompt/runs/looked"))
    assert [run.notebook.stem for run in run_facts.runs_of(paper)] == ["demo", "many"]
    toc.unlink()
    assert run_facts.runs_of(paper) == []


def test_a_paper_without_runs_and_notebooks_still_has_its_three_files(tmp_path):
    folder = tmp_path / "book" / "new"
    folder.mkdir(parents=True)
    (folder / "paper.yml").write_text(yaml.safe_dump(
        {"title": "x", "experiments": [{"name": "demo", "notebook": "train.ipynb"}]}))
    book = tmp_path / "book"
    files = chapter_tables.write(book, read_papers(book), {})
    assert [f.name for f in files] == ["new_cost.md", "new_commands.md", "new_notebooks.md"]
    assert "No run has told its cost yet." in files[0].read_text()
    assert "run new/demo" in files[1].read_text()
    before = [f.stat().st_mtime_ns for f in files]
    again = chapter_tables.write(book, read_papers(book), {})
    assert [f.stat().st_mtime_ns for f in again] == before
