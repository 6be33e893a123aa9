"""Every published cell on one page: once, as printed, with its status and its command."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from test_records import a_record
from test_report import CELL, a_paper, folder, full  # noqa: F401  (folder is a fixture)

from replication import cell_table, own_runs, report, result_pages
from replication.comparison import demo_table, records_of, subset_table
from replication.published import read_paper, read_papers
from replication.published_cells import (
    COLUMNS,
    SHOWN,
    commands_of,
    counted,
    csv_text,
    published_cells,
    run_links,
    tasks_of,
)
from replication.records import parse_record, write_record

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VALUES = {"matched": 70.5, "higher": 72.0, "lower": 60.0}


def shown(text: str) -> list[BeautifulSoup]:
    """The body's rows of the table."""
    return BeautifulSoup(text, "html.parser").select("#cells-table tbody tr")


def words(row, column: str) -> str:
    cell = row.find_all("td")[cell_table.HEADS.index(column)]
    return " ".join(cell.get_text(" ").split())


@pytest.fixture(scope="module")
def cells(repo) -> pd.DataFrame:
    """The book's own, without a run."""
    papers = read_papers(repo / "book")
    return published_cells(repo / "book", papers, {name: [] for name in papers})


@pytest.fixture(scope="module")
def rows(repo, cells) -> dict[str, BeautifulSoup]:
    names = {n: p.known_as for n, p in read_papers(repo / "book").items()}
    return {row["id"]: row for row in shown(cell_table.table_html(cells, names))}


def test_every_cell_of_the_book_appears_once_and_as_printed(repo, cells, rows):
    expected = {f"{name}-{cell.id}": cell for name, paper in read_papers(repo / "book").items()
                for cell in paper.cells}
    assert len(cells) == len(rows) == len(expected) > 900
    assert set(rows) == set(expected)
    for key, cell in expected.items():
        assert words(rows[key], "Published") == str(cell.value)
        assert words(rows[key], "Metric").startswith(cell.metric)
        assert (rows[key]["data-metric"], rows[key]["data-dataset"]) == (cell.metric, cell.dataset)
        assert words(rows[key], "Data set") == f"{cell.dataset} {cell.split} {cell.protocol}"


def test_each_command_runs_an_experiment_that_aims_at_the_cell(repo, rows, cells):
    assert not cells.reason.str.contains("command|`").any()  # it has a column of its own
    for name, paper in read_papers(repo / "book").items():
        aims = {e.name: set(e.targets) for e in paper.experiments}
        for cell in paper.cells:
            found = [c.text for c in rows[f"{name}-{cell.id}"].select("code.command")]
            assert found == [f"python -m replication run {name}/{e}" for e, targets in aims.items()
                             if cell.id in targets]
            assert found or words(rows[f"{name}-{cell.id}"], "Command, or reason")


def test_rows_lead_to_sections_that_chapters_have(repo, rows):
    for name in {row["data-paper"] for row in rows.values()}:
        assert "\n### Published\n" in (repo / "book" / name / "index.md").read_text()
    links = {row.find("a")["href"] for row in rows.values()}
    assert links == {f"{row['data-paper']}/index.html#published" for row in rows.values()}
    here = {row.select_one("a.here")["href"] for row in rows.values()}
    assert here == {f"#{key}" for key in rows}


def test_papers_have_their_chapters_task_and_title(repo, cells):
    assert tasks_of(repo / "book")["sprc"] == "Composed image retrieval"
    assert cells.groupby("paper").task.nunique().eq(1).all() and cells.task.all()
    names = {n: p.known_as for n, p in read_papers(repo / "book").items()}
    assert names["acnet"] == "ACNet" and names["pretrain"] == "Pretraining"


def test_own_cells_stand_before_quoted_ones(cells):
    for _, paper in cells.groupby("paper"):
        quoted = list(paper.status == "quoted")
        assert quoted == sorted(quoted)


