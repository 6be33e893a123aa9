"""BLIP-2's Q-Former: a BERT of base size, with learned queries that read an image.

Paper: Li et al., BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and
Large Language Models, ICML 2023 (arXiv 2301.12597), section 3.1. Parameters bear the names of the
published checkpoints. As in SPRC's code, queries have their own feed-forward only where an image is
given; in LAVIS and in transformers they have it because they are queries.
Verified: by way of SPRC's values; against transformers where that is installed (tests). Not in
here: BERT's pooler and heads, the cache and the causal mask that generate text.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn


@dataclass(frozen=True)
class QFormerConfig:
    """Sizes, the defaults BERT-base beside ViT-g/14. vocab_size: bert-base-uncased's 30,522 and
    `[DEC]`. encoder_width: of an image token. Raises ValueError."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    vocab_size: int = 30523
    max_position_embeddings: int = 512
    encoder_width: int = 1408
    cross_attention_freq: int = 2  # layers 0, 2, ... read the image
    num_query_token: int = 32
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12

    def __post_init__(self):
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of "
                             f"num_attention_heads {self.num_attention_heads}")


class Embeddings(nn.Module):
    """Words and vectors to normed input tokens, in the two orders that SPRC uses."""

    def __init__(self, config: QFormerConfig):
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.LayerNorm = nn.LayerNorm(width, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def placed(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Tokens with the embeddings of positions 0 to t - 1. Raises ValueError."""
        count, known = tokens.shape[1], self.position_embeddings.num_embeddings
        if count > known:
            raise ValueError(f"{count} tokens, but positions for {known}")
        return tokens + self.position_embeddings.weight[:count]

    def forward(self, queries: Float[Tensor, "b q d"], input_ids: Int64[Tensor, "b t"] | None = None
                ) -> Float[Tensor, "b q+t d"]:
        """Queries, then the text; positions on the text only."""
        tokens = queries
        if input_ids is not None:
            tokens = torch.cat([queries, self.placed(self.word_embeddings(input_ids))], dim=1)
        return self.dropout(self.LayerNorm(tokens))

    def prompted(self, prompts: Float[Tensor, "b p d"], input_ids: Int64[Tensor, "b t"]
                 ) -> Float[Tensor, "b p+t d"]:
        """[CLS], the prompts, the rest of the text; positions on all."""
        words = self.word_embeddings(input_ids)
        tokens = self.placed(torch.cat([words[:, :1], prompts, words[:, 1:]], dim=1))
        return self.dropout(self.LayerNorm(tokens))


class Heads(nn.Module):
    """Scaled dot-product attention of tokens over a source, heads side by side again."""

    def __init__(self, config: QFormerConfig, source_width: int):
        super().__init__()
        width = config.hidden_size
        self.query = nn.Linear(width, width)
        self.key, self.value = nn.Linear(source_width, width), nn.Linear(source_width, width)
        self.heads, self.dropout = config.num_attention_heads, config.attention_probs_dropout_prob

    def forward(self, tokens: Float[Tensor, "b t d"], source: Float[Tensor, "b s e"],
                mask: Bool[Tensor, "b 1 1 s"] | None = None) -> Float[Tensor, "b t d"]:
        """What each token finds in `source`; mask: True where it may look."""
        projected = self.query(tokens), self.key(source), self.value(source)
        split = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)
        found = F.scaled_dot_product_attention(*split, attn_mask=mask,
                                               dropout_p=self.dropout if self.training else 0.0)
        return found.transpose(1, 2).flatten(2)  # (b, h, t, e) -> (b, t, d)


class Output(nn.Module):
    """A linear layer, dropout, the bypass added, then the norm (post-norm, as in BERT)."""

    def __init__(self, config: QFormerConfig, before: int):
        super().__init__()
        self.dense = nn.Linear(before, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Float[Tensor, "b t e"], bypass: Float[Tensor, "b t d"]
                ) -> Float[Tensor, "b t d"]:
        """Projected, added to `bypass`, normalised."""
        return self.LayerNorm(self.dropout(self.dense(x)) + bypass)


class Attention(nn.Module):
    """Attention over the tokens themselves, or over an image's of `source_width`."""

    def __init__(self, config: QFormerConfig, source_width: int):
        super().__init__()
        self.self = Heads(config, source_width)
        self.output = Output(config, config.hidden_size)

    def forward(self, tokens: Float[Tensor, "b t d"], source: Float[Tensor, "b s e"],
                mask: Bool[Tensor, "b 1 1 s"] | None = None) -> Float[Tensor, "b t d"]:
        """Attention with its output block."""
        return self.output(self.self(tokens, source, mask), tokens)


class Intermediate(nn.Module):
    """The wide layer of a feed-forward."""

    def __init__(self, config: QFormerConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t e"]:
        """The wide half of the feed-forward block."""
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """Self-attention, an image for the queries where the layer `crosses`, two feed-forwards."""

    def __init__(self, config: QFormerConfig, crosses: bool):
        super().__init__()
        self.attention = Attention(config, config.hidden_size)
        self.crossattention = Attention(config, config.encoder_width) if crosses else None
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)
        self.intermediate_query = Intermediate(config)
        self.output_query = Output(config, config.intermediate_size)

    def forward(self, tokens: Float[Tensor, "b t d"], mask: Bool[Tensor, "b 1 1 t"] | None = None,
                image: Float[Tensor, "b n e"] | None = None, queries: int = 0
                ) -> Float[Tensor, "b t d"]:
        """queries: the first tokens, how many are queries; without an image it is not looked at,
        and all tokens are treated as text."""
        tokens = self.attention(tokens, tokens, mask)
        if image is None:
            return self.output(self.intermediate(tokens), tokens)
        reading, text = tokens[:, :queries], tokens[:, queries:]
        if self.crossattention is not None:
            reading = self.crossattention(reading, image)
        reading = self.output_query(self.intermediate_query(reading), reading)
        if not text.shape[1]:
            return reading
        return torch.cat([reading, self.output(self.intermediate(text), text)], dim=1)


class QFormer(nn.Module):
    """BERT's embeddings and layers, under the checkpoint's `bert`.

    Text comes as input_ids with attention_mask, 1 where there is a word and 0 on padding.
    """

    def __init__(self, config: QFormerConfig):
        super().__init__()
        self.config, self.bert = config, nn.Module()
        self.bert.embeddings = Embeddings(config)
        self.bert.encoder = nn.Module()
        self.bert.encoder.layer = nn.ModuleList(
            Layer(config, crosses=i % config.cross_attention_freq == 0)
            for i in range(config.num_hidden_layers))
        self.apply(_as_bert)

    def forward(self, queries: Float[Tensor, "b q d"],
                input_ids: Int64[Tensor, "b t"] | None = None,
                attention_mask: Int64[Tensor, "b t"] | None = None,
                image: Float[Tensor, "b n e"] | None = None) -> Float[Tensor, "b q+t d"]:
        """Outputs of the queries, then of the text."""
        count = queries.shape[1]
        return self._layers(self.bert.embeddings(queries, input_ids),
                            _mask(count, attention_mask), image, count)

    def prompted(self, prompts: Float[Tensor, "b p d"], input_ids: Int64[Tensor, "b t"],
                 attention_mask: Int64[Tensor, "b t"]) -> Float[Tensor, "b p+t d"]:
        """Outputs of [CLS], of the prompts, of the rest of the text; there is no image.

        The mask is ones for as many tokens as there are prompts, then the text's: [CLS] is never
        padding, so that this marks the same tokens as a mask in the tokens' order.
        """
        return self._layers(self.bert.embeddings.prompted(prompts, input_ids),
                            _mask(prompts.shape[1], attention_mask))

    def _layers(self, tokens: Tensor, mask: Tensor | None, image: Tensor | None = None,
                queries: int = 0) -> Tensor:
        for layer in self.bert.encoder.layer:
            tokens = layer(tokens, mask, image, queries)
        return tokens


def _mask(ones: int, attention_mask: Tensor | None) -> Bool[Tensor, "b 1 1 t"] | None:
    """`ones` tokens that all may see, then the text's mask; None where there is no text."""
    if attention_mask is None:
        return None
    return F.pad(attention_mask != 0, (ones, 0), value=True)[:, None, None]


def _as_bert(module: nn.Module) -> None:
    """BERT's start: weights from N(0, 0.02), biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
