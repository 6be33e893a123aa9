"""SPRC's paper.yml: every published number, the readme's settings, who answers what."""

import csv
import json
import re
from collections import Counter
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from test_records import a_record

from replication import composed, notebooks, published
from replication.comparison import comparison
from replication.composed_metrics import ComposedRanks
from replication.papers.sprc import measuring as made
from replication.papers.sprc.config import SWITCHES, WHERE, Config, Evaluate, Retrieve, Submit
from replication.records import parse_record

FOLDER = Path(__file__).resolve().parent.parent / "book" / "sprc"
SHARED = FOLDER.parent.parent.parent / "shared"
PUBLISHED = SHARED / "published" / "sprc.csv"
README = next(SHARED.glob("seeds/002_*.txt"), SHARED / "seeds" / "002.txt")
PAPER = published.read_paper(FOLDER / "paper.yml")
CELLS = {c.id: c for c in PAPER.cells}
CONFIG = {"train.ipynb": Config, "evaluate.ipynb": Evaluate, "submit.ipynb": Submit,
          "retrieve.ipynb": Retrieve}
# What a run takes as it is: the device there is; CIRR's test has one gallery.
LEFT_OUT = {"submit.ipynb": {"accelerator", "gallery"}}
LISTED = ["cirr-seeds", "fashioniq-seeds", "switches-full", "choices-full",
          "fashioniq-choices"]  # runs side by side
DEMOS = ["cirr-demo", "fashioniq-demo", "evaluate", "submit", "retrieve"]
FULL = {"cirr": "cirr", "fashioniq": "fashioniq", "cirr-test": "cirr_test",
        "cirr-checkpoint": "evaluate_cirr", "fashioniq-checkpoint": "evaluate_fashioniq"}
TRAINED = ["cirr", "fashioniq"]
# What each small file turns in cirr.yml, beside save_root.
OVERLAYS = {
    "ablation_without_itc": {"loss_itc": 0.0},
    "ablation_without_rtc": SWITCHES["without rtc"],
    "ablation_without_align": SWITCHES["without align"],
    "ablation_itc_alone": SWITCHES["itc alone"],
    "ablation_weights_0.6": SWITCHES["rtc and align 0.6"],
    "ablation_prompts_16": {"num_prompts": 16}, "ablation_prompts_8": {"num_prompts": 8},
    "vit_l": {"backbone": "pretrain_vitL", "weights": "/data/blip2_pretrained_vitL.pth",
              "image_weights": "openai"}}
# What the code has without an option.
DEFAULTS = {"dataset": "CIRR", "num_epochs": 300, "blip_model_name": "blip2_cir_align_prompt",
            "backbone": "pretrain", "learning_rate": 2e-6, "batch_size": 512, "loss_align": 0.4,
            "loss_rtc": 0.4, "loss_itm": 1.0, "validation_frequency": 1, "target_ratio": 1.25,
            "transform": "targetpad", "save_training": False, "save_best": False}
# What its code fixes.
FIXED = {"loss_itc": 1.0, "num_prompts": 32, "hidden_size": 768, "num_hidden_layers": 12,
         "num_attention_heads": 12, "intermediate_size": 3072, "embed_dim": 256, "dropout": 0.1,
         "weight_decay": 0.05, "beta1": 0.9, "beta2": 0.98, "eps": 1e-7}
# What it does at places where this project has a choice.
RELEASED = {"cycle_momentum": True, "schedule_epochs": 0, "gallery": "split",
            "allow_missing": False, "selection": "val"}
TYPES = {"dress": (2017, 3817), "shirt": (2038, 6346), "toptee": (1961, 5373)}
MAIN = {"cirr": {"R@1", "R@5", "R@10", "R@50", "Rsub@1", "Rsub@2", "Rsub@3", "Avg"},
        "fashioniq": {f"{kind} R@{k}" for kind in (*TYPES, "average") for k in (10, 50)}
        | {"average Avg"}}


def values_of(name: str) -> dict:
    return PAPER.parameters(PAPER.experiment(name))


def file_of(stem: str) -> dict:
    return published.read_parameters(FOLDER / "paper" / f"{stem}.yml")


