"""Work on many images by all cores: order, errors, and where there are no processes."""

import os
import sys
from collections.abc import Callable

import pytest

from darts_cli.errors import DataError
from darts_cli.spaces.cnn.parallel import CHUNK, in_parallel


@pytest.fixture(params=["linux", "darwin"])
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By processes and by threads."""
    monkeypatch.setattr(sys, "platform", request.param)
    return str(request.param)


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1, 5 * CHUNK - 1])
def test_every_image_is_worked_on_once_and_in_order(count: int) -> None:
    chunks = list(in_parallel(count, lambda first, last: list(range(first, last))))
    assert [number for chunk in chunks for number in chunk] == list(range(count))
    assert all(len(chunk) <= CHUNK for chunk in chunks)


def test_the_work_of_many_is_done_by_other_processes_and_that_of_few_is_not(platform: str) -> None:
    def work(_first: int, _last: int) -> int:
        return os.getpid()

    assert set(in_parallel(CHUNK, work)) == {os.getpid()}
    assert (os.getpid() in set(in_parallel(3 * CHUNK, work))) == (platform != "linux")


def fail(first: int, _last: int) -> int:
    if first == CHUNK:
        raise DataError("x.png: one line")
    return first


@pytest.mark.usefixtures("platform")
def test_an_error_keeps_its_one_line() -> None:
    with pytest.raises(DataError) as error:
        list(in_parallel(3 * CHUNK, fail))
    assert str(error.value) == "x.png: one line"


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("leave", [iter, lambda chunks: next(iter(chunks))])
def test_what_is_not_waited_for_is_no_error(leave: Callable[[object], object]) -> None:
    leave(in_parallel(3 * CHUNK, lambda first, _last: first))
