"""CLIP's paper.yml: every published number, the readme's settings, who answers what."""

import csv
from collections import Counter
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_records import a_record

from replication import notebooks, published
from replication.comparison import comparison
from replication.papers.clip_retrieval import MODELS, SWITCHES, TABLE, Config, Search, ZeroShot
from replication.papers.clip_retrieval import measuring as made
from replication.records import parse_record

FOLDER = Path(__file__).resolve().parent.parent / "book" / "clip_retrieval"
PUBLISHED = FOLDER.parent.parent.parent / "shared" / "published" / "clip_retrieval.csv"
PAPER = published.read_paper(FOLDER / "paper.yml")
CELLS = {c.id: c for c in PAPER.cells}
RAW, PROMPTED = "zero-shot", "zero-shot, prompt 'a photo of {}'"
HALF, GELU = "zero-shot, half-precision scores", "zero-shot, GELU"
CLEANED = "zero-shot, captions cleaned by LAVIS"
PROTOCOLS = {"seed-zero-shot": RAW, "seed-fine-tuned": "fine-tuned", "open_clip-csv": RAW,
             "clip_benchmark-csv": RAW, "lavis-benchmark": CLEANED,
             "clip-paper-table-13": PROMPTED, "evaluateclip-readme": PROMPTED}
COUNTS = {"coco": (5000, 25_000), "flickr30k": (1000, 5000)}
ZERO_SHOTS = [f"{name}-zero-shot" for name in COUNTS]
MODEL_OF = {"vit-b-32": "ViT-B/32", "vit-b-16": "ViT-B/16"}
FINE_TUNED = {f"{data}-{short}": (data, model) for data in COUNTS
              for short, model in MODEL_OF.items()}
FINE_TUNED_COCO = [name for name, (data, _) in FINE_TUNED.items() if data == "coco"]
FILES = {e.name: e for e in PAPER.experiments if e.parameters_file}
# batch_size, epochs, lr, warmup of the readme's commands
README = {"ViT-B/32": (256, 10, 1e-5, 500), "ViT-B/16": (128, 5, 1e-5, 500)}
# What its code fixes, or has as a default.
FIXED = {"eval": False, "resume": "", "eval_batch_size": 64, "name": "CLIP_ITM", "num_workers": 8,
         "beta1": 0.9, "beta2": 0.98, "eps": 1e-6, "weight_decay": 0.2, "seed": 99}
# What it has no option for, and this project's as it ran.
RECIPE = {"train_split": "train", "dev_split": "dev", "test_split": "test", "dev_images": 0,
          "allow_partial": False, "weights": "openai", "quick_gelu": "auto", "prompt": "{}",
          "schedule": "stated", "negatives": "all", "held": "float32", "flip": False,
          "selection": "test", "context_length": 0}


def values_of(name: str) -> dict:
    return PAPER.parameters(PAPER.experiment(name))


def config_of(name: str) -> type:
    notebook = PAPER.experiment(name).notebook
    return {"finetune.ipynb": Config, "zero_shot.ipynb": ZeroShot}[notebook]


def ids(table: str, dataset: str = "coco", models=None) -> list[str]:
    return [c.id for c in PAPER.cells if (c.table, c.dataset) == (table, dataset)
            and (models is None or c.variant in models)]


def number(table: str, dataset: str, model: str, metric: str) -> float | None:
    return next((float(c.value) for c in PAPER.cells
                 if (c.table, c.dataset, c.variant, c.metric) == (table, dataset, model, metric)),
                None)


# -------------------------------------------------------------------------- published numbers


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tables are not here")
def test_every_published_number_is_a_cell_once_as_printed():
    fields = ("table", "method", "variant", "dataset", "split", "metric", "unit", "grade", "source")
    with PUBLISHED.open() as file:
        rows = Counter((*(row[f] for f in fields), str(Decimal(row["value"])))
                       for row in csv.DictReader(file))
    cells = Counter((*(getattr(c, f) for f in fields), str(c.value)) for c in PAPER.cells)
    assert set(rows.values()) == {1} and len(rows) == 250 and cells == rows


