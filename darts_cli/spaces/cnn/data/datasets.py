"""Find the images of a run by name or folder, and make its loaders; stands on all modules here."""

import contextlib
import sys
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from darts_cli.config import ImageDataConfig
from darts_cli.engine.task import DatasetInfo, Loaders
from darts_cli.errors import DataError
from darts_cli.runtime.randomness import generator_for
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks
from darts_cli.spaces.cnn.data import folder, loader
from darts_cli.spaces.cnn.data.augment import IMAGENET, Augmentation, compute_statistics
from darts_cli.spaces.cnn.data.cache import DecodedCache
from darts_cli.spaces.cnn.data.decode import read_header, read_shape
from darts_cli.spaces.cnn.data.folder import ImageSplits, Split
from darts_cli.spaces.cnn.data.info import ImageInfo, Shape, Statistics, Summary
from darts_cli.spaces.cnn.data.loader import ImageLoader, InMemory, Source, Streamed, Training

# Pixels that may be in the device's memory; larger sets are read by worker processes.
IN_MEMORY_BYTES = 2**30

# Seed of the split that sets test images aside: the same images whatever the run's seed.
_SPLIT_SEED = 0
_IMAGENET_SIZE = 224

# Data sets that torchvision downloads, with their published statistics.
CIFAR: dict[str, Statistics] = {
    "cifar10": ((0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
CIFAR_COUNTS = {"train": 50_000, "test": 10_000}
CIFAR_SIZE = 32


def _find_digits(_config: ImageDataConfig, _search: bool) -> ImageSplits:
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise DataError(
            "--data digits needs scikit-learn: pip install 'darts-cli[digits]'"
        ) from None
    digits = load_digits()
    # scikit-learn's pixels are whole numbers from 0 to 16.
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # [N, 8, 8]
    split = Split(torch.from_numpy(pixels)[:, None], torch.from_numpy(digits.target).long())
    return ImageSplits(classes=tuple(map(str, digits.target_names)), splits={"train": split})


def _find_cifar(config: ImageDataConfig, search: bool) -> ImageSplits:
    from torchvision import datasets  # type: ignore[import-untyped, unused-ignore]

    root = Path(config.root).expanduser()
    read = getattr(datasets, config.name.upper())
    try:
        # Standard output is kept for results.
        with contextlib.redirect_stdout(sys.stderr):
            parts = {"train": read(root, train=True, download=True)}
            if not search:
                parts["test"] = read(root, train=False, download=True)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{config.name}: could not be downloaded to {root} ({reason}); check the network, give"
            " a folder of images with --data DIR, or use --data digits, which needs no download"
        ) from None
    splits = {
        # [N, S, S, C] -> [N, C, S, S]
        name: Split(torch.from_numpy(part.data).permute(0, 3, 1, 2), torch.tensor(part.targets))
        for name, part in parts.items()
    }
    return ImageSplits(
        classes=tuple(parts["train"].classes),
        splits=splits,
        unread_counts=CIFAR_COUNTS,
        statistics=CIFAR[config.name],
    )


def _find_imagenet(_config: ImageDataConfig, _search: bool) -> ImageSplits:
    raise DataError(
        "imagenet cannot be downloaded: give its folder, with train/ and val/ in it,"
        " as --data DIR --recipe imagenet"
    )


# Images that `--data` knows by name: a function of the settings and of whether test images are
# left unread. Any other name is a folder.
DATASETS: dict[str, Callable[[ImageDataConfig, bool], ImageSplits]] = {
    "digits": _find_digits,
    **dict.fromkeys(CIFAR, _find_cifar),
    "imagenet": _find_imagenet,
}


def _find_by_name(config: ImageDataConfig, search: bool) -> ImageSplits:
    if config.name in DATASETS:
        return DATASETS[config.name](config, search)
    place = Path(config.name).expanduser()
    if not place.is_dir():
        raise DataError(
            f"--data {config.name}: expected one of {', '.join(DATASETS)}, or a folder of images"
            f" ({folder.LAYOUT}); found no folder {place}"
        )
    return folder.find_images(place)


def find(config: ImageDataConfig, search: bool) -> ImageSplits:
    """Find the images of these settings, setting test images aside where there are none.

    Raises:
        DataError: if they are missing or too few.
    """
    found = _find_by_name(config, search)
    lacks_test = "test" not in found.counts
    found.check_counts(config.name, needed=1 + lacks_test + search)
    if lacks_test:
        random = generator_for(_SPLIT_SEED, "test split")
        found = found.set_test_aside(config.test_portion, random)
    return replace(
        found,
        splits={"train": found.splits["train"]} if search else found.splits,
        unread_counts=found.counts,
        statistics=IMAGENET if config.augmentation == "imagenet" else found.statistics,
    )


def inspect(config: ImageDataConfig, *, search: bool) -> Summary:
    """Describe the images of a run without decoding or downloading any.

    Raises:
        ConfigError: if the augmentation does not fit the images' size.
        DataError: as `load`, except for what only decoding finds.
    """
    if config.name in CIFAR:
        classes, counts = CIFAR_CLASSES[config.name], dict(CIFAR_COUNTS)
        size = _IMAGENET_SIZE if config.augmentation == "imagenet" else CIFAR_SIZE
        channels, size = 3, config.image_size or size
    else:
        found = find(config, search)
        classes, counts = len(found.classes), found.counts
        channels, size = _find_shape(config, found.splits["train"])
    Augmentation.of(config, size)
    return Summary(classes=classes, channels=channels, size=size, counts=counts)


def load(
    config: ImageDataConfig,
    *,
    device: torch.device,
    search: bool,
    info: ImageInfo | None = None,
    ranks: Ranks = SINGLE_PROCESS,
) -> "ImageData":
    """Find the images, and decode those for training if their pixels fit on the device.

    Args:
        config: Settings that name the data.
        device: Device of the batches.
        search: Whether only training images may be read.
        info: A checkpoint's, whose classes, channels, size and statistics are used; nothing is
            decoded before it is needed.
        ranks: Ranks that share each batch.

    Raises:
        ConfigError: if the augmentation does not fit the images' size.
        DataError: if the data is missing, damaged, or not as `info` says.
    """
    found, pixels = find(config, search), None
    if info is None:
        info, pixels = _measure(config, found)
    else:
        found = found.reorder(info.classes, config.name)
    return ImageData(config, found, info, device=device, ranks=ranks, pixels=pixels)


def _measure(config: ImageDataConfig, found: ImageSplits) -> tuple[ImageInfo, Tensor | None]:
    """Find shape and statistics of the training images.

    Returns:
        The facts, and the pixels, uint8 `[N, C, S, S]`, if all had to be decoded or were kept.
    """
    train, pixels, cache = found.splits["train"], None, DecodedCache.of(config)
    if config.augmentation == "crop":
        pixels = cache.find(train)
        if pixels is None and _fits_in_memory(found, _guess_shape(train, config.image_size)):
            pixels = cache.decode(train)
        if pixels is not None:
            train = Split(pixels, train.targets)
    channels, size = _find_shape(config, train)
    Augmentation.of(config, size)
    mean, std = found.statistics or compute_statistics(train, (channels, size))
    info = ImageInfo(
        name=config.name, classes=found.classes, channels=channels, size=size, mean=mean, std=std
    )
    return info, pixels


def _find_shape(config: ImageDataConfig, train: Split) -> Shape:
    # Photographs are RGB, so that no file has to be opened.
    if config.augmentation == "imagenet":
        return 3, config.image_size or _IMAGENET_SIZE
    return read_shape(train, config.image_size)


def _guess_shape(train: Split, image_size: int | None) -> Shape:
    """Return the shape of all images if they are like the first."""
    if isinstance(train.pictures, Tensor):
        return read_shape(train, image_size)
    header = read_header(train.pictures[0])
    return 1 if header.grey else 3, image_size or max(header.size)


def _fits_in_memory(found: ImageSplits, shape: Shape) -> bool:
    """Return whether the pixels of all splits that may be read fit in the device's memory."""
    channels, size = shape
    return sum(map(len, found.splits.values())) * channels * size**2 <= IN_MEMORY_BYTES


class ImageData:
    """Images of a run, decoded when a loader first needs them."""

    def __init__(
        self,
        config: ImageDataConfig,
        found: ImageSplits,
        info: ImageInfo,
        *,
        device: torch.device,
        ranks: Ranks = SINGLE_PROCESS,
        pixels: Tensor | None = None,
    ) -> None:
        """Keep the images as they were found.

        Args:
            config: Settings of the data.
            found: Splits that may be read.
            info: Facts that a checkpoint keeps.
            device: Device of the batches.
            ranks: Ranks that share each batch.
            pixels: Pixels of the training images, uint8 `[N, C, S, S]` in the CPU's memory, if they
                are decoded.

        Raises:
            ConfigError: if the augmentation does not fit the images' size.
        """
        self.config, self.info, self.device, self.ranks = config, info, device, ranks
        self.augmentation = Augmentation.of(config, info.size)
        self.counts = found.counts
        # Splits that no loader has needed yet, and those that loaders read with their digests.
        self.unread, self.sources = dict(found.splits), dict[str, Source]()
        self.fingerprints: dict[str, str] = {}
        self.in_memory = config.augmentation == "crop" and _fits_in_memory(found, info.shape)
        self._train_pixels = pixels if self.in_memory else None

    def describe(self) -> DatasetInfo:
        """Return class names, channels, size, mean and standard deviation, as JSON values."""
        return asdict(self.info)

    def search_loaders(self, seed: int) -> Loaders:
        """Split the training images in two, class by class: for the weights and for the alphas.

        Some of the alphas' are also evaluated, in order and not augmented: with 5,000 of
        CIFAR-10's 25,000 an accuracy of 0.9 has a standard error of 0.004, and evaluation takes a
        hundredth of the paper's epoch instead of a twentieth.
        """
        targets, random = self._source("train").targets.cpu(), generator_for(seed, "halves")
        weights, alphas = folder.split_classes(targets, self.config.search_portion, random)
        evaluated, most = alphas, self.config.evaluation_images
        if 0 < most < len(alphas):
            random = generator_for(seed, "watched")
            # Sorted again, so that they are read in order.
            drawn = torch.randperm(len(alphas), generator=random)[:most]
            evaluated = alphas[drawn.sort().values]
        return Loaders(
            train=self._train_loader("weights", seed, weights),
            arch=self._train_loader("alphas", seed, alphas),
            eval=self._loader("train", loader.evaluation_batch(self.device, self.ranks), evaluated),
        )

    def train_loaders(self, seed: int) -> Loaders:
        """Train on all training images; evaluate validation images, or test images if none."""
        split = "valid" if "valid" in self.counts else "test"
        return Loaders(
            train=self._train_loader("train", seed),
            eval=self.evaluation_loader(split, loader.evaluation_batch(self.device, self.ranks)),
            eval_split=split,
        )

    def evaluation_loader(self, split: str, batch_size: int) -> ImageLoader:
        """Return the batches of a split in order, not augmented; the last one may be smaller.

        Raises:
            DataError: if there is no such split, or an image cannot be decoded.
        """
        return self._loader(split, batch_size)

    def _train_loader(self, purpose: str, seed: int, indices: Tensor | None = None) -> ImageLoader:
        training = Training(seed, purpose, self.augmentation)
        return self._loader("train", self.config.batch_size, indices, training)

    def _loader(
        self,
        split: str,
        batch_size: int,
        indices: Tensor | None = None,
        training: Training | None = None,
    ) -> ImageLoader:
        """Return the batches of some images of a split; of all if there are no indices."""
        source, statistics = self._source(split), (self.info.mean, self.info.std)
        indices = torch.arange(len(source.targets)) if indices is None else indices
        return ImageLoader(source, indices, batch_size, statistics, training, self.ranks)

    def _source(self, name: str) -> Source:
        if name in self.sources:
            return self.sources[name]
        if name not in self.unread:
            known = ", ".join(sorted(self.sources.keys() | self.unread.keys()))
            raise DataError(
                f"{self.config.name}: found no split {name!r} to read; use one of {known}"
            )
        split, shape = self.unread[name], self.info.shape
        self.fingerprints[name] = split.fingerprint()
        targets = split.targets.to(self.device)
        if self.in_memory:
            pixels = self._train_pixels if name == "train" else None
            if pixels is None:
                pixels = DecodedCache.of(self.config).find_or_decode(split, shape)
            self.sources[name] = InMemory(pixels.to(self.device), targets)
        else:
            self.sources[name] = Streamed(split, targets, shape, self.config)
        # Pixels that were copied to a device do not stay in the CPU's memory as well.
        del self.unread[name]
        self._train_pixels = None if name == "train" else self._train_pixels
        return self.sources[name]
