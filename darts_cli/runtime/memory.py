"""The memory that a run takes of its device: the most so far, and what there is."""

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch

from darts_cli.runtime import malloc
from darts_cli.runtime.ranks import launched_by_torchrun

_STATUS, _MEMINFO = Path("/proc/self/status"), Path("/proc/meminfo")
_CLEAR, _LIMIT = Path("/proc/self/clear_refs"), Path("/sys/fs/cgroup/memory.max")
_RESET_PEAK = "5"


class MemoryMeter:
    """Bytes on a device; on the CPU those of the whole process, torch itself included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def reset(self) -> None:
        """Forget the peak, where the system can."""
        if self.device.type == "cuda":
            # What is reserved and not used would be the least that a peak could be.
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.device.type == "mps":
            torch.mps.empty_cache()
        elif self.device.type == "cpu":
            # What is kept for the next pass would count as held.
            malloc.give_back_freed(above=0)
            # It is there on Linux alone, and may be closed to us.
            with contextlib.suppress(OSError):
                _CLEAR.write_text(_RESET_PEAK)

    def peak(self) -> int:
        """The most that was held since."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.device)
        if self.device.type == "mps":
            return int(torch.mps.driver_allocated_memory())
        found = _read_kibibytes(_STATUS, "VmHWM")
        if found is not None:
            return found
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak

    def available(self) -> int | None:
        """What this run could hold in all; None where the system does not say."""
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return free + torch.cuda.memory_reserved(self.device)
        if self.device.type == "mps":
            return int(torch.mps.recommended_max_memory())
        free_now = _read_kibibytes(_MEMINFO, "MemAvailable")
        held = _read_kibibytes(_STATUS, "VmRSS")
        if free_now is None or held is None:
            return None
        # What a container may have, where this is one.
        limit = _LIMIT.read_text().strip() if _LIMIT.is_file() else ""
        free = min(free_now, int(limit) - held) if limit.isdigit() else free_now
        launched = launched_by_torchrun()
        # The other processes of the run on this machine want as much.
        return held + free // (launched.local_size if launched is not None else 1)

    def wait(self) -> None:
        """Until the device has done what it was given: for a clock."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def _read_kibibytes(file: Path, key: str) -> int | None:
    """A line such as `VmHWM:  1234 kB`, in bytes."""
    if not file.is_file():
        return None
    found = re.search(rf"^{key}:\s*(\d+) kB", file.read_text(), re.MULTILINE)
    return 1024 * int(found[1]) if found else None
