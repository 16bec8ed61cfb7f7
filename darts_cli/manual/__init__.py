"""The pages of the manual: every Markdown file in this folder is one."""

from importlib.resources import files
from importlib.resources.abc import Traversable


def find_pages() -> dict[str, Traversable]:
    """Return the pages by topic, in alphabetical order."""
    found = {
        page.name.removesuffix(".md"): page
        for page in files("darts_cli.manual").iterdir()
        if page.name.endswith(".md")
    }
    return dict(sorted(found.items()))
