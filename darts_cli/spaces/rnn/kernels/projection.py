"""The cross-entropy of the decoder, without all of its logits at once.

With a vocabulary of 10,000 a segment's logits take thirty times the memory of
the states that they are made of, and autograd keeps them, and makes as much
again for their gradient. Here they are made for a few words at a time, in room
that is used again, and what is wanted of them is taken there and then: the
loss, and with it the gradients that it has for a gradient of one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from darts_cli.runtime.autograd import differentiable_grads, has_own_gradient
from darts_cli.spaces.rnn.loader import IGNORED

_CHUNK = 2**22
"""Logits at once: products of fewer rows are slower, and more rows would be of no use.

At a vocabulary of 10,000 and width 300 a pass with all gradients takes 1.1 times as long with a
half or a quarter of them, and 1.4 times with an eighth.
"""


def cross_entropy(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """The sum of the cross-entropies of words whose logits are `states @ weight.t() + bias`.

    Args:
        states: `[..., D]`.
        weight: `[V, D]`.
        bias: `[V]`.
        targets: Numbers of the words, `[...]`; those that are `IGNORED` are left out.

    Returns:
        `[]`, differentiable in the first three.
    """
    rows, words = states.flatten(0, -2), targets.flatten()
    if not has_own_gradient(rows):
        return plain_cross_entropy(rows, weight, bias, words)
    if not torch.is_grad_enabled():
        return _sum_up(rows, weight, bias, words, (None, None, None))
    total: Tensor = _CrossEntropy.apply(rows, weight, bias, words)
    return total


def plain_cross_entropy(rows: Tensor, weight: Tensor, bias: Tensor, words: Tensor) -> Tensor:
    """The same straight from the formula, of `[N, D]` and `[N]`; the oracle of its tests.

    Differentiable as often as one likes, which the exact hypergradient needs.
    """
    logits = F.linear(rows, weight, bias)
    # Under autocast the product is of less precision; a sum of thousands must not be.
    logits = logits.float() if logits.dtype.itemsize < torch.float32.itemsize else logits
    return F.cross_entropy(logits, words, ignore_index=IGNORED, reduction="sum")


class _CrossEntropy(torch.autograd.Function):
    """`cross_entropy` of `[N, D]` and `[N]`; keeps gradients instead of logits."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, words: Tensor) -> Tensor:
        """The sum, and the gradients that will be asked for."""
        inputs = rows, weight, bias
        gradients = tuple(
            torch.zeros_like(tensor) if need else None
            for tensor, need in zip(inputs, ctx.needs_input_grad, strict=False)
        )
        ctx.save_for_backward(*inputs, words, *gradients)
        return _sum_up(*inputs, words, gradients)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Those found on the way forward, times that of the sum."""
        rows, weight, bias, words, *found = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The gradient itself is to be differentiated: that of the plain formula can be.
            # By copies in name only, for the rows are made of the weight too, as the embedding.
            inputs = [tensor.view_as(tensor) for tensor in (rows, weight, bias)]
            total = plain_cross_entropy(inputs[0], inputs[1], inputs[2], words)
            needed = [part is not None for part in found]
            return *differentiable_grads(total, inputs, gradient, needed), None
        return *(None if part is None else part * gradient for part in found), None


def _sum_up(
    rows: Tensor, weight: Tensor, bias: Tensor, words: Tensor, into: Sequence[Tensor | None]
) -> Tensor:
    """The sum, chunk by chunk.

    Args:
        rows: States, `[N, D]`.
        weight: As in `cross_entropy`.
        bias: The same.
        words: Targets, `[N]`.
        into: Zeros, where the gradients of rows, weight and bias go; None: not wanted.
    """
    counted = words != IGNORED
    # Any word will do where none is counted.
    targets = torch.where(counted, words, 0)[:, None]
    factors = counted.to(rows)[:, None]
    length = max(1, _CHUNK // len(weight))
    room = rows.new_empty(min(length, len(rows)), len(weight))
    of_rows, of_weight, of_bias = into
    # Transposed: gathered as [V, D] the product takes one and a half times as long.
    gathered = None if of_weight is None else weight.new_zeros(weight.shape[::-1])
    total = rows.new_zeros(())
    for start in range(0, len(rows), length):
        part = slice(start, start + length)
        some, target, factor = rows[part], targets[part], factors[part]
        logits = torch.addmm(bias, some, weight.t(), out=room[: len(some)])
        losses, sums = _exponentiate(logits, target)
        total += (losses * factor).sum()
        # The gradient of a row's logits is its exponentials over their sum, less one at the
        # target; the division waits for the products, which are smaller.
        logits.scatter_add_(1, target, -sums)
        factor = factor / sums
        if of_rows is not None:
            torch.mm(logits, weight, out=of_rows[part]).mul_(factor)
        if gathered is not None:
            gathered.addmm_((some * factor).t(), logits)
        if of_bias is not None:
            of_bias.view(1, -1).addmm_(factor.t(), logits)
    if of_weight is not None and gathered is not None:
        of_weight.copy_(gathered.t())
    return total


def _exponentiate(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each row, and the sum of its exponentials, `[R, 1]` each.

    Args:
        logits: `[R, V]`; replaced by those exponentials, of what they are less than the largest.
        targets: `[R, 1]`.
    """
    logits.sub_(logits.amax(dim=1, keepdim=True))
    at_targets = logits.gather(1, targets)
    sums = logits.exp_().sum(dim=1, keepdim=True)
    return sums.log() - at_targets, sums
