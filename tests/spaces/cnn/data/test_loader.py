"""Batches of images: order, resume, workers."""

import signal
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from darts_cli.config import ImageDataConfig
from darts_cli.engine.task import Batch
from darts_cli.errors import DataError
from darts_cli.runtime.ranks import Ranks
from darts_cli.spaces.cnn.data import loader
from darts_cli.spaces.cnn.data.augment import Augmentation
from darts_cli.spaces.cnn.data.decode import init_worker
from darts_cli.spaces.cnn.data.folder import Split
from darts_cli.spaces.cnn.data.loader import (
    ImageLoader,
    InMemory,
    Source,
    Streamed,
    Training,
)
from tests.spaces.cnn.pictures import FEW, random_pixels


def make_stream(
    images: int, batch_size: int, training: bool, seed: int = 0, source: Source | None = None
) -> ImageLoader:
    augmentation = Augmentation(padding=1, flip=True, cutout=2)
    training_ = Training(seed=seed, purpose="test", augmentation=augmentation)
    return ImageLoader(
        source=source or InMemory(random_pixels(images, 3, 8), torch.arange(images)),
        indices=torch.arange(images),
        batch_size=batch_size,
        statistics=((0.0,) * 3, (1.0,) * 3),
        training=training_ if training else None,
    )


def make_photographs(split: Split, workers: int) -> Streamed:
    return Streamed(
        split=split,
        targets=split.targets,
        shape=(3, 16),
        config=ImageDataConfig(augmentation="imagenet", workers=workers),
    )


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        for a, b in zip(first, second, strict=True)
    )


@FEW
@given(images=st.integers(1, 20), batch_size=st.integers(2, 9))
def test_training_leaves_out_a_last_batch_of_one_image_and_evaluation_keeps_it(
    images: int, batch_size: int
) -> None:
    training = make_stream(images, batch_size, training=True)
    evaluation = make_stream(images, batch_size, training=False)

    trained = [len(batch.targets) for batch in training.batches(0)]
    evaluated = [len(batch.targets) for batch in evaluation.batches(0)]

    assert training.steps(0) == len(trained)
    assert evaluation.steps(0) == len(evaluated)
    assert sum(evaluated) == images
    assert sum(trained) == (images - 1 if images % batch_size == 1 else images)
    assert 1 not in trained


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own() -> None:
    loader = make_stream(12, 5, training=True)

    first, second = (torch.cat([b.targets for b in loader.batches(e)]) for e in (0, 1))

    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(12))
    assert not torch.equal(first, second)


def test_batches_are_channels_last_single_precision_with_classes_as_int64() -> None:
    for training in (True, False):
        batch = next(make_stream(6, 4, training).batches(0))
        assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
        assert batch.inputs.shape == (4, 3, 8, 8)
        assert (batch.inputs.dtype, batch.targets.dtype) == (torch.float32, torch.int64)


@FEW
@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000), start=st.integers(0, 6))
def test_batches_are_a_function_of_seed_epoch_and_number(seed: int, epoch: int, start: int) -> None:
    whole, rest = (
        list(make_stream(22, 4, training=True, seed=seed).batches(epoch, first))
        for first in (0, start)
    )
    assert len(whole) == 6
    assert same(whole[start:], rest)


def test_seeds_and_epochs_differ() -> None:
    first = list(make_stream(12, 4, training=True).batches(0))
    for seed, epoch in ((1, 0), (0, 1)):
        other = make_stream(12, 4, training=True, seed=seed).batches(epoch)
        assert not same(first, list(other))


def test_photographs_do_not_depend_on_the_number_of_workers() -> None:
    split = Split(random_pixels(7, 3, 24), torch.arange(7))
    alone, helped = (
        make_stream(7, 3, training=True, source=make_photographs(split, workers))
        for workers in (0, 2)
    )
    whole = list(alone.batches(1))
    assert [len(batch.targets) for batch in whole] == [3, 3]
    assert same(whole, list(helped.batches(1)))
    assert same(whole[1:], list(helped.batches(1, 1)))
    assert not same(whole, list(alone.batches(2)))


