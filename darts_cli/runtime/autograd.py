"""Where functions with a gradient of their own stand in for plain formulas."""

from collections.abc import Sequence

import torch
from torch import Tensor


def has_own_gradient(x: Tensor) -> bool:
    """Whether the functions with a gradient of their own serve here, or the plain formulas.

    They do where torch's operators are called as they are: not under autocast,
    which would have to choose their types, nor under a compiler, which fuses the
    plain formula itself.
    """
    kind = x.device.type
    # A plan's meta tensors stand for those of a device.
    if torch.compiler.is_compiling() or kind not in {"cpu", "cuda", "meta"}:
        return False
    return kind == "meta" or not torch.is_autocast_enabled(kind)


def differentiable_grads(
    output: Tensor, inputs: Sequence[Tensor], grad_output: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    """Compute gradients that can be differentiated again, for the double backward pass.

    Args:
        output: Result of the plain formula, computed with grad enabled.
        inputs: Tensors that it was computed from.
        grad_output: Gradient of the output, of its shape.
        needed: Whether each input's gradient is needed.

    Returns:
        A gradient for each input, None where it is not needed.
    """
    wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
    grads = iter(torch.autograd.grad(output, wanted, grad_output, create_graph=True))
    return [next(grads) if need else None for need in needed]