# -------------------------------------------------------------------------- published numbers


def at(row: dict) -> tuple[str, str]:
    """A row's split and metric as a cell has them: a type of FashionIQ is in the metric."""
    split, _, kind = row["split"].partition("-")
    return split, f"{kind} {row['metric']}".strip()


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published tables are not here")
def test_every_published_number_is_a_cell_once_as_printed():
    fields = ("table", "method", "variant", "dataset", "unit", "grade", "source", "note", "value")
    with PUBLISHED.open() as file:
        rows = Counter((*at(row), *(row[f] for f in fields)) for row in csv.DictReader(file))
    cells = Counter((c.split, c.metric, *(str(getattr(c, f)) for f in fields))
                    for c in PAPER.cells)
    assert set(rows.values()) == {1} and len(rows) == 33 and cells == rows


@pytest.mark.parametrize("key", [PAPER.citation, "li2023blip2", "fang2023eva", "wu2021fashioniq",
                                 "liu2021cirr", "baldrati2023clip4cir", "chen2020val"])
def test_what_the_chapter_cites_is_in_the_book_once(key):
    assert (FOLDER.parent / "references.bib").read_text().count(f"{{{key},") == 1


def test_cells_have_their_sets_protocol_convention_and_selection():
    of = {"cirr": composed._protocol("cirr", "test1", "split"),
          "fashioniq": composed._protocol("fashioniq", "val", "split")}
    assert {(c.dataset, c.split, c.protocol, c.convention, c.selection, c.ranking, c.unit)
            for c in PAPER.cells} == {
        ("cirr", "test", of["cirr"], "cirr", "val", "trained", "percent"),
        ("fashioniq", "val", of["fashioniq"], "fashioniq", "val", "trained", "percent")}
    assert composed._protocol("fashioniq", "val", "VAL") not in of.values()


def test_the_printed_54_92_is_a_misprint_of_54_72():
    own = [CELLS[f"fiq-{kind}-r10"].value for kind in TYPES]
    mean = (sum(own) / 3).quantize(Decimal("0.01"))
    assert str(mean) == "54.72" == str(CELLS["fiq-average-r10"].value)
    assert str(CELLS["fiq-average-r10-misprint"].value) == "54.92"
    both = (CELLS["fiq-average-r10"].value + CELLS["fiq-average-r50"].value) / 2
    assert both == Decimal("64.845") and str(CELLS["fiq-average-avg"].value) == "64.85"
    assert "54.72" in CELLS["fiq-average-r10-misprint"].reason


def test_what_no_run_aims_at_says_why():
    aimed = {t for e in PAPER.experiments for t in e.targets}
    bare = {c.id for c in PAPER.cells if c.reason}
    assert bare == set(CELLS) - aimed and len(bare) == 16
    assert bare == {"fiq-average-r10-misprint"} | {
        c.id for c in PAPER.cells if c.table in ("pdv-table-s6", "mapnet-readme")}


def test_the_published_sets_have_their_official_counts():
    found = {(d, split): (s.n_query, s.n_gallery) for d, splits in PAPER.sets.items()
             for split, s in splits.items()}
    official = composed.N_OFFICIAL
    assert official["fashioniq"]["val"] == TYPES
    assert found == {("cirr", "val"): official["cirr"]["val"][""],
                     ("cirr", "test"): official["cirr"]["test1"][""],
                     ("fashioniq", "val"): tuple(map(sum, zip(*TYPES.values(), strict=True)))}
    assert all(s.source for splits in PAPER.sets.values() for s in splits.values())


def test_a_tolerance_is_about_two_deviations_of_what_its_reason_says():
    """Of trainings that answer a share of n queries differently, either way alike."""
    for cells, n, share in (({"R@1/cirr"}, 4148, 1 / 5),
                            ({f"{m}/cirr" for m in ("R@5", "R@10", "Rsub@1", "Rsub@2", "Avg")},
                             4148, 1 / 10), ({"R@50/cirr", "Rsub@3/cirr"}, 4148, 1 / 40),
                            ({f"{kind} R@{k}/fashioniq" for kind in TYPES for k in (10, 50)},
                             2000, 1 / 10),
                            ({f"average {m}/fashioniq" for m in ("R@10", "R@50", "Avg")},
                             6016, 1 / 10)):
        for name in cells:
            points = PAPER.tolerances[name].points
            assert points - 0.5 < 200 * (share / n) ** 0.5 <= points + 0.05, name
    assert set(PAPER.tolerances) == {f"{m}/{d}" for d, own in MAIN.items() for m in own}


