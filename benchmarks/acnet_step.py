"""A training step of ACNet at its published size: forward and backward of generator,
discriminator and extractor (ResNet-50, 512 dimensions, 224 pixels), without the optimisers.

`python -m benchmarks.acnet_step` measures, against the plain float32 step of the same run:
- `plain`: every network called for each kind of image as the formulas are written;
- `joined`: the library's step, which joins the kinds that may pass together and makes the
  generated image once; `channels_last`: the same in that memory layout; `channels_last_bf16`: and
  under bf16 autocast. All are float32 but the last.
`remade`: `plain` with the generated image made again for the discriminator, for what that costs.
Every side's losses are compared with the plain step's.
"""

from __future__ import annotations

import statistics

import torch
import torch.nn.functional as F

from benchmarks import timing
from benchmarks.evaluation import machine
from benchmarks.timing import seconds
from replication.papers import acnet
from replication.papers.acnet.objectives import class_terms, frozen

CLASSES = 104


def plain_step(model, sketch, photo, labels, config, *, remade: bool = False) -> dict:
    """The step as its formulas read: two passes of the generator, three of the extractor, three
    of the discriminator."""
    generated, same = model.generator(sketch), model.generator(photo)
    with frozen(model.discriminator.parameters()):
        score = model.discriminator(generated)
    images = {"sketch": sketch, "photo": photo, "generated": generated}
    embeddings = {kind: model.extractor(image) for kind, image in images.items()}
    terms = {"adversarial": F.mse_loss(score, torch.ones_like(score)),
             "identity": F.l1_loss(same, photo),
             **class_terms(embeddings, labels, model.proxies, config)}
    loss = terms["adversarial"] + config.identity_weight * terms["identity"] \
        + config.class_weight * terms["class"]
    loss.backward()
    again = model.generator(sketch) if remade else generated
    real, fake = model.discriminator(photo), model.discriminator(again.detach())
    discriminator = (F.mse_loss(real, torch.ones_like(real))
                     + F.mse_loss(fake, torch.zeros_like(fake))) / 2
    discriminator.backward()
    return {"loss": loss.detach(), "discriminator": discriminator.detach()}


def joined_step(model, sketch, photo, labels, config, *, autocast: bool = False) -> dict:
    """The library's step."""
    with torch.autocast(sketch.device.type, torch.bfloat16, enabled=autocast):
        terms, generated = acnet.loss_terms(model, sketch, photo, labels, config)
    terms["loss"].backward()
    with torch.autocast(sketch.device.type, torch.bfloat16, enabled=autocast):
        discriminator = acnet.discriminator_loss(model, photo, generated)
    discriminator.backward()
    return {"loss": terms["loss"].detach(), "discriminator": discriminator.detach()}


def measured(options) -> dict:
    """Medians over interleaved repeats: a busy moment of the machine hits every side alike."""
    device = torch.device(options.device)
    config = acnet.Config(backbone_type=options.backbone, emb_dim=512, weights="none")
    model, _, _ = acnet.build(config, CLASSES)
    model = model.to(device)
    draw = torch.Generator().manual_seed(0)
    size = (options.pairs, 3, options.side, options.side)
    sketch, photo = (torch.rand(size, generator=draw).to(device) * 2 - 1 for _ in range(2))
    labels = torch.randint(0, CLASSES, (options.pairs,), generator=draw).to(device)

    def side(step, layout=torch.contiguous_format, **more):
        def run() -> dict:
            model.to(memory_format=layout)
            model.zero_grad(set_to_none=True)
            images = [x.to(memory_format=layout) for x in (sketch, photo)]
            return lambda: step(model, *images, labels, config, **more)
        return run

    last = torch.channels_last
    sides = {"plain": side(plain_step), "remade": side(plain_step, remade=True),
             "joined": side(joined_step), "channels_last": side(joined_step, last),
             "channels_last_bf16": side(joined_step, last, autocast=True)}
    times, found, memory = {name: [] for name in sides}, {}, {}
    for repeat in range(options.repeats + 1):  # the first warms up
        for name, prepared in sides.items():
            step = prepared()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            took = seconds(lambda step=step, name=name: found.update({name: step()}), device)
            times[name] += [took] if repeat else []
            if device.type == "cuda":
                memory[name] = torch.cuda.max_memory_allocated() / 1e9
    ratios = {name: statistics.median(a / b for a, b in zip(values, times["plain"], strict=True))
              for name, values in times.items()}
    apart = {name: {k: abs(float(v / found["plain"][k]) - 1) for k, v in terms.items()}
             for name, terms in found.items()}
    return {"pairs": options.pairs, "side": options.side, "backbone": options.backbone,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "median_seconds": {k: statistics.median(v) for k, v in times.items()},
            "ratio_to_plain": ratios, "peak_gb": memory,
            "relative_difference_of_losses": apart, "all_seconds": times}


def main() -> None:
    cuda = torch.cuda.is_available()
    parser = timing.options(__doc__.splitlines()[0], 20 if cuda else 3)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--pairs", type=int, default=32 if cuda else 4, help="published: 32")
    parser.add_argument("--side", type=int, default=224, help="pixels")
    options = parser.parse_args()
    record = {"machine": machine()} | measured(options)
    timing.write(record, options.out, f"acnet_step_{options.device}")
    print(f"{options.pairs} pairs, {options.side} pixels, {record['device']}: median seconds, "
          "ratio to the plain float32 step, difference of the losses")
    for name, value in record["median_seconds"].items():
        differ = max(record["relative_difference_of_losses"][name].values())
        print(f"{name:20}{value:9.3f}{record['ratio_to_plain'][name]:8.2f}{differ:12.1e}")


if __name__ == "__main__":
    main()
