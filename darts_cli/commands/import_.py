"""`darts import`: published checkpoints and pasted genotypes become files of darts."""

from dataclasses import fields
from pathlib import Path

import torch

from darts_cli import config_file
from darts_cli.commands.build import build_state
from darts_cli.commands.reading import show_note
from darts_cli.commands.run_spec import RunSpec, absolute_data, run_metadata
from darts_cli.engine.capabilities import to_reference_names, training_only
from darts_cli.engine.state import load_network
from darts_cli.engine.task import DatasetInfo
from darts_cli.errors import CheckpointError, ConfigError, GenotypeError
from darts_cli.genotype.file import dump, load, parse, shipped
from darts_cli.genotype.pasted import MAX_BYTES, parse_pasted
from darts_cli.genotype.types import Genotype
from darts_cli.interop import torch_file
from darts_cli.interop.detected import DetectedNetwork
from darts_cli.interop.imported import ImportedNetwork, check_finite, read_alphas_of, read_network
from darts_cli.options import ImportOptions, spelling
from darts_cli.run import checkpoint
from darts_cli.run.files import write_text
from darts_cli.runtime.ranks import SINGLE_PROCESS
from darts_cli.spaces import SPACES, TABLE, load_task, recipe

# Counter of BatchNorm, which PyTorch 0.3 did not have.
_COUNTER = "num_batches_tracked"

# Recipes that go with data, not with a kind of network.
_DATA_RECIPES = ("digits", "wikitext2", "pydoc")


def import_file(request: ImportOptions) -> None:
    """Write what a file holds as a file of darts, and print its path.

    Raises:
        DartsError: for whatever a user can mend.
    """
    is_torch = torch_file.is_torch_file(request.source)
    for field in fields(request):
        given = getattr(request, field.name) is not None
        if given and field.name not in {"source", "output"} and is_torch == (field.name == "name"):
            what = "a text with genotypes" if is_torch else "a checkpoint"
            raise ConfigError(
                f"{spelling(field.name)}: for {what}, leave it out for {request.source}"
            )
    print(_import_checkpoint(request) if is_torch else _import_text(request))


def choose_output(output: Path | None, default: Path, source: Path) -> Path:
    """Return where a result goes, without overwriting anything that was not named.

    Raises:
        ConfigError: if there is something already, or the result would replace its source.
    """
    path = output or default
    if output is None and path.exists():
        raise ConfigError(f"{path}: is there already; name a file by --output, which replaces it")
    if path.exists() and path.resolve() == source.resolve():
        raise ConfigError(f"--output {path}: is what is read; name another file")
    if path.is_dir():
        raise ConfigError(f"--output {path}: found a directory, expected a file")
    return path


def _import_text(request: ImportOptions) -> Path:
    """Write the file of a pasted genotype, and return its path."""
    source = request.source
    try:
        size = source.stat().st_size
        if size > MAX_BYTES:
            raise GenotypeError(
                f"{source}: found {size:,} bytes, expected a text of {MAX_BYTES:,} or less with "
                "Genotype(...) in it, or a file of torch.save"
            )
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise GenotypeError(f"{source}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise GenotypeError(
            f"{source}: found bytes that are no UTF-8, expected a text with Genotype(...) in it, "
            "or a file of torch.save"
        ) from None
    genotype = parse_pasted(text, SPACES, str(source), request.name)
    path = choose_output(request.output, Path(f"{genotype.name}.yaml"), source)
    written = dump(genotype)
    if parse(written, SPACES, str(path)) != genotype:
        raise GenotypeError(f"{source}: found a genotype that a file cannot hold")
    write_text(path, written)
    return path


def _import_checkpoint(request: ImportOptions) -> Path:
    """Write a checkpoint of published weights, and return its path."""
    source = request.source
    stem = source.name.removesuffix(".tar").rsplit(".", 1)[0] or source.name
    path = choose_output(request.output, Path(f"{stem}.safetensors"), source)
    network = read_network(source)
    try:
        detected = network.published.detect(network.shapes)
        spec, info, note = _settle(request, network, detected)
        _check_names(spec, info, network)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    check_finite(source, network.state)
    alphas = network.alphas
    if request.alphas is not None:
        if not spec.search:
            raise ConfigError("--alphas: for a supernet, leave it out for a discrete network")
        alphas = read_alphas_of(request.alphas, network)
    state = build_state(spec, info, torch.device("cpu"), SINGLE_PROCESS)
    own = to_reference_names(state.module.network, state.module.network.state_dict())
    try:
        # Published weights may be in half or double precision.
        given = {
            f"network.{name}": item.to(own[name].dtype) for name, item in network.state.items()
        }
        load_network(state.module, given)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    # Without alphas in the file, none are made up.
    held = state.state_dict().items()
    tensors = {name: tensor for name, tensor in held if not name.startswith("alphas.")}
    tensors |= {f"alphas.{cell}": alpha for cell, alpha in (alphas or {}).items()}
    checkpoint.write(path, tensors, run_metadata(spec, info, {}, {}) | state.metadata())
    show_note(f"{source.name}: {detected.words}")
    if spec.search and alphas is None:
        note = "no alphas in it: give their file by --alphas to derive a genotype"
    if note:
        show_note(note)
    return path


