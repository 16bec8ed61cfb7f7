"""What of the mixed operations has no weights: poolings with their BatchNorm, and the identity.

On all edges that leave a state they are the same maps; an edge weighs them by
shares of its own. Autograd would keep seven tensors as large as the state for
them; here the state alone is kept, since poolings are cheap beside convolutions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.runtime.autograd import differentiable_grads
from darts_cli.spaces.cnn.kernels.norms import (
    is_fused,
    normalize,
    normalize_back,
    plain_normalize,
)
from darts_cli.spaces.cnn.primitives import Pool

_aten = torch.ops.aten

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
        return F.avg_pool2d(x, _KERNEL, self.stride, padding=_PADDING, count_include_pad=False)

    def backward(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The gradient of `x`, given that of the output."""
        window = _KERNEL, (self.stride, self.stride), _PADDING
        if self.kind == "max":
            _, places = _aten.max_pool2d_with_indices(x, *window)
            to_x: Tensor = _aten.max_pool2d_with_indices_backward(
                gradient, x, *window, (1, 1), False, places
            )
        else:
            to_x = _aten.avg_pool2d_backward(gradient, x, *window, False, False, None)
        return to_x


class NormalizedPooling(nn.Sequential):
    """A pooling and its BatchNorm, named as published."""

    def __init__(self, pool: Pooling, norm: nn.BatchNorm2d) -> None:
        super().__init__(pool, norm)

    def parts(self) -> tuple[Pooling, nn.BatchNorm2d]:
        """Both."""
        pool, norm = self
        if not isinstance(pool, Pooling) or not isinstance(norm, nn.BatchNorm2d):
            raise TypeError("expected a pooling and a BatchNorm")
        return pool, norm


@dataclass(frozen=True, slots=True)
class SharedMaps:
    """The poolings, each with its BatchNorm, and whether the identity comes behind them."""

    pools: Sequence[tuple[Pooling, nn.BatchNorm2d]]
    identity: bool

    def plain(self, x: Tensor, *, track: bool) -> list[Tensor]:
        """The maps, straight from the formula."""
        maps = [plain_normalize(norm, pool(x), track=track) for pool, norm in self.pools]
        return [*maps, x] if self.identity else maps


def mixed_shared(shared: SharedMaps, x: Tensor, shares: Tensor) -> Tensor:
    """The weighted sums of the maps.

    Args:
        shared: What makes the maps.
        x: The state, `[B, C, H, W]`.
        shares: `[edges, maps]`.

    Returns:
        `[edges, B, H', W', C]`.
    """
    if is_fused(x, shared.pools[0][1]):
        out: Tensor = _MixedShared.apply(shared, x, shares)
        return out
    maps = shared.plain(x, track=True)
    with torch.autocast(x.device.type, enabled=False):
        # The shares are a softmax, of which half the digits would be lost in half precision.
        return _mix([item.to(shares.dtype) for item in maps], shares).to(maps[0].dtype)


def _mix(maps: Sequence[Tensor], shares: Tensor) -> Tensor:
    batch, channels, height, width = maps[0].shape
    return (shares @ _stack(maps)).view(-1, batch, height, width, channels)


def _stack(maps: Sequence[Tensor]) -> Tensor:
    """`[maps, B * H * W * C]`."""
    # Behind one another they are as channels-last as each of them: one view serves them all.
    joined = torch.cat(list(maps)).contiguous(memory_format=torch.channels_last)
    return joined.permute(0, 2, 3, 1).reshape(len(maps), -1)


class _MixedShared(torch.autograd.Function):
    """See `mixed_shared`."""

    @staticmethod
    def forward(ctx: Any, shared: SharedMaps, x: Tensor, shares: Tensor) -> Tensor:
        maps, statistics = [], []
        for pool, norm in shared.pools:
            out, *moments = normalize(norm, pool(x), None)
            maps.append(out)
            statistics += moments
        if shared.identity:
            maps.append(x)
        ctx.shared = shared
        ctx.save_for_backward(x, shares, *statistics)
        return _mix(maps, shares)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shared: SharedMaps = ctx.shared
        x, shares, *statistics = ctx.saved_tensors
        _, of_x, of_shares = ctx.needs_input_grad
        if torch.is_grad_enabled():
            # The gradient itself is to be differentiated: that of the plain formula can be.
            out = _mix(shared.plain(x, track=False), shares)
            return None, *differentiable_grads(out, [x, shares], gradient, [of_x, of_shares])
        flat = gradient.flatten(1)
        pooled = [pool(x) for pool, _ in shared.pools]
        to_shares = None
        if of_shares:
            norms = (norm for _, norm in shared.pools)
            maps = [
                normalize(norm, item, None, track=False)[0]
                for norm, item in zip(norms, pooled, strict=True)
            ]
            maps = [*maps, x] if shared.identity else maps
            to_shares = flat @ _stack(maps).t()
        if not of_x:
            return None, None, to_shares
        whole = (shares.t() @ flat).view(-1, *gradient.shape[1:])
        to_maps = whole.permute(0, 1, 4, 2, 3).unbind()
        to_x = to_maps[-1] if shared.identity else None
        for number, (pool, norm) in enumerate(shared.pools):
            moments = statistics[2 * number], statistics[2 * number + 1]
            to_pooled, _ = normalize_back(
                norm, to_maps[number], pooled[number], None, moments, of_scale=False
            )
            part = pool.backward(to_pooled, x)
            to_x = part if to_x is None else to_x + part
        return None, to_x, to_shares
