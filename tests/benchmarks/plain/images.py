"""The convolutional networks as one would first write them: a module for each operation and edge.

Straight from the formulas (DARTS, section 2 and appendix A), channels first.
Modules have the published names, so that weights go from the project's networks
into these by `to_reference_names`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.genotype.types import CellGenotype, Genotype

NODES = 4


class Zero(nn.Module):
    """No connection."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class FactorizedReduce(nn.Module):
    """Two strided 1x1 convolutions, the second one shifted by a pixel."""

    def __init__(self, channels_in: int, channels_out: int, affine: bool) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels_in, channels_out // 2, 1, stride=2, bias=False)
        self.conv_2 = nn.Conv2d(channels_in, channels_out // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        out: Tensor = self.bn(torch.cat([self.conv_1(x), self.conv_2(x[:, :, 1:, 1:])], dim=1))
        return out


class Separable(nn.Module):
    """ReLU, depthwise convolution, pointwise convolution, BatchNorm, `repeats` times."""

    def __init__(
        self, channels: int, kernel: int, stride: int, dilation: int, repeats: int, affine: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for repeat in range(repeats):
            depthwise = nn.Conv2d(
                channels,
                channels,
                kernel,
                stride=1 if repeat else stride,
                padding=dilation * (kernel - 1) // 2,
                dilation=dilation,
                groups=channels,
                bias=False,
            )
            pointwise = nn.Conv2d(channels, channels, 1, bias=False)
            layers += [nn.ReLU(), depthwise, pointwise, nn.BatchNorm2d(channels, affine=affine)]
        self.op = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class ReLUConvBN(nn.Module):
    """What brings a cell's inputs to its width."""

    def __init__(self, channels_in: int, channels_out: int, affine: bool) -> None:
        super().__init__()
        self.op = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


def make_operation(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """The module of a primitive."""
    match name.split("_"):
        case ["none"]:
            return Zero(stride)
        case ["max", "pool", _]:
            return nn.MaxPool2d(3, stride, padding=1)
        case ["avg", "pool", _]:
            return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        case ["skip", "connect"]:
            return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)
        case ["sep", "conv", size]:
            return Separable(channels, int(size[0]), stride, 1, 2, affine)
        case ["dil", "conv", size]:
            return Separable(channels, int(size[0]), stride, 2, 1, affine)
    raise ValueError(f"{name}: not an operation of the DARTS networks")


PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


class MixedOperation(nn.Module):
    """The weighted sum of all candidates on an edge (equation 2)."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList()
        for name in PRIMITIVES:
            operation = make_operation(name, channels, stride, affine=False)
            if "pool" in name:
                operation = nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False))
            self._ops.append(operation)

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        terms = [share * op(x) for share, op in zip(shares, self._ops, strict=True)]
        return torch.stack(terms).sum(dim=0)


class SearchCell(nn.Module):
    """Every node is the sum of mixed operations on all states before it."""

    def __init__(
        self,
        channels_before: tuple[int, int],
        channels: int,
        reduction: bool,
        reduction_before: bool,
    ) -> None:
        super().__init__()
        first, second = channels_before
        before = FactorizedReduce if reduction_before else ReLUConvBN
        self.preprocess0 = before(first, channels, affine=False)
        self.preprocess1 = ReLUConvBN(second, channels, affine=False)
        self._ops = nn.ModuleList(
            MixedOperation(channels, 2 if reduction and source < 2 else 1)
            for node in range(NODES)
            for source in range(2 + node)
        )

    def forward(self, s0: Tensor, s1: Tensor, shares: Tensor) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        edge = 0
        for _ in range(NODES):
            total = torch.zeros(())
            for state in states:
                total = total + self._ops[edge](state, shares[edge])
                edge += 1
            states.append(total)
        return torch.cat(states[2:], dim=1)


class PlainSupernet(nn.Module):
    """The network of the search."""

    def __init__(
        self, channels: int, layers: int, *, classes: int, image_channels: int = 3
    ) -> None:
        super().__init__()
        width = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(image_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        before, reduced = (width, width), False
        self.cells = nn.ModuleList()
        self.kinds = []
        for index in range(layers):
            reduction = index in (layers // 3, 2 * layers // 3)
            channels *= 2 if reduction else 1
            self.cells.append(SearchCell(before, channels, reduction, reduced))
            self.kinds.append("reduce" if reduction else "normal")
            before, reduced = (before[1], NODES * channels), reduction
        self.classifier = nn.Linear(before[1], classes)

    def forward(self, images: Tensor, mixture: dict[str, Tensor]) -> Tensor:
        s0 = s1 = self.stem(images)
        for cell, kind in zip(self.cells, self.kinds, strict=True):
            s0, s1 = s1, cell(s0, s1, mixture[kind])
        logits: Tensor = self.classifier(s1.mean(dim=(2, 3)))
        return logits


class DiscreteCell(nn.Module):
    """A cell of a genotype."""

    def __init__(
        self,
        genotype: CellGenotype,
        channels_before: tuple[int, int],
        channels: int,
        reduction: bool,
        reduction_before: bool,
    ) -> None:
        super().__init__()
        first, second = channels_before
        before = FactorizedReduce if reduction_before else ReLUConvBN
        self.preprocess0 = before(first, channels, affine=True)
        self.preprocess1 = ReLUConvBN(second, channels, affine=True)
        self.genotype = genotype
        self._ops = nn.ModuleList(
            make_operation(
                edge.operation, channels, 2 if reduction and edge.source < 2 else 1, affine=True
            )
            for edge in genotype.edges
        )

    def forward(self, s0: Tensor, s1: Tensor, drop: float) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        operations = iter(self._ops)
        for node in self.genotype.nodes:
            total = torch.zeros(())
            for edge in node:
                operation = next(operations)
                out = operation(states[edge.source])
                if self.training and drop > 0 and not isinstance(operation, nn.Identity):
                    keep = 1 - drop
                    mask = torch.empty(len(out), 1, 1, 1, dtype=out.dtype).bernoulli_(keep)
                    out = out / keep * mask
                total = total + out
            states.append(total)
        return torch.cat([states[number] for number in self.genotype.concat], dim=1)


class PlainNetwork(nn.Module):
    """The network of a genotype for CIFAR-10, with its auxiliary head."""

    def __init__(self, genotype: Genotype, channels: int, layers: int, *, classes: int) -> None:
        super().__init__()
        width = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.drop_path = 0.0
        before, reduced = (width, width), False
        self.cells = nn.ModuleList()
        for index in range(layers):
            reduction = index in (layers // 3, 2 * layers // 3)
            channels *= 2 if reduction else 1
            cell = genotype.cells["reduce" if reduction else "normal"]
            self.cells.append(DiscreteCell(cell, before, channels, reduction, reduced))
            before, reduced = (before[1], len(cell.concat) * channels), reduction
            if index == 2 * layers // 3:
                self.auxiliary_head = make_auxiliary_head(before[1], classes)
        self.classifier = nn.Linear(before[1], classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and those of the auxiliary head."""
        s0 = s1 = self.stem(images)
        for index, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, self.drop_path)
            if index == 2 * len(self.cells) // 3:
                features = self.auxiliary_head["features"](s1)
                auxiliary = self.auxiliary_head["classifier"](features.flatten(1))
        return self.classifier(s1.mean(dim=(2, 3))), auxiliary


def make_auxiliary_head(channels: int, classes: int) -> nn.ModuleDict:
    """A classifier of maps of 8x8."""
    features = nn.Sequential(
        nn.ReLU(),
        nn.AvgPool2d(5, stride=3),
        nn.Conv2d(channels, 128, 1, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False),
        nn.BatchNorm2d(768),
        nn.ReLU(),
    )
    return nn.ModuleDict({"features": features, "classifier": nn.Linear(768, classes)})
