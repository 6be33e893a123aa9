"""What a run starts from, and what an evaluation measures: image encoder, words and Q-Former."""

from dataclasses import replace

import torch
from torch import Tensor

from replication import backbones, paths
from replication.backbones import WeightsError
from replication.composed import Composed
from replication.papers.sprc import files
from replication.papers.sprc.checkpoint import load_official, tensors
from replication.papers.sprc.config import BACKBONES, Config, Evaluate
from replication.papers.sprc.encoders import ImageEncoder, image_encoder
from replication.papers.sprc.model import SPRC
from replication.papers.sprc.qformer import QFormerConfig
from replication.wordpiece import WordPiece, build_vocabulary, read_wordpiece

DOODLE_QFORMER = paths.RESULT / "pretrain" / "qformer.safetensors"
TRAINING = "training"  # a vocabulary of the training captions' own
LAYERS = "Qformer.bert.encoder.layer."


def starting_point(config: Config, train: Composed) -> tuple[SPRC, ImageEncoder, WordPiece]:
    """The model that training starts from, at the config's size: of `weights`, or random from its
    seed (`none`); where the weights have more query tokens than `num_prompts`, the first ones.

    weights: `default` (files.DEFAULT), `doodles` (the demo's), a file, a folder or a repository:
    LAVIS' or transformers' BLIP-2 of the first stage, SPRC's own. Raises WeightsError and
    VocabularyError.
    """
    encoder_name = BACKBONES.get(config.backbone, config.backbone)
    weights = _place(config.weights, encoder_name)
    state, source = ({}, "") if weights == "none" else files.read(weights, encoder_name)
    state = _first_prompts(tensors(state, source), config.num_prompts) if state else {}
    words = _training_words(config, weights, train, sizes(state) if state else None)
    encoder = image_encoder(encoder_name, config.image_weights or _tower_of(weights, encoder_name),
                            config.seed, transform=config.transform, ratio=config.target_ratio)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    made = QFormerConfig(**{k: getattr(config, k) for k in names}, vocab_size=len(words),
                         encoder_width=encoder.width, num_query_token=config.num_prompts)
    return _model(_dropping(made, config.dropout), config.embed_dim, config.seed, state,
                  source), encoder, words


def trained_point(config: Evaluate) -> tuple[SPRC, ImageEncoder, WordPiece, dict]:
    """A checkpoint's model, at the size that its tensors have, and what the file says of itself
    (empty for the authors'). Raises WeightsError, VocabularyError and FileNotFoundError."""
    file = paths.user_path(config.model_path)
    if not file.exists():
        raise FileNotFoundError(f"no checkpoint {paths.shown(file)} (model_path): the authors' "
                                "sprc_cirr.pt and sprc_fiq.pt are linked in their readme; "
                                "train.ipynb makes one of your own")
    about, name = backbones.about_of(file), BACKBONES.get(config.backbone, config.backbone)
    found, source = files.read(config.model_path, name)
    state = tensors(found, source)
    if "prompt_tokens" not in state:
        raise WeightsError(f"{source} holds no prompt_tokens: it is a BLIP-2, which SPRC's "
                           "training starts from, not what it ends with")
    if about and about.get("encoder") != name:
        raise WeightsError(f"{source} was trained on the image encoder {about.get('encoder')}, "
                           f"asked is {name} (backbone)")
    made = sizes(state)
    heads = about.get("num_attention_heads", made.num_attention_heads)
    vocabulary = config.vocabulary or files.vocabulary_beside(config.model_path)
    words = read_wordpiece(vocabulary, made.vocab_size)
    tower = config.image_weights or (about["image_weights"] if about else config.model_path)
    encoder = image_encoder(name, tower, config.seed, transform=config.transform,
                            ratio=config.target_ratio)
    if about and about["encoder_sha256"] != encoder.sha256:
        raise WeightsError(f"{paths.shown(file)} was trained on other weights of {name} than "
                           f"{tower}: give those with image_weights")
    width = len(state["vision_proj.weight"])
    made = replace(made, num_attention_heads=heads)
    return _model(made, width, config.seed, state, source), encoder, words, about


def sizes(state: dict[str, Tensor]) -> QFormerConfig:
    """The sizes that a checkpoint's tensors have, in the names of either publisher. Heads are 64
    wide as in BERT: no tensor tells. Raises WeightsError."""
    def shape(*names: str) -> torch.Size:
        for name in names:
            if name in state:
                return state[name].shape
        raise WeightsError(f"the checkpoint holds no {' and no '.join(names)}")

    layers = {key.split("encoder.layer.")[1].split(".")[0] for key in state
              if key.startswith((LAYERS, "qformer.encoder.layer."))}
    first = [f"{start}0.intermediate_query.dense.weight" for start in
             (LAYERS, "qformer.encoder.layer.")]
    words = shape("Qformer.bert.embeddings.word_embeddings.weight",
                  "embeddings.word_embeddings.weight")
    width = state["query_tokens"].shape[-1]
    return QFormerConfig(
        hidden_size=width, num_hidden_layers=len(layers), num_attention_heads=max(1, width // 64),
        intermediate_size=shape(*first)[0], vocab_size=words[0],
        encoder_width=shape("ln_vision.weight", "vision_model.post_layernorm.weight")[0],
        num_query_token=state["query_tokens"].shape[1])


def _place(weights: str, encoder: str) -> str:
    weights = files.DEFAULT.get(encoder, weights) if weights == "default" else weights
    if weights != "doodles":
        return weights
    if not DOODLE_QFORMER.exists():
        raise WeightsError(f"no {paths.shown(DOODLE_QFORMER)}: make the demo's Q-Former with "
                           "`python -m replication run pretrain/qformer`")
    return str(DOODLE_QFORMER)


def _tower_of(weights: str, encoder: str) -> str:
    """Where the image encoder's weights are, unless they are named: with the Q-Former's, as
    transformers publishes them, or where that encoder is published."""
    alone = encoder != "eva-g" or weights == "none"
    return "default" if alone else weights


def _first_prompts(state: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    names = [k for k in ("query_tokens", "prompt_tokens") if k in state]
    return state | {k: state[k][:, :count].clone() for k in names}


def _training_words(config: Config, weights: str, train: Composed, stored: QFormerConfig | None
                    ) -> WordPiece:
    if config.vocabulary == TRAINING or (stored is None and not config.vocabulary):
        texts = [caption for captions in train.captions for caption in captions]
        return WordPiece(build_vocabulary([*texts, *train.texts]))
    file = config.vocabulary or files.vocabulary_beside(weights)
    return read_wordpiece(file, *([stored.vocab_size] if stored else []))


def _dropping(made: QFormerConfig, share: float) -> QFormerConfig:
    return replace(made, hidden_dropout_prob=share, attention_probs_dropout_prob=share)


def _model(made: QFormerConfig, embed_dim: int, seed: int, state: dict[str, Tensor], source: str
           ) -> SPRC:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SPRC(made, embed_dim)
    if state:
        load_official(model, state, source)
    return model
