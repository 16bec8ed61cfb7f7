"""Compiling the regions of a network, for devices where small kernels wait for their launch."""

from collections.abc import Sequence

from torch import nn

_BACKEND = "inductor"

_VARIANTS = 256
"""Graphs of one function: each size of cell, with and without gradients of weights and alphas."""


class Compilation:
    """The compiled regions of a network, and how long that took so far."""

    def __init__(self, regions: Sequence[nn.Module]) -> None:
        """Compile regions when they first run, in place: names and weights stay as they are.

        The whole network at once would be compiled again for every small difference.
        """
        # Here, since it takes more than a second that other commands need not wait.
        from torch import _dynamo

        # Beyond a limit, torch would leave the rest uncompiled.
        _dynamo.config.recompile_limit = _VARIANTS
        _dynamo.config.accumulated_recompile_limit = _VARIANTS * len(regions)
        self._times = _dynamo.utils.compilation_time_metrics
        self.regions = len(regions)
        self._reported = 0
        for region in regions:
            region.compile(backend=_BACKEND)

    def news(self) -> str | None:
        """A line on what was compiled since it was last asked for; None: nothing was."""
        seconds = self._times.get("_compile.compile_inner", [])
        if len(seconds) == self._reported:
            return None
        self._reported = len(seconds)
        graphs = f"{len(seconds)} graph{'' if len(seconds) == 1 else 's'}"
        cells = f"{self.regions} cell{'' if self.regions == 1 else 's'}"
        return f"compiled {graphs} of {cells} in {sum(seconds):.1f} s so far"
