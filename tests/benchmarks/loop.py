"""What a paper-sized epoch of search takes besides its steps. `make bench`.

python -m tests.benchmarks.loop
"""

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from darts_cli import config_file
from darts_cli.engine import artifacts
from darts_cli.engine.artifacts import RunContext
from darts_cli.engine.state import State
from darts_cli.engine.steps import evaluate, fixed_mixture, search_step, train_step
from darts_cli.engine.task import Batch, BatchLoader, Loaders
from darts_cli.recipes import RECIPES
from darts_cli.run.directory import Run
from darts_cli.spaces import load_task
from darts_cli.spaces.cnn.data.datasets import ImageData
from darts_cli.spaces.cnn.data.folder import ImageSplits, Split
from darts_cli.spaces.cnn.data.info import ImageInfo
from darts_cli.terminal.reporter import REFRESH_SECONDS, Reporter
from darts_cli.viz.style import colour
from tests.benchmarks.cases import make_state
from tests.terminal.frames import DEVICE, make_finished

_IMAGES = 50_000
_FILES = 20_000
_CPU = torch.device("cpu")
_COMMAND = "import sys; from darts_cli.cli import main; sys.argv = ['darts', *sys.argv[1:]]; main()"


@contextmanager
def timed() -> Iterator[list[float]]:
    """A list with the seconds that the block took, once it is over."""
    seconds: list[float] = []
    start = time.perf_counter()
    yield seconds
    seconds.append(time.perf_counter() - start)


