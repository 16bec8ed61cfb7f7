"""Alternating optimisation: alphas, then weights, batch after batch, and an evaluation an epoch."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from darts_cli import checkpoint
from darts_cli.config import Config, WeightsConfig
from darts_cli.engine import artifacts
from darts_cli.engine.artifacts import Session
from darts_cli.engine.computation import PLAIN, Computation, Loss
from darts_cli.engine.interruption import StopRequest, listening
from darts_cli.engine.meter import Meter
from darts_cli.engine.randomness import count
from darts_cli.engine.schedules import learning_rate
from darts_cli.engine.state import State
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, Stream, Task
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
            (number,) = state.computation.ranks.agree(request.number)
            if number and state.position.epoch < session.config.epochs:
                request.note(number)
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
    saved_at, every = time.monotonic(), session.checkpoint_seconds
    alphas_batches = _endless(session.streams.alphas, position.total)
    for batch in stream.batches(reading, position.step):
        if session.max_steps is not None and position.total >= session.max_steps:
            artifacts.save(state, session)
            # Whoever leaves first may have the others ended while one of them still writes.
            state.computation.ranks.wait()
            return False
        state.optimizer.param_groups[0]["lr"] = rate * batch.lr_scale
        if state.architect is not None:
            search_step(state, batch, next(alphas_batches), config.seed)
        train_step(state, batch, config)
        state.optimizer.param_groups[0]["lr"] = rate
        position.step += 1
        position.total += 1
        reporter.advance(round(batch.targets.numel() / batch.share))
        if _pause(state, session, request, save=time.monotonic() - saved_at >= every):
            saved_at = time.monotonic()
    return True


def _pause(state: State, session: Session, request: StopRequest, *, save: bool) -> bool:
    """Between two steps: show numbers, save where that is due, leave where that was asked for.

    All ranks do the same, after the clock and the eyes of the first one, and a
    signal to any of them.

    Returns:
        Whether the state was saved.
    """
    ranks, trouble = state.computation.ranks, None
    if state.compilation is not None and (news := state.compilation.news()):
        session.reporter.say(news)
    if ranks.leads and session.reporter.due():
        try:
            _show(state, session)
        except DivergenceError as error:
            trouble = error
    signal_number, save_now, diverged = ranks.agree(
        request.number, save and ranks.leads, trouble is not None
    )
    if diverged:
        raise trouble or state.divergence("the training loss has diverged")
    if signal_number:
        request.note(signal_number)
        _leave(state, session, request)
    if save_now:
        artifacts.save(state, session)
    return bool(save_now)


def _show(state: State, session: Session) -> None:
    weights, reporter = session.config.weights, session.reporter
    measures = _sound(state.task.report(state.meter.peek()), state, weights)
    rate = learning_rate(weights, state.position.epoch, session.config.epochs)
    reporter.show(f"{format_measures(measures)}  lr {rate:.4g}  {session.device_status()}")


def search_step(state: State, train: Batch, valid: Batch, seed: int) -> list[Tensor]:
    """Move the alphas, by the batch that trains the weights next and one of the alphas' own.

    Returns:
        The hypergradient, one tensor for each of the alphas.
    """
    task, architect, computation = state.task, state.architect, state.computation
    if architect is None:
        raise ValueError("a search step needs an architect")
    ended: list[Tensor] = []

    def loss(purpose: str, number: int, part: Batch) -> Tensor:
        # Seeded at every call: both sides of the finite difference see the same masks.
        _seed(state, seed, purpose, number)
        output = computation.forward(task, part, architect.mixture())
        # The state that training ends in goes nowhere: the weights' own pass is still to come.
        if purpose == "validation" and output.hidden is not None:
            ended.append(computation.keep(output.hidden))
        return _shared(task.loss(output, part), part)

    train = _carry(train, state.hidden.get("weights"))
    valid = _carry(valid, state.hidden.get("alphas"))
    gradients = architect.step(
        train_losses=_parts(partial(loss, "virtual"), train, computation),
        valid_losses=_parts(partial(loss, "validation"), valid, computation),
        optimizer=state.optimizer,
        state=list(task.module.buffers()),
        computation=computation,
    )
    _keep_hidden(ended, state, "alphas")
    return gradients


def train_step(state: State, batch: Batch, config: Config) -> None:
    """Move the weights, and count the batch."""
    task, optimizer, computation = state.task, state.optimizer, state.computation
    mixture, draws = fixed_mixture(state), state.draws(config.seed)
    ended: list[Tensor] = []
    tally = torch.zeros_like(state.meter.sums)

    def loss(number: int, part: Batch) -> Tensor:
        _seed(state, draws, "weights", number)
        output = computation.forward(task, part, mixture)
        if output.hidden is not None:
            ended.append(computation.keep(output.hidden))
        tally.add_(task.tally(output, part))
        return _shared(task.objective(output, part), part)

    def along() -> list[Tensor]:
        # So that statistics, and with them whole checkpoints, are the same on all ranks.
        statistics = [buffer for buffer in task.module.buffers() if buffer.is_floating_point()]
        if batch.share != 1 and statistics:
            torch._foreach_mul_(statistics, batch.share)
        return [*statistics, tally]

    batch = _carry(batch, state.hidden.get("weights"))
    weights = optimizer.param_groups[0]["params"]
    gradients = computation.gradients(_parts(loss, batch, computation), weights, along=along)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    if config.weights.clip:
        clip_grad_norm_(weights, config.weights.clip)
    computation.step(optimizer)
    optimizer.zero_grad(set_to_none=True)
    _keep_hidden(ended, state, "weights")
    if state.average is not None:
        state.average.update()
    state.meter.add(tally)


def _parts(
    loss: Callable[[int, Batch], Tensor], batch: Batch, computation: Computation
) -> list[Loss]:
    """The losses of the parts of a batch, that add up to that of the whole."""
    parts = batch.split(computation.parts)
    return [partial(loss, number, part) for number, part in enumerate(parts)]


def _shared(loss: Tensor, part: Batch) -> Tensor:
    """What a mean over a part of the batch adds to the mean over all of it."""
    return loss if part.share == 1 else loss * part.share


def _seed(state: State, seed: int, purpose: str, part: int) -> None:
    """Seed what a forward pass draws, such as dropout, by what it is for."""
    rank, position = state.computation.ranks.rank, state.position
    # One process that takes batches whole draws what it always has.
    place = (rank, part) if rank or part else ()
    torch.manual_seed(count(seed, purpose, position.epoch, position.step, *place))


def _carry(batch: Batch, hidden: Tensor | None) -> Batch:
    """The batch with the state that the one before it left behind, if it goes on from there."""
    return replace(batch, hidden=hidden) if batch.continues else batch


def _keep_hidden(ended: Sequence[Tensor], state: State, name: str) -> None:
    """Keep the states that the parts of a batch ended in."""
    if ended:
        state.hidden[name] = torch.cat(list(ended)) if len(ended) > 1 else ended[0]


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
    *,
    computation: Computation = PLAIN,
) -> tuple[dict[str, float], int]:
    """What the task reports of a whole split, and of how many examples.

    Args:
        task: What is evaluated.
        stream: The split.
        mixture: Weights of the candidates; empty for a discrete network.
        device: Where it computes.
        advance: Called after every batch.
        computation: How; each rank of a run reads its own part of every batch.
    """
    meter = Meter(task.measures, device)
    task.module.eval()
    hidden = None
    for batch in stream.batches(0):
        output = computation.forward(task, _carry(batch, hidden), mixture)
        hidden = output.hidden
        meter.add(task.tally(output, batch))
        advance()
    computation.ranks.add_up((), along=[meter.sums])
    # One that is gone is noticed here; a device would be waited for in vain.
    computation.ranks.wait()
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
            watched, _ = evaluate(
                state.task,
                streams.watched,
                fixed_mixture(state),
                device,
                computation=state.computation,
            )
        watched = _sound(watched, state, config.weights)
        record[streams.watched_name] = watched
        line += f"  {streams.watched_name} {format_measures(watched)}"
    position.epoch += 1
    position.step = 0
    state.meter.reset()
    if state.architect is not None:
        genotype = artifacts.write_architecture(state, session)
        record["skip_connections"] = genotype.count(session.space.skip)
        line += "\n" + summarize(genotype, session.space.skip)
    # A search watches what trains its alphas, and a test set chooses nothing: neither has a best.
    if state.architect is None and "valid" in record:
        _judge(state, session, record["valid"]["loss"])
    if state.computation.ranks.leads:
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
    run, ranks = session.run, state.computation.ranks
    # Of the first rank, which may have written it a moment ago.
    file = Path(ranks.tell(str(run.best if run.best.is_file() else run.last)))
    state.restore(*checkpoint.read(file))
    ranks.wait()
    state.rollbacks = attempts + 1
    if ranks.leads:
        run.keep_metrics(state.position.epoch)
    artifacts.save(state, session)
    session.reporter.say(
        f"{str(error).split(';')[0]}: back to {file.name}, epoch {state.position.epoch}, "
        f"with other random numbers ({state.rollbacks} of {limit} times)"
    )


def _leave(state: State, session: Session, request: StopRequest) -> None:
    """Save, and raise the news that a signal stopped the run."""
    artifacts.save(state, session)
    state.computation.ranks.wait()
    name = request.signal.name if request.signal is not None else "signal"
    raise Interrupted(
        f"stopped by {name}, state saved; go on with: {session.resume_command}",
        request.exit_status,
    )
