"""Signals in the middle of a run: what it finishes, what it saves, and that it goes on from it."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from darts_cli.engine.artifacts import RunContext
from darts_cli.engine.loop import fit
from darts_cli.engine.state import State
from darts_cli.engine.strategies import Mixture
from darts_cli.engine.task import Batch, Loaders
from darts_cli.errors import Interrupted
from darts_cli.run import checkpoint
from darts_cli.runtime import clock
from tests.engine.toy import (
    ToyLoader,
    ToyModule,
    ToyOutput,
    make_config,
    make_context,
    make_state,
)


def send(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@dataclass
class Stopping(ToyLoader):
    """Sends signals before it gives one of its batches."""

    at: tuple[int, int] = (1, 2)
    numbers: tuple[signal.Signals, ...] = (signal.SIGINT,)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for index, batch in enumerate(super().batches(epoch, start), start):
            if (epoch, index) == self.at:
                send(*self.numbers)
            yield batch


class StoppingTask(ToyModule):
    """Sends signals in the middle of the forward pass with a number."""

    def __init__(self, at: int, *numbers: signal.Signals) -> None:
        super().__init__()
        self.passes, self.at, self.numbers = 0, at, numbers

    def forward(self, batch: Batch, mixture: Mixture) -> ToyOutput:
        output = super().forward(batch, mixture)
        self.passes += 1
        if self.passes == self.at:
            # What a real network has changed by then.
            with torch.no_grad():
                self.network.outer.bias.add_(1)
            send(*self.numbers)
        return output


def position_of(context: RunContext) -> dict[str, int]:
    position: dict[str, int] = checkpoint.read(context.run.last)[1]["position"]
    return position


def tensors_of(path: Path) -> dict[str, Tensor]:
    return checkpoint.read(path / "last.safetensors")[0]


def finish(path: Path, *, search: bool) -> State:
    """Go on with a run in a state that knows nothing."""
    config = make_config(search=search)
    context, state = make_context(config, path), make_state(config)
    state.load_state_dict(*checkpoint.read(context.run.last))
    context.run.keep_metrics(state.position.epoch)
    assert fit(state, context)
    return state


def assert_ends_as_one_never_stopped(path: Path, *, search: bool) -> None:
    finish(path, search=search)
    config = make_config(search=search)
    fit(make_state(config), make_context(config, path.with_name("whole")))
    for name in ("last.safetensors", "metrics.jsonl"):
        assert (path / name).read_bytes() == (path.with_name("whole") / name).read_bytes()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 0)]
)
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    config = make_config(search=False)
    context = make_context(
        config, tmp_path / "run", loaders=Loaders(train=Stopping("weights", numbers=(number,)))
    )
    with pytest.raises(Interrupted) as stop:
        fit(make_state(config), context)
    assert stop.value.exit_status == status
    assert str(stop.value) == (
        f"stopped by {number.name}, state saved; go on with: darts search toy --resume here"
    )
    position = checkpoint.read_metadata(context.run.last)["position"]
    assert position == {"epoch": 1, "step": 3, "total": 7}


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_an_evaluation_is_not_waited_for_and_made_again(
    tmp_path: Path, number: signal.Signals, search: bool
) -> None:
    config = make_config(search=search)
    context = make_context(config, tmp_path / "run")
    watched = Stopping("watched", length=2, at=(0, 0), numbers=(number,))
    context = replace(context, loaders=replace(context.loaders, eval=watched))
    with pytest.raises(Interrupted):
        fit(make_state(config), context)
    assert position_of(context) == {"epoch": 0, "step": 4, "total": 4}
    assert watched.read == [(0, 0)]
    assert not context.run.metrics.exists()
    assert_ends_as_one_never_stopped(context.run.path, search=search)


def test_a_signal_while_the_first_checkpoint_is_written_stops_the_run_after_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint.write

    def interrupted(path: Path, *content: Any, **more: Any) -> None:
        write(path, *content, **more)
        if not path.with_name("stopped").exists():
            path.with_name("stopped").touch()
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoint, "write", interrupted)
    config = make_config(search=False)
    context = make_context(config, tmp_path / "run")
    with pytest.raises(Interrupted):
        fit(make_state(config), context)
    position = checkpoint.read_metadata(context.run.last)["position"]
    assert position == {"epoch": 0, "step": 1, "total": 1}


@pytest.mark.parametrize("search", [True, False])
def test_a_second_ctrl_c_undoes_a_slow_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: bool
) -> None:
    monkeypatch.setattr(clock, "_SLOW_SECONDS", 0.0)
    config = make_config(search=search)
    context = make_context(config, tmp_path / "run")
    # Five passes a step of search, the last of them for the weights; one a step of training.
    passes = 15 if search else 3
    state = make_state(config, lambda: StoppingTask(passes, signal.SIGINT, signal.SIGINT))
    with pytest.raises(Interrupted) as stop:
        fit(state, context)
    assert stop.value.exit_status == 130
    assert position_of(context) == {"epoch": 0, "step": 2, "total": 2}
    assert_ends_as_one_never_stopped(context.run.path, search=search)


def test_a_second_ctrl_c_waits_for_a_step_that_is_fast(tmp_path: Path) -> None:
    config = make_config(search=False)
    context = make_context(config, tmp_path / "run")
    state = make_state(config, lambda: StoppingTask(2, signal.SIGINT, signal.SIGINT))
    with pytest.raises(Interrupted):
        fit(state, context)
    assert position_of(context) == {"epoch": 0, "step": 2, "total": 2}


def test_a_second_ctrl_c_does_not_wait_for_data(tmp_path: Path) -> None:
    config = make_config(search=False)
    weights = Stopping("weights", at=(1, 2), numbers=(signal.SIGINT, signal.SIGINT))
    context = make_context(config, tmp_path / "run")
    context = replace(context, loaders=replace(context.loaders, train=weights))
    with pytest.raises(Interrupted):
        fit(make_state(config), context)
    assert position_of(context) == {"epoch": 1, "step": 2, "total": 6}
    assert_ends_as_one_never_stopped(context.run.path, search=False)


def test_checkpoints_come_after_so_many_steps_and_at_the_end_of_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    write = checkpoint.write

    def note(path: Path, tensors: Any, metadata: Any, **more: Any) -> None:
        write(path, tensors, metadata, **more)
        if path.name == "last.safetensors":
            saved.append(metadata["position"]["total"])

    monkeypatch.setattr(checkpoint, "write", note)
    config = make_config(search=False, epochs=2)
    context = make_context(config, tmp_path / "run", checkpoint_steps=3, checkpoint_seconds=0.0)
    fit(make_state(config), context)
    assert saved == [0, 3, 4, 7, 8]
