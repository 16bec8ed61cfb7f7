"""Standard streams on a full disk, closed, or read by nobody."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from darts_cli.terminal.console import error_console
from darts_cli.terminal.reporter import Mode, Reporter
from darts_cli.terminal.stdio import CheckedStdout, OutputError

FULL = Path("/dev/full")

needs_full = pytest.mark.skipif(not FULL.exists(), reason="/dev/full is Linux's")


def darts(
    *arguments: str, stdout: Any = subprocess.PIPE, stderr: Any = subprocess.PIPE
) -> "subprocess.CompletedProcess[str]":
    """The command line in a process of its own, whose standard output is buffered."""
    return subprocess.run(
        [sys.executable, "-m", "darts_cli", *arguments],
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdout=stdout,
        stderr=stderr,
        text=True,
        check=False,
    )


@needs_full
@pytest.mark.parametrize(
    "arguments", [("--version",), ("--help",), ("viz", "darts_v2", "--format", "dot")]
)
def test_results_that_cannot_be_printed_are_one_line_and_a_failure(
    arguments: tuple[str, ...],
) -> None:
    with FULL.open("w") as full:
        done = darts(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr == (
        "darts: standard output: cannot be written (No space left on device); "
        "free some space or open it\n"
    )


def test_results_that_nobody_reads_any_more_are_left_out_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = darts("viz", "darts_v2", "--format", "dot", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@needs_full
def test_what_cannot_be_said_changes_no_status() -> None:
    with FULL.open("w") as full:
        assert darts("nonsense", stderr=full).returncode == 2
        assert darts("--version", stderr=full).returncode == 0


def test_a_closed_standard_output_is_one_that_cannot_be_written() -> None:
    results = CheckedStdout(None)
    results.flush()
    with pytest.raises(OutputError, match=r"^standard output: cannot be written \(it is closed\)"):
        print("result", file=results)


class Full(io.StringIO):
    """Has no room."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("mode", Mode)
def test_what_cannot_be_shown_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    with Reporter(error_console(), tmp_path / "log.txt", mode=mode) as reporter:
        reporter.say("message", always=True)
        reporter.show({"loss": 0.5}, lr=0.1)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[0].endswith("  message")
    assert "loss 0.5000" in lines[1]
