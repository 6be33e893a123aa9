"""Captions as BLIP-2 reads them: clean-up, WordPieces, vocabularies, official and doodle texts."""

import json
from pathlib import Path

import pytest
import tokenizers
import torch

from replication import wordpiece
from replication.composed import TYPES, query_text, read_composed
from replication.wordpiece import (
    SPECIAL,
    VocabularyError,
    WordPiece,
    build_vocabulary,
    clean_caption,
    read_wordpiece,
    write_vocabulary,
)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
BERT = SHARED / "bert_base_uncased_vocab" / "vocab.txt"
WORDS = (*SPECIAL, "a", "red", "dress", "##es", "long", "##er", ",", "'", "s", "cafe", "-", "?")


@pytest.fixture(scope="module")
def bert() -> WordPiece:
    if not BERT.is_file():
        pytest.skip(f"no bert-base-uncased vocabulary: {BERT} is not there")
    return read_wordpiece(BERT)


@pytest.fixture(scope="module")
def captions() -> dict[str, list[str]]:
    """Every text of the official files."""
    if not (SHARED / "annotations").is_dir():
        pytest.skip(f"no official captions: {SHARED / 'annotations'} is not there")
    found = {}
    for split in ("val", "test1"):
        file = SHARED / f"annotations/cirr/captions/cap.rc2.{split}.json"
        found[f"cirr {split}"] = [row["caption"] for row in json.loads(file.read_text())]
    for split in ("train", "val"):
        rows = [row for kind in TYPES for row in json.loads(
            (SHARED / f"annotations/fashioniq/captions/cap.{kind}.{split}.json").read_text())]
        found[f"fashioniq {split}"] = [query_text(tuple(row["captions"])) for row in rows]
    return found


# clean-up


@pytest.mark.parametrize(("text", "clean"), [
    ("  A Red   dress. ", "a red dress"),
    ("(Long)er; than: #1 *this* ~ \"one\"!", "long er than 1 this one"),
    ("it's red, isn't it? A-line", "it's red, isn't it? a-line"),
    ("no.sleeves", "no sleeves"), ("two\n lines\t here\n", "two lines here"),
    ("", ""), (" . ", ""), ("CAFÉ", "café")])
def test_captions_are_cleaned(text, clean):
    assert clean_caption(text) == clean


def test_captions_are_cut_to_fifty_words():
    text = " ".join(f"w{i}" for i in range(60))
    assert clean_caption(text).split() == [f"w{i}" for i in range(50)]
    assert clean_caption(text, 3) == "w0 w1 w2"


# word pieces


