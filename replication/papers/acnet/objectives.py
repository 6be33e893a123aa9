"""ACNet's losses, put together: synthesis, classes, discriminator."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from replication import losses
from replication.papers.acnet.config import Config
from replication.papers.acnet.networks import ACNet


@contextmanager
def frozen(parameters) -> Iterator[None]:
    """What is computed inside has no gradient for `parameters`, and passes gradients through."""
    changed = [p for p in parameters if p.requires_grad]
    for p in changed:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in changed:
            p.requires_grad_(True)


def class_terms(embeddings: dict[str, Tensor], labels: Tensor, proxies: Tensor, config: Config
                ) -> dict[str, Tensor]:
    """The class loss, one term an image kind; of the pair losses one over all kinds together."""
    if config.loss_type in ("margin", "triplet"):
        pairs = {"margin": losses.margin_pairs, "triplet": losses.batch_triplets}[config.loss_type]
        every = torch.cat(list(embeddings.values()))
        return {"class": pairs(every, labels.repeat(len(embeddings)))}
    term = {"normalised_softmax": lambda z: losses.normalised_softmax(z, labels, proxies,
                                                                      config.temperature),
            "cross_entropy": lambda z: F.cross_entropy(z @ proxies, labels),
            "proxy_anchor": lambda z: losses.proxy_anchor(z, labels, proxies)}[config.loss_type]
    terms = {f"class_{kind}": term(z) for kind, z in embeddings.items()}
    total = sum(terms.values())
    mean = config.class_reduction == "mean"
    return {"class": total / len(terms) if mean else total, **terms}


def synthesis_terms(model: ACNet, sketch: Tensor, photo: Tensor, config: Config
                    ) -> tuple[Tensor, dict[str, Tensor]]:
    """(generated images, LSGAN term and identity term); both domains pass the generator at once."""
    if config.identity_weight:
        generated, same = model.generator(torch.cat([sketch, photo])).chunk(2)
        terms = {"identity": F.l1_loss(same, photo)}
    else:
        generated, terms = model.generator(sketch), {}
    with frozen(model.discriminator.parameters()):
        score = model.discriminator(generated)
    return generated, {"adversarial": F.mse_loss(score, torch.ones_like(score)), **terms}


def discriminator_loss(model: ACNet, photo: Tensor, generated: Tensor) -> Float[Tensor, ""]:
    """LSGAN: mean of (D(photo) - 1)^2 and D(generated)^2; no gradient reaches the generator."""
    real, fake = model.discriminator(torch.cat([photo, generated.detach()])).chunk(2)
    return (F.mse_loss(real, torch.ones_like(real)) + F.mse_loss(fake, torch.zeros_like(fake))) / 2


def embedded(images: dict[str, Tensor], extractor: Callable[[Tensor], Tensor]
             ) -> dict[str, Float[Tensor, "b d"]]:
    """Embeddings of each kind of images; those that need no gradient themselves pass together,
    so that the first layer's gradient is computed for the generated ones alone."""
    found = {}
    for learns in (False, True):
        kinds = [k for k, v in images.items() if v.requires_grad == learns]
        if kinds:
            parts = extractor(torch.cat([images[k] for k in kinds])).chunk(len(kinds))
            found |= dict(zip(kinds, parts, strict=True))
    return found


def loss_terms(model: ACNet, sketch: Tensor, photo: Tensor, labels: Tensor, config: Config, *,
               stage: str = "joint", extractor: Callable[[Tensor], Tensor] | None = None
               ) -> tuple[dict[str, Tensor], Tensor | None]:
    """(terms with their weighted sum `loss`, generated images or None), each image made once.

    stage: `joint`; `generator` and `extractor` are the two of the two-stage synthesis.
    extractor: a compiled one.
    """
    terms, generated, weights = {}, None, {"adversarial": config.adversarial_weight,
                                           "identity": config.identity_weight,
                                           "class": config.class_weight}
    if stage == "extractor" and config.synthesis != "none":
        with torch.no_grad():
            generated = model.generator(sketch)
    elif stage != "extractor":
        generated, terms = synthesis_terms(model, sketch, photo, config)
    if stage != "generator":
        images = {"sketch": sketch, "photo": photo, "generated": generated}
        embeddings = embedded({kind: images[kind] for kind in config.classified},
                              model.extractor if extractor is None else extractor)
        with torch.autocast(labels.device.type, enabled=False):  # cosines over 0.05: no bf16
            terms |= class_terms(embeddings, labels, model.proxies, config)
    loss = sum(weights[k] * terms[k] for k in weights if k in terms)
    return {"loss": loss, **terms}, generated
