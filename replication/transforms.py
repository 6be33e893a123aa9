"""Preprocess: how a picture becomes a model's input. It travels with the model's weights."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from replication.pictures import as_rgb

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NORMALISATIONS = {"imagenet": IMAGENET, "clip": CLIP, "half": HALF}

Resize = Literal["squash", "shortest", "crop", "pad", "ink", "targetpad", "squarepad"]
"""How a picture of any shape becomes square; see `Preprocess`."""
INK = 300  # sum of a pixel's channels up to which it is a stroke, not paper
FAINTEST = 60  # least range of such sums in a picture that has strokes at all


@dataclass(frozen=True)
class Preprocess:
    """A square input of `size` pixels and its normalisation.

    resize: `squash` (both sides to `size`, aspect ratio lost), `shortest` (short side to `size`,
    the long one rounded down, then the centre: open_clip's and OpenAI's rule, to the byte), `crop`
    (the centre square, then `size`: PIL's ImageOps.fit; it cuts first, at fractions of a pixel,
    so bytes differ from `shortest` wherever the sides do), `pad` (white to a square, then
    `size`), `ink` (cut to the strokes and 10 pixels around, then as `pad`), `targetpad` (black
    beside the short side until the long one is `ratio` times it, where it is more, then as
    `shortest`), `squarepad` (the same to a square). interpolation: `bilinear` or `bicubic`, both
    anti-aliased. mean and std: per channel, for values in 0..1. sketch_resize: the rule for
    sketches where it is another. ratio: of `targetpad`, at least 1. Raises ValueError.
    """

    size: int = 224
    resize: Resize = "squash"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    sketch_resize: Resize | None = None
    ratio: float = 1.25

    def __post_init__(self):
        if not self.ratio >= 1:
            raise ValueError(f"ratio {self.ratio}: the longer side is at least 1 x the shorter")

    def of(self, domain: str) -> "Preprocess":
        """The rule for pictures of a domain, `sketch` or `photo`."""
        own = self.sketch_resize if domain == "sketch" else None
        return replace(self, resize=own, sketch_resize=None) if own else self

    def resized(self, image: Image.Image) -> UInt8[np.ndarray, "size size 3"]:
        """The picture as stored in the image cache: RGB bytes, resized, not normalised.

        Raises ValueError for a picture without ink where the rule looks for it.
        """
        filter_ = Image.Resampling[self.interpolation.upper()]
        if self.resize == "ink":
            image = image.crop(ink_box(image))
        if self.resize in ("targetpad", "squarepad"):
            image = _padded(image, self.ratio if self.resize == "targetpad" else 1.0)
        if self.resize in ("shortest", "targetpad", "squarepad"):
            image = _shortest(image, self.size, self.interpolation)
        elif self.resize == "crop":
            image = ImageOps.fit(image, (self.size, self.size), filter_)
        elif self.resize in ("pad", "ink"):
            image = ImageOps.pad(image, (self.size, self.size), filter_, color="white")
        elif self.resize == "squash":
            image = image.resize((self.size, self.size), filter_)
        else:
            raise ValueError(f"resize {self.resize!r}: choose squash, shortest, crop, pad or ink, "
                             "or, with black beside the picture, targetpad or squarepad")
        return np.asarray(image)

    def normalised(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
        """Bytes to the model's float32 input, on the device the bytes are on."""
        mean, std = (torch.tensor(v, device=images.device) for v in (self.mean, self.std))
        return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()

    def displayable(self, images: Float[Tensor, "b 3 h w"]) -> Float[np.ndarray, "b h w 3"]:
        """The inverse of `normalised`, clipped to 0..1, for pictures of a batch."""
        mean, std = (torch.tensor(v, device=images.device) for v in (self.mean, self.std))
        return (images.permute(0, 2, 3, 1) * std + mean).clamp(0, 1).cpu().numpy()

    def pixel_key(self) -> str:
        """What decides the bytes of `resized`; normalisation does not."""
        ratio = f"-{self.ratio}" if self.resize == "targetpad" else ""
        return f"{self.size}-{self.resize}-{self.interpolation}{ratio}"

    def digest(self) -> str:
        """Hash of every rule that decides pixels."""
        fields = asdict(self)
        if "targetpad" not in (self.resize, self.sketch_resize):
            del fields["ratio"]  # decides nothing: other rules keep the digests of kept records
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def _padded(image: Image.Image, ratio: float) -> Image.Image:
    """Black on both sides of the short side, each half of what lacks to longer / `ratio`, rounded
    down; unchanged where nothing lacks."""
    wanted = max(image.size) / ratio
    x, y = (max(0, int((wanted - side) / 2)) for side in image.size)
    return ImageOps.expand(image, (x, y, x, y), fill="black") if x or y else image


def _shortest(image: Image.Image, size: int, interpolation: str) -> Image.Image:
    from torchvision.transforms import functional  # here: a second that other rules need not wait

    resized = functional.resize(image, size, functional.InterpolationMode(interpolation))
    return functional.center_crop(resized, [size, size])


def ink_box(image: Image.Image, around: int = 10) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (pixels) of a sketch's strokes with `around` pixels on every side,
    inside the picture. Where no pixel is as dark as INK (a pencil's stroke, a thin one), strokes
    are what is darker than the middle of the picture's range. Raises ValueError for an empty one.
    """
    tone = np.asarray(image, np.int32).sum(2)
    darkest, lightest = int(tone.min()), int(tone.max())
    ink = tone <= (INK if darkest <= INK else (darkest + lightest) // 2)
    if darkest > INK and lightest - darkest < FAINTEST:
        raise ValueError("no ink: every pixel is lighter than a stroke; is it an empty sketch?")
    (top, bottom), (left, right) = (np.flatnonzero(ink.any(axis))[[0, -1]] for axis in (1, 0))
    width, height = image.size
    return (max(0, int(left) - around), max(0, int(top) - around),
            min(width, int(right) + 1 + around), min(height, int(bottom) + 1 + around))


def read_image(path: str | Path, *, upright: bool = False) -> Image.Image:
    """Opens a picture as RGB; transparent parts become white (a drawing on no paper).

    upright: turn it as its EXIF tag says, for a user's own photo; data sets are read as stored.
    Raises OSError for a file that is not a whole picture.
    """
    with Image.open(path) as image:
        image.load()
        return as_rgb(image, upright=upright)
