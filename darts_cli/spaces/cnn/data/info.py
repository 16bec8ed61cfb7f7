"""Facts about a data set of images, before and after it is read; stands on no other module here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darts_cli.errors import CheckpointError
from darts_cli.schema import Rule, find_misfit, is_list_of, is_name, is_number

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
        misfit = find_misfit(values, _RULES)
        if misfit is not None:
            raise CheckpointError(f"facts.{misfit}")
        for name in ("mean", "std"):
            if len(values[name]) != values["channels"]:
                raise CheckpointError(
                    f"facts.{name}: found {len(values[name])} numbers, expected "
                    f"{values['channels']}, one a channel"
                )
        tuples = {name: tuple(values[name]) for name in ("classes", "mean", "std")}
        return cls(**{name: values[name] for name in _RULES} | tuples)


_are_names, _are_numbers = is_list_of(is_name), is_list_of(is_number)

# Rule of each value of `ImageInfo`.
_RULES = {
    "name": Rule("a name", is_name),
    "classes": Rule(
        "two or more different names",
        lambda value: _are_names(value) and len(set(value)) == len(value) >= 2,
    ),
    "channels": Rule("1 or 3", lambda value: type(value) is int and value in {1, 3}),
    "size": Rule(f"1 to {_MAX_SIZE}", lambda value: type(value) is int and 1 <= value <= _MAX_SIZE),
    "mean": Rule("numbers", _are_numbers),
    "std": Rule("numbers above 0", lambda value: _are_numbers(value) and min(value, default=1) > 0),
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
