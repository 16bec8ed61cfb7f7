"""What a run is: its command, settings and genotype, and how a checkpoint holds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_cli import config_file
from darts_cli.config import Config, DataConfig
from darts_cli.engine.task import Data, Task
from darts_cli.errors import ANOTHER, CheckpointError, ConfigError, DataError
from darts_cli.genotype.file import parse
from darts_cli.genotype.types import Genotype
from darts_cli.run.directory import Run
from darts_cli.schema import (
    Rule,
    check,
    is_count,
    is_list_of,
    is_mapping,
    is_mapping_of,
    is_name,
    is_number,
)
from darts_cli.spaces import SPACES, TABLE, load_task

_POSITION = {"epoch", "step", "total"}

# What the metadata of a whole checkpoint has; fingerprints are new in format 2.
_METADATA = {
    "kind": Rule("a command's name", is_name),
    "config": Rule("settings", is_mapping),
    "facts": Rule("facts about the data", is_mapping),
    "counts": Rule("numbers of examples", is_mapping_of(is_count)),
    "genotype": Rule("a genotype or none", lambda value: value is None or isinstance(value, str)),
    "position": Rule(
        "epoch, step and total",
        lambda value: is_mapping_of(is_count)(value) and value.keys() == _POSITION,
    ),
    "best": Rule("a loss or none", lambda value: value is None or is_number(value)),
    "averaged": Rule("a number of steps or none", lambda value: value is None or is_count(value)),
    "watched": Rule("losses of epochs", is_list_of(is_number)),
    "rollbacks": Rule("how often a run went back", is_count),
    "fingerprints": Rule("a text for each split", is_mapping, required=False),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """What a run is."""

    command: str
    """`search` or `train`."""
    config: Config
    genotype: Genotype | None
    """The genotype that is trained; None in a search."""

    @property
    def task(self) -> Task:
        """Networks and data of the space."""
        return load_task(self.config.space)

    @property
    def search(self) -> bool:
        """Whether this is a search, which reads training data alone."""
        return self.genotype is None

    @property
    def words(self) -> str:
        """The command with its argument, as a user types it."""
        return f"search {self.config.space}" if self.search else "train"


def check_fingerprints(spec: RunSpec, data: Data, metadata: Mapping[str, Any], remedy: str) -> None:
    """Check that the splits read so far are those that a run was trained on.

    Args:
        spec: The run.
        data: Its data.
        metadata: Metadata of its checkpoint; format 1 had no fingerprints.
        remedy: What to do if they differ.

    Raises:
        DataError: naming the first split that differs.
    """
    known = metadata.get("fingerprints", {})
    unit = spec.task.describe(spec.config, data.describe()).unit
    for split, found in data.fingerprints.items():
        if split in known and known[split] != found:
            raise DataError(
                f"{spec.config.data.name}: found other {split} {unit}s than the run began with; "
                f"{remedy}"
            )


def read_spec(metadata: Mapping[str, Any], path: Path) -> RunSpec:
    """Read the run of a checkpoint from its metadata.

    Raises:
        CheckpointError: if it is incomplete or inconsistent.
    """
    if metadata.get("kind") == "alphas":
        raise CheckpointError(
            f"{path}: found alphas alone, expected a whole checkpoint; "
            "use the run's last.safetensors"
        )
    for name, rule in _METADATA.items():
        if rule.required and name not in metadata:
            raise CheckpointError(
                f"{path}: found no {name!r} in it, expected a checkpoint of a search or training"
            )
    check(metadata, _METADATA, CheckpointError, where=path, remedy=ANOTHER)
    command, settings, text = (metadata[name] for name in ("kind", "config", "genotype"))
    genotype = parse(text, SPACES, f"the genotype in {path}") if text is not None else None
    spec = RunSpec(
        command=command, config=_saved_config(command, settings, path), genotype=genotype
    )
    if (genotype is None) != (command == "search"):
        raise CheckpointError(
            f"{path}: genotype: found {'none' if genotype is None else genotype.name!r} in a "
            f"checkpoint of {command}; use another checkpoint"
        )
    if genotype is not None and genotype.space != spec.config.space:
        raise CheckpointError(
            f"{path}: genotype: found one of space {genotype.space!r}, expected "
            f"{spec.config.space!r}; use another checkpoint"
        )
    try:
        spec.task.check_info(metadata["facts"])
    except CheckpointError as error:
        raise CheckpointError(error.problem, where=path, remedy=ANOTHER) from None
    return spec


def with_own_root(config: Config, folder: Path) -> Config:
    """Return settings of a checkpoint with the `data.root` of the config.yaml beside it.

    Data is downloaded there, and decoded images are kept and removed: the user's own file may
    say where, but not a checkpoint, which may come from anybody. Without that file it is the
    default.

    Raises:
        ConfigError: if that file cannot be read.
    """
    file = Run(folder).config
    data = config_file.read(file).get("data") if file.is_file() else None
    root = data.get("root") if isinstance(data, dict) else None
    root = DataConfig(name="").root if root is None else root
    return config_file.override(config, {"data": {"root": root}}, str(file))


def _saved_config(command: str, settings: Mapping[str, Any], path: Path) -> Config:
    """Return all settings of a run, as its checkpoint holds them.

    Raises:
        CheckpointError: if they are not those of a command of this version.
    """
    try:
        base = TABLE[settings["space"]].recipes[command][settings["recipe"]]
    except (KeyError, TypeError):
        raise CheckpointError(
            f"{path}: found settings of no known command, space and recipe; "
            "use the version of darts that wrote it"
        ) from None
    try:
        return config_file.override(base, settings, str(path))
    except ConfigError as error:
        # The remedy of a setting advises flags.
        raise CheckpointError(error.problem, where=path, remedy=ANOTHER) from None
