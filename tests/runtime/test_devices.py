"""Devices chosen, named and watched, on machines with any number of them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from darts_cli.errors import ConfigError, DeviceError, DeviceMemoryError
from darts_cli.runtime import devices

CPU = torch.device("cpu")


def pretend(monkeypatch: pytest.MonkeyPatch, *, gpus: int = 0, mps: bool = False) -> None:
    """A machine with this many CUDA devices of 80 GiB."""
    facts = SimpleNamespace(name="NVIDIA H100", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: facts.name)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


def refusal(gpu: int | None, name: str | None) -> str:
    with pytest.raises(ConfigError) as error:
        devices.choose(gpu, name)
    return str(error.value)


@pytest.mark.parametrize(
    ("gpus", "mps", "expected"),
    [(2, False, "cuda:0"), (1, True, "cuda:0"), (0, True, "mps"), (0, False, "cpu")],
)
def test_the_best_device_is_cuda_then_mps_then_the_cpu(
    monkeypatch: pytest.MonkeyPatch, gpus: int, mps: bool, expected: str
) -> None:
    pretend(monkeypatch, gpus=gpus, mps=mps)
    assert devices.choose(None, None) == torch.device(expected)


@pytest.mark.parametrize(
    ("gpu", "name", "expected"),
    [
        (0, None, "cuda:0"),
        (1, None, "cuda:1"),
        (None, "cuda", "cuda:0"),
        (None, "cuda:1", "cuda:1"),
        (None, "mps", "mps"),
        (None, "cpu", "cpu"),
    ],
)
def test_a_device_is_taken_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, gpu: int | None, name: str | None, expected: str
) -> None:
    pretend(monkeypatch, gpus=2, mps=True)
    assert devices.choose(gpu, name) == torch.device(expected)


@pytest.mark.parametrize(
    ("gpus", "gpu", "name", "message"),
    [
        (0, 7, None, "--gpu 7: found 0 CUDA devices, leave it out to run on the best device"),
        (1, 7, None, "--gpu 7: found 1 CUDA device, expected 0"),
        (4, 7, None, "--gpu 7: found 4 CUDA devices, expected 0 to 3"),
        (4, 4, None, "--gpu 4: found 4 CUDA devices, expected 0 to 3"),
        (4, -1, None, "--gpu -1: found 4 CUDA devices, expected 0 to 3"),
        (2, None, "cuda:2", "--device cuda:2: found 2 CUDA devices, expected 0 to 1"),
        (0, None, "cuda", "--device cuda: found 0 CUDA devices, leave it out to run on the best"),
        (0, None, "nonsense", "--device nonsense: not here, expected one of cpu"),
        (2, None, "gpu", "--device gpu: not here, expected one of cuda:0, cuda:1, cpu"),
        (0, None, "mps", "--device mps: not here, expected one of cpu"),
        (0, None, "meta", "--device meta: not here, expected one of cpu"),
        (0, None, "", "--device : not here, expected one of cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, gpus: int, gpu: int | None, name: str | None, message: str
) -> None:
    pretend(monkeypatch, gpus=gpus)
    assert refusal(gpu, name).startswith(message)


def test_two_ways_of_naming_a_device_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus=1)
    assert refusal(0, "cpu") == "--gpu and --device: found both, expected one of them"


def test_a_device_is_described_by_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, gpus=1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    assert devices.describe(torch.device("cuda", 0)) == "cuda:0 (NVIDIA H100, 80 GiB)"
    assert devices.describe(CPU) == "cpu (3 threads of 12 processors)"
    assert devices.describe(torch.device("mps")) == "mps"


class NVMLError(Exception):
    """What NVIDIA's library raises."""


