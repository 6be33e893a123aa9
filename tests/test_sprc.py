"""SPRC's Q-Former, features and losses against the official code's values and slow twins.

tests/golden/sprc.json and sprc.npz were computed once with the official code (PyTorch, CPU,
float32, dropout off) on weights and image features made up from their names, as `made_up` and
`inputs` do, at two sizes: names and shapes of the checkpoint, gradient norms; the texts' ids and
masks, target features, similarities, the three losses.
"""

import json
import zlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from replication import backbones
from replication.papers import sprc
from replication.papers.sprc.checkpoint import image_encoder, own_name
from replication.papers.sprc.objectives import alignment, contrastive
from replication.papers.sprc.qformer import Embeddings, Layer, Output

GOLDEN = Path(__file__).parent / "golden"
ABOUT = json.loads((GOLDEN / "sprc.json").read_text())
VALUES = np.load(GOLDEN / "sprc.npz")
SIZES = ("tiny", "base")
WORDS = "Qformer.bert.embeddings.word_embeddings.weight"
TWIN = "Qformer.cls.predictions.decoder.weight"
LEFT = ["Qformer.bert.embeddings.position_ids", *(f"Qformer.cls.predictions.{k}" for k in (
    "bias", "transform.dense.weight", "transform.dense.bias", "transform.LayerNorm.weight",
    "transform.LayerNorm.bias", "decoder.bias"))]
FIELDS = {f.name for f in fields(sprc.QFormerConfig)}
PLAIN = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def made_up(name: str, shape) -> torch.Tensor:
    """The tensor that the reference values were computed with."""
    if name.endswith("position_ids"):
        return torch.arange(shape[1])[None]
    x, last = rng(name).standard_normal(shape, dtype=np.float32), name.rsplit(".", 1)[-1]
    if last == "temp":
        x = 0.07
    elif len(shape) < 2:
        x = 1 + 0.1 * x if last == "weight" else 0.1 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:]))
    return torch.as_tensor(np.asarray(x, np.float32))


def checkpoint(size: str = "tiny") -> dict[str, torch.Tensor]:
    return {name: made_up(name, shape) for name, shape, _ in ABOUT[size]["params"]}


def empty_model(size: str = "tiny", **changed) -> sprc.SPRC:
    sizes = {k: v for k, v in ABOUT[size]["config"].items() if k in FIELDS}
    config = sprc.QFormerConfig(**sizes | changed)
    return sprc.SPRC(config, ABOUT[size]["config"]["embed_dim"]).eval()


def loaded(size: str = "tiny", **changed) -> sprc.SPRC:
    model = empty_model(size, **changed)
    assert sprc.load_official(model, checkpoint(size)) == (LEFT, [])
    return model


def inputs(size: str = "tiny") -> tuple[torch.Tensor, ...]:
    """Image features of references and of targets, input_ids, attention_mask."""
    c = ABOUT[size]["config"]
    shape = c["batch"], c["num_image_tokens"], c["encoder_width"]
    images = (rng(f"input:{size}.{name}").standard_normal(shape, dtype=np.float32)
              for name in ("ref_embeds", "tgt_embeds"))
    texts = (VALUES[f"{size}.{name}"] for name in ("input_ids", "attention_mask"))
    return tuple(torch.from_numpy(x) for x in (*images, *texts))


@pytest.fixture(scope="module")
def tiny() -> sprc.SPRC:
    return loaded()


