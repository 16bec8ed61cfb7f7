"""From uint8 pixels to batches: augmentation, and the streams that training reads.

Every draw is made on the CPU from counted seeds, so that the same batches come out
whatever the device, the number of workers and the step that a run is resumed at.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset

from darts_cli.config import ImageDataConfig
from darts_cli.engine.randomness import count, generator
from darts_cli.engine.task import Batch
from darts_cli.errors import ConfigError, DataError
from darts_cli.spaces.cnn.images import Split, Statistics

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation that photographs are normalised with."""

_MAXIMUM = 255.0
_EVALUATION_SCALE = 256 / 224
_JITTER = (0.4, 0.4, 0.4, 0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What is done at random to a training batch (appendix A.1 and A.2)."""

    padding: int
    """Pixels that an image may be shifted by, in each direction."""
    flip: bool
    """Whether half of the images are mirrored."""
    cutout: int
    """Side in pixels of the blanked square; 0: none."""

    @classmethod
    def of(cls, config: ImageDataConfig, size: int) -> "Augmentation":
        """What the settings ask for, for images of this size; photographs are cropped elsewhere.

        Raises:
            ConfigError: if an image is too small for it.
        """
        crops = config.augmentation == "crop"
        padding = config.crop_padding if crops else 0
        for key, pixels in (("cutout", config.cutout), ("crop_padding", padding)):
            if pixels >= size:
                raise ConfigError(
                    f"data.{key}: found {pixels}, expected less than the images' size, {size};"
                    f" use --set data.{key}=N"
                )
        return cls(padding=padding, flip=config.flip and crops, cutout=config.cutout)

    def draw(self, batch: int, size: int, generator: torch.Generator) -> Tensor:
        """The random numbers of a batch `[5, B]`: shift down and right, mirrored or not, centre.

        All of them are drawn whether needed or not, so that switching one
        augmentation off does not change what the others do.
        """
        bounds = (2 * self.padding + 1, 2 * self.padding + 1, 2, size, size)
        return torch.stack([torch.randint(n, (batch,), generator=generator) for n in bounds])

    def apply(self, images: Tensor, draws: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Shift, mirror, normalise and blank: uint8 `[B, C, S, S]` to float32 of the same shape."""
        if self.padding or self.flip:
            mirrored = draws[2].bool() if self.flip else torch.zeros_like(draws[2]).bool()
            images = shift(images, draws[:2], mirrored, self.padding)
        prepared = normalise(images, mean, std)
        return cut_out(prepared, draws[3:], self.cutout) if self.cutout else prepared


def shift(images: Tensor, offsets: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Crop `[B, C, S, S]` from images padded with black, then mirror some.

    Args:
        images: uint8 pixels.
        offsets: `[2, B]`, first row and column of each crop, 0 to `2 * padding`.
        mirrored: `[B]`, whether the crop is flipped left to right.
        padding: black pixels added on each side.
    """
    batch, _, height, width = images.shape
    padded = pad(images, (padding,) * 4)
    across = torch.arange(width, device=images.device)
    rows = offsets[0][:, None] + torch.arange(height, device=images.device)
    columns = offsets[1][:, None] + torch.where(mirrored[:, None], across.flip(0), across)
    image = torch.arange(batch, device=images.device)[:, None, None]
    # The channels come last out of this indexing, which is the memory format that networks want.
    cropped = padded[image, :, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Pixels `[B, C, S, S]`, uint8, to float32 with the mean and deviation `[C, 1, 1]` removed."""
    scaled = images.to(torch.float32, memory_format=torch.channels_last).div_(_MAXIMUM)
    return scaled.sub_(mean).div_(std)


def cut_out(images: Tensor, centres: Tensor, side: int) -> Tensor:
    """Blank a square of `side` pixels in each image `[B, C, S, S]`, clipped at the borders.

    It comes after normalisation, so that blank means the mean colour.

    Args:
        images: normalised pixels.
        centres: `[2, B]`, row and column of each square's centre.
        side: of the square, in pixels.
    """
    inside = []
    for centre, length in zip(centres, images.shape[2:], strict=True):
        first = (centre - side // 2)[:, None]
        place = torch.arange(length, device=images.device)
        inside.append((place >= first) & (place < first + side))
    rows, columns = inside
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


def prepare_photograph(image: Image.Image, size: int, *, flip: bool, seed: int | None) -> Tensor:
    """A photograph as for ImageNet, uint8 `[C, S, S]`; the process's generator is left as it was.

    Args:
        image: of any size.
        size: side in pixels of the result.
        flip: whether half of the images are mirrored.
        seed: of the random crop, mirroring and colours; None: the centre, unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            # Not torch.manual_seed, which would seed the accelerators as well.
            torch.default_generator.manual_seed(seed)
        return torch.as_tensor(_build_transform(size, flip, seed is not None)(image))


@cache
def _build_transform(size: int, flip: bool, training: bool) -> Any:
    from torchvision.transforms import v2  # type: ignore[import-untyped, unused-ignore]

    if not training:
        resize = v2.Resize(round(size * _EVALUATION_SCALE))
        return v2.Compose([resize, v2.CenterCrop(size), v2.PILToTensor()])
    return v2.Compose(
        [
            v2.RandomResizedCrop(size),
            v2.RandomHorizontalFlip(0.5 if flip else 0.0),
            v2.ColorJitter(*_JITTER),
            v2.PILToTensor(),
        ]
    )


@dataclass(frozen=True, slots=True)
class Resident:
    """Pixels that live on the device, `[N, C, S, S]`, and classes `[N]`."""

    images: Tensor
    targets: Tensor

    def read(self, order: "Order", steps: range) -> Iterator[Tensor]:
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

    def read(self, order: "Order", steps: range) -> Iterator[Tensor]:
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
            worker_init_fn=_leave_signals_to_parent,
            # Its own, since a loader draws a seed and the default generator is not ours to advance.
            generator=torch.Generator(),
        )
        for pixels in loader:
            if isinstance(pixels, DataError):
                raise pixels
            yield pixels.to(device, non_blocking=True)

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

    def places(self, step: int) -> slice:
        """Where in the order the batch of this number lies."""
        return slice(step * self.batch_size, (step + 1) * self.batch_size)


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


def _leave_signals_to_parent(_worker: int) -> None:
    # Ctrl-C and a scheduler's signals reach the whole process group; the parent still has to
    # finish its step, and it stops the workers itself.
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a stream is shuffled and augmented."""

    seed: int
    """The run's."""
    purpose: str
    """What is trained, so that the streams of a search draw different numbers."""
    augmentation: Augmentation


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageStream:
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

    def __len__(self) -> int:
        """Batches in an epoch; in training a last one of a single image is left out.

        BatchNorm cannot normalise one value.
        """
        whole, rest = divmod(len(self.indices), self.batch_size)
        return whole + (rest > 1 if self.training else rest > 0)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `start` on, on the source's device."""
        steps = range(start, len(self))
        order = self._order(epoch)
        targets = self.source.targets
        numbers = move(order.numbers, targets.device)
        for step, pixels in zip(steps, self.source.read(order, steps), strict=True):
            chosen = targets[numbers[order.places(step)]]
            yield Batch(self._prepare(pixels, epoch, step), chosen)

    def _order(self, epoch: int) -> Order:
        training = self.training
        if training is None:
            return Order(self.indices, self.batch_size)
        shuffle = generator(training.seed, f"{training.purpose} order", epoch)
        numbers = self.indices[torch.randperm(len(self.indices), generator=shuffle)]
        photograph = partial(count, training.seed, f"{training.purpose} photograph", epoch)
        return Order(numbers, self.batch_size, photograph)

    def _prepare(self, pixels: Tensor, epoch: int, step: int) -> Tensor:
        training = self.training
        if training is None:
            prepared = normalise(pixels, self.mean, self.std)
        else:
            random = generator(training.seed, f"{training.purpose} augment", epoch, step)
            draws = training.augmentation.draw(len(pixels), pixels.shape[-1], random)
            prepared = training.augmentation.apply(
                pixels, move(draws, pixels.device), self.mean, self.std
            )
        return prepared.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True, slots=True)
class SearchStreams:
    """The training images in two halves, stratified by class."""

    weights: ImageStream
    """Trains the weights: shuffled, augmented."""
    alphas: ImageStream
    """The other half, trains the alphas: shuffled, augmented."""
    valid: ImageStream
    """The alphas' half, in order and not augmented."""


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
