"""Checks that nothing in a picture covers anything else, by the boxes of the renderer."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.transforms import Bbox

Named = dict[str, Bbox]


def boxes(picture: Figure, kind: str) -> Named:
    """Return the boxes of all labels, states or samples of a legend, by identifier."""
    (axes,) = picture.axes
    return {
        _name(patch): patch.get_window_extent()
        for patch in axes.patches
        if isinstance(patch, FancyBboxPatch) and f"-{kind}-" in _name(patch)
    }


def texts(picture: Figure) -> Named:
    """Return the boxes of all texts, by identifier."""
    (axes,) = picture.axes
    return {_name(text): text.get_window_extent() for text in axes.texts}


def lines(picture: Figure, *, legend: bool = False) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the points `[N, 2]` of every line, of cells or of the legend, by identifier."""
    (axes,) = picture.axes
    for patch in axes.patches:
        if isinstance(patch, PathPatch) and _name(patch).startswith("legend") == legend:
            flat = patch.get_path().interpolated(1).to_polygons(closed_only=False)
            yield _name(patch), patch.get_transform().transform(flat[0])


def _name(artist: Artist) -> str:
    name = artist.get_gid()
    assert name is not None
    return name


def overlap(one: Bbox, other: Bbox) -> bool:
    both = Bbox.intersection(one, other)
    return both is not None and both.width > 0 and both.height > 0


def check_nothing_is_covered(picture: Figure, *, edges: int) -> None:
    """Check that boxes, texts and samples lie side by side, each text of a box within the box."""
    labels = boxes(picture, "label")
    assert len(labels) == edges
    samples = {
        **boxes(picture, "sample"),
        **{
            name: Bbox([points.min(axis=0) - 1, points.max(axis=0) + 1])
            for name, points in lines(picture, legend=True)
        },
    }
    framed = {**labels, **boxes(picture, "state"), **samples}
    written = texts(picture)
    for group in (framed, written):
        pairs = combinations(group.items(), 2)
        assert not [(one[0], two[0]) for one, two in pairs if overlap(one[1], two[1])]
    for extent in (*framed.values(), *written.values()):
        assert Bbox.union([picture.bbox, extent]).bounds == picture.bbox.bounds
    for name, extent in written.items():
        around = [frame for frame, box in framed.items() if overlap(box, extent)]
        inside = [name.removesuffix("-note").removesuffix("-text")] if "-text" in name else []
        assert around == inside
        for frame in around:
            assert Bbox.union([framed[frame], extent]).bounds == framed[frame].bounds


def check_lines_pass_boxes_by(picture: Figure) -> None:
    """Check that lines cross only their own label, and no text beside the cells."""
    labels, states = boxes(picture, "label"), boxes(picture, "state")
    beside = [box for name, box in texts(picture).items() if "-text" not in name]
    beside += boxes(picture, "sample").values()
    for _, line in lines(picture):
        touched = [any(box.contains(x, y) for x, y in line) for box in labels.values()]
        # An edge passes through its own label; a line into the output through none.
        assert sum(touched) <= 1
        inside = [box for box in states.values() if any(box.contains(x, y) for x, y in line)]
        # A line begins under the box that it leaves, and its arrow stops at the box it reaches.
        assert len(inside) == 1
        assert inside[0].contains(*line[0])
        assert not inside[0].contains(*line[-1])
        assert not any(box.contains(x, y) for box in beside for x, y in line)
