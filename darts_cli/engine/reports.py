"""What a run says of itself while it goes on: its numbers, its epochs, its messages."""

from collections.abc import Mapping

from darts_cli.display.picture import Past
from darts_cli.engine import artifacts
from darts_cli.engine.artifacts import Session
from darts_cli.engine.schedules import learning_rate
from darts_cli.engine.state import State
from darts_cli.errors import CheckpointError


def show(state: State, session: Session, measures: Mapping[str, float]) -> None:
    """Show the numbers of the moment.

    Raises:
        WriteError: if the log cannot be written.
    """
    config = session.config
    rate = learning_rate(config.weights, state.position.epoch, config.epochs)
    session.reporter.show(measures, lr=rate, device=session.device_status())


def recall(state: State, session: Session) -> None:
    """Have the epochs shown that are done as a run begins, goes on, or goes back."""
    if state.computation.ranks.leads:
        session.reporter.recall(_past(state, session))


def end_epoch(line: str, state: State, session: Session) -> None:
    """Say what came out of the epoch that has just ended; all ranks call it.

    Raises:
        WriteError: if the log cannot be written.
    """
    with artifacts.together(state.computation.ranks):
        if state.computation.ranks.leads:
            session.reporter.end_epoch(line, _past(state, session))


def say(text: str, state: State, session: Session) -> None:
    """Print a message; all ranks call it.

    Raises:
        WriteError: if the log cannot be written.
    """
    with artifacts.together(state.computation.ranks):
        session.reporter.say(text)


def _past(state: State, session: Session) -> Past:
    """By the run's files: a run that goes on tells the same as one that was never stopped."""
    streams, epoch = session.streams, state.position.epoch
    try:
        records = session.run.read_metrics()
    except CheckpointError:
        # Whatever became of them meanwhile: a run does not end by what it has to show.
        records = []
    watched = () if streams.watched is None else (streams.watched_name,)
    return Past(
        space=session.space,
        epochs=session.config.epochs,
        splits=("train", *watched),
        records=records,
        moment=artifacts.read_moment(session, epoch) if state.architect is not None else None,
        before=artifacts.read_moment(session, epoch - 1) if state.architect is not None else None,
    )
