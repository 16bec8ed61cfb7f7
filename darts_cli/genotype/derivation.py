"""Derive a genotype from alphas, with the margin of every choice."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from darts_cli.genotype.types import Alphas, CellGenotype, Edge, Genotype
from darts_cli.space import NO_OPERATION, SearchSpace


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """An edge that the derivation kept, and its margins. Probabilities are softmax values."""

    cell: str
    node: int
    edge: Edge
    probability: float
    """Probability of the chosen operation on this edge."""
    operation_margin: float
    """Margin over the next best operation of the same edge."""
    edge_margin: float | None = None
    """Margin over the strongest edge that the node dropped; None if it dropped none."""

    @property
    def margin(self) -> float:
        """Smaller one of the two margins."""
        edge = self.edge_margin
        return self.operation_margin if edge is None else min(self.operation_margin, edge)


def derive(
    space: SearchSpace, alphas: Alphas, *, name: str, origin: Mapping[str, Any] | None = None
) -> tuple[Genotype, list[Choice]]:
    """Keep the strongest edges of every node, each with its strongest operation.

    The strength of an edge is the largest softmax probability over all
    primitives but `none` (DARTS, section 2.4). Ties keep the lower edge and the
    lower primitive.

    Args:
        space: Search space of the cells.
        alphas: Architecture parameters of each cell, `[E, O]`.
        name: Name of the genotype.
        origin: Where the genotype comes from, such as run and epoch, as plain values.

    Returns:
        The genotype, and one `Choice` per edge in the genotype's order.
    """
    cells: dict[str, CellGenotype] = {}
    choices: list[Choice] = []
    # The output concatenates all nodes (section 2.1).
    concat = tuple(range(space.inputs, space.inputs + space.nodes))
    for cell in space.cells:
        rows = iter(alphas[cell])
        nodes = []
        for node in range(space.inputs, space.inputs + space.nodes):
            candidates = [
                _strongest(space, next(rows), cell, node, source) for source in range(node)
            ]
            # sorted is stable: of equally strong edges the lower one stays in front.
            ranked = sorted(candidates, key=lambda candidate: -candidate.probability)
            kept, dropped = ranked[: space.edges_per_node], ranked[space.edges_per_node :]
            if dropped:
                limit = dropped[0].probability
                kept = [replace(edge, edge_margin=edge.probability - limit) for edge in kept]
            nodes.append(tuple(choice.edge for choice in kept))
            choices += kept
        cells[cell] = CellGenotype(tuple(nodes), concat)
    return Genotype(space=space.name, name=name, cells=cells, origin=dict(origin or {})), choices


def _strongest(
    space: SearchSpace, row: Sequence[float], cell: str, node: int, source: int
) -> Choice:
    """Return the best operation of one edge, with its margin over the next best."""
    pairs = zip(softmax(row), space.primitives, strict=True)
    # Not comparable: the strength of `none` is underdetermined (section 2.4).
    candidates = [pair for pair in pairs if pair[1] != NO_OPERATION]
    (best, operation), (second, _), *_ = sorted(candidates, key=lambda pair: -pair[0])
    return Choice(
        cell=cell,
        node=node,
        edge=Edge(operation, source),
        probability=best,
        operation_margin=best - second,
    )


def softmax(row: Sequence[float]) -> list[float]:
    """Return the probabilities of one edge's primitives from its alphas, `[O]`."""
    # Shifted by the maximum, so that no power overflows.
    largest = max(row)
    powers = [math.exp(alpha - largest) for alpha in row]
    total = sum(powers)
    return [power / total for power in powers]
