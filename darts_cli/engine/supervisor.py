"""Supervision of a run: signals, checkpoints, divergence, rollbacks and reports.

The algorithm (`loop.py`) calls it between steps and epochs, and depends on
nothing of what it does there.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from darts_cli.engine import artifacts
from darts_cli.engine.artifacts import RunContext, write_together
from darts_cli.engine.schedules import learning_rate
from darts_cli.engine.state import State
from darts_cli.engine.task import Batch
from darts_cli.errors import CheckpointError, DivergenceError, Interrupted
from darts_cli.run import checkpoint
from darts_cli.run.files import WriteError
from darts_cli.run.metrics import format_metrics
from darts_cli.run.signals import SearchSnapshot
from darts_cli.runtime.clock import Clock
from darts_cli.runtime.interruption import StopRequest, graceful_signals
from darts_cli.terminal.frame import FinishedEpochs


@contextmanager
def supervised(state: State, context: RunContext) -> Iterator["Supervisor"]:
    """Supervise a run: handle signals, and leave nothing unsaved whatever error ends it.

    Raises:
        DivergenceError: the one of the block, with the last good checkpoint and what to try.
        Interrupted: if a signal came; the state is saved.
        WriteError: the one of the block, with where the state is instead.
    """
    with graceful_signals() as request, context.reporter:
        supervisor = Supervisor(state, context, request)
        try:
            try:
                yield supervisor
            except KeyboardInterrupt:
                # Within the outer block, so that a state that cannot be saved now is rescued.
                supervisor.stop()
        except DivergenceError as error:
            raise artifacts.advise(error, context) from None
        except WriteError as error:
            raise artifacts.rescue(state, context, error) from None


class Supervisor:
    """Watches one run; on several ranks all act alike, as rank 0 decides."""

    def __init__(self, state: State, context: RunContext, request: StopRequest) -> None:
        self.state = state
        self.context = context
        self.request = request
        self.ranks = state.execution.ranks
        self._clock = Clock(context.checkpoint_seconds, context.checkpoint_steps)
        # Rank 0 remembers the finished epochs, as its files have them.
        self._records: list[Mapping[str, Any]] = []
        self._snapshots: list[SearchSnapshot | None] = [None, None]

    def begin(self) -> None:
        """Save a new run, so that it can be resumed from its first moment; show a resumed one."""
        if not self.state.position.total:
            artifacts.save(self.state, self.context)
        self._recall()

    def begin_epoch(self) -> None:
        """Start to report an epoch."""
        state, context = self.state, self.context
        position, weights = state.position, context.config.weights
        if weights.rollbacks and math.isinf(state.best) and not position.step:
            # Only at step 0: a state within the epoch would depend on where the run was stopped.
            artifacts.save(state, context, context.run.epoch_start)
        context.reporter.begin_epoch(
            epoch=position.epoch + 1,
            epochs=context.config.epochs,
            step=position.step,
            steps=context.loaders.train.steps(state.data_epoch),
        )
        self._clock = Clock(context.checkpoint_seconds, context.checkpoint_steps)

    def interruptible(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches; a second Ctrl-C does not wait until one is read."""
        while True:
            with self.request.interruptible():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def reached_max_steps(self) -> bool:
        """Save and return True where the run has to stop after so many steps."""
        most = self.context.max_steps
        if most is None or self.state.position.total < most:
            return False
        artifacts.save(self.state, self.context)
        # torchrun ends the other ranks when one exits: wait until rank 0 has written.
        self.ranks.barrier()
        return True

    @contextmanager
    def step(self) -> Iterator[None]:
        """Let a second Ctrl-C undo the step, if steps are slow; a quick one is finished first.

        So is every step on several ranks, where another rank waits for this one.
        """
        if not self._clock.slow or self.ranks.size > 1:
            yield
            return
        # To the CPU, since the device may have no room for a second state.
        before = self.state.copy_to_cpu()
        try:
            with self.request.interruptible():
                yield
        except KeyboardInterrupt:
            self.state.load_state_dict(*before)
            raise

    def after_step(self, batch: Batch) -> None:
        """Report a step, save where a checkpoint is due, and stop where that was requested.

        All ranks act alike: rank 0's clock and loss check decide, and a signal
        to any rank counts.
        """
        # Examples of all ranks: `weight` is the share of this rank in the global batch.
        self.context.reporter.advance(round(batch.targets.numel() / batch.weight))
        due = self._clock.tick()
        trouble: DivergenceError | WriteError | None = None
        try:
            self._report_step()
        except (DivergenceError, WriteError) as error:
            # Raised after the message below, which all other ranks wait for.
            trouble = error
        signal_number, save, diverged, unwritten = self.ranks.all_reduce_max(
            self.request.number,
            due and self.ranks.is_main,
            isinstance(trouble, DivergenceError),
            isinstance(trouble, WriteError),
        )
        if unwritten:
            raise trouble or artifacts.unwritten_elsewhere()
        if diverged:
            raise trouble or self.state.divergence("the training loss has diverged")
        if signal_number:
            self.request.record(signal_number)
            self.stop()
        if save:
            artifacts.save(self.state, self.context)
            self._clock.saved()

    def begin_evaluation(self, steps: int) -> Callable[[], None]:
        """Start to report an evaluation, and return what to call after each of its batches."""
        reporter = self.context.reporter
        reporter.begin_evaluation(steps)

        def advance() -> None:
            reporter.advance(1)
            # Several ranks finish an evaluation together.
            if self.ranks.size == 1:
                self.request.raise_if_requested()
                if reporter.due():
                    reporter.show_evaluation()

        return advance

    def end_epoch(
        self, trained: dict[str, float], evaluated: tuple[dict[str, float], int] | None
    ) -> None:
        """Write the files of an epoch, and report it.

        Args:
            trained: Training metrics.
            evaluated: Metrics of the evaluation, and its number of examples.
        """
        state, context, position = self.state, self.context, self.state.position
        config, split = context.config, context.loaders.eval_split
        record: dict[str, Any] = {
            "epoch": position.epoch,
            "step": position.total,
            "lr": learning_rate(config.weights, position.epoch - 1, config.epochs),
            "train": trained,
        }
        line = f"epoch {position.epoch}/{config.epochs}  train {format_metrics(trained)}"
        if evaluated is not None:
            metrics, examples = evaluated
            record |= {"evaluated": examples, split: metrics}
            line += f"  {split} {format_metrics(metrics)}"
        snapshot: SearchSnapshot | None = None
        with write_together(self.ranks):
            if state.architect is not None and self.ranks.is_main:
                before = self._snapshots[-1]
                snapshot = artifacts.write_architecture(state, context, before)
                record |= asdict(snapshot.signals)
        # A search evaluates what trains its alphas, and test data chooses nothing: neither has a
        # best epoch.
        if state.architect is None and "valid" in record:
            self._judge(record["valid"]["loss"])
        with write_together(self.ranks):
            if self.ranks.is_main:
                context.run.append_metrics(record)
                for callback in context.callbacks:
                    callback(record, snapshot)
        # Last, since a run resumes from it: what a kill prevents above is then done again.
        artifacts.save(state, context)
        self._records.append(record)
        self._snapshots = [self._snapshots[-1], snapshot]
        with write_together(self.ranks):
            if self.ranks.is_main:
                context.reporter.end_epoch(line, self._past())

    def after_epoch(self) -> None:
        """Stop after an epoch where that was requested, unless it was the last one."""
        (number,) = self.ranks.all_reduce_max(self.request.number)
        if number and self.state.position.epoch < self.context.config.epochs:
            self.request.record(number)
            self.stop()

    def check(self, metrics: dict[str, float]) -> dict[str, float]:
        """Return metrics.

        Raises:
            DivergenceError: if they show that training has diverged; nothing is saved then.
        """
        if not all(math.isfinite(value) for value in metrics.values()):
            raise self.state.divergence("the loss is not a finite number any more")
        loss, limit = metrics.get("loss", 0.0), self.context.config.weights.loss_limit
        if limit is not None and loss > limit:
            raise self.state.divergence(
                f"the loss is {loss:.4g}, above weights.loss_limit ({limit:g})"
            )
        return metrics

    @contextmanager
    def rollback_on_divergence(self) -> Iterator[None]:
        """Restore the best checkpoint after a divergence, as often as the settings allow.

        The run continues from it with other random numbers; from the beginning of
        the epoch where there is no best checkpoint yet.

        Raises:
            DivergenceError: the one of the block, after too many rollbacks.
        """
        try:
            yield
        except DivergenceError as error:
            self._roll_back(error)

    def _roll_back(self, error: DivergenceError) -> None:
        state, run, attempts = self.state, self.context.run, self.state.rollbacks
        limit = self.context.config.weights.rollbacks
        if not limit:
            raise error
        if attempts >= limit:
            raise DivergenceError(
                f"{error}; still diverging after {limit} rollbacks to the best checkpoint"
            )
        # Rank 0 decides, which may have written the best checkpoint a moment ago.
        known = (file for file in (run.best, run.epoch_start) if file.is_file())
        file = Path(self.ranks.broadcast(str(next(known, run.last))))
        state.load_state_dict(*checkpoint.read(file))
        self.ranks.barrier()
        state.rollbacks = attempts + 1
        # Saved first: a run that is killed after this drops the later records when it resumes.
        artifacts.save(state, self.context)
        # The lines of later epochs are written again.
        with write_together(self.ranks):
            if self.ranks.is_main:
                run.keep_metrics(state.position.epoch)
        self._recall()
        self._say(
            f"{error.problem}: back to {file.name}, epoch {state.position.epoch}, "
            f"with other random numbers ({state.rollbacks} of {limit} times)"
        )

    def stop(self) -> NoReturn:
        """Save, and raise `Interrupted`."""
        artifacts.save(self.state, self.context)
        self.ranks.barrier()
        request = self.request
        name = request.signal.name if request.signal is not None else "signal"
        raise Interrupted(
            f"stopped by {name}, state saved; go on with: {self.context.resume_command}",
            request.exit_status,
        )

    def _report_step(self) -> None:
        """Check the training metrics, and show them where it is time to."""
        state, reporter = self.state, self.context.reporter
        if state.compilation is not None and (news := state.compilation.news()):
            reporter.say(news)
        due = reporter.due()
        if self.ranks.is_main and (due or state.meter.peeks_freely):
            metrics = self.check(state.module.summarize(state.meter.peek()))
            if due:
                config = self.context.config
                lr = learning_rate(config.weights, state.position.epoch, config.epochs)
                reporter.show(metrics, lr=lr, device=self.context.device_status())

    def _judge(self, loss: float) -> None:
        """Save the best checkpoint, and average the weights once validation has stalled.

        It has stalled when its loss exceeds the minimum over all epochs but the last
        `averaging_patience` (the non-monotone criterion of Merity et al., 2018).
        """
        state, context = self.state, self.context
        patience = context.config.weights.averaging_patience
        earlier = state.val_losses[:-patience] if patience else []
        if patience:
            state.val_losses.append(loss)
        if loss < state.best:
            state.best = loss
            # Its own loss is included, since training may resume from this checkpoint.
            artifacts.save(state, context, context.run.best)
        if state.average is None and earlier and loss > min(earlier):
            state.start_averaging()
            self._say("validation has stalled: the weights are averaged from here on")

    def _say(self, text: str) -> None:
        with write_together(self.ranks):
            self.context.reporter.say(text)

    def _recall(self) -> None:
        """Read the finished epochs of a run that starts, resumes or was rolled back."""
        if not self.ranks.is_main:
            return
        context, epoch = self.context, self.state.position.epoch
        try:
            self._records = list(context.run.read_metrics())
        except CheckpointError:
            # A run must not end because of metrics that it cannot show.
            self._records = []
        if self.state.architect is not None:
            self._snapshots = [
                artifacts.read_snapshot(context, number, self._records)
                for number in (epoch - 1, epoch)
            ]
        context.reporter.recall(self._past())

    def _past(self) -> FinishedEpochs:
        """Return the finished epochs, as they are shown."""
        loaders = self.context.loaders
        evaluated = () if loaders.eval is None else (loaders.eval_split,)
        before, newest = self._snapshots
        return FinishedEpochs(
            space=self.context.space,
            epochs=self.context.config.epochs,
            splits=("train", *evaluated),
            records=list(self._records),
            snapshot=newest,
            before=before,
        )
