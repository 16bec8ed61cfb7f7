"""One reader for values from outside: the rule of each, and the error that names a misfit.

Settings, metadata of checkpoints, dataset info, metrics and alphas declare their
values by `Rule`s; errors name file, line where there is one, dotted key, what was
found and what was expected. It is a module of our own because pydantic would take
57 ms to import, and neither it nor msgspec gives messages of the form "found ...,
expected ..." with the dotted key and the line.
"""

import reprlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from darts_cli.errors import DartsError

# Characters of a name or path, and of a key that an error shows.
_LONGEST_NAME, _LONGEST_KEY = 4096, 80

# An integer may be too large to be asked whether it is finite.
_LARGEST = 1e300

# Epochs that a run may have.
MAX_EPOCHS = 100_000


@dataclass(frozen=True, slots=True)
class Rule:
    """The condition on a value, and the text that says what was expected."""

    expected: str
    """Text after "expected" in an error."""
    is_valid: Callable[[Any], bool]
    """Function that returns whether a value meets the condition."""
    required: bool = True
    """Whether a document must have it."""


class Misfit(Exception):  # noqa: N818 - made a `DartsError` where the place is known
    """A value that does not fit: its dotted key, the value, and what was expected."""

    def __init__(self, key: str, found: object, expected: str) -> None:
        super().__init__(f"{key}: found {reprlib.repr(found)}, expected {expected}")
        self.key = key


def is_count(value: object) -> bool:
    """Return whether a value is a whole number from 0."""
    return type(value) is int and 0 <= value < 2**63


def is_number(value: object) -> bool:
    """Return whether a value is a finite number."""
    return type(value) in {int, float} and abs(value) < _LARGEST  # type: ignore[arg-type]


def is_text(value: object) -> bool:
    """Return whether a value is text."""
    return isinstance(value, str)


def is_name(value: object) -> bool:
    """Return whether a value is text of a bounded length."""
    return isinstance(value, str) and len(value) <= _LONGEST_NAME


def is_mapping(value: object) -> bool:
    """Return whether a value is a mapping."""
    return isinstance(value, Mapping)


def is_mapping_of(
    is_valid: Callable[[Any], bool], keys: Iterable[str] | None = None
) -> Callable[[Any], bool]:
    """Return a check for a mapping whose values are valid and whose keys, if given, are `keys`."""

    def check_values(value: object) -> bool:
        return (
            isinstance(value, Mapping)
            and (keys is None or value.keys() == {*keys})
            and all(map(is_valid, value.values()))
        )

    return check_values


def is_list_of(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a check for a list whose items are valid."""
    return lambda value: isinstance(value, list | tuple) and all(map(is_valid, value))


def between(low: float, high: float) -> Rule:
    """Return the rule of a number from `low` to `high`."""
    return Rule(f"{low} to {high}", lambda value: low <= value <= high)


def at_least(low: float) -> Rule:
    """Return the rule of a number from `low`."""
    return Rule(f"{low} or more", lambda value: value >= low)


def one_of(choices: Iterable[str]) -> Rule:
    """Return the rule of one of some names."""
    known = tuple(choices)
    return Rule("one of " + ", ".join(known), lambda value: is_name(value) and value in known)


EPOCH = Rule(f"0 to {MAX_EPOCHS:,}", lambda value: type(value) is int and 0 <= value <= MAX_EPOCHS)


def find_misfit(document: Mapping[str, Any], rules: Mapping[str, Rule]) -> Misfit | None:
    """Return the first value of a nested document that breaks its rule, by dotted key."""
    for key, rule in rules.items():
        value: Any = document
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None and not rule.required:
            continue
        if not rule.is_valid(value):
            return Misfit(key, value, rule.expected)
    return None


def check(
    document: Mapping[str, Any],
    rules: Mapping[str, Rule],
    error: type[DartsError],
    *,
    where: object = "",
    remedy: str = "",
) -> None:
    """Check a nested document.

    Args:
        document: Plain values.
        rules: Rules by dotted key; other keys are not looked at.
        error: Kind of the error.
        where: What errors call the document, such as its file; empty: the caller adds it.
        remedy: What to do.

    Raises:
        DartsError: naming the first value that breaks its rule.
    """
    misfit = find_misfit(document, rules)
    if misfit is not None:
        raise error(str(misfit), where=where, remedy=remedy)


def convert(value: Any, hint: Any, key: str) -> Any:
    """Convert a plain value to the type of a setting.

    Args:
        value: As YAML or JSON has it.
        hint: The annotation of the setting.
        key: Its dotted name.

    Raises:
        Misfit: if it is of another type.
    """
    origin, choices = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return convert(value, choices[0], key)
    if origin in (Union, UnionType):
        kind = next(kind for kind in choices if kind is not NoneType)
        return None if value is None else convert(value, kind, key)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(choices):
            raise Misfit(key, value, f"a list of {len(choices)} numbers")
        return tuple(convert(one, kind, key) for one, kind in zip(value, choices, strict=True))
    if origin is Literal:
        if value in choices:
            return value
        raise Misfit(key, value, "one of " + ", ".join(choices))
    return _convert_plain(value, hint, key)


def _convert_plain(value: Any, kind: type, key: str) -> Any:
    """Convert to int, bool, str or float; YAML reads 3e-4, without a point, as text."""
    if kind is float:
        with suppress(ValueError, OverflowError):
            if isinstance(value, int | float | str) and not isinstance(value, bool):
                return float(value)
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    expected = {int: "a whole number", bool: "true or false", str: "text", float: "a number"}
    raise Misfit(key, value, expected[kind])


def shown_key(key: object) -> str:
    """Return a key as an error shows it: in a damaged file it may be as long as the file."""
    return str(key)[:_LONGEST_KEY]
