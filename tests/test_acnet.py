"""ACNet against the original's values, its losses, its checkpoint, its options, its data."""

import json
import pickle
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

from replication import backbones, data, losses, training
from replication.papers import acnet
from replication.papers.acnet.experiment import Pairs, augmentation
from replication.papers.acnet.objectives import class_terms, frozen
from replication.transforms import Preprocess

GOLDEN = Path(__file__).parent / "golden"
MANIFEST = json.loads((GOLDEN / "acnet.json").read_text())["manifest"]
VALUES = np.load(GOLDEN / "acnet.npz")
SMALL = {"backbone_type": "doodle-resnet", "weights": "none", "image_size": 32, "channels": 2,
         "blocks": 1, "emb_dim": 8}
LABELS = torch.tensor([3, 1, 3, 0])


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


def made_up(name: str, shape) -> torch.Tensor:
    """The tensor that the reference values were computed with."""
    x, last = rng(name).standard_normal(shape, dtype=np.float32), name.split(".")[-1]
    if last == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    if last == "running_var":
        x = 1 + 0.1 * np.abs(x)
    elif len(shape) < 2:
        x = 1 + 0.1 * x if last == "weight" else 0.1 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:]))
    return torch.as_tensor(np.asarray(x, np.float32))


def pictures(n: int, side: int) -> list[torch.Tensor]:
    return [torch.from_numpy(rng(f"input:acnet.{name}").standard_normal(
        (n, 3, side, side), dtype=np.float32) * 0.5) for name in ("sketch", "photo")]


def parts(backbone: str) -> dict[str, str]:
    return {"extractor": backbone, "generator": "generator", "discriminator": "discriminator",
            "proxies": f"{backbone}_proxies"}


def small(seed: int = 0, **options) -> tuple[acnet.ACNet, acnet.Config]:
    """A small model for 5 classes, with weights that let every gradient through (timm's own start
    has norms of weight 0)."""
    config = acnet.Config(**SMALL | options)
    model = acnet.build(config, 5)[0]
    model.load_state_dict({k: made_up(f"{seed}.{k}", v.shape)
                           for k, v in model.state_dict().items()})
    return model, config


def states(model: acnet.ACNet) -> dict[str, dict[str, torch.Tensor]]:
    named = ("extractor", "generator", "discriminator")
    return {k: dict(getattr(model, k).state_dict()) for k in named} | {
        "proxies": {"W": model.proxies.detach().clone()}}


def reached(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.grad is not None}


