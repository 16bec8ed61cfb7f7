"""What a run says of itself while it goes on: its numbers, its epochs, its messages."""

from collections.abc import Mapping

from darts_cli.engine import artifacts
from darts_cli.engine.artifacts import RunContext
from darts_cli.engine.schedules import learning_rate
from darts_cli.engine.state import State
from darts_cli.errors import CheckpointError
from darts_cli.terminal.frame import FinishedEpochs


def show(state: State, context: RunContext, metrics: Mapping[str, float]) -> None:
    """Show the numbers of the moment.

    Raises:
        WriteError: if the log cannot be written.
    """
    config = context.config
    rate = learning_rate(config.weights, state.position.epoch, config.epochs)
    context.reporter.show(metrics, lr=rate, device=context.device_status())


def recall(state: State, context: RunContext) -> None:
    """Have the epochs shown that are done as a run begins, goes on, or goes back."""
    if state.execution.ranks.is_main:
        context.reporter.recall(_past(state, context))


def end_epoch(line: str, state: State, context: RunContext) -> None:
    """Say what came out of the epoch that has just ended; all ranks call it.

    Raises:
        WriteError: if the log cannot be written.
    """
    with artifacts.together(state.execution.ranks):
        if state.execution.ranks.is_main:
            context.reporter.end_epoch(line, _past(state, context))


def say(text: str, state: State, context: RunContext) -> None:
    """Print a message; all ranks call it.

    Raises:
        WriteError: if the log cannot be written.
    """
    with artifacts.together(state.execution.ranks):
        context.reporter.say(text)


def _past(state: State, context: RunContext) -> FinishedEpochs:
    """By the run's files: a run that goes on tells the same as one that was never stopped."""
    loaders, epoch = context.loaders, state.position.epoch
    try:
        records = context.run.read_metrics()
    except CheckpointError:
        # Whatever became of them meanwhile: a run does not end by what it has to show.
        records = []
    watched = () if loaders.eval is None else (loaders.eval_split,)
    return FinishedEpochs(
        space=context.space,
        epochs=context.config.epochs,
        splits=("train", *watched),
        records=records,
        snapshot=artifacts.read_snapshot(context, epoch) if state.architect is not None else None,
        before=artifacts.read_snapshot(context, epoch - 1) if state.architect is not None else None,
    )
