"""What is known about images before they are read, and what their networks remember."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
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
    def from_json(cls, values: Mapping[str, Any]) -> "ImageFacts":
        """The inverse of `dataclasses.asdict` and JSON, which turn tuples into lists."""
        lists = {key: tuple(values[key]) for key in ("classes", "mean", "std")}
        return cls(**{**values, **lists})


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What is known about the images before any of them is decoded."""

    name: str
    classes: int
    channels: int
    size: int
    counts: dict[str, int]
    """Images of every split."""