def close(ours: torch.Tensor, name: str) -> bool:
    wanted = VALUES[name]
    return ours.shape == wanted.shape and \
        np.abs(ours.detach().numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("size", SIZES)
def test_features_similarities_losses_and_gradients_are_the_official_codes(size):
    model = loaded(size)
    features = model(*inputs(size))
    assert close(features.target, f"{size}.target_feats")
    assert close(sprc.similarity(features.query, features.target), f"{size}.sim")
    terms = sprc.loss_terms(features, model.prompt_tokens, model.temp, **sprc.CIRR)
    wanted = {k: float(VALUES[f"{size}.loss_{k}"]) for k in ("itc", "rtc", "align")}
    assert {k: terms[k].item() for k in wanted} == pytest.approx(wanted, rel=1e-4)
    terms["loss"].backward()
    norms = {n: p.grad.norm().item() for n, p in model.named_parameters() if p.grad is not None}
    wanted = ABOUT[size]["grad_norms"]
    assert norms.keys() == wanted.keys()
    # a softmax does not feel a shift of its keys: their bias has rounding errors for a gradient
    felt = [k for k in norms if not k.endswith("self.key.bias")]
    assert {k: norms[k] for k in felt} == pytest.approx({k: wanted[k] for k in felt}, rel=1e-3)
    assert all(norms[k] < 1e-6 for k in norms if k not in felt)


def test_the_norm_of_the_image_features_is_torchs_own(tiny):
    """The reference values tell an epsilon of 1e-5 from BERT's 1e-12 (5e-6 off) by a factor of 8.
    """
    with torch.inference_mode():
        ours = tiny.encode_target(inputs()[1]).numpy()
    wanted = VALUES["tiny.target_feats"]
    assert np.abs(ours - wanted).max() < 2e-6 * np.abs(wanted).max()


def test_every_trained_parameter_learns_in_training_and_no_frozen_one():
    model = loaded().train()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    *images, ids, mask = inputs()
    terms = sprc.loss_terms(model(*images, ids, mask), model.prompt_tokens, model.temp)
    terms["loss"].backward()
    still = {n for n, p in model.named_parameters() if not p.grad.any()}
    assert still == {"itm_head.weight", "itm_head.bias"}, "no loss of SPRC uses that head"
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == still


def test_a_learned_prompt_learns_by_rtc_alone(tiny):
    features = tiny(*inputs())
    assert not alignment(features.prompt.detach(), tiny.prompt_tokens).requires_grad
    itc, rtc = (contrastive(x, features.target, tiny.temp)
                for x in (features.query, features.prompted))
    assert torch.autograd.grad(itc, tiny.prompt_tokens, allow_unused=True,
                               retain_graph=True) == (None,)
    assert torch.autograd.grad(rtc, tiny.prompt_tokens)[0].any()


def test_losses_are_what_loops_give():
    b, q, e, d, temp = 3, 4, 5, 6, torch.tensor(0.1)
    query, prompted = (F.normalize(torch.randn(b, e), dim=-1) for _ in range(2))
    target, prompt = F.normalize(torch.randn(b, q, e), dim=-1), torch.randn(b, q, d)
    learned = torch.randn(1, q, d)

    def cross_entropy(asked):
        total = 0.0
        for i in range(b):
            scores = [max(float(asked[i] @ target[j, k]) for k in range(q)) / 0.1 for j in range(b)]
            total += np.log(sum(np.exp(scores))) - scores[i]
        return total / b

    wanted = np.mean([(np.mean([float(prompt[i, k, n]) for k in range(q)])
                       - np.mean([float(learned[0, k, n]) for k in range(q)])) ** 2
                      for i in range(b) for n in range(d)])
    features = sprc.Features(query, prompted, target, prompt)
    terms = sprc.loss_terms(features, learned, temp, itc_weight=2.0, rtc_weight=0.5,
                            align_weight=3.0)
    itc, rtc = cross_entropy(query), cross_entropy(prompted)
    assert [terms[k].item() for k in ("itc", "rtc", "align", "loss")] == pytest.approx(
        [itc, rtc, wanted, 2 * itc + 0.5 * rtc + 3 * wanted], rel=1e-5)
    plain = sprc.loss_terms(features, learned, temp, **sprc.FASHION_IQ)
    assert plain["loss"].item() == pytest.approx(itc + rtc + wanted, rel=1e-5)
    cirr = sprc.loss_terms(features, learned, temp)
    assert cirr["loss"].item() == pytest.approx(itc + 0.4 * (rtc + wanted), rel=1e-5)


def test_similarity_is_the_best_of_a_targets_features():
    query, target = torch.randn(3, 5), torch.randn(4, 6, 5)
    slow = [[max(float(a @ b) for b in t) for t in target] for a in query]
    torch.testing.assert_close(sprc.similarity(query, target), torch.tensor(slow))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sprc.similarity(query, target), sprc.similarity(query, target).float())
        torch.testing.assert_close(sprc.similarity(query, target), torch.tensor(slow))


