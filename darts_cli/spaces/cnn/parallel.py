"""Work on many image files, on all cores and in order."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from darts_cli.errors import DataError

T = TypeVar("T")

CHUNK = 128
"""Images that are worked on at a time."""


def in_parallel(count: int, work: Callable[[int, int], T]) -> Iterator[T]:
    """`work(first, last)` for all of `count` images, a chunk at a time.

    Small images are mostly Python's own work, of which threads do one at a time: 20,000 JPEGs of
    32x32 take 4.0 s in two threads, 3.2 s in one, and 1.8 s in two processes. Elsewhere than on
    Linux, where a process is not a copy, it would import torch first, and threads it is.

    Raises:
        DataError: that `work` raises.
    """
    chunks = _Chunks(count, work)
    if sys.platform == "linux" and len(chunks) > 1:
        yield from _by_processes(chunks, min(len(os.sched_getaffinity(0)), len(chunks)))
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for found in pool.map(chunks.__getitem__, range(len(chunks))):
                yield unless_error(found)


class _Chunks(Dataset[T | DataError], Generic[T]):
    """What `work` makes of each chunk; an error is an item, so that it keeps its one line."""

    def __init__(self, count: int, work: Callable[[int, int], T]) -> None:
        self.count = count
        self.work = work

    def __len__(self) -> int:
        return len(range(0, self.count, CHUNK))

    def __getitem__(self, number: int) -> T | DataError:
        first = number * CHUNK
        try:
            return self.work(first, min(first + CHUNK, self.count))
        except DataError as error:
            return error


def _by_processes(chunks: _Chunks[T], workers: int) -> Iterator[T]:
    loader = DataLoader(
        chunks,
        batch_size=None,
        num_workers=workers,
        # As they are: what is copied to a tensor there takes shared memory, which may be scarce.
        collate_fn=_as_it_is,
        worker_init_fn=leave_signals_to_parent,
        multiprocessing_context="fork",
        # Its own, since a loader draws a seed and the default generator is not ours to advance.
        generator=torch.Generator(),
    )
    return map(unless_error, loader)


def _as_it_is(found: T) -> T:
    return found


def unless_error(found: T | DataError) -> T:
    """What a process sent, unless that is an error.

    Raises:
        DataError: if it is.
    """
    if isinstance(found, DataError):
        raise found
    return found


def leave_signals_to_parent(_worker: int) -> None:
    """Ignore what stops a run, in a process that reads images for it.

    Ctrl-C and a scheduler's signals reach the whole process group; the parent may still have to
    finish its step, and it stops its workers itself.
    """
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
