"""The command line: options, commands, terminal tables, progress."""

from search.cli.app import main

__all__ = ["main"]
