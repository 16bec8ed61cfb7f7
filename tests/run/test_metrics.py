"""The declarations of metrics, and what is printed and shown by them."""

import pytest

from darts_cli.run import metrics
from darts_cli.run.metrics import METRICS, Metric, find_metric, format_metrics
from darts_cli.spaces import SPACES
from darts_cli.terminal import numbers
from darts_cli.terminal.frame import FinishedEpochs


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, ""),
        ({"loss": 1.23456}, "loss 1.2346"),
        ({"loss": 1.0, "top1": 0.56789, "top5": 1.0}, "loss 1.0000  top1 56.79 %  top5 100.00 %"),
        ({"loss": float("nan")}, "loss nan"),
        ({"perplexity": 59.123, "bits_per_word": 5.9}, "perplexity 59.12  bits_per_word 5.9000"),
        ({"margin": 0.5}, "margin 0.5000"),
    ],
)
def test_metrics_have_the_digits_that_one_reads(values: dict[str, float], text: str) -> None:
    assert format_metrics(values) == text


def test_accuracies_alone_are_better_when_they_are_higher() -> None:
    assert {name for name, metric in METRICS.items() if metric.higher_is_better} == {
        "top1",
        "top5",
    }


def test_a_metric_without_a_declaration_has_its_name_as_title() -> None:
    assert find_metric("margin") == Metric("margin", live=False)


def test_a_new_metric_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metrics.METRICS, "recall", Metric("recall", percent=True, digits=1))
    finished = FinishedEpochs(space=SPACES["cnn"], epochs=1, splits=("train", "valid"))
    shown = numbers.metrics(finished, {"loss": 1.0, "recall": 0.5}, 79)
    assert shown[0].plain == f"train  loss 1.0000  {' ' * 21}recall 50.0 %"
