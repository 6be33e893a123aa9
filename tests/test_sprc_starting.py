"""What SPRC starts from and what is opened again: published forms, sizes, words; pretraining."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_sprc_encoders import SMALL as TOWER
from test_sprc_encoders import as_transformers, made_up
from test_sprc_runs import SMALL

from replication import backbones, data, paths, training
from replication.backbones import WeightsError
from replication.composed import read_composed
from replication.data import DatasetError
from replication.feature_store import FeatureStore
from replication.papers.sprc import encoders, pretraining, starting
from replication.papers.sprc.config import Config, Evaluate
from replication.papers.sprc.measuring import evaluate, opened
from replication.papers.sprc.model import SPRC
from replication.papers.sprc.pretraining import (
    Contrast,
    Pairs,
    Pretraining,
    image_text_contrast,
)
from replication.papers.sprc.qformer import QFormerConfig
from replication.papers.sprc.starting import sizes, starting_point, trained_point
from replication.wordpiece import (
    Encoded,
    VocabularyError,
    build_vocabulary,
    read_wordpiece,
    write_vocabulary,
)

EVA = SMALL | {"backbone": "pretrain", "weights": "", "image_weights": ""}
HUB = "Salesforce/blip2-itm-vit-g"
CLS = {"Qformer.cls.predictions.bias": (9,), "Qformer.bert.embeddings.position_ids": (1, 512),
       "Qformer.cls.predictions.transform.dense.weight": (32, 32)}  # what SPRC leaves
# transformers' names of the Q-Former's parts, written out here.
THEIRS = [("ln_vision.", "vision_model.post_layernorm."), ("vision_proj.", "vision_projection."),
          ("text_proj.", "text_projection."),
          ("Qformer.bert.embeddings.LayerNorm.", "qformer.layernorm."),
          ("Qformer.bert.embeddings.", "embeddings."),
          ("Qformer.bert.encoder.", "qformer.encoder."),
          ("attention.self.", "attention.attention.")]


def qformer(n_words: int, queries: int = 4, seed: int = 0, embed_dim: int = 16, **turned
            ) -> dict[str, torch.Tensor]:
    """A Q-Former of SMALL's size beside the small tower, in the names of SPRC's checkpoint; every
    tensor is random."""
    given = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 48, "encoder_width": 12} | turned
    shapes = SPRC(QFormerConfig(**given, vocab_size=n_words, num_query_token=queries), embed_dim)
    rng = torch.Generator().manual_seed(seed)
    return {k: 0.3 * torch.randn(v.shape, generator=rng) for k, v in shapes.state_dict().items()
            } | {"temp": torch.tensor(0.05)}


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """In transformers' names: no temperature and no prompts."""
    found = {}
    for key, value in state.items():
        for ours, theirs in THEIRS:
            key = key.replace(ours, theirs)
        found[key] = value
    return {k: v for k, v in found.items() if k not in ("temp", "prompt_tokens")}


def published(form: str, folder, state: dict[str, torch.Tensor], tower: dict[str, torch.Tensor]
              ) -> dict[str, str]:
    """A file or folder in a published form, as the options that name it."""
    folder.mkdir(exist_ok=True)
    if form == "transformers":
        vision = {f"vision_model.{k}": v for k, v in as_transformers(tower).items()}
        save_file(renamed(state) | vision, folder / "model.safetensors")
        return {"weights": str(folder)}
    extra = {k: torch.zeros(shape) for k, shape in CLS.items()}
    extra["Qformer.cls.predictions.decoder.weight"] = state[starting_words(state)].clone()
    if form == "lavis":
        blip2 = {k: v for k, v in state.items() if k != "prompt_tokens"}
        torch.save({"model": blip2 | extra}, folder / "blip2_pretrained.pth")
        torch.save(tower, folder / "eva_vit_g.pth")
        return {"weights": str(folder / "blip2_pretrained.pth"),
                "image_weights": str(folder / "eva_vit_g.pth")}
    vision = {f"visual_encoder.{k}": v for k, v in tower.items()}
    torch.save({"epoch": 7, "Blip2QformerCirAlignPrompt": state | vision | extra},
               folder / "sprc_cirr.pt")
    return {"weights": str(folder / "sprc_cirr.pt")}


