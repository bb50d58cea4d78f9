"""The costs that the known-cost proposer may know: a pure function of the study's seed, records and predictions.

Predicted costs are the same in every process. A measured latency counts only once it is written down, in a record or
with the study's reference point. So a resumed study continues with the numbers of the process that was killed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from search.config.objectives import COSTS
from search.proposers.cost_model import FIRST_PRICED, CostModel, first_rows, learn_costs
from search.proposers.observations import cost_row
from search.proposers.problem import Problem
from search.trials.records import Record
from space.architecture import Architecture
from space.encoding import Coded

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
LATENCY = COSTS.index("latency")
RELEARN = 0.15  # the cost model is learned again after this share of new networks


class Prices:
    """Exact costs of single networks, and a model of costs that ranks many."""

    def __init__(self, problem: Problem, coded: Coded) -> None:
        self.problem, self.coded = problem, coded
        self.listed = coded.encode(problem.listed)
        self.exact: dict[Architecture, Matrix | None] = {}
        self.latencies: dict[Architecture, float] = {}
        self.first: list[tuple[Architecture, Codes]] | None = None
        self.recorded: dict[Architecture, Codes] = {}
        self.known: dict[Architecture, Codes] = {}
        self.learned_from: frozenset[Architecture] = frozenset()
        self.model: CostModel | None = None
        self.first_model: CostModel | None = None
        self.learned = np.empty((0, len(coded.free)), dtype=np.int64), np.empty((0, len(COSTS)))

    def take_in(self, records: Sequence[Record], rows: dict[int, Codes]) -> None:
        """Add the costs of records, and learn the cost model again if there are enough new ones."""
        changed: set[Architecture] = set()
        for record in records:
            costs = record.measurement.costs
            if costs is None:
                continue
            if record.architecture not in self.recorded:
                self.recorded[record.architecture] = self.known[record.architecture] = rows[record.number]
                self.exact[record.architecture] = _untimed(cost_row(costs))
                changed.add(record.architecture)
            if costs.latency is not None and record.architecture not in self.latencies:
                self.latencies[record.architecture] = costs.latency.median_s
                changed.add(record.architecture)
        self._learn(changed)

    def of(self, architecture: Architecture) -> Matrix | None:
        """Return exact costs, NaN for a latency that no record holds; None for a network that can't be built."""
        if architecture not in self.exact:
            costs = None if self.problem.refuse(architecture) else self.problem.price(architecture)
            self.exact[architecture] = None if costs is None else cost_row(costs)
        kept = self.exact[architecture]
        if kept is None or not math.isnan(kept[LATENCY]):
            return kept
        timed = kept.copy()
        timed[LATENCY] = self.latencies.get(architecture, self.problem.timed.get(architecture.fingerprint, math.nan))
        return timed

    def of_row(self, row: Codes) -> tuple[Architecture, Matrix | None]:
        """Return a row's architecture and exact costs; None also for decisions that the study forbids."""
        decisions = self.coded.decode(row)
        architecture = self.problem.architecture(decisions)
        return architecture, None if self.problem.space.forbidden(decisions) else self.of(architecture)

    def predicted(self, rows: Codes) -> Matrix:
        """Return predicted costs of rows; a cost that was never measured is 1 for all."""
        if self.model is None:
            return np.ones((len(rows), len(COSTS)))
        return np.nan_to_num(self.model.predict(rows[:, self.coded.free]), nan=1.0)

    def refined(self, rows: Codes, costs: Matrix) -> CostModel:
        """Return a cost model that is learned from these rows too; it is not kept, because no record holds them."""
        codes, values = self.learned
        rows = rows[:, self.coded.free]
        return learn_costs(self.coded.similarities, np.concatenate([codes, rows]), np.concatenate([values, costs]))

    def random_rows(self, count: int) -> Codes:
        """Return random rows, the same whenever a process asks."""
        return self._random_rows()[:count]

    def predicted_first(self, codes: Codes) -> Matrix:
        """Return costs of free codes, predicted from the first networks alone: the same whenever a process asks."""
        if self.first_model is None:
            first = self.first or []
            values = np.array([self.of(architecture) for architecture, _ in first], dtype=float)
            if not len(values):
                return np.ones((len(codes), len(COSTS)))
            values[:, LATENCY] = np.nan  # records may have added latencies
            rows = np.stack([row for _, row in first])[:, self.coded.free]
            self.first_model = learn_costs(self.coded.similarities, rows, values)
        return np.nan_to_num(self.first_model.predict(codes), nan=1.0)

    def within(self, costs: Matrix) -> NDArray[np.bool_]:
        """Return which rows of costs are within all budgets."""
        limits = np.array([self.problem.budgets.get(name, np.inf) for name in COSTS])
        return np.asarray((costs <= limits).all(axis=1))

    def _learn(self, changed: set[Architecture]) -> None:
        """Learn the model from the first networks and the first so many records: as many as at the last refit.

        Nothing is learned again while these networks are the same and none of them has `changed` its costs.
        """
        if self.first is None:
            self.first = list(self._first())
            self.known = dict(self.first) | self.recorded
        count = refit_at(len(self.known), first=max(1, len(self.first)), growth=RELEARN)
        if count == len(self.learned_from) and changed.isdisjoint(self.learned_from):
            return
        chosen = list(islice(self.known.items(), count))
        self.learned_from = frozenset(architecture for architecture, _ in chosen)
        values = np.array([self.of(architecture) for architecture, _ in chosen], dtype=float)
        if len(values) and values.tobytes() != self.learned[1].tobytes():
            self.learned = np.stack([row for _, row in chosen])[:, self.coded.free], values
            self.model = learn_costs(self.coded.similarities, *self.learned)

    def _first(self) -> Iterable[tuple[Architecture, Codes]]:
        """Yield the random networks that the model starts from, in the order of the study's first networks."""
        found = 0
        for row in self._random_rows():
            if found == FIRST_PRICED:
                return
            architecture, costs = self.of_row(row)
            if costs is not None:
                found += 1
                yield architecture, row

    def _random_rows(self) -> Codes:
        if not len(self.listed):
            return first_rows(self.coded, self.problem.seed)
        return self.listed[np.random.default_rng(self.problem.seed).permutation(len(self.listed))]


def refit_at(count: int, *, first: int, growth: float) -> int:
    """Return the largest size of a growing schedule that is at most `count`, or `count` itself below `first`.

    A model that is fitted only at these sizes is cheap, and does not depend on when a process started.
    """
    size = min(first, count)
    while (larger := max(size + 1, math.ceil(size * (1 + growth)))) <= count:
        size = larger
    return size


def _untimed(costs: Matrix) -> Matrix:
    return np.where(np.arange(len(costs)) == LATENCY, np.nan, costs)
