"""Learning curves: every measure of every split, whatever the records have."""

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from darts_cli.errors import CheckpointError
from darts_cli.viz.plots.curves import figure
from tests.viz.drawings import axes_titled, texts, words
from tests.viz.histories import SMALL, record, search, training, wander


def points(axes: Axes) -> list[list[list[float]]]:
    return [np.asarray(line.get_xydata()).round(9).tolist() for line in axes.lines]


def text_record(epoch: int, perplexity: float) -> dict[str, Any]:
    metrics = {"loss": 4.0, "perplexity": perplexity, "bits_per_word": 6.0}
    return {"epoch": epoch, "lr": 20.0, "train": metrics, "valid": metrics}


def titles(picture: Figure) -> list[str]:
    return [text.get_text() for text in texts(picture) if text.get_fontweight() == "bold"]


def test_each_measure_has_training_and_validation_together() -> None:
    picture = figure(training([record(1), record(2), record(3)]))
    assert {"training", "validation"} <= set(words(picture))
    assert "test" not in words(picture)
    curve = [[1, 0.1], [2, 0.55], [3, 0.7]]
    assert points(axes_titled(picture, "top-1 accuracy")) == [curve] * 2
    assert points(axes_titled(picture, "loss")) == [[[1, 2], [2, 1], [3, 0.666666667]]] * 2
    assert points(axes_titled(picture, "learning rate")) == [
        [[1, 0.1], [2, 0.05], [3, 0.033333333]]
    ]
    lowest = min(picture.axes, key=lambda axes: axes.bbox.y0)
    assert lowest is axes_titled(picture, "learning rate")


def test_the_newest_values_are_told_as_on_the_console() -> None:
    shown = words(figure(training([record(1), record(2, valid={"top1": 0.5, "loss": 1.25})])))
    assert {"55.00 %", "50.00 %", "1.2500", "1.0000", "0.05"} <= set(shown)


def test_newest_values_that_are_almost_the_same_do_not_touch() -> None:
    picture = figure(training([record(1), record(2)]))
    boxes = [text.get_window_extent() for text in texts(picture) if text.get_text() == "55.00 %"]
    assert len(boxes) == 2
    assert abs(boxes[0].y0 - boxes[1].y0) >= boxes[0].height


def test_a_test_set_is_called_so() -> None:
    lines = [{**record(epoch), "test": record(epoch)["train"]} for epoch in (1, 2)]
    for line in lines:
        del line["valid"]
    shown = words(figure(training(lines)))
    assert "test" in shown
    assert "validation" not in shown


def test_text_has_perplexity_and_not_the_loss_once_more() -> None:
    picture = figure(training([text_record(1, 900.0), text_record(2, 60.0)]))
    assert {"loss", "perplexity"} <= set(titles(picture))
    assert "bits_per_word" not in titles(picture)
    assert axes_titled(picture, "perplexity").get_yscale() == "log"
    assert axes_titled(picture, "loss").get_yscale() == "linear"


def test_a_measure_without_a_name_of_its_own_is_drawn_too() -> None:
    assert "f1" in titles(figure(training([record(1, train={"f1": 0.5})])))


def test_a_run_of_one_epoch_is_points() -> None:
    picture = figure(training([record(1)]))
    axes = axes_titled(picture, "loss")
    assert [line.get_marker() for line in axes.lines] == ["o", "o"]
    assert axes.get_xticks().tolist() == [1]


def test_epochs_that_are_missing_are_a_gap() -> None:
    picture = figure(training([record(1), record(2), record(5), record(7), record(8)]))
    drawn = [[x for x, _ in line] for line in points(axes_titled(picture, "learning rate"))]
    assert drawn == [[1, 2], [5], [7, 8]]


def test_what_is_no_number_is_passed_over() -> None:
    bad = [{"epoch": 2, "train": 5}, {"epoch": "x"}, {}, record(3, lr=float("nan"), valid=None)]
    picture = figure(training([record(1), *bad]))
    assert points(axes_titled(picture, "learning rate")) == [[[1, 0.1]]]
    assert len(points(axes_titled(picture, "loss"))) == 3


def test_records_without_any_number_are_refused() -> None:
    with pytest.raises(CheckpointError) as caught:
        figure(training([{"epoch": 1}]))
    assert str(caught.value) == (
        "runs/run: found no numbers in metrics.jsonl, expected losses of every epoch"
    )


def test_a_search_has_curves_as_well() -> None:
    assert len(figure(search(SMALL, wander(SMALL, 3))).axes) == 4
