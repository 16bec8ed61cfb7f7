"""Recurrent cells: of a genotype, and of the search.

A cell maps a word `x` and the state before it, `h`, to the next state.
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
from darts_cli.spaces.rnn.kernels.segment import CellLayout, SearchSegment, masked, plain_segment
from darts_cli.spaces.rnn.primitives import ACTIVATIONS

# Weights start uniform between minus this and this, as published.
INIT_RANGE = 0.04


class RecurrentCell(nn.Module, ABC):
    """Base of the discrete and the search cell: their weights, and the words' part."""

    def __init__(self, width: int, nodes: int) -> None:
        super().__init__()
        self.width = width
        self.input_weight = nn.Parameter(torch.empty(2 * width, 2 * width))
        """`W_x` of the word above `W_h` of the state; columns of gate, then candidate."""
        # [V, U] of each node.
        self.node_weights = nn.ParameterList(torch.empty(width, 2 * width) for _ in range(nodes))
        for weight in self.parameters():
            nn.init.uniform_(weight, -INIT_RANGE, INIT_RANGE)

    def forward(
        self, words: Tensor, hidden: Tensor, masks: tuple[Tensor, Tensor] | None, mixture: Mixture
    ) -> Tensor:
        """Compute the states after each word.

        Args:
            words: Embedded words, `[T, B, D]`.
            hidden: State before the first word, `[B, D]`.
            masks: Dropout masks of words and of states, `[B, D]` each, the same at every word (Gal
                and Ghahramani, 2016); None: no dropout.
            mixture: Weights of the candidates, `[E, O]`; empty for a discrete cell.

        Returns:
            `[T, B, D]`.
        """
        word_mask, mask = masks if masks is not None else (None, None)
        # The words' part of the first product does not wait for any state: one product for all,
        # [T, B, D] @ [D, 2 D].
        projected = masked(words, word_mask) @ self.input_weight[: self.width]
        kind = hidden.device.type
        if not (kind in {"cpu", "cuda", "mps"} and torch.is_autocast_enabled(kind)):
            return self.walk(projected, hidden, mask, mixture)
        # A state goes through hundreds of products, one after the other: too many for half
        # precision, which is left to the products of all words at once.
        with torch.autocast(kind, enabled=False):
            return self.walk(projected.to(hidden.dtype), hidden, mask, mixture)

    @abstractmethod
    def walk(
        self, projected: Tensor, hidden: Tensor, mask: Tensor | None, mixture: Mixture
    ) -> Tensor:
        """Compute the states after each word.

        Args:
            projected: Words' part of the first product, `x W_x`, `[T, B, 2 D]`.
            hidden: State before the first word, `[B, D]`.
            mask: Dropout mask of the states, `[B, D]`; None: no dropout.
            mixture: As in `forward`.

        Returns:
            `[T, B, D]`.
        """


class DiscreteCell(RecurrentCell):
    """The cell of a genotype, of any number of nodes; its output is the mean of the concat."""

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
            # [B, 2 D] to [B, D] each
            gate, candidate = (word + multiply(masked(hidden, mask), recurrent)).chunk(2, dim=-1)
            hidden = run_nodes(torch.lerp(hidden, candidate.tanh(), gate.sigmoid()))
            states.append(hidden)
        return torch.stack(states)

    def _prepare(self, mask: Tensor | None) -> Callable[[Tensor], Tensor]:
        """Return a function from the initial state of the cell, `[B, D]`, to its output, `[B, D]`.

        Nodes that read one state share one product of it.
        """
        edges = self.genotype.edges
        weights = list(self.node_weights)
        readers = [
            [node for node, edge in enumerate(edges) if edge.source == source]
            for source in range(len(edges) + 1)
        ]
        # [D, R * 2 D] for the R nodes that read a state, concatenated once for all words.
        source_weights = [
            torch.cat([weights[node] for node in nodes], dim=1) if nodes else None
            for nodes in readers
        ]

        def run_nodes(state: Tensor) -> Tensor:
            states = [state]
            # Arguments of gate and candidate of each node whose source is known, [B, D] each.
            products: dict[int, tuple[Tensor, Tensor]] = {}
            for source, weight in enumerate(source_weights):
                if source:
                    edge = edges[source - 1]
                    gate, candidate = products.pop(source - 1)
                    candidate = ACTIVATIONS[edge.operation](candidate)
                    states.append(torch.lerp(states[edge.source], candidate, gate.sigmoid()))
                if weight is not None:
                    product = multiply(masked(states[source], mask), weight)
                    # [B, R * 2 D] to [B, D] each, gates and candidates alternating
                    parts = product.chunk(2 * len(readers[source]), dim=-1)
                    pairs = zip(parts[::2], parts[1::2], strict=True)
                    products |= dict(zip(readers[source], pairs, strict=True))
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
        # The only cell of the space: [E, O].
        (cell_mixture,) = mixture.values()
        recurrent = self.input_weight[self.width :]
        inputs = projected, hidden, mask, cell_mixture, recurrent, *self.node_weights
        if not self.layout.has_derivatives:
            return plain_segment(self.layout, *inputs, track=True)
        states: Tensor = SearchSegment.apply(self.layout, *inputs)
        return states


def multiply(state: Tensor, weight: Tensor) -> Tensor:
    """Compute `state @ weight`, `[B, D] @ [D, N]`, on all threads for a single row too."""
    # Evaluation word by word is as fast as weights are read, but torch reads them in one thread
    # for one row, and in one thread for each matrix of a batch. So the row is split into a batch
    # of shorter ones, as many as divide it (two threads, width 850: 21 GB/s instead of 16, of
    # memory's 22).
    if len(state) > 1 or state.device.type != "cpu":
        return state @ weight
    threads = torch.get_num_threads()
    parts = max(part for part in range(1, threads + 1) if len(weight) % part == 0)
    if parts == 1:
        return state @ weight
    # [P, 1, D / P] @ [P, D / P, N], whose P products [1, N] add up
    products = torch.bmm(state.view(parts, 1, -1), weight.view(parts, -1, weight.shape[1]))
    return products.sum(dim=0)
