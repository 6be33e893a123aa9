"""SPRC's options under their original names (hyphens are underscores), and what its code fixes."""

from dataclasses import asdict, field
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from replication.switches import Times

# The original's names of its sets, beside the prepared ones.
SETS = {"cirr": "cirr", "fashioniq": "fashioniq", "doodles_cirr": "doodles_cirr",
        "doodles_fashioniq": "doodles_fashioniq"}
BACKBONES = {"pretrain": "eva-g", "pretrain_vitL": "clip-L"}
# Not what is measured.
WHERE = ("data_path", "save_root", "num_workers", "accelerator", "devices", "save_training",
         "save_best", "validation_frequency", "chunk", "baseline", "baseline_weights")
Transform = Literal["targetpad", "squarepad", "clip"]
Name = Literal["blip2_cir_align_prompt"]  # what the public code calls SPRC; others are not released


def set_name(dataset: str) -> str:
    """The set as `composed.read_composed` calls it; ValueError for another."""
    name = SETS.get(dataset.lower())
    if name is None:
        raise ValueError(f"dataset={dataset!r}: choose CIRR, FashionIQ, doodles_cirr or "
                         "doodles_fashioniq")
    return name


class OfASet:
    """What `dataset` says."""

    @property
    def set_name(self) -> str:
        """As `composed.read_composed` calls it."""
        return set_name(self.dataset)

    @property
    def fashion(self) -> bool:
        """Whether it is in FashionIQ's form, not in CIRR's."""
        return self.set_name.endswith("fashioniq")


@pydantic_dataclass(frozen=True)
class Config(OfASet):
    """The original's options with its code's defaults (the readme's commands give others), then
    what it fixes in code, and more."""

    dataset: str = "CIRR"  # CIRR or FashionIQ; doodles_cirr, doodles_fashioniq
    data_path: str = "./cirr_dataset"
    num_workers: NonNegativeInt = 2
    num_epochs: NonNegativeInt = 300
    blip_model_name: Name = "blip2_cir_align_prompt"
    backbone: str = "pretrain"  # pretrain: ViT-g, pretrain_vitL: ViT-L; doodle-clip: the demo's
    learning_rate: NonNegativeFloat = 2e-6
    batch_size: PositiveInt = 512
    loss_align: NonNegativeFloat = 0.4
    loss_rtc: NonNegativeFloat = 0.4
    loss_itm: NonNegativeFloat = 1.0  # of no effect, in the original too
    validation_frequency: PositiveInt = 1
    target_ratio: float = Field(1.25, ge=1)
    transform: Transform = "targetpad"
    save_training: bool = False  # keeps every evaluated epoch, unless save_best
    save_best: bool = False  # best and last are kept in any case

    save_root: str = "result/sprc"
    seed: int = 0
    weights: str = "default"  # of the Q-Former (`starting.DEFAULT`); none: random
    image_weights: str = ""  # of the image encoder; empty: where `weights` has them
    vocabulary: str = ""  # empty: beside the weights; training: made from the training captions
    frozen_features: bool = True  # computed once and stored; without, the encoder runs in the loop
    loss_itc: NonNegativeFloat = 1.0
    num_prompts: PositiveInt = 32
    hidden_size: PositiveInt = 768
    num_hidden_layers: PositiveInt = 12
    num_attention_heads: PositiveInt = 12
    intermediate_size: PositiveInt = 3072
    embed_dim: PositiveInt = 256
    dropout: float = Field(0.1, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.05
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.98, ge=0, lt=1)
    eps: NonNegativeFloat = 1e-7
    cycle_momentum: bool = True  # the one-cycle schedule moves beta1 too: torch's default
    schedule_epochs: int = Field(0, ge=-1)  # that the cycle spans; 0: as released, -1: the run's
    gallery: Literal["split", "VAL"] = "split"
    allow_missing: bool = False
    selection: Literal["val", "last"] = "val"
    baseline: str = ""  # a CLIP whose vectors make the baselines: doodle-clip, an open_clip name
    baseline_weights: str = "openai"
    precision: str = "auto"
    accelerator: str = "auto"
    devices: PositiveInt = 1
    chunk: PositiveInt = 256

    @model_validator(mode="after")
    def fits(self) -> "Config":
        set_name(self.dataset)
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size={self.batch_size} is not a multiple of devices="
                             f"{self.devices}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size={self.hidden_size} is not a multiple of "
                             f"num_attention_heads={self.num_attention_heads}")
        return self

    @property
    def cycle(self) -> dict:
        """Options of the one-cycle schedule: CIRR's is laid out over 80 epochs however many run,
        FashionIQ's over those that run."""
        run = max(1, self.num_epochs)
        spans = {0: run if self.fashion else 80, -1: run}
        shape = {"pct_start": 1.5 / 30, "div_factor": 100.0} if self.fashion else \
            {"pct_start": 1 / 50}
        return shape | {"cycle_momentum": self.cycle_momentum,
                        "epochs": spans.get(self.schedule_epochs, self.schedule_epochs)}

    def run_key(self) -> dict:
        """The fields that decide the weights: a checkpoint continues a run with the same ones."""
        return {k: v for k, v in asdict(self).items() if k not in (*WHERE, "selection", "gallery")}


