"""Execution of the passes of a step: in micro-batches, on several ranks, in less precision."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, OutputT, TrainingModule
from darts_cli.runtime.precision import GradScaler, Precision
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks

# Computes a loss at the present weights and alphas, with the same random numbers at each call.
Loss = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepExecution:
    """The execution of passes: ranks, micro-batches and precision.

    It changes time and memory, and the rounding of sums, but no formula.
    """

    ranks: Ranks = SINGLE_PROCESS
    accumulation_steps: int = 1
    """Number of micro-batches of a rank's batch, of which one at a time has to fit in memory."""
    precision: Precision | None = None
    """Precision of products; None: torch's default."""
    grad_scaler: GradScaler | None = None
    """Loss scaling, for fp16."""

    def forward(self, module: TrainingModule[OutputT], batch: Batch, mixture: Mixture) -> OutputT:
        """Run a network; its output is float32 again, for the losses."""
        if self.precision is None:
            return module.forward(batch, mixture)
        with self.precision.reduced():
            output = module.forward(batch, mixture)
        return output.float()

    def gradients(
        self,
        losses: Sequence[Loss],
        leaves: Sequence[Tensor],
        *,
        along: Callable[[], Sequence[Tensor]] = tuple,
    ) -> list[Tensor]:
        """Compute the gradient of the sum of losses over all ranks; zeros where there is none.

        Args:
            losses: Micro-batches of this rank, whose graphs live one at a time.
            leaves: Tensors to differentiate by.
            along: Called once the losses are computed: returns tensors that are summed over ranks
                in place, in the same message.

        Raises:
            RankError: if another rank is lost.
        """
        total: list[Tensor] = []
        for loss in losses:
            # Differentiated at once, so that the graph of one micro-batch lives at a time.
            value = loss() if self.grad_scaler is None else loss() * self.grad_scaler.factor
            part = list(torch.autograd.grad(value, list(leaves), materialize_grads=True))
            total = list(torch._foreach_add(total, part)) if total else part
        gradients = self.ranks.all_reduce(total, along=along())
        if self.grad_scaler is not None:
            self.grad_scaler.unscale(gradients)
        return gradients

    def exactly(self) -> AbstractContextManager[None]:
        """Return a context of float32, for a difference that is divided by a small radius."""
        return self.precision.exactly() if self.precision is not None else nullcontext()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take a step of an optimizer."""
        if self.grad_scaler is None:
            optimizer.step()
        else:
            self.grad_scaler.step(optimizer)
            # Updated at once: an overflow in the gradient of the alphas must not undo the step of
            # the weights.
            self.grad_scaler.update()

    def keep(self, states: Tensor) -> Tensor:
        """Return hidden states for the next segment; zeros where one overflowed."""
        # Detached: backpropagation through time ends at the beginning of a segment.
        states = states.detach()
        return states if self.grad_scaler is None else states.nan_to_num(0.0, 0.0, 0.0)


# A whole batch at once, in one process.
DEFAULT = StepExecution()
