"""Depthwise convolution, with a hand-written backward pass that is fast on a CPU.

With kernel `w`, stride `s`, dilation `d` and padding `p = d (k - 1) / 2`:

    y[b, c, i, j]  = sum_{u, v} w[c, u, v] x[b, c, s i + d u - p, s j + d v - p]
    dw[c, u, v]    = sum_{b, i, j} dy[b, c, i, j] x[b, c, s i + d u - p, s j + d v - p]
    dx[b, c, m, n] = sum of w[c, u, v] dy[b, c, i, j] where s i + d u - p = m, s j + d v - p = n

`_plain` is the plain formula, and the oracle of the tests. On a CPU, torch's own gradients of
it take 6 to 120 times what the forward pass takes, except for a kernel up to 3x3, without
dilation, on maps larger than the kernel. The functions here compute the same sums, rearranged
into that fast case. Figures are nanoseconds per element of the input, one thread, channels
last, 64 to 256 channels (AVX2, torch 2.14). Other devices keep the plain calls.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

# Operators without a public function in Python.
_aten = torch.ops.aten

# Kernels with more columns than this leave the fast path of the weight's gradient.
_FAST_COLUMNS = 3


def depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Convolve every channel by itself, with the padding that keeps the size at stride 1.

    Args:
        x: `[B, C, H, W]`.
        weight: `[C, 1, k, k]`, k odd.
        stride: 1 or 2.
        dilation: 1 or 2.

    Returns:
        `[B, C, ceil(H / stride), ceil(W / stride)]`.
    """
    if _has_fast_backward(x):
        out: Tensor = _Depthwise.apply(x, weight, stride, dilation)
        return out
    return _plain(x, weight, stride, dilation)


