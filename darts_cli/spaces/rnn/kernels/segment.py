"""The searched cell over a whole segment, with a hand-written backward pass through time.

`plain_segment` is the plain formula, and the oracle of the tests. Autograd would record every
small operation of every node at every word, and save its results. `SearchSegment` writes out the
loop over words and nodes in both directions: edges into a node are one product, cheap results are
recomputed instead of saved, and a pass computes only the gradients that it needs. The formulas of
a node are in `mixed_node.py`; those of a cell's initial state `s`, from state `h` and word `x`, are

    [q, r] = x W_x + h W_h,  c = sigmoid(q),  f = tanh(r),  s = h + c (f - h)
    dq = ds (f - h) c (1 - c),  dr = ds c (1 - f^2),  dh = ds (1 - c) + [dq, dr] W_h^T

T is the number of words, B the batch, D the width, N the number of nodes.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.runtime.autograd import differentiable_grads
from darts_cli.space import NO_OPERATION, SearchSpace
from darts_cli.spaces.rnn.kernels.mixed_node import DERIVATIVES, MixedNode, StateNorm
from darts_cli.spaces.rnn.primitives import ACTIVATIONS

# Operators that write into given tensors, which have no public function in Python.
_aten = torch.ops.aten

# Elements of all edges that the backward pass prepares at once: over one word alone, small
# operations cost their call.
_CHUNK = 2**20


def masked(states: Tensor, mask: Tensor | None) -> Tensor:
    """Apply a dropout mask to the states, if there is one."""
    return states if mask is None else states * mask


@dataclass(frozen=True, slots=True)
class CellLayout:
    """Settings that stay the same from segment to segment."""

    space: SearchSpace
    norm: nn.BatchNorm1d
    """BatchNorm that follows every state."""

    @property
    def columns(self) -> dict[str, int]:
        """Columns of the mixture whose primitives compute something."""
        names = enumerate(self.space.primitives)
        return {name: column for column, name in names if name != NO_OPERATION}

    @property
    def has_derivatives(self) -> bool:
        """Whether `SearchSegment` knows the derivative of every candidate."""
        return self.columns.keys() <= DERIVATIVES.keys()

    @property
    def edges(self) -> list[slice]:
        """Rows of the mixture for each node."""
        # Node n reads the inputs and the n nodes before it.
        ends = [0]
        for node in range(self.space.nodes):
            ends.append(ends[-1] + node + self.space.inputs)
        return [slice(start, end) for start, end in itertools.pairwise(ends)]

    def normalize(self, state: Tensor) -> Tensor:
        """Compute BatchNorm of `[B, D]` without updating its running statistics."""
        norm = self.norm
        if norm.training:
            return F.batch_norm(state, None, None, training=True, eps=norm.eps)
        return F.batch_norm(state, norm.running_mean, norm.running_var, eps=norm.eps)


def plain_segment(
    layout: CellLayout,
    projected: Tensor,
    hidden: Tensor,
    mask: Tensor | None,
    mixture: Tensor,
    recurrent: Tensor,
    *weights: Tensor,
    track: bool = False,
) -> Tensor:
    """Compute `SearchSegment` by the plain formula, the oracle of its tests.

    It can be differentiated any number of times, which the exact hypergradient needs, and any
    function may be a candidate.

    Args:
        layout: Search space and BatchNorm.
        projected: Words' part of the first product, `x W_x`, `[T, B, 2 D]`.
        hidden: State before the first word, `[B, D]`.
        mask: Dropout mask of all states, `[B, D]`; None: no dropout.
        mixture: Weights of the candidates, `[E, O]`.
        recurrent: `W_h`, `[D, 2 D]`.
        weights: Weights of each node, `[D, 2 D]`.
        track: Whether BatchNorm's running statistics are updated in training.

    Returns:
        States after each word, `[T, B, D]`.
    """
    normalize = layout.norm if track else layout.normalize
    outputs = []
    for word in projected:
        # [B, 2 D] to [B, D] each
        gate, candidate = (word + masked(hidden, mask) @ recurrent).chunk(2, dim=-1)
        states = [normalize(torch.lerp(hidden, candidate.tanh(), gate.sigmoid()))]
        for weight, edges in zip(weights, layout.edges, strict=True):
            sources = torch.stack(states)  # [E, B, D], E edges into this node
            # [E, B, 2 D] to [E, B, D] each
            gate, candidate = (masked(sources, mask) @ weight).chunk(2, dim=-1)
            # Equation 2: each candidate by its weight, [E, 1, 1].
            terms = [
                mixture[edges, column, None, None]
                * torch.lerp(sources, ACTIVATIONS[name](candidate), gate.sigmoid())
                for name, column in layout.columns.items()
            ]
            # [K, E, B, D], summed over candidates and edges
            states.append(normalize(torch.stack(terms).sum(dim=(0, 1))))
        hidden = torch.stack(states[1:]).mean(dim=0)
        outputs.append(hidden)
    return torch.stack(outputs)


class SearchSegment(torch.autograd.Function):
    """States after each word, `[T, B, D]`; arguments as in `plain_segment`.

    In training BatchNorm's running statistics are updated, as by a module.
    """

    @staticmethod
    def forward(
        ctx: Any,
        layout: CellLayout,
        projected: Tensor,
        hidden: Tensor,
        mask: Tensor | None,
        mixture: Tensor,
        recurrent: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        """Walk over the words, and save what the backward pass needs."""
        walk = _Walk(layout, hidden, mask, mixture, recurrent, weights)
        trace = _Trace.empty(projected, hidden, len(weights))
        walk.forward(projected, trace)
        ctx.layout = layout
        inputs = projected, hidden, mask, mixture, recurrent, *weights
        ctx.inputs = len(inputs)
        ctx.save_for_backward(*inputs, *trace.tensors())
        return trace.outputs

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients that are needed."""
        inputs, saved = ctx.saved_tensors[: ctx.inputs], ctx.saved_tensors[ctx.inputs :]
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            # Double backward: this gradient will be differentiated itself, as that of the plain
            # formula can be.
            states = plain_segment(ctx.layout, *inputs)
            return None, *differentiable_grads(states, inputs, grad_output, needed)
        _, hidden, mask, mixture, recurrent, *weights = inputs
        walk = _Walk(ctx.layout, hidden, mask, mixture, recurrent, weights)
        trace = _Trace.from_tensors(saved)
        node_grads = needed[3], any(needed[4:])
        grad_projected, grad_hidden = walk.backward(grad_output, trace, needed=node_grads)
        # As the arguments of `forward`; layout and mask have no gradient.
        return (
            None,
            grad_projected,
            grad_hidden,
            None,
            walk.mixture_grad(mixture) if needed[3] else None,
            walk.recurrent_grad(grad_projected, trace.outputs) if needed[4] else None,
            *(node.grad_weight for node in walk.nodes),
        )


