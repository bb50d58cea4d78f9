"""The known-cost proposer: expected hypervolume improvement, with a surrogate for Dice and exact costs.

The candidate pool consists of random networks and of neighbours and crossovers of the front. A cost model ranks the
pool, the best few are priced exactly, and one of these is chosen. With many trials in training, several are chosen at
once. `acquire` holds the arithmetic; this module turns a study's records into arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as counting

import moocore
import numpy as np
from numpy.typing import NDArray

from search.config.objectives import COSTS, costs_among
from search.proposers.acquire import (
    REFIT,
    Evidence,
    Surrogate,
    condition_dice,
    extrapolate,
    fit_dice,
    gains,
    spread_design,
)
from search.proposers.prices import Prices, refit_at
from search.proposers.problem import Problem
from search.trials.records import Record
from space.architecture import Architecture
from space.canonical import Decisions
from space.encoding import Coded

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
NO_LOSS = -20.0  # the log Dice loss of all networks if Dice is no objective
TIME_EXPONENT = 0.5  # gains are divided by the MACs, a proxy of training time, to this power
DESIGN = 4  # trainings of the initial design
MIN_FINISHED = 3  # trainings, before the surrogate is fitted
RANDOM, VARIED, CROSSED = 600, 300, 300  # pool candidates in addition to the neighbours of the front
LISTED = 3000  # candidates drawn from a table of known networks
PARENTS = 25  # front points whose neighbours are in the pool
SHORTLIST = 8  # candidates priced exactly before each choice
TRIALS_PER_CHOICE = 16  # one more network is chosen at once for each such number of running trials
REEVALUATED = 60  # best candidates whose gain is computed again after each choice; gains can only shrink
DESCENTS = 8  # steps of local search towards the cheapest and the most expensive network
COUNTED = ("trained", "stopped", "running")


@dataclass(frozen=True)
class PredictedFront:
    """The front by the surrogate's mean: coded rows and points (log Dice loss, costs as fractions of the reference)."""

    rows: Codes
    points: Matrix


@dataclass(frozen=True)
class Scales:
    """Fitted scales and the number of trainings that they were fitted to."""

    values: Matrix
    fitted_to: int


