"""From a text to batches of segments, side by side and one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from darts_cli.engine.task import Batch
from darts_cli.runtime.randomness import generator_for
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks

IGNORED = -100
"""The target of a place past the end of the text; torch's cross-entropy leaves it out."""

_LONGER = 20
"""A segment is at most this much longer than usual, so that memory has a bound."""

_SHORTEST = 5
"""Drawn segments are not shorter than this, nor than usual ones."""

_PREDICTIONS = 512
"""Words that evaluation predicts at once: enough for one large product with the decoder, few
enough for its logits to stay small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long segments are (Merity et al., 2018, section 5)."""

    segment: int
    """The usual length, in words."""
    short_portion: float
    """Share of the segments whose length is half of it."""
    spread: float
    """Standard deviation around these lengths; 0: none."""

    def draw(self, words: int, random: torch.Generator) -> list[int]:
        """Lengths of the segments of one epoch, which add up to `words`."""
        lengths = []
        while words:
            short = torch.rand((), generator=random).item() < self.short_portion
            length: float = max(1, self.segment // 2) if short else self.segment
            if self.spread:
                length += self.spread * torch.randn((), generator=random).item()
                length = max(length, min(_SHORTEST, self.segment))
            lengths.append(min(int(length), self.segment + _LONGER, words))
            words -= lengths[-1]
        return lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentLoader:
    """A text for training, cut into as many rows as a batch has; the few words left are left out.

    Rows are columns here: `[T, B]`, so that a segment is contiguous.
    """

    inputs: Tensor
    """Words, `[N, B]` on the device."""
    targets: Tensor
    """The word after each, `[N, B]`."""
    lengths: Lengths
    seed: int
    """The run's."""
    purpose: str
    """What is trained, so that the streams of a search draw different lengths."""
    share: float
    """Of all columns, those that this rank has."""
    min_rank_size: int
    """Columns of the rank that has fewest."""

    @classmethod
    def of(
        cls,
        words: Tensor,
        batch_size: int,
        *,
        lengths: Lengths,
        seed: int,
        purpose: str,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> "SegmentLoader":
        """Cut the numbers of words `[N]`, of which there have to be more than `batch_size`.

        Each rank has some of the columns.
        """
        rows, own = (len(words) - 1) // batch_size, ranks.shard(batch_size)
        inputs, targets = (
            part[: rows * batch_size].view(batch_size, rows)[own].t().contiguous()
            for part in (words, words[1:])
        )
        return cls(
            inputs=inputs,
            targets=targets,
            lengths=lengths,
            seed=seed,
            purpose=purpose,
            share=(own.stop - own.start) / batch_size,
            min_rank_size=batch_size // ranks.size,
        )

    def steps(self, epoch: int) -> int:
        """Segments in `epoch`, which differ in number as they do in length."""
        return len(self._cut(epoch))

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The segments of `epoch` from number `start` on: words and next words `[T, B]` each."""
        lengths = self._cut(epoch)
        place = sum(lengths[:start])
        for step, length in enumerate(lengths[start:], start):
            segment = slice(place, place + length)
            yield Batch(
                self.inputs[segment],
                self.targets[segment],
                carries_hidden=step > 0,
                lr_scale=length / self.lengths.segment,
                weight=self.share,
                min_rank_size=self.min_rank_size,
            )
            place += length

    def _cut(self, epoch: int) -> list[int]:
        random = generator_for(self.seed, f"{self.purpose} segments", epoch)
        return self.lengths.draw(len(self.inputs), random)


@dataclass(frozen=True, slots=True)
class EvaluationLoader:
    """A whole text in order: every word but the first is predicted once, whatever the batch size.

    Each row of the batch begins with a fresh state, which is all that the size changes.
    """

    inputs: Tensor
    """Words, `[N, B]` on the device."""
    targets: Tensor
    """The word after each; `IGNORED` past the end."""

    @classmethod
    def of(
        cls, words: Tensor, batch_size: int, ranks: Ranks = SINGLE_PROCESS
    ) -> "EvaluationLoader":
        """Cut the numbers of words `[N]`, of which there are two or more, into columns.

        Each rank has some of them: none, where there are fewer columns than ranks.
        """
        predictions = len(words) - 1
        batch_size = min(batch_size, predictions)
        rows, own = -(-predictions // batch_size), ranks.shard(batch_size)
        padding = rows * batch_size - predictions
        inputs, targets = (
            torch.nn.functional.pad(part, (0, padding), value=value)
            .view(batch_size, rows)[own]
            .t()
            .contiguous()
            for part, value in ((words[:-1], 0), (words[1:], IGNORED))
        )
        return cls(inputs, targets)

    @property
    def _length(self) -> int:
        return max(1, _PREDICTIONS // max(1, self.inputs.shape[1]))

    def steps(self, _epoch: int) -> int:
        """Batches of the text, on this rank."""
        return -(-len(self.inputs) // self._length) if self.inputs.shape[1] else 0

    def batches(self, _epoch: int, start: int = 0) -> Iterator[Batch]:
        """From number `start` on: words and next words, `[T, B]` each."""
        for step in range(start, self.steps(0)):
            part = slice(step * self._length, (step + 1) * self._length)
            yield Batch(self.inputs[part], self.targets[part], carries_hidden=step > 0)
