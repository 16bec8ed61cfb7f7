"""How alphas become weights."""

import torch

from darts_cli.engine.strategies import STRATEGIES
from darts_cli.runtime.randomness import generator_for
from darts_cli.spaces.cnn.primitives import CNN


def test_alphas_start_as_small_normal_noise() -> None:
    alphas = STRATEGIES["darts"].initial(CNN, 1e-3, generator_for(0, "alphas"))
    assert {cell: alpha.shape for cell, alpha in alphas.items()} == {
        "normal": (14, 8),
        "reduce": (14, 8),
    }
    draws = torch.cat([alpha.flatten() for alpha in alphas.values()])
    assert 5e-4 < draws.std().item() < 2e-3
    assert draws.abs().max() < 1e-2


def test_the_darts_mixture_is_a_softmax_over_each_edge() -> None:
    alphas = {"normal": torch.tensor([[0.0, 1.0, 2.0], [5.0, 5.0, 5.0]])}
    mixture = STRATEGIES["darts"].mixture(alphas)["normal"]
    powers = torch.tensor([0.0, 1.0, 2.0]).exp()
    torch.testing.assert_close(mixture[0], powers / powers.sum())
    torch.testing.assert_close(mixture[1], torch.full((3,), 1 / 3))
