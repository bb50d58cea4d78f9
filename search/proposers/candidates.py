"""The candidates of the known-cost proposer: the initial design, and the pool from which it chooses later.

The pool consists of random networks, of neighbours and crossovers of the front, and of the best networks of earlier
studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from search.proposers.prices import Prices
from search.proposers.problem import Proposal
from search.proposers.surrogate import Memory
from space.architecture import Architecture
from space.encoding import Coded

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
RANDOM, VARIED, CROSSED = 600, 300, 300  # pool candidates in addition to the neighbours of the front
LISTED = 3000  # candidates drawn from a table of known networks
PARENTS = 25  # front points whose neighbours are in the pool
DESCENTS = 8  # steps of local search towards the cheapest and the most expensive network


@dataclass
class Candidates:
    """Draws candidates. `shares` are the columns of the objectives' costs, `proven` the best of earlier studies."""

    coded: Coded
    prices: Prices
    shares: list[int]
    proven: Codes = field(init=False)

    def __post_init__(self) -> None:
        self.proven = np.empty((0, len(self.coded.counts)), dtype=np.int64)

    def design(
        self,
        rng: np.random.Generator,
        known_rows: Sequence[Codes],
        seen: set[bytes],
        taken: set[Architecture],
        *,
        memory: Memory | None,
        count: int,
    ) -> list[Proposal]:
        """Return the next networks of the initial design after `known_rows`, within the budgets.

        Without a memory they are spread over the space (`spread_design`), with one they are promising ones.
        """
        rows = self._fresh(self._design_candidates(rng), seen)
        costs = self.prices.predicted(rows)
        inside = self.prices.within(costs)
        rows, level = rows[inside], np.log(costs[inside][:, self.shares or [0]]).mean(axis=1)
        hints = memory.hints(rows[:, self.coded.free]) if memory else None
        design: list[Proposal] = []
        others = list(known_rows)
        for _ in range(20 * count):
            if len(design) == count or not len(rows):
                break
            if hints is None:
                known = np.stack(others)[:, self.coded.free] if others else rows[:0][:, self.coded.free]
                chosen = spread_design(level, rows[:, self.coded.free], taken=known, count=len(others))
            else:
                chosen = promising_design(level, hints, count=len(others))
                hints = np.delete(hints, chosen, axis=0)
            row, level = rows[chosen], np.delete(level, chosen)
            rows = np.delete(rows, chosen, axis=0)
            architecture, exact = self.prices.of_row(row)
            if exact is not None and architecture not in taken and self.prices.within(np.nan_to_num(exact[None]))[0]:
                design.append(Proposal(self.coded.decode(row)))
                others.append(row)
                taken.add(architecture)
        return design or [Proposal(self.coded.decode(self.coded.sample(rng, 1)[0]))]

    def _design_candidates(self, rng: np.random.Generator) -> Codes:
        """Return the rows among which the initial design is chosen."""
        if len(self.prices.listed):
            return self.prices.listed
        return np.concatenate([self.coded.sample(rng, 2000), self._extremes(rng)])

    def _extremes(self, rng: np.random.Generator) -> Codes:
        """Return rows found by local search towards the lowest and the highest predicted cost within the budgets."""
        found = []
        for sign in (1.0, -1.0):
            rows = self.coded.sample(rng, 200)
            for _ in range(DESCENTS):
                costs = self.prices.predicted(rows)
                level = sign * np.log(costs[:, self.shares or [0]]).mean(axis=1)
                level[~self.prices.within(costs)] = np.inf
                best = rows[int(np.argmin(level))]
                rows = np.concatenate([best[None], self.coded.neighbours(best)])
            found.append(rows)
        return np.concatenate(found)

    def pool(self, rng: np.random.Generator, front: Codes, seen: set[bytes]) -> Codes:
        """Return candidates that no record has: random ones, neighbours and crossovers of the front, proven ones."""
        if len(self.prices.listed):
            some = self.prices.listed[rng.permutation(len(self.prices.listed))[:LISTED]]
            return self._fresh(np.concatenate([some, self.proven]), seen)
        parents = front[rng.permutation(len(front))[:PARENTS]]
        one, other = (front[rng.integers(len(front), size=CROSSED)] for _ in range(2))
        varied = self.coded.vary(rng, front[rng.integers(len(front), size=VARIED)], share=2.5 / len(self.coded.free))
        rows = [self.coded.sample(rng, RANDOM), *(self.coded.neighbours(row) for row in parents), varied]
        return self._fresh(np.concatenate([*rows, self.coded.cross(rng, one, other), self.proven]), seen)

    def _fresh(self, rows: Codes, seen: set[bytes]) -> Codes:
        """Return the distinct rows that no record has."""
        rows = np.unique(rows, axis=0)
        return rows[[row.tobytes() not in seen for row in rows]]


def promising_design(log_cost: Matrix, hints: Matrix, *, count: int) -> int:
    """Return the row of the next network of an initial design, by the hints of earlier studies.

    As in `spread_design` the networks span the costs; of those near the aimed cost it is the most promising one.
    """
    near = _near(log_cost, float(count) if count < 2 else _van_der_corput(count - 1))
    return int(near[np.argmin(hints[near].sum(axis=1))])


def spread_design(log_cost: Matrix, codes: Codes, *, taken: Codes, count: int) -> int:
    """Return the row of the next network of an initial design that spans the costs; `count` networks exist already.

    The first two are the cheapest and the most expensive. The others aim at 1/2, 1/4, 3/4, 1/8, ... of the range of the
    log cost, and take the row near there that differs most from those already taken.
    """
    if count < 2:
        return int(np.argmin(log_cost) if count == 0 else np.argmax(log_cost))
    near = _near(log_cost, _van_der_corput(count - 1))
    differs = (codes[near][:, None, :] != taken[None]).mean(axis=2).min(axis=1) if len(taken) else np.zeros(len(near))
    return int(near[np.argmax(differs)])


def _near(log_cost: Matrix, aim: float) -> NDArray[np.int64]:
    """Return the twentieth of the rows that is nearest to a share of the range of the log cost, ten rows or more."""
    low, high = log_cost.min(), log_cost.max()
    return np.argsort(np.abs(log_cost - (low + aim * (high - low))))[: max(10, len(log_cost) // 20)]


def _van_der_corput(number: int) -> float:
    """Return the van der Corput sequence in base 2: 1/2, 1/4, 3/4, 1/8, 5/8, ... for 1, 2, 3, ..."""
    value, base = 0.0, 0.5
    while number:
        value += base * (number & 1)
        number >>= 1
        base /= 2
    return value
