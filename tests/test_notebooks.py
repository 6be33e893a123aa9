"""Source notebooks are clean, documented, and run through papermill on tiny doodles."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest

from replication import notebooks, published, records
from replication.papers import clip_prompt

BOOK = Path(__file__).resolve().parent.parent / "book"
SOURCES = [p for p in sorted(BOOK.rglob("*.ipynb"))
           if not {"runs", "records", "_build", ".ipynb_checkpoints"} & set(p.parts)]
PAPERS = [p for p in (BOOK / "clip_prompt" / "paper").glob("*.yml")]


def code(notebook: Path) -> list:
    return [c for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]


@pytest.mark.parametrize("notebook", SOURCES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_source_notebooks_are_clean_and_documented(notebook):
    cells = nbformat.read(notebook, 4).cells
    nbformat.validate(nbformat.read(notebook, 4))
    assert not any(c.outputs or c.execution_count for c in code(notebook))
    text = "\n".join(c.source for c in code(notebook))
    assert not re.search(r"^\s*(def|class) ", text, re.M), "defined in a notebook"
    assert not re.search(r"[\"'](/|\.\./)", text), "a path in a notebook"
    first = cells[0].source
    assert first.startswith("# ") and "**Command.**" in first and "**Hardware and time.**" in first
    tagged = [c for c in code(notebook) if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    for line in tagged[0].source.splitlines():
        assert re.match(r"\w+: \w+ = \S", line), line
    helped = papermill.inspect_notebook(str(notebook))
    documented = [p for p in helped.values() if p["help"]]
    assert len(documented) >= len(helped) - 4


def test_every_option_of_the_original_is_a_parameter():
    names = set(notebooks.notebook_parameters(BOOK / "clip_prompt" / "train.ipynb"))
    assert {"data_root", "data_name", "prompt_num", "save_root", "batch_size", "epochs",
            "triplet_margin", "encoder_lr", "prompt_lr", "cls_weight", "seed"} <= names
    query = set(notebooks.notebook_parameters(BOOK / "clip_prompt" / "retrieve.ipynb"))
    assert {"query_name", "retrieval_num", "data_root", "data_name", "prompt_num"} <= query
    fields = set(clip_prompt.Config.__dataclass_fields__)
    assert fields - {"accelerator"} <= names, "a field of Config that no notebook offers"


@pytest.mark.parametrize("file", PAPERS, ids=lambda p: p.stem)
def test_published_settings_are_the_configs_defaults(file):
    values = published.read_parameters(file)
    notebooks.check_parameters(BOOK / "clip_prompt" / "train.ipynb", values)
    defaults = {k: f.default for k, f in clip_prompt.Config.__dataclass_fields__.items()}
    free = {"data_name", "save_root", "num_workers", "seed"}
    assert {k: v for k, v in values.items() if k not in free} == {
        k: defaults[k] for k in values if k not in free}
    assert values["seed"] == 42


def test_every_experiment_of_every_paper_can_be_asked_for():
    papers = published.read_papers(BOOK)
    for paper in papers.values():
        assert published.check_paper(paper, papers) == []
        for experiment in paper.experiments:
            for values in (paper.parameters(experiment), experiment.tiny):
                notebooks.check_parameters(paper.folder / experiment.notebook, values)


pytestmark = pytest.mark.xdist_group("notebooks")  # one worker, so one training


@pytest.fixture(scope="module")
def trained(doodles, tmp_path_factory):
    """pretrain and train through plain papermill, as a user would, on tiny doodles."""
    folder = tmp_path_factory.mktemp("run")
    common = {"data_root": str(doodles)}
    execute(BOOK / "pretrain/clip.ipynb", folder / "clip.ipynb", folder, {
        **common, "epochs": 1, "save_root": str(folder / "pretrain")})
    given = {**common, "epochs": 1, "save_root": str(folder / "result"), "val_classes": 2,
             "weights": str(folder / "pretrain/clip.safetensors")}
    execute(BOOK / "clip_prompt/train.ipynb", folder / "train.ipynb", folder, given)
    return folder, given


def execute(notebook: Path, out: Path, folder: Path, parameters: dict) -> None:
    pairs = [w for k, v in parameters.items() for w in ("-p", k, str(v))]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(notebook), str(out), "-k", "python3", *pairs],
        cwd=folder, capture_output=True, text=True, timeout=400,
        env={**os.environ, "PYTHONPATH": str(BOOK.parent)})
    assert done.returncode == 0, done.stderr[-3000:]


def test_training_leaves_a_valid_record_in_folder_and_notebook(trained):
    folder, given = trained
    record = records.read_record(folder / "result" / "doodles_3" / "record.json")
    assert record.dataset.kind == "demo" and record.seed == 42
    shown = [o["data"][records.MIME] for c in code(folder / "train.ipynb") for o in c.outputs
             if records.MIME in o.get("data", {})]
    assert len(shown) == 1 and shown[0]["metrics"] == json.loads(
        records.as_json(record))["metrics"]
    kinds = {(m.variant, m.selection, m.protocol) for m in record.metrics}
    assert {("trained", s, "") for s in ("unseen", "seen", "last")} <= kinds
    assert {("chance", "", ""), ("pixels", "", ""), ("untrained", "", ""),
            ("trained", "unseen", "generalised"), ("trained", "unseen", "fine-grained")} <= kinds


def test_a_records_numbers_can_be_computed_again(trained):
    from replication.verification import AGREES, verified

    folder, _ = trained
    lines, outcome = verified(folder / "result" / "doodles_3" / "record.json")
    assert outcome == AGREES
    assert sum("agrees" in line for line in lines) > 60
    assert not any("not saved" in line and "trained" in line.split() for line in lines)


def test_pictures_have_a_text_and_bars_leave_one_line(trained):
    folder, _ = trained
    html = [o["data"]["text/html"] for c in code(folder / "train.ipynb") for o in c.outputs
            if "<img" in o.get("data", {}).get("text/html", "")]
    assert len(html) == 3 and all('alt="' in h for h in html)
    for cell in code(folder / "train.ipynb"):
        for output in cell.outputs:
            assert len(str(output.get("text", "")).splitlines()) < 15
    assert (folder / "train.ipynb").stat().st_size < 1_000_000


def retrieve(trained, **more) -> list:
    folder, given = trained
    keep = {k: given[k] for k in ("data_root", "save_root", "weights")}
    out = folder / "retrieve.ipynb"
    execute(BOOK / "clip_prompt/retrieve.ipynb", out, folder, {**keep, **more})
    return code(out)


def test_a_drawing_of_ones_own_finds_photos(trained, tmp_path):
    from PIL import Image, ImageDraw

    drawing = Image.new("RGBA", (300, 200), (0, 0, 0, 0))
    ImageDraw.Draw(drawing).ellipse((50, 40, 250, 160), outline="black", width=5)
    drawing.save(tmp_path / "own drawing.png")
    cells = retrieve(trained, query_name=tmp_path / "own drawing.png", retrieval_num=3)
    told = "".join(o.get("text", "") for c in cells for o in c.outputs)
    assert "class unknown" in told and "  3  " in told and "  4  " not in told
    folder, given = trained
    assert (Path(given["save_root"]) / "doodles_3/retrieved/own drawing.png").exists()


@pytest.mark.parametrize(("more", "told"), [
    ({"query_name": "nowhere.png"}, "no picture 'nowhere.png'.*a sketch of the set, as"),
    ({"prompt_num": 7}, "no gallery vectors .*doodles_7"),
    ({"selection": "first"}, "selection='first'"),
])
def test_what_retrieval_lacks_is_named(trained, tmp_path, more, told):
    folder, given = trained
    values = {k: given[k] for k in ("data_root", "save_root", "weights")} | more
    with pytest.raises(notebooks.RunFailed, match=told):
        notebooks.run_notebook(BOOK / "clip_prompt/retrieve.ipynb", values, tmp_path / "o.ipynb",
                               failed=tmp_path, progress=False)
    assert not (tmp_path / "o.ipynb").exists()


@pytest.mark.parametrize(("more", "told"), [
    ({"promt_num": 3}, "no parameter promt_num .*did you mean prompt_num"),
    ({"data_name": "sketchi"}, "no set 'sketchi' in .*it holds doodles"),
    ({"save_root": "/proc/no"}, "cannot write into /proc/no"),
    ({"weights": "missing.safetensors"}, "no weights file .*missing.safetensors"),
    ({"epochs": "many"}, "parameter epochs is 'many'"),
])
def test_bad_input_to_training_is_one_message_and_no_notebook(doodles, tmp_path, more, told):
    values = {"data_root": str(doodles), "save_root": str(tmp_path / "r"), "weights": "none"} | more
    with pytest.raises(notebooks.RunFailed, match=told):
        notebooks.run_notebook(BOOK / "clip_prompt/train.ipynb", values, tmp_path / "o.ipynb",
                               failed=tmp_path / "failed", progress=False)
    assert not (tmp_path / "o.ipynb").exists()


@pytest.mark.parametrize("notebook", ["train", "retrieve", "switches"])
def test_plain_papermill_does_not_pass_a_misspelling_on(doodles, tmp_path, notebook):
    with pytest.raises(AssertionError, match="no parameter promt_num: did you mean prompt_num"):
        execute(BOOK / f"clip_prompt/{notebook}.ipynb", tmp_path / "o.ipynb", tmp_path,
                {"data_root": str(doodles), "weights": "none", "promt_num": 5})


def test_the_switches_run(trained, tmp_path):
    folder, given = trained
    execute(BOOK / "clip_prompt/switches.ipynb", tmp_path / "o.ipynb", tmp_path, {
        "data_root": given["data_root"], "weights": given["weights"], "epochs": 1,
        "n_seeds": 1, "only": "triplet only", "save_root": str(tmp_path / "s")})
    assert len(list((tmp_path / "s").glob("*/doodles_3/record.json"))) == 2
    listed = pd.read_csv(tmp_path / "s" / "runs.csv")
    assert listed.turned.tolist() == ["as released", "triplet only"]
    for row in listed.itertuples():
        folder = next((tmp_path / "s").glob(f"{row.turned.replace(' ', '-')}-{row.seed}"))
        made = records.read_record(folder / "doodles_3" / "record.json")
        value = next(m.value for m in made.metrics
                     if (m.metric, m.convention) == ("mAP@all", "trec"))
        assert listed.loc[row.Index, "mAP@all trec"] == value


def test_the_readme_is_not_stale():
    from replication.report import stale_readme

    assert not stale_readme(), "run: python -m replication report"
