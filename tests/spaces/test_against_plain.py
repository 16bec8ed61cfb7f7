"""Whole steps of the search against the plain networks, in double precision.

The plain networks are those that `make bench` measures against: a module for
each edge and operation, a copy of the network for the virtual step, every
gradient in every pass.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from darts_cli.config import ConvNetworkConfig, RecurrentNetworkConfig
from darts_cli.engine.capabilities import to_reference_names
from darts_cli.engine.state import State
from darts_cli.engine.steps import search_step, train_step
from darts_cli.engine.task import Batch
from darts_cli.runtime.randomness import seed_for
from tests.benchmarks.cases import Case, make_cases, make_plain, make_state
from tests.benchmarks.plain.step import PlainSearch

pytestmark = pytest.mark.usefixtures("double_precision")

_CASES = make_cases()


assert_close = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-10)


def _images(order: str, size: int, layers: int = 3) -> Case:
    case = _CASES[f"cnn-16x8-b8-{order}"]
    config = replace(
        case.config,
        data=replace(case.config.data, batch_size=4),
        network=ConvNetworkConfig(channels=4, layers=layers),
    )
    return replace(case, config=config, info={**case.info, "size": size})


def _text(order: str) -> Case:
    case = _CASES["rnn-32-b16-second"]
    alphas = case.config.alphas
    assert alphas is not None
    config = replace(
        case.config,
        data=replace(case.config.data, batch_size=5),
        network=RecurrentNetworkConfig(width=6, activation=0.5),
        alphas=replace(alphas, order="first" if order == "first" else "second"),
        weights=replace(case.config.weights, momentum=0.9),
    )
    return replace(case, config=config, info={"vocabulary": [str(n) for n in range(11)]})


def _ready(case: Case, *memories: str) -> tuple[list[State], PlainSearch, Any, Any]:
    """Ours for each use of memory and the plain one, with the same weights."""
    ours = [make_state(case.config, case.info, None, memory=memory) for memory in memories]
    search, loss, training_loss = make_plain(case.config, case.info)
    network = ours[0].module.network
    for other in ours[1:]:
        other.module.network.load_state_dict(network.state_dict())
    named = to_reference_names(network, network.state_dict())
    if case.config.space == "rnn":
        named["decoder.weight"] = named["encoder.weight"]
    search.network.load_state_dict(named)
    for state in ours:
        state.module.network.train()
    search.network.train()
    return ours, search, loss, training_loss


def _step_plain(
    search: PlainSearch, loss: Any, training_loss: Any, train: Batch, valid: Batch, number: int
) -> list[Tensor]:
    """A plain step with the draws of ours: they are counted by purpose and step."""

    def drawn(loss: Any, batch: Batch, purpose: str) -> Any:
        def run(network: nn.Module, mixture: dict[str, Tensor]) -> Tensor:
            torch.manual_seed(seed_for(0, purpose, 0, number))
            result: Tensor = loss(network, mixture, batch)
            return result

        return run

    gradients = search.move_alphas(drawn(loss, train, "virtual"), drawn(loss, valid, "validation"))
    search.move_weights(drawn(training_loss, train, "weights"))
    return gradients


def _batches(case: Case) -> Iterator[tuple[Batch, Batch]]:
    """Other ones every step, in double precision."""
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        pair = (case.random_batch(generator) for _ in range(2))
        first, second = (
            replace(batch, inputs=batch.inputs.double())
            if batch.inputs.is_floating_point()
            else batch
            for batch in pair
        )
        yield first, second


def assert_three_equal_steps(case: Case, *memories: str) -> None:
    """Logits' losses, alpha gradients, alphas and weights, to 1e-8, momentum included."""
    # The plain steps take longest: they are the same for all uses of memory.
    ours, search, loss, training_loss = _ready(case, *memories)
    for number, (train, valid) in enumerate(_batches(case)):
        expected = _step_plain(search, loss, training_loss, train, valid, number)
        for state in ours:
            state.position.step = number
            found = search_step(state, train, valid, seed=0)
            train_step(state, train, case.config)
            for one, other in zip(found, expected, strict=True):
                assert_close(one, other)
            assert state.architect is not None
            for cell, alpha in state.architect.alphas.items():
                assert_close(alpha, search.alphas[cell])
    plain = dict(search.network.named_parameters())
    for state in ours:
        network = state.module.network
        named = to_reference_names(network, dict(network.named_parameters()))
        assert named.keys() == plain.keys()
        for name, weight in named.items():
            assert_close(weight, plain[name])


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("order", ["first", "second"])
def test_a_convolutional_search_is_the_plain_one(order: str, size: int) -> None:
    assert_three_equal_steps(_images(order, size), "fast", "save")


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 5, 2])
def test_it_is_at_the_sizes_that_change_the_way_of_a_gradient(size: int) -> None:
    assert_three_equal_steps(_images("second", size, layers=1), "fast")


@pytest.mark.parametrize("order", ["first", "second"])
def test_a_recurrent_search_is_the_plain_one(order: str) -> None:
    assert_three_equal_steps(_text(order), "fast")


@pytest.mark.parametrize("size", [8, 7])
def test_logits_are_the_plain_ones(size: int) -> None:
    case = _images("second", size)
    (ours,), search, _, _ = _ready(case, "fast")
    images = torch.randn(4, 3, size, size)
    mixture = search.mixture()
    for training in (True, False):
        ours.module.network.train(training)
        search.network.train(training)
        found = ours.module.forward(Batch(images, torch.zeros(4)), mixture).logits
        assert_close(found, search.network(images, mixture))
