"""Precision of a pass, and the gradient scaler that half precision needs."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from darts_cli.errors import CheckpointError, ConfigError

# Data types that autocast computes products in.
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """The precision of products and convolutions; weights, sums and losses are always float32.

    So are BatchNorm's statistics, the softmax over candidates, and both passes of the finite
    difference (DARTS, equation 8), which divides by a small radius.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """Set the precision of float32 products on CUDA for this process.

        Args:
            name: `fp32`, `tf32`, `bf16` or `fp16`.
            device: Device of the run.

        Raises:
            ConfigError: if the device does not support it.
        """
        if name == "tf32" and device.type not in {"cuda", "meta"}:
            raise ConfigError(
                f"--precision tf32: on {device.type}, expected a CUDA device; use fp32 or bf16"
            )
        self.name = name
        self.device = device
        self._type = _TYPES.get(name)
        self._exact = False
        # Set in any case, since convolutions of cuDNN are tf32 by default.
        _set_float32_products("tf32" if name == "tf32" else "ieee")

    def reduced(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass: autocast, or nothing for float32 and tf32."""
        if self._type is None or self._exact:
            return nullcontext()
        return torch.autocast(self.device.type, self._type)

    @contextmanager
    def exactly(self) -> Iterator[None]:
        """Compute whole passes in float32 inside the block, forward and backward."""
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
    """Loss scaling: a factor that keeps small gradients in the range of half precision.

    The factor doubles after many steps without an overflow (Micikevicius et al., ICLR 2018). An
    overflow halves it, and the step is undone. All of it runs on the device without synchronizing.
    """

    _FIRST, _GROWTH, _BACKOFF, _INTERVAL = 2.0**16, 2.0, 0.5, 2000
    # Lower bound of the scale, so that its reciprocal stays finite however often steps overflow.
    _LEAST = 2.0**-16

    def __init__(self, device: torch.device) -> None:
        self.factor = torch.full((), self._FIRST, device=device)
        self.steady = torch.zeros((), dtype=torch.int32, device=device)
        """Steps since the last overflow, int32 `[]`."""
        self.overflow = torch.zeros((), device=device)
        """1 after a gradient of this step was not finite, else 0, float32 `[]`."""

    @torch.no_grad()
    def unscale(self, gradients: list[Tensor]) -> None:
        """Divide gradients by the factor in place, and record whether one of them is not finite."""
        torch._amp_foreach_non_finite_check_and_unscale_(
            gradients, self.overflow, self.factor.reciprocal()
        )

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Run the optimizer's step, and undo it after an overflow.

        The optimizer's own `found_inf` does not serve: a first step of SGD that it skips leaves
        a momentum buffer that was never written. Adam's step count, which it keeps on the CPU,
        advances in any case.
        """
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        before = {id(held): held.clone() for held in _tensors(optimizer, weights)}
        optimizer.step()
        for held in _tensors(optimizer, weights):
            # A momentum buffer that did not exist before the step was zero.
            earlier = before.get(id(held), torch.zeros_like(held))
            # A select on the device: an `if` would wait for it.
            held.copy_(torch.where(self.overflow > 0, earlier, held))

    @torch.no_grad()
    def update(self) -> None:
        """Adapt the factor after a step."""
        torch._amp_update_scale_(
            self.factor, self.steady, self.overflow, self._GROWTH, self._BACKOFF, self._INTERVAL
        )
        self.factor.clamp_(min=self._LEAST)
        self.overflow.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint stores."""
        return {"factor": self.factor, "steady": self.steady}

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the tensors of a checkpoint; without any, from another precision, do nothing.

        Raises:
            CheckpointError: if one is missing or has another shape.
        """
        if not tensors:
            return
        for name, own in self.state_dict().items():
            if name not in tensors or tensors[name].shape != own.shape:
                raise CheckpointError(f"scale.{name}: expected a single number in the checkpoint")
            own.copy_(tensors[name])


def _tensors(optimizer: torch.optim.Optimizer, weights: list[Tensor]) -> list[Tensor]:
    """Return the weights, and the optimizer's states of their shapes."""
    states = [
        value
        for weight in weights
        for value in optimizer.state.get(weight, {}).values()
        if isinstance(value, Tensor) and value.shape == weight.shape
    ]
    return [*weights, *states]
