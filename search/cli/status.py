"""`voxnas status`: a study's progress, once or until it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from search.analysis.snapshot_reader import SnapshotReader, open_reader
from search.analysis.status import status_json, status_of, status_view
from search.api.terminal import open_console, print_text
from search.cli.running import load_results

REFRESH_S = 2.0


def show_status(study: str, overrides: Sequence[str] | None, runs: Path, json: bool, watch: bool) -> None:
    """Print it."""
    found = load_results(study, overrides, runs)
    reader = open_reader(found.settings, found.folder)
    if json:
        print_text(status_json(status_of(reader.read())))
    elif watch:
        _watch(reader)
    else:
        open_console().print(status_view(status_of(reader.read())), crop=False)  # a command to copy is never cut


def _watch(reader: SnapshotReader) -> None:
    from rich.live import Live

    with Live(console=open_console(), auto_refresh=False) as live:
        while True:
            now = status_of(reader.read())
            live.update(status_view(now), refresh=True)
            if now.state == "done":
                return
            time.sleep(REFRESH_S)