def starting_words(state: dict[str, torch.Tensor]) -> str:
    return next(k for k in state if k.endswith("word_embeddings.weight"))


@pytest.fixture
def small(monkeypatch):
    """eva-g in small."""
    monkeypatch.setattr(encoders, "EVA_G", TOWER)
    monkeypatch.setattr(encoders, "BEHIND", {"eva-g": ("norm.", "blocks.2."), "clip-L": ()})


@pytest.fixture(scope="module")
def train(doodles):
    return read_composed(doodles, "doodles_cirr", "train")


@pytest.fixture(scope="module")
def words(train):
    return build_vocabulary(train.texts)


@pytest.fixture
def made(small, tmp_path, words):
    """A function from a published form to a Config that starts from it, vocab.txt beside."""
    write_vocabulary(tmp_path / "w" / "vocab.txt", words)

    def config(form, state, **turned):
        return Config(**EVA | published(form, tmp_path / "w", state, made_up()) | turned)

    return config


FORMS = ["sprc", "lavis", "transformers"]


def inputs(n: int = 3) -> tuple[torch.Tensor, ...]:
    """Image features, ids and mask."""
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 40, (n, 6), generator=rng)
    return torch.randn(n, 5, 12, generator=rng), ids, torch.ones_like(ids)


# -------------------------------------------------------------------------- the starting point


@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_of_a_published_form_is_the_models(form, made, train, words):
    state = qformer(len(words))
    model, encoder, wordpiece = starting_point(made(form, state, seed=9), train)
    new = {"sprc": set(), "lavis": {"prompt_tokens"}, "transformers": {"prompt_tokens", "temp"}}
    own = model.state_dict()
    assert own.keys() == state.keys()
    assert {k for k in own if not torch.equal(own[k], state[k])} == new[form]
    assert form != "transformers" or own["temp"].item() == pytest.approx(0.07)
    tower = encoders.eva(**TOWER)
    tower.load_state_dict({k: v.float() for k, v in made_up().items()})
    assert encoder.sha256 == backbones.state_hash(tower) and encoder.width == 12
    assert wordpiece.tokens == words


@pytest.mark.parametrize("form", ["lavis", "transformers"])
def test_prompts_that_a_blip2_lacks_are_drawn_by_the_seed(form, made, train, words):
    state = qformer(len(words))
    one, two, other = (starting_point(made(form, state, seed=seed), train)[0]
                       for seed in (1, 1, 2))
    assert torch.equal(one.prompt_tokens, two.prompt_tokens)
    assert not torch.equal(one.prompt_tokens, other.prompt_tokens)
    assert torch.equal(one.query_tokens, other.query_tokens)
    assert 0.01 < one.prompt_tokens.std() < 0.03
    torch.manual_seed(1)
    assert torch.equal(one.prompt_tokens, SPRC(one.config, 16).prompt_tokens)


def test_a_start_does_not_move_the_random_state(made, train, words):
    config, before = made("lavis", qformer(len(words))), torch.get_rng_state()
    starting_point(config, train)
    assert torch.equal(torch.get_rng_state(), before)


def test_blip2_of_lavis_lacks_the_image_tower(made, train, words):
    with pytest.raises(WeightsError, match="no image encoder.*eva_vit_g.pth.*image_weights"):
        starting_point(made("lavis", qformer(len(words)), image_weights=""), train)


