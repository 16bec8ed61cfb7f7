"""`darts eval`: measures of a trained network, printed and written beside the checkpoint."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from darts_cli.config import Config
from darts_cli.run import checkpoint
from darts_cli.spaces.cnn.task import ImageTask
from tests.conftest import Darts, Images, read_metrics

Unchanged = Callable[[Path], None]

CPU = ("--device", "cpu")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a training on digits, to write into."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_the_test_images_give_the_measures_that_training_saw(darts: Darts, run: Path) -> None:
    result = darts("eval", "run", *CPU)
    (record,) = read_metrics(run)
    found = json.loads(result.path.read_text())
    assert found.keys() == {
        *("checkpoint", "data", "split", "examples", "batch_size", "epoch"),
        *("loss", "top1", "top5"),
    }
    assert (found["checkpoint"], found["data"], found["split"]) == (
        *("last.safetensors", "digits", "test"),
    )
    assert (found["examples"], found["batch_size"], found["epoch"]) == (179, 32, 1)
    assert {name: found[name] for name in ("loss", "top1", "top5")} == record["test"]


def test_measures_and_the_file_are_printed_in_this_order(darts: Darts, run: Path) -> None:
    result = darts("eval", "run", *CPU)
    found = json.loads((run / "last-test.json").read_text())
    assert result.out == (
        f"test: loss {found['loss']:.4f}  top1 {100 * found['top1']:.2f} %  "
        f"top5 {100 * found['top5']:.2f} %  (179 images)\nrun/last-test.json\n"
    )
    assert result.err.startswith("last.safetensors on test of digits, cpu (")
    assert len(result.err.splitlines()) == 1


def test_measures_do_not_depend_on_the_batch(darts: Darts, run: Path) -> None:
    found = []
    for size in (256, 50):
        path = darts("eval", run, *CPU, "--batch-size", size).path
        found.append(json.loads(path.read_text()))
    assert found[0]["top1"] == found[1]["top1"]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-5)


def test_another_split_has_a_file_of_its_own(darts: Darts, run: Path) -> None:
    result = darts("eval", run / "last.safetensors", *CPU, "--split", "train")
    assert result.path == run / "last-train.json"
    found = json.loads(result.path.read_text())
    assert (found["split"], found["examples"]) == ("train", 1618)
    assert not (run / "last-test.json").exists()


def test_the_best_checkpoint_is_preferred_where_there_is_one(darts: Darts, run: Path) -> None:
    shutil.copy(run / "last.safetensors", run / "best.safetensors")
    assert darts("eval", run, *CPU).path == run / "best-test.json"


def test_other_images_of_the_same_classes_can_be_measured(darts: Darts, images: Images) -> None:
    sizes = (*CPU, "--channels", 2, "--layers", 3, "--recipe", "digits", "--max-steps", 1)
    data = ("--data", images("pets"))
    run = darts("train", "--genotype", "darts_v1", *data, *sizes, "--out", "net").path
    other = images("other", seed=1, count=20)
    found = json.loads(darts("eval", run, *CPU, "--data", other).path.read_text())
    # A tenth of each class.
    assert (found["data"], found["examples"]) == ("other", 4)


def test_images_of_other_classes_are_refused(
    darts: Darts, trained: Path, unchanged: Unchanged, pets: Path
) -> None:
    unchanged(trained)
    message = darts("eval", trained, *CPU, "--data", pets).refusal()
    assert "expected classes 0, 1, 2, " in message
    assert "found cat, dog" in message


@pytest.mark.parametrize("split", ["nonsense", "valid", ""])
def test_a_split_that_is_not_there_is_refused_with_those_that_are(
    darts: Darts, trained: Path, unchanged: Unchanged, split: str
) -> None:
    unchanged(trained)
    assert darts("eval", trained, *CPU, "--split", split).refusal() == (
        f"digits: found no split {split!r} to read; use one of test, train"
    )


def test_a_search_is_refused_with_what_to_do_first(
    darts: Darts, searched: Path, unchanged: Unchanged
) -> None:
    unchanged(searched)
    assert darts("eval", searched, *CPU).refusal() == (
        f"{searched}/last.safetensors: found a search, expected a trained network; "
        f"first darts derive {searched}, then darts train --genotype FILE"
    )


def test_alphas_alone_are_no_trained_network(darts: Darts, searched: Path) -> None:
    message = darts("eval", searched / "alphas/epoch-0001.safetensors", *CPU).refusal()
    assert message.startswith(f"{searched}/alphas/epoch-0001.safetensors: found ")


def test_what_is_no_checkpoint_is_refused(darts: Darts, run: Path) -> None:
    assert darts("eval", "nowhere", *CPU).refusal() == "nowhere: no such directory, expected a run"
    message = darts("eval", run / "config.yaml", *CPU).refusal()
    assert message.startswith(f"{run}/config.yaml: cannot be read (")
    (run / "last.safetensors").unlink()
    assert darts("eval", run, *CPU).refusal() == (
        f"{run}: found no checkpoint in it yet, let the run save one"
    )


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("channels", 1, "network.channels: found 1, expected 2 to 4096; use another checkpoint"),
        ("stem_multiplier", 2, "network.stem.0.weight: found shape [6, 1, 3, 3] in the "),
        (
            "channels",
            4,
            "config.network: found settings of a larger network than the {count} tensors",
        ),
        ("channels", 512, "config.network: found settings of a larger network than the {count} "),
        (
            "layers",
            1000,
            "config.network: found settings of a larger network than the {count} tensors",
        ),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(
    darts: Darts, run: Path, setting: str, value: int, message: str
) -> None:
    file = run / "last.safetensors"
    tensors, metadata = checkpoint.read(file)
    del metadata["format"]
    metadata["config"]["network"][setting] = value
    checkpoint.write(file, tensors, metadata)
    count = sum(name.startswith("network.") for name in tensors)
    expected = f"{file}: {message.format(count=count)}"
    assert darts("eval", run, *CPU).refusal().startswith(expected)
    assert not (run / "last-test.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "0"], "Invalid value for '--batch-size': Input should be greater than"),
        (["--data", "nonsense"], "--data nonsense: expected one of digits, cifar10, cifar100, "),
        (["--gpu", "7"], "--gpu 7: found "),
        (["--gpu", "0", "--device", "cpu"], "--gpu and --device: found both, expected one of"),
    ],
)
def test_a_bad_flag_of_eval_is_one_line_and_leaves_nothing(
    darts: Darts, trained: Path, unchanged: Unchanged, arguments: list[str], message: str
) -> None:
    unchanged(trained)
    assert darts("eval", trained, *arguments).refusal().startswith(message)


def test_alphas_alone_are_told_from_a_whole_checkpoint(darts: Darts, searched: Path) -> None:
    file = searched / "alphas" / "epoch-0001.safetensors"
    assert darts("eval", file).refusal() == (
        f"{file}: found alphas alone, expected a whole checkpoint; use the run's last.safetensors"
    )


def test_a_checkpoint_that_lacks_a_part_of_its_metadata_is_refused(
    darts: Darts, trained: Path, tmp_path: Path
) -> None:
    tensors, metadata = checkpoint.read(trained / "last.safetensors")
    del metadata["facts"], metadata["format"]
    file = tmp_path / "part.safetensors"
    checkpoint.write(file, tensors, metadata)
    assert darts("eval", file).refusal() == (
        f"{file}: found no 'facts' in it, expected a checkpoint of a search or training"
    )


def test_data_is_kept_where_the_users_settings_say_not_the_checkpoint(
    darts: Darts, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots: list[str] = []
    load = ImageTask.load

    def note(self: ImageTask, config: Config, *arguments: Any, **options: Any) -> Any:
        roots.append(config.data.root)
        return load(self, config, *arguments, **options)

    monkeypatch.setattr(ImageTask, "load", note)
    file = run / "last.safetensors"
    tensors, metadata = checkpoint.read(file)
    metadata["config"]["data"]["root"] = "/elsewhere"
    checkpoint.write(file, tensors, metadata)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["data"]["root"] = str(run / "own")
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    darts("eval", run, *CPU)
    darts("train", "--resume", run, *CPU, "--dry-run")
    (run / "config.yaml").unlink()
    darts("eval", file, *CPU)
    assert roots == [str(run / "own"), str(run / "own"), "~/.cache/darts"]
