"""The components of a page, the same in the dashboard and in report.html: figures, tables, facts, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | tuple[float | str | None, str]  # text, or (sort key, text)


@dataclass(frozen=True)
class Figure:
    """A Plotly figure as JSON; `label` describes it to screen readers. A click on a point opens its trial."""

    name: str
    title: str
    drawing: str
    label: str
    wide: bool = False  # scrolls sideways on a small screen
    lasso: str = ""  # the two axes of the lasso, separated by a comma; empty without a lasso


@dataclass(frozen=True)
class Figures:
    """Figures side by side where the window is wide enough."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Table:
    """A table that can be sorted, filtered and downloaded; with `opens`, its first column links to a trial or study."""

    name: str
    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    opens: str = ""  # trial or study


@dataclass(frozen=True)
class Facts:
    """Pairs of a term and its value."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Note:
    """A sentence, for instance why a figure is missing; its optional link changes a key of the URL's query."""

    text: str
    ask: str = ""  # KEY=VALUE; without a value, the key is removed
    link: str = ""


@dataclass(frozen=True)
class Command:
    """A command line, preceded by a sentence."""

    title: str
    line: str


@dataclass(frozen=True)
class Picture:
    """An image as a data URI."""

    title: str
    uri: str


@dataclass(frozen=True)
class Heading:
    """A heading of the components that follow."""

    text: str


Component = Figure | Figures | Table | Facts | Note | Command | Picture | Heading
