"""Pictures of a run over its epochs, by name, and their way into a file."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from darts_cli.errors import ConfigError
from darts_cli.run.files import replacing
from darts_cli.run.history import History
from darts_cli.viz.canvas import DPI, METADATA, check, plain_settings, save
from darts_cli.viz.plots import curves, heatmaps, lines, signals
from darts_cli.viz.style import DEFAULT, Style

PLOTS: dict[str, Callable[[History, Style], Figure]] = {
    "alphas": heatmaps.figure,
    "lines": lines.figure,
    "curves": curves.figure,
    "signals": signals.figure,
}
"""What can be drawn of a history: each function takes one, and a style."""


def figure(history: History, name: str, *, style: Style = DEFAULT) -> Figure:
    """Draw one of `PLOTS` on a figure of 72 units an inch.

    Raises:
        CheckpointError: if the history lacks what the plot shows.
        ConfigError: if there is no plot of this name.
    """
    if name not in PLOTS:
        raise ConfigError(f"found plot {name!r}, expected one of {', '.join(PLOTS)}")
    with plain_settings():
        return PLOTS[name](history, style)


def draw(
    history: History, name: str, path: str | Path, *, style: Style = DEFAULT, dpi: float = DPI
) -> None:
    """Draw one of `PLOTS` into a file, which appears whole or not at all.

    Args:
        history: Of a run.
        name: The plot's.
        path: Where to; its suffix is the format.
        style: Its theme.
        dpi: Pixels an inch of a PNG.

    Raises:
        CheckpointError: if the history lacks what the plot shows.
        ConfigError: if the suffix names no format, or there is no plot of this name.
        WriteError: if the file cannot be written.
    """
    path = Path(path)
    check(path, METADATA)
    picture = figure(history, name, style=style)
    with replacing(path) as temporary:
        save(picture, temporary, path.suffix.lower(), dpi=dpi)
