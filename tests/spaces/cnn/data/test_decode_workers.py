"""Work on many images by all cores: order, errors, and where there are no processes."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from darts_cli.errors import DataError, WorkerError
from darts_cli.spaces.cnn.data import decode
from darts_cli.spaces.cnn.data.decode import CHUNK, in_parallel


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two, whatever the machine has: one alone starts no processes."""
    monkeypatch.setattr(decode, "_cores", lambda: 2)


@pytest.fixture(params=["linux", "darwin"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By processes and by threads."""
    monkeypatch.setattr(sys, "platform", request.param)
    return str(request.param)


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1, 5 * CHUNK - 1])
def test_every_image_is_worked_on_once_and_in_order(count: int) -> None:
    chunks = list(in_parallel(count, lambda first, last: list(range(first, last))))
    assert [number for chunk in chunks for number in chunk] == list(range(count))
    assert all(len(chunk) <= CHUNK for chunk in chunks)


def test_the_work_of_many_is_done_by_other_processes_and_that_of_few_is_not(platform: str) -> None:
    def work(_first: int, _last: int) -> int:
        return os.getpid()

    assert set(in_parallel(CHUNK, work)) == {os.getpid()}
    assert (os.getpid() in set(in_parallel(3 * CHUNK, work))) == (platform != "linux")


def fail(first: int, _last: int) -> int:
    if first == CHUNK:
        raise DataError("x.png: one line")
    return first


@pytest.mark.usefixtures("platform")
def test_an_error_keeps_its_one_line() -> None:
    with pytest.raises(DataError) as error:
        list(in_parallel(3 * CHUNK, fail))
    assert str(error.value) == "x.png: one line"


@pytest.mark.usefixtures("platform")
def test_what_is_not_waited_for_leaves_no_process_behind() -> None:
    before = multiprocessing.active_children()
    chunks = in_parallel(9 * CHUNK, lambda first, _last: first)
    assert next(chunks) == 0
    del chunks
    assert {*multiprocessing.active_children()} <= {*before}


def test_no_number_is_drawn_from_the_default_generator() -> None:
    before = torch.get_rng_state()
    list(in_parallel(3 * CHUNK, lambda first, _last: first))
    assert torch.equal(torch.get_rng_state(), before)


def test_where_no_process_can_be_started_threads_do_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DataLoader, "__iter__", refuse)
    assert set(in_parallel(3 * CHUNK, lambda _first, _last: os.getpid())) == {os.getpid()}


def test_a_process_that_the_system_ends_is_one_line() -> None:
    parent = os.getpid()

    def die(_first: int, _last: int) -> None:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerError) as error:
        list(in_parallel(3 * CHUNK, die))
    assert error.value.exit_status == 1
    assert str(error.value) == (
        "a process that reads images was ended by the system, most likely for want of memory; "
        "free some and start again, or go on with --resume"
    )


_KILLED = """
import os, signal
from darts_cli.spaces.cnn.data import decode
from darts_cli.spaces.cnn.data.decode import CHUNK, in_parallel

decode._cores = lambda: 2

def work(first, last):
    print(os.getpid(), flush=True)
    signal.pause()

list(in_parallel(2 * CHUNK, work))
"""


def test_workers_end_with_a_process_that_is_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", _KILLED], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    assert process.stdout.readline()
    process.kill()
    # Both hold the other end of the pipe, for as long as they live.
    out, _ = process.communicate(timeout=60)
    assert out == b""


_DAMAGED = """
import sys
import torch
from darts_cli.errors import DataError
from darts_cli.spaces.cnn.data.folder import Split
from tests.spaces.cnn.data.test_loader import make_photographs, make_stream

def main():
    source = make_photographs(Split([sys.argv[1]] * 8, torch.arange(8)), 2)
    try:
        for batch in make_stream(8, 2, training=True, source=source).batches(0):
            pass
    except DataError as error:
        print(error)
        sys.exit(2)

main()
"""


def test_a_damaged_image_met_while_streaming_does_not_keep_the_process_from_its_end(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.png"
    path.write_text("no image")
    command = [sys.executable, "-c", _DAMAGED, str(path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 2
    assert found.stdout.startswith(f"{path}: expected an image")
