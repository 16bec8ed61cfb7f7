"""`darts viz`: pictures of a genotype by name, file or run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from darts_cli.genotype_file import load, shipped
from darts_cli.spaces import SPACES
from tests.conftest import TINY, Darts, snapshot

Unchanged = Callable[[Path], None]


@pytest.mark.parametrize(
    ("suffix", "start"),
    [
        (".svg", b"<?xml"),
        (".png", b"\x89PNG\r\n"),
        (".pdf", b"%PDF-"),
        (".dot", b"digraph"),
        (".mmd", b"flowchart"),
    ],
)
def test_a_picture_is_of_the_kind_that_its_name_says(
    darts: Darts, tmp_path: Path, suffix: str, start: bytes
) -> None:
    result = darts("viz", "darts_v2", "--output", f"cell{suffix}")
    assert (result.out, result.err) == (f"cell{suffix}\n", "")
    assert Path(f"cell{suffix}").read_bytes().startswith(start)
    assert set(snapshot(tmp_path)) == {f"cell{suffix}"}


def test_a_picture_names_the_operations_of_the_runs_genotype(darts: Darts, searched: Path) -> None:
    text = darts("viz", searched, "--output", "cell.dot").path.read_text()
    for cell in load(searched / "genotype.yaml", SPACES).cells.values():
        for edges in cell.nodes:
            for edge in edges:
                assert edge.operation in text


def test_without_output_both_cells_are_drawn_on_standard_output(darts: Darts) -> None:
    result = darts("viz", "darts_v2")
    assert result.status == 0
    assert result.err == ""
    for text in ("darts_v2", "normal", "reduce", "sep_conv_3x3", "dil_conv_3x3", "skip_connect"):
        assert text in result.out


def test_name_file_and_run_give_the_same_picture(
    darts: Darts, searched: Path, unchanged: Unchanged
) -> None:
    unchanged(searched)
    assert darts("viz", "darts_v1").out == darts("viz", shipped()["darts_v1"]).out
    assert darts("viz", searched).out == darts("viz", searched / "genotype.yaml").out
    assert darts("viz", searched).out != darts("viz", "darts_v1").out


@pytest.mark.parametrize(("name", "found"), [("cell.gif", "suffix '.gif'"), ("cell", "no suffix")])
def test_a_kind_of_picture_that_cannot_be_written_is_refused(
    darts: Darts, tmp_path: Path, name: str, found: str
) -> None:
    assert darts("viz", "darts_v2", "--output", name).refusal() == (
        f"{name}: found {found}, expected one of .svg, .png, .pdf, .dot, .mmd"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_picture_in_a_folder_that_is_not_there_is_refused(darts: Darts) -> None:
    assert darts("viz", "darts_v2", "--output", "nowhere/cell.svg").refusal() == (
        "nowhere/cell.svg: found no folder nowhere, expected one that exists"
    )


def test_a_run_without_a_genotype_yet_is_refused(darts: Darts, pets: Path) -> None:
    sizes = (*TINY, "--batch-size", 4, "--order", "first", "--max-steps", 1)
    darts("search", "cnn", "--data", pets, *sizes, "--out", "run")
    assert darts("viz", "run").refusal() == (
        "run: found no genotype in it yet, expected a finished epoch"
    )


def test_what_is_no_genotype_is_refused(darts: Darts, searched: Path) -> None:
    assert darts("viz", "nonsense").refusal() == (
        f"no genotype 'nonsense': expected a YAML file or one of {', '.join(shipped())}"
    )
    assert darts("viz", ".").refusal() == ".: found no config.yaml in it, expected a run"
    config = searched / "config.yaml"
    assert darts("viz", config).refusal().startswith(f"{config}, line 1: found key 'command' in")
    last = searched / "last.safetensors"
    assert darts("viz", last).refusal() == (
        f"{last}: too large for a genotype (32,768 bytes at most)"
    )
