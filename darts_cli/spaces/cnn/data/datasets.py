"""Where images come from: data sets by name, and folders."""

import contextlib
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from darts_cli.config import ImageDataConfig
from darts_cli.errors import DataError
from darts_cli.runtime.randomness import generator_for
from darts_cli.spaces.cnn.data import folder
from darts_cli.spaces.cnn.data.augment import IMAGENET
from darts_cli.spaces.cnn.data.folder import Found, Split, Statistics

# Of the split that sets test images aside: the same images whatever the run's seed.
_SPLIT_SEED = 0

CIFAR: dict[str, Statistics] = {
    "cifar10": ((0.49139968, 0.48215827, 0.44653124), (0.24703233, 0.24348505, 0.26158768)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""What torchvision downloads, and the statistics that are published of it."""
CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
CIFAR_COUNTS = {"train": 50_000, "test": 10_000}
CIFAR_SIZE = 32


def _find_digits(_config: ImageDataConfig, _search: bool) -> Found:
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        raise DataError(
            "--data digits needs scikit-learn: pip install 'darts-cli[digits]'"
        ) from None
    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    split = Split(torch.from_numpy(pixels)[:, None], torch.from_numpy(digits.target).long())
    return Found(
        classes=tuple(str(name) for name in digits.target_names),
        splits={"train": split},
        counts={"train": len(split)},
    )


def _find_cifar(config: ImageDataConfig, search: bool) -> Found:
    from torchvision import datasets  # type: ignore[import-untyped, unused-ignore]

    root = Path(config.root).expanduser()
    try:
        # Standard output is kept for results.
        with contextlib.redirect_stdout(sys.stderr):
            read = {
                name: getattr(datasets, config.name.upper())(
                    root, train=name == "train", download=True
                )
                for name in (["train"] if search else ["train", "test"])
            }
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{config.name}: could not be downloaded to {root} ({reason}); check the network, give"
            " a folder of images with --data DIR, or use --data digits, which needs no download"
        ) from None
    splits = {
        name: Split(torch.from_numpy(part.data).permute(0, 3, 1, 2), torch.tensor(part.targets))
        for name, part in read.items()
    }
    return Found(
        classes=tuple(read["train"].classes),
        splits=splits,
        counts=CIFAR_COUNTS | {name: len(split) for name, split in splits.items()},
        statistics=CIFAR[config.name],
    )


def _refuse_imagenet(_config: ImageDataConfig, _search: bool) -> Found:
    raise DataError(
        "imagenet cannot be downloaded: give its folder, with train/ and val/ in it,"
        " as --data DIR --recipe imagenet"
    )


DATASETS: dict[str, Callable[[ImageDataConfig, bool], Found]] = {
    "digits": _find_digits,
    "cifar10": _find_cifar,
    "cifar100": _find_cifar,
    "imagenet": _refuse_imagenet,
}


def _find_folder(config: ImageDataConfig, _search: bool) -> Found:
    place = Path(config.name).expanduser()
    if not place.is_dir():
        raise DataError(
            f"--data {config.name}: expected one of {', '.join(DATASETS)}, or a folder of images"
            f" ({folder.LAYOUT}); found no folder {place}"
        )
    return folder.find_images(place)


def find(config: ImageDataConfig, search: bool) -> Found:
    """The images that the settings name, with test images set aside where there are none.

    Raises:
        DataError: if they are missing, or too few.
    """
    found = DATASETS.get(config.name, _find_folder)(config, search)
    splits = found.splits
    alone = "test" not in found.counts
    _check_counts(config.name, found, needed=1 + alone + search)
    if alone:
        train = splits["train"]
        test, kept = folder.split_classes(
            train.targets, config.test_portion, generator_for(_SPLIT_SEED, "test split")
        )
        splits = {"train": train.select(kept), "test": train.select(test)}
    return replace(
        found,
        splits={"train": splits["train"]} if search else splits,
        counts=found.counts | {name: len(split) for name, split in splits.items()},
        statistics=IMAGENET if config.augmentation == "imagenet" else found.statistics,
    )


def _check_counts(name: str, found: Found, needed: int) -> None:
    counts = torch.bincount(found.splits["train"].targets, minlength=len(found.classes))
    for label, number in zip(found.classes, counts.tolist(), strict=True):
        if number < needed:
            raise DataError(
                f"{name}: expected {needed} or more training images of each class, to split them,"
                f" found {number} of {label!r}; add images or remove the class"
            )