def test_the_papers_reference_is_in_the_book():
    assert f"{{{PAPER.citation}," in (FOLDER.parent / "references.bib").read_text()


def test_each_table_has_its_protocol_and_convention():
    assert {(c.table, c.protocol) for c in PAPER.cells} == set(PROTOCOLS.items())
    assert {(c.convention, c.unit) for c in PAPER.cells} == {("image_text", "percent")}


def test_fine_tuned_numbers_are_of_the_epoch_selected_on_test_and_others_of_a_model():
    for cell in (c for c in PAPER.cells if not c.reason):
        tuned = cell.protocol == "fine-tuned"
        assert cell.selection == ("test" if tuned else "")
        assert cell.ranking == ("trained" if tuned else cell.variant)


def test_lavis_rows_say_why_no_experiment_aims_at_them():
    aimed = {t for e in PAPER.experiments for t in e.targets}
    assert len(ids("lavis-benchmark")) == len(ids("lavis-benchmark", "flickr30k")) == 6
    assert {c.table for c in PAPER.cells if c.reason} == {"lavis-benchmark"}
    for cell in (c for c in PAPER.cells if c.table == "lavis-benchmark"):
        assert cell.reason and cell.id not in aimed


def test_tolerances_are_of_the_protocol():
    for cell in (c for c in PAPER.cells if not c.reason):
        assert PAPER.tolerance(cell).points == (1.5 if cell.protocol == "fine-tuned" else 0.5)


def test_the_published_sets_have_their_counts():
    assert {(d, (s.n_query, s.n_gallery)) for d, splits in PAPER.sets.items()
            for s in splits.values()} == set(COUNTS.items())
    assert {(c.dataset, c.split) for c in PAPER.cells} == {
        (d, s) for d, splits in PAPER.sets.items() for s in splits}
    assert set(made.SPLITS.items()) == {((d, "test"), s) for d, splits in PAPER.sets.items()
                                        for s in splits}


def test_a_deviations_parameter_is_an_option_with_that_default():
    default = asdict(ZeroShot()) | asdict(Config())
    for deviation in PAPER.deviations:
        names = [name.strip() for name in deviation.switch.split(",") if name.strip()]
        assert set(names) <= set(default), deviation.what
        if len(names) == 1:
            told = str(deviation.default).split(":")[0]
            assert told == str(default[names[0]]), deviation.what


# -------------------------------------------------------------------------------- experiments


def test_each_cell_without_a_reason_is_aimed_at_by_one_experiment_with_a_parameter_file():
    aimed = Counter(t for e in PAPER.experiments for t in e.targets)
    assert aimed == Counter(c.id for c in PAPER.cells if not c.reason) and len(aimed) == 238
    for experiment in (e for e in PAPER.experiments if e.targets):
        assert (FOLDER / experiment.parameters_file).is_file() and experiment.parameters_file
        assert experiment.record and not experiment.demo and not experiment.parameters
    assert {e.name for e in PAPER.experiments if e.targets} == {*ZERO_SHOTS, *FINE_TUNED_COCO}


def test_each_of_the_readmes_9_x_6_zero_shot_and_2_x_6_fine_tuned_cells_has_its_parameter_file():
    experiment = {t: e.name for e in PAPER.experiments for t in e.targets}
    assert {CELLS[i].variant for i in ids("seed-zero-shot")} == set(MODELS)
    assert (len(ids("seed-zero-shot")), len(ids("seed-fine-tuned"))) == (9 * 6, 2 * 6)
    for cell in (CELLS[i] for i in ids("seed-zero-shot")):
        values = values_of(experiment[cell.id])
        assert cell.variant in values["models"] and values["dataset"] == "coco"
    for cell in (CELLS[i] for i in ids("seed-fine-tuned")):
        values = values_of(experiment[cell.id])
        assert (values["vision_model"], values["dataset"]) == (cell.variant, "coco")


