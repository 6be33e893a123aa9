"""What sketches become and what they find, while ACNet learns."""

import numpy as np
import torch
from jaxtyping import Float

from replication import data, plots, retrieval
from replication.progress import shown_in_place
from replication.sketch_experiment import Experiment
from replication.sketch_retrieval import Embedded
from replication.transforms import read_image


class Film:
    """What drawn unseen sketches become, and the photos that they find: a column an epoch.

    An instance is the `show` of `train`; in a notebook its picture is updated in place. The
    sketches are of different classes, drawn with `seed`, not chosen.
    """

    def __init__(self, e: Experiment, n: int = 2, k: int = 3, seed: int = 0):
        self.e, self.k, split, rng = e, k, e.sketch_set.val, np.random.default_rng(seed)
        labels = split.sketch.labels
        drawn = rng.permutation(np.unique(labels))[:n]
        self.queries = np.array([rng.choice(np.flatnonzero(labels == label)) for label in drawn])
        pixels = data.cached_pixels(split.sketch, e.preprocess, progress=False)[self.queries]
        self.inputs = e.preprocess.normalised(torch.from_numpy(pixels))
        found = [f"photo {place}" for place in range(1, k + 1)]
        names = [split.classes[labels[q]] for q in self.queries]
        rows = ["generated", *found] if e.model.generates else found
        self.rows = [f"{name}: {row}" for name in names for row in rows]
        blank = np.ones_like(pixels[0], dtype=np.float32)
        per_query = [[(p / 255, None), *[(blank, None)] * (len(rows) - 1)] for p in pixels]
        self.columns = {"sketch": [tile for tiles in per_query for tile in tiles]}
        self.shown = None

    def __call__(self, epoch: int, found: Embedded) -> plots.Picture:
        """Adds the column of `epoch`; returns the picture."""
        photos, column = self.e.sketch_set.val.photo, []
        best, _ = retrieval.top_k(found.query[self.queries], found.gallery, self.k)
        for query, image, row in zip(self.queries, self.generated(), best.tolist(), strict=True):
            label = self.e.sketch_set.val.sketch.labels[query]
            column += [(image, None)] if self.e.model.generates else []
            column += [(np.asarray(read_image(photos.path(i))) / 255, photos.labels[i] == label)
                       for i in row]
        self.columns[f"epoch {epoch}" if epoch else "untrained"] = column
        picture = plots.mosaic(self.columns, self.rows)
        self.shown = shown_in_place(picture, self.shown)
        return picture

    @torch.inference_mode()
    def generated(self) -> Float[np.ndarray, "n h w 3"]:
        """The images that the generator makes of the drawn sketches now, in 0..1."""
        images = self.inputs.to(self.e.fabric.device)
        return self.e.preprocess.displayable(self.e.model.generator(images))
