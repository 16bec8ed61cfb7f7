"""Choose between custom `torch.autograd.Function`s and plain formulas."""

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