def make_data() -> ImageData:
    """Noise of CIFAR-10's size, as pixels that live in memory."""
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (_IMAGES, 3, 32, 32), dtype=torch.uint8, generator=draws)
    info = ImageInfo(
        name="noise",
        classes=tuple(map(str, range(10))),
        channels=3,
        size=32,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    config = RECIPES["search"]["cnn"]["cifar"].data
    split = Split(pixels, torch.arange(_IMAGES) % 10)
    found = ImageSplits(classes=info.classes, splits={"train": split})
    return ImageData(config, found, info, device=_CPU)  # type: ignore[arg-type]


def time_batches(loader: BatchLoader, number: int = 50) -> float:
    """Seconds of a batch, read and augmented."""
    batches = loader.batches(0)
    next(batches)
    with timed() as seconds:
        for _ in range(number):
            next(batches)
    return seconds[0] / number


def time_step(state: State, weights: BatchLoader, alphas: BatchLoader) -> float:
    """Seconds of the second of two steps of the second order."""
    train, valid = next(iter(weights.batches(0))), next(iter(alphas.batches(0)))
    config = RECIPES["search"]["cnn"]["cifar"]
    state.module.network.train()
    for _ in range(2):
        with timed() as seconds:
            search_step(state, train, valid, seed=0)
            train_step(state, train, config)
    return seconds[0]


class _Head:
    """The first few batches of a stream."""

    def __init__(self, loader: BatchLoader, number: int) -> None:
        self.loader, self.number = loader, number

    def steps(self, _epoch: int) -> int:
        return self.number

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        batches = self.loader.batches(epoch, start)
        return (next(batches) for _ in range(self.number - start))


def time_evaluation(state: State, loader: BatchLoader, number: int = 8) -> float:
    """Seconds of a batch of evaluation."""
    mixture = fixed_mixture(state)
    evaluate(state.module, _Head(loader, 1), mixture, _CPU)
    with timed() as seconds:
        evaluate(state.module, _Head(loader, number), mixture, _CPU)
    return seconds[0] / number


def make_context(state: State, loaders: Loaders, folder: Path) -> RunContext:
    """A run's, whose lines nobody sees."""
    config = RECIPES["search"]["cnn"]["cifar"]
    run = Run.create(folder / "run")
    state.position.epoch = 1
    return RunContext(
        config=config,
        space=load_task("cnn").space,
        loaders=loaders,
        run=run,
        reporter=Reporter(Console(file=io.StringIO()), run.log, "image"),
        metadata={"kind": "search", "config": config_file.as_mapping(config), "facts": {}},
    )


def time_files(state: State, context: RunContext) -> float:
    """Seconds of the files of an epoch's end."""
    with timed() as seconds:
        artifacts.write_architecture(state, context, None)
        context.run.append_metrics({"epoch": 1})
        artifacts.save(state, context)
    return seconds[0]


def time_progress(step: float, number: int = 1000) -> float:
    """Seconds that the display takes of a step of `step` seconds, drawn as on a terminal.

    It is drawn when numbers are due, and by a thread once a second.
    """
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    with Reporter(console, unit="image", colour=colour) as reporter:
        reporter.recall(make_finished("search cnn", skips=0.05))
        reporter.begin_epoch(epoch=32, epochs=50, step=0, steps=number)
        with timed() as counting:
            for _ in range(number):
                reporter.advance(64)
                reporter.due()
        with timed() as drawing:
            for _ in range(number):
                reporter.show({"loss": 1.0, "top1": 0.5}, lr=0.025, device=DEVICE)
    drawn = min(1.0, step / REFRESH_SECONDS) + step
    return (counting[0] + drawn * drawing[0]) / number


def make_folder(folder: Path, width: int, height: int) -> Path:
    """JPEGs of ten classes, a hundred pictures again and again."""
    draws = np.random.default_rng(0)
    files = []
    for _ in range(100):
        coarse = draws.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((width, height)).save(buffer, "jpeg", quality=90)
        files.append(buffer.getvalue())
    for number in range(_FILES):
        path = folder / f"{number % 10}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[number % len(files)])
    return folder


def time_first_step(images: Path, root: Path) -> float:
    """Seconds from the command to the end of its first step, of a network that is hardly one."""
    tiny = ("--channels", "2", "--layers", "1", "--order", "first", "--max-steps", "1")
    place = ("--set", f"data.root={root}", "--device", "cpu", "--out", f"{root}/{time.time_ns()}")
    return time_command(
        *("search", "cnn", "--data", str(images), "--image-size", "32", *tiny, *place)
    )


def time_command(*arguments: str) -> float:
    """Seconds of a command."""
    with timed() as seconds:
        subprocess.run(
            [sys.executable, "-c", _COMMAND, *arguments], check=True, capture_output=True
        )
    return seconds[0]


def main() -> None:
    """Print each part, and its share of an epoch's steps."""
    data = make_data()
    loaders = data.search_loaders(seed=0)
    weights, alphas, watched = loaders.train, loaders.arch, loaders.eval
    if alphas is None or watched is None:
        raise ValueError("a search has batches for its alphas, and watches some")
    state = make_state(RECIPES["search"]["cnn"]["cifar"], data.describe(), None)
    step, steps = time_step(state, weights, alphas), weights.steps(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small = make_folder(folder / "small", 32, 32)
        first = time_first_step(small, folder)
        context = make_context(state, loaders, folder)
        rows: dict[str, Callable[[], float]] = {
            "start-up": lambda: time_first_step(small, folder),
            "data": lambda: steps * (time_batches(weights) + time_batches(alphas)),
            "evaluation": lambda: watched.steps(0) * time_evaluation(state, watched),
            "checkpoint": lambda: time_files(state, context),
            "progress": lambda: steps * time_progress(step),
        }
        print(
            f"an epoch of search, 50,000 images of 32x32, batch 64, second order: {steps} steps of "
            f"{step:.2f} s, {steps * step:,.0f} s; {torch.get_num_threads()} threads; no part is to"
            " take more than 2 %"
        )
        for name, measure in rows.items():
            seconds = measure()
            print(f"  {name:12} {seconds:9.3f} s  {100 * seconds / (steps * step):6.3f} %")
        for seconds in (0.01, 0.3, 30.0):
            share = time_progress(seconds) / seconds
            print(
                f"  the display takes {100 * share:.3f} % of a step of {seconds:g} s, 1 % at most"
            )
        print(f"  first step of a first run on {_FILES:,} JPEGs, 10 s at most:")
        print(f"    of 32x32   {first:5.1f} s, and {time_first_step(small, folder):5.1f} s again")
        large = make_folder(folder / "large", 128, 96)
        first = time_first_step(large, folder)
        print(f"    of 128x96  {first:5.1f} s, and {time_first_step(large, folder):5.1f} s again")


if __name__ == "__main__":
    main()
