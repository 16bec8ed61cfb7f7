"""The tensors of a checkpoint by name: each part of a state is taken whole, or not at all."""

from collections.abc import Mapping

from torch import Tensor

from darts_cli.errors import CheckpointError


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by the names `prefix.name`."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def below_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors that are named `prefix.name`, by name."""
    start = f"{prefix}."
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }


def take(tensors: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    """Return the tensor of a name.

    Raises:
        CheckpointError: if it is missing, or differs from `like` in shape or type.
    """
    if name not in tensors:
        raise CheckpointError(f"{name}: not in the checkpoint, which is of another network")
    found = tensors[name]
    if found.shape != like.shape:
        raise CheckpointError(
            f"{name}: found shape {list(found.shape)} in the checkpoint, "
            f"expected {list(like.shape)}"
        )
    if found.dtype != like.dtype:
        raise CheckpointError(
            f"{name}: found {found.dtype} in the checkpoint, expected {like.dtype}"
        )
    return found


def take_all(
    tensors: Mapping[str, Tensor], prefix: str, like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return all tensors that are named `prefix.name`, by name.

    Raises:
        CheckpointError: naming the first that is missing, unknown, or differs from the one of the
            same name in `like` in shape or type.
    """
    taken = {name: take(tensors, f"{prefix}.{name}", tensor) for name, tensor in like.items()}
    for name in below_prefix(tensors, prefix):
        if name not in like:
            raise CheckpointError(f"{prefix}.{name}: in the checkpoint, but not in this network")
    return taken
