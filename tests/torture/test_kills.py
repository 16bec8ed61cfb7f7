"""A few runs of every kind, killed at random; `make torture` kills hundreds."""

import re
import subprocess
import sys


def test_killed_runs_end_with_the_bits_of_those_that_were_not() -> None:
    command = [sys.executable, "-m", "tests.torture.kills", "--kills", "10"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    match = re.search(r"(\d+) runs, (\d+) kills .*, 0 differences", result.stdout)
    assert match is not None
    assert int(match[1]) >= 5
    assert int(match[2]) >= 10
