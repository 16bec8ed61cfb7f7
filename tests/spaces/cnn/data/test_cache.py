"""The cache of decoded images: when it is believed, when it is not, and that no run needs it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from darts_cli.config import ImageDataConfig
from darts_cli.errors import DataError
from darts_cli.run import checkpoint
from darts_cli.spaces.cnn.data import cache as cache_module
from darts_cli.spaces.cnn.data import datasets, decode
from darts_cli.spaces.cnn.data.cache import DecodedCache
from darts_cli.spaces.cnn.data.folder import Split, find_images
from darts_cli.spaces.cnn.data.loader import InMemory
from tests.conftest import TINY, Darts, assert_same_bits, make_images

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three bitmaps each: equal sizes of images are equal sizes of files."""
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(3):
            save(tmp_path / "pets" / name / f"{number}.bmp", seed=number)
    return tmp_path / "pets"


@pytest.fixture
def cache(tmp_path: Path) -> DecodedCache:
    return DecodedCache(tmp_path / "decoded", None)


def save(path: Path, seed: int, side: int = 8) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def train(folder: Path) -> Split:
    return find_images(folder).splits["train"]


def fill(cache: DecodedCache, folder: Path) -> Tensor:
    return cache.decode(train(folder))


def kept(cache: DecodedCache) -> list[Path]:
    return sorted(cache.folder.iterdir()) if cache.folder and cache.folder.exists() else []