def test_an_experiments_cells_are_of_its_set_and_split():
    for experiment in (e for e in PAPER.experiments if e.targets):
        values = values_of(experiment.name)
        of = values["dataset"], values.get("split", values.get("test_split"))
        assert {(CELLS[t].dataset, CELLS[t].split) for t in experiment.targets} == {
            (of[0], made.SPLITS[of])}


# ---------------------------------------------------------------------------- parameter files


def test_each_parameter_file_is_of_one_experiment():
    found = sorted(f"paper/{p.name}" for p in (FOLDER / "paper").iterdir())
    assert found == sorted(e.parameters_file for e in FILES.values())
    assert set(FILES) == {*ZERO_SHOTS, *FINE_TUNED, "flickr8k-sample", "flickr8k-protocol"}


@pytest.mark.parametrize("name", FILES)
def test_a_parameter_file_names_parameters_of_its_notebook_and_makes_a_valid_config(name):
    values, config = values_of(name), config_of(name)
    notebooks.check_parameters(FOLDER / FILES[name].notebook, values)
    assert set(values) <= set(config.__dataclass_fields__)
    assert asdict(config(**values)).items() >= values.items()


@pytest.mark.parametrize("name", FINE_TUNED)
def test_a_fine_tuning_file_holds_the_readmes_command_and_what_its_code_fixes(name):
    dataset, model = FINE_TUNED[name]
    command = dict(zip(("batch_size", "epochs", "lr", "warmup"), README[model], strict=True))
    assert values_of(name) == command | FIXED | RECIPE | {
        "dataset": dataset, "dataset_root": "/data", "vision_model": model,
        "checkpoint_path": "result/clip_retrieval",
        "experiments": Path(FILES[name].parameters_file).stem}


@pytest.mark.parametrize("name", ZERO_SHOTS)
def test_a_zero_shot_file_lists_the_nine_models_in_their_order_and_both_prompts(name):
    values = values_of(name)
    assert values["models"] == list(MODELS) and len(MODELS) == 9
    assert [label for label, _, _ in ZeroShot(**values).entries()] == list(MODELS)
    assert {k: values[k] for k in ("dataset", "split", "weights", "prompts", "quick_gelu",
                                   "context_length", "allow_partial")} == {
        "dataset": name.removesuffix("-zero-shot"), "split": "test", "weights": "openai",
        "prompts": ["{}", "a photo of {}"], "quick_gelu": "auto", "context_length": 0,
        "allow_partial": False}


@pytest.mark.parametrize("name", [*ZERO_SHOTS, *FINE_TUNED])
def test_no_turned_switch_can_stand_beside_a_published_number(name):
    """What a file leaves out cannot differ from it: only what changes no number of its may."""
    free = published.FREE_PARAMETERS | set(PAPER.experiment(name).free)
    assert set(config_of(name).__dataclass_fields__) - free <= set(values_of(name))


def test_the_originals_arguments_are_options_with_its_defaults():
    batch, epochs, lr, warmup = README["ViT-B/32"]  # lr: the readme's, the code's is 1e-6
    assert asdict(Config()).items() >= (FIXED | RECIPE | {
        "batch_size": batch, "epochs": epochs, "lr": lr, "warmup": warmup, "dataset": "coco",
        "vision_model": "ViT-B/32", "checkpoint_path": "logs", "experiments": "ex0"}).items()
    assert "dataset_root" in Config.__dataclass_fields__
    assert (ZeroShot().models, ZeroShot().prompts, ZeroShot().weights) == (
        list(MODELS), ["{}"], "openai")


# ---------------------------------------------------------------------------------- notebooks

LEFT_OUT = {
    # no choice of a device, as in the other papers: a run takes what there is
    "finetune": (Config, {"accelerator"}, set()),
    "zero_shot": (ZeroShot, {"accelerator"}, set()),
    "search": (Search, set(), set()),
    # only size, set and start are given: switches turn the choices, n_seeds the seed, the last
    # epoch of each run is measured on test, and the rest is as in finetune
    "switches": (Config, {
        *(name for turned in SWITCHES.values() for name in turned), "seed", "experiments", "name",
        "eval", "resume", "selection", "test_split", "dev_images", "allow_partial", "beta1",
        "beta2", "eps", "weight_decay", "quick_gelu", "context_length", "eval_batch_size",
        "precision", "grad_checkpointing", "compile", "accelerator", "devices"},
        {"n_seeds", "only"}),
}


