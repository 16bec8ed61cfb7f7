"""Settings: what is said about numbers that cannot be, and that none can be changed in place."""

import re
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import typer.main

from darts_cli.cli import app
from darts_cli.config import Config
from darts_cli.config_file import as_mapping, override, parse_assignments
from darts_cli.errors import ConfigError
from darts_cli.spaces import recipe

SHARE = "a share between 0 and 1"
# An assignment out of range, what is expected, and the flag that changes it, if there is one.
OUT_OF_RANGE = [
    ("seed=-1", "0 to 2^63 - 1", "--seed"),
    (f"seed={2**63}", "0 to 2^63 - 1", "--seed"),
    ("epochs=0", "1 to 100000", "--epochs"),
    ("epochs=100001", "1 to 100000", "--epochs"),
    ("data.batch_size=1", "2 or more", "--batch-size"),
    ("data.image_size=7", "8 to 4096", "--image-size"),
    ("data.image_size=4097", "8 to 4096", "--image-size"),
    ("data.crop_padding=-1", "0 to 64", ""),
    ("data.crop_padding=65", "0 to 64", ""),
    ("data.cutout=-1", "0 or more", ""),
    ("data.search_portion=0.0", SHARE, ""),
    ("data.search_portion=1.0", SHARE, ""),
    ("data.evaluation_images=-1", "0 or more", ""),
    ("data.test_portion=0.0", SHARE, ""),
    ("data.test_portion=1.0", SHARE, ""),
    ("data.workers=-1", "0 to 64", ""),
    ("data.workers=65", "0 to 64", ""),
    ("network.channels=0", "2 to 4096", "--channels"),
    ("network.channels=4098", "2 to 4096", "--channels"),
    ("network.channels=17", "an even number", "--channels"),
    ("network.layers=0", "1 to 1000", "--layers"),
    ("network.layers=1001", "1 to 1000", "--layers"),
    ("network.stem_multiplier=0", "1 to 64", ""),
    ("network.stem_multiplier=65", "1 to 64", ""),
    ("network.auxiliary=-0.1", "0 to 10", ""),
    ("network.auxiliary=10.5", "0 to 10", ""),
    ("network.drop_path=-0.1", "0 to less than 1", ""),
    ("network.drop_path=1.0", "0 to less than 1", ""),
    ("weights.lr=0.0", "more than 0, at most 1000", "--lr"),
    ("weights.lr=1000.5", "more than 0, at most 1000", "--lr"),
    ("weights.lr=nan", "more than 0, at most 1000", "--lr"),
    ("weights.lr_min=-0.1", "0 to weights.lr (0.025)", ""),
    ("weights.lr_min=0.5", "0 to weights.lr (0.025)", ""),
    ("weights.decay_rate=0.0", "more than 0, at most 1", ""),
    ("weights.decay_rate=1.5", "more than 0, at most 1", ""),
    ("weights.momentum=-0.5", "0 to less than 1", ""),
    ("weights.momentum=1.0", "0 to less than 1", ""),
    ("weights.weight_decay=-0.1", "0 to 1", ""),
    ("weights.weight_decay=1.5", "0 to 1", ""),
    ("weights.clip=-1.0", "0 or more", ""),
    ("weights.clip=nan", "0 or more", ""),
    ("weights.label_smoothing=-0.1", "0 to less than 1", ""),
    ("weights.label_smoothing=1.0", "0 to less than 1", ""),
    ("weights.averaging_patience=-1", "0 to 1000", ""),
    ("weights.averaging_patience=1001", "0 to 1000", ""),
    ("weights.loss_limit=0.0", "more than 0, or null", ""),
    ("weights.rollbacks=-1", "0 to 1000", ""),
    ("weights.rollbacks=1001", "0 to 1000", ""),
    ("alphas.lr=0.0", "more than 0, at most 10", ""),
    ("alphas.lr=10.5", "more than 0, at most 10", ""),
    ("alphas.betas=[0.5, 1.0]", "two numbers from 0 to less than 1", ""),
    ("alphas.betas=[-0.5, 0.9]", "two numbers from 0 to less than 1", ""),
    ("alphas.weight_decay=-0.1", "0 to 1", ""),
    ("alphas.weight_decay=1.5", "0 to 1", ""),
    ("alphas.init_scale=-0.1", "0 to 10", ""),
    ("alphas.init_scale=10.5", "0 to 10", ""),
    ("alphas.virtual_clip=-1.0", "0 or more", ""),
    ("compute.accumulate=0", "1 to 65536", "--accumulate"),
    ("compute.accumulate=65537", "1 to 65536", "--accumulate"),
]
RNN_OUT_OF_RANGE = [
    ("data.batch_size=0", "1 to 65536", "--batch-size"),
    ("data.batch_size=65537", "1 to 65536", "--batch-size"),
    ("data.segment=0", "1 to 10000", ""),
    ("data.segment=10001", "1 to 10000", ""),
    ("data.short_portion=-0.5", "0 to 1", ""),
    ("data.short_portion=1.5", "0 to 1", ""),
    ("data.segment_spread=-0.5", "0 to 1000", ""),
    ("data.segment_spread=1000.5", "0 to 1000", ""),
    ("data.min_count=0", "1 or more", "--min-count"),
    ("data.evaluation_batch=0", "1 to 65536", ""),
    ("data.evaluation_batch=65537", "1 to 65536", ""),
    ("network.width=0", "1 to 65536", "--width"),
    ("network.width=65537", "1 to 65536", "--width"),
    *(
        (f"network.dropout_{name}={value}", "0 to less than 1", "")
        for name in ("output", "hidden", "input", "embedding", "words")
        for value in (-0.5, 1.0)
    ),
    ("network.activation=-0.5", "0 to 1000", ""),
    ("network.activation=1000.5", "0 to 1000", ""),
    ("network.slowness=-0.5", "0 to 1000", ""),
    ("network.slowness=1000.5", "0 to 1000", ""),
]


