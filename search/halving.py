"""Pareto halving: asynchronous successive halving that ranks by dominance over Dice so far and exact costs.

A trial that reaches a rung goes on where it is among the best 1/reduction of all that have reached it: by
non-dominated rank (NSGA-II's), ties by what it adds to the hypervolume of its own rank. The rule sees a rung's
losses alone, so that every executor calls the same one. Brackets (Li et al., ASHA, 2020) start later and stop less:
bracket b has its first rung where bracket 0 has its (b + 1)th.
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def rungs(*, epochs: int, least: int, reduction: float, bracket: int) -> tuple[int, ...]:
    """Return the epochs after which a trial may be stopped; none at the last epoch."""
    found, epoch = [], float(least) * reduction**bracket
    while round(epoch) < epochs:
        found.append(round(epoch))
        epoch *= reduction
    return tuple(dict.fromkeys(found))


def goes_on(rung: Matrix, *, which: int, reduction: float) -> bool:
    """Tell whether row `which` of a rung's losses (n, objectives) is among the best 1/reduction of its rows.

    At least one row goes on; the first to come has nobody to be compared with and goes on too.
    """
    promoted = max(1, int(len(rung) / reduction))
    return which in best_rows(rung)[:promoted].tolist()


def best_rows(losses: Matrix) -> NDArray[np.int64]:
    """Return the rows from best to worst: by non-dominated rank, within one by contribution to its hypervolume."""
    ranks = moocore.pareto_rank(losses)
    order: list[int] = []
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        added = _contributions(losses[members])
        order.extend(members[np.argsort(-added, kind="stable")].tolist())
    return np.array(order, dtype=np.int64)


def _contributions(losses: Matrix) -> Matrix:
    """What each point adds to the hypervolume, losses scaled to their own range, the reference a tenth beyond it."""
    span = np.ptp(losses, axis=0)
    scaled = (losses - losses.min(axis=0)) / np.where(span > 0, span, 1.0)
    return np.asarray(moocore.hv_contributions(scaled, ref=np.full(losses.shape[1], 1.1)))
