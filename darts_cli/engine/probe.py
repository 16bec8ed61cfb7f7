"""A few steps and evaluations, to tell what a whole run will take."""

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from darts_cli.config import Config
from darts_cli.engine.state import State
from darts_cli.engine.steps import evaluate, fixed_mixture, search_step, train_step
from darts_cli.engine.task import Batch, BatchLoader, Loaders
from darts_cli.runtime.memory import MemoryMeter

_STEPS = 4
"""Timed, behind one that warms up."""

_SECONDS = 10.0
"""More steps are taken until so much time has gone by, where they are short."""

_MARGIN = 0.9
"""Share of the memory that a proposal fills: what is free differs from moment to moment."""


_SURE = 0.9
"""Share of an epoch's steps that are whole ones: segments of a text are shorter now and then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What was measured, and what follows."""

    step_seconds: float
    """The mean of a step, with its reading."""
    epoch_seconds: float
    """With the evaluation after it."""
    run_seconds: float
    peak_bytes: int
    """On a CPU of the whole process, on a GPU of what torch reserves."""
    available_bytes: int | None
    largest_batch: int | None
    """That fits, by the memory of the batch and of half of it; None where that is not known."""


def take(state: State, loaders: Loaders, config: Config, memory: MemoryMeter) -> Probe:
    """Take some steps, and let them tell; the state is of no use afterwards.

    All ranks have to take part.
    """
    state.module.network.train()
    pairs = _pairs(loaders)
    train, valid = next(pairs)
    _step(state, train, valid, config, memory)
    half = _measure_half(state, train, valid, config, memory)
    memory.reset()
    start, number, seconds = time.perf_counter(), 0, 0.0
    # Reading is part of a step, and the mean takes in a batch that has to be waited for.
    for train, valid in pairs:
        _step(state, train, valid, config, memory)
        number, seconds = number + 1, time.perf_counter() - start
        # All ranks go by the slowest clock.
        (go_on,) = state.execution.ranks.all_reduce_max(seconds < _SECONDS)
        if number >= _STEPS and not go_on:
            break
    whole, available = memory.peak(), memory.available()
    evaluation = 0.0
    if loaders.eval is not None:
        evaluation = _time_evaluation(state, loaders.eval, memory)
    step, steps = seconds / number, loaders.train.steps(0)
    largest = _largest(config.data.batch_size, half, whole, available)
    epoch = step * steps + evaluation
    return Probe(
        step_seconds=step,
        epoch_seconds=epoch,
        run_seconds=epoch * config.epochs,
        peak_bytes=max(whole, memory.peak()),
        available_bytes=available,
        largest_batch=min(largest, _examples(loaders, config)) if largest is not None else None,
    )


def _examples(loaders: Loaders, config: Config) -> int:
    """How many there surely are in an epoch of each stream: no batch has more."""
    both = (loaders.train, loaders.arch)
    steps = min(loader.steps(0) for loader in both if loader is not None)
    most = int(_SURE * config.data.batch_size * steps)
    return max(config.data.batch_size, most - most % 8)


def _pairs(loaders: Loaders) -> Iterator[tuple[Batch, Batch | None]]:
    """Batches for weights and alphas, epoch after epoch."""
    alphas = _forever(loaders.arch) if loaders.arch is not None else itertools.repeat(None)
    yield from zip(_forever(loaders.train), alphas, strict=False)


def _forever(loader: BatchLoader) -> Iterator[Batch]:
    for epoch in itertools.count():
        yield from loader.batches(epoch)


def _step(
    state: State, train: Batch, valid: Batch | None, config: Config, memory: MemoryMeter
) -> None:
    """Take a step, and wait until it is done."""
    if valid is not None:
        search_step(state, train, valid, config.seed)
    train_step(state, train, config)
    memory.wait()


def _measure_half(
    state: State, train: Batch, valid: Batch | None, config: Config, memory: MemoryMeter
) -> int | None:
    """The peak of steps on half of a batch; None where that is too small."""
    wholes = [batch for batch in (train, valid) if batch is not None]
    halves = [batch.split(2)[0] for batch in wholes]
    indivisible = any(half is whole for half, whole in zip(halves, wholes, strict=True))
    if any(state.execution.ranks.all_reduce_max(indivisible)):
        return None
    first, *second = (replace(half, carries_hidden=False, hidden=None) for half in halves)
    memory.reset()
    for _ in range(2):
        _step(state, first, second[0] if second else None, config, memory)
    state.hidden.clear()
    return memory.peak()


def _largest(batch: int, half: int | None, whole: int, available: int | None) -> int | None:
    """The largest batch by a line through two peaks, rounded down to a multiple of eight."""
    if half is None or available is None or whole <= half:
        return None
    of_one = (whole - half) / (batch / 2)
    most = int((_MARGIN * available - (whole - batch * of_one)) / of_one)
    return most - most % 8 if most >= 8 else max(most, 0)


def _time_evaluation(state: State, loader: BatchLoader, memory: MemoryMeter) -> float:
    """Seconds of an evaluation, by its first batches."""
    head, moments = _Head(loader), [time.perf_counter()]

    def note() -> None:
        memory.wait()
        moments.append(time.perf_counter())

    device, mixture = state.meter.sums.device, fixed_mixture(state)
    evaluate(state.module, head, mixture, device, note, execution=state.execution)
    seconds = [end - start for start, end in itertools.pairwise(moments)]
    # The first warms up; a rank may have none.
    return statistics.median(seconds[1:] or seconds or [0.0]) * loader.steps(0)


class _Head:
    """The first batches of a stream."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader

    def steps(self, epoch: int) -> int:
        """At most so many."""
        return min(1 + _STEPS, self.loader.steps(epoch))

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """From number `start` on."""
        return itertools.islice(self.loader.batches(epoch, start), self.steps(epoch) - start)
