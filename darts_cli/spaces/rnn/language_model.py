"""The language model around a recurrent cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.config import RecurrentNetworkConfig
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Output
from darts_cli.errors import CheckpointError
from darts_cli.spaces.rnn.cells import INIT_RANGE, RecurrentCell
from darts_cli.spaces.rnn.kernels.projection import cross_entropy


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOutput(Output):
    """The loss of a segment, and what its regularizers read."""

    nll_sum: Tensor
    """Sum of the words' cross-entropies, `[]`: their logits are more than memory should hold."""
    states: Tensor
    """The cell's output at each word, `[T, B, D]`."""
    dropped: Tensor
    """The same after dropout."""


class LanguageModel(nn.Module):
    """Words in, the cross-entropy of the next words out.

    Embedding and states have one width, and the decoder is the embedding,
    transposed. The dropouts are those of Merity et al. (2018): whole words, the
    embedding, the input and the states of the cell, and its output, each mask
    held for the whole segment.
    """

    def __init__(self, config: RecurrentNetworkConfig, cell: RecurrentCell, words: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Embedding(words, config.width)
        # Tied by use: one parameter, read twice.
        self.decoder_bias = nn.Parameter(torch.zeros(words))
        self.cell = cell
        nn.init.uniform_(self.encoder.weight, -INIT_RANGE, INIT_RANGE)

    def forward(
        self, words: Tensor, targets: Tensor, hidden: Tensor | None, mixture: Mixture
    ) -> TextOutput:
        """Predict the word after each word.

        Args:
            words: Numbers in the vocabulary, `[T, B]`.
            targets: Those of the words to be predicted, `[T, B]`; `IGNORED`: left out.
            hidden: The state that the text before left behind, `[B, D]`; None: zeros.
            mixture: Weights of the candidates; empty for a discrete cell.

        Returns:
            The sum of the words' cross-entropies `[]`, the state after the last word `[B, D]`,
            and, for the regularisers, the cell's states before and after dropout, `[T, B, D]`
            each.
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
        total = cross_entropy(dropped, self.encoder.weight, self.decoder_bias, targets)
        return TextOutput(nll_sum=total, states=states, dropped=dropped, hidden=states[-1])

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

    def to_reference_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename to published names; the tied decoder is not named a second time."""
        return {_rename(name, _PUBLISHED): tensor for name, tensor in tensors.items()}

    def from_reference_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
