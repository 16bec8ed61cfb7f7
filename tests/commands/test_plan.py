"""Sizes worked out on the meta device, and how they are written."""

from dataclasses import replace

import pytest

from darts_cli.commands import plan
from darts_cli.config import Config, ConvNetworkConfig
from darts_cli.genotype.file import load
from darts_cli.recipes import RECIPES
from darts_cli.spaces import SPACES, load_task
from darts_cli.spaces.cnn.task import ImageTask

CIFAR = {"classes": [str(index) for index in range(10)], "channels": 3, "size": 32}
DIGITS = {"classes": [str(index) for index in range(10)], "channels": 1, "size": 8}


def small(command: str, *, batch_size: int = 16, order: str = "first") -> Config:
    config = RECIPES[command]["cnn"]["digits"]
    alphas = config.alphas and replace(
        config.alphas, order="first" if order == "first" else "second"
    )
    return replace(config, data=replace(config.data, batch_size=batch_size), alphas=alphas)


def measure(config: Config) -> plan.Size:
    genotype = None if config.alphas is not None else load("darts_v2", SPACES)
    return plan.measure(load_task("cnn"), config, DIGITS, genotype)


def test_the_papers_training_has_its_published_size() -> None:
    config = RECIPES["train"]["cnn"]["cifar"]
    size = plan.measure(load_task("cnn"), config, CIFAR, load("darts_v2", SPACES))
    assert (size.parameters, size.macs, size.alphas) == (3_349_342, 528_359_040, 0)


def test_an_auxiliary_head_counts_in_training_alone() -> None:
    config = small("train")
    assert isinstance(config.network, ConvNetworkConfig)
    without = replace(config, network=replace(config.network, auxiliary=0.0))
    with_head, plain = measure(config), measure(without)
    assert with_head.parameters == plain.parameters == plain.training_parameters
    assert with_head.training_parameters > with_head.parameters
    assert with_head.macs == plain.macs


def test_macs_do_not_depend_on_the_batch_but_memory_does() -> None:
    one, four = measure(small("search")), measure(small("search", batch_size=64))
    assert one.macs == four.macs
    fixed = 3 * 4 * one.training_parameters
    grown = (four.memory_bytes - fixed) / (one.memory_bytes - fixed)
    # What is kept for the backward pass grows with the batch, weights among it do not.
    assert 3 < grown <= 4


def test_the_second_order_takes_three_more_copies_of_the_weights() -> None:
    first, second = measure(small("search")), measure(small("search", order="second"))
    assert second.memory_bytes - first.memory_bytes == 3 * 4 * first.training_parameters
    assert (first.alphas, first.macs) == (second.alphas, second.macs)


def test_measuring_leaves_torchs_random_numbers_alone() -> None:
    import torch

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    measure(small("train"))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("examples", "steps"), [(64, 4), (65, 4), (66, 5), (16, 1), (17, 1), (2, 1), (79, 5)]
)
def test_a_last_batch_of_one_example_is_no_step(examples: int, steps: int) -> None:
    assert ImageTask().steps(small("train"), {"train": examples}, search=False) == steps


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0.0 B"),
        (1023, "1023.0 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**20, "1.0 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**40, "1.0 TiB"),
        (3 * 2**50, "3072.0 TiB"),
    ],
)
def test_bytes_are_written_in_the_largest_unit(number: int, text: str) -> None:
    assert plan.format_bytes(number) == text
