"""The searched cell over a whole segment, as one function with a gradient of its own.

Autograd would note every small operation of every node at every word, and keep
what it makes. Here the loop over words and nodes is written out for both
directions: edges into a node are one product, what is cheap is
computed a second time instead of kept, and a pass computes only the gradients
that it is asked for.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.runtime.autograd import differentiable_grads
from darts_cli.space import NO_OPERATION, SearchSpace
from darts_cli.spaces.rnn.kernels.mixed_node import MixedNode, StateNorm
from darts_cli.spaces.rnn.operations import ACTIVATIONS

_aten = torch.ops.aten

_CHUNK = 2**20
"""Products of all edges that the way back prepares at once: small operations cost their call."""


def masked(states: Tensor, mask: Tensor | None) -> Tensor:
    """The states under a dropout mask, if there is one."""
    return states if mask is None else states * mask


@dataclass(frozen=True, slots=True)
class CellLayout:
    """What stays the same from segment to segment."""

    space: SearchSpace
    norm: nn.BatchNorm1d
    """The one that follows every state."""

    @property
    def columns(self) -> dict[str, int]:
        """The column of each primitive that computes something."""
        names = enumerate(self.space.primitives)
        return {name: column for column, name in names if name != NO_OPERATION}

    @property
    def edges(self) -> list[slice]:
        """The rows of alphas that belong to each node."""
        ends = [0]
        for node in range(self.space.nodes):
            ends.append(ends[-1] + node + self.space.inputs)
        return [slice(start, end) for start, end in itertools.pairwise(ends)]

    def normalize(self, state: Tensor) -> Tensor:
        """BatchNorm that leaves its running statistics alone."""
        norm = self.norm
        if norm.training:
            return F.batch_norm(state, None, None, training=True, eps=norm.eps)
        return F.batch_norm(state, norm.running_mean, norm.running_var, eps=norm.eps)


def plain_segment(
    layout: CellLayout,
    projected: Tensor,
    hidden: Tensor,
    mask: Tensor | None,
    rows: Tensor,
    recurrent: Tensor,
    *weights: Tensor,
) -> Tensor:
    """The same as `SearchSegment`, straight from the formula; the oracle of its tests.

    Differentiable as often as one likes, which the exact hypergradient needs.
    """
    outputs = []
    for word in projected:
        gate, candidate = (word + masked(hidden, mask) @ recurrent).chunk(2, dim=-1)
        states = [layout.normalize(torch.lerp(hidden, candidate.tanh(), gate.sigmoid()))]
        for weight, edges in zip(weights, layout.edges, strict=True):
            before = torch.stack(states)
            gate, candidate = (masked(before, mask) @ weight).chunk(2, dim=-1)
            steps = [
                rows[edges, column, None, None]
                * torch.lerp(before, ACTIVATIONS[name](candidate), gate.sigmoid())
                for name, column in layout.columns.items()
            ]
            states.append(layout.normalize(torch.stack(steps).sum(dim=(0, 1))))
        hidden = torch.stack(states[1:]).mean(dim=0)
        outputs.append(hidden)
    return torch.stack(outputs)


class SearchSegment(torch.autograd.Function):
    """The states after each word, `[T, B, D]`; arguments as `plain_segment` has them.

    In training BatchNorm's running statistics are moved on, as by a module.
    """

    @staticmethod
    def forward(
        ctx: Any,
        layout: CellLayout,
        projected: Tensor,
        hidden: Tensor,
        mask: Tensor | None,
        rows: Tensor,
        recurrent: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        """Walk over the words, and keep what the way back needs."""
        walk = _Walk(layout, hidden, mask, rows, recurrent, weights)
        trace = _Trace.empty(projected, hidden, len(weights))
        walk.forward(projected, trace)
        ctx.layout = layout
        ctx.inputs = 5 + len(weights)
        ctx.save_for_backward(projected, hidden, mask, rows, recurrent, *weights, *trace.tensors())
        return trace.outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients that are asked for."""
        inputs, kept = ctx.saved_tensors[: ctx.inputs], ctx.saved_tensors[ctx.inputs :]
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            # The gradient itself is to be differentiated: that of the plain segment can be.
            states = plain_segment(ctx.layout, *inputs)
            return None, *differentiable_grads(states, inputs, gradient, needed)
        _, hidden, mask, rows, recurrent, *weights = inputs
        walk = _Walk(ctx.layout, hidden, mask, rows, recurrent, weights)
        projected, before = walk.backward(
            gradient, _Trace.of(kept), shares=needed[3], weights=any(needed[4:])
        )
        return (
            None,
            projected,
            before,
            None,
            walk.rows_gradient(rows) if needed[3] else None,
            walk.recurrent_gradient(projected, kept[0]) if needed[4] else None,
            *(node.weight_gradient for node in walk.nodes),
        )


