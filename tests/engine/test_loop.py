"""The loop: alternation, resume at any step, epochs' ends, divergence, signals."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from darts_cli.engine.loop import fit
from darts_cli.engine.state import State
from darts_cli.engine.steps import evaluate, search_step, train_step
from darts_cli.engine.task import Batch, Loaders
from darts_cli.errors import CheckpointError, DivergenceError
from darts_cli.genotype.derivation import derive
from darts_cli.genotype.file import parse
from darts_cli.run import checkpoint
from darts_cli.run.signals import Signals, take_snapshot
from tests.engine.toy import (
    SPACE,
    ToyLoader,
    ToyModule,
    ToyOutput,
    make_config,
    make_context,
    make_state,
)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether all tensors are bit for bit equal."""
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def go_on(config_path: Path, *, search: bool, order: str, max_steps: int | None) -> State:
    """Go on from the newest checkpoint in a fresh process's state."""
    config = make_config(search=search, order=order)
    context = make_context(config, config_path, max_steps=max_steps)
    state = make_state(config)
    state.load_state_dict(*checkpoint.read(context.run.last))
    context.run.keep_metrics(state.position.epoch)
    fit(state, context)
    return state


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("search", [True, False])
def test_a_run_stopped_at_every_step_ends_with_the_same_bits(
    tmp_path: Path, search: bool, order: str
) -> None:
    config = make_config(search=search, order=order)
    whole = make_state(config)
    assert fit(whole, make_context(config, tmp_path / "whole"))
    broken = make_state(config)
    assert not fit(broken, make_context(config, tmp_path / "broken", max_steps=1))
    for steps in range(2, 13):
        broken = go_on(tmp_path / "broken", search=search, order=order, max_steps=steps)
    broken = go_on(tmp_path / "broken", search=search, order=order, max_steps=None)
    assert same(whole.state_dict(), broken.state_dict())
    assert whole.metadata() == broken.metadata()
    for name in ("metrics.jsonl", "last.safetensors"):
        first, second = (tmp_path / run / name for run in ("whole", "broken"))
        assert first.read_bytes() == second.read_bytes()


