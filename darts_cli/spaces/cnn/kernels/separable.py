"""The separable convolutions of many edges side by side, as one function with its own gradient.

Autograd would keep what goes into every layer: with five tensors as large as the
input, a separable convolution alone is a third of what a search step holds. What
is kept here is one map a layer, or nothing: what the depthwise convolution made,
for the gradients of its weights, or where the weights stand still, as in both passes
of a finite difference, what goes into BatchNorm. Products within a pixel and
BatchNorm are cheap enough to be computed a second time.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.runtime.autograd import differentiable_grads
from darts_cli.spaces.cnn.kernels.depthwise import Phases, convolve, depthwise, gradients
from darts_cli.spaces.cnn.kernels.norms import (
    is_fused,
    normalize,
    normalize_back,
    plain_normalize,
)

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
    """Whether a map a repetition is kept for the way back."""

    def deal(self, weights: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        """The weights of each stack."""
        ends = list(itertools.accumulate((stack.weight_count for stack in self.stacks), initial=0))
        return [weights[start:end] for start, end in itertools.pairwise(ends)]


def mixed_separables(
    layout: Layout,
    x: Tensor,
    scales: Sequence[Tensor],
    weights: Sequence[Tensor],
    *,
    shared: Tensor,
    others: Sequence[Tensor] = (),
) -> Tensor:
    """The sum of all stacks on the edges that leave a state, each by its share, and of others.

    Args:
        layout: Of the weights.
        x: The state behind the first ReLU, `[B, C, H, W]`.
        scales: For every stack the share of each edge, repeated for each of its channels,
            `[copies * C]`.
        weights: Of every stack, repetition by repetition, the depthwise ones,
            `[copies * C, 1, k, k]`, and the pointwise ones, `[copies * C, C, 1, 1]`.
        shared: What else is added on each edge, `[copies, B, H', W', C]`.
        others: What is added besides, of the shape of what is returned.

    Returns:
        `[B, copies * C, ceil(H / stride), ceil(W / stride)]`, channels last.
    """
    if is_fused(x, layout.stacks[0].repetitions[0].norm):
        counts = len(others), len(scales)
        out: Tensor = _MixedSeparables.apply(layout, x, shared, counts, *others, *scales, *weights)
        return out
    total = plain_separables(layout, x, scales, weights, track=True)
    total = total + shared.permute(1, 0, 4, 2, 3).flatten(1, 2)
    for other in others:
        total = total + other
    return total


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
    def forward(
        ctx: Any, layout: Layout, x: Tensor, shared: Tensor, counts: tuple[int, int], *rest: Tensor
    ) -> Tensor:
        first, second = itertools.accumulate(counts)
        others, scales, weights = rest[:first], rest[first:second], rest[second:]
        before_norm = layout.keep and not any(ctx.needs_input_grad[-len(weights) :])
        repeated = _repeat(x, layout.copies)
        total: Tensor | None = None
        mixed: _Scratch | None = None
        statistics: list[Tensor] = []
        kept: list[Tensor] = []
        kernels: list[Tensor] = []
        for stack, scale, own in zip(layout.stacks, scales, layout.deal(weights), strict=True):
            out = repeated
            for number, step in enumerate(stack.repetitions):
                across, through = own[2 * number : 2 * number + 2]
                if number:
                    out.relu_()
                out = convolve(out, across, stride=step.stride, dilation=step.dilation)
                if mixed is None or before_norm:
                    mixed = _Scratch(out, layout.copies)
                pixels, kernel = _by_copy(out, layout.copies), _kernels(through, layout.copies)
                kernels.append(kernel)
                if layout.keep:
                    kept.append(mixed.whole if before_norm else pixels)
                torch.bmm(pixels, kernel, out=mixed.pixels)
                last = number == len(stack.repetitions) - 1
                out, *moments = normalize(step.norm, mixed.whole, scale if last else None)
                statistics += moments
            total = out if total is None else total.add_(out)
        if total is None:
            raise ValueError("expected one stack or more")
        _by_edge(total, layout.copies).add_(shared)
        for other in others:
            total.add_(other)
        ctx.layout = layout
        # Views of the weights, whose changes the weights themselves are watched for.
        ctx.kernels = kernels
        ctx.before_norm = before_norm
        ctx.counts = len(others), len(scales), len(weights), len(statistics)
        ctx.save_for_backward(x, *scales, *weights, *statistics, *kept)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layout: Layout = ctx.layout
        x, *rest = ctx.saved_tensors
        others, *counts = ctx.counts
        first, second, third = itertools.accumulate(counts)
        scales, weights = rest[:first], rest[first:second]
        _, of_x, of_shared, _, *of_rest = ctx.needs_input_grad
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        to_shared = _by_edge(gradient, layout.copies) if of_shared else None
        to_others = [gradient if need else None for need in of_rest[:others]]
        needed = [of_x, *of_rest[others:]]
        if torch.is_grad_enabled():
            # The gradient itself is to be differentiated: that of the plain formula can be.
            inputs = [x, *scales, *weights]
            out = plain_separables(layout, x, scales, weights, track=False)
            to_x, *own = differentiable_grads(out, inputs, gradient, needed)
        else:
            statistics = iter(rest[second:third])
            saved = _Saved(
                kernels=iter(ctx.kernels),
                moments=zip(statistics, statistics, strict=True),
                maps=iter(rest[third:]),
                before_norm=ctx.before_norm,
            )
            to_x, own = _Backward(layout, x, gradient, saved).run(scales, weights, needed)
        return None, to_x, to_shared, None, *to_others, *own


@dataclass(frozen=True, slots=True)
class _Saved:
    """What the way there leaves behind, repetition by repetition."""

    kernels: Iterator[Tensor]
    moments: Iterator[tuple[Tensor, Tensor]]
    maps: Iterator[Tensor]
    """What is kept; none where all is computed again."""
    before_norm: bool
    """Whether that is what goes into BatchNorm, or what the depthwise convolution made: a pass
    whose weights stand still takes 0.85 of the time so, on 64 maps of 32x32 and 4 x 16 channels."""


@dataclass(frozen=True, slots=True)
class _Step:
    """What the way back through a repetition needs."""

    input: Phases
    pixels: Tensor | None
    """What the depthwise convolution makes of it, by copies; None where the weights stand still."""
    mixed: Tensor
    """What goes into BatchNorm."""
    kernel: Tensor
    moments: tuple[Tensor, Tensor]


class _Scratch:
    """A map that is written again and again, and how a batched product sees it.

    A pointwise convolution is one: in nanoseconds an element (one thread) 0.7 for the 1.2 of
    a grouped convolution, backwards 0.7 for 2.3. It reads and writes the copies where they are.
    """

    def __init__(self, like: Tensor, copies: int) -> None:
        self.whole = torch.empty_like(like, memory_format=torch.channels_last)
        self.pixels = _by_copy(self.whole, copies)

    @cached_property
    def turned(self) -> Tensor:
        """`[copies, C, B * H * W]`, which the way back writes to."""
        return self.pixels.transpose(1, 2)


class _Backward:
    """From the gradient of the output to those of input, scales and weights."""

    def __init__(self, layout: Layout, x: Tensor, gradient: Tensor, saved: _Saved) -> None:
        self.layout = layout
        self.gradient = gradient
        self.saved = saved
        # With all that goes into BatchNorm there, only the input's size is still asked for.
        make = _like_repeated if saved.before_norm else _repeat
        self.input = Phases(make(x, layout.copies))
        most = max(len(stack.repetitions) for stack in layout.stacks)
        self.scratch = [_Scratch(gradient, layout.copies) for _ in range(most)]
        """One a repetition, for what its pointwise convolution makes if that is not kept, then for
        the gradient of what goes into that."""

    def run(
        self, scales: Sequence[Tensor], weights: Sequence[Tensor], needed: Sequence[bool]
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradients of the input, and of scales and weights, those that are needed."""
        of_x, *of_rest = needed
        of_scales, of_weights = of_rest[: len(scales)], iter(of_rest[len(scales) :])
        total: Tensor | None = None
        to_scales: list[Tensor | None] = []
        to_weights: list[Tensor | None] = []
        for stack, scale, of_scale, own in zip(
            self.layout.stacks, scales, of_scales, self.layout.deal(weights), strict=True
        ):
            of_own = [next(of_weights) for _ in own]
            to_x, to_scale, to_own = self._stack_backward(
                stack, scale, own, (of_x, of_scale, of_own)
            )
            to_scales.append(to_scale)
            to_weights += to_own
            if to_x is not None:
                total = to_x if total is None else total.add_(to_x)
        to_state = None if total is None else _sum_copies(total, self.layout.copies)
        return to_state, [*to_scales, *to_weights]

    def _recompute(self, stack: Stack, weights: Sequence[Tensor]) -> list[_Step]:
        """Compute what each repetition of a stack needs on the way back."""
        steps: list[_Step] = []
        x = self.input
        for number, step in enumerate(stack.repetitions):
            if number:
                # From the batch's own moments again: one call, and the running ones stay.
                norm = stack.repetitions[number - 1].norm
                x = Phases(normalize(norm, steps[-1].mixed, None, track=False)[0].relu_())
            kernel, kept = next(self.saved.kernels), next(self.saved.maps, None)
            if kept is not None and self.saved.before_norm:
                pixels, mixed = None, kept
            else:
                pixels = kept
                if pixels is None:
                    across = weights[2 * number]
                    out = convolve(x.whole, across, stride=step.stride, dilation=step.dilation)
                    pixels = _by_copy(out, self.layout.copies)
                mixed = self.scratch[number].whole
                torch.bmm(pixels, kernel, out=self.scratch[number].pixels)
            steps.append(_Step(x, pixels, mixed, kernel, next(self.saved.moments)))
        return steps

    def _stack_backward(
        self,
        stack: Stack,
        scale: Tensor,
        weights: Sequence[Tensor],
        needed: tuple[bool, bool, Sequence[bool]],
    ) -> tuple[Tensor | None, Tensor | None, list[Tensor | None]]:
        """The gradients of input, scale and weights of one stack, those that are needed."""
        of_x, of_scale, of_weights = needed
        steps = self._recompute(stack, weights)
        last = len(steps) - 1
        gradient = self.gradient
        to_scale: Tensor | None = None
        to_weights: list[Tensor | None] = []
        to_input: Tensor | None = None
        for number in reversed(range(last + 1)):
            repetition, step = stack.repetitions[number], steps[number]
            to_pixels = self.scratch[number]
            of_across, of_through = of_weights[2 * number : 2 * number + 2]
            to_mixed, found = normalize_back(
                repetition.norm,
                gradient,
                step.mixed,
                scale if number == last else None,
                step.moments,
                of_scale=of_scale and number == last,
            )
            to_scale = found if number == last else to_scale
            turned = _by_copy(to_mixed, self.layout.copies, transposed=True)
            to_through = None
            if of_through and step.pixels is not None:
                to_through = torch.bmm(turned, step.pixels).view(weights[2 * number + 1].shape)
            to_across = None
            of_input = of_x or number > 0
            if of_input or of_across:
                torch.bmm(step.kernel, turned, out=to_pixels.turned)
                to_input, to_across = gradients(
                    to_pixels.whole,
                    step.input,
                    weights[2 * number],
                    stride=repetition.stride,
                    dilation=repetition.dilation,
                    needed=(of_input, of_across),
                )
            if number and to_input is not None:
                gradient = _aten.threshold_backward(to_input, step.input.whole, 0)
            to_weights = [to_across, to_through, *to_weights]
        return to_input if of_x else None, to_scale, to_weights


