"""The processes of a run: one alone, or several by torchrun, each with a part of every batch.

All of them hold the same weights and alphas, bit for bit: what differs between
them are the gradients of their parts, which are added up before anything is
done with them. Only the first writes files.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

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

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def part(self, number: int) -> slice:
        """This one's part of so many things in order; parts differ by one in size at most."""
        return slice(number * self.rank // self.size, number * (self.rank + 1) // self.size)

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor], *, along: Sequence[Tensor] = ()) -> list[Tensor]:
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
            places = [place for place, tensor in enumerate(own) if tensor.dtype == kind]
            message = torch.cat([own[place].flatten() for place in places])
            with _mourning():
                dist.all_reduce(message)
            pieces = message.split([own[place].numel() for place in places])
            for place, piece in zip(places, pieces, strict=True):
                sums[place].copy_(piece.view(own[place].shape))
        for target, total in zip(along, sums[len(tensors) :], strict=True):
            target.copy_(total)
        return sums[: len(tensors)]

    def agree(self, *wishes: int) -> list[int]:
        """The largest of each wish over all ranks. By way of the CPU: no device is waited for.

        Raises:
            RankError: if another process is gone.
        """
        if self.size == 1:
            return list(wishes)
        message = torch.tensor(wishes, dtype=torch.int64)
        with _mourning():
            dist.all_reduce(message, dist.ReduceOp.MAX)
        return message.tolist()

    def wait(self) -> None:
        """Until all ranks have come here.

        Raises:
            RankError: if another process is gone.
        """
        self.agree(0)

    def join(self, rows: Tensor) -> Tensor:
        """The rows `[N, ...]` of all ranks in their order, of which each has its `part`.

        Raises:
            RankError: if another process is gone.
        """
        if self.size == 1:
            return rows
        (most,) = self.agree(len(rows))
        padded = rows.new_zeros(most, *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with _mourning():
            dist.all_gather(counts, torch.tensor([len(rows)]))
            dist.all_gather(gathered, padded)
        return torch.cat([part[: int(count)] for part, count in zip(gathered, counts, strict=True)])

    def tell(self, text: str) -> str:
        """What the first rank says.

        Raises:
            RankError: if another process is gone.
        """
        if self.size == 1:
            return text
        said: list[Any] = [text]
        with _mourning():
            dist.broadcast_object_list(said)
        return str(said[0])


ALONE = Ranks()
"""A run of one process."""


class _AddUp(torch.autograd.Function):
    """A sum over ranks that gradients flow back through: to each rank, those of all ranks."""

    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.contiguous().clone()
        with _mourning():
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        total: Tensor = _AddUp.apply(gradient)
        return total


def differentiable_sum(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, differentiable as often as one likes.

    Raises:
        RankError: if another process is gone.
    """
    if not dist.is_initialized():
        return tensor
    total: Tensor = _AddUp.apply(tensor)
    return total


def started() -> tuple[int, int] | None:
    """The local rank and the number of processes that torchrun says, if it started this one.

    Raises:
        ConfigError: if what it says is not whole.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return None
    missing = [
        n for n in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ
    ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {missing[0]} is not set; start several "
            "processes with torchrun --nproc-per-node N -m darts_cli ..."
        )
    return int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The ranks of this run, in touch with one another while it lasts.

    Args:
        device: Where this one computes: CUDA devices talk by nccl, all else by gloo.

    Raises:
        RankError: if the others cannot be reached.
    """
    if started() is None:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _mourning():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT
        )
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    except BaseException:
        # nccl would wait for those that are gone.
        if device.type != "cuda":
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


@contextmanager
def _mourning() -> Iterator[None]:
    """One line for what torch says when another process is gone."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rsplit("] ", maxsplit=1)[-1]
        raise RankError(
            f"another process of this run is gone or out of reach ({reason.rstrip('.')}); see what "
            "it said, then go on from the last checkpoint with --resume, on any number of processes"
        ) from None
