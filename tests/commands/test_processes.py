"""Commands on several processes: one run, one voice, and it goes on with any number."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from darts_cli.engine import probe
from darts_cli.run import checkpoint
from darts_cli.runtime.ranks import Ranks
from tests.conftest import FEW_DIGITS, TINY, Darts, Images, Result, call, read_metrics
from tests.runtime.processes import Together, as_command, environment

DIGITS = ("search", "cnn", *FEW_DIGITS, "--order", "first", "--epochs", 2)


def run(_ranks: Ranks, *arguments: object) -> Result:
    """The command line on one of several processes."""
    return call(*arguments)


def darts_of(together: Together, size: int, *arguments: object) -> list[Result]:
    results: list[Any] = together(size, run, *arguments, start=as_command)
    return results


@pytest.fixture(scope="module")
def searched_by_two(together: Together, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of digits stopped in its second epoch."""
    path = tmp_path_factory.mktemp("two") / "run"
    results = darts_of(together, 2, *DIGITS, "--max-steps", 5, "--out", path)
    assert [result.status for result in results] == [0, 0], results
    # One prints the plan, the progress and the result.
    assert results[0].path == path
    assert "cpu (1 threads of" in results[0].err
    assert ", 2 processes" in results[0].err
    assert f"torchrun --nproc-per-node 2 -m darts_cli search cnn --resume {path}" in results[0].err
    assert (results[1].out, results[1].err) == ("", "")
    return path


@pytest.mark.parametrize("size", [1, 2])
def test_a_search_of_two_goes_on_with_one_or_two(
    together: Together, searched_by_two: Path, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for file in searched_by_two.rglob("*"):
        target = path / file.relative_to(searched_by_two)
        target.mkdir() if file.is_dir() else target.write_bytes(file.read_bytes())
    result, *_ = darts_of(together, size, "search", "cnn", "--resume", path, "--device", "cpu")
    assert result.path == path
    assert [line["epoch"] for line in read_metrics(path)] == [1, 2]
    assert read_metrics(path)[0] == read_metrics(searched_by_two)[0]
    # Nothing in a checkpoint is of one process.
    assert checkpoint.read_metadata(path / "last.safetensors")["position"]["total"] == 8


def test_two_processes_evaluate_what_one_does(
    together: Together, trained: Path, tmp_path: Path, darts: Darts
) -> None:
    file = tmp_path / "last.safetensors"
    file.write_bytes((trained / "last.safetensors").read_bytes())
    first, second = darts_of(together, 2, "eval", file, "--device", "cpu")
    assert second.out == ""
    by_two = json.loads(first.path.read_text())
    by_one = json.loads(darts("eval", file, "--device", "cpu").path.read_text())
    for name in ("loss", "top1", "top5"):
        assert by_two.pop(name) == pytest.approx(by_one.pop(name), rel=1e-6)
    # Each takes as many at once as one alone.
    assert by_two.pop("batch_size") == 2 * by_one.pop("batch_size")
    assert by_two == by_one
    # The digits that are set aside, whatever the batch is.
    assert by_two["examples"] == 179


def test_an_error_in_what_was_typed_is_said_once(together: Together, tmp_path: Path) -> None:
    arguments = ("search", "cnn", "--data", "digits", "--out", tmp_path / "run")
    first, second = darts_of(together, 2, *arguments, "--gpu", 0)
    assert first.refusal() == (
        "--gpu 0: found several processes, each of which takes a GPU of its own; choose them by "
        "CUDA_VISIBLE_DEVICES, or use --device cpu"
    )
    assert (second.status, second.err) == (2, "")
    first, _ = darts_of(together, 2, *arguments, "--device", "cpu", "--batch-size", 3)
    assert first.refusal() == (
        "--batch-size 3: expected 4 or more, two examples for each of 1 part on each of "
        "2 processes; use a larger one, or fewer of them"
    )
    assert not (tmp_path / "run").exists()


def test_an_error_of_one_is_said_with_its_number(together: Together, tmp_path: Path) -> None:
    first, second = darts_of(together, 2, "search", "cnn", "--data", tmp_path, "--device", "cpu")
    assert first.refusal().startswith("process 0: ")
    # The first one reads the images, and leaves before the other has.
    assert second.refusal(1).startswith("process 1: another process of this run is gone or out of ")


def test_a_batch_of_too_few_for_its_parts_is_refused(darts: Darts, tmp_path: Path) -> None:
    result = darts(*DIGITS[:4], "--batch-size", 5, "--accumulate", 3, "--device", "cpu")
    assert result.refusal() == (
        "--batch-size 5: expected 6 or more, two examples for each of 3 parts on each of "
        "1 process; use a larger one, or fewer of them"
    )


def test_what_a_step_is_computed_with_is_a_setting_that_may_change(
    darts: Darts, tmp_path: Path
) -> None:
    flags = ("--precision", "bf16", "--accumulate", 2)
    size = ("--channels", 2, "--layers", 1, "--batch-size", 8, "--order", "first")
    path = darts(
        *("search", "cnn", "--data", "digits", *size, *flags, "--device", "cpu"),
        *("--max-steps", 2, "--out", tmp_path / "run"),
    ).path
    settings = (path / "config.yaml").read_text()
    assert "precision: bf16" in settings
    assert "accumulate: 2" in settings
    plan = darts("search", "cnn", "--resume", path, "--device", "cpu", "--dry-run")
    assert "2 parts of a batch, bf16" in plan.err
    darts(
        *("search", "cnn", "--resume", path, "--device", "cpu", "--max-steps", 3),
        *("--precision", "fp32", "--accumulate", 1),
    )
    settings = (path / "config.yaml").read_text()
    assert "precision: fp32" in settings


def test_a_double_backward_cannot_be_compiled(darts: Darts, tmp_path: Path) -> None:
    result = darts(*DIGITS[:4], "--device", "cpu", "--compile", "--hypergradient", "exact")
    assert result.refusal() == (
        "--compile: found --hypergradient exact, whose double backward cannot be compiled; "
        "expected finite-difference, or leave --compile out"
    )


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (("--precision", "bf16"), "--precision bf16"),
        (("--compile",), "--compile"),
    ],
)
def test_memory_is_not_said_to_be_saved_where_it_is_not(
    darts: Darts, flags: tuple[str, ...], found: str
) -> None:
    result = darts(*DIGITS[:4], "--device", "cpu", "--memory", "save", *flags)
    assert result.refusal() == (
        f"--memory save: found {found}, with which nothing is saved; "
        "leave one of them out, or use --accumulate N for less memory"
    )


