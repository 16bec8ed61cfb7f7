"""Settings as YAML: written beside every run, read from `--config`, and changed by `--set`."""

import difflib
import json
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from darts_cli import yaml_text
from darts_cli.config import Config
from darts_cli.errors import ConfigError, system_errors
from darts_cli.schema import Misfit, convert, shown_key

# Keys of a run's config.yaml that are not settings.
NOTES = ("command", "versions")

# What PyYAML raises: it meets a wrong value after a tag, as `!!bool x`, with any of these.
_UNREADABLE = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError)


def dump(config: Config, notes: Mapping[str, Any]) -> str:
    """Return all settings as YAML text, after `notes` under the keys of `NOTES`."""
    return yaml.safe_dump({**notes, **as_mapping(config)}, sort_keys=False)


def as_mapping(config: Config) -> dict[str, Any]:
    """Return all settings as plain YAML and JSON values."""
    # Tuples become lists.
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain


class SettingsFile(dict[str, Any]):
    """The settings in a YAML file, not yet checked, with the line of each."""

    def __init__(self, settings: Mapping[str, Any], lines: Mapping[str, int]) -> None:
        super().__init__(settings)
        self.lines = lines


def read(path: Path, *, notes: bool = False) -> SettingsFile:
    """Read the settings in a YAML file, without checking them.

    Args:
        path: The file.
        notes: Whether the keys of `NOTES` are returned too.

    Raises:
        ConfigError: if there is no such file, or it is no YAML mapping.
    """
    with system_errors(ConfigError, path, "read", ", expected a YAML file"):
        text = yaml_text.read(path, ConfigError, what="settings")
    root = yaml_text.compose(text, str(path), ConfigError)
    try:
        mapping = yaml.safe_load(text)
    except _UNREADABLE:
        raise ConfigError(f"{path}: not YAML: unreadable values") from None
    if not isinstance(mapping, dict):
        raise ConfigError(f"{path}: expected settings as a YAML mapping, such as `epochs: 25`")
    kept = {key: value for key, value in mapping.items() if notes or key not in NOTES}
    return SettingsFile(kept, dict(_lines(root, "")))


def _lines(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield the line of each key of a mapping, by dotted name."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            yield name, key.start_mark.line + 1
            yield from _lines(value, f"{name}.")


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse `["weights.lr=0.1"]` into a nested mapping.

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
    """Return settings with some of them changed.

    Args:
        config: What is changed.
        settings: A nested mapping of the changes.
        source: Where these come from, for errors; of a `SettingsFile` lines are named too.

    Raises:
        ConfigError: if a key is unknown, or a value of the wrong type or out of range.
    """
    lines = settings.lines if isinstance(settings, SettingsFile) else {}

    def error(name: str, problem: str, remedy: str = "") -> ConfigError:
        line = f", line {lines[name]}" if name in lines else ""
        return ConfigError(problem, where=f"{source}{line}", remedy=remedy)

    try:
        changed: Config = _override(config, settings, "", error)
    except ConfigError as out_of_range:
        # A section checks its ranges itself, and knows no file.
        if out_of_range.where or not lines:
            raise
        key, _, _ = out_of_range.problem.partition(":")
        raise error(key, out_of_range.problem, out_of_range.remedy) from None
    return changed


def _override(
    present: Any, settings: Mapping[str, Any], prefix: str, error: Callable[[str, str], ConfigError]
) -> Any:
    """Return a section with some of its settings changed; `error` names the place of a setting."""
    hints = get_type_hints(type(present), include_extras=True)
    names = [field.name for field in fields(present)]
    changes: dict[str, Any] = {}
    for key, value in settings.items():
        name = shown_key(f"{prefix}{key}")
        if key not in names:
            raise error(name, f"unknown setting {name}, {_suggest(shown_key(key), names)}")
        old = getattr(present, key)
        if is_dataclass(old):
            if not isinstance(value, dict):
                raise error(name, f"{name} is a group of settings, found {reprlib.repr(value)}")
            changes[key] = _override(old, value, f"{name}.", error)
        elif old is None and any(map(_is_section, get_args(hints[key]))):
            if value is not None:
                raise error(name, f"{name} is not for this command, expected none of it")
        else:
            try:
                changes[key] = convert(value, hints[key], name)
            except Misfit as misfit:
                raise error(name, str(misfit)) from None
    return replace(present, **changes)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _suggest(key: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, names, n=1)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}"
