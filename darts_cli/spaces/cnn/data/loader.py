"""From images to batches: what training and evaluation read.

Every draw is made on the CPU from counted seeds, so that the same batches come out
whatever the device, the number of workers and the step that a run is resumed at.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from darts_cli.engine.task import Batch
from darts_cli.errors import DataError
from darts_cli.runtime.randomness import generator_for, seed_for
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks
from darts_cli.spaces.cnn.data.augment import Augmentation, normalise, prepare_photograph
from darts_cli.spaces.cnn.data.folder import Split
from darts_cli.spaces.cnn.data.workers import attend_parent, read, unless_error


@dataclass(frozen=True, slots=True)
class Resident:
    """Pixels that live on the device, `[N, C, S, S]`, and classes `[N]`."""

    images: Tensor
    targets: Tensor

    def read(self, order: "Order", steps: Sequence[int]) -> Iterator[Tensor]:
        """The pixels of batches, uint8 `[B, C, S, S]`."""
        numbers = move(order.numbers, self.images.device)
        for step in steps:
            yield self.images[numbers[order.places(step)]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """Images that worker processes decode as they are needed, and classes `[N]` on the device."""

    split: Split
    targets: Tensor
    channels: int
    size: int
    photographs: bool
    """Whether images are cropped at random or at the centre, as for ImageNet."""
    flip: bool
    """Of photographs."""
    workers: int

    def read(self, order: "Order", steps: Sequence[int]) -> Iterator[Tensor]:
        """The pixels of batches on the device, uint8 `[B, C, S, S]`.

        Raises:
            DataError: with the file's name, if an image cannot be decoded.
        """
        device = self.targets.device
        # Worker processes may be sent a copy, and those must not touch the device.
        source = replace(self, targets=self.split.targets)
        loader = DataLoader(
            _Batches(source, order),
            batch_size=None,
            sampler=steps,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
            worker_init_fn=attend_parent,
            # Its own, since a loader draws a seed and the default generator is not ours to advance.
            generator=torch.Generator(),
        )
        yield from copy_ahead(map(unless_error, read(loader)), device)

    def decode(self, index: int, seed: int | None) -> Tensor:
        """One image, uint8 `[C, S, S]`; a photograph is augmented where there is a seed."""
        if not self.photographs:
            decoded = self.split.decode(index, index + 1, channels=self.channels, size=self.size)
            return decoded[0]
        image = self.split.open(index, self.channels)
        return prepare_photograph(image, self.size, flip=self.flip, seed=seed)


Source = Resident | Streamed


@dataclass(frozen=True, slots=True)
class Order:
    """The order of an epoch: numbers of images `[N]`, cut into batches."""

    numbers: Tensor
    batch_size: int
    seed_at: Callable[[int], int] | None = None
    """The seed of the image at a place of the order; None: evaluation."""
    ranks: Ranks = SINGLE_PROCESS

    def size(self, step: int) -> int:
        """Images in the batch of this number, on all ranks together."""
        return min(self.batch_size, len(self.numbers) - step * self.batch_size)

    def places(self, step: int) -> slice:
        """Where in the order this rank's part of the batch lies."""
        first, own = step * self.batch_size, self.ranks.shard(self.size(step))
        return slice(first + own.start, first + own.stop)


class _Batches(Dataset[Tensor | DataError]):
    """The batches of an epoch by number; an error is an item, so that it keeps its one line."""

    def __init__(self, source: Streamed, order: Order) -> None:
        self.source = source
        self.order = order

    def __getitem__(self, step: int) -> Tensor | DataError:
        places = self.order.places(step)
        seed_at = self.order.seed_at
        decoded = []
        try:
            for place, index in enumerate(self.order.numbers[places].tolist(), places.start):
                decoded.append(self.source.decode(index, seed_at(place) if seed_at else None))
        except DataError as error:
            return error
        return torch.stack(decoded)


