"""Choose between custom `torch.autograd.Function`s and plain formulas."""

from collections.abc import Sequence

import torch
from torch import Tensor


def has_own_gradient(x: Tensor) -> bool:
    """Return whether custom autograd functions apply to `x`, rather than plain formulas.

    They apply in eager mode without autocast. Autocast would have to choose the data
    types inside them, and a compiler fuses the plain formula itself.

    Args:
        x: A tensor of the pass, of any shape.
    """
    kind = x.device.type
    # A plan runs on meta tensors in place of the device's: count its memory as on the device.
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