# --------------------------------------------------------------------------------- deviations


def test_a_deviations_parameter_is_an_option_with_that_default():
    default = asdict(Config())
    for deviation in PAPER.deviations:
        names = [name.strip() for name in deviation.switch.split(",") if name.strip()]
        assert set(names) <= set(default), deviation.what
        if len(names) == 1:
            told = str(deviation.default).split(":")[0]
            assert told == str(default[names[0]]), deviation.what


def test_the_places_where_text_and_code_part_are_those_that_can_be_switched():
    switches = {s.strip() for d in PAPER.deviations for s in d.switch.split(",") if s.strip()}
    assert switches == {"loss_align", "loss_rtc", "learning_rate", "num_epochs", "batch_size",
                        "schedule_epochs", "cycle_momentum", "weights", "frozen_features",
                        "allow_missing", "gallery", "selection", "loss_itm"}


# -------------------------------------------------------------------------------- experiments


def test_the_experiments_and_what_they_need():
    assert [e.name for e in PAPER.experiments] == [*DEMOS, *LISTED, *FULL]
    base = ["pretrain/clip", "pretrain/qformer"]
    needs = {e.name: e.needs for e in PAPER.experiments}
    assert needs == {n: base + ["sprc/cirr-demo"] * (n in DEMOS[2:]) for n in DEMOS} | {
        n: base for n in LISTED} | {n: [] for n in FULL} | {"cirr-test": ["sprc/cirr"]}
    assert [e.name for e in PAPER.experiments if e.demo] == DEMOS
    assert {e.name for e in PAPER.experiments if not e.record} == {"submit", "retrieve",
                                                                   *LISTED}
    assert all(e.time for e in PAPER.experiments)


def test_fashioniqs_numbers_are_aimed_at_by_a_training_and_by_the_checkpoint():
    aimed = {e.name: set(e.targets) for e in PAPER.experiments if e.targets}
    assert list(aimed) == ["fashioniq", "cirr-test", "fashioniq-checkpoint"]
    assert aimed["fashioniq"] == aimed["fashioniq-checkpoint"]
    for name, dataset in (("fashioniq", "fashioniq"), ("cirr-test", "cirr")):
        assert {CELLS[t].metric for t in aimed[name]} == MAIN[dataset]
        assert {CELLS[t].dataset for t in aimed[name]} == {dataset}
        assert len(aimed[name]) == len(MAIN[dataset])


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_measures_what_the_one_before_it_wrote(name):
    experiment = PAPER.experiment(name)
    for values, root in ((experiment.parameters, "result"), (experiment.tiny, "result/tiny")):
        assert values["save_root"] == f"{root}/sprc/{name}"
        assert ("model_path" in values) == (name in DEMOS[2:])
        if "model_path" in values:
            assert values["model_path"] == f"{root}/sprc/cirr-demo/val.safetensors"
    assert experiment.tiny["data_path"] == "data/tiny"
    assert experiment.tiny["image_weights"] == "result/tiny/pretrain/clip.safetensors"
    trains = experiment.notebook == "train.ipynb"
    assert trains == (experiment.tiny.get("weights") == "result/tiny/pretrain/qformer.safetensors")
    assert trains == (experiment.tiny.get("num_epochs") == 1)


def test_a_demos_config_is_valid_and_fashioniqs_losses_are_the_plain_sum():
    for name in DEMOS:
        experiment = PAPER.experiment(name)
        config = CONFIG[experiment.notebook]
        for values in (experiment.parameters, experiment.parameters | experiment.tiny):
            assert asdict(config(**values)).items() >= values.items()
    assert values_of("fashioniq-demo").items() >= {
        "dataset": "doodles_fashioniq", "loss_rtc": 1.0, "loss_align": 1.0}.items()


