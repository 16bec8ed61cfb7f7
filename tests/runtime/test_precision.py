"""The precision of products, and the scale that keeps half precision's gradients."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from darts_cli.engine.execution import StepExecution
from darts_cli.errors import CheckpointError, ConfigError
from darts_cli.runtime.precision import GradScaler, Precision
from tests.engine.toy import ToyLoader, make_config, make_state

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def products() -> tuple[str, str]:
    convolutions: Any = torch.backends.cudnn
    return torch.backends.cuda.matmul.fp32_precision, convolutions.conv.fp32_precision


def test_float32_on_cuda_is_float32_where_nothing_else_was_asked_for() -> None:
    Precision("tf32", CUDA)
    assert products() == ("tf32", "tf32")
    Precision("fp32", CUDA)
    assert products() == ("ieee", "ieee")


def test_tf32_is_left_for_the_finite_difference_and_comes_back() -> None:
    precision = Precision("tf32", CUDA)
    with precision.exactly():
        assert products() == ("ieee", "ieee")
        with precision.exactly():
            pass
        assert products() == ("ieee", "ieee")
    assert products() == ("tf32", "tf32")
    Precision("fp32", CPU)


def test_tf32_is_for_cuda() -> None:
    with pytest.raises(ConfigError) as error:
        Precision("tf32", CPU)
    assert str(error.value) == (
        "--precision tf32: on cpu, expected a CUDA device; use fp32 or bf16"
    )


@pytest.mark.parametrize(("name", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_products_are_of_the_type_that_was_asked_for(name: str, kind: torch.dtype) -> None:
    precision, layer, x = Precision(name, CPU), torch.nn.Linear(3, 3), torch.ones(1, 3)
    with precision.reduced():
        assert layer(x).dtype == kind
    with precision.exactly(), precision.reduced():
        assert layer(x).dtype == torch.float32
    with Precision("fp32", CPU).reduced():
        assert layer(x).dtype == torch.float32


def linear(weight: Tensor, factor: float) -> Tensor:
    return (factor * weight).sum()


def train(weights: Tensor, gradients: list[float], scale: GradScaler | None) -> list[Tensor]:
    """SGD with momentum on given gradients; weights and momentum after each step."""
    weight = weights.clone().requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    execution, after = StepExecution(grad_scaler=scale), []
    for gradient in gradients:
        (weight.grad,) = execution.gradients([partial(linear, weight, gradient)], [weight])
        execution.step(optimizer)
        after.append(weight.detach().clone())
    return after


def test_a_scale_changes_no_bit_where_nothing_overflows() -> None:
    weights, gradients = torch.tensor([1.0, -2.0]), [0.3, 0.7, -0.2]
    plain, scaled = train(weights, gradients, None), train(weights, gradients, GradScaler(CPU))
    assert all(torch.equal(one, other) for one, other in zip(plain, scaled, strict=True))


def test_a_step_that_overflows_is_none_and_halves_the_scale() -> None:
    weights, scale = torch.tensor([1.0, -2.0]), GradScaler(CPU)
    # The very first one, whose momentum was never written, and one in the middle.
    found = train(weights, [float("inf"), 0.3, float("nan"), 0.7], scale)
    expected = train(weights, [0.3, 0.7], None)
    assert torch.equal(found[0], weights)
    assert torch.equal(found[1], expected[0])
    assert torch.equal(found[2], expected[0])
    assert torch.equal(found[3], expected[1])
    assert scale.factor.item() == 2.0**14
    assert scale.overflow.item() == 0


def test_the_scale_stays_a_number_whatever_overflows() -> None:
    scale = GradScaler(CPU)
    for _ in range(200):
        scale.overflow.fill_(1.0)
        scale.update()
    assert scale.factor.item() == 2.0**-16


def test_a_state_that_overflowed_is_not_carried_on() -> None:
    state = torch.tensor([1.0, float("nan"), float("inf")])
    assert not StepExecution().keep(state).isfinite().all()
    assert torch.equal(
        StepExecution(grad_scaler=GradScaler(CPU)).keep(state), torch.tensor([1.0, 0.0, 0.0])
    )


def test_all_ranks_split_their_batches_into_as_many_parts() -> None:
    (batch,) = list(ToyLoader("weights", length=1, batch=6).batches(0))
    # The other process has five of the eleven.
    assert len(replace(batch, min_rank_size=5).split(3)) == 2
    assert len(batch.split(3)) == 3


def test_the_scale_doubles_after_many_steps_without_an_overflow() -> None:
    scale = GradScaler(CPU)
    for _ in range(2000):
        scale.update()
    assert (scale.factor.item(), scale.steady.item()) == (2.0**17, 0)


def test_adam_forgets_an_overflow_as_well() -> None:
    alpha = torch.ones(3).requires_grad_()
    optimizer, scale = torch.optim.Adam([alpha], lr=0.1), GradScaler(CPU)
    alpha.grad = torch.full((3,), float("inf"))
    scale.unscale([alpha.grad])
    scale.step(optimizer)
    assert torch.equal(alpha, torch.ones(3))
    state = optimizer.state[alpha]
    assert torch.equal(state["exp_avg"], torch.zeros(3))
    assert torch.equal(state["exp_avg_sq"], torch.zeros(3))


def test_a_checkpoint_keeps_the_scale_and_does_without_one() -> None:
    config = make_config(search=False)
    state, other, plain = make_state(config), make_state(config), make_state(config)
    for one in (state, other):
        one.execution = StepExecution(grad_scaler=GradScaler(CPU))
    assert state.execution.grad_scaler is not None
    assert other.execution.grad_scaler is not None
    state.execution.grad_scaler.factor.fill_(8.0)
    other.load_state_dict(state.state_dict(), state.metadata())
    assert other.execution.grad_scaler.factor.item() == 8
    other.load_state_dict(plain.state_dict(), plain.metadata())
    plain.load_state_dict(state.state_dict(), state.metadata())
    damaged = {n: t for n, t in state.state_dict().items() if n != "scale.steady"}
    with pytest.raises(CheckpointError, match=r"^scale.steady: expected a single number in the ch"):
        other.load_state_dict(damaged, state.metadata())


def test_batches_are_split_into_parts_of_two_or_more() -> None:
    (batch,) = list(ToyLoader("weights", length=1, batch=7).batches(0))
    for parts, sizes in ((1, [7]), (2, [4, 3]), (3, [3, 2, 2]), (4, [3, 2, 2]), (99, [3, 2, 2])):
        split = batch.split(parts)
        assert [part.examples for part in split] == sizes
        assert sum(part.weight for part in split) == pytest.approx(1)
        assert torch.equal(torch.cat([part.inputs for part in split]), batch.inputs)
