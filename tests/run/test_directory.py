"""The run directory: made once, opened again, and its metrics."""

import errno
import json
import os
from pathlib import Path

import pytest

from darts_cli.errors import CheckpointError, ConfigError
from darts_cli.run.directory import Run
from darts_cli.run.files import WriteError


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run")


def listing(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def error_of_create(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        Run.create(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def error_of_open(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Run.open(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Making and opening.


def test_a_new_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert Run.create(path).path == path
    assert listing(path) == {"alphas": None}


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    Run.create(tmp_path)
    assert listing(tmp_path) == {"alphas": None}


def test_a_directory_whose_run_was_killed_before_its_lock_was_made_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "run"
    (path / "alphas").mkdir(parents=True)
    assert Run.create(path).path == path
    (path / "alphas" / "epoch-0001.safetensors").touch()
    assert error_of_create(path).startswith(f"--out {path}: is not empty, expected a new directory")


def test_a_directory_with_a_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = Run.create(path)
    run.config.write_text("seed: 0\n")
    before = listing(path)
    assert error_of_create(path) == (
        f"--out {path}: already holds a run, expected a new directory; "
        f"choose another, or go on with a run by --resume {path}"
    )
    assert listing(path) == before


def test_a_directory_with_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    before = listing(tmp_path)
    assert error_of_create(tmp_path) == (
        f"--out {tmp_path}: is not empty, expected a new directory; "
        f"choose another, or go on with a run by --resume {tmp_path}"
    )
    assert listing(tmp_path) == before


def test_a_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "thesis.tex"
    path.write_text("years of work")
    assert error_of_create(path) == f"--out {path}: found a file, expected a new directory"
    assert path.read_text() == "years of work"


def test_a_directory_under_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "run"
    assert error_of_create(path) == (
        f"--out {path}: cannot be made (Not a directory); choose another directory"
    )


def test_a_name_too_long_for_a_directory_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    assert error_of_create(path) == (
        f"--out {path}: cannot be made (File name too long); choose another directory"
    )
    assert error_of_open(path) == f"{path}: cannot be read (File name too long), expected a run"


def test_a_run_is_opened_where_its_settings_are(run: Run) -> None:
    run.config.write_text("seed: 0\n")
    before = listing(run.path)
    assert Run.open(run.path).path == run.path
    assert listing(run.path) == before


def test_a_directory_without_settings_is_no_run(tmp_path: Path) -> None:
    assert error_of_open(tmp_path) == f"{tmp_path}: found no config.yaml in it, expected a run"


def test_a_missing_directory_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "none"
    assert error_of_open(path) == f"{path}: no such directory, expected a run"
    assert not path.exists()


def test_everything_lies_where_the_design_says(tmp_path: Path) -> None:
    run = Run(tmp_path)
    paths = (run.config, run.metrics, run.alphas, run.genotype, run.last, run.best, run.log)
    assert [path.relative_to(tmp_path).name for path in paths] == [
        "config.yaml",
        "metrics.jsonl",
        "alphas",
        "genotype.yaml",
        "last.safetensors",
        "best.safetensors",
        "log.txt",
    ]
    assert run.alphas_of(7) == tmp_path / "alphas" / "epoch-0007.safetensors"


# Metrics.


def test_metrics_are_one_object_a_line(run: Run) -> None:
    assert run.read_metrics() == []
    run.append_metrics({"epoch": 1, "train": {"loss": 0.5}})
    run.append_metrics({"epoch": 2, "note": "zwei\nZeilen\u2028ä"})
    lines = run.metrics.read_text(encoding="utf-8").split("\n")
    assert lines[-1] == ""
    assert [json.loads(line)["epoch"] for line in lines[:-1]] == [1, 2]
    assert run.read_metrics() == [
        {"epoch": 1, "train": {"loss": 0.5}},
        {"epoch": 2, "note": "zwei\nZeilen\u2028ä"},
    ]


def test_half_a_line_at_the_end_is_left_out(run: Run) -> None:
    run.append_metrics({"epoch": 1})
    run.append_metrics({"epoch": 2, "loss": 0.25})
    whole = run.metrics.read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole) - 1):
        run.metrics.write_bytes(whole[:end])
        assert run.read_metrics() == [{"epoch": 1}], whole[:end]
    run.metrics.write_bytes(whole[:start] + b"\x00\xff\x00")
    assert run.read_metrics() == [{"epoch": 1}]


@pytest.mark.parametrize("line", ["half a li", "[1]", "3", ""])
def test_a_damaged_line_in_the_middle_is_named(run: Run, line: str) -> None:
    run.metrics.write_text(f'{{"epoch": 1}}\n{line}\n{{"epoch": 3}}\n')
    with pytest.raises(CheckpointError) as caught:
        run.read_metrics()
    assert str(caught.value) == f"{run.metrics}, line 2: expected a JSON object"


def test_metrics_of_later_epochs_and_half_a_line_are_dropped(run: Run) -> None:
    for epoch in (1, 2, 3):
        run.append_metrics({"epoch": epoch})
    with run.metrics.open("a") as file:
        file.write('{"epoch": 4, "lo')
    run.keep_metrics(2)
    assert run.metrics.read_text() == '{"epoch": 1}\n{"epoch": 2}\n'
    run.append_metrics({"epoch": 3})
    assert [record["epoch"] for record in run.read_metrics()] == [1, 2, 3]


def test_keeping_metrics_of_no_epoch_empties_the_file(run: Run) -> None:
    run.keep_metrics(0)
    assert run.metrics.read_text() == ""
    run.append_metrics({"epoch": 1})
    run.keep_metrics(0)
    assert run.metrics.read_text() == ""


def test_metrics_of_no_epoch_are_named_and_left_alone(run: Run) -> None:
    run.append_metrics({"epoch": 1})
    run.append_metrics({"loss": 0.5})
    before = run.metrics.read_text()
    with pytest.raises(CheckpointError) as caught:
        run.keep_metrics(1)
    assert str(caught.value) == (
        f"{run.metrics}, line 2: epoch: found None, expected a number from 1 to 100,000"
    )
    assert run.metrics.read_text() == before


def test_a_full_disk_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(WriteError) as caught:
        run.append_metrics({"epoch": 1})
    assert str(caught.value) == f"{run.metrics}: cannot be written (No space left on device)"


def test_metrics_that_are_nested_without_end_or_too_large_are_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.metrics.write_text("[" * 100_000 + '\n{"epoch": 2}\n')
    with pytest.raises(CheckpointError) as caught:
        run.read_metrics()
    assert str(caught.value) == f"{run.metrics}, line 1: expected a JSON object"
    monkeypatch.setattr("darts_cli.run.directory._METRICS_LIMIT", 10)
    with pytest.raises(CheckpointError) as caught:
        run.read_metrics()
    assert str(caught.value) == f"{run.metrics}: too large for metrics (10 bytes at most)"


def test_metrics_that_cannot_be_read_are_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.append_metrics({"epoch": 1})

    def refuse(path: Path, **_: object) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(CheckpointError) as caught:
        run.read_metrics()
    assert str(caught.value) == (
        f"{run.metrics}: cannot be read (Input/output error); check its permissions"
    )


@pytest.mark.parametrize("epoch", [0, -1, True, "1", 1.0, 10**9])
def test_metrics_of_an_epoch_that_cannot_be_are_named(run: Run, epoch: object) -> None:
    run.append_metrics({"epoch": epoch})
    with pytest.raises(CheckpointError, match=r"line 1: epoch: found .*, expected a number from 1"):
        run.read_metrics()