def named(model: torch.nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


# --------------------------------------------------------------------------- the original's values


@pytest.fixture(scope="module", params=[
    pytest.param(name, marks=pytest.mark.xdist_group(f"acnet-{name}"))
    for name in ("resnet50", "vgg16")])
def original(request):
    """(backbone, model with the reference's weights, values of one step)."""
    name = request.param
    model = acnet.ACNet(timm.create_model(name, num_classes=64, global_pool="max"), 64, 10)
    acnet.load_official(model, {
        part: {key: made_up(key, shape) for key, shape, _ in MANIFEST[which]}
        for part, which in parts(name).items()})
    sketch, photo = pictures(2, 224)
    config, embedded = acnet.Config(emb_dim=64, backbone_type=name), []

    def extractor(images):
        embedded.append(model.extractor(images))
        return embedded[-1]

    with torch.no_grad():
        terms, generated = acnet.loss_terms(model, sketch, photo, torch.tensor([3, 1]), config,
                                            extractor=extractor)
        of_sketch, of_photo, _ = torch.cat(embedded).chunk(3)
        found = {
            "fake_mean": generated.mean((2, 3)), "fake_std": generated.std((2, 3)),
            "fake_patch": generated[:, :, 100:104, 100:104],
            "pred_fake": model.discriminator(generated), "adv": terms["adversarial"],
            "idt": terms["identity"], "cls": terms["class"],
            "dloss": acnet.discriminator_loss(model, photo, generated),
            "sketch_emb": of_sketch, "photo_emb": of_photo,
            "fake_emb": model.encode_sketch(sketch), "loss": terms["loss"]}
    return name, model, found


def test_images_embeddings_and_losses_are_the_originals(original):
    name, _, found = original
    wanted = {k.removeprefix(f"{name}."): VALUES[k] for k in VALUES if k.startswith(f"{name}.")}
    assert wanted.keys() == found.keys() - {"loss"}
    for key, value in wanted.items():
        error = np.abs(found[key].numpy() - value).max()
        assert error < 1e-4 * np.abs(value).max(), f"{key}: {error}"
    total = wanted["adv"] + 0.1 * wanted["idt"] + 10 * wanted["cls"]
    assert found["loss"].item() == pytest.approx(float(total), rel=1e-4)


def test_the_published_files_names_and_shapes_are_the_modules(original):
    name, model, _ = original
    ours = states(model)
    for part, key in parts(name).items():
        assert {k: list(v.shape) for k, v in ours[part].items()} == {
            k: shape for k, shape, _ in MANIFEST[key]}, part


# ------------------------------------------------------------------------------------- the losses


def some_embeddings() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Seven embeddings of classes 0, 1, 2, 4 of five, labels, proxies (a column each)."""
    g = torch.Generator().manual_seed(5)
    return (torch.randn(7, 6, generator=g), torch.tensor([0, 2, 1, 1, 4, 0, 0]),
            torch.randn(6, 5, generator=g))


def cosine(a, b) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def distance(a, b) -> float:
    return float((a / a.norm() - b / b.norm()).norm())


def softmax_in_loops(z, labels, proxies):
    total = 0.0
    for row, label in zip(z, labels.tolist(), strict=True):
        logits = [cosine(row, proxies[:, c]) / 0.05 for c in range(5)]
        total += np.log(sum(np.exp(logits))) - logits[label]
    return total / len(z)


def anchor_in_loops(z, labels, proxies):
    positive, negative = [], []
    for c in range(5):
        near = [np.exp(-32 * (cosine(row, proxies[:, c]) - 0.1))
                for row, label in zip(z, labels, strict=True) if label == c]
        far = [np.exp(32 * (cosine(row, proxies[:, c]) + 0.1))
               for row, label in zip(z, labels, strict=True) if label != c]
        positive += [np.log(1 + sum(near))] if near else []
        negative += [np.log(1 + sum(far))]
    assert len(positive) == 4 and len(negative) == 5  # no embedding of class 3
    return np.mean(positive) + np.mean(negative)


def pairs_in_loops(z, labels, _):
    terms = {True: [], False: []}
    for i in range(len(z)):
        for j in set(range(len(z))) - {i}:
            same, d = bool(labels[i] == labels[j]), distance(z[i], z[j]) - 1.2
            terms[same].append(0.2 + d if same else 0.2 - d)
    active = {same: [t for t in found if t > 0] for same, found in terms.items()}
    assert all(active.values()) and active != terms
    return sum(np.mean(found) for found in active.values())


def triplets_in_loops(z, labels, _):
    terms = [0.3 + distance(z[a], z[p]) - distance(z[a], z[n])
             for a in range(len(z)) for p in range(len(z)) for n in range(len(z))
             if a != p and labels[a] == labels[p] and labels[a] != labels[n]]
    active = [t for t in terms if t > 0]
    assert 0 < len(active) < len(terms)
    return np.mean(active)


LOSSES = {
    "normalised_softmax": (lambda z, y, w: losses.normalised_softmax(z, y, w, 0.05),
                           softmax_in_loops),
    "proxy_anchor": (losses.proxy_anchor, anchor_in_loops),
    "margin_pairs": (lambda z, y, w: losses.margin_pairs(z, y), pairs_in_loops),
    "batch_triplets": (lambda z, y, w: losses.batch_triplets(z, y), triplets_in_loops),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_what_plain_loops_give(name):
    ours, loops = LOSSES[name]
    assert ours(*some_embeddings()).item() == pytest.approx(loops(*some_embeddings()), rel=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_where_two_embeddings_are_the_same(name):
    z, labels, proxies = some_embeddings()
    axis = torch.eye(6)  # of exactly unit length, so that distances are exactly 0
    z[2] = z[3] = axis[0]  # of one class
    z[1] = z[4] = axis[1]  # of two
    z[0] = proxies[:, 0] = axis[2]
    z.requires_grad_()
    LOSSES[name][0](z, labels, proxies).backward()
    assert torch.isfinite(z.grad).all() and z.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["margin_pairs", "batch_triplets"])
def test_a_batch_with_nothing_to_learn_costs_nothing(name):
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    loss = LOSSES[name][0](z, torch.tensor([0, 0, 1]), None)
    loss.backward()
    assert loss.item() == 0 and not z.grad.any()


def test_the_proxy_of_a_class_absent_from_the_batch_is_only_pushed_away():
    z, labels, proxies = some_embeddings()
    proxies.requires_grad_()
    losses.proxy_anchor(z, labels, proxies).backward()
    absent = proxies.detach()[:, 3].clone().requires_grad_()
    cosines = F.cosine_similarity(z, absent[None])
    (torch.log1p((32 * (cosines + 0.1)).exp().sum()) / 5).backward()
    torch.testing.assert_close(proxies.grad[:, 3], absent.grad)


@pytest.mark.parametrize("loss_type", ["normalised_softmax", "cross_entropy", "proxy_anchor"])
def test_class_losses_are_averaged_as_released_and_summed_as_written(loss_type):
    z, labels, proxies = some_embeddings()
    kinds = {"sketch": z, "photo": z + 1, "generated": z - 1}
    mean, total = (class_terms(kinds, labels, proxies, acnet.Config(loss_type=loss_type,
                                                                    class_reduction=r))
                   for r in ("mean", "sum"))
    each = [mean[f"class_{kind}"].item() for kind in kinds]
    assert len(set(each)) == 3
    assert mean["class"].item() == pytest.approx(sum(each) / 3)
    assert total["class"].item() == pytest.approx(sum(each))


def test_cross_entropy_is_on_plain_products():
    z, labels, proxies = some_embeddings()
    terms = class_terms({"photo": z}, labels, proxies, acnet.Config(loss_type="cross_entropy"))
    logits = (z @ proxies).double().numpy()
    wanted = np.mean([np.log(np.exp(row).sum()) - row[label]
                      for row, label in zip(logits, labels.tolist(), strict=True)])
    assert terms["class"].item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("loss_type", "loss"), [("margin", losses.margin_pairs),
                                                 ("triplet", losses.batch_triplets)])
def test_pair_losses_see_all_kinds_of_images_at_once(loss_type, loss):
    z, labels, proxies = some_embeddings()
    terms = class_terms({"sketch": z, "photo": z + 1}, labels, proxies,
                        acnet.Config(loss_type=loss_type))
    wanted = loss(torch.cat([z, z + 1]), torch.cat([labels, labels]))
    assert terms.keys() == {"class"} and terms["class"].item() == pytest.approx(wanted.item())


# ----------------------------------------------------------------------------------- one step


def test_the_retrieval_loss_reaches_all_but_the_discriminator():
    model, config = small()
    terms, _ = acnet.loss_terms(model, *pictures(4, 32), LABELS, config)
    terms["loss"].backward()
    assert reached(model) == named(model, "generator", "extractor", "proxies")
    still = [n for n, p in model.named_parameters()
             if n in reached(model) and p.ndim > 1 and not p.grad.any()]
    assert not still


@pytest.mark.parametrize("term", ["adversarial", "identity", "class"])
def test_each_term_alone_reaches_the_generator(term):
    others = {"adversarial_weight", "identity_weight", "class_weight"} - {f"{term}_weight"}
    model, config = small(**dict.fromkeys(others, 0.0))
    acnet.loss_terms(model, *pictures(4, 32), LABELS, config)[0]["loss"].backward()
    assert model.generator.in_conv[0].weight.grad.abs().sum() > 0


def test_the_discriminators_loss_reaches_the_discriminator_alone():
    model, config = small()
    sketch, photo = pictures(4, 32)
    _, generated = acnet.loss_terms(model, sketch, photo, LABELS, config)
    assert generated.requires_grad
    acnet.discriminator_loss(model, photo, generated).backward()
    assert reached(model) == named(model, "discriminator")


def test_in_the_warm_up_only_the_extractors_last_layer_learns():
    model, config = small()
    with frozen(model.extractor.body()):
        terms, _ = acnet.loss_terms(model, *pictures(4, 32), LABELS, config)
    terms["loss"].backward()
    assert reached(model) == named(model, "generator", "proxies", "extractor.backbone.fc")
    assert model.extractor.backbone.fc.weight.grad.any()


def test_frozen_parameters_thaw_after_an_error_and_only_what_was_frozen():
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    with pytest.raises(RuntimeError, match="broken"), frozen(model.parameters()):
        assert not model.weight.requires_grad
        raise RuntimeError("broken")
    assert model.weight.requires_grad and not model.bias.requires_grad


@pytest.mark.parametrize(("options", "stage", "generated", "embedded"), [
    ({}, "joint", 1, 12),
    ({"identity_weight": 0.0}, "joint", 1, 12),
    ({"class_on": "photo, generated"}, "joint", 1, 8),
    ({"loss_type": "triplet"}, "joint", 1, 12),
    ({"synthesis": "two-stage"}, "generator", 1, 0),
    ({"synthesis": "two-stage"}, "extractor", 1, 12),
    ({"synthesis": "none"}, "extractor", 0, 8),
])
def test_images_are_generated_once_and_embedded_once(options, stage, generated, embedded):
    model, config = small(**options)
    seen = {"generator": [], "extractor": []}
    for part, batches in seen.items():
        getattr(model, part).register_forward_hook(
            lambda module, given, out, batches=batches: batches.append(given[0].detach()))
    terms, images = acnet.loss_terms(model, *pictures(4, 32), LABELS, config, stage=stage)
    assert len(seen["generator"]) == generated
    rows = torch.cat([b.flatten(1) for b in seen["extractor"]]) if seen["extractor"] else []
    assert len(rows) == embedded
    assert embedded == 0 or len(rows.unique(dim=0)) == embedded
    assert torch.isfinite(terms["loss"]) and ("identity" in terms) == (
        stage != "extractor" and config.identity_weight > 0)
    assert (images is None) == (generated == 0)
    if images is not None:
        assert images.requires_grad == (stage != "extractor")


def test_the_weights_of_the_terms_are_the_configs():
    model, config = small(adversarial_weight=2.0, identity_weight=3.0, class_weight=5.0)
    terms, _ = acnet.loss_terms(model, *pictures(4, 32), LABELS, config)
    wanted = 2 * terms["adversarial"] + 3 * terms["identity"] + 5 * terms["class"]
    assert terms["loss"].item() == pytest.approx(wanted.item(), rel=1e-6)


def test_batch_norms_keep_their_statistics_in_training():
    model, config = small()
    model.eval()
    model.train()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms) and model.extractor.training
    before = {k: v.clone() for k, v in model.named_buffers()}
    sketch, photo = pictures(4, 32)
    adams = acnet.optimizers(model, config)
    terms, generated = acnet.loss_terms(model, sketch, photo, LABELS, config)
    terms["loss"].backward()
    adams["retrieval"].step()
    assert before and all(torch.equal(v, before[k]) for k, v in model.named_buffers())


def test_each_part_learns_at_its_own_rate():
    model, config = small(extractor_lr=0.1, proxy_lr=0.2, generator_lr=0.3, discriminator_lr=0.4)
    found = {id(p): (group["lr"], group["betas"]) for adam in acnet.optimizers(
        model, config).values() for group in adam.param_groups for p in group["params"]}
    plain, adversarial = (0.9, 0.999), (0.5, 0.999)
    wanted = {"extractor": (0.1, plain), "proxies": (0.2, plain), "generator": (0.3, adversarial),
              "discriminator": (0.4, adversarial)}
    for name, p in model.named_parameters():
        assert found[id(p)] == wanted[name.split(".")[0]], name


def test_an_embedding_does_not_depend_on_its_batch():
    model, _ = small()
    for encode, images in zip((model.encode_sketch, model.encode_photo), pictures(4, 32),
                              strict=True):
        with torch.no_grad():
            together, alone = encode(images), torch.cat([encode(i[None]) for i in images])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together.norm(dim=1), torch.ones(4))


def test_without_synthesis_a_sketch_is_embedded_as_it_is():
    model, _ = small(synthesis="none")
    sketch = pictures(4, 32)[0]
    with torch.no_grad():
        assert torch.equal(model.encode_sketch(sketch), model.encode_photo(sketch))


def test_the_memory_layout_does_not_change_the_losses():
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model, config = small()
        images = [i.to(memory_format=layout) for i in pictures(4, 32)]
        terms, generated = acnet.loss_terms(model.to(memory_format=layout), *images, LABELS,
                                            config)
        found.append({k: v.item() for k, v in terms.items()} | {
            "discriminator": acnet.discriminator_loss(model, images[1], generated).item()})
    assert found[1] == pytest.approx(found[0], rel=1e-4)


# ----------------------------------------------------------------------------------- checkpoints


def of_dimension(n: int) -> dict:
    return states(small(emb_dim=n)[0])


@pytest.mark.parametrize(("damage", "told"), [
    (lambda s: s.update(of_dimension(16)),
     r"extractor.backbone.fc.weight: file \(16, 512\), model \(8, 512\).*proxies: file \(16, 5\)"),
    (lambda s: s.update(proxies={"W": torch.zeros(8, 7)}),
     r"proxies: file \(8, 7\), model \(8, 5\)"),
    (lambda s: s.update(extractor={k: torch.zeros(shape) for k, shape, _ in MANIFEST["vgg16"]}),
     "extractor.backbone.conv1.weight: not in the file"),
    (lambda s: s.update(discriminator=s["generator"]),
     "discriminator.conv1.0.weight: not in the file"),
    (lambda s: s["generator"].pop("out_conv.0.bias"), "generator.out_conv.0.bias: not in the file"),
    (lambda s: s["extractor"].update({"backbone.more": torch.zeros(1)}),
     "extractor.backbone.more: not in the model"),
    (lambda s: [s.pop("discriminator"), s.pop("proxies")], "here: no discriminator, proxies"),
])
def test_another_checkpoint_is_refused_by_name_and_changes_nothing(damage, told):
    model, _ = small()
    given = states(small(seed=1)[0])
    damage(given)
    before = backbones.state_hash(model)
    with pytest.raises(backbones.WeightsError, match=told):
        acnet.load_official(model, given, "here")
    assert backbones.state_hash(model) == before


def saved(model: acnet.ACNet, prefix: Path) -> None:
    for part, state in states(model).items():
        torch.save(state, f"{prefix}_{part}.pth")


def test_the_published_files_are_read_and_loaded_whole(tmp_path):
    other, model = small(seed=1)[0], small()[0]
    saved(other, tmp_path / "sketchy_resnet50_512")
    acnet.load_official(model, acnet.read_official(str(tmp_path / "sketchy_resnet50_512")))
    assert backbones.state_hash(model) == backbones.state_hash(other)


def test_absent_files_of_a_checkpoint_are_named(tmp_path):
    saved(small()[0], tmp_path / "x")
    for part in ("generator", "proxies"):
        (tmp_path / f"x_{part}.pth").unlink()
    with pytest.raises(backbones.WeightsError, match="x_generator.pth, .*x_proxies.pth") as error:
        acnet.read_official(str(tmp_path / "x"))
    assert "x_extractor" not in str(error.value)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    saved(small()[0], tmp_path / "x")
    (tmp_path / "x_proxies.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(backbones.WeightsError, match="x_proxies.pth is not a whole checkpoint"):
        acnet.read_official(str(tmp_path / "x"))
    assert not (tmp_path / "ran").exists()


# --------------------------------------------------------------------------------------- options


def test_every_option_of_the_original_keeps_its_name_and_default():
    original = {"data_root": "/home/data", "data_name": "sketchy", "backbone_type": "resnet50",
                "emb_dim": 512, "batch_size": 64, "epochs": 10, "warmup": 1,
                "save_root": "result"}
    in_code = {"seed": 1, "extractor_lr": 1e-5, "proxy_lr": 1e-3, "generator_lr": 1e-3,
               "discriminator_lr": 1e-4, "temperature": 0.05, "adversarial_weight": 1.0,
               "identity_weight": 0.1, "class_weight": 10.0, "channels": 8, "blocks": 8,
               "image_size": 224, "selection": "unseen", "class_reduction": "mean",
               "synthesis": "joint", "loss_type": "normalised_softmax"}
    defaults = {k: f.default for k, f in acnet.Config.__dataclass_fields__.items()}
    assert list(defaults)[:len(original)] == list(original)
    assert {k: defaults[k] for k in original | in_code} == original | in_code


@pytest.mark.parametrize(("option", "value"), [
    ("batch_size", 3), ("batch_size", 0), ("class_on", "sketch, cat"), ("class_on", ""),
    ("synthesis", "three"), ("loss_type", "x"), ("epochs", -1), ("warmup", -1), ("emb_dim", 0),
    ("selection", "first"), ("class_reduction", "median"), ("temperature", 0.0)])
def test_a_wrong_option_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=option):
        training.chosen(acnet.Config, {option: value})


@pytest.mark.parametrize(("given", "told"), [
    ({"class_on": "sketch, cat"}, "names cat: choose from sketch, photo, generated"),
    ({"class_on": ""}, "names no image"), ({"class_on": " , "}, "names no image"),
    ({"class_on": "generated", "synthesis": "none"}, "generated needs synthesis")])
def test_what_is_wrong_in_class_on_is_named(given, told):
    with pytest.raises(ValueError, match=told):
        acnet.Config(**given)


@pytest.mark.parametrize(("class_on", "synthesis", "kinds"), [
    ("generated,sketch", "joint", ("sketch", "generated")),
    ("sketch, photo, generated", "two-stage", ("sketch", "photo", "generated")),
    ("sketch, photo, generated", "none", ("sketch", "photo")),
])
def test_the_class_loss_sees_the_images_that_there_are(class_on, synthesis, kinds):
    assert acnet.Config(class_on=class_on, synthesis=synthesis).classified == kinds


def test_a_run_may_be_given_more_epochs_but_in_two_stages():
    def key(**options) -> dict:
        return acnet.Config(**options).run_key()

    assert key(epochs=3) == key(epochs=5, data_root="/x", save_root="/y", num_workers=3)
    assert key(epochs=3, synthesis="two-stage") != key(epochs=5, synthesis="two-stage")
    assert key(blocks=8) != key(blocks=9)


# -------------------------------------------------------------------------------- timm's backbones


@pytest.mark.parametrize(("name", "weights", "told"), [
    ("resnet5", "default", "timm knows no model 'resnet5'; nearest: resnet50"),
    ("resnet50", "in2k", "resnet50 has no published weights 'in2k'; it has: .*a1_in1k.*`none`"),
    ("resnet18", "doodles", "are for doodle-resnet, doodle-vit, not for resnet18"),
    ("resnet18", "/no/where/here.pth", "no weights file .*here.pth .parameter weights"),
])
def test_weights_that_cannot_be_had_are_told_with_the_way_out(name, weights, told):
    with pytest.raises(backbones.WeightsError, match=told):
        backbones.timm_model(name, weights)


@pytest.mark.parametrize(("weights", "hub"), [
    ("default", "timm/resnet18.a1_in1k"), ("tv_in1k", "timm/resnet18.tv_in1k")])
def test_unreachable_weights_name_file_and_parameter(tmp_path, monkeypatch, weights, hub):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    told = f"could not be fetched .*published: model.safetensors of {hub} on.*parameter weights"
    with pytest.raises(backbones.WeightsError, match=told):
        backbones.timm_model("resnet18", weights)


@pytest.fixture(scope="module")
def imagenets(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file as timm publishes them, for 1000 classes, and what is in it."""
    file = tmp_path_factory.mktemp("timm") / "resnet18.pth"
    torch.manual_seed(3)
    state = timm.create_model("resnet18").state_dict()
    torch.save(state, file)
    return file, state


def test_a_file_loads_but_for_the_classifier_which_is_new(imagenets):
    file, state = imagenets
    one, again, other = (backbones.timm_model("resnet18", str(file), seed, num_classes=8,
                                              global_pool="max").model.state_dict()
                         for seed in (0, 0, 1))
    assert one["fc.weight"].shape == (8, 512)
    for key, value in one.items():
        assert torch.equal(value, again[key]), key
        if not key.startswith("fc."):
            assert torch.equal(value, state[key]) and torch.equal(value, other[key]), key
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


def test_a_model_made_does_not_touch_the_random_state(imagenets):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    made = backbones.timm_model("resnet18", str(imagenets[0]), num_classes=8)
    assert torch.equal(torch.get_rng_state(), before)
    assert made.sha256 == backbones.state_hash(made.model)


def test_a_file_of_another_architecture_is_refused(imagenets):
    told = "resnet18.pth does not fit the model in .* places: layer1.0.conv1.weight: file"
    with pytest.raises(backbones.WeightsError, match=told):
        backbones.timm_model("resnet26", str(imagenets[0]), num_classes=8)


def test_a_model_without_max_pooling_is_refused_with_the_option():
    with pytest.raises(backbones.WeightsError, match="cannot be made with .*global_pool"):
        backbones.timm_model("levit_128", "none", num_classes=8, global_pool="max")


# ------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize(("options", "n"), [
    ({}, 0), ({"data_name": "tuberlin"}, 400), ({"data_name": "tuberlin", "min_photos": 0}, 0),
    ({"min_photos": 7}, 7)])
