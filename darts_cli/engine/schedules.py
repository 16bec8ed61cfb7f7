"""Learning rates as functions of the epoch."""

import math
from collections.abc import Callable

from darts_cli.config import WeightsConfig


def _cosine(config: WeightsConfig, epoch: int, epochs: int) -> float:
    """From `lr` to `lr_min` along half a cosine (Loshchilov and Hutter, 2017)."""
    wave = 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    return config.lr_min + (config.lr - config.lr_min) * wave


def _exponential(config: WeightsConfig, epoch: int, _epochs: int) -> float:
    """Times `decay_rate` an epoch."""
    return config.lr * config.decay_rate**epoch


def _constant(config: WeightsConfig, _epoch: int, _epochs: int) -> float:
    """`lr` throughout."""
    return config.lr


SCHEDULES: dict[str, Callable[[WeightsConfig, int, int], float]] = {
    "cosine": _cosine,
    "exponential": _exponential,
    "constant": _constant,
}


def learning_rate(config: WeightsConfig, epoch: int, epochs: int) -> float:
    """The learning rate of `epoch`, counted from 0, of `epochs`."""
    return SCHEDULES[config.schedule](config, epoch, epochs)
