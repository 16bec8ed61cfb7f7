"""A third space goes through the commands by one folder and one entry of the table."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import read_metrics
from tests.test_package import ROOT

ROWS = Path(__file__).parent / "rows" / "__init__.py"

# The command line as it is with the space in its table.
MAIN = """
from darts_cli.spaces import TABLE
from tests.spaces.rows import ENTRY

TABLE["rows"] = ENTRY

from darts_cli.cli import main

main()
"""


def darts(folder: Path, *arguments: object) -> str:
    """Run a command in a folder, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_third_space_is_searched_derived_trained_and_evaluated(tmp_path: Path) -> None:
    darts(tmp_path, "search", "rows", "--out", "search", "--max-steps", 3, "--quiet")
    darts(tmp_path, "search", "rows", "--resume", "search", "--quiet")
    assert [record["epoch"] for record in read_metrics(tmp_path / "search")] == [1, 2]
    darts(tmp_path, "derive", "search", "--output", "cell.yaml")
    darts(tmp_path, "train", "--genotype", "cell.yaml", "--out", "train", "--epochs", 30)
    records = read_metrics(tmp_path / "train")
    assert records[-1]["train"]["loss"] < records[0]["train"]["loss"]
    assert darts(tmp_path, "eval", "train").startswith("test: loss ")
    darts(tmp_path, "viz", "cell.yaml", "--output", "cell.svg")
    darts(tmp_path, "viz", "search", "--show", "alphas", "--output", "alphas.png")


def test_the_example_is_short() -> None:
    assert len(ROWS.read_text(encoding="utf-8").splitlines()) <= 150
