"""Signs of collapse: the lines, the thresholds, the changes and the warnings."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from darts_cli.run.history import History
from darts_cli.run.signals import CLOSE, SETTLED_EPOCHS, UNDECIDED
from darts_cli.viz.plots.signals import figure
from tests.viz.drawings import axes_titled, texts, words
from tests.viz.histories import CNN, SMALL, search, small, wander

CONV = [(0.2, 0.5, 0.3), (0.1, 0.6, 0.3), (0.6, 0.2, 0.2)]
SKIP = [(0.2, 0.3, 0.5), (0.1, 0.3, 0.6), (0.6, 0.2, 0.2)]
TITLES = {
    "skip connections of 2 edges": 1.0,
    "entropy of the candidates, 1 where all weigh the same": UNDECIDED,
    "weakest margin of probability": CLOSE,
    "epochs since the genotype changed": SETTLED_EPOCHS,
}


@pytest.fixture(scope="module")
def history() -> History:
    return search(SMALL, small(CONV, CONV, SKIP, SKIP, SKIP, CONV))


@pytest.fixture(scope="module")
def picture(history: History) -> Figure:
    return figure(history)


def levels(axes: Axes) -> list[float]:
    """Return the values of horizontal lines through the whole panel."""
    return [
        float(np.asarray(line.get_ydata())[0])
        for line in axes.lines
        if np.asarray(line.get_xdata()).tolist() == [0, 1]
    ]


def uprights(axes: Axes) -> list[float]:
    """Return the epochs of vertical lines from the bottom to the top."""
    return [
        float(np.asarray(line.get_xdata())[0])
        for line in axes.lines
        if np.asarray(line.get_ydata()).tolist() == [0, 1]
        and len(set(np.asarray(line.get_xdata()).tolist())) == 1
    ]


def values(axes: Axes) -> list[list[float]]:
    """Return the values of the lines over epochs."""
    return [np.asarray(line.get_ydata()).tolist() for line in axes.lines if line.get_zorder() == 3]


def test_every_signal_is_drawn_for_each_cell(history: History, picture: Figure) -> None:
    signals = [snapshot.signals for snapshot in history.snapshots]
    drawn = [values(axes_titled(picture, title)) for title in TITLES]
    assert drawn == [
        [[0, 0, 2, 2, 2, 0]],
        [[one.entropy["cell"] for one in signals]],
        [[one.weakest_margin["cell"] for one in signals]],
        [[0, 1, 0, 1, 2, 0]],
    ]


@pytest.mark.parametrize("title", TITLES)
def test_each_threshold_is_a_thin_line(title: str, picture: Figure) -> None:
    axes = axes_titled(picture, title)
    assert levels(axes) == [TITLES[title]]
    low, high = axes.get_ylim()
    assert low < TITLES[title] < high


@pytest.mark.parametrize("title", TITLES)
def test_epochs_at_which_the_genotype_changed_are_marked(title: str, picture: Figure) -> None:
    assert uprights(axes_titled(picture, title)) == [3, 6]


def test_cells_that_are_equal_are_both_seen() -> None:
    axes = axes_titled(figure(search(CNN, wander(CNN, 3))), "weakest margin of probability")
    normal, reduce = (line for line in axes.lines if line.get_zorder() == 3)
    assert normal.get_linewidth() > reduce.get_linewidth()
    assert normal.get_color() != reduce.get_color()


def test_a_tie_has_a_place_on_the_scale_of_margins() -> None:
    tie = [(0.2, 0.4, 0.4), (0.1, 0.6, 0.3), (0.6, 0.2, 0.2)]
    axes = axes_titled(figure(search(SMALL, small(tie, tie))), "weakest margin of probability")
    assert values(axes) == [[0, 0]]
    assert axes.get_ylim()[0] < 0


def below(picture: Figure) -> list[Text]:
    """Return the texts below the lowest panel and its axis."""
    bottom = min(axes.bbox.y0 for axes in picture.axes) - 25
    return [text for text in texts(picture) if text.get_window_extent().y1 < bottom]


def test_warnings_are_written_below_and_wrapped() -> None:
    undecided = search(CNN, wander(CNN, 4))
    warnings = undecided.warnings()
    heading, *lines = (text.get_text() for text in below(figure(undecided)))
    assert heading == f"Warnings after epoch {len(undecided.snapshots)}"
    assert " ".join(" ".join(lines).split()) == " ".join(f"• {warning}" for warning in warnings)
    assert len(lines) > len(warnings) > 1


def test_a_search_without_warnings_says_so() -> None:
    picture = figure(search(SMALL, small(CONV), epochs=50))
    assert [text.get_text() for text in below(picture)] == ["No warning after epoch 1"]


def test_epochs_that_are_missing_are_a_gap(history: History) -> None:
    snapshots = [snapshot for snapshot in history.snapshots if snapshot.epoch != 3]
    axes = axes_titled(figure(replace(history, snapshots=snapshots)), next(iter(TITLES)))
    assert values(axes) == [[0, 0], [2, 2, 0]]


def test_the_legend_names_cells_thresholds_and_changes() -> None:
    shown = set(words(figure(search(CNN, wander(CNN, 2)))))
    assert {"normal cell", "reduce cell", "threshold", "the genotype changed"} <= shown
