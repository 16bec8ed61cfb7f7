"""Augmentation: of whole batches on the device, and of single photographs."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from darts_cli.config import ImageDataConfig
from darts_cli.errors import ConfigError
from darts_cli.spaces.cnn.data.folder import Statistics

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
