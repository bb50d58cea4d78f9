"""A study's front as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.table import Table

from search.analysis.snapshot import Snapshot
from search.analysis.status import interrupted_trials, shown_state
from search.config.objectives import OBJECTIVES, show, show_point
from search.config.units import counted
from search.trials.records import Record

EXPECTED = ("expected Dice", "95 % interval", "front probability")


def front_table(snapshot: Snapshot) -> Table:
    """Return the front as a table, objectives first."""
    front, count = snapshot.front(), [trial.state for trial in snapshot.trials].count("trained")
    title = f"{snapshot.label}: front of {len(front)} among {counted(count, 'trained trial')}{_volume(snapshot)}"
    title += f"\n{snapshot.left_out}" if snapshot.left_out else ""
    title += f"\n{snapshot.estimates.describe()}" if snapshot.estimates else ""
    table = Table(title=title, title_justify="left")
    table.add_column("trial", justify="right")
    columns = [
        *snapshot.study.directions,
        *(name for name in OBJECTIVES if name not in snapshot.study.directions),
    ]
    for heading in EXPECTED if snapshot.estimates else ():
        table.add_column(heading, justify="right")
    for name in columns:
        arrow = f" {OBJECTIVES[name].arrow}" if name in snapshot.study.directions else ""
        measured = "measured " if name == "dice" and snapshot.estimates else ""
        table.add_column(measured + OBJECTIVES[name].heading + arrow, justify="right")
    trained = [each for each in snapshot.networks if each.state == "trained"]
    for reference in trained:
        table.add_column(f"Dice against {reference.reference} (95 %)", justify="right")
    table.add_column("network")
    differences = {(each.number, each.reference): each.shown for each in snapshot.against}
    for record in front:
        values = [show(name, record.measurement.value(name)) for name in columns]
        if record.measurement.dice_sd is not None:
            values[columns.index("dice")] += f" ± {show('dice', record.measurement.dice_sd)}"
        values += [differences.get((record.number, reference.reference), "") for reference in trained]
        table.add_row(str(record.number), *_estimated(snapshot, record), *values, record.architecture.describe())
    table.add_section()
    unknown = [""] * len(EXPECTED if snapshot.estimates else ())
    interrupted = interrupted_trials(snapshot)
    for reference in snapshot.networks:
        values = [show(name, reference.measurement.value(name)) for name in columns] + [""] * len(trained)
        state = "" if reference.state == "trained" else f" ({shown_state(reference, interrupted)})"
        what = reference.measurement.reason or reference.architecture.describe()
        text = f"reference {reference.reference}{state}: {what}"
        table.add_row(str(reference.number), *unknown, *values, text)
    return table


def _estimated(snapshot: Snapshot, record: Record) -> list[str]:
    """Return a trial's cells under EXPECTED."""
    found, row = snapshot.estimates, snapshot.row_of(record.number)
    if found is None or row is None:
        return []
    span = f"{found.low[row]:.4f} to {found.high[row]:.4f}"
    return [f"{found.dice[row]:.4f}", span, f"{found.probability[row]:.0%}"]


def _volume(snapshot: Snapshot) -> str:
    """Format the hypervolume and its reference point."""
    if snapshot.hypervolume is None:
        return ""
    return f"\n{snapshot.volume_title} {snapshot.hypervolume:.4f} from {show_point(snapshot.reference)}"


def front_json(snapshot: Snapshot) -> str:
    """Return the front as JSON: values in bytes, seconds and counts."""
    rows = [
        {
            "trial": record.number,
            **{name: record.measurement.value(name) for name in OBJECTIVES},
            **({"dice_sd": record.measurement.dice_sd} if record.measurement.members else {}),
            **snapshot.estimate_of(record.number),
            "fingerprint": record.architecture.fingerprint,
            "architecture": dict(record.architecture.entries),
            "against": {
                each.reference: asdict(each.pairs) if each.pairs else None
                for each in snapshot.against
                if each.number == record.number
            },
        }
        for record in snapshot.front()
    ]
    references = [
        {
            "name": record.reference,
            "trial": record.number,
            "state": record.state,
            "reason": record.measurement.reason,
            **{name: record.measurement.value(name) for name in OBJECTIVES},
        }
        for record in snapshot.networks
    ]
    values = {
        "study": snapshot.study.name,
        "objectives": snapshot.study.directions,
        "reference": dict(snapshot.reference),
        "hypervolume": snapshot.hypervolume,
        "hypervolume_dice": "measured" if snapshot.estimates is None else "expected",
        "left_out": snapshot.left_out,
        "noise": snapshot.estimates.noise if snapshot.estimates else None,
        "optimism": snapshot.estimates.optimism if snapshot.estimates else None,
        "front": rows,
        "references": references,
    }
    return json.dumps(values, indent=2)