# What the chapter turns, one at a time.
SWITCHES = {
    "without rtc": {"loss_rtc": 0.0},
    "without align": {"loss_align": 0.0},
    "itc alone": {"loss_rtc": 0.0, "loss_align": 0.0},
    "rtc and align 0.6": {"loss_rtc": 0.6, "loss_align": 0.6},
    "rtc and align 1": {"loss_rtc": 1.0, "loss_align": 1.0},
    "cycle over the epochs that run": {"schedule_epochs": -1},
    "beta1 fixed": {"cycle_momentum": False},
    "no padding": {"transform": "clip"},
    "4 prompts": {"num_prompts": 4},
    "2 prompts": {"num_prompts": 2},
}
"""Where paper and code part, each as the fields that switch it."""
# Further ones, turned where they are named; rate and batch are the code's defaults as multiples of
# the readme's.
CHOICES = {
    "rate / 5": {"learning_rate": Times(0.2)},
    "batch x 4": {"batch_size": Times(4)},
    "rtc and align 1 + gallery: VAL": {"loss_rtc": 1.0, "loss_align": 1.0,
                                       "gallery": "VAL"},  # FashionIQ has it
}
SWITCH_METRICS = (("Avg", "cirr"), ("average Avg", "fashioniq"))  # what their tables show


@pydantic_dataclass(frozen=True)
class Evaluate(OfASet):
    """Trained weights, measured. The first four are the original's options."""

    dataset: str = "CIRR"
    blip_model_name: Name = "blip2_cir_align_prompt"
    backbone: str = "pretrain"
    model_path: str = ""  # sprc_cirr.pt, sprc_fiq.pt, or <selection>.safetensors of a run

    data_path: str = "./cirr_dataset"
    split: str = "val"
    gallery: Literal["split", "VAL"] = "split"
    allow_missing: bool = False
    transform: Transform = "targetpad"
    target_ratio: float = Field(1.25, ge=1)
    image_weights: str = ""  # empty: where model_path has them, else what its run took
    vocabulary: str = ""  # empty: beside model_path
    frozen_features: bool = True
    save_root: str = "result/sprc/evaluate"
    seed: int = 0  # of the drawn examples
    precision: str = "auto"
    accelerator: str = "auto"
    chunk: PositiveInt = 256

    @model_validator(mode="after")
    def fits(self) -> "Evaluate":
        set_name(self.dataset)
        if not self.model_path:
            raise ValueError("model_path is empty: give sprc_cirr.pt or sprc_fiq.pt of the "
                             "authors, or <selection>.safetensors of a run of train.ipynb")
        return self


@pydantic_dataclass(frozen=True)
class Submit(Evaluate):
    """What CIRR's server takes, and what it answered: R@1, 5, 10, 50 and Rsub@1, 2, 3."""

    split: str = "test1"
    rerank: bool = False  # its code and weights were never released
    server_recall: list[float] = field(default_factory=list)
    server_recall_subset: list[float] = field(default_factory=list)
    save_root: str = "result/sprc/submit"

    @model_validator(mode="after")
    def is_cirr(self) -> "Submit":
        if self.fashion:
            raise ValueError(f"dataset={self.dataset}: only CIRR has a test server")
        if self.rerank:
            raise ValueError("rerank=True: the re-ranking's weights were announced and never "
                             "released, so there is nothing to rank again with")
        given = len(self.server_recall), len(self.server_recall_subset)
        if given not in ((0, 0), (4, 3)):
            raise ValueError("server_recall are R@1, 5, 10, 50 and server_recall_subset Rsub@1, "
                             f"2, 3, in percent: {given[0]} and {given[1]} numbers were given")
        return self


@pydantic_dataclass(frozen=True)
class Retrieve(Evaluate):
    """One query: a reference picture (a name of the gallery, a file, or the row of a query of the
    set) and what the target has different."""

    reference: str | int = "0"  # papermill makes a number of digits
    text: str = ""  # empty: the query's own
    dress_type: Literal["dress", "shirt", "toptee"] = "dress"  # FashionIQ's gallery
    found: PositiveInt = 10
    save_root: str = "result/sprc/retrieve"
