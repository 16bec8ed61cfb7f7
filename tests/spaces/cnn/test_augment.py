"""Augmentation, checked image by image against plain loops."""

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from darts_cli.config import ImageDataConfig
from darts_cli.engine.task import Batch
from darts_cli.errors import ConfigError, DataError
from darts_cli.spaces.cnn.augment import (
    Augmentation,
    ImageStream,
    Resident,
    Source,
    Streamed,
    Training,
    _leave_signals_to_parent,
    cut_out,
    normalise,
    prepare_photograph,
    shift,
)
from darts_cli.spaces.cnn.images import Split

few = settings(max_examples=25, deadline=None, derandomize=True)


def random_pixels(batch: int, channels: int, size: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, (batch, channels, size, size), generator=random, dtype=torch.uint8)


def photograph(mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


@few
@given(padding=st.integers(0, 5), channels=st.sampled_from([1, 3]), seed=st.integers(0, 1000))
def test_crops_and_flips_are_those_of_a_loop_over_images(
    padding: int, channels: int, seed: int
) -> None:
    images = random_pixels(6, channels, 7, seed)
    draws = Augmentation(padding=padding, flip=True, cutout=0).draw(
        6, 7, torch.Generator().manual_seed(seed)
    )

    shifted = shift(images, draws[:2], draws[2].bool(), padding)

    for image, result, (row, column, mirrored) in zip(
        images.numpy(), shifted.numpy(), draws[:3].T.tolist(), strict=True
    ):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        crop = padded[:, row : row + 7, column : column + 7]
        np.testing.assert_array_equal(result, crop[:, :, ::-1] if mirrored else crop)


def test_shifts_reach_both_ends_and_about_half_of_the_images_are_mirrored() -> None:
    draws = Augmentation(padding=2, flip=True, cutout=0).draw(
        1000, 8, torch.Generator().manual_seed(0)
    )

    assert set(draws[0].tolist()) == set(draws[1].tolist()) == {0, 1, 2, 3, 4}
    assert 400 < draws[2].sum() < 600
    assert set(draws[3].tolist()) == set(draws[4].tolist()) == set(range(8))


def test_what_lies_outside_of_a_shifted_image_is_black_before_normalisation() -> None:
    white = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
    corner = torch.tensor([[0], [0], [0], [0], [0]])
    mean, std = torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 0.25)

    image = Augmentation(padding=1, flip=False, cutout=0).apply(white, corner, mean, std)

    expected = torch.full((4, 4), 2.0)
    expected[0], expected[:, 0] = -2.0, -2.0
    torch.testing.assert_close(image[0, 0], expected)


def test_normalised_pixels_are_those_of_numpy() -> None:
    images = random_pixels(3, 3, 5)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])

    result = normalise(images, mean.reshape(3, 1, 1), std.reshape(3, 1, 1))

    expected = (images.numpy().transpose(0, 2, 3, 1) / 255 - mean.numpy()) / std.numpy()
    np.testing.assert_allclose(result.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)
    assert result.dtype == torch.float32


@few
@given(side=st.integers(1, 9), seed=st.integers(0, 1000))
def test_cutout_blanks_a_square_about_its_centre_clipped_at_the_borders(
    side: int, seed: int
) -> None:
    images = torch.ones(8, 2, 10, 10)
    centres = torch.randint(10, (2, 8), generator=torch.Generator().manual_seed(seed))

    blanked = cut_out(images, centres, side)

    for image, (row, column) in zip(blanked, centres.T.tolist(), strict=True):
        expected = torch.ones(2, 10, 10)
        top, left = row - side // 2, column - side // 2
        expected[:, max(0, top) : top + side, max(0, left) : left + side] = 0
        assert torch.equal(image, expected)


def test_cutout_fills_with_zero_after_normalisation() -> None:
    white = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    draws = torch.tensor([[0], [0], [0], [4], [4]])

    image = Augmentation(padding=0, flip=False, cutout=4).apply(
        white, draws, torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 0.5)
    )

    assert (image == 0).sum() == 16
    assert (image == 1).sum() == 48


