"""A record as a tracker's run: its parameters, its curves, its costs and its end."""

from __future__ import annotations

import json
from datetime import datetime

from search.config.objectives import OBJECTIVES
from search.tracking.tracker import Ending, Point, Run, Scalar, TrackedStudy
from search.trials.epochs import Epoch
from search.trials.records import Measurement, Record
from space.architecture import Value


def is_tracked(record: Record) -> bool:
    """Return whether a trial is a run: once its first epoch has ended, or if it failed before.

    A network that is over budget before its first epoch was never trained.
    """
    return bool(record.measurement.epochs) or record.state not in ("running", "over budget")


def run_of(record: Record, study: TrackedStudy) -> Run:
    """Return a trial as a run."""
    parameters = {name: _scalar(value) for name, value in record.architecture.entries}
    measured = {"recipe": record.measurement.recipe, "machine": record.measurement.machine}
    tags = {"study": study.name, "trial": str(record.number), **measured}
    kind = f"reference {record.reference}" if record.reference else "repeat" if record.repeat else ""
    named = {"kind": kind} if kind else {}
    return Run(
        record.number,
        key=f"{study.study_id[:8]}-{record.number}",
        name=f"trial {record.number}" + (f" ({record.reference})" if record.reference else ""),
        started_s=_seconds(record.started),
        parameters={**parameters, "seed": record.seed, "fold": record.fold},
        tags={**{name: each for name, each in tags.items() if each}, **named},
        costs=costs_of(record.measurement),
    )


def points_of(record: Record) -> tuple[Point, ...]:
    """Return the curves of a trial's trainings; an epoch's time is the sum of the epochs' durations up to its end."""
    at_s, points = _seconds(record.started), []
    for place, epoch in enumerate(record.measurement.epochs, start=1):
        at_s += epoch.seconds
        points.append(Point(place, epoch.number, at_s, _values(epoch)))
    return tuple(points)


def ending_of(record: Record) -> Ending:
    """Return how a trial ended. Its Dice is the mean over all its trainings."""
    measurement = record.measurement
    values = {"duration_s": measurement.spent_s, **costs_of(measurement)}
    if measurement.dice is not None:
        values["final_dice"] = measurement.dice
    return Ending(record.state, measurement.reason, _seconds(record.ended or record.started), values)


def costs_of(measurement: Measurement) -> dict[str, float]:
    """Return the known costs, named with their units: memory_bytes, latency_s, macs, params."""
    costs = measurement.costs
    known = {each.column: each.read(costs) for each in OBJECTIVES.values() if costs and not each.learned}
    found = {name: value for name, value in known.items() if value is not None}
    if measurement.measured_memory is not None:
        found["measured_memory_bytes"] = float(measurement.measured_memory.allocated_bytes)
    return found


def _values(epoch: Epoch) -> dict[str, float]:
    prefix = f"training_{epoch.member + 1}/" if epoch.member else ""
    dice = {} if epoch.dice is None else {f"{prefix}dice": epoch.dice}
    return {f"{prefix}loss": epoch.loss, **dice}


def _scalar(value: Value) -> Scalar:
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
