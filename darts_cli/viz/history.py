"""Pictures of a run over its epochs, by name, and how they are written to a file."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from darts_cli.errors import ConfigError
from darts_cli.run.history import History
from darts_cli.viz.canvas import METADATA, check, plain_settings, save
from darts_cli.viz.plots import curves, heatmaps, lines, signals
from darts_cli.viz.style import DEFAULT, Style

# The plots by name: each function takes a history and a style.
PLOTS: dict[str, Callable[[History, Style], Figure]] = {
    "alphas": heatmaps.figure,
    "lines": lines.figure,
    "curves": curves.figure,
    "signals": signals.figure,
}


def figure(history: History, name: str, *, style: Style = DEFAULT) -> Figure:
    """Draw one of `PLOTS` on a figure of 72 units per inch.

    Raises:
        CheckpointError: if the history lacks what the plot shows.
        ConfigError: if there is no plot of this name.
    """
    if name not in PLOTS:
        raise ConfigError(f"found plot {name!r}, expected one of {', '.join(PLOTS)}")
    with plain_settings():
        return PLOTS[name](history, style)


def draw(history: History, name: str, path: Path, *, style: Style = DEFAULT) -> None:
    """Draw one of `PLOTS` into a file, which appears whole or not at all.

    Args:
        history: The run.
        name: The name of the plot.
        path: The file; its suffix is the format.
        style: Theme of the plot.

    Raises:
        CheckpointError: if the history lacks what the plot shows.
        ConfigError: if the suffix names no format, or there is no plot of this name.
        WriteError: if the file cannot be written.
    """
    check(path, METADATA)
    save(figure(history, name, style=style), path)
