"""The command line in this process, runs of digits made once, and folders of small images."""

import contextlib
import gc
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from darts_cli import cli
from darts_cli.run import checkpoint
from tests.runtime.processes import Together, workers

# Torch leaves a million objects that stay. To look through them again and again takes a tenth of
# the time of a small run.
gc.collect()
gc.freeze()

# A test is wrong or right, however busy the machine is.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
# For `make torture`: of each test as many.
settings.register_profile("torture", max_examples=2000, deadline=None)


# Fixtures that take seconds. With `--dist loadgroup`, tests that share one run in one process.
SHARED = ("together", "whole", "long", "stopped", "searched_text", "trained_text")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Put the tests of a costly fixture in a group: of the module, if the fixture is of one."""
    names = getattr(item, "fixturenames", ())
    for name in SHARED:
        if name in names:
            module = "" if name == "together" else f"{item.path.stem}-"
            item.add_marker(pytest.mark.xdist_group(f"{module}{name}"))
            return


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def path(self) -> Path:
        """What was made: the last line of standard output."""
        assert self.status == 0, self.err
        return Path(self.out.splitlines()[-1])

    def refusal(self, status: int = 2) -> str:
        """The one line that a command leaves when it does not do what was asked."""
        assert self.status == status, self
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("darts: ")
        assert "Traceback" not in self.err
        return lines[0].removeprefix("darts: ")


Darts = Callable[..., Result]
Images = Callable[..., Path]

TINY = ("--channels", 2, "--layers", 3, "--device", "cpu")
"""The smallest supernet that has both cells."""

# Of the digits, 178: 89 train the weights, in four steps of which the last is smaller.
FEW_DIGITS = ("--data", "digits", *TINY, "--set", "data.test_portion=0.9", "--batch-size", 28)


def call(*args: object) -> Result:
    """Run the command line in this process; what is no exit is an error of the test."""
    out, err = io.StringIO(), io.StringIO()
    arguments, threads = sys.argv, torch.get_num_threads()
    sys.argv = ["darts", *map(str, args)]
    # The sizes here are too small to share out.
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else 1
        return Result(status, out.getvalue(), err.getvalue())
    finally:
        sys.argv = arguments
        torch.set_num_threads(threads)
    raise AssertionError("the command line returned instead of leaving with a status")


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home folder for all tests, so that none writes into the user's own."""
    before, path = Path.home(), tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(path))
        patch.setenv("USERPROFILE", str(path))
        # Matplotlib's list of fonts takes seconds to make.
        patch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME", str(before / ".cache")))
        yield path


@pytest.fixture(scope="session")
def together() -> Iterator[Together]:
    """Three processes at most."""
    with workers(3) as start:
        yield start


@pytest.fixture
def double_precision() -> Iterator[None]:
    """New tensors are float64 for the length of a test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def darts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Darts:
    """`darts(*args)` in an empty directory."""
    monkeypatch.chdir(tmp_path)
    # Tables are as wide as the terminal; here nothing should be folded.
    monkeypatch.setenv("COLUMNS", "200")
    return call


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished first-order search of digits with two epochs: read it, do not change it."""
    path = tmp_path_factory.mktemp("searched") / "run"
    length = ("--epochs", 2, "--order", "first")
    return call("search", "cnn", *FEW_DIGITS, *length, "--out", path).path


@pytest.fixture(scope="session")
def trained(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The genotype of `searched` trained on digits for an epoch: read it, do not change it."""
    path = tmp_path_factory.mktemp("trained") / "run"
    size = ("--epochs", 1, "--batch-size", 256)
    genotype = ("--genotype", searched / "genotype.yaml")
    return call("train", *genotype, "--data", "digits", *TINY, *size, "--out", path).path


def make_images(
    folder: Path,
    *,
    classes: Sequence[str] = ("cat", "dog"),
    count: int = 15,
    side: int = 8,
    seed: int = 0,
) -> Path:
    """A folder of grey noise, darker in each class than in the next."""
    draws = np.random.default_rng(seed)
    for index, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = draws.integers(60 * index, 60 * index + 120, (side, side), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images of two classes: 26 for training. Read them, do not change them."""
    return make_images(tmp_path_factory.mktemp("data") / "pets")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """`images(name, ...)`: a fresh folder of images, see `make_images`."""

    def make(name: str = "images", **shape: Any) -> Path:
        return make_images(tmp_path / name, **shape)

    return make


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def contents(folder: Path) -> Mapping[str, bytes | None]:
    """Every file and folder below a folder, with the files' bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def assert_same_bits(one: Path, other: Path) -> None:
    """Two runs computed the same: weights, alphas, optimizers, position and metrics."""
    files = _checkpoints(one)
    assert Path("last.safetensors") in files
    assert files == _checkpoints(other)
    for file in files:
        tensors, metadata = checkpoint.read(one / file)
        others, other_metadata = checkpoint.read(other / file)
        assert tensors.keys() == others.keys()
        different = [name for name in tensors if not torch.equal(tensors[name], others[name])]
        assert different == []
        assert metadata["position"] == other_metadata["position"]
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()


def _checkpoints(run: Path) -> list[Path]:
    """All but the previous one, which was written when the run was stopped, if it was."""
    files = (path.relative_to(run) for path in run.rglob("*.safetensors"))
    return sorted(file for file in files if file.name != "previous.safetensors")


@pytest.fixture
def unchanged() -> Iterator[Callable[[Path], None]]:
    """`unchanged(folder)`: at its end the test finds the folder as it is now."""
    before: dict[Path, Mapping[str, bytes | None]] = {}

    def watch(folder: Path) -> None:
        before[folder] = contents(folder)

    yield watch
    assert before
    for folder, files in before.items():
        assert contents(folder) == files
