"""The page on adding a paper, done: its files written into a copy of this checkout, its commands
run there, and what it shows held against what came out."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import test_layering
import test_notebooks
import yaml

from replication import notebooks
from replication.comparison import comparison
from replication.published import read_paper
from replication.records import read_record

pytestmark = pytest.mark.xdist_group("adding")  # one worker, so one walk

REPO = Path(__file__).resolve().parent.parent
PAGE = REPO / "book" / "adding.md"
BLOCK = re.compile(r"^(`{3,})\{code-block\} (\w+)\n(?::caption: (.*)\n)?(?::class: \w+\n)?"
                   r"((?:.*\n)*?)\1$", re.M)
TABLE = re.compile(r"^```\{table\} (book/_generated/\w+\.md), .*\n((?:.*\n)*?)```$", re.M)
LONG = ["python -m replication run gn_triplet/demo --force", "make book", "make test"]
OWN = "gn_triplet"  # a checkout in which somebody did the walk has it already


class Block(NamedTuple):
    language: str
    caption: str
    text: str


BLOCKS = [Block(m[2], m[3] or "", m[4]) for m in BLOCK.finditer(PAGE.read_text())]
FILES = {b.caption: b.text for b in BLOCKS if re.fullmatch(r"[\w/]+\.\w+", b.caption)}
COMMANDS = [line for b in BLOCKS if b.language == "bash" for line in b.text.splitlines()]
SHOWN = {b.caption: b.text for b in BLOCKS if b.language == "text"}
TABLES = [*TABLE.findall(PAGE.read_text()),
          ("book/_generated/gn_triplet_published.md", SHOWN["and its note"])]
MESSAGES = [caption for caption in SHOWN if caption.startswith("python ")]
[TOC] = [b for b in BLOCKS if b.caption.startswith("book/_toc.yml")]


def ran(command: str, folder: Path) -> subprocess.CompletedProcess:
    """A command line of the page, typed in the root of `folder`."""
    own = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
           "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("REPLICATION_", "PYTEST_"))}
    return subprocess.run(shlex.split(command), cwd=folder, env=kept | own, capture_output=True,
                          text=True, timeout=500)


def copied(folder: Path) -> Path:
    """The checkout after `make book`, as far as the page needs it: without the walk's own files."""
    made = {".git", ".venv", ".cache", ".snakemake", "data", "result"}

    def left_out(place: str, names: list[str]) -> set[str]:
        top = made if Path(place) == REPO else set()
        return {n for n in names if n in top or OWN in n or n in (
            "_build", "_generated", "runs", "golden", "__pycache__")}

    shutil.copytree(REPO, folder, ignore=left_out)
    toc = folder / "book" / "_toc.yml"
    toc.write_text(toc.read_text().replace(TOC.text, ""))
    ready = folder / "book" / "pretrain" / "runs" / "resnet.ipynb"
    ready.parent.mkdir()
    shutil.copy(folder / "book" / "pretrain" / "resnet.ipynb", ready)
    return folder


def write(block: Block, folder: Path) -> None:
    """A whole file, or lines above the one that the caption names."""
    path, _, above = block.caption.partition(", above ")
    file = folder / path
    if not above:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        return
    lines = file.read_text().splitlines(keepends=True)
    [place] = [i for i, line in enumerate(lines) if line.strip() == above.strip('"')]
    file.write_text("".join([*lines[:place], block.text, *lines[place:]]))


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> Path:
    """The copy in which everything was done in the page's order."""
    folder = copied(tmp_path_factory.mktemp("walk") / "checkout")
    for block in BLOCKS:
        if block.caption in FILES or block is TOC:
            write(block, folder)
        for line in block.text.splitlines() if block.language == "bash" else ():
            if line not in LONG:
                done = ran(line, folder)
                assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return folder


def test_the_page_is_wholly_taken_in():
    assert PAGE.read_text().count("{code-block}") == len(BLOCKS)
    assert list(FILES) == ["replication/papers/gn_triplet.py", "tests/test_gn_triplet.py",
                           "notebook.txt", "book/gn_triplet/paper.yml", "book/gn_triplet/index.md"]
    short = [line for line in COMMANDS if line not in LONG]
    assert short == [
        "pytest -q tests/test_gn_triplet.py", "mkdir book/gn_triplet",
        "mystnb-to-jupyter notebook.txt book/gn_triplet/train.ipynb", "rm notebook.txt",
        "python -m data_prep.doodles --out data/tiny --seed 0 --per-class 8 --sketches 2",
        "python -m replication run gn_triplet/demo --size tiny", "python -m replication report"]
    assert short + LONG == COMMANDS
    assert (len(SHOWN), len(MESSAGES), len(TABLES)) == (4, 2, 3)
    code = [line for line in FILES["replication/papers/gn_triplet.py"].splitlines() if line.strip()]
    assert len(code) < 100


def test_every_file_that_the_page_lists_is_there(walked):
    listed = re.findall(r"^\| `(\S+)` \|", PAGE.read_text(), re.M)
    assert len(listed) == 6
    assert all((walked / name).is_file() for name in listed)
    assert not (walked / "notebook.txt").exists()


