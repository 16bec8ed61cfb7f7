"""Deterministic algorithms: the same bits on the same device in every run, at the cost of time."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from darts_cli.errors import DeterminismError

# cuBLAS sums in a fixed order if its workspace has this size, or `:16:8`.
_WORKSPACE = ":4096:8"

_MISSING = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministically(wanted: bool) -> Iterator[None]:
    """Restrict torch to deterministic algorithms inside the block, if `wanted`.

    On a CPU nothing changes: the number of threads fixes the order of sums.

    Args:
        wanted: Whether to restrict it; False leaves torch's settings alone.

    Raises:
        DeterminismError: if an operation has no deterministic algorithm on its device.
    """
    if not wanted:
        yield
        return
    # `Any`, since torch's type stubs lack the properties of this module.
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _WORKSPACE)
    torch.use_deterministic_algorithms(True)
    # torch fills uninitialized memory by default in this mode, to find programs that read what they
    # never wrote. These do not, and it costs one more write of all scratch memory.
    memory.fill_uninitialized_memory = False
    try:
        yield
    except RuntimeError as error:
        found = _MISSING.search(str(error))
        if found is None:
            raise
        raise DeterminismError(
            f"--deterministic: {found[1]} has no deterministic algorithm on this device; "
            "leave the flag out, or use --device cpu"
        ) from None
    finally:
        torch.use_deterministic_algorithms(before[0])
        memory.fill_uninitialized_memory = before[1]
