"""The mean of the weights over the steps of SGD (Polyak and Juditsky, 1992)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from darts_cli.errors import CheckpointError


class Average:
    """The running mean of all weights since it was started.

    SGD with it is the ASGD of published recurrent training, whose decay `lambd`
    is 0. A mean of its own leaves the optimizer, and the learning rate of a
    segment, unchanged.
    """

    def __init__(self, weights: Mapping[str, Tensor], count: int = 0) -> None:
        """Start with the present weights.

        Args:
            weights: Parameters by name, read at every update.
            count: Steps averaged so far.
        """
        self.weights = weights
        self.means = {name: weight.detach().clone() for name, weight in weights.items()}
        self.count = count

    @torch.no_grad()
    def update(self) -> None:
        """Include the weights after a step."""
        self.count += 1
        torch._foreach_lerp_(list(self.means.values()), list(self.weights.values()), 1 / self.count)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the means by name; `count` is saved apart, with the metadata."""
        return self.means

    @torch.no_grad()
    def load_state_dict(self, means: Mapping[str, Tensor]) -> None:
        """Load the means of a checkpoint.

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
        """Replace the weights by their means; afterwards they are bit for bit what they were."""
        weights = list(self.weights.values())
        kept = [weight.clone() for weight in weights]
        torch._foreach_copy_(weights, list(self.means.values()))
        try:
            yield
        finally:
            torch._foreach_copy_(weights, kept)
