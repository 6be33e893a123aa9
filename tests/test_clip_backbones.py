"""CLIP models as their publishers mean them: pictures, words, names, activation, OpenAI's files."""

import copy
import hashlib

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict, convert_weights_to_lp
from open_clip.transformer import QuickGELU
from PIL import Image
from torch import nn

from replication import backbones
from replication.backbones import WeightsError
from replication.transforms import CLIP, HALF, Preprocess, read_image

TINY = {"embed_dim": 32,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1,
                     "layers": 2}}
SIDES = [(400, 300), (300, 400), (301, 227), (227, 301), (97, 640), (7, 5), (3, 100), (1, 1),
         (64, 64), (63, 63), (65, 64), (500, 500)]
MOBILE = {"mean": (0., 0., 0.), "std": (1., 1., 1.), "interpolation": "bilinear",
          "resize_mode": "shortest"}
SIGLIP = {"mean": HALF[0], "std": HALF[1], "interpolation": "bicubic", "resize_mode": "squash"}


def noise(*size: int) -> Image.Image:
    """A picture of width x height random pixels."""
    rng = np.random.default_rng(size)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8))


def theirs(size: int, interpolation: str, resize_mode: str, **more):
    return open_clip.image_transform(size, is_train=False, interpolation=interpolation,
                                     resize_mode=resize_mode, **more)


def outputs(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of two made-up pictures and two texts."""
    side = model.visual.image_size
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, 3, *((side, side) if isinstance(side, int) else side), generator=rng)
    texts = open_clip.SimpleTokenizer(context_length=model.context_length)(["a cat", "two dogs"])
    with torch.inference_mode():
        return model.eval().encode_image(pictures), model.encode_text(texts)


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(outputs(one), outputs(two), strict=True))


def openai_form(seed: int = 0) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A tiny CLIP with OpenAI's activation, and its state as OpenAI publishes one: halves, and
    three numbers."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(**copy.deepcopy(TINY), quick_gelu=True)
    extra = {"input_resolution": 32, "context_length": 16, "vocab_size": 49408}
    convert_weights_to_lp(model, torch.float16)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    return model.float().eval(), state | {k: torch.tensor(v) for k, v in extra.items()}


class Tree(nn.Module):
    """Tensors under their dotted names; what a script of it saves is OpenAI's kind of archive."""

    def __init__(self, state: dict[str, torch.Tensor]):
        super().__init__()
        for head in dict.fromkeys(k.split(".")[0] for k in state):
            if head in state:
                self.register_buffer(head, state[head])
            else:
                self.add_module(head, Tree({k.split(".", 1)[1]: v for k, v in state.items()
                                            if k.startswith(f"{head}.")}))

    def forward(self) -> int:
        return 1


def archive(state: dict[str, torch.Tensor], file) -> str:
    """Writes a TorchScript archive; returns its SHA-256."""
    torch.jit.script(Tree(state)).save(str(file))
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def tiny(monkeypatch):
    """Registers `tiny-clip` with open_clip; call it with tags and what open_clip says of them."""
    def register(config: dict | None = None, **tags: dict) -> str:
        described = {tag: {"url": "https://x/0/y.pt", "hf_hub": "timm/tiny/", "mean": CLIP[0],
                           "std": CLIP[1], "interpolation": "bicubic",
                           "resize_mode": "shortest", **says} for tag, says in tags.items()}
        configs, published = open_clip.factory._MODEL_CONFIGS, open_clip.pretrained._PRETRAINED
        monkeypatch.setitem(configs, "tiny-clip", copy.deepcopy(config or TINY))
        monkeypatch.setitem(published, "tiny-clip", described)
        return "tiny-clip"
    return register


@pytest.fixture
def weights(tmp_path):
    """A file of the tiny model's tensors, under a name that tells nothing."""
    file = tmp_path / "model.pt"
    torch.save({k: v for k, v in openai_form()[1].items() if v.ndim or k == "logit_scale"}, file)
    return file


# ------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("rule", ["shortest", "squash"])
@pytest.mark.parametrize("side", [64, 33])
def test_a_resized_picture_is_open_clips_to_the_byte(rule, interpolation, side):
    transform = theirs(side, interpolation, rule)
    resize = transform.transforms[:-2]  # without ToTensor and Normalize
    own = Preprocess(side, rule, interpolation, *CLIP)
    for size in SIDES:
        picture = wanted = noise(*size)
        for step in resize:
            wanted = step(wanted)
        pixels = own.resized(picture)
        assert pixels.shape == (side, side, 3)
        assert np.array_equal(pixels, np.asarray(wanted)), (size, rule)
        batch = own.normalised(torch.from_numpy(pixels.copy())[None])[0]
        assert torch.allclose(batch, transform(picture), atol=1e-6)


def test_shortest_is_not_crop_but_for_a_square():
    shortest, crop = (Preprocess(64, rule, "bicubic") for rule in ("shortest", "crop"))
    assert np.array_equal(shortest.resized(noise(90, 90)), crop.resized(noise(90, 90)))
    assert not np.array_equal(shortest.resized(noise(301, 227)), crop.resized(noise(301, 227)))
    assert shortest.pixel_key() != crop.pixel_key()


@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("P", "png"), ("CMYK", "jpg")])
def test_a_picture_of_another_mode_is_made_rgb_before_it_is_resized(tmp_path, mode, suffix):
    file = tmp_path / f"picture.{suffix}"
    noise(90, 60).convert(mode).save(file)
    transform = theirs(32, "bicubic", "shortest")
    wanted = transform(Image.open(file).convert("RGB"))
    own = Preprocess(32, "shortest", "bicubic", *CLIP)
    batch = own.normalised(torch.from_numpy(own.resized(read_image(file)).copy())[None])[0]
    assert torch.allclose(batch, wanted, atol=1e-6)


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'longest': choose squash, shortest, crop, pad or ink"):
        Preprocess(32, "longest").resized(noise(40, 30))