@dataclass(frozen=True, slots=True)
class _Trace:
    """What the walk makes at every word, each in one tensor over all words."""

    outputs: Tensor
    """The cell's output, `[T, B, D]`."""
    first: Tensor
    """Gate and candidate of the initial state, `[T, B, 2 D]`."""
    raw: Tensor
    """All states before BatchNorm, `[T, 1 + N, B, D]`."""
    states: Tensor
    """And after it."""
    means: Tensor
    """BatchNorm's, `[T, 1 + N, D]`."""
    scales: Tensor
    """One over its standard deviations."""
    edges: tuple[Tensor, ...]
    """Of each node with E edges: gates, and what activations are given, `[T, E, B, 2 D]`."""

    @classmethod
    def empty(cls, like: Tensor, hidden: Tensor, nodes: int) -> Self:
        """Room for a walk over the words of `like`."""
        (words, batch, _), width = like.shape, hidden.shape[1]
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
        """All of them, as autograd keeps them."""
        return (
            self.outputs,
            self.first,
            self.raw,
            self.states,
            self.means,
            self.scales,
            *self.edges,
        )

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Self:
        """The inverse of `tensors`."""
        outputs, first, raw, states, means, scales, *edges = tensors
        return cls(outputs, first, raw, states, means, scales, tuple(edges))


