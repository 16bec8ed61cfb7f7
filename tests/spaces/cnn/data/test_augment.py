"""Augmentation, checked image by image against plain loops, and statistics against NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from darts_cli.config import ImageDataConfig
from darts_cli.errors import ConfigError
from darts_cli.spaces.cnn.data.augment import (
    Augmentation,
    compute_statistics,
    cut_out,
    normalise,
    prepare_photograph,
    shift,
)
from darts_cli.spaces.cnn.data.decode import decode_all
from darts_cli.spaces.cnn.data.folder import Split, find_images
from tests.spaces.cnn.pictures import FEW, make_classes, photograph, random_pixels


@FEW
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


@FEW
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


def test_statistics_are_those_of_numpy(tmp_path: Path) -> None:
    make_classes(tmp_path, count=90)
    train = find_images(tmp_path).splits["train"]

    mean, std = compute_statistics(train, (3, 8))

    pixels = decode_all(train, (3, 8)).double().numpy() / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-12)
    in_memory = Split(decode_all(train, (3, 8)), train.targets)
    assert compute_statistics(in_memory, (3, 8)) == (mean, std)


def test_the_deviation_of_a_constant_channel_is_one() -> None:
    split = Split(torch.full((4, 1, 8, 8), 51, dtype=torch.uint8), torch.zeros(4))
    assert compute_statistics(split, (1, 8)) == ((0.2,), (1.0,))
