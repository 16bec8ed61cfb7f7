"""Disks that are really full or read-only: a tmpfs, where one may be mounted."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import FEW_DIGITS, Darts, assert_same_bits, contents

SEARCH = ("search", "cnn", *FEW_DIGITS, "--order", "first")

Remount = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Remount]]:
    """A disk of 400 KiB, hardly more than a checkpoint, and what changes its options."""
    path = tmp_path / "disk"
    path.mkdir()

    def mount(*arguments: str) -> bool:
        command = ["mount", *arguments, str(path)]
        return not subprocess.run(command, check=False, capture_output=True).returncode

    if shutil.which("mount") is None or not mount("-t", "tmpfs", "-o", "size=400k", "tmpfs"):
        pytest.skip("mounting is for root alone; tests/engine/test_rescue.py feigns full disks")

    def remount(options: str) -> None:
        assert mount("-o", f"remount,{options}")

    try:
        yield path, remount
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_on_a_full_disk_the_state_goes_where_there_is_room_and_the_run_goes_on_from_it(
    darts: Darts, searched: Path, disk: tuple[Path, Remount], tmp_path: Path
) -> None:
    path, remount = disk
    run = path / "run"
    shelter = tmp_path / "run-step-4.safetensors"
    result = darts(*SEARCH, "--epochs", 2, "--out", run)
    assert (result.status, result.out) == (1, "")
    assert result.err.splitlines()[-1].endswith(
        f"; the state after step 4 is in {shelter}; make room, move it to "
        f"{run}/last.safetensors, and go on with: darts search cnn --resume {run}"
    )
    # What was there is whole: it can be derived from, and nothing is half written.
    assert darts("derive", run, "--output", tmp_path / "cell.yaml").status == 0
    assert not [name for name in contents(run) if "safetensors." in name]
    remount("size=8m")
    shutil.move(shelter, run / "last.safetensors")
    assert darts("search", "cnn", "--resume", run).status == 0
    assert_same_bits(run, searched)


def test_a_read_only_disk_is_one_line(
    darts: Darts, searched: Path, disk: tuple[Path, Remount]
) -> None:
    path, remount = disk
    remount("size=8m")
    shutil.copytree(searched, path / "run")
    remount("ro")
    before = contents(path)
    assert darts(*SEARCH, "--out", path / "new").refusal() == (
        f"--out {path}/new: cannot be made (Read-only file system); choose another directory"
    )
    resume = ("search", "cnn", "--resume", path / "run", "--epochs", 3)
    assert darts(*resume).refusal(1) == (
        f"{path}/run/.lock: cannot be written (Read-only file system)"
    )
    assert darts("derive", path / "run").refusal(1) == (
        f"{path}/run/.lock: cannot be written (Read-only file system)"
    )
    assert contents(path) == before
