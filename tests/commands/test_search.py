"""`darts search`, end to end: what it leaves, stops and resumes, plans, and refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision.datasets
import yaml
from PIL import Image

from darts_cli.engine import probe
from darts_cli.genotype.derivation import derive
from darts_cli.genotype.file import load
from darts_cli.run import checkpoint
from darts_cli.run.files import replacing
from darts_cli.spaces import SPACES
from darts_cli.spaces.cnn.task import ImageTrainingModule
from tests.conftest import (
    TINY,
    Darts,
    Images,
    assert_same_bits,
    call,
    contents,
    read_metrics,
)

SIZES = (*TINY, "--batch-size", 4, "--epochs", 2)
"""With `pets`, three steps an epoch."""

QUICK = (*SIZES, "--order", "first", "--layers", 2)
"""Where it does not matter that there is a normal cell."""

NO_CUTOUT = ("--set", "data.cutout=0")

LONG = (*QUICK, "--epochs", 4)
"""Long enough to be stopped by hand: twelve steps."""

Unchanged = Callable[[Path], None]


@pytest.fixture(scope="module", params=["first", "second"])
def whole(
    request: pytest.FixtureRequest, pets: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """An order, and a search of that order that was never stopped."""
    path = tmp_path_factory.mktemp("whole") / "run"
    order = request.param
    return order, call(
        "search", "cnn", "--data", pets, *SIZES, "--order", order, "--out", path
    ).path


@pytest.fixture(scope="module")
def long(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of twelve steps that was never stopped."""
    path = tmp_path_factory.mktemp("long") / "run"
    return call("search", "cnn", "--data", pets, *LONG, "--out", path).path


