"""The cross-entropy of the decoder, without all of its logits at once.

For rows `x_n` with targets `t_n`, with logits `l = x W^T + b`:

    loss = sum_n (log sum_v exp l[n, v] - l[n, t_n])
    dl[n, v] = exp l[n, v] / sum_u exp l[n, u] - (v == t_n)
    dx = dl W,  dW = dl^T x,  db = sum_n dl[n]

`plain_cross_entropy` is this formula, and the oracle of the tests. With a vocabulary of 10,000 a
segment's logits take thirty times the memory of its states, and autograd stores them and allocates
as much again for their gradient. Here they are computed for a few words at a time, in a buffer
that is reused, and reduced at once: to the loss, and already in the forward pass to the gradients
that the loss has for a gradient of one.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from darts_cli.runtime.autograd import differentiable_grads, has_own_gradient
from darts_cli.spaces.rnn.loader import IGNORED

# Logits at once: products of fewer rows are slower, and more rows would be of no use. At a
# vocabulary of 10,000 and width 300 a pass with all gradients takes 1.1 times as long with a half
# or a quarter of them, and 1.4 times with an eighth.
_CHUNK = 2**22


def cross_entropy(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Compute the sum of the cross-entropies of words with logits `states @ weight.t() + bias`.

    Args:
        states: `[..., D]`.
        weight: `[V, D]`.
        bias: `[V]`.
        targets: Numbers of the words, `[...]`; those that are `IGNORED` are left out.

    Returns:
        Sum, `[]`, differentiable in the first three.
    """
    rows, words = states.flatten(0, -2), targets.flatten()  # [N, D] and [N]
    if not has_own_gradient(rows):
        return plain_cross_entropy(rows, weight, bias, words)
    if not torch.is_grad_enabled():
        return _sum_in_chunks(rows, weight, bias, words, (None, None, None))
    total: Tensor = _CrossEntropy.apply(rows, weight, bias, words)
    return total


def plain_cross_entropy(rows: Tensor, weight: Tensor, bias: Tensor, words: Tensor) -> Tensor:
    """Compute `cross_entropy` by the plain formula, of `[N, D]` and `[N]`: the oracle of its tests.

    It can be differentiated any number of times, which the exact hypergradient needs.
    """
    logits = F.linear(rows, weight, bias)
    # Under autocast the product is of less precision; a sum of thousands must not be.
    logits = logits.float() if logits.dtype.itemsize < torch.float32.itemsize else logits
    return F.cross_entropy(logits, words, ignore_index=IGNORED, reduction="sum")


class _CrossEntropy(torch.autograd.Function):
    """Function `cross_entropy` of `[N, D]` and `[N]`, which saves gradients instead of logits."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, words: Tensor) -> Tensor:
        """Compute the sum, and the gradients that will be needed."""
        inputs = rows, weight, bias
        grads = tuple(
            torch.zeros_like(tensor) if need else None
            for tensor, need in zip(inputs, ctx.needs_input_grad, strict=False)
        )
        ctx.save_for_backward(*inputs, words, *grads)
        return _sum_in_chunks(*inputs, words, grads)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply the gradients of the forward pass by that of the sum."""
        rows, weight, bias, words, *grads = ctx.saved_tensors
        if torch.is_grad_enabled():
            # Double backward: this gradient will be differentiated itself, as that of the plain
            # formula can be. By views, since the rows depend on the weight too, as the embedding:
            # its gradient here is to be that of the decoder alone.
            inputs = [tensor.view_as(tensor) for tensor in (rows, weight, bias)]
            total = plain_cross_entropy(inputs[0], inputs[1], inputs[2], words)
            needed = [grad is not None for grad in grads]
            return *differentiable_grads(total, inputs, grad_output, needed), None
        return *(None if grad is None else grad * grad_output for grad in grads), None


def _sum_in_chunks(
    rows: Tensor, weight: Tensor, bias: Tensor, words: Tensor, grads: Sequence[Tensor | None]
) -> Tensor:
    """Compute the sum and its gradients, `_CHUNK` logits at a time.

    Args:
        rows: States, `[N, D]`.
        weight: `[V, D]`.
        bias: `[V]`.
        words: Targets, `[N]`.
        grads: Zeros, which are filled with the gradients of rows, weight and bias; None: not
            needed.
    """
    counted = words != IGNORED
    # Word 0 stands in where none is counted: its factor is zero.
    targets = torch.where(counted, words, 0)[:, None]  # [N, 1]
    factors = counted.to(rows)[:, None]  # [N, 1]
    length = max(1, _CHUNK // len(weight))
    buffer = rows.new_empty(min(length, len(rows)), len(weight))  # [R, V]
    grad_rows, grad_weight, grad_bias = grads
    # Transposed: accumulated as [V, D] the product takes one and a half times as long.
    grad_weight_t = None if grad_weight is None else weight.new_zeros(weight.shape[::-1])
    total = rows.new_zeros(())
    for start in range(0, len(rows), length):
        part = slice(start, start + length)
        x, target, factor = rows[part], targets[part], factors[part]
        logits = torch.addmm(bias, x, weight.t(), out=buffer[: len(x)])
        # Less the largest, or exp would overflow; cross-entropy and softmax stay the same.
        logits.sub_(logits.amax(dim=1, keepdim=True))
        at_targets = logits.gather(1, target)  # [R, 1]
        sums = logits.exp_().sum(dim=1, keepdim=True)  # [R, 1]
        total += ((sums.log() - at_targets) * factor).sum()
        # dl times the sums, in place: exponentials, less their sum at the target. The division
        # waits for the products, which are smaller: it is a factor of each row.
        logits.scatter_add_(1, target, -sums)
        factor = factor / sums
        if grad_rows is not None:
            torch.mm(logits, weight, out=grad_rows[part]).mul_(factor)  # [R, V] @ [V, D]
        if grad_weight_t is not None:
            grad_weight_t.addmm_((x * factor).t(), logits)  # [D, R] @ [R, V]
        if grad_bias is not None:
            grad_bias.view(1, -1).addmm_(factor.t(), logits)  # [1, R] @ [R, V]
    if grad_weight is not None and grad_weight_t is not None:
        grad_weight.copy_(grad_weight_t.t())
    return total
