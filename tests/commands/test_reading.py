"""What is read from a run directory, and how damage to it is told."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from darts_cli.commands.reading import read_history
from darts_cli.errors import CheckpointError
from darts_cli.genotype.file import load
from darts_cli.run import checkpoint
from darts_cli.spaces import SPACES
from tests.conftest import Darts, contents, read_metrics


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    """A copy of a search, to damage."""
    return Path(shutil.copytree(searched, tmp_path / "copy"))


def test_a_search_is_read_epoch_by_epoch(searched: Path) -> None:
    history = read_history(searched)
    assert (history.command, history.space, history.epochs) == ("search", SPACES["cnn"], 2)
    assert history.name == "run"
    assert [snapshot.epoch for snapshot in history.snapshots] == [1, 2]
    assert history.records == read_metrics(searched)
    for snapshot, record in zip(history.snapshots, history.records, strict=True):
        assert {**record, **asdict(snapshot.signals)} == record
    assert history.genotype == load(searched / "genotype.yaml", SPACES)
    assert history.genotype.cells == history.snapshots[-1].genotype.cells


def test_a_training_has_a_genotype_and_no_alphas(trained: Path) -> None:
    history = read_history(trained)
    assert (history.command, history.snapshots, history.warnings()) == ("train", [], [])
    assert history.genotype is not None
    assert len(history.records) == 1


def test_a_run_before_its_first_epoch_is_read(run: Path) -> None:
    for file in (run / "metrics.jsonl", run / "genotype.yaml", *run.glob("alphas/*")):
        file.unlink()
    history = read_history(run)
    assert (history.records, history.snapshots, history.genotype) == ([], [], None)


def test_a_damaged_file_of_alphas_is_named(run: Path) -> None:
    (run / "alphas" / "epoch-0001.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"epoch-0001\.safetensors: cannot be read"):
        read_history(run)


def test_settings_of_no_run_are_named(run: Path) -> None:
    (run / "config.yaml").write_text("space: cnn\n")
    with pytest.raises(CheckpointError) as caught:
        read_history(run)
    assert str(caught.value) == (
        f"{run}/config.yaml: command: found None, expected search or train"
    )


def test_metrics_load_with_pandas_in_one_call(searched: Path) -> None:
    import pandas as pd

    table = pd.read_json(searched / "metrics.jsonl", lines=True)
    assert list(table["epoch"]) == [1, 2]
    assert list(table.columns) == list(read_metrics(searched)[0])
    assert [row["loss"] for row in table["train"]] == pytest.approx(
        [record["train"]["loss"] for record in read_metrics(searched)]
    )


def test_every_field_of_the_metrics_is_explained(searched: Path, trained: Path) -> None:
    text = (files("darts_cli") / "manual" / "files.md").read_text(encoding="utf-8")
    for record in (*read_metrics(searched), *read_metrics(trained)):
        for name in record:
            assert f"`{name}`" in text


def forge(file: Path, *names: str, value: object = None) -> None:
    """Put another value at a place in a checkpoint's metadata, whose digest is right."""
    tensors, metadata = checkpoint.read(file)
    inner: Any = metadata
    for name in names[:-1]:
        inner = inner[name]
    inner[names[-1]] = value
    checkpoint.write(file, tensors, metadata)


