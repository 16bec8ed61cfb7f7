"""Runs of several processes on this machine, by gloo, as torchrun would start them."""

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from typing import Any

import torch

from darts_cli.runtime.ranks import Ranks, process_group

Together = Callable[..., list[Any]]
"""`together(size, function, *arguments)`: `function(ranks, *arguments)` on each of the ranks."""


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun says to a process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def as_rank(
    rank: int, size: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Any:
    """What a function makes of its arguments on one rank."""
    torch.set_num_threads(1)
    os.environ.update(environment(rank, size, port))
    try:
        with process_group(torch.device("cpu")) as ranks:
            return function(ranks, *arguments)
    finally:
        for name in environment(rank, size, port):
            del os.environ[name]


def as_command(
    rank: int, size: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> Any:
    """The same for a function that joins the others by itself."""
    os.environ.update(environment(rank, size, port))
    try:
        return function(Ranks(rank, size), *arguments)
    finally:
        for name in environment(rank, size, port):
            del os.environ[name]


def launcher() -> ForkServerContext:
    """What starts processes that have imported torch already, since that takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "darts_cli.commands.search"])
    return context


@contextmanager
def workers(number: int) -> Iterator[Together]:
    """Processes that stay, and import once what they run."""
    with ProcessPoolExecutor(number, mp_context=launcher()) as pool:

        def together(
            size: int, function: Callable[..., Any], *arguments: Any, start: Any = as_rank
        ) -> list[Any]:
            port = free_port()
            futures = [
                pool.submit(start, rank, size, port, function, arguments) for rank in range(size)
            ]
            return [future.result(timeout=120) for future in futures]

        yield together