def test_switching_one_augmentation_off_leaves_the_draws_of_the_others() -> None:
    on = Augmentation(padding=4, flip=True, cutout=3)
    off = Augmentation(padding=4, flip=False, cutout=0)

    first, second = (a.draw(5, 8, torch.Generator().manual_seed(7)) for a in (on, off))

    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("key", "config"),
    [
        ("cutout", ImageDataConfig(cutout=8)),
        ("crop_padding", ImageDataConfig(crop_padding=8)),
    ],
)
def test_augmentation_larger_than_the_images_names_the_setting_to_change(
    key: str, config: ImageDataConfig
) -> None:
    with pytest.raises(ConfigError) as error:
        Augmentation.of(config, 8)
    assert str(error.value) == (
        f"data.{key}: found 8, expected less than the images' size, 8; use --set data.{key}=N"
    )


def test_photographs_are_not_shifted_or_mirrored_a_second_time() -> None:
    config = ImageDataConfig(augmentation="imagenet", crop_padding=64, cutout=4)
    assert Augmentation.of(config, 32) == Augmentation(padding=0, flip=False, cutout=4)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_photograph_is_a_function_of_its_seed_alone(mode: str) -> None:
    before = torch.get_rng_state()
    image = photograph(mode)

    first, again, other = (
        prepare_photograph(image, 16, flip=True, seed=seed) for seed in (1, 1, 2)
    )

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (len(image.getbands()), 16, 16)
    assert first.dtype == torch.uint8
    assert torch.equal(torch.get_rng_state(), before)


def test_a_photograph_is_evaluated_at_the_centre_of_its_resized_self() -> None:
    image = photograph()

    result = prepare_photograph(image, 28, flip=True, seed=None)

    resized = np.asarray(image.resize((40, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(result.permute(1, 2, 0).numpy(), resized[2:30, 6:34])


def make_stream(
    images: int, batch_size: int, training: bool, seed: int = 0, source: Source | None = None
) -> ImageStream:
    augmentation = Augmentation(padding=1, flip=True, cutout=2)
    training_ = Training(seed=seed, purpose="test", augmentation=augmentation)
    return ImageStream(
        source=source or Resident(random_pixels(images, 3, 8), torch.arange(images)),
        indices=torch.arange(images),
        batch_size=batch_size,
        mean=torch.zeros(3, 1, 1),
        std=torch.ones(3, 1, 1),
        training=training_ if training else None,
    )


def make_photographs(split: Split, workers: int) -> Streamed:
    return Streamed(
        split=split,
        targets=split.targets,
        channels=3,
        size=16,
        photographs=True,
        flip=True,
        workers=workers,
    )


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        for a, b in zip(first, second, strict=True)
    )


@few
@given(images=st.integers(1, 20), batch_size=st.integers(2, 9))
def test_training_leaves_out_a_last_batch_of_one_image_and_evaluation_keeps_it(
    images: int, batch_size: int
) -> None:
    training = make_stream(images, batch_size, training=True)
    evaluation = make_stream(images, batch_size, training=False)

    trained = [len(batch.targets) for batch in training.batches(0)]
    evaluated = [len(batch.targets) for batch in evaluation.batches(0)]

    assert len(training) == len(trained)
    assert len(evaluation) == len(evaluated)
    assert sum(evaluated) == images
    assert sum(trained) == (images - 1 if images % batch_size == 1 else images)
    assert 1 not in trained


def test_an_epoch_holds_every_image_once_in_an_order_of_its_own() -> None:
    stream = make_stream(12, 5, training=True)

    first, second = (torch.cat([b.targets for b in stream.batches(e)]) for e in (0, 1))

    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(12))
    assert not torch.equal(first, second)


def test_batches_are_channels_last_single_precision_with_classes_as_int64() -> None:
    for training in (True, False):
        batch = next(make_stream(6, 4, training).batches(0))
        assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
        assert batch.inputs.shape == (4, 3, 8, 8)
        assert (batch.inputs.dtype, batch.targets.dtype) == (torch.float32, torch.int64)


@few
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
    source = replace(make_photographs(split, 0), photographs=False)
    assert isinstance(split.pictures, Tensor)
    resident = Resident(split.pictures, split.targets)
    streams = [make_stream(6, 4, training=True, source=s) for s in (source, resident)]
    assert same(list(streams[0].batches(0)), list(streams[1].batches(0)))


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
        _leave_signals_to_parent(0)
        assert [signal.getsignal(name) for name in names] == [signal.SIG_IGN] * 3
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)
