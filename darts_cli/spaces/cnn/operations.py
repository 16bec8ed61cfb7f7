"""Modules of the convolutional operations, named as in published checkpoints."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.spaces.cnn.kernels.depthwise import depthwise
from darts_cli.spaces.cnn.kernels.norms import plain_normalize
from darts_cli.spaces.cnn.kernels.pooling import Pooling
from darts_cli.spaces.cnn.kernels.separable import Repetition, Stack
from darts_cli.spaces.cnn.primitives import (
    Custom,
    DepthwiseConv,
    FactorizedConv,
    Pool,
    Primitive,
    Skip,
    Zero,
)


def is_reduction(index: int, layers: int) -> bool:
    """Return whether cell `index` halves the resolution.

    These are the cells at one and two thirds of the depth (section 3.1.1).
    """
    return index in (layers // 3, 2 * layers // 3)


class ReLUConvBN(nn.Module):
    """ReLU, convolution, BatchNorm: `[B, C, H, W]` to `[B, C', H, W]`."""

    def __init__(self, channels_in: int, channels_out: int, *, affine: bool) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, C', H, W]`."""
        out: Tensor = self.op(x)
        return out


class FactorizedReduce(nn.Module):
    """Two strided 1x1 convolutions, one shifted by a pixel, side by side: half the resolution.

    With `copies` above one it holds that many independent reductions of one input;
    the output of copy `k` is channels `k * channels_out` onwards.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, affine: bool, copies: int = 1
    ) -> None:
        super().__init__()
        self.copies = copies
        half = copies * (channels_out // 2)
        self.relu = nn.ReLU()
        # Every second pixel is picked by slicing, not by a stride: oneDNN's weight gradient of a
        # strided 1x1 convolution writes past its memory on channels-last maps of few channels
        # (uxlfoundation/oneDNN#6035).
        self.conv_1 = nn.Conv2d(channels_in, half, 1, bias=False)
        self.conv_2 = nn.Conv2d(channels_in, half, 1, bias=False)
        self.bn = nn.BatchNorm2d(copies * channels_out, affine=affine)

    def forward_rectified(self, rectified: Tensor, scale: Tensor) -> Tensor:
        """Compute all after the ReLU, the output's channels multiplied by `scale`.

        Args:
            rectified: Output of the ReLU, `[B, C, H, W]`.
            scale: `[copies * C']`.

        Returns:
            `[B, copies * C', ceil(H/2), ceil(W/2)]`.
        """
        return plain_normalize(self.bn, self._convolve(rectified), scale)

    def _convolve(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, copies * C', ceil(H/2), ceil(W/2)]`."""
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            # The shifted convolution would come out a pixel short of the other one.
            x = F.pad(x, (0, width % 2, 0, height % 2))
        halves = self.conv_1(x[:, :, ::2, ::2]), self.conv_2(x[:, :, 1::2, 1::2])
        if self.copies == 1:
            return torch.cat(halves, dim=1)
        # Each [B, copies * C'/2, H', W'] to [B, copies, C'/2, H', W'], so that both halves of a
        # copy come side by side: [B, copies, C', H', W'], then [B, copies * C', H', W'].
        paired = [half.unflatten(1, (self.copies, -1)) for half in halves]
        return torch.cat(paired, dim=2).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, copies * C', ceil(H/2), ceil(W/2)]`."""
        out: Tensor = self.bn(self._convolve(self.relu(x)))
        return out


