"""What a run is about, and how a checkpoint tells it."""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_cli import config_file
from darts_cli.config import Config
from darts_cli.engine.task import Data, Task
from darts_cli.errors import CheckpointError, ConfigError, DataError
from darts_cli.genotype.file import parse
from darts_cli.genotype.types import Genotype
from darts_cli.recipes import RECIPES
from darts_cli.run.directory import Run
from darts_cli.spaces import SPACES
from darts_cli.spaces.tasks import TASKS


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    # By a bound: an integer may be too large to be asked whether it is finite.
    return type(value) in {int, float} and abs(value) < 1e300  # type: ignore[arg-type]


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict)


_POSITION = {"epoch", "step", "total"}

_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "kind": (lambda value: isinstance(value, str), "a command's name"),
    "config": (_is_mapping, "settings"),
    "facts": (_is_mapping, "facts about the data"),
    "counts": (
        lambda value: _is_mapping(value) and all(map(_is_count, value.values())),
        "numbers of examples",
    ),
    "genotype": (lambda value: value is None or isinstance(value, str), "a genotype or none"),
    "position": (
        lambda value: (
            _is_mapping(value) and value.keys() == _POSITION and all(map(_is_count, value.values()))
        ),
        "epoch, step and total",
    ),
    "best": (lambda value: value is None or _is_number(value), "a loss or none"),
    "averaged": (lambda value: value is None or _is_count(value), "a number of steps or none"),
    "watched": (
        lambda value: isinstance(value, list) and all(map(_is_number, value)),
        "losses of epochs",
    ),
    "rollbacks": (_is_count, "how often a run went back"),
    "fingerprints": (_is_mapping, "a text for each split"),
}
"""What the metadata of a whole checkpoint has."""

_NEW = {"fingerprints"}
"""What format 1 had not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """What a run is about."""

    command: str
    """`search` or `train`."""
    config: Config
    genotype: Genotype | None
    """What is trained; None in a search."""

    @property
    def task(self) -> Task:
        """Networks and data of the space."""
        return TASKS[self.config.space]

    @property
    def search(self) -> bool:
        """Whether this is a search, which reads training data alone."""
        return self.genotype is None

    @property
    def words(self) -> str:
        """The command with its argument, as a user types it."""
        return f"search {self.config.space}" if self.search else "train"


def check_fingerprints(spec: RunSpec, data: Data, metadata: Mapping[str, Any], remedy: str) -> None:
    """Make sure that the splits that were read are those that a run knows.

    Args:
        spec: Of the run.
        data: Some of whose splits were read.
        metadata: Of a checkpoint; those of format 1 knew none.
        remedy: What to do if they are not.

    Raises:
        DataError: naming the first split that is another.
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
    """What a checkpoint is of.

    Raises:
        CheckpointError: if it does not say.
    """
    if metadata.get("kind") == "alphas":
        raise CheckpointError(
            f"{path}: found alphas alone, expected a whole checkpoint; "
            "use the run's last.safetensors"
        )
    for name, (is_valid, expected) in _FIELDS.items():
        if name in metadata and not is_valid(metadata[name]):
            raise CheckpointError(
                f"{path}: {name}: found {reprlib.repr(metadata[name])}, expected {expected}; "
                "use another checkpoint"
            )
        if name not in metadata and name not in _NEW:
            raise CheckpointError(
                f"{path}: found no {name!r} in it, expected a checkpoint of a search or training"
            )
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
        raise CheckpointError(f"{path}: {error}; use another checkpoint") from None
    return spec


def with_own_root(config: Config, folder: Path) -> Config:
    """Settings of a checkpoint, with the `data.root` of the config.yaml beside it.

    Data is downloaded there, and decoded images are kept and removed: where that may be is for
    the user's own text to say, not for a file of tensors, which may come from anybody. Where
    there is no such text, it is the default.

    Raises:
        ConfigError: if that text cannot be read.
    """
    file = Run(folder).config
    data = config_file.read(file).get("data") if file.is_file() else None
    root = data.get("root") if isinstance(data, dict) else None
    root = type(config.data)().root if root is None else root
    return config_file.override(config, {"data": {"root": root}}, str(file))


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
    try:
        return config_file.override(base, settings, str(path))
    except ConfigError as error:
        # A setting's range does not know whose it is, and advises flags.
        what = str(error).removeprefix(f"{path}: ").split("; use ")[0]
        raise CheckpointError(f"{path}: {what}; use another checkpoint") from None
