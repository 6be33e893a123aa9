"""Pictures say in words what they show, and mark right and wrong by more than a colour."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from replication import plots

GREY = np.full((5, 7, 3), 0.5)


def drawn(picture) -> np.ndarray:
    return picture.figure.axes[0].images[0].get_array()


def test_a_mosaic_frames_and_marks_right_and_wrong():
    picture = plots.mosaic({"sketch": [(GREY, None), (GREY, None)],
                            "epoch 1": [(GREY, True), (GREY, False)]}, ["photo 1", "photo 2"], 20)
    canvas, tile = drawn(picture), 28
    assert canvas.shape == (2 * tile, 2 * tile, 3)
    at = {where: tuple(canvas[where]) for where in ((2, tile + 2), (tile + 2, tile + 2), (2, 2))}
    assert at[2, tile + 2] == pytest.approx(to_rgb(plots.RIGHT))
    assert at[tile + 2, tile + 2] == pytest.approx(to_rgb(plots.WRONG))
    assert at[2, 2] == (1, 1, 1), "what is neither right nor wrong has no frame"
    assert canvas[tile // 2, tile // 2, 0] == pytest.approx(0.5, abs=0.01)
    assert [t.get_text() for t in picture.figure.axes[0].texts] == ["✓", "✗"]
    assert "columns sketch, epoch 1" in picture.alt and "epoch 1: 1 of 2 right" in picture.alt
    assert "<img" in picture._repr_html_() and 'alt="' in picture._repr_html_()


def test_curves_leave_out_what_an_epoch_did_not_measure():
    history = [{"epoch": 1, "adversarial": 2.0}, {"epoch": 2, "class": 3.0, "adversarial": 1.0}]
    picture = plots.curves(history, {"losses": ["class", "adversarial", "absent"]})
    lines = {line.get_label(): line.get_ydata() for line in picture.figure.axes[0].lines}
    assert set(lines) == {"class", "adversarial"}
    assert np.isnan(lines["class"][0]) and lines["class"][1] == 3.0
