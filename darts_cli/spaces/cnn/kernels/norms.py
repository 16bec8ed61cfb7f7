"""BatchNorm without affine parameters, as functions: for gradients that are written out.

Over the `n = B H W` pixels of a channel (Ioffe and Szegedy, 2015):

    y  = scale * z,  z = (x - mean) * inv_std,  inv_std = 1 / sqrt(variance + eps)
    dx = scale * inv_std * (dy - mean(dy) - z * mean(dy * z)),  dscale = sum(dy * z)

`plain_normalize` is the plain formula, which autograd differentiates.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.runtime.autograd import has_own_gradient
from darts_cli.runtime.ranks import differentiable_all_reduce

# Operators without a public function in Python.
_aten = torch.ops.aten


class SynchronizedNorm(nn.BatchNorm2d):
    """BatchNorm over the images of all ranks, each of which holds some.

    torch's own SyncBatchNorm, which does the same, runs on CUDA alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize `[B, C, H, W]`."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        out = plain_normalize(self, x, self.weight)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)

    def normalize(self, x: Tensor, scale: Tensor | None, *, track: bool) -> Tensor:
        """Normalize by the moments over all ranks, and multiply by `scale` `[C]`.

        Args:
            x: Images of this rank, `[B, C, H, W]`.
            scale: `[C]`; None: ones.
            track: Whether the running statistics are updated.

        Returns:
            `[B, C, H, W]`.
        """
        # In less precision the moments of a large map would be worth little.
        wide = x.float() if x.dtype.itemsize < torch.float32.itemsize else x
        over = (0, 2, 3)
        # Ranks may hold batches of different sizes, so the count is summed as well: `[]`.
        count = differentiable_all_reduce(wide.new_full((), wide.numel() / wide.shape[1]))
        mean = differentiable_all_reduce(wide.sum(over)) / count  # [C]
        # Centred before squaring: a difference of two large sums would cancel.
        centred = wide - mean[:, None, None]
        variance = differentiable_all_reduce(centred.square().sum(over)) / count  # [C]
        if track and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum or 0.0)
                # As in torch, the running variance is the unbiased one.
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum or 0.0)
        factor = (variance + self.eps).rsqrt()
        factor = factor if scale is None else factor * scale
        return (centred * factor[:, None, None]).to(x.dtype)


def synchronize(network: nn.Module) -> None:
    """Make every BatchNorm of a network one over all ranks; its tensors stay as they are."""
    for module in network.modules():
        # The exact class, so that a second call changes nothing.
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronizedNorm


def is_fused(x: Tensor, norm: nn.BatchNorm2d) -> bool:
    """Return whether mixed operations on `x` use hand-written gradients or plain formulas.

    Args:
        x: Input of the mixed operations.
        norm: One BatchNorm for all that take part. Over several ranks the plain formulas are
            used, whose gradients include the communication.
    """
    return has_own_gradient(x) and not isinstance(norm, SynchronizedNorm)


def plain_normalize(
    norm: nn.BatchNorm2d, x: Tensor, scale: Tensor | None = None, *, track: bool = True
) -> Tensor:
    """Compute BatchNorm, its output channels multiplied by `scale`.

    Args:
        norm: Module that holds running statistics and settings.
        x: `[B, C, H, W]`.
        scale: `[C]`; None: ones.
        track: Whether the running statistics are updated in training.

    Returns:
        `[B, C, H, W]`.
    """
    # Multiplying inside saves a pass over the map, and storing its input for the gradient of
    # `scale`.
    if isinstance(norm, SynchronizedNorm) and norm.training:
        return norm.normalize(x, scale, track=track)
    mean, variance, settings = _arguments(norm, track=track)
    return F.batch_norm(x, mean, variance, scale, None, *settings)


def _arguments(
    norm: nn.BatchNorm2d, *, track: bool
) -> tuple[Tensor | None, Tensor | None, tuple[bool, float, float]]:
    """Return running mean and variance, and the settings: training, momentum and eps."""
    settings = norm.training, norm.momentum or 0.0, norm.eps
    # In evaluation the running statistics are read, never written.
    read = track or not norm.training
    return norm.running_mean if read else None, norm.running_var if read else None, settings


def normalize(
    norm: nn.BatchNorm2d, x: Tensor, scale: Tensor | None, *, track: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `plain_normalize`, with the moments that `normalize_backward` needs.

    Args:
        norm: Module that holds running statistics and settings.
        x: `[B, C, H, W]`.
        scale: `[C]`; None: ones.
        track: Whether the running statistics are updated in training.

    Returns:
        Output `[B, C, H, W]`, and the batch's mean and `inv_std`, `[C]` each (empty in evaluation).
    """
    if x.is_meta:
        # To plan a run sizes are enough, which torch would find by a hundred calls in Python; that
        # the running statistics are on the device too, it would not see.
        moments = x.new_empty((2, x.shape[1]))
        return torch.empty_like(x), moments[0], moments[1]
    mean, variance, settings = _arguments(norm, track=track)
    # The operator under F.batch_norm, which drops the moments.
    return torch.native_batch_norm(x, scale, None, mean, variance, *settings)


def normalize_backward(
    norm: nn.BatchNorm2d,
    grad_output: Tensor,
    x: Tensor,
    scale: Tensor | None,
    moments: tuple[Tensor, Tensor],
    *,
    needs_scale_grad: bool,
) -> tuple[Tensor, Tensor | None]:
    """Compute the gradients of `normalize`.

    Args:
        norm: As in the forward pass.
        grad_output: `[B, C, H, W]`.
        x: Input of the forward pass, `[B, C, H, W]`.
        scale: `[C]`; None: ones.
        moments: Mean and `inv_std` that the forward pass returned.
        needs_scale_grad: Whether the gradient of `scale` is needed.

    Returns:
        Gradients of `x` `[B, C, H, W]` and of `scale` `[C]`, the latter None if not needed.
    """
    # Read in evaluation only, where the batch has no moments.
    statistics = norm.running_mean, norm.running_var
    settings = norm.training, norm.eps, [True, needs_scale_grad, False]
    grad_x, grad_scale, _ = _aten.native_batch_norm_backward(
        grad_output, x, scale, *statistics, *moments, *settings
    )
    return grad_x, grad_scale if needs_scale_grad else None
