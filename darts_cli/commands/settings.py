"""From options to the settings of a run."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from darts_cli import config_file
from darts_cli.config import Config
from darts_cli.errors import ConfigError
from darts_cli.options import RunOptions, flags, spelling
from darts_cli.spaces import recipe


def resolve_config(command: str, space: str, options: RunOptions) -> Config:
    """Resolve the settings of a new run: the recipe, then `--config`, then flags, then `--set`.

    Raises:
        ConfigError: if one of them is not possible.
    """
    from_file = config_file.read(options.config) if options.config is not None else {}
    from_recipe = from_file.pop("recipe", None)
    if from_file.pop("space", space) != space:
        raise ConfigError(f"{options.config}: of another space, expected space: {space}")
    assigned = config_file.parse_assignments(options.set or ())
    for key, remedy in (("space", "it as the first argument"), ("recipe", "--recipe NAME")):
        if key in assigned:
            raise ConfigError(
                f"--set {key}: not allowed, since the {key} sets the other defaults; use {remedy}"
            )
    # The data's name chooses the recipe wherever it is given; what is applied last counts.
    data = _data_name(assigned) or options.data or _data_name(from_file) or None
    config = recipe(command, space, options.recipe or from_recipe, data)
    config = config_file.override(config, from_file, str(options.config))
    config = config_file.override(config, given_settings(options, config), f"darts {command}")
    return config_file.override(config, assigned, "--set")


def given_settings(options: RunOptions, config: Config) -> dict[str, Any]:
    """Return the flags that were given as nested settings.

    Raises:
        ConfigError: if one is of another space.
    """
    nested: dict[str, Any] = {}
    for declared, declaration in flags(options):
        value = getattr(options, declared.name)
        if declaration.setting is None or value is None:
            continue
        section, _, key = declaration.setting.rpartition(".")
        group = getattr(config, section) if section else config
        if group is not None and not hasattr(group, key):
            raise ConfigError(
                f"{spelling(declared.name)}: not for {config.space}, "
                f"expected --set {section}.KEY=VALUE with one of "
                f"{', '.join(field.name for field in fields(group))}"
            )
        (nested.setdefault(section, {}) if section else nested)[key] = value
    return nested


def _data_name(settings: Mapping[str, Any]) -> Any:
    data = settings.get("data")
    return data.get("name") if isinstance(data, dict) else None
