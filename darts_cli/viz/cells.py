"""Pictures of a genotype's cells, one below the other, and their text for other programs."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from darts_cli.genotype.types import Genotype
from darts_cli.run.files import replacing
from darts_cli.space import SearchSpace
from darts_cli.viz.canvas import METADATA, check, measure, save
from darts_cli.viz.drawing.layout import Plan
from darts_cli.viz.drawing.legend import explain
from darts_cli.viz.drawing.panels import Page, Panel
from darts_cli.viz.style import DEFAULT, Style
from darts_cli.viz.text import dot, mermaid, names, title

TEXTS: dict[str, Callable[..., str]] = {".dot": dot, ".mmd": mermaid}
"""By their suffixes the formats that other programs draw, in their own style."""

SUFFIXES = (*METADATA, *TEXTS)
"""The formats of a picture."""


def draw(
    genotype: Genotype,
    path: str | Path,
    *,
    style: Style = DEFAULT,
    space: SearchSpace | None = None,
) -> None:
    """Draw all cells of a genotype into one file, which appears whole or not at all.

    Args:
        genotype: What to draw.
        path: Where to; its suffix is the format.
        style: Theme, title and legend; formats of text have none of them.
        space: The genotype's space, needed only where its name is not known to `text.NAMES`.

    Raises:
        ConfigError: if the suffix names no format.
        WriteError: if the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    check(path, SUFFIXES)
    with replacing(path) as temporary:
        if suffix in TEXTS:
            temporary.write_text(TEXTS[suffix](genotype, space=space), encoding="utf-8")
        else:
            save(figure(genotype, style=style, space=space), temporary, suffix)


def figure(
    genotype: Genotype,
    *,
    style: Style = DEFAULT,
    space: SearchSpace | None = None,
) -> Figure:
    """All cells of a genotype, one below the other, on a figure of 72 units an inch.

    Boxes and their texts carry a `gid` that begins with the cell's name and
    `state` or `label`.
    """
    called = names(genotype, space)
    rows = [
        [
            Panel(
                genotype=title(genotype),
                cell=name,
                prefix=name,
                plan=Plan(cell, called, measure),
            )
        ]
        for name, cell in genotype.cells.items()
    ]
    return Page(rows, style, legend=explain(genotype.cells.values(), called)).figure()
