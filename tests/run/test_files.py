"""Files appear whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from darts_cli.errors import ConfigError
from darts_cli.run.files import WriteError, replacing, write_text

REMEDY = "free some space or choose another place with --out or --output"


def error_of_write(path: Path) -> str:
    with pytest.raises(WriteError) as caught:
        write_text(path, "new")
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_status == 1
    return message


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)


def test_text_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    fill_the_disk(monkeypatch)
    assert error_of_write(path) == (
        f"{path}: cannot be written (No space left on device); {REMEDY}"
    )
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_makes_no_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_the_disk(monkeypatch)
    error_of_write(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.txt"
    with pytest.raises(ConfigError) as error:
        write_text(path, "text")
    assert str(error.value) == (f"{path}: found no folder {path.parent}, expected one that exists")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.mkdir()
    assert error_of_write(path) == f"{path}: cannot be written (Is a directory); {REMEDY}"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_failure_while_writing_leaves_the_old_file_alone(
    kind: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            assert temporary.parent == path.parent
            temporary.write_text("half")
            raise kind

    with pytest.raises(kind):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_without_a_number_still_says_why(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    reason = "encoder error -2"

    def fail() -> None:
        with replacing(path):
            raise OSError(reason)  # As Pillow does.

    with pytest.raises(WriteError) as caught:
        fail()
    assert str(caught.value) == f"{path}: cannot be written (encoder error -2); {REMEDY}"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_permissions_follow_the_umask(mask: int, mode: int, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    before = os.umask(mask)
    try:
        write_text(path, "new")
        assert path.stat().st_mode & 0o777 == mode
        assert os.umask(mask) == mask
    finally:
        os.umask(before)


def test_the_bytes_are_on_the_disk_before_they_take_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    synced: list[tuple[str, str]] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        kind = "folder" if folder else os.pread(handle, 10, 0).decode()
        synced.append((kind, path.read_text()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    write_text(path, "new")
    assert synced == [("new", "old"), ("folder", "new")]
