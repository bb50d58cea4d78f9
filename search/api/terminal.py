"""The terminal: text from files and users is printed as it is, never read as markup or as an escape sequence."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

PIPE_WIDTH = 160  # columns of a table without a terminal
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor moves
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC and other strings: titles, links, the clipboard
    r"|\x1b[ -/]*[0-~]?"  # any other escape, and the start of an unfinished one
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # control characters except tab and newline
    r"|[\u202a-\u202e\u2066-\u2069]"  # marks that reorder text
)


_SURROGATE = re.compile(r"[\ud800-\udfff]")  # of a path whose bytes are no UTF-8: no stream can write it


def printable(text: str) -> str:
    """Remove escape sequences, control characters and marks that reorder text; replace what is no character."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", _CONTROL.sub("", text))


class PlainConsole(Console):
    """A console without markup, emoji codes or highlighting, which passes every text through `printable`."""

    def __init__(self, **options: Any) -> None:
        # In a notebook too, lines go to standard output, one after the other
        super().__init__(markup=False, emoji=False, highlight=False, force_jupyter=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Render a string, such as a table's cell."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render anything; a Text may hold text of a file too."""
        if isinstance(renderable, Text) and printable(renderable.plain) != renderable.plain:
            renderable = Text(printable(renderable.plain), style=renderable.style)
        yield from super().render(renderable, options)


def open_console(*, to_stderr: bool = False) -> Console:
    """Return the console for a verb's output, or for its progress beside JSON on standard output.

    It is as wide as the terminal, or wide enough for a table.
    """
    stream = sys.stderr if to_stderr else sys.stdout
    return PlainConsole(width=None if stream.isatty() else PIPE_WIDTH, stderr=to_stderr)


def print_text(text: object) -> None:
    """Print lines that are never wrapped, such as a command or a path to copy."""
    print(printable(str(text)))


def print_json(values: Any) -> None:
    """Print values as JSON."""
    print(json.dumps(values, indent=2))
