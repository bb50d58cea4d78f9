"""Pareto fronts and hypervolumes of records (by moocore); only fully trained networks can be on a front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from search.config.errors import UserError
from search.config.objectives import OBJECTIVES, per_device, primary
from search.trials.records import Record

Matrix = NDArray[np.float64]
KEPT_MARGIN = 0.03  # Dice below the front up to which weights are kept: noise may hide that a network belongs there
BLOCK = 200  # rows that are compared with the front at once


def comparable(records: Sequence[Record], directions: Mapping[str, str]) -> list[Record]:
    """Return the trained records that have a value for every objective.

    Latencies are only comparable on one device, thread count and precision. If latency is an objective, only the
    records of the most frequent setting are returned.
    """
    chosen = [
        record
        for record in records
        if record.state == "trained" and None not in [record.measurement.value(name) for name in directions]
    ]
    if per_device(directions):
        settings = [latency_setting(record) for record in chosen]
        main = most_frequent_setting(settings)
        chosen = [record for record, setting in zip(chosen, settings, strict=True) if setting == main]
    return chosen


def latency_setting(record: Record) -> str:
    """Return the device, threads and precision of a record's latency; empty without a latency."""
    latency = record.measurement.latency
    return latency.setting if latency else ""


def most_frequent_setting(settings: Sequence[str]) -> str:
    """Return the most frequent setting, the last one on a tie; empty if there are none."""
    counts = Counter(setting for setting in reversed(settings) if setting)
    return max(counts, key=lambda setting: counts[setting], default="")


def refuse_mixed_devices(settings: Sequence[str]) -> None:
    """Raise UserError if latencies belong to more than one device, thread count or precision."""
    distinct = sorted(set(settings))
    if len(distinct) > 1:
        problem = "latencies of different devices, threads or precisions can't be compared on one front"
        raise UserError([f"{problem}: {'; '.join(distinct)}"])


def losses(records: Sequence[Record], directions: Mapping[str, str]) -> Matrix:
    """Return losses, all to be minimised: one row per record, one column per objective."""
    rows = [[_loss(record, name) for name in directions] for record in records]
    return np.array(rows, dtype=float).reshape(len(rows), len(directions))


def _loss(record: Record, name: str) -> float:
    value = record.measurement.value(name)
    if value is None:
        raise ValueError(f"trial {record.number} has no {name}")
    return float(OBJECTIVES[name].loss(value))


def pareto_front(records: Sequence[Record], directions: Mapping[str, str]) -> list[Record]:
    """Return the non-dominated records, sorted by the first objective, best first."""
    chosen = comparable(records, directions)
    if not chosen:
        return []
    points = losses(chosen, directions)
    kept = non_dominated(points)
    order = np.lexsort(points.T[::-1])
    return [chosen[index] for index in order if kept[index]]


def non_dominated(points: Matrix) -> NDArray[np.bool_]:
    """Return a mask of the non-dominated rows, all columns minimised; of equal rows, only the first."""
    kept: NDArray[np.bool_] = moocore.is_nondominated(points, keep_weakly=False)
    return kept


def near_front(records: Sequence[Record], directions: Mapping[str, str], *, margin: float) -> list[Record]:
    """Return the records that would be on the front if their Dice were `margin` higher, and the front itself."""
    chosen = comparable(records, directions)
    if "dice" not in directions or not chosen:
        return pareto_front(records, directions)
    points = losses(chosen, directions)
    front = points[non_dominated(points)]
    lifted = points - margin * (np.array(list(directions)) == "dice")
    beaten = [((front <= point).all(axis=1) & (front < point).any(axis=1)).any() for point in lifted]
    return [record for record, behind in zip(chosen, beaten, strict=True) if not behind]


def hypervolume(records: Sequence[Record], directions: Mapping[str, str], reference: Mapping[str, float]) -> float:
    """Return the share of the box between the ideal point (Dice 1, costs 0) and the reference that records dominate."""
    chosen = comparable(records, directions)
    return volume(losses(chosen, directions), worst_losses(reference, directions)) if chosen else 0.0


def volumes_so_far(points: Matrix, worst: Matrix) -> list[float]:
    """Return the hypervolume after each row of losses; recomputed only when a row joins the front."""
    front, share, found = np.empty((0, len(worst))), 0.0, []
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        behind = np.asarray((front[None] <= block[:, None]).all(axis=2)).any(axis=1)
        for point, hopeless in zip(block, np.asarray(behind | ~(block < worst).all(axis=1)), strict=True):
            if not hopeless and not (front <= point).all(axis=1).any():  # the front has grown within the block
                front = np.vstack([front[~(point <= front).all(axis=1)], point])
                share = volume(front, worst)
            found.append(share)
    return found


def worst_losses(reference: Mapping[str, float], directions: Mapping[str, str]) -> Matrix:
    """Return the losses of a hypervolume's reference point."""
    return np.array([OBJECTIVES[name].loss(reference[name]) for name in directions])


def volume(points: Matrix, worst: Matrix) -> float:
    """Return the share of the box between 0 and `worst` (the reference's losses) that rows of losses dominate."""
    inside = points[(points < worst).all(axis=1)]
    return float(moocore.hypervolume(inside / worst, ref=np.ones(len(worst)))) if len(inside) else 0.0


def knee(front: Sequence[Record], directions: Mapping[str, str]) -> Record:
    """Return the front's knee: the point nearest to the ideal corner, with objectives scaled to the front's range.

    Raises UserError on an empty front.
    """
    if not front:
        raise UserError(["the front is empty: no trial was trained to its end within the budgets"])
    return front[knee_of(losses(front, directions))]


def knee_of(points: Matrix) -> int:
    """Return the row of a front's losses that is nearest to the ideal corner, scaled to the front's own range."""
    span = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
    return int(np.argmin(np.linalg.norm(scaled, axis=1)))


def best(front: Sequence[Record], directions: Mapping[str, str]) -> Record:
    """Return the front's best point in the primary objective. Raises UserError on an empty front."""
    if not front:
        raise UserError(["the front is empty: no trial was trained to its end within the budgets"])
    return min(front, key=lambda record: _loss(record, primary(directions)))
