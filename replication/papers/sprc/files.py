"""Where published weights are found and read: a file, a folder, a repository on the hub."""

import json
import re
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from torch import Tensor

from replication import backbones, paths
from replication.backbones import WeightsError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".json")
INDEX = "model.safetensors.index.json"
VOCABULARY = "google-bert/bert-base-uncased"
LAVIS = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/"
# What starts a published run, by its image encoder.
DEFAULT = {"eva-g": "Salesforce/blip2-itm-vit-g", "clip-L": "blip2_pretrained_vitL.pth",
           "doodle-clip": "doodles"}


def read(weights: str, of: str) -> tuple[dict[str, Tensor], str]:
    """All tensors of a local file or folder, or of a repository on the Hugging Face hub, and what
    to call their place in messages.

    of: what they are wanted for, an image encoder's name. Raises WeightsError.
    """
    place = paths.user_path(weights)
    if not place.exists():
        if place.suffix in SUFFIXES or not re.fullmatch(r"[\w.-]+/[\w.-]+", weights):
            raise WeightsError(f"no file or folder {paths.shown(place)}. {of}: give one, `default` "
                               f"({DEFAULT[of]}) or `none`; LAVIS publishes its files at {LAVIS}")
        place = _fetched(weights, of)
    file = _file_in(place) if place.is_dir() else place
    state = _sharded(file) if file.suffix == ".json" else backbones.read_state(file)
    if not isinstance(state, dict):
        raise WeightsError(f"{paths.shown(file)} is not a state dict but a {type(state).__name__}")
    return state, paths.shown(file)


def vocabulary_beside(weights: str) -> Path:
    """`<name>.vocab.txt` or `vocab.txt` beside a file of weights, else bert-base-uncased's from the
    hub. Raises WeightsError."""
    file = paths.user_path(weights)
    folder = file if file.is_dir() else file.parent
    if file.exists():
        for name in (f"{file.stem}.vocab.txt", "vocab.txt"):
            if (folder / name).is_file():
                return folder / name
    try:
        return Path(hf_hub_download(VOCABULARY, "vocab.txt"))
    except Exception as error:  # the hub client raises a dozen kinds
        raise WeightsError(
            f"no vocabulary beside {paths.shown(file)}, and vocab.txt of {VOCABULARY} could not be "
            f"fetched ({type(error).__name__}). Download it from the Hugging Face hub where there "
            "is a network and pass it with the parameter vocabulary") from error


def _fetched(repository: str, of: str) -> Path:
    try:
        return Path(snapshot_download(repository, allow_patterns=["*.safetensors", INDEX]))
    except Exception as error:  # the hub client raises a dozen kinds
        raise WeightsError(
            f"the weights {repository} of {of} could not be fetched ({type(error).__name__}). "
            f"They are published: model.safetensors, or {INDEX} and all files that it names, of "
            f"{repository} on the Hugging Face hub. Download them where there is a network and "
            "pass the file or its folder with the parameter weights") from error


def _file_in(folder: Path) -> Path:
    """The index of shards, the whole file, or the only checkpoint of a folder."""
    found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES[:-1])
    for known in (INDEX, "model.safetensors"):
        if (folder / known).is_file():
            return folder / known
    if len(found) == 1:
        return found[0]
    there = ", ".join(p.name for p in found[:6]) or "none"
    raise WeightsError(f"{paths.shown(folder)} holds neither {INDEX} nor model.safetensors nor a "
                       f"single checkpoint (there: {there}): pass one file with the parameter "
                       "weights")


def _sharded(index: Path) -> dict[str, Tensor]:
    """The tensors that an index names, from the files beside it."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{paths.shown(index)} is not an index of shards: it has no weight_map "
                           f"of tensors and files ({type(error).__name__})") from error
    if missing := [s for s in shards if not (index.parent / s).is_file()]:
        raise WeightsError(f"{paths.shown(index)} names {len(shards)} files, of which "
                           f"{', '.join(missing)} are not beside it: download them too")
    state = {}
    for shard in shards:
        state |= backbones.read_state(index.parent / shard)
    if absent := [key for key in places if key not in state]:
        raise WeightsError(f"{paths.shown(index)} names {len(absent)} tensors that its files do "
                           f"not hold: {', '.join(absent[:6])}; download them again")
    return state
