"""Checkpoints: one safetensors file of tensors, with everything else as JSON in its metadata.

The JSON begins with a digest of all other bytes of the file, which detects alterations anywhere.
Format 1, which can still be read, has none.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from darts_cli.errors import ANOTHER, CheckpointError, ConfigError
from darts_cli.run.files import replacing

# The format number that checkpoints carry.
FORMAT = 2

# Bytes of names and metadata at most; reading them takes Python up to twenty times as much memory.
HEADER_LIMIT = 8 * 2**20

_READABLE = {1, FORMAT}

# Key of the JSON in a file's metadata.
_KEY = "darts"

# Of blake2b. Blanks of the same length stand in the file until the digest is known.
_DIGEST_BYTES = 32
_BLANK = "0" * (2 * _DIGEST_BYTES)
# As safetensors writes it: JSON as a string in JSON. The metadata precedes the tensors' names.
_SEAL = re.compile(rb'"darts":"\{\\"digest\\": \\"([0-9a-f]{64})\\"')


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    *,
    previous: Path | None = None,
) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        path: The file, replaced if there is one.
        tensors: Tensors by name.
        metadata: JSON values.
        previous: New name of the file that is replaced; None: it is removed.

    Raises:
        ConfigError: if names and metadata take more than `HEADER_LIMIT` bytes.
        WriteError: if the disk is full or the folder cannot be written.
    """
    text = json.dumps({"format": FORMAT, **metadata}, sort_keys=True)
    text = f'{{"digest": "{_BLANK}", {text[1:]}'
    # Copies, since safetensors refuses shared memory, and edges may share one BatchNorm.
    copies = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with replacing(path, previous) as temporary:
        try:
            save_file(copies, temporary, metadata={_KEY: text})
        except SafetensorError as error:
            # safetensors reports a full disk this way.
            raise OSError(errno.EIO, str(error)) from None
        with temporary.open("r+b") as file:
            _seal(path, file)


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata of a checkpoint without its tensors; alterations are not detected.

    Raises:
        CheckpointError: as `read` does.
    """
    return _open(path, tensors=False)[1]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read all tensors of a checkpoint, on the CPU, and its metadata.

    Raises:
        CheckpointError: if the file is missing, damaged, altered, not a checkpoint of darts,
            or has another format.
    """
    return _open(path, tensors=True)


def _open(path: Path, *, tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file, expected a checkpoint (*.safetensors)")
        with path.open("rb") as file:
            _check_size(path, file)
        with safe_open(path, framework="pt") as opened:
            metadata = _metadata(path, opened.metadata())
            if tensors:
                with path.open("rb") as file:
                    _check_seal(path, file, metadata["format"])
            names = opened.keys() if tensors else ()
            return {name: opened.get_tensor(name) for name in names}, metadata
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"cannot be read ({str(error).splitlines()[0]}); expected a whole safetensors file",
            where=path,
            remedy=ANOTHER,
        ) from None


def _check_size(path: Path, file: BufferedReader | BufferedRandom) -> None:
    """Check that a file is small enough to be read, before memory is allocated for it."""
    whole, header = os.fstat(file.fileno()).st_size, _header_bytes(file)
    if HEADER_LIMIT < header <= whole:
        raise CheckpointError(
            f"found a header of {header:,} bytes, expected {HEADER_LIMIT:,} or less",
            where=path,
            remedy=ANOTHER,
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if whole > memory:
        raise CheckpointError(
            f"found {whole:,} bytes, expected no more than this machine's memory, {memory:,}",
            where=path,
            remedy=ANOTHER,
        )


def _header_bytes(file: BufferedReader | BufferedRandom) -> int:
    """Read the length of the header, in bytes; the file is positioned after that number then."""
    file.seek(0)
    return int.from_bytes(file.read(8), "little")


def _find_seal(file: BufferedReader | BufferedRandom) -> re.Match[bytes] | None:
    """Find the digest in the header; positions are relative to its beginning."""
    return _SEAL.search(file.read(min(_header_bytes(file), HEADER_LIMIT)))


def _digest(file: BufferedReader | BufferedRandom, start: int, end: int) -> bytes:
    """Compute the digest of the file without bytes `start` to `end`."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    file.seek(0)
    digest.update(file.read(start))
    file.seek(end)
    return hashlib.file_digest(file, lambda: digest).hexdigest().encode()


def _seal(path: Path, file: BufferedReader | BufferedRandom) -> None:
    """Write the digest over its blank in the header."""
    if _header_bytes(file) > HEADER_LIMIT:
        raise ConfigError(
            f"{path}: names and metadata would take {_header_bytes(file):,} bytes, expected "
            f"{HEADER_LIMIT:,} or less; use fewer words by --min-count, or fewer classes"
        )
    found = _find_seal(file)
    if found is None:
        raise ValueError("safetensors has written metadata in a way of its own")
    # The header follows the 8 bytes of its length.
    start, end = (8 + place for place in found.span(1))
    digest = _digest(file, start, end)
    file.seek(start)
    file.write(digest)


def _check_seal(path: Path, file: BufferedReader | BufferedRandom, format_: int) -> None:
    """Check that a file is as it was written.

    Raises:
        CheckpointError: if a byte of it was altered.
    """
    found = _find_seal(file)
    if found is not None:
        start, end = (8 + place for place in found.span(1))
        sound = _digest(file, start, end) == found[1]
    else:
        sound = format_ == 1
    if not sound:
        raise CheckpointError(
            "was altered since it was written, or damaged", where=path, remedy=ANOTHER
        )


def _metadata(path: Path, raw: Mapping[str, str] | None) -> dict[str, Any]:
    if not raw or _KEY not in raw:
        raise CheckpointError(f"{path}: not a checkpoint of darts, expected one that it wrote")
    try:
        metadata = json.loads(raw[_KEY])
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise CheckpointError("its metadata is damaged", where=path, remedy=ANOTHER)
    format_ = metadata.get("format")
    if type(format_) is not int or format_ not in _READABLE:
        raise CheckpointError(
            f"found format {format_!r}, expected {FORMAT}",
            where=path,
            remedy="use the version of darts that wrote it",
        )
    # Format 1 never has a digest, later ones always have.
    sealed = metadata.pop("digest", None) is not None
    if sealed == (format_ == 1):
        raise CheckpointError("its metadata is damaged", where=path, remedy=ANOTHER)
    return metadata
