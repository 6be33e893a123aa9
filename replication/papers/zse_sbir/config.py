"""ZSE-SBIR's options under their original names, what the code fixes, and the switches."""

from dataclasses import asdict
from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from replication.switches import Times

# The original's names of sets and of their zero-shot splits; a prepared set by its own name and
# its split as <seen>/<unseen> are taken too.
DATASETS = {"sketchy_extend": "sketchy", "tu_berlin": "tuberlin", "Quickdraw": "quickdraw"}
TEST_CLASSES = {"test_class_sketchy25": ("sketchy", "100/25"),
                "test_class_sketchy21": ("sketchy", "104/21"),
                "test_class_tuberlin30": ("tuberlin", "220/30"),
                "Quickdraw": ("quickdraw", "80/30")}
# Without testall: every n-th sketch and every n-th photo of the unseen classes.
SUBSAMPLE = {"sketchy": (20, 10), "tuberlin": (3, 20), "quickdraw": (120, 30)}


@pydantic_dataclass(frozen=True)
class Config:
    """The original's options with their defaults; then what it fixes in code, and more."""

    data_path: str = "./datasets"
    dataset: str = "sketchy_extend"
    test_class: str = "test_class_sketchy25"
    cls_number: PositiveInt = 100  # of no effect, in the original too
    d_model: PositiveInt = 768
    d_ff: PositiveInt = 1024
    head: PositiveInt = 8
    number: PositiveInt = 1
    pretrained: bool = True
    anchor_number: PositiveInt = 49
    save: str = "./checkpoints/sketchy_ext"
    batch: PositiveInt = 15
    epoch: NonNegativeInt = 30  # 0: measures the start
    datasetLen: PositiveInt = 10_000  # noqa: N815
    learning_rate: NonNegativeFloat = 1e-5
    weight_decay: NonNegativeFloat = 1e-2
    cross_rate: NonNegativeFloat = 1.0  # learning rate of the cross-attention, as a multiple
    relation_rate: NonNegativeFloat = 1.0  # of what follows it
    load: str = ""  # a checkpoint to start from: the published .pth, or one of this project
    retrieval: Literal["rn", "sa"] = "rn"
    testall: bool = False
    test_sk: PositiveInt = 20
    test_im: PositiveInt = 20
    num_workers: NonNegativeInt = 4
    choose_cuda: NonNegativeInt = 0
    seed: int = 2021

    tower: str = "vit_base_patch16_224"
    weights: str = "sam_in1k"
    image_size: PositiveInt = 224
    patch_stack: PositiveInt = 64  # channels after the first small convolution; doubled twice
    anchor_width: PositiveInt = 512
    dropout: float = Field(0.1, ge=0, lt=1)
    margin: NonNegativeFloat = 1.0
    triplet_weight: NonNegativeFloat = 2.0
    relation_weight: NonNegativeFloat = 4.0
    validate_from: NonNegativeInt = 10  # epochs are not evaluated before
    test_dataset: str = ""  # cross-dataset: another set whose unseen classes are the test
    match: Literal["class", "instance"] = "class"  # what a pair shares: instance is fine-grained
    generalised: bool = False  # score photos of seen classes with rn too
    rerank_top_k: NonNegativeInt = 0  # rn scores only the best k by sa; 0: all
    selection: Literal["unseen", "seen", "last"] = "unseen"
    val_classes: NonNegativeInt = 0
    sketch_step: NonNegativeInt = 0  # without testall: every n-th; 0: as published for the set
    photo_step: NonNegativeInt = 0
    keep_scores_mb: NonNegativeFloat = 256.0  # larger score matrices are measured, not kept

    first_files: bool = False
    keep_rate: PositiveFloat = Field(1.0, le=1)
    layout: Literal["as-released", "grid"] = "as-released"

    precision: str = "auto"
    accelerator: str = "auto"
    devices: PositiveInt = 1

    @model_validator(mode="after")
    def heads_fit(self) -> "Config":
        if self.d_model % self.head:
            raise ValueError(f"head={self.head} does not divide d_model={self.d_model}")
        return self

    @property
    def data_name(self) -> str:
        """The folder of the prepared set in data_path."""
        return DATASETS.get(self.dataset, self.dataset)

    @property
    def test_name(self) -> str:
        """The folder of the set that is tested on."""
        return DATASETS.get(self.test_dataset, self.test_dataset) or self.data_name

    @property
    def save_root(self) -> str:
        """The folder of the run, under the name that all papers share."""
        return self.save

    @property
    def batch_size(self) -> int:
        """`batch`, under the name that all papers share."""
        return self.batch

    @property
    def steps(self) -> tuple[int, int]:
        """Every how manieth sketch and photo is tested without testall; of single photos all."""
        sketches, photos = SUBSAMPLE.get(self.test_name, (1, 1))
        photos = 1 if self.match == "instance" else photos
        return self.sketch_step or sketches, self.photo_step or photos

    def run_key(self) -> dict:
        """The fields that decide the weights: a checkpoint continues a run with the same ones."""
        elsewhere = ("data_path", "save", "epoch", "testall", "test_sk", "test_im", "num_workers",
                     "choose_cuda", "cls_number", "generalised", "rerank_top_k", "selection",
                     "keep_scores_mb", "accelerator", "devices")
        return {k: v for k, v in asdict(self).items() if k not in elsewhere}


# Where paper and code part, and what the code fixes.
SWITCHES = {
    "anchors laid out as a grid": {"layout": "grid"},
    "every file drawn": {"first_files": True},
    "keep 0.9 of the tokens": {"keep_rate": 0.9},
    "keep 0.7 of the tokens": {"keep_rate": 0.7},
    "no triplet loss": {"triplet_weight": 0.0},
    "no relation loss": {"relation_weight": 0.0},
    "two layers of cross-attention": {"number": 2},
    "one learning rate": {"cross_rate": 1.0, "relation_rate": 1.0},
    "untrained": {"epoch": 0},
}
"""Where paper and code part, each as the fields that switch it."""
# Further ones, turned where they are named.
LONGER = {"epoch": Times(2), "validate_from": 1}
CHOICES = {
    "batch and rate x 2": {"batch": Times(2), "learning_rate": Times(2)},
    "epochs x 2": LONGER,
    "epochs x 2 + best on unseen": LONGER | {"selection": "unseen"},
}
