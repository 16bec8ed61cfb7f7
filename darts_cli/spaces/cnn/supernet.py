"""The supernet of the search.

All candidate operations of the edges that leave one state are computed
together: those without parameters once, the others side by side along the
channels. Parameters are kept that way; `to_reference_names` and `from_reference_names`
translate to the names and shapes of published checkpoints, which have a module
an edge and operation.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.config import ConvNetworkConfig
from darts_cli.engine.strategies import Mixture
from darts_cli.errors import CheckpointError
from darts_cli.runtime import malloc
from darts_cli.space import SearchSpace
from darts_cli.spaces.cnn.kernels.norms import synchronize
from darts_cli.spaces.cnn.kernels.pooling import (
    NormalizedPooling,
    Pooling,
    SharedMaps,
    mixed_shared,
)
from darts_cli.spaces.cnn.kernels.separable import Layout, mixed_separables
from darts_cli.spaces.cnn.operations import (
    DepthwiseStack,
    FactorizedReduce,
    ReLUConvBN,
    is_reduction,
)
from darts_cli.spaces.cnn.output import ImageOutput
from darts_cli.spaces.cnn.primitives import (
    CNN,
    PRIMITIVES,
    DepthwiseConv,
    FactorizedConv,
    Pool,
    Skip,
    Zero,
)

Scales = Mapping[int, Tensor] | Sequence[Tensor]
"""By the column of a primitive in the alphas."""


class MixedOps(nn.Module):
    """The mixed operations of all edges that leave one state of a cell.

    Poolings and the identity are the same function on each of these edges,
    BatchNorm included, and run once; what has parameters is stacked, edge `k`
    being channels `k * C` onwards. `none` adds nothing and is left out.
    """

    def __init__(self, space: SearchSpace, channels: int, stride: int, edges: int) -> None:
        super().__init__()
        self.channels = channels
        self.edges = edges
        self.shared = nn.ModuleDict()
        self.stacked = nn.ModuleDict()
        for column, name in enumerate(space.primitives):
            match PRIMITIVES[name]:
                case Pool() as pool:
                    norm = nn.BatchNorm2d(channels, affine=False)
                    self.shared[str(column)] = NormalizedPooling(Pooling(pool, stride), norm)
                case Skip() if stride == 1:
                    self.shared[str(column)] = nn.Identity()
                case Skip():
                    self.stacked[str(column)] = FactorizedReduce(
                        channels, channels, affine=False, copies=edges
                    )
                case DepthwiseConv() as conv:
                    self.stacked[str(column)] = DepthwiseStack(
                        conv, channels, stride, affine=False, copies=edges
                    )
                case FactorizedConv():
                    raise ValueError(f"{name} is for discrete cells only")
                case Zero():
                    pass
        columns = torch.tensor([int(column) for column in self.shared])
        self.register_buffer("shared_columns", columns, persistent=False)
        self.store_activations = True
        """Whether the way back finds what is dear to compute, or computes it again."""

    def forward(self, x: Tensor, shares: Tensor, scales: Scales) -> list[Tensor]:
        """The mixed operation of each edge.

        Args:
            x: The state, `[B, C, H, W]`.
            shares: Of the shared operations, `[edges, len(self.shared)]`.
            scales: Of every primitive with weights, for each channel of each edge, `[edges * C]`.

        Returns:
            One map `[B, C, H', W']` an edge.
        """
        return list(self.joined(x, shares, scales).split(self.channels, dim=1))

    def joined(
        self, x: Tensor, shares: Tensor, scales: Scales, others: Sequence[Tensor] = ()
    ) -> Tensor:
        """The same side by side, `[B, edges * C, H', W']`, added to others of that shape."""
        # A ReLU is the first step of every stacked operation: once is enough for all.
        rectified = F.relu(x)
        reductions = [
            operation.scaled(rectified, scales[int(column)])
            for column, operation in self.stacked.items()
            if isinstance(operation, FactorizedReduce)
        ]
        operations = {
            int(column): operation
            for column, operation in self.stacked.items()
            if isinstance(operation, DepthwiseStack)
        }
        return mixed_separables(
            Layout(self.edges, [op.stack() for op in operations.values()], self.store_activations),
            rectified,
            [scales[column] for column in operations],
            [weight for op in operations.values() for weight in op.weights()],
            shared=self._mix_shared(x, shares),
            addends=[*others, *reductions],
        )

    def _mix_shared(self, x: Tensor, shares: Tensor) -> Tensor:
        """Weighted sums of the shared maps, `[edges, B, H', W', C]`."""
        pools = [
            operation.parts()
            for operation in self.shared.values()
            if isinstance(operation, NormalizedPooling)
        ]
        return mixed_shared(SharedMaps(pools, identity=len(pools) < len(self.shared)), x, shares)


class SearchCell(nn.Module):
    """A cell whose edges are mixed operations (equation 2)."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        channels_before: tuple[int, int],
        channels: int,
        reduction: bool,
        reduction_before: bool,
    ) -> None:
        super().__init__()
        self.inputs = space.inputs
        self.nodes = space.nodes
        first, second = channels_before
        # The state before last has twice the resolution where the last cell reduced it.
        before = FactorizedReduce if reduction_before else ReLUConvBN
        self.preprocess0 = before(first, channels, affine=False)
        self.preprocess1 = ReLUConvBN(second, channels, affine=False)
        edges_from = outgoing_edges(space)
        # On the device once, so that no step has to copy it there.
        order = torch.tensor([edge for edges in edges_from for edge in edges])
        self.register_buffer("edges_by_source", order, persistent=False)
        self.edge_counts = [len(edges) for edges in edges_from]
        self.groups = nn.ModuleList(
            MixedOps(space, channels, 2 if reduction and source < space.inputs else 1, len(edges))
            for source, edges in enumerate(edges_from)
        )
        self.channels = channels
        self.first_scaled = min(int(column) for group in self._groups() for column in group.stacked)
        """The column of the first primitive with weights."""

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """Join the nodes: states `[B, C, H, W]`, weights `[E, O]`, to `[B, N * C, H', W']`."""
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        # What has come in at the nodes that are still open, side by side.
        incoming: list[Tensor] = []
        for source, (group, of_group) in enumerate(
            zip(self._groups(), self._deal(weights), strict=True)
        ):
            if source >= self.inputs:
                state, *incoming = self._close(incoming[0])
                states.append(state)
            # The edges that leave a state end in the last nodes, one in each.
            incoming = [group.joined(states[source], *of_group, incoming)]
        states += incoming
        return torch.cat(states[self.inputs :], dim=1)

    def _groups(self) -> Iterator[MixedOps]:
        """One a state that edges leave."""
        for group in self.groups:
            if isinstance(group, MixedOps):
                yield group

    def _close(self, incoming: Tensor) -> tuple[Tensor, Tensor]:
        """The first of the nodes that are open, and the others."""
        state, others = incoming.split([self.channels, incoming.shape[1] - self.channels], dim=1)
        # Copied: what is kept of it for the way back would keep all.
        return state.clone(memory_format=torch.channels_last), others

    def _deal(self, weights: Tensor) -> list[tuple[Tensor, Scales]]:
        """Shares and scales of each group: see `MixedOps.forward`.

        For the whole cell at once, since each of these small operations costs a call.
        """
        by_source = weights.index_select(0, self.get_buffer("edges_by_source"))
        shares = [
            rows.index_select(1, group.get_buffer("shared_columns"))
            for group, rows in zip(self.groups, by_source.split(self.edge_counts), strict=True)
        ]
        counts = [edges * self.channels for edges in self.edge_counts]
        # What no group reads is left out, or the way back would make zeros for each of them.
        first = self.first_scaled
        of_channels = by_source.t()[first:].repeat_interleave(self.channels, dim=1)
        scales = (
            dict(enumerate(of_group.unbind(), start=first))
            for of_group in of_channels.split(counts, dim=1)
        )
        return list(zip(shares, scales, strict=True))


