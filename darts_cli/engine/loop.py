"""Alternating optimisation: alphas, then weights, batch after batch, and an evaluation an epoch."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from darts_cli.config import Config
from darts_cli.engine import artifacts
from darts_cli.engine.artifacts import Session
from darts_cli.engine.interruption import StopRequest, listening
from darts_cli.engine.meter import Meter
from darts_cli.engine.randomness import count
from darts_cli.engine.schedules import learning_rate
from darts_cli.engine.state import State
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, Stream, Task
from darts_cli.errors import Interrupted
from darts_cli.genotype import summarize
from darts_cli.progress import format_measures


def fit(state: State, session: Session) -> bool:
    """Train from the state's position to the last epoch.

    Returns:
        Whether the last epoch is done; False after `max_steps`.

    Raises:
        DivergenceError: if a loss is not finite.
        Interrupted: if a signal came; the state is saved.
    """
    with listening() as request, session.reporter:
        while state.position.epoch < session.config.epochs:
            if not _train_epoch(state, session, request):
                return False
            _finish_epoch(state, session)
            if request.signal is not None and state.position.epoch < session.config.epochs:
                _leave(state, session, request)
    return True


def _train_epoch(state: State, session: Session, request: StopRequest) -> bool:
    """Do the steps that are left of an epoch; False if `max_steps` came first."""
    config, position, reporter = session.config, state.position, session.reporter
    rate = learning_rate(config.weights, position.epoch, config.epochs)
    state.optimizer.param_groups[0]["lr"] = rate
    state.task.module.train()
    state.task.begin_epoch(position.epoch)
    stream = session.streams.weights
    reporter.begin_epoch(
        epoch=position.epoch + 1, epochs=config.epochs, step=position.step, steps=len(stream)
    )
    saved_at = time.monotonic()
    alphas_batches = _endless(session.streams.alphas, position.total)
    for batch in stream.batches(position.epoch, position.step):
        if session.max_steps is not None and position.total >= session.max_steps:
            artifacts.save(state, session)
            return False
        if state.architect is not None:
            search_step(state, batch, next(alphas_batches), config.seed)
        train_step(state, batch, config)
        position.step += 1
        position.total += 1
        reporter.advance()
        if reporter.due():
            measures = _finite(state.meter.peek(), state)
            reporter.show(f"{format_measures(measures)}  lr {rate:.4g}  {session.device_status()}")
        if request.signal is not None:
            _leave(state, session, request)
        if time.monotonic() - saved_at >= session.checkpoint_seconds:
            artifacts.save(state, session)
            saved_at = time.monotonic()
    return True


def search_step(state: State, train: Batch, valid: Batch, seed: int) -> None:
    """Move the alphas, by the batch that trains the weights next and one of the alphas' own."""
    task, architect, position = state.task, state.architect, state.position
    if architect is None:
        raise ValueError("a search step needs an architect")

    def loss(batch: Batch, purpose: str) -> Callable[[], Tensor]:
        def compute() -> Tensor:
            # Seeded at every call: both sides of the finite difference see the same masks.
            torch.manual_seed(count(seed, purpose, position.epoch, position.step))
            return task.loss(task.forward(batch, architect.mixture()), batch)

        return compute

    architect.step(
        train_loss=loss(train, "virtual"),
        valid_loss=loss(valid, "validation"),
        optimizer=state.optimizer,
        state=list(task.module.buffers()),
    )


def train_step(state: State, batch: Batch, config: Config) -> None:
    """Move the weights, and count the batch."""
    task, position = state.task, state.position
    torch.manual_seed(count(config.seed, "weights", position.epoch, position.step))
    output = task.forward(batch, fixed_mixture(state))
    state.optimizer.zero_grad(set_to_none=True)
    task.objective(output, batch).backward()
    if config.weights.clip:
        clip_grad_norm_(state.optimizer.param_groups[0]["params"], config.weights.clip)
    state.optimizer.step()
    state.meter.add(task.tally(output, batch))


def fixed_mixture(state: State) -> Mixture:
    """The candidates' weights as constants; empty for a discrete network."""
    if state.architect is None:
        return {}
    with torch.no_grad():
        return state.architect.mixture()


@torch.inference_mode()
def evaluate(
    task: Task, stream: Stream, mixture: Mixture, device: torch.device
) -> dict[str, float]:
    """Means of the task's measures over a whole split."""
    meter = Meter(task.measures, device)
    task.module.eval()
    for batch in stream.batches(0):
        meter.add(task.tally(task.forward(batch, mixture), batch))
    return meter.read()


def _endless(stream: Stream | None, start: int) -> Iterator[Batch]:
    """The batches of a stream, epoch after epoch, from number `start` of all on."""
    if stream is None:
        return
    epoch, step = divmod(start, len(stream))
    while True:
        yield from stream.batches(epoch, step)
        epoch, step = epoch + 1, 0


def _finish_epoch(state: State, session: Session) -> None:
    """Evaluate, leave the epoch's files, and report."""
    position, streams = state.position, session.streams
    trained = _finite(state.meter.read(), state)
    state.check_finite()
    record: dict[str, Any] = {
        "epoch": position.epoch + 1,
        "step": position.total,
        "lr": state.optimizer.param_groups[0]["lr"],
        "train": trained,
    }
    line = f"epoch {position.epoch + 1}/{session.config.epochs}  train {format_measures(trained)}"
    if streams.watched is not None:
        device = state.meter.sums.device
        watched = evaluate(state.task, streams.watched, fixed_mixture(state), device)
        record[streams.watched_name] = watched
        line += f"  {streams.watched_name} {format_measures(watched)}"
    position.epoch += 1
    position.step = 0
    state.meter.reset()
    if state.architect is not None:
        genotype = artifacts.write_architecture(state.architect, session, position.epoch)
        record["skip_connections"] = genotype.count("skip_connect")
        line += "\n" + summarize(genotype)
    # A search watches what trains its alphas, and a test set chooses nothing: neither has a best.
    loss = record.get("valid", {}).get("loss", math.inf)
    if state.architect is None and loss < state.best:
        state.best = loss
        artifacts.save(state, session, best=True)
    session.run.append_metrics(record)
    # Last, since a run goes on from it: whatever a kill leaves out before, it does again.
    artifacts.save(state, session)
    session.reporter.say(line)


def _finite(measures: dict[str, float], state: State) -> dict[str, float]:
    """The measures, unless training has diverged; nothing is saved then."""
    if all(math.isfinite(value) for value in measures.values()):
        return measures
    raise state.divergence("the loss")


def _leave(state: State, session: Session, request: StopRequest) -> None:
    """Save, and raise the news that a signal stopped the run."""
    artifacts.save(state, session)
    name = request.signal.name if request.signal is not None else "signal"
    raise Interrupted(
        f"stopped by {name}, state saved; go on with: {session.resume_command}",
        request.exit_status,
    )
