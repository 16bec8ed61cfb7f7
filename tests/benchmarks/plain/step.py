"""A step of the search as one would first write it.

The virtual step is taken on a copy of the network, and every pass computes all
gradients there are.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PlainLoss = Callable[[nn.Module, dict[str, Tensor]], Tensor]
"""The loss of a batch, of a network and a mixture."""


@dataclass(kw_only=True)
class PlainSearch:
    """A network, its alphas, and what moves them (DARTS, algorithm 1)."""

    network: nn.Module
    alphas: dict[str, Tensor]
    weights_optimizer: torch.optim.SGD
    alphas_optimizer: torch.optim.Adam
    second_order: bool
    clip: float
    virtual_clip: float = 0.0

    @classmethod
    def make(
        cls,
        network: nn.Module,
        alphas: Mapping[str, Tensor],
        *,
        second_order: bool,
        weights: Mapping[str, float],
        clip: float,
        adam: Mapping[str, float | tuple[float, float]],
        virtual_clip: float = 0.0,
    ) -> "PlainSearch":
        """Ready for its first step; `weights` and `adam` are the optimizers' settings."""
        own = {cell: alpha.detach().clone().requires_grad_() for cell, alpha in alphas.items()}
        return cls(
            network=network,
            alphas=own,
            weights_optimizer=torch.optim.SGD(network.parameters(), **weights),  # type: ignore[arg-type]
            alphas_optimizer=torch.optim.Adam(list(own.values()), **adam),  # type: ignore[arg-type]
            second_order=second_order,
            clip=clip,
            virtual_clip=virtual_clip,
        )

    def mixture(self) -> dict[str, Tensor]:
        """The softmax of the alphas."""
        return {cell: alpha.softmax(dim=-1) for cell, alpha in self.alphas.items()}

    def move_alphas(self, train_loss: PlainLoss, valid_loss: PlainLoss) -> list[Tensor]:
        """A step of Adam on the hypergradient, which is returned."""
        if self.second_order:
            gradients = self._second_order(train_loss, valid_loss)
        else:
            gradients, _ = self._backward(self.network, valid_loss)
        for alpha, gradient in zip(self.alphas.values(), gradients, strict=True):
            alpha.grad = gradient
        self.alphas_optimizer.step()
        return gradients

    def move_weights(self, training_loss: PlainLoss) -> None:
        """A step of SGD on the weights."""
        self._backward(self.network, training_loss)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        self.weights_optimizer.step()

    def _backward(self, network: nn.Module, loss: PlainLoss) -> tuple[list[Tensor], list[Tensor]]:
        """The gradients in alphas and weights."""
        alphas, weights = list(self.alphas.values()), list(network.parameters())
        for leaf in [*alphas, *weights]:
            leaf.grad = None
        loss(network, self.mixture()).backward()
        return [_gradient(alpha) for alpha in alphas], [_gradient(weight) for weight in weights]

    def _second_order(self, train_loss: PlainLoss, valid_loss: PlainLoss) -> list[Tensor]:
        """Equations 6 to 8."""
        group = self.weights_optimizer.param_groups[0]
        _, gradients = self._backward(self.network, train_loss)
        coefficient = _clip_coefficient(gradients, self.virtual_clip)
        ahead = copy.deepcopy(self.network)
        with torch.no_grad():
            for weight, own, gradient in zip(
                ahead.parameters(), self.network.parameters(), gradients, strict=True
            ):
                update = coefficient * gradient + group["weight_decay"] * weight
                buffer = self.weights_optimizer.state[own].get("momentum_buffer")
                if buffer is not None:
                    update += group["momentum"] * buffer
                weight.sub_(group["lr"] * update)
        direct, v = self._backward(ahead, valid_loss)
        v_coefficient = _clip_coefficient(v, self.virtual_clip)
        v = [v_coefficient * part for part in v]
        product = self._finite_difference(train_loss, v)
        scale = group["lr"] * coefficient
        return [a - scale * b for a, b in zip(direct, product, strict=True)]

    def _finite_difference(self, train_loss: PlainLoss, v: list[Tensor]) -> list[Tensor]:
        radius = 0.01 / torch.cat([part.flatten() for part in v]).norm()
        weights = list(self.network.parameters())
        sides = []
        for move in (radius, -2 * radius):
            with torch.no_grad():
                for weight, part in zip(weights, v, strict=True):
                    weight.add_(move * part)
            sides.append(self._backward(self.network, train_loss)[0])
        with torch.no_grad():
            for weight, part in zip(weights, v, strict=True):
                weight.add_(radius * part)
        return [(above - below) / (2 * radius) for above, below in zip(*sides, strict=True)]


def _gradient(leaf: Tensor) -> Tensor:
    if leaf.grad is None:
        return torch.zeros_like(leaf)
    return leaf.grad.clone()


def _clip_coefficient(gradients: list[Tensor], clip: float) -> Tensor:
    if not clip:
        return torch.ones(())
    norm = torch.cat([part.flatten() for part in gradients]).norm()
    coefficient: Tensor = (clip / (norm + 1e-6)).clamp(max=1.0)
    return coefficient
