"""Time and memory of a run, estimated from a few of its steps and evaluation batches."""

import itertools
import statistics
import time
from dataclasses import dataclass, replace

from darts_cli.config import Config
from darts_cli.engine.loop import endless
from darts_cli.engine.state import State
from darts_cli.engine.steps import evaluate, fixed_mixture, search_step, train_step
from darts_cli.engine.task import Batch, BatchLoader, Loaders
from darts_cli.runtime.memory import MemoryMeter

# Number of timed steps at least, after one that warms up.
_STEPS = 4

# Seconds of timed steps at least, where steps are short.
_SECONDS = 10.0

# Share of the memory that a proposed batch fills, since free memory varies.
_MARGIN = 0.9

# Share of an epoch's steps that have the usual length: some segments of a text are shorter.
_SURE = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Measured time and memory, and the estimates that follow from them."""

    step_seconds: float
    """Mean time of a step, with reading its batches."""
    epoch_seconds: float
    """Time of an epoch, with the evaluation after it."""
    run_seconds: float
    """Time of all epochs."""
    peak_bytes: int
    """Peak memory: on a CPU of the whole process, on a GPU of what torch reserves."""
    available_bytes: int | None
    """Memory that the run could use; None if it is not known."""
    largest_batch: int | None
    """Largest batch size that fits, by the peaks of a batch and of half of it; None: not known."""


def take(state: State, loaders: Loaders, config: Config, memory: MemoryMeter) -> Probe:
    """Measure some steps; the state is of no use afterwards, and all ranks have to call it."""
    state.module.network.train()
    arch = endless(loaders.arch) if loaders.arch is not None else itertools.repeat(None)
    pairs = zip(endless(loaders.train), arch, strict=False)
    train, valid = next(pairs)
    _step(state, train, valid, config, memory)
    half = _measure_half(state, train, valid, config, memory)
    memory.reset()
    start, number, seconds = time.perf_counter(), 0, 0.0
    # Reading is timed with a step, so that the mean includes batches that are waited for.
    for train, valid in pairs:
        _step(state, train, valid, config, memory)
        number, seconds = number + 1, time.perf_counter() - start
        # The clock of the slowest rank decides for all, which have to take as many steps.
        (too_short,) = state.execution.ranks.all_reduce_max(seconds < _SECONDS)
        if number >= _STEPS and not too_short:
            break
    whole, available = memory.peak(), memory.available()
    evaluation = _time_evaluation(state, loaders.eval, memory) if loaders.eval is not None else 0.0
    step = seconds / number
    epoch = step * loaders.train.steps(0) + evaluation
    largest = _largest(config.data.batch_size, half, whole, available)
    return Probe(
        step_seconds=step,
        epoch_seconds=epoch,
        run_seconds=epoch * config.epochs,
        peak_bytes=max(whole, memory.peak()),
        available_bytes=available,
        largest_batch=min(largest, _examples(loaders, config)) if largest is not None else None,
    )


def _examples(loaders: Loaders, config: Config) -> int:
    """Return the examples that an epoch of each loader has at least: no batch has more."""
    both = (loaders.train, loaders.arch)
    steps = min(loader.steps(0) for loader in both if loader is not None)
    most = int(_SURE * config.data.batch_size * steps)
    return max(config.data.batch_size, most - most % 8)


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
    """Return the peak of steps on half of a batch, in bytes; None if a batch cannot be halved."""
    wholes = [batch for batch in (train, valid) if batch is not None]
    halves = [batch.split(2)[0] for batch in wholes]
    indivisible = any(half is whole for half, whole in zip(halves, wholes, strict=True))
    if any(state.execution.ranks.all_reduce_max(indivisible)):
        return None
    # Without hidden states, whose batch size is that of the whole batch.
    first, *second = (replace(half, carries_hidden=False, hidden=None) for half in halves)
    memory.reset()
    for _ in range(2):
        _step(state, first, second[0] if second else None, config, memory)
    state.hidden.clear()
    return memory.peak()


def _largest(batch: int, half: int | None, whole: int, available: int | None) -> int | None:
    """Return the largest batch by a line through two peaks, rounded down to a multiple of 8."""
    if half is None or available is None or whole <= half:
        return None
    # peak(batch) = constant + of_one * batch
    of_one = (whole - half) / (batch / 2)
    most = int((_MARGIN * available - (whole - batch * of_one)) / of_one)
    return most - most % 8 if most >= 8 else max(most, 0)


def _time_evaluation(state: State, loader: BatchLoader, memory: MemoryMeter) -> float:
    """Return the seconds of an evaluation, estimated from its first batches."""
    moments = [time.perf_counter()]

    def note() -> None:
        memory.wait()
        moments.append(time.perf_counter())

    device, mixture = state.meter.sums.device, fixed_mixture(state)
    evaluate(
        state.module, loader, mixture, device, note, execution=state.execution, limit=1 + _STEPS
    )
    seconds = [end - start for start, end in itertools.pairwise(moments)]
    # The first warms up; a rank may have none.
    return statistics.median(seconds[1:] or seconds or [0.0]) * loader.steps(0)
