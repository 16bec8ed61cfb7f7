"""A node of the searched cell and the BatchNorm after it, with hand-written backward passes.

The plain formula of both is in `plain_segment` of `segment.py`, the oracle of the tests; the loop
over words and nodes that runs these is there, too.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from darts_cli.spaces.rnn.primitives import ACTIVATIONS

# Derivatives of the activations at `x`, given `y = f(x)` too, by which most are cheaper.
DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    # 1 - y^2 in one call.
    "tanh": lambda _, y: torch.addcmul(y.new_ones(()), y, y, value=-1),
    # Converting the booleans of `x > 0` to numbers takes five times as long.
    "relu": lambda _, y: y.sign(),
    # y - y^2 in one call.
    "sigmoid": lambda _, y: torch.addcmul(y, y, y, value=-1),
    "identity": lambda x, _: x.new_ones(()),
}


# Operators that write into given tensors, which have no public function in Python.
_aten = torch.ops.aten


class StateNorm:
    """BatchNorm of one state, forward and backward; its operators, without a module's wrapping.

    The formulas are those of Ioffe and Szegedy (2015), over the B segments of a batch.
    """

    def __init__(self, module: nn.BatchNorm1d) -> None:
        self.module = module
        self.statistics = module.running_mean, module.running_var
        self.training = module.training

    def forward(self, x: Tensor, out: Tensor, mean: Tensor, inv_std: Tensor) -> None:
        """Normalize `x`, and update the running statistics in training.

        Args:
            x: State, `[B, D]`.
            out: Tensor that is filled with the normalized state, `[B, D]`.
            mean: Tensor that is filled with the batch's mean, `[D]`.
            inv_std: Tensor that is filled with one over the standard deviation, `[D]`.
        """
        settings = self.training, self.module.momentum, self.module.eps
        _aten.native_batch_norm.out(
            x, None, None, *self.statistics, *settings, out=out, save_mean=mean, save_invstd=inv_std
        )

    def backward(self, grad_output: Tensor, x: Tensor, mean: Tensor, inv_std: Tensor) -> Tensor:
        """Compute the gradient of `x`, given that of the output, `[B, D]` each."""
        settings = self.training, self.module.eps, [True, False, False]
        grad_x: Tensor = _aten.native_batch_norm_backward(
            grad_output, x, None, *self.statistics, mean, inv_std, *settings
        )[0]
        return grad_x

    def count(self, states: int) -> None:
        """Count states for `num_batches_tracked`, as so many calls of the module would."""
        if self.training and self.module.num_batches_tracked is not None:
            self.module.num_batches_tracked += states


class MixedNode:
    """The mixed operations of all edges into one node (equation 2 of DARTS, appendix A.4).

    With mixture weight `p_k` of primitive `k`, their sum `P` (below one, for `none` has a weight
    too), source `s`, gate `c = sigmoid(s V)` and `f_k = f_k(s U)`, an edge is

        y = sum_k p_k (s + c (f_k - s)) = P s + c (sum_k p_k f_k - P s)

    so that one product by the gate serves all primitives. Its gradients, with `q = s V`, `r = s U`
    and `m = sum_k p_k f_k - P s`:

        dq   = dy m c (1 - c)               dr = dy c sum_k p_k f_k'(r)
        ds   = dy P (1 - c) + dq V^T + dr U^T
        dp_k = sum(dy (1 - c) s) + sum(dy c f_k)

    `U` and `V` are the halves of `weight`, and `[q, r]` is called the products. E is the number
    of edges, B the batch, D the width, O the number of candidates.
    """

    def __init__(self, edge_mixture: Tensor, columns: Mapping[str, int], weight: Tensor) -> None:
        # [D, 2 D]: V, which makes gates, and U, which makes candidates, side by side.
        self.weight = weight
        # p_k, [E, 1, 1] each, to be multiplied with [E, B, D].
        self.mixture = {name: edge_mixture[:, k, None, None] for name, k in columns.items()}
        # P, [E].
        self.total = edge_mixture[:, list(columns.values())].sum(dim=1)
        self.minus_total = -self.total[:, None, None]
        self.grad_weight: Tensor | None = None
        """Gradient of `weight` over the words so far, once it has been needed."""
        # The terms of dp_k: of P s in column 0, then of each p_k f_k; [E, 1 + K].
        self.grad_terms = edge_mixture.new_zeros(len(edge_mixture), 1 + len(columns))

    def forward(self, inputs: Tensor, sources: Tensor, products: Tensor, out: Tensor) -> None:
        """Compute the sum of all edges.

        Args:
            inputs: Sources under their dropout mask, `[E, B, D]`.
            sources: Sources without it, `[E, B, D]`.
            products: Tensor that is filled with gates and candidates' arguments, `[E, B, 2 D]`.
            out: Tensor that is filled with the sum, `[B, D]`.
        """
        # One product for all edges: [E * B, D] @ [D, 2 D].
        torch.mm(inputs.flatten(0, 1), self.weight, out=products.flatten(0, 1))
        gate, candidate = products.chunk(2, dim=-1)  # [E, B, D] each
        mixed = self._mix(self._activate(candidate), sources)
        torch.sum(mixed.mul_(gate.sigmoid_()), dim=0, out=out)
        # Sum of P s over the edges: [1, E] @ [E, B * D], added to the output.
        out.view(1, -1).addmm_(self.total[None], sources.flatten(1))

    def _activate(self, candidate: Tensor) -> list[Tensor]:
        """Compute all f_k, of the shape of their argument `[..., E, B, D]`."""
        return [ACTIVATIONS[name](candidate) for name in self.mixture]

    def _mix(self, values: Sequence[Tensor], sources: Tensor) -> Tensor:
        """Compute what the gates multiply, `m = sum_k p_k f_k - P s`, `[..., E, B, D]`."""
        mixed = self.minus_total * sources
        for weight, value in zip(self.mixture.values(), values, strict=True):
            mixed.addcmul_(weight, value)
        return mixed

    def _derivative(self, candidate: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Compute the derivative of `sum_k p_k f_k` by its argument, `[..., E, B, D]`."""
        total = torch.zeros_like(values[0])
        for (name, weight), value in zip(self.mixture.items(), values, strict=True):
            total.addcmul_(weight, DERIVATIVES[name](candidate, value))
        return total

    def prepare_backward(self, sources: Tensor, products: Tensor) -> None:
        """Compute for W words at once all that needs no gradient of the output.

        Args:
            sources: `[W, E, B, D]`.
            products: Gates and candidates' arguments, as by `forward`, `[W, E, B, 2 D]`.
        """
        gate, candidate = products.chunk(2, dim=-1)  # [W, E, B, D] each
        self.values = self._activate(candidate)
        # Gradients of the node, [B, D], from the last of the words on.
        self.grad_outputs: list[Tensor] = []
        # Derivatives of y by its products, m c (1 - c) and c sum_k p_k f_k'; `backward_step` turns
        # them into dq and dr, [W, E, B, 2 D].
        self.grad_products = torch.empty_like(products)
        by_gate, by_candidate = self.grad_products.chunk(2, dim=-1)  # views, [W, E, B, D] each
        mixed = self._mix(self.values, sources)
        _aten.sigmoid_backward.grad_input(mixed, gate, grad_input=by_gate)
        torch.mul(self._derivative(candidate, self.values), gate, out=by_candidate)
        # Derivative of y by its source alone, P - P c, without the way through the products.
        total = self.total[:, None, None]
        self.by_source = torch.addcmul(total, total, gate, value=-1)

    def backward_step(
        self, grad_output: Tensor, index: int, mask: Tensor | None, grad_sources: Tensor
    ) -> None:
        """Add this node's part to the gradients of its sources.

        Args:
            grad_output: Gradient of the node before BatchNorm, `[B, D]`.
            index: Index of the word among those prepared.
            mask: Dropout mask of the sources, `[B, D]`; None: no dropout.
            grad_sources: Gradients that are added to, `[E, B, D]`.
        """
        self.grad_outputs.append(grad_output)
        grad_products = self.grad_products[index]
        # [E, B, 2 D] to [E, B, 2, D], times [B, 1, D]: dq and dr.
        grad_products.unflatten(-1, (2, -1)).mul_(grad_output[:, None])
        grad_sources.addcmul_(self.by_source[index], grad_output)
        # dq V^T + dr U^T is one product: [E * B, 2 D] @ [2 D, D], viewed as [E, B, D].
        grad_inputs = (grad_products.flatten(0, 1) @ self.weight.t()).view_as(grad_sources)
        if mask is None:
            grad_sources.add_(grad_inputs)
        else:
            grad_sources.addcmul_(grad_inputs, mask)

    def add_weight_grad(self, inputs: Tensor) -> None:
        """Add the weight's gradient over the prepared words, given masked `[W, E, B, D]`."""
        if self.grad_weight is None:
            self.grad_weight = torch.zeros_like(self.weight)
        # [D, W * E * B] @ [W * E * B, 2 D]
        self.grad_weight.addmm_(inputs.flatten(0, 2).t(), self.grad_products.flatten(0, 2))

    def add_mixture_grad(self, sources: Tensor, products: Tensor) -> None:
        """Add the terms of dp_k over the prepared words; arguments as in `prepare_backward`."""
        gate, _ = products.chunk(2, dim=-1)
        # [W, B, D] in the order of the words, then [W, 1, B, D]
        grad_output = torch.stack(self.grad_outputs[::-1])[:, None]
        gated = gate * grad_output
        terms = [(grad_output - gated) * sources]
        terms += [gated * value for value in self.values]
        # [W, E, B, D] to [E] each
        self.grad_terms += torch.stack([term.sum(dim=(0, 2, 3)) for term in terms], dim=1)

    def write_mixture_grad(self, out: Tensor, columns: Mapping[str, int]) -> None:
        """Write the gradient of the mixture into `out` `[E, O]`, all but the column of `none`."""
        # p_k weighs its own f_k and is part of P.
        out[:, list(columns.values())] = self.grad_terms[:, 1:] + self.grad_terms[:, :1]
