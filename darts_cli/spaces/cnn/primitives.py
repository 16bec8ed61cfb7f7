"""Operations of convolutional cells, as data: `operations.py` builds the modules they describe.

As data they let genotypes be checked without importing torch, and the supernet
compute equal operations of many edges at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from darts_cli.space import NO_OPERATION, SearchSpace

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Zero:
    """No connection: zeros of the edge's output shape."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A 3x3 pooling; averages do not count the padding."""

    kind: str
    """Function of the window: `max` or `avg`."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The identity; where the edge halves the resolution, a factorized reduction."""


@dataclass(frozen=True, slots=True)
class DepthwiseConv:
    """ReLU, depthwise convolution, pointwise convolution, BatchNorm; `repeats` times.

    Twice and undilated it is the separable convolution of NASNet; once and with
    dilation 2 the dilated one of DARTS (section 3.1.1). The stride is in the
    first repetition.
    """

    kernel: int
    dilation: int = 1
    repeats: int = 2

    @property
    def padding(self) -> int:
        """Padding on each side, in pixels, that keeps the resolution at stride 1."""
        return self.dilation * (self.kernel - 1) // 2


@dataclass(frozen=True, slots=True)
class FactorizedConv:
    """ReLU, a 1xk and a kx1 convolution, BatchNorm: NASNet's and AmoebaNet's 7x1_1x7."""

    kernel: int


@dataclass(frozen=True, slots=True)
class Custom:
    """Any module from `[B, C, H, W]` to `[B, C, ceil(H/stride), ceil(W/stride)]`.

    It needs nothing else, but the supernet runs it edge by edge: computing an operation on all
    edges at once takes a class of its own here, and code in `supernet.py`. Its input is shared
    with other edges, so the module must not change it in place.
    """

    build: Callable[[int, int, bool], "nn.Module"]
    """Builds the module from channels, stride, and whether BatchNorm has affine parameters; what
    needs torch is imported in it."""


Primitive = Zero | Pool | Skip | DepthwiseConv | FactorizedConv | Custom

# Candidates of the search, in the order of the published alphas' columns; a new one goes last.
PRIMITIVES: dict[str, Primitive] = {
    NO_OPERATION: Zero(),
    "max_pool_3x3": Pool("max"),
    "avg_pool_3x3": Pool("avg"),
    "skip_connect": Skip(),
    "sep_conv_3x3": DepthwiseConv(3),
    "sep_conv_5x5": DepthwiseConv(5),
    "dil_conv_3x3": DepthwiseConv(3, dilation=2, repeats=1),
    "dil_conv_5x5": DepthwiseConv(5, dilation=2, repeats=1),
}

# Further operations of NASNet and AmoebaNet, for genotypes alone.
DISCRETE_PRIMITIVES: dict[str, Primitive] = {
    "sep_conv_7x7": DepthwiseConv(7),
    "conv_7x1_1x7": FactorizedConv(7),
}


def find_primitive(name: str) -> Primitive:
    """Return the operation of a genotype's edge."""
    return DISCRETE_PRIMITIVES.get(name) or PRIMITIVES[name]


# Section 3.1.1: two inputs and four nodes, each with two edges after derivation.
CNN = SearchSpace(
    name="cnn",
    cells=("normal", "reduce"),
    inputs=2,
    nodes=4,
    edges_per_node=2,
    primitives=tuple(PRIMITIVES),
    discrete_only=tuple(DISCRETE_PRIMITIVES),
)
