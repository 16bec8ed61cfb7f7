"""What `--probe` says of a run before, against what the run then takes. `make bench`.

python -m tests.benchmarks.probe [RUN ...]
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

RUNS = {
    "search of digits": "search cnn --data digits",
    "first order": "search cnn --data digits --order first --batch-size 32 --channels 8",
    "training on digits": "train --genotype darts_v2 --data digits",
    "search of text": "search rnn --data pydoc --width 64 --batch-size 32",
    "training on text": "train --genotype rnn_darts_v2 --data pydoc",
}

_SECONDS = 20
"""Of the epochs that are timed."""

_INTERVAL = 0.3
"""Seconds between looks at the memory of a run, whose peak the system keeps."""


def run_darts(*arguments: str) -> tuple[str, int]:
    """Standard output of a command, and the peak of its memory in bytes."""
    command = [sys.executable, "-m", "darts_cli", *arguments]
    peak, ended = 0, threading.Event()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:

        def watch() -> None:
            nonlocal peak
            status = Path(f"/proc/{process.pid}/status")
            while not ended.wait(_INTERVAL):
                found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
                peak = max(peak, 1024 * int(found[1])) if found else peak

        watcher = threading.Thread(target=watch)
        watcher.start()
        out, _ = process.communicate()
        ended.set()
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} left with {process.returncode}")
    return out, peak


def time_epoch(run: Path) -> float:
    """Mean seconds of the epochs after the first one, whose ends a run writes down."""
    lines = (run / "log.txt").read_text(encoding="utf-8").splitlines()
    ends = [line.split()[0] for line in lines if re.search(r"epoch \d+/\d+ +train", line)]
    first, last = (datetime.fromisoformat(end) for end in (ends[0], ends[-1]))
    return (last - first).total_seconds() / (len(ends) - 1)


def print_run(name: str, arguments: list[str], folder: Path) -> None:
    """Probe, run some epochs, take one step of the largest batch, and print what came."""
    probe: dict[str, Any] = json.loads(run_darts(*arguments, "--probe")[0])["probe"]
    # The ends are written down in whole seconds.
    epochs = 2 + int(_SECONDS / probe["epoch_seconds"])
    _, peak = run_darts(*arguments, "--epochs", str(epochs), "--out", str(folder / "run"))
    seconds = time_epoch(folder / "run")
    line = (
        f"  {name:20} epoch {probe['epoch_seconds']:7.1f} s told, {seconds:7.1f} s taken:"
        f" {probe['epoch_seconds'] / seconds:4.2f}   peak {probe['peak_bytes'] / 1e9:5.2f} GB told,"
        f" {peak / 1e9:5.2f} GB taken: {probe['peak_bytes'] / peak:4.2f}"
    )
    if largest := probe["largest_batch"]:
        step = ("--batch-size", str(largest), "--max-steps", "1", "--out", str(folder / "largest"))
        _, peak = run_darts(*arguments, *step)
        line += f"   a batch of {largest:,} takes {peak / 1e9:5.2f} GB"
    print(line, flush=True)


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="*", help=f"of {', '.join(RUNS)}")
    chosen = parser.parse_args().runs or list(RUNS)
    print("what --probe tells, over what is taken: 0.80 to 1.20")
    for name in chosen:
        with tempfile.TemporaryDirectory() as temporary:
            print_run(name, RUNS[name].split(), Path(temporary))


if __name__ == "__main__":
    main()
