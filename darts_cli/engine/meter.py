"""Running means of metrics on the device, read without waiting for it."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Meter:
    """Sums of measures and their count; means of them.

    On CUDA `peek` copies in the background and answers with what has arrived,
    so that showing progress never waits for the device.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        # Half-precision counts would stop growing; mps has no float64.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(len(self.names) + 1, dtype=dtype, device=device)
        self._arrived: dict[str, float] = {}
        self._copy: tuple[Tensor, torch.cuda.Event] | None = None

    def add(self, metric_sums: Tensor) -> None:
        """Add the sums of a batch, `[len(names) + 1]`, the last of which is their count."""
        self.sums += metric_sums

    def read(self) -> dict[str, float]:
        """Return the means so far, waiting for the device; empty before the first batch."""
        return self._means(self.sums.cpu())

    def count(self) -> int:
        """Return the number of examples so far, waiting for the device."""
        return int(self.sums[-1].item())

    @property
    def peeks_freely(self) -> bool:
        """Whether `peek` may be called after every step: on `mps` it waits for the device."""
        return self.sums.device.type != "mps"

    def peek(self) -> dict[str, float]:
        """Return the means as of a moment ago, without waiting."""
        if self.sums.device.type != "cuda":
            return self.read()
        # A query does not wait: it returns whether the copy has arrived.
        if self._copy is not None and self._copy[1].query():
            self._arrived = self._means(self._copy[0])
            self._copy = None
        if self._copy is None:
            # Pinned, or the copy would wait for the device.
            host = torch.empty_like(self.sums, device="cpu", pin_memory=True)
            host.copy_(self.sums, non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self.sums.device))
            self._copy = host, event
        return self._arrived

    def reset(self) -> None:
        """Start again from zero."""
        self.sums = torch.zeros_like(self.sums)
        self._arrived, self._copy = {}, None

    def _means(self, host: Tensor) -> dict[str, float]:
        *sums, count = host.tolist()
        if not count:
            return {}
        return {name: total / count for name, total in zip(self.names, sums, strict=True)}
