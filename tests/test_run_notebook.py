"""Running a notebook: what is refused, what a failure leaves, what a success publishes."""

import json

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook, new_output
from test_records import a_record

from replication import __main__ as command
from replication import notebooks, paths
from replication.notebooks import RunFailed, run_notebook, unknown_parameters
from replication.records import (
    MIME,
    InvalidFile,
    code_version,
    parse_record,
    read_record,
    write_record,
)

PARAMETERS = "epochs = 2  # how often\ndata_root = 'data'\nlr = 1e-3\nresume = True\nlimit = None"


def a_notebook(path, *sources, tagged=True, more=""):
    """A notebook with the parameters above and one cell for each source."""
    tags = {"tags": ["parameters"] if tagged else []}
    first = new_code_cell(f"{PARAMETERS}\n{more}", metadata=tags)
    cells = [first, *map(new_code_cell, sources)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


def showing(record: dict) -> str:
    """Source of a cell that shows a record."""
    return f"import json\ndisplay({{{MIME!r}: json.loads({json.dumps(record)!r})}}, raw=True)"


@pytest.fixture
def book(tmp_path, monkeypatch):
    """An empty book beside which failed notebooks are kept."""
    monkeypatch.setattr(paths, "BOOK", tmp_path / "book")
    monkeypatch.setattr(notebooks, "FAILED", tmp_path / "failed")
    (tmp_path / "book" / "clip_prompt").mkdir(parents=True)
    return tmp_path / "book"


@pytest.fixture
def experiments(book):
    """A book with the experiment `demo`, and `retrieve`, which needs it."""
    folder = book / "clip_prompt"
    a_notebook(folder / "train.ipynb", showing(a_record(experiment="unset")))
    listed = [{"name": "demo", "notebook": "train.ipynb", "demo": True, "tiny": {"epochs": 1}},
              {"name": "retrieve", "notebook": "train.ipynb", "needs": ["clip_prompt/demo"]}]
    (folder / "paper.yml").write_text(yaml.safe_dump({"title": "x", "experiments": listed}))
    return folder


def called(capsys, *arguments):
    """Exit status and output of `python -m replication ...`."""
    with pytest.raises(SystemExit) as stop:
        command.main(list(arguments))
    printed = capsys.readouterr()
    return stop.value.code, printed.out + printed.err


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_unknown_parameters_are_refused_with_the_nearest_names(book, capsys):
    notebook = a_notebook(book / "a.ipynb", "1 / 0")
    assert unknown_parameters(notebook, ["epochs", "epoch", "zzz"]) == {
        "epoch": ["epochs"], "zzz": []}
    with pytest.raises(RunFailed) as refused:
        run_notebook(notebook, {"epoch": 1, "zzz": 2, "dataroot": "x"}, book / "runs" / "a.ipynb")
    text = str(refused.value)
    assert "no parameter epoch in" in text and "did you mean epochs?" in text
    assert "did you mean data_root?" in text
    assert "it has: epochs, data_root, lr, resume, limit" in text
    assert files(book) == ["a.ipynb"]


@pytest.mark.parametrize(("parameters", "message"), [
    ({"lr": "1e-4"}, "parameter lr is '1e-4', its default is the number 0.001"),
    ({"resume": "false"}, "parameter resume is 'false', its default is the truth value True"),
    ({"epochs": True}, "parameter epochs is True"),
])
def test_a_value_of_another_type_is_refused(book, parameters, message):
    with pytest.raises(RunFailed, match=message):
        notebooks.check_parameters(a_notebook(book / "a.ipynb"), parameters)


def test_values_that_fit_pass(book):
    given = {"lr": 1, "epochs": 3, "limit": "x", "data_root": "y", "resume": False}
    notebooks.check_parameters(a_notebook(book / "a.ipynb"), given)


def test_a_notebook_without_the_tag_or_the_file_is_an_error(book):
    with pytest.raises(RunFailed, match="no cell tagged `parameters`"):
        unknown_parameters(a_notebook(book / "a.ipynb", tagged=False), [])
    with pytest.raises(RunFailed, match="b.ipynb does not exist"):
        unknown_parameters(book / "b.ipynb", [])


def test_a_failing_notebook_leaves_nothing_in_the_book(book):
    notebook = a_notebook(book / "clip_prompt" / "a.ipynb", "1 + 1",
                          "bad = {}\nbad['weights']")
    out = book / "clip_prompt" / "runs" / "a.ipynb"
    out.parent.mkdir()
    out.write_text("the earlier run")
    with pytest.raises(RunFailed) as failed:
        run_notebook(notebook, {}, out, progress=False)
    text = str(failed.value)
    assert "KeyError: 'weights'" in text and "in the cell that begins: bad = {}" in text
    assert len(text.splitlines()) <= 4
    assert files(book) == ["clip_prompt/a.ipynb", "clip_prompt/runs/a.ipynb"]
    assert out.read_text() == "the earlier run"
    kept = book.parent / "failed" / "clip_prompt-a.ipynb"
    assert "KeyError" in kept.read_text() and str(kept) in text


def test_an_invalid_record_fails_the_run(book):
    notebook = a_notebook(book / "a.ipynb", showing(a_record(seed="first")))
    with pytest.raises(RunFailed, match="record of a: seed: Input should be a valid integer"):
        run_notebook(notebook, {}, book / "runs" / "a.ipynb", needs_record=True, progress=False)
    assert files(book) == ["a.ipynb"]
    assert files(book.parent / "failed") == ["book-a.ipynb"]


def test_one_record_is_shown_or_none_where_none_is_needed():
    cell = new_code_cell("x", outputs=[new_output("display_data", {MIME: a_record()})])
    shown = [new_notebook(cells=n * [cell]) for n in range(3)]
    assert notebooks._record(shown[0], "a", "demo", needed=False) is None
    assert notebooks._record(shown[1], "a", "other", needed=True).experiment == "other"
    for executed, message in ((shown[0], "shows no run record"), (shown[2], "shows 2 run records")):
        with pytest.raises(InvalidFile, match=message):
            notebooks._record(executed, "a", "demo", needed=True)


def test_a_run_publishes_record_and_normalised_notebook(book):
    notebook = a_notebook(book / "a.ipynb", "import os\nprint(os.getcwd(), epochs)",
                          showing(a_record(experiment="unset")))
    texts = []
    for name in ("one", "two"):
        out = book / name / "a.ipynb"
        record = run_notebook(notebook, {"epochs": 3}, out, experiment="demo", progress=False,
                              stamp={"size": "tiny"})
        assert record.experiment == "demo" and record.path == out.with_suffix(".json")
        assert read_record(out.with_suffix(".json")).model_dump() == record.model_dump()
        texts.append(out.read_text())
    assert texts[0] == texts[1]
    assert f"{paths.ROOT} 3" in texts[0]
    assert notebooks.stamp_of(out) == {"size": "tiny"}
    assert "start_time" not in texts[0] and str(book) not in texts[0]
    nbformat.validate(nbformat.read(out, as_version=4))
    assert not (book.parent / "failed").exists()


def test_run_of_an_experiment_and_what_follows(experiments, capsys):
    code, text = called(capsys, "run", "clip_prompt/retrieve")
    assert code == 1
    assert text == "error: run first what this needs: python -m replication run clip_prompt/demo\n"
    code, text = called(capsys, "run", "clip_prompt/demo", "--size", "tiny", "-p", "lr", "1e-4")
    assert code == 0, text
    run = experiments / "runs" / "demo.ipynb"
    stamp = notebooks.stamp_of(run)
    assert stamp["parameters"] == {"epochs": 1, "lr": 1e-4}
    assert stamp["code"] == code_version().model_dump() and stamp["environment"]["python"]
    assert read_record(run.with_suffix(".json")).experiment == "demo"
    before = run.stat().st_mtime_ns
    code, text = called(capsys, "run", "clip_prompt/demo", "--size", "tiny", "-p", "lr", "1e-4")
    assert code == 0 and "done already" in text
    code, text = called(capsys, "run", "clip_prompt/demo")
    assert code == 1 and "holds a run with other settings: --force replaces it" in text
    assert run.stat().st_mtime_ns == before
    code, text = called(capsys, "list")
    states = [line.split(" ")[0] for line in text.splitlines()]
    assert states == ["done", "not"] and "run clip_prompt/retrieve" in text


def test_of_many_runs_the_notebook_and_their_list_are_kept(book, tmp_path, capsys):
    folder, root = book / "clip_prompt", tmp_path / "many"
    a_notebook(folder / "many.ipynb", "1 + 1", more="save_root = 'result'")
    listed = [{"name": "many", "notebook": "many.ipynb", "record": False,
               "parameters": {"save_root": str(root)}}]
    (folder / "paper.yml").write_text(yaml.safe_dump({"title": "x", "experiments": listed}))
    code, text = called(capsys, "keep", "clip_prompt/many")
    assert code == 1 and "has not run here: python -m replication run" in text
    code, text = called(capsys, "run", "clip_prompt/many")
    assert code == 0, text
    assert called(capsys, "keep", "clip_prompt/many")[0] == 0
    kept = [p.name for p in (folder / "records").iterdir()]
    assert "many.ipynb" in kept and "many.csv" not in kept, "without a list the notebook alone"
    root.mkdir()
    (root / "runs.csv").write_text("turned,seed\nnothing,1\n")
    assert called(capsys, "keep", "clip_prompt/many")[0] == 0
    assert (folder / "records" / "many.csv").read_text() == "turned,seed\nnothing,1\n"
    kept = (folder / "records" / "many.ipynb").read_bytes()
    assert kept == (folder / "runs" / "many.ipynb").read_bytes()


@pytest.mark.parametrize(("arguments", "message"), [
    (["clip/demo"], "error: no paper clip: NAME is paper/experiment with a paper of clip_prompt"),
    (["clip_prompt/dem"], "error: clip_prompt has no experiment dem; it has: demo, retrieve"),
    (["absent.ipynb"], "error: absent.ipynb does not exist"),
    (["clip_prompt/demo", "--size", "huge"], "error: --size huge: choose one of demo, tiny"),
    (["clip_prompt/demo", "-p", "epoch", "3"], "error: no parameter epoch in"),
    (["clip_prompt/demo", "-p", "epochs"], "error: -p epochs needs a value"),
    (["clip_prompt/demo", "-f", "absent.yml"], "absent.yml does not exist"),
])
def test_a_wrong_call_is_one_line_without_traceback(experiments, capsys, arguments, message):
    code, text = called(capsys, "run", *arguments)
    assert code == 1
    assert message in text and text.count("\n") == 1
    assert files(experiments) == ["paper.yml", "train.ipynb"]


@pytest.mark.parametrize(("text", "value"), [
    ("3", 3), ("1e-4", 1e-4), ("True", True), ("None", None), ("true", "true"), ("a=b", "a=b"),
    ("[1, 2]", [1, 2]), ("{a: 1}", {"a": 1}), ("/data", "/data"), ("-1", -1)])
def test_values_are_read_as_papermill_reads_them(text, value):
    (pair,) = command.paired(["-p", "key", text])[1:]
    assert command._given([], [pair]) == {"key": value}


@pytest.fixture
def saved(book):
    """A record whose metrics are those of its saved embeddings."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from replication.metrics import CONVENTIONS
    from replication.retrieval import evaluate

    g = torch.Generator().manual_seed(0)
    tensors = {"query": torch.randn(20, 8, generator=g), "gallery": torch.randn(60, 8, generator=g),
               "query_labels": torch.arange(20) % 4, "gallery_labels": torch.arange(60) % 4}
    values = evaluate(**tensors, conventions=list(CONVENTIONS.values())).per_query
    metrics = [{"metric": name, "convention": convention, "value": 100 * float(v.nanmean()),
                "variant": "trained"} for convention, by_name in values.items()
               for name, v in by_name.items()]
    metrics.append({"metric": "mAP@all", "convention": "trec", "value": 25, "variant": "chance"})
    folder = book / "clip_prompt" / "records"
    folder.mkdir()
    save_file(tensors, folder / "e.safetensors")
    record = parse_record(a_record(metrics=metrics, files={"embeddings": "e.safetensors"}), "x")
    return write_record(record, folder / "demo.json")


def test_verify_agrees_differs_or_cannot(saved, capsys):
    code, text = called(capsys, "verify")
    assert code == 0 and "1 records: 1 agrees" in text
    assert "not saved   mAP@all trec chance" in text
    record = read_record(saved)
    record.files["embeddings:chance"] = "absent.safetensors"
    write_record(record, saved)
    code, text = called(capsys, "verify")
    assert code == 2 and "missing     embeddings:chance: absent.safetensors" in text
    record.metrics[0].value += 2e-4
    write_record(record, saved)
    code, text = called(capsys, "verify", str(saved))
    assert code == 1 and text.count("  differs ") == 1
    (saved.parent / "e.safetensors").unlink()
    code, text = called(capsys, "verify", str(saved))
    assert code == 2 and "missing     embeddings: e.safetensors" in text
    write_record(parse_record(a_record(), "x"), saved)
    code, text = called(capsys, "verify", str(saved))
    assert code == 2 and "the record names no embeddings file" in text


def test_hubs_are_counted(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from replication.verification import first_places

    axes = torch.eye(5)
    drawn = [0] * 4 + [1] * 3 + [2] * 2 + [3]  # the fifth photo comes first for none
    save_file({"query": axes[drawn].clone(), "gallery": axes}, tmp_path / "e.safetensors")
    told = first_places(tmp_path / "e.safetensors")
    assert told == "first places of 10 queries go to 4 of 5 photos, 90 % of them to three"


def test_plain_papermill_runs_the_same_notebook(book):
    import papermill

    notebook = a_notebook(book / "a.ipynb", showing(a_record()))
    papermill.execute_notebook(str(notebook), str(book / "b.ipynb"), {"epochs": 1},
                               progress_bar=False, kernel_name="python3")
    assert MIME in (book / "b.ipynb").read_text()
