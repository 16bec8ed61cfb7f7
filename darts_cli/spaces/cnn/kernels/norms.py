"""BatchNorm without affine parameters, as functions: for gradients that are written out."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.runtime.autograd import has_own_gradient
from darts_cli.runtime.ranks import differentiable_all_reduce

_aten = torch.ops.aten


class SynchronizedNorm(nn.BatchNorm2d):
    """BatchNorm over the images of all processes of a run, each of which holds some.

    torch's own, which does the same, runs on CUDA alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `[B, C, H, W]`."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        out = plain_normalize(self, x, self.weight)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)

    def normalize(self, x: Tensor, scale: Tensor | None, *, track: bool) -> Tensor:
        """Normalise by the moments over all processes, and multiply by `scale` `[C]`."""
        # In less precision the moments of a large map would be worth little.
        wide = x.float() if x.dtype.itemsize < torch.float32.itemsize else x
        over = (0, 2, 3)
        count = differentiable_all_reduce(wide.new_full((), wide.numel() / wide.shape[1]))
        mean = differentiable_all_reduce(wide.sum(over)) / count
        centred = wide - mean[:, None, None]
        variance = differentiable_all_reduce(centred.square().sum(over)) / count
        if track and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum or 0.0)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum or 0.0)
        factor = (variance + self.eps).rsqrt()
        factor = factor if scale is None else factor * scale
        return (centred * factor[:, None, None]).to(x.dtype)


def synchronize(network: nn.Module) -> None:
    """Make every BatchNorm of a network one over all processes; its tensors stay as they are."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronizedNorm


def is_fused(x: Tensor, norm: nn.BatchNorm2d) -> bool:
    """Whether mixed operations on `x` take gradients of their own, or the plain formulas.

    Which they do where BatchNorm is over several processes: `norm` stands for all that take part.
    """
    return has_own_gradient(x) and not isinstance(norm, SynchronizedNorm)


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
    if isinstance(norm, SynchronizedNorm) and norm.training:
        return norm.normalize(x, scale, track=track)
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
    if x.is_meta:
        # To plan a run sizes are enough, which torch would find by a hundred calls in Python; that
        # the running statistics are on the device too, it would not see.
        moments = x.new_empty((2, x.shape[1]))
        return torch.empty_like(x), moments[0], moments[1]
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
