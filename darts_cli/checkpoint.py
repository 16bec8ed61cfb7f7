"""Checkpoints: one safetensors file of tensors, with the rest as JSON in its metadata."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from darts_cli.errors import CheckpointError
from darts_cli.files import replacing

FORMAT = 1
"""The format number that checkpoints carry."""

_KEY = "darts"
"""Where our JSON is in a file's metadata."""


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        path: The file, replaced if there is one.
        tensors: By name.
        metadata: JSON values.

    Raises:
        WriteError: if the disk is full or the folder cannot be written.
    """
    text = json.dumps({"format": FORMAT, **metadata}, sort_keys=True)
    # Copies, since names may share memory: edges that have one BatchNorm in common.
    copies = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    with replacing(path) as temporary:
        try:
            save_file(copies, temporary, metadata={_KEY: text})
        except SafetensorError as error:
            # How safetensors tells of a full disk.
            raise OSError(errno.EIO, str(error)) from None


def read_metadata(path: Path) -> dict[str, Any]:
    """What a checkpoint says about itself, without reading its tensors.

    Raises:
        CheckpointError: as `read` does.
    """
    return _open(path, tensors=False)[1]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of a checkpoint, on the CPU, and its metadata.

    Raises:
        CheckpointError: if the file is missing, damaged, not a checkpoint of darts,
            or of another format.
    """
    return _open(path, tensors=True)


def _open(path: Path, *, tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file, expected a checkpoint (*.safetensors)")
        with safe_open(path, framework="pt") as file:
            metadata = _metadata(path, file.metadata())
            names = file.keys() if tensors else ()
            return {name: file.get_tensor(name) for name in names}, metadata
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); "
            "expected a whole safetensors file: use another checkpoint"
        ) from None


def _metadata(path: Path, raw: Mapping[str, str] | None) -> dict[str, Any]:
    if not raw or _KEY not in raw:
        raise CheckpointError(f"{path}: not a checkpoint of darts, expected one that it wrote")
    try:
        metadata = json.loads(raw[_KEY])
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: its metadata is damaged: use another checkpoint")
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: found format {metadata.get('format')!r}, expected {FORMAT}: "
            "use the version of darts that wrote it"
        )
    return metadata
