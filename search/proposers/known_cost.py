"""The known-cost proposer: expected hypervolume improvement, with a surrogate for Dice and exact costs.

The candidate pool consists of random networks and of neighbours and crossovers of the front. A cost model ranks the
pool, the best few are priced exactly, and one of these is chosen. With many trials in training, several are chosen at
once. `acquire` holds the arithmetic; this module turns a study's records into arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import NDArray

from search.config.objectives import COSTS, costs_among
from search.proposers.acquire import Evidence, Scales, Surrogate, extrapolate, gains, learn_dice, spread_design
from search.proposers.cost_model import FIRST_PRICED, CostModel, first_rows, learn_costs
from search.proposers.first_networks import cost_row
from search.proposers.problem import Problem
from search.trials.records import Costs, Record
from space.architecture import Architecture
from space.canonical import Decisions
from space.encoding import Coded

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
NO_LOSS = -20.0  # the log Dice loss of all networks if Dice is no objective
TIME_EXPONENT = 0.5  # gains are divided by the MACs, a proxy of training time, to this power
DESIGN = 4  # trainings of the initial design
RANDOM, VARIED, CROSSED = 600, 300, 300  # pool candidates in addition to the neighbours of the front
LISTED = 3000  # candidates drawn from a table of known networks
PARENTS = 25  # front points whose neighbours are in the pool
SHORTLIST = 8  # candidates priced exactly before each choice
TRIALS_PER_CHOICE = 16  # one more network is chosen at once for each such number of running trials
REEVALUATED = 60  # best candidates whose gain is computed again after each choice; gains can only shrink
DESCENTS = 8  # steps of local search towards the cheapest and the most expensive network
RELEARN = 0.15  # fraction of new prices after which the cost model is learned again
COUNTED = ("trained", "stopped", "running")


@dataclass(frozen=True)
class PredictedFront:
    """The front by the surrogate's mean: coded rows and points (log Dice loss, costs as fractions of the reference)."""

    rows: Codes
    points: Matrix


