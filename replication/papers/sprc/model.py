"""SPRC: a reference image and a text become a sentence-level prompt, the prompt a query.

Paper: Bai et al., Sentence-level Prompts Benefit Composed Image Retrieval, ICLR 2024
(arXiv 2310.05473), section 3. The frozen image encoder is not in here: images come as its output
before `ln_vision`, which never changes in training and can be stored.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from replication.papers.sprc.qformer import QFormer, QFormerConfig


class Features(NamedTuple):
    """What the losses compare; all but `prompt` have unit length."""

    query: Float[Tensor, "b e"]
    prompted: Float[Tensor, "b e"]
    target: Float[Tensor, "b q e"]
    prompt: Float[Tensor, "b q d"]


def similarity(query: Float[Tensor, "m e"], target: Float[Tensor, "n q e"]
               ) -> Float[Tensor, "m n"]:
    """The largest inner product of a query's feature with one of a target's; always in float32."""
    with torch.autocast(query.device.type, enabled=False):
        return (query.float() @ target.float().flatten(0, 1).T).unflatten(
            1, target.shape[:2]).max(-1).values


class SPRC(nn.Module):
    """Q-Former, prompts and projections; parameters bear the names of the published checkpoint.

    embed_dim: of the features that are compared. The text is input_ids and attention_mask, [CLS]
    first. `itm_head` is in the checkpoints, but no loss and no score of SPRC uses it: frozen.
    """

    def __init__(self, config: QFormerConfig | None = None, embed_dim: int = 256,
                 temp: float = 0.07):
        super().__init__()
        config = config or QFormerConfig()
        width, count = config.hidden_size, config.num_query_token
        self.config = config
        self.ln_vision = nn.LayerNorm(config.encoder_width)
        self.Qformer = QFormer(config)
        self.query_tokens = nn.Parameter(torch.randn(1, count, width) * 0.02)
        self.prompt_tokens = nn.Parameter(torch.randn(1, count, width) * 0.02)
        self.vision_proj = nn.Linear(width, embed_dim)
        self.text_proj = nn.Linear(width, embed_dim)
        self.itm_head = nn.Linear(width, 2).requires_grad_(False)
        self.temp = nn.Parameter(torch.tensor(float(temp)))

    def _read(self, image: Tensor, *text: Tensor) -> Float[Tensor, "b q+t d"]:
        """The learned queries, and a text behind them, read images that may be stored in half
        precision."""
        queries = self.query_tokens.expand(len(image), -1, -1)
        return self.Qformer(queries, *text, image=self.ln_vision(image.float()))

    def sentence_prompt(self, reference: Float[Tensor, "b n w"], input_ids: Int64[Tensor, "b t"],
                        attention_mask: Int64[Tensor, "b t"]) -> Float[Tensor, "b q d"]:
        """Step 1: the query outputs for a reference image and a text."""
        return self._read(reference, input_ids, attention_mask)[:, :self.config.num_query_token]

    def query_features(self, prompt: Float[Tensor, "b q d"], input_ids: Int64[Tensor, "b t"],
                       attention_mask: Int64[Tensor, "b t"]) -> Float[Tensor, "b e"]:
        """Step 2: the prompt and the text again, without an image; read at the text's [CLS]."""
        found = self.Qformer(prompt, input_ids, attention_mask)
        return F.normalize(self.text_proj(found[:, prompt.shape[1]]).float(), dim=-1)

    def prompted_features(self, input_ids: Int64[Tensor, "b t"],
                          attention_mask: Int64[Tensor, "b t"]) -> Float[Tensor, "b e"]:
        """Query features of loss `rtc`: the learned prompts and the text, read at [CLS]."""
        prompts = self.prompt_tokens.expand(len(input_ids), -1, -1)
        found = self.Qformer.prompted(prompts, input_ids, attention_mask)
        return F.normalize(self.text_proj(found[:, 0]).float(), dim=-1)

    def encode_query(self, reference: Float[Tensor, "b n w"], input_ids: Int64[Tensor, "b t"],
                     attention_mask: Int64[Tensor, "b t"]) -> Float[Tensor, "b e"]:
        """Steps 1 and 2: what retrieval asks with."""
        text = input_ids, attention_mask
        return self.query_features(self.sentence_prompt(reference, *text), *text)

    def encode_target(self, image: Float[Tensor, "b n w"]) -> Float[Tensor, "b q e"]:
        """Step 3: a feature for each query token; `similarity` is step 4."""
        return F.normalize(self.vision_proj(self._read(image)).float(), dim=-1)

    def forward(self, reference: Float[Tensor, "b n w"], target: Float[Tensor, "b n w"],
                input_ids: Int64[Tensor, "b t"], attention_mask: Int64[Tensor, "b t"]) -> Features:
        """What the losses need, every image and text once."""
        text = input_ids, attention_mask
        prompt = self.sentence_prompt(reference, *text)
        return Features(self.query_features(prompt, *text), self.prompted_features(*text),
                        self.encode_target(target), prompt)
