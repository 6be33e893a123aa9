"""A small Q-Former for the demo: the contrast of images and captions of BLIP-2's first stage.

Paper: Li et al., BLIP-2, ICML 2023 (arXiv 2301.12597), section 3.1: image-text contrastive learning
with the largest similarity of a query token. Not in here: matching, and text generation from the
image, the stage's two other losses. It stands in for BLIP-2's published weights, on pictures whose
captions are known.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass as pydantic_dataclass
from safetensors.torch import load_file
from torch import Tensor

from replication import builtin, data, paths, training
from replication.composed import read_composed
from replication.feature_store import FeatureStore
from replication.papers.sprc.encoders import ImageEncoder, image_encoder
from replication.papers.sprc.model import SPRC, similarity
from replication.papers.sprc.qformer import QFormerConfig
from replication.papers.sprc.retriever import trimmed
from replication.papers.sprc.starting import DOODLE_QFORMER
from replication.wordpiece import Encoded, WordPiece, build_vocabulary, write_vocabulary


@pydantic_dataclass(frozen=True)
class Pretraining:
    """AdamW with linear warm-up and cosine decay on the captions of one split. words_of: composed
    sets whose training captions the vocabulary spells, too."""

    data_root: str = "data"
    captions: str = "doodles_captions/coco"
    split: str = "train"
    words_of: str = "doodles_cirr, doodles_fashioniq"
    save_root: str = "result/pretrain"
    name: str = "qformer"
    backbone: str = "doodle-clip"
    image_weights: str = "default"
    hidden_size: PositiveInt = 128
    num_hidden_layers: PositiveInt = 2
    num_attention_heads: PositiveInt = 4
    intermediate_size: PositiveInt = 512
    num_query_token: PositiveInt = 8
    embed_dim: PositiveInt = 64
    dropout: float = Field(0.0, ge=0, lt=1)
    batch_size: PositiveInt = 64
    epochs: PositiveInt = 40
    lr: NonNegativeFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05
    warmup: NonNegativeInt = 100
    seed: int = 0
    precision: str = "auto"


class Pairs(torch.utils.data.Dataset):
    """Every picture twice an epoch, each time with one of its captions, drawn from (seed, epoch).
    `group` is the picture."""

    def __init__(self, features: Tensor, text: Encoded, count: np.ndarray, seed: int, epoch: int):
        rng = np.random.default_rng([seed, epoch])
        self.features, self.text = features, text
        self.order = np.concatenate([rng.permutation(len(count)) for _ in range(2)])
        first = np.cumsum(count) - count
        self.caption = (first + rng.integers(0, count, (2, len(count)))).reshape(-1)

    def __len__(self) -> int:
        return len(self.order)

    def __getitems__(self, rows: list[int]) -> dict[str, Tensor]:
        image = self.order[rows]
        caption = self.caption[image + (np.array(rows) >= len(self.order) // 2)
                               * (len(self.order) // 2)]
        ids, mask = trimmed(self.text.ids[caption], self.text.mask[caption])
        return {"image": self.features[image], "ids": ids, "mask": mask,
                "group": torch.from_numpy(image), "row": torch.from_numpy(caption)}


class Contrast(torch.nn.Module):
    """SPRC's model, its captions read by the text branch alone, at [CLS]."""

    def __init__(self, model: SPRC):
        super().__init__()
        self.model = model

    def texts(self, ids: Int64[Tensor, "b t"], mask: Int64[Tensor, "b t"]
              ) -> Float[Tensor, "b e"]:
        """Text embeddings of unit length."""
        none = self.model.query_tokens.new_zeros(len(ids), 0, self.model.config.hidden_size)
        return F.normalize(self.model.text_proj(self.model.Qformer(none, ids, mask)[:, 0]).float(),
                           dim=-1)

    def forward(self, image: Float[Tensor, "b n w"], ids: Int64[Tensor, "b t"],
                mask: Int64[Tensor, "b t"]) -> Float[Tensor, "b b"]:
        """Similarities over the temperature: caption by picture."""
        return similarity(self.texts(ids, mask), self.model.encode_target(image)) / self.model.temp


