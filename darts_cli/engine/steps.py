"""The steps of alternating optimisation: of the alphas, of the weights; and evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from darts_cli.config import Config
from darts_cli.engine.execution import DEFAULT, Loss, StepExecution
from darts_cli.engine.meter import Meter
from darts_cli.engine.state import State
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, BatchLoader, TrainingModule
from darts_cli.runtime.randomness import seed_for


def search_step(state: State, train: Batch, valid: Batch, seed: int) -> list[Tensor]:
    """Move the alphas, by the batch that trains the weights next and one of the alphas' own.

    Returns:
        The hypergradient, one tensor for each of the alphas.
    """
    module, architect, execution = state.module, state.architect, state.execution
    if architect is None:
        raise ValueError("a search step needs an architect")
    ended: list[Tensor] = []

    def loss(purpose: str, number: int, part: Batch) -> Tensor:
        # Seeded at every call: both sides of the finite difference see the same masks.
        _seed(state, seed, purpose, number)
        output = execution.forward(module, part, architect.mixture())
        # The state that training ends in goes nowhere: the weights' own pass is still to come.
        if purpose == "validation" and output.hidden is not None:
            ended.append(execution.keep(output.hidden))
        return _shared(module.loss(output, part), part)

    train = _carry(train, state.hidden.get("weights"))
    valid = _carry(valid, state.hidden.get("alphas"))
    gradients = architect.step(
        train_losses=_parts(partial(loss, "virtual"), train, execution),
        valid_losses=_parts(partial(loss, "validation"), valid, execution),
        optimizer=state.optimizer,
        state=list(module.network.buffers()),
        execution=execution,
    )
    _keep_hidden(ended, state, "alphas")
    return gradients


def train_step(state: State, batch: Batch, config: Config) -> None:
    """Move the weights, and count the batch."""
    module, optimizer, execution = state.module, state.optimizer, state.execution
    mixture, draws = fixed_mixture(state), state.draws(config.seed)
    ended: list[Tensor] = []
    metric_sums = torch.zeros_like(state.meter.sums)

    def loss(number: int, part: Batch) -> Tensor:
        _seed(state, draws, "weights", number)
        output = execution.forward(module, part, mixture)
        if output.hidden is not None:
            ended.append(execution.keep(output.hidden))
        metric_sums.add_(module.metric_sums(output, part))
        return _shared(module.training_loss(output, part), part)

    def along() -> list[Tensor]:
        # So that statistics, and with them whole checkpoints, are the same on all ranks.
        statistics = [buffer for buffer in module.network.buffers() if buffer.is_floating_point()]
        if batch.weight != 1 and statistics:
            torch._foreach_mul_(statistics, batch.weight)
        return [*statistics, metric_sums]

    batch = _carry(batch, state.hidden.get("weights"))
    weights = optimizer.param_groups[0]["params"]
    gradients = execution.gradients(_parts(loss, batch, execution), weights, along=along)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    if config.weights.clip:
        norm = clip_grad_norm_(weights, config.weights.clip)
        if execution.grad_scaler is None:
            # A gradient that is not finite shows in this step's measures, and nobody waits for it.
            metric_sums += 0 * norm
    execution.step(optimizer)
    optimizer.zero_grad(set_to_none=True)
    _keep_hidden(ended, state, "weights")
    if state.average is not None:
        state.average.update()
    state.meter.add(metric_sums)


def _parts(
    loss: Callable[[int, Batch], Tensor], batch: Batch, execution: StepExecution
) -> list[Loss]:
    """The losses of the parts of a batch, that add up to that of the whole."""
    parts = batch.split(execution.accumulation_steps)
    return [partial(loss, number, part) for number, part in enumerate(parts)]


def _shared(loss: Tensor, part: Batch) -> Tensor:
    """What a mean over a part of the batch adds to the mean over all of it."""
    return loss if part.weight == 1 else loss * part.weight


def _seed(state: State, seed: int, purpose: str, part: int) -> None:
    """Seed what a forward pass draws, such as dropout, by what it is for."""
    rank, position = state.execution.ranks.rank, state.position
    # One process that takes batches whole draws what it always has.
    place = (rank, part) if rank or part else ()
    torch.manual_seed(seed_for(seed, purpose, position.epoch, position.step, *place))


def _carry(batch: Batch, hidden: Tensor | None) -> Batch:
    """The batch with the state that the one before it left behind, if it goes on from there."""
    return replace(batch, hidden=hidden) if batch.carries_hidden else batch


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
    module: TrainingModule[Any],
    loader: BatchLoader,
    mixture: Mixture,
    device: torch.device,
    advance: Callable[[], object] = lambda: None,
    *,
    execution: StepExecution = DEFAULT,
) -> tuple[dict[str, float], int]:
    """What the task reports of a whole split, and of how many examples.

    Args:
        module: What is evaluated.
        loader: The split.
        mixture: Weights of the candidates; empty for a discrete network.
        device: Where it computes.
        advance: Called after every batch.
        execution: How; each rank of a run reads its own part of every batch.
    """
    meter = Meter(module.metric_names, device)
    module.network.eval()
    hidden = None
    for batch in loader.batches(0):
        output = execution.forward(module, _carry(batch, hidden), mixture)
        hidden = output.hidden
        meter.add(module.metric_sums(output, batch))
        advance()
    execution.ranks.all_reduce((), along=[meter.sums])
    # One that is gone is noticed here; a device would be waited for in vain.
    execution.ranks.barrier()
    return module.summarize(meter.read()), meter.count()
