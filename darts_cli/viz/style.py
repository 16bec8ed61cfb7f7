"""Colours and themes of pictures of genotypes; imports nothing that draws."""

from collections.abc import Mapping
from dataclasses import dataclass

from darts_cli.errors import ConfigError

# The colour of each operation, the same in every picture and theme. No cell has `none`.
# Found by a search for the largest smallest distance in OKLab between any two of the convolutional
# space, to common eyes and without one of the three cones, among colours with a contrast of 3 or
# more to white and to the dark background. The hues say what is related: pooling is warm,
# separable convolutions are blue, dilated ones green.
COLOURS: dict[str, str] = {
    "none": "#BBBBBB",
    "max_pool_3x3": "#D70438",
    "avg_pool_3x3": "#D57B1A",
    "skip_connect": "#75696C",
    "sep_conv_3x3": "#2497FE",
    "sep_conv_5x5": "#4E87AC",
    "sep_conv_7x7": "#7128FD",
    "dil_conv_3x3": "#0C7105",
    "dil_conv_5x5": "#819B77",
    "conv_7x1_1x7": "#A21BBB",
    "tanh": "#2497FE",
    "relu": "#D70438",
    "sigmoid": "#0C7105",
    "identity": "#75696C",
}

# The colour of an operation that has none of its own yet.
OTHER_COLOUR = "#B8487E"


@dataclass(frozen=True, kw_only=True, slots=True)
class Theme:
    """The colours of everything but operations, as #RRGGBB."""

    background: str
    ink: str
    """Colour of texts."""
    faint: str
    """Colour of less important texts."""
    join: str
    """Colour of lines without an operation."""
    tint: float
    """Share of its operation's colour in the fill of a label, the rest is background."""
    strong: float
    """Share of it in the fill of a strong label."""
    pale: float
    """Share of its colour that a pale line keeps."""
    fills: Mapping[str, str]
    """Colours of boxes by kind: `input`, `node` or `output`."""
    outlines: Mapping[str, str]
    """Colours of the outlines of boxes by kind."""
    line: str
    """Colour of the frames of plots."""
    grid: str
    empty: str
    """Colour of missing values."""
    series: tuple[str, ...]
    """Colours of series; Okabe and Ito's, which the colour-blind can tell apart."""


THEMES: dict[str, Theme] = {
    "light": Theme(
        background="#FFFFFF",
        ink="#222222",
        faint="#666666",
        join="#8F8F8F",
        tint=0.12,
        strong=0.38,
        pale=0.30,
        fills={"input": "#DCEBDD", "node": "#DCE6F2", "output": "#F8E7CC"},
        outlines={"input": "#5E8B61", "node": "#6F8FB0", "output": "#B07C2A"},
        line="#B4B4B4",
        grid="#E8E8E8",
        empty="#F2F2F2",
        series=("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    ),
    "dark": Theme(
        background="#0E1116",
        ink="#E8EAED",
        faint="#9AA3AE",
        join="#737B86",
        tint=0.24,
        strong=0.50,
        pale=0.42,
        fills={"input": "#1B3322", "node": "#1D2C40", "output": "#3B2D14"},
        outlines={"input": "#6FA574", "node": "#7B9CC0", "output": "#C9963F"},
        line="#59616A",
        grid="#2B3036",
        empty="#23272C",
        series=("#56B4E9", "#E69F00", "#2DBE97", "#DF9CC2"),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """The choices of a user for a picture.

    Raises:
        ConfigError: if there is no such theme.
    """

    theme: str = "light"
    """A key of `THEMES`."""
    title: bool = True
    """Whether the names of genotype and cell stand above each cell."""
    legend: bool = False
    """Whether a legend stands below all cells."""

    def __post_init__(self) -> None:
        if self.theme not in THEMES:
            raise ConfigError(f"found theme {self.theme!r}, expected one of {', '.join(THEMES)}")

    @property
    def colours(self) -> Theme:
        """The colours of the theme."""
        return THEMES[self.theme]


DEFAULT = Style()


def colour(operation: str) -> str:
    """Return the colour of an operation, as #RRGGBB."""
    return COLOURS.get(operation, OTHER_COLOUR)


def mix(one: str, other: str, share: float) -> str:
    """Mix a `share` of one colour with another for the rest, all as #RRGGBB."""
    parts = zip(bytes.fromhex(one[1:]), bytes.fromhex(other[1:]), strict=True)
    mixed = bytes(round(share * part + (1 - share) * rest) for part, rest in parts)
    return f"#{mixed.hex().upper()}"