def test_pixels_in_memory_are_streamed_as_they_are() -> None:
    split = Split(random_pixels(6, 3, 16), torch.arange(6))
    source = replace(make_photographs(split, 0), config=ImageDataConfig(workers=0))
    assert isinstance(split.pictures, Tensor)
    resident = InMemory(split.pictures, split.targets)
    loader = [make_stream(6, 4, training=True, source=s) for s in (source, resident)]
    assert same(list(loader[0].batches(0)), list(loader[1].batches(0)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_met_while_streaming_is_one_line(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "x.png"
    path.write_text("no image")
    source = make_photographs(Split([str(path)] * 2, torch.arange(2)), workers)
    with pytest.raises(DataError) as error:
        list(make_stream(2, 2, training=True, source=source).batches(0))
    assert str(error.value) == (
        f"{path}: expected an image, found what cannot be decoded (cannot identify image file);"
        " replace or remove it"
    )


def test_workers_leave_signals_to_the_process_that_saves() -> None:
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(name) for name in names]
    try:
        init_worker(0)
        assert [signal.getsignal(name) for name in names] == [signal.SIG_IGN] * 3
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("workers", [0, None])
def test_the_parts_of_all_ranks_are_the_batches_of_one(training: bool, workers: int | None) -> None:
    source: Source | None = None
    if workers is not None:
        split = Split(random_pixels(23, 3, 20), torch.arange(23))
        source = make_photographs(split, workers)
    alone = make_stream(23, 6, training, source=source)
    whole = list(alone.batches(1))
    apart = [replace(alone, ranks=Ranks(rank, 3)) for rank in range(3)]
    if training:
        # The last five images are too few for three ranks, whose BatchNorm needs two each.
        assert [loader.steps(1) for loader in (alone, *apart)] == [4, 3, 3, 3]
        whole = whole[:3]
    parts = [list(loader.batches(1)) for loader in apart]
    assert [len(batches) for batches in parts] == [len(whole)] * 3
    for batch, *own in zip(whole, *parts, strict=True):
        assert sum(part.weight for part in own) == pytest.approx(1)
        assert torch.equal(torch.cat([part.inputs for part in own]), batch.inputs)
        assert torch.equal(torch.cat([part.targets for part in own]), batch.targets)


def test_a_rank_reads_nothing_where_there_are_fewer_images_than_ranks() -> None:
    loader = replace(make_stream(7, 6, training=False), ranks=Ranks(0, 3))
    # The seventh image is that of the last rank.
    assert [len(batch.targets) for batch in loader.batches(0)] == [2]
    last = replace(loader, ranks=Ranks(2, 3))
    assert [len(batch.targets) for batch in last.batches(0)] == [2, 1]


def test_a_batch_is_copied_to_cuda_while_the_one_before_is_worked_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    class Recorded:
        """A stream that notes what is asked of it."""

        def __init__(self, _device: object = None) -> None:
            self.events = 0

        def record_event(self) -> str:
            self.events += 1
            return f"copy {self.events}"

        def wait_event(self, event: str) -> None:
            log.append(f"wait for {event}")

    def send(pixels: Tensor, _device: torch.device) -> Tensor:
        log.append(f"send {pixels.item()}")
        return pixels

    present = Recorded()
    monkeypatch.setattr(torch.cuda, "Stream", Recorded)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: present)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: log.append("keep"))
    monkeypatch.setattr(loader, "_send", send)
    batches = (torch.tensor(number) for number in (1, 2, 3))
    ahead = loader.prefetch_to_device(batches, torch.device("cuda"))
    log.extend(f"work on {pixels.item()}" for pixels in ahead)
    assert log == [
        *("send 1", "send 2", "wait for copy 1", "keep", "work on 1"),
        *("send 3", "wait for copy 2", "keep", "work on 2"),
        *("wait for copy 3", "keep", "work on 3"),
    ]
