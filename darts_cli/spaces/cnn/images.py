"""Finds the images of a folder and decodes them, all to the same channels and size."""

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor

from darts_cli.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
"""Files that count as images, whatever the case of the suffix."""

LAYOUT = "DIR/<class>/*.png, or DIR/train/<class>/*.png with DIR/val or DIR/test beside it"

_CHUNK = 128
_NAMED = 8
_BOMB = Image.DecompressionBombError
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, _BOMB)

T = TypeVar("T")

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

    def open(self, index: int, channels: int) -> Image.Image:
        """One image in its own size, grey (1 channel) or RGB (3).

        It is turned as its EXIF orientation says. Palettes and CMYK become RGB,
        16 bits of grey become 8, and what is transparent shows white.

        Raises:
            DataError: with the file's name, if it cannot be decoded.
        """
        if isinstance(self.pictures, Tensor):
            pixels = self.pictures[index].permute(1, 2, 0)
            pixels = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
            return _convert(Image.fromarray(pixels.numpy()), channels)
        path = self.pictures[index]
        try:
            with Image.open(path) as image:
                return _convert(image, channels)
        except _UNREADABLE as error:
            raise _unreadable(path, error) from None

    def decode(self, first: int, last: int, *, channels: int, size: int) -> Tensor:
        """The images `first` to `last`, the latter left out: uint8 `[N, C, S, S]`.

        The shorter side is resized to `size` (bicubic, antialiased) and the
        centre cut out; an image of that size is left as it is.

        Raises:
            DataError: with the file's name, if one cannot be decoded.
        """
        last = min(last, len(self))
        if isinstance(self.pictures, Tensor) and self.pictures.shape[1:] == (channels, size, size):
            return self.pictures[first:last]
        pixels = np.empty((last - first, size, size, channels), dtype=np.uint8)
        for row, index in enumerate(range(first, last)):
            image = self.open(index, channels)
            if image.size != (size, size):
                image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
            pixels[row] = np.asarray(image).reshape(size, size, channels)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


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


def find(folder: Path) -> Found:
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


def survey(split: Split, image_size: int | None) -> tuple[int, int]:
    """The channels and the size that all images of a split share, from their files' headers.

    Grey are the modes of PIL that have one channel of brightness; one other
    image makes all of them RGB.

    Raises:
        DataError: if sizes differ, or are not square, and no `image_size` is given;
            if a file is not an image.
    """
    if isinstance(split.pictures, Tensor):
        return split.pictures.shape[1], image_size or split.pictures.shape[-1]
    paths = split.pictures
    headers = [
        header
        for chunk in in_parallel(len(paths), lambda a, b: [_read_header(p) for p in paths[a:b]])
        for header in chunk
    ]
    channels = 1 if all(grey for _, grey in headers) else 3
    if image_size is not None:
        return channels, image_size
    size = headers[0][0]
    for path, (other, _) in zip(paths, headers, strict=True):
        if other != size:
            raise DataError(
                f"expected images of one size, found {_sides(size)} ({paths[0]}) and"
                f" {_sides(other)} ({path}); use --image-size N to resize them"
            )
    if size[0] != size[1]:
        raise DataError(
            f"expected square images, found {_sides(size)} ({paths[0]});"
            " use --image-size N to resize them and cut out their centres"
        )
    return channels, size[0]


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def decode_all(split: Split, *, channels: int, size: int) -> Tensor:
    """All images of a split, decoded in parallel: uint8 `[N, C, S, S]`.

    Raises:
        DataError: with the file's name, if one cannot be decoded.
    """
    pixels = torch.empty(len(split), channels, size, size, dtype=torch.uint8)

    def fill(first: int, last: int) -> None:
        pixels[first:last] = split.decode(first, last, channels=channels, size=size)

    list(in_parallel(len(split), fill))
    return pixels


def compute_statistics(split: Split, *, channels: int, size: int) -> Statistics:
    """Mean and standard deviation of each channel, of pixels from 0 to 1.

    They are exact up to one rounding, since pixels are counted by value; few images
    are in memory at a time. The deviation of a constant channel is given as 1, to divide by.

    Raises:
        DataError: with the file's name, if one cannot be decoded.
    """

    def count(first: int, last: int) -> list[npt.NDArray[np.int64]]:
        pixels = split.decode(first, last, channels=channels, size=size).numpy()
        return [np.bincount(pixels[:, c].ravel(), minlength=256) for c in range(channels)]

    chunks = list(in_parallel(len(split), count))
    mean, std = [], []
    for counts in np.sum(chunks, axis=0).tolist():
        number = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value**2 * count for value, count in enumerate(counts))
        mean.append(total / number / 255)
        std.append(((number * squares - total**2) / number**2) ** 0.5 / 255 or 1.0)
    return tuple(mean), tuple(std)


def in_parallel(count: int, work: Callable[[int, int], T]) -> Iterator[T]:
    """`work(first, last)` for all of `count` images a chunk at a time, in threads, in order."""
    starts = range(0, count, _CHUNK)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda first: work(first, first + _CHUNK), starts)


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


def _read_header(path: str) -> tuple[tuple[int, int], bool]:
    try:
        with Image.open(path) as image:
            return image.size, image.mode in {"1", "L", "LA"} or image.mode.startswith("I")
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def _convert(image: Image.Image, channels: int) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # PIL would clip 16 bits at 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("L" if channels == 1 else "RGB")


def _unreadable(path: str, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or str(error).replace(repr(path), "")
    return DataError(
        f"{path}: expected an image, found what cannot be decoded ({' '.join(reason.split())});"
        " replace or remove it"
    )
