"""Deterministic algorithms: on while they are wanted, and an error of one line without them."""

from typing import Any

import pytest
import torch

from darts_cli.errors import DeterminismError
from darts_cli.runtime.determinism import deterministically


def is_on() -> tuple[bool, bool]:
    memory: Any = torch.utils.deterministic
    return torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory


def test_torch_is_told_while_they_are_wanted_and_told_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert is_on() == (False, True)
    with deterministically(True):
        assert is_on() == (True, False)
    assert is_on() == (False, True)
    with deterministically(False):
        assert is_on() == (False, True)


def test_an_operation_without_such_an_algorithm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with pytest.raises(DeterminismError) as error, deterministically(True):
        torch.zeros(4).put_(torch.tensor([1, 1]), torch.ones(2))
    assert str(error.value) == (
        "--deterministic: put_ has no deterministic algorithm on this device; "
        "leave the flag out, or use --device cpu"
    )
    assert error.value.exit_status == 1
    assert is_on() == (False, True)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="wrong"), deterministically(True):
        raise RuntimeError("something wrong")
