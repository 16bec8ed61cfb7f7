"""The separable convolutions of many edges side by side, as one function with its own gradient.

Autograd would keep what goes into every layer: with five tensors as large as the
input, a separable convolution alone is a third of what a search step holds. What
is kept here are the outputs of the depthwise convolutions, or nothing; products
within a pixel and BatchNorm are cheap enough to be computed a second time.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.spaces.cnn.depthwise import convolve, depthwise, gradients
from darts_cli.spaces.cnn.norms import is_fused, normalize, normalize_back, plain_normalize

_aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Repetition:
    """Depthwise convolution, pointwise convolution, BatchNorm without affine parameters."""

    stride: int
    dilation: int
    norm: nn.BatchNorm2d


@dataclass(frozen=True, slots=True)
class Stack:
    """The repetitions of one primitive, for all edges, with a ReLU between them."""

    repetitions: Sequence[Repetition]

    @property
    def weight_count(self) -> int:
        """How many weights it has: of each repetition a depthwise and a pointwise one."""
        return 2 * len(self.repetitions)


@dataclass(frozen=True, slots=True)
class Layout:
    """What does not change from batch to batch."""

    copies: int
    """Edges side by side along the channels."""
    stacks: Sequence[Stack]
    keep: bool
    """Whether the outputs of the depthwise convolutions are kept for the way back."""

    def deal(self, weights: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """The weights of each stack."""
        ends = list(itertools.accumulate((stack.weight_count for stack in self.stacks), initial=0))
        return [weights[start:end] for start, end in itertools.pairwise(ends)]


def mixed_separables(
    layout: Layout, x: Tensor, scales: Sequence[Tensor], weights: Sequence[Tensor]
) -> Tensor:
    """The sum of all stacks on the edges that leave a state, each by its share.

    Args:
        layout: Of the weights.
        x: The state behind the first ReLU, `[B, C, H, W]`.
        scales: For every stack the share of each edge, repeated for each of its channels,
            `[copies * C]`.
        weights: Of every stack, repetition by repetition, the depthwise ones,
            `[copies * C, 1, k, k]`, and the pointwise ones, `[copies * C, C, 1, 1]`.

    Returns:
        `[B, copies * C, ceil(H / stride), ceil(W / stride)]`, channels last.
    """
    if is_fused(x, layout.stacks[0].repetitions[0].norm):
        out: Tensor = _MixedSeparables.apply(layout, x, len(scales), *scales, *weights)
        return out
    return plain_separables(layout, x, scales, weights, track=True)


def plain_separables(
    layout: Layout, x: Tensor, scales: Sequence[Tensor], weights: Sequence[Tensor], *, track: bool
) -> Tensor:
    """The same straight from the formula; differentiable as often as one likes.

    Args:
        layout: As in `mixed_separables`, as are the next three.
        x: The input.
        scales: Of the outputs.
        weights: Of the convolutions.
        track: Whether running statistics are moved on in training.
    """
    repeated = _repeat(x, layout.copies)
    total: Tensor | None = None
    for stack, scale, own in zip(layout.stacks, scales, layout.deal(weights), strict=True):
        out = repeated
        for number, step in enumerate(stack.repetitions):
            across, through = own[2 * number : 2 * number + 2]
            if number:
                out = out.relu()
            out = depthwise(out, across, stride=step.stride, dilation=step.dilation)
            out = F.conv2d(out, through, groups=layout.copies)
            scaled = scale if number == len(stack.repetitions) - 1 else None
            out = plain_normalize(step.norm, out, scaled, track=track)
        total = out if total is None else total + out
    if total is None:
        raise ValueError("expected one stack or more")
    return total


class _MixedSeparables(torch.autograd.Function):
    """See `mixed_separables`."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, x: Tensor, stacks: int, *rest: Tensor) -> Tensor:
        scales, weights = rest[:stacks], rest[stacks:]
        repeated = _repeat(x, layout.copies)
        total: Tensor | None = None
        statistics: list[Tensor] = []
        kept: list[Tensor] = []
        for stack, scale, own in zip(layout.stacks, scales, layout.deal(weights), strict=True):
            out = repeated
            for number, step in enumerate(stack.repetitions):
                across, through = own[2 * number : 2 * number + 2]
                if number:
                    out.relu_()
                out = convolve(out, across, stride=step.stride, dilation=step.dilation)
                if layout.keep:
                    kept.append(out)
                out = _mix(_by_copy(out, layout.copies), through, out)
                last = number == len(stack.repetitions) - 1
                out, *moments = normalize(step.norm, out, scale if last else None)
                statistics += moments
            total = out if total is None else total.add_(out)
        ctx.layout = layout
        ctx.ends = list(itertools.accumulate((stacks, len(weights), len(statistics))))
        ctx.save_for_backward(x, *scales, *weights, *statistics, *kept)
        return total  # type: ignore[return-value]  # a mixture has one stack or more

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layout: Layout = ctx.layout
        x, *rest = ctx.saved_tensors
        first, second, third = ctx.ends
        scales, weights = rest[:first], rest[first:second]
        needed = [ctx.needs_input_grad[1], *ctx.needs_input_grad[3:]]
        if torch.is_grad_enabled():
            # The gradient itself is to be differentiated: that of the plain formula can be.
            inputs = [x, *scales, *weights]
            out = plain_separables(layout, x, scales, weights, track=False)
            wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
            found = iter(torch.autograd.grad(out, wanted, gradient, create_graph=True))
            of_x, *others = (next(found) if need else None for need in needed)
            return None, of_x, None, *others
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        repeated = _repeat(x, layout.copies)
        moments, kept = iter(rest[second:third]), iter(rest[third:])
        of_scales, of_weights = needed[1 : first + 1], iter(needed[first + 1 :])
        to_repeated: Tensor | None = None
        to_scales: list[Tensor | None] = []
        to_weights: list[Tensor | None] = []
        for stack, scale, of_scale, own in zip(
            layout.stacks, scales, of_scales, layout.deal(weights), strict=True
        ):
            way_back = _WayBack(layout.copies, stack, repeated, own, kept)
            statistics = [(next(moments), next(moments)) for _ in stack.repetitions]
            of_own = [next(of_weights) for _ in own]
            to_x, to_scale, to_own = way_back.run(
                gradient, scale, statistics, (needed[0], of_scale, of_own)
            )
            to_scales.append(to_scale)
            to_weights += to_own
            if to_x is not None:
                to_repeated = to_x if to_repeated is None else to_repeated.add_(to_x)
        to_state = None
        if to_repeated is not None:
            to_state = to_repeated.unflatten(1, (layout.copies, -1)).sum(dim=1)
        return None, to_state, None, *to_scales, *to_weights


