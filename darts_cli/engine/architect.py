"""The bilevel step: the hypergradient of the validation loss in the alphas, and Adam on it.

The validation loss is taken at the weights after a virtual step of training,
so that its gradient in the alphas knows how the weights would answer to them
(DARTS, section 2.3). With a virtual step of length zero this is the first
order.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from darts_cli.config import AlphasConfig
from darts_cli.engine import strategies
from darts_cli.engine.strategies import Alphas, Mixture

Loss = Callable[[], Tensor]
"""Computes a loss at the present weights and alphas, with the same random numbers every time."""

_RADIUS = 0.01
"""The finite difference moves the weights by this norm (footnote 2 of the paper)."""

_CLIP_GUARD = 1e-6
"""Added to the norm in a clip coefficient, as torch's own clipping does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtualStep:
    """The step of SGD that the hypergradient looks ahead by.

    w' = w - lr (c g + momentum m + weight_decay w), with c = min(1, clip / ||g||).
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float = 0.0
    """Largest norm of g, and of the validation gradient; 0: no clipping, c = 1."""
    buffers: Sequence[Tensor | None] = field(default=())
    """m, one a weight; None counts as zero for that weight alone."""


def hypergradient(
    *,
    train_loss: Loss,
    valid_loss: Loss,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    step: VirtualStep | None,
    state: Sequence[Tensor] = (),
    exact: bool = False,
) -> list[Tensor]:
    """The gradient of the validation loss after a virtual step, in the alphas (equations 6 to 8).

    dL/da = grad_a L_val(w', a) - lr c (d^2 L_train / da dw) v, where v is the
    gradient of L_val in w'. The product is the difference of grad_a L_train at
    w + e v and w - e v over 2 e, with e = 0.01 / ||v||.

    Weights are moved in place and come back from a copy: they and `state` are
    bit for bit what they were. Nothing is left in any `.grad`.

    Args:
        train_loss: L_train at the present weights and alphas.
        valid_loss: L_val at the present weights and alphas.
        weights: w, leaves that the losses read.
        alphas: a, leaves that the losses read.
        step: The virtual step; None for the first order.
        state: Tensors that the losses change, such as running statistics.
        exact: Whether the product is computed by double backward instead.

    Returns:
        One gradient an alpha tensor, of its shape.
    """
    kept_state = _clone(state)
    try:
        if step is None:
            with _constant(weights):
                return _gradients(valid_loss(), alphas)
        return _second_order(train_loss, valid_loss, weights, alphas, step, exact=exact)
    finally:
        _copy(state, kept_state)


def _second_order(
    train_loss: Loss,
    valid_loss: Loss,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    step: VirtualStep,
    *,
    exact: bool,
) -> list[Tensor]:
    start = _clone(weights)
    try:
        with _constant(alphas):
            gradients = _gradients(train_loss(), weights)
        coefficient = _clip_coefficient(gradients, step.clip)
        _move_virtually(weights, gradients, coefficient, step)
        of_both = _gradients(valid_loss(), [*weights, *alphas])
        v, direct = of_both[: len(weights)], of_both[len(weights) :]
        v = list(torch._foreach_mul(v, _clip_coefficient(v, step.clip)))
        _copy(weights, start)
        if exact:
            product = _exact_product(train_loss, weights, alphas, v)
        else:
            product = _finite_difference(train_loss, weights, alphas, v, start)
    finally:
        # From the copy: adding the perturbation back would leave rounding behind.
        _copy(weights, start)
    scale = step.lr * coefficient
    return [gradient - scale * part for gradient, part in zip(direct, product, strict=True)]


@torch.no_grad()
def _move_virtually(
    weights: Sequence[Tensor], gradients: list[Tensor], coefficient: Tensor, step: VirtualStep
) -> None:
    """Put w - lr (c g + momentum m + weight_decay w) in the place of w."""
    update = list(torch._foreach_mul(gradients, coefficient))
    torch._foreach_add_(update, list(weights), alpha=step.weight_decay)
    with_momentum = [
        (part, buffer)
        for part, buffer in zip(update, step.buffers, strict=False)
        if buffer is not None
    ]
    if with_momentum:
        moved, buffers = zip(*with_momentum, strict=True)
        torch._foreach_add_(list(moved), list(buffers), alpha=step.momentum)
    torch._foreach_add_(list(weights), update, alpha=-step.lr)


def _finite_difference(
    train_loss: Loss,
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    v: list[Tensor],
    start: list[Tensor],
) -> list[Tensor]:
    """(d^2 L_train / da dw) v by central differences around the weights `start` (equation 8)."""
    # Where v vanishes so does the product: any radius will do, but not a division by zero.
    epsilon = _RADIUS / get_total_norm(v).clamp(min=torch.finfo(v[0].dtype).tiny)
    shift = list(torch._foreach_mul(v, epsilon))
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            _copy(weights, start)
            torch._foreach_add_(list(weights), shift, alpha=sign)
        with _constant(weights):
            sides.append(_gradients(train_loss(), alphas))
    return [(above - below) / (2 * epsilon) for above, below in zip(*sides, strict=True)]


def _exact_product(
    train_loss: Loss, weights: Sequence[Tensor], alphas: Sequence[Tensor], v: list[Tensor]
) -> list[Tensor]:
    """(d^2 L_train / da dw) v by differentiating grad_w L_train . v in the alphas."""
    gradients = torch.autograd.grad(
        train_loss(), list(weights), create_graph=True, materialize_grads=True
    )
    # A loss that is linear in the weights leaves gradients that no alpha had a part in.
    attached = [(g, part) for g, part in zip(gradients, v, strict=True) if g.requires_grad]
    if not attached:
        return [torch.zeros_like(alpha) for alpha in alphas]
    outputs, parts = zip(*attached, strict=True)
    return list(
        torch.autograd.grad(outputs, list(alphas), grad_outputs=list(parts), materialize_grads=True)
    )


@contextmanager
def _constant(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Leaves without a gradient: a pass computes and keeps what the others need, and no more."""
    for leaf in leaves:
        leaf.requires_grad_(False)
    try:
        yield
    finally:
        for leaf in leaves:
            leaf.requires_grad_()


def _gradients(loss: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a loss; zeros for leaves that it does not depend on."""
    return list(torch.autograd.grad(loss, list(leaves), materialize_grads=True))


def _clip_coefficient(gradients: list[Tensor], clip: float) -> Tensor:
    """min(1, clip / ||g||), a tensor so that no device is waited for; 1 where clip is 0."""
    if not clip:
        return torch.ones((), dtype=gradients[0].dtype, device=gradients[0].device)
    return (clip / (get_total_norm(gradients) + _CLIP_GUARD)).clamp(max=1.0)


@torch.no_grad()
def _clone(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies, bit for bit, in one call."""
    return list(torch._foreach_mul(list(tensors), 1)) if tensors else []


@torch.no_grad()
def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(list(targets), list(sources))


class Architect:
    """The alphas, and Adam on their hypergradient."""

    def __init__(self, alphas: Alphas, config: AlphasConfig) -> None:
        self.alphas = {cell: tensor.requires_grad_() for cell, tensor in alphas.items()}
        self.config = config
        self.strategy = strategies.find(config.strategy)
        self.optimizer = torch.optim.Adam(
            list(self.alphas.values()),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )

    def mixture(self) -> Mixture:
        """The candidates' weights, differentiable in the alphas."""
        return self.strategy.mixture(self.alphas)

    def step(
        self,
        *,
        train_loss: Loss,
        valid_loss: Loss,
        optimizer: torch.optim.Optimizer,
        state: Sequence[Tensor] = (),
    ) -> list[Tensor]:
        """Move the alphas by their hypergradient, which is returned.

        Args:
            train_loss: As in `hypergradient`.
            valid_loss: As in `hypergradient`.
            optimizer: The weights' SGD, whose next step is the virtual one.
            state: As in `hypergradient`.
        """
        alphas = list(self.alphas.values())
        second = self.config.order == "second"
        gradients = hypergradient(
            train_loss=train_loss,
            valid_loss=valid_loss,
            weights=optimizer.param_groups[0]["params"],
            alphas=alphas,
            step=next_step(optimizer, self.config.virtual_clip) if second else None,
            state=state,
            exact=self.config.hypergradient == "exact",
        )
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return gradients


def next_step(optimizer: torch.optim.Optimizer, clip: float = 0.0) -> VirtualStep:
    """What SGD would do next, with its present learning rate and momentum buffers."""
    group: dict[str, Any] = optimizer.param_groups[0]
    return VirtualStep(
        lr=group["lr"],
        momentum=group["momentum"],
        weight_decay=group["weight_decay"],
        clip=clip,
        buffers=[
            optimizer.state.get(weight, {}).get("momentum_buffer") for weight in group["params"]
        ],
    )
