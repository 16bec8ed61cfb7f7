"""Signals of a search that collapses, or is still undecided, computed from its alphas.

A DARTS search that runs for too long can end in cells of mostly skip connections, which train fast
in the supernet and poorly on their own (Zela et al., ICLR 2020; Chen et al., ICCV 2019).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darts_cli.genotype.derivation import Choice, derive, softmax
from darts_cli.genotype.types import Alphas, Genotype
from darts_cli.schema import Rule, find_misfit, is_count, is_mapping_of, is_number
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

        A resumed run reads its lines again; a damaged one must not stop it.
        """
        rules = _rules(space)
        if find_misfit(record, rules) is not None:
            return None
        return cls(**{name: record[name] for name in rules})


def misfit(record: Mapping[str, Any], space: SearchSpace) -> str:
    """Describe the first invalid signal in a line of `metrics.jsonl`; empty if all are valid."""
    # Records of a training, and of runs that an older version began, have no signals.
    present = {name: rule for name, rule in _rules(space).items() if name in record}
    return str(find_misfit(record, present) or "")


def _rules(space: SearchSpace) -> dict[str, Rule]:
    """Return the rule of each field of `Signals` in a line of `metrics.jsonl`."""
    cells = " and ".join(space.cells)
    counts = Rule(f"counts of {cells}", is_mapping_of(is_count, space.cells))
    numbers = Rule(f"numbers of {cells}", is_mapping_of(is_number, space.cells))
    return {
        "epoch": Rule("a number from 1", lambda value: is_count(value) and value > 0),
        "skip_connections": counts,
        "entropy": numbers,
        "weakest_margin": numbers,
        "unchanged_epochs": Rule("a number of epochs", is_count),
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
    advice = "search with fewer epochs, or another seed"
    # The last epoch before the collapse.
    if sound := [one.epoch for one in signals if not has_collapsed(space, one)]:
        advice = f"consider an earlier epoch with darts derive --epoch {sound[-1]}"
    count, edges = last.skip_connections[cell], space.nodes * space.edges_per_node
    return f"the {cell} cell is turning into {kind} ({count} of {edges} edges); {advice}"


def _warn_of_indecision(signals: Signals) -> str:
    undecided = {cell: value for cell, value in signals.entropy.items() if value > UNDECIDED}
    if not undecided:
        return ""
    return (
        f"the alphas of {_cells([*undecided])} say hardly more than at the start (entropy "
        f"{max(undecided.values()):.3f} of 1); search for more epochs, or with a larger alphas.lr"
    )


def _warn_of_margins(signals: Signals) -> str:
    close = {cell: value for cell, value in signals.weakest_margin.items() if value < CLOSE}
    if not close:
        return ""
    return (
        f"an edge of {_cells([*close])} was chosen by a margin of {min(close.values()):.4f}: "
        "another seed may choose otherwise; compare several"
    )


def _warn_of_change(signals: Signals) -> str:
    if signals.epoch <= SETTLED_EPOCHS or signals.unchanged_epochs >= SETTLED_EPOCHS:
        return ""
    ago = signals.unchanged_epochs
    when = "in the last epoch" if not ago else f"{ago} epoch{'' if ago == 1 else 's'} ago"
    return f"the genotype still changed {when}; search for more epochs"


def _cells(names: Sequence[str]) -> str:
    return f"the {' and '.join(names)} cell{'' if len(names) == 1 else 's'}"
