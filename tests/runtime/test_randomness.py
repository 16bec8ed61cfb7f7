"""Counted randomness."""

import torch

from darts_cli.runtime.randomness import generator_for, seed_for


def test_a_seed_is_a_function_of_its_arguments() -> None:
    assert seed_for(1, "weights", 2, 3) == seed_for(1, "weights", 2, 3)


def test_no_two_positions_purposes_or_seeds_share_a_seed() -> None:
    seeds = {
        seed_for(seed, purpose, epoch, step)
        for seed in range(4)
        for purpose in ("weights", "virtual")
        for epoch in range(12)
        for step in range(12)
    }
    assert len(seeds) == 4 * 2 * 12 * 12


def test_positions_do_not_run_into_one_another() -> None:
    assert seed_for(0, "a", 1, 11) != seed_for(0, "a", 11, 1) != seed_for(0, "a", 111)
    assert seed_for(1, "1/a") != seed_for(11, "a")


def test_seeds_fit_what_torch_takes() -> None:
    assert all(0 <= seed_for(seed, "x") < 2**63 for seed in range(1000))


def test_a_generator_repeats_its_draws() -> None:
    first, second = (torch.rand(5, generator=generator_for(0, "x", 1)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(5, generator=generator_for(0, "x", 2)))