def _settle(
    request: ImportOptions, network: ImportedNetwork, detected: DetectedNetwork
) -> tuple[RunSpec, DatasetInfo, str]:
    """Return the network as a run of darts would have it, its dataset info, and a note."""
    genotype = _choose_genotype(request, network, detected)
    command, space, data = detected.command, network.space.name, request.data
    named = data in _DATA_RECIPES and data in TABLE[space].recipes[command]
    config = recipe(command, space, request.recipe or (data if named else detected.recipe), None)
    try:
        config = config_file.override(config, {"network": detected.network}, "")
    except ConfigError as error:
        raise CheckpointError(error.problem) from None
    given = {
        "image_size": request.image_size,
        "min_count": request.min_count,
        "name": absolute_data(data, load_task(space)) if data is not None else None,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    config = config_file.override(config, {"data": settings}, "darts import")
    config, info, note = network.published.describe(
        detected, config, given=data is not None, classes=_classes(request.classes)
    )
    spec = RunSpec(command=command, config=config, genotype=genotype)
    spec.task.check_info(info)
    return spec, info, note


def _classes(text: str | None) -> tuple[str, ...] | None:
    """Return the names between commas, or in the lines of a file."""
    if text is None:
        return None
    path = Path(text)
    try:
        if "," not in text and path.is_file() and path.stat().st_size <= MAX_BYTES:
            names = path.read_text(encoding="utf-8").splitlines()
        else:
            names = text.split(",")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"--classes {text}: cannot be read, expected names in UTF-8") from None
    return tuple(name.strip() for name in names if name.strip())


def _choose_genotype(
    request: ImportOptions, network: ImportedNetwork, detected: DetectedNetwork
) -> Genotype | None:
    """Return the genotype of a discrete network; None for a supernet.

    Raises:
        CheckpointError: if there is none and should be, or the other way round.
    """
    if detected.command == "search":
        if request.genotype is not None:
            raise ConfigError(
                "--genotype: for a discrete network, leave it out for a supernet: derive finds it"
            )
        return None
    if request.genotype is None:
        raise CheckpointError(
            "found a discrete network, expected --genotype with what it was made of; "
            f"{_fitting(network)}"
        )
    genotype = load(request.genotype, SPACES)
    if genotype.space != network.space.name:
        raise CheckpointError(
            f"found a network of space {network.space.name!r}, expected one of "
            f"{genotype.space!r} for --genotype {request.genotype}; {_fitting(network)}"
        )
    return genotype


def _fitting(network: ImportedNetwork) -> str:
    """Say which of the genotypes that come with darts a network may be of."""
    found = [
        name
        for name in shipped()
        if (genotype := load(name, SPACES)).space == network.space.name
        and network.published.fits(network.shapes, genotype)
    ]
    if not found:
        return "none of those that come with darts fits: give its file"
    return f"{' and '.join(found)} fit{'s' if len(found) == 1 else ''}"


def _check_names(spec: RunSpec, info: DatasetInfo, network: ImportedNetwork) -> None:
    """Check that a file has the network's tensors and no others; add counters, drop tied tensors.

    Raises:
        CheckpointError: naming the first tensor that does not fit.
    """
    for second, first in network.published.tied:
        tensor = network.state.pop(second, None)
        if tensor is not None and not torch.equal(tensor, network.state[first]):
            raise CheckpointError(f"{second}: differs from {first}, expected a tied embedding")
    with torch.device("meta"):
        module = spec.task.build(spec.config, info, spec.genotype)
    expected = to_reference_names(module.network, module.network.state_dict())
    state, shapes = network.state, network.shapes
    # What evaluation does without tells least of what is wrong.
    last = training_only(module.network)
    for name, tensor in sorted(expected.items(), key=lambda item: item[0].startswith(last)):
        shape = list(tensor.shape)
        if name not in state and name.endswith(_COUNTER):
            state[name] = torch.zeros((), dtype=torch.int64)
        elif name not in state:
            raise _misfit(spec, network, f"{name}: found no such tensor, expected shape {shape}")
        elif (found := list(shapes[name])) != shape:
            raise _misfit(spec, network, f"{name}: found shape {found}, expected {shape}")
        elif state[name].is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(f"{name}: found {state[name].dtype}, expected {tensor.dtype}")
    for name in state:
        if name not in expected:
            found = list(shapes[name])
            raise _misfit(spec, network, f"{name}: found shape {found}, expected no such tensor")


def _misfit(spec: RunSpec, network: ImportedNetwork, text: str) -> CheckpointError:
    """Return the error of a tensor that does not fit, with the genotypes that do."""
    if spec.genotype is None:
        return CheckpointError(f"{text} in a supernet")
    return CheckpointError(f"{text} in a network of {spec.genotype.name}; {_fitting(network)}")