def rewrite(cache: DecodedCache, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of the one file and leave what it says of itself."""
    [file] = kept(cache)
    tensors, metadata = checkpoint.read(file)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    checkpoint.write(file, tensors, metadata)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`closed()`: from then on no image can be opened."""

    def refuse(*_: object) -> None:
        raise AssertionError("an image was opened")

    return lambda: monkeypatch.setattr(Image, "open", refuse)


def test_the_same_pixels_are_found_and_no_image_is_opened(
    cache: DecodedCache, folder: Path, closed: Callable[[], None]
) -> None:
    split = train(folder)
    pixels = fill(cache, folder)
    assert torch.equal(pixels, decode.decode_all(split, (3, 8)))
    closed()

    for shape in (None, (3, 8)):
        found = cache.find(split, shape)
        assert found is not None
        assert torch.equal(found, pixels)
    assert torch.equal(cache.find_or_decode(split, (3, 8)), pixels)


def test_a_run_finds_what_another_kept_with_the_same_facts_and_opens_no_image(
    tmp_path: Path, folder: Path, closed: Callable[[], None]
) -> None:
    config = ImageDataConfig(name=str(folder), root=str(tmp_path / "root"), batch_size=2)

    def load() -> tuple[object, list[Tensor]]:
        loaded = datasets.load(config, device=CPU, search=False)
        loaded.train_loaders(0)
        sources = [loaded.sources[name] for name in ("train", "test")]
        assert all(isinstance(source, InMemory) for source in sources)
        return loaded.info, [source.images for source in sources if isinstance(source, InMemory)]

    info, pixels = load()
    closed()
    again, found = load()

    assert again == info
    assert all(torch.equal(one, other) for one, other in zip(pixels, found, strict=True))


def test_a_search_neither_reads_nor_keeps_test_images(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "all" / "train")
    shutil.copytree(folder, tmp_path / "all" / "test")
    for broken in (tmp_path / "all" / "test").glob("*/*.bmp"):
        broken.write_text("no image")
    config = ImageDataConfig(name=str(tmp_path / "all"), root=str(tmp_path / "root"), batch_size=2)

    for _ in range(2):
        datasets.load(config, device=CPU, search=True).search_loaders(0)

    assert len(list((tmp_path / "root" / "decoded").iterdir())) == 1


def change_bytes(folder: Path) -> None:
    path = folder / "cat" / "1.bmp"
    before = path.stat()
    save(path, seed=9)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def swap(folder: Path) -> None:
    one, other = folder / "cat" / "0.bmp", folder / "cat" / "1.bmp"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


CHANGES: dict[str, Callable[[Path], object]] = {
    "other bytes of the same size and time": change_bytes,
    "added": lambda folder: save(folder / "cat" / "9.bmp", seed=9),
    "removed": lambda folder: (folder / "cat" / "2.bmp").unlink(),
    "renamed": lambda folder: (folder / "cat" / "2.bmp").rename(folder / "cat" / "8.bmp"),
    "moved to another class": lambda folder: (folder / "cat" / "2.bmp").rename(
        folder / "dog" / "9.bmp"
    ),
    "swapped": swap,
    "unreadable": lambda folder: (folder / "cat" / "2.bmp").write_bytes(b""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_of_the_files_is_seen(
    cache: DecodedCache, folder: Path, change: Callable[[Path], object]
) -> None:
    fill(cache, folder)
    assert cache.find(train(folder)) is not None

    change(folder)

    assert cache.find(train(folder)) is None


def test_a_changed_folder_is_decoded_again_and_kept_in_the_same_place(
    cache: DecodedCache, folder: Path
) -> None:
    fill(cache, folder)
    before = kept(cache)
    change_bytes(folder)

    pixels = cache.find_or_decode(train(folder), (3, 8))

    assert torch.equal(pixels, decode.decode_all(train(folder), (3, 8)))
    assert kept(cache) == before
    found = cache.find(train(folder), (3, 8))
    assert found is not None
    assert torch.equal(found, pixels)


def test_a_file_that_vanishes_is_told_as_without_a_cache(cache: DecodedCache, folder: Path) -> None:
    split = train(folder)
    (folder / "cat" / "1.bmp").unlink()
    with pytest.raises(DataError, match=r"1\.bmp: expected an image"):
        cache.find_or_decode(split, (3, 8))
    assert kept(cache) == []


def test_other_sizes_channels_and_versions_are_not_found(
    cache: DecodedCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = train(folder)
    fill(cache, folder)
    assert cache.find(split, (3, 16)) is None
    assert cache.find(split, (1, 8)) is None
    assert DecodedCache(cache.folder, 16).find(split) is None

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "_FORMAT", 0)
        assert cache.find(split) is None
    with monkeypatch.context() as patch:
        patch.setattr("PIL.__version__", "0")
        assert cache.find(split) is None
    assert cache.find(split) is not None


def test_channels_of_a_checkpoint_are_not_taken_for_those_of_the_files(
    cache: DecodedCache, tmp_path: Path
) -> None:
    # As when grey images are evaluated by a network of colour.
    split = train(make_images(tmp_path / "grey"))
    cache.decode(split, (3, 8))
    assert cache.find(split, (3, 8)) is not None
    assert cache.find(split) is None


def reshape(tensors: dict[str, Tensor]) -> None:
    tensors["pixels"] = tensors["pixels"].reshape(6, 12, 4, 4)


def retype(tensors: dict[str, Tensor]) -> None:
    tensors["pixels"] = tensors["pixels"].float()


@pytest.mark.parametrize("damage", [reshape, retype, dict.clear])
def test_pixels_that_are_not_those_that_were_kept_are_not_believed(
    cache: DecodedCache, folder: Path, damage: Callable[[dict[str, Tensor]], object]
) -> None:
    pixels = fill(cache, folder)
    rewrite(cache, damage)
    assert cache.find(train(folder), (3, 8)) is None
    assert torch.equal(cache.find_or_decode(train(folder), (3, 8)), pixels)
    assert cache.find(train(folder), (3, 8)) is not None


@pytest.mark.parametrize("damage", ["text", "cut short", "empty", "flipped", "foreign", "folder"])
def test_a_file_that_is_none_of_ours_is_not_believed(
    cache: DecodedCache, folder: Path, damage: str
) -> None:
    pixels = fill(cache, folder)
    [file] = kept(cache)
    if damage == "foreign":
        save_file({"pixels": pixels}, file)
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        whole = file.read_bytes()
        flipped = whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:]
        damaged = {"text": b"no tensors", "cut short": whole[:-1], "empty": b"", "flipped": flipped}
        file.write_bytes(damaged[damage])

    assert cache.find(train(folder)) is None
    assert torch.equal(cache.find_or_decode(train(folder), (3, 8)), pixels)


def test_what_cannot_be_written_is_not_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder can be made below a file")
    cache = DecodedCache(tmp_path / "file" / "decoded", None)
    expected = decode.decode_all(train(folder), (3, 8))
    assert cache.find(train(folder)) is None
    assert torch.equal(cache.find_or_decode(train(folder), (3, 8)), expected)


def test_a_full_disk_is_not_filled_further(
    cache: DecodedCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    fill(cache, folder)
    assert kept(cache) == []


def test_an_interrupted_write_leaves_nothing(
    cache: DecodedCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    fill(cache, folder)
    assert kept(cache) == []


def test_a_file_that_another_run_removes_meanwhile_is_no_error(
    cache: DecodedCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, folder)
    real = checkpoint.read_metadata

    def read_and_remove(path: Path) -> dict[str, object]:
        metadata = real(path)
        path.unlink()
        return metadata

    monkeypatch.setattr(checkpoint, "read_metadata", read_and_remove)
    assert cache.find(train(folder)) is None


@pytest.mark.parametrize("half", [".x.safetensors.abc.darts-half", ".tmpAb12Cd"])
def test_what_was_not_used_for_the_longest_time_makes_room(
    cache: DecodedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    folders = [make_images(tmp_path / name, seed=i) for i, name in enumerate("abc")]
    for time, folder in enumerate(folders[:2]):
        cache.decode(train(folder))
        [new] = [file for file in kept(cache) if file.stat().st_mtime > 1000]
        os.utime(new, (time, time))
    size = kept(cache)[0].stat().st_size
    half_written = tmp_path / "decoded" / half
    half_written.write_bytes(bytes(size))
    os.utime(half_written, (0, 0))
    assert cache.find(train(folders[0])) is not None

    monkeypatch.setattr(cache_module, "LIMIT_BYTES", 2 * size)
    cache.decode(train(folders[2]))

    assert [cache.find(train(folder)) is not None for folder in folders] == [True, False, True]
    assert not half_written.exists()


def test_nobody_else_may_look_into_the_folder(cache: DecodedCache, folder: Path) -> None:
    fill(cache, folder)
    assert cache.folder is not None
    assert cache.folder.stat().st_mode & 0o777 == 0o700


def test_the_setting_switches_it_off_and_no_home_is_no_error(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ImageDataConfig(name=str(folder), root=str(tmp_path / "root"), cache=False)
    datasets.load(config, device=CPU, search=True)
    assert not (tmp_path / "root").exists()

    def refuse(_: Path) -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "expanduser", refuse)
    assert DecodedCache.of(ImageDataConfig()).folder is None


def test_pixels_in_memory_and_photographs_are_not_kept(tmp_path: Path, folder: Path) -> None:
    root = str(tmp_path / "root")
    datasets.load(ImageDataConfig(name="digits", root=root), device=CPU, search=True)
    photographs = ImageDataConfig(
        name=str(folder), root=root, augmentation="imagenet", image_size=8, workers=0
    )
    datasets.load(photographs, device=CPU, search=False).train_loaders(0)
    assert not (tmp_path / "root").exists()


def test_a_set_that_is_streamed_is_neither_counted_nor_kept(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(cache_module, "_digest", None)
    config = ImageDataConfig(name=str(folder), root=str(tmp_path / "root"), workers=0)
    datasets.load(config, device=CPU, search=False).train_loaders(0)
    assert not (tmp_path / "root").exists()


def test_runs_with_and_without_the_cache_and_resumed_ones_are_the_same(
    darts: Darts, pets: Path, tmp_path: Path
) -> None:
    size = ("--epochs", 2, "--batch-size", 4, "--order", "first")
    start = ("search", "cnn", "--data", pets, *TINY, *size)
    root = ("--set", f"data.root={tmp_path / 'root'}")
    off = darts(*start, *root, "--set", "data.cache=false", "--out", "off").path
    whole = darts(*start, *root, "--out", "whole").path
    parts = darts(*start, *root, "--out", "parts", "--max-steps", 2).path
    shutil.rmtree(tmp_path / "root")
    darts("search", "cnn", "--resume", parts, "--max-steps", 1)
    assert (tmp_path / "root" / "decoded").is_dir()
    darts("search", "cnn", "--resume", parts)

    assert_same_bits(off, whole)
    assert_same_bits(whole, parts)
