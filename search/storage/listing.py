"""The studies of a database with their trials by state, as `voxnas studies` lists them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import sqlalchemy as sql
from rich.table import Table

from search.config.errors import UserError
from search.config.units import counted
from search.storage.address import show_url
from search.storage.heartbeat import present_drivers
from search.storage.reader import has_known_tables, open_storage, read_records, reading

STUDIES = sql.text(
    "SELECT s.study_name, MIN(t.datetime_start), MAX(t.datetime_complete) FROM studies s"
    " LEFT JOIN trials t ON t.study_id = s.study_id GROUP BY s.study_name ORDER BY s.study_name"
)


@dataclass(frozen=True)
class Listed:
    """A study of a database: its trials by state, when it began and when its last trial ended.

    `mistake` says why its trials can't be read; empty if they can.
    """

    database: str
    name: str
    states: dict[str, int]
    began: str
    ended: str
    mistake: str = ""


def list_studies(url: str) -> list[Listed]:
    """Return the studies of a database. Raises UserError if its tables have another version."""
    with reading(url) as engine:
        if engine is None:
            raise UserError([f"{show_url(url)}: the studies of a proxy are not listed"])
        with engine.connect() as connection:
            if not has_known_tables(connection):
                with open_storage(url):
                    pass  # raises for tables of another version
            rows = connection.execute(STUDIES).all()
    found = []
    for name, began, ended in rows:
        states, mistake = dict[str, int](), ""
        try:
            states = _states(url, name)
        except UserError as error:  # the other studies are listed all the same
            mistake = str(error.mistakes[0])
        found.append(Listed(show_url(url), name, states, str(began or "")[:16], str(ended or "")[:16], mistake))
    return found


def _states(url: str, name: str) -> dict[str, int]:
    """Return how many trials of a study are in each state."""
    records = read_records(url, name)
    present = present_drivers(url, name) if any(each.state == "running" for each in records) else set()
    return dict(
        Counter(
            "interrupted" if each.state == "running" and each.driver not in present else each.state for each in records
        )
    )


def studies_table(rows: list[Listed]) -> Table:
    """Return studies as a table."""
    table = Table(title=counted(len(rows), "study", plural="studies"), title_justify="left")
    for heading in ("study", "trials", "began", "last trial ended", "database"):
        table.add_column(heading)
    for row in rows:
        states = ", ".join(f"{count} {state}" for state, count in row.states.items()) or "none"
        table.add_row(row.name, "can't be read" if row.mistake else states, row.began, row.ended, row.database)
    return table
