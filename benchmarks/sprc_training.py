"""SPRC's training with frozen features from the store, and with the image encoder in the loop.

`python -m benchmarks.sprc_training` measures whole training steps (forward, backward, optimiser) on
the same triplets, in the same run: with features that were computed once, read from the memory map;
and with the encoder run on the decoded pictures of every batch, as the released code does it. What
the encoder costs alone, and what the store saves over an epoch of CIRR, is shown beside.

On CUDA both are of the published size (EVA ViT-g/14, Q-Former of BERT-base; goal: at least 8 times
the samples a second), on the CPU the encoder is of ViT-S size and the Q-Former smaller in the same
proportion. Weights are random: they do not change the work. Decoding is in neither side.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import timing
from benchmarks.evaluation import machine, peak_gb
from benchmarks.timing import seconds
from replication.papers.sprc import encoders
from replication.papers.sprc.model import SPRC
from replication.papers.sprc.objectives import loss_terms
from replication.papers.sprc.qformer import QFormerConfig

VIT_S = {"img_size": 224, "patch_size": 14, "embed_dim": 384, "depth": 12, "num_heads": 6,
         "mlp_ratio": 4.0}
SMALL = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 6,
         "intermediate_size": 768}
PICTURES, WORDS, TOKENS = 64, 30_523, 16
CIRR_QUERIES, CIRR_IMAGES = 28_225, 16_939  # of the training split


def built(device: torch.device) -> tuple[encoders.Tokens, SPRC, int]:
    """The frozen encoder, the model, and the image's side, of the size that suits the device."""
    torch.manual_seed(0)
    sizes = encoders.EVA_G if device.type == "cuda" else VIT_S
    tower = encoders.Tokens(encoders.eva(**sizes)).to(device)
    config = QFormerConfig(encoder_width=sizes["embed_dim"], vocab_size=WORDS,
                           **({} if device.type == "cuda" else SMALL))
    return tower, SPRC(config).to(device).train(), sizes["img_size"]


def measured(options) -> dict:
    """Medians over interleaved repeats: a busy moment of the machine hits both sides alike."""
    device, draw = torch.device(options.device), np.random.default_rng(0)
    tower, model, side = built(device)
    pictures = torch.from_numpy(draw.random((PICTURES, 3, side, side), np.float32))
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    rows = torch.from_numpy(draw.integers(0, PICTURES, (2, options.batch)))
    ids = torch.from_numpy(draw.integers(1, WORDS, (options.batch, TOKENS))).to(device)
    mask = torch.ones_like(ids)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    @torch.inference_mode()
    def encoded(images: torch.Tensor) -> torch.Tensor:
        parts = images.split(options.chunk)
        return torch.cat([tower(part.to(device)).half() for part in parts])

    def step(reference: torch.Tensor, target: torch.Tensor) -> None:
        with autocast:
            found = model(reference, target, ids, mask)
            loss = loss_terms(found, model.prompt_tokens, model.temp)["loss"]
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()

    with tempfile.TemporaryDirectory() as folder:
        store = stored(encoded(pictures).cpu(), Path(folder) / "features.f16")

        def from_store() -> None:
            step(*(torch.from_numpy(np.array(store[own])).to(device) for own in rows))

        def in_loop() -> None:
            step(*(encoded(pictures[own]).clone() for own in rows))

        sides = {"stored": from_store, "in the loop": in_loop,
                 "encoder alone": lambda: [encoded(pictures[own]) for own in rows]}
        for run in sides.values():
            run()
        times = {name: [] for name in sides}
        for _ in range(options.repeats):
            for name, run in sides.items():
                times[name].append(seconds(run, device))
    median = {name: statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(a / b for a, b in zip(times["in the loop"], times["stored"],
                                                    strict=True))
    a_picture = median["encoder alone"] / (2 * options.batch)
    return {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "batch": options.batch, "image_tokens": store.shape[1], "width": store.shape[2],
            "encoder_parameters": sum(p.numel() for p in tower.parameters()),
            "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "bytes_an_image": store[0].nbytes, "seconds": median, "samples_per_second":
            {name: options.batch / median[name] for name in ("stored", "in the loop")},
            "ratio": ratio, "encoder_seconds_an_epoch_of_cirr": {
                "stored, once": a_picture * CIRR_IMAGES,
                "in the loop, every epoch": a_picture * 2 * CIRR_QUERIES},
            "peak_gb": peak_gb(), "all_seconds": times}


def stored(features: torch.Tensor, file: Path) -> np.memmap:
    """The features as `FeatureStore` keeps them, float16, mapped."""
    features.numpy().tofile(file)
    return np.memmap(file, np.float16, "r", shape=tuple(features.shape))


def main() -> None:
    parser = timing.options(__doc__.splitlines()[0], 5)
    parser.add_argument("--batch", type=int, default=None, help="triplets a step")
    parser.add_argument("--chunk", type=int, default=64, help="pictures that are encoded at once")
    options = parser.parse_args()
    options.batch = options.batch or (128 if options.device == "cuda" else 16)
    record = {"machine": machine()} | measured(options)
    timing.write(record, options.out, f"sprc_training_{options.device}")
    print(f"{record['device']}, {record['batch']} triplets a step, encoder of "
          f"{record['encoder_parameters'] / 1e6:,.0f} million parameters, "
          f"{record['trained_parameters'] / 1e6:,.1f} million learn")
    for name, value in record["seconds"].items():
        print(f"{name:20}{value:9.3f} s a step")
    print(f"{'ratio':20}{record['ratio']:9.2f}   goal at ViT-g size: 8 or more")


if __name__ == "__main__":
    main()
