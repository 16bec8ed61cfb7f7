"""The ranks of a run: a single process, or several by torchrun, each with a shard of every batch.

All ranks hold the same weights and alphas, bit for bit. Only the gradients of their shards differ,
and these are summed before anything uses them. Rank 0 alone writes files.
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

# How long a rank waits for another that is alive, while that one writes a checkpoint for example. A
# rank that died is noticed at once by its closed connection.
_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank of this process and the number of ranks, with the collectives between them."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """Rank of this process on its machine."""

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, which writes files and messages."""
        return self.rank == 0

    def shard(self, number: int) -> slice:
        """Return this rank's slice of `number` items; the ranks' sizes differ by one at most."""
        return slice(number * self.rank // self.size, number * (self.rank + 1) // self.size)

    @torch.no_grad()
    def all_reduce(
        self, tensors: Sequence[Tensor], *, along: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """Return the sum of each tensor over all ranks, the same bits on every rank.

        The tensors of one data type travel in one message.

        Args:
            tensors: Tensors of the same shapes on every rank.
            along: Further tensors, which are overwritten by their sums.

        Raises:
            RankError: if another rank is lost.
        """
        if self.size == 1:
            return list(tensors)
        own = [*tensors, *along]
        sums = [torch.empty_like(tensor) for tensor in own]
        # Sorted, so that all ranks send the data types in the same order.
        for kind in sorted({tensor.dtype for tensor in own}, key=str):
            indices = [index for index, tensor in enumerate(own) if tensor.dtype == kind]
            # [sum of their numel]
            message = torch.cat([own[index].flatten() for index in indices])
            with _rank_errors():
                dist.all_reduce(message)
            pieces = message.split([own[index].numel() for index in indices])
            for index, piece in zip(indices, pieces, strict=True):
                # [numel] -> the shape of the tensor
                sums[index].copy_(piece.view(own[index].shape))
        for target, total in zip(along, sums[len(tensors) :], strict=True):
            target.copy_(total)
        return sums[: len(tensors)]

    def all_reduce_max(self, *wishes: int) -> list[int]:
        """Return the maximum of each number over all ranks.

        It is computed on the CPU, without synchronizing with the device.

        Args:
            wishes: Numbers such as a requested signal, as many on every rank.

        Raises:
            RankError: if another rank is lost.
        """
        if self.size == 1:
            return list(wishes)
        message = torch.tensor(wishes, dtype=torch.int64)
        with _rank_errors():
            dist.all_reduce(message, dist.ReduceOp.MAX)
        return message.tolist()

    def barrier(self) -> None:
        """Wait until all ranks have called it.

        Raises:
            RankError: if another rank is lost.
        """
        self.all_reduce_max(0)

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Run the block on one rank of each machine first, then on the others.

        The others find in a cache what the first one has put there.

        Raises:
            RankError: if another rank is lost.
        """
        if self.local:
            self.barrier()
        yield
        if not self.local:
            self.barrier()

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows `[N, ...]` of all ranks, in the order of ranks.

        Args:
            rows: Rows of this rank, `[n, ...]`; `n` may differ between ranks.

        Raises:
            RankError: if another rank is lost.
        """
        if self.size == 1:
            return rows
        parts: list[Any] = [None] * self.size
        with _rank_errors():
            # On the CPU, as a checkpoint is written from there; ranks may differ in `n`.
            dist.all_gather_object(parts, rows.cpu())
        # [n, ...] of each rank -> [N, ...]
        return torch.cat(parts).to(rows.device)

    def broadcast(self, text: str) -> str:
        """Return the text of rank 0 on every rank.

        Raises:
            RankError: if another rank is lost.
        """
        if self.size == 1:
            return text
        holder: list[Any] = [text]
        with _rank_errors():
            dist.broadcast_object_list(holder)
        return str(holder[0])


# The ranks of a run of one process.
SINGLE_PROCESS = Ranks()


class _AllReduce(torch.autograd.Function):
    """All-reduce with a gradient: in the backward pass, the gradients are all-reduced as well."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        # dist.all_reduce works in place: the input is kept, which autograd may have saved.
        total = tensor.contiguous().clone()
        with _rank_errors():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        # By the function itself, so that the backward pass can be differentiated once more.
        total: Tensor = _AllReduce.apply(gradient)
        return total


def differentiable_all_reduce(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks, differentiable any number of times.

    Args:
        tensor: A tensor of the same shape on every rank.

    Raises:
        RankError: if another rank is lost.
    """
    if not dist.is_initialized():
        return tensor
    total: Tensor = _AllReduce.apply(tensor)
    return total


class LocalPlace(NamedTuple):
    """The place of a process on its machine, as torchrun passes it."""

    local_rank: int
    """Rank of this process on its machine."""
    local_size: int
    """Number of processes on this machine."""


def launched_by_torchrun() -> LocalPlace | None:
    """Return the place of this process if torchrun launched it as one of several, else None.

    Raises:
        ConfigError: if torchrun's environment variables are incomplete.
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
    """Open the process group of this run inside the block, and yield its ranks.

    Args:
        device: Device of this rank: CUDA devices communicate by nccl, others by gloo.

    Raises:
        RankError: if the other ranks cannot be reached.
    """
    if device.type == "cuda":
        # The default device of streams, events and pinned memory.
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
        # Destroying an nccl group would wait for ranks that are lost.
        if device.type != "cuda":
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


# Words of the errors that torch raises when another rank is lost or unreachable.
_LOST_WORDS = ("gloo", "connection", "timed out", "timeout", "socket", "nccl")


@contextmanager
def _rank_errors() -> Iterator[None]:
    """Turn torch's errors about a lost rank inside the block into an error of one line."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        known = isinstance(error, dist.DistError) or any(
            word in text.lower() for word in _LOST_WORDS
        )
        if not known or isinstance(error, torch.OutOfMemoryError):
            raise
        # Skip the place in torch's source; the first sentence after it is the reason.
        reason = re.sub(r"^\[[^]]*\] ", "", text.splitlines()[0]).split(". ")[0]
        raise RankError(
            f"another process of this run is gone or out of reach ({reason.rstrip('.')}); see what "
            "it said, then go on from the last checkpoint with --resume, on any number of processes"
        ) from None
