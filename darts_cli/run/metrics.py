"""The metrics that runs measure: their titles, formats, direction, and where they are shown.

A new metric is one line of `METRICS`, and its sum in the task of a space. The line that prints it,
the live display and every chart take it from there. A metric without a line is printed with four
digits, and drawn under its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """Describe a metric to whatever prints or draws it.

    Attributes:
        title: Words for it at the head of a chart.
        higher_is_better: Whether a larger value is a better one.
        percent: Whether values are shares from 0 to 1, to be shown in percent.
        digits: Digits after the point.
        live: Whether the live display shows it.
        plotted: Whether it has a chart; one that is another in a different unit needs none.
    """

    title: str
    higher_is_better: bool = False
    percent: bool = False
    digits: int = 4
    live: bool = True
    plotted: bool = True

    def format(self, value: float) -> str:
        """Format a value: `56.70 %` for a share of 0.567."""
        return f"{100 * value:.{self.digits}f} %" if self.percent else f"{value:.{self.digits}f}"


# In the order in which they are shown.
METRICS = {
    "loss": Metric("loss"),
    "top1": Metric("top-1 accuracy", higher_is_better=True, percent=True, digits=2),
    "top5": Metric("top-5 accuracy", higher_is_better=True, percent=True, digits=2),
    "perplexity": Metric("perplexity", digits=2),
    # The loss in another unit, of which a curve would look the same.
    "bits_per_word": Metric("bits per word", live=False, plotted=False),
}


def find_metric(name: str) -> Metric:
    """Return the declaration of a metric, or a plain one with its name as title."""
    return METRICS.get(name) or Metric(name, live=False)


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Format metrics: `loss 1.2340  top1 56.70 %` for `{"loss": 1.234, "top1": 0.567}`."""
    return "  ".join(f"{name} {find_metric(name).format(value)}" for name, value in metrics.items())
