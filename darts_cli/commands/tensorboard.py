"""`--tensorboard`: scalars and pictures of every epoch of a run, for TensorBoard."""

import importlib.util
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from darts_cli.errors import ConfigError
from darts_cli.genotype.derivation import softmax
from darts_cli.genotype.types import Genotype
from darts_cli.run.files import WriteError
from darts_cli.run.signals import SearchSnapshot
from darts_cli.space import SearchSpace


def check_installed() -> None:
    """Check that tensorboard is installed, which writes the files.

    Raises:
        ConfigError: if it is not.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "--tensorboard: found no tensorboard, expected it to be installed; "
            "pip install 'darts-cli[tensorboard]'"
        )


class TensorBoardWriter:
    """Writes a run's epochs, numbered as in `metrics.jsonl`."""

    def __init__(
        self, run: Path, space: SearchSpace, genotype: Genotype | None, *, first: int
    ) -> None:
        """Begin with epoch `first`; what an earlier process wrote of later ones is hidden.

        Args:
            run: Directory of the run.
            space: Space of its cells.
            genotype: Genotype that is trained; None in a search.
            first: Number of the first epoch, from 1.

        Raises:
            WriteError: if the folder cannot be made.
        """
        # Here, since it takes seconds that no other run need wait.
        from torch.utils.tensorboard import SummaryWriter

        self.space = space
        self.genotype = genotype
        self.drawn = False
        self.folder = run / "tensorboard"
        try:
            self.writer = SummaryWriter(str(self.folder), purge_step=first)
        except OSError as error:
            raise self._unwritten(error) from None

    def __call__(self, record: Mapping[str, Any], snapshot: SearchSnapshot | None) -> None:
        """Write one epoch.

        Args:
            record: Its line of metrics.
            snapshot: The search after it; None for a training.

        Raises:
            WriteError: if the disk is full or the folder cannot be written.
        """
        epoch = record["epoch"]
        try:
            for name, value in _scalars(record):
                self.writer.add_scalar(name, value, epoch)
            if snapshot is not None:
                self._add_alphas(snapshot)
                self.genotype = snapshot.genotype
            changed = snapshot is not None and not snapshot.signals.unchanged_epochs
            if self.genotype is not None and (changed or not self.drawn):
                # At the first epoch and whenever the cells changed.
                picture = _picture(self.genotype)
                self.writer.add_image("genotype", picture, epoch, dataformats="HWC")
                self.drawn = True
            self.writer.flush()
        except OSError as error:
            raise self._unwritten(error) from None

    def _unwritten(self, error: OSError) -> WriteError:
        return WriteError(f"{self.folder}: cannot be written ({error.strerror})")

    def _add_alphas(self, snapshot: SearchSnapshot) -> None:
        """Write the softmax of each edge's candidates."""
        for cell, rows in snapshot.alphas.items():
            for (node, source), row in zip(self.space.edges, rows, strict=True):
                edge = f"{source} to {node + self.space.inputs}"
                for name, share in zip(self.space.primitives, softmax(row), strict=True):
                    self.writer.add_scalar(f"alphas {cell}, {edge}/{name}", share, snapshot.epoch)


def _scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield all numbers of a line, those of a group by the group's name."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{key}", number) for key, number in value.items())
        elif name != "epoch":
            yield f"run/{name}", value


def _picture(genotype: Genotype) -> Any:
    """Draw the cells as pixels `[H, W, 3]`."""
    # Drawing imports matplotlib.
    import numpy as np
    from PIL import Image

    from darts_cli.viz.cells import figure

    buffer = io.BytesIO()
    figure(genotype).savefig(buffer, format="png", dpi=100)
    return np.asarray(Image.open(buffer).convert("RGB"))
