"""Signals of a search that collapses, or is still undecided, computed from its alphas.

A DARTS search that runs for too long can end in cells of mostly skip connections, which train fast
in the supernet and poorly on their own (Zela et al., ICLR 2020; Chen et al., ICCV 2019).
"""

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from darts_cli.genotype.derivation import Choice, derive, softmax
from darts_cli.genotype.types import Alphas, Genotype
from darts_cli.space import SearchSpace

# A margin of probability below which another seed may well choose another edge.
CLOSE = 0.01

# A normalized entropy above this is hardly less than 1, that of the uniform alphas at the start.
UNDECIDED = 0.99

# Epochs for which a genotype should be unchanged when the search ends.
SETTLED_EPOCHS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Signals:
    """Signals of a search's alphas after an epoch; the mappings are by cell."""

    epoch: int
    """Number of the epoch, counted from 1."""
    skip_connections: Mapping[str, int]
    """Number of skip connections among the edges of the derived cell."""
    entropy: Mapping[str, float]
    """Entropy of the candidates' softmax, mean over edges, divided by the uniform one's, log O."""
    weakest_margin: Mapping[str, float]
    """Smallest margin of probability by which an edge of the genotype was kept."""
    unchanged_epochs: int
    """Number of epochs since the genotype last changed."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any], space: SearchSpace) -> "Signals | None":
        """Return the signals in a line of `metrics.jsonl`; None if it has none or is damaged.

        A run reads its lines again after every epoch; a damaged one must not stop it.
        """
        names = [field.name for field in fields(cls)]
        if not record.keys() >= {*names} or misfit(record, space):
            return None
        return cls(**{name: record[name] for name in names})


def misfit(record: Mapping[str, Any], space: SearchSpace) -> str:
    """Describe the first invalid signal in a line of `metrics.jsonl`; empty if all are valid."""
    for name, (is_valid, expected) in _SIGNALS.items():
        if name in record and not is_valid(record[name], space):
            cells = " and ".join(space.cells)
            found = f"{name}: found {reprlib.repr(record[name])}"
            return f"{found}, expected {expected.format(cells=cells)}"
    return ""


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: object) -> bool:
    # A bound and not isfinite, which overflows on very large integers.
    return type(value) in {int, float} and abs(value) < 1e300  # type: ignore[arg-type]


def _has(space: SearchSpace, values: object, is_valid: Callable[[object], bool]) -> bool:
    """Return whether there is a valid value for each cell, and no other."""
    return (
        isinstance(values, Mapping)
        and values.keys() == {*space.cells}
        and all(map(is_valid, values.values()))
    )


# For each signal, the check of its value and what is expected.
_SIGNALS: dict[str, tuple[Callable[[Any, SearchSpace], bool], str]] = {
    "epoch": (lambda value, _: _is_count(value) and value > 0, "a number from 1"),
    "skip_connections": (lambda value, space: _has(space, value, _is_count), "counts of {cells}"),
    "entropy": (lambda value, space: _has(space, value, _is_number), "numbers of {cells}"),
    "weakest_margin": (lambda value, space: _has(space, value, _is_number), "numbers of {cells}"),
    "unchanged_epochs": (lambda value, _: _is_count(value), "a number of epochs"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSnapshot:
    """The state of a search after an epoch."""

    alphas: Alphas
    genotype: Genotype
    choices: Sequence[Choice]
    signals: Signals

    @property
    def epoch(self) -> int:
        """Number of the epoch, counted from 1."""
        return self.signals.epoch


def take_snapshot(
    space: SearchSpace,
    alphas: Alphas,
    *,
    epoch: int,
    name: str,
    before: SearchSnapshot | None,
    origin: Mapping[str, Any] | None = None,
) -> SearchSnapshot:
    """Derive genotype and signals from the alphas after an epoch.

    Args:
        space: Search space of the cells.
        alphas: Architecture parameters of each cell, `[E, O]`.
        epoch: Number of the epoch, counted from 1.
        name: Name of the genotype.
        before: Snapshot of the epoch before; None if it is not known.
        origin: Origin of the genotype.
    """
    genotype, choices = derive(space, alphas, name=name, origin=origin)
    stands = before is not None and before.genotype.cells == genotype.cells
    signals = Signals(
        epoch=epoch,
        skip_connections=genotype.count(space.skip),
        entropy={cell: _entropy(alphas[cell]) for cell in space.cells},
        weakest_margin={
            cell: min(choice.margin for choice in choices if choice.cell == cell)
            for cell in space.cells
        },
        unchanged_epochs=before.signals.unchanged_epochs + 1 if before and stands else 0,
    )
    return SearchSnapshot(alphas=alphas, genotype=genotype, choices=choices, signals=signals)


def _entropy(rows: Sequence[Sequence[float]]) -> float:
    """Return the normalized entropy of alphas `[E, O]`, mean over edges; 1 if they are uniform."""
    entropies = [
        -sum(p * math.log(p) for p in softmax(row) if p > 0) / math.log(len(row)) for row in rows
    ]
    return sum(entropies) / len(entropies)


def warn(space: SearchSpace, signals: Sequence[Signals], epochs: int) -> list[str]:
    """Return the warnings after the last of some epochs, as sentences.

    Args:
        space: Search space of the cells.
        signals: Signals of the epochs so far, in order.
        epochs: Number of epochs that the search will have.
    """
    if not signals:
        return []
    warnings = [_warn_of_skips(space, signals)]
    # In the first half of a search, alphas are expected to be undecided.
    if 2 * signals[-1].epoch >= epochs:
        warnings += [_warn_of_indecision(signals[-1]), _warn_of_margins(signals[-1])]
    if signals[-1].epoch == epochs:
        warnings.append(_warn_of_change(signals[-1]))
    return [warning for warning in warnings if warning]


def has_collapsed(space: SearchSpace, signals: Signals) -> bool:
    """Return whether at least half of the edges of the first, normal cell are skip connections.

    The reduction cell does not count: published ones are full of them.
    """
    return 2 * signals.skip_connections[space.cells[0]] >= space.nodes * space.edges_per_node


def _warn_of_skips(space: SearchSpace, signals: Sequence[Signals]) -> str:
    cell, last = space.cells[0], signals[-1]
    if not has_collapsed(space, last):
        return ""
    kind = f"{space.skip.removesuffix('_connect')} connections"
    sound = [one.epoch for one in signals if not has_collapsed(space, one)]
    # The last epoch before the collapse.
    advice = (
        f"consider an earlier epoch with darts derive --epoch {sound[-1]}"
        if sound
        else ("search with fewer epochs, or another seed")
    )
    count, edges = last.skip_connections[cell], space.nodes * space.edges_per_node
    return f"the {cell} cell is turning into {kind} ({count} of {edges} edges); {advice}"


def _warn_of_indecision(signals: Signals) -> str:
    cells = [cell for cell, entropy in signals.entropy.items() if entropy > UNDECIDED]
    if not cells:
        return ""
    entropy = max(signals.entropy[cell] for cell in cells)
    return (
        f"the alphas of {_cells(cells)} say hardly more than at the start (entropy "
        f"{entropy:.3f} of 1); search for more epochs, or with a larger alphas.lr"
    )


def _warn_of_margins(signals: Signals) -> str:
    margins = signals.weakest_margin
    cells = [cell for cell, margin in margins.items() if margin < CLOSE]
    if not cells:
        return ""
    least = min(margins[cell] for cell in cells)
    return (
        f"an edge of {_cells(cells)} was chosen by a margin of {least:.4f}: another seed may "
        "choose otherwise; compare several"
    )


def _warn_of_change(signals: Signals) -> str:
    if signals.epoch <= SETTLED_EPOCHS or signals.unchanged_epochs >= SETTLED_EPOCHS:
        return ""
    ago = signals.unchanged_epochs
    when = "in the last epoch" if not ago else f"{ago} epoch{'' if ago == 1 else 's'} ago"
    return f"the genotype still changed {when}; search for more epochs"


def _cells(names: Sequence[str]) -> str:
    return f"the {' and '.join(names)} cell{'' if len(names) == 1 else 's'}"