def test_every_notebook_of_the_paper_is_looked_at():
    assert {p.stem for p in FOLDER.glob("*.ipynb")} == set(LEFT_OUT)


@pytest.mark.parametrize("notebook", LEFT_OUT)
def test_a_notebooks_parameters_are_the_fields_but_those_left_out(notebook):
    config, without, more = LEFT_OUT[notebook]
    names = set(notebooks.notebook_parameters(FOLDER / f"{notebook}.ipynb"))
    fields = set(config.__dataclass_fields__)
    assert without <= fields and names == fields - without | more


def test_the_fine_tuning_as_opened_is_the_original_but_for_set_size_and_folder():
    opened = notebooks.notebook_parameters(FOLDER / "finetune.ipynb")
    default = asdict(Config())
    assert {name for name, value in opened.items() if value != default[name]} == {
        "dataset", "batch_size", "epochs", "lr", "warmup", "vision_model", "weights",
        "num_workers", "checkpoint_path", "experiments"}


# ---------------------------------------------------------------- a run against the numbers


def a_set(dataset: str, counts=None, kind="full") -> dict:
    images, captions = counts or COUNTS[dataset]
    found = SimpleNamespace(name=dataset, split="test", kind=kind, manifest="m", counts={
        "images": images, "captions": captions, "different captions": captions})
    return made.dataset_facts(found).model_dump()


def a_row(metric, variant, value, convention="image_text", **more) -> dict:
    return {"metric": metric, "convention": convention, "variant": variant, "value": value, **more}


def zero_shot_run(shift=0.3, dataset="coco", models=MODELS, protocols=(RAW, PROMPTED),
                  convention="image_text", data=None, **given):
    """Plain captions: the readme's numbers (Flickr30K: open_clip's) plus `shift`; prompted ones:
    EvaluateCLIP's; among rows that answer nothing."""
    config = ZeroShot(**values_of(f"{dataset}-zero-shot") | {"models": list(models)} | given)
    plain = {"coco": "seed-zero-shot", "flickr30k": "open_clip-csv"}[dataset]
    rows = [a_row(metric, "chance", 0.1) for metric in TABLE]
    for label, model, _ in config.entries():
        for metric in TABLE[:6]:
            value = number(plain, dataset, model, metric) + shift
            prompted = number("evaluateclip-readme", dataset, model, metric) or value - 1
            wanted = [a_row(metric, label, value, convention),
                      a_row(metric, label, prompted, convention, protocol=PROMPTED)]
            rows += [row for row in wanted if row.get("protocol", RAW) in protocols]
            rows += [a_row(metric, label, 0.5, protocol=other) for other in (HALF, GELU)]
            rows += [a_row(metric, label, 99.0, "image_text_5_folds", protocol=p)
                     for p in protocols if convention == "image_text"]
    return parse_record(a_record(
        paper="clip_retrieval", experiment=f"{dataset}-zero-shot", protocol=RAW, metrics=rows,
        parameters=asdict(config), dataset=data or a_set(dataset)), "test")


def fine_tuned_run(of="coco-vit-b-32", shift=1.0, selections=("test", "dev", "last"),
                   convention="image_text", data=None, **given):
    """The epoch selected on test: as published plus `shift`; among rows that answer nothing."""
    config = Config(**values_of(of) | given)
    published_at = {CELLS[t].metric: float(CELLS[t].value) for t in PAPER.experiment(of).targets}
    rows = [a_row(metric, "chance", 0.1) for metric in TABLE]
    for metric, value in published_at.items():
        found = {"test": value + shift, "dev": value, "last": value}
        rows += [a_row(metric, "trained", found[s], convention, selection=s) for s in selections]
        rows += [a_row(metric, "zero-shot", value)]
        if convention == "image_text":
            rows += [a_row(metric, "trained", value, "image_text_5_folds", selection="test")]
    return parse_record(a_record(
        paper="clip_retrieval", experiment=of, protocol="fine-tuned", metrics=rows, seed=99,
        parameters=asdict(config), dataset=data or a_set(config.dataset)), "test")


