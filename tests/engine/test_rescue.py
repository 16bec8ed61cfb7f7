"""What cannot be written: the state is kept wherever there is room, and the run goes on from it."""

import errno
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from darts_cli.engine.loop import fit
from darts_cli.engine.task import Batch
from darts_cli.run import checkpoint
from darts_cli.run.files import WriteError
from tests.engine.test_stops import assert_ends_as_one_never_stopped, send
from tests.engine.toy import ToyLoader, make_config, make_context, make_state


@dataclass
class Removing(ToyLoader):
    """Removes a folder when it is read."""

    folder: Path = Path()

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        shutil.rmtree(self.folder)
        return super().batches(epoch, start)


class Disk:
    """A folder in which nothing can be synced any more once `left` is down to nothing."""

    def __init__(self, path: Path) -> None:
        self.path, self.left, self.fsync = path, sys.maxsize, os.fsync
        path.mkdir()

    def sync(self, handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().is_relative_to(self.path):
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        self.fsync(handle)

    def free(self) -> None:
        self.left = sys.maxsize


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk with the run, and the working directory."""
    disk = Disk(tmp_path / "disk")
    monkeypatch.setattr(os, "fsync", disk.sync)
    monkeypatch.chdir(disk.path)
    return disk


@pytest.fixture(autouse=True)
def shelter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(folder))
    return folder


@pytest.mark.parametrize(
    ("search", "after"),
    # From the first step on, to the end of three epochs.
    [*((True, after) for after in range(2, 22)), *((False, after) for after in range(2, 17))],
)
def test_a_full_disk_loses_nothing_wherever_it_strikes(
    disk: Disk, shelter: Path, search: bool, after: int
) -> None:
    config = make_config(search=search)
    context = make_context(config, disk.path / "run")
    disk.left = after
    with pytest.raises(WriteError) as caught:
        fit(make_state(config), context)
    disk.free()
    message = str(caught.value)
    assert "\n" not in message
    [rescued] = shelter.glob("*.safetensors")
    done = checkpoint.read(rescued)[1]["position"]["total"]
    assert rescued.name == f"run-step-{done}.safetensors"
    what, where = message.split("; ", 1)
    assert what.endswith("cannot be written (No space left on device)")
    assert where == (
        f"the state after step {done} is in {rescued}; make room, move it to {context.run.last}, "
        "and go on with: darts search toy --resume here"
    )
    shutil.move(rescued, context.run.last)
    assert_ends_as_one_never_stopped(context.run.path, search=search)
    assert not list(context.run.path.glob(".*.safetensors.*"))


@dataclass
class Filling(ToyLoader):
    """Fills a disk when it is read, and stops the run."""

    disk: Disk | None = None
    numbers: tuple[signal.Signals, ...] = (signal.SIGTERM,)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        if self.disk is not None:
            self.disk.left = 0
        send(*self.numbers)
        return super().batches(epoch, start)


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("numbers", [(signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)])
def test_a_signal_in_an_evaluation_on_a_full_disk_loses_nothing(
    disk: Disk, shelter: Path, numbers: tuple[signal.Signals, ...], search: bool
) -> None:
    config = make_config(search=search)
    context = make_context(config, disk.path / "run")
    watched = Filling("watched", length=2, disk=disk, numbers=numbers)
    context = replace(context, loaders=replace(context.loaders, eval=watched))
    with pytest.raises(WriteError) as caught:
        fit(make_state(config), context)
    disk.free()
    [rescued] = shelter.glob("*.safetensors")
    assert f"; the state after step 4 is in {rescued}; make room" in str(caught.value)
    shutil.move(rescued, context.run.last)
    assert_ends_as_one_never_stopped(context.run.path, search=search)


@pytest.mark.parametrize("name", ["metrics.jsonl", "genotype.yaml", "alphas", "log.txt"])
def test_where_one_file_cannot_be_written_the_state_is_saved_in_its_place(
    tmp_path: Path, shelter: Path, name: str
) -> None:
    config = make_config(search=True)
    context = make_context(config, tmp_path / "run")
    path = context.run.path / name
    # What is in the way: a folder for a file, a file for a folder.
    if name == "alphas":
        path.rmdir()
        path.touch()
    else:
        path.mkdir()
    with pytest.raises(WriteError) as caught:
        fit(make_state(config), context)
    message = str(caught.value)
    assert name in message
    assert message.endswith(
        "; the state after step 4 is saved; mend that and go on with: "
        "darts search toy --resume here"
    )
    assert not list(shelter.glob("*.safetensors"))
    if name == "alphas":
        path.unlink()
        path.mkdir()
    else:
        path.rmdir()
    assert_ends_as_one_never_stopped(context.run.path, search=True)


def test_a_run_whose_directory_is_gone_is_rescued_beside_it(disk: Disk) -> None:
    config = make_config(search=True)
    context = make_context(config, disk.path / "run")
    watched = Removing("watched", length=2, folder=context.run.path)
    context = replace(context, loaders=replace(context.loaders, eval=watched))
    with pytest.raises(WriteError) as caught:
        fit(make_state(config), context)
    rescued = disk.path / "run-step-4.safetensors"
    assert f"found no folder {context.run.path}" in str(caught.value)
    assert f"; the state after step 4 is in {rescued}; make room, move it to " in str(caught.value)
    assert checkpoint.read(rescued)[1]["position"] == {"epoch": 0, "step": 4, "total": 4}


def test_where_nothing_can_be_written_the_error_is_all_there_is(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(disk.path))
    config = make_config(search=False)
    context = make_context(config, disk.path / "run")
    disk.left = 0
    with pytest.raises(WriteError) as caught:
        fit(make_state(config), context)
    assert str(caught.value) == (
        f"{context.run.last}: cannot be written (No space left on device); "
        "free some space or choose another place with --out or --output"
    )


def test_an_older_rescue_is_not_overwritten(disk: Disk, shelter: Path) -> None:
    older = shelter / "run-step-4.safetensors"
    older.write_text("another run's")
    config = make_config(search=False)
    context = make_context(config, disk.path / "run")
    disk.left = 2
    with pytest.raises(WriteError):
        fit(make_state(config), context)
    assert older.read_text() == "another run's"
