"""The two steps of DARTS's algorithm 1, of alphas and of weights, and evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
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
    """Update the alphas by descending the validation loss (algorithm 1, step 1).

    Args:
        state: A search.
        train: The batch that trains the weights next.
        valid: A batch for the alphas.
        seed: Seed of the run.

    Returns:
        The hypergradient, one tensor for each kind of cell.
    """
    module, architect, execution = state.module, state.architect, state.execution
    if architect is None:
        raise ValueError("a search step needs an architect")
    final_states: list[Tensor] = []

    def loss(purpose: str, number: int, part: Batch) -> Tensor:
        # Seeded at each call: both sides of the finite difference get the same dropout masks.
        _seed(state, seed, purpose, number)
        output = execution.forward(module, part, architect.mixture())
        # The hidden state of a virtual pass is dropped: the weights' own pass comes later.
        if purpose == "validation" and output.hidden is not None:
            final_states.append(execution.keep(output.hidden))
        return _weighted(module.loss(output, part), part)

    # Text continues where the last segment of the same data ended: the training batch from the
    # state of the weights' steps, the validation batch from that of the alphas' steps.
    train = _carry(train, state.hidden.get("weights"))
    valid = _carry(valid, state.hidden.get("alphas"))
    gradients = architect.step(
        train_losses=_micro_batches(partial(loss, "virtual"), train, execution),
        valid_losses=_micro_batches(partial(loss, "validation"), valid, execution),
        optimizer=state.optimizer,
        # Restored after the step: only the weights' own pass updates BatchNorm's statistics.
        state=list(state.network.buffers()),
        execution=execution,
    )
    _keep_hidden(final_states, state, "alphas")
    return gradients


def train_step(state: State, batch: Batch, config: Config) -> None:
    """Update the weights by descending the training loss (algorithm 1, step 2).

    The batch is added to the training metrics.
    """
    module, optimizer, execution = state.module, state.optimizer, state.execution
    mixture, seed = fixed_mixture(state), state.train_seed(config.seed)
    final_states: list[Tensor] = []
    sums = torch.zeros_like(state.meter.sums)

    def loss(number: int, part: Batch) -> Tensor:
        _seed(state, seed, "weights", number)
        output = execution.forward(module, part, mixture)
        if output.hidden is not None:
            final_states.append(execution.keep(output.hidden))
        sums.add_(module.metric_sums(output, part))
        return _weighted(module.training_loss(output, part), part)

    def along() -> list[Tensor]:
        # Running statistics are averaged over ranks, so that all have the same state: each rank
        # weights its own by its share of the batch, and their sum is the mean.
        statistics = [buffer for buffer in state.network.buffers() if buffer.is_floating_point()]
        if batch.weight != 1 and statistics:
            torch._foreach_mul_(statistics, batch.weight)
        return [*statistics, sums]

    batch = _carry(batch, state.hidden.get("weights"))
    weights = optimizer.param_groups[0]["params"]
    gradients = execution.gradients(_micro_batches(loss, batch, execution), weights, along=along)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    if config.weights.clip:
        norm = clip_grad_norm_(weights, config.weights.clip)
        if execution.grad_scaler is None:
            # A gradient that is not finite shows in the metrics of its own step, without waiting
            # for the device.
            sums += 0 * norm
    execution.step(optimizer)
    optimizer.zero_grad(set_to_none=True)
    _keep_hidden(final_states, state, "weights")
    if state.average is not None:
        state.average.update()
    state.meter.add(sums)


def _micro_batches(
    loss: Callable[[int, Batch], Tensor], batch: Batch, execution: StepExecution
) -> list[Loss]:
    """Return the losses of the micro-batches, which sum to that of the batch."""
    parts = batch.split(execution.accumulation_steps)
    return [partial(loss, number, part) for number, part in enumerate(parts)]


def _weighted(loss: Tensor, part: Batch) -> Tensor:
    """Return the share of a micro-batch's mean in the mean over the global batch."""
    return loss if part.weight == 1 else loss * part.weight


def _seed(state: State, seed: int, purpose: str, part: int) -> None:
    """Seed torch's generators for one forward pass."""
    rank, position = state.execution.ranks.rank, state.position
    # A single process with whole batches draws the numbers of earlier versions.
    place = (rank, part) if rank or part else ()
    torch.manual_seed(seed_for(seed, purpose, position.epoch, position.step, *place))


def _carry(batch: Batch, hidden: Tensor | None) -> Batch:
    """Return the batch with the final state of the previous one, if it continues that."""
    return replace(batch, hidden=hidden) if batch.carries_hidden else batch


def _keep_hidden(final_states: Sequence[Tensor], state: State, name: str) -> None:
    """Keep the final hidden states of all micro-batches, `[B, D]`."""
    if final_states:
        # [B / parts, D] of each micro-batch -> [B, D]
        state.hidden[name] = torch.cat(list(final_states))


def fixed_mixture(state: State) -> Mixture:
    """Return the weights of the candidates as constants; empty for a discrete network."""
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
    limit: int | None = None,
) -> tuple[dict[str, float], int]:
    """Evaluate a network on a split.

    Args:
        module: The network.
        loader: The split.
        mixture: Weights of the candidates; empty for a discrete network.
        device: Device of the network.
        advance: Called after every batch.
        execution: How passes are executed; each rank reads its own shard of every batch.
        limit: Number of batches at most; None: the whole split.

    Returns:
        The metrics, and the number of examples.
    """
    meter = Meter(module.metric_names, device)
    module.network.eval()
    hidden = None
    for batch in islice(loader.batches(0), limit):
        output = execution.forward(module, _carry(batch, hidden), mixture)
        hidden = output.hidden
        meter.add(module.metric_sums(output, batch))
        advance()
    execution.ranks.all_reduce((), along=[meter.sums])
    # A lost rank is noticed here; reading the meter would wait for the device without end.
    execution.ranks.barrier()
    return module.summarize(meter.read()), meter.count()
