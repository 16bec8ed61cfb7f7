"""Runs that go on: one writer at a time, and from the checkpoint before a damaged one."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from darts_cli.commands import pipeline
from darts_cli.errors import ConfigError, RunError
from darts_cli.run import checkpoint
from darts_cli.run.directory import Run
from darts_cli.run.files import WriteError, replacing
from tests.conftest import FEW_DIGITS, Darts, assert_same_bits, call, contents

SEARCH = ("search", "cnn", *FEW_DIGITS, "--order", "first")

HOLD = """
import sys
from pathlib import Path
from darts_cli.run.directory import Run
with Run(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(run: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that writes to a run."""
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_while_the_first_lives(
    darts: Darts, searched: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(searched, run)
    with holding(run) as other:
        before = contents(run)
        resume = ("search", "cnn", "--resume", run, "--epochs", 3)
        assert darts(*resume).refusal() == (
            f"{run}: in use by process {other.pid} on {socket.gethostname()}; stop that one, "
            "or wait until it has ended"
        )
        assert contents(run) == before
        # To look at it is no harm.
        darts(*resume, "--dry-run")
        assert darts("derive", run, "--output", "genotype.yaml").status == 0
        assert darts("derive", run, "--epoch", 1).status == 0
        assert darts("derive", run).refusal().startswith(f"{run}: in use by process {other.pid} ")
        # However the first one ends, nobody has to clean up after it.
        other.send_signal(signal.SIGKILL)
        other.wait()
        darts(*resume)


def test_the_lock_is_given_back(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), run.locked():
        _ = 1 // 0
    with holding(run.path):
        pass


def test_a_process_that_was_started_by_the_first_does_not_keep_the_lock(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with run.locked():
        # As those that read images do.
        child = os.fork()
        if not child:
            signal.pause()
    try:
        with holding(run.path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    run = Run.create(tmp_path / "run")
    monkeypatch.setattr("fcntl.lockf", refuse)
    with run.locked():
        pass


def test_a_lock_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    run.lock.mkdir()
    with pytest.raises(WriteError) as caught, run.locked():
        pass
    assert str(caught.value) == f"{run.lock}: cannot be written (Is a directory)"


def test_a_process_that_does_not_say_who_it_is_is_another_one(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with holding(run.path):
        run.lock.write_bytes(b"\xff\n")
        run.lock.write_bytes(b"")
        with pytest.raises(RunError, match="in use by process another one"), run.locked():
            pass


def half_of(path: Path) -> Path:
    """What a process leaves that is killed while it writes a file."""
    with replacing(path) as temporary:
        pass
    return temporary


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    files = (run.config, run.metrics, run.genotype, run.last, run.previous, run.alphas_of(3))
    halves = [half_of(path) for path in files]
    # As safetensors itself calls them.
    halves += [run.path / ".tmplvBfp2", run.alphas / ".tmpAb12Cd"]
    own = [run.path / name for name in ("notes.safetensors", ".notes.safetensors.old", ".notes")]
    for path in (*halves, *files, *own):
        path.write_bytes(b"content")
    before = contents(run.path)
    with run.locked():
        pass
    gone = before.keys() - contents(run.path).keys()
    assert gone == {str(path.relative_to(run.path)) for path in halves}


def test_a_full_disk_below_the_lock_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = Run.create(tmp_path / "run")
    monkeypatch.setattr(os, "pwrite", refuse)
    monkeypatch.setattr(os, "ftruncate", refuse)
    with run.locked():
        assert run.lock.exists()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of two epochs of four steps, stopped after five: the one before was after two."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    call(*SEARCH, "--epochs", 2, "--max-steps", 5, "--checkpoint-every", "2steps", "--out", path)
    return path


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "altered": lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("damage", [*DAMAGES, "missing"])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before_it(
    darts: Darts, searched: Path, stopped: Path, tmp_path: Path, damage: str
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(stopped, run.path)
    content = run.last.read_bytes()
    if damage == "missing":
        run.last.unlink()
    else:
        run.last.write_bytes(DAMAGES[damage](content))
    bad = run.last.read_bytes() if run.last.exists() else None
    before = checkpoint.read(run.previous)[1]["position"]
    result = darts("search", "cnn", "--resume", run.path)
    line = next(line for line in result.err.splitlines() if "gone on from" in line)
    assert line.startswith(f"{run.last}: ")
    assert line.endswith(
        "kept as damaged.safetensors, and gone on from the checkpoint before it: "
        f"epoch {before['epoch'] + 1}, step {before['step']}"
    )
    assert (run.damaged.read_bytes() if bad is not None else None) == bad
    run.damaged.unlink(missing_ok=True)
    assert_same_bits(run.path, searched)


def test_a_checkpoint_that_must_not_be_read_is_not_taken_for_a_damaged_one(
    darts: Darts, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(stopped, run.path)
    before = contents(run.path)
    # Who is root may read everything.
    monkeypatch.setattr(os, "access", lambda path, _mode: path != run.last)
    assert darts("search", "cnn", "--resume", run.path).refusal() == (
        f"{run.last}: cannot be read (Permission denied); see that you may read it"
    )
    assert contents(run.path) == before


def test_settings_that_are_given_anew_outlive_a_kill(
    darts: Darts, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    run = Run(tmp_path / "run")
    shutil.copytree(stopped, run.path)
    before = run.config.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "fit", die)
        with pytest.raises(Killed):
            darts("search", "cnn", "--resume", run.path, "--epochs", 3)
    assert b"epochs: 3" in run.config.read_bytes()
    # As it is between the two files.
    run.config.write_bytes(before)
    darts("search", "cnn", "--resume", run.path)
    assert checkpoint.read(run.last)[1]["position"]["epoch"] == 3
    assert b"epochs: 3" in run.config.read_bytes()


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 0)]


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_signal_before_the_first_step_leaves_at_once_and_nothing(
    darts: Darts, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    monkeypatch.setattr(pipeline, "open_loaders", lambda *_: os.kill(os.getpid(), number))
    error = darts(*SEARCH, "--epochs", 2, "--out", "run").refusal(status)
    assert error == f"stopped by {number.name}; nothing was begun"
    assert not Path("run").exists()


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_signal_before_a_run_goes_on_leaves_it_as_it_is(
    darts: Darts,
    stopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    status: int,
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(stopped, run.path)
    before = contents(run.path)
    monkeypatch.setattr(pipeline, "open_loaders", lambda *_: os.kill(os.getpid(), number))
    error = darts("search", "cnn", "--resume", run.path).refusal(status)
    assert error == f"stopped by {number.name}; the run is where it was"
    assert contents(run.path) == before


def test_where_both_are_damaged_the_newest_is_named_and_nothing_is_touched(
    darts: Darts, stopped: Path, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(stopped, run.path)
    for file in (run.last, run.previous):
        file.write_bytes(file.read_bytes()[:-1])
    before = contents(run.path)
    error = darts("search", "cnn", "--resume", run.path).refusal()
    assert error.startswith(f"{run.last}: cannot be read (")
    assert contents(run.path) == before


def test_a_run_that_was_killed_as_it_began_is_started_again(darts: Darts, searched: Path) -> None:
    run = Run.create(Path("run"))
    with run.locked():
        pass
    run.config.write_text("half")
    (run.path / ".last.safetensors.x1").write_bytes(b"half")
    assert darts("search", "cnn", "--resume", "run").refusal() == (
        "run: found no checkpoint in it yet; start that run again with --out run"
    )
    darts(*SEARCH, "--epochs", 2, "--out", "run")
    assert_same_bits(run.path, searched)


@pytest.mark.parametrize("name", ["last.safetensors", "notes.txt", "alphas/epoch-0001.safetensors"])
def test_what_else_is_in_a_directory_is_not_overwritten(tmp_path: Path, name: str) -> None:
    run = Run.create(tmp_path / "run")
    with run.locked():
        pass
    run.config.write_text("seed: 0")
    (run.path / name).write_text("years of work")
    with pytest.raises(ConfigError, match="already holds a run"):
        Run.create(run.path)
    assert (run.path / name).read_text() == "years of work"
