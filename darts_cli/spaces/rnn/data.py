"""Find the text of a run by name or folder, and make its loaders; stands on `text` and `loader`."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

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


# Texts that `--data` knows by name; any other name is a folder.
CORPORA = ("ptb", "wikitext2", "pydoc")


def find(config: TextDataConfig, *, complete: bool) -> dict[str, Lines]:
    """Find the lines of each split of a text.

    Args:
        config: Settings that name the text.
        complete: Whether all three splits have to exist.

    Raises:
        DataError: if the text is missing.
    """
    if config.name == "pydoc":
        return text.find_pydoc()
    folder = Path(config.root, config.name) if config.name in CORPORA else Path(config.name)
    return text.find_folder(folder.expanduser(), config.name, complete=complete)


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
        config: Settings that name the text.
        device: Device of the batches.
        search: Whether the test text is left unread.
        info: A checkpoint's, whose vocabulary is used; not all splits have to exist then.
        ranks: Ranks that share each batch.

    Raises:
        DataError: if the text is missing, damaged, too short, or has words that the vocabulary
            lacks.
    """
    is_new = info is None
    splits = find(config, complete=is_new)
    if info is None:
        info = TextInfo(vocabulary=text.build_vocabulary(splits["train"](), config.min_count))
    if search:
        splits.pop("test", None)
    loaded = TextData(info=info, config=config, device=device, splits=splits, ranks=ranks)
    if is_new:
        # Now rather than after hours of training, when an unknown word would come up.
        for split in splits:
            loaded.read(split)
    return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class TextData:
    """Words of a run, numbered when a loader first needs them."""

    info: TextInfo
    """Facts that a checkpoint keeps."""
    config: TextDataConfig
    """Settings of the data."""
    device: torch.device
    """Device of the batches."""
    splits: dict[str, Lines]
    """Texts that may be read."""
    ranks: Ranks = SINGLE_PROCESS
    """Ranks that share each batch."""
    encoded: dict[str, Tensor] = field(default_factory=dict)
    """Numbers of the words of the splits that were read, int64 `[N]` on the CPU."""

    def describe(self) -> DatasetInfo:
        """Return the vocabulary, as JSON values."""
        return asdict(self.info)

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of words in each split."""
        return {split: len(self.read(split)) for split in self.splits}

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Digests of the texts that were read, as numbers of the vocabulary's words."""
        return {
            split: hashlib.blake2b(words.numpy().data, digest_size=_DIGEST_BYTES).hexdigest()
            for split, words in self.encoded.items()
        }

    def search_loaders(self, seed: int) -> Loaders:
        """Train the weights on the training text, and the alphas on the validation text."""
        return Loaders(
            train=self._segments("train", "weights", seed),
            arch=self._segments("valid", "alphas", seed),
            eval=self.evaluation_loader("valid", self.config.evaluation_batch),
        )

    def train_loaders(self, seed: int) -> Loaders:
        """Train on the training text; evaluate the validation text."""
        return Loaders(
            train=self._segments("train", "train", seed),
            eval=self.evaluation_loader("valid", self.config.evaluation_batch),
        )

    def evaluation_loader(self, split: str, batch_size: int) -> EvaluationLoader:
        """Return the batches of a text in order.

        Raises:
            DataError: if there is no such split.
        """
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise DataError(
                f"{self.config.name}: found no split {split!r} to read; use one of {known}"
            )
        return EvaluationLoader(self.read(split).to(self.device), batch_size, self.ranks)

    def _segments(self, split: str, purpose: str, seed: int) -> SegmentLoader:
        """Return the batches of a text in segments.

        Raises:
            DataError: if the text is shorter than one batch.
        """
        config = self.config
        # One word more than the inputs: the last one has a target as well.
        words, needed = self.read(split), config.batch_size * config.segment + 1
        if len(words) < needed:
            raise DataError(
                f"{config.name}, {split}: found {len(words):,} words, expected {needed:,} or more "
                f"for one batch of {config.batch_size} segments of {config.segment}; "
                "use more text, a smaller --batch-size or a smaller --set data.segment=N"
            )
        # The published search reads the alphas' text in segments of the usual length.
        varied = (
            (0.0, 0.0) if purpose == "alphas" else (config.short_portion, config.segment_spread)
        )
        return SegmentLoader(
            words.to(self.device),
            config.batch_size,
            lengths=Lengths(config.segment, *varied),
            seed=seed,
            purpose=purpose,
            ranks=self.ranks,
        )

    def read(self, split: str) -> Tensor:
        """Return the numbers of a text's words, int64 `[N]` on the CPU.

        Raises:
            DataError: if the text is damaged, or has words that the vocabulary lacks.
        """
        if split not in self.encoded:
            name = f"{self.config.name}, {split}"
            self.encoded[split] = text.encode(self.splits[split](), self.info.vocabulary, name)
        return self.encoded[split]