def convolve(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Compute `depthwise` up to rounding, without the taps that meet only padding."""
    weight, dilation = _crop_kernel(x, weight, dilation)
    return _plain(x, weight, stride, dilation)


def _plain(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """Compute the plain formula, whose forward pass is fast as it is: 0.6 to 1.3."""
    padding = _padding(weight, dilation)
    return F.conv2d(x, weight, None, stride, padding, dilation, groups=len(weight))


def _padding(weight: Tensor, dilation: int) -> int:
    """Compute the padding that keeps the size at stride 1: `p` of the formula."""
    return dilation * (weight.shape[-1] - 1) // 2


def _crop_kernel(x: Tensor, weight: Tensor, dilation: int) -> tuple[Tensor, int]:
    """Crop the kernel to the taps that reach a pixel, and return it with its dilation."""
    # A tap u places off the centre reads d * u pixels away: beyond H - 1 it reads padding alone.
    # With the whole kernel, a dilated 5x5 one takes 200 on 2x2 pixels; cropped it takes 4.
    margin = weight.shape[-1] // 2 - (max(x.shape[2:]) - 1) // dilation
    if margin <= 0 or not _has_fast_backward(x):
        return weight, dilation
    cropped = weight[:, :, margin:-margin, margin:-margin]  # [C, 1, k - 2 margin, k - 2 margin]
    # Dilation means nothing to a single tap, and without it the fast path is open.
    return cropped, 1 if cropped.shape[-1] == 1 else dilation


def _has_fast_backward(x: Tensor) -> bool:
    """Return whether the backward pass of this module is used for `x`, or torch's own."""
    return (
        x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _Depthwise(torch.autograd.Function):
    """The plain convolution, with the backward pass below."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = stride, dilation
        return _plain(x, weight, stride, dilation)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        # Made of operators that autograd knows, so it serves the double backward pass too.
        settings = *ctx.settings, ctx.needs_input_grad[:2]
        return *convolve_backward(grad_output, *ctx.saved_tensors, *settings), None, None


class Phases:
    """A map, with its even and odd rows and columns picked apart on first use.

    The copy is made once, however many dilated convolutions read the map.
    """

    def __init__(self, x: Tensor) -> None:
        self.whole = x

    @cached_property
    def even(self) -> Tensor:
        """Pixels of even rows and columns, `[B, C, ceil(H/2), ceil(W/2)]`."""
        return self.whole[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)

    @cached_property
    def all(self) -> Tensor:
        """All four phases, `[4 B, C, ceil(H/2), ceil(W/2)]`."""
        return _split_phases(self.whole)


def convolve_backward(
    grad_output: Tensor,
    x: Tensor | Phases,
    weight: Tensor,
    stride: int,
    dilation: int,
    needed: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of `depthwise` or `convolve`, which can be differentiated in turn.

    Args:
        grad_output: `[B, C, ceil(H / stride), ceil(W / stride)]`.
        x: Input of the forward pass, `[B, C, H, W]`.
        weight: Kernel of the forward pass, `[C, 1, k, k]`.
        stride: 1 or 2.
        dilation: 1 or 2.
        needed: Whether the gradients of input and weight are needed.

    Returns:
        Gradients of input and weight, None where not needed.
    """
    phases = x if isinstance(x, Phases) else Phases(x)
    x = phases.whole
    if not _has_fast_backward(x):
        return _plain_backward(grad_output, x, weight, stride, dilation, needed)
    cropped, dilation = _crop_kernel(x, weight, dilation)
    if dilation == 1:
        grad_x, grad_cropped = _undilated_backward(grad_output, x, cropped, stride, needed)
    else:
        grad_x, grad_cropped = _dilated_backward(grad_output, phases, cropped, stride, needed)
    # Taps that meet only padding are multiplied by zeros, so their gradient is zero.
    if grad_cropped is not None and cropped is not weight:
        grad_cropped = F.pad(grad_cropped, ((weight.shape[-1] - cropped.shape[-1]) // 2,) * 4)
    return grad_x, grad_cropped


def _dilated_backward(
    grad_output: Tensor, x: Phases, weight: Tensor, stride: int, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of a convolution of dilation 2 by undilated ones."""
    needs_x_grad, needs_weight_grad = needed
    if stride == 2:
        # With s = d = 2 and p even, 2 i + 2 u - p is even: only every second pixel is read, and
        # among these the convolution is undilated. Both gradients of a 3x3 kernel take 31 to 45
        # by the plain call, 1.4 to 1.7 so.
        grad_even, grad_weight = _undilated_backward(grad_output, x.even, weight, 1, needed)
        if grad_even is None:
            return None, grad_weight
        # Zeros between its pixels, made as [B, H, W, C] and seen as [B, C, H, W]: channels last.
        batch, channels, *size = x.whole.shape
        grad_x = grad_even.new_zeros((batch, *size, channels)).permute(0, 3, 1, 2)
        grad_x[:, :, ::2, ::2] = grad_even
        return grad_x, grad_weight
    grad_weight = None
    if needs_weight_grad:
        # With s = 1, pixel i + 2 u - p has the parity of i: each phase of the output reads one
        # phase of the input, undilated, and the four phases are a batch. Both gradients of a 3x3
        # kernel on 16x16 pixels take 27 to 40 by the plain call; this one takes 1.3 so, copies
        # included.
        grad_phases = _split_phases(grad_output)  # [4 B, C, ceil(H/2), ceil(W/2)]
        _, grad_weight = _undilated_backward(grad_phases, x.all, weight, 1, (False, True))
    if not needs_x_grad:
        return None, grad_weight
    # dx[m] = sum_u w[u] dy[m - 2 u + p], which is the forward formula with u -> k - 1 - u: the
    # kernel flipped both ways. A 3x3 one on 16x16 pixels takes 0.6, and by phases 1.6.
    return _plain(grad_output, weight.flip(2, 3), 1, 2), grad_weight


def _undilated_backward(
    grad_output: Tensor, x: Tensor, weight: Tensor, stride: int, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of an undilated convolution."""
    kernel = weight.shape[-1]
    small = min(x.shape[2:]) < kernel
    needs_x_grad, needs_weight_grad = needed
    # Only the weight's gradient has slow cases.
    if not needs_weight_grad or (not small and kernel <= _FAST_COLUMNS):
        return _plain_backward(grad_output, x, weight, stride, 1, needed)
    grad_weight = _weight_backward(grad_output, x, weight, stride, pad_rows=small)
    if not needs_x_grad:
        return None, grad_weight
    return _plain_backward(grad_output, x, weight, stride, 1, (True, False))[0], grad_weight


def _weight_backward(
    grad_output: Tensor, x: Tensor, weight: Tensor, stride: int, *, pad_rows: bool
) -> Tensor:
    """Compute the weight's gradient, a few columns of the kernel at a time on padded maps."""
    # A whole 5x5 kernel takes 8.1, in columns 3 + 2 it takes 2.3. On maps smaller than the kernel
    # it takes 58, and with rows padded as well 11 (a 3x3 one on 2x2 pixels 96 and 9).
    kernel, padding = weight.shape[-1], _padding(weight, 1)
    row_padding = padding if pad_rows else 0
    # What F.pad has not done is left to the convolution.
    rest = (padding - row_padding, 0)
    padded = F.pad(x, (padding, padding, row_padding, row_padding))  # [B, C, H (+ 2 p), W + 2 p]
    # Column v of the kernel reads columns v, v + s, ... v + s (W' - 1) of the padded map.
    span = (grad_output.shape[3] - 1) * stride
    grads: list[Tensor] = []
    for first in range(0, kernel, _FAST_COLUMNS):
        columns = weight[..., first : first + _FAST_COLUMNS]  # [C, 1, k, 3 or fewer]
        read = padded[..., first : first + span + columns.shape[-1]]
        _, grad = _plain_backward(grad_output, read, columns, stride, 1, (False, True), rest)
        grads.append(grad)
    return torch.cat(grads, dim=-1)  # [C, 1, k, k]


def _plain_backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: int,
    dilation: int,
    needed: tuple[bool, bool],
    padding: tuple[int, int] | None = None,
) -> tuple[Any, Any]:
    """Compute the gradients of input and weight as torch does; None for what is not needed."""
    padding = padding or (_padding(weight, dilation),) * 2
    # Neither transposed nor with output padding, and with a group for each channel.
    settings = (stride, stride), padding, (dilation, dilation), False, (0, 0), len(weight)
    grad_x, grad_weight, _ = _aten.convolution_backward(
        grad_output, x, weight, None, *settings, (*needed, False)
    )
    return grad_x, grad_weight


def _split_phases(x: Tensor) -> Tensor:
    """Pick even and odd rows and columns apart.

    Args:
        x: `[B, C, H, W]`.

    Returns:
        `[4 B, C, ceil(H/2), ceil(W/2)]`, channels last, phase by phase.
    """
    height, width = x.shape[2:]
    if height % 2 or width % 2:
        # Zeros there are what the convolution's own padding is.
        x = F.pad(x, (0, width % 2, 0, height % 2))
    x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    # In memory x is [B, H, W, C]: elements of a row of the map.
    row = width * channels
    rows, columns = height // 2, width // 2
    # One view by strides instead of seven by unflatten and permute.
    pairs = x.as_strided(
        # [row parity, column parity, B, H/2, W/2, C]
        (2, 2, batch, rows, columns, channels),
        (row, channels, height * row, 2 * row, 2 * channels, 1),
    ).contiguous()
    # Elements of a row of a phase.
    phase_row = columns * channels
    # [4 B, C, H/2, W/2], channels last
    return pairs.as_strided(
        (4 * batch, channels, rows, columns), (rows * phase_row, 1, phase_row, channels)
    )
