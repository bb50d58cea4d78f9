"""The known-cost proposer's choice among candidates and repeats, by expected gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.config.objectives import COSTS
from search.proposers.evidence import trend
from search.proposers.gain import gains
from search.proposers.prices import Prices
from search.proposers.problem import Proposal
from search.proposers.surrogate import Surrogate
from space.architecture import Architecture

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
REFINEMENTS = 3  # rounds in which promising candidates are priced and the cost model is learned again, for one ask
REFINED = 400  # candidates whose costs are predicted again in such a round
SHORTLIST = 8  # candidates priced exactly before each choice
REEVALUATED = 60  # candidates whose gain is computed again after each choice: gains only shrink
TIME_EXPONENT = 0.5  # gains are divided by the MACs, a proxy of training time, to this power


@dataclass(frozen=True)
class PredictedFront:
    """The front by the surrogate's mean: coded rows and points (log Dice loss, costs as fractions of the reference)."""

    rows: Codes
    points: Matrix


@dataclass(frozen=True)
class Repeats:
    """Networks that may be trained again: their rows, and the gain of doing so.

    One is `due` whatever the gain where the study has too few repeats to know its noise.
    """

    rows: Codes
    gained: Matrix
    due: bool = False


@dataclass
class Selection:
    """One choice: the surrogate, and the front that chosen candidates join; `shares` are the objectives among costs."""

    prices: Prices
    shares: Sequence[int]
    references: Matrix
    surrogate: Surrogate
    front: PredictedFront

    def choose(self, pool: Codes, repeats: Repeats, taken: set[Architecture], *, count: int) -> list[Proposal]:
        """Choose `count` candidates one after another: rank the pool by predicted costs, then decide by exact costs.

        A chosen candidate joins the front with its expected Dice; the next one is worth what it adds to that. A repeat
        is chosen where it is worth more than any new network.
        """
        costs = self.prices.predicted(pool)
        gained, again = self.gains(pool, costs), repeats.gained.copy()
        gained[~self.prices.within(costs)] = -1.0
        self._refine(pool, costs, gained, taken)
        found: list[Proposal] = []
        while len(found) < count:
            best = self._shortlist(gained, pool, costs, taken)
            if not len(best):
                break
            gained[best] = self.gains(pool[best], costs[best])
            most = gained[best].max()
            if len(again) and (again.max() > most or (repeats.due and not found)):
                found.append(Proposal(self.prices.coded.decode(repeats.rows[int(np.argmax(again))]), repeat=True))
                again[int(np.argmax(again))] = -1.0
                continue
            chosen = best[[int(np.argmax(gained[best]))]]
            found.append(Proposal(self.prices.coded.decode(pool[chosen[0]])))
            taken.add(self.prices.problem.architecture(found[-1].decisions))
            if len(found) < count:
                self._add_to_front(pool[chosen], costs[chosen])
                lower = np.argsort(-gained)[:REEVALUATED]
                lower = lower[gained[lower] > 0]
                gained[lower] = self.gains(pool[lower], costs[lower])
                gained[chosen] = -1.0
        last = pool[int(np.argmax(gained))] if len(pool) else self.front.rows[0]
        return found or [Proposal(self.prices.coded.decode(last))]

    def _refine(self, pool: Codes, costs: Matrix, gained: Matrix, taken: set[Architecture]) -> None:
        """Price the most promising candidates, learn from their costs, and update all `costs` and `gained`."""
        priced: set[int] = set()
        for _ in range(REFINEMENTS):
            best = self._shortlist(gained, pool, costs, taken)
            if not set(best.tolist()) - priced:
                break
            priced |= set(best.tolist())
            rows = np.array(sorted(priced))
            model = self.prices.refined(pool[rows], costs[rows])
            close = np.setdiff1d(np.argsort(-gained)[:REFINED], rows)
            close = close[gained[close] >= 0]
            if len(close):
                costs[close] = np.nan_to_num(model.predict(pool[close][:, self.prices.coded.free]), nan=1.0)
            both = np.concatenate([rows, close])
            gained[both] = self.gains(pool[both], costs[both])
            gained[both[~self.prices.within(costs[both])]] = -1.0

    def _shortlist(self, gained: Matrix, pool: Codes, costs: Matrix, taken: set[Architecture]) -> NDArray[np.int64]:
        """Return the best trainable rows; write their exact costs to `costs` and a gain of -1 for rejected rows."""
        found: list[int] = []
        for number in np.argsort(-gained):
            if len(found) == SHORTLIST or gained[number] < 0:
                break
            architecture, exact = self.prices.of_row(pool[number])
            if exact is not None and architecture not in taken:
                costs[number] = np.where(np.isnan(exact), costs[number], exact)
                if self.prices.within(costs[[number]])[0]:
                    found.append(number)
                    continue
            gained[number] = -1.0
        return np.array(found, dtype=np.int64)

    def _add_to_front(self, rows: Codes, costs: Matrix) -> None:
        """Add chosen rows to the front at their expected Dice."""
        now = self.surrogate.foresee(rows[:, self.prices.coded.free], trend(costs)).now
        points = np.column_stack([now, costs[:, self.shares] / self.references])
        known = self.front
        self.front = PredictedFront(np.concatenate([known.rows, rows]), np.concatenate([known.points, points]))

    def gains(self, rows: Codes, costs: Matrix) -> Matrix:
        """Return the expected gain of rows, for the time that their training takes."""
        if not len(rows):
            return np.empty(0)
        return per_time(costs) * gains(
            self.surrogate.foresee(rows[:, self.prices.coded.free], trend(costs)),
            objectives=costs[:, self.shares] / self.references,
            front=self.front.points,
            worst_dice=self.prices.problem.reference.get("dice", 0.0),
        )


def per_time(costs: Matrix) -> Matrix:
    """Return the weight of each training's gain; a table of known results may have no MACs."""
    return np.asarray(np.maximum(costs[:, COSTS.index("macs")], 1.0) ** -TIME_EXPONENT)
