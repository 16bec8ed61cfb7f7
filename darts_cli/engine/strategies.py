"""How alphas weigh the candidate operations."""

from typing import Protocol

import torch
from torch import Tensor

from darts_cli.errors import ConfigError
from darts_cli.space import SearchSpace

Alphas = dict[str, Tensor]
"""For each kind of cell, `[E, O]`: a row an edge, a column a primitive."""

Mixture = dict[str, Tensor]
"""For each kind of cell, `[E, O]`: the weight of every candidate; empty for a discrete network."""


class Strategy(Protocol):
    """Where alphas start, and how they become weights."""

    def initial(
        self, space: SearchSpace, scale: float, generator: torch.Generator | None
    ) -> Alphas:
        """Fresh alphas of standard deviation `scale`."""
        ...

    def mixture(self, alphas: Alphas) -> Mixture:
        """Weights of the candidates, differentiable in the alphas."""
        ...


class Darts:
    """The continuous relaxation of DARTS: a softmax over the candidates of an edge (equation 2)."""

    def initial(
        self, space: SearchSpace, scale: float, generator: torch.Generator | None
    ) -> Alphas:
        """Normal noise, so small that all candidates start nearly equal."""
        shape = (len(space.edges), len(space.primitives))
        return {cell: scale * torch.randn(shape, generator=generator) for cell in space.cells}

    def mixture(self, alphas: Alphas) -> Mixture:
        """The softmax of every row."""
        return {cell: tensor.softmax(dim=-1) for cell, tensor in alphas.items()}


STRATEGIES: dict[str, Strategy] = {"darts": Darts()}
"""What `--strategy` offers."""


def find(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in STRATEGIES:
        raise ConfigError(
            f"--strategy {name}: no such strategy, expected one of {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[name]