def _repeat(x: Tensor, copies: int) -> Tensor:
    """`[B, C, H, W]` side by side along the channels, channels last."""
    # Repeating takes 206 microseconds where this takes 76, on 8 maps of 32x32 pixels and 4 x 16
    # channels.
    x = x.contiguous(memory_format=torch.channels_last)
    return torch.cat([x] * copies, dim=1)


def _like_repeated(x: Tensor, copies: int) -> Tensor:
    """As large as `_repeat`, for who asks for the size alone."""
    batch, channels, height, width = x.shape
    return x.new_empty((batch, height, width, copies * channels)).permute(0, 3, 1, 2)


def _sum_copies(x: Tensor, copies: int) -> Tensor:
    """The gradient of `_repeat`: `[B, copies * C, H, W]` to `[B, C, H, W]`."""
    if copies == 1:
        return x
    if x.device.type != "cpu":
        summed: Tensor = x.unflatten(1, (copies, -1)).sum(dim=1)
        return summed
    # On a CPU, where `_repeat` takes 76 microseconds, that takes 895, and this 101.
    first, second, *others = x.split(x.shape[1] // copies, dim=1)
    total: Tensor = first + second
    for other in others:
        total.add_(other)
    return total


def _kernels(weight: Tensor, copies: int) -> Tensor:
    """Pointwise weights `[copies * C', C, 1, 1]` as factors of each copy, `[copies, C, C']`."""
    wide, channels = weight.shape[:2]
    out = wide // copies
    row, column = weight.stride()[:2]
    return weight.as_strided((copies, channels, out), (out * row, column, row))


def _by_copy(x: Tensor, copies: int, *, transposed: bool = False) -> Tensor:
    """A map `[B, copies * C, H, W]`, channels last, seen as `[copies, B * H * W, C]`.

    Transposed: `[copies, C, B * H * W]`.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    batch, wide, height, width = x.shape
    channels = wide // copies
    pixels = batch * height * width
    if transposed:
        return x.as_strided((copies, channels, pixels), (channels, 1, wide))
    return x.as_strided((copies, pixels, channels), (channels, wide, 1))


def _by_edge(x: Tensor, copies: int) -> Tensor:
    """A map `[B, copies * C, H, W]`, channels last, seen as `[copies, B, H, W, C]`."""
    batch, wide, height, width = x.shape
    channels, row = wide // copies, width * wide
    return x.as_strided(
        (copies, batch, height, width, channels), (channels, height * row, row, wide, 1)
    )
