"""The state of optimizers as the tensors that checkpoints hold, by parameter name."""

from collections.abc import Mapping

import torch
from torch import Tensor

from darts_cli.run.tensors import take_all


def state_dict(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of each key of an optimizer's state, by parameter name."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found.setdefault(key, {})[name] = value
    return found


def _keys(optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """Return the keys of the state of a parameter after a step; whether each is a step count."""
    if isinstance(optimizer, torch.optim.Adam):
        return {"step": True, "exp_avg": False, "exp_avg_sq": False}
    return {"momentum_buffer": False} if optimizer.param_groups[0]["momentum"] else {}


def take_state(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    prefix: str,
    parameters: Mapping[str, Tensor],
    *,
    stepped: bool,
) -> dict[str, dict[str, Tensor]]:
    """Return the state of an optimizer in a checkpoint, by key, then by parameter name.

    Args:
        optimizer: The optimizer, which stays as it is.
        tensors: Tensors of the checkpoint.
        prefix: Beginning of their names.
        parameters: Parameters by the names that the checkpoint uses.
        stepped: Whether a step was taken; before the first there is no state.

    Raises:
        CheckpointError: if the state is incomplete, or there is more of it.
    """
    keys = _keys(optimizer) if stepped else {}
    like = {
        f"{key}.{name}": parameter.new_empty(()) if is_count else parameter
        for key, is_count in keys.items()
        for name, parameter in parameters.items()
    }
    found: dict[str, dict[str, Tensor]] = {key: {} for key in keys}
    for full_name, tensor in take_all(tensors, prefix, like).items():
        key, _, name = full_name.partition(".")
        found[key][name] = tensor
    return found


def load_state_dict(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    state: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Load what `state_dict` returned."""
    optimizer.state.clear()
    for key, values in state.items():
        for name, value in values.items():
            parameter = parameters[name]
            # Step counts stay on the CPU, where torch keeps them; the rest is laid out like the
            # parameter, which may be channels-last.
            like = parameter.detach() if value.shape == parameter.shape else value
            optimizer.state[parameter][key] = torch.empty_like(like).copy_(value)