def judged(*records):
    return comparison(PAPER, list(records)).set_index("id")


def targets(table, name="coco-vit-b-32"):
    return table.loc[PAPER.experiment(name).targets]


@pytest.mark.parametrize(("shift", "status"), [
    (0.3, "matched"), (-0.5, "matched"), (0.6, "higher"), (-0.6, "lower")])
def test_nine_models_answer_the_readmes_zero_shot_table(shift, status):
    found = judged(zero_shot_run(shift)).loc[ids("seed-zero-shot")]
    assert set(found.status) == {status} and len(found) == 54
    assert found.difference.tolist() == pytest.approx([shift] * 54)
    assert set(found.counts) == {"5,000 images x 25,000 captions"}


def test_the_same_rows_answer_open_clip_and_clip_benchmark():
    table = judged(zero_shot_run(0.0))
    for name in ("open_clip-csv", "clip_benchmark-csv"):
        found = table.loc[ids(name)]
        assert set(found.status) == {"matched"} and found.difference.abs().max() < 0.33
    assert set(table.loc[ids("seed-fine-tuned")].status) == {"not run"}
    assert set(table[table.dataset == "flickr30k"].status) == {"not run"}


def test_flickr30k_answers_its_own_cells_alone():
    table = judged(zero_shot_run(-0.3, "flickr30k"))
    found = table.loc[ids("open_clip-csv", "flickr30k")]
    assert set(found.status) == {"matched"}
    assert found.difference.tolist() == pytest.approx([-0.3] * 54)
    assert set(table[table.dataset == "coco"].status) == {"not run"}


def test_cells_of_models_that_the_run_did_not_hold_are_not_run_and_say_what_it_held():
    held = ["RN50", "ViT-B/32"]
    table = judged(zero_shot_run(models=held))
    assert set(table.loc[ids("seed-zero-shot", models=held)].status) == {"matched"}
    others = [t for t in PAPER.experiment("coco-zero-shot").targets if CELLS[t].variant not in held]
    assert set(table.loc[others].status) == {"not run"}
    assert set(table.loc[others].reason) == {
        "the run held RN50, ViT-B/32; needs COCO 2014 and OpenAI's weights of nine models; "
        "command: `python -m replication run clip_retrieval/coco-zero-shot`"}
    assert set(table.loc[others].counts) == set(table.loc[others].run) == {""}


def test_prompted_rows_answer_evaluateclip_and_table_13_alone():
    table = judged(zero_shot_run(protocols=[PROMPTED]))
    own = table.loc[ids("evaluateclip-readme")]
    assert set(own.status) == {"matched"} and own.difference.abs().max() < 1e-9
    quoted = table.loc[ids("clip-paper-table-13")]
    assert set(quoted.status) <= {"matched", "higher", "lower"}
    assert (quoted.reproduced.tolist()
            == table.loc[ids("evaluateclip-readme", models=["ViT-L/14@336px"])].reproduced.tolist())
    for name in ("seed-zero-shot", "open_clip-csv", "clip_benchmark-csv"):
        assert set(table.loc[ids(name)].status) == {"not comparable"}


def test_plain_captions_never_answer_a_prompted_number():
    table = judged(zero_shot_run(protocols=[RAW]))
    for name in ("evaluateclip-readme", "clip-paper-table-13"):
        found = table.loc[ids(name)]
        assert set(found.status) == {"not comparable"}
        words = f", published {PROMPTED}; the record has no "
        assert found.reason.str.startswith("protocol is zero-shot, ").all()
        assert found.reason.str.contains(words, regex=False).all()
    assert set(table.loc[ids("seed-zero-shot")].status) == {"matched"}


