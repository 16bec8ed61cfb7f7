"""Made pixels for the tests of augmentation and streams."""

import numpy as np
import torch
from hypothesis import settings
from PIL import Image
from torch import Tensor

FEW = settings(max_examples=25, deadline=None, derandomize=True)


def random_pixels(batch: int, channels: int, size: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, (batch, channels, size, size), generator=random, dtype=torch.uint8)


def photograph(mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)
