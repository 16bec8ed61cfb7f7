"""Learning rates as functions of the epoch."""

import math

from darts_cli.config import WeightsConfig


def learning_rate(config: WeightsConfig, epoch: int, epochs: int) -> float:
    """Return the learning rate of `epoch`, counted from 0, of `epochs`."""
    if config.schedule == "cosine":
        # Half a cosine from `lr` to `lr_min` (Loshchilov and Hutter, 2017).
        wave = 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        return config.lr_min + (config.lr - config.lr_min) * wave
    if config.schedule == "exponential":
        return config.lr * config.decay_rate**epoch
    return config.lr
