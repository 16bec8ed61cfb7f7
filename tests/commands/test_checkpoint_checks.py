"""Checkpoints that claim more than there is, or hold less, are refused before that costs much."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from darts_cli.commands.checkpoint_checks import check_size
from darts_cli.commands.run_spec import RunSpec, read_spec
from darts_cli.engine.capabilities import to_reference_names
from darts_cli.errors import CheckpointError
from darts_cli.genotype.file import load, shipped
from darts_cli.recipes import RECIPES
from darts_cli.run import checkpoint
from darts_cli.spaces import SPACES
from tests.conftest import Darts, contents
from tests.torture.files import FACTS, make_checkpoints, read_checkpoint

GENOTYPES = [load(name, SPACES) for name in shipped()]

SPECS = [
    *(
        RunSpec(command="search", config=next(iter(recipes.values())), genotype=None)
        for recipes in RECIPES["search"].values()
    ),
    *(
        RunSpec(
            command="train", config=next(iter(RECIPES["train"][of.space].values())), genotype=of
        )
        for of in GENOTYPES
    ),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: getattr(spec.genotype, "name", spec.words))
def test_a_network_fits_its_own_file_and_no_smaller_one(spec: RunSpec) -> None:
    info = FACTS[spec.config.space]
    with torch.device("meta"):
        module = spec.task.build(spec.config, info, spec.genotype)
    named = to_reference_names(module.network, module.network.state_dict())
    tensors = {f"network.{name}": tensor for name, tensor in named.items()}
    check_size(spec, info, tensors, Path("x"))
    weights = {name for name, _ in module.network.named_parameters()} & named.keys()
    less = {name: tensors[name] for name in tensors if name.removeprefix("network.") not in weights}
    with pytest.raises(CheckpointError, match=r"x: config\.network: found settings of a larger"):
        check_size(spec, info, less, Path("x"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A search and a training in both spaces, after two steps each."""
    return {path.stem: path for path in make_checkpoints(tmp_path_factory.mktemp("made"))}


@pytest.mark.parametrize(
    ("name", "section", "setting", "value"),
    [
        ("train-rnn", "network", "width", 20_000),
        ("search-rnn", "network", "width", 65_536),
        ("train-cnn", "network", "layers", 1000),
        ("search-cnn", "network", "layers", 1000),
        ("search-cnn", "network", "channels", 512),
    ],
)
def test_settings_of_an_enormous_network_are_refused_before_it_is_built(
    made: dict[str, Path], tmp_path: Path, name: str, section: str, setting: str, value: int
) -> None:
    tensors, metadata = checkpoint.read(made[name])
    metadata["config"][section][setting] = value
    file = tmp_path / "last.safetensors"
    with pytest.raises(CheckpointError, match=r"config\.network: found settings of a larger"):
        check_size(read_spec(metadata, file), metadata["facts"], tensors, file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden.weights", torch.zeros(())),
        ("hidden.weights", torch.zeros(2, 3)),
        ("hidden.alphas", torch.zeros(4, 4, dtype=torch.int64)),
        ("hidden.alphas", None),
        ("hidden.more", torch.zeros(4, 4)),
    ],
)
def test_states_of_another_batch_are_refused(
    made: dict[str, Path], tmp_path: Path, name: str, value: Tensor | None
) -> None:
    tensors, metadata = checkpoint.read(made["search-rnn"])
    tensors.pop(name, None)
    if value is not None:
        tensors[name] = value
    file = tmp_path / "last.safetensors"
    checkpoint.write(file, tensors, metadata)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(file)
    assert str(caught.value).startswith(f"{file}: {name}: found ")


def put(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata.__setitem__(name, value)


def place(name: str, value: int) -> Callable[[dict[str, Any]], None]:
    return lambda metadata: metadata["position"].__setitem__(name, value)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (place("epoch", 10**9), "position.epoch: found 1,000,000,000, expected 2 or less; "),
        (place("step", 10**9), "position.step: found 1,000,000,000, expected 5 or less; "),
        (
            place("total", 10**15),
            "position.total: found 1,000,000,000,000,000, expected 96 or less",
        ),
        (put("rollbacks", 7), "rollbacks: found 7, expected 0 or less; use another checkpoint"),
        (put("best", 10**400), "best: found 10000000000000"),
        (put("watched", [10**400]), "watched: found [100000000000"),
    ],
)
def test_a_place_where_a_run_cannot_be_is_refused_and_nothing_is_written(
    darts: Darts, searched: Path, tmp_path: Path, alter: Callable[[Any], None], message: str
) -> None:
    run = Path(shutil.copytree(searched, tmp_path / "copy"))
    file = run / "last.safetensors"
    tensors, metadata = checkpoint.read(file)
    alter(metadata)
    checkpoint.write(file, tensors, metadata)
    before = contents(run)
    refusal = darts("search", "cnn", "--resume", run, "--device", "cpu").refusal()
    assert refusal.startswith(f"{file}: {message}")
    assert {**contents(run), ".lock": None} == {**before, ".lock": None}
