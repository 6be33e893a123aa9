"""Image-text retrieval: recall both ways.

Image to text a query is an image and any of its captions is right; text to image every caption is
a query and its image is right.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from replication import metrics
from replication.retrieval import cosine_scorer

TOP = (1, 5, 10)
# A convention's name -> consecutive folds whose mean it is: five of COCO's 5K test are the 1K one.
FOLDS = {"image_text": 1, "image_text_5_folds": 5}


@dataclass(frozen=True)
class ImageTextRanks:
    """Per-query ranks, 1 is best: of an image's best caption, and of a caption's image. With
    folds, ranks are within the query's own fold."""

    image_to_text: Int64[Tensor, " image"]
    text_to_image: Int64[Tensor, " caption"]
    owner: Int64[Tensor, " caption"]
    n_folds: int = 1

    def metrics(self) -> dict[str, float]:
        """i2t_R@k, t2i_R@k for k = 1, 5, 10 and mean_R@1, the mean of both R@1, in 0..1; with
        folds the mean over folds, which are of one size."""
        return {name: float(values.mean()) for name, values in self._per_image().items()}

    def median_ranks(self) -> dict[str, float]:
        """i2t and t2i: median rank (mean of the middle two), with folds the mean over folds."""
        sides = {"i2t": self.image_to_text, "t2i": self.text_to_image}
        return {name: float(ranks.double().view(self.n_folds, -1).quantile(0.5, dim=1).mean())
                for name, ranks in sides.items()}

    def median_intervals(self, n_bootstrap: int = 1000, seed: int = 0
                         ) -> dict[str, tuple[float, float]]:
        """95 % intervals of `median_ranks`, over images as in `summary`, drawn fold by fold."""
        n, draw = len(self.image_to_text) // self.n_folds, np.random.default_rng(seed)
        sides = {"i2t": (self.image_to_text.numpy(), np.arange(len(self.image_to_text))),
                 "t2i": (self.text_to_image.numpy(), self.owner.numpy())}
        medians = {name: np.zeros(n_bootstrap) for name in sides}
        for fold in range(self.n_folds):
            for start in range(0, n_bootstrap, 50):  # 50 resamples at a time bound the memory
                part = slice(start, min(start + 50, n_bootstrap))
                count = draw.multinomial(n, np.full(n, 1 / n), part.stop - start)  # (sample, image)
                for name, (ranks, image) in sides.items():
                    own = image // n == fold
                    medians[name][part] += _medians(ranks[own], count[:, image[own] - fold * n])
        return {name: tuple(np.quantile(values / self.n_folds, (0.025, 0.975)).tolist())
                for name, values in medians.items()}

    def summary(self, n_bootstrap: int = 1000, seed: int = 0) -> dict[str, dict[str, float]]:
        """`metrics` with 95 % intervals (`metrics.summary`), over images: an image is drawn with
        all of its captions, which are not independent queries."""
        return metrics.summary(self._per_image(), n_bootstrap, seed)

    def _per_image(self) -> dict[str, Float[Tensor, " image"]]:
        """Values whose mean over images is the metric: a caption's hit goes to its image."""
        n, values = len(self.image_to_text), {}
        for k in TOP:
            values[f"i2t_R@{k}"] = (self.image_to_text <= k).double()
            hits = torch.bincount(self.owner, (self.text_to_image <= k).double(), n)
            values[f"t2i_R@{k}"] = hits * n / len(self.owner)
        return values | {"mean_R@1": (values["i2t_R@1"] + values["t2i_R@1"]) / 2}


def _medians(ranks: Int64[np.ndarray, " query"], count: Int64[np.ndarray, "sample query"]
             ) -> Float[np.ndarray, " sample"]:
    """Each sample's median rank, a query being in it `count` times."""
    order = np.argsort(ranks)
    below = np.cumsum(count[:, order], axis=1)
    middle = below[:, -1:] / 2
    places = (below < middle).sum(1), (below <= middle).sum(1)  # the middle two, or one twice
    return (ranks[order][places[0]] + ranks[order][places[1]]) / 2


