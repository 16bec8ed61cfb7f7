"""Splits and streams: what is in them, that they are pure, and what is never read."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from darts_cli.config import ImageDataConfig
from darts_cli.engine.task import Batch
from darts_cli.errors import ConfigError, DataError
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks
from darts_cli.spaces.cnn.data import datasets as datasets_module
from darts_cli.spaces.cnn.data.datasets import ImageData
from darts_cli.spaces.cnn.data.folder import LAYOUT
from darts_cli.spaces.cnn.data.info import ImageInfo
from darts_cli.spaces.cnn.data.loader import ImageLoader, InMemory, Streamed, evaluation_batch

CPU = torch.device("cpu")
DIGITS = ImageDataConfig(name="digits")


def make_folder(folder: Path, counts: dict[str, int], size: tuple[int, int] = (8, 8)) -> None:
    random = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i:02}.png")


@pytest.fixture
def folder(tmp_path: Path) -> ImageDataConfig:
    make_folder(tmp_path, {"cat": 13, "dog": 10})
    return ImageDataConfig(name=str(tmp_path), batch_size=4, cutout=3, workers=0)


def load(config: ImageDataConfig, *, search: bool = False, **others: Any) -> ImageData:
    return datasets_module.load(config, device=CPU, search=search, **others)


def message(action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        for a, b in zip(first, second, strict=True)
    )


def all_images(loader: ImageLoader) -> Tensor:
    return torch.cat([batch.inputs for batch in loader.batches(0)])


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files whose bytes are read, or that are opened as images."""
    paths: list[str] = []
    open_image, read_bytes = Image.open, Path.read_bytes

    def open_and_record(source: str | io.BytesIO, *args: Any) -> Image.Image:
        if isinstance(source, str):
            paths.append(source)
        return open_image(source, *args)

    def read_and_record(path: Path) -> bytes:
        paths.append(str(path))
        return read_bytes(path)

    monkeypatch.setattr(Image, "open", open_and_record)
    monkeypatch.setattr(Path, "read_bytes", read_and_record)
    return paths


def search_loaders(images: ImageData, seed: int) -> tuple[ImageLoader, ImageLoader, ImageLoader]:
    """Of the weights, of the alphas, and what is watched."""
    loaders = images.search_loaders(seed)
    weights, alphas, watched = loaders.train, loaders.arch, loaders.eval
    assert isinstance(weights, ImageLoader)
    assert isinstance(alphas, ImageLoader)
    assert isinstance(watched, ImageLoader)
    return weights, alphas, watched


def train_stream(images: ImageData) -> ImageLoader:
    """Of the weights."""
    loader = images.train_loaders(0).train
    assert isinstance(loader, ImageLoader)
    return loader


def test_digits_are_the_images_of_scikit_learn_scaled_to_bytes() -> None:
    from sklearn.datasets import load_digits

    images = load(replace(DIGITS, batch_size=2000))
    mean, std = images.info.mean[0], images.info.std[0]

    parts = [all_images(images.evaluation_loader(split, 2000)) for split in ("train", "test")]
    pixels = ((torch.cat(parts) * std + mean) * 255).round().reshape(-1, 64).numpy()

    expected = np.rint(load_digits().images * 255 / 16).reshape(-1, 64)
    assert images.info.classes == tuple("0123456789")
    assert (images.info.channels, images.info.size) == (1, 8)
    assert images.counts == {"train": 1618, "test": 179}
    np.testing.assert_array_equal(pixels[np.lexsort(pixels.T)], expected[np.lexsort(expected.T)])


def test_statistics_are_those_of_the_training_images_alone() -> None:
    images = load(DIGITS)

    pixels = all_images(images.evaluation_loader("train", 2000)).double()

    assert abs(pixels.mean()) < 1e-6
    assert abs(pixels.std(correction=0) - 1) < 1e-6


def test_test_images_are_a_tenth_of_each_class_and_the_same_in_every_load() -> None:
    first, second = (list(load(DIGITS).evaluation_loader("test", 64).batches(0)) for _ in range(2))

    assert same(first, second)
    targets = torch.cat([batch.targets for batch in first])
    assert set(targets.bincount().tolist()) <= {17, 18}


def test_a_search_halves_every_class_and_validates_on_the_half_of_the_alphas(
    folder: ImageDataConfig,
) -> None:
    weights, alphas, valid = search_loaders(load(folder, search=True), 0)
    assert sorted(torch.cat([weights.indices, alphas.indices]).tolist()) == list(range(21))
    targets = weights.source.targets
    # 12 and 9 images are left of 13 and 10; 9 / 2 is rounded to the even 4.
    assert targets[weights.indices].bincount().tolist() == [6, 4]
    assert targets[alphas.indices].bincount().tolist() == [6, 5]
    assert valid.training is None
    in_order = torch.cat([batch.targets for batch in valid.batches(3)])
    assert torch.equal(in_order, targets[alphas.indices])


