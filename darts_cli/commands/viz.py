"""`darts viz`: genotypes and runs as text, as pictures, and as one page."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from darts_cli.errors import ConfigError, GenotypeError
from darts_cli.genotype.file import load
from darts_cli.genotype.types import Genotype
from darts_cli.options import VizOptions
from darts_cli.run.directory import Run
from darts_cli.run.history import History
from darts_cli.spaces import SPACES
from darts_cli.viz import comparison, text
from darts_cli.viz.style import DEFAULT, Style

# What `--show` shows by default.
_CELLS = "cells"

# Writers of the formats of `--format`.
_TEXTS: dict[str, Callable[[Genotype], str]] = {"dot": text.dot, "mermaid": text.mermaid}


def visualize(request: VizOptions) -> None:
    """Draw genotypes or runs, into a file or on the terminal.

    Raises:
        DartsError: for whatever a user can mend.
    """
    path = request.output
    if path is None:
        _print(request)
        return
    if request.format is not None:
        raise ConfigError(
            f"--format {request.format}: not with --output, whose suffix says it; "
            "leave one of them out"
        )
    _WRITERS.get(path.suffix.lower(), _write_picture)(request, path)
    print(path)


def _style(request: VizOptions) -> Style:
    return Style(theme=request.theme, title=request.title, legend=request.legend)


def _print(request: VizOptions) -> None:
    """Print cells as text on standard output."""
    if request.show != _CELLS:
        raise ConfigError(
            f"--show {request.show}: found no --output, expected a file such as "
            f"{request.show}.svg, .png or .pdf"
        )
    _refuse_style(request, "text")
    sources = request.sources
    if request.format is None:
        first, *others = _genotypes(sources)
        Console().print(comparison.terminal(first, *others) if others else text.terminal(first))
    elif len(sources) > 1:
        raise ConfigError(
            f"--format {request.format}: found {len(sources)} sources, expected one genotype or run"
        )
    else:
        print(_TEXTS[request.format](_load(sources[0])), end="")


def _write_picture(request: VizOptions, path: Path) -> None:
    """Draw a run's history, a genotype, or a comparison of two."""
    style = _style(request)
    if request.show != _CELLS:
        from darts_cli.viz.history import draw

        draw(_one_history(request, f"--show {request.show}"), request.show, path, style=style)
        return
    first, *others = _genotypes(request.sources)
    if others:
        comparison.draw(first, others[0], path, style=style)
    else:
        # Imports matplotlib, which the terminal can do without.
        from darts_cli.viz import cells

        if path.suffix.lower() in cells.TEXTS:
            _refuse_style(request, "text")
        cells.draw(first, path, style=style)


def _write_evolution(request: VizOptions, path: Path) -> None:
    """Draw the cells of a search epoch by epoch."""
    _refuse_show(request, path)
    from darts_cli.viz.evolution import draw

    draw(_one_history(request, path.name), path, style=_style(request))


def _write_page(request: VizOptions, path: Path) -> None:
    """Write one page of one run, or of several that are compared."""
    from darts_cli.commands.sizes import derived_size
    from darts_cli.viz.page.data import RunPage
    from darts_cli.viz.report import write

    _refuse_show(request, path)
    _refuse_style(request, path.name)
    histories = [_history(source, path.name) for source in request.sources]
    write([RunPage(history=history, size=derived_size(history)) for history in histories], path)


def _refuse_show(request: VizOptions, path: Path) -> None:
    """Refuse `--show`, which would change nothing."""
    if request.show != _CELLS:
        raise ConfigError(
            f"--show {request.show}: not for {path.name}, expected .svg, .png or .pdf; "
            "leave it out, or write another file"
        )


def _refuse_style(request: VizOptions, what: str) -> None:
    if _style(request) != DEFAULT:
        raise ConfigError(
            f"--theme, --legend, --no-title: not for {what}, expected them for pictures; "
            "leave them out"
        )


# By the suffix of the file; any other is a picture's.
_WRITERS = {".html": _write_page, ".gif": _write_evolution}


def _history(source: str, what: str) -> History:
    """Read the history of a run."""
    # Imports torch, which genotypes can do without.
    from darts_cli.commands.reading import read_history

    if not Path(source).is_dir():
        raise ConfigError(f"{what}: found {source!r}, expected the directory of a run")
    return read_history(Path(source))


def _one_history(request: VizOptions, what: str) -> History:
    if len(request.sources) > 1:
        raise ConfigError(f"{what}: found {len(request.sources)} sources, expected one run")
    return _history(request.sources[0], what)


def _genotypes(sources: list[str]) -> list[Genotype]:
    """Read one genotype, or two that are compared."""
    if len(sources) > 2:
        raise ConfigError(
            f"found {len(sources)} sources, expected one genotype, or two to compare; "
            "more than two runs are compared by --output NAME.html"
        )
    return [_load(source) for source in sources]


def _load(source: str) -> Genotype:
    """Read a genotype by name or file, or the newest one of a run."""
    if not Path(source).is_dir():
        return load(source, SPACES)
    run = Run.open(Path(source))
    if not run.genotype.is_file():
        raise GenotypeError(f"{run.path}: found no genotype in it yet, expected a finished epoch")
    return load(run.genotype, SPACES)
