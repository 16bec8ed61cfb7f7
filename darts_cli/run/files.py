"""Files that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darts_cli.errors import ConfigError, DartsError


class WriteError(DartsError):
    """A file that could not be written; what was there before is untouched."""

    exit_status = 1


@contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """A path beside `path` to write to; on success it is synced and takes the place of `path`.

    Args:
        path: The file.
        previous: What the file that was there before is called from then on; None: it goes.

    Raises:
        ConfigError: if there is no such folder.
        WriteError: if the disk is full or the folder cannot be written.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: found no folder {path.parent}, expected one that exists")
    temporary: Path | None = None
    try:
        temporary = _temporary(path)
        yield temporary
        # mkstemp makes files that nobody else may read; results are as open as any other file.
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        if previous is not None and path.exists():
            _call(path, previous)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise WriteError(
            f"cannot be written ({error.strerror or error})",
            where=path,
            remedy="free some space or choose another place with --out or --output",
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        WriteError: as `replacing` does.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


_HALF = ".darts-half"

HALVES = (f".*{_HALF}", ".tmp??????")
"""What is left of a file whose writing was interrupted: our name for it, or safetensors'."""


def _temporary(path: Path) -> Path:
    """A new file beside `path`, with a name that nobody else gives."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_HALF)
    os.close(handle)
    return Path(name)


def _call(path: Path, other: Path) -> None:
    """Let a file be there by another name as well, in the place of what has it now."""
    temporary = _temporary(other)
    temporary.unlink()
    try:
        try:
            temporary.hardlink_to(path)
        except OSError:
            # Not all file systems have links.
            shutil.copyfile(path, temporary)
        temporary.replace(other)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
