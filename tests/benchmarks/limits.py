"""Where a step's time goes, against what the machine could do at best. `make bench`.

python -m tests.benchmarks.limits [--save] [ROW]

Every operation is timed by itself. Its limit is the longer of two times: that of its multiply-adds
at the speed of a large product, and that of the bytes that it reads and writes once at the speed
of a large copy. Maps that are still in the cache can be faster than that.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from tests.benchmarks.cases import make_cases

GROUPS = {
    "bmm": "pointwise products",
    "mm": "pointwise products",
    "addmm": "pointwise products",
    "convolution": "convolutions",
    "convolution_backward": "gradients of convolutions",
    "native_batch_norm": "BatchNorm",
    "native_batch_norm_backward": "gradients of BatchNorm",
    "max_pool2d_with_indices": "poolings and their gradients",
    "max_pool2d_with_indices_backward": "poolings and their gradients",
    "avg_pool2d": "poolings and their gradients",
    "avg_pool2d_backward": "poolings and their gradients",
    "relu": "ReLU and its gradient",
    "relu_": "ReLU and its gradient",
    "threshold_backward": "ReLU and its gradient",
    "clone": "copies, joins, fills",
    "copy_": "copies, joins, fills",
    "cat": "copies, joins, fills",
    "constant_pad_nd": "copies, joins, fills",
    "_to_copy": "copies, joins, fills",
    "zeros": "copies, joins, fills",
    "add": "sums",
    "add_": "sums",
}
"""What operations are shown as; all others are `other`."""


@dataclass
class Cost:
    """Of the operations of a group."""

    calls: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    limit: float = 0.0


class Ledger(TorchDispatchMode):
    """Times each operation, and counts its multiply-adds and bytes."""

    def __init__(self, flops: float, bandwidth: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops, self.bandwidth = flops, bandwidth
        self.costs: dict[str, Cost] = defaultdict(Cost)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        start = time.perf_counter()
        out = func(*args, **kwargs)
        seconds = time.perf_counter() - start
        packet = func._overloadpacket
        cost = self.costs[GROUPS.get(packet.__name__, "other")]
        returns = func._schema.returns
        view = bool(returns) and returns[0].alias_info and not returns[0].alias_info.is_write
        flops = _flops(packet, args, kwargs, out)
        moved = 0.0 if view or "empty" in packet.__name__ else _bytes((args, kwargs, out))
        cost.calls += 1
        cost.seconds += seconds
        cost.flops += flops
        cost.bytes += moved
        cost.limit += max(flops / self.flops, moved / self.bandwidth)
        return out


def _flops(packet: Any, args: Any, kwargs: Any, out: Any) -> float:
    """Of an operation; torch's own count of a convolution's gradients knows no groups."""
    if packet.__name__ == "convolution":
        return float(2 * out.numel() * args[1][0].numel())
    if packet.__name__ == "convolution_backward":
        gradient, _, weight, *_, wanted = args
        return float(2 * gradient.numel() * weight[0].numel() * sum(wanted[:2]))
    count = flop_registry.get(packet)
    return float(count(*args, **kwargs, out_val=out)) if count is not None else 0.0


def _bytes(values: Any) -> float:
    """Of all tensors once."""
    tensors = {id(leaf): leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}
    return float(sum(tensor.numel() * tensor.itemsize for tensor in tensors.values()))


def _best(action: Callable[[], object], rounds: int = 10) -> float:
    """The least seconds of some rounds."""

    def times() -> Iterator[float]:
        for _ in range(rounds):
            start = time.perf_counter()
            action()
            yield time.perf_counter() - start

    return min(times())


def measure_machine() -> tuple[float, float]:
    """Operations a second of a large product, and bytes a second of a large copy."""
    size = 2048
    left, right = torch.randn(size, size), torch.randn(size, size)
    flops = 2 * size**3 / _best(lambda: left @ right)
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    return flops, 2 * source.numel() * source.itemsize / _best(lambda: target.copy_(source))


def main() -> None:
    """Print the table of a row's step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("row", nargs="?", default="cnn-16x8-b64-second")
    parser.add_argument("--save", action="store_true", help="with --memory save")
    arguments = parser.parse_args()
    flops, bandwidth = measure_machine()
    case = make_cases()[arguments.row]
    step = case.ours(memory="save") if arguments.save else case.ours()
    step()
    start = time.perf_counter()
    step()
    whole = time.perf_counter() - start
    ledger = Ledger(flops, bandwidth)
    with ledger:
        step()
    total = sum(cost.seconds for cost in ledger.costs.values())
    print(
        f"{case.name}: a step of {whole:.2f} s, {total:.2f} s of it in operations when each is"
        f" timed; {torch.get_num_threads()} threads, products {flops / 1e9:.0f} GFLOP/s,"
        f" copies {bandwidth / 1e9:.1f} GB/s\n"
        f"  {'':30} {'calls':>7} {'s':>7} {'share':>6} {'GFLOP/s':>8} {'GB/s':>6} {'limit, s':>9}"
    )
    for name, cost in sorted(ledger.costs.items(), key=lambda item: -item[1].seconds):
        print(
            f"  {name:30} {cost.calls:7,} {cost.seconds:7.2f} {cost.seconds / total:6.1%}"
            f" {cost.flops / cost.seconds / 1e9:8.1f} {cost.bytes / cost.seconds / 1e9:6.1f}"
            f" {cost.limit:9.2f}"
        )
    arithmetic = sum(cost.flops for cost in ledger.costs.values()) / flops
    traffic = sum(cost.bytes for cost in ledger.costs.values()) / bandwidth
    limit = sum(cost.limit for cost in ledger.costs.values())
    print(
        f"  arithmetic alone {arithmetic:.2f} s, bytes of every operation alone {traffic:.2f} s,"
        f" the larger of both for each {limit:.2f} s: {limit / whole:.0%} of the step"
    )


if __name__ == "__main__":
    main()
