"""What is read from a run directory, and how damage to it is told."""

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from darts_cli.commands.reading import read_history
from darts_cli.errors import CheckpointError
from darts_cli.genotype_file import load
from darts_cli.spaces import SPACES
from tests.conftest import metrics


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    """A copy of a search, to damage."""
    return Path(shutil.copytree(searched, tmp_path / "copy"))


def test_a_search_is_read_epoch_by_epoch(searched: Path) -> None:
    history = read_history(searched)
    assert (history.command, history.space, history.epochs) == ("search", SPACES["cnn"], 2)
    assert history.name == "run"
    assert [moment.epoch for moment in history.moments] == [1, 2]
    assert history.records == metrics(searched)
    for moment, record in zip(history.moments, history.records, strict=True):
        assert {**record, **asdict(moment.signals)} == record
    assert history.genotype == load(searched / "genotype.yaml", SPACES)
    assert history.genotype.cells == history.moments[-1].genotype.cells


def test_a_training_has_a_genotype_and_no_alphas(trained: Path) -> None:
    history = read_history(trained)
    assert (history.command, history.moments, history.warnings()) == ("train", [], [])
    assert history.genotype is not None
    assert len(history.records) == 1


def test_a_run_before_its_first_epoch_is_read(run: Path) -> None:
    for file in (run / "metrics.jsonl", run / "genotype.yaml", *run.glob("alphas/*")):
        file.unlink()
    history = read_history(run)
    assert (history.records, history.moments, history.genotype) == ([], [], None)


def test_a_damaged_file_of_alphas_is_named(run: Path) -> None:
    (run / "alphas" / "epoch-0001.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"epoch-0001\.safetensors: cannot be read"):
        read_history(run)


def test_settings_of_no_run_are_named(run: Path) -> None:
    (run / "config.yaml").write_text("space: cnn\n")
    with pytest.raises(CheckpointError) as caught:
        read_history(run)
    assert str(caught.value) == (
        f"{run}/config.yaml: expected the settings of a search or training"
    )


def test_metrics_load_with_pandas_in_one_call(searched: Path) -> None:
    import pandas as pd

    table = pd.read_json(searched / "metrics.jsonl", lines=True)
    assert list(table["epoch"]) == [1, 2]
    assert list(table.columns) == list(metrics(searched)[0])
    assert [row["loss"] for row in table["train"]] == pytest.approx(
        [record["train"]["loss"] for record in metrics(searched)]
    )


def test_every_field_of_the_metrics_is_explained(searched: Path, trained: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for record in (*metrics(searched), *metrics(trained)):
        for name in record:
            assert f"`{name}`" in text
