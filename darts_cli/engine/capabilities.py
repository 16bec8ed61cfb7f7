"""Optional methods of a network beyond its forward pass, and the errors where it lacks them.

A network of a new space needs none of these, which are found by `isinstance`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from darts_cli.errors import ConfigError


@runtime_checkable
class HasReferenceNames(Protocol):
    """Translates its tensors to the names and shapes of published DARTS checkpoints.

    Checkpoints hold these names, so that they outlive the layout in which a
    network keeps its tensors.
    """

    def to_reference_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Split and rename parameters, buffers or momenta, given by the network's own names."""

    def from_reference_names(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Invert `to_reference_names`."""


@runtime_checkable
class SavesMemory(Protocol):
    """Can store fewer activations, for more time and the same numbers."""

    def save_memory(self) -> None:
        """Recompute activations in the backward pass from now on."""


@runtime_checkable
class SyncsBatchNorm(Protocol):
    """Can compute BatchNorm over all ranks."""

    def synchronize(self) -> None:
        """Compute BatchNorm over all ranks from now on."""


@runtime_checkable
class HasRegions(Protocol):
    """Consists of similar parts that are worth compiling."""

    def regions(self) -> Sequence[nn.Module]:
        """Return the parts, each of which is compiled by itself."""


@runtime_checkable
class HasTrainingOnly(Protocol):
    """Has parameters that evaluation does not use."""

    @property
    def training_only(self) -> tuple[str, ...]:
        """Prefixes of their names."""


def to_reference_names(
    network: nn.Module | None, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a network's tensors by reference names; by its own where it has no others."""
    if isinstance(network, HasReferenceNames):
        return network.to_reference_names(tensors)
    return dict(tensors)


def from_reference_names(
    network: nn.Module | None, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Invert `to_reference_names`."""
    if isinstance(network, HasReferenceNames):
        return network.from_reference_names(tensors)
    return dict(tensors)


def training_only(network: nn.Module) -> tuple[str, ...]:
    """Return the prefixes of the names of parameters that evaluation does not use."""
    return network.training_only if isinstance(network, HasTrainingOnly) else ()


def save_memory(network: nn.Module) -> None:
    """Recompute activations in the backward pass from now on.

    Raises:
        ConfigError: if the network cannot.
    """
    if not isinstance(network, SavesMemory):
        raise ConfigError("--memory save: for the search of images, expected fast")
    network.save_memory()


def synchronize_batchnorm(network: nn.Module) -> None:
    """Compute BatchNorm over all ranks from now on.

    Raises:
        ConfigError: if the network cannot.
    """
    if not isinstance(network, SyncsBatchNorm):
        raise ConfigError("--sync-batchnorm: for images, leave it out for text")
    network.synchronize()


def regions(network: nn.Module) -> Sequence[nn.Module]:
    """Return the parts of a network that are compiled.

    Raises:
        ConfigError: if it has none.
    """
    if not isinstance(network, HasRegions):
        raise ConfigError("--compile: for images, leave it out for text")
    return network.regions()