def test_tuberlin_alone_leaves_classes_with_few_photos_out(options, n):
    assert acnet.Config(**options).photos_needed == n


@pytest.fixture(scope="module")
def uneven(doodles) -> data.SketchSet:
    """Doodles with one photo in the second unseen class, and none short in the others."""
    whole = data.read_sketch_set(doodles, "doodles")
    photo = whole.val.photo
    first = np.flatnonzero(photo.labels == 1)[0]
    keep = (photo.labels != 1) | (np.arange(len(photo)) == first)
    return replace(whole, val=replace(whole.val, photo=photo.where(keep, photo.classes)))


def test_unseen_classes_with_few_photos_are_left_out_and_labels_follow(uneven):
    kept = acnet.with_photos(uneven, 2)
    classes = uneven.val.classes
    assert kept.val.classes == kept.val.photo.classes == (classes[0], *classes[2:])
    for images in (kept.val.sketch, kept.val.photo):
        folders = [file.split("/")[0] for file in images.files]
        assert folders == [images.classes[label] for label in images.labels]
        assert set(folders) == set(kept.val.classes)
    assert len(kept.val.sketch) == len(uneven.val.sketch) - (uneven.val.sketch.labels == 1).sum()
    assert kept.train is uneven.train and acnet.with_photos(uneven, 1) is uneven


