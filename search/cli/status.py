"""`voxnas status`: a study's progress, once or until it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from search.analysis.status import status_json, status_view, study_status
from search.api.terminal import open_console, say
from search.cli.running import load_results
from search.config import LoadedStudy

REFRESH_S = 2.0


def show_status(study: str, overrides: Sequence[str] | None, runs: Path, json: bool, watch: bool) -> None:
    """Print it."""
    found = load_results(study, overrides, runs)
    loaded, runs = found.loaded, found.runs
    if json:
        say(status_json(study_status(loaded, runs=runs)))
    elif watch:
        _watch(loaded, runs)
    else:
        open_console().print(status_view(study_status(loaded, runs=runs)))


def _watch(loaded: LoadedStudy, runs: Path) -> None:
    from rich.live import Live

    with Live(console=open_console(), auto_refresh=False) as live:
        while True:
            now = study_status(loaded, runs=runs)
            live.update(status_view(now), refresh=True)
            if now.is_over:
                return
            time.sleep(REFRESH_S)
