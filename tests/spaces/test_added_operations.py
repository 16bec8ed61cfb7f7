"""An operation that a user adds goes through every command, with no other edit than its table."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn
from torch.nn import functional as F

from darts_cli.run import checkpoint
from darts_cli.spaces import TABLE
from darts_cli.spaces.cnn.primitives import PRIMITIVES, Custom
from darts_cli.spaces.rnn.primitives import ACTIVATIONS
from tests.conftest import TINY, Darts, assert_same_bits


class SqueezeExcite(nn.Module):
    """A 3x3 convolution whose channels are scaled by their own means (Hu et al., 2018)."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)
        self.gate = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x.relu()))
        scale: Tensor = self.gate(x.mean(dim=(2, 3))).sigmoid()
        return x * scale[:, :, None, None]


def softsign_of_the_width(x: Tensor) -> Tensor:
    """A function that is not elementwise, and has no derivative by hand."""
    return F.softsign(x) - x.mean(dim=-1, keepdim=True)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two operations, as a line in each table would add them."""
    monkeypatch.setitem(PRIMITIVES, "squeeze_excite", Custom(SqueezeExcite))
    monkeypatch.setitem(ACTIVATIONS, "softsign", softsign_of_the_width)
    for name, primitive in (("cnn", "squeeze_excite"), ("rnn", "softsign")):
        entry = TABLE[name]
        space = replace(entry.space, primitives=(*entry.space.primitives, primitive))
        monkeypatch.setitem(TABLE, name, replace(entry, space=space))


def make_all(
    darts: Darts, operation: str, search: Sequence[object], size: Sequence[object]
) -> Path:
    """Search at once and in two goes, derive, train with the operation, evaluate and draw."""
    first = ("search", *search, *size, "--epochs", 1, "--order", "first")
    whole = darts(*first, "--out", "whole").path
    darts(*first, "--out", "parts", "--max-steps", 2)
    assert_same_bits(whole, darts("search", search[0], "--resume", "parts").path)
    cell = darts("derive", whole, "--output", "cell.yaml").path
    chosen, count = re.subn(r"\[\[\w+, 0\]", f"[[{operation}, 0]", cell.read_text())
    assert count
    cell.write_text(chosen)
    trained = darts("train", "--genotype", cell, *search[1:], *size, "--epochs", 1).path
    assert "loss" in darts("eval", trained).out
    assert darts("viz", cell, "--output", "cell.svg").path.stat().st_size
    assert operation in Path("cell.svg").read_text()
    darts("viz", whole, "--show", "alphas", "--output", "alphas.png")
    return whole


@pytest.mark.usefixtures("added")
def test_any_module_is_an_operation_of_images(darts: Darts, pets: Path) -> None:
    search = ("cnn", "--data", pets, "--batch-size", 4, "--set", "data.cutout=0")
    run = make_all(darts, "squeeze_excite", search, TINY)
    tensors, _ = checkpoint.read(run / "last.safetensors")
    assert tensors["alphas.normal"].shape == (14, 9)
    names = [name for name in tensors if name.startswith("network.cells.0._ops.13._ops.8.")]
    assert "network.cells.0._ops.13._ops.8.conv.weight" in names
    assert len([name for name in names if name.endswith("num_batches_tracked")]) == 1


@pytest.mark.usefixtures("added")
def test_any_function_is_an_operation_of_text(darts: Darts, tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("one word after the other one\n" * 60)
    text = ("rnn", "--data", tmp_path, "--batch-size", 4)
    run = make_all(darts, "softsign", text, ("--width", 4, "--device", "cpu"))
    tensors, _ = checkpoint.read(run / "last.safetensors")
    assert tensors["alphas.recurrent"].shape == (36, 6)
    assert tensors["alphas.recurrent"][:, 5].unique().numel() > 1
