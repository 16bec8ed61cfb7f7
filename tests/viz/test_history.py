"""Plots of a run: what can be drawn into which files, and what is refused."""

import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest
from PIL import Image

from darts_cli.commands.reading import read_history
from darts_cli.errors import CheckpointError, ConfigError
from darts_cli.run.files import WriteError
from darts_cli.run.history import History
from darts_cli.viz.canvas import DPI, METADATA
from darts_cli.viz.history import PLOTS, draw, figure
from darts_cli.viz.style import Style
from tests.viz.drawings import texts, words
from tests.viz.histories import CNN, FIVE, RNN, SMALL, record, search, training, wander

TINY = search(SMALL, wander(SMALL, 1), epochs=50)
SIZES = {
    "one epoch of fifty": TINY,
    "images": search(CNN, wander(CNN, 6)),
    "text": search(RNN, wander(RNN, 6, lambda epoch: 2.0 * epoch)),
    "three cells, two hundred epochs": search(FIVE, wander(FIVE, 200)),
    "no difference at all": search(SMALL, [{"cell": [[0.0] * 3] * 3}] * 2),
}


@pytest.fixture(scope="module", params=SIZES)
def history(request: pytest.FixtureRequest) -> History:
    return SIZES[request.param]


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_written_over_anything_else_or_beyond_the_edge(
    name: str, history: History
) -> None:
    picture = figure(history, name)
    picture.draw_without_rendering()
    extents = {text: text.get_window_extent() for text in texts(picture)}
    for text, extent in extents.items():
        inside = picture.bbox.contains(extent.x0, extent.y0)
        assert inside, text
        assert picture.bbox.contains(extent.x1, extent.y1), text
    touching = [
        (one.get_text(), other.get_text())
        for (one, box), (other, other_box) in combinations(extents.items(), 2)
        if box.x0 < other_box.x1
        and other_box.x0 < box.x1
        and box.y0 + 1 < other_box.y1
        and other_box.y0 + 1 < box.y1
    ]
    assert touching == []


@pytest.mark.parametrize("name", PLOTS)
def test_the_title_names_the_run_and_how_far_it_is(name: str) -> None:
    done = search(SMALL, wander(SMALL, 6))
    halfway = replace(done, settings={"epochs": 50})
    assert "run" in words(figure(done, name))
    assert any(text.endswith(", 6 epochs") for text in words(figure(done, name)))
    assert any(text.endswith(", epoch 6 of 50") for text in words(figure(halfway, name)))


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("suffix", METADATA)
def test_the_same_history_gives_the_same_bytes_whatever_the_users_settings(
    name: str, suffix: str, tmp_path: Path
) -> None:
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    draw(TINY, name, one)
    with mpl.rc_context({"axes.linewidth": 9, "font.size": 30, "xtick.major.size": 20}):
        draw(TINY, name, two)
    assert one.read_bytes() == two.read_bytes()
    assert sorted(tmp_path.iterdir()) == [one, two]


@pytest.mark.parametrize("name", PLOTS)
def test_an_svg_is_xml_and_its_words_are_text(name: str, tmp_path: Path) -> None:
    draw(TINY, name, tmp_path / "plot.svg")
    root = ET.fromstring((tmp_path / "plot.svg").read_text())  # noqa: S314 - our own file
    shown = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"run", "epoch", "1"} <= set(shown)


def test_each_format_is_what_its_suffix_says(tmp_path: Path) -> None:
    history = TINY
    draw(history, "curves", tmp_path / "plot.PNG")
    draw(history, "curves", tmp_path / "plot.pdf")
    with Image.open(tmp_path / "plot.PNG") as image:
        assert (image.format, image.width) == ("PNG", int(640 * DPI / 72))
    assert (tmp_path / "plot.pdf").read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize("name", PLOTS)
def test_dark_paper_has_light_words(name: str) -> None:
    history = TINY
    dark = figure(history, name, style=Style(theme="dark"))
    assert max(mpl.colors.to_rgb(dark.get_facecolor())) < 0.2
    (title,) = [text for text in texts(dark) if text.get_text() == "run"]
    assert min(mpl.colors.to_rgb(title.get_color())) > 0.8
    assert words(dark) == words(figure(history, name))


def test_a_run_may_be_called_anything(tmp_path: Path) -> None:
    name = "$x_{1}$ & <b>\x01 " + "long " * 40
    history = replace(TINY, path=Path("runs") / name)
    picture = figure(history, "alphas")
    (title,) = [text for text in texts(picture) if text.get_text().startswith("$x_{1}$ & <b>�")]
    assert title.get_text().endswith("…")
    assert title.get_window_extent().x1 < picture.bbox.x1
    draw(history, "alphas", tmp_path / "plot.svg")
    ET.fromstring((tmp_path / "plot.svg").read_text())  # noqa: S314 - our own file


@pytest.mark.parametrize(("file", "found"), [("a.gif", "suffix '.gif'"), ("a", "no suffix")])
def test_another_suffix_is_an_error_that_names_the_formats(
    file: str, found: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        draw(TINY, "curves", tmp_path / file)
    assert (
        str(caught.value) == f"{tmp_path / file}: found {found}, expected one of .svg, .png, .pdf"
    )
    assert not list(tmp_path.iterdir())


def test_a_plot_that_there_is_not_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        draw(TINY, "alpha", tmp_path / "a.svg")
    assert str(caught.value) == (
        "found plot 'alpha', expected one of alphas, lines, curves, signals"
    )


@pytest.mark.parametrize("name", [name for name in PLOTS if name != "curves"])
def test_alphas_of_a_training_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        draw(training([record(1)]), name, tmp_path / "a.svg")
    assert str(caught.value) == (
        "runs/run: found a training, which has no alphas, expected a search; "
        "of a training there are the learning curves"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PLOTS)
def test_a_search_before_its_first_epoch_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        draw(search(CNN, []), name, tmp_path / "a.svg")
    assert str(caught.value) == (
        "runs/run: found no finished epoch in it yet, expected one or more; wait for the first "
        "one, or go on with darts search cnn --resume runs/run"
    )
    assert not list(tmp_path.iterdir())


def test_a_training_before_its_first_epoch_is_refused() -> None:
    with pytest.raises(CheckpointError, match="or go on with darts train --resume runs/run"):
        figure(training([]), "curves")


def test_a_plot_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plot.svg"
    path.write_text("old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(WriteError, match="No space left on device"):
        draw(TINY, "curves", path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["plot.svg"]


@pytest.mark.parametrize("name", PLOTS)
def test_a_real_search_is_drawn_from_its_directory(
    name: str, searched: Path, tmp_path: Path
) -> None:
    draw(read_history(searched), name, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 10_000


def test_a_real_training_of_one_epoch_has_curves(trained: Path) -> None:
    shown = words(figure(read_history(trained), "curves"))
    assert {"loss", "top-1 accuracy", "top-5 accuracy", "learning rate"} <= set(shown)


def test_drawing_a_history_imports_no_torch_and_no_pyplot() -> None:
    code = (
        "import sys, darts_cli.viz.history;"
        "from darts_cli.viz.canvas import plain_settings;"
        "plain_settings().__enter__();"
        "sys.exit(bool({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
