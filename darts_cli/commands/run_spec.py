"""The specification of a run: command, settings and genotype, and how a checkpoint holds them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_cli import config_file, schema
from darts_cli.config import Config, DataConfig
from darts_cli.engine.artifacts import versions
from darts_cli.engine.task import Data, DatasetInfo, Task
from darts_cli.errors import ANOTHER, CheckpointError, ConfigError, DataError
from darts_cli.genotype.file import dump, parse
from darts_cli.genotype.types import Genotype
from darts_cli.run.directory import Run
from darts_cli.schema import Rule
from darts_cli.spaces import SPACES, TABLE, load_task

_POSITION = {"epoch", "step", "total"}

# What the metadata of a whole checkpoint has; fingerprints are new in format 2.
_METADATA = {
    "kind": Rule("a command's name", schema.is_name),
    "config": Rule("settings", schema.is_mapping),
    "facts": Rule("facts about the data", schema.is_mapping),
    "counts": Rule("numbers of examples", schema.is_mapping_of(schema.is_count)),
    "genotype": Rule("a genotype or none", lambda value: value is None or isinstance(value, str)),
    "position": Rule(
        "epoch, step and total",
        lambda value: schema.is_mapping_of(schema.is_count)(value) and value.keys() == _POSITION,
    ),
    "best": Rule("a loss or none", lambda loss: loss is None or schema.is_number(loss)),
    "averaged": Rule("a number of steps or none", lambda of: of is None or schema.is_count(of)),
    "watched": Rule("losses of epochs", schema.is_list_of(schema.is_number)),
    "rollbacks": Rule("how often a run went back", schema.is_count),
    "fingerprints": Rule("a text for each split", schema.is_mapping, required=False),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """Specification of a run."""

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


def absolute_data(name: str, task: Task) -> str:
    """Return a folder of data by its absolute path, any other data by its name."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name not in task.data_names and folder.is_dir() else name


def run_metadata(
    spec: RunSpec, info: DatasetInfo, counts: Mapping[str, int], fingerprints: Mapping[str, str]
) -> dict[str, Any]:
    """Return what a checkpoint holds besides the state; `read_spec` reads it back."""
    return {
        "kind": spec.command,
        "config": config_file.as_mapping(spec.config),
        "facts": info,
        "counts": dict(counts),
        "fingerprints": dict(fingerprints),
        "genotype": dump(spec.genotype) if spec.genotype is not None else None,
        "versions": versions(),
    }


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a checkpoint in the errors of a block.

    Raises:
        CheckpointError: with the file before what was wrong in it.
    """
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(error.problem, where=path, remedy=ANOTHER) from None


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
    schema.check(metadata, _METADATA, CheckpointError, where=path, remedy=ANOTHER)
    command, text = metadata["kind"], metadata["genotype"]
    genotype = parse(text, SPACES, f"the genotype in {path}") if text is not None else None
    config = _saved_config(command, metadata["config"], path)
    if (genotype is None) != (command == "search"):
        raise CheckpointError(
            f"{path}: genotype: found {'none' if genotype is None else genotype.name!r} in a "
            f"checkpoint of {command}; use another checkpoint"
        )
    if genotype is not None and genotype.space != config.space:
        raise CheckpointError(
            f"{path}: genotype: found one of space {genotype.space!r}, expected "
            f"{config.space!r}; use another checkpoint"
        )
    spec = RunSpec(command=command, config=config, genotype=genotype)
    with naming(path):
        spec.task.check_info(metadata["facts"])
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
