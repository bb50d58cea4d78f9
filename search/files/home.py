"""Paths that begin with a tilde: a home folder, or a folder that is called like that."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def absolute(path: str | Path) -> Path:
    """Return an absolute path without links; `~` and `~NAME` are home folders unless there is a folder of that name."""
    named = Path(path)
    if not named.exists():
        with suppress(RuntimeError):  # no user has this name
            named = named.expanduser()
    return Path(os.path.realpath(named))  # unlike `resolve`, also of a loop of links