@pytest.mark.parametrize("record", [zero_shot_run, fine_tuned_run])
def test_the_mean_over_five_folds_never_answers(record):
    found = judged(record(convention="image_text_5_folds"))
    found = found[found.status != "not run"]
    assert len(found) and set(found.status) == {"not comparable"}
    assert found.reason.str.fullmatch(r"the record has no \w+@\d+/image_text(/test)?").all()


@pytest.mark.parametrize("name", FINE_TUNED_COCO)
@pytest.mark.parametrize(("shift", "status"), [
    (1.4, "matched"), (-1.5, "matched"), (2, "higher"), (-2, "lower")])
def test_a_fine_tuned_run_answers_with_the_epoch_selected_on_test(name, shift, status):
    table = judged(fine_tuned_run(name, shift))
    found = targets(table, name)
    assert set(found.status) == {status} and len(found) == 6
    assert found.difference.tolist() == pytest.approx([shift] * 6)
    assert set(table.drop(found.index).status) == {"not run"}


@pytest.mark.parametrize("selections", [["dev"], ["last"], ["dev", "last"]])
def test_epochs_selected_otherwise_never_answer(selections):
    found = targets(judged(fine_tuned_run(selections=selections)))
    assert set(found.status) == {"not comparable"}
    assert found.reason.str.fullmatch(r"the record has no \w+@\d+/image_text/test").all()


@pytest.mark.parametrize("record", [zero_shot_run, fine_tuned_run])
@pytest.mark.parametrize("data", [a_set("coco", (1000, 5000)), a_set("coco", kind="subset")])
def test_a_subset_answers_nothing(record, data):
    assert data["kind"] == "subset" and a_set("coco")["kind"] == "full"
    assert set(judged(record(data=data)).status) == {"not run"}


@pytest.mark.parametrize(("record", "name"), [
    (zero_shot_run, "coco-zero-shot"), (fine_tuned_run, "coco-vit-b-32")])
@pytest.mark.parametrize(("counts", "words"), [
    ({"n_query": 1000, "n_gallery": 5000},
     "n_query is 1,000, published 5,000; n_gallery is 5,000, published 25,000"),
    ({"n_gallery": 25_010}, "n_gallery is 25,010, published 25,000")])
def test_other_counts_are_not_comparable(record, name, counts, words):
    found = targets(judged(record(data=a_set("coco") | counts)), name)
    assert set(found.status) == {"not comparable"} and set(found.reason) == {words}


@pytest.mark.parametrize(("given", "words"), [
    ({"prompt": "a photo of {}"}, "parameter prompt is a photo of {}, published {}"),
    ({"lr": 1e-6}, "parameter lr is 1e-06, published 1e-05"),
    ({"dataset": "flickr30k"}, "dataset is flickr30k, published coco; split is 1k-test, "
                               "published 5k-test; parameter dataset is flickr30k, published coco"),
    ({"vision_model": "ViT-B/16"}, "parameter vision_model is ViT-B/16, published ViT-B/32"),
    ({"weights": "none"}, "parameter weights is none, published openai"),
    ({"negatives": "other images"}, "parameter negatives is other images, published all"),
    ({"train_split": "train+restval"},
     "parameter train_split is train+restval, published train"),
    ({"eval": True}, "parameter eval is True, published False"),
    ({"epochs": 5, "batch_size": 128},
     "parameter batch_size is 128, published 256; parameter epochs is 5, published 10")])
def test_another_fine_tuning_is_not_comparable(given, words):
    found = targets(judged(fine_tuned_run(**given)))
    assert set(found.status) == {"not comparable"} and set(found.reason) == {words}


@pytest.mark.parametrize(("given", "words"), [
    ({"quick_gelu": "off"}, "parameter quick_gelu is off, published auto"),
    ({"weights": "laion400m_e32"}, "parameter weights is laion400m_e32, published openai"),
    ({"data": a_set("flickr30k")},
     "dataset is flickr30k, published coco; split is 1k-test, published 5k-test")])
def test_another_zero_shot_run_is_not_comparable(given, words):
    found = judged(zero_shot_run(**given)).loc[ids("seed-zero-shot")]
    assert set(found.status) == {"not comparable"} and set(found.reason) == {words}


