"""What a run says while it goes on: on a terminal live, elsewhere in lines; and its log."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.text import Text

from darts_cli.genotype.types import Genotype
from darts_cli.run.files import WriteError
from darts_cli.terminal.console import format_metrics, format_seconds, redraws
from darts_cli.terminal.layout import draw, uncoloured
from darts_cli.terminal.picture import ASCII, UNICODE, Bar, Past, Picture
from darts_cli.terminal.region import Region
from darts_cli.terminal.stage import Stage

REFRESH_SECONDS = 0.5
"""How often numbers are read from the device and drawn on a terminal: drawing takes 3 ms."""

_PLAIN_SECONDS = 30.0
"""How often a line is printed where there is no terminal, and written to the log anyway."""


class Mode(Enum):
    """How much is shown; the log has everything."""

    LIVE = "live"
    """A display where the terminal can redraw, else lines."""
    PLAIN = "plain"
    """Lines, also on a terminal."""
    QUIET = "quiet"
    """Nothing but how to go on after a stop."""


class Reporter:
    """Shows the steps of a run, and notes what it says in a log.

    A context manager: a display is there from its entry to its exit.
    """

    def __init__(
        self,
        console: Console,
        log: Path | None = None,
        unit: str = "example",
        *,
        mode: Mode = Mode.LIVE,
        colour: Callable[[str], str] = uncoloured,
    ) -> None:
        """Nothing yet.

        Args:
            console: Where it is shown.
            log: Where it is noted.
            unit: What steps read: `image`, `word`.
            mode: How much is shown.
            colour: Of an operation, as rich writes styles.
        """
        self.console = console
        self._log = log
        self._unit = unit
        self._colour = colour
        self._quiet = mode is Mode.QUIET
        self._glyphs = ASCII if console.options.ascii_only else UNICODE
        live = mode is Mode.LIVE and redraws(console)
        self._region = Region(console, self._draw) if live else None
        self._past: Past | None = None
        self._warnings: list[str] = []
        self._measures: Mapping[str, float] = {}
        self._lr: float | None = None
        self._device: Sequence[str] = ()
        self._run: Stage | None = None
        self._number = 0
        self._epoch = self._stage = Stage("", "", step=0, steps=0)
        self._shown_at = self._noted_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._region is not None:
            self._region.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._region is None:
            return
        self._region.stop()
        self._region = None
        # What the display told of the newest epoch goes with it.
        for line in (*self._summary(), *map(_warning, self._warnings)):
            self._print(line)

    def recall(self, past: Past) -> None:
        """The epochs that are done as a run begins or goes on."""
        self._past = past
        self._warnings = past.warnings()

    def begin_epoch(self, *, epoch: int, epochs: int, step: int, steps: int) -> None:
        """Start an epoch, counted from 1, at `step` of its `steps`."""
        done = (epoch - 1) * steps + step
        if self._run is None or epoch <= self._number:
            # A run that goes back counts from there.
            self._run = Stage("run", "steps", step=done, steps=epochs * steps)
        # Epochs of text are not all of one length.
        self._number, self._run.step, self._run.steps = epoch, done, epochs * steps
        label, unit = f"epoch {epoch}/{epochs}", f"{self._unit}s"
        self._epoch = self._stage = Stage(label, unit, step=step, steps=steps)
        self._measures = {}

    def begin_evaluation(self, steps: int) -> None:
        """Start the evaluation after an epoch, of so many batches."""
        self._stage = Stage("evaluation", "batches", step=0, steps=steps)

    def due(self) -> bool:
        """Whether it is time to read numbers and show them."""
        pause = _PLAIN_SECONDS if self._region is None else REFRESH_SECONDS
        return time.monotonic() - self._shown_at >= pause

    def advance(self, examples: int) -> None:
        """Count a step and the examples in it: images or words."""
        self._stage.advance(examples)
        if self._run is not None and self._stage is self._epoch:
            self._run.advance(examples)

    def show(self, metrics: Mapping[str, float], *, lr: float, device: Sequence[str] = ()) -> None:
        """Show the numbers of the moment.

        Raises:
            WriteError: if the disk is full or the log cannot be written.
        """
        self._measures, self._lr, self._device = metrics, lr, device
        numbers = (format_metrics(metrics), f"lr {lr:.4g}", *device)
        self._update("  ".join(part for part in numbers if part))

    def show_evaluation(self) -> None:
        """Show how far an evaluation is.

        Raises:
            WriteError: if the disk is full or the log cannot be written.
        """
        self._update("")

    def _update(self, numbers: str) -> None:
        now = self._shown_at = time.monotonic()
        if self._region is not None:
            self._region.refresh()
            if now - self._noted_at < _PLAIN_SECONDS:
                return
        self._noted_at = now
        self._tell(self._plain(numbers), live=False)

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

    def end_epoch(self, line: str, past: Past) -> None:
        """Say what came out of an epoch; a warning once, until it is another.

        Raises:
            WriteError: if the disk is full or the log cannot be written.
        """
        known, self._past, self._warnings = self._warnings, past, past.warnings()
        self._tell(line)
        for more in self._summary():
            self._tell(more, live=False)
        for warning in self._warnings:
            self._tell(_warning(warning), live=False, plain=warning not in known)

    def _summary(self) -> list[str]:
        past = self._past
        if past is None or past.snapshot is None:
            return []
        return summarize(past.snapshot.genotype, past.space.skip).splitlines()

    def say(self, text: str, *, always: bool = False) -> None:
        """Print a message, and note it in the log; `always`: also where nothing is to be shown.

        Raises:
            WriteError: if the disk is full or the log cannot be written.
        """
        if always and self._quiet:
            self._print(text)
        self._tell(text)

    def _tell(self, text: str, *, live: bool = True, plain: bool = True) -> None:
        """Note a text, and print it above a display if `live`, as a line if `plain`."""
        if not self._quiet and (plain if self._region is None else live):
            self._print(text)
        self._note(text)

    def _print(self, text: str) -> None:
        if self._region is not None:
            self._region.print(text)
        else:
            self.console.print(text, soft_wrap=True, markup=False, emoji=False)

    def _note(self, text: str) -> None:
        if self._log is None:
            return
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            # Paths may hold bytes that are no text.
            with self._log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(f"{stamp}  {line}\n" for line in text.splitlines())
        except OSError as error:
            raise WriteError(f"{self._log}: cannot be written ({error.strerror})") from None

    def _draw(self, width: int, height: int) -> list[Text]:
        """The display as it is now; a thread may ask for it while numbers change."""
        past, run, stage = self._past, self._run, self._stage
        if past is None or run is None:
            return []
        picture = Picture(
            bars=(
                _bar(run, note=f"for {format_seconds(run.elapsed)}"),
                _bar(stage, note=stage.rate),
            ),
            past=past,
            metrics=self._measures,
            lr=self._lr,
            device=self._device,
            warnings=self._warnings,
        )
        return draw(picture, width=width, height=height, colour=self._colour, glyphs=self._glyphs)


def _bar(stage: Stage, *, note: str) -> Bar:
    return Bar(label=stage.label, done=stage.step, total=stage.steps, note=note, left=stage.left)


def _warning(text: str) -> str:
    return f"  warning: {text}"


def summarize(genotype: Genotype, skip: str) -> str:
    """A line a cell: how many edges hand a state on as it is, by `skip`, and those of its nodes."""
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
