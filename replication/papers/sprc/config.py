"""SPRC's options under their original names (hyphens are underscores), and what its code fixes."""

from dataclasses import asdict
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as pydantic_dataclass

# The original's names of its sets, beside the prepared ones.
SETS = {"cirr": "cirr", "fashioniq": "fashioniq", "doodles_cirr": "doodles_cirr",
        "doodles_fashioniq": "doodles_fashioniq"}
BACKBONES = {"pretrain": "eva-g", "pretrain_vitL": "clip-L"}
WHERE = ("data_path", "save_root", "num_workers", "accelerator", "devices", "save_training",
         "save_best", "validation_frequency", "chunk")  # not what is measured


@pydantic_dataclass(frozen=True)
class Config:
    """The original's options with its code's defaults (the readme's commands give others), then
    what it fixes in code, and more."""

    dataset: str = "CIRR"  # CIRR or FashionIQ; doodles_cirr, doodles_fashioniq
    data_path: str = "./cirr_dataset"
    num_workers: NonNegativeInt = 2
    num_epochs: NonNegativeInt = 300
    blip_model_name: Literal["blip2_cir_align_prompt"] = "blip2_cir_align_prompt"
    backbone: str = "pretrain"  # pretrain: ViT-g, pretrain_vitL: ViT-L; doodle-clip: the demo's
    learning_rate: NonNegativeFloat = 2e-6
    batch_size: PositiveInt = 512
    loss_align: NonNegativeFloat = 0.4
    loss_rtc: NonNegativeFloat = 0.4
    loss_itm: NonNegativeFloat = 1.0  # of no effect, in the original too
    validation_frequency: PositiveInt = 1
    target_ratio: float = Field(1.25, ge=1)
    transform: Literal["targetpad", "squarepad", "clip"] = "targetpad"
    save_training: bool = False
    save_best: bool = False

    save_root: str = "result/sprc"
    seed: int = 0
    weights: str = "Salesforce/blip2-itm-vit-g"  # of image encoder and Q-Former
    vocabulary: str = "vocab.txt"  # bert-base-uncased's; empty: made from the training captions
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
    schedule_epochs: NonNegativeInt = 0  # epochs that the cycle is laid out over; 0: as released
    gallery: Literal["split", "VAL"] = "split"
    allow_missing: bool = False
    selection: Literal["val", "last"] = "val"
    precision: str = "auto"
    accelerator: str = "auto"
    devices: PositiveInt = 1
    chunk: PositiveInt = 256

    @property
    def set_name(self) -> str:
        """The set as `composed.read_composed` calls it; ValueError for another."""
        name = SETS.get(self.dataset.lower())
        if name is None:
            raise ValueError(f"dataset={self.dataset!r}: choose CIRR, FashionIQ, doodles_cirr or "
                             "doodles_fashioniq")
        return name

    @property
    def fashion(self) -> bool:
        return self.set_name.endswith("fashioniq")

    @property
    def cycle(self) -> dict:
        """Options of the one-cycle schedule: CIRR's is laid out over 80 epochs however many run,
        FashionIQ's over those that run."""
        if self.fashion:
            return {"pct_start": 1.5 / 30, "div_factor": 100.0,
                    "epochs": self.schedule_epochs or max(1, self.num_epochs)}
        return {"pct_start": 1 / 50, "epochs": self.schedule_epochs or 80}

    def run_key(self) -> dict:
        """The fields that decide the weights: a checkpoint continues a run with the same ones."""
        return {k: v for k, v in asdict(self).items() if k not in (*WHERE, "selection", "gallery")}
