"""Depthwise convolution, with gradients that the CPU computes fast.

On a CPU, torch's own gradients of a depthwise convolution take 6 to 120 times
what the convolution takes, except of a kernel up to 3x3, without dilation, on
maps larger than it. What is computed here are the same sums, put so that they
are that case. Figures are nanoseconds per element of the input, one thread,
channels last, 64 to 256 channels (AVX2, torch 2.14). Other devices keep the plain
calls.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_aten = torch.ops.aten

_FAST_COLUMNS = 3
"""Kernels with more columns than this leave the fast path of the weight's gradient."""


def depthwise(x: Tensor, weight: Tensor, *, stride: int, dilation: int) -> Tensor:
    """Convolve every channel by itself, with the padding that keeps the size at stride 1.

    Args:
        x: `[B, C, H, W]`.
        weight: `[C, 1, k, k]`, k odd.
        stride: 1 or 2.
        dilation: 1 or 2.

    Returns:
        `[B, C, ceil(H / stride), ceil(W / stride)]`.
    """
    if _is_special(x):
        out: Tensor = _Depthwise.apply(x, weight, stride, dilation)
        return out
    return _plain(x, weight, stride, dilation)


def convolve(x: Tensor, weight: Tensor, *, stride: int, dilation: int) -> Tensor:
    """The same but for rounding: on a small map, by less of the kernel."""
    weight, dilation = _within_reach(x, weight, dilation)
    return _plain(x, weight, stride, dilation)


def _plain(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """The plain call. Forwards it is fast as it is: 0.6 to 1.3."""
    padding = _padding(weight, dilation)
    return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))


def _padding(weight: Tensor, dilation: int) -> int:
    return dilation * (weight.shape[-1] - 1) // 2


def _within_reach(x: Tensor, weight: Tensor, dilation: int) -> tuple[Tensor, int]:
    """The part of the kernel that meets more than padding, and its dilation.

    With all of it, a dilated 5x5 kernel takes 200 on 2x2 pixels, and so 4.
    """
    rim = weight.shape[-1] // 2 - (max(x.shape[2:]) - 1) // dilation
    if rim <= 0 or not _is_special(x):
        return weight, dilation
    seen = weight[:, :, rim:-rim, rim:-rim]
    return seen, 1 if seen.shape[-1] == 1 else dilation


