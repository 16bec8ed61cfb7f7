"""Values that the shell completes: genotypes, recipes, strategies, runs and devices.

Each function gets what was typed so far. Nothing here imports torch, since a shell waits for it.
"""

from collections.abc import Iterable
from pathlib import Path


def genotypes(typed: str) -> list[str]:
    """Complete the name of a genotype that comes with darts, or the path of a YAML file."""
    from darts_cli.genotype.file import shipped

    return [*_matching(shipped(), typed), *_paths(typed, (".yaml",))]


def runs(typed: str) -> list[str]:
    """Complete the path of a run directory or checkpoint; runs in `runs/` come first."""
    known = (str(path.parent) for path in sorted(Path("runs").glob("*/config.yaml")))
    return list(dict.fromkeys([*_matching(known, typed), *_paths(typed, (".safetensors",))]))


def genotypes_and_runs(typed: str) -> list[str]:
    """Complete a genotype or a run."""
    return list(dict.fromkeys([*genotypes(typed), *runs(typed)]))


def recipes(typed: str) -> list[str]:
    """Complete the name of a recipe of any command and space."""
    from darts_cli.spaces import TABLE

    names = (
        name for entry in TABLE.values() for recipes in entry.recipes.values() for name in recipes
    )
    return _matching(dict.fromkeys(names), typed)


def strategies(typed: str) -> list[str]:
    """Complete the name of a strategy."""
    from darts_cli.engine.strategies import STRATEGIES

    return _matching(STRATEGIES, typed)


def topics(typed: str) -> list[str]:
    """Complete a page of the manual."""
    from darts_cli.manual import find_pages

    return _matching(find_pages(), typed)


def devices(typed: str) -> list[str]:
    """Complete the kind of a device."""
    return _matching(("cpu", "cuda", "mps"), typed)


def _matching(names: Iterable[str], typed: str) -> list[str]:
    return [name for name in names if name.startswith(typed)]


def _paths(typed: str, suffixes: tuple[str, ...]) -> list[str]:
    """Complete folders, and files with one of these suffixes."""
    folder, _, _ = typed.rpartition("/")
    try:
        entries = sorted((Path(folder or "/") if "/" in typed else Path()).iterdir())
    except OSError:
        return []
    found = (f"{path}/" if path.is_dir() else str(path) for path in entries)
    return [path for path in found if path.startswith(typed) and path.endswith(("/", *suffixes))]
