"""Facts about a data set of images, before and after it is read; stands on no other module here."""

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from darts_cli.errors import CheckpointError

# Channels (1 or 3) and side in pixels of square images: `C, S` of `[N, C, S, S]`.
Shape = tuple[int, int]

# Mean and standard deviation of each channel, of pixels from 0 to 1.
Statistics = tuple[tuple[float, ...], tuple[float, ...]]

# Largest side of an image in pixels that a checkpoint may name.
_MAX_SIZE = 2**14


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """Facts that a checkpoint keeps about the images that its network was trained on."""

    name: str
    """Name as given to `--data`."""
    classes: tuple[str, ...]
    """Names in the order of the logits."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    size: int
    """Side in pixels."""
    mean: tuple[float, ...]
    """Mean of each channel, of pixels from 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation of each channel, of pixels from 0 to 1."""

    @property
    def shape(self) -> Shape:
        """Channels and side in pixels."""
        return self.channels, self.size

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ImageInfo":
        """Build from what `dataclasses.asdict` and JSON made of it: lists where tuples were.

        Raises:
            CheckpointError: if a value is missing, unknown, or of the wrong kind.
        """
        for name, (is_valid, expected) in _VALUES.items():
            if not is_valid(values.get(name)):
                raise CheckpointError(
                    f"facts.{name}: found {reprlib.repr(values.get(name))}, expected {expected}"
                )
        for name in ("mean", "std"):
            if len(values[name]) != values["channels"]:
                raise CheckpointError(
                    f"facts.{name}: found {len(values[name])} numbers, expected "
                    f"{values['channels']}, one a channel"
                )
        tuples = {name: tuple(values[name]) for name in ("classes", "mean", "std")}
        return cls(**{name: values[name] for name in _VALUES} | tuples)


def _are_numbers(values: object) -> bool:
    return isinstance(values, list | tuple) and all(
        type(value) in {int, float} and math.isfinite(value) for value in values
    )


# Check of each value of `ImageInfo`, and the text that says what was expected.
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda value: isinstance(value, str), "a name"),
    "classes": (
        lambda value: (
            isinstance(value, list | tuple)
            and all(isinstance(name, str) for name in value)
            and len(set(value)) == len(value) >= 2
        ),
        "two or more different names",
    ),
    "channels": (lambda value: type(value) is int and value in {1, 3}, "1 or 3"),
    "size": (lambda value: type(value) is int and 1 <= value <= _MAX_SIZE, f"1 to {_MAX_SIZE}"),
    "mean": (_are_numbers, "numbers"),
    "std": (lambda value: _are_numbers(value) and min(value, default=1) > 0, "numbers above 0"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Facts known about the images before any of them is decoded."""

    name: str
    """Name as given to `--data`."""
    classes: int
    """Number of classes."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    size: int
    """Side in pixels."""
    counts: dict[str, int]
    """Number of images in each split."""
