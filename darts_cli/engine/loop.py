"""Algorithm 1 of DARTS (Liu et al., 2019), which alternates between alphas and weights.

    while not converged:
        1. update the alphas by descending grad_a L_val(w - xi grad_w L_train(w, a), a)
        2. update the weights by descending grad_w L_train(w, a)
    derive the final architecture from the alphas

Here "converged" is a number of epochs, after each of which the genotype is derived
and all files of the run are written.
"""

from collections.abc import Iterator

from darts_cli.engine.artifacts import RunContext
from darts_cli.engine.schedules import learning_rate
from darts_cli.engine.state import State
from darts_cli.engine.steps import evaluate, fixed_mixture, search_step, train_step
from darts_cli.engine.supervisor import Supervisor, supervised
from darts_cli.engine.task import Batch, BatchLoader


def fit(state: State, context: RunContext) -> bool:
    """Run from the state's position to the last epoch.

    A training is a search without alphas: step 2 alone.

    Returns:
        Whether the last epoch is done; False after `max_steps`.

    Raises:
        DivergenceError: if a loss is not finite or too large, after as many rollbacks to the best
            checkpoint as the settings allow; it names the last good checkpoint.
        Interrupted: if a signal came; the state is saved.
        WriteError: if a file of the run cannot be written; it says where the state is instead.
    """
    with supervised(state, context) as supervisor:
        supervisor.begin()
        while state.position.epoch < context.config.epochs:
            with supervisor.rollback_on_divergence():
                if not _train_epoch(state, context, supervisor):
                    return False
                with state.reverted_on_write_error():
                    _end_epoch(state, context, supervisor)
            supervisor.after_epoch()
    return True


def _train_epoch(state: State, context: RunContext, supervisor: Supervisor) -> bool:
    """Take the remaining steps of an epoch; return False if `max_steps` came first."""
    config, loaders, position = context.config, context.loaders, state.position
    rate = learning_rate(config.weights, position.epoch, config.epochs)
    state.set_learning_rate(rate)
    state.network.train()
    state.module.begin_epoch(position.epoch)
    supervisor.begin_epoch()
    arch_batches = endless(loaders.arch, position.total)
    train_batches = loaders.train.batches(state.data_epoch, position.step)
    for train in supervisor.interruptible(train_batches):
        if supervisor.reached_max_steps():
            return False
        state.set_learning_rate(rate * train.lr_scale)
        with supervisor.step():
            if state.architect is not None:
                # Step 1 of algorithm 1: the alphas descend the validation loss after a virtual
                # step of the weights, on a batch of data that never trains the weights.
                search_step(state, train, next(arch_batches), config.seed)
            # Step 2 of algorithm 1: the weights descend the training loss at the new alphas.
            train_step(state, train, config)
        state.set_learning_rate(rate)
        position.next_step()
        supervisor.after_step(train)
    return True


def endless(loader: BatchLoader | None, start: int = 0) -> Iterator[Batch]:
    """Yield the batches of a loader, epoch after epoch, from number `start` of all."""
    if loader is None:
        return
    epoch, step = 0, start
    while step >= loader.steps(epoch):
        step -= loader.steps(epoch)
        epoch += 1
    while True:
        yield from loader.batches(epoch, step)
        epoch, step = epoch + 1, 0


def _end_epoch(state: State, context: RunContext, supervisor: Supervisor) -> None:
    """Evaluate the network, and write the files of the epoch.

    Raises:
        KeyboardInterrupt: if a signal came; an evaluation is interrupted, and repeated on resume.
        WriteError: if a file cannot be written.
    """
    trained = supervisor.check(state.module.summarize(state.meter.read()))
    state.check_finite()
    evaluated: tuple[dict[str, float], int] | None = None
    loader = context.loaders.eval
    if loader is not None:
        advance = supervisor.begin_evaluation(loader.steps(0))
        device, mixture = state.meter.sums.device, fixed_mixture(state)
        with state.evaluated_weights():
            evaluated = evaluate(
                state.module, loader, mixture, device, advance, execution=state.execution
            )
        supervisor.check(evaluated[0])
    state.position.next_epoch()
    state.meter.reset()
    supervisor.end_epoch(trained, evaluated)