def image_text_ranks(images: Float[Tensor, "image dim"], texts: Float[Tensor, "caption dim"],
                     owner: Int64[np.ndarray, " caption"] | Int64[Tensor, " caption"], *,
                     n_folds: int = 1, chunk: int = 512, half: bool = False
                     ) -> ImageTextRanks:
    """Ranks both ways by cosine in float32, on the device of the embeddings; results on the CPU.

    owner: row of each caption's image, ascending. Equal scores: the lower index first, as
    `metrics.positive_ranks`. n_folds: 5 on COCO's 5,000 gives the 1K protocol, the mean over
    consecutive folds of 1,000 images. chunk: images of a block of scores, which is chunk x (their
    captions); each pair is scored once. half: scores are rounded to half precision before they are
    compared, as the public code does: that makes ties. Raises ValueError where shapes or owner do
    not fit, folds are not of one size, or an embedding is not finite (with its row).
    """
    owner = torch.as_tensor(owner).long().cpu()
    first = _first_captions(images, texts, owner, n_folds, chunk)
    size, parts = len(images) // n_folds, []
    for start in range(0, len(images), size):
        rows, columns = slice(start, start + size), slice(first[start], first[start + size])
        parts.append(_ranks(images[rows], texts[columns], owner[columns] - start, chunk, half))
    return ImageTextRanks(*map(torch.cat, zip(*parts, strict=True)), owner, n_folds)


def _first_captions(images, texts, owner, n_folds: int, chunk: int) -> list[int]:
    """Each image's first caption, and the end; checks what came in."""
    if images.ndim != 2 or texts.ndim != 2 or owner.shape != texts.shape[:1]:
        raise ValueError(f"images are {tuple(images.shape)}, captions {tuple(texts.shape)}, owner "
                         f"{tuple(owner.shape)}: two matrices, and a row for each caption")
    rows = torch.arange(len(images) + 1)
    if not torch.equal(owner.unique_consecutive(), rows[:-1]):
        raise ValueError("owner must ascend from 0, and every image have a caption")
    for what, embeddings in (("image", images), ("caption", texts)):
        if bad := (~embeddings.isfinite().all(1)).nonzero().flatten().tolist():
            raise ValueError(f"embedding of {what} {bad[0]} is NaN or infinite")
    if chunk < 1 or n_folds < 1:
        raise ValueError(f"chunk is {chunk}, n_folds {n_folds}: they must be 1 or more")
    first = torch.searchsorted(owner, rows)
    each = first[:: max(1, len(images) // n_folds)].diff().tolist()
    if not len(images) or len(images) % n_folds or len(set(each)) > 1 < n_folds:
        raise ValueError(f"{len(images)} images with {len(texts)} captions do not make {n_folds} "
                         "folds of one size")
    return first.tolist()


@torch.no_grad()
def _ranks(images, texts, owner, chunk: int, half: bool) -> tuple[Tensor, Tensor]:
    """An image's captions lie in the diagonal block of its chunk: these come first and give the
    scores that all other blocks are compared with. A block left of the diagonal holds captions of
    lower index, one above it images of lower index: there equal scores are ahead."""
    owner, device = owner.to(images.device), images.device
    rows = [slice(i, min(i + chunk, len(images))) for i in range(0, len(images), chunk)]
    ends = torch.searchsorted(owner, owner.new_tensor([0, *(r.stop for r in rows)])).tolist()
    columns = [slice(*pair) for pair in itertools.pairwise(ends)]
    scorers = [cosine_scorer(images, texts[c]) for c in columns]
    if half:
        scorers = [lambda rows, scorer=s: scorer(rows).half().float() for s in scorers]
    best, own = (torch.empty(len(x), device=device) for x in (images, texts))
    to_text, to_image = (torch.ones(len(x), dtype=torch.int64, device=device) for x in (best, own))
    for r, c, scorer in zip(rows, columns, scorers, strict=True):
        scores, image = scorer(r), owner[c] - r.start  # (rows, columns)
        row, column = (torch.arange(n, device=device) for n in scores.shape)
        mine = row[:, None] == image
        best[r], place = scores.masked_fill(~mine, -torch.inf).max(1)  # of equal ones the first
        own[c] = scores[image, column]
        than, lower = best[r, None], column < place[:, None]
        to_text[r] += torch.where(lower, scores >= than, scores > than).sum(1)
        than, lower = own[c], row[:, None] < image
        to_image[c] += torch.where(lower, scores >= than, scores > than).sum(0)
    for i, j in itertools.permutations(range(len(rows)), 2):
        r, c, scores = rows[i], columns[j], scorers[j](rows[i])
        left, above = (torch.ge, torch.gt) if j < i else (torch.gt, torch.ge)
        to_text[r] += left(scores, best[r, None]).sum(1, dtype=torch.int32)
        to_image[c] += above(scores, own[c]).sum(0, dtype=torch.int32)
    return to_text.cpu(), to_image.cpu()
