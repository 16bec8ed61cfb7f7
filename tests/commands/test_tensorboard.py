"""`--tensorboard`: what its files hold, after a resume too, and what is said without it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from darts_cli.commands.reading import read_history
from darts_cli.run import checkpoint
from darts_cli.run.files import WriteError
from darts_cli.spaces import SPACES
from tests.conftest import TINY, Darts, read_metrics

SIZES = (*TINY, "--batch-size", 4, "--order", "first", "--tensorboard")


def load(run: Path) -> EventAccumulator:
    board = EventAccumulator(str(run / "tensorboard"), purge_orphaned_data=True)
    board.Reload()
    return board


def scalars(board: EventAccumulator, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in board.Scalars(name)]


def test_every_number_of_the_metrics_is_a_scalar_at_its_epoch(darts: Darts, pets: Path) -> None:
    run = darts("search", "cnn", "--data", pets, *SIZES, "--epochs", 2, "--out", "run").path
    board = load(run)
    for record in read_metrics(run):
        epoch = record.pop("epoch")
        for name, value in record.items():
            numbers = value if isinstance(value, dict) else {name: value}
            group = name if isinstance(value, dict) else "run"
            for key, number in numbers.items():
                found = dict(scalars(board, f"{group}/{key}"))
                assert found[epoch] == pytest.approx(number)


def test_alphas_are_shares_edge_by_edge_and_the_cells_a_picture(darts: Darts, pets: Path) -> None:
    run = darts("search", "cnn", "--data", pets, *SIZES, "--epochs", 1, "--out", "run").path
    board, space = load(run), SPACES["cnn"]
    tensors, _ = checkpoint.read(run / "alphas" / "epoch-0001.safetensors")
    shares = tensors["alphas.reduce"].softmax(dim=-1)
    for number, (node, source) in enumerate(space.edges):
        for column, name in enumerate(space.primitives):
            ((epoch, share),) = scalars(board, f"alphas reduce, {source} to {node + 2}/{name}")
            assert epoch == 1
            assert share == pytest.approx(float(shares[number, column]))
    (picture,) = board.Images("genotype")
    assert (picture.step, picture.encoded_image_string[:4]) == (1, b"\x89PNG")


def test_a_resumed_run_writes_every_epoch_once(darts: Darts, pets: Path) -> None:
    sizes = ("--data", pets, *SIZES, "--epochs", 3)
    darts("search", "cnn", *sizes, "--max-steps", 4, "--out", "run")
    darts("search", "cnn", "--resume", "run", "--tensorboard")
    assert [epoch for epoch, _ in scalars(load(Path("run")), "train/loss")] == [1, 2, 3]


def test_a_training_has_no_alphas(darts: Darts, pets: Path) -> None:
    size = (*TINY, "--batch-size", 4, "--epochs", 1, "--set", "data.cutout=0", "--tensorboard")
    run = darts("train", "--genotype", "darts_v2", "--data", pets, *size, "--out", "run").path
    tags = load(run).Tags()
    assert {"train/loss", "test/top1", "run/lr"} <= set(tags["scalars"])
    (picture,) = load(run).Images("genotype")
    assert picture.step == 1
    assert not [name for name in tags["scalars"] if name.startswith("alphas")]


def test_without_the_extra_nothing_is_begun(
    darts: Darts, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = darts("search", "cnn", "--data", pets, *SIZES, "--out", "run")
    assert result.refusal() == (
        "--tensorboard: found no tensorboard, expected it to be installed; "
        "pip install 'darts-cli[tensorboard]'"
    )
    assert not Path("run").exists()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from darts_cli.commands.tensorboard import TensorBoardWriter

    board = TensorBoardWriter(tmp_path, SPACES["cnn"], None, first=1)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board.writer, "flush", refuse)
    with pytest.raises(WriteError) as error:
        board({"epoch": 1, "lr": 0.5}, None)
    assert str(error.value) == (
        f"{tmp_path}/tensorboard: cannot be written (No space left on device)"
    )


def test_a_folder_that_is_a_file_is_named(darts: Darts, searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "run")
    (tmp_path / "run" / "tensorboard").touch()
    result = darts("search", "cnn", "--resume", "run", "--epochs", 3, "--tensorboard")
    assert (result.status, result.out) == (1, "")
    assert result.err.splitlines()[-1] == (
        "darts: run/tensorboard: cannot be written (File exists)"
    )


def test_cells_that_stand_when_a_board_begins_are_drawn(searched: Path, tmp_path: Path) -> None:
    from darts_cli.commands.tensorboard import TensorBoardWriter

    snapshot = read_history(searched).snapshots[-1]
    settled = replace(snapshot, signals=replace(snapshot.signals, unchanged_epochs=7))
    board = TensorBoardWriter(tmp_path, SPACES["cnn"], None, first=2)
    for _ in range(2):
        board({"epoch": 2, "lr": 0.5}, settled)
    assert len(load(tmp_path).Images("genotype")) == 1
