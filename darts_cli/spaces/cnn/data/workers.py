"""Work on many image files, on all cores and in order, and the processes that do it."""

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from darts_cli.errors import DataError, WorkerError

T = TypeVar("T")

CHUNK = 128
"""Images that are worked on at a time."""

_MOST_WORKERS = 16
"""Files are opened one by one: more processes than this wait for the disk and for one another."""

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG, of Linux."""


def in_parallel(count: int, work: Callable[[int, int], T]) -> Iterator[T]:
    """`work(first, last)` for all of `count` images, a chunk at a time.

    On Linux it is done by copies of this process: what it returns is sent from there, and what it
    changes is lost. Small images are mostly Python's own work, of which threads do one at a time:
    20,000 JPEGs of 32x32 take 4.0 s in two threads, 3.2 s in one, and 2.0 s in two processes. On
    other systems a new process would import torch first, so it is threads there, which large
    images gain from.

    Raises:
        DataError: that `work` raises.
        WorkerError: if the system ends a process.
    """
    chunks = _Chunks(count, work)
    workers = min(_cores(), len(chunks), _MOST_WORKERS)
    loaded: Iterator[T | DataError] | None = None
    if workers > 1 and sys.platform == "linux":
        loaded = _by_processes(chunks, workers)
    if loaded is None:
        loaded = _by_threads(chunks, max(workers, 1))
    return map(unless_error, loaded)


def _cores() -> int:
    """Those that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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


def _by_threads(chunks: _Chunks[T], workers: int) -> Iterator[T | DataError]:
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(chunks.__getitem__, range(len(chunks)))


def _by_processes(chunks: _Chunks[T], workers: int) -> Iterator[T | DataError] | None:
    """None where the system gives no processes."""
    loader = DataLoader(
        chunks,
        batch_size=None,
        num_workers=workers,
        # As they are: what is copied to a tensor there takes shared memory, which may be scarce.
        collate_fn=_as_it_is,
        worker_init_fn=attend_parent,
        multiprocessing_context="fork",
        # Its own, since a loader draws a seed and the default generator is not ours to advance.
        generator=torch.Generator(),
    )
    try:
        return read(loader)
    except OSError:
        # Without shared memory or room for more processes.
        return None


def _as_it_is(found: T) -> T:
    return found


def read(loader: DataLoader[Any]) -> Iterator[Any]:
    """What the processes of a loader send; they are started by this call.

    Raises:
        OSError: if they cannot be.
    """
    _end_workers_at_exit()
    return _received(iter(loader))


def _received(items: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from items
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise WorkerError(
            "a process that reads images was ended by the system, most likely for want of memory; "
            "free some and start again, or go on with --resume"
        ) from None


def unless_error(found: T | DataError) -> T:
    """What a process sent, unless that is an error.

    Raises:
        DataError: if it is.
    """
    if isinstance(found, DataError):
        try:
            raise found
        finally:
            # Or error and frame would hold one another, and whoever waits for these processes.
            del found
    return found


def attend_parent(_worker: int) -> None:
    """In a process that reads images: leave signals to the parent, and end when it does.

    Ctrl-C and a scheduler's signals reach the whole process group; the parent may still have to
    finish its step, and it stops its workers itself. One that is killed cannot.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid != os.getppid():
            os._exit(1)


@cache
def _end_workers_at_exit() -> None:
    """Once: let no worker that an error left behind keep this process from its end.

    Which would wait for them, who ignore its signal.
    """
    atexit.register(_end_workers)


def _end_workers() -> None:
    for worker in multiprocessing.active_children():
        worker.kill()