def copy_ahead(batches: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Batches on the device; to CUDA the next one is copied while the present one is worked on.

    In a stream of its own: in that of the computation it would wait for it.
    """
    if device.type != "cuda":
        for pixels in batches:
            yield pixels.to(device)
        return
    side = torch.cuda.Stream(device)
    ahead: tuple[Tensor, torch.cuda.Event] | None = None
    for pixels in batches:
        with torch.cuda.stream(side):
            coming = _send(pixels, device), side.record_event()
        if ahead is not None:
            yield _receive(*ahead)
        ahead = coming
    if ahead is not None:
        yield _receive(*ahead)


def _send(pixels: Tensor, device: torch.device) -> Tensor:
    return pixels.to(device, non_blocking=True)


def _receive(pixels: Tensor, copied: torch.cuda.Event) -> Tensor:
    """The copy, for what the present stream does from here on."""
    present = torch.cuda.current_stream(pixels.device)
    present.wait_event(copied)
    # Its memory may not be used again before the present stream is done with it.
    pixels.record_stream(present)
    return pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a stream is shuffled and augmented."""

    seed: int
    """The run's."""
    purpose: str
    """What is trained, so that the streams of a search draw different numbers."""
    augmentation: Augmentation


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLoader:
    """Some images of a source in batches of float32 `[B, C, S, S]`, channels last."""

    source: Source
    indices: Tensor
    """Numbers of the images, int64 on the CPU."""
    batch_size: int
    mean: Tensor
    """`[C, 1, 1]` on the device, of pixels from 0 to 1."""
    std: Tensor
    training: Training | None = None
    """None: evaluation, in order and not augmented."""
    ranks: Ranks = SINGLE_PROCESS
    """Of whose batches this process reads its part."""

    def steps(self, _epoch: int) -> int:
        """Batches in any epoch; in training a last one of one image a rank is left out.

        BatchNorm cannot normalise one value.
        """
        whole, rest = divmod(len(self.indices), self.batch_size)
        return whole + (rest >= 2 * self.ranks.size if self.training else rest > 0)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `start` on, on the source's device.

        In evaluation, a rank has none where there are fewer images than ranks.
        """
        order = self._order(epoch)
        steps = [
            step
            for step in range(start, self.steps(epoch))
            if order.places(step).start < order.places(step).stop
        ]
        targets = self.source.targets
        numbers = move(order.numbers, targets.device)
        for step, pixels in zip(steps, self.source.read(order, steps), strict=True):
            places, size = order.places(step), order.size(step)
            share = (places.stop - places.start) / size
            yield Batch(
                self._prepare(pixels, epoch, step, size),
                targets[numbers[places]],
                weight=share,
                min_rank_size=size // self.ranks.size,
            )

    def _order(self, epoch: int) -> Order:
        training = self.training
        if training is None:
            return Order(self.indices, self.batch_size, ranks=self.ranks)
        shuffle = generator_for(training.seed, f"{training.purpose} order", epoch)
        numbers = self.indices[torch.randperm(len(self.indices), generator=shuffle)]
        photograph = partial(seed_for, training.seed, f"{training.purpose} photograph", epoch)
        return Order(numbers, self.batch_size, photograph, self.ranks)

    def _prepare(self, pixels: Tensor, epoch: int, step: int, size: int) -> Tensor:
        training = self.training
        if training is None:
            prepared = normalise(pixels, self.mean, self.std)
        else:
            random = generator_for(training.seed, f"{training.purpose} augment", epoch, step)
            # For the batches of all ranks, so that an image is augmented alike on any number.
            drawn = training.augmentation.draw(size, pixels.shape[-1], random)
            draws = drawn[:, self.ranks.shard(size)]
            prepared = training.augmentation.apply(
                pixels, move(draws, pixels.device), self.mean, self.std
            )
        return prepared.contiguous(memory_format=torch.channels_last)


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
