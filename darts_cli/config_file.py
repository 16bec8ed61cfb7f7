"""Settings as YAML: written beside every run, read from `--config`, and changed by `--set`."""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from darts_cli import yaml_text
from darts_cli.config import Config
from darts_cli.errors import ConfigError

NOTES = ("command", "versions")
"""Keys of a run's config.yaml that are no settings."""

_LONGEST_NAME = 80
"""Letters that an error tells of a setting's name."""

_UNREADABLE = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What PyYAML raises: it meets a wrong value after a tag, as `!!bool x`, with any of these."""


def dump(config: Config, notes: Mapping[str, Any]) -> str:
    """All settings as YAML text, with `notes` under the keys of `NOTES`."""
    return yaml.safe_dump({**notes, **as_mapping(config)}, sort_keys=False)


def as_mapping(config: Config) -> dict[str, Any]:
    """All settings as plain YAML and JSON values."""
    plain: dict[str, Any] = _plain(asdict(config))
    return plain


def read(path: Path, *, notes: bool = False) -> dict[str, Any]:
    """The settings in a YAML file, not yet checked.

    Args:
        path: The file.
        notes: Whether the keys of `NOTES` are returned too.

    Raises:
        ConfigError: if there is no such file, or it is no YAML mapping.
    """
    try:
        text = yaml_text.read(path, ConfigError, what="settings")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}), expected a YAML file"
        ) from None
    yaml_text.compose(text, str(path), ConfigError)
    try:
        mapping = yaml.safe_load(text)
    except _UNREADABLE:
        raise ConfigError(f"{path}: not YAML: unreadable values") from None
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path}: expected settings as a YAML mapping, such as `epochs: 25`")
    return {key: value for key, value in mapping.items() if notes or key not in NOTES}


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`["weights.lr=0.1"]` as a nested mapping.

    Raises:
        ConfigError: if one is not KEY=VALUE.
    """
    settings: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"--set {assignment}: expected KEY=VALUE, such as --set weights.lr=0.05"
            )
        try:
            value = yaml.safe_load(text)
        except _UNREADABLE:
            value = text
        inner = settings
        *sections, leaf = key.split(".")
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {assignment}: {section} was set to a value before")
        inner[leaf] = value
    return settings


def override(config: Config, settings: Mapping[str, Any], source: str) -> Config:
    """The settings with some of them changed.

    Args:
        config: What is changed.
        settings: A nested mapping of the changes.
        source: Where these come from, for errors.

    Raises:
        ConfigError: if a key is unknown, or a value of the wrong type or out of range.
    """
    changed: Config = _override(config, settings, source, "")
    return changed


def _override(section: Any, settings: Mapping[str, Any], source: str, prefix: str) -> Any:
    hints = get_type_hints(type(section))
    changes: dict[str, Any] = {}
    for key, value in settings.items():
        # In a checkpoint it may be as long as the file.
        name = f"{prefix}{key}"[:_LONGEST_NAME]
        if key not in hints:
            raise ConfigError(
                f"{source}: unknown setting {name}, {_expected(str(key)[:_LONGEST_NAME], hints)}"
            )
        present = getattr(section, key)
        if is_dataclass(present):
            if not isinstance(value, dict):
                raise ConfigError(
                    f"{source}: {name} is a group of settings, found {reprlib.repr(value)}"
                )
            changes[key] = _override(present, value, source, f"{name}.")
        elif present is None and any(is_dataclass(kind) for kind in get_args(hints[key])):
            if value is not None:
                raise ConfigError(f"{source}: {name} is not for this command, expected none of it")
        else:
            changes[key] = _convert(value, hints[key], f"{source}: {name}")
    return replace(section, **changes)


def _expected(key: str, hints: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, hints, n=1)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(hints)}"


def _convert(value: Any, kind: Any, what: str) -> Any:
    """A YAML value as the type of a setting."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        return _convert(value, next(k for k in get_args(kind) if k is not NoneType), what)
    if origin is Literal:
        if value in get_args(kind):
            return value
        expected = "one of " + ", ".join(get_args(kind))
    elif origin is tuple:
        kinds = get_args(kind)
        if isinstance(value, list | tuple) and len(value) == len(kinds):
            return tuple(_convert(v, k, what) for v, k in zip(value, kinds, strict=True))
        expected = f"a list of {len(kinds)} numbers"
    elif kind is float:
        # YAML reads 3e-4, without a point, as text.
        number = _float(value)
        if number is not None:
            return number
        expected = "a number"
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    else:
        expected = {int: "a whole number", bool: "true or false", str: "text"}[kind]
    raise ConfigError(f"{what}: found {reprlib.repr(value)}, expected {expected}")


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
