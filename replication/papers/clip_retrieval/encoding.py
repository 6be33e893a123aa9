"""A captioned set through a CLIP: every image once, every caption once."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from jaxtyping import Float, Int64
from safetensors import safe_open
from torch import Tensor, nn

from replication import paths, retrieval
from replication.backbones import ClipBackbone
from replication.captioned import Captions
from replication.data import cached_pixels
from replication.image_text import ImageTextRanks, image_text_ranks
from replication.progress import bar
from replication.training import write_tensors


@dataclass(frozen=True)
class Embedded:
    """Unit vectors of a set's images and captions (float32, CPU) and the image of each caption."""

    images: Float[Tensor, "image dim"]
    texts: Float[Tensor, "caption dim"]
    owner: Int64[np.ndarray, " caption"]

    def ranks(self, n_folds: int = 1, half: bool = False) -> ImageTextRanks:
        """Ranks in both directions; half: scores rounded to float16 first."""
        return image_text_ranks(self.images, self.texts, self.owner, n_folds=n_folds, half=half)

    def save(self, file: Path, about: dict) -> Path:
        """Writes images, texts and owner as safetensors; `about` goes into the header."""
        tensors = {"images": self.images, "texts": self.texts,
                   "owner": torch.from_numpy(self.owner)}
        header = {"about": json.dumps(about, sort_keys=True)}
        return paths.save_file(file, lambda tmp: write_tensors(tensors, tmp, header))


def saved(file: Path, about: dict) -> Embedded | None:
    """What `Embedded.save` wrote with the same `about`; None where there is no such file."""
    if not file.exists():
        return None
    try:
        with safe_open(file, "pt") as stored:
            if json.loads((stored.metadata() or {})["about"]) != about:
                return None
            return Embedded(stored.get_tensor("images"), stored.get_tensor("texts"),
                            stored.get_tensor("owner").numpy())
    except Exception:  # torn, or another kind of file: it is made anew
        return None


def tokens_of(tokenizer, texts: Iterable[str], context_length: int, places: int
              ) -> tuple[Int64[Tensor, "text places"], list[int]]:
    """(tokens padded to the model's `places`, rows of the texts that were cut).

    Of a text the first `context_length` tokens are read, start and end among them (0: `places`);
    a longer one loses its last words, its end stays.
    """
    texts, length = list(texts), min(context_length or places, places)
    if length < 3:
        raise ValueError(f"context_length={context_length}: a text needs three tokens or more")
    if not isinstance(tokenizer, open_clip.SimpleTokenizer):
        return _others_tokens(tokenizer, texts, length, places)
    tokens, cut = torch.zeros(len(texts), places, dtype=torch.int64), []
    for row, text in enumerate(texts):
        ids = tokenizer.encode(text)
        if len(ids) > length - 2:
            cut.append(row)
        ids = [tokenizer.sot_token_id, *ids[:length - 2], tokenizer.eot_token_id]
        tokens[row, :len(ids)] = torch.tensor(ids)
    return tokens, cut


def _others_tokens(tokenizer, texts: list[str], length: int, places: int):
    """By a tokenizer of the hub, which pads and cuts by itself; its lengths tell what was cut."""
    if length != places:
        raise ValueError("context_length is for models with CLIP's own tokenizer: leave it at 0")
    full = tokenizer.tokenizer([tokenizer.clean_fn(text) for text in texts])["input_ids"]
    return tokenizer(texts), [row for row, ids in enumerate(full) if len(ids) > places]


@dataclass(frozen=True)
class Encoder:
    """A CLIP as two functions, and how a batch goes through it."""

    backbone: ClipBackbone
    device: torch.device
    autocast: torch.dtype | None = None
    batch_size: int = 64
    context_length: int = 0

    @property
    def model(self) -> nn.Module:
        """The CLIP."""
        return self.backbone.model

    def images(self, captions: Captions, progress: bool = False) -> Float[Tensor, "image dim"]:
        """Every image once, from pixels that are decoded once."""
        rule = self.backbone.preprocess
        pixels = cached_pixels(captions.images, rule, progress=progress)
        starts = bar(range(0, len(pixels), self.batch_size), label="encode images", unit="batch",
                     shown=progress)
        blocks = (torch.from_numpy(np.array(pixels[s:s + self.batch_size])) for s in starts)
        return self.pixels(rule.normalised(block.to(self.device)) for block in blocks)

    def pixels(self, batches: Iterable[Float[Tensor, "b 3 h w"]]) -> Float[Tensor, "image dim"]:
        """Image embeddings of batches of pixels."""
        return self._encoded(self.model.encode_image, batches)

    def tokens(self, captions: Captions, prompt: str = "{}"
               ) -> tuple[Int64[Tensor, "caption places"], list[int]]:
        """Tokens of every caption in its prompt, and the rows of those cut to the context."""
        return self.tokens_of(prompt.replace("{}", text) for text in captions.texts)

    def tokens_of(self, texts: Iterable[str]) -> tuple[Int64[Tensor, "text places"], list[int]]:
        """Tokens of texts, and the rows of those that were cut."""
        return tokens_of(self.backbone.tokenizer, texts, self.context_length,
                         self.model.context_length)

    def texts(self, tokens: Int64[Tensor, "text places"], progress: bool = False
              ) -> Float[Tensor, "text dim"]:
        """Text embeddings of tokens."""
        shown = bar(tokens.split(4 * self.batch_size), label="encode captions", unit="batch",
                    shown=progress)
        return self._encoded(self.model.encode_text, (part.to(self.device) for part in shown))

    def set(self, captions: Captions, prompt: str = "{}", progress: bool = False) -> Embedded:
        """The set's embeddings, captions in their prompt."""
        return Embedded(self.images(captions, progress),
                        self.texts(self.tokens(captions, prompt)[0], progress), captions.owner)

    def _encoded(self, function, batches: Iterable[Tensor]) -> Float[Tensor, "item dim"]:
        was_training = self.model.training
        self.model.eval()
        try:
            return retrieval.encode(function, batches, device=self.device, autocast=self.autocast)
        finally:
            self.model.train(was_training)
