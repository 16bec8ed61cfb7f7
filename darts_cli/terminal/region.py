"""Lines at the bottom of a terminal that are drawn over; what is printed goes above them."""

import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from itertools import chain
from threading import Event, RLock, Thread

from rich.console import Console, ConsoleRenderable, RenderHook
from rich.control import Control
from rich.file_proxy import FileProxy
from rich.segment import ControlType, Segment, Segments
from rich.text import Text

_IDLE_SECONDS = 1.0
"""After so long without news the lines are drawn again: there are clocks in them."""

_LEAST = 2
"""Lines that are always left for what is printed above, and for the cursor."""

_ERASE_REST = Control((ControlType.ERASE_IN_LINE, 0)).segment
_ERASE_BELOW = Segment("\x1b[J", None, [])


class Region(RenderHook):
    """Draws lines in the place of those that it drew before.

    A line is written over the old one, and nothing is cleared before, so that nothing flickers.
    The cursor stays below the last line: what a terminal echoes there, such as `^C`, moves none.
    """

    def __init__(self, console: Console, draw: Callable[[int, int], Sequence[Text]]) -> None:
        self.console = console
        self._draw = draw
        """Asked for at most so many columns and lines."""
        self._drawn: list[int] = []
        self._drawn_at = 0.0
        self._lock = RLock()
        self._stopped = Event()
        self._error = sys.stderr

    def start(self) -> None:
        """Take the bottom of the terminal; what is written to standard error goes above it."""
        self.console.show_cursor(False)
        self.console.push_render_hook(self)
        self._error = sys.stderr
        # Python's own warnings come this way.
        sys.stderr = FileProxy(self.console, self._error)
        Thread(target=self._keep_time, daemon=True).start()

    def refresh(self) -> None:
        """Draw the lines as they are now."""
        self._print(Control())

    def print(self, text: str) -> None:
        """Print a text above the lines, broken between words."""
        width = self.console.width
        lines = (
            textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False) or [""]
            for line in text.splitlines()
        )
        self._print(Text("\n".join(chain.from_iterable(lines))))

    def _print(self, what: Control | Text) -> None:
        with self._lock:
            self.console.print(what, soft_wrap=True)

    def stop(self) -> None:
        """Leave the terminal as if no lines had been there."""
        with self._lock:
            self._stopped.set()
            self.refresh()
            self.console.pop_render_hook()
        sys.stderr = self._error
        self.console.show_cursor(True)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Put what is printed in the lines' place, and these below it."""
        with self._lock:
            width, height = self.console.size
            back = [self._to_first_line(width)]
            if any(not isinstance(one, Control) for one in renderables):
                back.append(_ERASE_BELOW)
            # The last column stays free: behind it some terminals begin another line.
            room = width - 1, max(1, height - _LEAST)
            lines = [] if self._stopped.is_set() else self._draw(*room)
            self._drawn = [line.cell_len for line in lines]
            self._drawn_at = time.monotonic()
        segments: list[Segment] = []
        for line in lines:
            segments += [*line.render(self.console), _ERASE_REST, Segment.line()]
        return [Segments(back), *renderables, Segments([*segments, _ERASE_BELOW])]

    def _to_first_line(self, width: int) -> Segment:
        """A terminal that has become narrower has broken the lines, and moved the cursor down."""
        rows = sum(max(1, -(-cells // width)) for cells in self._drawn)
        up = [(ControlType.CURSOR_UP, rows)] if rows else []
        return Control(ControlType.CARRIAGE_RETURN, *up).segment

    def _keep_time(self) -> None:
        while not self._stopped.wait(_IDLE_SECONDS):
            with self._lock:
                idle = time.monotonic() - self._drawn_at
                if idle >= _IDLE_SECONDS and not self._stopped.is_set():
                    self.refresh()