# ---------------------------------------------------------------------------- parameter files


def test_each_parameter_file_is_of_one_experiment_or_a_small_one_after_another():
    found = sorted(p.name for p in (FOLDER / "paper").iterdir())
    assert found == sorted(f"{stem}.yml" for stem in (*FULL.values(), *OVERLAYS))
    assert {e.name: e.parameters_file for e in PAPER.experiments if e.parameters_file} == {
        name: f"paper/{stem}.yml" for name, stem in FULL.items()}


@pytest.mark.parametrize("name", FULL)
def test_a_parameter_file_holds_every_parameter_and_makes_a_valid_config(name):
    notebook = PAPER.experiment(name).notebook
    values, config = values_of(name), CONFIG[notebook]
    left_out = LEFT_OUT.get(notebook, {"accelerator"})
    assert list(values) == [f for f in config.__dataclass_fields__ if f not in left_out]
    assert asdict(config(**values)).items() >= values.items()
    assert values["save_root"] == f"result/sprc/{name}"


def readme_options(dataset: str) -> dict:
    """What the readme's training command gives for a set, as options here."""
    text = README.read_text().split("### Training")[1].split("### Evaluation")[0]
    given = re.findall(r"--([\w-]+)(?: +(?:\{([^}]*)\}|'([^']*)'|([^\s\\-][^\s\\]*)))?", text)
    of, found = {"CIRR": "CIRR", "FashionIQ": "fashionIQ"}[dataset], {}
    for name, choice, quoted, plain in given:
        own = re.search(rf"'([^']+)' for {of}\b", choice)
        value = (own[1] if own else "") or quoted or plain
        found[name.replace("-", "_")] = value or True
    return found | {"dataset": dataset}


@pytest.mark.skipif(not README.exists(), reason="the original's readme is not here")
@pytest.mark.parametrize("name", TRAINED)
def test_the_published_setting_is_the_readmes_command(name):
    values = values_of(name)
    given = readme_options(values["dataset"])
    kept = {k: v if isinstance(v, bool | str) else float(v) for k, v in values.items()}
    assert {k: v if v is True or k in ("dataset", "blip_model_name", "transform") else float(v)
            for k, v in given.items()}.items() <= kept.items()
    assert set(given) == {"dataset", "blip_model_name", "num_epochs", "num_workers",
                          "learning_rate", "batch_size", "transform", "target_ratio",
                          "save_training", "save_best", "validation_frequency"}


@pytest.mark.parametrize(("name", "dataset", "epochs", "rate", "weight"), [
    ("cirr", "CIRR", 50, 1e-5, 0.4), ("fashioniq", "FashionIQ", 30, 2e-5, 1.0)])
def test_the_published_setting_is_the_readmes_and_what_the_code_fixes(name, dataset, epochs, rate,
                                                                      weight):
    given = {"dataset": dataset, "num_epochs": epochs, "learning_rate": rate, "batch_size": 128,
             "num_workers": 4, "save_training": True, "save_best": True}
    assert values_of(name).items() >= (DEFAULTS | FIXED | RELEASED | given | {
        "loss_rtc": weight, "loss_align": weight, "data_path": "/data",
        "weights": "Salesforce/blip2-itm-vit-g", "image_weights": "",
        "vocabulary": "/data/bert-base-uncased/vocab.txt"}).items()


def test_the_originals_arguments_are_options_with_its_codes_defaults():
    assert asdict(Config()).items() >= (DEFAULTS | FIXED | RELEASED).items()


@pytest.mark.parametrize("name", ["cirr-test", "cirr-checkpoint", "fashioniq-checkpoint"])
def test_weights_are_measured_as_they_were_trained(name):
    values = values_of(name)
    trained = values_of("fashioniq" if "fashion" in name else "cirr")
    shared = {k: v for k, v in values.items() if k in trained and k != "save_root"}
    assert shared == {k: trained[k] for k in shared}
    assert (values["split"], values["model_path"]) == {
        "cirr-test": ("test1", "result/sprc/cirr/val.safetensors"),
        "cirr-checkpoint": ("val", "/data/sprc_cirr.pt"),
        "fashioniq-checkpoint": ("val", "/data/sprc_fiq.pt")}[name]


