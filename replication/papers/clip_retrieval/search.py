"""A sentence finds images, an image finds sentences, in any prepared set."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from replication import backbones, paths, retrieval, training
from replication.captioned import Captions, read_captioned
from replication.papers.clip_retrieval.checkpoint import FORCED
from replication.papers.clip_retrieval.config import Search
from replication.papers.clip_retrieval.encoding import Embedded, Encoder, saved
from replication.transforms import read_image

Found = tuple[str | Path, bool | None, float]  # a caption or a picture, right or not, cosine
"""A caption, or the file of a picture; whether it is right (None: not known); its cosine."""


@dataclass(frozen=True)
class Index:
    """A captioned set, its embeddings and the model that made them."""

    captions: Captions
    embedded: Embedded
    encoder: Encoder
    prompt: str = "{}"

    def images_for(self, sentence: str, k: int) -> list[Found]:
        """The `k` images nearest to a sentence; right is the image of a caption that reads so,
        None for a sentence that is no caption of the set."""
        tokens, cut = self.encoder.tokens_of([self.prompt.replace("{}", sentence)])
        if cut:
            print("the sentence is longer than the context: its last words were not read")
        own = {int(self.captions.owner[row]) for row, text in enumerate(self.captions.texts)
               if text == sentence}
        rows, scores = self._nearest(self.encoder.texts(tokens), self.embedded.images, k)
        return [(self.captions.images.path(row), row in own if own else None, score)
                for row, score in zip(rows, scores, strict=True)]

    def captions_for(self, picture: Path, k: int) -> list[Found]:
        """The `k` captions nearest to a picture; right are the own ones of an image of the set,
        None for another picture. Raises ValueError for a file that is no picture."""
        own = next((row for row, file in enumerate(self.captions.images.files)
                    if self.captions.images.folder / file == picture), None)
        vector = self._encoded(picture) if own is None else self.embedded.images[own][None]
        rows, scores = self._nearest(vector, self.embedded.texts, k)
        owner = self.captions.owner
        return [(self.captions.texts[row], bool(owner[row] == own) if own is not None else None,
                 score) for row, score in zip(rows, scores, strict=True)]

    def query(self, given: str, seed: int = 0) -> str | Path:
        """What a query is: a picture file, a picture of the set by its name, else a sentence;
        for an empty one a caption of the set, drawn with `seed`.

        Raises FileNotFoundError for a name that ends like a picture's and is none.
        """
        images, path = self.captions.images, paths.user_path(given)
        if not given:
            return str(np.random.default_rng(seed).choice(self.captions.texts))
        if path.is_file():
            return path
        names = {file.rsplit("/", 1)[-1]: row for row, file in enumerate(images.files)}
        if given in names:
            return images.path(names[given])
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp"):
            raise FileNotFoundError(f"no picture {given!r}: a query is a picture file, a picture "
                                    f"of the set as {next(iter(names))}, or a sentence")
        return given

    def _encoded(self, picture: Path) -> Tensor:
        rule = self.encoder.backbone.preprocess
        try:
            pixels = rule.resized(read_image(picture, upright=True))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{paths.shown(picture)} is not a whole picture "
                             f"({str(error)[:80]})") from error
        batch = rule.normalised(torch.from_numpy(pixels.copy())[None].to(self.encoder.device))
        return self.encoder.pixels([batch])

    @staticmethod
    def _nearest(query: Tensor, gallery: Tensor, k: int) -> tuple[list[int], list[float]]:
        rows, scores = retrieval.top_k(query, gallery, min(k, len(gallery)))
        return rows[0].tolist(), scores[0].tolist()


def opened(config: Search, progress: bool = True) -> Index:
    """The set's index: from `save_root` where it was made before, else made and kept there."""
    captions = read_captioned(config.dataset_root, config.dataset, config.split,
                              allow_partial=config.allow_partial)
    folder, fabric = paths.writable_folder(config.save_root), training.start(config.seed)
    backbone = backbones.clip(config.model, config.weights, config.seed,
                              quick_gelu=FORCED.get(config.quick_gelu))
    backbone.model.to(fabric.device)
    encoder = Encoder(backbone, fabric.device)
    about = {"sha256": backbone.sha256, "quick_gelu": backbone.quick_gelu,
             "manifest": captions.manifest, "prompt": config.prompt}
    file = folder / f"{backbone.name}-{captions.name}-{captions.split}.safetensors"
    embedded = saved(file, about)
    if embedded is None:
        embedded = encoder.set(captions, config.prompt, progress)
        embedded.save(file, about)
    return Index(captions, embedded, encoder, config.prompt)


def examples(captions: Captions, embedded: Embedded, n: int = 4, k: int = 6, seed: int = 0
             ) -> dict[str, list[tuple[str | Path, list[Found]]]]:
    """Rows for `plots.image_text`: `n` captions with the `k` images they find, `n` images with the
    captions they find. Drawn with `seed`, not chosen: good and bad ones appear as they come."""
    rng, owner = np.random.default_rng(seed), captions.owner
    texts = rng.permutation(len(captions.texts))[:n].tolist()
    images = rng.permutation(len(captions.images))[:n].tolist()
    found = retrieval.top_k(embedded.texts[texts], embedded.images, min(k, len(captions.images)))
    by_text = [(captions.texts[t], [(captions.images.path(row), bool(owner[t] == row), score)
                                    for row, score in zip(*pair, strict=True)])
               for t, *pair in zip(texts, *(f.tolist() for f in found), strict=True)]
    found = retrieval.top_k(embedded.images[images], embedded.texts, min(k, len(captions.texts)))
    by_image = [(captions.images.path(i), [(captions.texts[row], bool(owner[row] == i), score)
                                           for row, score in zip(*pair, strict=True)])
                for i, *pair in zip(images, *(f.tolist() for f in found), strict=True)]
    return {"t2i": by_text, "i2t": by_image}
