"""The steps of alternating optimisation: of the alphas, of the weights; and evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from darts_cli.config import Config
from darts_cli.engine.computation import PLAIN, Computation, Loss
from darts_cli.engine.meter import Meter
from darts_cli.engine.randomness import count
from darts_cli.engine.state import State
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, Stream, Task


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
        norm = clip_grad_norm_(weights, config.weights.clip)
        if computation.scale is None:
            # A gradient that is not finite shows in this step's measures, and nobody waits for it.
            tally += 0 * norm
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
