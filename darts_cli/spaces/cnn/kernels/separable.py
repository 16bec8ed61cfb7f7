"""The separable convolutions of many edges side by side, with a hand-written backward pass.

A stack is one primitive on all edges that leave a state (equation 2 and section 3.1.1 of DARTS).
Its repetitions `r` are a depthwise and a pointwise convolution and BatchNorm, ReLU between them:

    d = depthwise(x_r),  m = pointwise(d),  x_{r+1} = ReLU(BatchNorm(m))
    y = sum over stacks of channel_weights * BatchNorm(m), the last one of each stack

`plain_separables` is this formula, and the oracle of the tests. Autograd would store the input of
every layer: with five tensors as large as the input, a separable convolution alone is a third of
what a search step holds. `_MixedSeparables` stores one map a repetition, or none: `d`, which the
gradient of the pointwise weights needs, or, where the weights need no gradient, as in both passes
of the finite difference (equation 8), `m`. Pointwise products and BatchNorm are cheap enough to be
recomputed.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.runtime.autograd import differentiable_grads
from darts_cli.spaces.cnn.kernels import norms
from darts_cli.spaces.cnn.kernels.depthwise import Phases, convolve, convolve_backward, depthwise

# Operators without a public function in Python.
_aten = torch.ops.aten

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Repetition:
    """Depthwise convolution, pointwise convolution, BatchNorm without affine parameters."""

    stride: int
    dilation: int
    norm: nn.BatchNorm2d


# The repetitions of a stack with their weights: see `Layout.split`.
_Repetitions = Sequence[tuple[Repetition, Tensor, Tensor, Tensor | None]]


@dataclass(frozen=True, slots=True)
class Stack:
    """Repetitions of one primitive, for all edges, with a ReLU between them.

    Each has two weights: a depthwise and a pointwise one.
    """

    repetitions: Sequence[Repetition]


@dataclass(frozen=True, slots=True)
class Layout:
    """Settings that stay the same from batch to batch."""

    copies: int
    """Number of edges side by side along the channels."""
    stacks: Sequence[Stack]
    """Stacks whose outputs are summed."""
    store_activations: bool
    """Whether a map for each repetition is stored for the backward pass, or recomputed there."""

    def split(
        self, channel_weights: Sequence[_T], weights: Sequence[_T]
    ) -> Iterator[list[tuple[Repetition, _T, _T, _T | None]]]:
        """Yield the repetitions of each stack with what is given for them.

        These are a depthwise, a pointwise and a channel weight; None for the latter, except in the
        last repetition, whose BatchNorm is scaled by it: no further pass over the map.
        """
        rest = iter(weights)
        for stack, channel_weight in zip(self.stacks, channel_weights, strict=True):
            scales = [*[None] * (len(stack.repetitions) - 1), channel_weight]
            yield [
                (step, next(rest), next(rest), scale)
                for step, scale in zip(stack.repetitions, scales, strict=True)
            ]


def mixed_separables(
    layout: Layout,
    x: Tensor,
    channel_weights: Sequence[Tensor],
    weights: Sequence[Tensor],
    *,
    shared: Tensor,
    addends: Sequence[Tensor] = (),
) -> Tensor:
    """Sum all stacks on the edges that leave a state, each by its mixture weight, and addends.

    Args:
        layout: Arrangement of the weights.
        x: State after the first ReLU, `[B, C, H, W]`.
        channel_weights: For every stack the mixture weight of each edge, repeated for each of its
            channels, `[copies * C]`.
        weights: For every stack, repetition by repetition, the depthwise ones,
            `[copies * C, 1, k, k]`, and the pointwise ones, `[copies * C, C, 1, 1]`.
        shared: Result of `mixed_shared` to be added on each edge, `[copies, B, H', W', C]`.
        addends: Tensors to be added, of the shape of the result.

    Returns:
        `[B, copies * C, ceil(H / stride), ceil(W / stride)]`, channels last.
    """
    if norms.is_fused(x, layout.stacks[0].repetitions[0].norm):
        counts = len(addends), len(channel_weights)
        out: Tensor = _MixedSeparables.apply(
            layout, x, shared, counts, *addends, *channel_weights, *weights
        )
        return out
    total = plain_separables(layout, x, channel_weights, weights, track=True)
    # [copies, B, H', W', C] to [B, copies, C, H', W'] to [B, copies * C, H', W']
    total = total + shared.permute(1, 0, 4, 2, 3).flatten(1, 2)
    return reduce(torch.add, addends, total)


def plain_separables(
    layout: Layout,
    x: Tensor,
    channel_weights: Sequence[Tensor],
    weights: Sequence[Tensor],
    *,
    track: bool,
) -> Tensor:
    """Compute the sum of all stacks by the plain formula, the oracle of the tests.

    It can be differentiated any number of times.

    Args:
        layout: As in `mixed_separables`.
        x: As in `mixed_separables`.
        channel_weights: As in `mixed_separables`.
        weights: As in `mixed_separables`.
        track: Whether running statistics are updated in training.

    Returns:
        `[B, copies * C, ceil(H / stride), ceil(W / stride)]`.
    """
    repeated = _repeat(x, layout.copies)

    def run(repetitions: _Repetitions) -> Tensor:
        out = repeated
        for number, (step, depthwise_weight, pointwise_weight, scale) in enumerate(repetitions):
            out = out.relu() if number else out
            out = depthwise(out, depthwise_weight, step.stride, step.dilation)
            # A group for each edge: they do not mix with one another.
            out = F.conv2d(out, pointwise_weight, groups=layout.copies)
            out = norms.plain_normalize(step.norm, out, scale, track=track)
        return out

    return reduce(torch.add, map(run, layout.split(channel_weights, weights)))


class _MixedSeparables(torch.autograd.Function):
    """Function `mixed_separables` with a gradient of its own."""

    @staticmethod
    def forward(
        ctx: Any, layout: Layout, x: Tensor, shared: Tensor, counts: tuple[int, int], *rest: Tensor
    ) -> Tensor:
        # autograd tells tensors from other arguments at the top level only: all in one list.
        first, second = itertools.accumulate(counts)
        addends, channel_weights, weights = rest[:first], rest[first:second], rest[second:]
        needs_weight_grads = any(ctx.needs_input_grad[-len(weights) :])
        stores_pre_norm = layout.store_activations and not needs_weight_grads
        repeated = _repeat(x, layout.copies)  # [B, copies * C, H, W]
        total: Tensor | None = None
        pre_norm: Tensor | None = None
        saved: list[Tensor] = []
        for repetitions in layout.split(channel_weights, weights):
            out = repeated
            for number, (step, depthwise_weight, pointwise_weight, scale) in enumerate(repetitions):
                if number:
                    # In place: the output of BatchNorm is not needed again.
                    out.relu_()
                out = convolve(out, depthwise_weight, step.stride, step.dilation)
                # Overwritten by every repetition, unless it is stored for the backward pass.
                if pre_norm is None or stores_pre_norm:
                    pre_norm = torch.empty_like(out, memory_format=torch.channels_last)
                pixels = _by_copy(out, layout.copies)  # [copies, B * H' * W', C]
                if layout.store_activations:
                    saved.append(pre_norm if stores_pre_norm else pixels)
                _pointwise(pixels, _kernels(pointwise_weight, layout.copies), out=pre_norm)
                out, *moments = norms.normalize(step.norm, pre_norm, scale)
                saved += moments
            total = out if total is None else total.add_(out)
        if total is None:
            raise ValueError("expected one stack or more")
        # Both are [copies, B, H', W', C]; neither is copied to the layout of the other.
        _by_edge(total, layout.copies).add_(shared)
        for addend in addends:
            total.add_(addend)
        ctx.layout = layout
        ctx.stores_pre_norm = stores_pre_norm
        ctx.counts = len(addends), len(channel_weights), len(weights)
        ctx.save_for_backward(x, *channel_weights, *weights, *saved)
        return total

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        layout: Layout = ctx.layout
        x, *rest = ctx.saved_tensors
        addends, *counts = ctx.counts
        first, second = itertools.accumulate(counts)
        channel_weights, weights = rest[:first], rest[first:second]
        _, needs_x_grad, needs_shared_grad, _, *rest_needed = ctx.needs_input_grad
        # Views by strides rely on channels last, as which it usually arrives.
        grad_output = grad_output.contiguous(memory_format=torch.channels_last)
        # A sum passes its gradient on to each of its terms.
        grad_shared = _by_edge(grad_output, layout.copies) if needs_shared_grad else None
        grad_addends = [grad_output if need else None for need in rest_needed[:addends]]
        needed = [needs_x_grad, *rest_needed[addends:]]
        if torch.is_grad_enabled():
            # Double backward: this gradient will be differentiated itself, as that of the plain
            # formula can be. The forward pass has updated the running statistics already.
            inputs = [x, *channel_weights, *weights]
            out = plain_separables(layout, x, channel_weights, weights, track=False)
            grad_x, *grads = differentiable_grads(out, inputs, grad_output, needed)
        else:
            backward = _Backward(ctx, x, grad_output, iter(rest[second:]))
            grad_x, grads = backward.run(channel_weights, weights, needed)
        return None, grad_x, grad_shared, None, *grad_addends, *grads


# Stored or recomputed tensors that the backward pass through one repetition needs: the input of the
# depthwise convolution, `[B, copies * C, H, W]`; its output, `[copies, B * H' * W', C]`, or None
# where the weights need no gradient; the input of BatchNorm, `[B, copies * C, H', W']`; the
# pointwise weights, `[copies, C, C]`; mean and `inv_std` of BatchNorm, `[copies * C]` each.
_Activations = tuple[Phases, Tensor | None, Tensor, Tensor, tuple[Tensor, Tensor]]


class _Backward:
    """The backward pass: from the gradient of the output to those of the inputs."""

    def __init__(self, ctx: Any, x: Tensor, grad_output: Tensor, saved: Iterator[Tensor]) -> None:
        self.layout: Layout = ctx.layout
        self.grad_output = grad_output
        # Tensors saved by the forward pass, repetition by repetition: the activations if they are
        # stored, mean and inv_std of BatchNorm.
        self.saved = saved
        # Whether stored activations are inputs of BatchNorm, or outputs of the depthwise
        # convolutions. With the former a pass whose weights need no gradient takes 0.85 of the
        # time, on 64 maps of 32x32 and 4 x 16 channels.
        self.stores_pre_norm: bool = ctx.stores_pre_norm
        # With all inputs of BatchNorm stored, only the size of the first input is needed.
        make = _like_repeated if self.stores_pre_norm else _repeat
        self.input = Phases(make(x, self.layout.copies))
        most = max(len(stack.repetitions) for stack in self.layout.stacks)
        # One a repetition: first for its recomputed input of BatchNorm, then for the gradient of
        # the depthwise convolution's output.
        self.scratch = [
            torch.empty_like(grad_output, memory_format=torch.channels_last) for _ in range(most)
        ]

    def run(
        self, channel_weights: Sequence[Tensor], weights: Sequence[Tensor], needed: Sequence[bool]
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Compute the gradients of all inputs.

        Args:
            channel_weights: As in `mixed_separables`.
            weights: As in `mixed_separables`.
            needed: Whether the gradients of `x`, each of `channel_weights` and each of `weights`
                are needed.

        Returns:
            Gradient of `x`, and gradients of `channel_weights` and `weights`, None where not
            needed.
        """
        needs_x_grad, *rest_needed = needed
        count = len(channel_weights)
        stacks = self.layout.split(channel_weights, weights)
        needs = self.layout.split(rest_needed[:count], rest_needed[count:])
        total: Tensor | None = None
        grad_scales: list[Tensor | None] = []
        grad_weights: list[Tensor | None] = []
        for repetitions, stack_needs in zip(stacks, needs, strict=True):
            grad_x, grad_scale, grads = self._stack_backward(repetitions, stack_needs, needs_x_grad)
            grad_scales.append(grad_scale)
            grad_weights += grads
            # All stacks read the same repeated input, so their gradients add up.
            if grad_x is not None:
                total = grad_x if total is None else total.add_(grad_x)
        grad_state = None if total is None else _sum_copies(total, self.layout.copies)
        return grad_state, [*grad_scales, *grad_weights]

    def _recompute(self, repetitions: _Repetitions) -> list[_Activations]:
        """Take the activations of a stack from what is saved, and recompute the others."""
        activations: list[_Activations] = []
        x = self.input
        for number, (step, depthwise_weight, pointwise_weight, _) in enumerate(repetitions):
            if number:
                # By the batch's own moments again: one call, and the running ones stay.
                norm, pre_norm = repetitions[number - 1][0].norm, activations[-1][2]
                x = Phases(norms.normalize(norm, pre_norm, None, track=False)[0].relu_())
            kernel = _kernels(pointwise_weight, self.layout.copies)  # [copies, C, C]
            # In the order of the forward pass, stack by stack.
            stored = next(self.saved) if self.layout.store_activations else None
            if stored is not None and self.stores_pre_norm:
                pixels, pre_norm = None, stored
            else:
                pixels = stored
                if pixels is None:
                    out = convolve(x.whole, depthwise_weight, step.stride, step.dilation)
                    pixels = _by_copy(out, self.layout.copies)
                pre_norm = self.scratch[number]
                _pointwise(pixels, kernel, out=pre_norm)
            moments = next(self.saved), next(self.saved)
            activations.append((x, pixels, pre_norm, kernel, moments))
        return activations

    def _stack_backward(
        self,
        repetitions: _Repetitions,
        needed: Sequence[tuple[Repetition, bool, bool, bool | None]],
        needs_x_grad: bool,
    ) -> tuple[Tensor | None, Tensor | None, list[Tensor | None]]:
        """Compute the gradients of one stack.

        Args:
            repetitions: As `Layout.split` yields them.
            needed: Likewise, whether the gradients of the weights are needed.
            needs_x_grad: Whether the gradient of the input is needed.

        Returns:
            Gradients of input `[B, copies * C, H, W]`, scale and weights, None where not needed.
        """
        activations = self._recompute(repetitions)
        grad_output, copies = self.grad_output, self.layout.copies
        grad_scale: Tensor | None = None
        grad_weights: list[Tensor | None] = []
        grad_input: Tensor | None = None
        for number in reversed(range(len(repetitions))):
            step, depthwise_weight, pointwise_weight, scale = repetitions[number]
            _, needs_depthwise, needs_pointwise, needs_scale = needed[number]
            x, pixels, pre_norm, kernel, moments = activations[number]
            needs_scale = bool(needs_scale)
            grad_pre_norm, found = norms.normalize_backward(
                step.norm, grad_output, pre_norm, scale, moments, needs_scale_grad=needs_scale
            )
            grad_scale = found if needs_scale else grad_scale
            # [copies, C, B * H' * W']
            transposed = _by_copy(grad_pre_norm, copies).transpose(1, 2)
            grad_pointwise = grad_depthwise = None
            if needs_pointwise and pixels is not None:
                # dW = dm^T d: [copies, C, B * H' * W'] @ [copies, B * H' * W', C], and the order of
                # memory is that of [copies * C, C, 1, 1].
                grad_pointwise = torch.bmm(transposed, pixels).view(pointwise_weight.shape)
            needs_input_grad = needs_x_grad or number > 0
            if needs_input_grad or needs_depthwise:
                # dd^T = W^T dm^T: [copies, C, C] @ [copies, C, B * H' * W']. Its place in scratch
                # is free: `pre_norm` has been read for the last time.
                scratch, needs = self.scratch[number], (needs_input_grad, needs_depthwise)
                torch.bmm(kernel, transposed, out=_by_copy(scratch, copies).transpose(1, 2))
                grad_input, grad_depthwise = convolve_backward(
                    scratch, x, depthwise_weight, step.stride, step.dilation, needs
                )
            if number and grad_input is not None:
                # ReLU: zero where its output, the input of this repetition, is zero.
                grad_output = _aten.threshold_backward(grad_input, x.whole, 0)
            # In front, for the repetitions come last to first.
            grad_weights = [grad_depthwise, grad_pointwise, *grad_weights]
        return grad_input if needs_x_grad else None, grad_scale, grad_weights


