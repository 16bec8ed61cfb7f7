"""Times the steps of the digits sizes, interleaved in one run: `make bench`.

Prints medians in milliseconds, and each as a ratio to a plain step of the
weights: what the first and the second order cost.
"""

import statistics
import time
from collections.abc import Callable

import torch

from darts_cli.engine.architect import Architect
from darts_cli.engine.loop import search_step, train_step
from darts_cli.engine.meter import Meter
from darts_cli.engine.state import State
from darts_cli.engine.task import Batch
from darts_cli.recipes import RECIPES
from darts_cli.spaces.cnn.primitives import CNN
from darts_cli.spaces.cnn.task import ImageDomain

ROUNDS = 15


def make_state(order: str) -> State:
    """A supernet of the digits recipe, ready for a step."""
    config = RECIPES["search"]["cnn"]["digits"]
    if config.alphas is None:
        raise ValueError("a search has alphas")
    facts = {"classes": list("0123456789"), "channels": 1, "size": 8}
    task = ImageDomain().build(config, facts, None)
    optimizer = torch.optim.SGD(task.module.parameters(), lr=0.025, momentum=0.9, foreach=True)
    alphas = {cell: torch.zeros(len(CNN.edges), len(CNN.primitives)) for cell in CNN.cells}
    settings = config.alphas.__class__(order="first" if order == "first" else "second")
    return State(
        task=task,
        optimizer=optimizer,
        architect=Architect(alphas, settings),
        meter=Meter(task.measures, torch.device("cpu")),
    )


def main() -> None:
    """Time all kinds of step in turn, and print the table."""
    config = RECIPES["search"]["cnn"]["digits"]
    batch = Batch(torch.randn(64, 1, 8, 8), torch.randint(10, (64,)))
    states = {order: make_state(order) for order in ("first", "second")}
    kinds: dict[str, Callable[[], None]] = {
        "weights alone": lambda: train_step(states["first"], batch, config),
        "alphas, first order": lambda: search_step(states["first"], batch, batch, 0),
        "alphas, second order": lambda: search_step(states["second"], batch, batch, 0),
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for round_ in range(ROUNDS + 1):
        for name, step in kinds.items():
            start = time.perf_counter()
            step()
            if round_:  # The first one warms up.
                times[name].append(time.perf_counter() - start)
    base = statistics.median(times["weights alone"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:22} {1000 * median:9.1f} ms {median / base:7.2f} x")


if __name__ == "__main__":
    main()