def outgoing_edges(space: SearchSpace) -> list[list[int]]:
    """For every state but the last, the numbers of the edges that leave it, in order."""
    sources = space.inputs + space.nodes - 1
    return [
        [number for number, (_, source) in enumerate(space.edges) if source == state]
        for state in range(sources)
    ]


class Supernet(nn.Module):
    """All networks of the search space in one, weighed by a mixture (section 2.2)."""

    def __init__(
        self,
        config: ConvNetworkConfig,
        *,
        classes: int,
        image_channels: int = 3,
        space: SearchSpace = CNN,
    ) -> None:
        super().__init__()
        self.space = space
        self.free_limit: int | None = None
        """Freed bytes that may lie idle when a pass begins; None: all, which is faster."""
        width = config.stem_multiplier * config.channels
        self.stem = nn.Sequential(
            nn.Conv2d(image_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        before, channels, reduced = (width, width), config.channels, False
        cells = []
        self.kinds: list[str] = []
        normal, reduce = space.cells
        for index in range(config.layers):
            reduction = is_reduction(index, config.layers)
            channels *= 2 if reduction else 1
            cells.append(
                SearchCell(
                    space,
                    channels_before=before,
                    channels=channels,
                    reduction=reduction,
                    reduction_before=reduced,
                )
            )
            self.kinds.append(reduce if reduction else normal)
            before, reduced = (before[1], space.nodes * channels), reduction
        self.cells = nn.ModuleList(cells)
        self.classifier = nn.Linear(before[1], classes)

    def forward(self, images: Tensor, mixture: Mixture) -> ImageOutput:
        """Logits `[B, classes]` of images `[B, C, H, W]`."""
        if self.training:
            if images.device.type == "cpu":
                self._tend_heap()
            self._count_batches()
        s0 = s1 = self.stem(images)
        for cell, kind in zip(self.cells, self.kinds, strict=True):
            s0, s1 = s1, cell(s0, s1, mixture[kind])
        return ImageOutput(logits=self.classifier(s1.mean(dim=(2, 3))))

    def _tend_heap(self) -> None:
        if self.free_limit is None:
            malloc.keep_freed()
        else:
            malloc.give_back_freed(above=self.free_limit)

    def save_memory(self) -> None:
        """Compute separable convolutions a second time on the way back."""
        self.free_limit = 2**28
        for module in self.modules():
            if isinstance(module, MixedOps):
                module.store_activations = False

    def synchronize(self) -> None:
        """Make BatchNorm one over all processes of a run, from now on."""
        synchronize(self)

    def regions(self) -> list[nn.Module]:
        """The cells, which are all alike but for their sizes."""
        return list(self.cells)

    def _count_batches(self) -> None:
        """Count for the running statistics that are moved on outside of their modules."""
        counters = [
            layer.num_batches_tracked
            for module in self.modules()
            if isinstance(module, MixedOps)
            for layer in module.modules()
            if isinstance(layer, nn.BatchNorm2d) and layer.num_batches_tracked is not None
        ]
        # All in one call: there are some three hundred.
        torch._foreach_add_(counters, 1)

    def to_reference_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cut parameters, buffers or momenta into edges, and name them as published."""
        published = {}
        for name, tensor in tensors.items():
            match = _OWN_NAME.fullmatch(name)
            if match is None:
                published[name] = tensor
                continue
            edges = outgoing_edges(self.space)[int(match["source"])]
            stacked = match["kind"] == "stacked" and tensor.dim() > 0
            parts = tensor.chunk(len(edges)) if stacked else [tensor] * len(edges)
            for edge, part in zip(edges, parts, strict=True):
                published[_published_name(match, edge)] = part
        return published

    def from_reference_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `to_reference_names`, for the own names of which all parts are there.

        Raises:
            CheckpointError: if the statistics of a pooling differ between edges
                that leave one state. They see the same maps, so a search never
                makes them differ.
        """
        own = {name: tensor for name, tensor in tensors.items() if "._ops." not in name}
        for name, tensor in {**dict(self.named_parameters()), **dict(self.named_buffers())}.items():
            match = _OWN_NAME.fullmatch(name)
            if match is None:
                continue
            names = [
                _published_name(match, edge)
                for edge in outgoing_edges(self.space)[int(match["source"])]
            ]
            parts = [tensors[part] for part in names if part in tensors]
            if len(parts) < len(names):
                continue
            if match["kind"] == "stacked" and tensor.dim() > 0:
                own[name] = torch.cat(parts)
                continue
            if not all(torch.equal(part, parts[0]) for part in parts):
                raise CheckpointError(
                    f"{names[0]} and its like differ between edges that leave one state; "
                    "expected equal statistics, as a search leaves them"
                )
            own[name] = parts[0]
        return own


_OWN_NAME = re.compile(
    r"cells\.(?P<cell>\d+)\.groups\.(?P<source>\d+)"
    r"\.(?P<kind>shared|stacked)\.(?P<column>\d+)\.(?P<rest>.+)"
)


def _published_name(match: re.Match[str], edge: int) -> str:
    return f"cells.{match['cell']}._ops.{edge}._ops.{match['column']}.{match['rest']}"
