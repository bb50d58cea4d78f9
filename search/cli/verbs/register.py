"""Register verbs: under a heading of `voxnas --help`, with an example in the verb's own help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer

START, SEARCH, RESULTS, COMPARE, DEPLOY = (
    "Get started",
    "Search",
    "Results",
    "Ablations and benchmarks",
    "Use a network",
)
Verb = TypeVar("Verb", bound=Callable[..., Any])


def verb(app: typer.Typer, heading: str, *, example: str, name: str | None = None) -> Callable[[Verb], Verb]:
    """Register a function as a verb; help texts are rich markup, so they must not contain square brackets."""
    return app.command(name, rich_help_panel=heading, epilog=f"Example: {example}")