@pytest.mark.parametrize(
    ("names", "value", "field"),
    [
        (("config", "space"), ["a"], "config.space"),
        (("config",), None, "config.space"),
        (("config", "seed"), "x", "config.seed"),
        (("config", "alphas"), None, "config.alphas.order"),
        (("config", "alphas", "order"), [1], "config.alphas.order"),
        (("config", "data"), 3, "config.data.name"),
        (("position",), None, "position.epoch"),
        (("position", "epoch"), "x", "position.epoch"),
        (("position", "epoch"), 0, "position.epoch"),
        (("position", "epoch"), 2, "position.epoch"),
        (("position", "epoch"), 10**15, "position.epoch"),
    ],
)
def test_alphas_that_say_what_cannot_be_are_refused_by_file_and_field(
    run: Path, names: tuple[str, ...], value: object, field: str
) -> None:
    file = run / "alphas" / "epoch-0001.safetensors"
    forge(file, *names, value=value)
    with pytest.raises(CheckpointError) as caught:
        read_history(run)
    assert str(caught.value).startswith(f"{file}: {field}: found ")
    assert ", expected " in str(caught.value)


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (lambda alpha: alpha * math.nan, "found numbers that are not finite"),
        (lambda alpha: alpha * math.inf, "found numbers that are not finite"),
        (lambda alpha: alpha.to(torch.complex64), "found torch.complex64"),
        (lambda alpha: alpha.long(), "found torch.int64"),
        (lambda alpha: alpha[:3], "found shape [3, 8]"),
    ],
)
def test_alphas_that_are_no_finite_numbers_derive_nothing(
    darts: Darts, run: Path, alter: Callable[[Tensor], Tensor], message: str
) -> None:
    file = run / "last.safetensors"
    tensors, metadata = checkpoint.read(file)
    tensors["alphas.normal"] = alter(tensors["alphas.normal"])
    checkpoint.write(file, tensors, metadata)
    before = contents(run)
    refusal = darts("derive", run).refusal()
    assert refusal.startswith(f"{file}: alphas.normal: {message}, expected ")
    assert contents(run) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("space: [a]\ncommand: search\n", "space: found ['a'], expected one of cnn, rnn"),
        ("space: cnn\ncommand: [a]\n", "command: found ['a'], expected search or train"),
        ("space: cnn\ncommand: search\n", "epochs: found None, expected 1 to 100,000"),
        (
            "{space: cnn, command: search, epochs: abc}",
            "epochs: found 'abc', expected 1 to 100,000",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused_by_file_and_field(
    run: Path, text: str, message: str
) -> None:
    (run / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read_history(run)
    assert str(caught.value) == f"{run}/config.yaml: {message}"


def test_settings_of_another_space_than_the_alphas_are_refused(run: Path) -> None:
    (run / "config.yaml").write_text("{space: rnn, command: search, epochs: 3}")
    with pytest.raises(CheckpointError, match="line 1: skip_connections: found "):
        read_history(run)
    (run / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"config\.space: found 'cnn', expected 'rnn'"):
        read_history(run)
    shutil.rmtree(run / "alphas")
    with pytest.raises(
        CheckpointError, match=r"genotype\.yaml: space: found 'cnn', expected 'rnn'"
    ):
        read_history(run)


@pytest.mark.parametrize(
    ("name", "value"), [("skip_connections", 7), ("entropy", {"normal": None}), ("epoch", 10**400)]
)
def test_damaged_metrics_are_told_by_viz_and_resume_before_anything_is_written(
    darts: Darts, run: Path, name: str, value: object
) -> None:
    first, second = read_metrics(run)
    second[name] = value
    (run / "metrics.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    before = contents(run)
    for command in (
        ("viz", run, "--output", run / "page.html"),
        ("search", "cnn", "--resume", run, "--epochs", 3, "--device", "cpu"),
    ):
        refusal = darts(*command).refusal()
        assert refusal.startswith(f"{run}/metrics.jsonl, line 2: {name}: found ")
        assert {**contents(run), ".lock": None} == {**before, ".lock": None}


def test_damaged_alphas_are_told_by_resume_before_anything_is_written(
    darts: Darts, run: Path
) -> None:
    file = run / "alphas" / "epoch-0002.safetensors"
    tensors, metadata = checkpoint.read(file)
    checkpoint.write(file, {name: alpha[0] for name, alpha in tensors.items()}, metadata)
    before = contents(run)
    resume = ("search", "cnn", "--resume", run, "--epochs", 3, "--device", "cpu")
    message = darts(*resume).refusal()
    assert message.startswith(f"{file}: alphas.normal: found shape [8], expected alphas of shape ")
    assert {**contents(run), ".lock": None} == {**before, ".lock": None}