@pytest.mark.parametrize("stem", OVERLAYS)
def test_a_small_file_turns_what_it_says_in_the_published_setting(stem):
    values, whole = file_of(stem), values_of("cirr")
    assert values == OVERLAYS[stem] | {"save_root": f"result/sprc/{stem}"}
    assert asdict(Config(**whole | values)).items() >= (whole | values).items()
    assert all(whole[k] != v for k, v in values.items())
    first = (FOLDER / "paper" / f"{stem}.yml").read_text().splitlines()[0]
    assert re.match(r"# After cirr\.yml .*several -f, the last wins", first)


def test_papermill_takes_several_parameter_files():
    from papermill.cli import papermill

    assert next(p for p in papermill.params if p.name == "parameters_file").multiple


@pytest.mark.parametrize("name", FULL)
def test_no_turned_switch_can_stand_beside_a_published_number(name):
    """What a file leaves out cannot differ from it, and what is free does not change the ranks."""
    free = set(PAPER.experiment(name).free)
    trained = name in TRAINED
    assert free <= ({*WHERE, "vocabulary", "frozen_features"} if trained else {
        "model_path", "image_weights", "data_path", "vocabulary", "frozen_features", "chunk",
        "server_recall", "server_recall_subset"})
    assert not free & {"validation_frequency", "weights", "gallery", "allow_missing"}


# ---------------------------------------------------------------------------------- notebooks


@pytest.mark.parametrize("name", [e.name for e in PAPER.experiments])
def test_an_experiments_parameters_are_its_notebooks(name):
    experiment = PAPER.experiment(name)
    notebooks.check_parameters(FOLDER / experiment.notebook,
                               PAPER.parameters(experiment) | experiment.tiny)


@pytest.mark.parametrize("stem", OVERLAYS)
def test_a_small_files_parameters_are_the_trainings(stem):
    notebooks.check_parameters(FOLDER / "train.ipynb", file_of(stem))


@pytest.mark.parametrize("notebook", [*CONFIG, "switches.ipynb"])
def test_a_notebooks_parameters_are_fields_of_its_config(notebook):
    names = set(notebooks.notebook_parameters(FOLDER / notebook))
    fields = set(CONFIG.get(notebook, Config).__dataclass_fields__)
    more = {"n_seeds", "only"} if notebook == "switches.ipynb" else set()
    assert more <= names <= fields | more
    if notebook in ("train.ipynb", "evaluate.ipynb", "submit.ipynb"):
        assert names == fields - LEFT_OUT.get(notebook, {"accelerator"})


# ---------------------------------------------------------------- a run against the numbers


class ASet:
    """What `measuring.dataset_facts` looks at."""

    def __init__(self, name: str, split: str, counts: tuple[int, int], kind: str):
        self.name, self.split, self.kind, self.n = name, split, kind, counts[0]
        files = tuple(f"{i}.png" for i in range(counts[1]))
        self.images = composed.Images(Path("data"), files, ("",), np.zeros(len(files), np.int64),
                                      "photo")
        self.manifest = "m"

    def __len__(self) -> int:
        return self.n


def facts(dataset: str, split: str = "val", kind: str = "full", counts=None) -> dict:
    of = {"fashioniq": TYPES, "cirr": {"cirr": composed.N_OFFICIAL["cirr"][split]
                                       [""]} if dataset == "cirr" else {}}[dataset]
    sets = {k: ASet(dataset, split, (counts or of)[k], kind) for k in of}
    return made.dataset_facts(sets).model_dump()


def a_row(metric: str, value: float, **more) -> dict:
    kind = metric.split()[0]
    own = dict(zip(("n_query", "n_gallery"), TYPES[kind], strict=True)) if kind in TYPES else {}
    return {"metric": metric, "value": value, "variant": "trained", **own, **more}


