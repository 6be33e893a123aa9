"""Pictures of the chapters: ranked results out of executed notebooks, drawings for dark pages."""

import base64
import json

import pytest
from test_records import a_record

from replication import figures, paths, ranked_pages
from replication.published import read_papers
from replication.records import read_record


def picture(alt: str, content: bytes, kind: str = "jpeg") -> dict:
    code = base64.b64encode(content).decode()
    shown = f'<img class="plot" alt="{alt}" src="data:image/{kind};base64,{code}">'
    return {"outputs": [{"data": {"text/html": [shown]}}]}


def a_run(folder, name: str, *cells, kind: str = "demo", dataset: str = "doodles"):
    raw = a_record()
    raw["dataset"] |= {"kind": kind, "name": dataset}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(raw))
    if cells:
        (folder / f"{name}.ipynb").write_text(json.dumps({"cells": [{}, *cells]}))
    return read_record(folder / f"{name}.json")


def test_the_first_ranked_results_are_shown_once_a_set(tmp_path):
    runs = tmp_path / "clip_prompt" / "runs"
    records = [
        a_run(runs, "sample", picture("Queries, real", b"real"), kind="subset", dataset="sketchy"),
        a_run(runs, "demo", picture("The first 8 pictures", b"batch"),
              picture("Queries &amp; photos", b"first"), picture("Queries again", b"second")),
        a_run(runs, "again", picture("Queries of the same set", b"again")),
        a_run(runs, "bare"),
        a_run(runs, "lines", picture("Queries as lines", b"x", "svg+xml"), dataset="other")]
    files = ranked_pages.ranked(tmp_path / "g", "clip_prompt", records)
    assert {f.name: f.read_bytes() for f in files[:-1]} == {
        "clip_prompt_ranked-demo.jpg": b"first", "clip_prompt_ranked-sample.jpg": b"real"}
    text = files[-1].read_text()
    assert ":alt: Queries & photos\n" in text
    assert text.index("the built-in doodles") < text.index("a sample of Sketchy:")
    assert "a cross and an orange one wrong" in text


def test_no_run_is_told(tmp_path):
    assert "No run shows" in ranked_pages.ranked(tmp_path, "x", [])[0].read_text()


@pytest.mark.parametrize("name", [n for n, p in read_papers().items() if p.cells])
def test_every_architecture_has_a_dark_twin_of_the_same_shapes(name):
    light = (paths.BOOK / name / "architecture.svg").read_text()
    dark = figures.dark_twin(light)
    assert len(dark.splitlines()) == len(light.splitlines()) and dark != light
    assert "#ffffff" not in dark and '"#111"' not in dark


def test_a_colour_without_a_dark_one_is_named():
    with pytest.raises(KeyError, match="#abcdef"):
        figures.dark_twin('<rect fill="#abcdef"/>')


def test_architectures_are_written(tmp_path):
    papers = read_papers()
    book = tmp_path / "book"
    files = ranked_pages.write(book, {"sprc": papers["sprc"]}, {})
    assert [f.name for f in files] == ["sprc_architecture-dark.svg", "sprc_ranked.md"]