def test_the_csv_is_the_table(cells, rows):
    found = list(csv.DictReader(io.StringIO(csv_text(cells))))
    assert list(found[0]) == COLUMNS
    assert [f"{line['paper']}-{line['cell']}" for line in found] == list(rows)
    for line in found:
        row = rows[f"{line['paper']}-{line['cell']}"]
        assert line["published"] == words(row, "Published")
        assert line["status"] == row["data-status"]
        commands = [c.text for c in row.select("code.command")]
        assert line["command"] == " or ".join(commands)
        assert line["source"] in words(row, "Method")


def made_up(folder) -> pd.DataFrame:  # noqa: F811
    """Cells of every status: three that one run answers, one of another split, two without."""
    values = [70.0, 90.0, 50.0]
    own = [CELL | {"id": name, "variant": name, "metric": f"m{i}", "value": value}
           for i, (name, value) in enumerate(zip(VALUES, values, strict=True))]
    other = CELL | {"id": "not comparable", "metric": "P@100", "split": "100/25"}
    more = [CELL | {"id": "quoted", "method": "Theirs & <more>"},
            CELL | {"id": "not run", "reason": "its code was never released"}]
    paper = a_paper(cells=[*own, other, *more])
    metrics = [c["metric"] for c in [*own, other]]
    paper["tolerances"] = {m: {"points": 1.0, "reason": "one seed"} for m in metrics}
    paper["experiments"][1]["targets"] = [c["id"] for c in [*own, other]]
    (folder / "paper.yml").write_text(yaml.safe_dump(paper))
    record = full().model_dump()
    record["metrics"] = [{"metric": f"m{i}", "convention": "trec", "variant": "trained",
                          "value": value + shift}
                         for i, (value, shift) in enumerate(zip(values, (0.5, 2, -9), strict=True))]
    records = [parse_record(record | {"seed": seed}, "test") for seed in (1, 2)]
    return published_cells(folder.parent, {"clip_prompt": read_paper(folder / "paper.yml")},
                           {"clip_prompt": records})


def test_every_status_is_shown_in_words_and_by_a_mark(folder):  # noqa: F811
    table = made_up(folder)
    found = {row["id"].removeprefix("clip_prompt-"): row
             for row in shown(cell_table.table_html(table, {"clip_prompt": "P"}))}
    assert set(found) == set(SHOWN)
    for status, row in found.items():
        assert words(row, "Status") == f"{cell_table.MARKS[status]} {status}"
        assert row["data-status"] == status
        assert row["data-of"] == cell_table.OF[status == "quoted"]
    assert words(found["lower"], "Reproduced") == "41.0 ± 0.0 2 seeds"
    assert words(found["lower"], "Difference") == "-9.0 ± 1 points allowed"
    assert words(found["higher"], "Difference") == "+2.0 ± 1 points allowed"
    for status in ("not comparable", "not run", "quoted"):  # nothing is compared
        assert words(found[status], "Difference") == ""
    ordered = found["higher"].find_all("td")[cell_table.HEADS.index("Difference")]
    assert float(ordered["data-order"]) == 2.0
    assert "split is 104/21, published 100/25" in words(found["not comparable"],
                                                        "Command, or reason")
    assert words(found["not run"], "Command, or reason") == "its code was never released"
    assert words(found["quoted"], "Method") == "Theirs & <more> Table 1"
    assert "12,694 sketches x 12,553 photos, 21 classes" in words(
        found["matched"], "Command, or reason")


def test_two_decimals_are_kept_where_two_were_printed(folder):  # noqa: F811
    table = made_up(folder).assign(published="70.00", reproduced=70.126)
    row = shown(cell_table.table_html(table, {"clip_prompt": "P"}))[0]
    assert words(row, "Reproduced").startswith("70.13")


def test_no_zero_has_a_minus(folder):  # noqa: F811
    table = made_up(folder).assign(difference=-0.04)
    row = shown(cell_table.table_html(table, {"clip_prompt": "P"}))[0]
    assert words(row, "Difference") == "+0.0 ± 1 points allowed"


def test_runs_are_links_where_the_book_has_their_page():
    run = "[sketchy](/clip_prompt/runs/sketchy.ipynb), `runs/other.json`"
    assert run_links(run) == [("sketchy", "clip_prompt/runs/sketchy.html"),
                              ("runs/other.json", "")]
    assert run_links("") == []
    assert run_links("sketchy") == [("sketchy", "")]


