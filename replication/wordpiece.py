"""Text as BLIP-2 reads it: captions cleaned, cut into WordPieces, padded to one length.

The vocabulary is bert-base-uncased's with `[DEC]` behind it; the demo makes a small one of its own
captions.
"""

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tokenizers
import torch
from jaxtyping import Bool, Int64
from tokenizers import models, normalizers, pre_tokenizers, processors
from torch import Tensor

from replication import paths

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LAST = "[DEC]"  # appended by BLIP-2: no text holds it, but the word embedding has its row
N_TOKENS = 30_523  # rows of BLIP-2's word embedding
MAX_TOKENS = 32  # of a text, with [CLS] and [SEP]
MAX_WORDS = 50  # of a caption
# Only these: commas, hyphens, apostrophes and question marks stay, and become tokens.
BLANKED = str.maketrans(dict.fromkeys('.!"()*#:;~', " "))
PUBLISHED = "https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt"


class VocabularyError(ValueError):
    """A vocabulary that is absent or does not fit the model; says what to do."""


def clean_caption(text: str, max_words: int = MAX_WORDS) -> str:
    """LAVIS's `blip_caption`: lower case, `.!"()*#:;~` to blanks, single blanks between words, cut
    to max_words."""
    return " ".join(_words(text)[:max_words])


def _words(text: str) -> list[str]:
    return text.lower().translate(BLANKED).split()


@dataclass(frozen=True)
class Encoded:
    """Token ids and their mask (1 is a token, 0 padding), with [CLS] first and [SEP] last of a
    text's tokens. cut: texts that lost words or tokens."""

    ids: Int64[Tensor, "text token"]
    mask: Int64[Tensor, "text token"]
    cut: Bool[Tensor, " text"]

    @property
    def n_cut(self) -> int:
        """Captions that did not fit."""
        return int(self.cut.sum())


@dataclass(frozen=True)
class WordPiece:
    """bert-base-uncased's rules (lower case, no accents, punctuation apart) on a vocabulary, which
    `[DEC]` ends: it is appended where it is not there. A token's id is its place."""

    tokens: tuple[str, ...]
    max_tokens: int = MAX_TOKENS

    def __post_init__(self):
        tokens = tuple(self.tokens)
        twice = [token for token, n in Counter(tokens).items() if n > 1]
        absent = [token for token in SPECIAL if token not in tokens]
        if twice or absent:
            told = [f"lacks the special tokens {', '.join(absent)}"] * bool(absent)
            told += [f"holds {len(twice)} tokens more than once: {', '.join(twice[:12])}"] \
                * bool(twice)
            raise VocabularyError(f"the vocabulary of {len(tokens):,} {' and '.join(told)}; "
                                  f"bert-base-uncased's is at {PUBLISHED}")
        object.__setattr__(self, "tokens", tokens + (LAST,) * (LAST not in tokens))

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        place = {token: i for i, token in enumerate(self.tokens)}
        made = tokenizers.Tokenizer(models.WordPiece(place, unk_token="[UNK]",
                                                     max_input_chars_per_word=100))
        made.normalizer, made.pre_tokenizer = NORMALIZER, PRE_TOKENIZER
        made.post_processor = processors.BertProcessing(
            *((token, place[token]) for token in ("[SEP]", "[CLS]")))
        made.enable_truncation(self.max_tokens)
        made.enable_padding(pad_id=place["[PAD]"], pad_token="[PAD]", length=self.max_tokens)
        return made

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Cleaned (`clean_caption`), cut to max_tokens and padded to that. An empty text is [CLS]
        and [SEP] alone."""
        read = self._tokenizer.encode_batch([clean_caption(text) for text in texts])
        cut = [bool(own.overflowing) or len(_words(text)) > MAX_WORDS
               for own, text in zip(read, texts, strict=True)]
        shape = len(read), self.max_tokens
        ids, mask = (torch.tensor(rows, dtype=torch.int64).reshape(shape) for rows in
                     ([own.ids for own in read], [own.attention_mask for own in read]))
        return Encoded(ids, mask, torch.tensor(cut, dtype=torch.bool))

    def decode(self, ids: Int64[Tensor, " token"]) -> str:
        """The words that a model reads in one text; [UNK] stands for what it cannot."""
        pieces = [self.tokens[i] for i in ids.tolist()]
        words = [piece for piece in pieces if piece not in ("[PAD]", "[CLS]", "[SEP]")]
        return " ".join(words).replace(" ##", "")


NORMALIZER = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
PRE_TOKENIZER = pre_tokenizers.BertPreTokenizer()


def read_wordpiece(file: str | Path, n_tokens: int = N_TOKENS, max_tokens: int = MAX_TOKENS
                   ) -> WordPiece:
    """The WordPieces of a vocabulary file, a token a line, with `[DEC]` or without.

    n_tokens: rows of the model's word embedding. Raises VocabularyError for a file that is absent,
    holds another number, repeats a token or lacks a special one.
    """
    file = paths.user_path(file)
    if not file.is_file():
        raise VocabularyError(f"no vocabulary {paths.shown(file)}: bert-base-uncased's vocab.txt "
                              f"is published on the Hugging Face hub, {PUBLISHED}")
    try:
        tokens = tuple(file.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{paths.shown(file)} is not UTF-8 text ({error})") from None
    n = len(tokens) + (LAST not in tokens)
    if n != n_tokens:
        raise VocabularyError(f"{paths.shown(file)} makes {n:,} tokens with {LAST}, the model has "
                              f"{n_tokens:,}: bert-base-uncased's vocab.txt ({PUBLISHED}) makes "
                              f"{N_TOKENS:,}")
    return WordPiece(tokens, max_tokens)


def build_vocabulary(texts: Iterable[str], size: int = 2_000) -> tuple[str, ...]:
    """At most `size` tokens that spell every text: the special ones, all characters (those of the
    texts, letters and digits), each also as a continuation, the most frequent words, of equal ones
    the first by alphabet, and [DEC]. The same whatever the order of the texts.

    Raises VocabularyError where size is too small for the characters.
    """
    words = Counter(word for text in texts for word in _split_words(clean_caption(text)))
    letters = sorted({*string.ascii_lowercase, *string.digits, *"".join(words)})
    fixed = (*SPECIAL, *letters, *(f"##{letter}" for letter in letters))
    room = size - len(fixed) - 1
    if room < 0:
        raise VocabularyError(f"a vocabulary of {size:,} cannot hold the {len(fixed) + 1:,} "
                              "special tokens and characters of the texts: give a larger size")
    ranked = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return (*fixed, *[word for word, _ in ranked if len(word) > 1][:room], LAST)


def _split_words(text: str) -> list[str]:
    split = PRE_TOKENIZER.pre_tokenize_str(NORMALIZER.normalize_str(text))
    return [word for word, _ in split]


def write_vocabulary(file: str | Path, tokens: Sequence[str]) -> Path:
    """A token a line, as `read_wordpiece` reads it."""
    return paths.write_atomic(file, "".join(f"{token}\n" for token in tokens))
