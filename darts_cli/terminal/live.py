"""The live display: lines at the bottom of a terminal, below everything that is printed."""

import textwrap
from collections.abc import Callable, Sequence
from itertools import chain

from rich.console import Console, ConsoleRenderable
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment, Segments
from rich.text import Text

# The segments of one line, without a newline at its end.
Line = Sequence[Segment]

# Clocks in the lines advance this often, also while no step ends.
_REFRESH_SECONDS = 1.0

# Lines that stay free for what is printed above, and for the cursor below.
_FREE_LINES = 2

_ERASE_LINE = (ControlType.ERASE_IN_LINE, 2)


class LiveDisplay(Live):
    """A `rich.live.Live` that survives a resized terminal, and does not flicker.

    Only the way its lines get onto the terminal differs, in `process_renderables`. rich moves up
    by the lines that it wrote; but a terminal that became narrower has wrapped each of them into
    several rows, and the upper ones would stay as broken pieces. rich also erases all lines before
    it writes the new ones, which flickers over a slow connection. And it leaves the cursor at the
    end of the last line, where the echo of Ctrl-C may start another row: here it is one row below.
    """

    def __init__(self, console: Console, draw: Callable[[int, int], Sequence[Line]]) -> None:
        """Create a display that shows nothing before `start`.

        Args:
            console: Console on a terminal that can redraw.
            draw: Function that returns the lines, given their columns and their number at most.
        """
        super().__init__(
            console=console,
            refresh_per_second=1 / _REFRESH_SECONDS,
            # Python's warnings come by standard error; standard output has results alone.
            redirect_stdout=False,
        )
        self._draw = draw
        # Columns of each line on the terminal, and of the terminal then.
        self._drawn: list[int] = []
        self._width = 0

    def print(self, text: str) -> None:
        """Print a text above the lines, wrapped between words."""
        width = self.console.width
        lines = (
            textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False) or [""]
            for line in text.splitlines()
        )
        # Under the lock of the refresh thread, which must not move the cursor meanwhile.
        with self._lock:
            self.console.print(Text("\n".join(chain.from_iterable(lines))), soft_wrap=True)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Replace the lines on the terminal by what is printed, and draw the new ones below it.

        rich calls it for everything that the console prints; a refresh prints a control alone.
        """
        with self._lock:
            width, height = self.console.size
            # One column stays free: after the last one some terminals begin another row.
            room = width - 1, max(1, height - _FREE_LINES)
            lines = self._draw(*room) if self.is_started else []
            columns = [Segment.get_line_length([*line]) for line in lines]
            rows = sum(max(1, -(-drawn // width)) for drawn in self._drawn)
            covered = len(columns) >= len(self._drawn) and width == self._width
            covered = covered and all(map(int.__ge__, columns, self._drawn))
            if covered and all(isinstance(printed, Control) for printed in renderables):
                # The new lines are written over the old ones, which hides every part of them.
                back = [(ControlType.CURSOR_UP, rows)] if rows else []
            else:
                # Row by row, and no row in part: terminals remember which rows belong to one
                # line, and how long a line is, until a row is erased as a whole.
                back = [_ERASE_LINE, *[(ControlType.CURSOR_UP, 1), _ERASE_LINE] * rows]
            self._drawn, self._width = columns, width
        start = Control(ControlType.CARRIAGE_RETURN, *back)
        frame = chain.from_iterable((*line, Segment.line()) for line in lines)
        return [start, *renderables, Segments(frame), Control(_ERASE_LINE)]
