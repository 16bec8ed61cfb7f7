"""Alphas as heat maps: which number is where, and what is marked."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from darts_cli.space import SearchSpace
from darts_cli.viz.plots.heatmaps import SCALE, figure
from tests.viz.drawings import axes_titled, words
from tests.viz.histories import CNN, RNN, SMALL, search, small, wander

# Edges 0 to 1, 0 to 2 and 1 to 2; of the last two, one is kept.
EPOCHS = (
    [(0.2, 0.5, 0.3), (0.1, 0.6, 0.3), (0.8, 0.1, 0.1)],
    [(0.2, 0.5, 0.3), (0.1, 0.6, 0.3), (0.8, 0.1, 0.1)],
    [(0.2, 0.3, 0.5), (0.3, 0.4, 0.3), (0.1, 0.1, 0.8)],
)


@pytest.fixture(scope="module")
def picture() -> Figure:
    return figure(search(SMALL, small(*EPOCHS)))


def pixels(axes: Axes) -> np.ma.MaskedArray[tuple[int, ...], np.dtype[np.float64]]:
    (image,) = axes.images
    return np.ma.asarray(image.get_array())


def marks(axes: Axes) -> list[tuple[list[float], float]]:
    """Return the ends of each mark, and its row."""
    return [
        (np.asarray(line.get_xdata()).tolist(), float(np.asarray(line.get_ydata())[0]))
        for line in axes.lines
    ]


def test_epochs_run_to_the_right_and_primitives_down(picture: Figure) -> None:
    axes = axes_titled(picture, "0 → 1 skip_connect")
    assert pixels(axes).tolist() == [
        pytest.approx(row) for row in zip(*[epoch[0] for epoch in EPOCHS], strict=True)
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(SMALL.primitives)
    assert axes.get_ylim() == (2.5, -0.5)
    assert axes.get_xlim() == (0.5, 3.5)


def test_the_chosen_operation_is_marked_as_long_as_the_edge_is_kept(picture: Figure) -> None:
    assert marks(axes_titled(picture, "0 → 1 skip_connect")) == [([0.5, 2.5], 1), ([2.5, 3.5], 2)]
    assert marks(axes_titled(picture, "0 → 2")) == [([0.5, 2.5], 1)]
    assert marks(axes_titled(picture, "1 → 2 skip_connect")) == [([2.5, 3.5], 2)]


def test_all_panels_have_one_scale_and_the_bar_shows_it(picture: Figure) -> None:
    images = [image for axes in picture.axes for image in axes.images]
    assert len(images) == 3
    assert [image.get_clim() for image in images] == [pytest.approx((0, 0.8))] * 3
    assert {image.get_cmap().name for image in images} == {SCALE}
    assert "softmax probability" in words(picture)
    assert "1/3: all alike, as at the start" in words(picture)


def test_small_differences_have_a_scale_of_their_own() -> None:
    rows = [(0.33, 0.34, 0.33)] * 3
    (image, *_) = [
        image for axes in figure(search(SMALL, small(rows))).axes for image in axes.images
    ]
    assert image.get_clim() == pytest.approx((0.33, 0.34))


@pytest.mark.parametrize(("space", "edges"), [(CNN, 28), (RNN, 36)], ids=["images", "text"])
def test_every_edge_has_a_panel_and_primitives_are_named_once_a_row(
    space: SearchSpace, edges: int
) -> None:
    history = search(space, wander(space, 3))
    picture = figure(history)
    panels = [axes for axes in picture.axes if axes.images]
    assert len(panels) == edges
    rows = len(history.space.cells) * history.space.nodes
    shown = words(picture)
    assert shown.count(history.space.primitives[1]) == rows
    for choice in history.snapshots[-1].choices:
        assert f"{choice.edge.source} → {choice.node} {choice.edge.operation}" in shown
    lefts = {round(axes.get_position().x0, 6) for axes in panels}
    assert len(lefts) == history.space.nodes + history.space.inputs - 1


def test_an_epoch_whose_alphas_are_missing_is_empty() -> None:
    history = search(SMALL, small(*EPOCHS))
    history = replace(history, snapshots=[history.snapshots[0], history.snapshots[2]])
    axes = axes_titled(figure(history), "0 → 1 skip_connect")
    assert np.isnan(np.ma.filled(pixels(axes), np.nan)).any(axis=0).tolist() == [False, True, False]
    assert marks(axes) == [([0.5, 1.5], 1), ([2.5, 3.5], 2)]
