"""Atomic writes: a file appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from darts_cli.errors import ConfigError, FailureError


class WriteError(FailureError):
    """A file that could not be written; the previous one is untouched."""


@contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; after the block it replaces `path`.

    The file is synced before. If the block raises, `path` stays as it was.

    Args:
        path: The file.
        previous: New name of the file that is replaced; None: it is removed.

    Raises:
        ConfigError: if the folder does not exist.
        WriteError: if the disk is full or the folder cannot be written.
    """
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: found no folder {path.parent}, expected one that exists")
    temporary: Path | None = None
    try:
        temporary = _temporary(path)
        yield temporary
        # mkstemp makes files private to the user; results get the usual permissions.
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        if previous is not None and path.exists():
            _call(path, previous)
        temporary.replace(path)
        # A rename survives a crash of the machine only once its folder is synced.
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

# Names of files whose writing was interrupted: those of this module, and those of safetensors.
HALVES = (f".*{_HALF}", ".tmp??????")


def _temporary(path: Path) -> Path:
    """Create a file beside `path`, with a name that no other process uses."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_HALF)
    os.close(handle)
    return Path(name)


def _call(path: Path, other: Path) -> None:
    """Give a file a second name, and replace the file that has this name now."""
    temporary = _temporary(other)
    temporary.unlink()
    try:
        try:
            temporary.hardlink_to(path)
        except OSError:
            # Not all file systems have hard links.
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
    # There is no way to read it without setting it.
    value = os.umask(0)
    os.umask(value)
    return value
