"""The images of a run: found, decoded where they fit in memory, and dealt out in streams."""

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from darts_cli.config import ImageDataConfig
from darts_cli.engine.task import DatasetInfo, Loaders
from darts_cli.errors import DataError
from darts_cli.runtime.randomness import generator_for
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks
from darts_cli.spaces.cnn.data import datasets, decode, folder
from darts_cli.spaces.cnn.data.augment import Augmentation
from darts_cli.spaces.cnn.data.cache import DecodedCache
from darts_cli.spaces.cnn.data.folder import Found, Split
from darts_cli.spaces.cnn.data.image_file import read_header
from darts_cli.spaces.cnn.data.info import ImageInfo, Summary
from darts_cli.spaces.cnn.data.loader import (
    ImageLoader,
    Resident,
    Source,
    Streamed,
    Training,
)

RESIDENT_BYTES = 2**30
"""Pixels that may live on the device; larger sets are read by worker processes."""

_EVALUATION_BATCH, _EVALUATION_BATCH_CPU = 256, 32
"""Images on a device that wants many at once, and on a CPU, where maps of few stay in its cache:
the paper's supernet takes 20 ms an image 32 at a time and 51 at 256, the network of DARTS_V2 22 and
47 (two threads)."""

_IMAGENET_SIZE = 224


def _find_shape(config: ImageDataConfig, found: Found) -> tuple[int, int]:
    """Channels and size; photographs are RGB, so that no file has to be opened to know it."""
    if config.augmentation == "imagenet":
        return 3, config.image_size or _IMAGENET_SIZE
    return decode.survey(found.splits["train"], config.image_size)


def inspect(config: ImageDataConfig, *, search: bool) -> Summary:
    """What a run would read, without decoding images or downloading anything.

    Raises:
        ConfigError: if the augmentation does not fit the images' size.
        DataError: as `load`, except for what only decoding finds.
    """
    if config.name in datasets.CIFAR:
        classes, counts = datasets.CIFAR_CLASSES[config.name], dict(datasets.CIFAR_COUNTS)
        size = _IMAGENET_SIZE if config.augmentation == "imagenet" else datasets.CIFAR_SIZE
        channels, size = 3, config.image_size or size
    else:
        found = datasets.find(config, search)
        classes, counts = len(found.classes), found.counts
        channels, size = _find_shape(config, found)
    Augmentation.of(config, size)
    return Summary(name=config.name, classes=classes, channels=channels, size=size, counts=counts)


def load(
    config: ImageDataConfig,
    *,
    device: torch.device,
    search: bool,
    info: ImageInfo | None = None,
    ranks: Ranks = SINGLE_PROCESS,
) -> "ImageData":
    """Find the images, and have those for training decoded if they fit on the device.

    Args:
        config: names the data.
        device: where the batches are wanted.
        search: whether only training images may be read.
        info: of a checkpoint's data. Its classes, channels, size and statistics
            are used then; nothing is decoded before it is needed.
        ranks: of which each has its part of every batch.

    Raises:
        ConfigError: if the augmentation does not fit the images' size.
        DataError: if the data is missing, damaged, or not what `info` say.
    """
    found, cache = datasets.find(config, search), DecodedCache.of(config)
    if info is not None:
        found = found.reorder(info.classes, config.name)
    originals = dict(found.splits)
    crop = config.augmentation == "crop"
    kept = None
    if info is not None:
        channels, size = info.channels, info.size
    else:
        train = found.splits["train"]
        kept = cache.find(train) if crop else None
        if kept is None and crop and _look_resident(found, config.image_size):
            kept = cache.decode(train)
        channels, size = kept.shape[1:3] if kept is not None else _find_shape(config, found)
    Augmentation.of(config, size)
    resident = crop and _is_resident(found, channels, size)
    if info is None:
        if kept is None and resident:
            kept = decode.decode_all(train, channels=channels, size=size)
        decoded = Split(kept, train.targets) if kept is not None else train
        info = _measure(config.name, found, decoded, channels=channels, size=size)
        if resident:
            found.splits["train"] = decoded
    return ImageData(
        info=info,
        counts=found.counts,
        config=config,
        device=device,
        cache=cache,
        resident=resident,
        originals=originals,
        waiting=dict(found.splits),
        ranks=ranks,
    )


def _is_resident(found: Found, channels: int, size: int) -> bool:
    """Whether the pixels of all images that may be read can live on the device."""
    return sum(map(len, found.splits.values())) * channels * size**2 <= RESIDENT_BYTES


def _look_resident(found: Found, image_size: int | None) -> bool:
    """Whether they can, if all are like the first file."""
    paths = found.splits["train"].pictures
    if isinstance(paths, Tensor):
        return False
    header = read_header(paths[0])
    return _is_resident(found, 1 if header.grey else 3, image_size or max(header.size))


def _measure(name: str, found: Found, train: Split, *, channels: int, size: int) -> ImageInfo:
    mean, std = found.statistics or decode.compute_statistics(train, channels=channels, size=size)
    return ImageInfo(
        name=name, classes=found.classes, channels=channels, size=size, mean=mean, std=std
    )