class KnownCostProposer:
    """Proposes by expected gain; all that it keeps could be derived from the records again."""

    tries = 2  # it proposes a known network only if it finds no new one

    def __init__(self, problem: Problem) -> None:
        self.problem, self.coded = problem, Coded(problem.space)
        self.prices = Prices(problem, self.coded)
        self.rows: dict[int, Codes] = {}
        self.chosen: list[Decisions] = []
        self.scales: Scales | None = None
        self.learns_dice = len(costs_among(problem.directions)) < len(problem.directions)
        self.shares = [COSTS.index(name) for name in costs_among(problem.directions)]
        self.references = np.array([problem.reference[COSTS[index]] for index in self.shares])

    def proposals(self, records: Sequence[Record]) -> Iterator[Decisions]:
        """Yield the decisions with the largest expected gain, or the next of the first design."""
        for record in records:
            if record.number not in self.rows:
                self.rows[record.number] = self.coded.encode([dict(record.decisions)])[0]
        self.prices.take_in(records, self.rows)
        training = sum(record.state == "running" for record in records)
        for attempt in counting():
            if not self.chosen:
                rng = np.random.default_rng([self.problem.seed, len(records), attempt])
                self.chosen = self._propose_several(records, 1 + training // TRIALS_PER_CHOICE, rng)
            yield self.chosen.pop(0)

    def _propose_several(self, records: Sequence[Record], count: int, rng: np.random.Generator) -> list[Decisions]:
        counted = [record for record in records if record.state in COUNTED and record.measurement.costs]
        counted += [record for record in records if record.state == "running" and not record.measurement.costs]
        seen = {self.rows[record.number].tobytes() for record in records}
        taken = {record.architecture for record in records}
        finished = [record for record in counted if record.state != "running"]
        if len(counted) < DESIGN or len(finished) < MIN_FINISHED:
            return self._design(rng, counted, seen, taken, count=count)
        evidence, costs = self._evidence(counted)
        surrogate = condition_dice(self.coded.similarities, evidence, scales=self._fitted(finished), rng=rng)
        known = self._front(surrogate, evidence, counted, costs)
        pool = self._pool(rng, known.rows, seen)
        return self._choose(surrogate, known, pool, taken, count=count)

    def _fitted(self, finished: Sequence[Record]) -> Matrix:
        """Return the surrogate's scales, fitted to the first so many trainings: as many as at the last refit.

        They depend on these records alone, not on when this process started.
        """
        size = refit_at(len(finished), first=MIN_FINISHED, growth=REFIT)
        if self.scales is None or self.scales.fitted_to != size:
            evidence, _ = self._evidence(sorted(finished, key=lambda record: record.number)[:size])
            rng = np.random.default_rng([self.problem.seed, size])
            self.scales = Scales(fit_dice(self.coded.similarities, evidence, rng=rng), size)
        return self.scales.values

    def _design(
        self,
        rng: np.random.Generator,
        counted: Sequence[Record],
        seen: set[bytes],
        taken: set[Architecture],
        *,
        count: int,
    ) -> list[Decisions]:
        """Return the next networks of the initial design, within the budgets; see `spread_design`."""
        rows = self._fresh(self._design_candidates(rng), seen)
        costs = self.prices.predicted(rows)
        inside = self.prices.within(costs)
        rows, level = rows[inside], np.log(costs[inside][:, self.shares or [0]]).mean(axis=1)
        design: list[Decisions] = []
        others = [self.rows[record.number] for record in counted]
        for _ in range(20 * count):
            if len(design) == count or not len(rows):
                break
            known = np.stack(others)[:, self.coded.free] if others else rows[:0][:, self.coded.free]
            chosen = spread_design(level, rows[:, self.coded.free], taken=known, count=len(others))
            row, level = rows[chosen], np.delete(level, chosen)
            rows = np.delete(rows, chosen, axis=0)
            architecture, exact = self.prices.of_row(row)
            if exact is not None and architecture not in taken and self.prices.within(np.nan_to_num(exact[None]))[0]:
                design.append(self.coded.decode(row))
                others.append(row)
                taken.add(architecture)
        return design or [self.coded.decode(self.coded.sample(rng, 1)[0])]

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

    def _evidence(self, counted: Sequence[Record]) -> tuple[Evidence, Matrix]:
        rows = np.stack([self.rows[record.number] for record in counted])
        nothing = np.full(len(COSTS), np.nan)
        exact = [self.prices.of(record.architecture) for record in counted]
        costs = np.stack([nothing if each is None else each for each in exact])
        lacking = np.flatnonzero(np.isnan(costs).any(axis=1))
        if len(lacking):
            costs[lacking] = np.where(np.isnan(costs[lacking]), self.prices.predicted(rows[lacking]), costs[lacking])
        dice, extra = _dice_of(counted)
        pending = np.array([record.state == "running" for record in counted])
        return Evidence(rows[:, self.coded.free], _trend(costs), dice, extra, pending), costs

    def _front(
        self, surrogate: Surrogate, evidence: Evidence, counted: Sequence[Record], costs: Matrix
    ) -> PredictedFront:
        """Return the front, by the surrogate's mean, of all networks trained or in training."""
        chosen = np.flatnonzero([record.state != "stopped" for record in counted])
        mean = surrogate.mean(evidence.codes[chosen], evidence.log_costs[chosen])
        if not self.learns_dice:
            mean = np.full_like(mean, NO_LOSS)
        shares = costs[chosen][:, self.shares] / self.references
        kept = moocore.is_nondominated(np.column_stack([mean, shares]), keep_weakly=False)
        rows = np.stack([self.rows[counted[number].number] for number in chosen[kept]])
        return PredictedFront(rows, np.column_stack([mean, shares])[kept])

    def _pool(self, rng: np.random.Generator, front: Codes, seen: set[bytes]) -> Codes:
        if len(self.prices.listed):
            return self._fresh(self.prices.listed[rng.permutation(len(self.prices.listed))[:LISTED]], seen)
        parents = front[rng.permutation(len(front))[:PARENTS]]
        one, other = (front[rng.integers(len(front), size=CROSSED)] for _ in range(2))
        varied = self.coded.vary(rng, front[rng.integers(len(front), size=VARIED)], share=2.5 / len(self.coded.free))
        rows = [self.coded.sample(rng, RANDOM), *(self.coded.neighbours(row) for row in parents), varied]
        return self._fresh(np.concatenate([*rows, self.coded.cross(rng, one, other)]), seen)

    def _fresh(self, rows: Codes, seen: set[bytes]) -> Codes:
        """Return the distinct rows that no record has."""
        rows = np.unique(rows, axis=0)
        return rows[[row.tobytes() not in seen for row in rows]]

    def _choose(
        self, surrogate: Surrogate, known: PredictedFront, pool: Codes, taken: set[Architecture], *, count: int
    ) -> list[Decisions]:
        """Choose `count` candidates one after another: rank the pool by predicted costs, then decide by exact costs.

        A chosen candidate joins the front with its expected Dice, and the next gain is computed against that front.
        """
        costs = self.prices.predicted(pool)
        gained = self._gains(surrogate, known, pool, costs)
        gained[~self.prices.within(costs)] = -1.0
        found: list[Decisions] = []
        while len(found) < count:
            best = self._shortlist(gained, pool, costs, taken)
            if not len(best):
                break
            gained[best] = self._gains(surrogate, known, pool[best], costs[best])
            chosen = best[[int(np.argmax(gained[best]))]]
            found.append(self.coded.decode(pool[chosen[0]]))
            taken.add(self.problem.architecture(found[-1]))
            if len(found) < count:
                known = self._with_chosen(surrogate, known, pool[chosen], costs[chosen])
                again = np.argsort(-gained)[:REEVALUATED]
                again = again[gained[again] > 0]
                gained[again] = self._gains(surrogate, known, pool[again], costs[again])
                gained[chosen] = -1.0
        return found or [self.coded.decode(pool[int(np.argmax(gained))])]

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

    def _with_chosen(self, surrogate: Surrogate, known: PredictedFront, rows: Codes, costs: Matrix) -> PredictedFront:
        """Return the front with the chosen rows added at their expected Dice."""
        mean = surrogate.mean(rows[:, self.coded.free], _trend(costs))
        points = np.column_stack([mean, costs[:, self.shares] / self.references])
        return PredictedFront(np.concatenate([known.rows, rows]), np.concatenate([known.points, points]))

    def _gains(self, surrogate: Surrogate, known: PredictedFront, rows: Codes, costs: Matrix) -> Matrix:
        per_time = np.maximum(costs[:, COSTS.index("macs")], 1.0) ** -TIME_EXPONENT  # a table may have no MACs
        return per_time * gains(
            surrogate,
            rows[:, self.coded.free],
            _trend(costs),
            objectives=costs[:, self.shares] / self.references,
            front=known.points,
            worst_dice=self.problem.reference.get("dice", 0.0),
        )


def _trend(costs: Matrix) -> Matrix:
    """Return the logarithms of the costs that may explain Dice: latency is measured, and would differ by study."""
    return np.log(np.maximum(np.delete(costs, COSTS.index("latency"), axis=1), 1e-12))


def _dice_of(records: Sequence[Record]) -> tuple[Matrix, Matrix]:
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
    for epoch in record.measurement.first_epochs:
        last = epoch.dice if epoch.dice is not None else last
        values.append(last)
    return np.array(values)
