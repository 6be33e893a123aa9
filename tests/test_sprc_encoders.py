"""SPRC's image encoders: published shapes, published names, files, and how a picture gets in."""

import json
import re

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from replication import backbones
from replication.backbones import WeightsError
from replication.papers.sprc import encoders, files
from replication.papers.sprc.encoders import image_encoder
from replication.transforms import CLIP, HALF, IMAGENET, Preprocess, _padded

SMALL = {"img_size": 28, "patch_size": 14, "embed_dim": 12, "depth": 2, "num_heads": 3,
         "mlp_ratio": 52 / 12}
SMALL_CLIP = {"image_size": 28, "patch_size": 14, "width": 64, "layers": 2, "heads": 4,
              "mlp_ratio": 2.0}
HUB = "Salesforce/blip2-itm-vit-g"


def made_up(seed: int = 0) -> dict[str, torch.Tensor]:
    """A small EVA in LAVIS' names, written out here: halves, as they are published."""
    d, h = 12, 52
    shapes = {"cls_token": (1, 1, d), "pos_embed": (1, 5, d), "patch_embed.proj.weight":
              (d, 3, 14, 14), "patch_embed.proj.bias": (d,)}
    layer = {"norm1.weight": (d,), "norm1.bias": (d,), "attn.q_bias": (d,), "attn.v_bias": (d,),
             "attn.qkv.weight": (3 * d, d), "attn.proj.weight": (d, d), "attn.proj.bias": (d,),
             "norm2.weight": (d,), "norm2.bias": (d,), "mlp.fc1.weight": (h, d),
             "mlp.fc1.bias": (h,), "mlp.fc2.weight": (d, h), "mlp.fc2.bias": (d,)}
    shapes |= {f"blocks.{i}.{k}": shape for i in range(2) for k, shape in layer.items()}
    rng = torch.Generator().manual_seed(seed)
    return {k: (0.3 * torch.randn(shape, generator=rng)).half() for k, shape in shapes.items()}


