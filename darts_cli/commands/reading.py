"""What a run directory and the files in it tell: alphas, genotypes, metrics, settings."""

from pathlib import Path
from typing import Any

from darts_cli import checkpoint, config_file
from darts_cli.collapse import Moment, observe
from darts_cli.engine.artifacts import origin
from darts_cli.errors import CheckpointError
from darts_cli.genotype import Alphas
from darts_cli.genotype_file import load
from darts_cli.history import History
from darts_cli.run import Run
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES


def read_alphas(file: Path) -> tuple[SearchSpace, Alphas, dict[str, Any]]:
    """The alphas of a search in a checkpoint or a file of `alphas/`, with what it says of itself.

    Raises:
        CheckpointError: if there are none, or not those of its space.
    """
    tensors, metadata = checkpoint.read(file)
    if not any(name.startswith("alphas.") for name in tensors):
        raise CheckpointError(f"{file}: found no alphas in it, expected a checkpoint of a search")
    space = SPACES[metadata["config"]["space"]]
    alphas = {}
    for cell in space.cells:
        alpha = tensors.get(f"alphas.{cell}")
        shape = [len(space.edges), len(space.primitives)]
        if alpha is None or list(alpha.shape) != shape:
            raise CheckpointError(f"{file}: expected alphas of cell {cell!r} of shape {shape}")
        alphas[cell] = alpha.tolist()
    return space, alphas, metadata


def read_history(path: Path) -> History:
    """All that a run directory tells.

    Raises:
        CheckpointError: if it is no run, or a file in it is damaged.
        ConfigError: if its settings cannot be read.
        GenotypeError: if its genotype cannot be read.
    """
    run = Run.open(path)
    settings = config_file.read(run.config, notes=True)
    if settings.get("space") not in SPACES or settings.get("command") not in {"search", "train"}:
        raise CheckpointError(f"{run.config}: expected the settings of a search or training")
    space = SPACES[settings["space"]]
    return History(
        path=path,
        command=settings["command"],
        space=space,
        settings=settings,
        records=run.read_metrics(),
        moments=_read_moments(run),
        genotype=load(run.genotype, SPACES) if run.genotype.is_file() else None,
    )


def _read_moments(run: Run) -> list[Moment]:
    moments: list[Moment] = []
    for file in sorted(run.alphas.glob("epoch-*.safetensors")):
        space, alphas, metadata = read_alphas(file)
        epoch = metadata["position"]["epoch"]
        moments.append(
            observe(
                space,
                alphas,
                epoch=epoch,
                name=f"{run.path.resolve().name}-epoch-{epoch}",
                before=moments[-1] if moments else None,
                origin=origin(metadata, run.path.resolve().name, epoch),
            )
        )
    return moments