@pytest.mark.parametrize("form", FORMS)
def test_of_more_query_tokens_the_first_are_taken(form, made, train, words):
    state = qformer(len(words), queries=6)
    model = starting_point(made(form, state), train)[0].eval()
    cut = {k: v[:, :4] if k in ("query_tokens", "prompt_tokens") else v for k, v in state.items()}
    whole = SPRC(replace(model.config, num_query_token=6), 16).eval()
    whole.load_state_dict(state)
    by_hand = SPRC(model.config, 16).eval()
    by_hand.load_state_dict(cut)
    image, ids, mask = inputs()
    with torch.no_grad():
        ours, wanted, other = (m.encode_query(image, ids, mask) for m in (model, by_hand, whole))
        assert torch.equal(ours, wanted) and not torch.allclose(ours, other, atol=1e-3)
        assert torch.equal(model.encode_target(image), by_hand.encode_target(image))
    if form == "sprc":
        assert torch.equal(model.prompt_tokens, state["prompt_tokens"][:, :4])


@pytest.mark.parametrize(("turned", "told"), [
    ({"num_prompts": 6}, r"query_tokens: file \(1, 4, 32\), model \(1, 6, 32\)"),
    ({"num_hidden_layers": 3}, r"layer.2.*: not in the file"),
    ({"embed_dim": 8}, r"vision_proj.weight: file \(16, 32\), model \(8, 32\)")])
def test_another_size_than_the_files_is_refused(made, train, words, turned, told):
    state = qformer(len(words))
    starting_point(made("sprc", state), train)
    with pytest.raises(WeightsError, match=told):
        starting_point(made("sprc", state, **turned), train)


# ----------------------------------------------------------------------------------- the words


def test_another_vocabulary_is_refused_with_both_numbers(made, train, words, tmp_path):
    state, n = qformer(len(words)), f"{len(words):,}"
    write_vocabulary(tmp_path / "short.txt", words[:-3])
    with pytest.raises(VocabularyError, match=f"makes {len(words) - 2:,} tokens .*model has {n}"):
        starting_point(made("sprc", state, vocabulary=str(tmp_path / "short.txt")), train)
    more = qformer(len(words) + 5)
    with pytest.raises(VocabularyError, match=f"makes {n} tokens .*has {len(words) + 5:,}"):
        starting_point(made("sprc", more), train)
    with pytest.raises(WeightsError, match=f"of {len(words) + 5:,} words, the model one of"):
        starting_point(made("sprc", more, vocabulary="training"), train)


def test_a_vocabulary_of_the_training_captions(made, train, doodles):
    fashion = read_composed(doodles, "doodles_fashioniq", "train")
    for composed in (train, fashion):
        found = starting_point(Config(**SMALL), composed)[2]
        assert not {found.tokens.index("[UNK]")} & set(
            found.encode([c for own in composed.captions for c in own]).ids.flatten().tolist())
        asked = made("sprc", qformer(len(found)), vocabulary="training")
        assert starting_point(asked, composed)[2].tokens == found.tokens
    bare = replace(fashion, captions=(("Is red", "is small"),) * len(fashion))
    found = starting_point(Config(**SMALL), bare)[2]
    assert {"is", "red", "and", "small"} <= set(found.tokens)  # "and" joins two captions


def test_the_vocabulary_lies_beside_the_weights(made, train, words, tmp_path):
    state, other = qformer(len(words)), ("[PAD]", "[CLS]", *words[1:2], *words[3:])
    assert len(other) == len(words) and other != words
    for form in ("sprc", "transformers"):
        config = made(form, state)
        assert starting_point(config, train)[2].tokens == words
    own = tmp_path / "w" / "sprc_cirr.vocab.txt"  # a file's own comes before the folder's
    write_vocabulary(own, other)
    assert starting_point(made("sprc", state), train)[2].tokens == other
    assert starting_point(made("sprc", state, vocabulary=str(tmp_path / "w" / "vocab.txt")),
                          train)[2].tokens == words
    (tmp_path / "w" / "vocab.txt").unlink()
    own.unlink()
    with pytest.raises(WeightsError, match="no vocabulary beside .*sprc_cirr.pt.*google-bert/bert-"
                       "base-uncased.*parameter vocabulary"):
        starting_point(made("sprc", state), train)


