"""The text of the recurrent space by name or folder, its splits and streams."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from darts_cli.config import TextDataConfig
from darts_cli.engine.task import DatasetInfo, Loaders
from darts_cli.errors import DataError
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks
from darts_cli.spaces.rnn import text
from darts_cli.spaces.rnn.info import TextInfo
from darts_cli.spaces.rnn.loader import EvaluationLoader, Lengths, SegmentLoader
from darts_cli.spaces.rnn.text import Lines

_DIGEST_BYTES = 16


class _Find(Protocol):
    def __call__(self, config: TextDataConfig, *, complete: bool) -> dict[str, Lines]: ...


def _find_corpus(config: TextDataConfig, *, complete: bool) -> dict[str, Lines]:
    folder = Path(config.root).expanduser() / config.name
    return text.find_folder(folder, config.name, complete=complete)


def _find_pydoc(config: TextDataConfig, *, complete: bool) -> dict[str, Lines]:  # noqa: ARG001
    return text.find_pydoc()


CORPORA: dict[str, _Find] = {
    "ptb": _find_corpus,
    "wikitext2": _find_corpus,
    "pydoc": _find_pydoc,
}
"""What `--data` knows by name; anything else is a folder."""


def _find_folder(config: TextDataConfig, *, complete: bool) -> dict[str, Lines]:
    return text.find_folder(Path(config.name).expanduser(), config.name, complete=complete)


def find(config: TextDataConfig, *, complete: bool) -> dict[str, Lines]:
    """The lines of each split of a text.

    Args:
        config: names the text.
        complete: whether all three splits have to be there.

    Raises:
        DataError: if the text is missing.
    """
    return CORPORA.get(config.name, _find_folder)(config, complete=complete)


def load(
    config: TextDataConfig,
    *,
    device: torch.device,
    search: bool,
    info: TextInfo | None = None,
    ranks: Ranks = SINGLE_PROCESS,
) -> "TextData":
    """Find a text, and number its words.

    Args:
        config: names the text.
        device: where the batches are wanted.
        search: whether the test text is left unread.
        info: of a checkpoint's text, whose vocabulary is used then; not all splits have to be
            there.
        ranks: of which each has its part of every batch.

    Raises:
        DataError: if the text is missing, damaged, too short, or has words that the
            vocabulary lacks.
    """
    new = info is None
    found = find(config, complete=new)
    if info is None:
        vocabulary = text.build_vocabulary(found["train"](), config.min_count)
        info = TextInfo(vocabulary=vocabulary)
    splits = {name: lines for name, lines in found.items() if not (search and name == "test")}
    loaded = TextData(info=info, config=config, device=device, splits=splits, ranks=ranks)
    if new:
        # A word that training would meet only hours later is better met now.
        for split in splits:
            loaded.read(split)
    return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class TextData:
    """The words of a run, numbered when they are first asked for."""

    info: TextInfo
    """What a checkpoint keeps."""
    config: TextDataConfig
    device: torch.device
    """Where the batches are wanted."""
    splits: dict[str, Lines]
    """The texts that may be read."""
    ranks: Ranks = SINGLE_PROCESS
    """Of whose batches this process reads its part."""
    numbered: dict[str, Tensor] = field(default_factory=dict)
    """Numbers of words, `[N]` on the CPU, of those that were."""

    def describe(self) -> DatasetInfo:
        """The vocabulary, as JSON values."""
        return asdict(self.info)

    @property
    def counts(self) -> Mapping[str, int]:
        """Words of each split."""
        return {split: len(self.read(split)) for split in self.splits}

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Digests of the texts that were read, as numbers of the vocabulary's words."""
        return {
            split: hashlib.blake2b(words.numpy().data, digest_size=_DIGEST_BYTES).hexdigest()
            for split, words in self.numbered.items()
        }

    def search_loaders(self, seed: int) -> Loaders:
        """The training text for the weights, the validation text for the alphas."""
        return Loaders(
            train=self._segments("train", "weights", seed),
            arch=self._segments("valid", "alphas", seed),
            eval=self.evaluation_loader("valid", self.config.evaluation_batch),
        )

    def train_loaders(self, seed: int) -> Loaders:
        """The training text for the weights; the validation text is watched."""
        return Loaders(
            train=self._segments("train", "train", seed),
            eval=self.evaluation_loader("valid", self.config.evaluation_batch),
        )

    def evaluation_loader(self, split: str, batch_size: int) -> EvaluationLoader:
        """A text in order.

        Raises:
            DataError: if there is no such split.
        """
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise DataError(
                f"{self.config.name}: found no split {split!r} to read; use one of {known}"
            )
        return EvaluationLoader.of(self.read(split).to(self.device), batch_size, self.ranks)

    def _segments(self, split: str, purpose: str, seed: int) -> SegmentLoader:
        config = self.config
        words, needed = self.read(split), config.batch_size * config.segment + 1
        if len(words) < needed:
            raise DataError(
                f"{config.name}, {split}: found {len(words):,} words, expected {needed:,} or more "
                f"for one batch of {config.batch_size} segments of {config.segment}; "
                "use more text, a smaller --batch-size or a smaller --set data.segment=N"
            )
        # The alphas' text is read in segments of the usual length, as published.
        varied = purpose != "alphas"
        lengths = Lengths(
            segment=config.segment,
            short_portion=config.short_portion if varied else 0.0,
            spread=config.segment_spread if varied else 0.0,
        )
        return SegmentLoader.of(
            words.to(self.device),
            config.batch_size,
            lengths=lengths,
            seed=seed,
            purpose=purpose,
            ranks=self.ranks,
        )

    def read(self, split: str) -> Tensor:
        """The numbers of a text's words, int64 `[N]` on the CPU.

        Raises:
            DataError: if the text is damaged, or has words that the vocabulary lacks.
        """
        if split not in self.numbered:
            what = f"{self.config.name}, {split}"
            self.numbered[split] = text.encode(self.splits[split](), self.info.vocabulary, what)
        return self.numbered[split]
