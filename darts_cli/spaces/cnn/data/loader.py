"""Make batches of images for training and evaluation; stands on `augment` and `decode`.

Every draw is made on the CPU from counted seeds, so that the same batches come out whatever the
device, the number of workers and the step at which a run is resumed.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from darts_cli.config import ImageDataConfig
from darts_cli.engine.task import Batch
from darts_cli.runtime.randomness import generator_for, seed_for
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks
from darts_cli.spaces.cnn.data.augment import Augmentation, normalise, prepare_photograph
from darts_cli.spaces.cnn.data.decode import decode_range, read_image, read_in_workers
from darts_cli.spaces.cnn.data.folder import Split
from darts_cli.spaces.cnn.data.info import Shape, Statistics

# Images evaluated at once by a device that wants many, and by a CPU, whose cache holds the
# activations of few: the paper's supernet takes 20 ms an image 32 at a time and 51 at 256, the
# network of DARTS_V2 22 and 47 (two threads).
_EVALUATION_BATCH, _EVALUATION_BATCH_CPU = 256, 32


def evaluation_batch(device: torch.device, ranks: Ranks) -> int:
    """Return the best number of images to evaluate at once on all ranks; results are the same."""
    own = _EVALUATION_BATCH_CPU if device.type == "cpu" else _EVALUATION_BATCH
    return own * ranks.size


# Seed of the image at a place of an epoch's order; None: evaluation.
SeedAt = Callable[[int], int] | None


@dataclass(frozen=True, slots=True)
class InMemory:
    """Images whose pixels are on the device."""

    images: Tensor
    """Pixels, uint8 `[N, C, S, S]`."""
    targets: Tensor
    """Classes, int64 `[N]` on the device."""

    def read(self, order: Tensor, batches: Sequence[slice], _seed_at: SeedAt) -> Iterator[Tensor]:
        """Yield the pixels of batches, uint8 `[B, C, S, S]`, each some places of the order."""
        # Once for the epoch; a batch then takes one gather on the device.
        indices = to_device(order, self.images.device)
        for places in batches:
            yield self.images[indices[places]]


@dataclass(frozen=True, slots=True)
class Streamed:
    """Images that worker processes decode as they are needed."""

    split: Split
    targets: Tensor
    """Classes, int64 `[N]` on the device."""
    shape: Shape
    """Channels and side in pixels that images are converted to."""
    config: ImageDataConfig
    """Settings of the workers, and of photographs' augmentation."""

    def read(self, order: Tensor, batches: Sequence[slice], seed_at: SeedAt) -> Iterator[Tensor]:
        """Yield the pixels of batches on the device, uint8 `[B, C, S, S]`.

        Args:
            order: Images in the order of an epoch, int64 `[N]` on the CPU.
            batches: Places of the order that are read for each batch.
            seed_at: Seed of the image at a place; None: not augmented.

        Raises:
            DataError: with the file's name, if an image cannot be decoded.
        """
        device, workers = self.targets.device, self.config.workers
        # Workers may be sent a copy of the source, and must not touch the device.
        source = replace(self, targets=self.split.targets)
        decode = partial(source.decode_batch, order, seed_at)
        pixels = read_in_workers(decode, batches, workers, pin_memory=device.type == "cuda")
        yield from prefetch_to_device(pixels, device)

    def decode_batch(self, order: Tensor, seed_at: SeedAt, places: slice) -> Tensor:
        """Decode the images at some places of the order, uint8 `[B, C, S, S]`."""
        return torch.stack(
            [
                self.decode(index, seed_at(place) if seed_at else None)
                for place, index in enumerate(order[places].tolist(), places.start)
            ]
        )

    def decode(self, index: int, seed: int | None) -> Tensor:
        """Decode one image, uint8 `[C, S, S]`; a seed augments a photograph."""
        if self.config.augmentation != "imagenet":
            return decode_range(self.split, index, index + 1, self.shape)[0]
        channels, size = self.shape
        image = read_image(self.split, index, channels)
        return prepare_photograph(image, size, flip=self.config.flip, seed=seed)


