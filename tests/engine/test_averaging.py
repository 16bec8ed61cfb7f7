"""The mean of the weights, and when it begins."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from darts_cli.engine.averaging import Average
from darts_cli.engine.loop import fit
from darts_cli.engine.state import load_network
from darts_cli.run import checkpoint
from tests.engine.toy import ToyModule, make_config, make_context, make_state


def test_the_mean_is_that_of_all_weights_since_it_was_begun() -> None:
    weight = torch.zeros(3, dtype=torch.float64)
    average = Average({"w": weight})
    values = torch.randn(50, 3, dtype=torch.float64)
    for value in values:
        weight.copy_(value)
        average.update()
    torch.testing.assert_close(average.means["w"], values.mean(0), rtol=1e-12, atol=1e-14)


def test_the_mean_takes_the_weights_place_and_they_come_back_bit_for_bit() -> None:
    weight = torch.randn(5)
    average = Average({"w": weight})
    average.update()
    weight.mul_(3.1)
    average.update()
    before = weight.clone()
    with average.applied():
        assert torch.equal(weight, average.means["w"])
        assert not torch.equal(weight, before)
    assert torch.equal(weight, before)


class Scripted(ToyModule):
    """Its validation losses are given in advance."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.losses = iter(losses)
        self.weights_seen: list[Tensor] = []

    def summarize(self, means: Mapping[str, float]) -> dict[str, float]:
        if self.network.training:
            return dict(means)
        self.weights_seen.append(self.network.outer.bias.detach().clone())
        return {**means, "loss": next(self.losses)}


def run(path: Path, losses: list[float], patience: int = 2):  # type: ignore[no-untyped-def]
    config = make_config(search=False, epochs=len(losses))
    weights = replace(config.weights, averaging_patience=patience, momentum=0.0)
    config = replace(config, weights=weights)
    state = make_state(config)
    state.module = Scripted(losses)
    parameters = list(state.module.network.parameters())
    state.optimizer = torch.optim.SGD(parameters, lr=1.0)
    context = make_context(config, path)
    fit(state, context)
    return state, context


@pytest.mark.parametrize(
    ("losses", "begins"),
    [
        ([5.0, 4.0, 3.0, 2.0, 1.0], None),
        # Of the two epochs before the third, all but the last two is none at all.
        ([5.0, 6.0, 6.0], None),
        ([5.0, 6.0, 6.0, 1.0], None),
        ([5.0, 6.0, 6.0, 6.0, 1.0], 4),
        # The third is above the second, but not above the first.
        ([5.0, 4.0, 4.5, 4.6], None),
        ([5.0, 4.0, 4.5, 4.6, 4.7, 1.0, 1.0], 5),
        # Equal is no worse.
        ([5.0, 5.0, 5.0, 5.0], None),
    ],
)
def test_averaging_begins_when_the_loss_exceeds_the_best_of_all_but_the_last_epochs(
    tmp_path: Path, losses: list[float], begins: int | None
) -> None:
    state, context = run(tmp_path / "run", losses)
    if begins is None:
        assert state.average is None
    else:
        # Four steps an epoch.
        assert state.average is not None
        assert state.average.count == 4 * (len(losses) - begins)
    log = context.run.log.read_text()
    assert log.count("the weights are averaged from here on") == (begins is not None)


def test_evaluation_and_the_best_checkpoint_are_of_the_averaged_weights(tmp_path: Path) -> None:
    state, context = run(tmp_path / "run", [5.0, 6.0, 6.0, 6.0, 3.0])
    assert isinstance(state.module, Scripted)
    tensors, metadata = checkpoint.read(context.run.best)
    assert metadata["best"] == 3.0
    assert metadata["averaged"] == 4
    # Both are kept: the weights to go on with, and their mean.
    assert not torch.equal(tensors["network.outer.bias"], tensors["average.outer.bias"])
    assert torch.equal(tensors["average.outer.bias"], state.module.weights_seen[-1])
    module = ToyModule()
    load_network(module, tensors, averaged=True)
    assert torch.equal(module.network.outer.bias, tensors["average.outer.bias"])
    load_network(module, tensors)
    assert torch.equal(module.network.outer.bias, tensors["network.outer.bias"])


def test_the_best_checkpoint_knows_its_own_loss(tmp_path: Path) -> None:
    _, context = run(tmp_path / "run", [5.0, 4.0, 4.5])
    _, metadata = checkpoint.read(context.run.best)
    assert (metadata["best"], metadata["watched"]) == (4.0, [5.0, 4.0])


def test_a_run_resumed_while_averaging_ends_with_the_same_bits(tmp_path: Path) -> None:
    losses = [5.0, 6.0, 6.0, 6.0, 3.0, 3.5]
    whole, _ = run(tmp_path / "whole", losses)
    config = make_config(search=False, epochs=6)
    weights = replace(config.weights, averaging_patience=2, momentum=0.0)
    config = replace(config, weights=weights)
    broken = make_state(config)
    for steps in (15, 17, 18, 21, None):
        epochs_done = broken.position.epoch
        broken = make_state(config)
        broken.module = Scripted(losses[epochs_done:])
        broken.optimizer = torch.optim.SGD(list(broken.module.network.parameters()), lr=1.0)
        context = make_context(config, tmp_path / "broken", max_steps=steps)
        if context.run.last.exists():
            broken.load_state_dict(*checkpoint.read(context.run.last))
        torch.manual_seed(3)
        fit(broken, context)
    first, second = whole.state_dict(), broken.state_dict()
    assert first.keys() == second.keys()
    assert "average.outer.bias" in first
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert whole.metadata() == broken.metadata()
