"""`voxnas studies`: make the requested changes, then list the studies."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from search.api.terminal import open_console, print_json, print_text, printable
from search.config.errors import UserError
from search.storage import admin
from search.storage.database import database_exists
from search.storage.listing import Listed, list_studies, studies_table


def manage_studies(database: str | None, change: admin.Change, *, runs: Path, json: bool) -> None:
    """Make the requested changes, then list the studies."""
    urls = admin.find_databases(database, runs)
    done = admin.change_studies(urls, change, runs=runs)
    if database is None or not all(database_exists(url) for url in urls):  # it has moved with its study, or is deleted
        urls = admin.find_databases(None, runs) if any(runs.glob("*/study.db")) else []
    rows: list[Listed] = []
    unreadable: list[str] = []
    kind = UserError
    for url in urls:
        try:
            found = list_studies(url)
        except UserError as error:
            unreadable += [str(mistake) for mistake in error.mistakes]
            kind = type(error)
            continue
        rows += found
        unreadable += [f"{row.database}: {row.name}: {row.mistake}" for row in found if row.mistake]
    if json:
        print_json({"done": done, "studies": [asdict(row) for row in rows], "unreadable": unreadable})
    else:
        for line in done:
            print_text(line)
        open_console().print(studies_table(rows))
    if unreadable and not rows:
        raise kind(unreadable)
    for line in unreadable:
        print(f"voxnas: {printable(line)}", file=sys.stderr)
    if unreadable:
        raise SystemExit(1)
