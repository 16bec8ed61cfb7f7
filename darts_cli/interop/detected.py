"""What the names and shapes of published tensors tell of the network that they are of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darts_cli.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]
"""Of tensors, by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectedNetwork:
    """A network that was recognised."""

    command: str
    """What made it: `search` or `train`."""
    recipe: str
    """The set of defaults that fits it best."""
    network: Mapping[str, Any]
    """Settings of the network that follow from shapes."""
    outputs: int
    """Classes or words."""
    words: str
    """What it is, for people."""
    channels: int = 0
    """Of the images that it reads; 0: none."""


def shape_of(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that a network of its kind has.

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
