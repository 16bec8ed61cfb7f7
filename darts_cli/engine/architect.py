"""Step 1 of DARTS's algorithm 1: the hypergradient of the validation loss, and Adam on it.

The bilevel problem (equations 3 and 4) is to find the alphas that minimize
L_val(w*(a), a), where w*(a) are the weights that minimize L_train(w, a). Its gradient
(equation 5) is approximated by that at w' = w - xi grad_w L_train(w, a), one virtual
training step from the present weights (equation 6), so that it accounts for the
response of the weights. A virtual step of length xi = 0 gives the first order.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from darts_cli.config import AlphasConfig
from darts_cli.engine import optimizers, strategies
from darts_cli.engine.execution import DEFAULT, Loss, StepExecution
from darts_cli.engine.strategies import Alphas, Mixture
from darts_cli.run.tensors import take, with_prefix

# Norm by which the finite difference moves the weights: epsilon = 0.01 / ||v|| (footnote 2 of the
# paper).
_RADIUS = 0.01

# Added to the norm in a clip coefficient, as in torch's own clipping.
_CLIP_GUARD = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtualStep:
    """The SGD step by which the hypergradient looks ahead (equation 6).

    w' = w - lr (c g + momentum m + weight_decay w), with c = min(1, clip / ||g||).
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float = 0.0
    """Maximum norm of g, and of the validation gradient; 0: no clipping, c = 1."""
    buffers: Sequence[Tensor | None] = field(default=())
    """m, one for each weight; None counts as zero for that weight alone."""


def next_step(optimizer: torch.optim.Optimizer, clip: float = 0.0) -> VirtualStep:
    """Return the next step of SGD, with its present learning rate and momentum buffers."""
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


def hypergradient(
    *,
    train_losses: Sequence[Loss],
    valid_losses: Sequence[Loss],
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    step: VirtualStep | None,
    state: Sequence[Tensor] = (),
    exact: bool = False,
    execution: StepExecution = DEFAULT,
) -> list[Tensor]:
    """Compute the gradient in the alphas of the validation loss after a virtual step.

    Equations 6 to 8 of the paper:

        dL/da = grad_a L_val(w', a) - lr c (d^2 L_train / da dw) v,   v = grad_w' L_val(w', a)

    The product is (grad_a L_train(w + e v) - grad_a L_train(w - e v)) / (2 e) with
    e = 0.01 / ||v||.

    Weights are moved in place and restored from a copy: they and `state` are
    bit for bit what they were. No `.grad` is set.

    A loss may consist of parts, of a batch or of the ranks of a run: each of the
    four gradients is summed before anything else is computed from it.

    Args:
        train_losses: Parts that sum to L_train at the present weights and alphas.
        valid_losses: Parts that sum to L_val at the present weights and alphas.
        weights: w, leaves that the losses read.
        alphas: a, leaves that the losses read.
        step: The virtual step; None for the first order.
        state: Tensors that the losses change, such as running statistics.
        exact: Whether the product is computed by double backward instead.
        execution: How gradients are computed and summed.

    Returns:
        The gradient of each alpha tensor, of its shape.
    """
    if step is None:
        # The first order: w' = w, and nothing moves the weights.
        with _restored(state), _constant(weights):
            return execution.gradients(valid_losses, alphas)
    with _restored(state), _restored(weights) as start:
        # g = grad_w L_train(w, a), which the virtual step takes; the alphas are constants in it.
        with _constant(alphas):
            gradients = execution.gradients(train_losses, weights)
        coefficient = _clip_coefficient(gradients, step.clip)
        _move_virtually(weights, gradients, coefficient, step)  # w' of equation 6
        # v = grad_w' L_val(w', a) and grad_a L_val(w', a), by one backward pass.
        both = execution.gradients(valid_losses, [*weights, *alphas])
        v, direct = both[: len(weights)], both[len(weights) :]
        v = list(torch._foreach_mul(v, _clip_coefficient(v, step.clip)))
        _copy(weights, start)
        # (d^2 L_train / da dw) v, at w.
        multiply = _exact_product if exact else _finite_difference
        product = multiply(train_losses, weights, alphas, v, execution)
    scale = step.lr * coefficient
    # Equation 7.
    return [gradient - scale * part for gradient, part in zip(direct, product, strict=True)]


@torch.no_grad()
def _move_virtually(
    weights: Sequence[Tensor], gradients: list[Tensor], coefficient: Tensor, step: VirtualStep
) -> None:
    """Replace w by w - lr (c g + momentum m + weight_decay w), in place (equation 6)."""
    update = list(torch._foreach_mul(gradients, coefficient))
    torch._foreach_add_(update, list(weights), alpha=step.weight_decay)
    pairs = zip(update, step.buffers, strict=False)
    if with_momentum := [pair for pair in pairs if pair[1] is not None]:
        moved, buffers = zip(*with_momentum, strict=True)
        torch._foreach_add_(list(moved), list(buffers), alpha=step.momentum)
    torch._foreach_add_(list(weights), update, alpha=-step.lr)