# Slow twins: one token at a time, masked tokens left out of the loop.


def attended(attention, x, source, visible) -> torch.Tensor:
    """Post-norm attention of tokens (t, d) over the visible of (s, e)."""
    part, rows = attention.self, []
    q, k, v = part.query(x), part.key(source), part.value(source)
    size = q.shape[1] // part.heads
    for i in range(len(x)):
        found = []
        for h in range(part.heads):
            cut = slice(h * size, (h + 1) * size)
            weight = [torch.exp(q[i, cut] @ k[j, cut] / size**0.5) for j in visible]
            found.append(sum(w * v[j, cut] for w, j in zip(weight, visible, strict=True))
                         / sum(weight))
        rows.append(attention.output.LayerNorm(attention.output.dense(torch.cat(found)) + x[i]))
    return torch.stack(rows)


def fed_forward(wide, narrow, token) -> torch.Tensor:
    hidden = wide.dense(token)
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    return narrow.LayerNorm(narrow.dense(hidden) + token)


def slow_layer(layer, x, visible, image, queries) -> torch.Tensor:
    x = attended(layer.attention, x, x, visible)
    if image is None:
        return torch.stack([fed_forward(layer.intermediate, layer.output, t) for t in x])
    rows = []
    for i, token in enumerate(x):
        if i < queries and layer.crossattention is not None:
            token = attended(layer.crossattention, token[None], image, range(len(image)))[0]
        branch = (layer.intermediate_query, layer.output_query) if i < queries else \
            (layer.intermediate, layer.output)
        rows.append(fed_forward(*branch, token))
    return torch.stack(rows)


