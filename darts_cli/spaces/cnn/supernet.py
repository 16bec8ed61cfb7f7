"""The supernet of the search.

All candidate operations of the edges that leave one state are computed together: those without
parameters once, the others side by side along the channels. Parameters are stored that way;
`to_reference_names` and `from_reference_names` translate to the names and shapes of published
checkpoints, which have a module for each edge and operation.
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
    is_reduction,
    preprocess,
)
from darts_cli.spaces.cnn.output import ImageOutput
from darts_cli.spaces.cnn.primitives import (
    CNN,
    PRIMITIVES,
    Custom,
    DepthwiseConv,
    FactorizedConv,
    Pool,
    Skip,
    Zero,
)

# Mixture weights `[edges * C]`, by the column of their primitive in the alphas.
ChannelWeights = Mapping[int, Tensor] | Sequence[Tensor]


class MixedOps(nn.Module):
    """The mixed operations of all edges that leave one state of a cell (equation 2).

    Poolings and the identity are the same function on each of these edges,
    BatchNorm included, and run once; operations with parameters are stacked, edge
    `k` being channels `k * C` onwards. Custom operations have a module for each edge.
    `none` adds nothing and is left out.
    """

    def __init__(self, space: SearchSpace, channels: int, stride: int, edges: int) -> None:
        super().__init__()
        self.channels = channels
        self.edges = edges
        # By the column of the primitive in the alphas; these are names in checkpoints.
        self.shared = nn.ModuleDict()
        self.stacked = nn.ModuleDict()
        self.custom = nn.ModuleDict()
        for column, name in enumerate(space.primitives):
            match PRIMITIVES[name]:
                case Pool() as pool:
                    # BatchNorm after every pooling, as in the paper's code.
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
                case Custom() as custom:
                    self.custom[str(column)] = nn.ModuleList(
                        custom.build(channels, stride, False) for _ in range(edges)
                    )
                case FactorizedConv():
                    raise ValueError(f"{name} is for discrete cells only")
                case Zero():
                    pass
        columns = torch.tensor([int(column) for column in self.shared])
        self.register_buffer("shared_columns", columns, persistent=False)
        self.store_activations = True
        """Whether activations are stored for the backward pass, or recomputed there."""

    def forward(
        self,
        x: Tensor,
        pool_weights: Tensor,
        channel_weights: ChannelWeights,
        addends: Sequence[Tensor] = (),
    ) -> Tensor:
        """Compute the mixed operation of each edge, side by side along the channels.

        Args:
            x: State, `[B, C, H, W]`.
            pool_weights: Mixture weights of the shared operations, `[edges, len(self.shared)]`.
            channel_weights: Mixture weights of every stacked or custom primitive, repeated for
                each channel of each edge, `[edges * C]`.
            addends: Tensors to be added, of the shape of the result.

        Returns:
            `[B, edges * C, H', W']`.
        """
        # A ReLU is the first step of every stacked operation: once is enough for all.
        rectified = F.relu(x)
        reductions = [
            operation.forward_rectified(rectified, channel_weights[int(column)])
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
            [channel_weights[column] for column in operations],
            [weight for op in operations.values() for weight in op.weights()],
            shared=self._mix_shared(x, pool_weights),
            # Summed inside, in place, rather than by one more pass over the map for each.
            addends=[*addends, *reductions, *self._run_custom(x, channel_weights)],
        )

    def _run_custom(self, x: Tensor, channel_weights: ChannelWeights) -> Iterator[Tensor]:
        """Yield the weighted output of each custom operation, `[B, edges * C, H', W']`."""
        for column, modules in self.custom.items():
            if isinstance(modules, nn.ModuleList):
                out = torch.cat([module(x) for module in modules], dim=1)
                # [edges * C] to [edges * C, 1, 1]
                out = out * channel_weights[int(column)][:, None, None]
                yield out.contiguous(memory_format=torch.channels_last)

    def _mix_shared(self, x: Tensor, pool_weights: Tensor) -> Tensor:
        """Compute weighted sums of the shared maps, `[edges, B, H', W', C]`."""
        pools = [
            operation.parts()
            for operation in self.shared.values()
            if isinstance(operation, NormalizedPooling)
        ]
        shared = SharedMaps(pools, identity=len(pools) < len(self.shared))
        return mixed_shared(shared, x, pool_weights)


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
        self.preprocess0, self.preprocess1 = preprocess(
            channels_before, channels, reduction_before=reduction_before, affine=False
        )
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
        # Column of the first primitive that some group stacks or has modules of.
        self.first_stacked = min(
            (int(column) for ops in self._groups() for column in (*ops.stacked, *ops.custom)),
            default=len(space.primitives),
        )

    def forward(self, s0: Tensor, s1: Tensor, mixture: Tensor) -> Tensor:
        """Compute the nodes and concatenate them along the channels.

        Args:
            s0: Output of the cell before the last one, `[B, C0, H, W]`.
            s1: Output of the last cell, `[B, C1, H, W]`.
            mixture: Weights of the candidates, `[E, O]`.

        Returns:
            `[B, N * C, H', W']`.
        """
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        # Sums so far of the nodes that are not finished, side by side: [B, nodes * C, H', W'].
        incoming: list[Tensor] = []
        for source, (ops, weights) in enumerate(
            zip(self._groups(), self._split_mixture(mixture), strict=True)
        ):
            if source >= self.inputs:
                # Node `source` has had the last of its edges.
                state, *incoming = self._finish_node(incoming[0])
                states.append(state)
            # The edges that leave a state end in the last nodes, one in each.
            incoming = [ops(states[source], *weights, incoming)]
        states += incoming
        return torch.cat(states[self.inputs :], dim=1)

    def _groups(self) -> Iterator[MixedOps]:
        """Yield the mixed operations of each state that edges leave."""
        for group in self.groups:
            if isinstance(group, MixedOps):
                yield group

    def _finish_node(self, incoming: Tensor) -> tuple[Tensor, Tensor]:
        """Split `[B, nodes * C, H, W]` into the first node and the others."""
        state, others = incoming.split([self.channels, incoming.shape[1] - self.channels], dim=1)
        # Clone, or autograd would keep the whole concatenated tensor alive.
        return state.clone(memory_format=torch.channels_last), others

    def _split_mixture(self, mixture: Tensor) -> list[tuple[Tensor, ChannelWeights]]:
        """Split the mixture `[E, O]` into pool and channel weights of each group.

        See `MixedOps.forward` for both. For the whole cell at once, since each of these small
        operations costs a call.
        """
        # [E, O], the edges of each group consecutive
        grouped = mixture.index_select(0, self.get_buffer("edges_by_source"))
        pool_weights = [
            edge_mixture.index_select(1, group.get_buffer("shared_columns"))
            for group, edge_mixture in zip(
                self.groups, grouped.split(self.edge_counts), strict=True
            )
        ]
        counts = [edges * self.channels for edges in self.edge_counts]
        # Columns that no group stacks are left out, or the backward pass would make zeros for each.
        first = self.first_stacked
        # [O - first, E * C]: a weight for each channel of each edge
        repeated = grouped.t()[first:].repeat_interleave(self.channels, dim=1)
        channel_weights = (
            # [O - first, edges * C] to [edges * C] each
            dict(enumerate(part.unbind(), start=first))
            for part in repeated.split(counts, dim=1)
        )
        return list(zip(pool_weights, channel_weights, strict=True))


def outgoing_edges(space: SearchSpace) -> list[list[int]]:
    """Return, for every state but the last, the numbers of the edges that leave it, in order."""
    sources = space.inputs + space.nodes - 1
    return [
        [number for number, (_, source) in enumerate(space.edges) if source == state]
        for state in range(sources)
    ]


class Supernet(nn.Module):
    """All networks of the search space in one, weighted by a mixture (section 2.2)."""

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
        """Freed bytes that malloc may hold when a pass begins; None: all, which is faster."""
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
        """Compute the logits of a batch.

        Args:
            images: `[B, C, H, W]`.
            mixture: Weights of the candidates of each kind of cell, `[E, O]`.

        Returns:
            Logits `[B, classes]`.
        """
        if self.training:
            if images.device.type == "cpu":
                self._tune_malloc()
            self._count_batches()
        s0 = s1 = self.stem(images)
        for cell, kind in zip(self.cells, self.kinds, strict=True):
            s0, s1 = s1, cell(s0, s1, mixture[kind])
        # Global average pooling: [B, C, H, W] to [B, C].
        return ImageOutput(logits=self.classifier(s1.mean(dim=(2, 3))))

    def _tune_malloc(self) -> None:
        """Tune glibc's malloc: keep freed memory for the next pass, or return it."""
        if self.free_limit is None:
            malloc.keep_freed()
        else:
            malloc.give_back_freed(above=self.free_limit)

    def save_memory(self) -> None:
        """Recompute separable convolutions in the backward pass, and return freed memory."""
        self.free_limit = 2**28  # 256 MiB
        for module in self.modules():
            if isinstance(module, MixedOps):
                module.store_activations = False

    def synchronize(self) -> None:
        """Make every BatchNorm one over all ranks from now on."""
        synchronize(self)

    def regions(self) -> list[nn.Module]:
        """Return the cells, which are compiled one by one: they differ in sizes alone."""
        return list(self.cells)

    def _count_batches(self) -> None:
        """Count a batch for running statistics that are updated outside of their modules."""
        counters = [
            layer.num_batches_tracked
            for module in self.modules()
            if isinstance(module, MixedOps)
            for layer in (*module.shared.modules(), *module.stacked.modules())
            if isinstance(layer, nn.BatchNorm2d) and layer.num_batches_tracked is not None
        ]
        # All in one call: there are about three hundred.
        torch._foreach_add_(counters, 1)

    def to_reference_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Split parameters, buffers or momenta by edge, and name them as published."""
        renamed = {}
        for name, tensor in tensors.items():
            match = _OWN_NAME.fullmatch(name)
            if match is None:
                renamed[name] = tensor
                continue
            edges = outgoing_edges(self.space)[int(match["source"])]
            if match["index"]:
                renamed[_reference_name(match, edges[int(match["index"])])] = tensor
                continue
            # Edge by edge along the channels. A batch counter, `[]`, is one for all edges, as is
            # what they share.
            stacked = match["kind"] == "stacked" and tensor.dim() > 0
            parts = tensor.chunk(len(edges)) if stacked else [tensor] * len(edges)
            for edge, part in zip(edges, parts, strict=True):
                renamed[_reference_name(match, edge)] = part
        return renamed

    def from_reference_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Invert `to_reference_names`, for the names whose parts are all present.

        Raises:
            CheckpointError: if the statistics of a pooling differ between edges
                that leave one state. They see the same maps, so in a search they
                never differ.
        """
        own = {name: tensor for name, tensor in tensors.items() if "._ops." not in name}
        for name, tensor in {**dict(self.named_parameters()), **dict(self.named_buffers())}.items():
            match = _OWN_NAME.fullmatch(name)
            if match is None:
                continue
            edges = outgoing_edges(self.space)[int(match["source"])]
            if match["index"]:
                edges = [edges[int(match["index"])]]
            names = [_reference_name(match, edge) for edge in edges]
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


# Names of tensors of the mixed operations; only those of custom ones are of a single edge.
_OWN_NAME = re.compile(
    r"cells\.(?P<cell>\d+)\.groups\.(?P<source>\d+)"
    r"\.(?:(?P<kind>shared|stacked)\.(?P<column>\d+)"
    r"|custom\.(?P<custom>\d+)\.(?P<index>\d+))\.(?P<rest>.+)"
)


def _reference_name(match: re.Match[str], edge: int) -> str:
    """Return the name of one edge's part of a tensor in published checkpoints."""
    column = match["column"] or match["custom"]
    return f"cells.{match['cell']}._ops.{edge}._ops.{column}.{match['rest']}"
