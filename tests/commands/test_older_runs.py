"""Runs that version 0.1.0 has begun are resumed, and end as if this version had begun them."""

import shutil
from pathlib import Path

import pytest
import torch

from darts_cli.run import checkpoint
from tests.conftest import Darts
from tests.spaces.recorded import GOLDEN

BEGUN = GOLDEN / "runs_0_1"
DIGITS = ("--data", "digits", "--channels", 2, "--layers", 1, "--batch-size", 256)
PLAIN = ("--set", "network.auxiliary=0", "--set", "data.cutout=4")


@pytest.mark.parametrize(
    ("command", "run", "arguments"),
    [
        (("search", "cnn"), "search", (*DIGITS, "--epochs", 1, "--order", "first")),
        (("train",), "train", ("--genotype", "darts_v2", *DIGITS, "--epochs", 2, *PLAIN)),
    ],
    ids=["search", "training"],
)
def test_a_run_of_version_0_1_is_resumed(
    darts: Darts, command: tuple[str, ...], run: str, arguments: tuple[object, ...]
) -> None:
    shutil.copytree(BEGUN / run, "begun")
    # A repository holds no empty folder.
    Path("begun", "alphas").mkdir()
    resumed = darts(*command, "--resume", "begun").path
    whole = darts(*command, *arguments, "--device", "cpu", "--out", "whole").path
    assert (whole / "metrics.jsonl").is_file()
    tensors, metadata = checkpoint.read(resumed / "last.safetensors")
    others, other_metadata = checkpoint.read(whole / "last.safetensors")
    assert metadata["position"] == other_metadata["position"]
    assert tensors.keys() == others.keys()
    # Not bit for bit: the first steps were computed on another machine.
    torch.testing.assert_close(tensors, others, rtol=1e-3, atol=1e-4)


def test_what_was_begun_is_of_version_0_1() -> None:
    for run in ("search", "train"):
        assert "darts: 0.1.0" in Path(BEGUN / run / "config.yaml").read_text()