# ---------------------------------------------------------------------- what is not there


def test_default_without_a_network_names_what_to_download(small, train):
    with pytest.raises(WeightsError, match=f"{HUB} .*model.safetensors.*parameter weights"):
        starting_point(Config(**EVA | {"weights": "default"}), train)
    with pytest.raises(WeightsError, match=f"{HUB} of eva-g could not be fetched"):
        starting_point(Config(**EVA | {"weights": "default", "image_weights": "none"}), train)


def test_default_of_vit_l_names_lavis_file(small, train, monkeypatch):
    monkeypatch.setattr(encoders, "CLIP_L", encoders.CLIP_L | {"width": 64, "layers": 1,
                                                               "heads": 4})
    with pytest.raises(WeightsError, match="blip2_pretrained_vitL.pth.*storage.googleapis.com"):
        starting_point(Config(**EVA | {"backbone": "pretrain_vitL", "weights": "default",
                                       "image_weights": "none"}), train)


@pytest.mark.parametrize("weights", ["default", "doodles"])
def test_the_demos_weights_name_the_command_that_makes_them(train, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(starting, "DOODLE_QFORMER", tmp_path / "qformer.safetensors")
    with pytest.raises(WeightsError, match="qformer.safetensors.*`python -m replication run pretr"):
        starting_point(Config(**SMALL | {"weights": weights}), train)


def test_a_file_that_is_not_there_or_no_blip2_is_told(small, train, tmp_path, words):
    with pytest.raises(WeightsError, match="no file or folder .*absent.pth.*`default` .*`none`"):
        starting_point(Config(**EVA | {"weights": str(tmp_path / "absent.pth"),
                                       "image_weights": "none"}), train)
    torch.save(made_up(), tmp_path / "eva_vit_g.pth")
    with pytest.raises(WeightsError, match="eva_vit_g.pth holds no query_tokens.*no BLIP-2"):
        starting_point(Config(**EVA | {"weights": str(tmp_path / "eva_vit_g.pth")}), train)


# ------------------------------------------------------------------------------ what is opened


@pytest.mark.parametrize("given", [
    {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2,
     "intermediate_size": 40, "encoder_width": 12},
    {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1,
     "intermediate_size": 72, "encoder_width": 20}])
@pytest.mark.parametrize("names", [lambda s: s, renamed])
def test_sizes_are_read_from_the_tensors(given, names):
    state = qformer(50 + given["encoder_width"], queries=5, **given)
    assert sizes(names(state)) == QFormerConfig(
        **given, vocab_size=50 + given["encoder_width"], num_query_token=5)


def test_what_sizes_cannot_be_read_from_is_told():
    state = qformer(50)
    word = starting_words(state)
    with pytest.raises(WeightsError, match=f"no {word} and no embeddings.word_embeddings.weight"):
        sizes({k: v for k, v in state.items() if k != word})


@pytest.fixture
def authors(small, tmp_path, words):
    """The authors' form: a file with the tower inside, and its vocabulary; 64 wide, one head."""
    write_vocabulary(tmp_path / "w" / "vocab.txt", words)
    state = qformer(len(words), hidden_size=64, num_attention_heads=1)
    file = published("sprc", tmp_path / "w", state, made_up())["weights"]
    return state, {"dataset": "doodles_cirr", "model_path": file, "accelerator": "cpu",
                   "save_root": str(tmp_path / "out")}


def test_the_authors_checkpoint_is_opened_whole(authors, doodles, own_cache):
    state, given = authors
    config = Evaluate(**given, data_path=str(doodles))
    model, encoder, wordpiece, about = trained_point(config)
    assert about == {} and model.config.num_query_token == 4 and len(wordpiece) == len(
        state[starting_words(state)])
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    tower = encoders.eva(**TOWER)
    tower.load_state_dict({k: v.float() for k, v in made_up().items()})
    assert encoder.sha256 == backbones.state_hash(tower)
    checkpoint, results = evaluate(config, progress=False)
    assert checkpoint.selection == "val" and checkpoint.notes == []  # as the authors chose theirs
    assert checkpoint.weights.sha256 == backbones.state_hash(model)
    saved = load_file(results.folder / "embeddings-trained-val.safetensors")
    own = results.sets["cirr"]
    text = wordpiece.encode(own.texts)
    picture = checkpoint.retriever.features(own)(own.reference)
    with torch.no_grad():
        wanted = model.eval().encode_query(picture, text.ids, text.mask)
    assert torch.allclose(saved["cirr.query"], wanted, atol=1e-5)


def test_a_checkpoint_that_does_not_fit_is_told(authors, tmp_path):
    state, given = authors
    with pytest.raises(FileNotFoundError, match="absent.pt .model_path.: the authors' sprc_cirr"):
        opened(Evaluate(**given | {"model_path": str(tmp_path / "absent.pt")}))
    with pytest.raises(WeightsError, match="sprc_cirr.pt does not fit the model in .* places"):
        opened(Evaluate(**given, backbone="pretrain_vitL"))
    with pytest.raises(WeightsError, match="no image encoder 'resnet'"):
        opened(Evaluate(**given, backbone="resnet"))
    torch.save({k: v[..., :1] for k, v in made_up().items()}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="other.pth does not fit the model in .* places"):
        opened(Evaluate(**given, image_weights=str(tmp_path / "other.pth")))
    with pytest.raises(ValueError, match="model_path is empty"):
        Evaluate(**given | {"model_path": ""})


def test_another_kind_of_file_is_no_checkpoint(authors, tmp_path, words):
    state, given = authors

    def told(file, **turned) -> str:
        with pytest.raises(WeightsError) as error:
            opened(Evaluate(**given | {"model_path": str(file)} | turned))
        return str(error.value)

    (tmp_path / "notes.txt").write_text("no tensors")
    assert "notes.txt is not a whole checkpoint of tensors" in told(tmp_path / "notes.txt")
    clip = backbones.clip("doodle-clip", "none").model
    about = {"about": json.dumps({"quick_gelu": True})}
    training.write_tensors(clip.state_dict(), tmp_path / "clip.safetensors", about)
    assert "clip.safetensors holds no query_tokens" in told(tmp_path / "clip.safetensors")
    for form, name in (("lavis", "blip2_pretrained.pth"), ("transformers", "")):  # not trained yet
        options = published(form, tmp_path / form, state, made_up())
        write_vocabulary(tmp_path / form / "vocab.txt", words)
        where = {k: v for k, v in options.items() if k == "image_weights"}
        assert "holds no prompt_tokens" in told(tmp_path / form / name, **where)


# --------------------------------------------------------------------------------- pretraining

TINY = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48,
        "num_query_token": 4, "embed_dim": 16, "epochs": 2, "warmup": 3, "seed": 4}


