"""The evolution of cells: which epochs share a frame, what is told, and the file."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from darts_cli.commands.reading import read_history
from darts_cli.errors import CheckpointError, ConfigError
from darts_cli.genotype.types import Edge
from darts_cli.viz import cells
from darts_cli.viz.canvas import measure
from darts_cli.viz.evolution import END, Frame, describe_news, draw, durations, join
from darts_cli.viz.style import THEMES, Style, colour, mix
from tests.viz.histories import CNN, FIVE, SMALL, record, search, small, training, wander
from tests.viz.test_gif import own_palettes

CONV = [(0.2, 0.5, 0.3), (0.1, 0.6, 0.3), (0.6, 0.2, 0.2)]
SKIP = [(0.2, 0.3, 0.5), (0.1, 0.6, 0.3), (0.6, 0.2, 0.2)]
LATER = [(0.2, 0.3, 0.5), (0.6, 0.2, 0.2), (0.1, 0.3, 0.6)]
HISTORY = search(SMALL, small(CONV, SKIP, SKIP, SKIP, CONV, LATER), epochs=50)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(join(HISTORY))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evolution") / "cell.gif"
    draw(HISTORY, path)
    return path


def pictures(file: Path) -> list[tuple[Image.Image, int]]:
    """Return the frames of a file, with their milliseconds."""
    found = []
    with Image.open(file) as image:
        for place in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(place)
            found.append((image.convert("RGB"), image.info["duration"]))
    return found


def test_neighbouring_epochs_with_equal_edges_share_a_frame(frames: Sequence[Frame]) -> None:
    assert [(frame.first, frame.last) for frame in frames] == [(1, 1), (2, 4), (5, 5), (6, 6)]
    assert [frame.snapshot.epoch for frame in frames] == [1, 4, 5, 6]


def test_new_edges_are_told_by_cell_source_node_and_operation(frames: Sequence[Frame]) -> None:
    told = [describe_news(frame, 1000) for frame in frames]
    assert told == [
        ["the first genotype"],
        ["1 edge changed: cell 0 → 1 skip_connect"],
        ["1 edge changed: cell 0 → 1 conv"],
        ["2 edges changed: cell 0 → 1 skip_connect, cell 1 → 2 skip_connect"],
    ]
    assert [(new.edge, new.index) for new in frames[-1].new] == [
        (Edge("skip_connect", 0), 0),
        (Edge("skip_connect", 1), 1),
    ]


def test_many_new_edges_are_counted_and_named_as_far_as_there_is_room() -> None:
    frame = max(join(search(FIVE, wander(FIVE, 8))), key=lambda frame: len(frame.new))
    assert len(frame.new) > 3
    lines = describe_news(frame, 300)
    assert len(lines) == 2
    assert max(map(measure, lines)) <= 300
    assert lines[0].startswith(f"{len(frame.new)} edges changed: ")
    assert lines[1].endswith(" more")
    # No edge is torn apart.
    assert lines[0].endswith(",")
    assert describe_news(frame, 1) == [f"{len(frame.new)} edges changed"]


def test_an_edge_that_becomes_the_stronger_one_changes_nothing() -> None:
    weak, strong = [0.0, 2.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0, 0.0]
    rest: list[list[float]] = [[0.0] * 5] * 3
    alphas: list[dict[str, Any]] = [
        {cell: [first, second, *rest] for cell in FIVE.cells}
        for first, second in ((weak, strong), (strong, weak))
    ]
    history = search(FIVE, alphas)
    assert history.snapshots[1].signals.unchanged_epochs == 0
    (frame,) = join(history)
    assert (frame.first, frame.last) == (1, 2)


def test_more_epochs_last_longer_and_the_end_longest(frames: Sequence[Frame]) -> None:
    assert durations(frames) == [600, 1800, 600, 600 + END]
    many = [replace(frames[0], first=epoch, last=epoch) for epoch in range(1, 1001)]
    assert durations(many)[:2] == [120, 120]
    assert durations([replace(frames[0], first=1, last=50)]) == [2400 + END]


def test_the_file_has_a_frame_each_of_one_size_for_ever(
    file: Path, frames: Sequence[Frame]
) -> None:
    found = pictures(file)
    assert [duration for _, duration in found] == durations(frames)
    assert len({picture.size for picture, _ in found}) == 1
    assert own_palettes(file.read_bytes()) == [False] * len(frames)
    with Image.open(file) as image:
        assert (image.format, image.info["loop"]) == ("GIF", 0)


def test_equal_genotypes_look_the_same_but_for_the_new_edge_the_epoch_and_the_progress(
    file: Path,
) -> None:
    first, _, again, _ = (np.asarray(picture).astype(int) for picture, _ in pictures(file))
    rows, columns = np.nonzero((first != again).any(axis=2))
    header, strip = round(62 * 80 / 72), round(34 * 80 / 72)
    cell = (rows >= header) & (rows < len(first) - strip)
    assert (rows < header).any()
    assert (rows >= len(first) - strip).any()
    # The outline of one label.
    assert cell.any()
    assert np.ptp(rows[cell]) < 30
    assert np.ptp(columns[cell]) < 80


def test_paper_is_white_and_operations_have_their_colours(file: Path) -> None:
    found = [picture for picture, _ in pictures(file)]
    assert found[0].getpixel((0, 0)) == (255, 255, 255)
    colours = {pixel for one in found for _, pixel in one.getcolors(maxcolors=256) or []}
    assert {ImageColor.getrgb(colour(name)) for name in ("conv", "skip_connect")} <= colours


def test_a_dark_theme_is_dark(tmp_path: Path) -> None:
    path = tmp_path / "dark.gif"
    history = search(SMALL, small([[0.2, 0.6, 0.2]] * 3))
    draw(history, path, style=Style(theme="dark"))
    background = ImageColor.getrgb(THEMES["dark"].background)
    for picture, _ in pictures(path):
        corners = [(0, 0), (picture.width - 1, 0), (0, picture.height - 1)]
        assert [picture.getpixel(corner) for corner in corners] == [background] * 3


@pytest.mark.parametrize("name", THEMES)
def test_every_operation_of_every_frame_keeps_its_colour(name: str, tmp_path: Path) -> None:
    theme, path = THEMES[name], tmp_path / "cells.gif"
    history = search(CNN, wander(CNN, 10)[::3])
    draw(history, path, style=Style(theme=name))
    for frame, (picture, _) in zip(join(history), pictures(path), strict=True):
        found = np.array([pixel for _, pixel in picture.getcolors(maxcolors=256) or []])
        for operation in {edge.operation for cell in frame.cells.values() for edge in cell.edges}:
            ink = colour(operation)
            for expected in (ink, mix(ink, theme.background, theme.tint)):
                off = np.abs(found - ImageColor.getrgb(expected)).max(axis=1)
                assert off.min() <= 3, expected


@pytest.mark.slow
def test_a_search_of_fifty_epochs_is_less_than_a_megabyte(tmp_path: Path) -> None:
    # Genotypes that change in most epochs, and less often towards the end.
    alphas = wander(CNN, 50, slower=True)
    draw(search(CNN, alphas), tmp_path / "cells.gif")
    frames = pictures(tmp_path / "cells.gif")
    assert len(frames) > 30
    assert (tmp_path / "cells.gif").stat().st_size < 1_000_000


def test_each_cell_is_laid_out_once(tmp_path: Path) -> None:
    cells._plan.cache_clear()
    draw(HISTORY, tmp_path / "cell.gif")
    # Epochs 1 and 5 have the same.
    assert cells._plan.cache_info().misses == 3


def test_the_same_history_gives_the_same_bytes_twice(file: Path, tmp_path: Path) -> None:
    draw(HISTORY, tmp_path / "again.GIF")
    assert (tmp_path / "again.GIF").read_bytes() == file.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["again.GIF"]


def test_one_epoch_is_one_frame(tmp_path: Path) -> None:
    draw(search(SMALL, small(CONV)), tmp_path / "cell.gif")
    assert len(pictures(tmp_path / "cell.gif")) == 1


def test_a_real_search_is_animated_from_its_directory(searched: Path, tmp_path: Path) -> None:
    draw(read_history(searched), tmp_path / "cell.gif")
    assert 1 <= len(pictures(tmp_path / "cell.gif")) <= 2


@pytest.mark.parametrize(("name", "found"), [("a.mp4", "suffix '.mp4'"), ("a", "no suffix")])
def test_another_suffix_is_refused(name: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        draw(HISTORY, tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: found {found}, expected .gif"
    assert not list(tmp_path.iterdir())


def test_a_history_without_epochs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found no finished epoch in it yet"):
        draw(search(CNN, []), tmp_path / "a.gif")
    with pytest.raises(CheckpointError, match="found a training, which has no alphas"):
        draw(training([record(1)]), tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


def test_animating_imports_no_torch_and_no_pyplot() -> None:
    code = (
        "import sys, darts_cli.viz.evolution;"
        "sys.exit(bool({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
