"""Folders of images: what is found in them, and what is said of mistakes."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from darts_cli.errors import DataError
from darts_cli.spaces.cnn.data.folder import Split, check_classes, find_images, split_classes
from tests.spaces.cnn.pictures import FEW, make_classes, save


def paths_of(split: Split) -> Sequence[str]:
    assert not isinstance(split.pictures, Tensor)
    return split.pictures


def message(folder: Path) -> str:
    with pytest.raises(DataError) as error:
        find_images(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_classes_and_files_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    make_classes(tmp_path, ["b", "a", "C"])

    found = find_images(tmp_path)

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

    splits = find_images(tmp_path).splits

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

    found = find_images(tmp_path)

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
        check_classes(names, names[:1], "x")


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    expected = f"{tmp_path}: cannot be listed (Permission denied); check its permissions"
    assert message(tmp_path) == expected


@FEW
@given(
    counts=st.lists(st.integers(2, 12), min_size=1, max_size=5),
    portion=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_classes_are_split_each_by_itself(counts: list[int], portion: float, seed: int) -> None:
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))]

    first, second = split_classes(targets, portion, torch.Generator().manual_seed(seed))

    assert sorted(first.tolist() + second.tolist()) == list(range(len(targets)))
    assert first.tolist() == sorted(first.tolist())
    assert second.tolist() == sorted(second.tolist())
    for label, count in enumerate(counts):
        expected = min(max(round(count * portion), 1), count - 1)
        assert (targets[first] == label).sum() == expected


def test_classes_are_counted_in_the_order_of_a_checkpoint(tmp_path: Path) -> None:
    make_classes(tmp_path, ["a", "b", "c"], count=1)
    other = find_images(tmp_path).reorder(["c", "a", "b"], "x")
    assert other.classes == ("c", "a", "b")
    assert other.splits["train"].targets.tolist() == [1, 2, 0]


def test_a_folder_beside_train_that_is_no_split_is_refused(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        make_classes(tmp_path / split, ["a", "b"])
    assert message(tmp_path) == (
        f"{tmp_path}: expected val or test beside train, found valid; rename or move it"
    )
