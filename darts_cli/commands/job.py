"""What a run is about, and how a checkpoint tells it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_cli import config_file
from darts_cli.config import Config
from darts_cli.engine.task import Domain
from darts_cli.errors import CheckpointError
from darts_cli.genotype import Genotype
from darts_cli.genotype_file import parse
from darts_cli.recipes import RECIPES
from darts_cli.spaces import SPACES
from darts_cli.spaces.domains import DOMAINS

_METADATA = (
    "kind",
    "config",
    "facts",
    "counts",
    "genotype",
    "position",
    "best",
    "averaged",
    "watched",
    "rollbacks",
)
"""What the metadata of a whole checkpoint has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a run is about."""

    command: str
    """`search` or `train`."""
    config: Config
    genotype: Genotype | None
    """What is trained; None in a search."""

    @property
    def domain(self) -> Domain:
        """Networks and data of the space."""
        return DOMAINS[self.config.space]

    @property
    def search(self) -> bool:
        """Whether this is a search, which reads training data alone."""
        return self.genotype is None

    @property
    def words(self) -> str:
        """The command with its argument, as a user types it."""
        return f"search {self.config.space}" if self.search else "train"


def read_job(metadata: Mapping[str, Any], path: Path) -> Job:
    """What a checkpoint is of.

    Raises:
        CheckpointError: if it does not say.
    """
    if metadata.get("kind") == "alphas":
        raise CheckpointError(
            f"{path}: found alphas alone, expected a whole checkpoint; "
            "use the run's last.safetensors"
        )
    missing = [name for name in _METADATA if name not in metadata]
    if missing:
        raise CheckpointError(
            f"{path}: found no {missing[0]!r} in it, expected a checkpoint of a search or training"
        )
    command, settings, text = (metadata[name] for name in ("kind", "config", "genotype"))
    genotype = parse(text, SPACES, f"the genotype in {path}") if text is not None else None
    return Job(command=command, config=_saved_config(command, settings, path), genotype=genotype)


def _saved_config(command: str, settings: Mapping[str, Any], path: Path) -> Config:
    """All settings of a run, as its checkpoint holds them.

    Raises:
        CheckpointError: if they are not those of a command of this version.
    """
    try:
        base = RECIPES[command][settings["space"]][settings["recipe"]]
    except (KeyError, TypeError):
        raise CheckpointError(
            f"{path}: found settings of no known command, space and recipe; "
            "use the version of darts that wrote it"
        ) from None
    return config_file.override(base, settings, str(path))
