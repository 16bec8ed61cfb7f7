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
    """Loss of a segment, and the states that its regularizers read."""

    nll_sum: Tensor
    """Sum of the words' cross-entropies, `[]`; their logits take too much memory to be returned."""
    states: Tensor
    """Output of the cell at each word, `[T, B, D]`."""
    dropped: Tensor
    """States after dropout, `[T, B, D]`."""


class LanguageModel(nn.Module):
    """A recurrent language model: from words to the cross-entropy of the next words.

    Embedding and states have one width, and the decoder is the embedding,
    transposed. The dropouts are those of Merity et al. (2018): of whole words,
    the embedding, the input and the states of the cell, and its output, each mask
    the same for the whole segment.
    """

    def __init__(self, config: RecurrentNetworkConfig, cell: RecurrentCell, words: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Embedding(words, config.width)
        # Tied weights: the one parameter `encoder.weight` is read twice.
        self.decoder_bias = nn.Parameter(torch.zeros(words))
        self.cell = cell
        nn.init.uniform_(self.encoder.weight, -INIT_RANGE, INIT_RANGE)

    def forward(
        self, words: Tensor, targets: Tensor, hidden: Tensor | None, mixture: Mixture
    ) -> TextOutput:
        """Predict the word after each word.

        Args:
            words: Numbers in the vocabulary, `[T, B]`.
            targets: Numbers of the words to be predicted, `[T, B]`; `IGNORED`: left out.
            hidden: State after the text before, `[B, D]`; None: zeros.
            mixture: Weights of the candidates, `[E, O]`; empty for a discrete cell.

        Returns:
            Sum of the words' cross-entropies `[]`, state after the last word `[B, D]`, and, for
            the regularizers, the cell's states before and after dropout, `[T, B, D]` each.
        """
        config, batch = self.config, words.shape[1]
        if hidden is None:
            hidden = self.encoder.weight.new_zeros(batch, config.width)
        embedded = self._drop(self._embed(words), config.dropout_embedding)
        masks = None
        if self.training:
            shape = (batch, config.width)
            # One of the input, one of the states, drawn in this order.
            masks = (
                self._mask(shape, config.dropout_input),
                self._mask(shape, config.dropout_hidden),
            )
        states = self.cell(embedded, hidden, masks, mixture)
        dropped = self._drop(states, config.dropout_output)
        total = cross_entropy(dropped, self.encoder.weight, self.decoder_bias, targets)
        return TextOutput(nll_sum=total, states=states, dropped=dropped, hidden=states[-1])

    def _embed(self, words: Tensor) -> Tensor:
        """Embed words `[T, B]` as `[T, B, D]`; in training some of the vocabulary are zeros."""
        weight = self.encoder.weight
        if self.training and self.config.dropout_words:
            # Word dropout by rows that are looked up, not of the whole table: the same numbers
            # for less. Embedded masks are [T, B, 1].
            mask = self._mask((len(weight), 1), self.config.dropout_words)
            return F.embedding(words, weight) * F.embedding(words, mask)
        return F.embedding(words, weight)

    def _drop(self, states: Tensor, probability: float) -> Tensor:
        """Apply locked dropout to `[T, B, D]`: one mask for all words of the segment."""
        if not self.training or not probability:
            return states
        return states * self._mask(states.shape[1:], probability)

    def _mask(self, shape: Sequence[int], probability: float) -> Tensor:
        """Draw a dropout mask: zero with `probability`, and elsewhere one over the rest."""
        weight = self.encoder.weight
        keep = 1 - probability
        mask = torch.empty(tuple(shape), dtype=weight.dtype, device=weight.device)
        return mask.bernoulli_(keep) / keep

    def to_reference_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename to published names; the tied decoder is not named a second time."""
        return {_rename(name, _REFERENCE_PREFIXES): tensor for name, tensor in tensors.items()}

    def from_reference_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Invert `to_reference_names`; a decoder among the tensors has to equal the embedding.

        Raises:
            CheckpointError: if it does not.
        """
        tensors = dict(tensors)
        decoder = tensors.pop("decoder.weight", None)
        if decoder is not None and not torch.equal(decoder, tensors["encoder.weight"]):
            raise CheckpointError(
                "decoder.weight: differs from encoder.weight, expected a tied embedding"
            )
        prefixes = {published: own for own, published in _REFERENCE_PREFIXES.items()}
        return {_rename(name, prefixes): tensor for name, tensor in tensors.items()}


# How names begin here, and in published checkpoints.
_REFERENCE_PREFIXES = {
    "encoder.weight": "encoder.weight",
    "decoder_bias": "decoder.bias",
    "cell.input_weight": "rnns.0._W0",
    "cell.node_weights.": "rnns.0._Ws.",
    "cell.norm.": "rnns.0.bn.",
}


def _rename(name: str, prefixes: Mapping[str, str]) -> str:
    """Replace the prefix of a name by the one that it maps to."""
    for old, new in prefixes.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise CheckpointError(f"{name}: not in this network, expected one of a recurrent network")