def test_an_error_that_the_first_process_does_not_have_is_said_by_another(
    monkeypatch: pytest.MonkeyPatch, darts: Darts
) -> None:
    for name, value in environment(1, 2, 29_500).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert darts(*DIGITS[:4]).refusal() == (
        "process 1: number 1 on this machine: found 1 CUDA device, expected one for each process; "
        "use --nproc-per-node 1, or --device cpu"
    )


def test_one_plan_is_printed_and_it_is_that_of_all(together: Together, tmp_path: Path) -> None:
    first, second = darts_of(together, 2, *DIGITS, "--dry-run", "--out", tmp_path / "run")
    assert len(first.out.splitlines()) == 1
    assert ", 2 processes" in first.err
    assert second.out == ""


def quick_probe(_ranks: Ranks, *arguments: object) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "_SECONDS", 0.0)
        return call(*arguments)


def test_processes_with_parts_of_unequal_size_probe_together(
    together: Together, tmp_path: Path
) -> None:
    # Of seven images one has three, which cannot be halved, and the other four, which can.
    arguments = (*DIGITS, "--batch-size", 7, "--probe", "--out", tmp_path / "run")
    results = together(2, quick_probe, *arguments, start=as_command)
    assert [result.status for result in results] == [0, 0]
    assert json.loads(results[0].out)["probe"]["largest_batch"] is None


def test_processes_that_have_no_batch_are_refused(
    together: Together, images: Images, tmp_path: Path
) -> None:
    few = images(count=4)
    arguments = ("search", "cnn", "--data", few, *TINY, "--out", tmp_path / "run")
    results = darts_of(together, 2, *arguments)
    assert results[0].refusal() == (
        f"process 0: {few}: found too little for one batch, expected two examples or more for "
        "each of 2 processes; use more data or fewer of them"
    )
    assert not (tmp_path / "run").exists()