def as_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tower in the names of transformers' Blip2VisionModel, keys biased by zero."""
    first = {"cls_token": "embeddings.class_embedding", "pos_embed":
             "embeddings.position_embedding", "patch_embed.proj.weight":
             "embeddings.patch_embedding.weight", "patch_embed.proj.bias":
             "embeddings.patch_embedding.bias"}
    named = {theirs: state[ours] for ours, theirs in first.items()}
    for i in range(2):
        ours, theirs = f"blocks.{i}.", f"encoder.layers.{i}."
        for part in ("weight", "bias"):
            for a, b in (("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("mlp.fc1",) * 2,
                         ("mlp.fc2",) * 2, ("attn.proj", "self_attn.projection")):
                named[f"{theirs}{b}.{part}"] = state[f"{ours}{a}.{part}"]
        q, v = state[f"{ours}attn.q_bias"], state[f"{ours}attn.v_bias"]
        named[f"{theirs}self_attn.qkv.weight"] = state[f"{ours}attn.qkv.weight"]
        named[f"{theirs}self_attn.qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    return named


def by_hand(state: dict[str, torch.Tensor], images: torch.Tensor, heads: int = 3) -> torch.Tensor:
    """The tower's formula in double precision: pre-norm layers, GELU, no norm at the end."""
    s = {k: v.double() for k, v in state.items()}
    patches = F.unfold(images.double(), 14, stride=14).transpose(1, 2)
    x = patches @ s["patch_embed.proj.weight"].flatten(1).T + s["patch_embed.proj.bias"]
    x = torch.cat([s["cls_token"].expand(len(x), -1, -1), x], 1) + s["pos_embed"]
    for i in range(2):
        b = {k.split(".", 2)[2]: v for k, v in s.items() if k.startswith(f"blocks.{i}.")}
        bias = torch.cat([b["attn.q_bias"], torch.zeros(12).double(), b["attn.v_bias"]])
        y = F.layer_norm(x, (12,), b["norm1.weight"], b["norm1.bias"], 1e-6)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2)
                   for part in (y @ b["attn.qkv.weight"].T + bias).chunk(3, -1))
        y = (q @ k.transpose(-1, -2) / (12 // heads) ** 0.5).softmax(-1) @ v
        x = x + y.transpose(1, 2).flatten(2) @ b["attn.proj.weight"].T + b["attn.proj.bias"]
        y = F.layer_norm(x, (12,), b["norm2.weight"], b["norm2.bias"], 1e-6)
        y = F.gelu(y @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"])
        x = x + y @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"]
    return x


def pictures(side: int = 28, seed: int = 1) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def prefixed(state: dict, prefix: str) -> dict[str, torch.Tensor]:
    """In a checkpoint with a Q-Former's tensors beside it."""
    return {f"{prefix}{k}": v for k, v in state.items()} | {
        "query_tokens": torch.zeros(1, 2, 4), "ln_vision.weight": torch.ones(12),
        "Qformer.bert.embeddings.LayerNorm.weight": torch.ones(4)}


def written(form: str, folder, state: dict[str, torch.Tensor]):
    """A file or folder with the tower, in one of the forms that are published."""
    theirs = prefixed(as_transformers(state), "vision_model.") | {
        "vision_model.post_layernorm.weight": torch.ones(12)}
    if form == "shards":
        places = {k: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, k in enumerate(theirs)}
        for file in sorted(set(places.values())):
            save_file({k: v for k, v in theirs.items() if places[k] == file}, folder / file)
        (folder / files.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
        return folder
    content = {"transformers": theirs, "sprc": {"epoch": 3, "Blip2QformerCirAlignPrompt":
               prefixed(state, "visual_encoder.")}, "alone": state | {
               "norm.weight": torch.ones(12), "blocks.2.norm1.weight": torch.ones(12)},
               "transformers alone": as_transformers(state)}[form]
    if form == "transformers":
        save_file(theirs, folder / "model.safetensors")
        return folder
    torch.save(content, folder / "weights.pth")
    return folder / "weights.pth"


FORMS = ["shards", "transformers", "sprc", "alone", "transformers alone"]


@pytest.fixture
def small(monkeypatch):
    """eva-g and clip-L in small."""
    monkeypatch.setattr(encoders, "EVA_G", SMALL)
    monkeypatch.setattr(encoders, "CLIP_L", SMALL_CLIP)
    monkeypatch.setattr(encoders, "BEHIND", {
        "eva-g": ("norm.", "blocks.2."), "clip-L": ("ln_post.", "proj",
                                                    "transformer.resblocks.2.")})


# ---------------------------------------------------------------------------------- the sizes


def test_eva_g_has_the_published_tensors():
    """On the meta device: 986 M parameters are named and shaped, none is made."""
    with torch.device("meta"):
        tower = encoders.eva(**encoders.EVA_G)
        found = encoders.Tokens(tower)(torch.zeros(2, 3, 224, 224))
    assert found.shape == (2, 257, 1408)
    own = {k: tuple(v.shape) for k, v in tower.state_dict().items()}
    width, hidden = 1408, 6144
    layer = {"norm1.weight": (width,), "norm1.bias": (width,), "attn.q_bias": (width,),
             "attn.v_bias": (width,), "attn.qkv.weight": (3 * width, width),
             "attn.proj.weight": (width, width), "attn.proj.bias": (width,),
             "norm2.weight": (width,), "norm2.bias": (width,), "mlp.fc1.weight": (hidden, width),
             "mlp.fc1.bias": (hidden,), "mlp.fc2.weight": (width, hidden), "mlp.fc2.bias": (width,)}
    wanted = {f"blocks.{i}.{k}": shape for i in range(39) for k, shape in layer.items()}
    wanted |= {"cls_token": (1, 1, width), "pos_embed": (1, 257, width),
               "patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,)}
    assert own == wanted
    attention = tower.blocks[0].attn
    assert (attention.num_heads, attention.head_dim) == (16, 88)
    assert {m.eps for m in tower.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_clip_l_is_clips_but_the_last_layer():
    """Tensors as open_clip's ViT-L-14 has them, less layer 24, the last norm and projection."""
    with torch.device("meta"):
        tower = encoders.vit(**encoders.CLIP_L)
        whole = open_clip.CLIP(**{k: v for k, v in open_clip.get_model_config("ViT-L-14").items()
                                  if k in ("embed_dim", "vision_cfg", "text_cfg")}).visual
        assert encoders.Tokens(tower)(torch.zeros(1, 3, 224, 224)).shape == (1, 257, 1024)
    theirs = {k: v.shape for k, v in whole.state_dict().items()
              if not k.startswith(encoders.BEHIND["clip-L"])}
    assert {k: v.shape for k, v in tower.state_dict().items()} == theirs
    assert len(theirs) == 5 + 23 * 12
    assert isinstance(tower.transformer.resblocks[0].mlp[1], open_clip.transformer.QuickGELU)


# ---------------------------------------------------------------------------------- the values


@pytest.mark.parametrize("form", FORMS)
def test_eva_of_every_published_form(form, small, tmp_path):
    state = made_up()
    found = image_encoder("eva-g", str(written(form, tmp_path, state)))
    assert (found.width, found.tokens, found.preprocess.size) == (12, 5, 28)
    assert torch.allclose(found.model(pictures()).double(), by_hand(state, pictures()), atol=1e-5)
    kept = encoders.eva(**SMALL)
    kept.load_state_dict({k: v.float() for k, v in state.items()})
    assert found.sha256 == backbones.state_hash(kept)


def test_a_bias_of_the_keys_changes_nothing():
    """It may be dropped: it adds one number to all scores of a query."""
    state = as_transformers(made_up())
    images, tower = pictures(), encoders.eva(**SMALL).eval()
    encoders.load_eva(tower, state, "x")
    plain = tower(images)
    for i, block in enumerate(tower.blocks):
        state[f"encoder.layers.{i}.self_attn.qkv.bias"][12:24] = 3.0 + torch.arange(12)
        block.attn.k_bias.copy_(state[f"encoder.layers.{i}.self_attn.qkv.bias"][12:24])
    assert torch.allclose(tower(images), plain, atol=1e-4)
    encoders.load_eva(tower, state, "x")
    assert torch.equal(tower(images), plain)


def test_against_transformers(small, tmp_path):
    """Its own class with made-up tensors, and its names and shapes at full size."""
    blip2 = pytest.importorskip("transformers.models.blip_2")
    config = blip2.Blip2VisionConfig(hidden_size=12, intermediate_size=52, num_hidden_layers=2,
                                     num_attention_heads=3, image_size=28, patch_size=14)
    theirs = blip2.modeling_blip_2.Blip2VisionModel(config).eval()
    state = as_transformers(made_up())
    missing = theirs.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    assert missing.missing_keys == ["post_layernorm.weight", "post_layernorm.bias"]
    theirs.post_layernorm = nn.Identity()
    file = written("transformers alone", tmp_path, made_up())
    ours = image_encoder("eva-g", str(file)).model(pictures())
    with torch.no_grad():
        assert torch.allclose(theirs(pictures()).last_hidden_state, ours, atol=1e-5)
    with torch.device("meta"):
        full = blip2.modeling_blip_2.Blip2VisionModel(blip2.Blip2VisionConfig()).state_dict()
        tower = encoders.eva(img_size=224, patch_size=14, embed_dim=1408, depth=39, num_heads=16,
                             mlp_ratio=6144 / 1408)
        del full["post_layernorm.weight"], full["post_layernorm.bias"]
        encoders.load_eva(tower, full, "transformers")


@pytest.mark.parametrize("prefix", ["", "visual.", "visual_encoder."])
def test_clip_l_is_read_before_the_last_layer(prefix, small, tmp_path):
    """From a whole CLIP's tower of three layers: what its second layer leaves."""
    torch.manual_seed(0)
    sizes = SMALL_CLIP | {"layers": 3, "output_dim": 16}
    whole = open_clip.transformer.VisionTransformer(
        **sizes, act_layer=open_clip.transformer.QuickGELU).eval()
    state = {f"{prefix}{k}": v for k, v in whole.state_dict().items()}
    if prefix == "visual_encoder.":
        state["query_tokens"] = torch.zeros(1)
    elif prefix:
        state["text_projection"] = torch.zeros(1)
    torch.save(state, tmp_path / "clip.pt")
    seen = []
    whole.transformer.resblocks[1].register_forward_hook(lambda m, i, out: seen.append(out))
    whole(pictures())
    found = image_encoder("clip-L", str(tmp_path / "clip.pt"))
    assert torch.allclose(found.model(pictures()), seen[0], atol=1e-5)
    assert (found.width, found.tokens) == (64, 5)


def test_openais_clip_l_is_fetched_by_open_clip(small, monkeypatch):
    torch.manual_seed(7)
    whole = open_clip.transformer.VisionTransformer(**SMALL_CLIP | {"layers": 3}, output_dim=16)
    asked = []
    monkeypatch.setattr(backbones, "clip", lambda *a: asked.append(a) or type("B", (), {
        "model": type("M", (), {"visual": whole})}))
    found = image_encoder("clip-L")
    assert asked == [("ViT-L-14", "openai")] and found.weights == "openai"
    assert torch.equal(found.model.tower.conv1.weight, whole.conv1.weight)


def test_the_demos_encoder_is_its_clip_before_the_norm():
    """Its class token, normed and projected, is the CLIP's own embedding."""
    clip = backbones.clip("doodle-clip", "none", seed=3).model.eval()
    norm, projection = clip.visual.ln_post, clip.visual.proj
    found = image_encoder("doodle-clip", "none", seed=3)
    tokens = found.model(pictures(64))
    assert tokens.shape == (2, 17, 128) and (found.tokens, found.width) == (17, 128)
    assert torch.allclose(norm(tokens[:, 0]) @ projection, clip.encode_image(pictures(64)),
                          atol=1e-5)
    assert found.preprocess == Preprocess(64, "targetpad", "bicubic", *CLIP)
    assert not any(p.requires_grad for p in found.model.parameters())
    assert not found.model.train().training and not found.model.tower.training


@pytest.mark.parametrize("name", ["eva-g", "clip-L", "doodle-clip"])
def test_random_weights_follow_the_seed(name, small):
    one, two, other = (image_encoder(name, "none", seed).sha256 for seed in (1, 1, 2))
    assert one == two != other


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_half_precision_on_cuda(small, tmp_path):
    found = image_encoder("eva-g", str(written("sprc", tmp_path, made_up()))).model
    full = found(pictures())
    half = found.cuda()(pictures().cuda()).cpu()
    assert 0 < (half - full).abs().max() < 0.02 * full.abs().max()


# ---------------------------------------------------------------------------------- the errors


def refused(name: str, weights) -> str:
    with pytest.raises(WeightsError) as error:
        image_encoder(name, str(weights))
    return str(error.value)


def test_every_tensor_is_accounted_for(small, tmp_path):
    state = made_up()
    state["blocks.0.extra"] = state.pop("blocks.1.mlp.fc2.bias")
    state["pos_embed"] = state["pos_embed"][:, 1:]
    torch.save(state, tmp_path / "x.pth")
    told = refused("eva-g", tmp_path / "x.pth")
    assert "3 places" in told and "blocks.1.mlp.fc2.bias: not in the file" in told
    assert "blocks.0.extra: not in the model" in told
    assert "pos_embed: file (1, 4, 12), model (1, 5, 12)" in told


def test_files_that_are_no_image_encoder(small, tmp_path):
    torch.save(prefixed({}, ""), tmp_path / "blip2_pretrained.pth")
    assert "eva_vit_g.pth" in refused("eva-g", tmp_path / "blip2_pretrained.pth")
    assert "clip_vit_L.pth" in refused("clip-L", tmp_path / "blip2_pretrained.pth")
    torch.save([1], tmp_path / "list.pt")
    assert "not a state dict but a list" in refused("eva-g", tmp_path / "list.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"123")
    assert "not a whole checkpoint" in refused("eva-g", tmp_path / "torn.safetensors")
    assert "no image encoder 'eva'" in refused("eva", "none")
    for absent in (tmp_path / "absent.pth", "weights/absent.pth", "nonsense"):  # no hub is asked
        assert "no file or folder" in refused("eva-g", absent)
    told = refused("eva-g", tmp_path)
    assert "blip2_pretrained.pth, list.pt, torn.safetensors" in told


def test_shards_that_are_not_whole(small, tmp_path):
    folder = written("shards", tmp_path, made_up())
    second = folder / "model-00002-of-00002.safetensors"
    content = second.read_bytes()
    second.unlink()
    assert re.search(r"of which model-00002-of-00002.safetensors are not", refused("eva-g", folder))
    save_file({"x": torch.zeros(1)}, second)
    assert "tensors that its files do not hold" in refused("eva-g", folder / files.INDEX)
    second.write_bytes(content)
    assert image_encoder("eva-g", str(folder)).weights == str(folder)
    (folder / files.INDEX).write_text("[]")
    assert "not an index of shards" in refused("eva-g", folder)


def test_the_hub_that_cannot_be_reached_is_told(small):
    told = refused("eva-g", "default")
    assert HUB in told and "model.safetensors" in told and "parameter weights" in told


def test_what_is_fetched_from_the_hub(small, tmp_path, monkeypatch):
    asked = []
    folder = written("shards", tmp_path, made_up())
    monkeypatch.setattr(files, "snapshot_download",
                        lambda name, **rest: asked.append((name, rest)) or str(folder))
    found = image_encoder("eva-g")
    assert found.weights == HUB and asked == [(HUB, {"allow_patterns": ["*.safetensors",
                                                                        files.INDEX]})]


# -------------------------------------------------------------------------------- the pictures


@pytest.mark.parametrize("rule, digest, key", [
    (Preprocess(), "de9e7a88665e1ab1", "224-squash-bilinear"),
    (Preprocess(224, "shortest", "bicubic", *CLIP), "c6381a8d363c7eb9", "224-shortest-bicubic"),
    (Preprocess(64, "crop"), "bb613f2dec0dac1c", "64-crop-bilinear"),
    (Preprocess(48, "pad", "bicubic", *HALF), "c3cde11cf84d2867", "48-pad-bicubic"),
    (Preprocess(32, "squash", "bilinear", *IMAGENET, "ink"), "523ecdbb7fe64121",
     "32-squash-bilinear")])
def test_earlier_rules_keep_their_keys(rule, digest, key):
    """As computed before `ratio` was a field: kept caches and records hold them."""
    assert (rule.digest(), rule.pixel_key()) == (digest, key)


def test_the_ratio_is_in_the_key_of_targetpad():
    rules = [Preprocess(64, "targetpad", ratio=r) for r in (1.25, 1.5)]
    assert len({r.digest() for r in rules}) == len({r.pixel_key() for r in rules}) == 2
    sketch = [Preprocess(64, sketch_resize="targetpad", ratio=r) for r in (1.25, 1.5)]
    assert len({r.digest() for r in sketch}) == 2
    assert sketch[1].of("sketch").pixel_key() == rules[1].pixel_key()


@pytest.mark.parametrize("ratio, size, padded", [
    (1.25, (400, 100), (400, 320)), (1.25, (100, 400), (320, 400)), (1.25, (125, 100), (125, 100)),
    (1.25, (100, 100), (100, 100)), (1.25, (128, 100), (128, 102)), (1.25, (127, 100), (127, 100)),
    (1.0, (40, 10), (40, 40)), (1.0, (10, 40), (40, 40)), (1.0, (7, 4), (7, 6))])
def test_padding_to_a_ratio(ratio, size, padded):
    """Black, equal on both sides; the picture itself untouched in the middle."""
    out = np.asarray(_padded(Image.new("RGB", size, (9, 8, 7)), ratio))
    assert out.shape == (*padded[::-1], 3)
    x, y = (p - s for p, s in zip(padded, size, strict=True))
    assert (out[y // 2:y // 2 + size[1], x // 2:x // 2 + size[0]] == (9, 8, 7)).all()
    assert out.any(2).sum() == size[0] * size[1]


@pytest.mark.parametrize("transform", ["targetpad", "squarepad", "clip"])
def test_transforms_resize_cut_and_normalise(transform, small):
    """What is left of a white picture of 80 x 20: 64, 80 or 20 high after padding."""
    rule = image_encoder("doodle-clip", "none", transform=transform).preprocess
    assert (rule.mean, rule.std, rule.interpolation) == (*CLIP, "bicubic")
    out = rule.resized(Image.new("RGB", (80, 20), "white"))[:, 32, 0]
    assert out.shape == (64,)
    assert abs(int((out > 127).sum()) - {"targetpad": 20, "squarepad": 16, "clip": 64}[transform]) \
        <= 1
    whole = {"targetpad": (0, 22), "squarepad": (0, 24), "clip": None}[transform]
    assert not whole or not (out[:whole[1] - 2] > 9).any() and not (out[-20:] > 9).any()


def test_rules_that_do_not_exist():
    with pytest.raises(ValueError, match="choose targetpad, squarepad, clip"):
        image_encoder("doodle-clip", "none", transform="pad")
    with pytest.raises(ValueError, match="ratio 0.8"):
        Preprocess(64, "targetpad", ratio=0.8)
    with pytest.raises(ValueError, match="choose squash.*targetpad"):
        Preprocess(64, "stretch").resized(Image.new("RGB", (8, 8)))