def a_run(experiment: str, shift: float = 0.4, selections=("val", "last"), data=None,
          protocol: str = "", **given):
    """As published plus `shift`, in the first selection; among rows that answer nothing."""
    config = CONFIG[PAPER.experiment(experiment).notebook](**values_of(experiment) | given)
    aims = PAPER.experiment(experiment).targets or PAPER.experiment("cirr-test").targets
    rows = []
    for target in (CELLS[t] for t in aims):
        of, value = {"convention": target.convention}, float(target.value)
        rows += [a_row(target.metric, value + shift * (s == selections[0]), selection=s, **of)
                 for s in selections]
        rows += [a_row(target.metric, value, **of | {"variant": v}) for v in
                 ("untrained", "chance", "image-only", "text-only", "sum")]
        rows += [a_row(target.metric, value, selection=s, convention="other") for s in selections]
    dataset, split = config.set_name, getattr(config, "split", "val")
    own = composed._protocol(dataset, split, config.gallery)
    return parse_record(a_record(
        paper="sprc", experiment=experiment, protocol=protocol or own, metrics=rows,
        parameters=asdict(config), dataset=data or facts(dataset, split)), "test")


def judged(*records):
    return comparison(PAPER, list(records)).set_index("id")


def targets(table, name: str = "fashioniq"):
    return table.loc[PAPER.experiment(name).targets]


def test_a_full_set_is_one_with_the_official_counts():
    found = facts("fashioniq")
    assert (found["kind"], found["split"], found["n_query"], found["n_gallery"]) == (
        "full", "val", 6016, 15_536)
    found = facts("cirr", "test1")
    assert (found["kind"], found["split"], found["n_query"], found["n_gallery"]) == (
        "full", "test", 4148, 2315)


@pytest.mark.parametrize(("shift", "status"), [
    (0.4, "matched"), (-1.0, "matched"), (1.6, "higher"), (-1.6, "lower")])
def test_one_training_answers_fashioniqs_nine_numbers(shift, status):
    table = judged(a_run("fashioniq", shift))
    found = targets(table)
    assert set(found.status) == {status} and len(found) == 9
    assert found.difference.tolist() == pytest.approx([shift] * 9)
    assert set(table.drop(found.index).status) == {"not run"}
    assert "2,017" in found.counts["fiq-dress-r10"]
    assert "6,016" in found.counts["fiq-average-avg"]


def test_tolerances_differ_by_number():
    found = targets(judged(a_run("fashioniq", 1.2)))
    types = found.index.str.contains("dress|shirt|toptee")
    assert set(found.status[types]) == {"matched"} and set(found.status[~types]) == {"higher"}
    found = targets(judged(a_run("cirr-test", 0.8)), "cirr-test")
    assert set(found.index[found.status == "higher"]) == {"cirr-test-r50", "cirr-test-rsub3"}
    assert set(found.status) == {"matched", "higher"}


def test_the_last_epoch_never_stands_in_for_the_one_selected_on_val():
    found = targets(judged(a_run("fashioniq", selections=("last",))))
    assert set(found.status) == {"not comparable"}
    assert found.reason.str.fullmatch(r"the record has no .*/fashioniq/val").all()


def test_the_servers_answer_answers_cirrs_test_and_a_val_record_does_not():
    table = judged(a_run("cirr-test", 0.4, selections=("val",)))
    found = targets(table, "cirr-test")
    assert set(found.status) == {"matched"} and len(found) == 8
    assert set(table.drop(found.index).status) == {"not run"}
    for record in (a_run("cirr"), a_run("cirr-checkpoint", selections=("val",))):
        table = judged(record)
        assert record.dataset.kind == "full" and set(table.status) == {"not run"}


def test_a_val_record_under_the_tests_name_is_not_comparable():
    found = targets(judged(a_run("cirr-test", data=facts("cirr"))), "cirr-test")
    assert set(found.status) == {"not comparable"}
    assert set(found.reason) == {"split is val, published test"}