def pretend_library(monkeypatch: pytest.MonkeyPatch, tell: Callable[[], int] | None) -> None:
    """NVIDIA's library, or none of it."""
    module = SimpleNamespace(NVMLError=NVMLError) if tell is not None else None
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(torch.cuda, "utilization", lambda _: tell() if tell is not None else None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as the one item of a list."""
    now = [1000.0]
    monkeypatch.setattr(devices, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_the_status_of_cuda_is_its_name_its_memory_and_how_busy_it_is_once_a_second(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    pretend(monkeypatch, gpus=1)
    # The first number is asked for to see whether there is one.
    busy = iter([0, 98, 7])
    pretend_library(monkeypatch, lambda: next(busy))
    held = iter([2**30, 5 * 2**29])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: next(held))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: pytest.fail("waits for the device"))
    tell = devices.status(torch.device("cuda", 0))
    first = ("NVIDIA H100", "1.0 of 80.0 GiB", "98 % busy")
    assert tell() == first
    clock[0] += 0.9
    assert tell() == first
    clock[0] += 0.1
    assert tell() == ("NVIDIA H100", "2.5 of 80.0 GiB", "7 % busy")


@pytest.mark.parametrize("error", [None, RuntimeError("no driver"), NVMLError("not supported")])
def test_how_busy_a_device_is_is_left_out_where_nobody_can_tell(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, clock: list[float]
) -> None:
    asked = []

    def refuse() -> int:
        asked.append(1)
        assert error is not None
        raise error

    pretend(monkeypatch, gpus=1)
    pretend_library(monkeypatch, refuse if error is not None else None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 2**30)
    tell = devices.status(torch.device("cuda", 0))
    for _ in range(3):
        clock[0] += 5
        assert tell() == ("NVIDIA H100", "1.0 of 80.0 GiB")
    assert len(asked) == (error is not None)


def test_a_run_goes_on_when_nobody_can_tell_any_more_how_busy_its_device_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = iter([50])

    def tell() -> int:
        for share in told:
            return share
        raise NVMLError("lost")

    pretend(monkeypatch, gpus=1)
    pretend_library(monkeypatch, tell)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 2**30)
    assert devices.status(torch.device("cuda", 0))() == ("NVIDIA H100", "1.0 of 80.0 GiB")


def test_the_status_of_the_cpu_is_the_memory_of_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(devices, "_STATM", tmp_path / "statm")
    assert devices.status(CPU)() == ("cpu",)
    pages = 3 * 2**29 // os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "statm").write_text(f"900000 {pages} 3 4 0 6 0\n")
    assert devices.status(CPU)() == ("cpu", "1.50 GiB resident")


def test_exhausted_memory_is_one_line_that_says_what_to_make_smaller() -> None:
    with pytest.raises(DeviceMemoryError) as error, devices.memory_errors():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has")
    assert str(error.value) == (
        "CUDA out of memory; use --accumulate 2 or more, a smaller --batch-size, or fewer "
        "--channels (--dry-run estimates memory)"
    )
    assert error.value.exit_status == 1


@pytest.mark.parametrize(
    ("gpus", "name", "expected"),
    [(4, None, "cuda:2"), (4, "cuda", "cuda:2"), (4, "cpu", "cpu"), (0, None, "cpu")],
)
def test_each_of_several_processes_has_a_device_of_its_own(
    monkeypatch: pytest.MonkeyPatch, gpus: int, name: str | None, expected: str
) -> None:
    pretend(monkeypatch, gpus=gpus)
    assert devices.choose(None, name, local_rank=2) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "found", "remedy"),
    [
        (
            None,
            "number 2 on this machine: found 2 CUDA devices, expected one for each process; ",
            "use --nproc-per-node 2, or --device cpu",
        ),
        (
            "cuda:1",
            "--device cuda:1: found several processes, each of which takes a GPU of its own; ",
            "choose them by CUDA_VISIBLE_DEVICES, or use --device cpu",
        ),
    ],
)
def test_a_process_without_a_device_of_its_own_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str | None, found: str, remedy: str
) -> None:
    pretend(monkeypatch, gpus=2)
    with pytest.raises((ConfigError, DeviceError)) as error:
        devices.choose(None, name, local_rank=2)
    assert error.value.exit_status == 2
    assert str(error.value) == found + remedy
