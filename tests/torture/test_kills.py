"""A few runs of every kind, killed at random; `make torture` kills hundreds."""

import re
import subprocess
import sys

from tests.torture.kills import KINDS

OTHERS = {"training on text", "first order of text"}
"""Kinds that are left to `make torture`: most of what they do others do as well."""


def test_killed_runs_end_with_the_bits_of_those_that_were_not() -> None:
    kinds = [kind for kind in KINDS if kind not in OTHERS]
    sizes = ("--kills", "10", "--epochs", "2")
    command = [sys.executable, "-m", "tests.torture.kills", *sizes, *kinds]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    match = re.search(r"(\d+) runs, (\d+) kills .*, 0 differences", result.stdout)
    assert match is not None
    assert int(match[1]) >= 5
    assert int(match[2]) >= 10
