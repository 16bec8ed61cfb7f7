"""Compile the regions of a network, for devices where small kernels wait for their launch."""

from collections.abc import Sequence

from torch import nn

_BACKEND = "inductor"

# Graphs of one function: one for each size of cell, with and without gradients of weights and
# alphas.
_VARIANTS = 256


class Compilation:
    """The compiled regions of a network, and the time that compiling took so far."""

    def __init__(self, regions: Sequence[nn.Module]) -> None:
        """Compile regions in place when they first run; names and weights stay as they are.

        Args:
            regions: Modules that are compiled one by one. The whole network at once would be
                compiled again for every small difference.
        """
        # Imported here because it takes more than a second, which other commands should not wait.
        from torch import _dynamo

        # Beyond its recompile limit, torch silently runs the rest uncompiled.
        _dynamo.config.recompile_limit = _VARIANTS
        _dynamo.config.accumulated_recompile_limit = _VARIANTS * len(regions)
        self._times = _dynamo.utils.compilation_time_metrics
        self.regions = len(regions)
        self._reported = 0
        for region in regions:
            region.compile(backend=_BACKEND)

    def news(self) -> str | None:
        """Return a line about what was compiled since the last call; None if nothing was."""
        seconds = self._times.get("_compile.compile_inner", [])
        if len(seconds) == self._reported:
            return None
        self._reported = len(seconds)
        graphs = f"{len(seconds)} graph{'' if len(seconds) == 1 else 's'}"
        cells = f"{self.regions} cell{'' if self.regions == 1 else 's'}"
        return f"compiled {graphs} of {cells} in {sum(seconds):.1f} s so far"
