"""The built-in data set and the demo's weights, made when a notebook first needs them."""

from pathlib import Path

from replication import backbones, classification, contrastive, paths


def ensure_doodles(data_root: str | Path, **size) -> Path:
    """Draws the doodles into `data_root` (seed 0, half a minute) unless they are there; returns the
    folder that `data_root` means."""
    from data_prep.doodles import draw_dataset

    root = paths.user_path(data_root)
    if not (root / "doodles" / "manifest.csv").exists():
        draw_dataset(root, **size)
    return root


def _with_doodles(data_root: str | Path) -> str:
    """data_root where the doodles lie in it, else the project's own data folder, with them: weights
    for a run on another set are not a reason to write into its folder."""
    there = (paths.user_path(data_root) / "doodles").is_dir()
    return str(data_root if there else ensure_doodles(paths.DATA))


def ensure_doodle_clip(data_root: str | Path) -> Path:
    """Trains the demo's CLIP (about a minute) unless its weights are there."""
    if not backbones.DOODLE_WEIGHTS.exists():
        print(f"{paths.shown(backbones.DOODLE_WEIGHTS)} is not there yet: training the demo's CLIP")
        folder = backbones.DOODLE_WEIGHTS.parent
        contrastive.train(contrastive.Config(data_root=_with_doodles(data_root),
                                             save_root=str(folder)))
    return backbones.DOODLE_WEIGHTS


def ensure_doodle_timm(name: str, data_root: str | Path) -> Path:
    """Trains `doodle-resnet` or `doodle-vit` (under half a minute) unless its weights are there."""
    file = backbones.DOODLE_TIMM_WEIGHTS[name]
    if not file.exists():
        print(f"{paths.shown(file)} is not there yet: training {name}")
        classification.train(classification.Config(
            data_root=_with_doodles(data_root), save_root=str(file.parent),
            **classification.RECIPES[name]))
    return file
