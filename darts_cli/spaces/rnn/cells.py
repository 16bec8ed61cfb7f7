"""Recurrent cells: that of a genotype, and that of the search.

A cell turns the word `x` and the state before it, `h`, into the next state.
Its initial state and each of its nodes are highway steps from an earlier state
`s`: with gate `c = sigmoid(s V)` and candidate `f(s U)`, the node is
`s + c (f(s U) - s)` (DARTS, section 3.1.2 and appendix A.4; `V` and `U` are the
halves of one matrix).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from darts_cli.engine.strategies import Mixture
from darts_cli.genotype.types import Genotype
from darts_cli.space import SearchSpace
from darts_cli.spaces.rnn.kernels.segment import CellLayout, SearchSegment, masked
from darts_cli.spaces.rnn.operations import ACTIVATIONS

INIT_RANGE = 0.04
"""Weights start uniform between minus this and this, as published."""


class RecurrentCell(nn.Module, ABC):
    """What the discrete cell and that of the search share: the weights, and the words' part."""

    def __init__(self, width: int, nodes: int) -> None:
        super().__init__()
        self.width = width
        self.input_weight = nn.Parameter(torch.empty(2 * width, 2 * width))
        """From word and state, one above the other, to gate and candidate, side by side."""
        self.node_weights = nn.ParameterList(torch.empty(width, 2 * width) for _ in range(nodes))
        for weight in self.parameters():
            nn.init.uniform_(weight, -INIT_RANGE, INIT_RANGE)

    def forward(
        self, words: Tensor, hidden: Tensor, masks: tuple[Tensor, Tensor] | None, mixture: Mixture
    ) -> Tensor:
        """The states after each word.

        Args:
            words: Embedded, `[T, B, D]`.
            hidden: The state before the first, `[B, D]`.
            masks: Of words and of states, `[B, D]` each, the same at every word (Gal and
                Ghahramani, 2016); None: no dropout.
            mixture: Weights of the candidates; empty for a discrete cell.

        Returns:
            `[T, B, D]`.
        """
        word_mask, mask = masks if masks is not None else (None, None)
        # The words' share of the first product does not wait for any state: one product for all.
        projected = masked(words, word_mask) @ self.input_weight[: self.width]
        kind = hidden.device.type
        if not (kind in {"cpu", "cuda", "mps"} and torch.is_autocast_enabled(kind)):
            return self.walk(projected, hidden, mask, mixture)
        # A state goes through hundreds of products, one after the other: too many for half
        # precision, which is for those of all words at once.
        with torch.autocast(kind, enabled=False):
            return self.walk(projected.to(hidden.dtype), hidden, mask, mixture)

    @abstractmethod
    def walk(
        self, projected: Tensor, hidden: Tensor, mask: Tensor | None, mixture: Mixture
    ) -> Tensor:
        """The states after each word, of the words' share of the first product, `[T, B, 2 D]`."""


class DiscreteCell(RecurrentCell):
    """The cell of a genotype, of any number of nodes; its output is the mean of those in concat."""

    def __init__(self, genotype: Genotype, width: int) -> None:
        (self.genotype,) = genotype.cells.values()
        super().__init__(width, len(self.genotype.nodes))

    def walk(
        self, projected: Tensor, hidden: Tensor, mask: Tensor | None, mixture: Mixture
    ) -> Tensor:
        """See `RecurrentCell.walk`."""
        if mixture:
            raise ValueError("a discrete cell has no candidates to weigh")
        recurrent = self.input_weight[self.width :]
        run_nodes = self._prepare(mask)
        states = []
        for word in projected:
            gate, candidate = (word + multiply(masked(hidden, mask), recurrent)).chunk(2, dim=-1)
            hidden = run_nodes(torch.lerp(hidden, candidate.tanh(), gate.sigmoid()))
            states.append(hidden)
        return torch.stack(states)

    def _prepare(self, mask: Tensor | None) -> Callable[[Tensor], Tensor]:
        """From the initial state of the cell, `[B, D]`, to its output.

        Nodes that read one state share one product of it.
        """
        edges = self.genotype.edges
        weights = list(self.node_weights)
        readers = [
            [node for node, edge in enumerate(edges) if edge.source == source]
            for source in range(len(edges) + 1)
        ]
        joined = [
            torch.cat([weights[node] for node in nodes], dim=1) if nodes else None
            for nodes in readers
        ]

        def run_nodes(state: Tensor) -> Tensor:
            states = [state]
            halves: dict[int, tuple[Tensor, Tensor]] = {}
            for source, weight in enumerate(joined):
                if source:
                    edge = edges[source - 1]
                    gate, candidate = halves.pop(source - 1)
                    candidate = ACTIVATIONS[edge.operation](candidate)
                    states.append(torch.lerp(states[edge.source], candidate, gate.sigmoid()))
                if weight is not None:
                    product = multiply(masked(states[source], mask), weight)
                    parts = product.chunk(2 * len(readers[source]), dim=-1)
                    halves |= dict(
                        zip(readers[source], zip(parts[::2], parts[1::2], strict=True), strict=True)
                    )
            return torch.stack([states[number] for number in self.genotype.concat]).mean(dim=0)

        return run_nodes


class SearchCell(RecurrentCell):
    """The cell whose edges are mixed operations; its output is the mean of all nodes.

    One BatchNorm without affine parameters follows the initial state and every
    node, so that no state can grow at the expense of another (appendix A.1.2).
    """

    def __init__(self, space: SearchSpace, width: int) -> None:
        super().__init__(width, space.nodes)
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.layout = CellLayout(space, self.norm)

    def walk(
        self, projected: Tensor, hidden: Tensor, mask: Tensor | None, mixture: Mixture
    ) -> Tensor:
        """See `RecurrentCell.walk`."""
        (rows,) = mixture.values()
        recurrent = self.input_weight[self.width :]
        states: Tensor = SearchSegment.apply(
            self.layout, projected, hidden, mask, rows, recurrent, *self.node_weights
        )
        return states


def multiply(state: Tensor, weight: Tensor) -> Tensor:
    """`state @ weight`, `[B, D] @ [D, N]`, on all threads for a single row too.

    Evaluation word by word is as fast as weights are read, but torch reads them in one thread
    for one row, and in one for each matrix of a batch. So the row is a batch of shorter ones, as
    many as divide it (two threads, width 850: 21 GB/s for 16, of memory's 22).
    """
    if len(state) > 1 or state.device.type != "cpu":
        return state @ weight
    threads = torch.get_num_threads()
    parts = max(part for part in range(1, threads + 1) if len(weight) % part == 0)
    if parts == 1:
        return state @ weight
    shares = torch.bmm(state.view(parts, 1, -1), weight.view(parts, -1, weight.shape[1]))
    return shares.sum(dim=0)