def evaluation_batch(device: torch.device, ranks: Ranks) -> int:
    """Images that are best evaluated at once on all ranks; the result does not depend on it."""
    own = _EVALUATION_BATCH_CPU if device.type == "cpu" else _EVALUATION_BATCH
    return own * ranks.size


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData:
    """The images of a run, decoded when a stream of them is first asked for."""

    info: ImageInfo
    """What a checkpoint keeps."""
    counts: dict[str, int]
    """Images of every split, those included that a search does not read."""
    config: ImageDataConfig
    device: torch.device
    """Where the batches are wanted."""
    cache: DecodedCache
    """Where decoded images are looked for and kept."""
    resident: bool
    """Whether pixels live on the device."""
    originals: dict[str, Split]
    """Splits as they were found, until they are read."""
    waiting: dict[str, Split]
    """The same, those decoded that had to be."""
    ranks: Ranks = SINGLE_PROCESS
    """Of whose batches this process reads its part."""
    sources: dict[str, Source] = field(default_factory=dict)
    """Splits that are read."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Of those: see `Split.fingerprint`."""

    def describe(self) -> DatasetInfo:
        """Class names, channels, size, mean and standard deviation, as JSON values."""
        return asdict(self.info)

    def search_loaders(self, seed: int) -> Loaders:
        """Half of the training images, class by class, for the weights and half for the alphas.

        Of the alphas' half, some are what is watched as well, in order and not augmented: with
        5,000 of CIFAR-10's 25,000 an accuracy of 0.9 has a standard error of 0.004, and evaluation
        takes a hundredth of the paper's epoch in place of a twentieth.
        """
        source = self._source("train")
        weights, alphas = folder.split_classes(
            source.targets.cpu(), self.config.search_portion, generator_for(seed, "halves")
        )
        return Loaders(
            train=self._train("weights", source, weights, seed),
            arch=self._train("alphas", source, alphas, seed),
            eval=self._loader(
                source, self._draw(alphas, seed), evaluation_batch(self.device, self.ranks)
            ),
        )

    def _draw(self, numbers: Tensor, seed: int) -> Tensor:
        """As many images as a search evaluates, in order."""
        most = self.config.evaluation_images
        if not 0 < most < len(numbers):
            return numbers
        drawn = torch.randperm(len(numbers), generator=generator_for(seed, "watched"))[:most]
        return numbers[drawn.sort().values]

    def train_loaders(self, seed: int) -> Loaders:
        """All training images; validation images are watched, or test images if there are none."""
        source = self._source("train")
        watched = "valid" if "valid" in self.counts else "test"
        return Loaders(
            train=self._train("train", source, torch.arange(len(source.targets)), seed),
            eval=self.evaluation_loader(watched, evaluation_batch(self.device, self.ranks)),
            eval_split=watched,
        )

    def evaluation_loader(self, split: str, batch_size: int) -> ImageLoader:
        """A split in order, not augmented; its last batch may be smaller.

        Raises:
            DataError: if there is no such split, or an image cannot be decoded.
        """
        source = self._source(split)
        return self._loader(source, torch.arange(len(source.targets)), batch_size)

    def _train(self, purpose: str, source: Source, indices: Tensor, seed: int) -> ImageLoader:
        augmentation = Augmentation.of(self.config, self.info.size)
        training = Training(seed=seed, purpose=purpose, augmentation=augmentation)
        return self._loader(source, indices, self.config.batch_size, training)

    def _loader(
        self, source: Source, indices: Tensor, batch_size: int, training: Training | None = None
    ) -> ImageLoader:
        shape = (self.info.channels, 1, 1)
        return ImageLoader(
            source=source,
            indices=indices,
            batch_size=batch_size,
            mean=torch.tensor(self.info.mean, device=self.device).reshape(shape),
            std=torch.tensor(self.info.std, device=self.device).reshape(shape),
            training=training,
            ranks=self.ranks,
        )

    def _source(self, name: str) -> Source:
        if name not in self.sources:
            if name not in self.waiting:
                known = ", ".join(sorted(self.sources.keys() | self.waiting.keys()))
                raise DataError(
                    f"{self.config.name}: found no split {name!r} to read; use one of {known}"
                )
            self.fingerprints[name] = self.originals.pop(name).fingerprint()
            self.sources[name] = self._make_source(self.waiting[name])
            # Pixels that moved to a device do not stay in the CPU's memory as well.
            del self.waiting[name]
        return self.sources[name]

    def _make_source(self, split: Split) -> Source:
        channels, size = self.info.channels, self.info.size
        targets = split.targets.to(self.device)
        if self.resident:
            pixels = self.cache.find_or_decode(split, channels=channels, size=size)
            return Resident(pixels.to(self.device), targets)
        return Streamed(
            split=split,
            targets=targets,
            channels=channels,
            size=size,
            photographs=self.config.augmentation == "imagenet",
            flip=self.config.flip,
            workers=self.config.workers,
        )
