"""The fine-tuning's options under their original names, the switches, and the zero-shot run's."""

from dataclasses import asdict, field
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from replication.switches import Times

# The readme's nine models, by its names.
MODELS = ("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14",
          "ViT-L/14@336px")
"""OpenAI's nine models."""
FILES = (".safetensors", ".pt", ".pth", ".bin")
RAW = "{}"  # a prompt that leaves the caption as it is
WHERE = ("dataset_root", "checkpoint_path", "experiments", "name", "num_workers", "accelerator",
         "devices", "eval_batch_size", "compile", "grad_checkpointing")  # not what is measured


@pydantic_dataclass(frozen=True)
class Config:
    """The original's options with its defaults (lr is the readme's; the code's is 1e-6), then what
    it fixes in code, and more."""

    dataset_root: str = "data"  # holds annotations/ and images/, or a folder a set by its name
    batch_size: PositiveInt = 256
    epochs: NonNegativeInt = 10
    lr: NonNegativeFloat = 1e-5
    warmup: NonNegativeInt = 500
    vision_model: str = "ViT-B/32"
    eval: bool = False  # measures and does not train
    resume: str = ""  # a checkpoint to start from: of the public code, of OpenAI, of this project
    eval_batch_size: PositiveInt = 64
    checkpoint_path: str = "logs"
    experiments: str = "ex0"  # the run's folder is <checkpoint_path>/<experiments>
    name: str = "CLIP_ITM"
    num_workers: NonNegativeInt = 8
    context_length: NonNegativeInt = 0  # tokens that are read; 0: as many as the model has places
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.98, ge=0, lt=1)
    eps: NonNegativeFloat = 1e-6
    weight_decay: NonNegativeFloat = 0.2
    seed: int = 99

    dataset: Literal["coco", "flickr30k", "flickr8k", "doodles"] = "coco"
    train_split: str = "train"
    dev_split: str = "dev"
    test_split: str = "test"
    dev_images: NonNegativeInt = 0  # training images kept out as dev, where the set has none
    allow_partial: bool = False
    weights: str = "openai"
    quick_gelu: Literal["auto", "on", "off"] = "auto"
    prompt: str = RAW
    schedule: Literal["stated", "as-released"] = "stated"
    negatives: Literal["all", "other images"] = "all"
    held: Literal["float32", "half"] = "float32"  # what weights are rounded to after each step
    flip: bool = False
    selection: Literal["test", "dev", "last"] = "test"  # the public code's choice is by the test
    precision: str = "auto"
    grad_checkpointing: bool = False
    compile: bool = False
    accelerator: str = "auto"
    devices: PositiveInt = 1

    @model_validator(mode="after")
    def fits(self) -> "Config":
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size={self.batch_size} is not a multiple of devices="
                             f"{self.devices}")
        check_prompt(self.prompt)
        return self

    def run_key(self) -> dict:
        """The fields that decide the weights: a checkpoint continues a run with the same ones."""
        left = (*WHERE, "eval", "selection", "test_split")
        return {k: v for k, v in asdict(self).items() if k not in left}


# What the chapter turns, one at a time.
SWITCHES = {
    "schedule: as-released": {"schedule": "as-released"},
    "negatives: other images": {"negatives": "other images"},
    "held: half": {"held": "half"},
    "prompt: a photo of": {"prompt": "a photo of {}"},
    "mirrored images": {"flip": True},
}
"""Where readme and code part, each as the fields that switch it."""
# Further ones, turned where they are named; the rate is the code's default as a multiple of the
# readme's.
CHOICES = {
    "rate / 10": {"lr": Times(0.1)},
    "best on test": {"selection": "test"},
    "best on dev": {"selection": "dev"},
}
SWITCH_BASE = "as stated"
SWITCH_METRICS = (("mean_R@1", "image_text"),)  # what their table shows


@pydantic_dataclass(frozen=True)
class ZeroShot:
    """Models that are measured as they come. An entry of `models` is `<name>` or
    `<name>: <weights>`, else `weights` holds; further prompts, the other activation and
    half-precision scores are measured beside the first prompt."""

    dataset_root: str = "data"
    dataset: Literal["coco", "flickr30k", "flickr8k", "doodles"] = "coco"
    split: str = "test"
    models: list[str] = field(default_factory=lambda: list(MODELS))
    weights: str = "openai"
    prompts: list[str] = field(default_factory=lambda: [RAW])
    other_activation: bool = False
    half_scores: bool = False
    quick_gelu: Literal["auto", "on", "off"] = "auto"
    context_length: NonNegativeInt = 0
    allow_partial: bool = False
    eval_batch_size: PositiveInt = 64
    save_root: str = "result/clip_retrieval/zero_shot"
    seed: int = 0  # of random weights and of the intervals
    precision: str = "auto"
    accelerator: str = "auto"

    @model_validator(mode="after")
    def fits(self) -> "ZeroShot":
        if not self.models or not self.prompts:
            raise ValueError("give at least one of models and one of prompts")
        for prompt in self.prompts:
            check_prompt(prompt)
        labels = [label for label, *_ in self.entries()]
        twice = sorted({name for name in labels if labels.count(name) > 1})
        if twice:
            raise ValueError(f"models named twice: {', '.join(twice)}")
        return self

    def entries(self) -> list[tuple[str, str, str]]:
        """(what tables call it, model, weights) of each of `models`. Tables call by its name alone
        what is measured with `weights`; other weights stand behind the name, a file by its stem.
        """
        found = []
        for entry in self.models:
            name, _, own = (part.strip() for part in entry.partition(": "))
            stem = Path(own).stem if Path(own).suffix in FILES else own
            found.append((f"{name} {stem}".strip(), name, own or self.weights))
        return found


@pydantic_dataclass(frozen=True)
class Search:
    """A set, the model that searches in it, and one query (`search.Index.query`)."""

    dataset_root: str = "data"
    dataset: Literal["coco", "flickr30k", "flickr8k", "doodles"] = "coco"
    split: str = "test"
    model: str = "ViT-B/32"
    weights: str = "openai"
    query: str = ""
    found: PositiveInt = 8
    prompt: str = RAW
    quick_gelu: Literal["auto", "on", "off"] = "auto"
    allow_partial: bool = False
    save_root: str = "result/clip_retrieval/search"
    seed: int = 0

    @model_validator(mode="after")
    def fits(self) -> "Search":
        check_prompt(self.prompt)
        return self


def check_prompt(prompt: str) -> None:
    """Raises ValueError unless the prompt has one place for the caption."""
    if prompt.count("{}") != 1 or "{" in prompt.replace("{}", ""):
        raise ValueError(f"prompt={prompt!r}: it needs {{}} once, where the caption goes")
