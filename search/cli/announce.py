"""The first line of a verb's output, printed before slow imports."""

from __future__ import annotations

from pathlib import Path


def announce(file: Path | str, *, quiet: bool = False, to_stderr: bool = False) -> None:
    """Print that a file is being read, unless `quiet`; `to_stderr` keeps standard output free for results."""
    if not quiet:
        from search.api.terminal import open_console
        from search.config.secrets import without_secret

        open_console(to_stderr=to_stderr).print(f"reading {without_secret(str(file))}", soft_wrap=True)
