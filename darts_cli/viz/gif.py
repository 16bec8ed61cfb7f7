"""Animated GIFs of drawings: one palette for all frames, so that nothing flickers."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from PIL import Image, ImageColor

from darts_cli.run.files import replacing

# One less than a GIF has: Pillow takes one for pixels that stay as they were.
COLOURS = 255


class Palette:
    """The colours of all frames of an animation.

    Drawings are flat areas with smooth borders: the areas keep their exact colours,
    and Pillow chooses the other colours from the borders.
    """

    def __init__(self, exact: Iterable[str], samples: Sequence[Image.Image]) -> None:
        """Choose the colours.

        Args:
            exact: Colours of the areas as #RRGGBB; the first one gets index 0.
            samples: Pictures of mode RGB that are like the frames.
        """
        inks = dict.fromkeys(exact)
        areas = [value for ink in inks for value in ImageColor.getrgb(ink)]
        width = max(sample.width for sample in samples)
        montage = Image.new("RGB", (width, sum(sample.height for sample in samples)))
        tops = accumulate((sample.height for sample in samples), initial=0)
        for sample, top in zip(samples, tops, strict=False):
            montage.paste(sample, (0, top))
        # The method that gives rare colours as much weight as frequent ones. On drawings of cells
        # its mean error is 0.5 of 255, that of median cut 2.7.
        found = montage.quantize(COLOURS - len(inks), method=Image.Quantize.MAXCOVERAGE)
        borders = found.getpalette() or []
        self.values = areas + borders
        # Pillow looks up the nearest entry of a pixel's cube of side 4, from the cube's corner.
        # With the corners as entries, two similar areas stay distinct.
        self._lookup = Image.new("P", (1, 1))
        self._lookup.putpalette([value & ~3 for value in areas] + borders)

    def apply(self, picture: Image.Image) -> Image.Image:
        """Return the picture in mode P, each pixel in the nearest colour."""
        # Dithering would make areas grainy, and differently in each frame.
        image = picture.quantize(palette=self._lookup, dither=Image.Dither.NONE)
        image.putpalette(self.values)
        return image


def write(frames: Iterator[Image.Image], durations: Sequence[int], path: Path) -> None:
    """Write an animation that repeats for ever; the file appears whole or not at all.

    Args:
        frames: Pictures of one size and palette, made one by one as they are written.
        durations: Milliseconds of each frame.
        path: The file to write.

    Raises:
        WriteError: if the file cannot be written.
    """
    first = next(frames)
    with replacing(path) as temporary:
        first.save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames,
            duration=list(durations),
            loop=0,
            # Without it Pillow writes the palette once more for every frame.
            palette=bytes(first.getpalette() or []),
            optimize=True,
        )
