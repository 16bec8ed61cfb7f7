"""Alternating optimisation: alphas, then weights, batch after batch, and an evaluation an epoch."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from darts_cli import checkpoint
from darts_cli.config import Config, WeightsConfig
from darts_cli.engine import artifacts
from darts_cli.engine.artifacts import Session
from darts_cli.engine.interruption import StopRequest, listening
from darts_cli.engine.meter import Meter
from darts_cli.engine.randomness import count
from darts_cli.engine.schedules import learning_rate
from darts_cli.engine.state import State
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, Output, Stream, Task
from darts_cli.errors import DivergenceError, Interrupted
from darts_cli.genotype import summarize
from darts_cli.progress import format_measures


def fit(state: State, session: Session) -> bool:
    """Train from the state's position to the last epoch.

    Returns:
        Whether the last epoch is done; False after `max_steps`.

    Raises:
        DivergenceError: if a loss is not finite or too large, and going back to the best
            checkpoint has been tried as often as the settings allow.
        Interrupted: if a signal came; the state is saved.
    """
    with listening() as request, session.reporter:
        if not state.position.total:
            # So that a run that is killed at any later moment can be resumed.
            artifacts.save(state, session)
        while state.position.epoch < session.config.epochs:
            try:
                if not _train_epoch(state, session, request):
                    return False
                _finish_epoch(state, session)
            except DivergenceError as error:
                _roll_back(state, session, error)
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
    stream, reading = session.streams.weights, state.reading
    reporter.begin_epoch(
        epoch=position.epoch + 1,
        epochs=config.epochs,
        step=position.step,
        steps=stream.steps(reading),
    )
    saved_at = time.monotonic()
    alphas_batches = _endless(session.streams.alphas, position.total)
    for batch in stream.batches(reading, position.step):
        if session.max_steps is not None and position.total >= session.max_steps:
            artifacts.save(state, session)
            return False
        state.optimizer.param_groups[0]["lr"] = rate * batch.lr_scale
        if state.architect is not None:
            search_step(state, batch, next(alphas_batches), config.seed)
        train_step(state, batch, config)
        state.optimizer.param_groups[0]["lr"] = rate
        position.step += 1
        position.total += 1
        reporter.advance(batch.targets.numel())
        if reporter.due():
            measures = _sound(state.task.report(state.meter.peek()), state, config.weights)
            reporter.show(f"{format_measures(measures)}  lr {rate:.4g}  {session.device_status()}")
        if request.signal is not None:
            _leave(state, session, request)
        if time.monotonic() - saved_at >= session.checkpoint_seconds:
            artifacts.save(state, session)
            saved_at = time.monotonic()
    return True


def search_step(state: State, train: Batch, valid: Batch, seed: int) -> list[Tensor]:
    """Move the alphas, by the batch that trains the weights next and one of the alphas' own.

    Returns:
        The hypergradient, one tensor for each of the alphas.
    """
    task, architect, position = state.task, state.architect, state.position
    if architect is None:
        raise ValueError("a search step needs an architect")

    train = _carry(train, state.hidden.get("weights"))
    valid = _carry(valid, state.hidden.get("alphas"))

    def run(batch: Batch, purpose: str) -> Output:
        # Seeded at every call: both sides of the finite difference see the same masks.
        torch.manual_seed(count(seed, purpose, position.epoch, position.step))
        return task.forward(batch, architect.mixture())

    def valid_loss() -> Tensor:
        output = run(valid, "validation")
        _keep_hidden(output, state, "alphas")
        return task.loss(output, valid)

    return architect.step(
        # The state that it ends in goes nowhere: the weights' own pass is still to come.
        train_loss=lambda: task.loss(run(train, "virtual"), train),
        valid_loss=valid_loss,
        optimizer=state.optimizer,
        state=list(task.module.buffers()),
    )


def train_step(state: State, batch: Batch, config: Config) -> None:
    """Move the weights, and count the batch."""
    task, position = state.task, state.position
    batch = _carry(batch, state.hidden.get("weights"))
    torch.manual_seed(count(state.draws(config.seed), "weights", position.epoch, position.step))
    output = task.forward(batch, fixed_mixture(state))
    _keep_hidden(output, state, "weights")
    state.optimizer.zero_grad(set_to_none=True)
    task.objective(output, batch).backward()
    if config.weights.clip:
        clip_grad_norm_(state.optimizer.param_groups[0]["params"], config.weights.clip)
    state.optimizer.step()
    if state.average is not None:
        state.average.update()
    state.meter.add(task.tally(output, batch))


def _carry(batch: Batch, hidden: Tensor | None) -> Batch:
    """The batch with the state that the one before it left behind, if it goes on from there."""
    return replace(batch, hidden=hidden) if batch.continues else batch


def _keep_hidden(output: Output, state: State, name: str) -> None:
    if output.hidden is not None:
        state.hidden[name] = output.hidden.detach()


def fixed_mixture(state: State) -> Mixture:
    """The candidates' weights as constants; empty for a discrete network."""
    if state.architect is None:
        return {}
    with torch.no_grad():
        return state.architect.mixture()


