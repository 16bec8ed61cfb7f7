"""`darts export`: a network as published code loads it, or a genotype as it pastes it."""

from pathlib import Path
from typing import Any

from torch import Tensor

from darts_cli.commands.import_ import choose_output
from darts_cli.commands.run_spec import RunSpec, read_spec
from darts_cli.errors import CheckpointError
from darts_cli.genotype.file import load
from darts_cli.genotype.pasted import write_pasted
from darts_cli.interop import torch_file
from darts_cli.interop.spaces import INTEROP
from darts_cli.run import checkpoint
from darts_cli.run.directory import Run
from darts_cli.run.files import write_text
from darts_cli.spaces import SPACES
from darts_cli.terminal.console import error_console


def export(source: str, output: Path | None) -> None:
    """Write a checkpoint's network as a state dictionary, or print a genotype as it is pasted.

    Raises:
        DartsError: for whatever a user can mend.
    """
    path = Path(source)
    if path.is_dir() or path.suffix == ".safetensors":
        _export_network(path, output)
        return
    genotype = load(source, SPACES)
    text = write_pasted(genotype, SPACES[genotype.space])
    if output is None:
        print(text, end="")
        return
    write_text(choose_output(output, output, path), text)
    print(output)


def _export_network(source: Path, output: Path | None) -> None:
    file, tensors, metadata = _read(source)
    spec = read_spec(metadata, file)
    name = source.resolve().name if source.is_dir() else source.stem
    path = choose_output(output, Path(f"{name}.pt"), file)
    beside = path.with_name(f"{path.stem}-alphas.pt")
    alphas = _alphas(tensors, spec)
    if alphas:
        choose_output(beside if output is not None else None, beside, file)
    state = _state(tensors, spec, file)
    if alphas:
        torch_file.save(beside, alphas)
    torch_file.save(path, state)
    console = error_console()
    which = "the average of the weights" if metadata["averaged"] is not None else "the weights"
    console.print(f"{file}: {which} of darts {spec.words}", soft_wrap=True, markup=False)
    if alphas:
        console.print(f"alphas are in {beside}", soft_wrap=True, markup=False)
    print(path)


def _read(source: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """The checkpoint of a run that evaluation is of, or of a search the newest one.

    Raises:
        CheckpointError: if there is none, or it cannot be read.
    """
    if not source.is_dir():
        return source, *checkpoint.read(source)
    run = Run.open(source)
    for file in (run.best, run.last):
        if file.is_file() and (
            file == run.last or checkpoint.read_metadata(file).get("kind") == "train"
        ):
            return file, *checkpoint.read(file)
    raise CheckpointError(f"{run.path}: found no checkpoint in it yet, let the run save one")


def _state(tensors: dict[str, Tensor], spec: RunSpec, file: Path) -> dict[str, Tensor]:
    """The tensors of the network by published names; the average of the weights where there is one.

    Raises:
        CheckpointError: if there are none.
    """
    state = {
        name.removeprefix(prefix): tensor
        for prefix in ("network.", "average.")
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    for second, first in INTEROP[spec.config.space].tied:
        if first in state:
            state[second] = state[first]
    if not state:
        raise CheckpointError(f"{file}: found no weights in it, expected those of a network")
    return state


def _alphas(tensors: dict[str, Tensor], spec: RunSpec) -> dict[str, Tensor]:
    """The alphas of a search by published names."""
    space = SPACES[spec.config.space]
    return {
        names[0]: tensors[f"alphas.{cell}"]
        for cell, names in zip(space.cells, INTEROP[space.name].alphas, strict=True)
        if f"alphas.{cell}" in tensors
    }
