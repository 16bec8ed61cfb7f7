"""`darts train`, end to end: what it leaves, stops and resumes, plans, and refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from darts_cli.genotype.file import load, shipped
from darts_cli.run import checkpoint
from darts_cli.spaces import SPACES
from darts_cli.spaces.cnn.task import ImageTrainingModule
from tests.conftest import (
    TINY,
    Darts,
    Images,
    assert_same_bits,
    call,
    contents,
    make_images,
    read_metrics,
)

QUICK = (
    *("--channels", 4, "--layers", 3, "--device", "cpu", "--recipe", "digits"),
    *("--batch-size", 9, "--epochs", 2),
)
"""With `pets`, three steps an epoch, under drop path, cutout and an auxiliary head."""

NET = ("--genotype", "darts_v2", *QUICK)

Unchanged = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was never stopped."""
    path = tmp_path_factory.mktemp("whole") / "run"
    return call("train", "--data", pets, *NET, "--out", path).path


def settings(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return loaded


def split_folder(images: Images) -> Path:
    """Images with a folder for each split."""
    for split in ("train", "val", "test"):
        images(f"split/{split}", count=6)
    return images("unused").parent / "split"


def test_the_directory_of_a_training_holds_all_its_files(whole: Path) -> None:
    assert set(contents(whole)) == {
        *("alphas", "config.yaml", "genotype.yaml", "last.safetensors", "log.txt", "metrics.jsonl"),
        *(".lock", "previous.safetensors"),
    }
    assert load(whole / "genotype.yaml", SPACES) == load("darts_v2", SPACES)
    found = settings(whole)
    assert (found["command"], found["alphas"], found["network"]["layers"]) == ("train", None, 3)


def test_metrics_of_a_training_have_a_line_an_epoch(whole: Path) -> None:
    records = read_metrics(whole)
    assert [(record["epoch"], record["step"]) for record in records] == [(1, 3), (2, 6)]
    assert [record["lr"] for record in records] == pytest.approx([0.025, 0.0125])
    for record in records:
        assert record.keys() == {"epoch", "step", "lr", "train", "test", "evaluated"}
        assert record["test"].keys() == {"loss", "top1", "top5"}
        # Two classes are always among the first five.
        assert record["test"]["top5"] == 1


def test_a_checkpoint_of_a_training_holds_what_it_takes_to_use_it(whole: Path) -> None:
    tensors, metadata = checkpoint.read(whole / "last.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"network", "optimizer", "meter"}
    assert metadata["kind"] == "train"
    assert metadata["position"] == {"epoch": 2, "step": 0, "total": 6}
    assert metadata["facts"]["classes"] == ["cat", "dog"]
    assert (metadata["facts"]["channels"], metadata["facts"]["size"]) == (1, 8)
    assert metadata["genotype"] == (whole / "genotype.yaml").read_text()


def test_the_best_epoch_is_kept_only_where_there_are_validation_images(
    darts: Darts, images: Images, whole: Path
) -> None:
    run = darts("train", "--data", split_folder(images), *NET, "--out", "run").path
    assert not (whole / "best.safetensors").exists()
    losses = [record["valid"]["loss"] for record in read_metrics(run)]
    metadata = checkpoint.read_metadata(run / "best.safetensors")
    assert metadata["best"] == min(losses)
    assert metadata["position"]["epoch"] == 1 + losses.index(min(losses))


def test_only_the_path_of_a_training_is_on_standard_output(darts: Darts, pets: Path) -> None:
    result = darts("train", "--data", pets, *NET, "--epochs", 1, "--out", "run")
    assert result.out == "run\n"
    assert result.err.startswith("darts train darts_v2")
    (record,) = read_metrics(Path("run"))
    assert f"epoch 1/1  train loss {record['train']['loss']:.4f}  top1 " in result.err
    assert f"  test loss {record['test']['loss']:.4f}  top1 " in result.err


def test_a_training_stopped_again_and_again_ends_with_the_same_bits(
    darts: Darts, pets: Path, whole: Path
) -> None:
    stopped = darts("train", "--data", pets, *NET, "--out", "run", "--max-steps", 1)
    assert stopped.err.splitlines()[-1] == (
        "stopped after 1 step, state saved; go on with: darts train --resume run"
    )
    for steps, position in ((2, (0, 2)), (3, (1, 0)), (5, (1, 2)), (6, (2, 0))):
        assert darts("train", "--resume", "run", "--max-steps", steps).out == "run\n"
        _, metadata = checkpoint.read(Path("run/last.safetensors"))
        assert (metadata["position"]["epoch"], metadata["position"]["step"]) == position
    assert_same_bits(Path("run"), whole)
    assert settings(Path("run")) == settings(whole)


def test_the_best_epoch_survives_a_stop(darts: Darts, images: Images) -> None:
    arguments = ("train", "--data", split_folder(images), *NET)
    darts(*arguments, "--out", "whole")
    darts(*arguments, "--out", "run", "--max-steps", 3)
    darts("train", "--resume", "run")
    assert_same_bits(Path("run"), Path("whole"))
    one = checkpoint.read_metadata(Path("run/best.safetensors"))
    assert one["best"] == checkpoint.read_metadata(Path("whole/best.safetensors"))["best"]


def test_one_seed_gives_the_same_training_and_another_seed_another(
    darts: Darts, pets: Path, whole: Path
) -> None:
    again = darts("train", "--data", pets, *NET, "--out", "again").path
    assert_same_bits(again, whole)
    other = darts("train", "--data", pets, *NET, "--seed", 1, "--out", "other").path
    assert read_metrics(other)[0]["train"] != read_metrics(whole)[0]["train"]


def test_a_training_is_repeated_from_its_own_config(darts: Darts, whole: Path) -> None:
    config = ("--config", whole / "config.yaml", "--device", "cpu")
    genotype = ("--genotype", whole / "genotype.yaml")
    again = darts("train", *genotype, *config, "--out", "again").path
    assert_same_bits(again, whole)
    assert settings(again) == settings(whole)


def test_a_training_goes_on_for_more_epochs(darts: Darts, whole: Path) -> None:
    shutil.copytree(whole, "run")
    darts("train", "--resume", "run", "--epochs", 3)
    assert [record["epoch"] for record in read_metrics(Path("run"))] == [1, 2, 3]
    assert settings(Path("run"))["epochs"] == 3


def test_resuming_the_wrong_kind_of_run_is_refused(
    darts: Darts, searched: Path, whole: Path, unchanged: Unchanged
) -> None:
    unchanged(searched)
    unchanged(whole)
    assert darts("train", "--resume", searched).refusal() == (
        f"{searched}: found a run of darts search cnn, expected one of darts train"
    )
    assert darts("train", "--resume", whole, "--genotype", "darts_v2").refusal() == (
        "--genotype: not with --resume, which goes on with the run's own"
    )
    assert darts("train", "--resume", whole, "--lr", 1).refusal().startswith("--lr: not with ")


def test_a_dry_run_prints_the_papers_training_as_one_json_object(
    darts: Darts, tmp_path: Path
) -> None:
    result = darts("train", "--genotype", "darts_v2", "--data", "cifar10", "--dry-run")
    assert result.out.count("\n") == 1
    plan = json.loads(result.out)
    assert plan["parameters"] == 3_349_342
    assert plan["macs"] == 528_359_040
    assert plan["training_parameters"] > plan["parameters"]
    assert plan["alphas"] == 0
    assert (plan["command"], plan["genotype"]) == ("train", "darts_v2")
    assert (plan["epochs"], plan["steps_per_epoch"], plan["steps"]) == (600, 521, 312_600)
    assert "528,359,040 for one image" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_plans_the_steps_of_a_training(darts: Darts, pets: Path, whole: Path) -> None:
    plan = json.loads(darts("train", "--data", pets, *NET, "--dry-run").out)
    assert plan["steps"] == read_metrics(whole)[-1]["step"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: 1\n", "cell.yaml, line 1: found genotype without 'space', expected the keys "),
        ("epochs: 3\n", "cell.yaml, line 1: found key 'epochs' in genotype, expected one of "),
        ("format: 2\nspace: cnn\nname: a\ncells: {}\n", "cell.yaml, line 1: found format 2, "),
        ("", "cell.yaml: empty, expected a genotype"),
        ("[1, 2", "cell.yaml, line 1: not YAML: "),
    ],
)
def test_a_file_that_is_no_genotype_is_refused_with_its_line(
    darts: Darts, tmp_path: Path, text: str, message: str
) -> None:
    Path("cell.yaml").write_text(text)
    result = darts("train", "--genotype", "cell.yaml", "--data", "digits", "--out", "run")
    assert result.refusal().startswith(message)
    assert set(contents(tmp_path)) == {"cell.yaml"}


def test_a_missing_genotype_is_refused_with_the_names_there_are(
    darts: Darts, tmp_path: Path
) -> None:
    assert darts("train", "--genotype", "nonsense", "--data", "digits").refusal() == (
        f"no genotype 'nonsense': expected a YAML file or one of {', '.join(shipped())}"
    )
    assert darts("train", "--data", "digits").refusal() == (
        "--genotype: expected a genotype's name or file, such as darts_v2"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_genotype_that_cannot_be_read_is_named(
    darts: Darts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    Path("cell.yaml").touch()
    monkeypatch.setattr(Path, "read_text", refuse)
    assert darts("train", "--genotype", "cell.yaml", "--data", "digits").refusal() == (
        "cell.yaml: cannot be read (Permission denied); check its name and permissions"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "epochs: found 0, expected 1 to 100000; use --epochs or --set"),
        (["--channels", "5"], "network.channels: found 5, expected an even number; use --channels"),
        (["--max-steps", "-3"], "--max-steps: found -3, expected 1 or more"),
        (["--order", "first"], "No such option: --order"),
        (["--set", "network.drop_path=1"], "network.drop_path: found 1.0, expected 0 to less than"),
        (["--set", "alphas.lr=1"], "--set: alphas is not for this command, expected none of it"),
        (["--recipe", "nonsense"], "--recipe nonsense: no such recipe for train cnn, expected one"),
        (["--gpu", "7"], "--gpu 7: found "),
    ],
)
def test_a_bad_flag_of_a_training_is_one_line_and_leaves_nothing(
    darts: Darts, tmp_path: Path, pets: Path, arguments: list[str], message: str
) -> None:
    size = ("--channels", 4, "--layers", 3, "--recipe", "digits", "--out", "run")
    result = darts("train", "--genotype", "darts_v2", "--data", pets, *size, *arguments)
    assert result.refusal().startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_holds_a_run_is_not_trained_into(
    darts: Darts, pets: Path, whole: Path, unchanged: Unchanged
) -> None:
    unchanged(whole)
    message = darts("train", "--data", pets, *NET, "--out", whole).refusal()
    assert message.startswith(f"--out {whole}: already holds a run, expected a new directory; ")


def test_a_training_that_diverges_leaves_the_last_good_state(
    darts: Darts, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training_loss, steps = ImageTrainingModule.training_loss, iter(range(100))

    def explode(module: ImageTrainingModule, output: Any, batch: Any) -> torch.Tensor:
        return training_loss(module, output, batch) * (1.0 if next(steps) < 4 else float("inf"))

    monkeypatch.setattr(ImageTrainingModule, "training_loss", explode)
    result = darts("train", "--data", pets, *NET, "--out", "run")
    assert result.status == 1
    assert result.err.splitlines()[-1].startswith(
        "darts: the loss is not a finite number any more (epoch 2, step 1, learning rate 0.0125); "
    )
    tensors, metadata = checkpoint.read(Path("run/last.safetensors"))
    assert metadata["position"]["epoch"] == 1
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert [record["epoch"] for record in read_metrics(Path("run"))] == [1]


def test_a_damaged_test_image_is_found_before_anything_is_written(darts: Darts) -> None:
    for split in ("train", "test"):
        make_images(Path("data") / split)
    Path("data/test/cat/00.png").write_bytes(b"no image")
    command = ("train", "--genotype", "darts_v2", "--data", "data", *TINY, "--batch-size", 4)
    message = darts(*command, "--set", "data.cutout=2", "--out", "run").refusal()
    assert "00.png" in message
    assert not Path("run").exists()
