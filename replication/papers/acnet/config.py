"""ACNet's options under their original names, its switches and the paper's ablations."""

from dataclasses import asdict
from typing import Literal

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from replication.switches import Times

CLASS_ON = ("sketch", "photo", "generated")
TUBERLIN_PHOTOS = 400  # the code leaves TU-Berlin's unseen classes with fewer photos out


@pydantic_dataclass(frozen=True)
class Config:
    """The original's options under their names, with their defaults; then what it fixes in code,
    the switches and the paper's ablations."""

    data_root: str = "/home/data"
    data_name: str = "sketchy"  # sketchy, tuberlin, doodles
    backbone_type: str = "resnet50"  # resnet50, vgg16, any classifier of timm
    emb_dim: PositiveInt = 512
    batch_size: PositiveInt = 64  # images: half are sketches, half photos
    epochs: NonNegativeInt = 10  # 0: measures the start
    warmup: NonNegativeInt = 1  # epochs in which only the extractor's last layer learns
    save_root: str = "result"

    seed: int = 1
    weights: str = "default"  # the extractor's
    checkpoint: str = ""  # published files to start from, up to their _extractor.pth
    image_size: PositiveInt = 224
    extractor_lr: NonNegativeFloat = 1e-5
    proxy_lr: NonNegativeFloat = 1e-3
    generator_lr: NonNegativeFloat = 1e-3
    discriminator_lr: NonNegativeFloat = 1e-4
    temperature: PositiveFloat = 0.05
    min_photos: int = -1  # of an unseen class; -1: 400 for tuberlin, else 0
    selection: Literal["unseen", "seen", "last"] = "unseen"
    val_classes: NonNegativeInt = 0

    class_reduction: Literal["mean", "sum"] = "mean"
    synthesis: Literal["joint", "two-stage", "none"] = "joint"
    loss_type: Literal["normalised_softmax", "cross_entropy", "proxy_anchor", "margin",
                       "triplet"] = "normalised_softmax"
    class_on: str = ", ".join(CLASS_ON)
    adversarial_weight: NonNegativeFloat = 1.0
    identity_weight: NonNegativeFloat = 0.1
    class_weight: NonNegativeFloat = 10.0
    channels: PositiveInt = 8
    blocks: NonNegativeInt = 8
    color_jitter: NonNegativeFloat = 0.0
    solarize: NonNegativeFloat = 0.0

    precision: str = "auto"
    channels_last: bool = True
    compile: bool = False
    accelerator: str = "auto"
    devices: PositiveInt = 1
    num_workers: NonNegativeInt = 0

    @field_validator("batch_size")
    @classmethod
    def whole_pairs(cls, value: int) -> int:
        if value % 2:
            raise ValueError("batch_size counts images, half of them sketches: give an even one")
        return value

    @model_validator(mode="after")
    def known_parts(self) -> "Config":
        wrong = set(_named(self.class_on)) - set(CLASS_ON)
        if wrong or not self.classified:
            raise ValueError(f"class_on={self.class_on!r} names {', '.join(wrong) or 'no image'}: "
                             f"choose from {', '.join(CLASS_ON)} (generated needs synthesis)")
        return self

    @property
    def classified(self) -> tuple[str, ...]:
        """The images that the class loss sees; without synthesis none is generated."""
        drop = {"generated"} if self.synthesis == "none" else set()
        return tuple(k for k in CLASS_ON if k in _named(self.class_on) and k not in drop)

    @property
    def photos_needed(self) -> int:
        """Fewest photos that an unseen class must have to be measured."""
        rule = TUBERLIN_PHOTOS if self.data_name == "tuberlin" else 0
        return rule if self.min_photos < 0 else self.min_photos

    def run_key(self) -> dict:
        """The fields that decide the weights: a checkpoint continues a run with the same ones."""
        elsewhere = ("data_root", "save_root", "selection", "accelerator", "devices",
                     "num_workers", "compile", "channels_last")
        # stage two begins where stage one's epochs end; elsewhere a run may be given more
        elsewhere += () if self.synthesis == "two-stage" else ("epochs",)
        return {k: v for k, v in asdict(self).items() if k not in elsewhere}


def _named(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


# Where paper and code part, and the paper's ablations (tables II, V, VII, VIII, X, figs 9, 10).
SWITCHES = {
    "class losses: sum": {"class_reduction": "sum"},
    "one learning rate": {"extractor_lr": 1e-3, "discriminator_lr": 1e-3},
    "no warm-up": {"warmup": 0},
}
"""Where paper and code part, each as the fields that switch it."""
TRIPLET, ALONE, TWO_STAGE = ({"loss_type": "triplet"}, {"synthesis": "none"},
                             {"synthesis": "two-stage"})
ABLATIONS = {
    "untrained": {"epochs": 0},
    "no synthesis": ALONE,
    "two-stage synthesis": TWO_STAGE,
    "triplet loss": TRIPLET,
    "triplet loss + no synthesis": TRIPLET | ALONE,
    "triplet loss + two-stage synthesis": TRIPLET | TWO_STAGE,
    "no identity loss": {"identity_weight": 0.0},
    "no class loss on sketches": {"class_on": "photo, generated"},
    "no class loss on sketches + no identity loss": {"class_on": "photo, generated",
                                                     "identity_weight": 0.0},
    "class weight 1 + identity weight 1": {"identity_weight": 1.0, "class_weight": 1.0},
    "class weight 0.1 + identity weight 10": {"identity_weight": 10.0,
                                              "class_weight": 0.1},
    "cross-entropy": {"loss_type": "cross_entropy"},
    "margin loss": {"loss_type": "margin"},
    "proxy anchor": {"loss_type": "proxy_anchor"},
    "color jitter + no synthesis": ALONE | {"color_jitter": 0.4},
    "solarization + no synthesis": ALONE | {"solarize": 0.5},
    "color jitter + solarization + no synthesis": ALONE | {"color_jitter": 0.4, "solarize": 0.5},
    **{f"channels {n}": {"channels": n} for n in (4, 16, 32, 64)},
    **{f"residual blocks {n}": {"blocks": n} for n in (4, 6, 9)},
}
"""The paper's ablations, each as the fields that make it."""
# A further one, turned where it is named: the code's rate as a multiple of the paper's.
CHOICES = {
    "extractor rate / 100": {"extractor_lr": Times(0.01)},
}
