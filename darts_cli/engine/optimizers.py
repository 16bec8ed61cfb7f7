"""The state of optimizers as the tensors that checkpoints hold, by parameter name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from darts_cli.engine.capabilities import from_reference_names, to_reference_names
from darts_cli.run.tensors import take_all, with_prefix


def state_dict(
    optimizer: torch.optim.Optimizer,
    prefix: str,
    parameters: Mapping[str, Tensor],
    network: nn.Module | None = None,
) -> dict[str, Tensor]:
    """Return the state of an optimizer by the names `prefix.key.name`.

    Args:
        optimizer: The optimizer.
        prefix: Beginning of the names.
        parameters: Parameters by name.
        network: Network that translates their names, if it has reference names.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                found.setdefault(key, {})[name] = value
    tensors: dict[str, Tensor] = {}
    for key, values in found.items():
        tensors |= with_prefix(f"{prefix}.{key}", to_reference_names(network, values))
    return tensors


def load_state_dict(
    optimizer: torch.optim.Optimizer,
    prefix: str,
    parameters: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    network: nn.Module | None = None,
    *,
    stepped: bool,
) -> None:
    """Load what `state_dict` returned.

    Args:
        optimizer: The optimizer.
        prefix: Beginning of the names.
        parameters: Parameters by name.
        tensors: Tensors of a checkpoint; those of other names are ignored.
        network: Network that translates the names, if it has reference names.
        stepped: Whether a step was taken; before the first there is no state.

    Raises:
        CheckpointError: if the state is incomplete, or there is more of it.
    """
    # In the shapes of the checkpoint, which may differ from those of the network.
    named = to_reference_names(network, parameters)
    keys = _keys(optimizer) if stepped else {}
    like = {
        f"{key}.{name}": parameter.new_empty(()) if is_count else parameter
        for key, is_count in keys.items()
        for name, parameter in named.items()
    }
    taken = take_all(tensors, prefix, like)
    optimizer.state.clear()
    for key in keys:
        values = {name: taken[f"{key}.{name}"] for name in named}
        for name, value in from_reference_names(network, values).items():
            parameter = parameters[name]
            # Step counts stay on the CPU, where torch keeps them; the rest is laid out like the
            # parameter, which may be channels-last.
            layout = parameter.detach() if value.shape == parameter.shape else value
            optimizer.state[parameter][key] = torch.empty_like(layout).copy_(value)


def _keys(optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """Return the keys of the state of a parameter after a step; whether each is a step count."""
    if isinstance(optimizer, torch.optim.Adam):
        # Means of the gradient and of its square (Kingma and Ba, 2015).
        return {"step": True, "exp_avg": False, "exp_avg_sq": False}
    # SGD without momentum has no state.
    return {"momentum_buffer": False} if optimizer.param_groups[0]["momentum"] else {}
