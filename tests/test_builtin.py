"""The demo's weights are made from doodles, also for a run on another set."""

import pytest

from data_prep import doodles as drawing
from replication import backbones, builtin, classification, contrastive, paths


@pytest.fixture
def asked(tmp_path, monkeypatch) -> dict[str, list]:
    """Where doodles are drawn and which root a training reads, in place of doing either."""
    found = {"drawn": [], "trained": []}

    def draw(root, **size):
        found["drawn"].append(root)
        (root / "doodles").mkdir(parents=True)
        (root / "doodles/manifest.csv").touch()
        return root / "doodles"

    monkeypatch.setattr(paths, "DATA", tmp_path / "own")
    monkeypatch.setattr(drawing, "draw_dataset", draw)
    monkeypatch.setattr(backbones, "DOODLE_WEIGHTS", tmp_path / "clip.safetensors")
    monkeypatch.setattr(backbones, "DOODLE_TIMM_WEIGHTS",
                        {name: tmp_path / name for name in classification.RECIPES})
    for module in (classification, contrastive):
        monkeypatch.setattr(module, "train", lambda config: found["trained"].append(config))
    return found


@pytest.mark.parametrize("make", [
    builtin.ensure_doodle_clip, lambda root: builtin.ensure_doodle_timm("doodle-resnet", root)])
def test_weights_for_another_set_are_trained_on_the_projects_own_doodles(asked, tmp_path, make):
    (tmp_path / "mine/sketchy").mkdir(parents=True)
    make(tmp_path / "mine")
    assert asked["drawn"] == [tmp_path / "own"]
    assert [config.data_root for config in asked["trained"]] == [str(tmp_path / "own")]
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["sketchy"]


def test_doodles_beside_the_set_are_used_and_drawn_once(asked, tmp_path):
    assert builtin.ensure_doodles(tmp_path / "mine") == tmp_path / "mine"
    assert builtin.ensure_doodles(tmp_path / "mine") == tmp_path / "mine"
    builtin.ensure_doodle_clip(tmp_path / "mine")
    assert asked["drawn"] == [tmp_path / "mine"]
    assert asked["trained"][0].data_root == str(tmp_path / "mine")
