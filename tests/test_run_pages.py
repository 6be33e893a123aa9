"""Pages of executed notebooks: what stands above the cells, its links, and JupyterLab behind them.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import URLError
from urllib.request import HTTPCookieProcessor, build_opener

import executed_book
import nbformat
import pytest
from check_book import dead_links, in_book, read_page
from conftest import REPO
from executed_book import restamped

from replication import notebooks, paths, run_facts
from replication.records import Cost, parse_record, write_record

sys.path.append(str(REPO / "book" / "_ext"))
import run_pages  # noqa: E402


@pytest.fixture
def paper(tmp_path):
    return executed_book.made(tmp_path)


def the_run(paper, name="runs/demo"):
    return run_facts.run_of(paper.folder / f"{name}.ipynb", paper)


def fact(run, term) -> str:
    """One line of the facts."""
    lines = run_pages.facts(run).splitlines()
    return lines[lines.index(term) + 1].removeprefix(": ") if term in lines else ""


# ------------------------------------------------------------------------------------- the facts


def test_a_run_with_a_record_is_told_from_its_record(paper):
    run = the_run(paper)
    assert fact(run, "Command") == "`python -m replication run clip_prompt/demo`"
    assert fact(run, "Status") == ("**demo**, on the built-in doodles; never comparable with a "
                                   "published number")
    assert fact(run, "Data") == ("doodles 30/10, zero-shot; 40 sketches x 50 photos, 10 classes; "
                                 "seed 7")
    assert fact(run, "Changed") == "`epochs=2`, `save_root='result/demo'`"
    assert fact(run, "Starts from") == "doodle-clip doodles, SHA-256 `0123456789ab`"
    assert fact(run, "Code") == "`51f39d3c3c`, clean"
    assert fact(run, "Machine") == "NVIDIA H200, Python 3.11.7, torch 2.9.0, CUDA 13.0"
    assert fact(run, "Cost") == ("training 2.2 min, evaluating 5.4 s, 1,239 items a second, at "
                                 "most 1.2 GiB of memory, 2 Wh (NVML) in training")
    assert fact(run, "Finished") == "2024-05-01 12:01:00 UTC"
    assert fact(run, "Record") == ""
    assert "- 3 captions\\_were cut" in run_pages.facts(run)


def changed_record(paper, **changes):
    path = paper.folder / "runs" / "demo.json"
    write_record(parse_record(executed_book.record(**changes), "record"), path)
    return the_run(paper)


@pytest.mark.parametrize(("kind", "word", "apart"), [
    ("subset", "**sample**, on a part of the real set", True),
    ("full", "**full**, on the whole published test set", False)])
def test_status_says_what_may_be_compared(paper, kind, word, apart):
    dataset = executed_book.record()["dataset"] | {"kind": kind, "n_train": 2448}
    run = changed_record(paper, dataset=dataset)
    assert fact(run, "Status").startswith(word)
    assert ("never comparable" in fact(run, "Status")) == apart
    assert "2,448 to train on" in fact(run, "Data")


def test_the_smallest_size_and_what_was_not_committed_are_told(paper):
    run = changed_record(paper, code={"commit": "abc", "clean": False})
    restamped(run.notebook, size="tiny", source="other")
    run = the_run(paper)
    assert fact(run, "Status").startswith("the smallest size, a test of the code; **demo**")
    assert fact(run, "Command") == "`python -m replication run clip_prompt/demo --size tiny`"
    assert fact(run, "Code") == ("`abc`, with changes that were not committed; the source notebook "
                                 "has changed since")


def test_a_source_that_is_gone_is_told_and_not_linked(paper):
    (paper.folder / "train.ipynb").unlink()
    run = the_run(paper)
    assert fact(run, "Code").endswith("its source notebook is no longer there")
    assert "Source notebook" not in run_pages.links(run)


def test_a_processor_is_named_with_its_cores_and_without_cuda(paper):
    machine = {"python": "3.12", "torch": "2.9", "cuda": "13.0", "cpu": "EPYC", "cpu_count": 2}
    assert fact(changed_record(paper, environment=machine), "Machine") == \
        "EPYC, 2 cores, Python 3.12, torch 2.9"
    assert run_facts.device(changed_record(paper, environment={"python": "3.12"})) == \
        "CPU (model not recorded)"


def test_a_run_of_many_is_told_from_its_list(paper):
    run = the_run(paper, "records/many")
    assert fact(run, "Data") == "doodles 30/10; 1,008 queries x 336; seeds 42, 43"
    assert fact(run, "Code") == ("`aaaaaaaaaa`, clean, `bbbbbbbbbb`, with changes that were not "
                                 "committed; the source notebook has changed since")
    assert fact(run, "Machine") == "CPU (model not recorded), torch 2.9"
    assert fact(run, "Cost") == "training 4.0 min for 2 runs together"
    assert fact(run, "Finished") == "2024-05-01 12:06:00 UTC"
    assert fact(run, "Record") == "a list of 5 lines, to download above"
    assert "[5 lines" not in run_pages.links(run) and "List of runs" in run_pages.links(run)


def test_a_list_in_the_folder_of_results_counts_unless_it_is_newer(paper, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "BOOK", paper.folder.parent)
    monkeypatch.chdir(paper.folder)
    beside = paper.folder / "records" / "many.csv"
    made = tmp_path / "result" / "many" / "runs.csv"
    made.parent.mkdir(parents=True)
    beside.rename(made)
    os.utime(made, (1, 1))
    run = the_run(paper, "records/many")
    assert fact(run, "Record") == "a list of 5 lines, on this machine in `result/many/runs.csv`"
    assert "List of runs" not in run_pages.links(run)
    os.utime(made)
    os.utime(run.notebook, (1, 1))
    assert the_run(paper, "records/many").list_file is None


def test_without_record_and_list_it_says_so_and_what_it_needs(paper):
    run = the_run(paper, "runs/look")
    assert fact(run, "Starts from") == ("[clip_prompt/demo](/clip_prompt/runs/demo.ipynb), "
                                        "[clip_prompt/many](/clip_prompt/records/many.ipynb)")
    assert fact(run, "Code").startswith("commit not recorded")
    assert fact(run, "Record") == "none: no number of this run is compared"
    assert not any(fact(run, term) for term in ("Data", "Machine", "Cost", "Finished"))
    toc = paper.folder.parent / "_toc.yml"
    toc.write_text(toc.read_text().replace("clip_prompt/runs/demo", "other"))
    assert fact(run, "Starts from").startswith("`clip_prompt/demo`, [")


def test_a_new_stamp_tells_commit_and_versions_where_there_is_no_record(paper):
    restamped(paper.folder / "runs" / "look.ipynb", code={"commit": "c0ffee", "clean": True},
              environment={"python": "3.13.1", "torch": "2.9"})
    run = the_run(paper, "runs/look")
    assert fact(run, "Code").startswith("`c0ffee`, clean")
    assert fact(run, "Machine") == "processor not recorded, Python 3.13.1, torch 2.9"


def test_another_set_without_a_record_is_named_and_nothing_is_claimed(paper):
    restamped(paper.folder / "runs" / "look.ipynb", parameters={"data_name": "sketchy"})
    run = the_run(paper, "runs/look")
    assert fact(run, "Status") == "on `sketchy`, without a record"
    assert run.kind == ""


def test_all_parameters_have_value_default_and_meaning(paper):
    run = the_run(paper)
    table = run_pages.parameters(run)
    assert table.startswith(":::{dropdown} All 6 parameters\n")
    assert "| `data_name` | `'doodles'` | a folder \\| of data\\_root |" in table
    assert "| `epochs` | `2` (default `5`) | published: 60; as \\<given\\> |" in table
    assert "| `seed` | `7` (default `-1`) | -1: drawn |" in table
    assert "| `accelerator` | `'auto'` |  |" in table
    assert "| `devices` | `1` | torchrun's processes |" in table


def test_a_long_value_is_cut_and_pipes_and_backticks_are_safe():
    assert run_facts.code("a|b `c`") == "``a\\|b `c```"
    assert run_facts.code("x" * 80, 70) == f"`{'x' * 70}…`"


@pytest.mark.parametrize(("value", "told"), [
    (None, ""), (0.84, "0.8 s"), (51.15, "51 s"), (119, "119 s"), (172.05, "2.9 min"),
    (2330, "39 min"), (7199, "120 min"), (9000, "2.5 h")])
def test_times_are_told_in_a_unit_that_fits(value, told):
    assert run_facts.seconds(value) == told


def test_a_cost_that_is_not_known_is_empty():
    assert [f(Cost()) for f in (run_facts.rate, run_facts.memory, run_facts.energy)] == [""] * 3


# -------------------------------------------------------------------------------------- the page


def page(paper, name="runs/demo") -> dict:
    file = paper.folder / f"{name}.ipynb"
    return run_pages.with_header(json.loads(file.read_text()), the_run(paper, name))


def test_title_introduction_contract_and_facts_stand_in_this_order(paper):
    first, second = page(paper)["cells"][:2]
    places = [first["source"].index(text) for text in (
        "# ClipPrompt: train", "Train on the doodles: `clip_prompt/demo`, a run of the chapter "
        "[CLIP for sketches](/clip_prompt/index.md).", "Open in JupyterLab", "**Claim.**")]
    assert places == sorted(places) and "run-facts" in second["source"]
    nbformat.validate(nbformat.from_dict(page(paper)))


def test_parameters_and_imports_are_folded_and_what_follows_is_not(paper):
    told = [(c["metadata"].get("mystnb", {}).get("code_prompt_show"), c["metadata"].get("tags"))
            for c in page(paper)["cells"] if c["cell_type"] == "code"]
    assert told == [(run_pages.FOLDED["parameters"], ["parameters", "hide-input"]),
                    (run_pages.FOLDED["injected-parameters"],
                     ["injected-parameters", "hide-input"]),
                    (run_pages.FOLDED["start"], ["hide-input"]), (None, None)]


def test_a_page_is_headed_as_the_table_of_contents_calls_it(paper):
    file = paper.folder / "runs" / "demo.ipynb"
    notebook = json.loads(file.read_text())

    def heading(name):
        shown = run_pages.with_header(notebook, the_run(paper), name)
        return shown["cells"][0]["source"].partition("\n")[0]

    assert heading("Demo: train") == "# Demo: train (clip_prompt)"
    assert heading("The clip_prompt of old") == "# The clip_prompt of old"
    assert heading("") == "# ClipPrompt: train"
    toc = {"parts": [{"chapters": [{"file": "a", "title": "A", "sections": [
        {"file": "a/b", "title": "B"}, {"file": "a/c"}]}]}]}
    assert run_pages.titles(toc) == {"a": "A", "a/b": "B"}


def test_a_kept_run_of_other_parameters_says_of_what_its_text_speaks(paper):
    def words(name):
        return page(paper, name)["cells"][0]["source"]

    assert run_pages.DEFAULTS in words("records/many")
    assert run_pages.DEFAULTS not in words("runs/demo")


def shown_output(paper, output) -> dict:
    """The last cell of a page whose notebook has one more output there."""
    notebook = json.loads((paper.folder / "runs" / "demo.ipynb").read_text())
    notebook["cells"][-1]["outputs"].append(output)
    return run_pages.with_header(notebook, the_run(paper))["cells"][-1]


@pytest.mark.parametrize(("text", "left"), [
    ("epoch 1/40: 100%|###| 141/141 [00:21<00:00,  6.69batch/s, loss 4.739]", 1),
    ("epoch 1/40:  50%|#  | 70/141 [00:11<00:10,  6.69batch/s]", 2), ("100% right", 2)])
def test_finished_progress_bars_are_not_shown(paper, text, left):
    bar = nbformat.v4.new_output("display_data", {"text/plain": text})
    assert len(shown_output(paper, bar)["outputs"]) == left


def test_a_record_is_folded_away_with_its_columns_in_line(paper):
    made = parse_record(executed_book.record(), "record")
    output = nbformat.v4.new_output("display_data", made._repr_mimebundle_() | {
        "text/plain": "printed as it was once"})
    cell = shown_output(paper, output)
    assert cell["outputs"][-1]["data"]["text/plain"] == str(made)
    assert cell["metadata"]["tags"] == ["remove-input", "hide-output"] and cell["source"]
    assert cell["metadata"]["mystnb"]["code_prompt_show"] == \
        f"The record's {len(made.metrics)} numbers"


def test_the_links_lead_to_the_run_its_source_and_its_files(paper):
    links = run_pages.links(the_run(paper))
    for file, text in (("runs/demo", "Open in JupyterLab"), ("train", "Edit the source and run")):
        assert re.search(rf"\[{text}.*?\]\({run_facts.LAB}/book/clip_prompt/{file}.ipynb ", links)
    for file, text in (("runs/demo.ipynb", "Executed notebook"), ("runs/demo.json", "Record"),
                       ("train.ipynb", "Source notebook")):
        assert f"{{download}}`{text} </clip_prompt/{file}>`" in links


def test_a_built_page_has_it_all_and_its_files_are_the_ones_that_ran(paper, tmp_path):
    book, html = paper.folder.parent, tmp_path / "html"
    (book / "conf.py").write_text(
        f"import sys; sys.path.append({str(REPO / 'book/_ext')!r})\n"
        "extensions = ['myst_nb', 'sphinx_design', 'sphinx_external_toc', 'run_pages']\n"
        "nb_execution_mode = 'off'\nmyst_enable_extensions = ['colon_fence', 'deflist']\n"
        "external_toc_exclude_missing = True\nhtml_sourcelink_suffix = ''\n")
    command = [sys.executable, "-m", "sphinx", "-qW", "--keep-going", "-n", book, html]
    done = subprocess.run(command, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(REPO)})
    assert done.returncode == 0, done.stderr
    pages = {f: read_page(f) for f in html.rglob("*.html") if in_book(f, html)}
    run = html / "clip_prompt/runs/demo.html"
    assert not [fault for f in pages for fault in dead_links(f, html, pages)]
    text = run.read_text()
    assert text.index("<dt>Status") < text.index("<dt>Code") < text.index("All 6 parameters")
    assert text.index("Claim.") < text.index("<dt>Status") < text.index("found 3 photos")
    links = (link for link in pages[run].links if "_downloads" in link)
    saved = {Path(link).name: run.parent / link for link in links}
    assert set(saved) == {"demo.ipynb", "demo.json", "train.ipynb"}
    for name in ("demo.ipynb", "demo.json"):
        assert saved[name].read_bytes() == (paper.folder / "runs" / name).read_bytes()
    assert (html / "_sources/clip_prompt/runs/demo.ipynb").read_bytes() == \
        (paper.folder / "runs/demo.ipynb").read_bytes(), "the theme's own download"
    assert "run-facts" not in (html / "clip_prompt/index.html").read_text()


def test_every_parameter_of_every_source_notebook_is_read_with_its_comment(repo):
    for file in sorted(repo.glob("book/*/*.ipynb")):
        cells = nbformat.read(file, 4).cells
        source = next(c.source for c in cells if "parameters" in c.metadata.get("tags", []))
        names = re.findall(r"^(\w+)(?:: [^=]+)? = ", source, re.M)
        assert list(notebooks.explained_parameters(file)) == names, file


# ------------------------------------------------------------------------------------ JupyterLab


in_lab = pytest.mark.xdist_group("lab")  # one worker, so one server


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def make_lab(root: Path, port: int, token: str, **more) -> subprocess.Popen:
    """`make lab` in `root` as a person starts it, on a port and with a token of the test's own."""
    flags = f"--no-browser --allow-root --IdentityProvider.token={token}"
    variables = {**os.environ, "HOME": str(root / "home"),
                 "JUPYTER_RUNTIME_DIR": str(root / "runtime"),
                 "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "-o", "setup", "lab", f"LAB_PORT={port}", f"LAB_FLAGS={flags}"]
    return subprocess.Popen(command, cwd=root, env=variables, text=True, start_new_session=True,
                            **more)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(address, token, folder) of a running `make lab`."""
    root, port, token = tmp_path_factory.mktemp("lab"), free_port(), secrets.token_hex(8)
    ignored = shutil.ignore_patterns("*.sqlite*", "db", "log", "pid", "security", "startup")
    shutil.copytree(REPO / "jupyter", root / "jupyter", ignore=ignored)
    shutil.copy(REPO / "Makefile", root)
    executed_book.made(root)
    with open(root / "log", "w") as log:
        process = make_lab(root, port, token, stdout=log, stderr=log)
    try:
        _answer(f"http://localhost:{port}/api", process, root / "log")
        yield f"http://localhost:{port}", token, root
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answer(address: str, process: subprocess.Popen, log: Path, within: float = 90) -> None:
    """Waits until the server answers."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return build_opener().open(address, timeout=5).close()
        except URLError:
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start:\n{log.read_text()}")


def test_the_books_links_lead_to_the_port_of_make_lab(repo):
    plan = subprocess.run(["make", "-n", "-o", "setup", "lab"], cwd=repo, capture_output=True,
                          text=True, check=True).stdout
    assert "--ServerApp.port=8888" in plan and "--ServerApp.port_retries=0" in plan
    assert run_facts.LAB == "http://localhost:8888/lab/tree"


@in_lab
@pytest.mark.parametrize("name", ["runs/demo", "train"])
def test_a_link_opens_its_notebook_for_who_is_logged_in(lab, name):
    address, token, root = lab
    link = f"{address}/lab/tree/book/clip_prompt/{name}.ipynb"
    reader = build_opener(HTTPCookieProcessor(CookieJar()))
    assert "/login" in reader.open(link).url
    reader.open(f"{address}/lab?token={token}")
    answer = reader.open(link)
    assert answer.url == link
    assert f'"treePath": "book/clip_prompt/{name}.ipynb"' in answer.read().decode()
    found = reader.open(f"{address}/api/contents/book/clip_prompt/{name}.ipynb").read()
    assert json.loads(found)["content"]["cells"]


@in_lab
def test_a_port_in_use_stops_make_lab_with_words(lab):
    address, _, root = lab
    second = make_lab(root, int(address.rpartition(":")[2]), "x", stdout=subprocess.PIPE,
                      stderr=subprocess.STDOUT)
    told, _ = second.communicate(timeout=90)
    assert second.returncode
    assert f"Is port {address.rpartition(':')[2]} in use?" in told
    assert "make lab LAB_PORT=8889" in " ".join(told.split())


@in_lab
def test_a_browser_opens_the_notebook_from_a_page_on_disk(lab, tmp_path, monkeypatch):
    browsers = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chrome = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if not chrome:
        pytest.skip("no Chromium on this machine")
    address, token, root = lab
    link = f"{address}/lab/tree/book/clip_prompt/runs/demo.ipynb"
    (tmp_path / "page.html").write_text(f'<a href="{link}">Open in JupyterLab</a>')
    with browsers.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chrome, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_context().new_page()
        tab.set_default_timeout(90_000)
        tab.goto(f"{address}/lab?token={token}")
        tab.goto((tmp_path / "page.html").as_uri())
        tab.get_by_text("Open in JupyterLab").click()
        tab.locator(".lm-TabBar-tabLabel", has_text="demo.ipynb").first.wait_for()
        tab.get_by_text("found 3 photos").first.wait_for()
        browser.close()