SMALL = sprc.QFormerConfig(hidden_size=12, num_hidden_layers=3, num_attention_heads=3,
                           intermediate_size=20, vocab_size=30, max_position_embeddings=16,
                           encoder_width=7, num_query_token=4)


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that every part of a layer shows."""
    module.load_state_dict({k: made_up(k, tuple(v.shape)) for k, v in module.state_dict().items()})
    return module.eval()


@pytest.mark.parametrize("crosses", [True, False])
@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize("words", [0, 3])
@torch.no_grad()
def test_a_layer_is_its_slow_twin(crosses, with_image, words):
    torch.manual_seed(0)
    layer = randomised(Layer(SMALL, crosses))
    x, visible = torch.randn(2, 4 + words, 12), ([0, 1, 2, 3], [*range(4 + words)])
    mask = torch.zeros(2, 1, 1, 4 + words, dtype=torch.bool)
    for row, seen in enumerate(visible):
        mask[row, ..., seen] = True
    image = torch.randn(2, 5, 7) if with_image else None
    slow = [slow_layer(layer, x[i], visible[i], image[i] if with_image else None, 4)
            for i in range(2)]
    torch.testing.assert_close(layer(x, mask, image, 4), torch.stack(slow))


@torch.no_grad()
def test_words_and_vectors_are_placed_in_the_two_orders():
    parts, vectors = randomised(Embeddings(SMALL)), torch.randn(2, 4, 12)
    ids = torch.tensor([[1, 7, 2, 0], [1, 2, 0, 0]])
    word, place = parts.word_embeddings.weight, parts.position_embeddings.weight
    for row in range(2):
        words = [word[i] for i in ids[row]]
        first = [*vectors[row], *(w + place[i] for i, w in enumerate(words))]
        second = [t + place[i] for i, t in enumerate([words[0], *vectors[row], *words[1:]])]
        for ours, wanted in ((parts(vectors, ids), first), (parts.prompted(vectors, ids), second)):
            torch.testing.assert_close(ours[row], parts.LayerNorm(torch.stack(wanted)))
    torch.testing.assert_close(parts(vectors), parts.LayerNorm(vectors))
    with pytest.raises(ValueError, match="20 tokens, but positions for 16"):
        parts.prompted(vectors, torch.ones(2, 16, dtype=torch.int64))


@torch.no_grad()
def test_the_whole_is_its_layers_one_after_the_other():
    model = randomised(sprc.QFormer(SMALL))
    ids, mask = torch.tensor([[1, 7, 2, 0]]), torch.tensor([[1, 1, 1, 0]])
    vectors, image = torch.randn(1, 4, 12), torch.randn(1, 5, 7)
    seen, parts = range(7), model.bert.embeddings  # the eighth token is padding in both orders
    for ours, x, read in ((model(vectors, ids, mask, image), parts(vectors, ids), image[0]),
                          (model(vectors, ids, mask), parts(vectors, ids), None),
                          (model.prompted(vectors, ids, mask), parts.prompted(vectors, ids), None)):
        x = x[0]
        for layer in model.bert.encoder.layer:
            x = slow_layer(layer, x, seen, read, 4)
        torch.testing.assert_close(ours[0], x)
    crossing = [layer.crossattention is not None for layer in model.bert.encoder.layer]
    assert crossing == [True, False, True]


@torch.no_grad()
def test_an_items_features_do_not_depend_on_its_batch_nor_on_padding(tiny):
    reference, target, ids, mask = inputs()
    whole = tiny(reference, target, ids, mask)
    for i in range(len(ids)):
        n = int(mask[i].sum())
        alone = tiny(reference[i:i + 1], target[i:i + 1], ids[i:i + 1, :n], mask[i:i + 1, :n])
        for name, ours, wanted in zip(whole._fields, alone, whole, strict=True):
            torch.testing.assert_close(ours, wanted[i:i + 1], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_of_one_keeps_its_axis(tiny, batch):
    *images, ids, mask = (x[:batch] for x in inputs())
    features = tiny(*images, ids, mask)
    assert [tuple(x.shape) for x in features] == [(batch, 32), (batch, 32), (batch, 32, 32),
                                                  (batch, 32, 48)]
    assert torch.equal(tiny.encode_query(images[0], ids, mask), features.query)
    assert torch.equal(tiny.encode_target(images[1]), features.target)
    assert sprc.similarity(features.query, features.target).shape == (batch, batch)
    terms = sprc.loss_terms(features, tiny.prompt_tokens, tiny.temp)
    assert all(x.shape == () and x.isfinite() for x in terms.values())


def test_unit_length_and_float32_whatever_the_images_are_stored_in(tiny):
    reference, target, ids, mask = inputs()
    exact = tiny(reference, target, ids, mask)
    half = tiny(reference.half(), target.half(), ids, mask)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = tiny(reference.half(), target.half(), ids, mask)
    for ours, bound in ((half, 0.001), (mixed, 0.05)):
        for name in ("query", "prompted", "target"):
            feature = getattr(ours, name)
            assert feature.dtype == torch.float32
            torch.testing.assert_close(feature.norm(dim=-1), torch.ones(feature.shape[:-1]))
            assert (feature - getattr(exact, name)).abs().max() < bound


@pytest.mark.parametrize("off", [(), tuple(PLAIN), *((name,) for name in PLAIN)])
def test_both_dropouts_are_on_in_training_only(off):
    target, model = inputs()[1], loaded(**{name: PLAIN[name] for name in off})
    exact = model.encode_target(target)
    assert torch.equal(model.encode_target(target), exact)
    model.train()
    assert torch.equal(model.encode_target(target), exact) == (len(off) == 2)


@torch.no_grad()
def test_what_enters_a_bypass_and_the_input_tokens_are_dropped():
    config = replace(SMALL, hidden_dropout_prob=1.0)
    x, bypass = torch.randn(2, 5, 20), torch.randn(2, 5, 12)
    output = Output(config, 20).train()
    assert torch.equal(output(x, bypass), output.LayerNorm(bypass))
    parts, ids = Embeddings(config).train(), torch.ones(2, 3, dtype=torch.int64)
    assert not parts(bypass, ids).any() and not parts.prompted(bypass, ids).any()


# Checkpoints.


@pytest.mark.parametrize("wrap", [
    lambda s: s,
    lambda s: {"epoch": 3, "Blip2QformerCirAlignPrompt": s},
    lambda s: {"model": s, "optimizer": {"state": {0: {}}}},
    lambda s: {"epoch": 3, "state_dict": {"model": {f"module.{k}": v for k, v in s.items()}}},
])
def test_a_checkpoint_is_found_under_any_name(wrap, tmp_path):
    model, state = empty_model(), checkpoint()
    torch.save(wrap(state), tmp_path / "sprc_cirr.pt")
    sprc.load_official(model, backbones.read_state(tmp_path / "sprc_cirr.pt"))
    assert torch.equal(model.prompt_tokens, state["prompt_tokens"])


def test_the_image_encoder_of_a_checkpoint_is_left_to_itself():
    state = checkpoint() | {"visual_encoder.blocks.0.norm1.weight": torch.ones(3).half()}
    left, _ = sprc.load_official(empty_model(), {"model": state})
    assert "visual_encoder.blocks.0.norm1.weight" in left
    encoder = image_encoder({"model": state})
    assert list(encoder) == ["blocks.0.norm1.weight"]
    assert encoder["blocks.0.norm1.weight"].dtype == torch.half
    assert image_encoder(checkpoint()) == {}


def test_a_blip2_has_no_prompts_and_they_keep_their_start():
    model, state = empty_model(), checkpoint()
    del state["prompt_tokens"]
    start = model.prompt_tokens.detach().clone()
    assert 0.018 < start.std() < 0.022
    assert sprc.load_official(model, state).new == ["prompt_tokens"]
    assert torch.equal(model.prompt_tokens, start)
    assert torch.equal(model.query_tokens, state["query_tokens"])


def test_word_embeddings_come_with_or_without_their_twin():
    model, state = empty_model(), checkpoint()
    sprc.load_official(model, dict(state))
    assert torch.equal(model.Qformer.bert.embeddings.word_embeddings.weight, state[TWIN])
    sprc.load_official(model, {k: v for k, v in state.items() if not k.startswith("Qformer.cls.")})
    assert torch.equal(model.Qformer.bert.embeddings.word_embeddings.weight, state[WORDS])


def test_half_precision_is_turned_to_float32():
    model = empty_model()
    sprc.load_official(model, {k: v.half() for k, v in checkpoint().items()})
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("damage", "told"), [
    (lambda s: s.pop("text_proj.bias"), "text_proj.bias: not in the file"),
    (lambda s: s.pop("temp"), "temp: not in the file"),
    (lambda s: s.pop("query_tokens"), "holds no query_tokens.*prompt_tokens, temp"),
    (lambda s: s.update({"ln_vision.weight": torch.zeros(64)}), r"ln_vision.weight: file \(64,\)"),
    (lambda s: s.update({"opt_proj.weight": torch.zeros(1)}), "opt_proj.weight: not in the model"),
    (lambda s: s.update({TWIN: torch.zeros(199, 48)}), "199 words.* 200.*30,522 and .DEC"),
    (lambda s: s.update({WORDS: torch.zeros(30, 48), TWIN: torch.zeros(30, 48)}),
     "vocabulary of 30 words, the model one of 200"),
])
def test_another_checkpoint_is_refused_by_name(damage, told):
    model, state = empty_model(), checkpoint()
    damage(state)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(backbones.WeightsError, match=told) as error:
        sprc.load_official(model, state, "sprc_cirr.pt")
    assert "sprc_cirr.pt" in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_another_number_of_layers_is_refused():
    with pytest.raises(backbones.WeightsError, match="layer.3.*: not in the model"):
        sprc.load_official(empty_model(num_hidden_layers=3), checkpoint())


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="48 is no multiple of num_attention_heads 5"):
        empty_model(num_attention_heads=5)


def test_the_default_is_the_published_size():
    with torch.device("meta"):
        shapes = {k: list(v.shape) for k, v in sprc.SPRC().state_dict().items()}
    published = {name: shape for name, shape, _ in ABOUT["base"]["params"]}
    assert shapes.items() <= published.items()
    assert all(k.startswith(sprc.UNUSED) for k in published.keys() - shapes.keys())


@pytest.mark.parametrize(("theirs", "ours"), [
    ("embeddings.word_embeddings.weight", WORDS),
    ("qformer.layernorm.bias", "Qformer.bert.embeddings.LayerNorm.bias"),
    ("qformer.encoder.layer.2.crossattention.attention.key.bias",
     "Qformer.bert.encoder.layer.2.crossattention.self.key.bias"),
    ("qformer.encoder.layer.1.attention.attention.query.weight",
     "Qformer.bert.encoder.layer.1.attention.self.query.weight"),
    ("qformer.encoder.layer.1.attention.output.dense.weight",
     "Qformer.bert.encoder.layer.1.attention.output.dense.weight"),
    ("vision_model.post_layernorm.weight", "ln_vision.weight"),
    ("vision_model.encoder.layers.0.layer_norm1.bias",) * 2,
    ("itm_head.weight",) * 2,
])
def test_transformers_names_are_the_checkpoints(theirs, ours):
    assert own_name(theirs) == ours


@pytest.fixture
def theirs():
    """transformers' BLIP-2 for retrieval in the tiny size, with made-up weights."""
    transformers = pytest.importorskip("transformers")
    c = ABOUT["tiny"]["config"]
    sizes = {k: c[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads",
                               "intermediate_size", "vocab_size")}
    vision = {"hidden_size": 40, "intermediate_size": 8, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    return randomised(transformers.Blip2ForImageTextRetrieval(transformers.Blip2Config(
        vision_config=vision, num_query_tokens=32, image_text_hidden_size=c["embed_dim"],
        qformer_config=sizes | {"encoder_hidden_size": 40, "use_qformer_text_input": True})))


def test_transformers_blip2_is_loaded_whole(theirs):
    model, state = empty_model(), theirs.state_dict()
    left, new = sprc.load_official(model, state)
    assert new == ["prompt_tokens", "temp"] and model.temp.item() == pytest.approx(0.07)
    encoder = image_encoder(state)
    assert [f"vision_model.{k}" for k in encoder] == left
    assert encoder.keys() == {k for k in theirs.vision_model.state_dict()
                              if not k.startswith("post_layernorm")}


@torch.no_grad()
def test_plain_use_is_what_transformers_computes(theirs):
    """Queries, with and without text, read an image; without one, all tokens are text to us and
    what transformers calls no queries (queries without an image it refuses)."""
    model, (image, _, ids, mask) = empty_model(), inputs()
    sprc.load_official(model, theirs.state_dict())
    queries, whole = model.query_tokens.expand(4, -1, -1), F.pad(mask, (32, 0), value=1)
    tokens = theirs.embeddings(input_ids=ids, query_embeds=queries)
    for ours, wanted in (
            (model.Qformer(queries, image=image),
             theirs.qformer(queries, query_length=32, encoder_hidden_states=image)),
            (model.Qformer(queries, ids, mask, image),
             theirs.qformer(tokens, query_length=32, attention_mask=whole,
                            encoder_hidden_states=image)),
            (model.Qformer(queries, ids, mask),
             theirs.qformer(tokens, query_length=0, attention_mask=whole))):
        torch.testing.assert_close(ours, wanted.last_hidden_state, rtol=1e-4, atol=1e-5)
