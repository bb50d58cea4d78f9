"""`voxnas studies`: make the requested changes, then list the studies."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from search.api.terminal import open_console, print_json, print_text, printable
from search.config.errors import UserError
from search.storage import admin


def manage_studies(database: str | None, change: admin.Change, *, runs: Path, json: bool) -> None:
    """Make the requested changes, then list the studies."""
    done = admin.change_studies(admin.find_databases(database, runs), change, runs=runs)
    some_left = database is not None or any(runs.glob("*/study.db"))  # the last one may be deleted now
    urls = admin.find_databases(database, runs) if some_left else []
    rows: list[admin.Listed] = []
    unreadable: list[str] = []
    kind = UserError
    for url in urls:
        try:
            rows += admin.list_studies(url)
        except UserError as error:
            unreadable += [str(mistake) for mistake in error.mistakes]
            kind = type(error)
    if json:
        print_json({"done": done, "studies": [asdict(row) for row in rows], "unreadable": unreadable})
    else:
        for line in done:
            print_text(line)
        open_console().print(admin.studies_table(rows))
    if unreadable and not rows:
        raise kind(unreadable)
    for line in unreadable:
        print(f"voxnas: {printable(line)}", file=sys.stderr)
    if unreadable:
        raise SystemExit(1)