def test_the_csv_names_runs_by_their_files(folder):  # noqa: F811
    run = "[sketchy](/clip_prompt/runs/sketchy.ipynb), `runs/other.json`"
    [line, *_] = csv.DictReader(io.StringIO(csv_text(made_up(folder).assign(run=run))))
    assert line["run"] == "clip_prompt/runs/sketchy.ipynb, runs/other.json"


def test_a_cell_with_two_experiments_names_both(folder):  # noqa: F811
    paper = a_paper()
    paper["experiments"].append(paper["experiments"][1] | {"name": "again"})
    (folder / "paper.yml").write_text(yaml.safe_dump(paper))
    commands = commands_of(read_paper(folder / "paper.yml"))
    assert commands == {"ours": ["python -m replication run clip_prompt/sketchy",
                                 "python -m replication run clip_prompt/again"]}


@pytest.mark.parametrize("kind", ["demo", "subset"])
def test_no_number_of_a_sample_is_among_published_ones(folder, kind):  # noqa: F811
    record = full(33.333, dataset={"kind": kind})
    write_record(record, folder / "records" / "sketchy.json")
    book = folder.parent
    report.write_report(book, book.parent / "README.md")
    generated = {f.name: f.read_text() for f in (book / "_generated").glob("*")}
    for name in ("published_cells.html", "published_cells.csv", "state.md", "state_words.md"):
        assert "33.3" not in generated[name]
    which = {"demo": "demos", "subset": "samples"}
    assert "33.3" not in generated[f"overview_{which[kind]}.md"]  # its metric is no headline
    assert "33.3" in generated[f"clip_prompt_{kind}.md"]


def test_the_state_counts_every_cell_and_leads_to_it(folder):  # noqa: F811
    table = made_up(folder)
    assert counted(table).loc["clip_prompt"].to_dict() == dict.fromkeys(SHOWN, 1)
    page = BeautifulSoup(result_pages.state_html(table, {"clip_prompt": "P"}), "html.parser")
    assert "clip_prompt&amp;status=" in str(page) and "&status" not in result_pages.state_html(
        table, {"clip_prompt": "P"})
    row = page.select("tbody tr")[0]
    links = [a["href"] for a in row.select("td a")]
    assert links == [f"results.html?paper=clip_prompt&status={s.replace(' ', '+')}#cells"
                     for s in SHOWN]
    assert row.find("th").a["href"] == "results.html?paper=clip_prompt#cells"
    assert [td.text for td in page.select("tbody tr")[-1].find_all("td")] == 6 * ["1"] + ["6"]
    assert "P: 1 matched, 1 higher" in result_pages.state_alt(table, {"clip_prompt": "P"})
    assert result_pages.state_words(table) == (
        "6 published numbers are kept: 5 of these papers' methods (1 matched, 1 higher, 1 lower, "
        "1 not comparable, 1 not run) and 1 that are quoted from other methods. For 0 of those "
        "not run there is a command; for the rest, the reason why there is none.\n")


def test_a_status_that_no_cell_has_is_a_zero_without_a_link(cells, repo):
    names = {n: p.known_as for n, p in read_papers(repo / "book").items()}
    page = BeautifulSoup(result_pages.state_html(cells, names), "html.parser")
    matched = page.select("tbody tr")[0].find_all("td")[0]
    assert matched.text == "0" and matched["class"] == ["none"] and not matched.a
    assert "(all not run)" in result_pages.state_words(cells)


