"""The first line of a verb, printed before anything that takes seconds is imported."""

from __future__ import annotations

from pathlib import Path


def announce(file: Path, *, quiet: bool = False, to_stderr: bool = False) -> None:
    """Print that a file is being read, unless `quiet`; on standard error where results go to standard output."""
    if not quiet:
        from search.api.terminal import open_console

        open_console(to_stderr=to_stderr).print(f"reading {file}", soft_wrap=True)