def test_a_set_of_which_no_class_is_left_is_refused(uneven):
    with pytest.raises(data.DatasetError, match="min_photos=9: no unseen class .* the most is 4"):
        acnet.with_photos(uneven, 9)


@pytest.fixture
def pairs(doodles, own_cache):
    """Pairs of an epoch, over the read-only pixel cache."""
    split, rule = data.read_sketch_set(doodles, "doodles").train, Preprocess(8)
    pixels = [data.cached_pixels(i, rule, progress=False) for i in (split.sketch, split.photo)]
    assert all(isinstance(p, np.memmap) and not p.flags.writeable for p in pixels)
    return lambda epoch=0, seed=1: Pairs(split, *pixels, seed, epoch)


def test_a_batch_depends_on_seed_and_epoch_alone(pairs):
    rows = list(range(5, 25))
    one, again = pairs().__getitems__(rows), pairs().__getitems__(rows)
    assert all(torch.equal(one[k], again[k]) for k in one)
    for other in (pairs(epoch=1), pairs(seed=2)):
        found = other.__getitems__(rows)
        assert not torch.equal(found["row"], one["row"])
        assert (other.mirrored != pairs().mirrored).mean() == pytest.approx(0.5, abs=0.15)


def test_every_sketch_comes_once_with_a_photo_of_its_class_each_mirrored_or_not(pairs):
    drawn = pairs()
    kept = [p.tobytes() for p in (drawn.sketches, drawn.photos)]
    halves = [drawn.__getitems__(list(rows)) for rows in np.array_split(range(len(drawn)), 2)]
    batch = {k: torch.cat([half[k] for half in halves]) for k in halves[0]}
    split, (sketch, photo, _) = drawn.split, drawn.plan.T
    assert sorted(batch["row"].tolist()) == list(range(len(split.sketch)))
    assert np.array_equal(split.photo.labels[photo], batch["label"])
    assert np.array_equal(split.sketch.labels[batch["row"]], batch["label"])
    for column, (kind, pixels, rows) in enumerate(
            (("sketch", drawn.sketches, sketch), ("photo", drawn.photos, photo))):
        assert drawn.mirrored[:, column].mean() == pytest.approx(0.5, abs=0.12)
        for image, row, turned in zip(batch[kind].numpy(), rows, drawn.mirrored[:, column],
                                      strict=True):
            assert np.array_equal(image, pixels[row][:, ::-1] if turned else pixels[row])
    agree = (drawn.mirrored[:, 0] == drawn.mirrored[:, 1]).mean()
    assert agree == pytest.approx(0.5, abs=0.12)  # drawn for each image
    assert [p.tobytes() for p in (drawn.sketches, drawn.photos)] == kept


