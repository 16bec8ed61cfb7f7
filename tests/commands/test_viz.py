"""`darts viz`: pictures of a genotype by name, file or run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from darts_cli.genotype.file import load, shipped
from darts_cli.spaces import SPACES
from tests.conftest import TINY, Darts, contents

Unchanged = Callable[[Path], None]


@pytest.mark.parametrize(
    ("suffix", "start"),
    [
        (".svg", b"<?xml"),
        (".png", b"\x89PNG\r\n"),
        (".pdf", b"%PDF-"),
        (".dot", b"digraph"),
        (".mmd", b"flowchart"),
    ],
)
def test_a_picture_is_of_the_kind_that_its_name_says(
    darts: Darts, tmp_path: Path, suffix: str, start: bytes
) -> None:
    result = darts("viz", "darts_v2", "--output", f"cell{suffix}")
    assert (result.out, result.err) == (f"cell{suffix}\n", "")
    assert Path(f"cell{suffix}").read_bytes().startswith(start)
    assert set(contents(tmp_path)) == {f"cell{suffix}"}


def test_a_picture_names_the_operations_of_the_runs_genotype(darts: Darts, searched: Path) -> None:
    text = darts("viz", searched, "--output", "cell.dot").path.read_text()
    for cell in load(searched / "genotype.yaml", SPACES).cells.values():
        for edges in cell.nodes:
            for edge in edges:
                assert edge.operation in text


def test_without_output_both_cells_are_drawn_on_standard_output(darts: Darts) -> None:
    result = darts("viz", "darts_v2")
    assert result.status == 0
    assert result.err == ""
    for text in ("darts_v2", "normal", "reduce", "sep_conv_3x3", "dil_conv_3x3", "skip_connect"):
        assert text in result.out


def test_name_file_and_run_give_the_same_picture(
    darts: Darts, searched: Path, unchanged: Unchanged
) -> None:
    unchanged(searched)
    assert darts("viz", "darts_v1").out == darts("viz", shipped()["darts_v1"]).out
    assert darts("viz", searched).out == darts("viz", searched / "genotype.yaml").out
    assert darts("viz", searched).out != darts("viz", "darts_v1").out


@pytest.mark.parametrize(
    ("name", "found"), [("cell.jpeg", "suffix '.jpeg'"), ("cell", "no suffix")]
)
def test_a_kind_of_picture_that_cannot_be_written_is_refused(
    darts: Darts, tmp_path: Path, name: str, found: str
) -> None:
    assert darts("viz", "darts_v2", "--output", name).refusal() == (
        f"{name}: found {found}, expected one of .svg, .png, .pdf, .dot, .mmd"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "start"), [("dot", "digraph"), ("mermaid", "flowchart LR")])
def test_a_format_of_text_is_printed(darts: Darts, searched: Path, name: str, start: str) -> None:
    result = darts("viz", searched, "--format", name)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(start)
    assert darts("viz", searched, "--format", name, "--output", "cell.svg").refusal() == (
        f"--format {name}: not with --output, whose suffix says it; leave one of them out"
    )
    assert darts("viz", searched, "darts_v1", "--format", name).refusal() == (
        f"--format {name}: found 2 sources, expected one genotype or run"
    )


def test_two_genotypes_are_compared(darts: Darts, searched: Path) -> None:
    assert "5 of 16 edges differ" in darts("viz", "darts_v1", "darts_v2").out
    text = darts("viz", searched, "darts_v2", "--output", "both.svg").path.read_text()
    assert "run-epoch-2" in text
    assert "darts_v2" in text
    assert darts("viz", "darts_v1", "darts_v2", "nasnet", "--output", "all.svg").refusal() == (
        "found 3 sources, expected one genotype, or two to compare; "
        "more than two runs are compared by --output NAME.html"
    )
    assert darts("viz", "darts_v1", "rnn_enas").refusal() == (
        "darts_v1 is of space 'cnn' and rnn_enas of 'rnn', expected two genotypes of one space"
    )


def test_theme_title_and_legend_are_the_users_choice(darts: Darts) -> None:
    def draw(*flags: str) -> str:
        return darts("viz", "darts_v2", *flags, "--output", "cell.svg").path.read_text()

    plain = draw()
    assert "darts_v2" in plain
    assert "darts_v2" not in draw("--no-title")
    legend = "node, the sum of its edges"
    assert legend not in plain
    assert legend in draw("--legend")
    assert "#0e1116" not in plain
    assert "#0e1116" in draw("--theme", "dark")


@pytest.mark.parametrize("what", ["alphas", "lines", "curves", "signals"])
def test_what_happened_in_a_run_is_drawn(
    darts: Darts, searched: Path, unchanged: Unchanged, what: str
) -> None:
    unchanged(searched)
    result = darts("viz", searched, "--show", what, "--output", "plot.svg")
    assert (result.out, result.err) == ("plot.svg\n", "")
    assert "epoch" in result.path.read_text()
    assert darts("viz", searched, "--show", what).refusal() == (
        f"--show {what}: found no --output, expected a file such as {what}.svg, .png or .pdf"
    )
    assert darts("viz", "darts_v2", "--show", what, "--output", "plot.svg").refusal() == (
        f"--show {what}: found 'darts_v2', expected the directory of a run"
    )
    assert darts("viz", searched, searched, "--show", what, "--output", "a.svg").refusal() == (
        f"--show {what}: found 2 sources, expected one run"
    )


def test_a_training_has_curves_and_no_alphas(darts: Darts, trained: Path) -> None:
    assert darts("viz", trained, "--show", "curves", "--output", "plot.png").status == 0
    message = darts("viz", trained, "--show", "alphas", "--output", "no.png").refusal()
    assert "alphas" in message
    assert not Path("no.png").exists()


def test_the_cells_of_a_search_become_an_animation(darts: Darts, searched: Path) -> None:
    path = darts("viz", searched, "--output", "cells.gif").path
    assert path.read_bytes().startswith(b"GIF89a")
    assert darts("viz", "darts_v2", "--output", "no.gif").refusal() == (
        "no.gif: found 'darts_v2', expected the directory of a run"
    )


def test_runs_become_one_page(
    darts: Darts, searched: Path, trained: Path, unchanged: Unchanged
) -> None:
    unchanged(searched)
    page = darts("viz", searched, "--output", "report.html").path.read_text()
    # The size of the network that training would make of it.
    assert '"parameters"' in page
    assert "run-epoch-2" in page
    assert darts("viz", searched, trained, "--output", "compare.html").status == 0
    assert darts("viz", "darts_v2", "--output", "no.html").refusal() == (
        "no.html: found 'darts_v2', expected the directory of a run"
    )


def test_a_picture_in_a_folder_that_is_not_there_is_refused(darts: Darts) -> None:
    assert darts("viz", "darts_v2", "--output", "nowhere/cell.svg").refusal() == (
        "nowhere/cell.svg: found no folder nowhere, expected one that exists"
    )


def test_a_run_without_a_genotype_yet_is_refused(darts: Darts, pets: Path) -> None:
    sizes = (*TINY, "--batch-size", 4, "--order", "first", "--max-steps", 1)
    darts("search", "cnn", "--data", pets, *sizes, "--out", "run")
    assert darts("viz", "run").refusal() == (
        "run: found no genotype in it yet, expected a finished epoch"
    )


def test_what_is_no_genotype_is_refused(darts: Darts, searched: Path) -> None:
    assert darts("viz", "nonsense").refusal() == (
        f"no genotype 'nonsense': expected a YAML file or one of {', '.join(shipped())}"
    )
    assert darts("viz", ".").refusal() == ".: found no config.yaml in it, expected a run"
    config = searched / "config.yaml"
    assert darts("viz", config).refusal().startswith(f"{config}, line 1: found key 'command' in")
    last = searched / "last.safetensors"
    assert darts("viz", last).refusal() == (
        f"{last}: too large for a genotype (32,768 bytes at most)"
    )


@pytest.mark.parametrize("file", ["page.html", "cells.gif"])
def test_a_plot_is_refused_where_all_or_cells_are_shown(
    darts: Darts, searched: Path, file: str
) -> None:
    assert darts("viz", searched, "--show", "alphas", "--output", file).refusal() == (
        f"--show alphas: not for {file}, expected .svg, .png or .pdf; "
        "leave it out, or write another file"
    )
    assert not Path(file).exists()


@pytest.mark.parametrize("flag", [("--theme", "dark"), ("--legend",), ("--no-title",)])
def test_what_says_how_pictures_look_is_refused_where_there_are_none(
    darts: Darts, searched: Path, flag: tuple[str, ...]
) -> None:
    message = (
        "--theme, --legend, --no-title: not for {}, expected them for pictures; leave them out"
    )
    assert darts("viz", searched, *flag).refusal() == message.format("text")
    for name, what in (("cell.mmd", "text"), ("page.html", "page.html")):
        assert darts("viz", searched, *flag, "--output", name).refusal() == message.format(what)
        assert not Path(name).exists()
