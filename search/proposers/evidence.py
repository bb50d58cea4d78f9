"""Observations of Dice: one per training, extrapolated for a stopped one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import BayesianRidge

from search.config.objectives import COSTS
from search.proposers.observations import Training

Matrix = NDArray[np.float64]
DEFAULT_DEVIATION = 0.05  # standard deviation of a stopped curve's expected Dice with fewer than four complete curves
MIN_DEVIATION = 0.005  # and its lower bound with more


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


def extrapolate(curves: Sequence[Matrix], stopped: Sequence[Matrix]) -> tuple[Matrix, Matrix]:
    """Return the expected final Dice of stopped curves and its standard deviation, learned from complete curves.

    Bayesian ridge regression predicts the remaining gain from the gains in each third of the epochs so far. With fewer
    than four complete curves, their mean remaining gain is used.
    """
    expected, deviation = np.empty(len(stopped)), np.full(len(stopped), DEFAULT_DEVIATION)
    by_age: dict[int, list[int]] = {}
    for place, curve in enumerate(stopped):
        by_age.setdefault(len(curve), []).append(place)
    for age, places in by_age.items():  # curves of one age share a regression
        longer = [complete for complete in curves if len(complete) > age and complete[age - 1] >= 0]
        last = np.array([stopped[place][-1] for place in places])
        remaining = np.array([complete[-1] - complete[age - 1] for complete in longer])
        if len(longer) < 4:
            expected[places] = last + (remaining.mean() if len(longer) else 0.0)
            continue
        model = BayesianRidge().fit(_gains_by_third(longer, age), remaining)
        gains = _gains_by_third([stopped[place] for place in places], age)
        # One row after another: each number is the same whatever the other rows are
        deviation[places] = [np.sqrt(row @ model.sigma_ @ row + 1.0 / model.alpha_) for row in gains]
        expected[places] = last + [row @ model.coef_ + model.intercept_ for row in gains]
    return np.clip(expected, 0.0, 1.0), np.maximum(deviation, MIN_DEVIATION)


def _gains_by_third(curves: Sequence[Matrix], age: int) -> Matrix:
    """Return the gains of each curve in the thirds of its first `age` epochs, the last third first: (curves, 3).

    Unknown Dice counts as 0.
    """
    ends = [max(0, age - 1 - back) for back in (0, age // 3, 2 * age // 3, age - 1)]
    known = np.maximum(np.array([curve[ends] for curve in curves]), 0.0)
    return np.asarray(known[:, :-1] - known[:, 1:])
