"""Animated GIFs of drawings: one palette for all frames, so that nothing flickers."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from darts_cli.run.files import replacing

COLOURS = 255
"""One less than a GIF has: Pillow takes one for pixels that stay as they were."""

Pixels = NDArray[np.uint8]
"""`[H, W, 3]`, red, green and blue."""


class Palette:
    """The colours of a GIF, and for every other colour the nearest of them.

    Drawings are flat areas with smooth borders. A colour counts as much as it
    has pixels in that sample which has most of them: so the areas keep their
    exact colours, even those of an operation that only one cell has.
    """

    def __init__(self) -> None:
        self._weights: dict[int, int] = {}
        self._indices: dict[int, int] = {}
        self._colours: Pixels = np.zeros((0, 3), np.uint8)

    def count(self, sample: Pixels) -> None:
        """Weigh the colours of something that will be in a frame; before the first `apply`."""
        found, counts = np.unique(_pack(sample), return_counts=True)
        for colour, pixels in zip(found.tolist(), counts.tolist(), strict=True):
            self._weights[colour] = max(pixels, self._weights.get(colour, 0))

    def apply(self, frame: Pixels) -> Image.Image:
        """The frame in the palette's colours."""
        if not len(self._colours):
            # Equal weights are told apart by the colours, so that each day has the same palette.
            ranked = sorted(self._weights, key=lambda colour: (-self._weights[colour], colour))
            self._colours = _unpack(np.array(ranked[:COLOURS]))
        found, places = np.unique(_pack(frame), return_inverse=True)
        self._look_up([colour for colour in found.tolist() if colour not in self._indices])
        indices = np.array([self._indices[colour] for colour in found.tolist()], np.uint8)
        image = Image.fromarray(indices[places].reshape(frame.shape[:2]))
        image.putpalette(self._colours.tobytes())
        return image

    def _look_up(self, colours: Sequence[int]) -> None:
        """Find the nearest colour of each."""
        known = self._colours.astype(np.int64)
        for colour in colours:
            distances = ((known - _unpack(np.array([colour]))) ** 2).sum(axis=1)
            self._indices[colour] = int(distances.argmin())


def _pack(pixels: Pixels) -> NDArray[np.int64]:
    """One number a colour."""
    wide = pixels.reshape(-1, 3).astype(np.int64)
    return wide[:, 0] << 16 | wide[:, 1] << 8 | wide[:, 2]


def _unpack(colours: NDArray[np.int64]) -> Pixels:
    return np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8)


def write(frames: Iterable[Image.Image], durations: Sequence[int], path: Path) -> None:
    """Write an animation that begins anew for ever; the file appears whole or not at all.

    Args:
        frames: All of one size and palette; made one after the other.
        durations: Of each frame, in milliseconds.
        path: Where to.

    Raises:
        WriteError: if the file cannot be written.
    """
    first, *others = frames
    with replacing(path) as temporary:
        first.save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=list(durations),
            loop=0,
            # Else Pillow writes the palette once more for every frame.
            palette=bytes(first.getpalette() or []),
            optimize=True,
        )
