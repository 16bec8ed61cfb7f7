"""Deterministic algorithms: the same bits again on the same device, for more time."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from darts_cli.errors import DeterminismError

_WORKSPACE = ":4096:8"
"""cuBLAS adds in a fixed order if its workspace is of this size, or `:16:8`."""

_MISSING = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministically(wanted: bool) -> Iterator[None]:
    """Let torch use deterministic algorithms alone while this lasts, where that is wanted.

    On a CPU nothing changes with it: a number of threads fixes the order of sums.

    Raises:
        DeterminismError: where an operation has no such algorithm on its device.
    """
    if not wanted:
        yield
        return
    # A module whose properties torch's types do not know.
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _WORKSPACE)
    torch.use_deterministic_algorithms(True)
    # It would write all scratch memory once more, to find programs that read what they never wrote.
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
