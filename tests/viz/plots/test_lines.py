"""Alphas as lines: the colour of an operation, and the thick line of the winning one."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from darts_cli.viz.plots.lines import THICK, THIN, figure
from darts_cli.viz.style import colour
from tests.viz.drawings import axes_titled, words
from tests.viz.histories import CNN, SMALL, search, small, wander

EPOCHS = (
    [(0.2, 0.5, 0.3), (0.1, 0.6, 0.3), (0.8, 0.1, 0.1)],
    [(0.2, 0.3, 0.5), (0.3, 0.4, 0.3), (0.1, 0.1, 0.8)],
)


@pytest.fixture(scope="module")
def picture() -> Figure:
    return figure(search(SMALL, small(*EPOCHS)))


def lines(axes: Axes) -> dict[str, Line2D]:
    """Return the lines by primitive, in whose order they are drawn."""
    return dict(zip(SMALL.primitives, axes.lines, strict=True))


def test_each_operation_has_its_colour_and_its_probabilities(picture: Figure) -> None:
    for primitive, line in lines(axes_titled(picture, "0 → 2")).items():
        assert to_hex(line.get_color()).upper() == colour(primitive)
    values = lines(axes_titled(picture, "0 → 2"))["conv"].get_xydata()
    assert np.asarray(values) == pytest.approx(np.array([(1, 0.6), (2, 0.4)]))


def test_the_winning_line_of_a_kept_edge_alone_is_thick(picture: Figure) -> None:
    kept = lines(axes_titled(picture, "1 → 2 skip_connect"))
    widths = {name: line.get_linewidth() for name, line in kept.items()}
    assert widths == {"none": THIN, "conv": THIN, "skip_connect": THICK}
    dropped = lines(axes_titled(picture, "0 → 2"))
    assert {line.get_linewidth() for line in dropped.values()} == {THIN}


def test_all_panels_have_one_scale(picture: Figure) -> None:
    assert len({axes.get_ylim() for axes in picture.axes}) == 1


def test_the_legend_names_each_operation_once() -> None:
    shown = words(figure(search(CNN, wander(CNN, 2))))
    for primitive in CNN.primitives:
        assert shown.count(primitive) == 1


def test_one_epoch_is_a_point_for_each_operation() -> None:
    axes = axes_titled(figure(search(SMALL, small(EPOCHS[0]))), "0 → 2 conv")
    assert [line.get_marker() for line in axes.lines] == ["o"] * 3
    winner = lines(axes)["conv"]
    assert winner.get_markersize() > lines(axes)["none"].get_markersize()