def test_bars_hold_every_cell(folder):  # noqa: F811
    axes = result_pages.state_bars(made_up(folder), {"clip_prompt": "P"}).axes[0]
    assert [bar.get_x() for bar in axes.patches] == pytest.approx([100 / 6 * i for i in range(6)])
    assert axes.patches[-1].get_x() + axes.patches[-1].get_width() == pytest.approx(100)
    assert [text.get_text() for text in axes.texts] == 6 * ["1"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["P (6)"]


def test_what_to_run_first_answers_the_most_cells(folder, repo):  # noqa: F811
    papers = {"clip_prompt": read_paper(folder / "paper.yml")}
    found = published_cells(folder.parent, papers, {"clip_prompt": []})
    text = result_pages.run_first(found, papers, {"clip_prompt": "P"})
    assert "| P | 1 | Sketchy Extended | `python -m replication run clip_prompt/sketchy` |" in text
    assert "run clip_prompt" not in result_pages.run_first(
        found.assign(status="matched"), papers, {"clip_prompt": "P"})


def test_tolerances_of_one_size_and_reason_are_one_line(folder):  # noqa: F811
    made_up(folder)
    text = result_pages.tolerances_markdown({"x": read_paper(folder / "paper.yml")}, {"x": "P"})
    assert text == "- P, `P@100`, `m0`, `m1`, `m2`: **1 points** (one seed)\n"


def own_run(kind="demo", **variants) -> dict:
    record = a_record()
    record["dataset"]["kind"] = kind
    record["metrics"] = [{"metric": "mAP@all", "convention": "trec", "variant": name, "value": v}
                         for name, v in variants.items()]
    record["metrics"][-1] |= {"low": 40.0, "high": 43.5, "selection": "unseen"}
    return record


def test_an_overview_has_one_line_a_run_and_the_best_floor():
    record = own_run(chance=4.0, pixels=9.0, untrained=7.0, trained=42.0)
    record["metrics"] += [m | {"metric": "P@100"} for m in record["metrics"]]
    record["metrics"].append(record["metrics"][3] | {"protocol": "generalised", "value": 41.0})
    again = json.loads(json.dumps(record)) | {"experiment": "zero"}
    again["metrics"] = own_run(trained=42.0)["metrics"]
    runs = own_runs.headlines({"clip_prompt": demo_table(
        [parse_record(r, "test") for r in (record, again)])})
    first, second = runs.to_dict("records")
    assert (first["floor"], first["floor_name"], first["trained"], first["gain"]) == (
        9.0, "pixels", 42.0, 33.0)
    assert (first["low"], first["high"], first["chance"]) == (40.0, 43.5, 4.0)
    assert second["floor_name"] == "" and pd.isna(second["gain"])
    text = own_runs.markdown(runs, {"clip_prompt": "P"})
    assert "| 4.0 | 9.0 (pixels) | 42.0 (40.0 to 43.5) | +33.0 |" in text
    assert "demo 42.0 against 9.0 (pixels); P zero 42.0." in own_runs.alt(
        runs, {"clip_prompt": "P"}, "x")
    figure = own_runs.dots(runs, {"clip_prompt": "P"}, 8)
    assert [len(panel.get_yticks()) for panel in figure.axes] == [2]
    assert [panel.get_xlabel() for panel in figure.axes] == ["percent"]


def test_value_and_interval_are_of_the_model_that_the_record_names_first():
    """Columns are in the order of the selections, and so another one may stand first."""
    record = own_run(chance=4.0, trained=42.0)
    record["metrics"][-1]["selection"] = "last"
    record["metrics"].append(record["metrics"][-1] | {"selection": "test", "value": 50.0,
                                                      "low": 49.0, "high": 51.0})
    table = demo_table([parse_record(record, "test")])
    assert table.columns.get_loc("trained (test)") < table.columns.get_loc("trained (last)")
    run = own_runs.headlines({"clip_prompt": table}).iloc[0]
    assert (run.model, run.trained, run.low, run.high, run.gain) == (
        "trained (last)", 42.0, 40.0, 43.5, 38.0)


def test_seeds_show_their_spread():
    records = []
    for seed, value in ((1, 40.0), (2, 42.0)):
        record = own_run(chance=4.0, trained=value) | {"seed": seed}
        records.append(parse_record(record, "test"))
    run = own_runs.headlines({"clip_prompt": demo_table(records)}).iloc[0]
    assert (run.trained, run.low, run.high) == pytest.approx((41.0, 39.6, 42.4))


def test_samples_and_demos_do_not_mix(tmp_path):
    demo, sample = (parse_record(own_run(kind, trained=value) | {"experiment": kind}, "test")
                    for kind, value in (("demo", 42.0), ("subset", 41.0)))
    own_runs.write(tmp_path, {"clip_prompt": "P"}, {"clip_prompt": [demo, sample]})
    demos, samples = ((tmp_path / "_generated" / f"overview_{k}.md").read_text()
                      for k in ("demos", "samples"))
    assert "42.0" in demos and "41.0" not in demos
    assert "41.0" in samples and "42.0" not in samples
    assert subset_table([demo]).empty


def test_an_overview_without_a_run_says_so(tmp_path):
    own_runs.write(tmp_path, {"clip_prompt": "P"}, {})
    text = (tmp_path / "_generated" / "overview_samples.md").read_text()
    assert text == "No run on samples of real data sets yet.\n"


def test_the_last_picture_of_a_notebook_is_found(tmp_path):
    shown = ['<img src="data:image/jpeg;base64,Zmlyc3Q=">', "<p></p>",
             '<img alt="x" src="data:image/jpeg;base64,bGFzdA=="> ']
    cells = [{"cell_type": "code", "outputs": [{"data": {"text/html": [h]}}]} for h in shown]
    file = tmp_path / "demo.ipynb"
    assert result_pages.last_picture(file) == b""
    file.write_text(json.dumps({"cells": cells}))
    assert result_pages.last_picture(file) == b"last"


def test_the_readme_has_the_state_alone(folder):  # noqa: F811
    write_record(parse_record(a_record(), "test"), folder / "records" / "demo.json")
    text = report.readme_results(folder.parent)
    assert "| clip_prompt | 3 | 0 | 0 | 0 | 0 | 2 | 1 |" in text
    assert "41.2" not in text and len(text.splitlines()) < 12
    assert records_of("clip_prompt", folder.parent)


# ------------------------------------------------------------------------- the extension


@pytest.fixture(scope="module")
def extension(repo):
    sys.path.insert(0, str(repo / "book" / "_ext"))
    try:
        import published_table
    finally:
        sys.path.pop(0)
    return published_table


def test_a_module_becomes_a_plain_script(extension):
    script = extension.classic("var a=1,b=2;export{a as default,b as Table, b};\n/* licence */\n")
    assert "window.ITables = {default: a, Table: b, b: b};" in script
    assert "export" not in script and "/* licence */" in script
    with pytest.raises(ValueError, match="has no `export"):
        extension.classic("var a=1;")


# ------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, extension, repo, cells):
    """The table with its script and style as a page of its own, opened from the disk."""
    pytest.importorskip("itables", reason="itables, which brings DataTables, is not installed")
    from importlib.resources import files

    root = tmp_path_factory.mktemp("page")
    bundle = files("itables") / "html" / "dt_bundle.js"
    (root / "datatables.js").write_text(extension.classic(bundle.read_text(encoding="utf-8")))
    for name in ("results.js", "results.css"):
        shutil.copy(repo / "book" / "_static" / name, root / name)
    names = {n: p.known_as for n, p in read_papers(repo / "book").items()}
    (root / "results.html").write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>t</title>'
        '<link rel="stylesheet" href="results.css">'
        '<script src="datatables.js" defer></script><script src="results.js" defer></script>'
        f"</head><body>{cell_table.table_html(cells, names)}</body></html>", encoding="utf-8")
    return root / "results.html"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, page_file):
    """A function: address ending -> the page, of which no script failed."""
    context, failed = browser.new_context(accept_downloads=True), []

    def open_page(ending=""):
        page = context.new_page()
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(page_file.as_uri() + ending)
        page.wait_for_selector("#save-rows")
        return page

    yield open_page
    context.close()
    assert failed == []