@pytest.fixture(scope="module")
def tiny(doodles, tmp_path_factory):
    """Options of a small pretraining; features of its pictures are computed once."""
    folder = tmp_path_factory.mktemp("pretraining")
    training.write_tensors(backbones.clip("doodle-clip", "none", 5).model.state_dict(),
                           folder / "clip.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "CACHE", folder / "cache")
        yield TINY | {"data_root": str(doodles), "save_root": str(folder / "whole"),
                      "image_weights": str(folder / "clip.safetensors")}


@pytest.fixture(scope="module")
def pretrained(tiny):
    return pretraining.pretrain(Pretraining(**tiny), progress=False)


@pytest.mark.parametrize("group", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 1], [3, 3, 3, 3, 3]])
def test_the_contrast_is_a_loops(group):
    logits = 3 * torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    terms = []
    for scores in (logits.tolist(), logits.T.tolist()):
        for i in range(5):
            others = [j for j in range(5) if j == i or group[j] != group[i]]
            terms.append(math.log(sum(math.exp(scores[i][j]) for j in others)) - scores[i][i])
    group = torch.tensor(group)
    found = image_text_contrast(logits, group[:, None] == group)
    assert found.item() == pytest.approx(sum(terms) / 10, abs=1e-5)


def test_a_pair_alone_has_no_loss_and_a_twin_no_gradient():
    one = image_text_contrast(torch.randn(1, 1), torch.ones(1, 1, dtype=torch.bool))
    assert one.item() == 0
    logits = torch.zeros(3, 3, requires_grad=True)
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    image_text_contrast(logits, same).backward()
    assert logits.grad[0, 1] == logits.grad[1, 0] == 0 and logits.grad[0, 2] > 0


