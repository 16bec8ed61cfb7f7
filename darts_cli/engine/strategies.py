"""Strategies: the relaxation that turns alphas into weights of the candidate operations."""

from typing import TYPE_CHECKING

from darts_cli.errors import ConfigError
from darts_cli.space import SearchSpace

# Names of strategies are completed in a shell, which does not wait for torch.
if TYPE_CHECKING:
    import torch

# For each kind of cell `[E, O]`: a row for each edge, a column for each primitive.
Alphas = dict[str, "torch.Tensor"]

# For each kind of cell `[E, O]`: the weight of every candidate; empty for a discrete network.
Mixture = dict[str, "torch.Tensor"]


class Strategy:
    """The continuous relaxation of DARTS: a softmax over the candidates of an edge (equation 2).

    Another strategy derives from it.
    """

    def initial(
        self, space: SearchSpace, scale: float, generator: "torch.Generator | None"
    ) -> Alphas:
        """Draw normal noise, so small that all candidates start nearly equal."""
        import torch

        shape = (len(space.edges), len(space.primitives))
        return {cell: scale * torch.randn(shape, generator=generator) for cell in space.cells}

    def mixture(self, alphas: Alphas) -> Mixture:
        """Return the softmax of every row, `[E, O]` (equation 2)."""
        return {cell: tensor.softmax(dim=-1) for cell, tensor in alphas.items()}


# What `--strategy` offers.
STRATEGIES: dict[str, Strategy] = {"darts": Strategy()}


def find(name: str) -> Strategy:
    """Return the strategy of a name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in STRATEGIES:
        raise ConfigError(
            f"--strategy {name}: no such strategy, expected one of {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[name]