class _Walk:
    """From word to word through all nodes, and back."""

    def __init__(
        self,
        layout: CellLayout,
        hidden: Tensor,
        mask: Tensor | None,
        rows: Tensor,
        recurrent: Tensor,
        weights: Sequence[Tensor],
    ) -> None:
        self.layout = layout
        self.norm = StateNorm(layout.norm)
        self.hidden = hidden
        self.mask = mask
        self.recurrent = recurrent
        self.nodes = [
            MixedNode(rows[edges], layout.columns, weight)
            for edges, weight in zip(layout.edges, weights, strict=True)
        ]

    def forward(self, projected: Tensor, trace: _Trace) -> None:
        """Fill the trace."""
        hidden = self.hidden
        for time, word in enumerate(projected):
            first = trace.first[time]
            torch.addmm(word, masked(hidden, self.mask), self.recurrent, out=first)
            gate, candidate = first.chunk(2, dim=-1)
            states = trace.states[time]
            # Cut once: at small sizes a view costs as much as a product of it.
            state, raw, mean, scale = (
                part.unbind()
                for part in (states, trace.raw[time], trace.means[time], trace.scales[time])
            )
            inputs = states if self.mask is None else torch.empty_like(states)
            input_ = inputs.unbind()
            torch.lerp(hidden, candidate.tanh_(), gate.sigmoid_(), out=raw[0])
            self.norm.forward(raw[0], state[0], mean[0], scale[0])
            for number, node in enumerate(self.nodes):
                if self.mask is not None:
                    torch.mul(state[number], self.mask, out=input_[number])
                node.forward(
                    inputs[: number + 1],
                    states[: number + 1],
                    trace.edges[number][time],
                    raw[number + 1],
                )
                after = number + 1
                self.norm.forward(raw[after], state[after], mean[after], scale[after])
            hidden = torch.mean(states[1:], dim=0, out=trace.outputs[time])
        self.norm.count(len(projected) * (1 + len(self.nodes)))

    def backward(
        self, gradient: Tensor, trace: _Trace, *, shares: bool, weights: bool
    ) -> tuple[Tensor, Tensor]:
        """The gradients of the words' products, `[T, B, 2 D]`, and of the state before them.

        Those of shares and weights gather in the nodes, where they are asked for.
        """
        projected = torch.empty_like(trace.first)
        carried = torch.zeros_like(self.hidden)
        length = max(1, _CHUNK // (trace.states[0].numel() * len(self.nodes)))
        for end in range(len(gradient), 0, -length):
            part = slice(max(0, end - length), end)
            states = trace.states[part]
            for number, node in enumerate(self.nodes):
                node.prepare(states[:, : number + 1], trace.edges[number][part])
            for time in reversed(range(part.start, end)):
                carried = self._step_back(
                    gradient[time] + carried, trace, time, time - part.start, projected[time]
                )
            if weights:
                inputs = masked(states, self.mask)
                for number, node in enumerate(self.nodes):
                    node.add_weight_gradient(inputs[:, : number + 1])
            if shares:
                for number, node in enumerate(self.nodes):
                    node.add_shares_gradient(states[:, : number + 1], trace.edges[number][part])
        return projected, carried

    def _step_back(
        self, gradient: Tensor, trace: _Trace, time: int, place: int, projected: Tensor
    ) -> Tensor:
        """The gradient of the state before a word, given that of the state after it.

        Args:
            gradient: The latter, `[B, D]`.
            trace: Of the walk.
            time: The word's place in the segment.
            place: Its place in what the nodes have prepared.
            projected: Where the gradient of its product goes, `[B, 2 D]`.
        """
        raw, mean, scale = (part[time].unbind() for part in (trace.raw, trace.means, trace.scales))
        # The output is the mean of all nodes; the initial state reaches it through them.
        gradients = (gradient / len(self.nodes)).repeat(1 + len(self.nodes), 1, 1)
        gradients[0] = 0
        of_state = gradients.unbind()
        for number in reversed(range(len(self.nodes))):
            after = number + 1
            through = self.norm.backward(of_state[after], raw[after], mean[after], scale[after])
            self.nodes[number].step_back(through, place, self.mask, into=gradients[:after])
        through = self.norm.backward(of_state[0], raw[0], mean[0], scale[0])
        previous = trace.outputs[time - 1] if time else self.hidden
        return self._through_first(through, previous, trace.first[time], projected)

    def _through_first(
        self, gradient: Tensor, previous: Tensor, first: Tensor, into: Tensor
    ) -> Tensor:
        """The gradient of the state before, given that of the initial state of the cell."""
        gate, candidate = first.chunk(2, dim=-1)
        gate_gradient, candidate_gradient = into.chunk(2, dim=-1)
        let_through = gradient * gate
        _aten.sigmoid_backward.grad_input(
            (candidate - previous) * gradient, gate, grad_input=gate_gradient
        )
        _aten.tanh_backward.grad_input(let_through, candidate, grad_input=candidate_gradient)
        return (gradient - let_through) + masked(into @ self.recurrent.t(), self.mask)

    def recurrent_gradient(self, projected: Tensor, outputs: Tensor) -> Tensor:
        """Of the weight that all words share, in one product over all of them."""
        before = masked(torch.cat([self.hidden[None], outputs[:-1]]), self.mask)
        return before.flatten(0, 1).t() @ projected.flatten(0, 1)

    def rows_gradient(self, rows: Tensor) -> Tensor:
        """Of the shares of all edges; that of `none` is zero."""
        gradient = torch.zeros_like(rows)
        for node, edges in zip(self.nodes, self.layout.edges, strict=True):
            node.write_shares_gradient(gradient[edges], self.layout.columns)
        return gradient