class KnownCostProposer:
    """Proposes by expected hypervolume improvement; caches all prices and the records' codes between asks."""

    tries = 2  # it proposes a known network only if it finds no new one

    def __init__(self, problem: Problem) -> None:
        self.problem, self.coded = problem, problem.first.coded if problem.first else Coded(problem.space)
        self.listed = self.coded.encode(problem.listed)
        self.prices: dict[Architecture, Matrix | None] = {}
        self.priced_rows: list[Codes] = []
        self.priced_costs: list[Matrix] = []
        self.rows: dict[int, Codes] = {}
        self.chosen: list[Decisions] = []
        self.model: CostModel | None = None
        self.scales: Scales | None = None
        self.learns_dice = len(costs_among(problem.directions)) < len(problem.directions)
        self.shares = [COSTS.index(name) for name in costs_among(problem.directions)]
        self.references = np.array([problem.reference[COSTS[index]] for index in self.shares])

    def propose(self, records: Sequence[Record]) -> Decisions:
        """Return the decisions with the largest expected improvement, or the next of the initial design."""
        self._read(records)
        if not self.chosen:
            training = sum(record.state == "running" for record in records)
            self.chosen = self._propose_several(records, 1 + training // TRIALS_PER_CHOICE)
        return self.chosen.pop(0)

    def _propose_several(self, records: Sequence[Record], count: int) -> list[Decisions]:
        rng = np.random.default_rng([self.problem.seed, len(records), len(self.prices)])
        self._learn_costs()
        counted = [record for record in records if record.state in COUNTED and record.measurement.costs]
        counted += [record for record in records if record.state == "running" and not record.measurement.costs]
        seen = {self.rows[record.number].tobytes() for record in records}
        taken = {record.architecture for record in records}
        finished = sum(record.state != "running" for record in counted)
        if len(counted) < DESIGN or finished < 3:
            return self._design(rng, counted, seen, taken, count=count)
        evidence, costs = self._evidence(counted)
        surrogate, self.scales = learn_dice(self.coded.similarities, evidence, scales=self.scales, rng=rng)
        known = self._front(surrogate, evidence, counted, costs)
        pool = self._pool(rng, known.rows, seen)
        return self._choose(surrogate, known, pool, taken, count=count)

    def _read(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.number not in self.rows:
                self.rows[record.number] = self.coded.encode([dict(record.decisions)])[0]
            costs = record.measurement.costs
            if costs and self._is_new_price(record.architecture, costs):
                self._keep_price(record.architecture, self.rows[record.number], costs)

    def _is_new_price(self, architecture: Architecture, costs: Costs) -> bool:
        """Return whether the network has no price yet, or only one without the latency that these costs have."""
        kept = self.prices.get(architecture)
        return kept is None or (costs.latency is not None and bool(np.isnan(kept[COSTS.index("latency")])))

    def _keep_price(self, architecture: Architecture, row: Codes, costs: Costs | None) -> Matrix | None:
        values = None
        if costs is not None:
            values = cost_row(costs)
            self.priced_rows.append(row)
            self.priced_costs.append(values)
        self.prices[architecture] = values
        return values

    def _price(self, row: Codes) -> tuple[Architecture, Matrix | None]:
        """Return a row's architecture and exact costs; None for a network that can't be built."""
        decisions = self.coded.decode(row)
        architecture = self.problem.architecture(decisions)
        if self.problem.space.forbidden(decisions):
            return architecture, None
        if architecture in self.prices:
            return architecture, self.prices[architecture]
        refused = self.problem.refuse(architecture)
        costs = None if refused else self.problem.price(architecture)
        return architecture, self._keep_price(architecture, row, costs)

    def _learn_costs(self) -> None:
        first = self.problem.first
        if first is not None and self.model is None:
            for row, architecture, costs in zip(first.rows, first.architectures, first.costs, strict=False):
                if architecture not in self.prices:
                    self._keep_price(architecture, row, costs)
            self.model = first.model
        for row in self._first_rows() if len(self.priced_costs) < FIRST_PRICED else ():
            if len(self.priced_costs) == FIRST_PRICED:
                break
            self._price(row)
        if self.priced_costs and (self.model is None or len(self.priced_costs) > self.model.priced * (1 + RELEARN)):
            rows = np.stack(self.priced_rows)[:, self.coded.free]
            self.model = learn_costs(self.coded.similarities, rows, np.stack(self.priced_costs))

    def _first_rows(self) -> Codes:
        if not len(self.listed):
            return first_rows(self.coded, self.problem.seed)
        return self.listed[np.random.default_rng(self.problem.seed).permutation(len(self.listed))]

    def _predicted(self, rows: Codes) -> Matrix:
        """Return predicted costs of rows; a cost that was never measured counts as 1 for all."""
        if self.model is None:
            return np.ones((len(rows), len(COSTS)))
        return np.nan_to_num(self.model.predict(rows[:, self.coded.free]), nan=1.0)

    def _within(self, costs: Matrix) -> NDArray[np.bool_]:
        """Return a mask of the rows of costs that meet all budgets."""
        limits = np.array([self.problem.budgets.get(name, np.inf) for name in COSTS])
        return np.asarray((costs <= limits).all(axis=1))

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
        costs = self._predicted(rows)
        inside = self._within(costs)
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
            architecture, exact = self._price(row)
            if exact is not None and architecture not in taken and self._within(np.nan_to_num(exact[None]))[0]:
                design.append(self.coded.decode(row))
                others.append(row)
                taken.add(architecture)
        return design or [self.coded.decode(self.coded.sample(rng, 1)[0])]

    def _design_candidates(self, rng: np.random.Generator) -> Codes:
        """Return the rows among which the initial design is chosen."""
        if len(self.listed):
            return self.listed
        return np.concatenate([self.coded.sample(rng, 2000), self._extremes(rng)])

    def _extremes(self, rng: np.random.Generator) -> Codes:
        """Return rows found by local search towards the lowest and the highest predicted cost within the budgets."""
        found = []
        for sign in (1.0, -1.0):
            rows = self.coded.sample(rng, 200)
            for _ in range(DESCENTS):
                costs = self._predicted(rows)
                level = sign * np.log(costs[:, self.shares or [0]]).mean(axis=1)
                level[~self._within(costs)] = np.inf
                best = rows[int(np.argmin(level))]
                rows = np.concatenate([best[None], self.coded.neighbours(best)])
            found.append(rows)
        return np.concatenate(found)

    def _evidence(self, counted: Sequence[Record]) -> tuple[Evidence, Matrix]:
        rows = np.stack([self.rows[record.number] for record in counted])
        nothing = np.full(len(COSTS), np.nan)
        exact = [self.prices.get(record.architecture) for record in counted]
        costs = np.stack([nothing if each is None else each for each in exact])
        lacking = np.flatnonzero(np.isnan(costs).any(axis=1))
        if len(lacking):
            costs[lacking] = np.where(np.isnan(costs[lacking]), self._predicted(rows[lacking]), costs[lacking])
        dice, extra = _dice_of(counted)
        pending = np.array([record.state == "running" for record in counted])
        return Evidence(rows[:, self.coded.free], np.log(np.maximum(costs, 1e-12)), dice, extra, pending), costs

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
        if len(self.listed):
            return self._fresh(self.listed[rng.permutation(len(self.listed))[:LISTED]], seen)
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
        costs = self._predicted(pool)
        gained = self._gains(surrogate, known, pool, costs)
        gained[~self._within(costs)] = -1.0
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
            architecture, exact = self._price(pool[number])
            if exact is not None and architecture not in taken:
                costs[number] = np.where(np.isnan(exact), costs[number], exact)
                if self._within(costs[[number]])[0]:
                    found.append(number)
                    continue
            gained[number] = -1.0
        return np.array(found, dtype=np.int64)

    def _with_chosen(self, surrogate: Surrogate, known: PredictedFront, rows: Codes, costs: Matrix) -> PredictedFront:
        """Return the front with the chosen rows added at their expected Dice."""
        mean = surrogate.mean(rows[:, self.coded.free], np.log(np.maximum(costs, 1e-12)))
        points = np.column_stack([mean, costs[:, self.shares] / self.references])
        return PredictedFront(np.concatenate([known.rows, rows]), np.concatenate([known.points, points]))

    def _gains(self, surrogate: Surrogate, known: PredictedFront, rows: Codes, costs: Matrix) -> Matrix:
        per_time = costs[:, COSTS.index("macs")] ** -TIME_EXPONENT
        return per_time * gains(
            surrogate,
            rows[:, self.coded.free],
            costs,
            objectives=costs[:, self.shares] / self.references,
            front=known.points,
            worst_dice=self.problem.reference.get("dice", 0.0),
        )


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
    for epoch in record.measurement.epochs:
        last = epoch.dice if epoch.dice is not None else last
        values.append(last)
    return np.array(values)
