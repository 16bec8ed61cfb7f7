"""Runs as one HTML page without further files, made of the files of `page/`."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from darts_cli.errors import ConfigError
from darts_cli.run.files import write_text
from darts_cli.viz.page.data import RunPage, page_data, title
from darts_cli.viz.text import count

# Bytes that a page stays under, to be sent by mail and to open at once on a phone.
SIZE_LIMIT = 2_000_000

# Epochs of all runs in the slider and in curves at first; drawing more cells takes minutes.
SNAPSHOTS, ROWS = 500, 24_000

# The parts of the script; each may use those before it.
SCRIPTS = ("elements.js", "cells.js", "curves.js", "report.js")

# Share of the epochs that is kept when a page turns out too large.
_FIT = 0.8


def write(pages: Sequence[RunPage], path: Path) -> None:
    """Write one page of one run or more, whole or not at all.

    Args:
        pages: The runs in their order; several are compared.
        path: The HTML file; links to the runs' files are relative to it.

    Raises:
        ConfigError: if these runs cannot be compared, or do not fit in `SIZE_LIMIT`.
        WriteError: if the page cannot be written.
    """
    write_text(path, render(pages, path.parent))


def render(pages: Sequence[RunPage], folder: Path) -> str:
    """Return the HTML text of the page in the folder `folder`.

    Raises:
        ConfigError: as `write` does.
    """
    _check(pages)
    share = 1.0
    while True:
        snapshots, rows = (max(int(share * n / len(pages)), 1) for n in (SNAPSHOTS, ROWS))
        text = _fill(page_data(pages, folder, snapshots, rows), title(pages))
        if len(text.encode()) < SIZE_LIMIT:
            return text
        if rows == 1:
            raise ConfigError(
                f"{count(len(pages), 'run')}: found too much for a page of "
                f"{SIZE_LIMIT:,} bytes even with one epoch of each; show fewer runs"
            )
        share *= _FIT


def _check(pages: Sequence[RunPage]) -> None:
    histories = [page.history for page in pages]
    if not histories:
        raise ConfigError("found no run to show, expected one or more")
    first, seen = histories[0], set()
    for history in histories:
        if history.space.name != first.space.name:
            raise ConfigError(
                f"{history.path}: found a run of space {history.space.name!r}, expected "
                f"{first.space.name!r} as of {first.path}; write a page for each space"
            )
        if history.path.resolve() in seen:
            raise ConfigError(f"{history.path}: found this run twice, expected each once")
        seen.add(history.path.resolve())


def _fill(data: dict[str, Any], page_title: str) -> str:
    style, script = _read("report.css"), "\n".join(map(_read, SCRIPTS))
    return Template(_read("report.html")).substitute(
        title=html.escape(page_title),
        policy=(
            f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
            "base-uri 'none'; form-action 'none'"
        ),
        style=style,
        script=script,
        data=_embed(data),
    )


def _read(name: str) -> str:
    return files("darts_cli.viz").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the digest by which a content security policy allows this one text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embed(data: dict[str, Any]) -> str:
    """Return JSON that can stand in a script element."""
    # Else a text in it could end the element, or begin another one or a comment.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
