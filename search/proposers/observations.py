"""A training as the surrogate sees it: plain values, without the libraries that learn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.config.objectives import COSTS
from search.trials.records import Costs, Record, State
from space.architecture import Value

Matrix = NDArray[np.float64]
FEWEST = 8  # trained networks from which expected Dice is estimated


@dataclass(frozen=True)
class Training:
    """One training as the surrogate sees it.

    `network` is the architecture's fingerprint, `costs` are in the order of COSTS with NaN for unknown ones, and
    `curve` holds the last validated Dice after each epoch, -1 before the first validation.
    """

    network: str
    decisions: Mapping[str, Value]
    costs: Matrix
    state: State
    dice: float | None
    curve: Matrix


def training_of(record: Record) -> Training:
    """Return a record as the surrogate sees it."""
    measurement = record.measurement
    costs = np.full(len(COSTS), np.nan) if measurement.costs is None else cost_row(measurement.costs)
    curve = curve_of(measurement.first_dice)
    return Training(
        record.architecture.fingerprint, dict(record.decisions), costs, record.state, measurement.dice, curve
    )


def curve_of(dice: Sequence[float | None]) -> Matrix:
    """Return the last validated Dice after each epoch, -1 before the first validation."""
    values, last = [], -1.0
    for each in dice:
        last = each if each is not None else last
        values.append(last)
    return np.array(values)


def cost_row(costs: Costs) -> Matrix:
    """Return costs in the order of COSTS; NaN for a cost that was not measured."""
    return np.array([np.nan if (value := costs.of(name)) is None else value for name in COSTS], dtype=float)
