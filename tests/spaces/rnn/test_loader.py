"""Segments for training, and evaluation that predicts every word once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darts_cli.engine.steps import evaluate
from darts_cli.engine.task import Batch
from darts_cli.runtime.ranks import Ranks
from darts_cli.spaces.rnn.language_model import TextOutput
from darts_cli.spaces.rnn.loader import IGNORED, EvaluationLoader, Lengths, SegmentLoader

PAPER = Lengths(segment=35, short_portion=0.05, spread=5.0)


def make_stream(words: int = 200, batch: int = 3, lengths: Lengths = PAPER) -> SegmentLoader:
    return SegmentLoader(torch.arange(words), batch, lengths=lengths, seed=0, purpose="train")


def test_rows_of_a_batch_go_on_from_segment_to_segment() -> None:
    loader = make_stream()
    batches = list(loader.batches(0))
    assert len(batches) == loader.steps(0)
    assert [batch.carries_hidden for batch in batches] == [False] + [True] * (len(batches) - 1)
    inputs = torch.cat([batch.inputs for batch in batches])
    # 199 words have a next one: three rows of 66.
    assert torch.equal(inputs, torch.arange(198).view(3, 66).t())
    for batch in batches:
        assert torch.equal(batch.targets, batch.inputs + 1)
        assert batch.lr_scale == len(batch.inputs) / 35


@given(st.integers(0, 50), st.integers(0, 20))
def test_an_epoch_resumed_at_any_step_is_the_same(epoch: int, start: int) -> None:
    loader = make_stream(2000)
    whole = list(loader.batches(epoch))
    start = min(start, len(whole))
    rest = list(loader.batches(epoch, start))
    assert len(rest) == len(whole) - start
    for one, other in zip(rest, whole[start:], strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert (one.carries_hidden, one.lr_scale) == (other.carries_hidden, other.lr_scale)


@given(st.integers(1, 500), st.integers(0, 1000))
def test_lengths_are_bounded_and_add_up(words: int, seed: int) -> None:
    drawn = PAPER.draw(words, torch.Generator().manual_seed(seed))
    assert sum(drawn) == words
    assert all(5 <= length <= 55 for length in drawn[:-1])
    assert 1 <= drawn[-1] <= 55


def test_lengths_are_35_or_17_without_a_spread_and_vary_as_published_with_one() -> None:
    plain = Lengths(segment=35, short_portion=0.05, spread=0.0)
    drawn = plain.draw(35 * 20_000, torch.Generator().manual_seed(0))[:-1]
    assert set(drawn) == {35, 17}
    assert drawn.count(17) / len(drawn) == pytest.approx(0.05, abs=0.006)
    spread = torch.tensor(
        Lengths(segment=35, short_portion=0.0, spread=5.0).draw(
            35 * 20_000, torch.Generator().manual_seed(0)
        )[:-1]
    ).double()
    # Cut down to whole words, which takes half a word on average.
    assert spread.mean().item() == pytest.approx(34.5, abs=0.2)
    assert spread.std().item() == pytest.approx(5.0, abs=0.2)


def test_epochs_are_cut_in_places_of_their_own() -> None:
    loader = make_stream(2000)
    cuts = {tuple(len(batch.inputs) for batch in loader.batches(epoch)) for epoch in range(4)}
    assert len(cuts) == 4


@given(st.integers(2, 300), st.integers(1, 400))
def test_evaluation_predicts_every_word_but_the_first_once(words: int, batch: int) -> None:
    loader = EvaluationLoader(torch.arange(words), batch)
    batches = list(loader.batches(0))
    assert len(batches) == loader.steps(0)
    targets = torch.cat([part.targets.flatten() for part in batches])
    predicted = targets[targets != IGNORED]
    assert torch.equal(predicted.sort().values, torch.arange(1, words))
    for part in batches:
        right = part.targets != IGNORED
        assert torch.equal(part.targets[right], part.inputs[right] + 1)


class Counting:
    """A model whose state counts the words it has read; its loss is that state."""

    metric_names = ("loss",)

    def __init__(self) -> None:
        self.network = torch.nn.Identity()

    def forward(self, batch: Batch, mixture: object) -> TextOutput:
        before = batch.hidden if batch.hidden is not None else torch.zeros(batch.inputs.shape[1])
        read = torch.arange(1, len(batch.inputs) + 1)[:, None] + before
        return TextOutput(nll_sum=read, states=read, dropped=read, hidden=read[-1])

    def metric_sums(self, output: TextOutput, batch: Batch) -> torch.Tensor:
        right = batch.targets != IGNORED
        return torch.stack([output.nll_sum[right].sum(), right.sum()])

    def summarize(self, means: dict[str, float]) -> dict[str, float]:
        return means


@pytest.mark.parametrize(("batch", "expected"), [(1, 1000.5), (2, 500.5), (2000, 1.0)])
def test_the_state_is_carried_through_an_evaluation(batch: int, expected: float) -> None:
    loader = EvaluationLoader(torch.arange(2001), batch)
    found, count = evaluate(Counting(), loader, {}, torch.device("cpu"))  # type: ignore[arg-type]
    assert found["loss"] == expected
    assert count == 2000


def test_the_columns_of_all_ranks_are_those_of_one() -> None:
    words = torch.arange(200)
    whole = list(make_stream(batch=5).batches(2))
    parts = [
        list(
            SegmentLoader(
                words, 5, lengths=PAPER, seed=0, purpose="train", ranks=Ranks(rank, 3)
            ).batches(2)
        )
        for rank in range(3)
    ]
    for batch, *own in zip(whole, *parts, strict=True):
        assert [part.weight for part in own] == [0.2, 0.4, 0.4]
        assert [part.lr_scale for part in own] == [batch.lr_scale] * 3
        assert torch.equal(torch.cat([part.inputs for part in own], dim=1), batch.inputs)
        assert torch.equal(torch.cat([part.targets for part in own], dim=1), batch.targets)


def test_ranks_share_the_columns_of_an_evaluation_and_some_may_have_none() -> None:
    words = torch.arange(50)
    alone = EvaluationLoader(words, 2)
    none, first, second = (EvaluationLoader(words, 2, Ranks(rank, 3)) for rank in range(3))
    assert list(none.batches(0)) == []
    joined = torch.cat([first.targets, second.targets], dim=1)
    assert torch.equal(joined, alone.targets)
