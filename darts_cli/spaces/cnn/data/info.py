"""Facts about a data set of images, before and after it is read; stands on no other module here."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from darts_cli.errors import CheckpointError
from darts_cli.schema import Rule, check, is_list_of, is_number, is_text

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
        check({"facts": values}, _RULES, CheckpointError)
        for name in ("mean", "std"):
            if len(values[name]) != values["channels"]:
                raise CheckpointError(
                    f"facts.{name}: found {len(values[name])} numbers, expected "
                    f"{values['channels']}, one a channel"
                )
        plain = {field.name: values[field.name] for field in fields(cls)}
        return cls(**plain | {name: tuple(plain[name]) for name in ("classes", "mean", "std")})


def _are_classes(values: Any) -> bool:
    return is_list_of(is_text)(values) and len(set(values)) == len(values) >= 2


_are_numbers = is_list_of(is_number)

# Facts of a checkpoint of images, by dotted key.
_RULES = {
    "facts.name": Rule("a name", is_text),
    "facts.classes": Rule("two or more different names", _are_classes),
    "facts.channels": Rule("1 or 3", lambda value: type(value) is int and value in {1, 3}),
    "facts.size": Rule(
        f"1 to {_MAX_SIZE}", lambda value: type(value) is int and 1 <= value <= _MAX_SIZE
    ),
    "facts.mean": Rule("numbers", _are_numbers),
    "facts.std": Rule(
        "numbers above 0", lambda value: _are_numbers(value) and min(value, default=1) > 0
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Facts known about the images before any of them is decoded."""

    classes: int
    """Number of classes."""
    channels: int
    """1 (grey) or 3 (RGB)."""
    size: int
    """Side in pixels."""
    counts: dict[str, int]
    """Number of images in each split."""
