"""Observations of Dice from records: one per training, extrapolated for a stopped one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.config.objectives import COSTS
from search.proposers.acquire import extrapolate
from search.trials.records import Record

Matrix = NDArray[np.float64]


def trend(costs: Matrix) -> Matrix:
    """Return the log costs for the surrogate's trend, without latency, whose measured values differ between runs."""
    return np.log(np.maximum(np.delete(costs, COSTS.index("latency"), axis=1), 1e-12))


def dice_of(records: Sequence[Record]) -> tuple[Matrix, Matrix]:
    """Return each record's Dice and its standard deviation beyond noise; a stopped trial's Dice is extrapolated."""
    dice, extra = np.zeros(len(records)), np.zeros(len(records))
    complete = [_curve(record) for record in records if record.state == "trained"]
    stopped = [number for number, record in enumerate(records) if record.state == "stopped" and len(_curve(record))]
    expected, deviation = extrapolate(complete, [_curve(records[number]) for number in stopped])
    dice[stopped], extra[stopped] = expected, deviation
    for number, record in enumerate(records):
        if record.measurement.dice is not None and record.state == "trained":
            dice[number] = record.measurement.dice
    return dice, extra


def _curve(record: Record) -> Matrix:
    """Return the last validated Dice after each epoch, -1 before the first validation."""
    values, last = [], -1.0
    for epoch in record.measurement.epochs:
        last = epoch.dice if epoch.dice is not None else last
        values.append(last)
    return np.array(values)
