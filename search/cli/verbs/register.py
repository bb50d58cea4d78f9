"""Register verbs: under a heading of `voxnas --help`, with an example in the verb's own help."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

START, SEARCH, RESULTS, COMPARE, DEPLOY = (
    "Get started",
    "Search",
    "Results",
    "Ablations and benchmarks",
    "Use a network",
)
Verb = TypeVar("Verb", bound=Callable[..., Any])
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a Path has only one slash left; a drive's name is one letter


class _VerbCommand(TyperCommand):
    """A verb that takes no URL for a path: writing to it would make folders of that name."""

    def invoke(self, ctx: Any) -> Any:
        for given in ctx.params.values():
            for path in given if isinstance(given, (list, tuple)) else (given,):
                if isinstance(path, Path):
                    _refuse_url(path)
        return super().invoke(ctx)


def _refuse_url(path: Path) -> None:
    """Raise UserError if a path is a URL, and there is no folder that is called like its scheme."""
    if URL.match(str(path)) and not Path(path.parts[0]).exists():
        from search.config.errors import UserError

        where = "a study file names its database by `storage`"
        raise UserError([f"a file or folder is expected instead of the URL {path.parts[0]}//...; {where}"])


def verb(app: typer.Typer, heading: str, *, example: str, name: str | None = None) -> Callable[[Verb], Verb]:
    """Register a function as a verb; help texts are rich markup, so they must not contain square brackets."""
    return app.command(name, cls=_VerbCommand, rich_help_panel=heading, epilog=f"Example: {example}")
