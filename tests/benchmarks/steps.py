"""Whole steps, plain and ours: time interleaved in one run, memory, operations. `make bench`.

python -m tests.benchmarks.steps [--rounds N] [ROW ...]
"""

import argparse
import gc
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from darts_cli.config import ConvNetworkConfig
from tests.benchmarks.cases import Case, Step, make_cases


class OperationCount(TorchDispatchMode):
    """Counts what is dispatched, and how much of it computes: neither a view nor an allocation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        returns = func._schema.returns
        view = bool(returns) and returns[0].alias_info and not returns[0].alias_info.is_write
        name = func._schema.name
        self.kernels += not (view or "empty" in name or name == "aten::_unsafe_view")
        return func(*args, **(kwargs or {}))


def count_operations(step: Step) -> tuple[int, int]:
    """Operations of one step, and those among them that compute."""
    count = OperationCount()
    with count:
        step()
    return count.number, count.kernels


def count_kept(step: Step) -> int:
    """The most bytes that autograd holds at once in a step, weights among them."""
    held: dict[int, int] = {}
    most = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal most
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        most = max(most, sum(held.values()))
        return tensor

    def forget(tensor: Tensor) -> Tensor:
        held.clear()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, forget):
        step()
    return most


def time_all(makers: Sequence[Callable[[], Step]], rounds: int) -> list[list[float]]:
    """Seconds of the steps of each kind, taken in turn."""
    steps = [make() for make in makers]
    times: list[list[float]] = [[] for _ in steps]
    for round_ in range(rounds + 1):
        for step, seconds in zip(steps, times, strict=True):
            gc.collect()
            start = time.perf_counter()
            step()
            if round_:  # The first one warms up.
                seconds.append(time.perf_counter() - start)
    return times


def peak_memory(case: Case, which: str) -> float:
    """GB that a process which takes two steps of one kind has at most, torch itself included."""
    command = [sys.executable, "-m", "tests.benchmarks.steps", "--memory", which, case.name]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(out) * 1024 / 1e9


def take_two(step: Step) -> int:
    """Two steps, and the process's peak in KiB."""
    step()
    step()
    # Not getrusage, whose peak is that of the process it was started from if that was larger.
    (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(line)


def makers(case: Case) -> dict[str, Callable[[], Step]]:
    """The ways of taking the steps of a row."""
    ways: dict[str, Callable[[], Step]] = {"plain": case.plain, "ours": case.ours}
    if isinstance(case.config.network, ConvNetworkConfig) and case.genotype is None:
        ways["save"] = partial(case.ours, memory="save")
    return ways


def print_row(case: Case, rounds: int) -> None:
    """A line for each way, and one for what they are to one another."""
    ways = makers(case)
    times = time_all(list(ways.values()), rounds)
    peaks, kept, counts = [], [], []
    print(case.name)
    for name, make, seconds in zip(ways, ways.values(), times, strict=True):
        peaks.append(peak_memory(case, name))
        kept.append(count_kept(make()) / 1e6)
        counts.append(count_operations(make()))
        print(
            f"  {name:8} {statistics.median(seconds):9.3f} s {peaks[-1]:8.2f} GB"
            f" {kept[-1]:8.0f} MB {counts[-1][0]:10,} {counts[-1][1]:10,}"
        )
    for number, name in list(enumerate(ways))[1:]:
        ratio = statistics.median(a / b for a, b in zip(times[0], times[number], strict=True))
        print(
            f"  plain / {name:5} {ratio:4.2f} x {peaks[0] / peaks[number]:9.2f} x"
            f" {kept[0] / kept[number]:8.2f} x {counts[0][0] / counts[number][0]:9.2f} x"
            f" {counts[0][1] / counts[number][1]:8.2f} x   (time: {case.target} or more)",
            flush=True,
        )


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", choices=["plain", "ours", "save"])
    arguments = parser.parse_args()
    cases = make_cases()
    chosen = [cases[name] for name in arguments.rows or cases]
    if arguments.memory:
        print(take_two(makers(chosen[0])[arguments.memory]()))
        return
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of"
        f" {arguments.rounds} rounds\n"
        f"{'':10} {'time':>11} {'peak':>11} {'kept':>11} {'operations':>10} {'computing':>10}"
    )
    for case in chosen:
        print_row(case, arguments.rounds)


if __name__ == "__main__":
    main()
