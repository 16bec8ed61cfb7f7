"""Values that the shell completes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from darts_cli import completion
from tests.conftest import Darts


def test_genotypes_are_those_that_come_with_darts_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("darts_mine.yaml").touch()
    Path("darts_mine.txt").touch()
    Path("darts_cells").mkdir()
    found = completion.genotypes("darts_")
    assert {"darts_v1", "darts_v2", "darts_mine.yaml", "darts_cells/"} <= {*found}
    assert "darts_mine.txt" not in found


def test_runs_come_before_other_paths(darts: Darts) -> None:
    for name in ("one", "two"):
        Path("runs", name).mkdir(parents=True)
    Path("runs", "two", "config.yaml").touch()
    Path("weights.safetensors").touch()
    assert completion.runs("") == ["runs/two", "runs/", "weights.safetensors"]
    assert completion.runs("runs/") == ["runs/two", "runs/one/", "runs/two/"]


def test_a_folder_that_is_not_there_completes_to_nothing(tmp_path: Path) -> None:
    assert completion.runs(f"{tmp_path}/none/") == []


def test_names_come_from_their_tables() -> None:
    assert {"cifar", "ptb", "digits"} <= {*completion.recipes("")}
    assert completion.strategies("da") == ["darts"]
    assert "reproducibility" in completion.topics("re")
    assert completion.devices("cu") == ["cuda"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("darts train --genotype darts_v", {"darts_v1", "darts_v2"}),
        ("darts search ", {"cnn", "rnn"}),
        ("darts search cnn --recipe di", {"digits"}),
        ("darts search cnn --strategy da", {"darts"}),
        ("darts manual resu", {"resume"}),
    ],
)
def test_bash_completes_values(tmp_path: Path, words: str, expected: set[str]) -> None:
    typed = words.split(" ")
    environment = {
        "_DARTS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(typed) - 1),
    }
    script = "import sys; sys.argv[0] = 'darts'; from darts_cli.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert {*done.stdout.split()} == expected


def test_the_help_tells_how_to_install_completion(darts: Darts) -> None:
    assert "--install-completion" in darts("--help").out
