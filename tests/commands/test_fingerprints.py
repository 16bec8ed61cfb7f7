"""Other data than a run began with: refused by name, wherever it lies and whatever its size."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from darts_cli.run import checkpoint
from darts_cli.spaces.cnn.data import folder
from darts_cli.spaces.cnn.data.folder import Split, find_images
from tests.conftest import TINY, Darts, contents, make_images

SIZE = (*TINY, "--batch-size", 4, "--epochs", 2, "--order", "first")


def turn(path: Path) -> None:
    with Image.open(path) as image:
        turned = image.rotate(180)
    turned.save(path)


def swap(folder: Path) -> None:
    """Two images of different classes."""
    one, other = folder / "cat" / "00.png", folder / "dog" / "00.png"
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)


CHANGES: dict[str, Callable[[Path], object]] = {
    "another image": lambda folder: turn(folder / "cat" / "03.png"),
    "another name": lambda folder: (folder / "dog" / "14.png").rename(folder / "dog" / "99.png"),
    "swapped": swap,
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_search_goes_on_with_the_images_that_it_began_with_alone(
    darts: Darts,
    change: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
    streamed: bool,
) -> None:
    make_images(Path("pets/train"))
    make_images(Path("pets/test"), count=2)
    if streamed:
        monkeypatch.setattr("darts_cli.spaces.cnn.data.datasets.IN_MEMORY_BYTES", 0)
    workers = ("--set", "data.workers=0")
    darts("search", "cnn", "--data", "pets", *SIZE, *workers, "--out", "run", "--max-steps", 1)
    change(Path("pets/train"))
    before = contents(Path("run"))
    place = Path("pets").resolve()
    assert darts("search", "cnn", "--resume", "run").refusal() == (
        f"{place}: found other train images than the run began with; "
        "go on with that data, or start a new run"
    )
    assert contents(Path("run")) == before


def test_where_the_images_lie_and_what_a_search_does_not_read_make_no_difference(
    darts: Darts,
) -> None:
    make_images(Path("pets/train"))
    make_images(Path("pets/test"), count=2)
    darts("search", "cnn", "--data", "pets", *SIZE, "--out", "run", "--max-steps", 1)
    turn(Path("pets/test/cat/00.png"))
    assert darts("search", "cnn", "--resume", "run", "--max-steps", 2).status == 0
    split = find_images(Path("pets")).splits["train"]
    shutil.copytree("pets", "elsewhere")
    assert find_images(Path("elsewhere")).splits["train"].fingerprint() == split.fingerprint()


def test_an_evaluation_measures_what_the_run_knows_or_what_is_named(darts: Darts) -> None:
    make_images(Path("pets/train"))
    make_images(Path("pets/test"), count=2)
    train = ("--genotype", "darts_v2", *TINY, "--batch-size", 4, "--epochs", 1)
    options = ("--set", "data.cutout=2", "--out", "run")
    assert darts("train", *train, "--data", "pets", *options).status == 0
    assert darts("eval", "run").status == 0
    turn(Path("pets/test/cat/00.png"))
    assert darts("eval", "run").refusal() == (
        f"{Path('pets').resolve()}: found other test images than the run began with; "
        "to measure other data, name it by --data"
    )
    assert darts("eval", "run", "--data", "pets").status == 0


def test_a_text_is_known_by_its_words(darts: Darts) -> None:
    folder = Path("letters")
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("a b c d e\n" * 60)
    size = ("--width", 4, "--batch-size", 2, "--set", "data.segment=9", "--order", "first")
    arguments = ("search", "rnn", "--data", folder, *size)
    assert darts(*arguments, "--out", "run", "--max-steps", 1).status == 0
    valid = folder / "valid.txt"
    valid.write_text(valid.read_text().replace("a b", "b a", 1))
    assert darts("search", "rnn", "--resume", "run").refusal() == (
        f"{folder.resolve()}: found other valid words than the run began with; "
        "go on with that data, or start a new run"
    )


def test_a_checkpoint_of_format_1_knows_no_fingerprint_and_is_gone_on_from(
    darts: Darts, pets: Path
) -> None:
    darts("search", "cnn", "--data", pets, *SIZE, "--out", "run", "--max-steps", 1)
    file = Path("run/last.safetensors")
    tensors, metadata = checkpoint.read(file)
    del metadata["fingerprints"]
    checkpoint.write(file, tensors, metadata)
    assert darts("search", "cnn", "--resume", "run", "--max-steps", 2).status == 0


def test_of_many_files_all_names_and_some_contents_count(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "_FINGERPRINT_FILES", 5)
    shutil.copytree(pets, tmp_path / "pets")

    def fingerprint() -> str:
        split: Split = find_images(tmp_path / "pets").splits["train"]
        return split.fingerprint()

    first = fingerprint()
    opened: list[str] = []

    def read(path: str) -> bytes:
        opened.append(path)
        return Path(path).read_bytes()

    monkeypatch.setattr(folder, "read_bytes", read)
    assert fingerprint() == first
    assert len(opened) == 5
    Path(opened[-1]).write_bytes(b"other")
    assert fingerprint() != first
