"""Decode image files, one of them or many on all cores; stands on `folder` and `info`.

Everything here gives the same pixels, whether an image is decoded alone or in a worker process.
"""

import atexit
import ctypes
import io
import multiprocessing
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from darts_cli.errors import DataError, WorkerError
from darts_cli.spaces.cnn.data.folder import Split, unreadable
from darts_cli.spaces.cnn.data.info import Shape

T = TypeVar("T")
Pixels = npt.NDArray[np.uint8]

# Images that a worker reads at a time.
CHUNK = 128

# Files are opened one by one: more processes than this wait for the disk and for one another.
_MAX_WORKERS = 16

# PR_SET_PDEATHSIG of Linux's prctl.
_DIE_WITH_PARENT = 1

# Errors of PIL for files that are damaged or no images.
_BOMB = Image.DecompressionBombError
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, _BOMB)


class Header(NamedTuple):
    """Facts known about an image before its pixels are decoded."""

    size: tuple[int, int]
    """Width and height in pixels."""
    grey: bool
    """Whether its mode in PIL has one channel of brightness."""


@contextmanager
def open_image(path: str, data: bytes | None = None) -> Iterator[Image.Image]:
    """Open an image, whose pixels are decoded when they are first used.

    Args:
        path: The file.
        data: Its content, if that has been read.

    Raises:
        DataError: with the file's name, if it cannot be read or decoded.
    """
    source = path if data is None else io.BytesIO(data)
    try:
        with Image.open(source) as image:
            yield image
    except _UNREADABLE as error:
        raise unreadable(path, error, repr(source)) from None


def header_of(image: Image.Image) -> Header:
    """Return the header of an image, decoded or not."""
    return Header(image.size, image.mode in {"1", "L", "LA"} or image.mode.startswith("I"))


def read_header(path: str) -> Header:
    """Read the header of an image file.

    Raises:
        DataError: with the file's name, if it is not an image.
    """
    with open_image(path) as image:
        return header_of(image)