COUNT = [5, 1, 3, 2]  # captions of four pictures


def pairs(seed: int = 3, epoch: int = 0) -> Pairs:
    """A text's first id is its row, its length 2 or 3."""
    n = sum(COUNT)
    ids = torch.stack([torch.arange(n), torch.arange(n) % 2, *torch.zeros(4, n)], 1).long()
    mask = torch.tensor([[1, 1, row % 2, 0, 0, 0] for row in range(n)])
    features = torch.arange(4.0).half()[:, None, None].expand(4, 2, 3)
    return Pairs(features, Encoded(ids, mask, torch.zeros(n).bool()), torch.tensor(COUNT).numpy(),
                 seed, epoch)


def test_an_epoch_takes_every_picture_twice_with_captions_of_its_own():
    owner = [row for row, count in enumerate(COUNT) for _ in range(count)]
    seen, alike = set(), 0
    for epoch in range(30):
        own = pairs(epoch=epoch)
        parts = [own.__getitems__(rows) for rows in ([0, 1, 2], [3, 4, 5], [6, 7])]
        batch = {k: torch.cat([p[k] for p in parts]) for k in ("group", "row", "image")}
        assert len(own) == 8 and batch["group"].bincount().tolist() == [2, 2, 2, 2]
        assert sorted(batch["group"][:4].tolist()) == [0, 1, 2, 3]
        assert [owner[row] for row in batch["row"]] == batch["group"].tolist()
        assert torch.equal(batch["image"][:, 0, 0], batch["group"].half())
        for part in parts:
            assert torch.equal(part["ids"][:, 0], part["row"])
            assert part["ids"].shape == part["mask"].shape == (
                len(part["row"]), int(part["mask"].sum(1).max()))
        seen |= set(batch["row"].tolist())
        alike += int((batch["row"][batch["group"] == 0].diff() == 0).all())
    assert seen == set(range(sum(COUNT)))  # every caption comes
    assert alike < 20  # of five captions the second draw is another one four times in five


def test_the_draw_is_of_seed_and_epoch_alone():
    def rows(**of):
        batch = pairs(**of).__getitems__(list(range(8)))
        return batch["group"].tolist(), batch["row"].tolist()

    assert rows() == rows() != rows(seed=4)
    assert rows() != rows(epoch=1)
    assert rows()[0][:4] != rows()[0][4:]  # the second time in another order