def _finite_difference(
    train_losses: Sequence[Loss],
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    v: list[Tensor],
    execution: StepExecution,
) -> list[Tensor]:
    """Compute (d^2 L_train / da dw) v by central differences around the weights (equation 8)."""
    start = _clone(weights)
    # Where v vanishes so does the product: any radius is right, but a division by zero is not.
    epsilon = _RADIUS / get_total_norm(v).clamp(min=torch.finfo(v[0].dtype).tiny)
    shift = list(torch._foreach_mul(v, epsilon))
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            # From the copy: moving back by the shift would round.
            _copy(weights, start)
            torch._foreach_add_(list(weights), shift, alpha=sign)
        with _constant(weights), execution.exactly():
            sides.append(execution.gradients(train_losses, alphas))
    return [(above - below) / (2 * epsilon) for above, below in zip(*sides, strict=True)]


def _exact_product(
    train_losses: Sequence[Loss],
    weights: Sequence[Tensor],
    alphas: Sequence[Tensor],
    v: list[Tensor],
    execution: StepExecution,
) -> list[Tensor]:
    """Compute (d^2 L_train / da dw) v by differentiating grad_w L_train . v in the alphas."""

    def along_v(loss: Loss) -> Tensor:
        gradients = torch.autograd.grad(
            loss(), list(weights), create_graph=True, materialize_grads=True
        )
        product = torch.stack([(g * part).sum() for g, part in zip(gradients, v, strict=True)])
        # Of a loss that is linear in the weights these gradients do not depend on the alphas.
        return product.sum() + 0 * torch.stack([alpha.sum() for alpha in alphas]).sum()

    with execution.exactly():
        return execution.gradients([partial(along_v, loss) for loss in train_losses], alphas)


@contextmanager
def _restored(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Let tensors change inside the block, and restore them from copies, which it yields."""
    before = _clone(tensors)
    try:
        yield before
    finally:
        _copy(tensors, before)


@contextmanager
def _constant(leaves: Sequence[Tensor]) -> Iterator[None]:
    """Treat leaves as constants, so that a pass computes and stores nothing for their gradients."""
    for leaf in leaves:
        leaf.requires_grad_(False)
    try:
        yield
    finally:
        for leaf in leaves:
            leaf.requires_grad_()


def _clip_coefficient(gradients: list[Tensor], clip: float) -> Tensor:
    """Return min(1, clip / ||g||) as a tensor, which waits for no device; 1 where clip is 0."""
    if not clip:
        return torch.ones((), dtype=gradients[0].dtype, device=gradients[0].device)
    return (clip / (get_total_norm(gradients) + _CLIP_GUARD)).clamp(max=1.0)


@torch.no_grad()
def _clone(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors bit for bit, in one call."""
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
        """Return the weights of the candidates, differentiable in the alphas."""
        return self.strategy.mixture(self.alphas)

    def step(
        self,
        *,
        train_losses: Sequence[Loss],
        valid_losses: Sequence[Loss],
        optimizer: torch.optim.Optimizer,
        state: Sequence[Tensor] = (),
        execution: StepExecution = DEFAULT,
    ) -> list[Tensor]:
        """Update the alphas by their hypergradient.

        Args:
            train_losses: As in `hypergradient`.
            valid_losses: As in `hypergradient`.
            optimizer: The SGD of the weights, whose next step is the virtual one.
            state: As in `hypergradient`.
            execution: As in `hypergradient`.

        Returns:
            The hypergradient.
        """
        alphas = list(self.alphas.values())
        second = self.config.order == "second"
        gradients = hypergradient(
            train_losses=train_losses,
            valid_losses=valid_losses,
            weights=optimizer.param_groups[0]["params"],
            alphas=alphas,
            step=next_step(optimizer, self.config.virtual_clip) if second else None,
            state=state,
            exact=self.config.hypergradient == "exact",
            execution=execution,
        )
        for alpha, gradient in zip(alphas, gradients, strict=True):
            alpha.grad = gradient
        execution.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        return gradients

    def state_dict(self) -> dict[str, Tensor]:
        """Return alphas and optimizer state by the names of checkpoints."""
        state = optimizers.state_dict(self.optimizer, "architect", self.alphas)
        return with_prefix("alphas", self.alphas) | state

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor], *, stepped: bool) -> None:
        """Load what `state_dict` returned.

        Args:
            tensors: Tensors of a checkpoint; those of other names are ignored.
            stepped: Whether the optimizer has taken a step.

        Raises:
            CheckpointError: if a tensor is missing, or of another shape.
        """
        for cell, alpha in self.alphas.items():
            alpha.copy_(take(tensors, f"alphas.{cell}", alpha))
        optimizers.load_state_dict(
            self.optimizer, "architect", self.alphas, tensors, stepped=stepped
        )
