"""BatchNorm without affine parameters, as functions: for gradients that are written out."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_aten = torch.ops.aten


def plain_normalize(
    norm: nn.BatchNorm2d, x: Tensor, scale: Tensor | None = None, *, track: bool = True
) -> Tensor:
    """BatchNorm, its output channels multiplied by `scale`.

    Multiplying inside saves a pass over the map, and keeping its input for the
    gradient of `scale`.

    Args:
        norm: The module that holds running statistics and settings.
        x: `[B, C, H, W]`.
        scale: `[C]`.
        track: Whether the running statistics are moved on in training.
    """
    tracked = track or not norm.training
    return F.batch_norm(
        x,
        norm.running_mean if tracked else None,
        norm.running_var if tracked else None,
        weight=scale,
        training=norm.training,
        momentum=norm.momentum or 0.0,
        eps=norm.eps,
    )


def normalize(
    norm: nn.BatchNorm2d, x: Tensor, scale: Tensor | None, *, track: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """BatchNorm, with the mean and one over the deviation that made it."""
    tracked = track or not norm.training
    out, mean, inverse = torch.native_batch_norm(
        x,
        scale,
        None,
        norm.running_mean if tracked else None,
        norm.running_var if tracked else None,
        norm.training,
        norm.momentum or 0.0,
        norm.eps,
    )
    return out, mean, inverse


def normalize_back(
    norm: nn.BatchNorm2d,
    gradient: Tensor,
    x: Tensor,
    scale: Tensor | None,
    statistics: tuple[Tensor, Tensor],
    *,
    of_scale: bool,
) -> tuple[Tensor, Tensor | None]:
    """The gradients of its input, and of the scale where that is needed."""
    to_x, to_scale, _ = _aten.native_batch_norm_backward(
        gradient,
        x,
        scale,
        norm.running_mean,
        norm.running_var,
        *statistics,
        norm.training,
        norm.eps,
        [True, of_scale, False],
    )
    return to_x, to_scale if of_scale else None
