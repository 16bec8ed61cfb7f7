"""Some hundred files that are not what they should be; `make torture` tries many thousands."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darts_cli.commands.run_spec import read_spec
from darts_cli.errors import DartsError
from darts_cli.genotype.file import parse
from darts_cli.run import checkpoint
from darts_cli.spaces import SPACES
from tests.torture.files import (
    Tally,
    Target,
    make_targets,
    read_checkpoint,
    read_config,
    read_metrics,
    torture,
)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
any_file = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return make_targets(tmp_path_factory.mktemp("torture") / "sound")


@pytest.fixture(scope="module")
def forged(targets: dict[str, Target]) -> tuple[Any, dict[str, Any]]:
    """Tensors and metadata of a sound checkpoint."""
    return checkpoint.read(targets["checkpoint"].sound[0])


def test_sound_files_are_read(targets: dict[str, Target]) -> None:
    for target in targets.values():
        for path in target.sound:
            target.read(path)


def test_altered_files_are_read_or_refused_in_one_line(
    targets: dict[str, Target], tmp_path: Path
) -> None:
    metric_sums: Tally = torture(targets, 350, 1, tmp_path)
    assert metric_sums.failures == []
    assert metric_sums.inputs == 350
    assert metric_sums.refused > 150


def assert_read_or_refused(read: Any, *arguments: Any) -> None:
    try:
        read(*arguments)
    except DartsError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either is right
        assert error.exit_status == 2  # noqa: PT017


@any_file
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_read_or_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for read in (read_config, read_checkpoint, read_metrics):
        path.write_bytes(content)
        assert_read_or_refused(read, path)


@any_file
@given(value=ANY_JSON)
def test_any_values_are_a_genotype_or_refused(value: Any) -> None:
    for text in (json.dumps(value), json.dumps({"format": 1, "space": "cnn", "cells": value})):
        assert_read_or_refused(parse, text, SPACES, "genotype.yaml")


@any_file
@given(data=st.data(), value=ANY_JSON)
def test_any_value_of_a_checkpoint_is_taken_or_refused(
    data: st.DataObject, value: Any, forged: tuple[Any, dict[str, Any]]
) -> None:
    _, metadata = forged
    outer = data.draw(st.sampled_from(sorted(metadata)))
    altered = {**metadata, outer: value}
    if isinstance(metadata[outer], dict) and metadata[outer]:
        inner = data.draw(st.sampled_from(sorted(metadata[outer])))
        altered[outer] = {**metadata[outer], inner: value}
    assert_read_or_refused(read_spec, altered, Path("last.safetensors"))
