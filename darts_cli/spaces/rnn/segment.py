"""The searched cell over a whole segment, as one function with a gradient of its own.

Autograd would note some thirty operations for each of the 36 edges at every
word, and keep what they make. Here the loop over words and nodes is written out
for both directions: edges into a node are one product, what is cheap is
computed a second time instead of kept, and a pass computes only the gradients
that it is asked for.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.space import NO_OPERATION, SearchSpace
from darts_cli.spaces.rnn.operations import ACTIVATIONS, SLOPES

_aten = torch.ops.aten

_CHUNK = 2**20
"""Numbers of all edges that the way back prepares at once: small operations cost their call."""


def masked(states: Tensor, mask: Tensor | None) -> Tensor:
    """The states under a dropout mask, if there is one."""
    return states if mask is None else states * mask


@dataclass(frozen=True, slots=True)
class Supernet:
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
    supernet: Supernet,
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
        states = [supernet.normalize(torch.lerp(hidden, candidate.tanh(), gate.sigmoid()))]
        for weight, edges in zip(weights, supernet.edges, strict=True):
            before = torch.stack(states)
            gate, candidate = (masked(before, mask) @ weight).chunk(2, dim=-1)
            steps = [
                rows[edges, column, None, None]
                * torch.lerp(before, ACTIVATIONS[name](candidate), gate.sigmoid())
                for name, column in supernet.columns.items()
            ]
            states.append(supernet.normalize(torch.stack(steps).sum(dim=(0, 1))))
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
        supernet: Supernet,
        projected: Tensor,
        hidden: Tensor,
        mask: Tensor | None,
        rows: Tensor,
        recurrent: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        """Walk over the words, and keep what the way back needs."""
        walk = _Walk(supernet, hidden, mask, rows, recurrent, weights)
        trace = _Trace.empty(projected, hidden, len(weights))
        walk.forward(projected, trace)
        ctx.supernet = supernet
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
            states = plain_segment(ctx.supernet, *inputs)
            wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
            found = iter(torch.autograd.grad(states, wanted, gradient, create_graph=True))
            return None, *(next(found) if need else None for need in needed)
        _, hidden, mask, rows, recurrent, *weights = inputs
        walk = _Walk(ctx.supernet, hidden, mask, rows, recurrent, weights)
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
        supernet: Supernet,
        hidden: Tensor,
        mask: Tensor | None,
        rows: Tensor,
        recurrent: Tensor,
        weights: Sequence[Tensor],
    ) -> None:
        self.supernet = supernet
        self.norm = _Norm(supernet.norm)
        self.hidden = hidden
        self.mask = mask
        self.recurrent = recurrent
        self.nodes = [
            _Node(rows[edges], supernet.columns, weight)
            for edges, weight in zip(supernet.edges, weights, strict=True)
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
        for node, edges in zip(self.nodes, self.supernet.edges, strict=True):
            node.write_shares_gradient(gradient[edges], self.supernet.columns)
        return gradient


class _Norm:
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


class _Node:
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
