"""`voxnas studies`: make the requested changes, then list the studies."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from search.api.terminal import open_console, print_json, print_text
from search.storage import admin


def manage_studies(database: str | None, change: admin.Change, *, runs: Path, json: bool) -> None:
    """Make the requested changes, then list the studies."""
    done = admin.change_studies(admin.find_databases(database, runs), change, runs=runs)
    some_left = database is not None or any(runs.glob("*/study.db"))  # the last one may be deleted now
    urls = admin.find_databases(database, runs) if some_left else []
    rows = [row for url in urls for row in admin.list_studies(url)]
    if json:
        print_json({"done": done, "studies": [asdict(row) for row in rows]})
        return
    for line in done:
        print_text(line)
    open_console().print(admin.studies_table(rows))
