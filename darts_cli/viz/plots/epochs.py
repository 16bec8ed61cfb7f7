"""The epochs of a run in pictures: the finished ones, lines over them, and their axis."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from darts_cli.errors import CheckpointError
from darts_cli.run.history import History
from darts_cli.run.signals import SearchSnapshot
from darts_cli.viz.text import count


def snapshots(history: History) -> Sequence[SearchSnapshot]:
    """Return the snapshots of a search, one after each of its epochs.

    Raises:
        CheckpointError: if there is none, or if the run is a training.
    """
    if history.command != "search":
        raise CheckpointError(
            f"{history.path}: found a training, which has no alphas, expected a search; "
            "of a training there are the learning curves"
        )
    if not history.snapshots:
        raise _nothing_yet(history)
    return history.snapshots


def records(history: History) -> Sequence[Mapping[str, Any]]:
    """Return the records of metrics that belong to an epoch.

    Raises:
        CheckpointError: if there is none.
    """
    found = [record for record in history.records if type(record.get("epoch")) is int]
    if not found:
        raise _nothing_yet(history)
    return found


def _nothing_yet(history: History) -> CheckpointError:
    command = f"search {history.space.name}" if history.command == "search" else history.command
    return CheckpointError(
        f"{history.path}: found no finished epoch in it yet, expected one or more; wait for the "
        f"first one, or go on with darts {command} --resume {history.path}"
    )


def progress(history: History, last: int) -> str:
    """Describe how far a run is: `epoch 7 of 50`, or `50 epochs` when all are done."""
    more = last < history.epochs
    return f"epoch {last} of {history.epochs}" if more else count(last, "epoch")


def plot(axes: Axes, epochs: Sequence[int], values: Sequence[float], **style: Any) -> None:
    """Draw a line through the values of some epochs in order, with a gap where epochs are missing.

    A value without neighbours is a point.
    """
    dot = {"color": style["color"], "markersize": 2.2 + style["linewidth"], "markeredgewidth": 0}
    places = itertools.count()
    # The difference between an epoch and its place is the same as long as no epoch is missing.
    pairs = zip(epochs, values, strict=True)
    for _, group in itertools.groupby(pairs, key=lambda one: one[0] - next(places)):
        numbers, line = zip(*group, strict=True)
        if len(line) > 1:
            axes.plot(numbers, line, solid_joinstyle="round", **style)
        else:
            axes.plot(numbers, line, "o", zorder=style.get("zorder", 2), **dot)


def scale(axes: Axes, epochs: Sequence[int], *, ticks: int, named: bool = True) -> None:
    """Let the axis span all epochs, with whole numbers at its ticks.

    Args:
        axes: The axes whose horizontal axis is set.
        epochs: The epochs of the run.
        ticks: Number of ticks, about.
        named: Whether the numbers are written.
    """
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    locator = MaxNLocator(nbins=ticks, integer=True, steps=[1, 2, 5, 10])
    found = locator.tick_values(min(epochs), max(epochs))
    inside = {int(tick) for tick in found if min(epochs) <= tick <= max(epochs)}
    axes.set_xticks(sorted(inside or {min(epochs)}))
    axes.tick_params(axis="x", labelbottom=named)
