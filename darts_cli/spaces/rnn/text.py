"""Text as words: where it is found, its vocabulary, and the numbers of its words."""

import re
from array import array
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from darts_cli.errors import DataError

END_OF_LINE = "<eos>"
"""The word that every line ends with."""

UNKNOWN = "<unk>"
"""The word that stands for all that the vocabulary lacks."""

SPLITS = ("train", "valid", "test")

FILES = "train.txt, valid.txt and test.txt"

Lines = Callable[[], Iterator[list[str]]]
"""The words of each line, read anew at every call."""


def find_folder(folder: Path, name: str, *, complete: bool) -> dict[str, Lines]:
    """The files of a folder that are named after splits.

    Args:
        folder: Where they are.
        name: What the user calls it, for errors.
        complete: Whether all three have to be there, or just one.

    Raises:
        DataError: if the folder or what has to be in it is missing.
    """
    if not folder.is_dir():
        raise DataError(
            f"--data {name}: expected a folder with {FILES}, found no folder {folder}; "
            "put them there, give another folder, or use --data pydoc, which needs no files"
        )
    files = {split: folder / f"{split}.txt" for split in SPLITS}
    there = {split: _lines_of(path) for split, path in files.items() if path.is_file()}
    missing = [split for split in SPLITS if split not in there]
    if (complete and missing) or not there:
        raise DataError(
            f"--data {name}: expected a folder with {FILES}, found no {missing[0]}.txt in "
            f"{folder}; put it there"
        )
    return there


def _lines_of(path: Path) -> Lines:
    def read() -> Iterator[list[str]]:
        empty = True
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    # What some editors put before the first line is no part of a word.
                    text = line.removeprefix(BOM_UTF8) if number == 1 else line
                    words = _decode(text, path, number).split()
                    empty = empty and not words
                    yield [*words, END_OF_LINE]
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        if empty:
            raise DataError(f"{path}: found no words, expected text, one sentence a line")

    return read


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: found byte {line[error.start]:#04x}, expected UTF-8; "
            "convert the file, for instance with iconv"
        ) from None


def find_pydoc() -> dict[str, Lines]:
    """The topics of Python's own help: of every ten one is for validation and one a test."""
    from pydoc_data.topics import topics  # it is large, and only wanted here

    names = sorted(topics)
    places = {"valid": (8,), "test": (9,), "train": tuple(range(8))}

    def lines_of(split: str) -> Lines:
        def read() -> Iterator[list[str]]:
            for number, name in enumerate(names):
                if number % 10 in places[split]:
                    for line in topics[name].lower().splitlines():
                        words = re.findall(r"[a-z_]+|\d+|[^\w\s]", line)
                        if words:
                            yield [*words, END_OF_LINE]

        return read

    return {split: lines_of(split) for split in SPLITS}


def build_vocabulary(lines: Iterable[list[str]], min_count: int) -> tuple[str, ...]:
    """The words of a training text in the order in which they first appear.

    Args:
        lines: The words of each line.
        min_count: Words that are rarer become `<unk>`; 1: all are kept.
    """
    counts: Counter[str] = Counter()
    for words in lines:
        counts.update(words)
    kept = [word for word, count in counts.items() if count >= min_count]
    if min_count > 1 and UNKNOWN not in kept:
        kept.append(UNKNOWN)
    if END_OF_LINE not in kept:
        kept.append(END_OF_LINE)
    return tuple(kept)


def encode(lines: Iterable[list[str]], vocabulary: tuple[str, ...], what: str) -> Tensor:
    """The numbers of all words, int64 `[N]`.

    Args:
        lines: The words of each line.
        vocabulary: The words that have a number.
        what: Names the text, for errors.

    Raises:
        DataError: if a word is not in the vocabulary, and neither is `<unk>`.
    """
    numbers = {word: number for number, word in enumerate(vocabulary)}
    unknown = numbers.get(UNKNOWN)
    encoded = array("q")
    for line, words in enumerate(lines, start=1):
        for word in words:
            number = numbers.get(word, unknown)
            if number is None:
                raise DataError(
                    f"{what}, line {line}: found {word!r}, which is not in the vocabulary of the "
                    f"training text, and neither is {UNKNOWN}; train with --min-count 2, which "
                    "maps rare words to it"
                )
            encoded.append(number)
    return torch.from_numpy(np.array(encoded, dtype=np.int64))