def settings(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return loaded


def test_the_directory_of_a_run_holds_all_its_files_and_no_others(searched: Path) -> None:
    assert set(contents(searched)) == {
        "config.yaml",
        "metrics.jsonl",
        ".lock",
        "alphas",
        "alphas/epoch-0001.safetensors",
        "alphas/epoch-0002.safetensors",
        "genotype.yaml",
        "last.safetensors",
        "previous.safetensors",
        "log.txt",
    }


def test_metrics_have_a_line_an_epoch(searched: Path) -> None:
    records = read_metrics(searched)
    assert [(record["epoch"], record["step"]) for record in records] == [(1, 4), (2, 8)]
    assert [record["lr"] for record in records] == pytest.approx([0.025, 0.013])
    for record in records:
        assert record.keys() == {
            *("epoch", "step", "lr", "train", "valid", "evaluated", "skip_connections"),
            *("entropy", "weakest_margin", "unchanged_epochs"),
        }
        for name in ("skip_connections", "entropy", "weakest_margin"):
            assert record[name].keys() == {"normal", "reduce"}
        for split in ("train", "valid"):
            metrics = record[split]
            assert metrics.keys() == {"loss", "top1", "top5"}
            assert 0 <= metrics["top1"] <= metrics["top5"] <= 1
            assert 1 < metrics["loss"] < 4
    assert records[0]["train"] != records[1]["train"]


@pytest.mark.parametrize("epoch", [1, 2])
def test_the_genotype_of_an_epoch_is_that_of_the_alphas_after_it(
    darts: Darts, searched: Path, epoch: int
) -> None:
    tensors, metadata = checkpoint.read(searched / f"alphas/epoch-{epoch:04}.safetensors")
    assert metadata["position"] == {"epoch": epoch}
    alphas = {name.removeprefix("alphas."): value.tolist() for name, value in tensors.items()}
    expected, _ = derive(SPACES["cnn"], alphas, name="", origin={})
    written = load(
        darts("derive", searched, "--epoch", epoch, "--output", "cell.yaml").path, SPACES
    )
    assert written.cells == expected.cells
    if epoch == 2:
        assert load(searched / "genotype.yaml", SPACES).cells == expected.cells


def test_the_last_checkpoint_holds_the_alphas_of_the_last_epoch(searched: Path) -> None:
    last, metadata = checkpoint.read(searched / "last.safetensors")
    epoch, _ = checkpoint.read(searched / "alphas/epoch-0002.safetensors")
    assert metadata["position"] == {"epoch": 2, "step": 0, "total": 8}
    assert set(epoch) == {"alphas.normal", "alphas.reduce"}
    for name, alpha in epoch.items():
        assert torch.equal(alpha, last[name])
    first, _ = checkpoint.read(searched / "alphas/epoch-0001.safetensors")
    assert not any(torch.equal(first[name], epoch[name]) for name in first)


def test_the_genotype_says_where_it_comes_from(searched: Path) -> None:
    origin = load(searched / "genotype.yaml", SPACES).origin
    assert origin.keys() == {
        *("run", "epoch", "seed", "order", "strategy", "data", "date", "versions")
    }
    assert (origin["run"], origin["epoch"], origin["seed"]) == ("run", 2, 0)
    assert (origin["order"], origin["strategy"], origin["data"]) == ("first", "darts", "digits")


def test_config_yaml_holds_every_setting_and_the_versions(searched: Path) -> None:
    found = settings(searched)
    assert found["command"] == "search"
    assert found["versions"].keys() == {"darts", "torch", "python"}
    assert (found["space"], found["recipe"]) == ("cnn", "digits")
    assert (found["seed"], found["epochs"]) == (0, 2)
    assert (found["data"]["name"], found["data"]["batch_size"]) == ("digits", 28)
    assert (found["network"]["channels"], found["network"]["layers"]) == (2, 3)
    assert found["alphas"]["order"] == "first"


def test_the_log_has_the_lines_of_every_epoch_with_the_time(searched: Path) -> None:
    lines = (searched / "log.txt").read_text().splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d  "
    assert all(re.match(stamp, line) for line in lines)
    texts = [re.sub(f"^{stamp}", "", line) for line in lines]
    # On a slow machine there are lines of the steps between as well.
    ends = [text for text in texts if not text.startswith(" ") and "  step " not in text]
    assert [text[:10] for text in ends] == ["epoch 1/2 ", "epoch 2/2 "]


def test_only_the_path_is_on_standard_output_and_the_rest_on_standard_error(
    darts: Darts, pets: Path
) -> None:
    result = darts("search", "cnn", "--data", pets, *QUICK, "--out", "run")
    assert result.out == "run\n"
    for row in ("device", "data", "network", "parameters", "MACs", "steps", "memory", "output"):
        assert f"\n{row} " in result.err
    assert "2 epochs of 3, batch 4" in result.err
    (record, _) = read_metrics(Path("run"))
    line = next(line for line in result.err.splitlines() if line.startswith("epoch 1/2  "))
    assert f"train loss {record['train']['loss']:.4f}  top1 " in line
    assert f"valid loss {record['valid']['loss']:.4f}  top1 " in line
    skips = record["skip_connections"]["normal"]
    assert f"\n  normal ({skips} skip connection{'' if skips == 1 else 's'}): [" in result.err


# --- stopping and going on ---


def test_max_steps_stops_and_says_how_to_go_on(darts: Darts, pets: Path) -> None:
    result = darts("search", "cnn", "--data", pets, *QUICK, "--max-steps", 1, "--out", "a run")
    assert result.out == "a run\n"
    assert result.err.splitlines()[-1] == (
        "stopped after 1 step, state saved; go on with: darts search cnn --resume 'a run'"
    )
    _, metadata = checkpoint.read(Path("a run/last.safetensors"))
    assert metadata["position"] == {"epoch": 0, "step": 1, "total": 1}
    assert set(contents(Path("a run"))) == {
        *(".lock", "alphas", "config.yaml", "last.safetensors", "log.txt", "previous.safetensors")
    }


def test_a_search_stopped_again_and_again_ends_with_the_same_bits(
    darts: Darts, pets: Path, whole: tuple[str, Path]
) -> None:
    order, uninterrupted = whole
    sizes = ("--data", pets, *SIZES, "--order", order)
    darts("search", "cnn", *sizes, "--out", "run", "--max-steps", 1)
    # In mid-epoch, at an epoch's end, in the next epoch, and to the end.
    for steps, position in ((3, (1, 0)), (5, (1, 2)), (6, (2, 0))):
        darts("search", "cnn", "--resume", "run", "--max-steps", steps)
        _, metadata = checkpoint.read(Path("run/last.safetensors"))
        assert (metadata["position"]["epoch"], metadata["position"]["step"]) == position
        assert metadata["position"]["total"] == steps
    assert_same_bits(Path("run"), uninterrupted)
    assert load("run/genotype.yaml", SPACES) == load(uninterrupted / "genotype.yaml", SPACES)
    assert settings(Path("run")) == settings(uninterrupted)


@pytest.mark.parametrize("whole", ["first"], indirect=True)
def test_a_finished_search_is_resumed_to_the_same_end(
    darts: Darts, whole: tuple[str, Path]
) -> None:
    _, uninterrupted = whole
    shutil.copytree(uninterrupted, "run")
    assert darts("search", "cnn", "--resume", "run").out == "run\n"
    assert_same_bits(Path("run"), uninterrupted)


@pytest.mark.parametrize("whole", ["first"], indirect=True)
def test_metrics_that_a_kill_left_after_the_checkpoint_are_written_once(
    darts: Darts, pets: Path, whole: tuple[str, Path]
) -> None:
    order, uninterrupted = whole
    sizes = ("--data", pets, *SIZES, "--order", order)
    darts("search", "cnn", *sizes, "--out", "run", "--max-steps", 2)
    lines = (uninterrupted / "metrics.jsonl").read_text().splitlines()
    # A whole line of an epoch that the checkpoint does not know, and half of the next.
    Path("run/metrics.jsonl").write_text(lines[0] + "\n" + lines[1][:40])
    darts("search", "cnn", "--resume", "run")
    assert_same_bits(Path("run"), uninterrupted)


def test_more_epochs_than_planned_are_added_with_epochs(darts: Darts, pets: Path) -> None:
    darts("search", "cnn", "--data", pets, *QUICK, "--out", "run", "--epochs", 1)
    result = darts("search", "cnn", "--resume", "run", "--epochs", 2)
    assert result.out == "run\n"
    assert [record["epoch"] for record in read_metrics(Path("run"))] == [1, 2]
    assert settings(Path("run"))["epochs"] == 2
    assert Path("run/alphas/epoch-0002.safetensors").is_file()


def test_fewer_epochs_than_are_done_are_refused(
    darts: Darts, searched: Path, unchanged: Unchanged
) -> None:
    unchanged(searched)
    assert darts("search", "cnn", "--resume", searched, "--epochs", 1).refusal() == (
        "--epochs 1: the run has done 2 already, expected 2 or more"
    )


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--data", "digits"),
        ("--out", "run"),
        ("--seed", "0"),
        ("--batch-size", "256"),
        ("--image-size", "16"),
        ("--channels", "2"),
        ("--layers", "3"),
        ("--lr", "0.1"),
        ("--order", "first"),
        ("--strategy", "darts"),
        ("--recipe", "digits"),
        ("--config", "run/config.yaml"),
        ("--set", "weights.lr=0.1"),
    ],
)
def test_resume_refuses_a_flag_that_would_change_the_run_by_its_name(
    darts: Darts, searched: Path, unchanged: Unchanged, flag: str, value: str
) -> None:
    unchanged(searched)
    assert darts("search", "cnn", "--resume", searched, flag, value).refusal() == (
        f"{flag}: not with --resume, which goes on under the run's own settings; "
        "only --quiet, --epochs, --max-steps, --checkpoint-every, --dry-run, --probe, "
        "--tensorboard, --no-live "
        "and what is under Device in --help may change"
    )


