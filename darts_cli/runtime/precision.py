"""How precise the products of a pass are, and what keeps half precision from losing gradients."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from darts_cli.errors import CheckpointError, ConfigError

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What autocast computes products in."""


class Precision:
    """The precision of products and convolutions; weights, sums and losses are float32 throughout.

    BatchNorm's statistics, the softmax over candidates and both passes of the
    finite difference, which divides by a small radius, are float32 in any case.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """Make products on CUDA as precise as `name` says, from now on.

        Raises:
            ConfigError: if the device has no such precision.
        """
        if name == "tf32" and device.type not in {"cuda", "meta"}:
            raise ConfigError(
                f"--precision tf32: on {device.type}, expected a CUDA device; use fp32 or bf16"
            )
        self.name = name
        self.device = device
        self._type = _TYPES.get(name)
        self._exact = False
        # Convolutions of cuDNN are tf32 where nothing is said.
        _set_float32_products("tf32" if name == "tf32" else "ieee")

    def reduced(self) -> AbstractContextManager[object]:
        """For a forward pass: autocast, where that is what the precision means."""
        if self._type is None or self._exact:
            return nullcontext()
        return torch.autocast(self.device.type, self._type)

    @contextmanager
    def exactly(self) -> Iterator[None]:
        """Float32 for whole passes, forwards and backwards, whatever the precision."""
        before, self._exact = self._exact, True
        if self.name == "tf32":
            _set_float32_products("ieee")
        try:
            yield
        finally:
            self._exact = before
            if self.name == "tf32" and not before:
                _set_float32_products("tf32")


def _set_float32_products(kind: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = kind
    torch.backends.cudnn.conv.fp32_precision = kind  # type: ignore[attr-defined, unused-ignore]


class GradScaler:
    """A factor that lifts small gradients into the range of half precision (Micikevicius, 2018).

    It doubles after many steps without an overflow, and halves after one, whose
    step is undone: all of it on the device, which is never waited for.
    """

    _FIRST, _GROWTH, _BACKOFF, _INTERVAL = 2.0**16, 2.0, 0.5, 2000
    _LEAST = 2.0**-16
    """Whose inverse is still a number, whatever overflows for whatever time."""

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), self._FIRST, device=device)
        self.steady = torch.zeros((), dtype=torch.int32, device=device)
        """Steps without an overflow."""
        self.overflow = torch.zeros((), device=device)
        """1 after a gradient of this step was not finite."""

    @torch.no_grad()
    def unscale(self, gradients: list[Tensor]) -> None:
        """Divide gradients by the factor, and note whether one of them is not finite."""
        torch._amp_foreach_non_finite_check_and_unscale_(
            gradients, self.overflow, self.factor.reciprocal()
        )

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer take its step, and undo it after an overflow.

        Not by the optimizer's own `found_inf`: a first step of SGD that it skips
        leaves a momentum that was never written. A count of steps, which Adam
        keeps on the CPU, goes on in any case.
        """
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        before = {id(held): held.clone() for held in _tensors(optimizer, weights)}
        optimizer.step()
        for held in _tensors(optimizer, weights):
            # A momentum that was not there before was zero.
            earlier = before.get(id(held), torch.zeros_like(held))
            held.copy_(torch.where(self.overflow > 0, earlier, held))

    @torch.no_grad()
    def update(self) -> None:
        """Adapt the factor at the end of a step."""
        torch._amp_update_scale_(
            self.factor, self.steady, self.overflow, self._GROWTH, self._BACKOFF, self._INTERVAL
        )
        self.factor.clamp_(min=self._LEAST)
        self.overflow.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"factor": self.factor, "steady": self.steady}

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what a checkpoint kept; nothing, where it is of another precision.

        Raises:
            CheckpointError: if it is not whole.
        """
        if not tensors:
            return
        for name, own in self.state_dict().items():
            if name not in tensors or tensors[name].shape != own.shape:
                raise CheckpointError(f"scale.{name}: expected a single number in the checkpoint")
            own.copy_(tensors[name])


def _tensors(optimizer: torch.optim.Optimizer, weights: list[Tensor]) -> list[Tensor]:
    """Weights, and the optimizer's state of them on their device."""
    states = [
        value
        for weight in weights
        for value in optimizer.state.get(weight, {}).values()
        if isinstance(value, Tensor) and value.shape == weight.shape
    ]
    return [*weights, *states]
