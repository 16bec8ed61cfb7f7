"""The sets of defaults are the paper's numbers, and chosen by the data's name."""

from typing import Any

import pytest

from darts_cli.config_file import as_mapping
from darts_cli.errors import ConfigError
from darts_cli.recipes import RECIPES
from darts_cli.spaces import recipe

# Design, section 3: DARTS, appendices A.1 to A.3.
SGD = {"momentum": 0.9, "clip": 5.0}
PAPER: dict[tuple[str, str], dict[str, Any]] = {
    ("search", "cifar"): {
        "epochs": 50,
        "data": {
            "name": "cifar10",
            "batch_size": 64,
            "augmentation": "crop",
            "crop_padding": 4,
            "flip": True,
            "cutout": 0,
            "search_portion": 0.5,
        },
        "network": {
            "stem": "cifar",
            "channels": 16,
            "layers": 8,
            "stem_multiplier": 3,
            "auxiliary": 0,
            "drop_path": 0,
        },
        "weights": {
            "lr": 0.025,
            "lr_min": 0.001,
            "schedule": "cosine",
            "weight_decay": 3e-4,
            "label_smoothing": 0,
            **SGD,
        },
        "alphas": {
            "lr": 3e-4,
            "betas": [0.5, 0.999],
            "weight_decay": 1e-3,
            "init_scale": 1e-3,
            "order": "second",
            "hypergradient": "finite-difference",
            "virtual_clip": 0,
        },
    },
    ("train", "cifar"): {
        "epochs": 600,
        "data": {
            "name": "cifar10",
            "batch_size": 96,
            "augmentation": "crop",
            "crop_padding": 4,
            "flip": True,
            "cutout": 16,
        },
        "network": {
            "stem": "cifar",
            "channels": 36,
            "layers": 20,
            "stem_multiplier": 3,
            "auxiliary": 0.4,
            "drop_path": 0.2,
        },
        "weights": {
            "lr": 0.025,
            "lr_min": 0,
            "schedule": "cosine",
            "weight_decay": 3e-4,
            "label_smoothing": 0,
            **SGD,
        },
        "alphas": None,
    },
    ("train", "imagenet"): {
        "epochs": 250,
        "data": {"name": "imagenet", "batch_size": 128, "image_size": 224, "cutout": 0},
        "network": {
            "stem": "imagenet",
            "channels": 48,
            "layers": 14,
            "auxiliary": 0.4,
            "drop_path": 0,
        },
        "weights": {
            "lr": 0.1,
            "schedule": "exponential",
            "decay_rate": 0.97,
            "weight_decay": 3e-5,
            "label_smoothing": 0.1,
            **SGD,
        },
        "alphas": None,
    },
}


@pytest.mark.parametrize(("command", "name"), PAPER)
def test_the_defaults_are_the_numbers_of_the_paper(command: str, name: str) -> None:
    found = as_mapping(recipe(command, "cnn", name, None))
    for key, value in PAPER[command, name].items():
        if isinstance(value, dict):
            assert {inner: found[key][inner] for inner in value} == value
        else:
            assert found[key] == value
    assert found["recipe"] == name
    assert found["seed"] == 0


@pytest.mark.parametrize("command", ["search", "train"])
def test_the_first_recipe_is_the_default(command: str) -> None:
    assert recipe(command, "cnn", None, None).recipe == "cifar"
    assert recipe(command, "cnn", None, "photos/of/dogs").recipe == "cifar"


@pytest.mark.parametrize(
    ("command", "data"), [("search", "digits"), ("train", "digits"), ("train", "imagenet")]
)
def test_a_recipe_is_found_by_the_name_of_the_data(command: str, data: str) -> None:
    config = recipe(command, "cnn", None, data)
    assert (config.recipe, config.data.name) == (data, data)


def test_a_recipe_that_is_named_wins_over_the_data() -> None:
    assert recipe("train", "cnn", "imagenet", "digits").recipe == "imagenet"


@pytest.mark.parametrize(
    ("command", "expected"),
    [("search", "cifar, digits"), ("train", "cifar, imagenet, digits")],
)
def test_an_unknown_recipe_lists_the_known_ones(command: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe(command, "cnn", "cifra", "digits")
    assert str(caught.value) == (
        f"--recipe cifra: no such recipe for {command} cnn, expected one of {expected}"
    )


def test_every_recipe_carries_its_own_name_and_space() -> None:
    for command, spaces in RECIPES.items():
        for space, recipes in spaces.items():
            for name, config in recipes.items():
                assert (config.recipe, config.space) == (name, space)
                assert (config.alphas is not None) == (command == "search")


# Design, section 3: DARTS, appendix A.4.
PAPER_RNN: dict[tuple[str, str], dict[str, Any]] = {
    ("search", "ptb"): {
        "epochs": 50,
        "data": {"batch_size": 256, "segment": 35, "short_portion": 0.05, "segment_spread": 0},
        "network": {"width": 300, "dropout_words": 0, "dropout_hidden": 0.25},
        "weights": {"weight_decay": 5e-7, "averaging_patience": 0},
        "alphas": {"lr": 3e-3, "betas": [0.9, 0.999], "weight_decay": 1e-3, "virtual_clip": 0.25},
    },
    ("train", "ptb"): {
        "epochs": 3600,
        "data": {"batch_size": 64, "segment": 35, "short_portion": 0.05, "segment_spread": 5},
        "network": {"width": 850, "dropout_words": 0.1, "dropout_hidden": 0.25},
        "weights": {"weight_decay": 8e-7, "averaging_patience": 5},
    },
    ("train", "wikitext2"): {
        "epochs": 3600,
        "data": {"name": "wikitext2", "batch_size": 64, "segment": 35, "segment_spread": 5},
        "network": {"width": 700, "dropout_words": 0.1, "dropout_hidden": 0.15},
        "weights": {"weight_decay": 5e-7, "averaging_patience": 5},
    },
}
EVERY_RNN = {
    "data": {"evaluation_batch": 10, "min_count": 1},
    "network": {
        "dropout_output": 0.75,
        "dropout_input": 0.75,
        "dropout_embedding": 0.2,
        "activation": 0,
        "slowness": 1e-3,
    },
    "weights": {"lr": 20, "schedule": "constant", "momentum": 0, "clip": 0.25},
}


@pytest.mark.parametrize(("command", "name"), PAPER_RNN)
def test_recurrent_defaults_are_the_papers(command: str, name: str) -> None:
    found = as_mapping(recipe(command, "rnn", name, None))
    for expected in (PAPER_RNN[command, name], EVERY_RNN):
        for key, value in expected.items():
            inner = value if isinstance(value, dict) else {}
            assert {k: found[key][k] for k in inner} == inner
            if not inner:
                assert found[key] == value


@pytest.mark.parametrize("name", [["a"], {"a": 1}, 3])
def test_a_recipe_that_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"--recipe .*: no such recipe for search cnn, expected"):
        recipe("search", "cnn", name, None)


def test_data_that_is_no_name_chooses_no_recipe() -> None:
    data: Any = ["digits"]
    assert recipe("search", "cnn", None, data).recipe == "cifar"