def test_resume_refuses_what_is_no_search(darts: Darts, trained: Path, tmp_path: Path) -> None:
    assert darts("search", "cnn", "--resume", trained).refusal() == (
        f"{trained}: found a run of darts train, expected one of darts search cnn"
    )
    assert darts("search", "cnn", "--resume", "nowhere").refusal() == (
        "nowhere: no such directory, expected a run"
    )
    assert darts("search", "cnn", "--resume", ".").refusal() == (
        ".: found no config.yaml in it, expected a run"
    )


def test_resume_refuses_other_images_than_before(darts: Darts, images: Images) -> None:
    folder = images("pets")
    darts("search", "cnn", "--data", folder, *QUICK, "--out", "run", "--max-steps", 1)
    (folder / "dog").rename(folder / "wolf")
    before = contents(Path("run"))
    message = darts("search", "cnn", "--resume", "run").refusal()
    assert "expected classes cat, dog, found cat, wolf" in message
    assert contents(Path("run")) == before


def test_a_run_is_resumed_from_another_directory(
    darts: Darts, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images("pets")
    darts("search", "cnn", "--data", "pets", *QUICK, "--out", "run", "--max-steps", 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    result = darts("search", "cnn", "--resume", "../run", "--max-steps", 2)
    assert result.status == 0, result.err


def test_saving_memory_changes_no_bit_and_may_be_chosen_anew(darts: Darts, pets: Path) -> None:
    arguments = ("search", "cnn", "--data", pets, *QUICK)
    assert darts(*arguments, "--out", "fast").status == 0
    saving = ("--memory", "save", "--max-steps", 4)
    assert darts(*arguments, "--out", "run", *saving).status == 0
    assert darts("search", "cnn", "--resume", "run", "--memory", "fast").status == 0
    assert_same_bits(Path("run"), Path("fast"))


def test_a_plan_knows_what_saving_memory_saves(darts: Darts) -> None:
    fast, save = (
        json.loads(darts("search", "cnn", "--memory", memory, "--dry-run").out)["memory_bytes"]
        for memory in ("fast", "save")
    )
    assert save < 0.4 * fast


def test_a_recurrent_search_has_no_memory_to_save(darts: Darts) -> None:
    arguments = ("search", "rnn", "--data", "pydoc", "--memory", "save", "--out", "run")
    message = darts(*arguments).refusal()
    assert message == "--memory save: for the search of images, expected fast"
    assert not Path("run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 0)],
)
def test_a_search_that_a_signal_stopped_goes_on_to_the_same_bits(
    darts: Darts, long: Path, pets: Path, number: signal.Signals, status: int, tmp_path: Path
) -> None:
    arguments = ["search", "cnn", "--data", pets, *LONG]
    process = subprocess.Popen(
        # A checkpoint after every step tells that the steps have begun.
        [
            *(sys.executable, "-m", "darts_cli", *map(str, arguments)),
            *("--out", "run", "--checkpoint-every", "1e-9"),
        ],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(1200):
        if Path("run/last.safetensors").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert out == ""
    command = "darts search cnn --resume run"
    assert err.splitlines()[-1] == (
        f"darts: stopped by {number.name}, state saved; go on with: {command}"
    )
    _, metadata = checkpoint.read(Path("run/last.safetensors"))
    assert 0 < metadata["position"]["total"] < 12
    assert darts(*command.split()[1:]).out == "run\n"
    assert_same_bits(Path("run"), long)


# --- plans ---


def test_a_dry_run_prints_the_papers_search_as_one_json_object(
    darts: Darts, tmp_path: Path
) -> None:
    result = darts("search", "cnn", "--data", "cifar10", "--dry-run")
    assert result.status == 0
    assert result.out.count("\n") == 1
    plan = json.loads(result.out)
    assert plan["parameters"] == plan["training_parameters"] == 1_930_618
    assert plan["alphas"] == 2 * 14 * 8
    assert (plan["command"], plan["space"], plan["genotype"]) == ("search", "cnn", None)
    assert plan["data"] == {"name": "cifar10", "classes": 10, "train": 50_000, "test": 10_000}
    assert (plan["epochs"], plan["steps_per_epoch"], plan["steps"]) == (50, 391, 19_550)
    assert 2**30 < plan["memory_bytes"] < 2**34
    assert plan["config"]["alphas"]["order"] == "second"
    assert "1,930,618 and 224 alphas" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_plans_the_steps_that_a_run_takes(darts: Darts, pets: Path) -> None:
    arguments = ("search", "cnn", "--data", pets, *QUICK, "--out", "run")
    plan = json.loads(darts(*arguments, "--dry-run").out)
    assert not Path("run").exists()
    assert plan["data"] == {"name": str(pets), "classes": 2, "train": 26, "test": 4}
    darts(*arguments)
    assert read_metrics(Path("run"))[-1]["step"] == plan["steps"] == 2 * plan["steps_per_epoch"]
    assert plan["out"] == "run"
    assert {"command": "search", **plan["config"]}.items() <= settings(Path("run")).items()


def test_a_probe_takes_a_few_steps_and_leaves_nothing(
    darts: Darts, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_SECONDS", 0.0)
    arguments = ("search", "cnn", "--data", pets, *TINY, "--batch-size", 4, "--epochs", 3)
    result = darts(*arguments, "--probe")
    found = json.loads(result.out)["probe"]
    assert found["run_seconds"] == pytest.approx(3 * found["epoch_seconds"])
    assert found["epoch_seconds"] > 3 * found["step_seconds"] > 0
    assert 0 < found["peak_bytes"] < found["available_bytes"]
    assert " s a step, " in result.err
    assert "largest batch" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_probe_of_a_resumed_run_changes_nothing(
    darts: Darts,
    searched: Path,
    unchanged: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "_SECONDS", 0.0)
    unchanged(searched)
    result = darts("search", "cnn", "--resume", searched, "--epochs", 9, "--probe")
    assert json.loads(result.out)["probe"]["step_seconds"] > 0


def test_a_dry_run_of_a_resumed_run_changes_nothing(
    darts: Darts, searched: Path, unchanged: Unchanged
) -> None:
    unchanged(searched)
    result = darts("search", "cnn", "--resume", searched, "--epochs", 9, "--dry-run")
    plan = json.loads(result.out)
    assert (plan["epochs"], plan["config"]["epochs"]) == (9, 9)
    assert plan["out"] == str(searched)


# --- settings ---


def plan_of(darts: Darts, *arguments: object) -> dict[str, Any]:
    """The settings that a search would have."""
    result = darts("search", "cnn", "--dry-run", *TINY, *arguments)
    assert result.status == 0, result.err
    config: dict[str, Any] = json.loads(result.out)["config"]
    return config


def test_a_flag_beats_a_file_which_beats_the_recipe_and_set_beats_all(darts: Darts) -> None:
    Path("mine.yaml").write_text("seed: 3\nepochs: 4\nweights:\n  lr: 0.5\n")
    recipe = plan_of(darts, "--data", "digits")
    assert (recipe["seed"], recipe["epochs"], recipe["weights"]["lr"]) == (0, 8, 0.025)
    file = plan_of(darts, "--data", "digits", "--config", "mine.yaml")
    assert (file["seed"], file["epochs"], file["weights"]["lr"]) == (3, 4, 0.5)
    assert file["weights"]["momentum"] == recipe["weights"]["momentum"]
    flags = ("--data", "digits", "--config", "mine.yaml", "--epochs", 5, "--lr", 0.25)
    flag = plan_of(darts, *flags)
    assert (flag["seed"], flag["epochs"], flag["weights"]["lr"]) == (3, 5, 0.25)
    assigned = plan_of(darts, *flags, "--set", "epochs=6", "--set", "alphas.lr=1e-2")
    assert (assigned["seed"], assigned["epochs"], assigned["weights"]["lr"]) == (3, 6, 0.25)
    assert assigned["alphas"]["lr"] == 0.01


def test_the_recipe_is_the_one_named_by_flag_else_file_else_data(darts: Darts) -> None:
    Path("mine.yaml").write_text("recipe: cifar\n")
    digits = ("--data", "digits")
    assert plan_of(darts, *digits)["recipe"] == "digits"
    by_file = plan_of(darts, *digits, "--config", "mine.yaml")
    assert (by_file["recipe"], by_file["epochs"]) == ("cifar", 50)
    by_flag = plan_of(darts, *digits, "--config", "mine.yaml", "--recipe", "digits")
    assert (by_flag["recipe"], by_flag["epochs"]) == ("digits", 8)


@pytest.mark.parametrize("whole", ["first"], indirect=True)
def test_a_search_is_repeated_from_its_own_config(darts: Darts, whole: tuple[str, Path]) -> None:
    _, before = whole
    config = ("--config", before / "config.yaml", "--device", "cpu")
    again = darts("search", "cnn", *config, "--out", "again").path
    assert_same_bits(again, before)
    assert settings(again) == settings(before)


def test_one_seed_gives_the_same_bits_and_another_seed_other_ones(darts: Darts, pets: Path) -> None:
    arguments = ("search", "cnn", "--data", pets, *QUICK, "--epochs", 1)
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        assert darts(*arguments, "--seed", seed, "--out", name).status == 0
    assert_same_bits(Path("one"), Path("again"))
    one, _ = checkpoint.read(Path("one/last.safetensors"))
    other, _ = checkpoint.read(Path("other/last.safetensors"))
    for name in ("alphas.normal", "alphas.reduce", "network.stem.0.weight"):
        assert not torch.equal(one[name], other[name])
    assert read_metrics(Path("one")) != read_metrics(Path("other"))


# --- bad input ---


INTERVAL = "expected minutes above 0, such as 10, or steps, such as 500steps"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "seed: found -1, expected 0 to 2^63 - 1; use --seed or --set seed=..."),
        (["--epochs", "0"], "epochs: found 0, expected 1 to 100000; use --epochs or"),
        (
            ["--batch-size", "1"],
            "data.batch_size: found 1, expected 2 or more; use --batch-size or",
        ),
        (["--image-size", "4"], "data.image_size: found 4, expected 8 to 4096; use --image-size"),
        (["--channels", "0"], "network.channels: found 0, expected 2 to 4096; use --channels or"),
        (["--channels", "3"], "network.channels: found 3, expected an even number; use --channels"),
        (["--layers", "0"], "network.layers: found 0, expected 1 to 1000; use --layers or"),
        (["--lr", "0"], "weights.lr: found 0.0, expected more than 0, at most 1000; use --lr or"),
        (["--lr", "nan"], "weights.lr: found nan, expected more than 0, at most 1000; use --lr or"),
        (["--max-steps", "0"], "--max-steps: found 0, expected 1 or more"),
        *(
            (
                ["--checkpoint-every", text],
                f"--checkpoint-every: found {text!r}, expected minutes above 0, such as 10, ",
            )
            for text in ("0", "nan", "inf", "-1", "often", "0steps", "1.5steps", "5 epochs")
        ),
        (["--epochs", "x"], "Invalid value for '--epochs': Input should be a valid integer"),
        (["--lr", "x"], "Invalid value for '--lr': Input should be a valid number"),
        (
            ["--strategy", "nonsense"],
            "--strategy nonsense: no such strategy, expected one of darts",
        ),
        (
            ["--recipe", "nonsense"],
            "--recipe nonsense: no such recipe for search cnn, expected one",
        ),
        (["--set", "epochs"], "--set epochs: expected KEY=VALUE, such as --set weights.lr=0.05"),
        (["--set", "weights.rate=1"], "--set: unknown setting weights.rate, expected one of lr,"),
        (["--set", "epocs=1"], "--set: unknown setting epocs, did you mean epochs?"),
        (["--set", "weights=1"], "--set: weights is a group of settings, found 1"),
        (["--set", "epochs=many"], "--set: epochs: found 'many', expected a whole number"),
        (["--set", "weights.clip=-1"], "weights.clip: found -1.0, expected 0 or more; use --set"),
        (
            ["--set", "recipe=cifar"],
            "--set recipe: not allowed, since the recipe sets the other defaults; use --recipe",
        ),
        (
            ["--set", "space=cnn"],
            "--set space: not allowed, since the space sets the other defaults; use it",
        ),
        (["--config", "none.yaml"], "none.yaml: cannot be read (No such file or directory)"),
        (["--gpu", "-1"], "--gpu -1: found "),
        (["--gpu", "7"], "--gpu 7: found "),
        (["--device", "nonsense"], "--device nonsense: not here, expected one of "),
        (["--out", "taken/run"], "--out taken/run: cannot be made (Not a directory); choose"),
        (["--out", "taken"], "--out taken: found a file, expected a new directory"),
    ],
)
def test_a_bad_flag_is_one_line_and_leaves_nothing(
    darts: Darts, tmp_path: Path, pets: Path, arguments: list[str], message: str
) -> None:
    Path("taken").write_text("mine")
    device = [] if {"--gpu", "--device"} & set(arguments) else ["--device", "cpu"]
    size = ("--channels", 2, "--layers", 3)
    result = darts("search", "cnn", "--data", pets, *size, "--out", "run", *device, *arguments)
    assert result.refusal().startswith(message)
    assert contents(tmp_path) == {"taken": b"mine"}


def test_gpu_and_device_exclude_each_other(darts: Darts) -> None:
    assert darts("search", "cnn", "--gpu", 0, "--device", "cpu").refusal() == (
        "--gpu and --device: found both, expected one of them"
    )


def test_a_directory_that_holds_a_run_is_not_written_to(
    darts: Darts, pets: Path, searched: Path, unchanged: Unchanged
) -> None:
    unchanged(searched)
    assert darts("search", "cnn", "--data", pets, *QUICK, "--out", searched).refusal() == (
        f"--out {searched}: already holds a run, expected a new directory; "
        f"choose another, or go on with a run by --resume {searched}"
    )


def test_an_empty_directory_is_as_good_as_a_new_one(darts: Darts, pets: Path) -> None:
    Path("run").mkdir()
    sizes = ("--data", pets, *QUICK, "--max-steps", 1)
    assert darts("search", "cnn", *sizes, "--out", "run").path == Path("run")


def refuse_data(darts: Darts, data: object, *arguments: object) -> str:
    """What a search says of data; nothing is made of it."""
    message = darts("search", "cnn", "--data", data, *QUICK, "--out", "run", *arguments).refusal()
    assert not Path("run").exists()
    return message


def test_unknown_data_is_refused_with_the_names_and_the_layout_of_a_folder(darts: Darts) -> None:
    message = refuse_data(darts, "nonsense")
    assert message.startswith(
        "--data nonsense: expected one of digits, cifar10, cifar100, imagenet, or a folder"
        " of images (DIR/<class>/*.png, or DIR/train/<class>/*.png with "
    )


def test_an_empty_class_folder_is_named(darts: Darts, images: Images) -> None:
    folder = images()
    (folder / "emu").mkdir()
    assert refuse_data(darts, folder) == (
        f"{folder / 'emu'}: expected images (bmp, jpeg, jpg, png, webp) of the class 'emu',"
        " found none; add some or remove the folder"
    )


def test_a_file_that_is_no_image_is_named(darts: Darts, images: Images) -> None:
    folder = images()
    (folder / "dog" / "07.png").write_bytes(b"no image")
    assert refuse_data(darts, folder).startswith(
        f"{folder / 'dog' / '07.png'}: expected an image, found what cannot be decoded ("
    )


def test_an_image_that_breaks_off_is_named(darts: Darts, images: Images) -> None:
    folder = images()
    # The header is whole, which is all that is read at first. Which are set aside does not matter.
    for path in (folder / "cat").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    message = refuse_data(darts, folder)
    assert re.match(
        f"{folder}/cat/[0-9]+.png: expected an image, found what cannot be decoded "
        r"\(.*truncated.*\); replace or remove it",
        message,
    )


def test_images_of_several_sizes_need_an_image_size(darts: Darts, images: Images) -> None:
    folder = images()
    larger = folder / "dog" / "07.png"
    Image.new("L", (12, 10)).save(larger)
    assert refuse_data(darts, folder) == (
        f"expected images of one size, found 8x8 ({folder / 'cat' / '00.png'}) and 12x10"
        f" ({larger}); use --image-size N to resize them"
    )
    sizes = (*QUICK, "--max-steps", 1, "--image-size", 8)
    assert darts("search", "cnn", "--data", folder, *sizes, "--out", "run").status == 0


def test_a_class_with_too_few_images_is_named(darts: Darts, images: Images) -> None:
    folder = images(count=2)
    assert "found 2 of 'cat'; add images or remove the class" in refuse_data(darts, folder)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    "error", [URLError("Name or service not known"), RuntimeError("File not found or corrupted.")]
)
def test_without_a_network_one_line_names_the_ways_out(
    darts: Darts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, error: Exception
) -> None:
    def download(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", download)
    message = refuse_data(darts, name, "--set", f"data.root={tmp_path}/root")
    assert message.startswith(f"{name}: could not be downloaded to {tmp_path}/root (")
    assert str(getattr(error, "reason", error)) in message
    assert "--data digits" in message
    assert "--data DIR" in message


def test_imagenet_is_asked_for_as_a_folder(darts: Darts) -> None:
    assert refuse_data(darts, "imagenet").startswith("imagenet cannot be downloaded: give its")


def test_a_config_of_another_kind_names_the_first_key_that_is_none(
    darts: Darts, searched: Path
) -> None:
    genotype = searched / "genotype.yaml"
    assert refuse_data(darts, "digits", "--config", genotype) == (
        f"{genotype}, line 1: unknown setting format, expected one of"
        " space, recipe, seed, epochs, data, network, weights, alphas, compute"
    )


def test_a_config_that_cannot_be_read_is_named(
    darts: Darts, searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root reads any file, whatever its mode.
    def refuse(path: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    config = searched / "config.yaml"
    assert refuse_data(darts, "digits", "--config", config) == (
        f"{config}: cannot be read (Permission denied), expected a YAML file"
    )


def test_the_name_of_the_data_chooses_the_recipe_from_set_as_well(darts: Darts) -> None:
    result = darts("search", "cnn", "--set", "data.name=digits", "--dry-run")
    assert json.loads(result.out)["config"]["recipe"] == "digits"


def test_the_exact_product_is_a_flag(darts: Darts) -> None:
    result = darts("search", "cnn", "--data", "digits", "--hypergradient", "exact", "--dry-run")
    assert json.loads(result.out)["config"]["alphas"]["hypergradient"] == "exact"


def test_settings_of_a_training_are_not_for_a_search(darts: Darts, trained: Path) -> None:
    config = trained / "config.yaml"
    line = config.read_text().splitlines().index("alphas: null") + 1
    assert refuse_data(darts, "digits", "--config", config) == (
        f"{config}, line {line}: alphas is a group of settings, found None"
    )


@pytest.mark.parametrize("command", ["search", "search rnn", "train"])
def test_whole_runs_know_deterministic_algorithms_for_all_that_they_do(
    darts: Darts, pets: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    arguments = {
        "search": ("search", "cnn", "--data", pets, *SIZES),
        "search rnn": ("search", "rnn", "--data", "pydoc", "--width", 4, "--min-count", 100),
        "train": ("train", "--genotype", "darts_v2", "--data", pets, *SIZES, *NO_CUTOUT),
    }[command]
    ends = []
    for name in ("one", "other"):
        run = darts(*arguments, "--deterministic", "--max-steps", 2, "--out", name).path
        ends.append(checkpoint.read(run / "last.safetensors")[0])
    first, second = ends
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert not torch.are_deterministic_algorithms_enabled()


# --- what goes wrong on the way ---


def test_a_loss_that_is_not_finite_is_one_line_and_leaves_the_last_good_state(
    darts: Darts, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ("--data", pets, *QUICK)
    darts("search", "cnn", *sizes, "--out", "run", "--max-steps", 2)
    before = Path("run/last.safetensors").read_bytes()
    monkeypatch.setattr(
        ImageTrainingModule, "metric_sums", lambda *_: torch.full((4,), float("nan"))
    )
    result = darts("search", "cnn", "--resume", "run")
    assert result.status == 1
    assert result.out == ""
    assert result.err.splitlines()[-1] == (
        "darts: the loss is not a finite number any more (epoch 1, step 3, learning rate 0.025); "
        "the last good checkpoint is run/last.safetensors (epoch 1, step 2); "
        "start a new run with an --lr below 0.025"
    )
    assert "Traceback" not in result.err
    assert Path("run/last.safetensors").read_bytes() == before
    assert not Path("run/metrics.jsonl").read_text()


@pytest.mark.parametrize("extra", [(), ("--checkpoint-every", "1e-9"), ("--max-steps", 5)])
def test_weights_that_are_not_finite_are_never_saved(
    darts: Darts, pets: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[object, ...]
) -> None:
    training_loss, steps = ImageTrainingModule.training_loss, iter(range(100))

    def explode(module: ImageTrainingModule, output: Any, batch: Any) -> torch.Tensor:
        factor = 1.0 if next(steps) < 4 else float("nan")
        return factor * training_loss(module, output, batch)

    monkeypatch.setattr(ImageTrainingModule, "training_loss", explode)
    result = darts("search", "cnn", "--data", pets, *QUICK, "--out", "run", *extra)
    assert result.status == 1
    assert result.out == ""
    assert "not a finite number" in result.err.splitlines()[-1]
    tensors, _ = checkpoint.read(Path("run/last.safetensors"))
    assert [name for name, tensor in tensors.items() if not tensor.isfinite().all()] == []


def test_a_full_disk_is_one_line_and_status_1(
    darts: Darts, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def fail(path: Path, previous: Path | None = None) -> Iterator[Path]:
        with replacing(path, previous) as temporary:
            yield temporary
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "replacing", fail)
    result = darts("search", "cnn", "--data", pets, *QUICK, "--out", "run", "--max-steps", 1)
    assert result.status == 1
    assert result.err.splitlines()[-1] == (
        "darts: run/last.safetensors: cannot be written (No space left on device); "
        "free some space or choose another place with --out or --output"
    )
    assert set(contents(Path("run"))) == {".lock", "alphas", "config.yaml"}


def test_without_gpu_or_device_the_best_one_is_taken_and_named(
    darts: Darts, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    result = darts("search", "cnn", "--data", pets, "--channels", 2, "--layers", 3, "--dry-run")
    assert json.loads(result.out)["device"] == "cpu"
    assert re.search(r"\ndevice +cpu \(1 threads of \d+ processors\)", result.err)