@pytest.mark.parametrize("says", [{}, SIGLIP, MOBILE])
def test_published_weights_bring_their_own_preprocess(tiny, weights, says):
    name = tiny(tag={"file": str(weights), **says})
    made = backbones.clip(name, "tag").preprocess
    wanted = {"mean": CLIP[0], "std": CLIP[1], "interpolation": "bicubic",
              "resize_mode": "shortest", **says}
    assert made == Preprocess(32, wanted["resize_mode"], wanted["interpolation"],
                              wanted["mean"], wanted["std"])
    picture, rule = noise(70, 41), theirs(32, **wanted)
    pixels = torch.from_numpy(made.resized(picture).copy())
    assert torch.allclose(made.normalised(pixels[None])[0], rule(picture), atol=1e-6)


def test_every_rule_in_open_clips_table_is_supported():
    entries = [open_clip.get_pretrained_cfg(*pair) for pair in open_clip.list_pretrained()]
    assert {e["resize_mode"] for e in entries} <= set(backbones.RESIZE)
    assert {e["interpolation"] for e in entries} <= {"bilinear", "bicubic"}


@pytest.mark.parametrize("name", ["doodle-clip", "tiny-clip"])
def test_random_weights_see_as_clip_does(tiny, name):
    tiny(tag=SIGLIP)
    made = backbones.clip(name, "none").preprocess
    side = {"doodle-clip": 64, "tiny-clip": 32}[name]
    assert made == Preprocess(side, "shortest", "bicubic", *CLIP)


@pytest.mark.parametrize(("tags", "file", "wanted"), [
    ({}, "model.pt", CLIP[0]),
    ({"one": {}, "two": {}}, "model.pt", CLIP[0]),
    ({"one": SIGLIP, "two": SIGLIP}, "model.pt", HALF[0]),
    ({"one": {}, "two": SIGLIP}, "model.pt", CLIP[0]),
    ({"one": SIGLIP, "two": {}}, "model.pt", CLIP[0]),
    ({"one": {}, "two_b": SIGLIP}, "tiny-Two-B.pt", HALF[0])])
def test_a_downloaded_file_sees_as_its_architectures_published_weights(
        tiny, weights, tags, file, wanted):
    weights = weights.rename(weights.with_name(file))
    made = backbones.clip(tiny(**tags), str(weights)).preprocess
    assert made.mean == wanted
    assert made.resize == ("shortest" if wanted == CLIP[0] else "squash")


@pytest.mark.parametrize(("says", "told"), [
    ({"resize_mode": "longest"}, "tiny-clip resizes pictures by .* 'longest'.*supported: shorte"),
    ({"interpolation": "random"}, "random; supported: shortest, squash, bilinear or bicubic")])
def test_a_rule_that_is_not_ours_is_refused(tiny, weights, says, told):
    name = tiny(tag={"file": str(weights), **says})
    with pytest.raises(WeightsError, match=told):
        backbones.clip(name, "tag")