class DepthwiseStack(nn.Module):
    """Repetitions of ReLU, depthwise convolution, pointwise convolution, BatchNorm.

    With `copies` above one, the channels are those of as many independent
    operations side by side.
    """

    def __init__(
        self,
        primitive: DepthwiseConv,
        channels: int,
        stride: int,
        *,
        affine: bool,
        copies: int = 1,
    ) -> None:
        super().__init__()
        wide = copies * channels
        layers: list[nn.Module] = []
        # Section 3.1.1: in separable convolutions the stride is in the first repetition.
        for repeat in range(primitive.repeats):
            layers += [
                nn.ReLU(),
                nn.Conv2d(
                    wide,
                    wide,
                    primitive.kernel,
                    stride=stride if repeat == 0 else 1,
                    padding=primitive.padding,
                    dilation=primitive.dilation,
                    groups=wide,
                    bias=False,
                ),
                nn.Conv2d(wide, wide, 1, groups=copies, bias=False),
                nn.BatchNorm2d(wide, affine=affine),
            ]
        self.op = nn.Sequential(*layers)

    def stack(self) -> Stack:
        """Describe the stack for `mixed_separables`, except for its weights."""
        return Stack(
            [
                Repetition(depthwise_conv.stride[0], depthwise_conv.dilation[0], norm)
                for depthwise_conv, _, norm in self._repetitions()
            ]
        )

    def weights(self) -> list[Tensor]:
        """Return depthwise and pointwise weights, alternating."""
        return [
            convolution.weight
            for depthwise_conv, pointwise_conv, _ in self._repetitions()
            for convolution in (depthwise_conv, pointwise_conv)
        ]

    def _repetitions(self) -> Iterator[tuple[nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]]:
        """Yield the layers of each repetition after its ReLU."""
        layers = list(self.op)
        for first in range(0, len(layers), 4):
            _, depthwise_conv, pointwise_conv, norm = layers[first : first + 4]
            if not (
                isinstance(depthwise_conv, nn.Conv2d)
                and isinstance(pointwise_conv, nn.Conv2d)
                and isinstance(norm, nn.BatchNorm2d)
            ):
                raise TypeError("expected ReLU, two convolutions and BatchNorm")
            yield depthwise_conv, pointwise_conv, norm

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, C, ceil(H/stride), ceil(W/stride)]`."""
        return self.forward_rectified(F.relu(x))

    def forward_rectified(self, rectified: Tensor) -> Tensor:
        """Compute all after the first ReLU, which edges that leave one state can share.

        Args:
            rectified: Output of the ReLU, `[B, C, H, W]`.

        Returns:
            `[B, C, ceil(H/stride), ceil(W/stride)]`.
        """
        x = rectified
        for number, (depthwise_conv, pointwise_conv, norm) in enumerate(self._repetitions()):
            if number:
                # In place: the backward pass of BatchNorm needs its input alone.
                x = x.relu_()
            stride, dilation = depthwise_conv.stride[0], depthwise_conv.dilation[0]
            x = depthwise(x, depthwise_conv.weight, stride=stride, dilation=dilation)
            x = norm(pointwise_conv(x))
        return x


def factorized_convolution(primitive: FactorizedConv, channels: int, stride: int) -> nn.Sequential:
    """Build ReLU, 1xk convolution, kx1 convolution and BatchNorm."""
    # A plain Sequential: in published checkpoints there is no `op` around the layers.
    kernel, padding = primitive.kernel, primitive.kernel // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(
            channels, channels, (1, kernel), stride=(1, stride), padding=(0, padding), bias=False
        ),
        nn.Conv2d(
            channels, channels, (kernel, 1), stride=(stride, 1), padding=(padding, 0), bias=False
        ),
        nn.BatchNorm2d(channels),
    )


def preprocess(
    channels_before: tuple[int, int], channels: int, *, reduction_before: bool, affine: bool
) -> tuple[nn.Module, nn.Module]:
    """Build the modules that give a cell's two input states the cell's number of channels.

    Args:
        channels_before: Channels of the two input states.
        channels: Channels of the cell.
        reduction_before: Whether the last cell halved the resolution.
        affine: Whether BatchNorm has affine parameters.
    """
    first, second = channels_before
    # The state before last has twice the resolution where the last cell reduced it.
    before = FactorizedReduce if reduction_before else ReLUConvBN
    return before(first, channels, affine=affine), ReLUConvBN(second, channels, affine=affine)


def build(primitive: Primitive, channels: int, stride: int) -> nn.Module:
    """Build the module of an edge of a discrete network.

    BatchNorm is affine there, and none follows a pooling.
    """
    match primitive:
        case Pool():
            return Pooling(primitive, stride)
        case Skip():
            return (
                nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine=True)
            )
        case DepthwiseConv():
            return DepthwiseStack(primitive, channels, stride, affine=True)
        case FactorizedConv():
            return factorized_convolution(primitive, channels, stride)
        case Custom():
            return primitive.build(channels, stride, True)
        case Zero():
            raise ValueError("a genotype never holds the zero operation")


def drop_path_mask(x: Tensor, probability: float) -> Tensor:
    """Draw the factors of drop path (Larsson et al., 2017, FractalNet).

    Args:
        x: Output of a path, `[B, C, H, W]`.
        probability: Probability that a sample's path is dropped.

    Returns:
        `[B, 1, 1, 1]`, zero for dropped samples.
    """
    keep = 1 - probability
    mask = torch.empty((len(x), 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(keep)
    # Divided so that the mean over draws stays that of `x`.
    return mask / keep