Source = InMemory | Streamed


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to CUDA without waiting for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def prefetch_to_device(batches: Iterator[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield batches on the device; to CUDA each is copied while the one before is worked on."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    # A stream of its own: in the stream of the computation the copy would wait for it.
    side = torch.cuda.Stream(device)
    previous: tuple[Tensor, torch.cuda.Event] | None = None
    for pixels in itertools.chain(batches, [None]):
        with torch.cuda.stream(side):
            current = None if pixels is None else (_send(pixels, device), side.record_event())
        if previous is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(previous[1])
            # Its memory may not be used again before the current stream has read it.
            previous[0].record_stream(stream)
            yield previous[0]
        previous = current


def _send(pixels: Tensor, device: torch.device) -> Tensor:
    return pixels.to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Training:
    """Shuffling and augmentation of a training loader."""

    seed: int
    """Seed of the run."""
    purpose: str
    """Name of what is trained, so that the loaders of a search draw different numbers."""
    augmentation: Augmentation
    """Random changes to each batch."""


@dataclass(frozen=True, slots=True)
class ImageLoader:
    """Batches of some images of a source: float32 `[B, C, S, S]`, channels last."""

    source: Source
    indices: Tensor
    """Images of the source, int64 `[N]` on the CPU."""
    batch_size: int
    """Images in a batch, on all ranks together."""
    statistics: Statistics
    """Mean and standard deviation of each channel, of pixels from 0 to 1."""
    training: Training | None = None
    """Shuffling and augmentation; None: evaluation, in order and not augmented."""
    ranks: Ranks = SINGLE_PROCESS
    """Ranks that share each batch."""

    def steps(self, _epoch: int) -> int:
        """Return the number of batches in any epoch."""
        full, rest = divmod(len(self.indices), self.batch_size)
        # BatchNorm cannot normalise one value: training leaves out a batch of one image a rank.
        return full + (rest >= 2 * self.ranks.size if self.training else rest > 0)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of `epoch` from number `start` on, on the source's device.

        A rank skips a batch in which it has no image: in evaluation, one of fewer images than
        ranks.
        """
        targets = self.source.targets
        indices, seed_at = self._order(epoch)
        own = {step: self._places(step) for step in range(start, self.steps(epoch))}
        own = {step: places for step, places in own.items() if places.start < places.stop}
        # [C, 1, 1] each, to broadcast over images [B, C, S, S].
        mean, std = torch.tensor(self.statistics, device=targets.device)[..., None, None]
        on_device = to_device(indices, targets.device)
        pixels_of_steps = self.source.read(indices, list(own.values()), seed_at)
        for (step, places), pixels in zip(own.items(), pixels_of_steps, strict=True):
            size = self._size(step)
            yield Batch(
                self._prepare(pixels, (mean, std), size, (epoch, step)),
                targets[on_device[places]],
                # Share of the batch's images that this rank has.
                weight=(places.stop - places.start) / size,
                min_rank_size=size // self.ranks.size,
            )

    def _size(self, step: int) -> int:
        """Return the number of images in a batch, on all ranks together."""
        return min(self.batch_size, len(self.indices) - step * self.batch_size)

    def _places(self, step: int) -> slice:
        """Return the places of the epoch's order that this rank reads for a batch."""
        first, own = step * self.batch_size, self.ranks.shard(self._size(step))
        return slice(first + own.start, first + own.stop)

    def _order(self, epoch: int) -> tuple[Tensor, SeedAt]:
        """Return the images in the order of an epoch, int64 `[N]`, and their seeds."""
        training = self.training
        if training is None:
            return self.indices, None
        shuffle = generator_for(training.seed, f"{training.purpose} order", epoch)
        indices = self.indices[torch.randperm(len(self.indices), generator=shuffle)]
        # Seeds depend on the epoch and the place in it alone, so that a run resumes with them.
        seed_at = partial(seed_for, training.seed, f"{training.purpose} photograph", epoch)
        return indices, seed_at

    def _prepare(
        self, pixels: Tensor, moments: tuple[Tensor, Tensor], size: int, position: tuple[int, int]
    ) -> Tensor:
        """Normalise, and in training augment, this rank's pixels of a batch.

        Args:
            pixels: uint8 `[B, C, S, S]`.
            moments: Mean and standard deviation of each channel, `[C, 1, 1]` each.
            size: Number of images in the batch, on all ranks together.
            position: Epoch and step.
        """
        training = self.training
        if training is None:
            prepared = normalise(pixels, *moments)
        else:
            random = generator_for(training.seed, f"{training.purpose} augment", *position)
            # Drawn for all ranks' images, so that each is augmented alike on any number of ranks.
            draws = training.augmentation.draw(size, pixels.shape[-1], random)  # [5, size]
            own = to_device(draws[:, self.ranks.shard(size)], pixels.device)  # [5, B]
            prepared = training.augmentation.apply(pixels, own, *moments)
        # No copy where it is channels last already.
        return prepared.contiguous(memory_format=torch.channels_last)
