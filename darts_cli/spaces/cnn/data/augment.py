"""Normalise and augment batches on the device, and augment photographs; stands on `decode`."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from darts_cli.config import ImageDataConfig
from darts_cli.errors import ConfigError
from darts_cli.spaces.cnn.data.decode import decode_range, in_parallel
from darts_cli.spaces.cnn.data.folder import Split
from darts_cli.spaces.cnn.data.info import Shape, Statistics

# Mean and standard deviation of ImageNet, as torchvision's models use them.
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_MAX_PIXEL = 255.0
# Photographs are evaluated on the central 224 pixels of 256, or that share of another size.
_EVALUATION_SCALE = 256 / 224
# Brightness, contrast, saturation and hue.
_JITTER = (0.4, 0.4, 0.4, 0.2)


def compute_statistics(split: Split, shape: Shape) -> Statistics:
    """Compute mean and standard deviation of each channel, of pixels from 0 to 1.

    They are exact up to one rounding, since pixels are counted by value, and few images are in
    memory at a time. The deviation of a constant channel is 1, to divide by.

    Raises:
        DataError: with the file's name, if an image cannot be decoded.
    """

    def count(first: int, last: int) -> list[npt.NDArray[np.int64]]:
        pixels = decode_range(split, first, last, shape).numpy()  # [n, C, S, S]
        return [np.bincount(channel.ravel(), minlength=256) for channel in pixels.swapaxes(0, 1)]

    mean, std = [], []
    # From sums over the pixels x: mean = sum(x) / n, variance = (n sum(x^2) - sum(x)^2) / n^2.
    # [C, 256], as Python's integers: the products below pass 64 bits.
    for counts in np.sum(list(in_parallel(len(split), count)), axis=0).tolist():
        number = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value**2 * count for value, count in enumerate(counts))
        mean.append(total / number / 255)
        std.append(((number * squares - total**2) / number**2) ** 0.5 / 255 or 1.0)
    return tuple(mean), tuple(std)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random changes to a training batch (appendix A.1 and A.2)."""

    padding: int
    """Pixels that an image may be shifted by, in each direction."""
    flip: bool
    """Whether half of the images are mirrored."""
    cutout: int
    """Side in pixels of the blanked square; 0: none."""

    @classmethod
    def of(cls, config: ImageDataConfig, size: int) -> "Augmentation":
        """Return the augmentation of these settings for images of `size` pixels a side.

        Photographs are cropped and flipped one by one, by `prepare_photograph`.

        Raises:
            ConfigError: if the images are too small for it.
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
        """Draw the random numbers of a batch, int64 `[5, B]`.

        The rows are the shift down and right, whether to mirror, and row and column of the
        square's centre. All are drawn whether needed or not, so that switching one augmentation
        off does not change what the others do.
        """
        bounds = (2 * self.padding + 1, 2 * self.padding + 1, 2, size, size)
        return torch.stack([torch.randint(n, (batch,), generator=generator) for n in bounds])

    def apply(self, images: Tensor, draws: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Shift, mirror, normalise and blank images.

        Args:
            images: Pixels, uint8 `[B, C, S, S]`.
            draws: Random numbers from `draw`, `[5, B]`.
            mean: `[C, 1, 1]`, of pixels from 0 to 1.
            std: `[C, 1, 1]`, likewise.

        Returns:
            float32 `[B, C, S, S]`.
        """
        if self.padding or self.flip:
            images = shift(images, draws[:2], draws[2].bool() & self.flip, self.padding)
        prepared = normalise(images, mean, std)
        return cut_out(prepared, draws[3:], self.cutout) if self.cutout else prepared


def shift(images: Tensor, offsets: Tensor, mirrored: Tensor, padding: int) -> Tensor:
    """Crop images padded with black to their size again, then mirror some.

    Args:
        images: Pixels, uint8 `[B, C, S, S]`.
        offsets: First row and column of each crop, `[2, B]`, 0 to `2 * padding`.
        mirrored: Whether the crop is flipped left to right, `[B]`.
        padding: Black pixels added on each side.

    Returns:
        uint8 `[B, C, S, S]`, channels last.
    """
    batch, _, height, width = images.shape
    padded = pad(images, (padding,) * 4)  # [B, C, S + 2 * padding, S + 2 * padding]
    # A mirrored crop reads its columns backwards.
    across = torch.arange(width, device=images.device)
    rows = offsets[0][:, None] + torch.arange(height, device=images.device)  # [B, S]
    columns = offsets[1][:, None] + torch.where(mirrored[:, None], across.flip(0), across)
    image = torch.arange(batch, device=images.device)[:, None, None]
    # Indexing around a slice moves the channels last, the memory format that networks want.
    cropped = padded[image, :, rows[:, :, None], columns[:, None, :]]  # [B, S, S, C]
    return cropped.permute(0, 3, 1, 2)  # [B, C, S, S]


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Convert uint8 pixels `[B, C, S, S]` to float32, minus `mean` and over `std` `[C, 1, 1]`."""
    # In place from the second operation on: no further copy of the batch.
    scaled = images.to(torch.float32, memory_format=torch.channels_last).div_(_MAX_PIXEL)
    return scaled.sub_(mean).div_(std)


def cut_out(images: Tensor, centres: Tensor, side: int) -> Tensor:
    """Blank a square in each image, clipped at the borders (DeVries & Taylor, 2017).

    Args:
        images: Normalised pixels, `[B, C, S, S]`: blank means the mean colour.
        centres: Row and column of each square's centre, `[2, B]`.
        side: Side of the square in pixels.
    """
    inside = []
    for centre, length in zip(centres, images.shape[2:], strict=True):
        # A square of an even side reaches one pixel further up and left.
        first = (centre - side // 2)[:, None]  # [B, 1]
        place = torch.arange(length, device=images.device)
        inside.append((place >= first) & (place < first + side))  # [B, S]
    rows, columns = inside
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0.0)


def prepare_photograph(image: Image.Image, size: int, *, flip: bool, seed: int | None) -> Tensor:
    """Crop a photograph as is usual for ImageNet, leaving the process's generator as it was.

    Args:
        image: Photograph of any size.
        size: Side of the result in pixels.
        flip: Whether half of the images are mirrored.
        seed: Seed of the random crop, mirroring and colours; None: the centre, unchanged.

    Returns:
        uint8 `[C, S, S]`.
    """
    with torch.random.fork_rng(devices=[]):
        if seed is not None:
            # Not torch.manual_seed, which would seed the accelerators as well.
            torch.default_generator.manual_seed(seed)
        return torch.as_tensor(_build_transform(size, flip, seed is not None)(image))


@cache
def _build_transform(size: int, flip: bool, training: bool) -> Any:
    from torchvision.transforms import v2  # type: ignore[import-untyped, unused-ignore]

    if training:
        portion = 0.5 if flip else 0.0
        crop = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(portion)]
        steps = [*crop, v2.ColorJitter(*_JITTER)]
    else:
        # Resize the shorter side, so that the crop is the centre of the whole photograph.
        steps = [v2.Resize(round(size * _EVALUATION_SCALE)), v2.CenterCrop(size)]
    return v2.Compose([*steps, v2.PILToTensor()])
