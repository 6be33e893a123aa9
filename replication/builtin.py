"""The built-in data set and the demo's weights, made when a notebook first needs them."""

from pathlib import Path

from replication import backbones, classification, contrastive, paths


def ensure_doodles(data_root: str | Path, **size) -> Path:
    """Draws the doodles into `data_root` (seed 0, half a minute) unless they are there."""
    from data_prep.doodles import draw_dataset

    root = paths.user_path(data_root)
    there = (root / "doodles" / "manifest.csv").exists()
    return root if there else draw_dataset(root, **size)


def ensure_doodle_clip(data_root: str | Path) -> Path:
    """Trains the demo's CLIP (about a minute) unless its weights are there."""
    if not backbones.DOODLE_WEIGHTS.exists():
        print(f"{paths.shown(backbones.DOODLE_WEIGHTS)} is not there yet: training the demo's CLIP")
        folder = backbones.DOODLE_WEIGHTS.parent
        contrastive.train(contrastive.Config(data_root=str(data_root), save_root=str(folder)))
    return backbones.DOODLE_WEIGHTS


def ensure_doodle_timm(name: str, data_root: str | Path) -> Path:
    """Trains `doodle-resnet` or `doodle-vit` (under half a minute) unless its weights are there."""
    file = backbones.DOODLE_TIMM_WEIGHTS[name]
    if not file.exists():
        print(f"{paths.shown(file)} is not there yet: training {name}")
        classification.train(classification.Config(
            data_root=str(data_root), save_root=str(file.parent), **classification.RECIPES[name]))
    return file
