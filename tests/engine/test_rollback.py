"""Going back to the best checkpoint when training has diverged."""

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from darts_cli.config import Config
from darts_cli.engine.loop import fit
from darts_cli.engine.state import State
from darts_cli.engine.task import Batch, Loaders
from darts_cli.errors import DivergenceError, Interrupted
from darts_cli.run import checkpoint
from darts_cli.run.directory import Run
from tests.engine.toy import (
    ToyLoader,
    ToyModule,
    ToyOutput,
    make_config,
    make_context,
    make_state,
)


class Failing(ToyModule):
    """Its loss turns into something else at some of the weights' steps, counted over the run."""

    def __init__(self, failures: dict[int, float]) -> None:
        super().__init__()
        self.failures = failures
        self.calls = 0

    def training_loss(self, output: ToyOutput, batch: Batch) -> Tensor:
        self.calls += 1
        return super().training_loss(output, batch) * self.failures.get(self.calls, 1.0)

    def metric_sums(self, output: ToyOutput, batch: Batch) -> Tensor:
        sums = super().metric_sums(output, batch)
        # Before the training loss of the same step.
        sums[0] *= self.failures.get(self.calls + 1, 1.0)
        return sums


def settings(rollbacks: int, limit: float | None = None) -> Config:
    config = make_config(search=False)
    weights = replace(config.weights, rollbacks=rollbacks, loss_limit=limit)
    return replace(config, weights=weights)


def run(path: Path, failures: dict[int, float], config: Config):  # type: ignore[no-untyped-def]
    state = make_state(config)
    state.module = Failing(failures)
    state.optimizer = torch.optim.SGD(list(state.module.network.parameters()), lr=1.0, momentum=0.9)
    context = make_context(config, path)
    # As every run does before its first step.
    checkpoint.write(context.run.last, state.state_dict(), {**context.metadata, **state.metadata()})
    fit(state, context)
    return state, context


@pytest.mark.parametrize("failure", [float("nan"), float("inf"), 1e4])
def test_training_goes_back_to_the_best_checkpoint_and_on_with_other_numbers(
    tmp_path: Path, failure: float
) -> None:
    # The second of three epochs of four steps goes wrong.
    state, context = run(tmp_path / "run", {6: failure}, settings(2, limit=100.0))
    assert state.position.epoch == 3
    assert state.rollbacks == 1
    assert [record["epoch"] for record in context.run.read_metrics()] == [1, 2, 3]
    log = context.run.log.read_text()
    assert "back to best.safetensors, epoch 1, with other random numbers (1 of 2 times)" in log
    plain, _ = run(tmp_path / "plain", {}, settings(2, limit=100.0))
    first, second = state.state_dict(), plain.state_dict()
    assert not torch.equal(first["network.outer.weight"], second["network.outer.weight"])


def test_a_first_epoch_that_diverges_starts_again_from_its_beginning(tmp_path: Path) -> None:
    state, context = run(tmp_path / "run", {2: float("nan")}, settings(1))
    assert (state.position.epoch, state.rollbacks) == (3, 1)
    assert "back to begun.safetensors, epoch 0" in context.run.log.read_text()


def test_without_rollbacks_no_state_is_kept_for_one(tmp_path: Path) -> None:
    _, context = run(tmp_path / "run", {}, settings(0))
    assert not context.run.epoch_start.exists()


class Poisoned(ToyLoader):
    """Has a batch of no numbers in an epoch, which is not read again after a rollback."""

    at = (0, 2)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for index, batch in enumerate(super().batches(epoch, start), start):
            poisoned = (epoch, index) == self.at
            yield replace(batch, inputs=batch.inputs * float("nan")) if poisoned else batch


def go_on(
    path: Path, *, epoch: int, validated: bool = True, lr: float = 0.1, **changes: Any
) -> bool:
    """Begin a run that diverges in an epoch, or go on with it in a state that knows nothing."""
    config = settings(1)
    config = replace(config, weights=replace(config.weights, lr=lr))
    state, weights = make_state(config), Poisoned("weights")
    weights.at = (epoch, 2)
    watched = ToyLoader("watched", length=2)
    loaders = Loaders(train=weights, eval=watched, eval_split="valid" if validated else "test")
    context = make_context(config, path, loaders=loaders, **changes)
    if context.run.last.exists():
        state.load_state_dict(*checkpoint.read(context.run.last))
        context.run.keep_metrics(state.position.epoch)
    return fit(state, context)


def assert_same_files(one: Path, other: Path) -> None:
    names = {path.name for path in one.iterdir() if path.is_file()}
    assert names == {path.name for path in other.iterdir() if path.is_file()}
    for name in names - {"log.txt", "previous.safetensors"}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_run_that_diverges_ends_with_the_same_bits_wherever_it_was_stopped(
    tmp_path: Path, epoch: int, validated: bool
) -> None:
    assert go_on(tmp_path / "whole", epoch=epoch, validated=validated)
    stopped = tmp_path / "stopped"
    for steps in range(1, 12):
        assert not go_on(stopped, epoch=epoch, validated=validated, max_steps=steps)
    assert go_on(stopped, epoch=epoch, validated=validated)
    assert_same_files(stopped, tmp_path / "whole")


