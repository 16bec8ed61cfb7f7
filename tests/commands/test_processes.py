"""Commands on several processes: one run, one voice, and it goes on with any number."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darts_cli import checkpoint
from darts_cli.engine.ranks import Ranks
from tests.conftest import Darts, Result, call, metrics
from tests.engine.processes import Together, as_command, workers

TINY = ("--channels", 2, "--layers", 3, "--device", "cpu", "--batch-size", 256)
DIGITS = ("search", "cnn", "--data", "digits", *TINY, "--order", "first", "--epochs", 2)


@pytest.fixture(scope="module")
def together() -> Iterator[Together]:
    """Two processes."""
    with workers(2) as start:
        yield start


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
    assert [line["epoch"] for line in metrics(path)] == [1, 2]
    assert metrics(path)[0] == metrics(searched_by_two)[0]
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
    assert second.refusal().startswith("process 1: ")


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
