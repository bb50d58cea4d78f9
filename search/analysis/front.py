"""A study's front as a table and as JSON."""

from __future__ import annotations

import json

from rich.table import Table

from search.analysis.snapshot import Snapshot
from search.config.objectives import OBJECTIVES, show, show_point
from search.config.units import counted


def front_table(snapshot: Snapshot) -> Table:
    """Return the front as a table, objectives first."""
    front, trained = snapshot.front(), [trial.state for trial in snapshot.trials].count("trained")
    title = f"{snapshot.label}: front of {len(front)} among {counted(trained, 'trained trial')}{_volume(snapshot)}"
    title += f"\n{snapshot.left_out}" if snapshot.left_out else ""
    table = Table(title=title, title_justify="left")
    table.add_column("trial", justify="right")
    columns = [
        *snapshot.study.directions,
        *(name for name in OBJECTIVES if name not in snapshot.study.directions),
    ]
    for name in columns:
        arrow = f" {OBJECTIVES[name].arrow}" if name in snapshot.study.directions else ""
        table.add_column(OBJECTIVES[name].heading + arrow, justify="right")
    table.add_column("network")
    for record in front:
        values = [show(name, record.measurement.value(name)) for name in columns]
        table.add_row(str(record.number), *values, record.architecture.describe())
    return table


def _volume(snapshot: Snapshot) -> str:
    """Format the hypervolume and its reference point."""
    if snapshot.hypervolume is None:
        return ""
    return f"\nhypervolume {snapshot.hypervolume:.4f} from {show_point(snapshot.reference)}"


def front_json(snapshot: Snapshot) -> str:
    """Return the front as JSON: values in bytes, seconds and counts."""
    rows = [
        {
            "trial": record.number,
            **{name: record.measurement.value(name) for name in OBJECTIVES},
            "fingerprint": record.architecture.fingerprint,
            "architecture": dict(record.architecture.entries),
        }
        for record in snapshot.front()
    ]
    values = {
        "study": snapshot.study.name,
        "objectives": snapshot.study.directions,
        "reference": dict(snapshot.reference),
        "hypervolume": snapshot.hypervolume,
        "left_out": snapshot.left_out,
        "front": rows,
    }
    return json.dumps(values, indent=2)
