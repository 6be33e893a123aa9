"""Pictures say in words what they show, and mark right and wrong by more than a colour."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

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


def test_composed_queries_show_text_and_mark_right_and_wrong():
    grey = (255 * GREY).astype(np.uint8)
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    long = "a $5 bag and a $6 bag, " * 12
    picture = plots.composed([
        (red, "make it blue", [(grey, False), (grey, True), (grey, None)], "target at 2"),
        (grey, long, [(grey, False), (red, False)], ""),
        (grey, "is red", [(grey, None)], "")])
    lines = np.array(picture.figure.axes).reshape(3, 5)
    assert [axis.get_title() for axis in lines[0]] == ["reference", "", "✗ 1", "✓ 2", "3"]
    frames = [to_rgb(axis.spines["top"].get_edgecolor()) for axis in lines[0, [0, 2, 3, 4]]]
    assert frames == [to_rgb(c) for c in (plots.NEUTRAL, plots.WRONG, plots.RIGHT, plots.NEUTRAL)]
    assert np.array_equal(lines[0, 0].images[0].get_array(), red)
    assert np.array_equal(lines[1, 3].images[0].get_array(), red)
    assert [t.get_text() for t in lines[0, 1].texts] == ["make it blue", "target at 2"]
    [shown] = lines[1, 1].texts
    assert shown.get_text().endswith(" ...") and 3 < shown.get_text().count("\n") < 9
    assert not shown.get_parse_math(), "a price is no formula"
    assert [axis.axison for axis in lines[1]] == [True, False, True, True, False]
    assert not lines[2, 3].images, "a row may find fewer"
    assert "make it blue: right at 2, target at 2;" in picture.alt
    assert f"{long}: not among the first 2;" in picture.alt and picture.alt.endswith("is red: ")
    assert picture.kind == "jpeg" and "jpeg;base64" in picture._repr_html_()


def test_the_caption_stands_under_its_text_and_inside_the_row():
    grey = (255 * GREY).astype(np.uint8)
    picture = plots.composed([(grey, "word " * 40, [(grey, True)], "target at 1"),
                              (grey, "word", [(grey, True)], "target at 1")])
    draw = FigureCanvasAgg(picture.figure).get_renderer()
    picture.figure.draw(draw)
    for axis in picture.figure.axes[1::3]:
        text, caption = (words.get_window_extent(draw) for words in axis.texts)
        assert caption.y1 <= text.y0 + 1 and caption.y0 > axis.get_window_extent(draw).y0 - 12
        assert text.x1 < picture.figure.axes[2].get_window_extent(draw).x0


@pytest.mark.parametrize("count", [1, 3, 4])
def test_curves_have_two_panels_a_row_their_keys_outside_and_whole_epochs(count):
    history = [{"epoch": 1, **{f"loss {i}": 1.0 + i for i in range(count)}}]
    figure = plots.curves(history, {str(i): [f"loss {i}"] for i in range(count)}).figure
    draw = FigureCanvasAgg(figure).get_renderer()
    figure.draw(draw)
    shown = [axis for axis in figure.axes if axis.axison]
    assert len(shown) == count
    assert figure.axes[0].get_gridspec().ncols == min(2, count)
    for axis in shown:
        low, high = axis.get_xlim()
        assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [1]
        assert axis.get_ylabel() == "loss"
        assert axis.get_legend().get_window_extent(draw).y1 < axis.get_window_extent(draw).y0


def test_differences_say_from_what_and_have_few_ticks():
    table = pd.DataFrame({"spread": [0.02, 0.03, None], "difference": [0.0, -0.19, 0.05]},
                         index=["as stated", "rate / 10", "best on test"])
    picture = plots.differences(table, "mean R@1")
    axis = picture.figure.axes[0]
    assert axis.get_xlabel() == ("difference in mean R@1 from 'as stated', points\n"
                                 "bars: spread over seeds")
    low, high = axis.get_xlim()
    assert sum(low <= tick <= high for tick in axis.get_xticks()) <= 5
    assert [t.get_text() for t in axis.get_yticklabels()] == ["best on test", "rate / 10"]


@pytest.mark.parametrize("queries", [1, 3])
def test_titles_of_ranked_pictures_are_whole(tmp_path, queries):
    Image.new("RGB", (90, 90)).save(tmp_path / "a.png")
    photos = [(tmp_path / "a.png", False, "traffic_light 0.71")] * 4
    picture = plots.ranked([(tmp_path / "a.png", "traffic_light", photos)] * queries)
    assert len(picture._repr_html_()) > 1000  # laid out when it is drawn
    top, pictures = picture.figure.bbox.y1, picture.figure.axes
    assert all(axis.title.get_window_extent().y1 <= top for axis in pictures)
    assert all(axis.get_window_extent().height > 60 for axis in pictures)
    assert pictures[1].get_title() == "✗ traffic\nlight 0.71"


def test_one_difference_has_room():
    table = pd.DataFrame({"spread": [np.nan] * 2, "difference": [0.0, -0.4]},
                         index=["a", "b"])
    picture = plots.differences(table)
    assert picture.figure.axes[0].get_window_extent().height > 25
