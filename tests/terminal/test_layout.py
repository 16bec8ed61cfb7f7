"""What has a place in the display, at every size of a terminal."""

from dataclasses import replace

import pytest
from rich.console import Console
from rich.segment import Segment

from darts_cli.terminal.frame import Frame
from darts_cli.terminal.layout import draw, uncoloured
from tests.terminal.frames import CONSOLE, KINDS, FixedProgress, draw_plain, make_frame

SIZES = [(80, 24), (60, 15), (40, 24), (40, 10), (20, 5), (9, 3), (1, 1)]


def collapsing(kind: str) -> Frame:
    """As many warnings as there can be."""
    frame = make_frame(kind, skips=0.05)
    return replace(frame, warnings=[*frame.warnings, "another warning " * 9, "a last one"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("done", [0, 1, 31])
def test_no_line_is_wider_than_the_terminal_and_none_too_many(
    kind: str, size: tuple[int, int], done: int
) -> None:
    width, height = size
    for frame in (make_frame(kind, done=done), collapsing(kind)):
        lines = draw(frame, CONSOLE, uncoloured, width, height)
        assert 0 < len(lines) <= height
        assert max(Segment.get_line_length(line) for line in lines) <= width
        assert not any("\n" in segment.text for line in lines for segment in line)


def test_a_search_of_images_has_all_parts_at_eighty_columns() -> None:
    warning = "an edge of the normal cell was chosen by a hair"
    lines = draw_plain(make_frame("search cnn", warnings=[warning]), 79, 22)
    assert lines[:5] == [
        "run          ━━━━━━━━━━━         12,301/19,500        for 5:02:03  3:03:20 left",
        "epoch 32/50  ━━━━━━━━━╸                212/390  12,345.6 images/s  0:02:11 left",
        "train  loss 0.4455 █▇▇▆▆▅▅▅▄▄▃▃▃▃▂▂▂▁▁▁  top1 85.15 % ▁▂▂▃▃▄▄▄▅▅▆▆▆▆▇▇▇███",
        "valid  loss 0.6690 █▇▇▆▆▅▅▅▄▄▃▃▃▃▂▂▂▁▁▁  top1 77.70 % ▁▂▂▃▃▄▄▄▅▅▆▆▆▆▇▇▇███",
        "lr 0.01235  NVIDIA H100 80GB HBM3  12.3 of 79.1 GiB  98 % busy",
    ]
    assert lines[5].startswith("normal cell")
    assert "reduce cell" in lines[5]
    assert [line[0] for line in lines[6:10]] == ["2", "3", "4", "5"]
    assert lines[10].split() == ["skips", "unchanged", "entropy", "weakest", "margin"]
    assert [line.split()[0] for line in lines[11:13]] == ["normal", "reduce"]
    assert lines[13:] == [f"! {warning}"]


def test_a_recurrent_search_has_its_eight_nodes_in_columns() -> None:
    lines = draw_plain(make_frame("search rnn"), 79, 22)
    nodes = lines[6:8]
    assert lines[5].startswith("recurrent cell")
    assert sorted(word for line in nodes for word in line.split()[::3]) == list("12345678")
    assert lines[8].split() == ["identities", "unchanged", "entropy", "weakest", "margin"]
    assert "perplexity" in lines[2]
    assert "bits" not in lines[2]


@pytest.mark.parametrize("kind", ["train cnn", "train rnn"])
def test_a_training_has_no_genotype_and_all_else(kind: str) -> None:
    lines = draw_plain(make_frame(kind), 79, 22)
    assert len(lines) == 5
    assert [line.split()[0] for line in lines] == ["run", "epoch", "train", "test", "lr"]
    assert ("top5" in lines[3]) == (kind == "train cnn")
    assert ("perplexity" in lines[3]) == (kind == "train rnn")


def test_a_low_terminal_leaves_out_cells_then_signals_then_warnings() -> None:
    frame = make_frame("search cnn", warnings=["first", "second"])
    shown = {height: draw_plain(frame, 79, height) for height in range(1, 16)}
    assert "normal cell" in shown[15][5]
    assert [line.split()[0] for line in shown[14][5:8]] == ["skips", "normal", "reduce"]
    assert len(shown[14]) == 10
    assert shown[9][5:] == ["! first", "! second"]
    assert shown[7][5:] == ["! first", "! second"]
    assert shown[6][5:] == ["! 2 warnings in log.txt"]
    assert [line.split()[0] for line in shown[5]] == ["run", "epoch", "train", "valid", "lr"]
    assert [line.split()[0] for line in shown[2]] == ["run", "epoch"]


def test_at_sixty_columns_and_fifteen_lines_the_first_cell_still_has_a_place() -> None:
    lines = draw_plain(make_frame("search cnn", warnings=()), 59, 13)
    assert len(lines) == 13
    assert lines[5].startswith("normal cell")
    assert not any("reduce cell" in line for line in lines)
    assert "weakest margin" in lines[10]
    assert "left" in lines[0]


def test_without_blocks_there_are_only_letters_of_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "encoding", "ascii")
    lines = draw_plain(collapsing("search cnn"), 79, 22)
    assert all(line.isascii() for line in lines)
    assert "----" in lines[0]
    assert "#*++==" in lines[2].replace("**", "*")
    narrow = draw_plain(make_frame("search cnn"), 50, 22)
    assert "NVIDIA" in narrow[4]
    for width, height in SIZES:
        assert all(line.isascii() for line in draw_plain(collapsing("search rnn"), width, height))


def test_the_height_stays_from_step_to_step_and_in_the_evaluation() -> None:
    frame = make_frame("search cnn")
    others = (
        replace(frame, stage=FixedProgress("epoch 32/50", 389, 390, rate="9 images/s", left=0.4)),
        replace(frame, stage=FixedProgress("evaluation", 0, 20)),
        replace(frame, metrics={}, lr=None, device=()),
    )
    lines = draw_plain(frame, 79, 22)
    for other in others:
        drawn = draw_plain(other, 79, 22)
        assert len(drawn) == len(lines)
        assert drawn[0] == lines[0]


def test_before_a_run_begins_nothing_is_drawn() -> None:
    assert draw_plain(Frame(), 79, 22) == []
    assert draw_plain(replace(make_frame("search cnn"), run=None), 79, 22) == []
