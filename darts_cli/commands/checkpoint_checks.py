"""Check a checkpoint's metadata against its tensors before building anything.

A few bytes of settings can ask for any amount of memory, and a number for any amount of time.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from darts_cli.commands.run_spec import RunSpec
from darts_cli.engine.state import State
from darts_cli.engine.task import DatasetInfo, Loaders
from darts_cli.errors import CheckpointError


def check_size(spec: RunSpec, info: DatasetInfo, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check that the network of a checkpoint is no larger than the tensors in its file.

    It is built on the meta device, which takes no memory, and no further than the file goes.

    Raises:
        CheckpointError: if it is larger.
    """
    sizes = [tensor.numel() for name, tensor in tensors.items() if name.startswith("network.")]
    held, numbers = len(sizes), sum(sizes)
    left = [held, numbers]

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter) -> None:
        left[:] = left[0] - 1, left[1] - parameter.numel()
        if min(left) < 0:
            raise CheckpointError(
                f"{path}: config.network: found settings of a larger network than the "
                f"{held:,} tensors and {numbers:,} numbers of one in the file, expected "
                "those of that network; use another checkpoint"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            spec.task.build(spec.config, info, spec.genotype)
    finally:
        hook.remove()


def check_hidden(
    spec: RunSpec, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], path: Path
) -> None:
    """Check that the carried hidden states are those of this run.

    Raises:
        CheckpointError: naming the first that is missing, unknown, or another.
    """
    shapes = spec.task.hidden(spec.config, search=spec.search)
    # Before the first step there is none.
    steps = metadata["position"]["total"]
    expected = {f"hidden.{name}": list(shape) for name, shape in shapes.items() if steps}
    found = {name: list(tensors[name].shape) for name in tensors if name.startswith("hidden.")}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name) or tensors[name].dtype != torch.float32:
            kind = f"{tensors[name].dtype} of shape {found[name]}" if name in found else "none"
            wanted = f"torch.float32 of shape {expected[name]}" if name in expected else "none"
            raise CheckpointError(
                f"{path}: {name}: found {kind}, expected {wanted}; use another checkpoint"
            )


def check_position(
    spec: RunSpec, state: State, loaders: Loaders, counts: Mapping[str, int], path: Path
) -> None:
    """Check that the position of a run is one that it can have.

    Raises:
        CheckpointError: naming the first number that is too large.
    """
    config, position = spec.config, state.position
    _bound("position.epoch", position.epoch, config.epochs, path)
    _bound("rollbacks", state.rollbacks, config.weights.rollbacks, path)
    # Only now, since the steps of so large an epoch could take any time to count. Another number
    # of processes may have had one step more.
    _bound("position.step", position.step, loaders.train.steps(state.data_epoch) + 1, path)
    # Steps of a text are drawn: on average far fewer than this, which ends all the same.
    steps = 4 * spec.task.steps(config, counts, search=spec.search) + 16
    _bound("position.total", position.total, (position.epoch + 1) * steps, path)


def _bound(name: str, found: int, most: int, path: Path) -> None:
    if found > most:
        raise CheckpointError(
            f"{path}: {name}: found {found:,}, expected {most:,} or less; use another checkpoint"
        )
