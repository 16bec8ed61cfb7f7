"""What a checkpoint holds is taken whole or refused by name, whoever has written it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from darts_cli.engine.loop import fit
from darts_cli.engine.state import State
from darts_cli.errors import CheckpointError
from tests.engine.toy import make_config, make_context, make_state

Tensors = dict[str, Tensor]

SEARCH = make_config(search=True)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensors, dict[str, Any]]:
    """Of a search after two steps."""
    state = make_state(SEARCH)
    fit(state, make_context(SEARCH, tmp_path_factory.mktemp("state") / "run", max_steps=2))
    return state.copy_to_cpu()


def without(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__delitem__(name)


def put(name: str, change: Callable[[Tensor], Tensor], like: str = "") -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__setitem__(name, change(tensors[like or name]))


MOMENTUM = "optimizer.momentum_buffer.outer.bias"
SQUARE = "architect.exp_avg_sq.cell"
STEP = "architect.step.cell"


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (without(MOMENTUM), f"{MOMENTUM}: not in the checkpoint, which is of another network"),
        (put(MOMENTUM, lambda _: torch.zeros(2)), f"{MOMENTUM}: found shape [2] in the checkpoint"),
        (put(MOMENTUM, Tensor.double), f"{MOMENTUM}: found torch.float64 in the checkpoint"),
        (put("optimizer.x", lambda _: torch.zeros(2), MOMENTUM), "optimizer.x: in the checkpoint,"),
        (put("optimizer.x.y", Tensor.clone, MOMENTUM), "optimizer.x.y: in the checkpoint, but not"),
        (put(f"{MOMENTUM}s", Tensor.clone, MOMENTUM), f"{MOMENTUM}s: in the checkpoint, but not"),
        (without("architect.exp_avg.cell"), "architect.exp_avg.cell: not in the checkpoint"),
        (put(SQUARE, lambda _: torch.zeros(3)), f"{SQUARE}: found shape [3] in the checkpoint"),
        (put(SQUARE, lambda old: old.to(torch.complex64)), f"{SQUARE}: found torch.complex64 in"),
        (put(STEP, lambda _: torch.zeros(3)), f"{STEP}: found shape [3] in the checkpoint"),
        (put("alphas.cell", Tensor.long), "alphas.cell: found torch.int64 in the checkpoint"),
        (put("network.outer.bias", Tensor.double), "network.outer.bias: found torch.float64 in"),
        (put("network.x", Tensor.clone, MOMENTUM), "network.x: in the checkpoint, but not in this"),
        (
            put("average.outer.bias", Tensor.clone, MOMENTUM),
            "average.outer.bias: in the checkpoint",
        ),
        (put("meter", lambda _: torch.zeros(9)), "meter: found shape [9] in the checkpoint"),
    ],
)
def test_a_part_that_is_not_as_it_should_be_is_named(
    held: tuple[Tensors, dict[str, Any]], alter: Callable[[Tensors], None], message: str
) -> None:
    tensors, metadata = dict(held[0]), held[1]
    alter(tensors)
    with pytest.raises(CheckpointError) as caught:
        make_state(SEARCH).load_state_dict(tensors, metadata)
    assert str(caught.value).startswith(message)


def test_a_run_before_its_first_step_has_optimizers_that_keep_nothing(
    held: tuple[Tensors, dict[str, Any]],
) -> None:
    fresh = make_state(SEARCH)
    state = make_state(SEARCH)
    state.load_state_dict(*held)
    state.load_state_dict(*fresh.copy_to_cpu())
    assert not state.optimizer.state
    metadata = held[1] | {"position": fresh.metadata()["position"]}
    with pytest.raises(CheckpointError, match=r"momentum_buffer.*: in the checkpoint, but not in"):
        make_state(SEARCH).load_state_dict(held[0], metadata)


def test_all_of_a_state_comes_back(held: tuple[Tensors, dict[str, Any]]) -> None:
    state: State = make_state(SEARCH)
    state.load_state_dict(*held)
    tensors, metadata = state.copy_to_cpu()
    assert metadata == held[1]
    assert tensors.keys() == held[0].keys()
    assert all(torch.equal(tensors[name], held[0][name]) for name in tensors)