class _Trace(NamedTuple):
    """Results of the walk at every word, each in one tensor over all words."""

    outputs: Tensor
    """Output of the cell, `[T, B, D]`."""
    first: Tensor
    """Gate and candidate of the initial state, `[T, B, 2 D]`."""
    pre_norm: Tensor
    """All states before BatchNorm, the initial one first, `[T, 1 + N, B, D]`."""
    states: Tensor
    """All states after BatchNorm, `[T, 1 + N, B, D]`."""
    means: Tensor
    """Means of BatchNorm, `[T, 1 + N, D]`."""
    inv_stds: Tensor
    """One over the standard deviations of BatchNorm, `[T, 1 + N, D]`."""
    products: tuple[Tensor, ...]
    """Gates and candidates' arguments of each node with E edges, `[T, E, B, 2 D]`."""

    @classmethod
    def empty(cls, like: Tensor, hidden: Tensor, nodes: int) -> Self:
        """Allocate the tensors for a walk over the words of `like`, `[T, B, 2 D]`."""
        (words, batch, _), width = like.shape, hidden.shape[1]
        # One allocation for each kind of result; the walk fills views of them.
        states = (words, 1 + nodes, batch, width)
        return cls(
            like.new_empty(words, batch, width),
            like.new_empty(words, batch, 2 * width),
            like.new_empty(states),
            like.new_empty(states),
            like.new_empty(words, 1 + nodes, width),
            like.new_empty(words, 1 + nodes, width),
            tuple(like.new_empty(words, 1 + node, batch, 2 * width) for node in range(nodes)),
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors in a row, to be saved for the backward pass."""
        return *self[:6], *self.products

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor]) -> Self:
        """Invert `tensors`."""
        outputs, first, pre_norm, states, means, inv_stds, *products = tensors
        return cls(outputs, first, pre_norm, states, means, inv_stds, tuple(products))


class _Walk:
    """The walk from word to word through all nodes, forward and backward."""

    def __init__(
        self,
        layout: CellLayout,
        hidden: Tensor,
        mask: Tensor | None,
        mixture: Tensor,
        recurrent: Tensor,
        weights: Sequence[Tensor],
    ) -> None:
        self.layout = layout
        self.norm = StateNorm(layout.norm)
        self.hidden = hidden
        self.mask = mask
        self.recurrent = recurrent
        self.nodes = [
            MixedNode(mixture[edges], layout.columns, weight)
            for edges, weight in zip(layout.edges, weights, strict=True)
        ]

    def forward(self, projected: Tensor, trace: _Trace) -> None:
        """Fill the trace, given the words' part of the first product, `[T, B, 2 D]`."""
        hidden = self.hidden
        for time, word in enumerate(projected):
            first = trace.first[time]  # [B, 2 D]
            torch.addmm(word, masked(hidden, self.mask), self.recurrent, out=first)
            gate, candidate = first.chunk(2, dim=-1)  # views, [B, D] each
            states = trace.states[time]
            # Views of each state, [B, D] or [D], made once: at small sizes a view costs as much as
            # a product of it.
            state, pre_norm, mean, inv_std = (
                part.unbind()
                for part in (states, trace.pre_norm[time], trace.means[time], trace.inv_stds[time])
            )
            # All states under their mask, [1 + N, B, D], and its views.
            inputs = states if self.mask is None else torch.empty_like(states)
            input_ = inputs.unbind()
            # In place: the trace keeps gate and candidate after their functions.
            torch.lerp(hidden, candidate.tanh_(), gate.sigmoid_(), out=pre_norm[0])
            self.norm.forward(pre_norm[0], state[0], mean[0], inv_std[0])
            for number, node in enumerate(self.nodes):
                if self.mask is not None:
                    torch.mul(state[number], self.mask, out=input_[number])
                after = number + 1
                # A node reads all states before it.
                node.forward(
                    inputs[:after], states[:after], trace.products[number][time], pre_norm[after]
                )
                self.norm.forward(pre_norm[after], state[after], mean[after], inv_std[after])
            hidden = torch.mean(states[1:], dim=0, out=trace.outputs[time])
        self.norm.count(len(projected) * (1 + len(self.nodes)))

    def backward(
        self, grad_output: Tensor, trace: _Trace, *, needed: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        """Compute gradients from the last word to the first.

        Those of the mixture and of the nodes' weights add up in the nodes, where they are needed.

        Args:
            grad_output: Gradient of the states after each word, `[T, B, D]`.
            trace: Results of the forward pass.
            needed: Whether the gradients of the mixture and of weights are needed.

        Returns:
            Gradients of the words' products, `[T, B, 2 D]`, and of the state before the first
            word, `[B, D]`.
        """
        needs_mixture_grad, needs_weight_grads = needed
        grad_projected = torch.empty_like(trace.first)
        grad_hidden = torch.zeros_like(self.hidden)
        # W, the words that the nodes prepare at once.
        length = max(1, _CHUNK // (trace.states[0].numel() * len(self.nodes)))
        for end in range(len(grad_output), 0, -length):
            part = slice(max(0, end - length), end)
            states = trace.states[part]  # [W, 1 + N, B, D]
            for number, node in enumerate(self.nodes):
                node.prepare_backward(states[:, : number + 1], trace.products[number][part])
            for time in reversed(range(part.start, end)):
                # A state is the output at its word, and the input of the next one.
                total = grad_output[time] + grad_hidden
                grad_hidden = self._backward_step(
                    total, trace, time, time - part.start, grad_projected[time]
                )
            if needs_weight_grads:
                inputs = masked(states, self.mask)
                for number, node in enumerate(self.nodes):
                    node.add_weight_grad(inputs[:, : number + 1])
            if needs_mixture_grad:
                for number, node in enumerate(self.nodes):
                    node.add_mixture_grad(states[:, : number + 1], trace.products[number][part])
        return grad_projected, grad_hidden

    def _backward_step(
        self, grad_output: Tensor, trace: _Trace, time: int, index: int, grad_projected: Tensor
    ) -> Tensor:
        """Compute the gradient of the state before a word, given that of the state after it.

        Args:
            grad_output: Gradient of the state after the word, `[B, D]`.
            trace: Results of the forward pass.
            time: Index of the word in the segment.
            index: Index of the word among those that the nodes have prepared.
            grad_projected: Tensor that is filled with the gradient of its product, `[B, 2 D]`.

        Returns:
            `[B, D]`.
        """
        pre_norm, mean, inv_std = (
            part[time].unbind() for part in (trace.pre_norm, trace.means, trace.inv_stds)
        )
        # The output is the mean of all nodes; the initial state reaches it through them.
        # [B, D] to [1 + N, B, D]
        grad_states = (grad_output / len(self.nodes)).repeat(1 + len(self.nodes), 1, 1)
        grad_states[0] = 0
        grad_state = grad_states.unbind()
        # A node's gradient is complete once the nodes after it have added theirs.
        for n in reversed(range(1, 1 + len(self.nodes))):
            grad_node = self.norm.backward(grad_state[n], pre_norm[n], mean[n], inv_std[n])
            self.nodes[n - 1].backward_step(grad_node, index, self.mask, grad_states[:n])
        grad_first = self.norm.backward(grad_state[0], pre_norm[0], mean[0], inv_std[0])
        previous = trace.outputs[time - 1] if time else self.hidden
        return self._first_backward(grad_first, previous, trace.first[time], grad_projected)

    def _first_backward(
        self, grad_output: Tensor, previous: Tensor, first: Tensor, grad_projected: Tensor
    ) -> Tensor:
        """Compute the gradient `dh` of the state before, by the formula of the initial state.

        Args:
            grad_output: Gradient `ds` of the initial state before BatchNorm, `[B, D]`.
            previous: State `h` before the word, `[B, D]`.
            first: Gate `c` and candidate `f`, `[B, 2 D]`.
            grad_projected: Tensor that is filled with `[dq, dr]`, `[B, 2 D]`.
        """
        gate, candidate = first.chunk(2, dim=-1)  # [B, D] each
        grad_gate, grad_candidate = grad_projected.chunk(2, dim=-1)  # views, [B, D] each
        gated = grad_output * gate
        _aten.sigmoid_backward.grad_input(
            (candidate - previous) * grad_output, gate, grad_input=grad_gate
        )
        _aten.tanh_backward.grad_input(gated, candidate, grad_input=grad_candidate)
        return (grad_output - gated) + masked(grad_projected @ self.recurrent.t(), self.mask)

    def recurrent_grad(self, grad_projected: Tensor, outputs: Tensor) -> Tensor:
        """Compute the gradient of `W_h`, which all words share, in one product over all of them."""
        # The states before each word, [T, B, D].
        before = masked(torch.cat([self.hidden[None], outputs[:-1]]), self.mask)
        # [D, T * B] @ [T * B, 2 D]
        return before.flatten(0, 1).t() @ grad_projected.flatten(0, 1)

    def mixture_grad(self, mixture: Tensor) -> Tensor:
        """Compute the gradient of the mixture, `[E, O]`; in the column of `none` it is zero."""
        gradient = torch.zeros_like(mixture)
        for node, edges in zip(self.nodes, self.layout.edges, strict=True):
            node.write_mixture_grad(gradient[edges], self.layout.columns)
        return gradient
