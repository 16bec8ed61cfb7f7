"""`darts viz`: genotypes and runs as text, as pictures, and as one page."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console, RenderableType

from darts_cli.errors import ConfigError, GenotypeError
from darts_cli.genotype.file import load
from darts_cli.genotype.types import Genotype
from darts_cli.options import VizOptions
from darts_cli.run.directory import Run
from darts_cli.spaces import SPACES
from darts_cli.viz import comparison, text
from darts_cli.viz.style import DEFAULT, Style

CELLS = "cells"
"""What is shown where nothing is said."""

_TEXTS: dict[str, Callable[[Genotype], str]] = {"dot": text.dot, "mermaid": text.mermaid}
"""What `--format` prints."""


def visualize(request: VizOptions) -> None:
    """Draw genotypes or runs, into a file or on the terminal.

    Raises:
        DartsError: for whatever a user can mend.
    """
    if request.output is None:
        _print(request)
        return
    if request.format is not None:
        raise ConfigError(
            f"--format {request.format}: not with --output, whose suffix says it; "
            "leave one of them out"
        )
    _WRITERS.get(request.output.suffix.lower(), _write_picture)(request, request.output)
    print(request.output)


def _style(request: VizOptions) -> Style:
    return Style(theme=request.theme, title=request.title, legend=request.legend)


def _print(request: VizOptions) -> None:
    """Cells as text on standard output."""
    if request.show != CELLS:
        raise ConfigError(
            f"--show {request.show}: found no --output, expected a file such as "
            f"{request.show}.svg, .png or .pdf"
        )
    _refuse_style(request, "text")
    if request.format is None:
        Console().print(_describe(request))
    else:
        print(_TEXTS[request.format](_one_genotype(request)), end="")


def _describe(request: VizOptions) -> RenderableType:
    first, *others = _genotypes(request)
    return comparison.terminal(first, *others) if others else text.terminal(first)


def _write_picture(request: VizOptions, path: Path) -> None:
    """Of a run's history, of a genotype, or of two."""
    if request.show != CELLS:
        from darts_cli.commands.reading import read_history
        from darts_cli.viz.history import draw

        run = _one_run(request, f"--show {request.show}")
        draw(read_history(run), request.show, path, style=_style(request))
        return
    first, *others = _genotypes(request)
    if others:
        (second,) = others
        comparison.draw(first, second, path, style=_style(request))
    else:
        # Imports matplotlib, which the terminal can do without.
        from darts_cli.viz import cells

        if path.suffix.lower() in cells.TEXTS:
            _refuse_style(request, "text")
        cells.draw(first, path, style=_style(request))


def _write_evolution(request: VizOptions, path: Path) -> None:
    """The cells of a search epoch by epoch."""
    _refuse_show(request, path)
    from darts_cli.commands.reading import read_history
    from darts_cli.viz.evolution import draw

    draw(read_history(_one_run(request, path.name)), path, style=_style(request))


def _write_page(request: VizOptions, path: Path) -> None:
    """One page of one run, or of several that are compared."""
    from darts_cli.commands.reading import read_history
    from darts_cli.commands.sizes import derived_size
    from darts_cli.viz.page.data import RunPage
    from darts_cli.viz.report import write

    _refuse_show(request, path)
    _refuse_style(request, path.name)
    runs = [_run(source, path.name) for source in request.sources]
    histories = [read_history(run) for run in runs]
    write([RunPage(history=history, size=derived_size(history)) for history in histories], path)


def _refuse_show(request: VizOptions, path: Path) -> None:
    """A flag that would change nothing is an error."""
    if request.show != CELLS:
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


_WRITERS: dict[str, Callable[[VizOptions, Path], None]] = {
    ".html": _write_page,
    ".gif": _write_evolution,
}
"""By the suffix of the file; any other is a picture's."""


def _run(source: str, what: str) -> Path:
    """The directory of a run."""
    if not Path(source).is_dir():
        raise ConfigError(f"{what}: found {source!r}, expected the directory of a run")
    return Path(source)


def _one_run(request: VizOptions, what: str) -> Path:
    if len(request.sources) > 1:
        raise ConfigError(f"{what}: found {len(request.sources)} sources, expected one run")
    return _run(request.sources[0], what)


def _genotypes(request: VizOptions) -> list[Genotype]:
    """One, or two that are compared."""
    if len(request.sources) > 2:
        raise ConfigError(
            f"found {len(request.sources)} sources, expected one genotype, or two to compare; "
            "more than two runs are compared by --output NAME.html"
        )
    return [_load(source) for source in request.sources]


def _one_genotype(request: VizOptions) -> Genotype:
    if len(request.sources) > 1:
        raise ConfigError(
            f"--format {request.format}: found {len(request.sources)} sources, "
            "expected one genotype or run"
        )
    return _load(request.sources[0])


def _load(source: str) -> Genotype:
    """A genotype by name or file, or the newest one of a run."""
    if not Path(source).is_dir():
        return load(source, SPACES)
    run = Run.open(Path(source))
    if not run.genotype.is_file():
        raise GenotypeError(f"{run.path}: found no genotype in it yet, expected a finished epoch")
    return load(run.genotype, SPACES)
