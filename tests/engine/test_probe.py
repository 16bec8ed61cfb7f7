"""What a few steps tell of a whole run."""

import time
from pathlib import Path

import pytest
import torch

from darts_cli.engine import probe
from darts_cli.engine.task import Loaders
from darts_cli.runtime import memory as memory_module
from darts_cli.runtime.memory import MemoryMeter
from tests.engine.toy import ToyLoader, make_config, make_state


class FixedMemory(MemoryMeter):
    """Peaks and a clock that are told in advance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, peaks: list[int], seconds: float) -> None:
        super().__init__(torch.device("cpu"))
        self.peaks, self.seconds, self.now, self.resets = peaks, seconds, 0.0, 0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def reset(self) -> None:
        self.resets += 1

    def peak(self) -> int:
        return self.peaks.pop(0)

    def available(self) -> int | None:
        return 10_000

    def wait(self) -> None:
        self.now += self.seconds


@pytest.mark.parametrize("search", [True, False])
def test_time_and_memory_of_a_run_follow_from_its_steps(
    monkeypatch: pytest.MonkeyPatch, search: bool
) -> None:
    config = make_config(search=search, epochs=3)
    loaders = Loaders(
        train=ToyLoader("weights", length=7, batch=64),
        arch=ToyLoader("alphas", length=3, batch=64) if search else None,
        eval=ToyLoader("watched", length=20),
    )
    # Of half a batch, of the whole, and after the evaluation.
    told = FixedMemory(monkeypatch, [1800, 2600, 2700], seconds=2.0)
    found = probe.take(make_state(config), loaders, config, told)
    assert found.step_seconds == 2
    assert found.epoch_seconds == 2 * 7 + 2 * 20
    assert found.run_seconds == 3 * found.epoch_seconds
    assert found.peak_bytes == 2700
    assert told.resets == 2
    # 25 bytes an example above 1,000: nine tenths of 10,000 hold 320, but those of the alphas
    # are 3 batches of 64, some of which may be shorter ones.
    assert found.largest_batch == (168 if search else 320)


@pytest.mark.parametrize(
    ("half", "whole", "available", "expected"),
    [
        (1800, 2600, 10_000, 320),
        (1800, 2600, 2_000, 32),
        (1800, 2600, 1_200, 3),
        (1800, 2600, 900, 0),
        (2600, 2600, 10_000, None),
        (None, 2600, 10_000, None),
        (1800, 2600, None, None),
    ],
)
def test_the_largest_batch_is_on_a_line_through_two_peaks(
    half: int | None, whole: int, available: int | None, expected: int | None
) -> None:
    assert probe._largest(64, half, whole, available) == expected


def test_a_batch_that_cannot_be_halved_proposes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(search=False)
    loaders = Loaders(train=ToyLoader("weights", batch=3))
    found = probe.take(make_state(config), loaders, config, FixedMemory(monkeypatch, [5, 5], 3.0))
    assert found.largest_batch is None
    assert found.epoch_seconds == 4 * 3


def test_the_peak_of_this_process_can_be_forgotten() -> None:
    memory = MemoryMeter(torch.device("cpu"))
    size = 2**26
    before = memory.peak()
    held = torch.ones(size, dtype=torch.uint8)
    assert memory.peak() >= before
    del held
    memory.reset()
    after = memory.peak()
    torch.ones(2 * size, dtype=torch.uint8)
    assert memory.peak() - after > size
    available = memory.available()
    assert available is not None
    assert available > 2 * size


def test_a_container_may_have_no_more_than_its_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory_module, "_LIMIT", limit)
    limit.write_text("12345\n")
    assert MemoryMeter(torch.device("cpu")).available() == 12_345
    limit.write_text("max\n")
    without = MemoryMeter(torch.device("cpu")).available()
    assert without is not None
    assert without > 12_345


def test_a_system_that_does_not_say_leaves_it_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("_STATUS", "_MEMINFO", "_CLEAR"):
        monkeypatch.setattr(memory_module, name, tmp_path / name)
    memory = MemoryMeter(torch.device("cpu"))
    memory.reset()
    assert memory.peak() > 2**20
    assert memory.available() is None


def test_cuda_is_asked_what_it_reserved_and_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: asked.append("reset"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: asked.append("wait"))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 7)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 5)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 200))
    memory = MemoryMeter(torch.device("cuda", 0))
    memory.reset()
    memory.wait()
    assert asked == ["reset", "wait"]
    assert (memory.peak(), memory.available()) == (7, 105)