@pytest.mark.parametrize("size", [(32, 48), (48, 32)])
def test_a_model_for_pictures_that_are_not_square_is_refused(monkeypatch, size):
    vision = TINY["vision_cfg"] | {"image_size": size}
    monkeypatch.setitem(backbones.OWN_CONFIGS, "wide", TINY | {"vision_cfg": vision})
    with pytest.raises(WeightsError, match=f"wide takes pictures of {size[0]} x {size[1]}"):
        backbones.clip("wide", "none")


# ---------------------------------------------------------------------------------- words


def test_texts_are_cut_to_the_models_length(tiny):
    made = backbones.clip(tiny(), "none")
    assert made.tokenizer(["word " * 40]).shape == (1, 16)


def foreign(tiny) -> str:
    return tiny(TINY | {"text_cfg": TINY["text_cfg"] | {"hf_tokenizer_name": "timm/words"}})


def test_another_tokenizer_is_the_one_that_open_clip_gives(tiny, monkeypatch):
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: f"tokenizer of {name}")
    assert backbones.clip(foreign(tiny), "none").tokenizer == "tokenizer of tiny-clip"


@pytest.mark.parametrize(("error", "told"), [
    (ModuleNotFoundError("No module named 'transformers'"), "pip install transformers"),
    (OSError("offline"), "OSError.*tokenizer's files of timm/words on the Hugging Face hub")])
def test_a_tokenizer_that_cannot_be_had_is_named(tiny, monkeypatch, error, told):
    def failing(name):
        raise error

    monkeypatch.setattr(open_clip, "get_tokenizer", failing)
    with pytest.raises(WeightsError, match=f"tiny-clip reads .*timm/words.*{told}"):
        backbones.clip(foreign(tiny), "none")


def test_a_tokenizer_of_the_hub_is_refused_without_a_network(tiny):
    with pytest.raises(WeightsError, match="tokenizer timm/words, which could not be made"):
        backbones.clip(foreign(tiny), "none")


# ---------------------------------------------------------------------------------- names


@pytest.mark.parametrize(("given", "known"), [
    ("RN50", "RN50"), ("RN101", "RN101"), ("RN50x4", "RN50x4"), ("RN50x16", "RN50x16"),
    ("RN50x64", "RN50x64"), ("ViT-B/32", "ViT-B-32"), ("ViT-B/16", "ViT-B-16"),
    ("ViT-L/14", "ViT-L-14"), ("ViT-L/14@336px", "ViT-L-14-336"),
    ("ViT-L/14 (336px)", "ViT-L-14-336"), ("ViT-L-14-336", "ViT-L-14-336"),
    ("vit-b/32", "ViT-B-32"), ("rn50X4", "RN50x4"), ("VIT-L/14@336PX", "ViT-L-14-336"),
    ("Doodle-CLIP", "doodle-clip"), ("ViT-B-32-quickgelu", "ViT-B-32-quickgelu")])
def test_openais_and_open_clips_names_are_known(given, known):
    assert backbones.clip_name(given) == known


def test_every_name_of_open_clip_is_itself():
    assert [backbones.clip_name(n) for n in open_clip.list_models()] == open_clip.list_models()


@pytest.mark.parametrize(("given", "near"), [("vit-b/23", "ViT-B-32"), ("ViT-L/14@338px",
                                                                       "ViT-L-14-336")])
def test_an_unknown_name_is_told_with_the_nearest(given, near):
    with pytest.raises(WeightsError, match=f"knows no model '{given}'; nearest: .*{near}"):
        backbones.clip(given, "none")


# ----------------------------------------------------------------------------- activation


def activations(model: nn.Module) -> set[type]:
    return {type(m) for m in model.modules() if isinstance(m, QuickGELU | nn.GELU)}


@pytest.mark.parametrize(("forced", "wanted"), [(None, None), (True, True), (False, False)])
@pytest.mark.parametrize(("tag", "own"), [("openai", True), ("other", False), ("meta", True)])
def test_a_tags_activation_is_open_clips_word_or_the_users(
        tiny, weights, tag, own, forced, wanted):
    about = {"file": str(weights)}
    name = tiny(openai=about | {"quick_gelu": True}, other=about, meta=about | {"quick_gelu": True})
    made = backbones.clip(name, tag, quick_gelu=forced)
    quick = own if wanted is None else wanted
    assert (activations(made.model), made.quick_gelu) == ({QuickGELU if quick else nn.GELU}, quick)
    source = open_clip.CLIP(**copy.deepcopy(TINY), quick_gelu=quick)
    source.load_state_dict({k: v.float() for k, v in torch.load(weights).items()})
    assert same(made.model, source)


