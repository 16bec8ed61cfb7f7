"""Matplotlib's figures: their fonts, and their way into files that are the same every day."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from darts_cli.errors import ConfigError

FONT = ("DejaVu Sans", "sans-serif")
"""The first comes with matplotlib; a viewer of SVG without it takes another sans serif."""

TEXT_SIZE = 9.0
"""Points of most texts."""

DPI, MAX_PIXELS = 200, 60_000
"""Of a PNG; matplotlib draws no more than 65,535 pixels in a row."""

METADATA: dict[str, dict[str, str | None]] = {
    ".svg": {"Date": None, "Creator": "darts"},
    ".png": {"Software": "darts"},
    ".pdf": {"CreationDate": None, "Creator": "darts", "Producer": None},
}
"""By the suffixes that a figure can be saved with."""


def font(size: float, *, bold: bool = False) -> FontProperties:
    """The font of all pictures."""
    return FontProperties(family=list(FONT), size=size, weight="bold" if bold else "normal")


@lru_cache(maxsize=1000)
def measure(text: str, size: float = TEXT_SIZE, *, bold: bool = False) -> float:
    """The width of a line of text in points."""
    page = Figure(figsize=(1, 1), dpi=72)
    artist = page.text(
        0, 0, text, fontproperties=font(size, bold=bold), parse_math=False, usetex=False
    )
    return artist.get_window_extent().width


@contextmanager
def plain_settings() -> Iterator[None]:
    """Matplotlib as it comes, whatever the user's own settings say, for the same bytes everywhere.

    Text stays text in SVG and PDF, to be searched and copied, and a fixed salt
    gives the same identifiers each time.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "darts", "pdf.fonttype": 42})
        yield


def check(path: Path, suffixes: Collection[str], *, what: str = "") -> None:
    """Make sure that a file's name says a format that can be written.

    Args:
        path: The file.
        suffixes: Those that can be written.
        what: That is to be written, for the message.

    Raises:
        ConfigError: if it says another one or none.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        choices = f"{'one of ' if len(suffixes) > 1 else ''}{', '.join(suffixes)}"
        raise ConfigError(
            f"{path}: found {f'suffix {suffix!r}' if suffix else 'no suffix'},"
            f" expected {choices}{what}"
        )


def save(figure: Figure, path: Path, suffix: str, *, dpi: float = DPI) -> None:
    """Write a figure; the same one gives the same bytes every day.

    Args:
        figure: What was drawn.
        path: Where to, whatever its own suffix.
        suffix: The format, of those in `METADATA`.
        dpi: Pixels an inch of what has pixels.
    """
    most = MAX_PIXELS / float(max(figure.get_size_inches()))
    with plain_settings():
        figure.savefig(
            path,
            format=suffix[1:],
            dpi=min(dpi, most),
            facecolor=figure.get_facecolor(),
            metadata=METADATA[suffix],
        )
