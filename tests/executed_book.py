"""A small book with executed notebooks: one with a record, one with a list, one with neither."""

import hashlib
import json
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_records import a_record

from replication.published import Paper, read_paper
from replication.records import parse_record, write_record

DEFAULTS = """data_name: str = "doodles"  # a folder | of data_root
epochs: int = 5  # published: 60; as <given>
seed: int = -1  # -1: drawn
save_root: str = "result"
devices: int = 1  # torchrun's processes"""
COST = {"seconds_train": 130.4, "seconds_evaluate": 5.43, "items_per_second": 1239.28,
        "peak_memory_bytes": 1305468928, "energy_joules": 7200.0, "energy_source": "NVML"}
EXPERIMENTS = [
    {"name": "demo", "notebook": "train.ipynb", "title": "Train on the doodles", "demo": True,
     "parameters": {"epochs": 2, "save_root": "result/demo"}, "time": "a minute"},
    {"name": "look", "notebook": "look.ipynb", "title": "Look at one", "record": False,
     "demo": True, "needs": ["clip_prompt/demo", "clip_prompt/many"]},
    {"name": "many", "notebook": "train.ipynb", "title": "Every switch", "record": False,
     "parameters": {"save_root": "result/many"}}]
LISTED = """turned,seed,seconds_train,dataset,split,n_query,n_gallery,commit,clean,torch,device,\
finished,parameters
as released,42,100.0,doodles,30/10,1008,336,aaaaaaaaaaaa,True,2.9,cpu,2024-05-01T12:00:00Z,{}
the same measured otherwise,42,100.0,doodles,30/10,1008,336,aaaaaaaaaaaa,True,2.9,cpu,\
2024-05-01T12:00:00Z,{}
as released,43,140.0,doodles,30/10,1008,336,aaaaaaaaaaaa,True,2.9,cpu,2024-05-01T12:05:00Z,{}
gallery: one a sketch,43,140.0,doodles,30/10,1008,336,aaaaaaaaaaaa,True,2.9,cpu,\
2024-05-01T12:05:10Z,"{""gallery"": ""one""}"
untrained,43,0.0,doodles,30/10,1008,336,bbbbbbbbbbbb,False,2.9,cpu,2024-05-01T12:06:00Z,{}
"""


def notebook(file: Path, title="ClipPrompt: train", given=None, **stamp) -> Path:
    """A notebook of the usual cells; an executed one where `stamp` is given."""
    cells = [new_markdown_cell(f"# {title}\n\n**Claim.** It finds photos.", id="title"),
             new_code_cell(DEFAULTS, metadata={"tags": ["parameters"]}, id="parameters")]
    if given:
        source = "\n".join(f"{k} = {v!r}" for k, v in given.items())
        cells.append(new_code_cell(source, metadata={"tags": ["injected-parameters"]}, id="given"))
    shown = [new_output("stream", text="found 3 photos\n")] if stamp else []
    cells += [new_code_cell("import time", id="start"),
              new_code_cell("print('found')", outputs=shown, id="found")]
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
             "language_info": {"name": "python"}}
    if stamp:
        about["replication"] = {"parameters": given or {}, "size": "demo"} | stamp
    file.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=about), file)
    return file


def record(**changes) -> dict:
    """The record of the demo, which drew its seed and filled in a parameter."""
    parameters = {"data_name": "doodles", "epochs": 2, "seed": 7, "save_root": "result/demo",
                  "devices": 1, "accelerator": "auto"}
    machine = {"python": "3.11.7", "torch": "2.9.0", "cuda": "13.0", "device": "NVIDIA H200"}
    return a_record(parameters=parameters, seed=7, environment=machine, cost=COST,
                    weights={"name": "doodle-clip doodles", "sha256": "0123456789abcdef"},
                    code={"commit": "51f39d3c3c8b1241", "clean": True},
                    notes=["3 captions_were cut"]) | changes


def made(root: Path, **paper) -> Paper:
    """The book in `root/book`; its only paper."""
    folder = root / "book" / "clip_prompt"
    source = notebook(folder / "train.ipynb")
    notebook(folder / "look.ipynb", "ClipPrompt: look", code="")
    (folder / "paper").mkdir()
    (folder / "paper" / "full.yml").write_text("epochs: 60\n")
    (folder / "paper.yml").write_text(yaml.safe_dump(
        {"title": "A paper", "experiments": EXPERIMENTS} | paper))
    (folder / "index.md").write_text("# CLIP for sketches\n\nA chapter.\n")
    run, hashed = folder / "runs" / "demo.ipynb", hashlib.sha256(source.read_bytes()).hexdigest()
    notebook(run, given={"epochs": 2, "save_root": "result/demo", "devices": 1},
             experiment="clip_prompt/demo", source=hashed)
    write_record(parse_record(record(), "record"), run.with_suffix(".json"))
    many = notebook(folder / "records" / "many.ipynb", given={"save_root": "result/many"},
                    experiment="clip_prompt/many", source="of another day")
    many.with_suffix(".csv").write_text(LISTED)
    notebook(folder / "runs" / "look.ipynb", "ClipPrompt: look", experiment="clip_prompt/look")
    pages = ["runs/demo", "runs/look", "records/many"]
    toc = {"format": "jb-book", "root": "index", "chapters": [
        {"file": "clip_prompt/index", "sections": [{"file": f"clip_prompt/{p}"} for p in pages]}]}
    (root / "book" / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    (root / "book" / "index.md").write_text("# The book\n")
    return read_paper(folder / "paper.yml")


def restamped(file: Path, **stamp) -> Path:
    """An executed notebook whose stamp says something more."""
    found = json.loads(file.read_text())
    found["metadata"]["replication"] |= stamp
    file.write_text(json.dumps(found))
    return file
