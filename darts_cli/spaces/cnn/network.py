"""The networks made of a genotype: for images of CIFAR's kind, and of ImageNet's (section 3.3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.config import ConvNetworkConfig
from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.spaces.cnn.kernels.norms import synchronize
from darts_cli.spaces.cnn.operations import (
    DepthwiseStack,
    FactorizedReduce,
    ReLUConvBN,
    build,
    drop_path_mask,
    is_reduction,
)
from darts_cli.spaces.cnn.output import ImageOutput
from darts_cli.spaces.cnn.primitives import DISCRETE_PRIMITIVES, PRIMITIVES

_ALL_PRIMITIVES = PRIMITIVES | DISCRETE_PRIMITIVES


class Cell(nn.Module):
    """A discrete cell of any number of nodes and edges."""

    def __init__(
        self,
        genotype: CellGenotype,
        *,
        channels_before: tuple[int, int],
        channels: int,
        reduction: bool,
        reduction_before: bool,
    ) -> None:
        super().__init__()
        first, second = channels_before
        # The state before last has twice the resolution where the last cell reduced it.
        before = FactorizedReduce if reduction_before else ReLUConvBN
        self.preprocess0 = before(first, channels, affine=True)
        self.preprocess1 = ReLUConvBN(second, channels, affine=True)
        self.genotype = genotype
        self._ops = nn.ModuleList(
            build(_ALL_PRIMITIVES[edge.operation], channels, _stride(edge, reduction))
            for edge in genotype.edges
        )

    def forward(self, s0: Tensor, s1: Tensor, drop: float) -> Tensor:
        """Join the states of `concat`: `[B, C, H, W]` twice to `[B, len(concat) * C, H', W']`."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        # Of each state once, whatever the number of edges that ask for it.
        rectified: dict[int, Tensor] = {}
        operations = iter(self._ops)
        for node in self.genotype.nodes:
            total: Tensor | None = None
            for edge in node:
                operation, state = next(operations), states[edge.source]
                if isinstance(operation, DepthwiseStack):
                    if edge.source not in rectified:
                        rectified[edge.source] = state.relu()
                    out = operation.behind_relu(rectified[edge.source])
                else:
                    out = operation(state)
                drops = self.training and drop > 0 and not isinstance(operation, nn.Identity)
                total = _add_path(total, out, drop_path_mask(out, drop) if drops else None)
            if total is None:
                raise ValueError("a node without edges")
            states.append(total)
        return torch.cat([states[state] for state in self.genotype.concat], dim=1)


def _add_path(total: Tensor | None, out: Tensor, factors: Tensor | None) -> Tensor:
    """A node's sum with one more of its edges, multiplied by the factors of its samples."""
    if total is None:
        return out if factors is None else out * factors
    # In one pass, not by a product and a sum.
    return total + out if factors is None else torch.addcmul(total, out, factors)


def _stride(edge: Edge, reduction: bool) -> int:
    """In a reduction cell, the edges that leave the cell's two inputs halve the resolution."""
    return 2 if reduction and edge.source < 2 else 1


class AuxiliaryHead(nn.Module):
    """A second classifier in mid-network, whose loss helps training (Szegedy et al., 2015).

    Pooling, a 1x1 convolution and a 2x2 convolution that leaves one pixel. The
    published pooling fits maps of 8x8 (CIFAR) and 7x7 (ImageNet); for other
    image sizes the map is pooled on to 2x2, which changes nothing for those two.
    """

    def __init__(self, channels: int, classes: int, *, stem: str) -> None:
        super().__init__()
        imagenet = stem == "imagenet"
        self.features = nn.Sequential(
            nn.ReLU(),
            AuxiliaryPool(stride=2 if imagenet else 3),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            # ImageNet's head was published without this BatchNorm, and so are its weights.
            *([] if imagenet else [nn.BatchNorm2d(768)]),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, classes]` of a map `[B, C, H, W]`."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class AuxiliaryPool(nn.Module):
    """Average pooling, 5x5 where the map has room for it, down to 2x2."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, C, 2, 2]`."""
        if min(x.shape[2:]) >= 5:
            x = F.avg_pool2d(x, 5, self.stride)
        return x if x.shape[2:] == (2, 2) else F.adaptive_avg_pool2d(x, 2)


class Network(nn.Module):
    """A stack of a genotype's cells behind a stem, for small images or for ImageNet's.

    With the stem `cifar` the cells start at full resolution; with `imagenet`
    three strided convolutions come first and the resolution is an eighth.
    """

    training_only = ("auxiliary_head.",)

    def __init__(
        self,
        config: ConvNetworkConfig,
        genotype: Genotype,
        *,
        classes: int,
        image_channels: int = 3,
    ) -> None:
        super().__init__()
        self.drop_path = 0.0
        """Probability that a path is dropped; the task raises it from epoch to epoch."""
        self.auxiliary_after = 2 * config.layers // 3
        width = self._make_stem(config, image_channels)
        # Behind the ImageNet stems the two states differ in resolution, as behind a reduction.
        before, reduced = (width, width), config.stem == "imagenet"
        channels = config.channels
        self.auxiliary_head: AuxiliaryHead | None = None
        normal, reduce = genotype.cells["normal"], genotype.cells["reduce"]
        cells = []
        for index in range(config.layers):
            reduction = is_reduction(index, config.layers)
            channels *= 2 if reduction else 1
            cell = reduce if reduction else normal
            cells.append(
                Cell(
                    cell,
                    channels_before=before,
                    channels=channels,
                    reduction=reduction,
                    reduction_before=reduced,
                )
            )
            before, reduced = (before[1], len(cell.concat) * channels), reduction
            if config.auxiliary and index == self.auxiliary_after:
                self.auxiliary_head = AuxiliaryHead(before[1], classes, stem=config.stem)
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(before[1], classes)

    def _make_stem(self, config: ConvNetworkConfig, image_channels: int) -> int:
        """Build the stem and return its channels."""
        if config.stem == "cifar":
            width = config.stem_multiplier * config.channels
            self.stem0 = None
            self.stem = nn.Sequential(_conv(image_channels, width, 1), nn.BatchNorm2d(width))
            return width
        width = config.channels
        self.stem0 = nn.Sequential(
            _conv(image_channels, width // 2, 2),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            _conv(width // 2, width, 2),
            nn.BatchNorm2d(width),
        )
        self.stem1 = nn.Sequential(nn.ReLU(), _conv(width, width, 2), nn.BatchNorm2d(width))
        return width

    def forward(self, images: Tensor) -> ImageOutput:
        """Logits `[B, classes]` of images `[B, C, H, W]`; the auxiliary ones too when training."""
        if self.stem0 is None:
            s0 = s1 = self.stem(images)
        else:
            s0 = self.stem0(images)
            s1 = self.stem1(s0)
        auxiliary: tuple[Tensor, ...] = ()
        for index, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, self.drop_path)
            if self.training and self.auxiliary_head is not None and index == self.auxiliary_after:
                auxiliary = (self.auxiliary_head(s1),)
        return ImageOutput(logits=self.classifier(s1.mean(dim=(2, 3))), auxiliary=auxiliary)

    def synchronize(self) -> None:
        """Make BatchNorm one over all processes of a run, from now on."""
        synchronize(self)

    def regions(self) -> list[nn.Module]:
        """The cells, which are all alike but for their sizes."""
        return list(self.cells)


def _conv(channels_in: int, channels_out: int, stride: int) -> nn.Conv2d:
    """A 3x3 convolution of a stem."""
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