def convert(image: Image.Image, channels: int) -> Image.Image:
    """Convert to grey (1 channel) or RGB (3), in the image's own size.

    The image is turned as its EXIF orientation says. Palettes and CMYK become RGB, 16 bits of grey
    become 8, and transparent parts show white.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # PIL would clip 16 bits at 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("L" if channels == 1 else "RGB")


def resize(image: Image.Image, size: int) -> Pixels:
    """Return the pixels of a grey or RGB image, uint8 `[C, size, size]`.

    The shorter side is resized to `size` (bicubic, antialiased) and the centre cropped; an image
    that has this size keeps its pixels.
    """
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    # [S, S] -> [1, S, S], or [S, S, C] -> [C, S, S]
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def read_image(split: Split, index: int, channels: int) -> Image.Image:
    """Read one image in its own size, grey (1 channel) or RGB (3): see `convert`.

    Raises:
        DataError: with the file's name, if it cannot be decoded.
    """
    if isinstance(split.pictures, Tensor):
        pixels = split.pictures[index].permute(1, 2, 0)  # [S, S, C]
        pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
        return convert(Image.fromarray(pixels.numpy()), channels)
    with open_image(split.pictures[index]) as image:
        return convert(image, channels)


def decode_range(split: Split, first: int, last: int, shape: Shape) -> Tensor:
    """Decode the images `first` to `last`, excluding `last`, in this process.

    Returns:
        Pixels, uint8 `[last - first, C, S, S]`, resized as `resize` does.

    Raises:
        DataError: with the file's name, if one cannot be decoded.
    """
    channels, size = shape
    if isinstance(split.pictures, Tensor) and split.pictures.shape[1:] == (channels, size, size):
        return split.pictures[first:last]  # [last - first, C, S, S], a view
    pixels = np.empty((last - first, channels, size, size), dtype=np.uint8)
    for row, index in enumerate(range(first, last)):
        pixels[row] = resize(read_image(split, index, channels), size)
    return torch.from_numpy(pixels)


def decode_all(split: Split, shape: Shape) -> Tensor:
    """Decode all images of a split, uint8 `[N, C, S, S]`, on all cores.

    Raises:
        DataError: with the file's name, if one cannot be decoded.
    """
    channels, size = shape
    pixels = split.pictures
    if isinstance(pixels, Tensor) and pixels.shape[1:] == (channels, size, size):
        return pixels.contiguous()
    chunks = in_parallel(
        len(split), lambda first, last: decode_range(split, first, last, shape).numpy()
    )
    return join_chunks(chunks, len(split), shape)


def join_chunks(chunks: Iterable[Pixels], count: int, shape: Shape) -> Tensor:
    """Concatenate chunks of pixels, uint8 `[n, C, S, S]` each, to `[count, C, S, S]`."""
    channels, size = shape
    # Copied by NumPy: torch would use threads of its own, which keep the cores from the workers.
    whole = np.empty((count, channels, size, size), dtype=np.uint8)
    first = 0
    for chunk in chunks:
        whole[first : first + len(chunk)] = chunk
        first += len(chunk)
    return torch.from_numpy(whole)


def read_shape(split: Split, image_size: int | None) -> Shape:
    """Return the shape that all images of a split share, from their files' headers.

    Raises:
        DataError: if sizes differ or are not square, and no `image_size` is given; if a file is
            not an image.
    """
    if isinstance(split.pictures, Tensor):
        return split.pictures.shape[1], image_size or split.pictures.shape[-1]
    paths = split.pictures
    chunks = in_parallel(
        len(paths), lambda first, last: [read_header(path) for path in paths[first:last]]
    )
    headers = [header for chunk in chunks for header in chunk]
    return common_shape(paths, headers, image_size)


def common_shape(paths: Sequence[str], headers: Sequence[Header], image_size: int | None) -> Shape:
    """Return the shape of images with these headers: RGB if one of them is, else grey.

    Raises:
        DataError: if sizes differ or are not square, and no `image_size` is given.
    """
    channels = 1 if all(header.grey for header in headers) else 3
    if image_size is not None:
        return channels, image_size
    width, height = size = headers[0].size
    for path, header in zip(paths, headers, strict=True):
        if header.size != size:
            raise DataError(
                f"expected images of one size, found {width}x{height} ({paths[0]}) and"
                f" {header.size[0]}x{header.size[1]} ({path}); use --image-size N to resize them"
            )
    if width != height:
        raise DataError(
            f"expected square images, found {width}x{height} ({paths[0]});"
            " use --image-size N to resize them and cut out their centres"
        )
    return channels, width


def in_parallel(count: int, work: Callable[[int, int], T]) -> Iterator[T]:
    """Yield `work(first, last)` for consecutive chunks of `count` images, in order.

    On Linux, forked processes do it: results are sent from there, other changes are lost. Small
    images are mostly Python's own work, which threads do one at a time: 20,000 JPEGs of 32x32 take
    4.0 s in two threads, 3.2 s in one, and 2.0 s in two processes. Other systems would import
    torch in each new process, so they use threads, from which large images gain.

    Raises:
        DataError: that `work` raises.
        WorkerError: if the system ends a process.
    """
    starts = range(0, count, CHUNK)

    def read(first: int) -> T:
        return work(first, min(first + CHUNK, count))

    workers = min(_cores(), len(starts), _MAX_WORKERS)
    if workers > 1 and sys.platform == "linux":
        # Without shared memory or room for more processes, threads do the work.
        with suppress(OSError):
            return read_in_workers(read, starts, workers, multiprocessing_context="fork")
    return _read_in_threads(read, starts, max(workers, 1))


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _read_in_threads(read: Callable[[int], T], numbers: Sequence[int], workers: int) -> Iterator[T]:
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(read, numbers)


def read_in_workers(
    read: Callable[[Any], T], arguments: Sequence[Any], workers: int, **options: Any
) -> Iterator[T]:
    """Start worker processes, and return an iterator of `read(argument)`, in order.

    Args:
        read: Run in a worker; where processes are not forked it has to be picklable.
        arguments: Picklable ones.
        workers: Number of processes; 0: this one reads.
        options: Others of torch's `DataLoader`.

    Raises:
        OSError: if the processes cannot be started.
        DataError: that `read` raises, while iterating.
        WorkerError: if the system ends a process, while iterating.
    """
    loader = DataLoader(
        _Results(read),
        batch_size=None,
        sampler=arguments,
        num_workers=workers,
        # Arrays stay arrays: tensors would be sent by shared memory, which may be scarce.
        collate_fn=_identity,
        worker_init_fn=init_worker,
        # A loader draws a seed, which must not advance the default generator.
        generator=torch.Generator(),
        **options,
    )
    return map(_raise_if_error, _receive(iter(loader)))


class _Results(Dataset[T | DataError], Generic[T]):
    """Results by argument; errors are items, since torch would add a worker's traceback to them."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self.read = read

    def __getitem__(self, argument: Any) -> T | DataError:
        try:
            return self.read(argument)
        except DataError as error:
            return error


def _identity(item: T) -> T:
    return item


def _receive(items: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from items
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise WorkerError(
            "a process that reads images was ended by the system, most likely for want of memory; "
            "free some and start again, or go on with --resume"
        ) from None


def _raise_if_error(item: T | DataError) -> T:
    if isinstance(item, DataError):
        try:
            raise item
        finally:
            # Or error and frame would refer to each other and keep the worker processes alive.
            del item
    return item


def init_worker(_worker: int) -> None:
    """Make a worker process ignore signals, and end when its parent does.

    Ctrl-C and a scheduler's signals reach the whole process group; the parent may still have to
    finish its step, and it stops its workers itself. A killed parent cannot.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        # The parent may have died before prctl.
        if parent is not None and parent.pid != os.getppid():
            os._exit(1)


@atexit.register
def _end_workers() -> None:
    """Kill workers that an error left running: this process's exit would wait for them forever."""
    for worker in multiprocessing.active_children():
        worker.kill()