@pytest.mark.parametrize("method", ["keep_metrics", "append_metrics", "read_metrics"])
def test_a_run_that_is_killed_while_it_goes_back_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    class Killed(BaseException):
        pass

    call, restore = getattr(Run, method), State.load_state_dict

    def die(run: Run, *arguments: Any) -> None:
        call(run, *arguments)
        raise Killed

    def restore_and_die(state: State, *content: Any) -> None:
        restore(state, *content)
        monkeypatch.setattr(Run, method, die)

    # So fast that the best epoch is not the last one, whose line is dropped.
    assert go_on(tmp_path / "whole", epoch=2, lr=0.5)
    assert "back to best.safetensors, epoch 1," in (tmp_path / "whole" / "log.txt").read_text()
    monkeypatch.setattr(State, "load_state_dict", restore_and_die)
    with pytest.raises(Killed):
        go_on(tmp_path / "killed", epoch=2, lr=0.5)
    monkeypatch.undo()
    # What the newest checkpoint knows of is there, should the run go on in another way.
    killed = Run(tmp_path / "killed")
    done = checkpoint.read(killed.last)[1]["position"]["epoch"]
    assert {record["epoch"] for record in killed.read_metrics()} >= set(range(1, done + 1))
    assert go_on(tmp_path / "killed", epoch=2, lr=0.5)
    assert_same_files(tmp_path / "killed", tmp_path / "whole")


def test_a_training_that_diverges_again_and_again_is_an_error_with_its_number(
    tmp_path: Path,
) -> None:
    failures = dict.fromkeys(range(6, 100), float("nan"))
    with pytest.raises(DivergenceError) as error:
        run(tmp_path / "run", failures, settings(3))
    text = str(error.value)
    assert text.startswith("the loss is not a finite number any more (epoch 2, step 1, ")
    assert (
        "; still diverging after 3 rollbacks to the best checkpoint; the last good checkpoint is "
        in text
    )
    tensors, metadata = checkpoint.read(tmp_path / "run" / "last.safetensors")
    assert metadata["rollbacks"] == 3
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_loss_above_the_limit_is_named_with_it(tmp_path: Path) -> None:
    with pytest.raises(
        DivergenceError, match=r"^the loss is .*, above weights.loss_limit \(0\.1\)"
    ):
        run(tmp_path / "run", {}, settings(0, limit=0.1))


class Broken(ToyModule):
    """Its first validation after an epoch is no number, if only once."""

    summaries = 0

    def summarize(self, means: Mapping[str, float]) -> dict[str, float]:
        if not self.network.training:
            self.summaries += 1
            if self.summaries == 2:
                return {**means, "loss": float("nan")}
        return dict(means)


def test_a_validation_loss_that_is_no_number_is_a_divergence(tmp_path: Path) -> None:
    config = settings(1)
    state = make_state(config)
    state.module = Broken()
    state.optimizer = torch.optim.SGD(list(state.module.network.parameters()), lr=1.0)
    context = make_context(config, tmp_path / "run")
    fit(state, context)
    assert (state.position.epoch, state.rollbacks) == (3, 1)
    assert [record["epoch"] for record in context.run.read_metrics()] == [1, 2, 3]
    assert "NaN" not in context.run.metrics.read_text()


def test_after_a_rollback_the_data_is_cut_anew(tmp_path: Path) -> None:
    read: list[int] = []

    class Noting(ToyLoader):
        def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            read.append(epoch)
            return super().batches(epoch, start)

    config = settings(1)
    state = make_state(config)
    state.module = Failing({6: float("nan")})
    state.optimizer = torch.optim.SGD(list(state.module.network.parameters()), lr=1.0)
    loaders = Loaders(train=Noting("weights"), eval=ToyLoader("watched", length=2))
    fit(state, make_context(config, tmp_path / "run", loaders=loaders))
    assert read[:2] == [0, 1]
    assert read[3] == read[2] + 1 == 2**20 + 2


def test_a_rollback_while_averaging_goes_on_averaging(tmp_path: Path) -> None:
    config = settings(1)
    state = make_state(config)
    state.module = Failing({10: float("nan")})
    state.optimizer = torch.optim.SGD(list(state.module.network.parameters()), lr=1.0)
    state.start_averaging()
    context = make_context(config, tmp_path / "run")
    fit(state, context)
    assert state.rollbacks == 1
    assert state.average is not None
    # Of all twelve steps, and of none that was undone.
    assert state.average.count == 12


def test_a_signal_in_the_step_that_diverges_stops_the_run(tmp_path: Path) -> None:
    config = settings(5)
    state = make_state(config)

    class Interrupting(Failing):
        def training_loss(self, output: ToyOutput, batch: Batch) -> Tensor:
            if self.calls == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return super().training_loss(output, batch)

    state.module = Interrupting({6: float("nan")})
    state.optimizer = torch.optim.SGD(list(state.module.network.parameters()), lr=1.0)
    context = make_context(config, tmp_path / "run")
    with pytest.raises((Interrupted, DivergenceError)) as caught:
        fit(state, context)
    assert isinstance(caught.value, Interrupted), caught.value
    tensors, _ = checkpoint.read(context.run.last)
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_rollback_is_kept_by_a_checkpoint(tmp_path: Path) -> None:
    state, _ = run(tmp_path / "run", {6: float("nan")}, settings(2))
    fresh = make_state(settings(2))
    fresh.load_state_dict(*checkpoint.read(tmp_path / "run" / "last.safetensors"))
    assert fresh.rollbacks == state.rollbacks == 1
    assert fresh.train_seed(5) == state.train_seed(5) != 5
