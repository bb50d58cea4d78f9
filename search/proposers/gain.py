"""Expected gain of hypervolume where only the Dice is uncertain: a sum of one-dimensional expected improvements."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Matrix = NDArray[np.float64]


def expected_gains(mean: Matrix, deviation: Matrix, costs: Matrix, *, front: Matrix) -> Matrix:
    """Return each candidate's expected gain of hypervolume.

    `mean` and `deviation` are of the logarithm of the Dice loss, which is normal; costs are exact. `costs` is (n, k)
    and `front` (m, 1 + k) of losses, Dice's first; all are scaled so that the reference is 1. A Dice loss of t gains
    the integral from t to 1 of A(u), where A(u) is the volume of costs at which the candidate is the first to have a
    Dice loss of at most u. A changes only at the front's losses, so that the expectation is a sum over them.
    """
    inside = front[(front < 1.0).all(axis=1)]
    inside = inside[np.argsort(inside[:, 0])]
    levels = np.append(inside[:, 0], 1.0)
    below = _expected_below(mean, deviation, levels)  # (n, m + 1): E[(level - loss)+]
    steps = np.diff(below, axis=1, prepend=0.0)
    if costs.shape[1] == 0:
        return np.asarray(below[:, 0])
    return np.asarray((steps * _free_volumes(costs, inside[:, 1:])).sum(axis=1))


def _expected_below(mean: Matrix, deviation: Matrix, levels: Matrix) -> Matrix:
    """E[(level - loss)+] for lognormal losses: the price of a put (Black and Scholes, 1973)."""
    spread = np.maximum(deviation, 1e-12)[:, None]
    standard = (np.log(np.maximum(levels, 1e-12))[None, :] - mean[:, None]) / spread
    middle = np.exp(mean + 0.5 * deviation**2)[:, None]
    return np.asarray(np.maximum(levels[None, :] * ndtr(standard) - middle * ndtr(standard - spread), 0.0))


def _free_volumes(costs: Matrix, front: Matrix) -> Matrix:
    """For each candidate the volume of costs that it reaches and the first 0 to m front points do not: (n, m + 1)."""
    if costs.shape[1] == 1:
        least = np.minimum.accumulate(np.append(1.0, front[:, 0]))
        return np.maximum(least[None, :] - costs, 0.0)
    if costs.shape[1] == 2:
        return _free_areas(costs, front)
    free = np.empty((len(costs), len(front) + 1))
    for row, cost in enumerate(costs):
        clipped = np.maximum(front, cost)
        box = float(np.prod(np.maximum(1.0 - cost, 0.0)))
        for count in range(len(front) + 1):
            taken = moocore.hypervolume(clipped[:count], ref=np.ones(len(cost))) if count and box else 0.0
            free[row, count] = box - taken
    return free


def _free_areas(costs: Matrix, front: Matrix) -> Matrix:
    """`_free_volumes` in two costs: strips between the front's first costs, each free below the best second cost."""
    edges = np.unique(np.append(front[:, 0], 1.0))
    widths = np.maximum(edges[None, 1:] - np.maximum(edges[None, :-1], costs[:, :1]), 0.0)
    first = np.maximum(edges[0] - costs[:, 0], 0.0)  # left of the whole front
    height = np.ones(len(edges) - 1)
    free = np.empty((len(costs), len(front) + 1))
    open_height = np.maximum(1.0 - costs[:, 1], 0.0)
    for count in range(len(front) + 1):
        if count:
            reached = edges[:-1] >= front[count - 1, 0]
            height = np.where(reached, np.minimum(height, front[count - 1, 1]), height)
        free[:, count] = first * open_height + (widths * np.maximum(height[None] - costs[:, 1:], 0.0)).sum(axis=1)
    return free