def _is_special(x: Tensor) -> bool:
    """Whether the gradients are to be computed in the ways of this module."""
    return (
        x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _Depthwise(torch.autograd.Function):
    """The plain convolution, with the gradients below."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.dilation = stride, dilation
        return _plain(x, weight, stride, dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        needed = ctx.needs_input_grad[:2]
        to_x, to_weight = gradients(
            gradient, *ctx.saved_tensors, stride=ctx.stride, dilation=ctx.dilation, needed=needed
        )
        return to_x, to_weight, None, None


class Phases:
    """A map whose even and odd rows and columns are picked apart when first asked for.

    What several dilated convolutions read is so picked apart once.
    """

    def __init__(self, x: Tensor) -> None:
        self.whole = x

    @cached_property
    def first(self) -> Tensor:
        """Every second pixel, `[B, C, ceil(H/2), ceil(W/2)]`."""
        return self.whole[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)

    @cached_property
    def all(self) -> Tensor:
        """All four phases, `[4 B, C, ceil(H/2), ceil(W/2)]`."""
        return _split_phases(self.whole)


def gradients(
    gradient: Tensor,
    x: Tensor | Phases,
    weight: Tensor,
    *,
    stride: int,
    dilation: int,
    needed: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of input and weight, those that are needed, given that of the output.

    They can be differentiated in turn.
    """
    phases = x if isinstance(x, Phases) else Phases(x)
    x = phases.whole
    if not _is_special(x):
        padding = _padding(weight, dilation)
        return _plain_gradients(gradient, x, weight, stride, (padding,) * 2, dilation, needed)
    seen, dilation = _within_reach(x, weight, dilation)
    if dilation == 1:
        to_x, to_seen = _undilated(gradient, x, seen, stride, needed)
    else:
        to_x, to_seen = _dilated(gradient, phases, seen, stride, needed)
    rim = (weight.shape[-1] - seen.shape[-1]) // 2
    return to_x, F.pad(to_seen, (rim,) * 4) if rim and to_seen is not None else to_seen


def _dilated(
    gradient: Tensor, x: Phases, weight: Tensor, stride: int, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a convolution of dilation 2."""
    of_x, of_weight = needed
    if stride == 2:
        # Of the input it sees every second pixel alone, and these without dilation:
        # both gradients of a 3x3 kernel take 31 to 45 as they are, 1.4 to 1.7 so.
        to_first, to_weight = _undilated(gradient, x.first, weight, 1, needed)
        return _spread(to_first, x.whole.shape[2:]), to_weight
    to_weight = None
    if of_weight:
        # Pixels whose rows and columns are even or odd alike see one another alone, and
        # without dilation: both gradients of a 3x3 kernel on 16x16 pixels take 27 to 40 as
        # they are; this one takes 1.3 so, copies included.
        _, to_weight = _undilated(_split_phases(gradient), x.all, weight, 1, (False, True))
    return _turned(gradient, weight, 2) if of_x else None, to_weight


def _turned(gradient: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """The gradient of the input at stride 1: a convolution by the kernel turned half around.

    With a dilated 3x3 kernel on 16x16 pixels it takes 0.6, and 1.6 by phases as well.
    """
    return _plain(gradient, weight.flip(2, 3), 1, dilation)


def _undilated(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of an undilated convolution."""
    kernel, padding = weight.shape[-1], (_padding(weight, 1),) * 2
    small = min(x.shape[2:]) < kernel
    of_x, of_weight = needed
    if not of_weight or (not small and kernel <= _FAST_COLUMNS):
        return _plain_gradients(gradient, x, weight, stride, padding, 1, needed)
    to_weight = _weight_gradient(gradient, x, weight, stride, pad_rows=small)
    if not of_x:
        return None, to_weight
    to_x, _ = _plain_gradients(gradient, x, weight, stride, padding, 1, (True, False))
    return to_x, to_weight


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, *, pad_rows: bool
) -> Tensor:
    """A few columns of the kernel at a time, on maps that are padded already.

    Whole, a 5x5 kernel takes 8.1, in columns 3 + 2 it takes 2.3. On maps smaller
    than the kernel it takes 58, and with rows padded as well 11 (a 3x3 one on 2x2
    pixels 96 and 9).
    """
    kernel, padding = weight.shape[-1], _padding(weight, 1)
    over_rows = padding if pad_rows else 0
    rest = (padding - over_rows, 0)
    padded = F.pad(x, (padding, padding, over_rows, over_rows))
    if kernel <= _FAST_COLUMNS:
        whole: Tensor
        _, whole = _plain_gradients(gradient, padded, weight, stride, rest, 1, (False, True))
        return whole
    reach = (gradient.shape[3] - 1) * stride
    parts: list[Tensor] = []
    for first in range(0, kernel, _FAST_COLUMNS):
        part = weight[..., first : first + _FAST_COLUMNS]
        seen = padded[..., first : first + reach + part.shape[-1]]
        _, found = _plain_gradients(gradient, seen, part, stride, rest, 1, (False, True))
        parts.append(found)
    return torch.cat(parts, dim=-1)


def _plain_gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    padding: tuple[int, ...],
    dilation: int,
    needed: tuple[bool, bool],
) -> tuple[Any, Any]:
    """The gradients as torch computes them; None for what is not needed."""
    return _aten.convolution_backward(  # type: ignore[no-any-return]
        gradient,
        x,
        weight,
        None,
        (stride, stride),
        padding,
        (dilation, dilation),
        False,
        (0, 0),
        len(weight),
        (*needed, False),
    )[:2]


def _split_phases(x: Tensor) -> Tensor:
    """Even and odd rows and columns apart: `[B, C, H, W]` to `[4 B, C, ceil(H/2), ceil(W/2)]`."""
    height, width = x.shape[2:]
    if height % 2 or width % 2:
        # Zeros there are what the convolution's own padding is.
        x = F.pad(x, (0, width % 2, 0, height % 2))
    x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    row = width * channels
    rows, columns = height // 2, width // 2
    # By strides: two views in the place of seven.
    pairs = x.as_strided(
        (2, 2, batch, rows, columns, channels),
        (row, channels, height * row, 2 * row, 2 * channels, 1),
    ).contiguous()
    part = columns * channels
    return pairs.as_strided((4 * batch, channels, rows, columns), (rows * part, 1, part, channels))


def _spread(seen: Tensor | None, size: torch.Size) -> Tensor | None:
    """Zeros between the pixels: to `[B, C, H, W]`."""
    if seen is None:
        return None
    whole = torch.zeros(
        (len(seen), *size, seen.shape[1]), dtype=seen.dtype, device=seen.device
    ).permute(0, 3, 1, 2)
    whole[:, :, ::2, ::2] = seen
    return whole