def test_the_run_left_a_record_of_the_demo(walked):
    record = read_record(walked / "book/gn_triplet/runs/demo.json")
    assert (record.paper, record.experiment, record.seed) == ("gn_triplet", "demo", 1)
    assert (record.dataset.kind, record.parameters["epochs"]) == ("demo", 1)
    rankings = {(m.variant, m.selection, m.protocol) for m in record.metrics}
    assert {("trained", "last", ""), ("trained", "unseen", ""), ("chance", "", ""),
            ("pixels", "", ""), ("untrained", "", ""),
            ("trained", "last", "fine-grained")} <= rankings


@pytest.mark.parametrize(("path", "table"), TABLES)
def test_a_table_of_the_page_is_the_one_that_was_written(walked, path, table):
    """Line by line, up to the numbers that are left out; a line without them is whole."""
    written = (walked / path).read_text().splitlines()
    for line in table.splitlines():
        start, left_out, _ = line.partition("…")
        assert any(w.startswith(start) if left_out else w == line for w in written), line


def test_the_published_numbers_are_not_run_and_not_touched_by_the_demo(walked):
    paper = read_paper(walked / "book/gn_triplet/paper.yml")
    record = read_record(walked / "book/gn_triplet/runs/demo.json")
    table = comparison(paper, [record])
    assert len(table) == 2 and set(table.status) == {"not run"} and not table.quoted.any()
    assert table.reproduced.isna().all()


def test_the_published_numbers_are_those_that_acnet_quotes(walked):
    quoted = {(c.dataset, c.split, c.metric): c.value
              for c in read_paper(REPO / "book/acnet/paper.yml").cells if c.method == "GN-Triplet"}
    ours = read_paper(walked / "book/gn_triplet/paper.yml").cells
    assert ours and all(quoted[c.dataset, c.split, c.metric] == c.value for c in ours)


def test_the_sixth_paper_is_counted_with_the_five(walked):
    for file in ("book/_generated/state.md", "README.md"):
        assert "gn_triplet" in (walked / file).read_text(), file
    listed = ran("python -m replication list", walked).stdout.splitlines()
    assert [line.split()[0] for line in listed if "gn_triplet/demo" in line] == ["done"]
    assert not any(line.startswith("problem") for line in listed)


@pytest.mark.parametrize("command", MESSAGES)
def test_a_mistake_gives_the_message_that_the_page_shows(walked, command):
    done = ran(command, walked)
    assert (done.returncode, done.stderr) == (1, SHOWN[command])


def test_without_tolerances_the_paper_is_refused_as_the_page_shows(walked):
    file = walked / "book/gn_triplet/paper.yml"
    whole = file.read_text()
    without = re.sub(r"^tolerances:\n( .*\n)+", "", whole, flags=re.M)
    assert without != whole
    file.write_text(without)
    try:
        done = ran("python -m replication list", walked)
    finally:
        file.write_text(whole)
    assert (done.returncode, done.stderr) == (1, SHOWN["without tolerances"])


def test_the_projects_own_checks_hold_for_the_sixth_paper(walked):
    module = (walked / "replication/papers/gn_triplet.py").read_text()
    assert test_layering.papers_in(module, "replication.papers") == set()
    notebook = walked / "book/gn_triplet/train.ipynb"
    test_notebooks.test_source_notebooks_are_clean_and_documented(notebook)
    paper = read_paper(walked / "book/gn_triplet/paper.yml")
    for experiment in paper.experiments:
        for values in (paper.parameters(experiment), experiment.tiny):
            notebooks.check_parameters(notebook, values)
    fields = re.findall(r"^    (\w+): .+ = ", module.partition("def run_key")[0], re.M)
    assert len(fields) == 12 and set(notebooks.notebook_parameters(notebook)) == set(fields)
    style = ran("ruff check replication/papers/gn_triplet.py tests/test_gn_triplet.py", walked)
    assert style.returncode == 0, style.stdout


def test_make_book_would_run_the_demo(walked):
    (walked / "book/gn_triplet/runs/demo.ipynb").rename(walked / "kept.ipynb")
    done = ran("snakemake -n --cores 1 book/gn_triplet/runs/demo.ipynb --config size=tiny", walked)
    (walked / "kept.ipynb").rename(walked / "book/gn_triplet/runs/demo.ipynb")
    assert "wildcards: paper=gn_triplet, name=demo" in done.stdout, done.stdout + done.stderr


def test_the_chapter_builds_without_a_warning(walked):
    """With its run and the references alone: the other chapters' runs are not in the copy."""
    toc, bibliography = walked / "book/_toc.yml", walked / "book/cited.md"
    whole = toc.read_text()
    parts = {p["caption"]: p["chapters"] for p in yaml.safe_load(whole)["parts"]}
    [chapter] = [c for c in parts["Sketch-based image retrieval"] if OWN in c["file"]]
    bibliography.write_text("# Cited\n\n```{bibliography}\n```\n")
    toc.write_text(yaml.safe_dump({"format": "jb-book", "root": chapter["file"], "chapters": [
        *chapter["sections"], {"file": "cited"}]}))
    done = ran("jupyter-book build book --all --config _config.yml --path-output book -W -n "
               "--keep-going", walked)
    toc.write_text(whole)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    html = (walked / "book/_build/html/gn_triplet/index.html").read_text()
    text = re.sub(r"<[^>]+>", " ", html)
    assert all(word in text for word in ("not run", "chance", "pixels", "untrained", "16.9"))
    assert 'href="runs/demo.html"' in html
