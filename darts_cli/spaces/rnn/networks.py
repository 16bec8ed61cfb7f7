"""The language model, its discrete cell, and the cell of the search.

A cell turns the word `x` and the state before it, `h`, into the next state.
Its initial state and each of its nodes are highway steps from an earlier state
`s`: with gate `c = sigmoid(s V)` and candidate `f(s U)`, the node is
`s + c (f(s U) - s)` (DARTS, section 3.1.2 and appendix A.4; `V` and `U` are the
halves of one matrix).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.config import RecurrentNetworkConfig
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Output
from darts_cli.errors import CheckpointError
from darts_cli.genotype import Genotype
from darts_cli.space import NO_OPERATION, SearchSpace

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
"""The functions that primitives name; `none` has none."""

_INIT_RANGE = 0.04
"""Weights start uniform between minus this and this, as published."""


class RecurrentCell(nn.Module, ABC):
    """What the discrete cell and that of the search share: weights, masks, the walk over time."""

    def __init__(self, width: int, nodes: int) -> None:
        super().__init__()
        self.width = width
        self.input_weight = nn.Parameter(torch.empty(2 * width, 2 * width))
        """From word and state, one above the other, to gate and candidate, side by side."""
        self.node_weights = nn.ParameterList(torch.empty(width, 2 * width) for _ in range(nodes))
        for weight in self.parameters():
            nn.init.uniform_(weight, -_INIT_RANGE, _INIT_RANGE)

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
        projected = _masked(words, word_mask) @ self.input_weight[: self.width]
        recurrent = self.input_weight[self.width :]
        walk = self.prepare(mask, mixture)
        states = []
        for word in projected:
            gate, candidate = (word + multiply(_masked(hidden, mask), recurrent)).chunk(2, dim=-1)
            hidden = walk(torch.lerp(hidden, candidate.tanh(), gate.sigmoid()))
            states.append(hidden)
        return torch.stack(states)

    @abstractmethod
    def prepare(self, mask: Tensor | None, mixture: Mixture) -> Callable[[Tensor], Tensor]:
        """What stays the same from word to word, bound to the function that runs the nodes.

        Args:
            mask: Of the states, `[B, D]`, or None.
            mixture: As in `forward`.

        Returns:
            A function from the initial state of the cell, `[B, D]`, to its output, `[B, D]`.
        """


class DiscreteCell(RecurrentCell):
    """The cell of a genotype, of any number of nodes; its output is the mean of those in concat."""

    def __init__(self, genotype: Genotype, width: int) -> None:
        (self.genotype,) = genotype.cells.values()
        super().__init__(width, len(self.genotype.nodes))

    def prepare(self, mask: Tensor | None, mixture: Mixture) -> Callable[[Tensor], Tensor]:
        """Nodes that read one state share one product of it."""
        if mixture:
            raise ValueError("a discrete cell has no candidates to weigh")
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

        def walk(state: Tensor) -> Tensor:
            states = [state]
            halves: dict[int, tuple[Tensor, Tensor]] = {}
            for source, weight in enumerate(joined):
                if source:
                    edge = edges[source - 1]
                    gate, candidate = halves.pop(source - 1)
                    candidate = ACTIVATIONS[edge.operation](candidate)
                    states.append(torch.lerp(states[edge.source], candidate, gate.sigmoid()))
                if weight is not None:
                    product = multiply(_masked(states[source], mask), weight)
                    parts = product.chunk(2 * len(readers[source]), dim=-1)
                    halves |= dict(
                        zip(readers[source], zip(parts[::2], parts[1::2], strict=True), strict=True)
                    )
            return torch.stack([states[number] for number in self.genotype.concat]).mean(dim=0)

        return walk


class SearchCell(RecurrentCell):
    """The cell whose edges are mixed operations; its output is the mean of all nodes.

    One BatchNorm without affine parameters follows the initial state and every
    node, so that no state can grow at the expense of another (appendix A.1.2).
    """

    def __init__(self, space: SearchSpace, width: int) -> None:
        super().__init__(width, space.nodes)
        self.space = space
        self.norm = nn.BatchNorm1d(width, affine=False)

    def prepare(self, mask: Tensor | None, mixture: Mixture) -> Callable[[Tensor], Tensor]:
        """All edges into a node are one product."""
        (rows,) = mixture.values()
        columns = {name: column for column, name in enumerate(self.space.primitives)}
        del columns[NO_OPERATION]
        sizes = [node + self.space.inputs for node in range(self.space.nodes)]
        shares = [part[:, :, None, None] for part in rows.split(sizes)]
        totals = [sum_columns(share, list(columns.values())) for share in shares]

        def walk(state: Tensor) -> Tensor:
            states = [self.norm(state)]
            for weight, share, total in zip(self.node_weights, shares, totals, strict=True):
                before = torch.stack(states)
                gate, candidate = (_masked(before, mask) @ weight).chunk(2, dim=-1)
                # sum_k p_k (s + c (f_k - s)) with the sum over k inside: fewer large tensors.
                mixed = sum_activations(candidate, share, columns)
                kept = total * before
                states.append(self.norm((kept + gate.sigmoid() * (mixed - kept)).sum(dim=0)))
            return torch.stack(states[self.space.inputs :]).mean(dim=0)

        return walk


def multiply(state: Tensor, weight: Tensor) -> Tensor:
    """`state @ weight`, `[B, D] @ [D, N]`, on all threads for a single row too.

    Evaluation word by word is as fast as weights are read, but torch reads them in one thread
    for one row, and in one for each matrix of a batch. So the row is a batch of shorter ones
    (two threads, width 850: 21 GB/s for 16, of memory's 22).
    """
    parts = math.gcd(len(weight), torch.get_num_threads())
    if len(state) > 1 or parts == 1 or state.device.type != "cpu":
        return state @ weight
    shares = torch.bmm(state.view(parts, 1, -1), weight.view(parts, -1, weight.shape[1]))
    return shares.sum(dim=0)


def sum_activations(candidate: Tensor, share: Tensor, columns: Mapping[str, int]) -> Tensor:
    """`sum_k p_k f_k(x)` over all primitives with a function.

    Args:
        candidate: x, `[E, B, D]`.
        share: p, `[E, O, 1, 1]`.
        columns: Which column of `share` belongs to which primitive.
    """
    terms = [share[:, column] * ACTIVATIONS[name](candidate) for name, column in columns.items()]
    return torch.stack(terms).sum(dim=0)


def sum_columns(share: Tensor, columns: Sequence[int]) -> Tensor:
    """The weight of all primitives but `none`, `[E, 1, 1]`, of shares `[E, O, 1, 1]`."""
    return torch.stack([share[:, column] for column in columns]).sum(dim=0)


class LanguageModel(nn.Module):
    """Words in, logits of the next words out; the decoder is the embedding, transposed.

    Embedding and states have one width. Its dropouts are those of Merity et al.
    (2018): whole words, the embedding, the input and the states of the cell,
    and its output, each mask held for the whole segment.
    """

    def __init__(self, config: RecurrentNetworkConfig, cell: RecurrentCell, words: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Embedding(words, config.width)
        # Tied by use: one parameter, read twice.
        self.decoder_bias = nn.Parameter(torch.zeros(words))
        self.cell = cell
        nn.init.uniform_(self.encoder.weight, -_INIT_RANGE, _INIT_RANGE)

    def forward(self, words: Tensor, hidden: Tensor | None, mixture: Mixture) -> Output:
        """Predict the word after each word.

        Args:
            words: Numbers in the vocabulary, `[T, B]`.
            hidden: The state that the text before left behind, `[B, D]`; None: zeros.
            mixture: Weights of the candidates; empty for a discrete cell.

        Returns:
            Logits `[T, B, V]`, the state after the last word `[B, D]`, and, for the
            regularisers, the cell's states before and after dropout, `[T, B, D]` each.
        """
        config, batch = self.config, words.shape[1]
        if hidden is None:
            hidden = self.encoder.weight.new_zeros(batch, config.width)
        embedded = self._drop(self._embed(words), config.dropout_embedding)
        masks = None
        if self.training:
            shape = (batch, config.width)
            masks = (
                self._mask(shape, config.dropout_input),
                self._mask(shape, config.dropout_hidden),
            )
        states = self.cell(embedded, hidden, masks, mixture)
        dropped = self._drop(states, config.dropout_output)
        logits = F.linear(dropped, self.encoder.weight, self.decoder_bias)
        return Output(logits, auxiliary=(states, dropped), hidden=states[-1])

    def _embed(self, words: Tensor) -> Tensor:
        """Embedded words `[T, B, D]`; in training some words of the vocabulary are zeros."""
        weight = self.encoder.weight
        if self.training and self.config.dropout_words:
            # On the rows that are looked up, not on the whole table: the same numbers for less.
            mask = self._mask((len(weight), 1), self.config.dropout_words)
            return F.embedding(words, weight) * F.embedding(words, mask)
        return F.embedding(words, weight)

    def _drop(self, states: Tensor, probability: float) -> Tensor:
        """Locked dropout of `[T, B, D]`: one mask for all words of the segment."""
        if not self.training or not probability:
            return states
        return states * self._mask(states.shape[1:], probability)

    def _mask(self, shape: Sequence[int], probability: float) -> Tensor:
        """Zeros with `probability`, and what keeps the mean elsewhere."""
        weight = self.encoder.weight
        keep = 1 - probability
        mask = torch.empty(tuple(shape), dtype=weight.dtype, device=weight.device)
        return mask.bernoulli_(keep) / keep

    def to_published(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename to published names; the tied decoder is not named a second time."""
        return {_rename(name, _PUBLISHED): tensor for name, tensor in tensors.items()}

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse; a decoder that is there as well has to be the embedding.

        Raises:
            CheckpointError: if it is not.
        """
        tensors = dict(tensors)
        decoder = tensors.pop("decoder.weight", None)
        if decoder is not None and not torch.equal(decoder, tensors["encoder.weight"]):
            raise CheckpointError(
                "decoder.weight: differs from encoder.weight, expected a tied embedding"
            )
        back = {published: own for own, published in _PUBLISHED.items()}
        return {_rename(name, back): tensor for name, tensor in tensors.items()}


_PUBLISHED = {
    "encoder.weight": "encoder.weight",
    "decoder_bias": "decoder.bias",
    "cell.input_weight": "rnns.0._W0",
    "cell.node_weights.": "rnns.0._Ws.",
    "cell.norm.": "rnns.0.bn.",
}
"""How names begin here, and in published checkpoints."""


def _rename(name: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise CheckpointError(f"{name}: not in this network, expected one of a recurrent network")


def _masked(states: Tensor, mask: Tensor | None) -> Tensor:
    return states if mask is None else states * mask
