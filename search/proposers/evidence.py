"""What records say about Dice: one observation of each training, a stopped one extrapolated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.config.objectives import COSTS
from search.proposers.acquire import extrapolate
from search.trials.records import Record

Matrix = NDArray[np.float64]


def trend(costs: Matrix) -> Matrix:
    """Return the logarithms of the costs that may explain Dice: latency is measured, and would differ by study."""
    return np.log(np.maximum(np.delete(costs, COSTS.index("latency"), axis=1), 1e-12))


def dice_of(records: Sequence[Record]) -> tuple[Matrix, Matrix]:
    """Return each record's Dice and its deviation beyond noise; a stopped trial's is extrapolated."""
    dice, extra = np.zeros(len(records)), np.zeros(len(records))
    whole = [_curve(record) for record in records if record.state == "trained"]
    stopped = [number for number, record in enumerate(records) if record.state == "stopped" and len(_curve(record))]
    expected, deviation = extrapolate(whole, [_curve(records[number]) for number in stopped])
    dice[stopped], extra[stopped] = expected, deviation
    for number, record in enumerate(records):
        if record.measurement.dice is not None and record.state == "trained":
            dice[number] = record.measurement.dice
    return dice, extra


def _curve(record: Record) -> Matrix:
    """Return the Dice after each epoch: the last validated one, -1 before the first."""
    values, last = [], -1.0
    for epoch in record.measurement.epochs:
        last = epoch.dice if epoch.dice is not None else last
        values.append(last)
    return np.array(values)
