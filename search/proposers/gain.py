"""Expected hypervolume improvement if only Dice is uncertain: a sum of one-dimensional expected improvements."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from search.proposers.surrogate import Foreseen

Matrix = NDArray[np.float64]


def gains(foreseen: Foreseen, *, objectives: Matrix, front: Matrix, worst_dice: float) -> Matrix:
    """Return the expected gain of hypervolume of one training of each candidate that was never trained.

    `objectives` are the costs on the front as shares of the reference; `front` holds (logarithm of the expected Dice
    loss, shares) of the networks known or in training.
    """
    scale = np.log(1.0 - worst_dice)
    return expected_gains(foreseen.after - scale, foreseen.learned, objectives, front=_losses(front, scale))


def repeat_gains(foreseen: Foreseen, *, objectives: Matrix, front: Matrix, worst_dice: float) -> Matrix:
    """Return the expected gain of hypervolume of one more training of each network.

    A network on the front is compared with the front without it: the training moves its expected Dice up or down, and
    a move down costs no more than the networks that then take its place.
    """
    scale = np.log(1.0 - worst_dice)
    found = np.empty(len(objectives))
    for row, shares in enumerate(objectives):
        others = front[~((front[:, 1:] == shares).all(axis=1) & np.isclose(front[:, 0], foreseen.now[row]))]
        losses = _losses(others, scale)
        now, after = foreseen.now[[row]] - scale, foreseen.after[[row]] - scale
        gained = expected_gains(after, foreseen.learned[[row]], shares[None], front=losses)
        found[row] = (gained - expected_gains(now, np.zeros(1), shares[None], front=losses))[0]
    return np.maximum(found, 0.0)


def _losses(front: Matrix, scale: float) -> Matrix:
    losses = front.copy()
    losses[:, 0] = np.exp(front[:, 0] - scale)
    return losses


def expected_gains(mean: Matrix, deviation: Matrix, costs: Matrix, *, front: Matrix) -> Matrix:
    """Return each candidate's expected hypervolume improvement.

    The log Dice loss is normal with `mean` (n,) and `deviation` (n,). `costs` (n, k) are exact; `front` (m, 1 + k)
    holds losses, Dice first. All are scaled to a reference of 1. A candidate with Dice loss t gains the integral of
    A(u) from t to 1, where A(u) is the volume in cost space that the candidate dominates and no front point with a Dice
    loss of at most u does. A is constant between the front's Dice losses, so the expectation is a sum over them.
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
    """Return E[max(level - loss, 0)] of lognormal losses, (n, levels), as for a put (Black and Scholes, 1973)."""
    spread = np.maximum(deviation, 1e-12)[:, None]
    standard = (np.log(np.maximum(levels, 1e-12))[None, :] - mean[:, None]) / spread
    middle = np.exp(mean + 0.5 * deviation**2)[:, None]
    return np.asarray(np.maximum(levels[None, :] * ndtr(standard) - middle * ndtr(standard - spread), 0.0))


def _free_volumes(costs: Matrix, front: Matrix) -> Matrix:
    """Return the cost-space volume that a candidate dominates and the first 0 to m front points don't: (n, m + 1)."""
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
    """Compute `_free_volumes` for two costs, from strips between the front's values of the first cost."""
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
