"""Made pixels and files for the tests of images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from hypothesis import settings
from PIL import Image
from torch import Tensor

from darts_cli.spaces.cnn.data.folder import Split

FEW = settings(max_examples=25, deadline=None, derandomize=True)


def random_pixels(batch: int, channels: int, size: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, (batch, channels, size, size), generator=random, dtype=torch.uint8)


def photograph(mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def save(path: Path, size: tuple[int, int] = (8, 8), mode: str = "RGB", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def make_classes(folder: Path, names: Sequence[str] = ("cat", "dog"), count: int = 2) -> None:
    for name in names:
        for i in range(count):
            save(folder / name / f"{i}.png", seed=i)


def one(path: Path) -> Split:
    return Split([str(path)], torch.zeros(1, dtype=torch.long))
