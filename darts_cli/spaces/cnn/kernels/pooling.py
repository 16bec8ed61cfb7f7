"""The mixed operations' part without weights: poolings with their BatchNorm, and the identity.

These maps `m_k` are the same on all edges that leave a state; edge `e` weighs them by its own
entries of the mixture (equation 2 of DARTS):

    y[e]     = sum_k pool_weights[e, k] m_k
    dm_k     = sum_e pool_weights[e, k] dy[e]
    dpool_weights[e, k] = sum(dy[e] * m_k)

`SharedMaps.plain` and `_mix` are the plain formula, and the oracle of the tests. Autograd would
store seven tensors as large as the state; the backward pass here stores the state alone and
recomputes the poolings, which are cheap beside convolutions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.runtime.autograd import differentiable_grads
from darts_cli.spaces.cnn.kernels import norms
from darts_cli.spaces.cnn.primitives import Pool

# Operators without a public function in Python.
_aten = torch.ops.aten

# Height and width.
_KERNEL, _PADDING = (3, 3), (1, 1)


class Pooling(nn.Module):
    """A 3x3 pooling of padding 1; an average counts real pixels alone."""

    def __init__(self, primitive: Pool, stride: int) -> None:
        super().__init__()
        self.kind = primitive.kind
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, C, ceil(H/stride), ceil(W/stride)]`."""
        if self.kind == "max":
            return F.max_pool2d(x, _KERNEL, self.stride, padding=_PADDING)
        # As in the paper's code, padding is not counted: averages at the border keep their size.
        return F.avg_pool2d(x, _KERNEL, self.stride, padding=_PADDING, count_include_pad=False)

    def backward(self, grad_output: Tensor, x: Tensor) -> Tensor:
        """Compute the gradient of `x` `[B, C, H, W]`, given that of the output."""
        window = _KERNEL, (self.stride, self.stride), _PADDING
        if self.kind == "max":
            # The indices of the maxima are recomputed: stored they take eight bytes an element.
            _, indices = _aten.max_pool2d_with_indices(x, *window)
            grad_x: Tensor = _aten.max_pool2d_with_indices_backward(
                grad_output, x, *window, (1, 1), False, indices
            )
        else:
            grad_x = _aten.avg_pool2d_backward(grad_output, x, *window, False, False, None)
        return grad_x


class NormalizedPooling(nn.Sequential):
    """A pooling and its BatchNorm, numbered as in published checkpoints."""

    def __init__(self, pool: Pooling, norm: nn.BatchNorm2d) -> None:
        super().__init__(pool, norm)

    def parts(self) -> tuple[Pooling, nn.BatchNorm2d]:
        """Return the pooling and the BatchNorm."""
        pool, norm = self
        return cast(Pooling, pool), cast(nn.BatchNorm2d, norm)


@dataclass(frozen=True, slots=True)
class SharedMaps:
    """Operations that all edges share: poolings with their BatchNorm, then the identity."""

    pools: Sequence[tuple[Pooling, nn.BatchNorm2d]]
    identity: bool
    """Whether the identity is one of them, as the last."""

    def plain(self, x: Tensor, *, track: bool) -> list[Tensor]:
        """Compute the maps by the plain formula.

        Args:
            x: State, `[B, C, H, W]`.
            track: Whether running statistics are updated in training.
        """
        maps = [norms.plain_normalize(norm, pool(x), track=track) for pool, norm in self.pools]
        return [*maps, x] if self.identity else maps


def mixed_shared(shared: SharedMaps, x: Tensor, pool_weights: Tensor) -> Tensor:
    """Compute each edge's weighted sum of the maps.

    Args:
        shared: Operations that make the maps.
        x: State, `[B, C, H, W]`.
        pool_weights: Their columns of the mixture, `[edges, maps]`.

    Returns:
        `[edges, B, H', W', C]`.
    """
    if norms.is_fused(x, shared.pools[0][1]):
        out: Tensor = _MixedShared.apply(shared, x, pool_weights)
        return out
    maps = shared.plain(x, track=True)
    with torch.autocast(x.device.type, enabled=False):
        # The weights are a softmax, of which half the digits would be lost in half precision.
        mixed = _mix([item.to(pool_weights.dtype) for item in maps], pool_weights)
        return mixed.to(maps[0].dtype)


