"""A study as its records show it, without its data: what `front`, `report` and the dashboard read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from search.objectives import HEADINGS, OBJECTIVES, show
from search.pareto import pareto_front
from search.plan import run_folder
from search.records import Record
from search.store import REFERENCE, database_url, read_records, read_study_attribute
from search.study import LoadedStudy, Study


@dataclass(frozen=True)
class Look:
    """A study, its records, its front and its hypervolume's reference."""

    study: Study
    folder: Path
    records: tuple[Record, ...]
    front: tuple[Record, ...]
    reference: dict[str, float]


def look(loaded: LoadedStudy, *, runs: Path) -> Look:
    """Read a study's records. Raises UserError where nothing has run yet."""
    study, folder = loaded.study, run_folder(runs, loaded.study)
    url = database_url(study.storage, folder)
    records = read_records(url, study.name)
    front = pareto_front(records, study.directions)
    return Look(study, folder, tuple(records), tuple(front), read_study_attribute(url, study.name, REFERENCE) or {})


def front_table(looked: Look) -> Table:
    """Return the front as a table, objectives first."""
    states = [record.state for record in looked.records]
    trained = states.count("trained")
    title = f"{looked.study.name}: front of {len(looked.front)} among {trained} trained trials"
    table = Table(title=title, title_justify="left")
    table.add_column("trial", justify="right")
    columns = [
        *looked.study.directions,
        *(name for name in OBJECTIVES if name not in looked.study.directions),
    ]
    for name in columns:
        arrow = {"maximize": " ↑", "minimize": " ↓"}.get(looked.study.directions.get(name, ""), "")
        table.add_column(HEADINGS[name] + arrow, justify="right")
    table.add_column("network")
    for record in looked.front:
        values = [show(name, record.measurement.value(name)) for name in columns]
        table.add_row(str(record.number), *values, record.architecture.describe())
    return table


def front_json(looked: Look) -> str:
    """Return the front as JSON: values in bytes, seconds and counts."""
    rows = [
        {
            "trial": record.number,
            **{name: record.measurement.value(name) for name in OBJECTIVES},
            "fingerprint": record.architecture.fingerprint,
            "architecture": dict(record.architecture.entries),
        }
        for record in looked.front
    ]
    values = {"study": looked.study.name, "objectives": looked.study.directions, "front": rows}
    return json.dumps(values, indent=2)
