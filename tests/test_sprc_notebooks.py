"""SPRC's source notebooks through plain papermill, on tiny doodles, with random weights."""

import json
import os
import subprocess
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from safetensors.torch import save_file
from test_notebooks import BOOK, execute

from data_prep.doodles import draw_dataset
from replication import backbones, notebooks, records
from replication.papers import sprc
from replication.verification import AGREES, verified

pytestmark = pytest.mark.xdist_group("sprc_notebooks")  # one worker, so one training
SIZES = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "embed_dim": 16}
FREE = {"accelerator"}  # for tests


@pytest.fixture(scope="module")
def made(doodles, tmp_path_factory):
    """train.ipynb's run: its folder, and what every notebook is given."""
    folder = tmp_path_factory.mktemp("sprc")
    clip = backbones.clip("doodle-clip", "none").model.state_dict()
    save_file({k: v.contiguous() for k, v in clip.items()}, folder / "clip.safetensors")
    given = {"data_path": str(doodles), "image_weights": str(folder / "clip.safetensors")}
    training = {"weights": "none", "vocabulary": "training", "num_epochs": 1, "num_prompts": 4,
                "batch_size": 16, "baseline_weights": "none", **SIZES}
    execute(BOOK / "sprc/train.ipynb", folder / "train.ipynb", folder,
            given | training | {"save_root": str(folder / "train")})
    return folder, given, training


def opened(made, name: str, **more) -> Path:
    folder, given, _ = made
    parameters = given | {"model_path": str(folder / "train/val.safetensors"),
                          "save_root": str(folder / name)} | more
    execute(BOOK / f"sprc/{name}.ipynb", folder / f"{name}.ipynb", folder, parameters)
    return folder / f"{name}.ipynb"


def printed(notebook: Path) -> str:
    return "".join(o.get("text", "") for c in nbformat.read(notebook, 4).cells
                   if c.cell_type == "code" for o in c.outputs)


def test_training_leaves_a_record_that_can_be_computed_again(made):
    folder, *_ = made
    record = records.read_record(folder / "train/record.json")
    assert (record.paper, record.dataset.kind, record.seed) == ("sprc", "demo", 42)
    assert {m.variant for m in record.metrics} == {"trained", "untrained", "chance", "image-only",
                                                   "text-only", "sum"}
    lines, outcome = verified(folder / "train/record.json")
    assert outcome == AGREES and not any("not saved" in line for line in lines)
    shown = [o for c in nbformat.read(folder / "train.ipynb", 4).cells if c.cell_type == "code"
             for o in c.outputs if records.MIME in o.get("data", {})]
    assert len(shown) == 1
    pictures = [o["data"]["text/html"] for c in nbformat.read(folder / "train.ipynb", 4).cells
                if c.cell_type == "code" for o in c.outputs
                if "<img" in o.get("data", {}).get("text/html", "")]
    assert len(pictures) == 2 and all('alt="' in html for html in pictures)


def test_a_checkpoint_measures_what_its_run_did(made):
    opened(made, "evaluate")
    before, after = (records.read_record(made[0] / name / "record.json")
                     for name in ("train", "evaluate"))
    best = {m.metric: m.value for m in before.metrics if (m.variant, m.selection) ==
            ("trained", "val")}
    assert {m.metric: m.value for m in after.metrics} == best
    assert {m.selection for m in after.metrics} == {"val"}
    assert "harmonic" in printed(made[0] / "evaluate.ipynb")


def test_the_servers_files_and_its_answer(made):
    answer = {"server_recall": [10.0, 20.0, 30.0, 40.0], "server_recall_subset": [50.0, 60.0, 70.0]}
    folder, given, _ = made
    drawn = draw_dataset(folder / "drawn", per_class=8, sketches=1)  # 51 pictures are needed
    keys = given | {"data_path": str(drawn), "model_path": str(folder / "train/val.safetensors"),
                    "save_root": str(folder / "submit")}
    words = [w for k, v in keys.items() for w in ("-p", k, v)] + ["-y", json.dumps(answer)]
    subprocess.run(["papermill", str(BOOK / "sprc/submit.ipynb"), str(folder / "submit.ipynb"),
                    "-k", "python3", *words], cwd=folder, check=True, capture_output=True,
                   env=environment())
    record = records.read_record(folder / "submit/record.json")
    values = {m.metric: m.value for m in record.metrics}
    assert values["R@5"] == 20 and values["Rsub@1"] == 50 and values["Avg"] == 35
    assert printed(folder / "submit.ipynb").count(" 0 faults") == 2
    assert len(json.loads((folder / "submit/recall.json").read_text())) > 3


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(BOOK.parent)}


def test_a_query_finds_pictures(made):
    text = printed(opened(made, "retrieve", reference="1", found=5))
    assert "query: " in text and "  5  " in text and "  6  " not in text


@pytest.mark.parametrize("name", ["seeds", "switches"])
def test_runs_side_by_side(made, name):
    folder, given, training = made
    fields = notebooks.notebook_parameters(BOOK / f"sprc/{name}.ipynb")
    own = {k: v for k, v in (given | training).items() if k in fields}
    only = {"only": "without rtc"} if name == "switches" else {}
    execute(BOOK / f"sprc/{name}.ipynb", folder / f"{name}.ipynb", folder,
            own | only | {"n_seeds": 1, "save_root": str(folder / name)})
    listed = pd.read_csv(folder / name / "runs.csv")
    if name == "switches":
        assert list(listed.turned) == ["as released", "without rtc"]
    else:
        assert set(listed.turned) == {"trained (val)", "trained (last)", "untrained", "chance",
                                      "image-only", "text-only", "sum"}
    assert listed["Avg cirr"].between(0, 100).all()


def test_every_option_is_a_parameter():
    offered = {name: set(notebooks.notebook_parameters(BOOK / f"sprc/{name}.ipynb"))
               for name in ("train", "evaluate", "submit", "retrieve")}
    for name, config in (("train", sprc.Config), ("evaluate", sprc.Evaluate),
                         ("retrieve", sprc.Retrieve)):
        assert set(config.__dataclass_fields__) - FREE == offered[name]
    assert set(sprc.Submit.__dataclass_fields__) - FREE - {"gallery"} == offered["submit"]