def _mix(maps: Sequence[Tensor], pool_weights: Tensor) -> Tensor:
    """Sum maps `[B, C, H, W]` by the weights of each edge: `[edges, B, H, W, C]`."""
    batch, channels, height, width = maps[0].shape
    # [edges, maps] @ [maps, B * H * W * C], one product for all edges
    return (pool_weights @ _flatten(maps)).view(-1, batch, height, width, channels)


def _flatten(maps: Sequence[Tensor]) -> Tensor:
    """Flatten maps `[B, C, H, W]`, one a row: `[maps, B * H * W * C]`."""
    # Concatenated to [maps * B, C, H, W] they are as channels-last as each of them: one view
    # serves them all.
    whole = torch.cat(list(maps)).contiguous(memory_format=torch.channels_last)
    # [maps * B, H, W, C], which is the order in memory, then [maps, B * H * W * C]
    return whole.permute(0, 2, 3, 1).reshape(len(maps), -1)


class _MixedShared(torch.autograd.Function):
    """Function `mixed_shared` with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, shared: SharedMaps, x: Tensor, pool_weights: Tensor) -> Tensor:
        maps, statistics = [], []
        for pool, norm in shared.pools:
            out, *moments = norms.normalize(norm, pool(x), None)
            maps.append(out)
            statistics += moments
        if shared.identity:
            maps.append(x)
        ctx.shared = shared
        # Besides the state only vectors: `[C]` each, and `[edges, maps]`.
        ctx.save_for_backward(x, pool_weights, *statistics)
        return _mix(maps, pool_weights)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        shared: SharedMaps = ctx.shared
        x, pool_weights, *statistics = ctx.saved_tensors
        _, needs_x_grad, needs_weight_grad = needed = ctx.needs_input_grad
        if torch.is_grad_enabled():
            # Double backward: this gradient will be differentiated itself, as that of the plain
            # formula can be. The forward pass has updated the running statistics already.
            out = _mix(shared.plain(x, track=False), pool_weights)
            return None, *differentiable_grads(out, [x, pool_weights], grad_output, needed[1:])
        flat = grad_output.flatten(1)  # [edges, B * H' * W' * C]
        pooled = [pool(x) for pool, _ in shared.pools]
        grad_weights = None
        if needs_weight_grad:
            maps = [
                norms.normalize(norm, item, None, track=False)[0]
                for (_, norm), item in zip(shared.pools, pooled, strict=True)
            ]
            maps = [*maps, x] if shared.identity else maps
            # [edges, B * H' * W' * C] @ [B * H' * W' * C, maps]
            grad_weights = flat @ _flatten(maps).t()
        if not needs_x_grad:
            return None, None, grad_weights
        # [maps, edges] @ [edges, B * H' * W' * C], viewed as [maps, B, H', W', C]
        grad_whole = (pool_weights.t() @ flat).view(-1, *grad_output.shape[1:])
        # [B, C, H', W'] each, channels last
        grad_maps = grad_whole.permute(0, 1, 4, 2, 3).unbind()
        grad_x = grad_maps[-1] if shared.identity else None
        for number, (pool, norm) in enumerate(shared.pools):
            moments = statistics[2 * number], statistics[2 * number + 1]
            grad_pooled, _ = norms.normalize_backward(
                norm, grad_maps[number], pooled[number], None, moments, needs_scale_grad=False
            )
            part = pool.backward(grad_pooled, x)
            grad_x = part if grad_x is None else grad_x + part
        return None, grad_x, grad_weights
