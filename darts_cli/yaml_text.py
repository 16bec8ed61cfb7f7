"""YAML of unknown origin: it is checked to be small and plain before it is used."""

from pathlib import Path
from typing import Any

import yaml

from darts_cli.errors import DartsError

# Twenty times a genotype or file of settings. PyYAML reads as much in 0.6 s at worst.
MAX_BYTES = 32_768

# Depth of nested lists; the time of PyYAML grows with its square.
MAX_DEPTH = 20


class _NotPlain(Exception):  # noqa: N818 - made an error of one line where the file is known
    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


class _PlainLoader(yaml.SafeLoader):
    """A loader that refuses deep nesting, and aliases, which could expand a file endlessly."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node with all nodes below it."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise _NotPlain("an alias", line)
        self.depth += isinstance(event, yaml.CollectionStartEvent)
        if self.depth > MAX_DEPTH:
            raise _NotPlain(f"nesting deeper than {MAX_DEPTH}", line)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= isinstance(event, yaml.CollectionStartEvent)
        return node


def read(path: Path, error: type[DartsError], *, what: str) -> str:
    """Read the text of a file.

    Args:
        path: The file.
        error: What is raised.
        what: What the file is for, in errors.

    Raises:
        DartsError: if it is too large or no UTF-8.
        OSError: if it cannot be read.
    """
    check_size(path.stat().st_size, str(path), error, what=what)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise error(f"{path}: expected YAML text in UTF-8, found other bytes") from None


def check_size(size: int, file: str, error: type[DartsError], *, what: str) -> None:
    """Check that a document is small, before any of it is read.

    Args:
        size: Its bytes or characters.
        file: What errors call it.
        error: What is raised.
        what: What the document is for, in errors.

    Raises:
        DartsError: if it is not.
    """
    if size > MAX_BYTES:
        raise error(f"{file}: too large for {what} ({MAX_BYTES:,} bytes at most)")


def compose(text: str, file: str, error: type[DartsError]) -> yaml.Node | None:
    """Parse a document into its tree; None for an empty text.

    Args:
        text: The document.
        file: What errors call it.
        error: What is raised.

    Raises:
        DartsError: with file and line, if it is not plain YAML.
    """
    try:
        return yaml.compose(text, Loader=_PlainLoader)
    except _NotPlain as found:
        raise error(f"{file}, line {found.line}: found {found}, expected plain YAML") from None
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        raise error(f"{file}, line {line}: not YAML: {problem.problem}") from None
    except yaml.YAMLError:
        raise error(f"{file}: not YAML: unreadable characters") from None
