"""A network that was detected by the names and shapes of published tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darts_cli.errors import CheckpointError

# Shapes of tensors by name.
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectedNetwork:
    """A network that was recognised."""

    command: str
    """Command that made it: `search` or `train`."""
    recipe: str
    """Recipe that fits it best."""
    network: Mapping[str, Any]
    """Settings of the network that follow from shapes."""
    outputs: int
    """Classes or words."""
    words: str
    """Description for the user."""
    channels: int = 0
    """Channels of the images that it reads; 0: none."""


def shape_of(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    """Return the shape of a tensor that a network of its kind has.

    Raises:
        CheckpointError: if it is not there, or is of other dimensions.
    """
    shape = shapes.get(name)
    if shape is None:
        raise CheckpointError(f"{name}: found no such tensor, expected it in a network of DARTS")
    if len(shape) != dimensions or not all(shape):
        raise CheckpointError(
            f"{name}: found shape {list(shape)}, expected {dimensions} sizes of 1 or more"
        )
    return shape
