"""How the passes of a step are computed: in parts, by several processes, in less precision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, OutputT, TrainingModule
from darts_cli.runtime.precision import GradScaler, Precision
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks

Loss = Callable[[], Tensor]
"""Computes a loss at the present weights and alphas, with the same random numbers every time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepExecution:
    """How, and by whom, passes are computed; what is computed follows from the settings."""

    ranks: Ranks = SINGLE_PROCESS
    accumulation_steps: int = 1
    """Of this process's batch, one after the other, so that only one has to fit in memory."""
    precision: Precision | None = None
    """None: as torch computes where nothing is said."""
    grad_scaler: GradScaler | None = None
    """In half precision."""

    def forward(self, module: TrainingModule[OutputT], batch: Batch, mixture: Mixture) -> OutputT:
        """Run a network; what it makes is float32 again for the losses."""
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
        """The gradient of a sum of losses, and of those on all ranks; zeros where there is none.

        Args:
            losses: The parts of this rank, whose graphs live one at a time.
            leaves: What they are differentiated by.
            along: Called once the losses are computed: tensors whose place their sums over all
                ranks take, in the same message.

        Raises:
            RankError: if another process is gone.
        """
        total: list[Tensor] = []
        for loss in losses:
            value = loss() if self.grad_scaler is None else loss() * self.grad_scaler.factor
            part = list(torch.autograd.grad(value, list(leaves), materialize_grads=True))
            total = list(torch._foreach_add(total, part)) if total else part
        gradients = self.ranks.all_reduce(total, along=along())
        if self.grad_scaler is not None:
            self.grad_scaler.unscale(gradients)
        return gradients

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimizer take its step."""
        if self.grad_scaler is None:
            optimizer.step()
        else:
            self.grad_scaler.step(optimizer)
            # Here and now: an overflow on the way to the alphas is none of the weights.
            self.grad_scaler.update()

    def keep(self, states: Tensor) -> Tensor:
        """A state for the next segment; zero where it overflowed, as its step is undone."""
        states = states.detach()
        return states if self.grad_scaler is None else states.nan_to_num(0.0, 0.0, 0.0)


DEFAULT = StepExecution()
"""A whole batch at once, in one process."""
