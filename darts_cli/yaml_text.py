"""YAML from others: checked to be small and plain before anything is made of it."""

from pathlib import Path

import yaml

from darts_cli.errors import DartsError

MAX_BYTES = 1_000_000
"""No genotype or file of settings is near this size; a larger file is something else."""

MAX_DEPTH = 50
"""Lists within lists; PyYAML takes time that grows with the square of it."""


def read(path: Path, error: type[DartsError], *, what: str) -> str:
    """The text of a file.

    Args:
        path: The file.
        error: What is raised.
        what: What the file is for, in errors.

    Raises:
        DartsError: if it is too large or no UTF-8.
        OSError: if it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise error(f"{path}: too large for {what} ({MAX_BYTES:,} bytes at most)")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise error(f"{path}: expected YAML text in UTF-8, found other bytes") from None


def compose(text: str, file: str, error: type[DartsError]) -> yaml.Node | None:
    """The document's tree, without aliases and deep nesting; None for an empty text.

    Args:
        text: The document.
        file: What errors call it.
        error: What is raised.

    Raises:
        DartsError: with file and line, if it is not plain YAML.
    """
    depth = 0
    try:
        # Aliases could make a small file expand without end.
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH:
                found = f"nesting deeper than {MAX_DEPTH}" if depth > MAX_DEPTH else "an alias"
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise error(f"{file}, line {line}: found {found}, expected plain YAML")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise error(f"{file}, line {line}: not YAML: {problem.problem}") from None
    except yaml.YAMLError:
        raise error(f"{file}: not YAML: unreadable characters") from None
