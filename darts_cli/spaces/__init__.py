"""The table of search spaces: what each is, its recipes, and its task.

To add a space, add a folder here and an entry to the table. The table needs no
torch, so that genotypes can be read without it; a task imports it when it is loaded.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from darts_cli.config import Config
from darts_cli.recipes import RECIPES, choose
from darts_cli.space import SearchSpace
from darts_cli.spaces.cnn.primitives import CNN
from darts_cli.spaces.rnn.primitives import RNN

if TYPE_CHECKING:
    from darts_cli.engine.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceEntry:
    """A search space with its recipes and its task."""

    space: SearchSpace
    recipes: Mapping[str, Mapping[str, Config]]
    """Sets of defaults by command, then by name; the first is the default."""
    load_task: Callable[[SearchSpace], "Task"]
    """Imports and returns networks, losses and data of the space."""


@cache
def _load_images(space: SearchSpace) -> "Task":
    from darts_cli.spaces.cnn.task import ImageTask

    return ImageTask(space)


@cache
def _load_text(space: SearchSpace) -> "Task":
    from darts_cli.spaces.rnn.task import TextTask

    return TextTask(space)


def _recipes_of(space: str) -> dict[str, Mapping[str, Config]]:
    return {command: recipes[space] for command, recipes in RECIPES.items()}


TABLE: dict[str, SpaceEntry] = {
    "cnn": SpaceEntry(space=CNN, recipes=_recipes_of("cnn"), load_task=_load_images),
    "rnn": SpaceEntry(space=RNN, recipes=_recipes_of("rnn"), load_task=_load_text),
}


class _Spaces(Mapping[str, SearchSpace]):
    """The spaces of the table by name."""

    def __getitem__(self, name: str) -> SearchSpace:
        return TABLE[name].space

    def __iter__(self) -> Iterator[str]:
        return iter(TABLE)

    def __len__(self) -> int:
        return len(TABLE)


SPACES = _Spaces()


def load_task(space: str) -> "Task":
    """Return the task of a space."""
    entry = TABLE[space]
    return entry.load_task(entry.space)


def recipe(command: str, space: str, name: str | None, data: str | None) -> Config:
    """Return the settings that a command starts from.

    Args:
        command: `search` or `train`.
        space: A search space.
        name: What `--recipe` says; None: the one named like the data, else the first.
        data: What `--data` says.

    Raises:
        ConfigError: if there is no such recipe.
    """
    return choose(TABLE[space].recipes[command], name, data, f"{command} {space}")
