"""Depthwise convolution, with gradients that the CPU computes fast.

On a CPU, torch's own gradients of a depthwise convolution take 6 to 120 times
what the convolution takes, except of a kernel up to 3x3, without dilation, on
maps larger than it. What is computed here are the same sums, put so that they
are that case. Figures are nanoseconds per element of the input, one thread,
channels last, 64 to 256 channels (AVX2, torch 2.14). Other devices keep the plain
calls.
"""

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
    return convolve(x, weight, stride=stride, dilation=dilation)


def convolve(x: Tensor, weight: Tensor, *, stride: int, dilation: int) -> Tensor:
    """The same by the plain call. Forwards it is fast as it is: 0.6 to 1.3."""
    padding = _padding(weight, dilation)
    return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))


def _padding(weight: Tensor, dilation: int) -> int:
    return dilation * (weight.shape[-1] - 1) // 2


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
        return convolve(x, weight, stride=stride, dilation=dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        needed = ctx.needs_input_grad[:2]
        to_x, to_weight = gradients(
            gradient, *ctx.saved_tensors, stride=ctx.stride, dilation=ctx.dilation, needed=needed
        )
        return to_x, to_weight, None, None


def gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    *,
    stride: int,
    dilation: int,
    needed: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of input and weight, those that are needed, given that of the output.

    They can be differentiated in turn.
    """
    if not _is_special(x):
        padding = _padding(weight, dilation)
        return _plain_gradients(gradient, x, weight, stride, (padding,) * 2, dilation, needed)
    if dilation == 1:
        return _undilated(gradient, x, weight, stride, needed)
    size = x.shape[2:]
    if stride == dilation:
        # Of the input it sees every second pixel alone, and these without dilation:
        # both gradients of a 3x3 kernel take 31 to 45 as they are, 1.4 to 1.7 so.
        seen = x[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)
        to_seen, to_weight = _undilated(gradient, seen, weight, 1, needed)
        return _spread(to_seen, size), to_weight
    # Pixels whose rows and columns are even or odd alike see one another alone, and without
    # dilation: both gradients of a 3x3 kernel on 16x16 pixels take 27 to 40 as they are, 2.7 to
    # 4.2 so, copies included; on 32x32, 21 to 31 and 10 to 16.
    to_phases, to_weight = _undilated(_split_phases(gradient), _split_phases(x), weight, 1, needed)
    return _join_phases(to_phases, size), to_weight


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
    padded = F.pad(x, (padding, padding, over_rows, over_rows))
    reach = (gradient.shape[3] - 1) * stride
    parts: list[Tensor] = []
    for first in range(0, kernel, _FAST_COLUMNS):
        part = weight[..., first : first + _FAST_COLUMNS]
        seen = padded[..., first : first + reach + part.shape[-1]]
        rest = (padding - over_rows, 0)
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
    batch, channels, height, width = x.shape
    pairs = x.permute(0, 2, 3, 1).reshape(batch, height // 2, 2, width // 2, 2, channels)
    phases = pairs.permute(2, 4, 0, 1, 3, 5).reshape(-1, height // 2, width // 2, channels)
    return phases.permute(0, 3, 1, 2)


def _join_phases(phases: Tensor | None, size: torch.Size) -> Tensor | None:
    """The inverse of `_split_phases`."""
    if phases is None:
        return None
    _, channels, height, width = phases.shape
    pairs = phases.permute(0, 2, 3, 1).reshape(2, 2, -1, height, width, channels)
    whole = pairs.permute(2, 3, 0, 4, 1, 5).reshape(-1, 2 * height, 2 * width, channels)
    return whole.permute(0, 3, 1, 2)[:, :, : size[0], : size[1]]


def _spread(seen: Tensor | None, size: torch.Size) -> Tensor | None:
    """Zeros between the pixels: to `[B, C, H, W]`."""
    if seen is None:
        return None
    whole = torch.zeros(
        (len(seen), *size, seen.shape[1]), dtype=seen.dtype, device=seen.device
    ).permute(0, 3, 1, 2)
    whole[:, :, ::2, ::2] = seen
    return whole
