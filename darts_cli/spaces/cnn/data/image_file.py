"""One image file: its header, and its pixels as they are trained on."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from darts_cli.errors import DataError

_BOMB = Image.DecompressionBombError
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, _BOMB)


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an image before its pixels are."""

    size: tuple[int, int]
    """Width and height."""
    grey: bool
    """Whether it has one channel of brightness."""

    @classmethod
    def of(cls, image: Image.Image) -> "Header":
        """That of an image, decoded or not."""
        return cls(image.size, image.mode in {"1", "L", "LA"} or image.mode.startswith("I"))


@contextmanager
def opened(path: str, data: bytes | None = None) -> Iterator[Image.Image]:
    """An image, whose pixels are decoded when they are first asked for.

    Args:
        path: The file.
        data: What is in it, if that has been read.

    Raises:
        DataError: with the file's name, if it cannot be read or decoded.
    """
    source = path if data is None else io.BytesIO(data)
    try:
        with Image.open(source) as image:
            yield image
    except _UNREADABLE as error:
        raise _unreadable(path, error, repr(source)) from None


def read_header(path: str) -> Header:
    """The header of an image file.

    Raises:
        DataError: if it is not one.
    """
    with opened(path) as image:
        return Header.of(image)


def read_bytes(path: str) -> bytes:
    """What is in an image file.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: Exception, shown: str = "") -> DataError:
    """What to tell of a file that cannot be read.

    Args:
        path: The file.
        error: Why.
        shown: What its text calls the file by.
    """
    reason = getattr(error, "strerror", None) or str(error).replace(shown, "")
    return DataError(
        f"{path}: expected an image, found what cannot be decoded ({' '.join(reason.split())});"
        " replace or remove it"
    )


def convert(image: Image.Image, channels: int) -> Image.Image:
    """Grey (1 channel) or RGB (3), in its own size.

    It is turned as its EXIF orientation says. Palettes and CMYK become RGB,
    16 bits of grey become 8, and what is transparent shows white.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # PIL would clip 16 bits at 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("L" if channels == 1 else "RGB")


def fit(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """The pixels of an image that is grey or RGB, uint8 `[C, size, size]`.

    The shorter side is resized to `size` (bicubic, antialiased) and the
    centre cut out; an image of that size is left as it is.
    """
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