def test_alphas_come_first_then_the_weights_on_the_same_batch(tmp_path: Path) -> None:
    config = make_config(search=True, epochs=2)
    context = make_context(config, tmp_path / "run")
    fit(make_state(config), context)
    weights, alphas = context.loaders.train, context.loaders.arch
    assert isinstance(weights, ToyLoader)
    assert isinstance(alphas, ToyLoader)
    assert weights.read == [(epoch, step) for epoch in range(2) for step in range(4)]
    # Three batches an epoch of the alphas' own: they go on over the weights' epochs.
    assert alphas.read == [(number // 3, number % 3) for number in range(8)]


@pytest.mark.parametrize("order", ["first", "second"])
def test_the_alphas_step_leaves_no_trace_in_the_weights_step(order: str) -> None:
    config = make_config(search=True, order=order)
    batch, other = list(ToyLoader("weights").batches(0))[:2]
    with_alphas, without = make_state(config), make_state(config)
    search_step(with_alphas, batch, other, seed=0)
    assert with_alphas.architect is not None
    assert without.architect is not None
    moved = {cell: alpha.detach() for cell, alpha in with_alphas.architect.alphas.items()}
    for cell, alpha in without.architect.alphas.items():
        with torch.no_grad():
            alpha.copy_(moved[cell])
    for state in (with_alphas, without):
        train_step(state, batch, config)
    network = "network."
    first, second = (
        {name: tensor for name, tensor in state.state_dict().items() if name.startswith(network)}
        for state in (with_alphas, without)
    )
    assert same(first, second)


def test_the_genotype_is_that_of_the_alphas_after_the_epoch(tmp_path: Path) -> None:
    config = make_config(search=True, epochs=2)
    context = make_context(config, tmp_path / "run")
    state = make_state(config)
    fit(state, context)
    tensors, metadata = checkpoint.read(context.run.alphas_of(2))
    assert state.architect is not None
    assert torch.equal(tensors["alphas.cell"], state.architect.alphas["cell"])
    assert metadata["position"] == {"epoch": 2}
    assert "facts" not in metadata
    genotype = parse(context.run.genotype.read_text(), {"toy": SPACE}, "genotype.yaml")
    derived, _ = derive(SPACE, {"cell": tensors["alphas.cell"].tolist()}, name="x")
    assert genotype.cells == derived.cells
    assert genotype.origin["epoch"] == 2


def test_metrics_have_a_line_an_epoch(tmp_path: Path) -> None:
    config = make_config(search=True)
    context = make_context(config, tmp_path / "run")
    fit(make_state(config), context)
    records = context.run.read_metrics()
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert [record["step"] for record in records] == [4, 8, 12]
    assert records[0]["lr"] == 0.1
    assert records[0]["train"].keys() == records[0]["valid"].keys() == {"loss", "top1"}


def test_metrics_say_how_the_alphas_of_each_epoch_look_beside_those_before(tmp_path: Path) -> None:
    config = make_config(search=True)
    context = make_context(config, tmp_path / "run")
    fit(make_state(config), context)
    before = None
    for record in context.run.read_metrics():
        tensors, _ = checkpoint.read(context.run.alphas_of(record["epoch"]))
        alphas = {"cell": tensors["alphas.cell"].tolist()}
        before = take_snapshot(SPACE, alphas, epoch=record["epoch"], name="it", before=before)
        assert Signals.from_record(record, SPACE) == before.signals


def test_a_run_whose_earlier_alphas_are_gone_counts_from_here(tmp_path: Path) -> None:
    config = make_config(search=True)
    context = make_context(config, tmp_path / "run", max_steps=8)
    fit(make_state(config), context)
    context.run.alphas_of(1).unlink()
    context.run.alphas_of(2).write_bytes(b"damaged")
    go_on(tmp_path / "run", search=True, order="second", max_steps=None)
    assert context.run.read_metrics()[2]["unchanged_epochs"] == 0


def test_the_best_epoch_is_chosen_by_validation_alone(tmp_path: Path) -> None:
    config = make_config(search=False)
    by_test = make_context(
        config,
        tmp_path / "test",
        loaders=Loaders(train=ToyLoader("weights"), eval=ToyLoader("watched"), eval_split="test"),
    )
    fit(make_state(config), by_test)
    assert not by_test.run.best.exists()
    by_valid = make_context(config, tmp_path / "valid")
    fit(make_state(config), by_valid)
    losses = [record["valid"]["loss"] for record in by_valid.run.read_metrics()]
    metadata = checkpoint.read_metadata(by_valid.run.best)
    assert metadata["best"] == min(losses)
    assert metadata["position"]["epoch"] == losses.index(min(losses)) + 1


def test_a_loss_that_is_not_finite_ends_the_run_and_is_not_saved(tmp_path: Path) -> None:
    config = make_config(search=False)
    context = make_context(config, tmp_path / "run")
    state = make_state(config)
    assert isinstance(state.module, ToyModule)
    fit(state, make_context(config, tmp_path / "run", max_steps=2))
    before = context.run.last.read_bytes()
    state.module.factor = float("nan")
    with pytest.raises(DivergenceError) as error:
        fit(state, context)
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith("the loss is not a finite number any more (epoch 1, step 3, ")
    assert text.endswith(
        f"; the last good checkpoint is {context.run.last} (epoch 1, step 2); "
        "start a new run with an --lr below 0.1"
    )
    assert context.run.last.read_bytes() == before


@pytest.mark.parametrize("search", [True, False])
def test_a_gradient_that_is_not_finite_is_found_in_its_own_step(
    tmp_path: Path, search: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_loss, steps = ToyModule.training_loss, iter(range(100))

    def explode(module: ToyModule, output: ToyOutput, batch: Batch) -> Tensor:
        loss = training_loss(module, output, batch)
        if next(steps) == 2:
            # The loss stays as it is, its gradient has no bounds.
            loss = loss + (output.logits - output.logits.detach()).abs().sqrt().sum()
        return loss

    monkeypatch.setattr(ToyModule, "training_loss", explode)
    config = make_config(search=search)
    context = make_context(config, tmp_path / "run")
    with pytest.raises(DivergenceError, match=r"^the loss is not .* \(epoch 1, step 3, "):
        fit(make_state(config), context)
    tensors, metadata = checkpoint.read(context.run.last)
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert metadata["position"]["total"] == 0


def test_in_reduced_precision_the_first_thing_to_try_is_more_of_it(tmp_path: Path) -> None:
    config = make_config(search=False)
    config = replace(config, compute=replace(config.compute, precision="bf16"))
    state = make_state(config)
    assert isinstance(state.module, ToyModule)
    state.module.factor = float("inf")
    with pytest.raises(DivergenceError) as error:
        fit(state, make_context(config, tmp_path / "run"))
    assert str(error.value).endswith(
        "; go on with darts search toy --resume here --precision fp32, "
        "or start a new run with an --lr below 0.1"
    )


def test_evaluation_does_not_depend_on_the_batch_size() -> None:
    state = make_state(make_config(search=False))
    inputs, targets = torch.randn(12, 4), torch.randint(3, (12,))

    class Cut:
        def __init__(self, size: int) -> None:
            self.size = size

        def steps(self, epoch: int) -> int:
            return 12 // self.size

        def batches(self, epoch: int, start: int = 0):  # type: ignore[no-untyped-def]
            for at in range(0, 12, self.size):
                yield Batch(inputs[at : at + self.size], targets[at : at + self.size])

    results = [evaluate(state.module, Cut(size), {}, torch.device("cpu"))[0] for size in (12, 5, 1)]
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=1e-6)


def test_a_checkpoint_of_another_network_is_refused() -> None:
    state = make_state(make_config(search=True))
    tensors = state.state_dict()
    metadata = state.metadata()
    missing = {name: t for name, t in tensors.items() if name != "network.outer.bias"}
    with pytest.raises(CheckpointError, match=r"^network.outer.bias: not in the checkpoint"):
        state.load_state_dict(missing, metadata)
    other = tensors | {"network.outer.bias": torch.zeros(9)}
    with pytest.raises(
        CheckpointError, match=r"found shape \[9\] in the checkpoint, expected \[3\]"
    ):
        state.load_state_dict(other, metadata)
    with pytest.raises(CheckpointError, match=r"^network.more: in the checkpoint, but not in this"):
        state.load_state_dict(tensors | {"network.more": torch.zeros(9)}, metadata)
    with pytest.raises(CheckpointError, match=r"^alphas.cell: not in the checkpoint"):
        state.load_state_dict({n: t for n, t in tensors.items() if n != "alphas.cell"}, metadata)
