"""The recurrent supernet as one would first write it, straight from the formula.

Modules and dropout draws have the published names and order.
"""

import torch
from torch import Tensor, nn

from darts_cli.config import RecurrentNetworkConfig

NODES = 8
PRIMITIVES = ("none", "tanh", "relu", "sigmoid", "identity")


def activate(name: str, x: Tensor) -> Tensor:
    """The activation of a primitive."""
    return x if name == "identity" else getattr(torch, name)(x)


class PlainCell(nn.Module):
    """The searched cell: one word and all nodes at a time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._W0 = nn.Parameter(torch.empty(2 * width, 2 * width).uniform_(-0.04, 0.04))
        self._Ws = nn.ParameterList(
            torch.empty(width, 2 * width).uniform_(-0.04, 0.04) for _ in range(NODES)
        )
        self.bn = nn.BatchNorm1d(width, affine=False)

    def forward(
        self, words: Tensor, hidden: Tensor, input_mask: Tensor, mask: Tensor, shares: Tensor
    ) -> Tensor:
        """The states after each word, `[T, B, D]`."""
        outputs = []
        for word in words:
            both = torch.cat([word * input_mask, hidden * mask], dim=-1)
            gate, candidate = (both @ self._W0).chunk(2, dim=-1)
            states = self.bn(hidden + gate.sigmoid() * (candidate.tanh() - hidden))[None]
            first = 0
            for weight in self._Ws:
                # All edges into a node at once, as the published cell has it.
                edges = shares[first : first + len(states), :, None, None]
                first += len(states)
                gate, candidate = ((states * mask) @ weight).chunk(2, dim=-1)
                gate = gate.sigmoid()
                total = torch.zeros_like(hidden)
                for column, name in enumerate(PRIMITIVES):
                    if name != "none":
                        step = states + gate * (activate(name, candidate) - states)
                        total = total + (edges[:, column] * step).sum(dim=0)
                states = torch.cat([states, self.bn(total)[None]])
            hidden = states[1:].mean(dim=0)
            outputs.append(hidden)
        return torch.stack(outputs)


class PlainLanguageModel(nn.Module):
    """The language model around the searched cell; the decoder is the embedding, transposed."""

    def __init__(self, config: RecurrentNetworkConfig, words: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Embedding(words, config.width)
        self.decoder = nn.Linear(config.width, words)
        nn.init.uniform_(self.encoder.weight, -0.04, 0.04)
        nn.init.zeros_(self.decoder.bias)
        self.decoder.weight = self.encoder.weight
        self.rnns = nn.ModuleList([PlainCell(config.width)])

    def forward(
        self, words: Tensor, hidden: Tensor, mixture: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `[T, B, V]`, the states, and the states under dropout, `[T, B, D]`."""
        config, batch = self.config, words.shape[1]
        embedded = self._drop(self.encoder(words), config.dropout_embedding)
        input_mask = self._mask((batch, config.width), config.dropout_input)
        mask = self._mask((batch, config.width), config.dropout_hidden)
        (shares,) = mixture.values()
        states = self.rnns[0](embedded, hidden, input_mask, mask, shares)
        dropped = self._drop(states, config.dropout_output)
        return self.decoder(dropped), states, dropped

    def _drop(self, states: Tensor, probability: float) -> Tensor:
        if not probability:
            return states
        return states * self._mask((1, *states.shape[1:]), probability)

    def _mask(self, shape: tuple[int, ...], probability: float) -> Tensor:
        keep = 1 - probability
        return torch.empty(shape, dtype=self.encoder.weight.dtype).bernoulli_(keep) / keep