def test_pretraining_learns_what_the_contrast_can_reach(tiny, pretrained):
    config, (file, run) = Pretraining(**tiny), pretrained
    _, _, wordpiece, encoder = pretraining.parts(config)
    start = pretraining._model(config, encoder, len(wordpiece)).state_dict()
    stored = load_file(file)
    assert stored.keys() == start.keys() - {"prompt_tokens"}
    still = {k for k, v in stored.items() if torch.equal(v, start[k])}
    assert {k.split(".")[0] for k in still} <= {"itm_head"}, "matching is not in here"
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert all(0 < row["loss"] < 6 for row in run.history)
    n = 2 * -(-2 * len(pretraining.parts(config)[0]) // 64)  # steps: warm-up of 3, then a cosine
    [group] = torch.load(run.checkpoint, weights_only=True)["optimizers"]["adam"]["param_groups"]
    assert group["lr"] == pytest.approx(1e-3 * (1 + math.cos(math.pi * (n - 4) / (n - 3))) / 2)


def test_pretrained_weights_start_training(tiny, pretrained, train, monkeypatch):
    file, _ = pretrained
    given = {k: v for k, v in SMALL.items() if k not in ("weights", "image_weights")}
    named = Config(**given, weights=str(file), image_weights=tiny["image_weights"])
    monkeypatch.setattr(starting, "DOODLE_QFORMER", file)
    doodles = replace(named, weights="doodles")
    stored = load_file(file)
    for config in (named, doodles, replace(named, weights="default")):
        model, encoder, wordpiece = starting_point(config, train)
        own = model.state_dict()
        assert all(torch.equal(own[k], v) for k, v in stored.items())
        assert own.keys() - stored.keys() == {"prompt_tokens"}
        assert wordpiece.tokens == read_wordpiece(file.with_suffix(".vocab.txt"),
                                                  len(own[starting_words(own)])).tokens
    spelt = {word for text in train.texts for word in re.findall("[a-z]{2,}", text.lower())}
    assert spelt <= set(wordpiece.tokens)  # whole words of the composed sets, too


def test_a_stopped_pretraining_goes_on_to_the_same_weights(tiny, pretrained, tmp_path, monkeypatch):
    steps, real = iter(range(10_000)), training.optimise
    n_pictures = len(data.read_captions(paths.user_path(tiny["data_root"])
                                        / "doodles_captions/coco", "train")[0])
    second = -(-2 * n_pictures // 64) + 1

    def interrupted(*args):
        if next(steps) == second:
            raise KeyboardInterrupt
        return real(*args)

    config = Pretraining(**tiny | {"save_root": str(tmp_path / "parts")})
    monkeypatch.setattr(training, "optimise", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(config, progress=False)
    assert not (tmp_path / "parts" / "qformer.safetensors").exists()
    file, run = pretraining.pretrain(config, progress=False)
    assert run.epoch == 2 and next(steps) == second + 1 + second - 1
    one, two = load_file(pretrained[0]), load_file(file)
    assert all(torch.equal(one[k], two[k]) for k in one)


@torch.no_grad()
def test_captions_find_their_picture_as_a_loop_counts(tiny, pretrained):
    config, (file, _) = Pretraining(**tiny), pretrained
    found, chance, n = pretraining.caption_recall(config, file, k=3)
    images, captions = data.read_captions(paths.user_path(tiny["data_root"])
                                          / "doodles_captions/coco", "val")
    _, _, wordpiece, encoder = pretraining.parts(config)
    model = pretraining._model(config, encoder, len(wordpiece)).eval()
    model.load_state_dict(load_file(file), strict=False)
    features = FeatureStore.open_or_build(images, encoder, progress=False)
    targets, hits = [model.encode_target(features[[row]])[0] for row in range(n)], []
    for row, group in enumerate(captions):
        for caption in group:
            text = wordpiece.encode([caption])
            own = Contrast(model).texts(text.ids, text.mask)[0]
            scores = [max(float(own @ vector) for vector in target) for target in targets]
            hits.append(sum(score > scores[row] + 1e-6 for score in scores) < 3)
    assert found == pytest.approx(100 * sum(hits) / len(hits)) and chance == 300 / n
    assert n == len(images) == len(captions)


@pytest.mark.parametrize(("turned", "told"), [
    ({"data_root": "nowhere"}, "captions_train2014.json.*data_prep.doodles"),
    ({"words_of": "doodles_cirr, doodles_coco"}, "no composed set 'doodles_coco'")])
def test_a_pretraining_without_its_pictures_is_told(tiny, turned, told, tmp_path):
    with pytest.raises(DatasetError, match=told):
        pretraining.pretrain(Pretraining(**tiny | turned | {"save_root": str(tmp_path)}))
