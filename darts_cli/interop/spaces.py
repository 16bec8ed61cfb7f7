"""The spaces with what each knows of published state dictionaries."""

from collections.abc import Sequence
from typing import Protocol

from darts_cli.config import Config
from darts_cli.engine.task import DatasetInfo
from darts_cli.genotype.types import Genotype
from darts_cli.interop.detected import DetectedNetwork, Shapes
from darts_cli.interop.images import ImageInterop
from darts_cli.interop.text import TextInterop


class Interop(Protocol):
    """A space's state dictionaries, whose names are those that its networks publish."""

    @property
    def alphas(self) -> tuple[tuple[str, ...], ...]:
        """What the alphas of each cell are called, the usual name first."""
        ...

    @property
    def tied(self) -> tuple[tuple[str, str], ...]:
        """Names that stand for a tensor of another name as well, with that other name."""
        ...

    def holds(self, names: set[str]) -> bool:
        """Whether these are names of such a network."""
        ...

    def detect(self, shapes: Shapes) -> DetectedNetwork:
        """What the network is.

        Raises:
            CheckpointError: naming the first tensor that is missing or cannot be.
        """
        ...

    def fits(self, shapes: Shapes, genotype: Genotype) -> bool:
        """Whether the cells look as if they were of this genotype."""
        ...

    def describe(
        self,
        detected: DetectedNetwork,
        config: Config,
        *,
        given: bool,
        classes: Sequence[str] | None,
    ) -> tuple[Config, DatasetInfo, str]:
        """What the network has to remember of its data, with settings that name them.

        Returns:
            The settings, the facts, and what was taken for granted.

        Raises:
            CheckpointError: if these are no data of this network.
            DataError: if they are not there.
        """
        ...


INTEROP: dict[str, Interop] = {"cnn": ImageInterop(), "rnn": TextInterop()}
"""By space."""
