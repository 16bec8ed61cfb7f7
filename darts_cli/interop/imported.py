"""Contents of a published file: a network's tensors by name, and alphas."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darts_cli.errors import CheckpointError
from darts_cli.interop import torch_file
from darts_cli.interop.detected import Shapes
from darts_cli.interop.images import ImageInterop
from darts_cli.interop.text import TextInterop
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES

Interop = ImageInterop | TextInterop

# What each space knows of published state dictionaries.
INTEROP: dict[str, Interop] = {"cnn": ImageInterop(), "rnn": TextInterop()}

# Keys under which a dictionary of more than a network holds it.
_PLACES = ("state_dict", "model_state_dict", "model_state", "model", "network", "net")

# Keys under which it holds alphas side by side.
_LISTS = ("alphas", "arch_parameters", "_arch_parameters")

# Prefix that torch's DataParallel puts before all names.
_PARALLEL = "module."

_NAME = re.compile(r"[\w.]{1,200}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedNetwork:
    """Tensors of a network of a known space."""

    space: SearchSpace
    published: Interop
    state: dict[str, Tensor]
    alphas: dict[str, Tensor] | None
    """Alphas by cell, `[E, O]`; None where the file has none."""

    @property
    def shapes(self) -> Shapes:
        """Shapes of all tensors by name."""
        return {name: tuple(tensor.shape) for name, tensor in self.state.items()}


def read_network(path: Path) -> ImportedNetwork:
    """Read the network in a file of `torch.save`.

    Raises:
        CheckpointError: if the file cannot be read, or holds no network of DARTS.
    """
    # By names alone, before anything else of the file is read.
    names = {name.removeprefix(_PARALLEL) for name in torch_file.read_keys(path)}
    space = next((name for name, of in INTEROP.items() if of.holds(names)), None)
    if space is None:
        raise CheckpointError(
            f"{path}: found no network of DARTS in it, expected the state dictionary of one, with "
            "names such as cells.0.preprocess1.op.1.weight or rnns.0._W0"
        )
    whole, published = torch_file.read(path), INTEROP[space]
    state = _find_state(whole, published, path)
    found = _find_alphas(state, published)
    for name in chain(*published.alphas):
        state.pop(name, None)
    for name, tensor in state.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise CheckpointError(f"{path}: found a name that no tensor of a network has")
        _check_tensor(path, name, tensor)
    found = found if found is not None else _find_alphas(whole, published)
    alphas = _check_alphas(found, SPACES[space], path) if found is not None else None
    return ImportedNetwork(space=SPACES[space], published=published, state=state, alphas=alphas)


def read_alphas_of(path: Path, network: ImportedNetwork) -> dict[str, Tensor]:
    """Read the alphas in a file of their own, by cell.

    Raises:
        CheckpointError: if there are none, or not those of the network's space.
    """
    torch_file.read_keys(path)
    found = _find_alphas(torch_file.read(path), network.published)
    if found is None:
        names = " and ".join(names[0] for names in network.published.alphas)
        raise CheckpointError(f"{path}: found no alphas in it, expected tensors {names}")
    return _check_alphas(found, network.space, path)


def _places(whole: object, keys: tuple[str, ...]) -> list[object]:
    """Return what may hold a network or alphas: the whole file, and its values of some keys."""
    return (
        [whole, *(whole[key] for key in keys if key in whole)]
        if isinstance(whole, dict)
        else [whole]
    )


def _find_state(whole: object, published: Interop, path: Path) -> dict[Any, Any]:
    """Return a copy of the state dictionary, without the prefix of DataParallel."""
    for place in _places(whole, _PLACES):
        if not isinstance(place, dict):
            continue
        names = [name for name in place if isinstance(name, str)]
        if published.holds({name.removeprefix(_PARALLEL) for name in names}):
            # On all names or on none: one of a mixture is a name that no tensor has.
            if len(names) == len(place) and all(name.startswith(_PARALLEL) for name in names):
                return {name.removeprefix(_PARALLEL): place[name] for name in names}
            return dict(place)
    raise CheckpointError(
        f"{path}: found no state dictionary where one is looked for, expected it as the whole "
        f"file, or under one of {', '.join(_PLACES)}"
    )


def _check_tensor(path: Path, name: str, tensor: object) -> Tensor:
    """Return what a file has under a name, if it is a tensor that can be used.

    Raises:
        CheckpointError: if it is not.
    """
    if not isinstance(tensor, Tensor):
        raise CheckpointError(f"{path}: {name}: found no tensor, expected one")
    if not torch_file.is_whole(tensor):
        raise CheckpointError(
            f"{path}: {name}: found {tensor.numel():,} numbers of which fewer are in the file, "
            "expected all of them"
        )
    if tensor.dtype == torch.bool:
        raise CheckpointError(f"{path}: {name}: found {tensor.dtype}, expected numbers")
    return tensor


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Check that all numbers are finite.

    Raises:
        CheckpointError: naming the first tensor that holds others.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"{path}: {name}: found a number that is not finite, expected weights of a "
                "training that has not diverged"
            )


def _find_alphas(whole: object, published: Interop) -> list[object] | None:
    """Return the alphas of each cell, by name or side by side; None if they are not there."""
    for place in _places(whole, _LISTS):
        if isinstance(place, dict):
            named = [
                next((place[name] for name in names if name in place), None)
                for names in published.alphas
            ]
            if all(isinstance(alpha, Tensor) for alpha in named):
                return list(named)
        if isinstance(place, list | tuple) and len(place) == len(published.alphas):
            return list(place)
        if isinstance(place, Tensor) and len(published.alphas) == 1:
            return [place]
    return None


def _check_alphas(found: list[object], space: SearchSpace, path: Path) -> dict[str, Tensor]:
    shape, alphas = [len(space.edges), len(space.primitives)], {}
    for cell, value in zip(space.cells, found, strict=True):
        alpha = _check_tensor(path, f"alphas of {cell}", value)
        if list(alpha.shape) != shape:
            raise CheckpointError(
                f"{path}: alphas of {cell}: found shape {list(alpha.shape)}, expected {shape}, "
                "a row an edge and a column a primitive"
            )
        alphas[cell] = alpha.detach().float()
    check_finite(path, {f"alphas of {cell}": alpha for cell, alpha in alphas.items()})
    return alphas
