"""Networks of a genotype, for small images like CIFAR's and for ImageNet's (section 3.3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.config import ConvNetworkConfig
from darts_cli.genotype.types import CellGenotype, Edge, Genotype
from darts_cli.spaces.cnn.kernels.norms import synchronize
from darts_cli.spaces.cnn.operations import (
    DepthwiseStack,
    build,
    drop_path_mask,
    is_reduction,
    preprocess,
)
from darts_cli.spaces.cnn.output import ImageOutput
from darts_cli.spaces.cnn.primitives import find_primitive


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
        self.preprocess0, self.preprocess1 = preprocess(
            channels_before, channels, reduction_before=reduction_before, affine=True
        )
        self.genotype = genotype
        self._ops = nn.ModuleList(
            build(find_primitive(edge.operation), channels, _stride(edge, reduction))
            for edge in genotype.edges
        )

    def forward(self, s0: Tensor, s1: Tensor, drop: float) -> Tensor:
        """Compute the nodes and concatenate the states of `concat` along the channels.

        Args:
            s0: Output of the cell before the last one, `[B, C0, H, W]`.
            s1: Output of the last cell, `[B, C1, H, W]`.
            drop: Probability that a path is dropped in training.

        Returns:
            `[B, len(concat) * C, H', W']`.
        """
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        # ReLU of each state, computed once for all edges that start with it.
        rectified: dict[int, Tensor] = {}
        operations = iter(self._ops)
        for node in self.genotype.nodes:
            total: Tensor | None = None
            for edge in node:
                operation, state = next(operations), states[edge.source]
                if isinstance(operation, DepthwiseStack):
                    if edge.source not in rectified:
                        rectified[edge.source] = state.relu()
                    out = operation.forward_rectified(rectified[edge.source])
                else:
                    out = operation(state)
                # The identity is never dropped, as in the paper's code.
                drops = self.training and drop > 0 and not isinstance(operation, nn.Identity)
                total = _add_path(total, out, drop_path_mask(out, drop) if drops else None)
            if total is None:
                raise ValueError("a node without edges")
            states.append(total)
        return torch.cat([states[state] for state in self.genotype.concat], dim=1)


def _add_path(total: Tensor | None, out: Tensor, mask: Tensor | None) -> Tensor:
    """Add the output of an edge to a node's sum, under its drop path mask.

    Args:
        total: Sum so far, `[B, C, H, W]`; None before the first edge.
        out: Output of the edge, `[B, C, H, W]`.
        mask: `[B, 1, 1, 1]`; None: nothing is dropped.

    Returns:
        `[B, C, H, W]`.
    """
    if total is None:
        return out if mask is None else out * mask
    # In one pass over memory instead of two, for product and sum.
    return total + out if mask is None else torch.addcmul(total, out, mask)


def _stride(edge: Edge, reduction: bool) -> int:
    """Return the stride: 2 in a reduction cell, for edges that leave its two inputs."""
    return 2 if reduction and edge.source < 2 else 1


class AuxiliaryHead(nn.Module):
    """A second classifier in mid-network, whose loss helps training (Szegedy et al., 2015).

    Pooling, a 1x1 convolution and a 2x2 convolution that leaves one pixel. The
    published pooling fits maps of 8x8 (CIFAR) and 7x7 (ImageNet); for other
    image sizes the map is then pooled to 2x2, which changes nothing for those two.
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
        """Map `[B, C, H, W]` to logits `[B, classes]`."""
        # [B, 768, 1, 1] to [B, 768]
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
    """A stem and a stack of a genotype's cells, for small images or for ImageNet's.

    With the stem `cifar` the cells start at full resolution; with `imagenet`
    three strided convolutions come first and the resolution is an eighth.
    """

    # Prefixes of parameters that evaluation does without.
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
        """Probability that a path is dropped; the training module raises it every epoch."""
        # The head follows the second reduction cell, at two thirds of the depth.
        self.auxiliary_after = 2 * config.layers // 3
        width = self._make_stem(config, image_channels)
        # After the ImageNet stems the two states differ in resolution, as after a reduction.
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
            # As in the search, full resolution.
            self.stem = nn.Sequential(_conv(image_channels, width, 1), nn.BatchNorm2d(width))
            return width
        width = config.channels
        # To a quarter of the resolution, and then by `stem1` to an eighth.
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
        """Map images `[B, C, H, W]` to logits `[B, classes]`, and in training to auxiliary ones."""
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
        # Global average pooling: [B, C, H, W] to [B, C].
        return ImageOutput(logits=self.classifier(s1.mean(dim=(2, 3))), auxiliary=auxiliary)

    def synchronize(self) -> None:
        """Make every BatchNorm one over all ranks from now on."""
        synchronize(self)

    def regions(self) -> list[nn.Module]:
        """Return the cells, which are compiled one by one: they differ in sizes alone."""
        return list(self.cells)


def _conv(channels_in: int, channels_out: int, stride: int) -> nn.Conv2d:
    """Build a 3x3 convolution of a stem."""
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