def test_the_authors_checkpoint_answers_fashioniq_where_nothing_was_trained():
    """Its rows are of the epoch that was best on val."""
    checkpoint = a_run("fashioniq-checkpoint", 0.1, selections=("val",))
    found = targets(judged(checkpoint))
    assert set(found.status) == {"matched"}
    assert found.difference.tolist() == pytest.approx([0.1] * 9)
    both = targets(judged(checkpoint, a_run("fashioniq", 0.7)))
    assert both.difference.tolist() == pytest.approx([0.7] * 9) and set(both.seeds) == {1}
    unknown = targets(judged(a_run("fashioniq-checkpoint", selections=("",))))
    assert set(unknown.status) == {"not comparable"}


def test_misprint_and_deviating_quotations_are_never_answered():
    table = judged(a_run("fashioniq"), a_run("cirr-test"))
    bare = [c.id for c in PAPER.cells if c.reason]
    assert set(table.loc[bare].status) == {"not run"} and len(bare) == 16
    assert table.loc[bare].reason.tolist() == [CELLS[i].reason for i in bare]
    assert not table.quoted.any()


@pytest.mark.parametrize("experiment", ["fashioniq", "fashioniq-checkpoint"])
def test_the_val_gallery_is_another_protocol(experiment):
    small = {"dress": (2017, 2628), "shirt": (2038, 3089), "toptee": (1961, 2902)}
    data = facts("fashioniq") | {"n_gallery": sum(n for _, n in small.values())}
    found = targets(judged(a_run(experiment, gallery="VAL", data=data)), experiment)
    assert set(found.status) == {"not comparable"}
    assert found.reason.str.startswith("protocol is VAL gallery: ").all()
    assert found.reason.str.contains("n_gallery is 8,619, published 15,536").all()
    assert found.reason.str.contains("parameter gallery is VAL, published split").all()
    assert facts("fashioniq", counts=small)["kind"] == "subset"
    whole = targets(judged(a_run(experiment, gallery="VAL")), experiment)
    assert set(whole.status) == {"not comparable"}


@pytest.mark.parametrize("experiment", ["fashioniq", "cirr-test"])
def test_a_set_with_images_left_out_answers_nothing(experiment):
    dataset, split = ("fashioniq", "val") if experiment == "fashioniq" else ("cirr", "test1")
    part = facts(dataset, split, kind="subset")
    assert part["kind"] == "subset"
    assert set(judged(a_run(experiment, allow_missing=True, data=part)).status) == {"not run"}
    found = targets(judged(a_run(experiment, allow_missing=True)), experiment)
    assert set(found.reason) == {"parameter allow_missing is True, published False"}


def test_other_counts_are_not_comparable():
    fewer = TYPES | {"shirt": (2038, 6300)}
    assert facts("fashioniq", counts=fewer)["kind"] == "subset"
    found = targets(judged(a_run("fashioniq", data=facts("fashioniq") | {
        "n_query": 6000, "n_gallery": 15_490})))
    assert set(found.reason) == {"n_query is 6,000, published 6,016; n_gallery is 15,490, "
                                 "published 15,536"}


@pytest.mark.parametrize(("given", "words"), [
    ({"num_prompts": 16}, "parameter num_prompts is 16, published 32"),
    ({"loss_rtc": 0.0}, "parameter loss_rtc is 0.0, published 1.0"),
    ({"loss_align": 0.4}, "parameter loss_align is 0.4, published 1.0"),
    ({"num_epochs": 10}, "parameter num_epochs is 10, published 30"),
    ({"schedule_epochs": 80}, "parameter schedule_epochs is 80, published 0"),
    ({"cycle_momentum": False}, "parameter cycle_momentum is False, published True"),
    ({"transform": "clip"}, "parameter transform is clip, published targetpad"),
    ({"validation_frequency": 5}, "parameter validation_frequency is 5, published 1"),
    ({"backbone": "pretrain_vitL"}, "parameter backbone is pretrain_vitL, published pretrain"),
    ({"weights": "none"}, "parameter weights is none, published Salesforce/blip2-itm-vit-g"),
    ({"image_weights": "none"}, "parameter image_weights is none, published ")])
def test_another_training_is_not_comparable(given, words):
    found = targets(judged(a_run("fashioniq", **given)))
    assert set(found.status) == {"not comparable"} and set(found.reason) == {words}


