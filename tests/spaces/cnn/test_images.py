"""Folders of images: what is found in them, how it is decoded, and what is said of mistakes."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from darts_cli.errors import DataError
from darts_cli.spaces.cnn import images
from darts_cli.spaces.cnn.images import Split

few = settings(max_examples=25, deadline=None, derandomize=True)


def save(path: Path, size: tuple[int, int] = (8, 8), mode: str = "RGB", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def make_classes(folder: Path, names: Sequence[str] = ("cat", "dog"), count: int = 2) -> None:
    for name in names:
        for i in range(count):
            save(folder / name / f"{i}.png", seed=i)


def one(path: Path) -> Split:
    return Split([str(path)], torch.zeros(1, dtype=torch.long))


def paths_of(split: Split) -> Sequence[str]:
    assert not isinstance(split.pictures, Tensor)
    return split.pictures


def message(folder: Path) -> str:
    with pytest.raises(DataError) as error:
        images.find(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_classes_and_files_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    make_classes(tmp_path, ["b", "a", "C"])

    found = images.find(tmp_path)

    assert found.classes == ("C", "a", "b")
    train = found.splits["train"]
    assert [str(Path(p).relative_to(tmp_path)) for p in paths_of(train)] == [
        "C/0.png", "C/1.png", "a/0.png", "a/1.png", "b/0.png", "b/1.png"
    ]  # fmt: skip
    assert train.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.counts == {"train": 6}


@pytest.mark.parametrize(
    ("folders", "roles"),
    [
        (["train"], {"train": "train"}),
        (["train", "val"], {"train": "train", "test": "val"}),
        (["train", "test"], {"train": "train", "test": "test"}),
        (["train", "val", "test"], {"train": "train", "valid": "val", "test": "test"}),
    ],
)
def test_val_tests_where_there_is_no_test_and_validates_where_there_is(
    tmp_path: Path, folders: list[str], roles: dict[str, str]
) -> None:
    for name in folders:
        make_classes(tmp_path / name)

    splits = images.find(tmp_path).splits

    assert {
        split: Path(paths_of(files)[0]).relative_to(tmp_path).parts[0]
        for split, files in splits.items()
    } == roles


def test_hidden_files_other_suffixes_and_deeper_folders_are_passed_over(tmp_path: Path) -> None:
    make_classes(tmp_path, count=1)
    for name in ("A.PNG", "b.Jpg", "c.JPEG", "d.bmp", "e.webp"):
        save(tmp_path / "cat" / name)
    save(tmp_path / "cat" / ".hidden.png")
    save(tmp_path / "cat" / "deeper" / "x.png")
    save(tmp_path / ".cache" / "x.png")
    (tmp_path / "cat" / "notes.txt").write_text("none")
    (tmp_path / "README").write_text("none")

    found = images.find(tmp_path)

    assert found.classes == ("cat", "dog")
    names = [Path(p).name for p in paths_of(found.splits["train"])]
    assert names == ["0.png", "A.PNG", "b.Jpg", "c.JPEG", "d.bmp", "e.webp", "0.png"]


def test_a_folder_with_no_class_or_only_one_is_told_the_layout(tmp_path: Path) -> None:
    expected = (
        f"{tmp_path}: expected two or more classes as DIR/<class>/*.png, or DIR/train/<class>/*.png"
        " with DIR/val or DIR/test beside it; found "
    )
    assert message(tmp_path) == expected + "no folder in it"
    make_classes(tmp_path, ["cat"])
    assert message(tmp_path) == expected + "only cat in it"


def test_val_and_test_without_train_are_not_taken_for_classes(tmp_path: Path) -> None:
    make_classes(tmp_path, ["val", "test"])
    assert message(tmp_path).endswith("found test, val without train; add it")


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    make_classes(tmp_path)
    (tmp_path / "empty").mkdir()
    assert message(tmp_path) == (
        f"{tmp_path / 'empty'}: expected images (bmp, jpeg, jpg, png, webp) of the class 'empty',"
        " found none; add some or remove the folder"
    )


def test_a_split_of_other_classes_is_told_which_differ(tmp_path: Path) -> None:
    make_classes(tmp_path / "train")
    make_classes(tmp_path / "val", ["cat", "cow"])
    assert message(tmp_path) == (
        f"{tmp_path / 'val'}: expected classes cat, dog, found cat, cow"
        " (missing: dog; unknown: cow); use data of the same classes"
    )


def test_long_lists_of_classes_are_cut_short() -> None:
    names = [f"{i:02}" for i in range(12)]
    with pytest.raises(DataError, match=r"expected classes 00, .*, 07 and 4 more, found 00"):
        images.check_classes(names, names[:1], "x")


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    expected = f"{tmp_path}: cannot be listed (Permission denied); check its permissions"
    assert message(tmp_path) == expected


def test_sizes_that_differ_are_named_with_two_files(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a.png"), save(tmp_path / "b.png", (12, 10))
    split = Split([str(first), str(second)], torch.zeros(2, dtype=torch.long))
    with pytest.raises(DataError) as error:
        images.survey(split, None)
    assert str(error.value) == (
        f"expected images of one size, found 8x8 ({first}) and 12x10 ({second});"
        " use --image-size N to resize them"
    )
    assert images.survey(split, 16) == (3, 16)


def test_images_that_are_not_square_need_a_size(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", (12, 10))
    with pytest.raises(DataError) as error:
        images.survey(one(path), None)
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
    assert images.survey(split, None) == (channels, 8)


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

    pixels = images.decode_all(one(path), channels=channels, size=8)

    assert pixels.shape == (1, channels, 8, 8)
    assert pixels[0, :, 3, 5].tolist() == expected


def test_palettes_and_cmyk_become_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    red.quantize(4).save(tmp_path / "palette.png")
    red.convert("CMYK").save(tmp_path / "cmyk.jpg")
    for name in ("palette.png", "cmyk.jpg"):
        pixels = images.decode_all(one(tmp_path / name), channels=3, size=8)
        np.testing.assert_allclose(pixels[0, :, 0, 0], [255, 0, 0], atol=3)


def test_an_image_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), dtype=np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)

    decoded = images.decode_all(one(tmp_path / "x.png"), channels=1, size=8)

    np.testing.assert_array_equal(decoded[0, 0], pixels[::-1, ::-1])


def test_the_shorter_side_is_resized_and_the_centre_cut_out(tmp_path: Path) -> None:
    halves = np.zeros((32, 64), dtype=np.uint8)
    halves[:, 32:] = 200
    Image.fromarray(halves).save(tmp_path / "x.png")

    decoded = images.decode_all(one(tmp_path / "x.png"), channels=1, size=8)

    # Each pixel averages 4; the bicubic filter overshoots beside the edge only.
    assert decoded.shape == (1, 1, 8, 8)
    assert torch.all(decoded[..., :2] == 0)
    assert torch.all(decoded[..., 6:] == 200)


def test_an_image_of_the_right_size_is_not_resampled(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png")
    expected = np.asarray(Image.open(path)).transpose(2, 0, 1)
    np.testing.assert_array_equal(images.decode_all(one(path), channels=3, size=8)[0], expected)


def test_pixels_in_memory_are_resized_and_recoloured_like_files(tmp_path: Path) -> None:
    for mode, channels in (("L", 1), ("RGB", 3)):
        path = save(tmp_path / f"{mode}.png", mode=mode)
        split = Split(images.decode_all(one(path), channels=channels, size=8), torch.zeros(1))
        for size, wanted in ((8, 1), (8, 3), (12, 1), (12, 3)):
            assert torch.equal(
                images.decode_all(split, channels=wanted, size=size),
                images.decode_all(one(path), channels=wanted, size=size),
            )


def test_many_files_are_decoded_in_their_order(tmp_path: Path) -> None:
    paths = []
    for value in range(200):
        paths.append(str(tmp_path / f"{value}.bmp"))
        Image.new("L", (2, 2), value).save(paths[-1])
    paths = paths[1::2] + paths[::2]
    pixels = images.decode_all(Split(paths, torch.zeros(200)), channels=1, size=2)
    assert pixels[:, 0, 1, 1].tolist() == [int(Path(p).stem) for p in paths]


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
        images.decode_all(one(path), channels=3, size=64)
    assert str(error.value) == (
        f"{path}: expected an image, found what cannot be decoded ({reason}); replace or remove it"
    )
    if damage != "truncated":
        with pytest.raises(DataError, match=r"x\.png: expected an image"):
            images.survey(one(path), None)


def test_statistics_are_those_of_numpy(tmp_path: Path) -> None:
    make_classes(tmp_path, count=90)
    train = images.find(tmp_path).splits["train"]

    mean, std = images.compute_statistics(train, channels=3, size=8)

    pixels = images.decode_all(train, channels=3, size=8).double().numpy() / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-12)
    in_memory = Split(images.decode_all(train, channels=3, size=8), train.targets)
    assert images.compute_statistics(in_memory, channels=3, size=8) == (mean, std)


def test_the_deviation_of_a_constant_channel_is_one() -> None:
    split = Split(torch.full((4, 1, 8, 8), 51, dtype=torch.uint8), torch.zeros(4))
    assert images.compute_statistics(split, channels=1, size=8) == ((0.2,), (1.0,))


@few
@given(
    counts=st.lists(st.integers(2, 12), min_size=1, max_size=5),
    portion=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_classes_are_split_each_by_itself(counts: list[int], portion: float, seed: int) -> None:
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))]

    first, second = images.split_classes(targets, portion, torch.Generator().manual_seed(seed))

    assert sorted(first.tolist() + second.tolist()) == list(range(len(targets)))
    assert first.tolist() == sorted(first.tolist())
    assert second.tolist() == sorted(second.tolist())
    for label, count in enumerate(counts):
        expected = min(max(round(count * portion), 1), count - 1)
        assert (targets[first] == label).sum() == expected


def test_classes_are_counted_in_the_order_of_a_checkpoint(tmp_path: Path) -> None:
    make_classes(tmp_path, ["a", "b", "c"], count=1)
    other = images.find(tmp_path).reorder(["c", "a", "b"], "x")
    assert other.classes == ("c", "a", "b")
    assert other.splits["train"].targets.tolist() == [1, 2, 0]


def test_a_folder_beside_train_that_is_no_split_is_refused(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        make_classes(tmp_path / split, ["a", "b"])
    assert message(tmp_path) == (
        f"{tmp_path}: expected val or test beside train, found valid; rename or move it"
    )
