"""Observations of Dice: one per training, extrapolated for a stopped one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.config.objectives import COSTS
from search.proposers.acquire import extrapolate
from search.proposers.observations import Training

Matrix = NDArray[np.float64]


def trend(costs: Matrix) -> Matrix:
    """Return the log costs for the surrogate's trend, without latency, whose measured values differ between runs."""
    return np.log(np.maximum(np.delete(costs, COSTS.index("latency"), axis=1), 1e-12))


def dice_of(trainings: Sequence[Training]) -> tuple[Matrix, Matrix]:
    """Return each training's Dice and its standard deviation beyond noise; a stopped one's Dice is extrapolated."""
    dice, extra = np.zeros(len(trainings)), np.zeros(len(trainings))
    complete = [each.curve for each in trainings if each.state == "trained"]
    stopped = [number for number, each in enumerate(trainings) if each.state == "stopped" and len(each.curve)]
    dice[stopped], extra[stopped] = extrapolate(complete, [trainings[number].curve for number in stopped])
    for number, each in enumerate(trainings):
        if each.dice is not None and each.state == "trained":
            dice[number] = each.dice
    return dice, extra
