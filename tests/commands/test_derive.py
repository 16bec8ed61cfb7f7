"""`darts derive`: from a run, a checkpoint or a past epoch to a genotype's file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from darts_cli.genotype.file import load
from darts_cli.run import checkpoint
from darts_cli.spaces import SPACES
from tests.conftest import Darts, contents

Unchanged = Callable[[Path], None]


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    """A copy of a search, to write into."""
    return Path(shutil.copytree(searched, tmp_path / "run"))


def test_the_genotype_of_a_run_is_written_into_it(darts: Darts, run: Path) -> None:
    expected = load(run / "genotype.yaml", SPACES)
    (run / "genotype.yaml").unlink()
    result = darts("derive", "run")
    assert result.out == "run/genotype.yaml\n"
    assert load(result.path, SPACES) == expected


def test_the_genotype_of_a_past_epoch_is_written_beside_the_newest(darts: Darts, run: Path) -> None:
    before = (run / "genotype.yaml").read_bytes()
    result = darts("derive", run, "--epoch", 1)
    assert result.out == f"{run}/genotype-epoch-1.yaml\n"
    genotype = load(result.path, SPACES)
    assert genotype.name == "run-epoch-1"
    assert (genotype.origin["run"], genotype.origin["epoch"]) == ("run", 1)
    assert (run / "genotype.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["last.safetensors", "alphas/epoch-0002.safetensors"])
def test_the_genotype_of_a_checkpoint_is_written_beside_it(
    darts: Darts, run: Path, name: str
) -> None:
    result = darts("derive", run / name)
    assert result.path == (run / name).with_suffix(".genotype.yaml")
    genotype = load(result.path, SPACES)
    assert genotype == load(run / "genotype.yaml", SPACES)
    assert genotype.origin["run"] == "run"


def test_output_names_the_file_and_nothing_else_is_written(
    darts: Darts, searched: Path, unchanged: Unchanged, tmp_path: Path
) -> None:
    unchanged(searched)
    assert darts("derive", searched, "--output", "cell.yaml").out == "cell.yaml\n"
    assert set(contents(tmp_path)) == {"cell.yaml"}


def test_every_chosen_edge_is_told_with_its_margins_on_standard_error(
    darts: Darts, run: Path
) -> None:
    rows = [line.split() for line in darts("derive", run).err.splitlines()[2:]]
    genotype = load(run / "genotype.yaml", SPACES)
    chosen = [
        [cell, str(node), edge.operation, str(edge.source)]
        for cell in genotype.cells
        for node, edges in enumerate(genotype.cells[cell].nodes, start=2)
        for edge in edges
    ]
    assert sorted(row[:4] for row in rows) == sorted(chosen)
    for row in rows:
        # Nearly even after a few steps, of eight candidates.
        assert float(row[4]) == pytest.approx(1 / 8, abs=0.02)
        assert float(row[5]) >= 0
    first_node = [row for row in rows if row[1] == "2"]
    assert all(row[-2:] == ["only", "ones"] for row in first_node)


def test_a_margin_is_called_close_only_where_it_is_small(darts: Darts, run: Path) -> None:
    close = darts("derive", run).err.count("close")
    tensors, metadata = checkpoint.read(run / "last.safetensors")
    for name in ("alphas.normal", "alphas.reduce"):
        tensors[name].zero_()
        # Each edge prefers another operation than its neighbours, and by another amount.
        for edge in range(len(tensors[name])):
            tensors[name][edge, 1 + edge % 7] = 2.0 + 0.3 * edge
    checkpoint.write(
        run / "last.safetensors", tensors, {k: v for k, v in metadata.items() if k != "format"}
    )
    sure = darts("derive", run)
    assert sure.err.count("close") < close
    genotype = load(sure.path, SPACES)
    assert genotype.cells["normal"].nodes[0][0].operation == "avg_pool_3x3"


def test_a_training_has_no_genotype_to_derive(
    darts: Darts, trained: Path, unchanged: Unchanged
) -> None:
    unchanged(trained)
    assert darts("derive", trained).refusal() == (
        f"{trained}/last.safetensors: found no alphas in it, expected a checkpoint of a search"
    )


@pytest.mark.parametrize("epoch", [99, 0, -1])
def test_an_epoch_that_is_not_there_is_refused_with_those_that_are(
    darts: Darts, searched: Path, unchanged: Unchanged, epoch: int
) -> None:
    unchanged(searched)
    assert darts("derive", searched, "--epoch", epoch).refusal() == (
        f"--epoch {epoch}: no alphas of it in {searched}, found epoch-0001 to epoch-0002"
    )


def test_a_checkpoint_has_no_past_epochs(
    darts: Darts, searched: Path, unchanged: Unchanged
) -> None:
    unchanged(searched)
    last = searched / "last.safetensors"
    assert darts("derive", last, "--epoch", 1).refusal() == (
        f"--epoch 1: needs a run directory, found the file {last}; leave one out"
    )


def test_what_is_no_search_is_refused(darts: Darts, run: Path) -> None:
    assert darts("derive", "nowhere").refusal() == "nowhere: no such directory, expected a run"
    Path("empty").mkdir()
    assert darts("derive", "empty").refusal() == (
        "empty: found no config.yaml in it, expected a run"
    )
    message = darts("derive", run / "config.yaml").refusal()
    assert message.startswith(f"{run}/config.yaml: cannot be read (")
    (run / "last.safetensors").unlink()
    assert darts("derive", run).refusal() == (
        f"{run}: found no checkpoint in it yet, let the run save one"
    )


def test_alphas_of_another_shape_are_refused(darts: Darts, run: Path) -> None:
    file = run / "alphas/epoch-0001.safetensors"
    tensors, metadata = checkpoint.read(file)
    tensors["alphas.normal"] = torch.zeros(3, 8)
    checkpoint.write(file, tensors, {k: v for k, v in metadata.items() if k != "format"})
    assert darts("derive", run, "--epoch", 1).refusal() == (
        f"{file}: alphas.normal: found shape [3, 8], expected alphas of shape [14, 8]; "
        "use another checkpoint"
    )


def test_an_output_in_a_folder_that_is_not_there_is_refused(darts: Darts, searched: Path) -> None:
    assert darts("derive", searched, "--output", "nowhere/cell.yaml").refusal() == (
        "nowhere/cell.yaml: found no folder nowhere, expected one that exists"
    )
