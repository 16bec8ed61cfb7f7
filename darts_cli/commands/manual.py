"""`darts manual`: list the topics of the manual, or show the page of one of them."""

import re

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown
from rich.padding import Padding
from rich.text import Text
from rich.theme import Theme

from darts_cli.errors import ConfigError
from darts_cli.manual import find_pages

# Longer lines are hard to read.
_MAX_WIDTH = 100

# Rich's own style of code has a black background, which looks wrong on a light terminal.
_THEME = Theme({"markdown.code": "bold cyan"})

_LINK = re.compile(r"\[([^\]]+)\]\((\w+)\.md\)")
_PICTURE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")


def show_manual(topic: str | None) -> None:
    """Print the page of a topic on standard output, or the list of topics.

    Raises:
        ConfigError: if there is no such topic.
    """
    pages = {name: page.read_text(encoding="utf-8") for name, page in find_pages().items()}
    if topic is None:
        width = max(map(len, pages), default=0)
        for name, text in pages.items():
            print(f"{name:{width}}  {first_sentence(text)}")
    elif topic in pages:
        _print_page(pages[topic])
    else:
        raise ConfigError(
            f"manual: found no page {topic!r}, expected one of {', '.join(pages) or 'none'}"
        )


def first_sentence(text: str) -> str:
    """Return the sentence that a page begins with, after its heading, without markup."""
    _, sentence, *_ = text.split("\n\n")
    return " ".join(sentence.replace("`", "").split())


def _print_page(text: str) -> None:
    """Render a page for the terminal; without colours where standard output is none."""
    console = Console(highlight=False, emoji=False, theme=_THEME)
    # A terminal hides the address in the link; elsewhere it is written out.
    page = _Page(_for_terminal(text), hyperlinks=console.is_terminal)
    with console.capture() as capture:
        console.print(page, width=min(console.width, _MAX_WIDTH))
    for line in capture.get().splitlines():
        # Code is padded to the full width, which is in the way of copying it.
        print(line.rstrip())


def _for_terminal(text: str) -> str:
    """Replace what a terminal cannot follow: links to other pages, and pictures."""
    text = _PICTURE.sub(r"*Picture: \1.*", text)
    others = dict.fromkeys(match[2] for match in _LINK.finditer(text))
    text = _LINK.sub(r"*\1*", text)
    if not others:
        return text
    commands = ", ".join(f"`darts manual {topic}`" for topic in others)
    return f"{text.rstrip()}\n\nSee also: {commands}\n"


class _Heading(Heading):
    """A heading at the left, in every version of rich."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _Code(CodeBlock):
    """Code one column in, in one colour: rich's themes have backgrounds and blank lines."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = Text(str(self.text).rstrip(), style="cyan", tab_size=4)
        code.highlight_regex(r"(?m)^#.*$|(?<=\s)# .*$", "dim")
        yield Padding(code, (0, 0, 0, 1))


class _Page(Markdown):
    """Markdown as rich renders it, but for headings and code."""

    elements = Markdown.elements | {"heading_open": _Heading, "fence": _Code, "code_block": _Code}
