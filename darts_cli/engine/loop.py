"""A run from epoch to epoch: steps in turn, an evaluation after them, checkpoints, stops."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from darts_cli.config import WeightsConfig
from darts_cli.engine import artifacts, reports
from darts_cli.engine.artifacts import RunContext
from darts_cli.engine.schedules import learning_rate
from darts_cli.engine.state import State
from darts_cli.engine.steps import evaluate, fixed_mixture, search_step, train_step
from darts_cli.engine.task import Batch, BatchLoader
from darts_cli.errors import DivergenceError, Interrupted
from darts_cli.run import checkpoint
from darts_cli.run.files import WriteError
from darts_cli.run.signals import SearchSnapshot
from darts_cli.runtime.clock import Clock
from darts_cli.runtime.interruption import StopRequest, graceful_signals
from darts_cli.terminal.console import format_metrics


def fit(state: State, context: RunContext) -> bool:
    """Train from the state's position to the last epoch.

    Returns:
        Whether the last epoch is done; False after `max_steps`.

    Raises:
        DivergenceError: if a loss is not finite or too large, and going back to the best
            checkpoint has been tried as often as the settings allow; with the last one before.
        Interrupted: if a signal came; the state is saved.
        WriteError: if a file of the run cannot be written; with where the state is instead.
    """
    with graceful_signals() as request, context.reporter:
        try:
            try:
                return _fit(state, context, request)
            except KeyboardInterrupt:
                # In here, so that what cannot be saved then is rescued as well.
                _leave(state, context, request)
        except DivergenceError as error:
            raise artifacts.advise(error, context) from None
        except WriteError as error:
            raise artifacts.rescue(state, context, error) from None


def _fit(state: State, context: RunContext, request: StopRequest) -> bool:
    if not state.position.total:
        # So that a run that is killed at any later moment can be resumed.
        artifacts.save(state, context)
    reports.recall(state, context)
    while state.position.epoch < context.config.epochs:
        try:
            if not _train_epoch(state, context, request):
                return False
            with state.ending_an_epoch():
                _finish_epoch(state, context, request)
        except DivergenceError as error:
            _roll_back(state, context, error)
        (number,) = state.execution.ranks.all_reduce_max(request.number)
        if number and state.position.epoch < context.config.epochs:
            request.record(number)
            _leave(state, context, request)
    return True


def _train_epoch(state: State, context: RunContext, request: StopRequest) -> bool:
    """Do the steps that are left of an epoch; False if `max_steps` came first."""
    config, position, reporter = context.config, state.position, context.reporter
    rate = learning_rate(config.weights, position.epoch, config.epochs)
    state.optimizer.param_groups[0]["lr"] = rate
    if config.weights.rollbacks and math.isinf(state.best) and not position.step:
        # Only there: what is within an epoch depends on when the run was stopped.
        artifacts.save(state, context, context.run.epoch_start)
    state.module.network.train()
    state.module.begin_epoch(position.epoch)
    loader, reading = context.loaders.train, state.reading
    reporter.begin_epoch(
        epoch=position.epoch + 1,
        epochs=config.epochs,
        step=position.step,
        steps=loader.steps(reading),
    )
    clock = Clock(context.checkpoint_seconds, context.checkpoint_steps)
    alphas_batches = _endless(context.loaders.arch, position.total)
    for batch in _waited_for(loader.batches(reading, position.step), request):
        if context.max_steps is not None and position.total >= context.max_steps:
            artifacts.save(state, context)
            # Whoever leaves first may have the others ended while one of them still writes.
            state.execution.ranks.barrier()
            return False
        state.optimizer.param_groups[0]["lr"] = rate * batch.lr_scale
        with _interruptible(state, request, slow=clock.slow):
            if state.architect is not None:
                search_step(state, batch, next(alphas_batches), config.seed)
            train_step(state, batch, config)
        state.optimizer.param_groups[0]["lr"] = rate
        position.step += 1
        position.total += 1
        reporter.advance(round(batch.targets.numel() / batch.weight))
        if _pause(state, context, request, save=clock.tick()):
            clock.saved()
    return True


def _waited_for(batches: Iterator[Batch], request: StopRequest) -> Iterator[Batch]:
    """The batches; what is still to be read of one is not waited for after a second Ctrl-C."""
    while True:
        with request.interruptible():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextmanager
def _interruptible(state: State, request: StopRequest, *, slow: bool) -> Iterator[None]:
    """A step that a second Ctrl-C undoes; one that is not slow is finished first.

    So it is where there are several processes, which interrupt nothing that others wait for.
    """
    if not slow or state.execution.ranks.size > 1:
        yield
        return
    before = state.snapshot()
    try:
        with request.interruptible():
            yield
    except KeyboardInterrupt:
        state.restore(*before)
        raise


def _pause(state: State, context: RunContext, request: StopRequest, *, save: bool) -> bool:
    """Between two steps: show numbers, save where that is due, leave where that was asked for.

    All ranks do the same, after the clock and the eyes of the first one, and a
    signal to any of them.

    Returns:
        Whether the state was saved.
    """
    ranks = state.execution.ranks
    trouble: DivergenceError | WriteError | None = None
    try:
        if state.compilation is not None and (news := state.compilation.news()):
            context.reporter.say(news)
        if ranks.is_main:
            _look(state, context)
    except (DivergenceError, WriteError) as error:
        trouble = error
    signal_number, save_now, diverged, unwritten = ranks.all_reduce_max(
        request.number,
        save and ranks.is_main,
        isinstance(trouble, DivergenceError),
        isinstance(trouble, WriteError),
    )
    if unwritten:
        raise trouble or artifacts.unwritten_elsewhere()
    if diverged:
        raise trouble or state.divergence("the training loss has diverged")
    if signal_number:
        request.record(signal_number)
        _leave(state, context, request)
    if save_now:
        artifacts.save(state, context)
    return bool(save_now)


def _look(state: State, context: RunContext) -> None:
    """Make sure that all is well, and show the numbers where it is time to."""
    due = context.reporter.due()
    if due or state.meter.peeks_freely:
        metrics = _sound(state.module.summarize(state.meter.peek()), state, context.config.weights)
        if due:
            reports.show(state, context, metrics)


def _endless(loader: BatchLoader | None, start: int) -> Iterator[Batch]:
    """The batches of a stream, epoch after epoch, from number `start` of all on."""
    if loader is None:
        return
    epoch, step = 0, start
    while step >= loader.steps(epoch):
        step -= loader.steps(epoch)
        epoch += 1
    while True:
        yield from loader.batches(epoch, step)
        epoch, step = epoch + 1, 0


def _finish_epoch(state: State, context: RunContext, request: StopRequest) -> None:
    """Evaluate, leave the epoch's files, and report.

    Raises:
        KeyboardInterrupt: if a signal came; an evaluation is not waited for, and made again.
        WriteError: if a file cannot be written.
    """
    config, position, loaders = context.config, state.position, context.loaders
    trained = _sound(state.module.summarize(state.meter.read()), state, config.weights)
    state.check_finite()
    record: dict[str, Any] = {
        "epoch": position.epoch + 1,
        "step": position.total,
        "lr": learning_rate(config.weights, position.epoch, config.epochs),
        "train": trained,
    }
    line = f"epoch {position.epoch + 1}/{config.epochs}  train {format_metrics(trained)}"
    if loaders.eval is not None:
        watched, record["evaluated"] = _evaluate(loaders.eval, state, context, request)
        record[loaders.eval_split] = watched
        line += f"  {loaders.eval_split} {format_metrics(watched)}"
    position.epoch += 1
    position.step = 0
    state.meter.reset()
    snapshot: SearchSnapshot | None = None
    with artifacts.together(state.execution.ranks):
        if state.architect is not None:
            snapshot = artifacts.write_architecture(state, context)
            record |= asdict(snapshot.signals)
    # A search watches what trains its alphas, and a test set chooses nothing: neither has a best.
    if state.architect is None and "valid" in record:
        _judge(state, context, record["valid"]["loss"])
    with artifacts.together(state.execution.ranks):
        if state.execution.ranks.is_main:
            context.run.append_metrics(record)
            for listen in context.listeners:
                listen(record, snapshot)
    # Last, since a run goes on from it: whatever a kill leaves out before, it does again.
    artifacts.save(state, context)
    reports.end_epoch(line, state, context)


def _evaluate(
    loader: BatchLoader, state: State, context: RunContext, request: StopRequest
) -> tuple[dict[str, float], int]:
    """What is measured after an epoch, and on how many examples."""
    reporter, ranks = context.reporter, state.execution.ranks
    reporter.begin_evaluation(loader.steps(0))

    def advance() -> None:
        reporter.advance(1)
        # Several processes end an evaluation together.
        if ranks.size == 1:
            request.raise_if_requested()
            if reporter.due():
                reporter.show_evaluation()

    device, mixture = state.meter.sums.device, fixed_mixture(state)
    with state.evaluated():
        metrics, count = evaluate(
            state.module, loader, mixture, device, advance, execution=state.execution
        )
    return _sound(metrics, state, context.config.weights), count


def _judge(state: State, context: RunContext, loss: float) -> None:
    """Keep the best checkpoint, and average the weights once validation has stalled.

    It has when its loss exceeds the smallest of all epochs but the last
    `averaging_patience` (the non-monotone criterion of Merity et al., 2018).
    """
    patience = context.config.weights.averaging_patience
    earlier = state.val_losses[:-patience] if patience else []
    if patience:
        state.val_losses.append(loss)
    if loss < state.best:
        state.best = loss
        # With its own loss among those watched: training may go on from this epoch.
        artifacts.save(state, context, context.run.best)
    if state.average is None and earlier and loss > min(earlier):
        state.begin_averaging()
        reports.say("validation has stalled: the weights are averaged from here on", state, context)


def _sound(metrics: dict[str, float], state: State, config: WeightsConfig) -> dict[str, float]:
    """The measures, unless training has diverged; nothing is saved then."""
    if not all(math.isfinite(value) for value in metrics.values()):
        raise state.divergence("the loss is not a finite number any more")
    loss, limit = metrics.get("loss", 0.0), config.loss_limit
    if limit is not None and loss > limit:
        raise state.divergence(f"the loss is {loss:.4g}, above weights.loss_limit ({limit:g})")
    return metrics


def _roll_back(state: State, context: RunContext, error: DivergenceError) -> None:
    """Go on from the best checkpoint with other random numbers, as often as the settings allow.

    Where there is none yet, from the beginning of the epoch.

    Raises:
        DivergenceError: the one given, once that has been tried often enough.
    """
    limit, attempts = context.config.weights.rollbacks, state.rollbacks
    if attempts >= limit:
        if not limit:
            raise error
        raise DivergenceError(f"{error}; gone back to the best checkpoint {limit} times in vain")
    run, ranks = context.run, state.execution.ranks
    # Of the first rank, which may have written it a moment ago.
    known = (file for file in (run.best, run.epoch_start) if file.is_file())
    file = Path(ranks.broadcast(str(next(known, run.last))))
    state.restore(*checkpoint.read(file))
    ranks.barrier()
    state.rollbacks = attempts + 1
    # First, since a run that is killed behind it drops the lines when it goes on.
    artifacts.save(state, context)
    with artifacts.together(ranks):
        if ranks.is_main:
            run.keep_metrics(state.position.epoch)
    reports.recall(state, context)
    reports.say(
        f"{str(error).split(';')[0]}: back to {file.name}, epoch {state.position.epoch}, "
        f"with other random numbers ({state.rollbacks} of {limit} times)",
        state,
        context,
    )


def _leave(state: State, context: RunContext, request: StopRequest) -> NoReturn:
    """Save, and raise the news that a signal stopped the run."""
    artifacts.save(state, context)
    state.execution.ranks.barrier()
    name = request.signal.name if request.signal is not None else "signal"
    raise Interrupted(
        f"stopped by {name}, state saved; go on with: {context.resume_command}",
        request.exit_status,
    )
