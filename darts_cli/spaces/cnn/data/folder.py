"""Find the image files of a folder by class and split, without opening any; stands on `info`."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from darts_cli.errors import DataError
from darts_cli.spaces.cnn.data.info import Statistics

# Files that count as images, whatever the case of the suffix.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})

LAYOUT = "DIR/<class>/*.png, or DIR/train/<class>/*.png with DIR/val or DIR/test beside it"

# Names of classes that an error lists before "and N more".
_MAX_LISTED = 8

_DIGEST_BYTES = 16

# Files whose content a fingerprint covers, evenly spaced: all of ImageNet would be 150 GB to read.
_FINGERPRINT_FILES = 1000


@dataclass(frozen=True, slots=True)
class Split:
    """Images and their classes: files that are not decoded yet, or pixels."""

    pictures: Sequence[str] | Tensor
    """Paths, or pixels, uint8 `[N, C, S, S]` in the CPU's memory."""
    targets: Tensor
    """Class of each image, int64 `[N]`."""

    def __len__(self) -> int:
        return len(self.pictures)

    def select(self, indices: Tensor) -> "Split":
        """Return the images with these indices, int64 `[M]`, in their order."""
        pictures = self.pictures
        if isinstance(pictures, Tensor):
            return Split(pictures[indices], self.targets[indices])
        return Split([pictures[i] for i in indices.tolist()], self.targets[indices])

    def fingerprint(self) -> str:
        """Return a digest of the pixels, or of all files' names and the content of some.

        It does not depend on where the folder is.

        Raises:
            DataError: with the file's name, if one cannot be read.
        """
        digest = hashlib.blake2b(self.targets.cpu().numpy().tobytes(), digest_size=_DIGEST_BYTES)
        if isinstance(self.pictures, Tensor):
            digest.update(repr(tuple(self.pictures.shape)).encode())
            digest.update(self.pictures.contiguous().numpy().data)
            return digest.hexdigest()
        for path in self.pictures:
            # Only class and file name, so that a moved or copied folder keeps its fingerprint.
            digest.update(b"\0" + os.fsencode("/".join(Path(path).parts[-2:])))
        # Rounded up, so that at most _FINGERPRINT_FILES files are read.
        stride = -(-len(self) // _FINGERPRINT_FILES)
        for path in self.pictures[::stride]:
            digest.update(hashlib.blake2b(read_bytes(path)).digest())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSplits:
    """Images of a data set by split, before they are decoded."""

    classes: tuple[str, ...]
    """Names in the order of the targets."""
    splits: dict[str, Split]
    """Splits that may be read; a search reads `train` only."""
    unread_counts: dict[str, int] = field(default_factory=dict)
    """Number of images in splits that may not be read; `splits` takes precedence."""
    statistics: Statistics | None = None
    """Published mean and standard deviation; None: to be computed."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of images in each split, readable or not."""
        return self.unread_counts | {name: len(split) for name, split in self.splits.items()}

    def check_counts(self, name: str, needed: int) -> None:
        """Check that each class has as many training images as are needed to split them.

        Raises:
            DataError: naming a class that has fewer.
        """
        # minlength: a last class without images counts 0.
        counts = torch.bincount(self.splits["train"].targets, minlength=len(self.classes))
        for label, number in zip(self.classes, counts.tolist(), strict=True):
            if number < needed:
                raise DataError(
                    f"{name}: expected {needed} or more training images of each class, to split "
                    f"them, found {number} of {label!r}; add images or remove the class"
                )

    def set_test_aside(self, portion: float, random: torch.Generator) -> "ImageSplits":
        """Make a test split of a portion of each class of the training images."""
        train = self.splits["train"]
        test, kept = split_classes(train.targets, portion, random)
        return replace(self, splits={"train": train.select(kept), "test": train.select(test)})

    def reorder(self, classes: Sequence[str], name: str) -> "ImageSplits":
        """Renumber the targets so that classes are in this order, which is a checkpoint's.

        Raises:
            DataError: if the classes are others.
        """
        check_classes(classes, self.classes, name)
        # [K]: position in `classes` of each class of this data set.
        new_index = torch.tensor([list(classes).index(known) for known in self.classes])
        splits = {n: Split(s.pictures, new_index[s.targets]) for n, s in self.splits.items()}
        return replace(self, classes=tuple(classes), splits=splits)


def find_images(folder: Path) -> ImageSplits:
    """List the images of a folder, its classes sorted by name, without opening any.

    `test/` is the test split and `val/` beside it `valid`; without `test/`, `val/` is the test
    split. Hidden files and folders, files without one of `SUFFIXES` and folders inside a class's
    folder are ignored.

    Raises:
        DataError: if the folder has another layout, a class is empty, or the splits have
            different classes.
    """
    places = {"train": folder}
    if (folder / "train").is_dir():
        folders = {entry.name for entry in _entries(folder) if entry.is_dir()}
        if unknown := folders - {"train", "val", "test"}:
            raise DataError(
                f"{folder}: expected val or test beside train, found {_join_names(unknown)};"
                " rename or move it"
            )
        others = {"test": "test", "valid": "val"} if "test" in folders else {"test": "val"}
        names = {"train": "train"} | others
        places = {split: folder / name for split, name in names.items() if name in folders}
    classes = _class_names(places["train"])
    if {"val", "test"} >= set(classes):
        raise DataError(
            f"{folder}: expected {LAYOUT}, found {_join_names(classes)} without train; add it"
        )
    for place in places.values():
        check_classes(classes, _class_names(place), str(place))
    splits = {name: _list_split(place, classes) for name, place in places.items()}
    return ImageSplits(classes=classes, splits=splits)


def check_classes(expected: Sequence[str], found: Sequence[str], place: str) -> None:
    """Compare the names of classes.

    Raises:
        DataError: naming the missing and the unknown ones.
    """
    missing, unknown = set(expected) - set(found), set(found) - set(expected)
    if missing or unknown:
        raise DataError(
            f"{place}: expected classes {_join_names(expected)}, found {_join_names(found)} "
            f"(missing: {_join_names(missing)}; unknown: {_join_names(unknown)}); "
            "use data of the same classes"
        )


def _join_names(names: Sequence[str] | set[str]) -> str:
    ordered = sorted(names)
    rest = f" and {len(ordered) - _MAX_LISTED} more" if len(ordered) > _MAX_LISTED else ""
    return (", ".join(ordered[:_MAX_LISTED]) or "none") + rest


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
    # Sorted by `_entries`, so that targets do not depend on the file system.
    names = tuple(entry.name for entry in _entries(folder) if entry.is_dir())
    if len(names) < 2:
        found = f"only {names[0]}" if names else "no folder"
        raise DataError(f"{folder}: expected two or more classes as {LAYOUT}; found {found} in it")
    return names


def _list_split(folder: Path, classes: Sequence[str]) -> Split:
    paths: list[str] = []
    counts = []
    for name in classes:
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
        counts.append(len(files))
    return Split(paths, torch.arange(len(classes)).repeat_interleave(torch.tensor(counts)))


def split_classes(
    targets: Tensor, portion: float, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Split images in two, class by class, so that both sides have every class.

    A class of n images is shuffled and cut at `round(n * portion)`, with at least one image on
    each side.

    Args:
        targets: Class of each image, int64 `[N]`.
        portion: Share of the first side.
        random: Generator of the shuffles.

    Returns:
        The indices of both sides, int64, ascending.
    """
    # Stable: the indices of a class stay ascending, so that equal seeds give equal splits.
    members = torch.split(torch.argsort(targets, stable=True), targets.bincount().tolist())
    first, second = [], []
    for indices in members:
        shuffled = indices[torch.randperm(len(indices), generator=random)]
        cut = max(1, min(len(indices) - 1, round(len(indices) * portion)))
        first.append(shuffled[:cut])
        second.append(shuffled[cut:])
    return torch.cat(first).sort().values, torch.cat(second).sort().values


def read_bytes(path: str) -> bytes:
    """Return the content of an image file.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: str, error: Exception, source: str = "") -> DataError:
    """Build the error of an image file that cannot be read or decoded.

    Args:
        path: The file.
        error: The reason.
        source: The name of the file within the error's text, which is left out.
    """
    reason = getattr(error, "strerror", None) or str(error).replace(source, "")
    return DataError(
        f"{path}: expected an image, found what cannot be decoded ({' '.join(reason.split())});"
        " replace or remove it"
    )
