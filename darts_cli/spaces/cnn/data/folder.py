"""The images of a folder, by class and split."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from darts_cli.errors import DataError
from darts_cli.spaces.cnn.data.image_file import convert, fit, opened, read_bytes

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
"""Files that count as images, whatever the case of the suffix."""

LAYOUT = "DIR/<class>/*.png, or DIR/train/<class>/*.png with DIR/val or DIR/test beside it"

_NAMED = 8
_DIGEST_BYTES = 16
_READ = 1000
"""Files whose content a fingerprint reads, evenly spaced: ImageNet is 150 GB."""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel."""


@dataclass(frozen=True, slots=True)
class Split:
    """Images and their classes: files still to be decoded, or pixels."""

    pictures: Sequence[str] | Tensor
    """Paths, or uint8 `[N, C, S, S]` in the CPU's memory."""
    targets: Tensor
    """Class of every image, int64 `[N]`."""

    def __len__(self) -> int:
        return len(self.pictures)

    def select(self, indices: Tensor) -> "Split":
        """The images of these numbers, in their order."""
        pictures = self.pictures
        if isinstance(pictures, Tensor):
            return Split(pictures[indices], self.targets[indices])
        return Split([pictures[i] for i in indices.tolist()], self.targets[indices])

    def fingerprint(self) -> str:
        """A number for what is in it: pixels, or names of files and what is in some of them.

        Where the folder lies makes no difference.

        Raises:
            DataError: with the file's name, if one cannot be read.
        """
        digest = hashlib.blake2b(self.targets.cpu().numpy().tobytes(), digest_size=_DIGEST_BYTES)
        if isinstance(self.pictures, Tensor):
            digest.update(repr(tuple(self.pictures.shape)).encode())
            digest.update(self.pictures.contiguous().numpy().data)
            return digest.hexdigest()
        for path in self.pictures:
            digest.update(b"\0" + os.fsencode("/".join(Path(path).parts[-2:])))
        every = -(-len(self) // _READ)
        for path in self.pictures[::every]:
            digest.update(hashlib.blake2b(read_bytes(path)).digest())
        return digest.hexdigest()

    def open(self, index: int, channels: int) -> Image.Image:
        """One image in its own size, grey (1 channel) or RGB (3): see `pictures.convert`.

        Raises:
            DataError: with the file's name, if it cannot be decoded.
        """
        if isinstance(self.pictures, Tensor):
            pixels = self.pictures[index].permute(1, 2, 0)
            pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
            return convert(Image.fromarray(pixels.numpy()), channels)
        with opened(self.pictures[index]) as image:
            return convert(image, channels)

    def decode(self, first: int, last: int, *, channels: int, size: int) -> Tensor:
        """The images `first` to `last`, the latter left out: uint8 `[N, C, S, S]`.

        They are resized as `pictures.fit` does.

        Raises:
            DataError: with the file's name, if one cannot be decoded.
        """
        last = min(last, len(self))
        if isinstance(self.pictures, Tensor) and self.pictures.shape[1:] == (channels, size, size):
            return self.pictures[first:last]
        pixels = np.empty((last - first, channels, size, size), dtype=np.uint8)
        for row, index in enumerate(range(first, last)):
            pixels[row] = fit(self.open(index, channels), size)
        return torch.from_numpy(pixels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Images before they are decoded."""

    classes: tuple[str, ...]
    splits: dict[str, Split]
    """Those that may be read; a search reads `train` only."""
    counts: dict[str, int]
    """Images of all splits."""
    statistics: Statistics | None = None
    """Mean and deviation where they are published."""

    def reorder(self, classes: Sequence[str], name: str) -> "Found":
        """The same images with classes counted in this order, as a checkpoint counts them.

        Raises:
            DataError: if the classes are others.
        """
        check_classes(classes, self.classes, name)
        place = torch.tensor([list(classes).index(known) for known in self.classes])
        splits = {n: Split(s.pictures, place[s.targets]) for n, s in self.splits.items()}
        return replace(self, classes=tuple(classes), splits=splits)


def find_images(folder: Path) -> Found:
    """The images of a folder, its classes sorted by name; none is opened.

    `test/` is the test split and `val/` beside it `valid`; without `test/` it is `val/`
    that tests. Hidden files and folders, files of other `SUFFIXES` and folders inside a
    class's folder are passed over.

    Raises:
        DataError: if the folder is laid out otherwise, a class is empty, or the
            splits have different classes.
    """
    train, validation, test = folder / "train", folder / "val", folder / "test"
    places = {"train": folder}
    if train.is_dir():
        folders = {entry.name for entry in _entries(folder) if entry.is_dir()}
        if unknown := folders - {"train", "val", "test"}:
            raise DataError(
                f"{folder}: expected val or test beside train, found {_list(unknown)};"
                " rename or move it"
            )
        places = {"train": train, "test": test, "valid": validation}
        if not test.is_dir():
            places = {"train": train, "test": validation}
        places = {name: place for name, place in places.items() if place.is_dir()}
    classes = _class_names(places["train"])
    if {"val", "test"} >= set(classes):
        raise DataError(
            f"{folder}: expected {LAYOUT}, found {_list(classes)} without train; add it"
        )
    for place in places.values():
        check_classes(classes, _class_names(place), str(place))
    splits = {name: _list_split(place, classes) for name, place in places.items()}
    counts = {name: len(split) for name, split in splits.items()}
    return Found(classes=classes, splits=splits, counts=counts)


def check_classes(expected: Sequence[str], found: Sequence[str], place: str) -> None:
    """Compare the names of classes.

    Raises:
        DataError: naming those that are missing, and those that are too many.
    """
    missing, unknown = set(expected) - set(found), set(found) - set(expected)
    if missing or unknown:
        raise DataError(
            f"{place}: expected classes {_list(expected)}, found {_list(found)}"
            f" (missing: {_list(missing)}; unknown: {_list(unknown)}); use data of the same classes"
        )


def _list(names: Sequence[str] | set[str]) -> str:
    ordered = sorted(names)
    rest = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return (", ".join(ordered[:_NAMED]) or "none") + rest


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}); check its permissions"
        ) from None
    return sorted(visible, key=lambda entry: entry.name)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(entry.name for entry in _entries(folder) if entry.is_dir())
    if len(names) < 2:
        found = f"only {names[0]}" if names else "no folder"
        raise DataError(f"{folder}: expected two or more classes as {LAYOUT}; found {found} in it")
    return names


def _list_split(folder: Path, classes: Sequence[str]) -> Split:
    paths: list[str] = []
    targets: list[int] = []
    for target, name in enumerate(classes):
        files = [
            entry.path
            for entry in _entries(folder / name)
            if Path(entry.name).suffix.lower() in SUFFIXES and entry.is_file()
        ]
        if not files:
            suffixes = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
            raise DataError(
                f"{folder / name}: expected images ({suffixes}) of the class {name!r}, found none;"
                " add some or remove the folder"
            )
        paths += files
        targets += [target] * len(files)
    return Split(paths, torch.tensor(targets))


def split_classes(
    targets: Tensor, portion: float, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Split the images of classes `[N]` in two, each class by itself; their numbers, ascending.

    A class of n images is shuffled and cut at `round(n * portion)`, with at least
    one image on each side. Without regard to classes, sorted images would be parted
    into different ones.
    """
    members = torch.split(torch.argsort(targets, stable=True), targets.bincount().tolist())
    first, second = [], []
    for numbers in members:
        shuffled = numbers[torch.randperm(len(numbers), generator=random)]
        cut = max(1, min(len(numbers) - 1, round(len(numbers) * portion)))
        first.append(shuffled[:cut])
        second.append(shuffled[cut:])
    return torch.cat(first).sort().values, torch.cat(second).sort().values
