"""The flags that `search` and `train` share, and how they become settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from darts_cli import config_file
from darts_cli.commands.tensorboard import check_installed
from darts_cli.config import ComputeConfig, Config
from darts_cli.errors import ConfigError
from darts_cli.recipes import recipe

_SETTINGS = {
    "seed": "seed",
    "epochs": "epochs",
    "data": "data.name",
    "image_size": "data.image_size",
    "min_count": "data.min_count",
    "batch_size": "data.batch_size",
    "channels": "network.channels",
    "layers": "network.layers",
    "width": "network.width",
    "lr": "weights.lr",
    "order": "alphas.order",
    "hypergradient": "alphas.hypergradient",
    "strategy": "alphas.strategy",
    "precision": "compute.precision",
    "accumulate": "compute.accumulate",
    "sync_batchnorm": "compute.sync_batchnorm",
}
"""Which setting a flag changes."""

_LONGEST = 10**8
"""Of minutes or steps between checkpoints."""

_KEPT_ON_RESUME = {
    *("resume", "gpu", "device", "memory", "epochs"),
    *("max_steps", "checkpoint_every", "dry_run", "probe", "tensorboard"),
    *("precision", "accumulate", "compile", "deterministic", "sync_batchnorm"),
    *("quiet", "no_live"),
}
"""Flags that may be given with `--resume`: they do not change what has been computed, or how the
rest of it is, on another machine, or what is shown of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a user said; None where nothing was said."""

    data: str | None = None
    out: Path | None = None
    gpu: int | None = None
    device: str | None = None
    seed: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    image_size: int | None = None
    min_count: int | None = None
    channels: int | None = None
    layers: int | None = None
    width: int | None = None
    lr: float | None = None
    order: str | None = None
    hypergradient: str | None = None
    strategy: str | None = None
    recipe: str | None = None
    config: Path | None = None
    set: tuple[str, ...] = ()
    resume: Path | None = None
    max_steps: int | None = None
    checkpoint_every: str = "10"
    """Minutes, or steps as in `500steps`."""
    dry_run: bool = False
    probe: bool = False
    memory: str | None = None
    precision: str | None = None
    accumulate: int | None = None
    compile: bool = False
    deterministic: bool = False
    tensorboard: bool = False
    sync_batchnorm: bool | None = None
    quiet: bool = False
    no_live: bool = False

    @property
    def save_memory(self) -> bool:
        """Whether to keep as little as can be for the way back."""
        return self.memory == "save"

    def __post_init__(self) -> None:
        if self.tensorboard:
            check_installed()
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"--max-steps: found {self.max_steps}, expected 1 or more")
        self.checkpoint_interval()

    def checkpoint_interval(self) -> tuple[float, int | None]:
        """Seconds between checkpoints, and the steps that take their place if they are given.

        Raises:
            ConfigError: if `checkpoint_every` is neither.
        """
        text = self.checkpoint_every.strip()
        number, steps = text.removesuffix("steps"), text.endswith("steps")
        try:
            value = int(number) if steps else float(number)
        except ValueError:
            value = 0
        if not 0 < value <= _LONGEST:
            raise ConfigError(
                f"--checkpoint-every: found {text!r}, expected minutes above 0, such as 10, "
                "or steps, such as 500steps"
            )
        return (math.inf, int(value)) if steps else (60 * value, None)


def settle(command: str, space: str, options: Options) -> Config:
    """The settings of a new run: recipe, then `--config`, then flags, then `--set`.

    Raises:
        ConfigError: if one of them is not possible.
    """
    from_file = config_file.read(options.config) if options.config is not None else {}
    from_recipe = from_file.pop("recipe", None)
    if from_file.pop("space", space) != space:
        raise ConfigError(f"{options.config}: of another space, expected space: {space}")
    assigned = config_file.parse_assignments(options.set)
    for key in ("space", "recipe"):
        if key in assigned:
            raise ConfigError(
                f"--set {key}: what the other settings start from, expected "
                f"{'--recipe NAME' if key == 'recipe' else 'it as the first argument'}"
            )
    # The data's name chooses the recipe, wherever it is given; what is applied last counts.
    from_set, in_file = _inner(assigned, "data").get("name"), _inner(from_file, "data").get("name")
    config = recipe(
        command, space, options.recipe or from_recipe, from_set or options.data or in_file
    )
    config = config_file.override(config, from_file, str(options.config))
    config = config_file.override(config, _flags(options, config), f"darts {command}")
    return config_file.override(config, assigned, "--set")


def change_execution(config: Config, options: Options) -> Config:
    """The settings of a run that goes on, with what the flags say of how it is computed.

    Raises:
        ConfigError: if one of them is not possible.
    """
    given = {field.name: getattr(options, field.name) for field in fields(ComputeConfig)}
    changes = {name: value for name, value in given.items() if value is not None}
    return config_file.override(config, {"compute": changes}, "--resume")


def _flags(options: Options, config: Config) -> dict[str, Any]:
    """The flags that were given, as nested settings.

    Raises:
        ConfigError: if one is of another space.
    """
    nested: dict[str, Any] = {}
    for flag, setting in _SETTINGS.items():
        value = getattr(options, flag)
        if value is not None:
            *section, key = setting.split(".")
            group = getattr(config, section[0]) if section else config
            if group is not None and not hasattr(group, key):
                raise ConfigError(
                    f"--{flag.replace('_', '-')}: not for {config.space}, "
                    f"expected --set {section[0]}.KEY=VALUE with one of "
                    f"{', '.join(field.name for field in fields(group))}"
                )
            inner = nested.setdefault(section[0], {}) if section else nested
            inner[key] = value
    return nested


def _inner(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}


def refuse_changes(options: Options) -> None:
    """With `--resume`, a run goes on under its own settings.

    Raises:
        ConfigError: naming the flags that would change them.
    """
    for field in fields(options):
        if field.name not in _KEPT_ON_RESUME and getattr(options, field.name) not in (None, ()):
            flag = "--" + field.name.replace("_", "-")
            raise ConfigError(
                f"{flag}: not with --resume, which goes on under the run's own settings; "
                "only --epochs, --max-steps, --checkpoint-every, --tensorboard, --quiet, --no-live "
                "and what is under Device in --help may change"
            )
