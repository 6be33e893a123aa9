"""What composed retrieval must beat: the reference alone, the text alone, and their sum."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from replication import retrieval
from replication.backbones import ClipBackbone
from replication.composed import Composed
from replication.data import cached_pixels
from replication.progress import bar


@torch.inference_mode()
def clip_vectors(clip: ClipBackbone, composed: Composed, device: torch.device, *,
                 batch_size: int = 128, progress: bool = False
                 ) -> tuple[Float[Tensor, "image dim"], Float[Tensor, "query dim"]]:
    """Unit vectors of every gallery image and every query's text, each once."""
    pixels = cached_pixels(composed.images, clip.preprocess, progress=progress)
    starts = bar(range(0, len(pixels), batch_size), label="encode images", shown=progress)
    blocks = (torch.from_numpy(np.array(pixels[s:s + batch_size])).to(device) for s in starts)
    images = retrieval.encode(clip.model.eval().encode_image,
                              map(clip.preprocess.normalised, blocks), device=device)
    tokens = clip.tokenizer(list(composed.texts))
    texts = retrieval.encode(clip.model.encode_text, tokens.split(4 * batch_size), device=device)
    return images, texts


def baselines(images: Float[Tensor, "image dim"], texts: Float[Tensor, "query dim"],
              composed: Composed) -> dict[str, Float[Tensor, "query dim"]]:
    """Query vectors of `image-only`, `text-only` and `sum` (of both unit vectors), whose cosines
    with `images` are the scores."""
    reference = images[torch.from_numpy(composed.reference)]
    return {"image-only": reference, "text-only": texts, "sum": F.normalize(reference + texts)}
