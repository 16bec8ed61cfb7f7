"""Decoded images, kept for the runs that read the same files again.

A split has one file, found by the paths of its images and believed by their content. Nothing
depends on it: what is missing, damaged or out of date is decoded, and what cannot be kept is not.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL
from PIL import features
from torch import Tensor, uint8

from darts_cli.config import ImageDataConfig
from darts_cli.errors import CheckpointError, DartsError, DataError
from darts_cli.run import checkpoint
from darts_cli.run.files import HALVES
from darts_cli.spaces.cnn.data import decode
from darts_cli.spaces.cnn.data.folder import Split

LIMIT_BYTES = 8 * 2**30
"""Of all files together; those that were not used for the longest time make room for others."""

# Counts how images become pixels and how the files are laid out: a change makes old files unknown.
_FORMAT = 2
_DIGEST_BYTES = 32
_FILES = ("*.safetensors", *HALVES)
# Pixels are kept where there is room for so many times as much.
_SPARE = 10


@dataclass(frozen=True, slots=True)
class DecodedCache:
    """Where the decoded splits of a folder of images lie.

    Pixels that are in memory already, as those of digits and CIFAR, pass through it.
    """

    folder: Path | None
    """None: nothing is looked for or kept."""
    image_size: int | None
    """The size that is asked for; None: the one that all images have."""

    @classmethod
    def of(cls, config: ImageDataConfig) -> "DecodedCache":
        """The cache that the settings name; none where there is no home folder to put it in."""
        folder = None
        if config.cache:
            with contextlib.suppress(RuntimeError):
                folder = Path(config.root).expanduser() / "decoded"
        return cls(folder, config.image_size)

    def find(self, split: Split, shape: tuple[int, int] | None = None) -> Tensor | None:
        """The pixels of a split, uint8 `[N, C, S, S]`, if they are kept; no image is opened.

        Args:
            split: Files.
            shape: Channels and size. None: those that `decode.survey` finds.
        """
        paths = split.pictures
        if self.folder is None or isinstance(paths, Tensor):
            return None
        path = self._locate(self.folder, paths)
        try:
            pixels = _read(path, paths, shape)
        except (CheckpointError, DataError):
            return None
        # So that it counts as used; a folder that cannot be written is still read.
        with contextlib.suppress(OSError):
            os.utime(path)
        return pixels

    def decode(self, split: Split, shape: tuple[int, int] | None = None) -> Tensor:
        """The pixels of a split of files, uint8 `[N, C, S, S]`, kept for other runs.

        Args:
            split: Files.
            shape: As for `find`.

        Raises:
            DataError: with the file's name, if one cannot be decoded; as `decode.survey` if
                there is no shape.
        """
        paths = split.pictures
        if isinstance(paths, Tensor):
            raise TypeError("expected files")
        pixels, content = decode.decode_files(paths, shape, self.image_size)
        if self.folder is not None:
            path = self._locate(self.folder, paths)
            _keep(path, pixels, {"content": content, "surveyed": shape is None})
        return pixels

    def find_or_decode(self, split: Split, *, channels: int, size: int) -> Tensor:
        """The pixels of a split, uint8 `[N, C, S, S]`, as `decode.decode_all` gives them.

        Raises:
            DataError: with the file's name, if one cannot be decoded.
        """
        if isinstance(split.pictures, Tensor):
            return decode.decode_all(split, channels=channels, size=size)
        pixels = self.find(split, (channels, size))
        return self.decode(split, (channels, size)) if pixels is None else pixels

    def _locate(self, folder: Path, paths: Sequence[str]) -> Path:
        """The file of a split, named by all that is known of its pixels without reading images."""
        decoder = (_FORMAT, PIL.__version__, features.version("libjpeg_turbo"), self.image_size)
        name = hashlib.blake2b(repr(decoder).encode(), digest_size=_DIGEST_BYTES)
        for path in paths:
            name.update(b"\0" + os.fsencode(path))
        return folder / f"{name.hexdigest()}.safetensors"


def _read(path: Path, paths: Sequence[str], shape: tuple[int, int] | None) -> Tensor | None:
    """The pixels in a file if all of it is as expected.

    Raises:
        CheckpointError: if it is missing or damaged.
        DataError: if an image cannot be read.
    """
    # Most of what does not match is known by the metadata, before images and pixels are read.
    expected = checkpoint.read_metadata(path)
    if shape is None and expected.get("surveyed") is not True:
        return None
    if expected.get("content") != decode.digest_files(paths):
        return None
    tensors, metadata = checkpoint.read(path)
    pixels = tensors.get("pixels")
    if metadata != expected or pixels is None or not _fits(pixels, len(paths), shape):
        return None
    # What safetensors reads may stay mapped to the file, which others can write to.
    return pixels.clone()


def _fits(pixels: Tensor, count: int, shape: tuple[int, int] | None) -> bool:
    if pixels.dtype != uint8 or pixels.ndim != 4 or pixels.shape[2] != pixels.shape[3]:
        return False
    return len(pixels) == count and shape in {None, (pixels.shape[1], pixels.shape[2])}


def _keep(path: Path, pixels: Tensor, metadata: dict[str, str | bool]) -> None:
    """Write pixels if that can be done."""
    with contextlib.suppress(OSError, DartsError):
        # Nobody else may look into it, since the images may be private.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(path, pixels.nbytes)
        # The run itself still has checkpoints to write.
        if shutil.disk_usage(path.parent).free < _SPARE * pixels.nbytes:
            return
        checkpoint.write(path, {"pixels": pixels}, metadata)


def _make_room(path: Path, needed: int) -> None:
    """Remove what was not used for the longest time, and what interrupted runs left half written.

    A run that is reading such a file keeps what it has opened.
    """
    found = []
    for other in (file for pattern in _FILES for file in path.parent.glob(pattern)):
        # Another run may just have removed it, or put it in its place.
        with contextlib.suppress(FileNotFoundError):
            status = other.stat()
            found.append((status.st_mtime_ns, status.st_size, other))
    total = needed
    for _, size, other in sorted(found, reverse=True):
        total += size if other != path else 0
        if total > LIMIT_BYTES:
            other.unlink(missing_ok=True)
