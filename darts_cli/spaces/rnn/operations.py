"""What the primitives of recurrent cells compute, and the slopes of that."""

from collections.abc import Callable

import torch
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
"""The functions that primitives name; `none` has none."""

SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": lambda _, y: torch.addcmul(y.new_ones(()), y, y, value=-1),
    # Of `x > 0` the conversion to numbers takes five times as long.
    "relu": lambda _, y: y.sign(),
    "sigmoid": lambda _, y: torch.addcmul(y, y, y, value=-1),
    "identity": lambda x, _: x.new_ones(()),
}
"""Their derivatives at `x`, given `y = f(x)` too."""