@pytest.mark.parametrize(
    ("space", "assignment", "expected", "flag"),
    [
        *(("cnn", *row) for row in OUT_OF_RANGE),
        *(("rnn", *row) for row in RNN_OUT_OF_RANGE),
    ],
)
def test_a_value_out_of_range_names_its_key_and_the_remedy(
    space: str, assignment: str, expected: str, flag: str
) -> None:
    key, value = assignment.split("=")
    with pytest.raises(ConfigError) as caught:
        change(assignment, space)
    remedy = f"use {flag} or --set {key}=..." if flag else f"use --set {key}=..."
    assert str(caught.value) == f"{key}: found {value}, expected {expected}; {remedy}"
    assert caught.value.exit_status == 2


def change(assignment: str, space: str = "cnn") -> Config:
    settings = parse_assignments([assignment])
    return override(recipe("search", space, None, None), settings, "--set")


@pytest.mark.parametrize(
    "assignment",
    [
        "seed=0",
        f"seed={2**63 - 1}",
        "epochs=1",
        "epochs=100000",
        "data.batch_size=2",
        "data.image_size=8",
        "data.image_size=4096",
        "data.crop_padding=0",
        "data.crop_padding=64",
        "data.workers=0",
        "network.channels=2",
        "network.channels=4096",
        "network.layers=1",
        "network.layers=1000",
        "network.auxiliary=10.0",
        "network.drop_path=0.0",
        "weights.lr=1000.0",
        "weights.lr_min=0.0",
        "weights.lr_min=0.025",
        "weights.decay_rate=1.0",
        "weights.clip=0.0",
        "alphas.betas=[0.0, 0.0]",
        "alphas.init_scale=0.0",
        "alphas.virtual_clip=0.0",
    ],
)
def test_the_ends_of_a_range_belong_to_it(assignment: str) -> None:
    key, text = assignment.split("=")
    found: Any = as_mapping(change(assignment))
    for part in key.split("."):
        found = found[part]
    assert str(found) == text


@pytest.mark.parametrize("space", ["cnn", "rnn"])
def test_every_setting_with_a_range_is_tried_out_of_it(space: str) -> None:
    # A new setting has to join the lists above, or to be one that no number can be wrong for.
    rows = [*OUT_OF_RANGE, *RNN_OUT_OF_RANGE]
    tried = {assignment.split("=")[0] for assignment, _, _ in rows}
    free = {
        *("space", "recipe", "data.name", "data.root", "data.augmentation", "data.flip"),
        "data.cache",
        *("network.stem", "weights.schedule"),
        *("alphas.order", "alphas.hypergradient", "alphas.strategy"),
        *("compute.precision", "compute.sync_batchnorm"),
        *("compute.memory", "compute.compile", "compute.deterministic"),
    }
    settings = set()
    for key, value in as_mapping(recipe("search", space, None, None)).items():
        settings |= {f"{key}.{inner}" for inner in value} if isinstance(value, dict) else {key}
    assert settings <= tried | free


@pytest.mark.parametrize("command", ["search", "train"])
def test_the_flags_that_errors_name_exist(command: str) -> None:
    group = typer.main.get_command(app)
    options = {
        option
        for parameter in getattr(group, "commands")[command].params  # noqa: B009 - typed as Command
        for option in parameter.opts
    }
    flags = {flag for _, _, flag in [*OUT_OF_RANGE, *RNN_OUT_OF_RANGE] if flag}
    assert flags | {"--set", "--recipe", "--config"} <= options


def test_settings_cannot_be_changed_in_place() -> None:
    config = recipe("search", "cnn", None, None)
    with pytest.raises(FrozenInstanceError):
        config.epochs = 3  # type: ignore[misc]
    assert re.fullmatch(r"Config\(space='cnn', recipe='cifar', seed=0, epochs=50, .*", str(config))
