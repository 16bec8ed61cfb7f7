"""What optimizers keep of their parameters, as the tensors that checkpoints hold."""

from collections.abc import Mapping

import torch
from torch import Tensor


def tensors(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """For each key of an optimizer's state, its tensors by parameter name."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found.setdefault(key, {})[name] = value
    return found


def keys(optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """What an optimizer keeps of every parameter after its first step; whether it is a count."""
    if isinstance(optimizer, torch.optim.Adam):
        return {"step": True, "exp_avg": False, "exp_avg_sq": False}
    return {"momentum_buffer": False} if optimizer.param_groups[0]["momentum"] else {}


def load(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    found: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Take the place of what an optimizer keeps; see `tensors`."""
    optimizer.state.clear()
    for key, values in found.items():
        for name, value in values.items():
            parameter = parameters[name]
            # Counts of steps stay on the CPU, where torch keeps them; the rest is laid out as the
            # parameter is.
            like = parameter.detach() if value.shape == parameter.shape else value
            optimizer.state[parameter][key] = torch.empty_like(like).copy_(value)
