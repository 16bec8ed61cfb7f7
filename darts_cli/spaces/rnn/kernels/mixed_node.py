"""A node of the searched cell and the BatchNorm after it, forwards and backwards.

`segment.py` walks over words and nodes with them, and says why it does so.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from darts_cli.spaces.rnn.operations import ACTIVATIONS, SLOPES

_aten = torch.ops.aten


class StateNorm:
    """BatchNorm of one state, in both directions; its operators, without a module's wrapping."""

    def __init__(self, module: nn.BatchNorm1d) -> None:
        self.module = module
        self.statistics = module.running_mean, module.running_var
        self.training = module.training

    def forward(self, raw: Tensor, into: Tensor, mean: Tensor, scale: Tensor) -> None:
        """Fill `into` `[B, D]`, with the mean and the scale `[D]` that made it."""
        settings = self.training, self.module.momentum, self.module.eps
        _aten.native_batch_norm.out(
            raw,
            None,
            None,
            *self.statistics,
            *settings,
            out=into,
            save_mean=mean,
            save_invstd=scale,
        )

    def backward(self, gradient: Tensor, raw: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """The gradient before, given that after, `[B, D]`."""
        settings = self.training, self.module.eps, [True, False, False]
        through: Tensor = _aten.native_batch_norm_backward(
            gradient, raw, None, *self.statistics, mean, scale, *settings
        )[0]
        return through

    def count(self, states: int) -> None:
        """Count what the running statistics have seen."""
        if self.training and self.module.num_batches_tracked is not None:
            self.module.num_batches_tracked += states


class MixedNode:
    """The mixed operations into one node.

    With share p_k of primitive k, their total P, gate c and source s, an edge is
    `sum_k p_k (s + c (f_k - s)) = P s + c (sum_k p_k f_k - P s)`.
    """

    def __init__(self, rows: Tensor, columns: Mapping[str, int], weight: Tensor) -> None:
        self.weight = weight
        self.shares = {name: rows[:, column, None, None] for name, column in columns.items()}
        self.total = rows[:, list(columns.values())].sum(dim=1)
        self.minus_total = -self.total[:, None, None]
        self.weight_gradient: Tensor | None = None
        """Of the words gone back over, once it is asked for."""
        self.shares_gradient = rows.new_zeros(len(rows), 1 + len(columns))
        """Of `P s`, and of each `p_k f_k`."""

    def forward(self, inputs: Tensor, sources: Tensor, products: Tensor, into: Tensor) -> None:
        """The sum of all edges.

        Args:
            inputs: Sources under their dropout mask, `[E, B, D]`.
            sources: Without it.
            products: Where gates and arguments go, `[E, B, 2 D]`.
            into: Where the sum goes, `[B, D]`.
        """
        torch.mm(inputs.flatten(0, 1), self.weight, out=products.flatten(0, 1))
        gate, candidate = products.chunk(2, dim=-1)
        mixed = self._mix(self._values(candidate), sources)
        torch.sum(mixed.mul_(gate.sigmoid_()), dim=0, out=into)
        into.view(1, -1).addmm_(self.total[None], sources.flatten(1))

    def _values(self, candidate: Tensor) -> list[Tensor]:
        """All f_k, `[E, B, D]` each."""
        return [ACTIVATIONS[name](candidate) for name in self.shares]

    def _mix(self, values: Sequence[Tensor], sources: Tensor) -> Tensor:
        """What the gates let through, `sum_k p_k f_k - P s`, `[E, B, D]`."""
        mixed = self.minus_total * sources
        for share, value in zip(self.shares.values(), values, strict=True):
            mixed.addcmul_(share, value)
        return mixed

    def _slope(self, candidate: Tensor, values: Sequence[Tensor]) -> Tensor:
        """The derivative of `sum_k p_k f_k` by its argument, `[E, B, D]`."""
        slope = torch.zeros_like(values[0])
        for (name, share), value in zip(self.shares.items(), values, strict=True):
            slope.addcmul_(share, SLOPES[name](candidate, value))
        return slope

    def prepare(self, sources: Tensor, products: Tensor) -> None:
        """For the way back over W words, all that does not wait for a gradient.

        Args:
            sources: `[W, E, B, D]`.
            products: Gates, and what activations are given, `[W, E, B, 2 D]`.
        """
        gate, candidate = products.chunk(2, dim=-1)
        self.values = self._values(candidate)
        self.gradients: list[Tensor] = []
        """The node's, `[B, D]`, from the last of the words on."""
        self.products_slope = torch.empty_like(products)
        """Derivatives of the sum of all edges by their products; gradients after `step_back`."""
        gate_slope, candidate_slope = self.products_slope.chunk(2, dim=-1)
        mixed = self._mix(self.values, sources)
        _aten.sigmoid_backward.grad_input(mixed, gate, grad_input=gate_slope)
        torch.mul(self._slope(candidate, self.values), gate, out=candidate_slope)
        total = self.total[:, None, None]
        self.sources_slope = torch.addcmul(total, total, gate, value=-1)
        """Its derivatives by the sources, without the way through the products."""

    def step_back(self, gradient: Tensor, place: int, mask: Tensor | None, *, into: Tensor) -> None:
        """Add to the gradients of the sources, `[E, B, D]`, those from the node's, `[B, D]`."""
        self.gradients.append(gradient)
        products = self.products_slope[place]
        products.unflatten(-1, (2, -1)).mul_(gradient[:, None])
        into.addcmul_(self.sources_slope[place], gradient)
        through = (products.flatten(0, 1) @ self.weight.t()).view_as(into)
        if mask is None:
            into.add_(through)
        else:
            into.addcmul_(through, mask)

    def add_weight_gradient(self, inputs: Tensor) -> None:
        """That of the words stepped through, given masked sources, `[W, E, B, D]`."""
        if self.weight_gradient is None:
            self.weight_gradient = torch.zeros_like(self.weight)
        self.weight_gradient.addmm_(inputs.flatten(0, 2).t(), self.products_slope.flatten(0, 2))

    def add_shares_gradient(self, sources: Tensor, products: Tensor) -> None:
        """That of the words stepped through; arguments as in `prepare`."""
        gate, _ = products.chunk(2, dim=-1)
        gradient = torch.stack(self.gradients[::-1])[:, None]
        let_through = gate * gradient
        terms = [(gradient - let_through) * sources]
        terms += [let_through * value for value in self.values]
        self.shares_gradient += torch.stack([term.sum(dim=(0, 2, 3)) for term in terms], dim=1)

    def write_shares_gradient(self, into: Tensor, columns: Mapping[str, int]) -> None:
        """To `[E, O]`: each share has a part of its own and is part of the total."""
        into[:, list(columns.values())] = self.shares_gradient[:, 1:] + self.shares_gradient[:, :1]
