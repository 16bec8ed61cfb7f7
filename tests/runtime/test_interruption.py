"""Signals become requests to stop."""

import os
import signal

import pytest

from darts_cli.errors import Interrupted
from darts_cli.runtime.interruption import StopRequest, exit_on_signal, graceful_signals

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 0)]


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_signal_is_noted_with_its_status_and_nothing_is_raised(
    number: signal.Signals, status: int
) -> None:
    with graceful_signals() as request:
        assert request.signal is None
        send(number)
        assert request.signal is number
        assert request.exit_status == status


def test_no_signal_is_no_failure() -> None:
    assert StopRequest().exit_status == 0


@pytest.mark.parametrize(("first", "_status"), SIGNALS)
def test_ctrl_c_after_a_signal_interrupts_where_that_is_allowed(
    first: signal.Signals, _status: int
) -> None:
    with graceful_signals() as request:
        send(first)
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), request.interruptible():
            send(signal.SIGINT)
        assert request.exit_status == 130
        # Nor does it afterwards, or a second time.
        send(signal.SIGINT)


def test_the_first_signal_interrupts_nothing_and_only_ctrl_c_ever_does() -> None:
    with graceful_signals() as request, request.interruptible():
        send(signal.SIGINT)
        send(signal.SIGTERM)
        send(signal.SIGUSR1)
        assert request.signal is signal.SIGUSR1


def test_what_heeds_a_signal_ends_after_any() -> None:
    with graceful_signals() as request:
        request.raise_if_requested()
        send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            request.raise_if_requested()


def test_a_second_signal_that_is_no_ctrl_c_counts_in_its_place() -> None:
    with graceful_signals() as request:
        send(signal.SIGUSR1)
        send(signal.SIGTERM)
        assert request.exit_status == 143


@pytest.mark.parametrize("number", [number for number, _ in SIGNALS])
def test_the_handlers_of_before_are_back_afterwards(number: signal.Signals) -> None:
    def mine(*_: object) -> None:
        pass

    def fail_while_listening(handler: object) -> None:
        with graceful_signals():
            assert signal.getsignal(number) is not handler
            raise RuntimeError

    before = signal.signal(number, mine)
    try:
        with pytest.raises(RuntimeError):
            fail_while_listening(mine)
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(("number", "status"), SIGNALS)
def test_a_signal_ends_a_block_that_is_left_at_once(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stop, exit_on_signal("nothing was begun"):
        send(number)
    assert (str(stop.value), stop.value.exit_status) == (
        f"stopped by {number.name}; nothing was begun",
        status,
    )
    assert signal.getsignal(number) == before


def test_what_listens_within_such_a_block_hears_the_signal() -> None:
    with exit_on_signal("nothing was begun"), graceful_signals() as request:
        send(signal.SIGUSR1)
        assert request.signal is signal.SIGUSR1


def test_a_signal_while_a_run_leaves_changes_nothing_of_what_it_says() -> None:
    def leave() -> None:
        try:
            raise Interrupted("state saved", 0)
        finally:
            send(signal.SIGINT)

    with pytest.raises(Interrupted) as stop, exit_on_signal("nothing was begun"):
        leave()
    assert (str(stop.value), stop.value.exit_status) == ("state saved", 0)
