"""Settings as YAML: `--config`, `--set`, and the file beside every run."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from darts_cli.config import Config
from darts_cli.config_file import as_mapping, dump, override, parse_assignments, read
from darts_cli.errors import ConfigError
from darts_cli.recipes import RECIPES
from darts_cli.spaces import recipe

SEARCH = recipe("search", "cnn", "cifar", None)
TRAIN = recipe("train", "cnn", "cifar", None)
ALL = [config for spaces in RECIPES.values() for config in spaces["cnn"].values()]


def set_(*assignments: str, start: Config = SEARCH) -> Config:
    return override(start, parse_assignments(assignments), "--set")


def error_of_set(*assignments: str, start: Config = SEARCH) -> str:
    with pytest.raises(ConfigError) as caught:
        set_(*assignments, start=start)
    message = str(caught.value)
    assert "\n" not in message
    return message


def error_of_file(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return error_of_read(path)


def error_of_read(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Assignments.


def test_an_assignment_without_a_point_is_a_number_too() -> None:
    config = set_("weights.lr=3e-1", "alphas.lr=3e-4", "weights.clip=1")
    assert (config.weights.lr, config.weights.clip) == (0.3, 1.0)
    assert isinstance(config.weights.clip, float)
    assert config.alphas is not None
    assert config.alphas.lr == 0.0003


def test_assignments_of_several_groups_are_nested() -> None:
    assignments = ["epochs=3", "data.name=digits", "data.flip=false", "data.image_size=32"]
    assert parse_assignments(assignments) == {
        "epochs": 3,
        "data": {"name": "digits", "flip": False, "image_size": 32},
    }


def test_a_whole_group_can_be_assigned_and_then_changed() -> None:
    config = set_("weights={lr: 0.1, momentum: 0.5}", "weights.momentum=0.8")
    assert (config.weights.lr, config.weights.momentum) == (0.1, 0.8)


def test_the_last_of_two_assignments_counts() -> None:
    assert set_("epochs=3", "epochs=4").epochs == 4


def test_a_list_and_nothing_can_be_assigned() -> None:
    config = set_("alphas.betas=[0.9, 0.99]", "data.image_size=null")
    assert config.alphas is not None
    assert config.alphas.betas == (0.9, 0.99)
    assert getattr(config.data, "image_size", "none") is None


def test_an_assigned_text_may_hold_an_equals_sign() -> None:
    assert set_("data.root=/data/a=b").data.root == "/data/a=b"


@pytest.mark.parametrize("text", ["[", "a: : b", "!!bool x", "!!timestamp x", "[" * 400])
def test_an_assigned_text_that_is_no_yaml_stays_text(text: str) -> None:
    assert set_(f"data.root={text}").data.root == text


def test_no_assignment_changes_nothing() -> None:
    assert set_() == SEARCH


@pytest.mark.parametrize("assignment", ["epochs", "=3", "", "weights.lr 0.1"])
def test_an_assignment_without_key_or_value_shows_one(assignment: str) -> None:
    assert error_of_set(assignment) == (
        f"--set {assignment}: expected KEY=VALUE, such as --set weights.lr=0.05"
    )


def test_a_value_is_not_a_group_in_a_later_assignment() -> None:
    assert error_of_set("epochs=3", "epochs.most=4") == (
        "--set epochs.most=4: epochs was set to a value before"
    )


# Overriding.


def test_an_override_keeps_the_rest() -> None:
    config = override(SEARCH, {"epochs": 7, "weights": {"clip": 1}}, "--set")
    expected = asdict(SEARCH)
    expected["epochs"] = 7
    expected["weights"]["clip"] = 1.0
    assert asdict(config) == expected
    assert SEARCH.epochs == 50


def test_an_override_keeps_the_alphas_of_none_when_it_says_so() -> None:
    assert override(TRAIN, {"alphas": None}, "c.yaml") == TRAIN


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epoch=3", "unknown setting epoch, did you mean epochs?"),
        (
            "weights.learning=3",
            "unknown setting weights.learning, expected one of "
            + ", ".join(as_mapping(SEARCH)["weights"]),
        ),
        ("network.channel=8", "unknown setting network.channel, did you mean channels?"),
        ("data.batchsize=8", "unknown setting data.batchsize, did you mean batch_size?"),
        (
            "xyz=1",
            "unknown setting xyz, expected one of " + ", ".join(as_mapping(SEARCH)),
        ),
        (
            "data..name=a",
            "unknown setting data., expected one of " + ", ".join(as_mapping(SEARCH)["data"]),
        ),
    ],
)
def test_an_unknown_setting_suggests_the_nearest(assignment: str, message: str) -> None:
    assert error_of_set(assignment) == f"--set: {message}"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epochs=many", "epochs: found 'many', expected a whole number"),
        ("epochs=2.5", "epochs: found 2.5, expected a whole number"),
        ("epochs=true", "epochs: found True, expected a whole number"),
        ("epochs=", "epochs: found None, expected a whole number"),
        ("epochs=[1]", "epochs: found [1], expected a whole number"),
        ("data.image_size=big", "data.image_size: found 'big', expected a whole number"),
        ("weights.lr=fast", "weights.lr: found 'fast', expected a number"),
        ("weights.lr=true", "weights.lr: found True, expected a number"),
        ("weights.lr=null", "weights.lr: found None, expected a number"),
        ("data.flip=1", "data.flip: found 1, expected true or false"),
        ("data.name=7", "data.name: found 7, expected text"),
        ("alphas.order=third", "alphas.order: found 'third', expected one of first, second"),
        ("alphas.order=[first]", "alphas.order: found ['first'], expected one of first, second"),
        ("network.stem=wide", "network.stem: found 'wide', expected one of cifar, imagenet"),
        ("alphas.betas=0.5", "alphas.betas: found 0.5, expected a list of 2 numbers"),
        ("alphas.betas=[0.5]", "alphas.betas: found [0.5], expected a list of 2 numbers"),
        ("alphas.betas=[0.5, x]", "alphas.betas: found 'x', expected a number"),
        ("weights=5", "weights is a group of settings, found 5"),
        ("alphas=null", "alphas is a group of settings, found None"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(assignment: str, message: str) -> None:
    assert error_of_set(assignment) == f"--set: {message}"


def test_a_number_too_large_for_a_float_is_no_number() -> None:
    assert error_of_set(f"weights.lr={10**400}").endswith(", expected a number")


def test_alphas_are_not_for_training() -> None:
    assert error_of_set("alphas.lr=0.1", start=TRAIN) == (
        "--set: alphas is not for this command, expected none of it"
    )


def test_an_error_names_where_the_setting_comes_from() -> None:
    with pytest.raises(ConfigError) as caught:
        override(SEARCH, {"weights": {"lrr": 1}}, "mine.yaml")
    assert str(caught.value) == "mine.yaml: unknown setting weights.lrr, did you mean lr?"


# Files.


@pytest.mark.parametrize("config", ALL, ids=lambda config: f"{config.recipe}-{config.epochs}")
def test_what_is_written_gives_the_same_settings(config: Config, tmp_path: Path) -> None:
    changed = replace(
        config,
        seed=2**62,
        data=replace(config.data, name="Größe: #1"),
        weights=replace(config.weights, lr=3e-05, lr_min=0.0),
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump(changed, {"command": "x", "versions": {"darts": "1"}}), encoding="utf-8")
    start = SEARCH if config.alphas is not None else TRAIN
    assert override(start, read(path), str(path)) == changed


def test_the_notes_come_first_and_are_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump(SEARCH, {"command": "search", "versions": {"darts": "1"}}))
    text = path.read_text()
    assert text.startswith("command: search\nversions:\n  darts: '1'\nspace: cnn\nrecipe: cifar\n")
    assert read(path) == as_mapping(SEARCH)


def test_settings_are_plain_values() -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)
        else:
            assert value is None or type(value) in (bool, int, float, str)

    check(as_mapping(SEARCH))
    assert as_mapping(SEARCH)["alphas"]["betas"] == [0.5, 0.999]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert error_of_read(path) == (
        f"{path}: cannot be read (No such file or directory), expected a YAML file"
    )


def test_a_folder_is_named(tmp_path: Path) -> None:
    assert error_of_read(tmp_path) == (
        f"{tmp_path}: cannot be read (Is a directory), expected a YAML file"
    )


@pytest.mark.parametrize("content", ["", "# nothing\n", "- 1\n", "epochs\n"])
def test_a_file_that_is_no_mapping_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    assert error_of_file(path, content) == (
        f"{path}: expected settings as a YAML mapping, such as `epochs: 25`"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: 1\nseed: [1\n", "line 3: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n---\nb: 1\n", "line 2: not YAML: but found another document"),
        ("a: &x [1]\nb: *x\n", "line 2: found an alias, expected plain YAML"),
        ("a:\n " + "[" * 10_000, "line 2: found nesting deeper than 20, expected plain YAML"),
    ],
)
def test_a_file_that_is_no_plain_yaml_is_named_with_its_line(
    content: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    assert error_of_file(path, content) == f"{path}, {message}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: \xff\n", "expected YAML text in UTF-8, found other bytes"),
        (b"a: \x01\n", "not YAML: unreadable characters"),
        (b"a: 2020-13-45\n", "not YAML: unreadable values"),
        (b"a: !!bool x\n", "not YAML: unreadable values"),
        (b"a: !!int ''\n", "not YAML: unreadable values"),
    ],
)
def test_a_file_of_other_bytes_or_values_is_named(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    assert error_of_file(path, content) == f"{path}: {problem}"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    assert error_of_file(path, "#" * 32_769) == (
        f"{path}: too large for settings (32,768 bytes at most)"
    )


def test_long_values_and_names_are_told_in_part() -> None:
    for settings in ({"seed": "x" * 100_000}, {"x" * 100_000: 1}, {"data": ["x"] * 100_000}):
        with pytest.raises(ConfigError) as caught:
            override(SEARCH, settings, "config.yaml")
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("weights:\n  lr: -1\n", "line 2: weights.lr: found -1.0, expected more than 0"),
        ("weights:\n  lr: fast\n", "line 2: weights.lr: found 'fast', expected a number"),
        ("seed: 1\nweights:\n\n  lrr: 1\n", "line 4: unknown setting weights.lrr, did you mean"),
        ("data:\n  name: digits\n  batch_size: 1\n", "line 3: data.batch_size: found 1, expected"),
    ],
)
def test_a_wrong_setting_of_a_file_is_named_with_its_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        override(SEARCH, read(path), str(path))
    assert str(caught.value).startswith(f"{path}, {problem}")
