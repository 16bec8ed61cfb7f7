"""The layout of a frame: which of its parts fit on the terminal, and where."""

from rich.console import Console, Group, OverflowMethod, RenderableType
from rich.segment import Segment

from darts_cli.terminal import architecture, numbers
from darts_cli.terminal.architecture import Colour
from darts_cli.terminal.frame import Frame


def uncoloured(_operation: str) -> str:
    """Return no style for an operation, where there are no colours."""
    return ""


def draw(
    frame: Frame, console: Console, colour: Colour, width: int, height: int
) -> list[list[Segment]]:
    """Render a frame into `height` lines at most, none wider than `width`.

    On a low terminal, cells are left out first, then signals, then warnings, the last one before
    the others, and then metrics from below.

    Args:
        frame: Content of the display.
        console: Console that renders it.
        colour: Function that returns the style of an operation.
        width: Columns at most.
        height: Lines at most.
    """
    finished, run, stage = frame.finished, frame.run, frame.stage
    if finished is None or run is None or stage is None:
        return []
    ascii_only = console.options.ascii_only
    # An ellipsis is no ASCII.
    overflow: OverflowMethod = "crop" if ascii_only else "ellipsis"
    options = console.options.update(width=width, no_wrap=True, overflow=overflow)

    def render(*parts: RenderableType) -> list[list[Segment]]:
        return console.render_lines(Group(*parts), options, pad=False)

    top = render(
        numbers.bars(run, stage, width),
        *numbers.metrics(finished, frame.metrics, width, ascii_only=ascii_only),
        numbers.device(frame, width, overflow),
    )[:height]
    warnings = render(*architecture.warnings(frame.warnings, width, height - len(top)))
    free = height - len(top) - len(warnings)
    signals, cells = list[list[Segment]](), list[list[Segment]]()
    if finished.snapshot is not None:
        signals = render(architecture.signals(finished.space, finished.snapshot.signals, width))
        signals = signals if len(signals) <= free else []
        for block in map(render, architecture.cells(finished, width, colour)):
            if len(cells) + len(block) + len(signals) <= free:
                cells += block
    return [*top, *cells, *signals, *warnings]