def rows_of(page, attribute: str) -> list[str]:
    return page.eval_on_selector_all(
        "#cells-table tbody tr", f"rows => rows.map(row => row.dataset.{attribute})")


def info(page) -> str:
    return page.inner_text(".dt-info")


def test_an_address_chooses_and_choices_are_kept_in_it(opened, cells):
    page = opened("?paper=acnet&status=not+run")
    expected = ((cells.paper == "acnet") & (cells.status == "not run")).sum()
    assert info(page) == f"Rows 1 to 25 of {expected} (of {len(cells)})"
    assert set(rows_of(page, "paper")) == {"acnet"} and len(rows_of(page, "paper")) == 25
    page.select_option("select[name=metric]", "P@100")
    assert "metric=P%40100" in page.url and "status=not+run" in page.url
    assert set(rows_of(page, "metric")) == {"P@100"}
    page.click("button[type=reset]")
    page.wait_for_function("!location.search")
    assert info(page) == f"Rows 1 to 25 of {len(cells)}"


def test_an_unknown_choice_is_left_out(opened, cells):
    assert info(opened("?paper=nobody&x=1")) == f"Rows 1 to 25 of {len(cells)}"


def test_words_are_searched_and_kept(opened, cells):
    page = opened("?search=SEM-PCYC")
    expected = cells.method.str.contains("SEM-PCYC").sum()
    assert info(page).startswith(f"Rows 1 to {expected} of {expected} ")
    page.fill("input[type=search]", "Sketch3T")
    page.wait_for_function("location.search === '?search=Sketch3T'")
    assert 0 < len(rows_of(page, "paper")) < expected