def test_a_quickgelu_config_can_be_forced_off(tiny, weights):
    name = tiny(TINY | {"quick_gelu": True}, openai={"file": str(weights), "quick_gelu": True})
    for source in ("openai", str(weights), "none"):
        assert backbones.clip(name, source).quick_gelu
        assert activations(backbones.clip(name, source, quick_gelu=False).model) == {nn.GELU}


@pytest.mark.parametrize("forced", [None, True, False])
@pytest.mark.parametrize(("file", "own"), [
    ("model.pt", False), ("tiny-openai.pt", True), ("tiny-QuickGELU-x.pt", True)])
def test_a_files_activation_is_its_names_or_the_users(tiny, weights, file, own, forced):
    weights = weights.rename(weights.with_name(file))
    made = backbones.clip(tiny(), str(weights), quick_gelu=forced)
    quick = own if forced is None else forced
    assert (activations(made.model), made.quick_gelu) == ({QuickGELU if quick else nn.GELU}, quick)


@pytest.mark.parametrize(("config", "own"), [(TINY, False), (TINY | {"quick_gelu": True}, True)])
def test_random_weights_have_the_configs_activation_or_the_users(tiny, config, own):
    name = tiny(config)
    assert [backbones.clip(name, "none", quick_gelu=q).quick_gelu
            for q in (None, True, False)] == [own, True, False]
    assert [backbones.clip("doodle-clip", "none", quick_gelu=q).quick_gelu
            for q in (None, True, False)] == [True, True, False]


def test_the_demos_weights_keep_their_activation_unless_forced(monkeypatch, tmp_path):
    file = tmp_path / "clip.pt"
    torch.save(backbones._empty("doodle-clip", True).state_dict(), file)
    monkeypatch.setattr(backbones, "DOODLE_WEIGHTS", file)
    assert [backbones.clip("doodle-clip", "doodles", quick_gelu=q).quick_gelu
            for q in (None, False)] == [True, False]


# --------------------------------------------------------------------------- OpenAI's files


def test_the_nine_published_files_are_known_by_their_hash():
    hashes = backbones.openai_hashes()
    assert len(hashes) == 9 and all(len(h) == 64 and int(h, 16) for h in hashes)
    assert "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af" in hashes  # ViT-B/32


def test_openais_archive_becomes_the_model_that_it_holds(tiny, tmp_path, monkeypatch):
    source, state = openai_form()
    file = tmp_path / "any.pt"
    sha256 = archive(state, file)
    assert set(torch.jit.load(str(file)).state_dict()) == set(state)
    monkeypatch.setattr(backbones, "openai_hashes", lambda: {sha256})
    made = backbones.clip(tiny(), str(file))
    assert same(made.model, source) and made.quick_gelu
    assert {p.dtype for p in made.model.state_dict().values()} == {torch.float32}
    assert made.sha256 == backbones.state_hash(source)
    reference = build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32)
    assert same(made.model, reference.float())  # open_clip's own reading of such a state
    assert not backbones.clip(tiny(), str(file), quick_gelu=False).quick_gelu


def test_an_archive_without_openais_numbers_has_its_activation(tiny, tmp_path, monkeypatch):
    source, state = openai_form()
    file = tmp_path / "any.pt"
    sha256 = archive({k: v for k, v in state.items() if k not in backbones.OPENAI_EXTRA}, file)
    monkeypatch.setattr(backbones, "openai_hashes", lambda: {sha256})
    made = backbones.clip(tiny(), str(file))
    assert made.quick_gelu and same(made.model, source)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_another_archive_is_not_opened(tiny, tmp_path, monkeypatch, suffix):
    file = tmp_path / f"openai{suffix}"
    sha256 = archive(openai_form()[1], file)
    opened = []
    monkeypatch.setattr(torch.jit, "load", lambda *args, **kwargs: opened.append(args))
    told = (f"TorchScript archive.*OpenAI's own file, and its SHA-256 {sha256}.*Use open_clip_model"
            ".safetensors of timm/tiny on the Hugging Face hub.*convert")
    with pytest.raises(WeightsError, match=told):
        backbones.clip(tiny(openai={}), str(file))
    with pytest.raises(WeightsError, match="Where you trust the file, convert"):
        backbones.clip(tiny(), str(file))
    assert not opened