@pytest.mark.parametrize("given", [
    {"data_path": "d", "save_root": "s", "vocabulary": "v", "num_workers": 0, "devices": 2,
     "accelerator": "cpu", "precision": "32-true", "chunk": 8, "seed": 1, "save_training": False,
     "save_best": False, "frozen_features": False, "baseline": "doodle-clip",
     "baseline_weights": "doodles"}])
def test_where_and_how_fast_a_run_goes_is_free(given):
    assert set(targets(judged(a_run("fashioniq", **given))).status) == {"matched"}


def test_where_weights_lie_and_what_the_server_answered_is_free():
    given = {"model_path": "m.pt", "data_path": "d", "vocabulary": "v", "save_root": "s",
             "image_weights": "blip2", "server_recall": [52.0, 82.0, 90.0, 98.0],
             "server_recall_subset": [81.0, 92.0, 97.0], "chunk": 8}
    found = targets(judged(a_run("cirr-test", **given)), "cirr-test")
    assert set(found.status) == {"matched"}
    other = targets(judged(a_run("cirr-test", transform="squarepad")), "cirr-test")
    assert set(other.reason) == {"parameter transform is squarepad, published targetpad"}


@pytest.mark.parametrize("kind", ["demo", "subset"])
def test_doodles_and_parts_answer_nothing(kind):
    data = facts("fashioniq") | {"kind": kind}
    assert set(judged(a_run("fashioniq", data=data)).status) == {"not run"}


# ------------------------------------------------------------------ the rows that a run makes


def test_cells_metrics_are_those_that_a_run_measures():
    def ranks(group: bool) -> ComposedRanks:
        return ComposedRanks(torch.arange(1, 5), torch.arange(1, 5) if group else None)

    sets = {kind: ASet("fashioniq", "val", (4, 9), "full") for kind in TYPES}
    rows = [*made.rows_of({"cirr": ranks(True)}, {}, "trained", "val"),
            *made.rows_of({kind: ranks(False) for kind in TYPES}, sets, "trained", "val")]
    assert {(c.convention, c.metric) for c in PAPER.cells} <= {(m.convention, m.metric)
                                                               for m in rows}
    assert {m.n_gallery for m in rows if m.metric.startswith("dress")} == {9}


@pytest.mark.parametrize("name", DEMOS)
def test_the_tiny_size_takes_nothing_of_the_demos(name):
    experiment = PAPER.experiment(name)
    defaults = notebooks.notebook_parameters(PAPER.folder / experiment.notebook)
    given = PAPER.parameters(experiment) | experiment.tiny
    unsaid = [k for k in ("weights", "image_weights", "baseline_weights", "data_path",
                          "model_path", "save_root") if k in defaults and "tiny" not in
              str(given.get(k, ""))]
    assert unsaid == []


def test_the_sizes_that_the_chapter_tells_are_the_models():
    from replication.papers.sprc import SPRC, encoders

    with torch.device("meta"):
        learned = sum(p.numel() for p in SPRC().parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in encoders.eva(**encoders.EVA_G).parameters())
    text = (PAPER.folder / "index.md").read_text()
    assert f"{learned:,} parameters beside ViT-g" in text
    assert f"The image encoder, {frozen:,}, is frozen" in text


def test_the_pictures_that_the_chapter_counts_are_in_the_official_files():
    folder = composed_files()
    named = {file.name.split(".")[2]: [] for file in folder.glob("split.*.json")}
    for file in sorted(folder.glob("split.*.json")):
        named[file.name.split(".")[2]] += json.loads(file.read_text())
    every = [name for names in named.values() for name in names]
    text = (PAPER.folder / "index.md").read_text()
    assert f"name {len(every):,}, and {len(set(every)):,} different ones" in text
    train = named["train"]
    assert f"{len(set(train)):,} training pictures ({len(train):,} in three types)" in text


def composed_files():
    folder = PAPER.folder.parents[2] / "shared/data/annotations/fashioniq/image_splits"
    if not folder.is_dir():
        pytest.skip(f"no official split files: {folder} is not there")
    return folder
