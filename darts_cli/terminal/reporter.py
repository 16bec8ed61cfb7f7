"""Messages and progress of a run: a live display on a terminal, lines elsewhere, and the log."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Self

from rich.console import Console

from darts_cli.errors import system_errors
from darts_cli.genotype.types import Genotype
from darts_cli.run.files import WriteError
from darts_cli.run.metrics import format_metrics
from darts_cli.terminal.architecture import Colour
from darts_cli.terminal.console import format_seconds, redraws
from darts_cli.terminal.frame import FinishedEpochs, Frame
from darts_cli.terminal.layout import draw, uncoloured
from darts_cli.terminal.live import LiveDisplay
from darts_cli.terminal.progress import StageProgress

# How often numbers are read from the device and drawn on a terminal: drawing takes 4 ms.
REFRESH_SECONDS = 0.5

# How often a line is printed without a terminal, and appended to the log in any case.
_PLAIN_SECONDS = 30.0


class Mode(Enum):
    """Amount of output on the console; the log has everything."""

    LIVE = "live"
    """A live display if the terminal can redraw, else lines."""
    PLAIN = "plain"
    """Lines, also on a terminal."""
    QUIET = "quiet"
    """Nothing but how to resume after a stop."""


class Reporter:
    """Messages and progress of a run, on the console and in the log.

    As a context manager, it shows the live display inside the block.
    """

    def __init__(
        self,
        console: Console,
        log: Path | None = None,
        unit: str = "example",
        *,
        mode: Mode = Mode.LIVE,
        colour: Colour = uncoloured,
    ) -> None:
        """Create a reporter, which shows nothing yet.

        Args:
            console: Console of standard error.
            log: File that messages are appended to; None: none.
            unit: Unit of what steps read: `image`, `word`.
            mode: How much is shown.
            colour: Function that returns the style of an operation.
        """
        self.console = console
        self._log = log
        self._unit = unit
        self._quiet = mode is Mode.QUIET
        self._frame = Frame()
        self._display: LiveDisplay | None = None
        if mode is Mode.LIVE and redraws(console):
            self._display = LiveDisplay(console, partial(draw, self._frame, console, colour))
        self._number = 0
        self._epoch = self._stage = StageProgress("", "", step=0, steps=0)
        self._shown_at = self._logged_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._display is not None:
            self._display.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._display is None:
            return
        self._display.stop()
        self._display = None
        # The display showed these of the newest epoch until now.
        for line in (*self._summary(), *map(_warning, self._frame.warnings)):
            self._print(line)

    def recall(self, finished: FinishedEpochs) -> None:
        """Show the epochs that have ended when a run begins, resumes, or rolls back."""
        self._frame.finished, self._frame.warnings = finished, finished.warnings()

    def begin_epoch(self, *, epoch: int, epochs: int, step: int, steps: int) -> None:
        """Start an epoch, counted from 1, at `step` of its `steps`."""
        done, run = (epoch - 1) * steps + step, self._frame.run
        if run is None or epoch <= self._number:
            # After a rollback, speed and time left count from there.
            run = StageProgress("run", "steps", step=done, steps=epochs * steps)
        # Set anew, since epochs of text differ in length.
        self._number, run.step, run.steps = epoch, done, epochs * steps
        label, unit = f"epoch {epoch}/{epochs}", f"{self._unit}s"
        self._epoch = self._stage = StageProgress(label, unit, step=step, steps=steps)
        self._frame.run, self._frame.stage, self._frame.metrics = run, self._stage, {}

    def begin_evaluation(self, steps: int) -> None:
        """Start the evaluation after an epoch, of `steps` batches."""
        self._stage = self._frame.stage = StageProgress(
            "evaluation", "batches", step=0, steps=steps
        )

    def due(self) -> bool:
        """Return whether it is time to read numbers and show them."""
        pause = _PLAIN_SECONDS if self._display is None else REFRESH_SECONDS
        return time.monotonic() - self._shown_at >= pause

    def advance(self, examples: int) -> None:
        """Count a step and the examples in it: images or words."""
        self._stage.advance(examples)
        if self._frame.run is not None and self._stage is self._epoch:
            self._frame.run.advance(examples)

    def show(self, metrics: Mapping[str, float], *, lr: float, device: Sequence[str] = ()) -> None:
        """Show the numbers of the epoch so far.

        Args:
            metrics: Training metrics.
            lr: Learning rate of the weights.
            device: Name of the device, its memory and utilization.

        Raises:
            WriteError: if the disk is full or the log cannot be written.
        """
        self._frame.metrics, self._frame.lr, self._frame.device = metrics, lr, device
        numbers = (format_metrics(metrics), f"lr {lr:.4g}", *device)
        self._update("  ".join(part for part in numbers if part))

    def show_evaluation(self) -> None:
        """Show the progress of an evaluation.

        Raises:
            WriteError: if the disk is full or the log cannot be written.
        """
        self._update("")

    def _update(self, numbers: str) -> None:
        now = self._shown_at = time.monotonic()
        if self._display is not None:
            self._display.refresh()
            if now - self._logged_at < _PLAIN_SECONDS:
                return
        self._logged_at = now
        self._report(self._plain(numbers), live=False)

    def _plain(self, numbers: str) -> str:
        epoch, stage = self._epoch, self._stage
        what = "epoch" if stage is epoch else stage.label
        parts = (
            epoch.label,
            stage.label if stage is not epoch else "",
            f"step {stage.step}/{stage.steps}",
            stage.rate,
            numbers,
            f"{what} ends in {format_seconds(stage.left or 0.0)}",
        )
        return "  ".join(part for part in parts if part)

    def end_epoch(self, line: str, finished: FinishedEpochs) -> None:
        """Report the result of an epoch, and each warning when it is new.

        Args:
            line: The metrics of the epoch.
            finished: Epochs that have ended, with this one.

        Raises:
            WriteError: if the disk is full or the log cannot be written.
        """
        known = self._frame.warnings
        self.recall(finished)
        self._report(line)
        for more in self._summary():
            self._report(more, live=False)
        for warning in self._frame.warnings:
            self._report(_warning(warning), live=False, plain=warning not in known)

    def _summary(self) -> list[str]:
        finished = self._frame.finished
        if finished is None or finished.snapshot is None:
            return []
        return summarize(finished.snapshot.genotype, finished.space.skip).splitlines()

    def say(self, text: str, *, always: bool = False) -> None:
        """Print a message, and append it to the log.

        Args:
            text: The message.
            always: Whether it is printed in quiet mode as well.

        Raises:
            WriteError: if the disk is full or the log cannot be written.
        """
        if always and self._quiet:
            self._print(text)
        self._report(text)

    def _report(self, text: str, *, live: bool = True, plain: bool = True) -> None:
        """Log a text; print it above a display if `live`, or as a line if `plain`."""
        if not self._quiet and (plain if self._display is None else live):
            self._print(text)
        self._append_to_log(text)

    def _print(self, text: str) -> None:
        if self._display is not None:
            self._display.print(text)
        else:
            # Not wrapped: the terminal's own line breaks are not copied from it.
            self.console.print(text, soft_wrap=True, markup=False, emoji=False)

    def _append_to_log(self, text: str) -> None:
        if self._log is None:
            return
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        with (
            system_errors(WriteError, self._log, "written"),
            # Paths may hold bytes that are not UTF-8.
            self._log.open("a", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.writelines(f"{stamp}  {line}\n" for line in text.splitlines())


def _warning(text: str) -> str:
    return f"  warning: {text}"


def summarize(genotype: Genotype, skip: str) -> str:
    """Return a line per cell: the number of its `skip` edges, and the edges of its nodes."""
    skips = genotype.count(skip)
    # `skip_connect` is a skip connection, `identity` an identity connection.
    kind = skip.removesuffix("_connect")
    lines = []
    for name, cell in genotype.cells.items():
        nodes = (
            "[" + ", ".join(f"{edge.operation} {edge.source}" for edge in node) + "]"
            for node in cell.nodes
        )
        plural = "" if skips[name] == 1 else "s"
        lines.append(f"  {name} ({skips[name]} {kind} connection{plural}): {' '.join(nodes)}")
    return "\n".join(lines)
