"""The processes of a run: one alone, or several by torchrun, each with a part of every batch.

All of them hold the same weights and alphas, bit for bit: what differs between
them are the gradients of their parts, which are added up before anything is
done with them. Only the first writes files.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from darts_cli.errors import ConfigError, RankError

_TIMEOUT = timedelta(minutes=10)
"""How long one waits for another that still lives, while it writes a checkpoint, say. One that
has died is noticed at once, by its closed connection."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """How many processes there are, and which one this is."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """The number of this one on its machine."""

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def shard(self, number: int) -> slice:
        """This one's part of so many things in order; parts differ by one in size at most."""
        return slice(number * self.rank // self.size, number * (self.rank + 1) // self.size)

    @torch.no_grad()
    def all_reduce(
        self, tensors: Sequence[Tensor], *, along: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """The sum of each tensor over all ranks, the same bits on every rank.

        In one message for each data type.

        Args:
            tensors: Of the same shapes on every rank.
            along: More of them, whose place their sums take.

        Raises:
            RankError: if another process is gone.
        """
        if self.size == 1:
            return list(tensors)
        own = [*tensors, *along]
        sums = [torch.empty_like(tensor) for tensor in own]
        for kind in sorted({tensor.dtype for tensor in own}, key=str):
            indices = [index for index, tensor in enumerate(own) if tensor.dtype == kind]
            message = torch.cat([own[index].flatten() for index in indices])
            with _rank_errors():
                dist.all_reduce(message)
            pieces = message.split([own[index].numel() for index in indices])
            for index, piece in zip(indices, pieces, strict=True):
                sums[index].copy_(piece.view(own[index].shape))
        for target, total in zip(along, sums[len(tensors) :], strict=True):
            target.copy_(total)
        return sums[: len(tensors)]

    def all_reduce_max(self, *wishes: int) -> list[int]:
        """The largest of each wish over all ranks. By way of the CPU: no device is waited for.

        Raises:
            RankError: if another process is gone.
        """
        if self.size == 1:
            return list(wishes)
        message = torch.tensor(wishes, dtype=torch.int64)
        with _rank_errors():
            dist.all_reduce(message, dist.ReduceOp.MAX)
        return message.tolist()

    def barrier(self) -> None:
        """Until all ranks have come here.

        Raises:
            RankError: if another process is gone.
        """
        self.all_reduce_max(0)

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """A block that one process of each machine does first, and the others when it is done.

        They find in a cache what it has put there.

        Raises:
            RankError: if another process is gone.
        """
        if self.local:
            self.barrier()
        yield
        if not self.local:
            self.barrier()

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows `[N, ...]` of all ranks in their order, of which each has its `part`.

        Raises:
            RankError: if another process is gone.
        """
        if self.size == 1:
            return rows
        (most,) = self.all_reduce_max(len(rows))
        padded = rows.new_zeros(most, *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _rank_errors():
            dist.all_gather(counts, torch.tensor([len(rows)]))
            dist.all_gather(gathered, padded)
        return torch.cat([part[: int(count)] for part, count in zip(gathered, counts, strict=True)])

    def broadcast(self, text: str) -> str:
        """What the first rank says.

        Raises:
            RankError: if another process is gone.
        """
        if self.size == 1:
            return text
        holder: list[Any] = [text]
        with _rank_errors():
            dist.broadcast_object_list(holder)
        return str(holder[0])


SINGLE_PROCESS = Ranks()
"""A run of one process."""


class _AllReduce(torch.autograd.Function):
    """A sum over ranks that gradients flow back through: to each rank, those of all ranks."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.contiguous().clone()
        with _rank_errors():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        total: Tensor = _AllReduce.apply(gradient)
        return total


def differentiable_all_reduce(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, differentiable as often as one likes.

    Raises:
        RankError: if another process is gone.
    """
    if not dist.is_initialized():
        return tensor
    total: Tensor = _AllReduce.apply(tensor)
    return total


class LocalPlace(NamedTuple):
    """What torchrun says to a process that it starts."""

    local_rank: int
    """Its number on this machine."""
    local_size: int
    """Processes on this machine."""


def launched_by_torchrun() -> LocalPlace | None:
    """Where this process is, if it is one of several that torchrun started.

    Raises:
        ConfigError: if what it says is not whole.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        return None
    names = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
    wrong = [name for name in names if not os.environ.get(name, "").isdigit()]
    if wrong or "MASTER_ADDR" not in os.environ:
        name = wrong[0] if wrong else "MASTER_ADDR"
        found = repr(os.environ[name]) if name in os.environ else "nothing"
        raise ConfigError(
            f"WORLD_SIZE is {size!r}, so {name} should be set, found {found}; start several "
            "processes with torchrun --nproc-per-node N -m darts_cli ..., or unset WORLD_SIZE"
        )
    return LocalPlace(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))


@contextmanager
def process_group(device: torch.device) -> Iterator[Ranks]:
    """The ranks of this run, in touch with one another while it lasts.

    Args:
        device: Where this one computes: CUDA devices talk by nccl, all else by gloo.

    Raises:
        RankError: if the others cannot be reached.
    """
    if device.type == "cuda":
        # Streams, events and pinned memory are those of this device, where nothing else is said.
        torch.cuda.set_device(device)
    place = launched_by_torchrun()
    if place is None:
        yield SINGLE_PROCESS
        return
    with _rank_errors():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT
        )
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), place.local_rank)
    except BaseException:
        # nccl would wait for those that are gone.
        if device.type != "cuda":
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


_LOST_WORDS = ("gloo", "connection", "timed out", "timeout", "socket", "nccl")
"""Words of the errors that another process leaves behind, or its absence."""


@contextmanager
def _rank_errors() -> Iterator[None]:
    """One line for what torch says when another process is gone."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        known = isinstance(error, dist.DistError) or any(
            word in text.lower() for word in _LOST_WORDS
        )
        if not known or isinstance(error, torch.OutOfMemoryError):
            raise
        # Behind the place in torch's source, one sentence says it.
        reason = re.sub(r"^\[[^]]*\] ", "", text.splitlines()[0]).split(". ")[0]
        raise RankError(
            f"another process of this run is gone or out of reach ({reason.rstrip('.')}); see what "
            "it said, then go on from the last checkpoint with --resume, on any number of processes"
        ) from None
