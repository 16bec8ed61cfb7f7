"""Devices: choose one, describe it, and read its memory and utilization during a run."""

import importlib
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from darts_cli.errors import ConfigError, DeviceError, DeviceMemoryError

_GIB = 2**30

# A status is read again when it is older than this.
_STATUS_SECONDS = 1.0

# Linux reports the memory of a process here in pages; the second number is the resident ones.
_STATM = Path("/proc/self/statm")


def choose(gpu: int | None, name: str | None, *, local_rank: int | None = None) -> torch.device:
    """Return the device of `--gpu` or `--device`, or the best one that is available.

    Args:
        gpu: Index of a CUDA device.
        name: Name of a device, as torch writes it: `cpu`, `cuda:1`, `mps`.
        local_rank: Rank of this process on its machine in a run of several processes, each
            of which has a CUDA device of its own; None in a run of one process.

    Raises:
        ConfigError: if both are given, or the device is not available.
        DeviceError: if there are fewer devices than processes.
    """
    if gpu is not None and name is not None:
        raise ConfigError("--gpu and --device: found both, expected one of them")
    flag = f"--gpu {gpu}" if gpu is not None else f"--device {name}"
    if local_rank is not None:
        if gpu is not None or name not in {None, "cpu", "cuda"}:
            raise ConfigError(
                f"{flag}: found several processes, each of which takes a GPU "
                "of its own; choose them by CUDA_VISIBLE_DEVICES, or use --device cpu"
            )
        return _device_of_rank(local_rank, name)
    if gpu is not None:
        return _cuda_device(gpu, flag)
    available = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    available += ["mps"] if torch.backends.mps.is_available() else []
    available += ["cpu"]
    try:
        device = torch.device(available[0] if name is None else name)
    except RuntimeError:
        device = None
    if device is not None and device.type == "cuda":
        return _cuda_device(device.index or 0, flag)
    if device is not None and device.type in available:
        return torch.device(device.type)
    raise ConfigError(f"{flag}: not here, expected one of {', '.join(available)}")


def _cuda_device(index: int, flag: str) -> torch.device:
    number = torch.cuda.device_count()
    if 0 <= index < number:
        return torch.device("cuda", index)
    found = f"{number} CUDA device{'' if number == 1 else 's'}"
    if not number:
        raise ConfigError(f"{flag}: found {found}, leave it out to run on the best device")
    raise ConfigError(
        f"{flag}: found {found}, expected {'0' if number == 1 else f'0 to {number - 1}'}"
    )


def _device_of_rank(local_rank: int, name: str | None) -> torch.device:
    if name == "cpu" or not (name or torch.cuda.is_available()):
        return torch.device("cpu")
    number = torch.cuda.device_count()
    if local_rank >= number:
        raise DeviceError(
            f"number {local_rank} on this machine: found {number} CUDA "
            f"device{'' if number == 1 else 's'}, expected one for each process; "
            f"use --nproc-per-node {max(1, number)}, or --device cpu"
        )
    return torch.device("cuda", local_rank)


def describe(device: torch.device) -> str:
    """Return the device's name with its memory (CUDA) or its threads (CPU)."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{device} ({properties.name}, {properties.total_memory / _GIB:.0f} GiB)"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads of {os.cpu_count()} processors)"
    return str(device)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn torch's `OutOfMemoryError` inside the block into an error of one line.

    Raises:
        DeviceMemoryError: if torch runs out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        # The first sentence has the sizes; the others advise on the allocator's settings.
        reason = str(error).split(". ", maxsplit=1)[0]
        raise DeviceMemoryError(
            f"{reason}; use --accumulate 2 or more, a smaller --batch-size, or fewer --channels "
            "(--dry-run estimates memory)"
        ) from None


def status(device: torch.device) -> Callable[[], tuple[str, ...]]:
    """Return a function that reads a device's name, its memory, and its utilization.

    Its result leaves out what the system does not report. The function never synchronizes with
    the device, and reads at most once a second; in between it returns the last result.

    Args:
        device: Device of the run; memory of the CPU is that of this process.
    """
    read = _cuda_status_reader(device) if device.type == "cuda" else partial(_cpu_status, device)
    latest: tuple[str, ...] = ()
    read_at = -math.inf

    def read_cached() -> tuple[str, ...]:
        nonlocal latest, read_at
        now = time.monotonic()
        if now - read_at >= _STATUS_SECONDS:
            latest, read_at = read(), now
        return latest

    return read_cached


def _cuda_status_reader(device: torch.device) -> Callable[[], tuple[str, ...]]:
    properties = torch.cuda.get_device_properties(device)
    total = f"{properties.total_memory / _GIB:.1f} GiB"
    utilization = _utilization_reader(device)

    def read() -> tuple[str, ...]:
        # The allocator's own count, which does not synchronize with the device.
        memory = f"{torch.cuda.memory_reserved(device) / _GIB:.1f} of {total}"
        return (properties.name, memory, *utilization())

    return read


def _utilization_reader(device: torch.device) -> Callable[[], tuple[str, ...]]:
    """Return a function that reads a device's utilization, if NVIDIA's library is installed.

    If the first reading fails, as it does on a MIG slice of a device, none is tried again.
    """
    try:
        library = importlib.import_module("pynvml")
    except ModuleNotFoundError:
        return tuple

    def read() -> tuple[str, ...]:
        try:
            return (f"{torch.cuda.utilization(device)} % busy",)
        except (RuntimeError, library.NVMLError):
            return ()

    return read if read() else tuple


def _cpu_status(device: torch.device) -> tuple[str, ...]:
    try:
        resident = int(_STATM.read_text(encoding="ascii").split()[1])
    except OSError:
        # Not Linux.
        return (str(device),)
    return (str(device), f"{resident * os.sysconf('SC_PAGE_SIZE') / _GIB:.2f} GiB resident")
