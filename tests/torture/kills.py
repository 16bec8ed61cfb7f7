"""Runs that are killed at random moments, again and again, against ones that never were.

python -m tests.torture.kills [--kills N] [--epochs N] [--seed S] [KIND ...]
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from darts_cli import cli
from darts_cli.commands import search, train
from darts_cli.run import checkpoint
from darts_cli.run.directory import Run

TINY_IMAGES = ("--data", "images", "--channels", "2", "--layers", "3", "--batch-size", "8")
TINY_TEXT = ("--data", "text", "--width", "6", "--batch-size", "4", "--lr", "5")
CUTOUT = ("--set", "data.cutout=2")
AVERAGING = ("--set", "weights.averaging_patience=1")

KINDS = {
    "search of images": ("search", "cnn", *TINY_IMAGES),
    "its first order": ("search", "cnn", "--order", "first", *TINY_IMAGES),
    "search of text": ("search", "rnn", *TINY_TEXT),
    "training on images": ("train", "--genotype", "darts_v2", *TINY_IMAGES, *CUTOUT),
    "training on text": ("train", "--genotype", "rnn_darts_v2", *TINY_TEXT),
    "first order of text": ("search", "rnn", "--order", "first", *TINY_TEXT),
    "averaging on text": ("train", "--genotype", "rnn_darts_v2", *TINY_TEXT, *AVERAGING),
}
EPOCHS = 3

SIGNALS = (*[signal.SIGKILL] * 5, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What a run is stopped with, one as often as another."""

_IN_VAIN = 5
"""Lives without a new checkpoint, after which a run may live on."""


@dataclass
class Tally:
    """What has come of it."""

    runs: int = 0
    kills: int = 0
    by_signal: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


def main() -> None:
    """Print how many runs, kills and differences there were; leave with 1 if any."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--kills", type=int, default=200, help="at least so many, over the kinds")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_images(Path("images"))
        make_text(Path("text"))
        kinds = arguments.kinds or list(KINDS)
        tally = torture(kinds, arguments.kills, arguments.epochs, arguments.seed)
    signals = ", ".join(f"{number} {name}" for name, number in sorted(tally.by_signal.items()))
    print(
        f"{tally.runs} runs, {tally.kills} kills ({signals}), {len(tally.differences)} differences"
    )
    print("\n".join(tally.differences))
    sys.exit(bool(tally.differences))


def torture(kinds: Sequence[str], kills: int, epochs: int, seed: int) -> Tally:
    """Kill runs of each kind in turn until there were enough kills, and compare each."""
    draws, tally = np.random.default_rng(seed), Tally()
    lasting: dict[str, float] = {}
    while tally.kills < kills or tally.runs < len(kinds):
        kind = kinds[tally.runs % len(kinds)]
        whole = Path("whole") / kind.replace(" ", "-") / "run"
        begin = (*KINDS[kind], "--epochs", str(epochs))
        if kind not in lasting:
            start = time.monotonic()
            wait(launch((*begin, "--out", str(whole))))
            lasting[kind] = time.monotonic() - start
        killed = Path("killed") / str(tally.runs) / "run"
        share = max(1, (kills - tally.kills) // max(1, len(kinds) - tally.runs))
        run_and_kill(begin, killed, min(share, 12), lasting[kind], draws, tally)
        tally.runs += 1
        found = differences(whole, killed)
        tally.differences += [f"{kind}, run {tally.runs}: {what}" for what in found]
        print(f"{kind}: {tally.kills} kills, {len(tally.differences)} differences", flush=True)
    return tally


def run_and_kill(
    begin: Sequence[str],
    path: Path,
    kills: int,
    seconds: float,
    draws: np.random.Generator,
    tally: Tally,
) -> None:
    """A run that ends after being killed some times, at moments of its whole length."""
    run, in_vain, before = Run(path), 0, b""
    for _ in range(kills):
        process = launch(command(begin, run))
        limit = seconds if in_vain < _IN_VAIN else 10 * seconds
        time.sleep(draws.uniform(0, limit))
        number = SIGNALS[draws.integers(len(SIGNALS))]
        os.kill(process, number)
        _, status = os.waitpid(process, 0)
        after = run.last.read_bytes() if run.last.exists() else b""
        in_vain, before = (in_vain + 1 if after == before else 0), after
        if os.WIFSIGNALED(status) or is_left_early(run, begin):
            tally.kills += 1
            name = signal.Signals(number).name
            tally.by_signal[name] = tally.by_signal.get(name, 0) + 1
        if not is_left_early(run, begin):
            break
    wait(launch(command(begin, run)))


def command(begin: Sequence[str], run: Run) -> tuple[str, ...]:
    """What starts a run or goes on with it, saving after every other step."""
    words = begin[: 1 if begin[0] == "train" else 2]
    saving = ("--checkpoint-every", "2steps")
    if run.last.exists() or run.previous.exists():
        return (*words, *saving, "--resume", str(run.path))
    return (*begin, *saving, "--out", str(run.path))


def is_left_early(run: Run, begin: Sequence[str]) -> bool:
    """Whether a run has epochs left."""
    epochs = int(begin[-1])
    return not run.last.exists() or checkpoint.read(run.last)[1]["position"]["epoch"] < epochs


def launch(arguments: Sequence[str]) -> int:
    """A process that carries out a command and has imported everything before."""
    process = os.fork()
    if process:
        return process
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for loader in (1, 2):
        os.dup2(log, loader)
    sys.argv = ["darts", *arguments, "--device", "cpu"]
    status = 1
    try:
        cli.main()
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(process: int) -> None:
    """Until a process has done what it was to do.

    Raises:
        RuntimeError: if it has not, with what it said.
    """
    _, status = os.waitpid(process, 0)
    if status:
        raise RuntimeError(Path("log.txt").read_text(encoding="utf-8")[-2000:])


def differences(one: Path, other: Path) -> list[str]:
    """What of two runs is not the same: files, bits of tensors, positions, metrics, genotypes."""
    found = []
    passing = {"log.txt", ".lock", "previous.safetensors"}
    files, others = (
        {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} - passing
        for run in (one, other)
    )
    found += [f"{name} in one of them alone" for name in sorted(files ^ others)]
    for name in sorted(files & others):
        if name.endswith(".safetensors"):
            found += [f"{name}: {what}" for what in tensor_differences(one / name, other / name)]
        elif (one / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    return found


def tensor_differences(one: Path, other: Path) -> list[str]:
    """What of two checkpoints is not the same."""
    (tensors, metadata), (others, other_metadata) = checkpoint.read(one), checkpoint.read(other)
    found = [f"{name} in one of them alone" for name in sorted(tensors.keys() ^ others.keys())]
    found += [
        name
        for name in sorted(tensors.keys() & others.keys())
        if not torch.equal(tensors[name], others[name])
    ]
    return found + [name for name in metadata if metadata[name] != other_metadata.get(name)]


def make_images(folder: Path) -> None:
    """Noise of two classes, in three splits."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 4), ("test", 4)):
        for dark, name in enumerate(("cat", "dog")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(60 * dark, 60 * dark + 120, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


def make_text(folder: Path) -> None:
    """Random words, the same often."""
    draws = np.random.default_rng(0)
    folder.mkdir()
    for split, lines in (("train", 60), ("valid", 30), ("test", 20)):
        words = draws.choice(list("abcdefgh"), size=(lines, 9))
        (folder / f"{split}.txt").write_text("\n".join(map(" ".join, words)) + "\n")


if __name__ == "__main__":
    # Imported before the first fork, since that is most of what a short life would do.
    _ = search, train, torch.optim.SGD([torch.zeros(1)])
    main()
