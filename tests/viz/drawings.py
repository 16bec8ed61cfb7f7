"""Parts of a figure: its words as they are shown, and the axes below a title."""

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text


def texts(picture: Figure) -> list[Text]:
    """Return all visible texts."""
    picture.draw_without_rendering()
    found = list(picture.texts)
    for axes in picture.axes:
        if not axes.axison:
            continue
        found += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        found += [*_numbers(axes.xaxis, axes.get_xlim()), *_numbers(axes.yaxis, axes.get_ylim())]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def _numbers(axis: Axis, limits: tuple[float, float]) -> Iterator[Text]:
    """Yield the numbers of an axis that are within its limits, since only these are drawn."""
    low, high = sorted(limits)
    for tick in axis.get_major_ticks():
        if low <= tick.get_loc() <= high and tick.label1.get_visible():
            yield tick.label1


def words(picture: Figure) -> list[str]:
    """Return all visible texts as strings."""
    return [text.get_text() for text in texts(picture)]


def axes_titled(picture: Figure, title: str) -> Axes:
    """Return the axes right below a title."""
    (text,) = [text for text in texts(picture) if text.get_text() == title]
    box = text.get_window_extent()
    below = [axes for axes in picture.axes if axes.bbox.y1 <= box.y0 + 1]
    return min(below, key=lambda axes: box.y0 - axes.bbox.y1 + abs(axes.bbox.x0 - box.x0))
