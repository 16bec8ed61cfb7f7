"""`darts export`: a network as published code loads it, or a genotype as it pastes it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from darts_cli.commands.import_ import choose_output
from darts_cli.commands.reading import find_checkpoint, show_note
from darts_cli.commands.run_spec import read_spec
from darts_cli.errors import CheckpointError
from darts_cli.genotype.file import load
from darts_cli.genotype.pasted import write_pasted
from darts_cli.interop import torch_file
from darts_cli.interop.imported import INTEROP
from darts_cli.run import checkpoint
from darts_cli.run.files import write_text
from darts_cli.spaces import SPACES


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
    else:
        write_text(choose_output(output, output, path), text)
        print(output)


def _export_network(source: Path, output: Path | None) -> None:
    file = find_checkpoint(source) if source.is_dir() else source
    tensors, metadata = checkpoint.read(file)
    spec = read_spec(metadata, file)
    name = source.resolve().name if source.is_dir() else source.stem
    path = choose_output(output, Path(f"{name}.pt"), file)
    beside = path.with_name(f"{path.stem}-alphas.pt")
    interop, cells = INTEROP.get(spec.config.space), spec.task.space.cells
    if interop is None:
        raise CheckpointError(
            f"{file}: found a network of {spec.config.space}, expected one of a space with "
            f"published checkpoints, {' or '.join(INTEROP)}"
        )
    # By published names.
    alphas = {
        names[0]: tensors[f"alphas.{cell}"]
        for cell, names in zip(cells, interop.alphas, strict=True)
        if f"alphas.{cell}" in tensors
    }
    if alphas:
        choose_output(beside if output is not None else None, beside, file)
    state = _state(tensors, interop.tied, file)
    if alphas:
        torch_file.save(beside, alphas)
    torch_file.save(path, state)
    which = "the average of the weights" if metadata["averaged"] is not None else "the weights"
    show_note(f"{file}: {which} of darts {spec.words}")
    if alphas:
        show_note(f"alphas are in {beside}")
    print(path)


def _state(
    tensors: Mapping[str, Tensor], tied: tuple[tuple[str, str], ...], file: Path
) -> dict[str, Tensor]:
    """Return the network's tensors by published names; averaged weights where there are any.

    Raises:
        CheckpointError: if there are none.
    """
    state = {
        name.removeprefix(prefix): tensor
        for prefix in ("network.", "average.")
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if not state:
        raise CheckpointError(f"{file}: found no weights in it, expected those of a network")
    return state | {second: state[first] for second, first in tied if first in state}
