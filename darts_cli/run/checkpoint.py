"""Checkpoints: one safetensors file of tensors, with everything else as JSON in its metadata.

The JSON begins with a digest of all other bytes of the file, which detects alterations anywhere.
Format 1, which can still be read, has none.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from io import BufferedReader
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
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

# Bytes of the blake2b digest, and what holds its place in the header while it is computed.
_DIGEST_BYTES = 32
_BLANK = "0" * (2 * _DIGEST_BYTES)
# JSON as a string in JSON. The metadata precedes the tensors' names.
_SEAL = re.compile(rb'"darts":"\{\\"digest\\": \\"([0-9a-f]{64})\\"')

# Names of data types in safetensors, in the order by which it sorts them.
_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
}
_RANKS = {dtype: rank for rank, dtype in enumerate(_DTYPES)}


def write(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    *,
    previous: Path | None = None,
) -> None:
    """Write a checkpoint whole or not at all.

    The bytes are those of `safetensors.torch.save_file`, which takes no digest of what it writes.

    Args:
        path: The file, replaced if there is one.
        tensors: Tensors by name.
        metadata: JSON values.
        previous: New name of the file that is replaced; None: it is removed.

    Raises:
        ConfigError: if names and metadata take more than `HEADER_LIMIT` bytes, or a tensor has a
            type that is not among `_DTYPES`.
        WriteError: if the disk is full or the folder cannot be written.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ConfigError(
                f"{path}: {name} is of {tensor.dtype}, expected a type that a checkpoint holds, "
                "such as torch.float32"
            )
    # In the order of safetensors: wide types first, so that each tensor is aligned.
    names = sorted(tensors, key=lambda name: (-_RANKS[tensors[name].dtype], name))
    # Copied only if it is on another device or not contiguous: [...] -> [bytes]
    data = [
        tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        for name in names
    ]
    ends = list(accumulate(map(len, data)))
    header: dict[str, Any] = {
        name: {
            "dtype": _DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [end - len(content), end],
        }
        for name, content, end in zip(names, data, ends, strict=True)
    }
    before, after = _encode_header(path, header, metadata)
    digest = hashlib.blake2b(before + after, digest_size=_DIGEST_BYTES)
    for content in data:
        digest.update(content)
    with replacing(path, previous) as temporary, temporary.open("wb") as file:
        file.writelines((before, digest.hexdigest().encode(), after, *data))


def _encode_header(
    path: Path, header: Mapping[str, Any], metadata: Mapping[str, Any]
) -> tuple[bytes, bytes]:
    """Return the bytes of a file before and after its digest, up to the data."""
    text = json.dumps({"format": FORMAT, **metadata}, sort_keys=True)
    sealed = {"__metadata__": {_KEY: f'{{"digest": "{_BLANK}", {text[1:]}'}, **header}
    encoded = json.dumps(sealed, separators=(",", ":"), ensure_ascii=False).encode()
    # Padded, so that the data are aligned to 8 bytes.
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > HEADER_LIMIT:
        raise ConfigError(
            f"{path}: names and metadata would take {len(encoded):,} bytes, expected "
            f"{HEADER_LIMIT:,} or less; use fewer words by --min-count, or fewer classes"
        )
    # The first blank is the digest's: the metadata comes first, and begins with it.
    before, _, after = encoded.partition(_BLANK.encode())
    return len(encoded).to_bytes(8, "little") + before, after


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
                    sound = _is_sound(file, metadata["format"])
                if not sound:
                    problem = "was altered since it was written, or damaged"
                    raise CheckpointError(problem, where=path, remedy=ANOTHER)
            # safetensors checks shapes and offsets against the length of the file.
            names = opened.keys() if tensors else ()
            return {name: opened.get_tensor(name) for name in names}, metadata
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"cannot be read ({str(error).splitlines()[0]}); expected a whole safetensors file",
            where=path,
            remedy=ANOTHER,
        ) from None


def _check_size(path: Path, file: BufferedReader) -> None:
    """Check that a file is small enough to be read, before memory is allocated for it."""
    whole, header = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    problem = ""
    if HEADER_LIMIT < header <= whole:
        problem = f"found a header of {header:,} bytes, expected {HEADER_LIMIT:,} or less"
    elif whole > memory:
        problem = f"found {whole:,} bytes, expected no more than this machine's memory, {memory:,}"
    if problem:
        raise CheckpointError(problem, where=path, remedy=ANOTHER)


def _is_sound(file: BufferedReader, format_: int) -> bool:
    """Return whether every byte of a file is as it was written; format 1 cannot tell."""
    length = file.read(8)
    header = length + file.read(int.from_bytes(length, "little"))
    found = _SEAL.search(header)
    if found is None:
        return format_ == 1
    start, end = found.span(1)
    digest = hashlib.blake2b(header[:start] + header[end:], digest_size=_DIGEST_BYTES)
    # Continues with the data, after the header.
    return hashlib.file_digest(file, lambda: digest).hexdigest().encode() == found[1]


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
