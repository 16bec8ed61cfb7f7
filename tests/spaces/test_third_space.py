"""A third space goes through the commands by one folder and one entry of the table."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import read_metrics
from tests.test_package import ROOT

ROWS = Path(__file__).parent / "rows" / "__init__.py"

# The command line as it is with the space in its table, in a process of its own: it lists the
# spaces when it is imported.
SCRIPT = """
import json, sys
from dataclasses import asdict
from darts_cli.spaces import TABLE
from tests.spaces.rows import ENTRY

TABLE["rows"] = ENTRY

from tests.conftest import call

print(json.dumps([asdict(call(*command.split())) for command in sys.argv[1:]]))
"""

COMMANDS = (
    "search rows --out search --max-steps 3 --quiet",
    "search rows --resume search --quiet",
    "derive search --output cell.yaml",
    "train --genotype cell.yaml --out train --epochs 30 --quiet",
    "eval train",
    "viz cell.yaml --output cell.svg",
    "viz search --show alphas --output alphas.png",
    "export cell.yaml",
    "export train",
)


def test_a_third_space_goes_through_all_commands(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *COMMANDS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    *results, refused = json.loads(done.stdout)
    assert [(result["status"], result["err"]) for result in results if result["status"]] == []
    assert [record["epoch"] for record in read_metrics(tmp_path / "search")] == [1, 2]
    losses = [record["train"]["loss"] for record in read_metrics(tmp_path / "train")]
    assert losses[-1] < losses[0]
    outputs = {result["out"] for result in results}
    assert any(out.startswith("test: loss ") for out in outputs)
    assert any("Genotype(cell=[(" in out for out in outputs)
    assert (tmp_path / "cell.svg").stat().st_size
    assert (tmp_path / "alphas.png").stat().st_size
    assert refused["status"] == 2
    assert refused["err"] == (
        "darts: train/last.safetensors: found a network of rows, expected one of a space with "
        "published checkpoints, cnn or rnn\n"
    )


def test_the_example_is_short() -> None:
    assert len(ROWS.read_text(encoding="utf-8").splitlines()) <= 150