def test_a_torn_archive_is_refused(tiny, tmp_path, monkeypatch):
    file = tmp_path / "torn.pt"
    archive(openai_form()[1], file)
    file.write_bytes(file.read_bytes()[:-4000])
    with pytest.raises(WeightsError, match="not a whole checkpoint"):
        backbones.clip(tiny(), str(file))


def test_a_known_archive_that_cannot_be_read_is_told(tiny, tmp_path, monkeypatch):
    file = tmp_path / "any.pt"
    sha256 = archive(openai_form()[1], file)
    monkeypatch.setattr(backbones, "openai_hashes", lambda: {sha256})

    def failing(*args, **kwargs):
        raise RuntimeError("version 99 is not supported\nmore")

    monkeypatch.setattr(torch.jit, "load", failing)
    with pytest.raises(WeightsError, match="any.pt cannot be opened by .*version 99 is not su"):
        backbones.clip(tiny(), str(file))


def test_an_archives_converted_tensors_keep_openais_activation(tiny, tmp_path):
    source, state = openai_form()
    file = tmp_path / "any.pt"
    torch.save(state, file)
    made = backbones.clip(tiny(), str(file))
    assert made.quick_gelu and same(made.model, source)


def test_what_openais_state_has_beside_the_tensors_is_named_as_left_out():
    source, state = openai_form()
    model = open_clip.CLIP(**copy.deepcopy(TINY), quick_gelu=True)
    assert backbones.load_clip(model, state, "file") == list(backbones.OPENAI_EXTRA)
    assert same(model, source)
    with pytest.raises(WeightsError, match="head.weight: not in the model"):
        backbones.load_clip(model, state | {"head.weight": torch.zeros(1)}, "file")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_fine_tuned_checkpoint_is_read_without_its_optimizer(tiny, tmp_path, prefix):
    source, state = openai_form(seed=3)
    model = open_clip.CLIP(**copy.deepcopy(TINY), quick_gelu=True)
    model.load_state_dict({k: v.float() for k, v in state.items()
                           if k not in backbones.OPENAI_EXTRA})
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model(torch.randn(2, 3, 32, 32), torch.ones(2, 16, dtype=torch.long))[0].sum().backward()
    adam.step()
    half = {prefix + k: v.half() for k, v in model.state_dict().items()}
    file = tmp_path / "openai-epoch-3.pt"
    torch.save({"epoch": 3, "name": "tiny", "state_dict": half, "optimizer": adam.state_dict()},
               file)
    source.load_state_dict({k.removeprefix(prefix): v.float() for k, v in half.items()})
    made = backbones.clip(tiny(), str(file))
    assert same(made.model, source) and made.quick_gelu


@pytest.mark.parametrize(("held", "told"), [
    ({"epoch": 3, "model": {}}, "not a state dict.*epoch, model are no tensors"),
    ([1, 2], "not a state dict.*list")])
def test_a_file_of_other_things_is_refused(tiny, tmp_path, held, told):
    torch.save(held, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=told):
        backbones.clip(tiny(), str(tmp_path / "other.pt"))


def test_other_readers_still_refuse_an_archive(tmp_path, monkeypatch):
    file = tmp_path / "any.pt"
    archive({"a.b": torch.zeros(2)}, file)
    assert backbones.is_torchscript(file)
    torch.save({"a": torch.zeros(2)}, tmp_path / "state.pt")
    assert not backbones.is_torchscript(tmp_path / "state.pt")
    with pytest.raises(WeightsError, match="not a whole checkpoint"):
        backbones.read_state(file)


# ------------------------------------------------------------------------- the real classes


def test_openais_smallest_residual_tower_loads_in_openais_form(tmp_path):
    source = backbones.clip("RN50", "none", quick_gelu=True)
    assert source.preprocess == Preprocess(224, "shortest", "bicubic", *CLIP)
    state = {k: v.half() if v.ndim > 1 else v for k, v in source.model.state_dict().items()}
    extra = {k: torch.tensor(1) for k in backbones.OPENAI_EXTRA}
    torch.save(state | extra, tmp_path / "RN50.pt")
    del source
    made = backbones.clip("RN50", str(tmp_path / "RN50.pt"))
    assert made.quick_gelu and made.preprocess.size == 224
    assert all(torch.equal(v, state[k].to(v.dtype)) for k, v in made.model.state_dict().items())