def image_text_contrast(logits: Float[Tensor, "b b"], same: Bool[Tensor, "b b"]
                        ) -> Float[Tensor, ""]:
    """Cross-entropy over rows and over columns, the diagonal right; `same`: pairs of one picture,
    which are not each other's negatives."""
    other = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    logits, right = logits.masked_fill(other, -torch.inf), torch.arange(len(same),
                                                                        device=same.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def parts(config: Pretraining) -> tuple[data.Images, list[list[str]], WordPiece, ImageEncoder]:
    """Pictures, their captions, the vocabulary and the image encoder; every input is checked."""
    root = paths.user_path(config.data_root)
    images, captions = data.read_captions(root / config.captions, config.split)
    sets = [read_composed(root, name.strip(), "train") for name in config.words_of.split(",")
            if name.strip()]
    texts = [text for group in captions for text in group]
    words = build_vocabulary([*texts, *(c for s in sets for own in s.captions for c in own)])
    return images, captions, WordPiece(words), image_encoder(config.backbone, config.image_weights,
                                                             config.seed)


def pretrain(config: Pretraining, progress: bool = True) -> tuple[Path, training.Run]:
    """Trains and writes `<save_root>/<name>.safetensors` without prompts, as BLIP-2's weights come,
    and its vocabulary beside it; continues a stopped run."""
    folder = paths.writable_folder(config.save_root) / config.name
    fabric = training.start(config.seed, precision=config.precision)
    images, captions, words, encoder = parts(config)
    model = _model(config, encoder, len(words))
    features = FeatureStore.open_or_build(images, encoder, fabric.device, progress=progress)[:]
    text = words.encode([caption for group in captions for caption in group])
    count = np.array([len(group) for group in captions])
    run = training.Run(folder, asdict(config) | {"data_root": "", "save_root": "",
                                                 "encoder_sha256": encoder.sha256})
    learned = [p for k, p in model.named_parameters() if k != "prompt_tokens" and p.requires_grad]
    adam = torch.optim.AdamW(learned, lr=config.lr, betas=(0.9, 0.98), eps=1e-7,
                             weight_decay=config.weight_decay)
    forward, adam = fabric.setup(Contrast(model), adam)
    n_batches, steps = -(-2 * len(count) // config.batch_size), iter(())

    def batches_of(epoch: int):
        nonlocal steps
        model.train()
        steps = iter(range(epoch * n_batches, (epoch + 1) * n_batches))
        return data.batches(Pairs(features, text, count, config.seed, epoch), config.batch_size)

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        for group in adam.param_groups:
            group["lr"] = config.lr * training.warmup_cosine(next(steps), config.warmup,
                                                             n_batches * config.epochs)
        logits = forward(batch["image"], batch["ids"], batch["mask"])
        loss = image_text_contrast(logits, batch["group"][:, None] == batch["group"])
        training.optimise(fabric, adam, loss, batch)
        return {"loss": loss}

    training.fit(fabric, run, {"qformer": model}, {"adam": adam}, batches_of, step,
                 epochs=config.epochs, progress=progress)
    file = folder.with_suffix(".safetensors")
    kept = {k: v for k, v in model.state_dict().items() if k != "prompt_tokens"}
    write_vocabulary(folder.with_suffix(".vocab.txt"), words.tokens)
    paths.save_file(file, lambda tmp: training.write_tensors(kept, tmp))
    return file, run


def _model(config: Pretraining, encoder: ImageEncoder, n_tokens: int) -> SPRC:
    sizes = {k: getattr(config, k) for k in ("hidden_size", "num_hidden_layers",
                                             "num_attention_heads", "intermediate_size",
                                             "num_query_token")}
    made = QFormerConfig(**sizes, vocab_size=n_tokens, encoder_width=encoder.width,
                         hidden_dropout_prob=config.dropout,
                         attention_probs_dropout_prob=config.dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return SPRC(made, config.embed_dim)


@torch.inference_mode()
def caption_recall(config: Pretraining, file: Path, split: str = "val", k: int = 10
                   ) -> tuple[float, float, int]:
    """(text-to-image R@k %, chance %, pictures): captions of a split that was not trained on find
    their own picture among all of the split's."""
    images, captions = data.read_captions(paths.user_path(config.data_root) / config.captions,
                                          split)
    _, _, words, encoder = parts(config)
    model = _model(config, encoder, len(words)).eval()
    model.load_state_dict(load_file(file), strict=False)  # all but the prompts
    features = FeatureStore.open_or_build(images, encoder, progress=False)[:]
    text = words.encode([caption for group in captions for caption in group])
    owner = torch.repeat_interleave(torch.tensor([len(group) for group in captions]))
    found = similarity(Contrast(model).texts(text.ids, text.mask), model.encode_target(features))
    rank = 1 + (found > found.gather(1, owner[:, None])).sum(1)
    return 100 * float((rank <= k).double().mean()), 100 * k / len(images), len(images)


def ensure_qformer(data_root: str | Path) -> Path:
    """Trains the demo's CLIP and Q-Former (two minutes) unless their weights are there."""
    builtin.ensure_doodle_clip(data_root)
    if not DOODLE_QFORMER.exists():
        print(f"{paths.shown(DOODLE_QFORMER)} is not there yet: training the demo's Q-Former")
        pretrain(Pretraining(data_root=str(data_root), save_root=str(DOODLE_QFORMER.parent)))
    return DOODLE_QFORMER
