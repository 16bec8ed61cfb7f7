"""What of a picture has a place on a terminal, and where."""

from collections.abc import Callable

from rich.text import Text

from darts_cli.terminal import architecture, numbers
from darts_cli.terminal.picture import UNICODE, Glyphs, Picture


def uncoloured(_operation: str) -> str:
    """The style of an operation for those who have no colours."""
    return ""


def draw(
    picture: Picture,
    *,
    width: int,
    height: int,
    colour: Callable[[str], str] = uncoloured,
    glyphs: Glyphs = UNICODE,
) -> list[Text]:
    """The lines of a picture: `height` at most, none wider than `width`.

    Where the terminal is low, cells go first, then signals, then warnings, the last one before
    the others, and then measures from below.

    Args:
        picture: What is shown.
        width: Columns.
        height: Lines.
        colour: Of an operation, as rich writes styles.
        glyphs: What bars and sparklines are made of.
    """
    top = [
        *numbers.bars(picture.bars, width, glyphs),
        *numbers.metrics(picture, width, glyphs),
        numbers.device(picture, width, glyphs),
    ][:height]
    warnings = architecture.warnings(picture.warnings, width, height - len(top))
    free = height - len(top) - len(warnings)
    past, signals, cells = picture.past, list[Text](), list[Text]()
    if past.snapshot is not None:
        signals = architecture.signals(past.space, past.snapshot.signals, width)
        signals = signals if len(signals) <= free else []
        cells = architecture.cells(past, width, free - len(signals), colour)
    lines = [*top, *cells, *signals, *warnings]
    return [numbers.shortened(line, width, glyphs) for line in lines]