@torch.inference_mode()
def evaluate(
    task: Task,
    stream: Stream,
    mixture: Mixture,
    device: torch.device,
    advance: Callable[[], object] = lambda: None,
) -> tuple[dict[str, float], int]:
    """What the task reports of a whole split, and of how many examples.

    Args:
        task: What is evaluated.
        stream: The split.
        mixture: Weights of the candidates; empty for a discrete network.
        device: Where it computes.
        advance: Called after every batch.
    """
    meter = Meter(task.measures, device)
    task.module.eval()
    hidden = None
    for batch in stream.batches(0):
        output = task.forward(_carry(batch, hidden), mixture)
        hidden = output.hidden
        meter.add(task.tally(output, batch))
        advance()
    return task.report(meter.read()), meter.count()


def _endless(stream: Stream | None, start: int) -> Iterator[Batch]:
    """The batches of a stream, epoch after epoch, from number `start` of all on."""
    if stream is None:
        return
    epoch, step = 0, start
    while step >= stream.steps(epoch):
        step -= stream.steps(epoch)
        epoch += 1
    while True:
        yield from stream.batches(epoch, step)
        epoch, step = epoch + 1, 0


def _finish_epoch(state: State, session: Session) -> None:
    """Evaluate, leave the epoch's files, and report."""
    config, position, streams = session.config, state.position, session.streams
    trained = _sound(state.task.report(state.meter.read()), state, config.weights)
    state.check_finite()
    record: dict[str, Any] = {
        "epoch": position.epoch + 1,
        "step": position.total,
        "lr": learning_rate(config.weights, position.epoch, config.epochs),
        "train": trained,
    }
    line = f"epoch {position.epoch + 1}/{config.epochs}  train {format_measures(trained)}"
    if streams.watched is not None:
        device = state.meter.sums.device
        with state.evaluated():
            watched, _ = evaluate(state.task, streams.watched, fixed_mixture(state), device)
        watched = _sound(watched, state, config.weights)
        record[streams.watched_name] = watched
        line += f"  {streams.watched_name} {format_measures(watched)}"
    position.epoch += 1
    position.step = 0
    state.meter.reset()
    if state.architect is not None:
        genotype = artifacts.write_architecture(state.architect, session, position.epoch)
        record["skip_connections"] = genotype.count(session.space.skip)
        line += "\n" + summarize(genotype, session.space.skip)
    # A search watches what trains its alphas, and a test set chooses nothing: neither has a best.
    if state.architect is None and "valid" in record:
        _judge(state, session, record["valid"]["loss"])
    session.run.append_metrics(record)
    # Last, since a run goes on from it: whatever a kill leaves out before, it does again.
    artifacts.save(state, session)
    session.reporter.say(line)


def _judge(state: State, session: Session, loss: float) -> None:
    """Keep the best checkpoint, and average the weights once validation has stalled.

    It has when its loss exceeds the smallest of all epochs but the last
    `averaging_patience` (the non-monotone criterion of Merity et al., 2018).
    """
    patience = session.config.weights.averaging_patience
    earlier = state.watched[:-patience] if patience else []
    if patience:
        state.watched.append(loss)
    if loss < state.best:
        state.best = loss
        # With its own loss among those watched: training may go on from this epoch.
        artifacts.save(state, session, best=True)
    if state.average is None and earlier and loss > min(earlier):
        state.begin_averaging()
        session.reporter.say("validation has stalled: the weights are averaged from here on")


def _sound(measures: dict[str, float], state: State, config: WeightsConfig) -> dict[str, float]:
    """The measures, unless training has diverged; nothing is saved then."""
    if not all(math.isfinite(value) for value in measures.values()):
        raise state.divergence("the loss is not a finite number any more")
    loss, limit = measures.get("loss", 0.0), config.loss_limit
    if limit is not None and loss > limit:
        raise state.divergence(f"the loss is {loss:.4g}, above weights.loss_limit ({limit:g})")
    return measures


def _roll_back(state: State, session: Session, error: DivergenceError) -> None:
    """Go on from the best checkpoint with other random numbers, as often as the settings allow.

    Raises:
        DivergenceError: the one given, once that has been tried often enough.
    """
    limit, attempts = session.config.weights.rollbacks, state.rollbacks
    if attempts >= limit:
        if not limit:
            raise error
        raise DivergenceError(f"{error}; gone back to the best checkpoint {limit} times in vain")
    run = session.run
    file = run.best if run.best.is_file() else run.last
    state.restore(*checkpoint.read(file))
    state.rollbacks = attempts + 1
    run.keep_metrics(state.position.epoch)
    artifacts.save(state, session)
    session.reporter.say(
        f"{str(error).split(';')[0]}: back to {file.name}, epoch {state.position.epoch}, "
        f"with other random numbers ({state.rollbacks} of {limit} times)"
    )


def _leave(state: State, session: Session, request: StopRequest) -> None:
    """Save, and raise the news that a signal stopped the run."""
    artifacts.save(state, session)
    name = request.signal.name if request.signal is not None else "signal"
    raise Interrupted(
        f"stopped by {name}, state saved; go on with: {session.resume_command}",
        request.exit_status,
    )
