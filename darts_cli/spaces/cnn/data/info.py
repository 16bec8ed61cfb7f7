"""What is known about images before they are read, and what their networks remember."""

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from darts_cli.errors import CheckpointError

_LARGEST = 2**14
"""Side of an image in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What a checkpoint keeps about the images that its network was trained on."""

    name: str
    """As it was given to `--data`."""
    classes: tuple[str, ...]
    """Names, in the order of the logits."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    size: int
    """Side in pixels."""
    mean: tuple[float, ...]
    """Of each channel, of pixels from 0 to 1."""
    std: tuple[float, ...]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ImageInfo":
        """The inverse of `dataclasses.asdict` and JSON, which turn tuples into lists.

        Raises:
            CheckpointError: if a value is missing, unknown, or cannot be.
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
        lists = {name: tuple(values[name]) for name in ("classes", "mean", "std")}
        return cls(**{name: lists.get(name, values[name]) for name in _VALUES})


def _are_numbers(values: object) -> bool:
    return isinstance(values, list | tuple) and all(
        type(value) in {int, float} and math.isfinite(value) for value in values
    )


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
    "size": (lambda value: type(value) is int and 1 <= value <= _LARGEST, f"1 to {_LARGEST}"),
    "mean": (_are_numbers, "numbers"),
    "std": (lambda value: _are_numbers(value) and min(value, default=1) > 0, "numbers above 0"),
}
"""What the facts can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is known about the images before any of them is decoded."""

    name: str
    classes: int
    channels: int
    size: int
    counts: dict[str, int]
    """Images of every split."""
