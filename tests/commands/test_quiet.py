"""How much of a run is shown: `--quiet`, `--no-live`, and the log, which has all of it."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import TINY, Darts

QUICK = (*TINY, "--epochs", 2, "--batch-size", 4, "--order", "first")


def logged(run: Path) -> list[str]:
    """The lines of its log without their times, and those that depend on the machine's speed."""
    lines = [line.split("  ", 1)[1] for line in (run / "log.txt").read_text().splitlines()]
    return [line for line in lines if "  step " not in line]


@pytest.fixture
def search(pets: Path) -> tuple[object, ...]:
    return ("search", "cnn", "--data", pets, *QUICK)


def test_quiet_leaves_standard_error_empty_and_the_log_complete(
    darts: Darts, search: tuple[object, ...]
) -> None:
    loud = darts(*search, "--out", "loud")
    quiet = darts(*search, "--quiet", "--out", "quiet")
    assert (quiet.status, quiet.out, quiet.err) == (0, "quiet\n", "")
    lines = logged(Path("loud"))
    assert logged(Path("quiet")) == lines
    assert {line[:10] for line in lines} >= {"epoch 1/2 ", "  normal (", "  warning:"}
    assert set(lines) <= set(loud.err.splitlines())


def test_quiet_still_says_how_to_go_on_and_what_went_wrong(
    darts: Darts, search: tuple[object, ...]
) -> None:
    stopped = darts(*search, "--quiet", "--max-steps", 1, "--out", "run")
    line = "stopped after 1 step, state saved; go on with: darts search cnn --resume run"
    assert (stopped.out, stopped.err) == ("run\n", f"{line}\n")
    assert logged(Path("run")) == [line]
    resumed = darts("search", "cnn", "--resume", "run", "--quiet")
    assert (resumed.status, resumed.out, resumed.err) == (0, "run\n", "")
    assert darts("search", "cnn", "--resume", "none", "--quiet").refusal() == (
        "none: no such directory, expected a run"
    )


def test_no_live_is_the_same_where_there_is_no_terminal(
    darts: Darts, search: tuple[object, ...]
) -> None:
    plain = darts(*search, "--no-live", "--out", "plain")
    assert plain.out == "plain\n"
    assert "darts search cnn" in plain.err
    assert set(logged(Path("plain"))) <= set(plain.err.splitlines())
    assert darts("search", "cnn", "--resume", "plain", "--no-live").status == 0


def test_a_warning_is_printed_once_and_logged_after_every_epoch(
    darts: Darts, search: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    warning = "the normal cell looks bad"
    monkeypatch.setattr(
        "darts_cli.terminal.frame.warn", lambda _, signals, __: [warning] if signals else []
    )
    result = darts(*search, "--out", "run")
    assert result.err.count(f"  warning: {warning}\n") == 1
    assert logged(Path("run")).count(f"  warning: {warning}") == 2
    # One that goes on knows what has been said.
    resumed = darts("search", "cnn", "--resume", "run", "--epochs", 3)
    assert warning not in resumed.err
    assert logged(Path("run")).count(f"  warning: {warning}") == 3


def test_the_text_of_warnings_is_in_the_log(darts: Darts, search: tuple[object, ...]) -> None:
    run = darts(*search, "--out", "run").path
    # Two epochs of such a search decide nothing.
    assert any(
        line.startswith("  warning: the alphas of the normal and reduce cells say hardly more")
        for line in logged(run)
    )


def test_a_quiet_training_leaves_standard_error_empty(darts: Darts, pets: Path) -> None:
    net = (
        "--genotype",
        "darts_v2",
        *TINY,
        "--epochs",
        1,
        "--batch-size",
        4,
        "--set",
        "data.cutout=2",
    )
    result = darts("train", "--data", pets, *net, "--quiet", "--no-live", "--out", "run")
    assert (result.status, result.out, result.err) == (0, "run\n", "")
    assert [line[:11] for line in logged(Path("run"))] == ["epoch 1/1  "]


def test_a_quiet_evaluation_prints_its_results_alone(
    darts: Darts, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    loud = darts("eval", run, "--device", "cpu")
    quiet = darts("eval", run, "--device", "cpu", "--quiet")
    assert loud.err
    assert (quiet.status, quiet.out, quiet.err) == (0, loud.out, "")