class _WayBack:
    """Through one stack, from the gradient of its output to those of input, scale and weights."""

    def __init__(
        self,
        copies: int,
        stack: Stack,
        x: Tensor,
        weights: Sequence[Tensor],
        kept: Iterator[Tensor],
    ) -> None:
        self.copies = copies
        self.repetitions = stack.repetitions
        self.pairs = list(zip(weights[::2], weights[1::2], strict=True))
        self.inputs: list[Tensor] = []
        """What goes into each repetition."""
        self.across: list[Tensor] = []
        """What its depthwise convolution makes of it, by copies."""
        self.mixed: list[Tensor] = []
        """And what its pointwise one makes of that."""
        for number, (step, (across, through)) in enumerate(
            zip(self.repetitions, self.pairs, strict=True)
        ):
            if number:
                before = self.repetitions[number - 1].norm
                # From the batch's own moments again: one call, and the running ones stay.
                x = normalize(before, self.mixed[-1], None, track=False)[0].relu_()
            out = next(kept, None)
            if out is None:
                out = convolve(x, across, stride=step.stride, dilation=step.dilation)
            self.inputs.append(x)
            self.across.append(_by_copy(out, copies))
            self.mixed.append(_mix(self.across[-1], through, out))

    def run(
        self,
        gradient: Tensor,
        scale: Tensor,
        statistics: Sequence[tuple[Tensor, Tensor]],
        needed: tuple[bool, bool, Sequence[bool]],
    ) -> tuple[Tensor | None, Tensor | None, list[Tensor | None]]:
        """The gradients of input, scale and weights, those that are needed."""
        of_x, of_scale, of_weights = needed
        last = len(self.repetitions) - 1
        to_scale: Tensor | None = None
        to_weights: list[Tensor | None] = []
        to_input: Tensor | None = None
        for number in reversed(range(last + 1)):
            step, (across, through) = self.repetitions[number], self.pairs[number]
            of_across, of_through = of_weights[2 * number : 2 * number + 2]
            to_mixed, found = normalize_back(
                step.norm,
                gradient,
                self.mixed[number],
                scale if number == last else None,
                statistics[number],
                of_scale=of_scale and number == last,
            )
            to_scale = found if number == last else to_scale
            by_copy = _by_copy(to_mixed, self.copies)
            to_through = None
            if of_through:
                to_through = torch.bmm(by_copy.transpose(1, 2), self.across[number])
                to_through = to_through.view(through.shape)
            to_across = None
            of_input = of_x or number > 0
            if of_input or of_across:
                to_input, to_across = gradients(
                    _mix(by_copy, through, to_mixed, transposed=True),
                    self.inputs[number],
                    across,
                    stride=step.stride,
                    dilation=step.dilation,
                    needed=(of_input, of_across),
                )
            if number and to_input is not None:
                gradient = _aten.threshold_backward(to_input, self.inputs[number], 0)
            to_weights = [to_across, to_through, *to_weights]
        return to_input if of_x else None, to_scale, to_weights


def _repeat(x: Tensor, copies: int) -> Tensor:
    """`[B, C, H, W]` side by side along the channels, channels last."""
    # Repeated as it is, they would come first again.
    return x.permute(0, 2, 3, 1).repeat(1, 1, 1, copies).permute(0, 3, 1, 2)


def _mix(x: Tensor, weight: Tensor, like: Tensor, *, transposed: bool = False) -> Tensor:
    """The pointwise convolution of each copy, `[copies, B * H * W, C]`, or its transpose.

    A batched product that reads and writes the copies where they are: in nanoseconds an
    element (one thread) 0.7 for the 1.2 of a grouped convolution, backwards 0.7 for 2.3.

    Returns:
        A map like `like`, `[B, copies * C, H, W]`, channels last.
    """
    kernels = weight.view(len(x), -1, weight.shape[1])
    out = torch.empty_like(like, memory_format=torch.channels_last)
    kernels = kernels if transposed else kernels.transpose(1, 2)
    torch.bmm(x, kernels, out=_by_copy(out, len(x)))
    return out


def _by_copy(x: Tensor, copies: int) -> Tensor:
    """A map `[B, copies * C, H, W]`, channels last, seen as `[copies, B * H * W, C]`."""
    x = x.contiguous(memory_format=torch.channels_last)
    batch, wide, height, width = x.shape
    channels = wide // copies
    pixels = batch * height * width
    return x.as_strided((copies, pixels, channels), (channels, wide, 1))
