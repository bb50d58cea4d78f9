"""Page, its controls, and what a page is request for: the query of its address and the errands that take long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.analysis.snapshot import Snapshot
from search.visualization.components import Component


@dataclass(frozen=True)
class Control:
    """A choice of one of several, kept in the address under its key."""

    key: str
    label: str
    options: Sequence[tuple[str, str]]  # value, and how it is called
    value: str


@dataclass(frozen=True)
class Page:
    """A view: its controls and its components, from top to bottom."""

    title: str
    controls: tuple[Control, ...]
    components: tuple[Component, ...]


Work = Callable[..., Any]  # work(task, *arguments): the result, or None while it is being worked out


def _at_once(task: Callable[..., Any], *arguments: Any) -> Any:
    return task(*arguments)


@dataclass(frozen=True)
class Request:
    """A request for a page; values in the query that are not allowed count as not given."""

    query: Mapping[str, str] = field(default_factory=dict)
    work: Work = _at_once
    others: Callable[[], Sequence[Snapshot]] = tuple  # all studies that are shown
    place: str = ""  # the address's path up to the study; empty in a file that has no other pages

    def choose(self, key: str, options: Sequence[str], default: str) -> str:
        """Return the value of a key where it is one of the options."""
        value = self.query.get(key, default)
        return value if value in options else default

    def numbers(self, key: str) -> list[int]:
        """Return the whole numbers of a list with commas."""
        found = [int(text) for text in self.query.get(key, "").split(",") if text.isdigit() and len(text) < 9]
        return list(dict.fromkeys(found))

    def control(self, key: str, label: str, options: Sequence[tuple[str, str]], default: str) -> Control:
        """Return a control that stands at what is request for."""
        return Control(key, label, options, self.choose(key, [value for value, _ in options], default))
