"""The mean of the weights over the steps of SGD (Polyak and Juditsky, 1992)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from darts_cli.errors import CheckpointError


class Average:
    """The running mean of all weights since it was begun.

    SGD with it is the ASGD of published recurrent training, whose decay `lambd`
    is 0; an own mean leaves the optimizer, and the segment's learning rate, alone.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights
        self.means = {name: weight.detach().clone() for name, weight in weights.items()}
        self.count = 0
        """Steps averaged over."""

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.count += 1
        torch._foreach_lerp_(list(self.means.values()), list(self.weights.values()), 1 / self.count)

    @torch.no_grad()
    def load(self, means: Mapping[str, Tensor]) -> None:
        """Take the means of a checkpoint, by the same names.

        Raises:
            CheckpointError: if one is missing, or of another shape.
        """
        for name, mean in self.means.items():
            if name not in means or means[name].shape != mean.shape:
                raise CheckpointError(
                    f"average.{name}: expected a mean of shape {list(mean.shape)} in the checkpoint"
                )
            mean.copy_(means[name])

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The means in the place of the weights, which come back bit for bit."""
        weights = list(self.weights.values())
        kept = [weight.clone() for weight in weights]
        torch._foreach_copy_(weights, list(self.means.values()))
        try:
            yield
        finally:
            torch._foreach_copy_(weights, kept)
