"""Matplotlib's figures: their fonts, and how they are written as files of reproducible bytes."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from darts_cli.errors import ConfigError
from darts_cli.run.files import replacing

# The first font comes with matplotlib; a viewer of SVG without it takes another sans serif.
FONT = ("DejaVu Sans", "sans-serif")

# Size of most texts in points.
TEXT_SIZE = 9.0

# Resolution of a PNG, and its longest side; matplotlib draws at most 65,535 pixels in a row.
DPI, MAX_PIXELS = 200, 60_000

# Metadata by suffix of the formats of figures; a date would change the bytes every day.
METADATA: dict[str, dict[str, str | None]] = {
    ".svg": {"Date": None, "Creator": "darts"},
    ".png": {"Software": "darts"},
    ".pdf": {"CreationDate": None, "Creator": "darts", "Producer": None},
}


def font(size: float, *, bold: bool = False) -> FontProperties:
    """Return the font of all pictures, in a size in points."""
    return FontProperties(family=list(FONT), size=size, weight="bold" if bold else "normal")


def blank(width: float, height: float, background: str) -> Figure:
    """Make an empty figure whose size is in points, 72 units per inch."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor=background)
    figure.set_layout_engine("none")
    return figure


@lru_cache(maxsize=1000)
def measure(text: str, size: float = TEXT_SIZE, *, bold: bool = False) -> float:
    """Measure the width of a line of text in points."""
    page = Figure(figsize=(1, 1), dpi=72)
    artist = page.text(0, 0, text, fontproperties=font(size, bold=bold))
    artist.set(parse_math=False, usetex=False)
    return artist.get_window_extent().width


@contextmanager
def plain_settings() -> Iterator[None]:
    """Use matplotlib's defaults instead of the user's settings, for the same bytes everywhere.

    Text stays text in SVG and PDF, to be searched and copied, and a fixed salt
    gives the same identifiers each time.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "darts", "pdf.fonttype": 42})
        yield


def check(path: Path, suffixes: Collection[str], *, what: str = "") -> None:
    """Check that a file's suffix names a format that can be written.

    Args:
        path: The file.
        suffixes: The formats that can be written.
        what: Text for the end of the message.

    Raises:
        ConfigError: if the suffix is another one, or there is none.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        choices = f"{'one of ' if len(suffixes) > 1 else ''}{', '.join(suffixes)}"
        raise ConfigError(
            f"{path}: found {f'suffix {suffix!r}' if suffix else 'no suffix'},"
            f" expected {choices}{what}"
        )


def save(figure: Figure, path: Path) -> None:
    """Write a figure into a file, which appears whole or not at all, with reproducible bytes.

    Args:
        figure: The drawing.
        path: The file; its suffix is a key of `METADATA`.

    Raises:
        WriteError: if the file cannot be written.
    """
    dpi = min(DPI, MAX_PIXELS / float(max(figure.get_size_inches())))
    suffix = path.suffix.lower()
    with plain_settings(), replacing(path) as temporary:
        figure.savefig(temporary, format=suffix[1:], dpi=dpi, metadata=METADATA[suffix])