def test_values_are_sorted_as_numbers(opened, cells):
    page = opened("?paper=acnet")
    head = page.locator("#cells-table thead th", has_text="Published")
    values = pd.to_numeric(cells[cells.paper == "acnet"].published).sort_values()
    for order, expected in (("ascending", values.iloc[0]), ("descending", values.iloc[-1])):
        head.click()
        page.locator(f"#cells-table th[aria-sort={order}]", has_text="Published").wait_for()
        first = page.inner_text("#cells-table tbody tr:first-child td:nth-child(5)")
        assert float(first) == expected


def test_a_link_to_a_row_shows_the_page_that_it_is_on(opened, cells):
    wanted = cells.iloc[500]
    page = opened(f"#{wanted.paper}-{wanted.cell}")
    marked = page.eval_on_selector_all("tr.wanted", "rows => rows.map(row => row.id)")
    assert marked == [f"{wanted.paper}-{wanted.cell}"]
    box = page.locator("tr.wanted").bounding_box()
    assert 0 <= box["y"] < page.viewport_size["height"]


def test_rows_that_are_shown_are_saved_as_csv(opened, cells):
    page = opened("?paper=sprc")
    with page.expect_download() as download:
        page.click("#save-rows")
    text = Path(download.value.path()).read_text(encoding="utf-8")
    found = list(csv.DictReader(io.StringIO(text)))
    own = cells[cells.paper == "sprc"]
    assert [line["Row"] for line in found] == [f"sprc-{cell}" for cell in own.cell]
    assert [line["Published"] for line in found] == list(own.published)
    assert [line["Status"] for line in found] == list(own.status)
    assert found[0]["Method"] == f"{own.iloc[0].method}; {own.iloc[0].source}"
    assert not any("copy" in line["Command, or reason"] for line in found)


def test_a_command_is_copied(opened, browser):
    page = opened("?paper=sprc&status=not+run")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = page.locator("button.copy").first
    command = button.get_attribute("aria-label").removeprefix("Copy the command ")
    assert command.startswith("python -m replication run sprc/")
    button.click()
    page.wait_for_function("document.querySelector('button.copy').textContent === 'copied'")
    assert page.evaluate("navigator.clipboard.readText()") == command


def test_without_scripts_the_whole_table_is_there(browser, page_file, cells):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator("#cells-table tbody tr").count() == len(cells)
    assert not page.locator("#cells-filters").is_visible()
    target = page.locator("noscript a").last.get_attribute("href")
    assert target == "#" + "-".join(cells[cells.paper == cells.paper.iloc[-1]].iloc[0][
        ["paper", "cell"]])
    context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_table_is_accessible_and_the_page_is_not_wider(browser, page_file, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright",
                              reason="axe-playwright-python is not installed").Axe()
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_selector("#save-rows")
    found = axe.run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    bad = [(v["id"], v["nodes"][0]["html"][:120]) for v in found.response["violations"]]
    assert bad == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
