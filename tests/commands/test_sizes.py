"""The size of the network that a run's genotype stands for."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from darts_cli.commands import plan
from darts_cli.commands.reading import read_history
from darts_cli.commands.sizes import derived_size
from darts_cli.config import ConvNetworkConfig
from darts_cli.genotype.file import load
from darts_cli.recipes import RECIPES
from darts_cli.run import checkpoint
from darts_cli.spaces import SPACES, load_task
from darts_cli.viz.page.data import NetworkSize
from tests.conftest import Darts

DIGITS = {"classes": [str(index) for index in range(10)], "channels": 1, "size": 8}


def test_a_search_has_the_size_of_what_training_makes_of_it_by_default(searched: Path) -> None:
    history = read_history(searched)
    config = RECIPES["train"]["cnn"]["digits"]
    size = plan.measure(load_task("cnn"), config, DIGITS, history.genotype)
    assert derived_size(history) == NetworkSize(
        parameters=size.parameters, macs=size.macs, example="image of 1 x 8 x 8"
    )


def test_a_training_has_the_size_of_its_own_network(trained: Path) -> None:
    history = read_history(trained)
    tensors, _ = checkpoint.read(trained / "last.safetensors")
    digits = RECIPES["train"]["cnn"]["digits"]
    assert isinstance(digits.network, ConvNetworkConfig)
    own = replace(digits, network=replace(digits.network, channels=2, layers=3))
    size = plan.measure(load_task("cnn"), own, DIGITS, history.genotype)
    found = derived_size(history)
    assert found is not None
    assert (found.parameters, found.macs) == (size.parameters, size.macs)
    assert found.parameters < sum(tensor.numel() for tensor in tensors.values())


def test_an_example_of_text_is_a_word(darts: Darts) -> None:
    small = ("--width", 4, "--min-count", 100, "--epochs", 1, "--order", "first")
    limit = ("--max-steps", 1, "--device", "cpu")
    darts("search", "rnn", "--data", "pydoc", *small, *limit, "--out", "run")
    history = replace(read_history(Path("run")), genotype=load("rnn_darts_v2", SPACES))
    size = derived_size(history)
    assert size is not None
    assert size.example == "word"
    assert size.parameters > 0


@pytest.fixture
def copy(searched: Path, tmp_path: Path) -> Path:
    """A copy of a search, to damage."""
    return Path(shutil.copytree(searched, tmp_path / "copy"))


def test_nothing_is_known_before_the_first_epoch(copy: Path) -> None:
    (copy / "genotype.yaml").unlink()
    assert derived_size(read_history(copy)) is None


@pytest.mark.parametrize("content", [None, b"no checkpoint"])
def test_nothing_is_known_without_a_checkpoint(copy: Path, content: bytes | None) -> None:
    last = copy / "last.safetensors"
    last.unlink()
    if content is not None:
        last.write_bytes(content)
    assert derived_size(read_history(copy)) is None
