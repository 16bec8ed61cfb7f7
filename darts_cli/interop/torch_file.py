"""Files of `torch.save`, read without running anything that is in them.

Both of its formats are: a zip archive of a pickle and of storages, and the older one of pickles
followed by storages.
"""

import errno
import io
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo
from zlib import crc32

import torch
from torch import Tensor

from darts_cli.errors import CheckpointError
from darts_cli.interop import pickle_scan
from darts_cli.interop.pickle_scan import DamageError, UnsafeError
from darts_cli.run.files import replacing

# Twenty times the largest network of the paper with all that its training remembers.
MAX_BYTES = 2**31

_ZIP = b"PK\x03\x04"
# Magic number of older files.
_OLD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

# Pickles of an older file: number, version, machine, contents, names of storages.
_PICKLES, _CONTENTS = 5, 3

_DIRECTORY_END = struct.Struct("<4s4H2LH")
_DIRECTORY_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_BYTES, _HEADER_BYTES = 20, 30
_DIRECTORY_BYTES, _ENTRIES = 2**22, 20_000
_BLOCK = 2**20

# What torch and zipfile raise on damage.
_BAD_VALUES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, OverflowError)
_BAD_FILES = (
    AssertionError,
    EOFError,
    OSError,
    MemoryError,
    UnpicklingError,
    struct.error,
    BadZipFile,
)

_SUFFIXES = {".pt", ".pth", ".tar", ".pkl", ".ckpt", ".bin"}


def is_torch_file(path: Path) -> bool:
    """Return whether a file is one of `torch.save`, by its first bytes or its suffix.

    Raises:
        CheckpointError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(_OLD))
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}), expected a file of torch.save, "
            "or a text with Genotype(...) in it"
        ) from None
    return start.startswith(_ZIP) or start == _OLD or path.suffix.lower() in _SUFFIXES


def read_keys(path: Path) -> set[str]:
    """Read the texts that are keys anywhere in a file; no tensor is read.

    Raises:
        CheckpointError: if the file is damaged, too large, would run code, or is of another
            kind.
    """
    with _explained(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise CheckpointError(
                f"{path}: found {size:,} bytes, expected {MAX_BYTES:,} or less; "
                "give the state dictionary of the network alone"
            )
        start = file.read(len(_OLD))
        if start.startswith(_ZIP):
            (contents,) = (e for e in _entries(file) if Path(e.filename).name == "data.pkl")
            keys, _ = pickle_scan.scan(b"".join(_blocks(file, contents)))
            return keys
        if start == _OLD:
            return _keys_of_old_file(file)
        raise CheckpointError(
            f"{path}: not written by torch.save, expected a state dictionary (.pt) that it wrote"
        )


def read(path: Path) -> Any:
    """Read a file, on the CPU, once its keys have been read.

    Raises:
        CheckpointError: if it is damaged.
    """
    with _explained(path), warnings.catch_warnings(action="ignore"):
        with path.open("rb") as file:
            is_archive = file.read(len(_ZIP)) == _ZIP
            if is_archive:
                _check_sums(file)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)


def is_whole(tensor: Tensor) -> bool:
    """Return whether each number is stored: a small file can hold a tensor of any size."""
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def save(path: Path, value: object) -> None:
    """Write a file of `torch.save`, whole or not at all.

    Raises:
        ConfigError: if there is no such folder.
        WriteError: if the disk is full or the folder cannot be written.
    """
    with replacing(path) as temporary:
        try:
            torch.save(value, temporary)
        except RuntimeError as error:
            # How torch tells of a full disk.
            raise OSError(errno.EIO, str(error).splitlines()[0]) from None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Name the file in the errors of a block, and what to do."""
    reason = "no archive or pickle that is whole"
    try:
        yield
    except UnsafeError as error:
        raise CheckpointError(
            f"{path}: holds a pickled module or other object ({error}), which would run code "
            "when read; save its state_dict() with the code that made it"
        ) from None
    except DamageError as error:
        reason = str(error)
    except (*_BAD_VALUES, *_BAD_FILES):
        pass
    else:
        return
    raise CheckpointError(
        f"{path}: cut short, damaged or of another kind (found {reason}); "
        "expected tensors by name as torch.save writes them: fetch or save it again"
    )


def _keys_of_old_file(file: BufferedReader) -> set[str]:
    file.seek(0)
    content, found = file.read(2 * pickle_scan.MAX_BYTES), []
    for _ in range(_PICKLES):
        keys, length = pickle_scan.scan(content)
        content = content[length:]
        found.append(keys)
    return found[_CONTENTS]


def _entries(file: BufferedReader) -> list[ZipInfo]:
    """Return the entries of an archive; a compressed one could expand without bound.

    Raises:
        DamageError: if it is not as torch writes it.
    """
    size = _check_directory(file)
    with ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != ZIP_STORED for entry in entries):
        raise DamageError("compressed contents")
    if sum(entry.file_size for entry in entries) > size:
        raise DamageError("more contents than bytes")
    contents = [entry for entry in entries if Path(entry.filename).name == "data.pkl"]
    if len(contents) != 1 or contents[0].file_size > pickle_scan.MAX_BYTES:
        raise DamageError(f"no data.pkl of {pickle_scan.MAX_BYTES:,} bytes or less in it")
    return entries


def _check_directory(file: BufferedReader) -> int:
    """Check that the list of entries is short and at the end; return the archive's bytes.

    Raises:
        DamageError: if it is not.
    """
    tail = _DIRECTORY_END.size + _LOCATOR_BYTES + _DIRECTORY_END_64.size
    whole = file.seek(0, io.SEEK_END)
    file.seek(max(0, whole - tail))
    end = file.read(tail)
    mark, *_, entries, size, start, comment = _DIRECTORY_END.unpack(end[-_DIRECTORY_END.size :])
    behind = _DIRECTORY_END.size
    if end[-behind - _LOCATOR_BYTES :].startswith(b"PK\x06\x07"):
        behind = tail
        *_, entries, size, start = _DIRECTORY_END_64.unpack(end[: _DIRECTORY_END_64.size])
    if mark != b"PK\x05\x06" or comment or start + size + behind != whole:
        raise DamageError("an archive without its end")
    if entries > _ENTRIES or size > _DIRECTORY_BYTES:
        raise DamageError(f"more than {_ENTRIES:,} entries")
    return whole


def _check_sums(file: BufferedReader) -> None:
    """Check that nothing in an archive was altered.

    Raises:
        DamageError: naming what was.
    """
    for entry in _entries(file):
        found = 0
        for block in _blocks(file, entry):
            found = crc32(block, found)
        # torch can be told to leave the sums out.
        if entry.CRC not in {0, found}:
            raise DamageError(f"{entry.filename} altered")


def _blocks(file: BufferedReader, entry: ZipInfo) -> Iterator[bytes]:
    """Yield the bytes of an entry, after its header."""
    file.seek(entry.header_offset)
    header = file.read(_HEADER_BYTES)
    name, extra = struct.unpack("<2H", header[-4:])
    file.seek(name + extra, io.SEEK_CUR)
    left = entry.file_size
    while left:
        block = file.read(min(_BLOCK, left))
        if not block:
            raise DamageError("an archive that is cut short")
        left -= len(block)
        yield block
