"""A file that a verb is about to write."""

from __future__ import annotations

from pathlib import Path

from search.config.errors import UserError


def require_free(file: Path, *, force: bool) -> None:
    """Raise UserError if a file exists already, unless it may be overwritten."""
    if file.exists() and not force:
        raise UserError([f"{file} exists already; choose another file, or overwrite it with --force"])
