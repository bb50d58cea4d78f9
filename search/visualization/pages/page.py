"""Page and its controls, and Request: the query of a page's URL, and how to run its slow tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.analysis.snapshot import Snapshot
from search.visualization.components import Component


@dataclass(frozen=True)
class Control:
    """A selector of one of several options, stored in the URL under its key."""

    key: str
    label: str
    options: Sequence[tuple[str, str]]  # (value, label)
    value: str


@dataclass(frozen=True)
class Page:
    """A view: its controls and its components, from top to bottom."""

    title: str
    controls: tuple[Control, ...]
    components: tuple[Component, ...]


Work = Callable[..., Any]  # work(task, *arguments): the result, or None while the task runs


def _at_once(task: Callable[..., Any], *arguments: Any) -> Any:
    return task(*arguments)


@dataclass(frozen=True)
class Request:
    """A request for a page; invalid values in the query are ignored."""

    query: Mapping[str, str] = field(default_factory=dict)
    work: Work = _at_once
    others: Callable[[], Sequence[Snapshot]] = tuple  # all studies that are shown
    place: str = ""  # the URL path up to the study; empty in a file without other pages

    def choose(self, key: str, options: Sequence[str], default: str) -> str:
        """Return the value of a key if it is one of the options, else the default."""
        value = self.query.get(key, default)
        return value if value in options else default

    def numbers(self, key: str) -> list[int]:
        """Return the integers of a comma-separated list."""
        found = [int(text) for text in self.query.get(key, "").split(",") if text.isdigit() and len(text) < 9]
        return list(dict.fromkeys(found))

    def control(self, key: str, label: str, options: Sequence[tuple[str, str]], default: str) -> Control:
        """Return a control set to the requested value."""
        return Control(key, label, options, self.choose(key, [value for value, _ in options], default))
