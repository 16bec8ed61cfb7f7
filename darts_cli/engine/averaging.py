"""The mean of the weights over the steps of SGD (Polyak and Juditsky, 1992)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """The running mean of all weights since it was started.

    SGD with it is the ASGD of published recurrent training, whose decay `lambd`
    is 0. A mean of its own leaves the optimizer, and the learning rate of a
    segment, unchanged.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        count: int = 0,
        means: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Start with the present weights, or with means of a checkpoint.

        Args:
            weights: Parameters by name, read at every update.
            count: Number of steps averaged so far.
            means: Means of these steps by name, of the weights' shapes; None: the weights.
        """
        self.weights = weights
        self.means = {name: weight.detach().clone() for name, weight in weights.items()}
        if means is not None:
            for name, mean in self.means.items():
                mean.copy_(means[name])
        self.count = count

    @torch.no_grad()
    def update(self) -> None:
        """Include the weights after a step."""
        # mean + (weight - mean) / count, in one kernel for all weights.
        self.count += 1
        torch._foreach_lerp_(list(self.means.values()), list(self.weights.values()), 1 / self.count)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Replace the weights by their means; afterwards they are bit for bit what they were."""
        weights = list(self.weights.values())
        # Copied, since going back by a difference would round.
        kept = [weight.clone() for weight in weights]
        torch._foreach_copy_(weights, list(self.means.values()))
        try:
            yield
        finally:
            torch._foreach_copy_(weights, kept)
