"""Learning rates."""

import math

import pytest

from darts_cli.config import WeightsConfig
from darts_cli.engine.schedules import learning_rate


def test_the_cosine_goes_from_the_first_rate_to_the_last() -> None:
    config = WeightsConfig(lr=0.025, lr_min=0.001)
    rates = [learning_rate(config, epoch, 50) for epoch in range(51)]
    assert rates[0] == 0.025
    assert rates[25] == pytest.approx(0.013)
    assert rates[50] == pytest.approx(0.001)
    assert rates == sorted(rates, reverse=True)
    assert rates[10] == pytest.approx(0.001 + 0.012 * (1 + math.cos(math.pi / 5)))


def test_the_exponential_loses_3_percent_an_epoch() -> None:
    config = WeightsConfig(lr=0.1, lr_min=0.0, schedule="exponential")
    assert learning_rate(config, 0, 250) == 0.1
    assert learning_rate(config, 2, 250) == pytest.approx(0.1 * 0.97**2)


def test_a_constant_rate_is_the_first_one_throughout() -> None:
    config = WeightsConfig(lr=20.0, lr_min=0.0, schedule="constant")
    assert {learning_rate(config, epoch, 10) for epoch in range(10)} == {20.0}
