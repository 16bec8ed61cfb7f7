"""Where functions with a gradient of their own stand in for plain formulas."""

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