def test_the_halves_of_a_search_follow_from_its_seed(folder: ImageDataConfig) -> None:
    images = load(folder, search=True)
    first, again, other = (search_loaders(images, seed)[0].indices for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_search_watches_as_many_images_as_it_is_told_to(folder: ImageDataConfig) -> None:
    def watched(most: int, seed: int = 0) -> list[int]:
        images = load(replace(folder, evaluation_images=most), search=True)
        _, alphas, loader = search_loaders(images, seed)
        numbers: list[int] = loader.indices.tolist()
        assert set(numbers) <= set(alphas.indices.tolist())
        assert numbers == sorted(numbers)
        return numbers

    assert [len(watched(most)) for most in (0, 1, 7, 11, 5000)] == [11, 1, 7, 11, 11]
    assert watched(7) == watched(7)
    assert watched(7) != watched(7, seed=1)


def test_evaluation_takes_few_images_at_once_on_a_cpu_and_many_elsewhere() -> None:
    devices = [torch.device(kind) for kind in ("cpu", "cuda", "mps", "meta")]
    assert [evaluation_batch(device, SINGLE_PROCESS) for device in devices] == [32, 256, 256, 256]
    assert [evaluation_batch(device, Ranks(1, 3)) for device in devices] == [96, 768, 768, 768]


def test_the_streams_of_a_search_draw_different_numbers(folder: ImageDataConfig) -> None:
    weights, alphas, _ = search_loaders(load(folder, search=True), 0)
    alphas = replace(alphas, indices=weights.indices)
    assert not same(list(weights.batches(0)), list(alphas.batches(0)))


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_equal_resident_ones_bit_for_bit(
    folder: ImageDataConfig, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    resident = load(folder)
    monkeypatch.setattr(datasets_module, "IN_MEMORY_BYTES", 100)
    streamed = load(replace(folder, workers=workers))
    before = torch.get_rng_state()

    assert streamed.info == resident.info
    pairs = [
        (train_stream(images), images.evaluation_loader("test", 2))
        for images in (resident, streamed)
    ]
    assert [type(loader.source) for loader in pairs[0]] == [InMemory, InMemory]
    assert [type(loader.source) for loader in pairs[1]] == [Streamed, Streamed]
    for first, second in zip(*pairs, strict=True):
        assert same(list(first.batches(1)), list(second.batches(1)))
        assert same(list(first.batches(1, 1)), list(second.batches(1, 1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_photographs_are_cropped_at_random_and_evaluated_at_their_centres(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"cat": 4, "dog": 5}, (12, 10))
    make_folder(tmp_path / "val", {"cat": 1, "dog": 2}, (20, 30))
    config = ImageDataConfig(name=str(tmp_path), augmentation="imagenet", image_size=14, workers=0)

    images = load(config)

    assert images.info.mean == (0.485, 0.456, 0.406)
    assert images.info.std == (0.229, 0.224, 0.225)
    loader = train_stream(images)
    first, second = (next(loader.batches(epoch)).inputs for epoch in (0, 1))
    assert first.shape == (9, 3, 14, 14)
    assert not torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)
    test = images.evaluation_loader("test", 3)
    assert same(list(test.batches(0)), list(test.batches(1)))
    assert load(replace(config, image_size=None), search=True).info.size == 224


def test_a_search_never_opens_test_images(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train", "val", "test"):
        make_folder(tmp_path / name, {"cat": 3, "dog": 3})
    for path in [*tmp_path.glob("val/*/*"), *tmp_path.glob("test/*/*")]:
        path.write_text("no image")
    config = ImageDataConfig(name=str(tmp_path), batch_size=2, workers=0)

    for threshold in (10**9, 0):
        monkeypatch.setattr(datasets_module, "IN_MEMORY_BYTES", threshold)
        images = load(config, search=True)
        for loader in search_loaders(images, 0)[::2]:
            list(loader.batches(0))
        assert images.counts == {"train": 6, "test": 6, "valid": 6}

    assert len(opened) >= 12
    assert all("/train/" in path for path in opened)
    for split in ("test", "valid"):
        assert message(lambda split=split: images.evaluation_loader(split, 2)) == (  # type: ignore[misc]
            f"{tmp_path}: found no split {split!r} to read; use one of train"
        )


def test_a_search_never_opens_the_images_that_are_set_aside(
    folder: ImageDataConfig, opened: list[str]
) -> None:
    images = load(folder, search=True)
    list(search_loaders(images, 0)[2].batches(0))
    searched = set(opened)
    assert len(searched) == images.counts["train"] == 21
    opened.clear()
    list(load(folder, info=images.info).evaluation_loader("test", 4).batches(0))
    assert len(set(opened)) == images.counts["test"] == 2
    assert searched.isdisjoint(opened)


def test_an_absent_split_is_told_those_present(folder: ImageDataConfig) -> None:
    images = load(folder)
    train_stream(images)
    assert message(lambda: images.evaluation_loader("valid", 4)) == (
        f"{folder.name}: found no split 'valid' to read; use one of test, train"
    )


def test_a_checkpoints_facts_decide_how_other_images_are_read(tmp_path: Path) -> None:
    make_folder(tmp_path, {str(digit): 2 for digit in range(10)}, (12, 10))
    known = load(DIGITS).info
    reordered = replace(known, classes=tuple(reversed(known.classes)))

    images = load(ImageDataConfig(name=str(tmp_path)), info=reordered)

    batch = next(images.evaluation_loader("test", 20).batches(0))
    assert batch.inputs.shape == (10, 1, 8, 8)
    assert batch.targets.tolist() == list(range(9, -1, -1))
    assert images.info == reordered


def test_other_classes_than_a_checkpoints_are_named(folder: ImageDataConfig) -> None:
    info = replace(load(folder).info, classes=("cat", "cow"))
    assert message(lambda: load(folder, info=info)) == (
        f"{folder.name}: expected classes cat, cow, found cat, dog"
        " (missing: cow; unknown: dog); use data of the same classes"
    )


def test_facts_survive_json(folder: ImageDataConfig) -> None:
    info = load(folder).info
    assert ImageInfo.from_json(json.loads(json.dumps(asdict(info)))) == info


def test_what_is_inspected_is_what_is_loaded(folder: ImageDataConfig) -> None:
    photographs = replace(folder, augmentation="imagenet")
    for config in (folder, DIGITS, replace(folder, image_size=12), photographs):
        for search in (False, True):
            summary, images = (
                datasets_module.inspect(config, search=search),
                load(config, search=search),
            )
            info = images.info
            assert summary.classes == len(info.classes)
            assert (summary.channels, summary.size) == (info.channels, info.size)
            assert summary.counts == images.counts


def test_cutout_as_large_as_the_images_is_refused_before_they_are_decoded() -> None:
    for action in (load, lambda config: datasets_module.inspect(config, search=True)):
        with pytest.raises(ConfigError, match=r"data\.cutout: found 16, .* --set data.cutout=N"):
            action(replace(DIGITS, cutout=16))


@pytest.mark.parametrize(
    ("count", "nested", "search", "needed"),
    [(1, False, False, 2), (2, False, True, 3), (1, True, True, 2)],
)
def test_a_class_with_too_few_images_is_named(
    tmp_path: Path, count: int, nested: bool, search: bool, needed: int
) -> None:
    make_folder(tmp_path / ("train" if nested else ""), {"cat": 5, "dog": count})
    if nested:
        make_folder(tmp_path / "test", {"cat": 1, "dog": 1})
    config = ImageDataConfig(name=str(tmp_path))
    assert message(lambda: load(config, search=search)) == (
        f"{tmp_path}: expected {needed} or more training images of each class, to split them,"
        f" found {count} of 'dog'; add images or remove the class"
    )


UNUSABLE = {
    "cifar": "--data cifar: expected one of digits, cifar10, cifar100, imagenet, or a folder of"
    f" images ({LAYOUT}); found no folder cifar",
    "imagenet": "imagenet cannot be downloaded: give its folder, with train/ and val/ in it,"
    " as --data DIR --recipe imagenet",
    "digits": "--data digits needs scikit-learn: pip install 'darts-cli[digits]'",
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_names_that_cannot_be_loaded_say_what_can(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert message(lambda: load(ImageDataConfig(name=name))) == UNUSABLE[name]


def test_a_failed_download_names_what_works_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from torchvision import datasets

    def fail(*args: Any, **options: Any) -> None:
        raise URLError("no\nnetwork")

    monkeypatch.setattr(datasets, "CIFAR100", fail)
    assert message(lambda: load(ImageDataConfig(name="cifar100", root=str(tmp_path)))) == (
        f"cifar100: could not be downloaded to {tmp_path} (<urlopen error no network>); check the"
        " network, give a folder of images with --data DIR, or use --data digits, which needs no"
        " download"
    )


def test_cifar_is_read_from_torchvision_with_its_published_statistics(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision import datasets

    asked: list[bool] = []

    def fake(root: Path, *, train: bool, download: bool) -> SimpleNamespace:
        print("downloading")
        asked.append(train)
        pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
        classes = [f"class {i}" for i in range(10)]
        return SimpleNamespace(data=pixels, targets=list(range(10)) * 4, classes=classes)

    monkeypatch.setattr(datasets, "CIFAR10", fake)
    searched = load(ImageDataConfig(batch_size=8), search=True)
    assert asked == [True]
    images = load(ImageDataConfig(batch_size=8))

    assert capsys.readouterr().out == ""
    assert images.info.mean == (0.49139968, 0.48215827, 0.44653124)
    assert images.info.std == (0.24703233, 0.24348505, 0.26158768)
    assert searched.counts == {"train": 40, "test": 10_000}
    assert images.counts == {"train": 40, "test": 40}
    pixels = fake(Path(), train=True, download=True).data.transpose(0, 3, 1, 2) / 255
    mean, std = (np.array(v)[:, None, None] for v in (images.info.mean, images.info.std))
    test = all_images(images.evaluation_loader("test", 8))
    np.testing.assert_allclose(test.numpy(), (pixels - mean) / std, atol=1e-5)
    summary = datasets_module.inspect(ImageDataConfig(), search=True)
    assert (summary.classes, summary.size) == (10, 32)
    assert summary.counts == {"train": 50_000, "test": 10_000}
