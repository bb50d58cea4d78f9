"""The components of a page, the same in the dashboard and in report.html: figures, tables, facts, notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | tuple[float | str | None, str]  # a text, or what it sorts by and the text


@dataclass(frozen=True)
class Figure:
    """A drawing as Plotly's JSON. `label` says it to a screen reader; a click on a point opens its trial."""

    name: str
    title: str
    drawing: str
    label: str
    wide: bool = False  # scrolls sideways on a small screen
    lasso: str = ""  # the two axes that a lasso is drawn over, with a comma; none where there is no lasso


@dataclass(frozen=True)
class Table:
    """A table that sorts, filters and downloads; the first column holds a trial's number where `opens` is set."""

    name: str
    title: str
    headings: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    opens: str = ""  # trial or study: what a row's first cell leads to


@dataclass(frozen=True)
class Facts:
    """Terms with their values."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Note:
    """A sentence: why there is nothing to see, or what to know of it; its link changes a key of the address."""

    text: str
    ask: str = ""  # KEY=VALUE; without a value the key goes
    link: str = ""


@dataclass(frozen=True)
class Command:
    """A line for the terminal."""

    title: str
    line: str


@dataclass(frozen=True)
class Picture:
    """An image as a data URI."""

    title: str
    uri: str


@dataclass(frozen=True)
class Heading:
    """The title of what follows."""

    text: str


Component = Figure | Table | Facts | Note | Command | Picture | Heading
