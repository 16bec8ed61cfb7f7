"""Freed memory is kept, or goes back where there is enough of it, where that can be asked for."""

import ctypes
from types import SimpleNamespace

import pytest

from darts_cli.runtime import malloc


@pytest.mark.parametrize(("free", "returned"), [(99, False), (100, False), (101, True)])
def test_only_more_than_the_limit_is_returned(
    free: int, returned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trimmed: list[int] = []
    library = SimpleNamespace(
        mallinfo2=lambda: SimpleNamespace(fordblks=free), malloc_trim=trimmed.append
    )
    monkeypatch.setattr(malloc, "_glibc", lambda: library)
    assert malloc.give_back_freed(above=100) is returned
    assert trimmed == ([0] if returned else [])


def test_freed_memory_is_kept_from_the_first_call_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def mallopt(what: int, value: int) -> int:
        asked.append((what, value))
        return 1

    malloc.keep_freed.cache_clear()
    monkeypatch.setattr(malloc, "_glibc", lambda: SimpleNamespace(mallopt=mallopt))
    assert malloc.keep_freed() is True
    assert malloc.keep_freed() is True
    assert asked == [(-3, 2**30), (-1, 2**31 - 1)]
    malloc.keep_freed.cache_clear()


@pytest.mark.parametrize("error", [OSError, AttributeError])
def test_without_glibc_nothing_happens(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise error

    malloc._glibc.cache_clear()
    malloc.keep_freed.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert malloc.give_back_freed(above=0) is False
    assert malloc.keep_freed() is False
    malloc._glibc.cache_clear()
    malloc.keep_freed.cache_clear()


def test_the_real_library_is_called_without_harm() -> None:
    assert malloc.give_back_freed(above=2**60) is False
    assert malloc.give_back_freed(above=0) in {True, False}
    assert malloc.keep_freed() in {True, False}
