"""Several processes hold the same bits, compute what one would, stop together, and outlive none."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from darts_cli.engine.execution import StepExecution
from darts_cli.engine.loop import fit
from darts_cli.engine.state import State
from darts_cli.engine.steps import search_step, train_step
from darts_cli.engine.task import Batch, Loaders
from darts_cli.errors import ConfigError, DivergenceError, Interrupted, RankError
from darts_cli.run import checkpoint
from darts_cli.runtime import ranks as ranks_module
from darts_cli.runtime.ranks import SINGLE_PROCESS, Ranks, launched_by_torchrun, process_group
from tests.engine.toy import ToyLoader, ToyModule, make_config, make_context, make_state
from tests.runtime.processes import Together, environment, free_port, launcher


class SharedStream(ToyLoader):
    """Batches of which every rank has its part."""

    def __init__(self, purpose: str, ranks: Ranks, length: int = 4) -> None:
        super().__init__(purpose, length, batch=7)
        self.ranks = ranks

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for batch in super().batches(epoch, start):
            own = self.ranks.shard(batch.examples)
            share = (own.stop - own.start) / batch.examples
            yield Batch(batch.inputs[own], batch.targets[own], weight=share)


def make_shared_session(ranks: Ranks, path: Path, search: bool, **changes: Any) -> Any:
    config = make_config(search=search, epochs=5)
    loaders = Loaders(
        train=SharedStream("weights", ranks),
        arch=SharedStream("alphas", ranks, length=3) if search else None,
        eval=SharedStream("watched", ranks, length=2),
    )
    if ranks.is_main:
        return make_context(config, path, loaders=loaders, **changes)
    # The first process makes the directory; the others only name it.
    context = make_context(config, path.with_name(f"{path.name}-{ranks.rank}"), **changes)
    return replace(context, loaders=loaders, run=type(context.run)(path))


def run_toy(ranks: Ranks, path: Path, search: bool, resume: bool) -> dict[str, Tensor]:
    """Twenty steps, or those that a checkpoint leaves."""
    torch.manual_seed(ranks.rank)
    context = make_shared_session(ranks, path, search)
    state = make_state(context.config)
    state.execution = StepExecution(ranks=ranks)
    if resume:
        state.load_state_dict(*checkpoint.read(context.run.last))
        ranks.barrier()
    assert fit(state, context)
    return state.state_dict()


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("size", [2, 3])
def test_all_ranks_have_the_same_bits_after_20_steps(
    together: Together, tmp_path: Path, size: int, search: bool
) -> None:
    first, *others = together(size, run_toy, tmp_path / "run", search, False)
    assert checkpoint.read_metadata(tmp_path / "run" / "last.safetensors")["position"] == {
        "epoch": 5,
        "step": 0,
        "total": 20,
    }
    saved, _ = checkpoint.read(tmp_path / "run" / "last.safetensors")
    for other in [*others, saved]:
        assert first.keys() == other.keys()
        assert [name for name in first if not torch.equal(first[name], other[name])] == []


def stop_after(ranks: Ranks, path: Path, steps: int) -> None:
    context = make_shared_session(ranks, path, True, max_steps=steps)
    state = make_state(context.config)
    state.execution = StepExecution(ranks=ranks)
    assert not fit(state, context)


def test_a_run_of_two_stopped_in_an_epoch_ends_with_the_same_bits(
    together: Together, tmp_path: Path
) -> None:
    whole, _ = together(2, run_toy, tmp_path / "whole", True, False)
    together(2, stop_after, tmp_path / "broken", 6)
    broken, _ = together(2, run_toy, tmp_path / "broken", True, True)
    assert [name for name in whole if not torch.equal(whole[name], broken[name])] == []
    for name in ("metrics.jsonl", "last.safetensors"):
        first, second = (tmp_path / run / name for run in ("whole", "broken"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("size", [1, 3])
def test_a_run_of_two_goes_on_with_another_number(
    together: Together, tmp_path: Path, size: int
) -> None:
    together(2, stop_after, tmp_path / "run", 6)
    tensors = together(size, run_toy, tmp_path / "run", True, True)[0]
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(metrics) == 5


def stop_by_signal(ranks: Ranks, path: Path) -> tuple[int, str]:
    class Stopping(SharedStream):
        def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            for index, batch in enumerate(super().batches(epoch, start), start):
                if (epoch, index) == (1, 2) and self.ranks.rank == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    context = make_shared_session(ranks, path, False)
    context = replace(context, loaders=Loaders(train=Stopping("weights", ranks)))
    state = make_state(context.config)
    state.execution = StepExecution(ranks=ranks)
    with pytest.raises(Interrupted) as stop:
        fit(state, context)
    return state.position.total, str(stop.value)


def test_a_signal_to_one_stops_all_after_the_same_step(together: Together, tmp_path: Path) -> None:
    said = "stopped by SIGTERM, state saved; go on with: darts search toy --resume here"
    assert together(2, stop_by_signal, tmp_path / "run") == [(7, said), (7, said)]
    metadata = checkpoint.read_metadata(tmp_path / "run" / "last.safetensors")
    assert metadata["position"] == {"epoch": 1, "step": 3, "total": 7}


def diverge(ranks: Ranks, path: Path) -> str:
    context = make_shared_session(ranks, path, False)
    state = make_state(context.config)
    state.execution = StepExecution(ranks=ranks)
    assert isinstance(state.module, ToyModule)
    if ranks.rank == 1:
        state.module.factor = float("nan")
    with pytest.raises(DivergenceError) as error:
        fit(state, context)
    return str(error.value)


def test_what_diverges_on_one_ends_all(together: Together, tmp_path: Path) -> None:
    first, second = together(2, diverge, tmp_path / "run")
    # The first one looks, and tells the others.
    where = " (epoch 1, step 1, learning rate 0.1); the last good checkpoint is "
    assert first.startswith(f"the loss is not a finite number any more{where}")
    assert second.startswith(f"the training loss has diverged{where}")


def all_reduce(ranks: Ranks) -> tuple[list[Tensor], Tensor, Tensor, list[int], str]:
    transposed = torch.full((2, 3), 1.0 + ranks.rank).t()
    wide = torch.tensor([2.0 + ranks.rank], dtype=torch.float64)
    sums = ranks.all_reduce([transposed, wide], along=[own := torch.ones(2)])
    rows = ranks.all_gather(torch.full((1 + ranks.rank, 2), float(ranks.rank)))
    return (
        sums,
        own,
        rows,
        ranks.all_reduce_max(3 - ranks.rank, ranks.rank),
        ranks.broadcast(str(ranks.rank)),
    )


def test_what_ranks_say_to_one_another(together: Together) -> None:
    for sums, own, rows, agreed, told in together(2, all_reduce):
        assert torch.equal(sums[0], torch.full((3, 2), 3.0))
        assert sums[1] == torch.tensor([5.0], dtype=torch.float64)
        assert torch.equal(own, torch.full((2,), 2.0))
        assert torch.equal(rows, torch.tensor([[0.0, 0], [1, 1], [1, 1]]))
        assert agreed == [3, 1]
        assert told == "0"


def fail_alone(_ranks: Ranks) -> str:
    with pytest.raises(RuntimeError) as error, ranks_module._rank_errors():
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")
    return type(error.value).__name__


def test_an_error_of_ones_own_is_not_laid_at_anothers_door() -> None:
    assert fail_alone(SINGLE_PROCESS) == "RuntimeError"
    with pytest.raises(RankError), ranks_module._rank_errors():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")


def take_turns(ranks: Ranks, path: Path) -> bool:
    """Whether the first of the machine had been here."""
    with ranks.local_main_first():
        found = path.exists()
        path.touch()
    return found


def test_one_process_of_a_machine_goes_first(together: Together, tmp_path: Path) -> None:
    assert together(3, take_turns, tmp_path / "made") == [False, True, True]


def test_one_alone_says_it_to_itself() -> None:
    tensor = torch.ones(2)
    assert SINGLE_PROCESS.all_reduce([tensor])[0] is tensor
    assert SINGLE_PROCESS.all_gather(tensor) is tensor
    assert SINGLE_PROCESS.all_reduce_max(4, 0) == [4, 0]
    assert SINGLE_PROCESS.broadcast("this") == "this"


@pytest.mark.parametrize(("number", "size"), [(64, 2), (64, 3), (7, 3), (2, 3)])
def test_parts_are_disjoint_whole_and_nearly_equal(number: int, size: int) -> None:
    parts = [range(number)[Ranks(rank, size).shard(number)] for rank in range(size)]
    assert [place for part in parts for place in part] == list(range(number))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_half_of_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(0, 2, 29_500).items():
        monkeypatch.setenv(name, value)
    assert launched_by_torchrun() == (0, 2)
    monkeypatch.setenv("LOCAL_RANK", "")
    with pytest.raises(ConfigError) as error:
        launched_by_torchrun()
    assert str(error.value) == (
        "WORLD_SIZE is '2', so LOCAL_RANK should be set, found ''; start several processes with "
        "torchrun --nproc-per-node N -m darts_cli ..., or unset WORLD_SIZE"
    )
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match=r"^WORLD_SIZE is 'two', so WORLD_SIZE should be set"):
        launched_by_torchrun()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched_by_torchrun() is None


def outlive(rank: int, port: int, path: Path, said: Any) -> None:
    """The second of two processes dies in its seventh step."""

    class Deadly(SharedStream):
        def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            for index, batch in enumerate(super().batches(epoch, start), start):
                if (epoch, index) == (1, 2) and self.ranks.rank == 1:
                    os._exit(9)
                yield batch

    os.environ.update(environment(rank, 2, port))
    try:
        with process_group(torch.device("cpu")) as ranks:
            context = make_shared_session(ranks, path, False)
            context = replace(context, loaders=Loaders(train=Deadly("weights", ranks)))
            state = make_state(context.config)
            state.execution = StepExecution(ranks=ranks)
            fit(state, context)
    except RankError as error:
        said.put(str(error))
        said.close()
        said.join_thread()
        os._exit(1)


def test_a_process_that_dies_ends_the_others_with_a_message_and_the_run_goes_on(
    together: Together, tmp_path: Path
) -> None:
    context = launcher()
    said, port = context.Queue(), free_port()
    both = [
        context.Process(target=outlive, args=(rank, port, tmp_path / "run", said))
        for rank in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [1, 9]
    text = said.get(timeout=1)
    assert "\n" not in text
    assert text.startswith("another process of this run is gone or out of reach (")
    assert text.endswith("with --resume, on any number of processes")
    # The last checkpoint is that of the first epoch.
    whole = together(3, run_toy, tmp_path / "run", False, True)
    assert all(tensor.isfinite().all() for tensor in whole[0].values())


def toy_steps(execution: StepExecution, batch_size: int) -> list[Tensor]:
    """Three whole steps in double precision, dropout and BatchNorm in evaluation mode."""
    torch.set_default_dtype(torch.float64)
    try:
        config = make_config(search=True)
        state: State = make_state(config)
        state.execution = execution
        state.module.network.eval()
        gradients = []
        for step in range(3):
            train, valid = (
                take_part(next(ToyLoader(name, batch=batch_size).batches(step)), execution.ranks)
                for name in ("weights", "alphas")
            )
            gradients += search_step(state, train, valid, seed=0)
            train_step(state, train, config)
        return [*gradients, *state.state_dict().values()]
    finally:
        torch.set_default_dtype(torch.float32)


def take_part(batch: Batch, ranks: Ranks) -> Batch:
    own = ranks.shard(batch.examples)
    share = (own.stop - own.start) / batch.examples
    inputs = batch.inputs[own].to(torch.get_default_dtype())
    return Batch(inputs, batch.targets[own], weight=share)


def toy_steps_of(ranks: Ranks, parts: int, batch_size: int) -> list[Tensor]:
    return toy_steps(StepExecution(ranks=ranks, accumulation_steps=parts), batch_size)


@pytest.mark.parametrize(("size", "parts"), [(1, 2), (1, 5), (2, 1), (3, 1), (2, 2)])
def test_parts_of_a_batch_add_up_to_the_whole(together: Together, size: int, parts: int) -> None:
    whole = toy_steps(StepExecution(), 17)
    for found in together(size, toy_steps_of, parts, 17):
        for one, other in zip(found, whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
