"""What image files become: channels, sizes and pixels; and what is said of damage."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darts_cli.errors import DataError
from darts_cli.spaces.cnn.data import cache, decode
from darts_cli.spaces.cnn.data.folder import Split
from tests.spaces.cnn.pictures import one, save


def test_sizes_that_differ_are_named_with_two_files(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a.png"), save(tmp_path / "b.png", (12, 10))
    split = Split([str(first), str(second)], torch.zeros(2, dtype=torch.long))
    with pytest.raises(DataError) as error:
        decode.read_shape(split, None)
    assert str(error.value) == (
        f"expected images of one size, found 8x8 ({first}) and 12x10 ({second});"
        " use --image-size N to resize them"
    )
    assert decode.read_shape(split, 16) == (3, 16)


def test_images_that_are_not_square_need_a_size(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", (12, 10))
    with pytest.raises(DataError) as error:
        decode.read_shape(one(path), None)
    assert str(error.value) == (
        f"expected square images, found 12x10 ({path});"
        " use --image-size N to resize them and cut out their centres"
    )


@pytest.mark.parametrize(
    ("modes", "channels"),
    [(["L", "1", "I;16", "LA"], 1), (["L", "RGB"], 3), (["P"], 3), (["RGBA"], 3)],
)
def test_images_are_grey_only_if_all_of_them_are(
    tmp_path: Path, modes: list[str], channels: int
) -> None:
    paths = []
    for i, mode in enumerate(modes):
        path = tmp_path / f"{i}.png"
        Image.new(mode, (8, 8)).save(path)
        paths.append(str(path))
    split = Split(paths, torch.zeros(len(paths), dtype=torch.long))
    assert decode.read_shape(split, None) == (channels, 8)


@pytest.mark.parametrize(
    ("mode", "colour", "channels", "expected"),
    [
        ("L", 100, 1, [100]),
        ("L", 100, 3, [100, 100, 100]),
        ("1", 1, 1, [255]),
        ("I;16", 0x64FF, 1, [0x64]),
        ("LA", (100, 0), 1, [255]),
        ("RGBA", (10, 20, 30, 255), 3, [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), 3, [255, 255, 255]),
        ("RGB", (100, 100, 100), 1, [100]),
    ],
)
def test_modes_become_grey_or_rgb_and_transparency_white(
    tmp_path: Path, mode: str, colour: int, channels: int, expected: list[int]
) -> None:
    path = tmp_path / "x.png"
    Image.new(mode, (8, 8), colour).save(path)

    pixels = decode.decode_all(one(path), (channels, 8))

    assert pixels.shape == (1, channels, 8, 8)
    assert pixels[0, :, 3, 5].tolist() == expected


def test_palettes_and_cmyk_become_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    red.quantize(4).save(tmp_path / "palette.png")
    red.convert("CMYK").save(tmp_path / "cmyk.jpg")
    for name in ("palette.png", "cmyk.jpg"):
        pixels = decode.decode_all(one(tmp_path / name), (3, 8))
        np.testing.assert_allclose(pixels[0, :, 0, 0], [255, 0, 0], atol=3)


def test_an_image_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), dtype=np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)

    decoded = decode.decode_all(one(tmp_path / "x.png"), (1, 8))

    np.testing.assert_array_equal(decoded[0, 0], pixels[::-1, ::-1])


def test_the_shorter_side_is_resized_and_the_centre_cut_out(tmp_path: Path) -> None:
    halves = np.zeros((32, 64), dtype=np.uint8)
    halves[:, 32:] = 200
    Image.fromarray(halves).save(tmp_path / "x.png")

    decoded = decode.decode_all(one(tmp_path / "x.png"), (1, 8))

    # Each pixel averages 4; the bicubic filter overshoots beside the edge only.
    assert decoded.shape == (1, 1, 8, 8)
    assert torch.all(decoded[..., :2] == 0)
    assert torch.all(decoded[..., 6:] == 200)


def test_an_image_of_the_right_size_is_not_resampled(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png")
    expected = np.asarray(Image.open(path)).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode.decode_all(one(path), (3, 8))[0], expected)


def test_pixels_in_memory_are_resized_and_recoloured_like_files(tmp_path: Path) -> None:
    for mode, channels in (("L", 1), ("RGB", 3)):
        path = save(tmp_path / f"{mode}.png", mode=mode)
        split = Split(decode.decode_all(one(path), (channels, 8)), torch.zeros(1))
        for size, wanted in ((8, 1), (8, 3), (12, 1), (12, 3)):
            assert torch.equal(
                decode.decode_all(split, (wanted, size)),
                decode.decode_all(one(path), (wanted, size)),
            )


def test_many_files_are_decoded_in_their_order(tmp_path: Path) -> None:
    paths = []
    for value in range(200):
        paths.append(str(tmp_path / f"{value}.bmp"))
        Image.new("L", (2, 2), value).save(paths[-1])
    paths = paths[1::2] + paths[::2]
    pixels = decode.decode_all(Split(paths, torch.zeros(200)), (1, 2))
    assert pixels[:, 0, 1, 1].tolist() == [int(Path(p).stem) for p in paths]


@pytest.mark.parametrize("modes", [["L", "1", "I;16", "LA"], ["L", "RGB", "P"], ["RGBA", "L"]])
@pytest.mark.parametrize("image_size", [None, 6, 8])
@pytest.mark.parametrize("shape", [None, (1, 8), (3, 5)])
def test_reading_every_file_once_is_surveying_and_decoding(
    tmp_path: Path, modes: list[str], image_size: int | None, shape: tuple[int, int] | None
) -> None:
    paths = [str(save(tmp_path / f"{i}.png", mode=m, seed=i)) for i, m in enumerate(modes)]
    split = Split(paths, torch.zeros(len(paths)))
    channels, size = shape or decode.read_shape(split, image_size)

    pixels, digest = cache.decode_files(paths, shape, image_size)

    expected = decode.decode_all(split, (channels, size))
    assert torch.equal(pixels, expected)
    assert digest == cache.digest_files(paths)


@pytest.fixture
def in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files at a time, so that a few are several chunks."""
    monkeypatch.setattr(decode, "CHUNK", 2)


