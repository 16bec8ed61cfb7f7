"""The command line as a whole: help, errors of usage, signals' statuses, and the whole path."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from darts_cli import __version__
from darts_cli.cli import app
from darts_cli.commands import search as search_command
from darts_cli.genotype.file import load, shipped
from darts_cli.spaces import SPACES
from tests.conftest import TINY, Darts

COMMANDS = ("search", "derive", "train", "eval", "viz", "import", "export", "manual")


def run_module(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python -m darts_cli` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "darts_cli", *map(str, args)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_version_is_printed_alone(darts: Darts) -> None:
    result = darts("--version")
    assert (result.status, result.out, result.err) == (0, f"darts {__version__}\n", "")


def test_help_names_every_command(darts: Darts) -> None:
    result = darts("--help")
    assert result.status == 0
    assert result.err == ""
    assert [name for name in COMMANDS if f" {name} " not in result.out] == []


def test_no_command_at_all_shows_the_help_and_is_wrong_usage(darts: Darts) -> None:
    result = darts()
    assert result.status == 2
    assert result.out.strip() == darts("--help").out.strip()
    assert result.err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_tells_its_usage(darts: Darts, command: str) -> None:
    result = darts(command, "--help")
    assert result.status == 0
    assert f"Usage: darts {command} " in result.out


@pytest.mark.parametrize(
    ("command", "default"),
    [
        ("search", "(second)"),
        ("search", "(runs/...)"),
        ("train", "(named like the data, else cifar or ptb)"),
        ("train", "(the best device there is)"),
        ("derive", "(the newest)"),
        ("viz", "(the terminal)"),
    ],
)
def test_help_shows_defaults_that_rich_could_take_for_markup(
    darts: Darts, command: str, default: str
) -> None:
    assert f"[default: {default}]" in darts(command, "--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_ends_in_two_examples_that_are_read(darts: Darts, command: str) -> None:
    lines = [line.strip() for line in darts(command, "--help").out.splitlines() if line.strip()]
    assert lines[-3] == "Examples:"
    for line in lines[-2:]:
        name, *arguments = shlex.split(line)
        assert name == "darts"
        assert arguments[0] == command
        # The parser alone: what it refuses is wrong usage, and nothing is run.
        commands = get_command(app)
        assert isinstance(commands, TyperGroup)
        commands.commands[command].make_context(command, arguments[1:])


@pytest.mark.parametrize("command", ["search", "train"])
def test_help_of_a_run_has_its_panels(darts: Darts, command: str) -> None:
    text = darts(command, "--help").out
    for panel in ("Run", "Network and optimizers", "Data", "Device"):
        assert f"─ {panel} ─" in text


def test_torch_is_not_imported_before_a_command_needs_it(tmp_path: Path) -> None:
    script = """
import contextlib, io, sys
from darts_cli import cli
for arguments in (["--help"], ["search", "--help"], ["train", "--epochs", "x"], ["--version"]):
    sys.argv = ["darts", *arguments]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit):
            cli.main()
print(sorted({"torch", "torchvision", "matplotlib", "numpy", "yaml"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense' (see darts --help)"),
        (["--nonsense"], "No such option: --nonsense (see darts --help)"),
        (
            ["search", "cnn", "--nonsense"],
            (
                "No such option: --nonsense (Possible options: --channels, --seed)"
                " (see darts search --help)"
            ),
        ),
        (["derive"], "Missing argument 'RUN|CHECKPOINT' (see darts derive --help)"),
        (["eval"], "Missing argument 'RUN|CHECKPOINT' (see darts eval --help)"),
        (["viz"], "Missing argument 'NAME|GENOTYPE|RUN' (see darts viz --help)"),
        (["derive", "run", "more"], "Got unexpected extra argument(s) (more)"),
        (
            ["search", "cnn", "--order", "third"],
            (
                "Invalid value for '--order': 'third' is not one of 'first', 'second'"
                " (see darts search --help)"
            ),
        ),
        (["search", "cnn", "--seed"], "Option '--seed' requires an argument"),
    ],
)
def test_wrong_usage_is_one_line_that_says_where_to_look(
    darts: Darts, arguments: list[str], message: str
) -> None:
    assert darts(*arguments).refusal().startswith(message)


def test_an_unknown_space_is_refused_with_the_known_ones(darts: Darts) -> None:
    assert darts("search", "mlp").refusal() == (
        "Invalid value for 'space': 'mlp' is not one of 'cnn', 'rnn' (see darts search --help)"
    )
    assert darts("search").refusal() == (
        "Missing argument 'space'. Choose from: cnn, rnn (see darts search --help)"
    )


def test_a_bug_keeps_its_traceback(darts: Darts, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(search_command, "search", fail)
    with pytest.raises(ZeroDivisionError):
        darts("search", "cnn")


def test_ctrl_c_before_a_run_has_begun_leaves_one_line_and_130(
    darts: Darts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search_command, "search", interrupt)
    assert darts("search", "cnn").refusal(130) == "interrupted"


def test_the_whole_path_on_digits_prints_what_was_made(darts: Darts, tmp_path: Path) -> None:
    small = (*TINY, "--epochs", 1, "--batch-size", 16, "--max-steps", 2)
    search = darts("search", "cnn", "--data", "digits", *small, "--out", "search")
    assert search.out == "search\n"
    derived = darts("derive", "search")
    assert derived.out == "search/genotype.yaml\n"
    train = darts("train", "--genotype", derived.path, "--data", "digits", *small, "--out", "net")
    assert train.out == "net\n"
    measured = darts("eval", "net", "--device", "cpu")
    assert measured.path == Path("net/last-test.json")
    drawn = darts("viz", "search", "--output", "cell.svg")
    assert drawn.out == "cell.svg\n"
    assert {path.name for path in tmp_path.iterdir()} == {"search", "net", "cell.svg"}
    for path in (derived.path, measured.path, drawn.path):
        assert path.stat().st_size > 100


def test_without_out_a_run_goes_into_a_folder_of_its_own_below_runs(
    darts: Darts, tmp_path: Path, pets: Path
) -> None:
    sizes = (*TINY, "--max-steps", 1, "--batch-size", 4, "--order", "first")
    path = darts("search", "cnn", "--data", pets, *sizes).path
    assert path.parent == Path("runs")
    assert path.name.startswith("search-cnn-pets-")
    assert (tmp_path / path / "last.safetensors").is_file()


@pytest.mark.slow
def test_the_derived_file_is_all_that_a_shell_captures(searched: Path, tmp_path: Path) -> None:
    output = tmp_path / "cell.yaml"
    done = run_module("derive", searched, "--output", output, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == f"{output}\n"
    assert "how sure the choice is" in done.stderr
    assert load(output, SPACES).space == "cnn"


@pytest.mark.slow
def test_a_process_leaves_bad_input_with_one_line_and_status_2(tmp_path: Path) -> None:
    done = run_module("train", "--genotype", "nonsense", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"darts: no genotype 'nonsense': expected a YAML file or one of {', '.join(shipped())}\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "cnn", "--data", "closed/pets", "--dry-run"),
        ("viz", "closed/run"),
        ("derive", "closed/run"),
        ("eval", "closed/run", "--device", "cpu"),
    ],
)
def test_a_folder_that_may_not_be_entered_is_one_line(
    darts: Darts, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    stat = Path.stat

    def refuse(path: Path, **options: Any) -> Any:
        if "closed" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    message = darts(*arguments).refusal()
    assert "closed/" in message
    assert "Permission denied" in message
