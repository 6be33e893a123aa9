"""Why a sketch and a photo match: correspondences of patches, attention, synthesis from patches.

The relation network's own 49 x 49 cosines cannot be drawn on the pictures: as released, an anchor
holds a little of every patch (see ZSE.anchors). Here the patch tokens themselves are compared, or
the cross-attention's weights are read, which do have places.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from replication import data, metrics
from replication.papers.zse_sbir.networks import ZSE
from replication.papers.zse_sbir.scoring import tower_tokens
from replication.sketch_experiment import Experiment
from replication.transforms import ink_box, read_image

WAYS = ("cosine", "attention", "anchors")
SHOWN = 192  # side of a picture that is looked at, pixels, about


@torch.inference_mode()
def correspondences(model: ZSE, sketch: Float[Tensor, "b t d"], photo: Float[Tensor, "b t d"],
                    by: str = "cosine") -> Float[Tensor, "b n m"]:
    """How strongly every patch of a sketch goes with every patch of its photo, from the tower's
    tokens of pairs in order.

    by: `cosine` of the patch tokens after cross-attention; `attention`, the cross-attention's
    weights from sketch to photo, mean over heads; `anchors`, the relation network's cosines, which
    have places only with layout=grid. Raises ValueError for another `by` and where they have none.
    """
    if by not in WAYS or (by == "anchors" and model.layout != "grid"):
        raise ValueError(f"by={by!r}: choose cosine or attention; anchors have places in the "
                         "picture only with layout='grid'")
    if by == "attention":
        layer = model.ca.encoder.layer1[0]
        query, key = layer.project(0, sketch)[:, :, 1:], layer.project(1, photo)
        weight = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)
        return weight.mean(1)[:, :, 1:]
    sketch, photo = (x[:, 1:] for x in model.ca(sketch, photo))
    if by == "anchors":
        sketch, photo = model.anchors(sketch), model.anchors(photo)
    return F.normalize(sketch, dim=-1) @ F.normalize(photo, dim=-1).transpose(1, 2)


@torch.inference_mode()
def class_attention(model: ZSE, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n"]:
    """Where the class token looks in the tower's last layer: weights of the patches, mean over
    heads, of sum 1."""
    vit = model.sa.vit
    x = vit._pos_embed(vit.patch_embed(images))
    for block in vit.blocks[:-1]:
        x = block(x)
    attention, normed = vit.blocks[-1].attn, vit.blocks[-1].norm1(x)
    q, k, _ = attention.qkv(normed).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
    weight = torch.einsum("bhd,bnhd->bhn", q[:, 0], k) * attention.scale
    weight = weight.softmax(-1).mean(1)[:, 1:]
    return weight / weight.sum(1, keepdim=True)


def strongest(weight: Float[np.ndarray, "n m"], k: int, rows: Bool[np.ndarray, " n"] | None = None
              ) -> Int64[np.ndarray, "k 2"]:
    """The `k` strongest cells (sketch patch, photo patch), strongest first, no patch used twice.

    rows: the sketch patches that may be used, as those with ink.
    """
    left = np.where(True if rows is None else rows[:, None], weight, -np.inf)
    found = []
    while len(found) < min(k, *weight.shape) and np.isfinite(left).any():
        i, j = np.unravel_index(left.argmax(), left.shape)
        found.append((i, j))
        left[i], left[:, j] = -np.inf, -np.inf
    return np.array(found, np.int64).reshape(-1, 2)


def synthesis(weight: Float[np.ndarray, "n m"], photo: Float[np.ndarray, "h w 3"]
              ) -> Float[np.ndarray, "h w 3"]:
    """The sketch made of photo: every sketch patch replaced by the photo patch it matches best."""
    side = round(weight.shape[1] ** 0.5)
    step = len(photo) // side
    patches = photo.reshape(side, step, side, step, 3).swapaxes(1, 2).reshape(-1, step, step, 3)
    chosen = patches[weight.argmax(1)].reshape(side, side, step, step, 3)
    return chosen.swapaxes(1, 2).reshape(photo.shape)


def inked(sketch: Float[np.ndarray, "h w 3"], side: int) -> Bool[np.ndarray, " n"]:
    """Which of side x side patches of a sketch (values 0..1) hold a stroke."""
    step = len(sketch) // side
    return (sketch.sum(2).reshape(side, step, side, step) < 2).any((1, 3)).flatten()


@dataclass(frozen=True)
class Explained:
    """A pair, what its patches say, and the score: all that a picture of it needs."""

    sketch: Float[np.ndarray, "h w 3"]  # 0..1, cut as the network gets it, larger
    photo: Float[np.ndarray, "h w 3"]
    weight: Float[np.ndarray, "n n"]
    sketch_attention: Float[np.ndarray, "side side"]
    photo_attention: Float[np.ndarray, "side side"]
    score: float

    @property
    def side(self) -> int:
        """Patches a side."""
        return len(self.sketch_attention)

    def lines(self, k: int) -> Int64[np.ndarray, "k 2"]:
        """The `k` strongest correspondences of patches with ink."""
        return strongest(self.weight, k, inked(self.sketch, self.side))

    def synthesis(self) -> Float[np.ndarray, "h w 3"]:
        """The sketch made of the photo's patches, by the attention's weights."""
        return synthesis(self.weight, self.photo)


def explain(e: Experiment, sketch: Path, photo: Path, by: str = "cosine") -> Explained:
    """Everything about one pair of files, with the weights that the model holds now."""
    parts, e_model = [], e.model.eval()
    for domain, file in (("sketch", sketch), ("photo", photo)):
        picture, rule = read_image(file, upright=True), e.preprocess.of(domain)
        pixels = rule.resized(picture)[None].copy()
        images = e.preprocess.normalised(torch.from_numpy(pixels).to(e.fabric.device))
        attention = class_attention(e_model, images)[0].cpu().numpy()
        side = round(len(attention) ** 0.5)
        shown = replace(rule, size=side * round(SHOWN / side)).resized(picture) / 255
        parts.append((shown, tower_tokens(e, pixels), attention.reshape(side, side)))
    (a, a_tokens, a_map), (b, b_tokens, b_map) = parts
    weight = correspondences(e_model, a_tokens, b_tokens, by)[0].float().cpu().numpy()
    with torch.inference_mode():
        matched = e_model.ca(a_tokens, b_tokens)
        score = e_model.rn(*(e_model.anchors(x[:, 1:]) for x in matched)).item()
    return Explained(a, b, weight, a_map, b_map, score)


class Drawn(NamedTuple):
    """A sketch, the photo it depicts, a photo of another class, and the two classes."""

    sketch: Path
    photo: Path
    other: Path
    name: str
    other_name: str


def drawn_pairs(e: Experiment, names: str = "", n: int = 4) -> list[Drawn]:
    """The unseen sketches named in `names` (`<class>/<file>`, by commas), or `n` of different
    classes drawn with the config's seed; with their own photo, and a drawn photo of another class.

    Raises DatasetError where no sketch names its photo, and for a name that is not there.
    """
    split, rng = e.sketch_set.val, np.random.default_rng(e.config.seed)
    place = {name: i for i, name in enumerate(split.photo.instances)}
    own = {i: place[s] for i, s in enumerate(split.sketch.instances) if s in place}
    if not own:
        raise data.DatasetError(f"no sketch of {e.sketch_set.name} names its photo (sketch X-1 "
                                "depicts photo X)")
    if names:
        index = {file: i for i, file in enumerate(split.sketch.files)}
        asked = [name.strip() for name in names.split(",") if name.strip()]
        absent = [name for name in asked if index.get(name) not in own]
        if absent:
            raise data.DatasetError(f"no unseen sketch with its own photo is named "
                                    f"{', '.join(absent)}; there is {split.sketch.files[0]}")
        rows = [index[name] for name in asked]
    else:
        labels = split.sketch.labels[list(own)]
        classes = rng.permutation(np.unique(labels))[:n]
        rows = [int(rng.choice(np.array(list(own))[labels == label])) for label in classes]
    found = []
    for row in rows:
        label = split.sketch.labels[row]
        other = int(rng.choice(np.flatnonzero(split.photo.labels != label)))
        found.append(Drawn(split.sketch.path(row), split.photo.path(own[row]),
                           split.photo.path(other), split.classes[label],
                           split.classes[split.photo.labels[other]]))
    return found


# ------------------------------------------------------- do correspondences land on the same part?


def read_parts(folder: Path) -> dict[str, dict[str, list[list[float]]]]:
    """Of each doodle (`<part>/<domain>/<class>/<file>`) the centres of its parts, 0..1."""
    file = folder / "parts.json"
    if not file.exists():
        raise data.DatasetError(f"no {file}: only the built-in doodles know where their parts are")
    return json.loads(file.read_text())


def in_input(places: Float[np.ndarray, "n 2"], sketch: Path) -> Float[np.ndarray, "n 2"]:
    """Places (x, y) of a sketch file in 0..1, as places of the network's input in 0..1: the sketch
    is cut to its ink and padded to a square."""
    image = read_image(sketch)
    left, top, right, bottom = ink_box(image)
    size = max(right - left, bottom - top)
    spare = np.array([size - (right - left), size - (bottom - top)]) / 2
    return (np.asarray(places) * image.size - (left, top) + spare) / size


@dataclass(frozen=True)
class PartCheck:
    """Of each pair the share (0..1) of sketch parts whose photo patch lies nearest to a part of the
    same name: the matched patch, a random one (its expectation), the one in the same place."""

    matched: Float[np.ndarray, " pairs"]
    random: Float[np.ndarray, " pairs"]
    same_place: Float[np.ndarray, " pairs"]
    n_parts: int

    def table(self) -> dict[str, dict[str, float]]:
        """Percent with a 95 % bootstrap interval over pairs."""
        values = {k: torch.from_numpy(getattr(self, k)) for k in ("matched", "random",
                                                                  "same_place")}
        return {k: {name: 100 * v for name, v in found.items()}
                for k, found in metrics.summary(values).items()}


def check_parts(e: Experiment, split: data.Split, parts: dict, by: str = "cosine",
                batch: int = 64) -> PartCheck:
    """Every sketch of the split with its own photo; parts that the sketch left out are not asked.

    Pictures with one kind of part only say nothing and are left out.
    """
    place = {name: i for i, name in enumerate(split.photo.instances)}
    pairs = [(i, place[name]) for i, name in enumerate(split.sketch.instances) if name in place]
    pixels = [data.cached_pixels(images, e.preprocess, progress=False)
              for images in (split.sketch, split.photo)]
    root, rows, asked = split.photo.folder.parent.parent, [], 0
    e.model.eval()
    for start in range(0, len(pairs), batch):
        some = pairs[start:start + batch]
        tokens = [tower_tokens(e, np.array(p[[pair[k] for pair in some]]))
                  for k, p in enumerate(pixels)]
        weights = correspondences(e.model, *tokens, by).float().cpu().numpy()
        for (s, p), weight in zip(some, weights, strict=True):
            files = split.sketch.path(s), split.photo.path(p)
            known = [parts[f.relative_to(root).as_posix()] for f in files]
            found = _pair_shares(weight, *known, files[0])
            if found is not None:
                rows.append(found[0])
                asked += found[1]
    return PartCheck(*np.array(rows).T.copy(), asked)


def _pair_shares(weight: np.ndarray, of_sketch: dict, of_photo: dict, sketch: Path
                 ) -> tuple[np.ndarray, int] | None:
    side = round(len(weight) ** 0.5)
    names = [name for name, spots in of_photo.items() for _ in spots]
    spots = np.array([spot for found in of_photo.values() for spot in found])
    common = [name for name in of_sketch if name in of_photo]
    if len(set(names)) < 2 or not common:
        return None
    middles = (np.indices((side, side)).reshape(2, -1).T[:, ::-1] + 0.5) / side  # (n, x y)
    nearest = np.linalg.norm(middles[:, None] - spots[None], axis=2).argmin(1)
    named = np.array(names)[nearest]  # of every photo patch, the part it lies nearest to
    asked = [name for name in common for _ in of_sketch[name]]
    places = in_input(np.array([spot for name in common for spot in of_sketch[name]]), sketch)
    x, y = (places * side).astype(int).clip(0, side - 1).T
    hits = [(named[weight[patch].argmax()] == name, (named == name).mean(), named[patch] == name)
            for name, patch in zip(asked, y * side + x, strict=True)]
    return np.mean(hits, axis=0, dtype=float), len(hits)
