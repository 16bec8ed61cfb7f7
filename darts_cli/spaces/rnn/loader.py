"""Cut a text into columns side by side, and those into batches; stands on no other module here."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from darts_cli.engine.task import Batch
from darts_cli.runtime.randomness import generator_for
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks

# Target of a place past the end of the text; torch's cross-entropy ignores it by default.
IGNORED = -100

# Words that a segment may be longer than usual, so that memory has a bound.
_MAX_EXTRA = 20

# Words that a drawn segment has at least, unless usual ones are shorter.
_MIN_SEGMENT = 5

# Words that evaluation predicts at once: enough for one large product with the decoder, few enough
# for its logits to stay small.
_PREDICTIONS = 512


@dataclass(frozen=True, slots=True)
class Lengths:
    """Distribution of the segments' lengths (Merity et al., 2018, section 5)."""

    segment: int
    """Usual length in words."""
    short_portion: float
    """Share of the segments that have half of this length."""
    spread: float
    """Standard deviation around these lengths in words; 0: none."""

    def draw(self, words: int, random: torch.Generator) -> list[int]:
        """Draw the lengths of an epoch's segments, which add up to `words`."""
        lengths = []
        while words:
            # One draw or two a segment, in this order: a resumed run repeats them.
            short = torch.rand((), generator=random).item() < self.short_portion
            length: float = max(1, self.segment // 2) if short else self.segment
            if self.spread:
                length += self.spread * torch.randn((), generator=random).item()
                length = max(length, min(_MIN_SEGMENT, self.segment))
            lengths.append(min(int(length), self.segment + _MAX_EXTRA, words))
            words -= lengths[-1]
        return lengths


def _to_columns(words: Tensor, batch_size: int, ranks: Ranks) -> Tensor:
    """Cut words `[N * batch_size]` into columns, and return this rank's, `[N, B]`."""
    rows = words.view(batch_size, -1)[ranks.shard(batch_size)]  # [B, N]
    # Transposed in memory, so that a segment [T, B] is contiguous.
    return rows.t().contiguous()


class SegmentLoader:
    """Batches of a text for training: segments `[T, B]` of as many columns as a batch has."""

    def __init__(
        self,
        words: Tensor,
        batch_size: int,
        *,
        lengths: Lengths,
        seed: int,
        purpose: str,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        """Cut words into columns; the rest is left out.

        Args:
            words: int64 `[N]` on the device, N above `batch_size`.
            batch_size: Columns of all ranks together.
            lengths: Distribution of `T`.
            seed: Seed of the run.
            purpose: Name of what is trained, so that the loaders of a search draw different
                lengths.
            ranks: Ranks that share the columns.
        """
        self.lengths, self.seed, self.purpose = lengths, seed, purpose
        # The last word has no next one.
        used = (len(words) - 1) // batch_size * batch_size
        # Words and the word after each, int64 [N, B].
        self.inputs = _to_columns(words[:used], batch_size, ranks)
        self.targets = _to_columns(words[1 : used + 1], batch_size, ranks)
        # Share of all columns that this rank has, and columns of the rank that has fewest.
        self.share = self.inputs.shape[1] / batch_size
        self.min_rank_size = batch_size // ranks.size

    def steps(self, epoch: int) -> int:
        """Return the number of segments in `epoch`, which differs as their lengths do."""
        return len(self._cut(epoch))

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the segments of `epoch` from number `start` on: words and next words `[T, B]`."""
        # Drawn again for a resumed epoch, whose first segments are skipped.
        lengths = self._cut(epoch)
        first = sum(lengths[:start])
        for step, length in enumerate(lengths[start:], start):
            segment = slice(first, first + length)
            yield Batch(
                self.inputs[segment],
                self.targets[segment],
                carries_hidden=step > 0,
                # Short segments take smaller steps (Merity et al., 2018).
                lr_scale=length / self.lengths.segment,
                weight=self.share,
                min_rank_size=self.min_rank_size,
            )
            first += length

    def _cut(self, epoch: int) -> list[int]:
        random = generator_for(self.seed, f"{self.purpose} segments", epoch)
        return self.lengths.draw(len(self.inputs), random)


class EvaluationLoader:
    """Batches of a whole text in order, which predict every word but the first once.

    Each column begins with a fresh state, which is all that the batch size changes.
    """

    def __init__(self, words: Tensor, batch_size: int, ranks: Ranks = SINGLE_PROCESS) -> None:
        """Cut words, int64 `[N]` with N of 2 or more, into columns.

        A rank has no column where there are fewer columns than ranks.
        """
        predictions = len(words) - 1
        batch_size = min(batch_size, predictions)
        # Padded to a whole number of rows.
        padding = (0, -predictions % batch_size)
        inputs = torch.nn.functional.pad(words[:-1], padding, value=0)
        targets = torch.nn.functional.pad(words[1:], padding, value=IGNORED)
        # Words and the word after each, int64 [N, B]; `IGNORED` past the end.
        self.inputs = _to_columns(inputs, batch_size, ranks)
        self.targets = _to_columns(targets, batch_size, ranks)
        # Whole rows, and one at least; a rank without columns reads none of them.
        self._length = max(1, _PREDICTIONS // max(1, self.inputs.shape[1]))

    def steps(self, _epoch: int) -> int:
        """Return the number of batches on this rank."""
        return -(-len(self.inputs) // self._length) if self.inputs.shape[1] else 0

    def batches(self, _epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches from number `start` on: words and next words, `[T, B]`."""
        for step in range(start, self.steps(0)):
            segment = slice(step * self._length, (step + 1) * self._length)
            yield Batch(self.inputs[segment], self.targets[segment], carries_hidden=step > 0)