def some_bytes() -> torch.Tensor:
    return torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


def test_without_parameters_nothing_is_augmented():
    images = some_bytes()
    assert augmentation(acnet.Config())(images) is images


@pytest.mark.parametrize("options", [{"color_jitter": 0.4}, {"solarize": 1.0},
                                     {"color_jitter": 4.0, "solarize": 0.5}])
def test_augmentation_changes_bytes_into_other_bytes(options):
    images = some_bytes()
    before = images.clone()
    torch.manual_seed(0)
    changed = augmentation(acnet.Config(**options))(images)
    assert changed.dtype == torch.uint8 and changed.shape == images.shape
    assert all((a != b).any() for a, b in zip(changed, images, strict=True))
    assert torch.equal(images, before)


def test_solarization_turns_the_light_half_over():
    images = some_bytes()
    changed = augmentation(acnet.Config(solarize=1.0))(images)
    assert torch.equal(changed, torch.where(images < 128, images, 255 - images))


def test_each_image_is_augmented_on_its_own():
    images = some_bytes()[:1].repeat(8, 1, 1, 1)
    torch.manual_seed(0)
    for options in ({"color_jitter": 0.4}, {"solarize": 0.5}):
        changed = augmentation(acnet.Config(**options))(images)
        assert len(changed.flatten(1).unique(dim=0)) > 1, options


def test_the_parameters_that_the_chapters_figure_counts():
    caption = (Path(__file__).parent.parent / "book/acnet/index.md").read_text()
    model, _, _ = acnet.build(acnet.Config(weights="none"), 104)
    for part in (model.generator, model.discriminator, model.extractor):
        assert f"{sum(p.numel() for p in part.parameters()):,}" in caption
    assert f"{model.proxies.numel():,}" in caption