def test_ids_are_places_padded_between_marks():
    found = WordPiece(WORDS, max_tokens=8).encode(["Red dresses.", ""])
    assert found.ids.tolist() == [[2, 5, 6, 7, 3, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0, 0]]
    assert found.mask.tolist() == [[1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]
    assert found.ids.dtype == found.mask.dtype == torch.int64 and found.n_cut == 0


def test_punctuation_is_apart_and_accents_are_gone():
    reader = WordPiece(WORDS)
    assert reader.decode(reader.encode(["Red,dress's CAFÉ-red?"]).ids[0]) == \
        "red , dress ' s cafe - red ?"
    assert reader.decode(reader.encode(["a blue dress"]).ids[0]) == "a [UNK] dress"


def test_long_texts_are_cut_and_counted():
    reader = WordPiece(WORDS, max_tokens=6)
    found = reader.encode(["red red red red", "red " * 5, "dresses longer", "longer longer dress"])
    assert found.ids.shape == (4, 6) and found.cut.tolist() == [False, True, False, True]
    assert found.ids[1].tolist() == [2, 5, 5, 5, 5, 3] and found.n_cut == 2
    wide = WordPiece(WORDS, max_tokens=80)
    assert wide.encode(["red " * 51, "red " * 50]).cut.tolist() == [True, False]
    assert wide.encode(["red " * 51]).mask.sum() == 52


def test_no_text_is_an_empty_batch():
    found = WordPiece(WORDS).encode([])
    assert found.ids.shape == found.mask.shape == (0, 32) and found.n_cut == 0


def test_dec_ends_the_vocabulary_once():
    assert WordPiece(WORDS).tokens == (*WORDS, "[DEC]")
    assert WordPiece((*WORDS, "[DEC]")).tokens == (*WORDS, "[DEC]")
    assert len(WordPiece(WORDS)) == len(WORDS) + 1


def test_marks_in_a_caption_are_only_words():
    reader = WordPiece((*WORDS, "[", "]", "sep", "dec"))
    ids = reader.encode(["[SEP] red [DEC]"]).ids[0]
    assert reader.decode(ids) == "[ sep ] red [ dec ]"


# vocabulary files


def test_a_vocabulary_round_trips_through_a_file(tmp_path):
    for tokens in (WORDS, (*WORDS, "[DEC]")):
        file = write_vocabulary(tmp_path / "vocab.txt", tokens)
        assert read_wordpiece(file, len(WORDS) + 1).tokens == (*WORDS, "[DEC]")
    file.write_bytes("\r\n".join(WORDS).encode())
    assert read_wordpiece(file, len(WORDS) + 1).tokens == (*WORDS, "[DEC]")
    assert read_wordpiece(file, len(WORDS) + 1, max_tokens=9).encode(["a"]).ids.shape == (1, 9)


def test_an_absent_vocabulary_says_where_it_is_published(tmp_path):
    with pytest.raises(VocabularyError, match="no vocabulary .*none.txt: bert-base-uncased's "
                       "vocab.txt is published on the Hugging Face hub, https://huggingface.co/"):
        read_wordpiece(tmp_path / "none.txt")


@pytest.mark.parametrize(("content", "n", "told"), [
    ("\n".join(WORDS), 30_523, "makes 17 tokens with .DEC., the model has 30,523"),
    ("\n".join(WORDS[2:]), 15, r"lacks the special tokens \[PAD\], \[UNK\]"),
    ("\n".join((*WORDS, "red", "long")), 19, "holds 2 tokens more than once: red, long"),
    (b"\xff\xfe[\x00P\x00", 9, "is not UTF-8 text")])
def test_a_vocabulary_that_does_not_fit_is_told(tmp_path, content, n, told):
    file = tmp_path / "vocab.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(VocabularyError, match=told):
        read_wordpiece(file, n)


# a vocabulary of one's own


def test_a_built_vocabulary_spells_every_text_whatever_the_order():
    texts = ["make it red", "make it é & reddish", "a house at night"]
    tokens = build_vocabulary(texts, 100)
    assert tokens == build_vocabulary(texts[::-1], 100) and len(set(tokens)) == len(tokens)
    assert tokens[:4] == SPECIAL and tokens[-1] == "[DEC]"
    assert tokens[-8:-1] == ("it", "make", "at", "house", "night", "red", "reddish")
    reader = WordPiece(tokens)
    assert reader.decode(reader.encode(["Unseen words & zoo 42"]).ids[0]) == \
        "unseen words & zoo 42"


def test_a_small_vocabulary_keeps_the_most_frequent_words():
    texts = ["red red red blue blue green"]
    whole = build_vocabulary(texts, 500)
    small = build_vocabulary(texts, len(whole) - 2)
    assert small == (*whole[:-3], "[DEC]") and small[-2] == "red"
    reader = WordPiece(small)
    assert reader.decode(reader.encode(texts).ids[0]) == texts[0]
    least = len(whole) - 3
    assert len(build_vocabulary(texts, least)) == least
    with pytest.raises(VocabularyError, match=f"of {least - 1} cannot hold the {least} special"):
        build_vocabulary(texts, least - 1)


@pytest.mark.parametrize("name", ["doodles_cirr", "doodles_fashioniq"])
def test_doodle_captions_are_read_without_an_unknown(doodles, name):
    cirr = name == "doodles_cirr"
    train = read_composed(doodles, name, "train")
    reader = WordPiece(build_vocabulary([c for own in train.captions for c in own]))
    sets = [train] + ([read_composed(doodles, name, s) for s in ("val", "test1")] if cirr else
                      [read_composed(doodles, name, "val", types=kind) for kind in TYPES])
    for found in sets:
        texts = (*found.texts, *found.training_texts(0, 0))
        read = reader.encode(texts)
        assert read.n_cut == 0
        for text, ids in zip(texts, read.ids, strict=True):
            assert reader.decode(ids).replace(" - ", "-") == clean_caption(text)


# the official vocabulary and texts


def test_the_official_vocabulary_has_dec_at_its_end(bert):
    assert len(bert) == 30_523 and bert.tokens[-1] == "[DEC]"
    found = bert.encode(["Remove all but one dog."]).ids[0]
    assert found[:9].tolist() == [101, 6366, 2035, 2021, 2028, 3899, 102, 0, 0]


def test_no_official_text_fails(bert, captions):
    """The published texts have no [UNK]; few are longer than 32 tokens."""
    cut = {}
    for name, texts in captions.items():
        read = bert.encode(texts)
        assert (read.ids == 100).sum() == 0, name
        assert (read.mask.sum(1) >= 2).all() and read.ids.max() < 30_522
        cut[name] = read.n_cut
    assert cut == {"cirr val": 13, "cirr test1": 15, "fashioniq train": 3, "fashioniq val": 1}


def test_pieces_are_the_librarys_own_bert(bert, captions):
    own = tokenizers.BertWordPieceTokenizer(str(BERT), lowercase=True)
    own.enable_truncation(32)
    texts = captions["cirr val"] + captions["fashioniq val"]
    read, wanted = bert.encode(texts), own.encode_batch([clean_caption(text) for text in texts])
    for ids, mask, other in zip(read.ids, read.mask, wanted, strict=True):
        assert ids[mask.bool()].tolist() == other.ids


def test_the_limits_are_blip_2s():
    assert (wordpiece.N_TOKENS, wordpiece.MAX_TOKENS, wordpiece.MAX_WORDS) == (30_523, 32, 50)