def _repeat(x: Tensor, copies: int) -> Tensor:
    """Put copies side by side: `[B, C, H, W]` to `[B, copies * C, H, W]`, channels last."""
    # Tensor.repeat takes 206 microseconds where this takes 76, on 8 maps of 32x32 pixels and
    # 4 x 16 channels.
    x = x.contiguous(memory_format=torch.channels_last)
    return torch.cat([x] * copies, dim=1)


def _like_repeated(x: Tensor, copies: int) -> Tensor:
    """Allocate a tensor like the result of `_repeat` for its shape alone, without values."""
    batch, channels, height, width = x.shape
    # Made as [B, H, W, copies * C] and seen as [B, copies * C, H, W]: channels last.
    return x.new_empty((batch, height, width, copies * channels)).permute(0, 3, 1, 2)


def _sum_copies(x: Tensor, copies: int) -> Tensor:
    """Compute the gradient of `_repeat`: `[B, copies * C, H, W]` to `[B, C, H, W]`."""
    if copies == 1:
        return x
    if x.device.type != "cpu":
        summed: Tensor = x.unflatten(1, (copies, -1)).sum(dim=1)  # over [B, copies, C, H, W]
        return summed
    # On a CPU, where `_repeat` takes 76 microseconds, that takes 895, and this 101.
    first, second, *others = x.split(x.shape[1] // copies, dim=1)  # [B, C, H, W] each
    total: Tensor = first + second
    for other in others:
        total.add_(other)
    return total


def _kernels(weight: Tensor, copies: int) -> Tensor:
    """View pointwise weights as the right factors of `_by_copy`.

    Args:
        weight: `[copies * C', C, 1, 1]`.
        copies: Number of edges.

    Returns:
        `[copies, C, C']`, the weights of each copy transposed.
    """
    wide, channels = weight.shape[:2]
    out = wide // copies
    row, column = weight.stride()[:2]
    # One view by strides: small tensors, where each call costs as much as the product.
    return weight.as_strided((copies, channels, out), (out * row, column, row))


def _pointwise(pixels: Tensor, kernel: Tensor, *, out: Tensor) -> None:
    """Fill `out` `[B, copies * C, H, W]` with the pointwise convolution as a batched product.

    In nanoseconds an element (one thread) it takes 0.7 instead of 1.2 for a grouped convolution,
    and 0.7 instead of 2.3 in the backward pass. By strides it reads and writes the copies where
    they are.
    """
    # The factors are [copies, B * H * W, C] and [copies, C, C].
    torch.bmm(pixels, kernel, out=_by_copy(out, len(kernel)))


def _by_copy(x: Tensor, copies: int) -> Tensor:
    """View a map as a matrix for each copy.

    Args:
        x: `[B, copies * C, H, W]`; copied unless it is channels last.
        copies: Number of edges.

    Returns:
        `[copies, B * H * W, C]`.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    batch, wide, height, width = x.shape
    channels, pixels = wide // copies, batch * height * width
    # In memory x is [B * H * W, copies, C]: a pixel is `wide` elements, a copy's part C of them.
    return x.as_strided((copies, pixels, channels), (channels, wide, 1))


def _by_edge(x: Tensor, copies: int) -> Tensor:
    """View a map `[B, copies * C, H, W]`, channels last, as `[copies, B, H, W, C]`."""
    batch, wide, height, width = x.shape
    # In memory x is [B, H, W, copies, C]: elements of a copy in a pixel, and of a row of the map.
    channels, row = wide // copies, width * wide
    return x.as_strided(
        (copies, batch, height, width, channels), (channels, height * row, row, wide, 1)
    )
