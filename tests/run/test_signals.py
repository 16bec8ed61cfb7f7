"""Signs of collapse: what is counted of the alphas, and when a warning is given."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest

from darts_cli.run.signals import SearchSnapshot, Signals, misfit, take_snapshot, warn
from darts_cli.space import SearchSpace
from darts_cli.spaces import SPACES

CNN = SPACES["cnn"]
SPACE = SearchSpace(
    name="small",
    cells=("normal",),
    inputs=1,
    nodes=2,
    edges_per_node=1,
    primitives=("none", "conv", "skip_connect"),
)
UNIFORM = [0.0, 0.0, 0.0]


def look(rows: Sequence[Sequence[float]], before: SearchSnapshot | None = None) -> SearchSnapshot:
    epoch = before.epoch + 1 if before else 1
    return take_snapshot(SPACE, {"normal": rows}, epoch=epoch, name="it", before=before)


def signals(epoch: int, skips: int = 0, **changes: Any) -> Signals:
    """Those of a search of images that looks well but for the changes."""
    sound = Signals(
        epoch=epoch,
        skip_connections={"normal": skips, "reduce": 8},
        entropy={"normal": 0.8, "reduce": 0.8},
        weakest_margin={"normal": 0.2, "reduce": 0.2},
        unchanged_epochs=9,
    )
    return replace(sound, **changes)


def test_the_entropy_of_equal_alphas_is_one_and_of_certain_ones_zero() -> None:
    assert look([UNIFORM] * 3).signals.entropy == {"normal": pytest.approx(1)}
    assert look([[0.0, 900.0, 0.0]] * 3).signals.entropy == {"normal": 0}


def test_the_entropy_is_the_mean_over_edges_by_the_formula() -> None:
    row = [math.log(0.5), math.log(0.25), math.log(0.25)]
    of_row = (0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(3)
    found = look([row, UNIFORM, UNIFORM]).signals.entropy["normal"]
    assert found == pytest.approx((of_row + 2) / 3)


def test_the_weakest_margin_is_the_least_of_operations_and_edges() -> None:
    # Node 1 has one edge: conv 0.6 over skip 0.2; node 2 keeps one of two: 0.5 over 0.45.
    rows = [[0.2, 0.6, 0.2], [0.3, 0.5, 0.2], [0.3, 0.25, 0.45]]
    snapshot = look([[math.log(p) for p in row] for row in rows])
    assert snapshot.signals.weakest_margin["normal"] == pytest.approx(0.05)
    assert [choice.margin for choice in snapshot.choices] == pytest.approx([0.4, 0.05])


def test_epochs_since_the_last_change_are_counted_from_the_cells_alone() -> None:
    conv, skip = [[0.0, 1.0, 0.0]] * 3, [[0.0, 0.0, 1.0]] * 3
    first = look(conv)
    second = look([[0.0, 3.0, 0.0]] * 3, first)
    third = look(skip, second)
    counts = [snapshot.signals.unchanged_epochs for snapshot in (first, second, third)]
    assert counts == [0, 1, 0]
    assert look(skip, third).signals.unchanged_epochs == 1
    assert third.signals.skip_connections == {"normal": 2}


def test_a_line_of_metrics_gives_the_signals_back_and_an_older_one_none() -> None:
    one = signals(4)
    assert Signals.from_record({"lr": 1.0, **asdict(one)}, SPACES["cnn"]) == one
    assert (
        Signals.from_record({"epoch": 4, "skip_connections": {"normal": 1}}, SPACES["cnn"]) is None
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epoch", "4", "a number from 1"),
        ("epoch", 0, "a number from 1"),
        ("skip_connections", 7, "counts of normal and reduce"),
        ("skip_connections", {"other": 1}, "counts of normal and reduce"),
        ("skip_connections", {"reduce": 1, "normal": -1}, "counts of normal and reduce"),
        ("entropy", {"reduce": 1, "normal": None}, "numbers of normal and reduce"),
        ("entropy", {"reduce": 1, "normal": math.nan}, "numbers of normal and reduce"),
        ("weakest_margin", {"reduce": 1, "normal": 10**400}, "numbers of normal and reduce"),
        ("unchanged_epochs", "x", "a number of epochs"),
        ("unchanged_epochs", True, "a number of epochs"),
    ],
)
def test_a_damaged_line_of_metrics_says_nothing_and_what_is_damaged_is_told(
    name: str, value: object, expected: str
) -> None:
    record = {**asdict(signals(4)), name: value}
    assert Signals.from_record(record, SPACES["cnn"]) is None
    found = misfit(record, SPACES["cnn"])
    assert found.startswith(f"{name}: found ")
    assert found.endswith(f", expected {expected}")
    assert misfit(asdict(signals(4)), SPACES["cnn"]) == misfit({"epoch": 4}, SPACES["cnn"]) == ""


def test_a_search_that_looks_well_is_given_no_warning() -> None:
    assert warn(CNN, [signals(epoch) for epoch in range(1, 51)], 50) == []
    assert warn(CNN, [], 50) == []


def test_a_normal_cell_of_skips_is_told_with_the_last_epoch_before() -> None:
    history = [signals(30, 2), signals(31, 3), signals(32, 4), signals(33, 6)]
    assert warn(CNN, history, 50) == [
        (
            "the normal cell is turning into skip connections (6 of 8 edges); "
            "consider an earlier epoch with darts derive --epoch 31"
        )
    ]


def test_a_normal_cell_of_skips_from_the_beginning_has_no_earlier_epoch() -> None:
    assert warn(CNN, [signals(1, 5)], 50) == [
        (
            "the normal cell is turning into skip connections (5 of 8 edges); "
            "search with fewer epochs, or another seed"
        )
    ]


def test_a_recurrent_cell_turns_into_identity_connections() -> None:
    cell: dict[str, Any] = {
        "skip_connections": {"recurrent": 4},
        "entropy": {},
        "weakest_margin": {},
    }
    (warning,) = warn(SPACES["rnn"], [signals(2, **cell)], 50)
    assert "the recurrent cell is turning into identity connections (4 of 8 edges)" in warning


def test_alphas_that_say_nothing_are_told_of_in_the_second_half() -> None:
    entropy = {"normal": 0.999, "reduce": 0.9}
    assert warn(CNN, [signals(24, entropy=entropy)], 50) == []
    assert warn(CNN, [signals(25, entropy=entropy)], 50) == [
        (
            "the alphas of the normal cell say hardly more than at the start (entropy 0.999 of 1); "
            "search for more epochs, or with a larger alphas.lr"
        )
    ]


def test_a_choice_by_a_hair_is_told_of_in_the_second_half() -> None:
    margin = {"normal": 0.0012, "reduce": 0.005}
    assert warn(CNN, [signals(24, weakest_margin=margin)], 50) == []
    assert warn(CNN, [signals(40, weakest_margin=margin)], 50) == [
        (
            "an edge of the normal and reduce cells was chosen by a margin of 0.0012: another seed "
            "may choose otherwise; compare several"
        )
    ]


@pytest.mark.parametrize(
    ("ago", "when"), [(0, "in the last epoch"), (1, "1 epoch ago"), (2, "2 epochs ago")]
)
def test_a_genotype_that_changed_at_the_end_is_told_of(ago: int, when: str) -> None:
    assert warn(CNN, [signals(49, unchanged_epochs=ago)], 50) == []
    assert warn(CNN, [signals(50, unchanged_epochs=ago)], 50) == [
        f"the genotype still changed {when}; search for more epochs"
    ]
