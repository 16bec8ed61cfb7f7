"""Memory of a run on its device: the peak so far, and what is available."""

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch

from darts_cli.runtime import malloc
from darts_cli.runtime.ranks import launched_by_torchrun

# Interfaces of Linux: memory of this process, and of the machine.
_STATUS, _MEMINFO = Path("/proc/self/status"), Path("/proc/meminfo")
# The first forgets the peak of this process; the second is the limit of a container.
_CLEAR, _LIMIT = Path("/proc/self/clear_refs"), Path("/sys/fs/cgroup/memory.max")
_RESET_PEAK = "5"


class MemoryMeter:
    """Peak and available memory of a device in bytes; on the CPU, of the whole process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        """Reset the peak to the memory in use now, where the system can."""
        if self.device.type == "cuda":
            # Reserved but unused memory would be a lower bound of every later peak.
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.device.type == "mps":
            torch.mps.empty_cache()
        elif self.device.type == "cpu":
            # Freed memory that malloc keeps for the next pass would count as resident.
            malloc.give_back_freed(above=0)
            # The file exists on Linux only, and may not be writable.
            with contextlib.suppress(OSError):
                _CLEAR.write_text(_RESET_PEAK)

    def peak(self) -> int:
        """Return the peak since the last reset, in bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.device)
        if self.device.type == "mps":
            return int(torch.mps.driver_allocated_memory())
        found = _read_kibibytes(_STATUS, "VmHWM")
        if found is not None:
            return found
        # In bytes on macOS, in KiB elsewhere.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak

    def available(self) -> int | None:
        """Return the bytes that this run could use in all; None if they are not known."""
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return free + torch.cuda.memory_reserved(self.device)
        if self.device.type == "mps":
            return int(torch.mps.recommended_max_memory())
        free_now = _read_kibibytes(_MEMINFO, "MemAvailable")
        held = _read_kibibytes(_STATUS, "VmRSS")
        if free_now is None or held is None:
            return None
        # Inside a container its limit counts as well.
        limit = _LIMIT.read_text().strip() if _LIMIT.is_file() else ""
        free = min(free_now, int(limit) - held) if limit.isdigit() else free_now
        launched = launched_by_torchrun()
        # The other processes of the run on this machine need as much.
        return held + free // (launched.local_size if launched is not None else 1)

    def wait(self) -> None:
        """Wait until the device has run all its kernels, so that a clock measures them."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def _read_kibibytes(file: Path, key: str) -> int | None:
    """Read a line such as `VmHWM:  1234 kB`; return bytes, or None if it is missing."""
    if not file.is_file():
        return None
    found = re.search(rf"^{key}:\s*(\d+) kB", file.read_text(), re.MULTILINE)
    return 1024 * int(found[1]) if found else None