@pytest.mark.parametrize("given", [
    {"schedule": "as-released"}, {"held": "half"}, {"schedule": "as-released", "held": "half"},
    {"dataset_root": "d", "checkpoint_path": "c", "experiments": "e", "name": "n",
     "eval_batch_size": 8, "grad_checkpointing": True, "num_workers": 0, "devices": 2,
     "compile": True, "precision": "32-true", "accelerator": "cpu", "seed": 1}])
def test_the_codes_own_choices_and_where_and_how_fast_a_run_goes_are_free(given):
    assert set(targets(judged(fine_tuned_run(**given))).status) == {"matched"}


def test_what_a_zero_shot_run_measures_beside_is_free():
    beside = {"dataset_root": "d", "save_root": "s", "eval_batch_size": 8, "other_activation": True,
              "half_scores": False, "precision": "32-true", "accelerator": "cpu", "seed": 5}
    found = judged(zero_shot_run(**beside)).loc[ids("seed-zero-shot")]
    assert set(found.status) == {"matched"}


def test_a_models_own_weights_never_answer_openais_numbers():
    found = judged(zero_shot_run(models=["ViT-B/32: laion2b_s34b_b79k"]))
    assert not set(found.status) & {"matched", "higher", "lower"}


@pytest.mark.parametrize("make", [zero_shot_run, fine_tuned_run])
def test_a_notebook_run_by_papermill_alone_finds_its_experiment(make):
    """Its record bears the data set's name; the parameters tell which experiment it was."""
    named = make()
    alone = named.model_copy(update={"experiment": "coco"})
    assert judged(alone).status.tolist() == judged(named).status.tolist()
    assert "matched" in set(judged(alone).status)
    other = make(quick_gelu="off").model_copy(update={"experiment": "coco"})
    assert set(judged(other).status) == {"not run"}


def test_another_prompt_answers_nothing_of_plain_captions():
    found = judged(zero_shot_run(prompts=["a photo of {}"], protocols=(PROMPTED,)))
    assert not set(found.loc[ids("seed-zero-shot")].status) & {"matched", "higher", "lower"}
    assert set(found.loc[ids("evaluateclip-readme")].status) == {"matched"}


def test_a_run_that_starts_from_a_checkpoint_is_not_comparable():
    found = targets(judged(fine_tuned_run(resume="trained_before.safetensors")))
    assert set(found.status) == {"not comparable"}


# ------------------------------------------------------------------ the rows that a run makes


@pytest.mark.parametrize("name", ZERO_SHOTS)
def test_a_run_names_models_and_prompts_as_the_cells_do(name, monkeypatch):
    backbone, rows = SimpleNamespace(sha256="", quick_gelu=True), set()
    monkeypatch.setattr(made, "read_captioned", lambda *_, **__: None)
    monkeypatch.setattr(made.paths, "writable_folder", Path)
    monkeypatch.setattr(made.training, "start", lambda *_, **__: None)
    monkeypatch.setattr(made.backbones, "clip", lambda *_, **__: backbone)
    monkeypatch.setattr(made, "_encoder", lambda *_: None)
    monkeypatch.setattr(made, "chance", lambda *_: SimpleNamespace(images=[]))
    monkeypatch.setattr(made, "rows_of", lambda *_: [])
    monkeypatch.setattr(made, "_add", lambda results, _, __, label, ___, protocol, *____:
                        rows.add((label, protocol or results.protocol)))
    made.zero_shot(ZeroShot(**values_of(name)), progress=False)
    cells = {(CELLS[t].ranking, CELLS[t].protocol) for t in PAPER.experiment(name).targets}
    assert cells <= rows and {p for _, p in rows} == {RAW, PROMPTED}


def test_cells_metrics_are_those_that_a_run_measures():
    assert {c.metric for c in PAPER.cells} <= set(TABLE) and made.FINE_TUNED == "fine-tuned"
    assert {"image_text"} < set(made.FOLDS)
