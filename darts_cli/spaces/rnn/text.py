"""Read a text as words, and number them by a vocabulary; stands on no other module here."""

import re
from array import array
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from darts_cli.errors import DataError

# Word that every line ends with.
END_OF_LINE = "<eos>"

# Word that stands for all that the vocabulary lacks.
UNKNOWN = "<unk>"

SPLITS = ("train", "valid", "test")

FILES = "train.txt, valid.txt and test.txt"

# Words of each line, read anew at every call, so that no text has to stay in memory.
Lines = Callable[[], Iterator[list[str]]]

# Every ten topics of Python's help, in the order of their names: 8 train, 1 validates, 1 tests.
_PYDOC_TOPICS = {"train": range(8), "valid": range(8, 9), "test": range(9, 10)}


def find_folder(folder: Path, name: str, *, complete: bool) -> dict[str, Lines]:
    """Find the files of a folder that are named after splits.

    Args:
        folder: The folder.
        name: Its name as the user gave it, for errors.
        complete: Whether all three files have to exist, or just one.

    Returns:
        The lines of each split that has a file.

    Raises:
        DataError: if the folder or a file is missing.
    """
    if not folder.is_dir():
        raise DataError(
            f"--data {name}: expected a folder with {FILES}, found no folder {folder}; "
            "put them there, give another folder, or use --data pydoc, which needs no files"
        )
    files = {split: folder / f"{split}.txt" for split in SPLITS}
    found = {split: _lines_of(path) for split, path in files.items() if path.is_file()}
    missing = [split for split in SPLITS if split not in found]
    if (complete and missing) or not found:
        raise DataError(
            f"--data {name}: expected a folder with {FILES}, found no {missing[0]}.txt in "
            f"{folder}; put it there"
        )
    return found


def _lines_of(path: Path) -> Lines:
    def read() -> Iterator[list[str]]:
        # A text of blank lines alone is an error, found at its end.
        empty = True
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    # Some editors put a byte order mark before the first line.
                    text = line.removeprefix(BOM_UTF8) if number == 1 else line
                    words = text.decode("utf-8").split()
                    empty = empty and not words
                    yield [*words, END_OF_LINE]
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {number}: found byte {error.object[error.start]:#04x}, expected"
                " UTF-8; convert the file, for instance with iconv"
            ) from None
        if empty:
            raise DataError(f"{path}: found no words, expected text, one sentence a line")

    return read


def find_pydoc() -> dict[str, Lines]:
    """Return the lines of the topics of Python's own help, split by topic."""
    # Imported here, since it is large and rarely used.
    from pydoc_data.topics import topics

    names = sorted(topics)

    def read(split: str) -> Iterator[list[str]]:
        for number, name in enumerate(names):
            if number % 10 in _PYDOC_TOPICS[split]:
                for line in topics[name].lower().splitlines():
                    if words := re.findall(r"[a-z_]+|\d+|[^\w\s]", line):
                        yield [*words, END_OF_LINE]

    return {split: partial(read, split) for split in SPLITS}


def build_vocabulary(lines: Iterable[list[str]], min_count: int) -> tuple[str, ...]:
    """Return the different words of a training text in the order in which they first appear.

    Args:
        lines: The words of each line.
        min_count: Words that are rarer become `<unk>`; 1: all are kept.
    """
    # A Counter keeps the order in which words are first counted.
    counts: Counter[str] = Counter()
    for words in lines:
        counts.update(words)
    kept = [word for word, count in counts.items() if count >= min_count]
    if min_count > 1 and UNKNOWN not in kept:
        kept.append(UNKNOWN)
    # A short text may have fewer lines than min_count.
    if END_OF_LINE not in kept:
        kept.append(END_OF_LINE)
    return tuple(kept)


def encode(lines: Iterable[list[str]], vocabulary: tuple[str, ...], name: str) -> Tensor:
    """Return the numbers of all words, int64 `[N]`.

    Args:
        lines: The words of each line.
        vocabulary: The words in the order of their numbers.
        name: Name of the text, for errors.

    Raises:
        DataError: if a word is not in the vocabulary, and neither is `<unk>`.
    """
    numbers = {word: number for number, word in enumerate(vocabulary)}
    unknown = numbers.get(UNKNOWN)
    # 8 bytes a word; a list of Python's integers would take several times as many.
    encoded = array("q")
    for line, words in enumerate(lines, start=1):
        for word in words:
            number = numbers.get(word, unknown)
            if number is None:
                raise DataError(
                    f"{name}, line {line}: found {word!r}, which is not in the vocabulary of the "
                    f"training text, and neither is {UNKNOWN}; train with --min-count 2, which "
                    "maps rare words to it"
                )
            encoded.append(number)
    return torch.from_numpy(np.array(encoded, dtype=np.int64))