@pytest.mark.usefixtures("in_chunks")
@pytest.mark.parametrize("modes", [["L"] * 7, ["L", "L", "1", "L", "RGB"], ["RGB", "L", "L"]])
def test_files_are_read_in_their_order_by_many_processes(tmp_path: Path, modes: list[str]) -> None:
    paths = [str(save(tmp_path / f"{i}.png", mode=m, seed=i)) for i, m in enumerate(modes)]
    pixels, digest = cache.decode_files(paths, None, None)
    shape = pixels.shape[1], pixels.shape[2]
    one_by_one = [cache.decode_files([path], shape, None)[0] for path in paths]
    assert torch.equal(pixels, torch.cat(one_by_one))
    assert pixels.shape[1] == (3 if "RGB" in modes else 1)
    assert digest == cache.digest_files(paths)
    assert digest != cache.digest_files(paths[::-1])


@pytest.mark.usefixtures("in_chunks")
def test_what_is_wrong_with_a_later_file_is_told(tmp_path: Path) -> None:
    paths = [str(save(tmp_path / f"{i}.png")) for i in range(6)]
    save(Path(paths[5]), (8, 9))
    with pytest.raises(DataError, match=r"found 8x8 \(.*0\.png\) and 8x9 \(.*5\.png\)"):
        cache.decode_files(paths, None, None)
    Path(paths[3]).write_text("no image")
    for shape in (None, (3, 8)):
        with pytest.raises(DataError, match=r"3\.png: expected an image"):
            cache.decode_files(paths, shape, None)


@pytest.mark.parametrize("sizes", [[(8, 8), (12, 10)], [(12, 10)], [(10, 12), (8, 8)]])
def test_reading_every_file_once_refuses_sizes_as_the_survey_does(
    tmp_path: Path, sizes: Sequence[tuple[int, int]]
) -> None:
    paths = [str(save(tmp_path / f"{i}.png", size)) for i, size in enumerate(sizes)]
    with pytest.raises(DataError) as expected:
        decode.read_shape(Split(paths, torch.zeros(len(paths))), None)
    with pytest.raises(DataError) as error:
        cache.decode_files(paths, None, None)
    assert str(error.value) == str(expected.value)


@pytest.mark.parametrize("damage", ["text", "truncated", "missing"])
def test_a_damaged_image_is_named(tmp_path: Path, damage: str) -> None:
    path = save(tmp_path / "x.png", (64, 64))
    if damage == "text":
        path.write_text("this is no image")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:900])
    else:
        path.unlink()
    reason = {
        "text": "cannot identify image file",
        "truncated": "image file is truncated",
        "missing": "No such file or directory",
    }[damage]
    with pytest.raises(DataError) as error:
        decode.decode_all(one(path), (3, 64))
    assert str(error.value) == (
        f"{path}: expected an image, found what cannot be decoded ({reason}); replace or remove it"
    )
    with pytest.raises(DataError) as again:
        cache.decode_files([str(path)], (3, 64), None)
    assert str(again.value) == str(error.value)
    if damage != "truncated":
        with pytest.raises(DataError, match=r"x\.png: expected an image"):
            decode.read_shape(one(path), None)
