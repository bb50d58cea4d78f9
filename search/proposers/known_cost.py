"""The known-cost proposer: expected hypervolume improvement, with a surrogate for Dice and exact costs.

A cost model ranks the candidates (`candidates`), the most promising are priced exactly, and the choice is made among
those and repeats: another training of a network near the front, where chance may have hidden its place. With many
trials in training, several are chosen at once. `surrogate`, `gain` and `selection` hold the arithmetic; this file turns
a study's records into its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count as counting

import moocore
import numpy as np
from numpy.typing import NDArray

from search.config.objectives import COSTS, costs_among
from search.proposers.candidates import Candidates
from search.proposers.evidence import dice_of, trend
from search.proposers.gain import repeat_gains
from search.proposers.memory import proven_rows, remember
from search.proposers.observations import Training, training_of
from search.proposers.prices import Prices, refit_at
from search.proposers.problem import Problem, Proposal
from search.proposers.selection import PredictedFront, Repeats, Selection, per_time
from search.proposers.surrogate import Evidence, Memory, Surrogate, condition_dice, fit_dice
from search.proposers.threads import single_threaded
from search.trials.records import Record
from space.architecture import Architecture
from space.encoding import Coded

Matrix = NDArray[np.float64]
Codes = NDArray[np.int64]
NO_LOSS = -20.0  # the log Dice loss of all networks if Dice is no objective
DESIGN = 4  # trainings of the initial design
MIN_FINISHED = 3  # trainings, before the surrogate is fitted
TRIALS_PER_CHOICE = 16  # one more network is chosen at once for so many in training,
RECORDS_PER_CHOICE = 500  # and another one for so many records, since a choice takes longer and a result changes less,
MOST_BY_RECORDS = 5  # but at most so many times the number by trials in training
TRAININGS_PER_REPEAT = 20  # one training in so many is a repeat, whatever its gain: the noise can't be known without
REFIT = 0.1  # the scales are fitted again after this share of new observations
NO_NOISE = 5e-4  # standard deviation of Dice below which no repeat is due
NEAR = 2.0  # deviations of noise within which a network may belong on the front, so that a repeat is considered
POPULATION = 1000  # random networks among which costs are ranked and hints are standardised
ENDED = ("trained", "stopped")
COUNTED = (*ENDED, "running")


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
        self.trainings: dict[int, tuple[Record, Training]] = {}
        self.chosen: list[Proposal] = []
        self.scales: Scales | None = None
        self.memory: Memory | None = None
        self.learns_dice = len(costs_among(problem.directions)) < len(problem.directions)
        self.shares = [COSTS.index(name) for name in costs_among(problem.directions)]
        self.candidates = Candidates(self.coded, self.prices, self.shares)
        self.references = np.array([problem.reference[COSTS[index]] for index in self.shares])

    def proposals(self, records: Sequence[Record]) -> Iterator[Proposal]:
        """Yield the training with the largest expected gain, or the next of the first design."""
        self._take_in(records)
        training = sum(record.state == "running" for record in records)
        by_training = training // TRIALS_PER_CHOICE
        several = 1 + by_training + min(MOST_BY_RECORDS * by_training, len(records) // RECORDS_PER_CHOICE)
        for attempt in counting():
            if not self.chosen:
                rng = np.random.default_rng([self.problem.seed, len(records), attempt])
                self.chosen = self._propose_several(records, several, rng)
            yield self.chosen.pop(0)

    @single_threaded
    def _take_in(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.number not in self.rows:
                self.rows[record.number] = self.coded.encode([dict(record.decisions)])[0]
        self.prices.take_in(records, self.rows)
        if self.problem.sources and self.learns_dice and self.memory is None:
            self._remember()

    def _remember(self) -> None:
        sources, listed, free = self.problem.sources, self.prices.listed, self.coded.free
        codes, predict = self.prices.random_rows(POPULATION)[:, free], self.prices.predicted_first
        self.memory = remember(sources, self.coded, codes=codes, predict=predict, listed=listed[:, free])
        proven = proven_rows(sources, self.coded, rng=np.random.default_rng(self.problem.seed))
        known = {row.tobytes() for row in listed}
        self.candidates.proven = proven[[not known or row.tobytes() in known for row in proven]]

    def fitted(self, records: Sequence[Record]) -> Surrogate | None:
        """Return the surrogate after these trainings; None while none has ended."""
        self._take_in(records)
        finished = [record for record in records if record.state in ENDED and record.measurement.costs]
        if not finished:
            return None
        evidence, _ = self._evidence(finished)
        rng = np.random.default_rng(self.problem.seed)
        scales = self._fitted(finished)
        return condition_dice(self.coded.similarities, evidence, scales=scales, rng=rng, memory=self.memory)

    @single_threaded
    def _propose_several(self, records: Sequence[Record], count: int, rng: np.random.Generator) -> list[Proposal]:
        counted = [record for record in records if record.state in COUNTED and record.measurement.costs]
        counted += [record for record in records if record.state == "running" and not record.measurement.costs]
        seen = {self.rows[record.number].tobytes() for record in records}
        taken = {record.architecture for record in records}
        finished = [record for record in counted if record.state != "running"]
        design, fewest = (1, 1) if self.memory else (DESIGN, MIN_FINISHED)
        if len(counted) < design or len(finished) < fewest:
            known_rows = [self.rows[record.number] for record in counted]
            return self.candidates.design(rng, known_rows, seen, taken, memory=self.memory, count=count)
        evidence, costs = self._evidence(counted)
        scales = self._fitted(finished)
        surrogate = condition_dice(self.coded.similarities, evidence, scales=scales, rng=rng, memory=self.memory)
        means = self._means(surrogate, evidence, counted)
        known = self._front(surrogate, evidence, counted, costs, means=means)
        repeats = self._repeats(surrogate, known, counted, costs, means=means)
        pool = self.candidates.pool(rng, known.rows, seen)
        selection = Selection(self.prices, self.shares, self.references, surrogate, front=known)
        return selection.choose(pool, repeats, taken, count=count)

    def _fitted(self, finished: Sequence[Record]) -> Matrix:
        """Return the surrogate's scales, fitted to the first so many trainings: as many as at the last refit.

        They depend on these records alone, not on when this process started.
        """
        size = refit_at(len(finished), first=1 if self.memory else MIN_FINISHED, growth=REFIT)
        if self.scales is None or self.scales.fitted_to != size:
            evidence, _ = self._evidence(sorted(finished, key=lambda record: record.number)[:size])
            rng = np.random.default_rng([self.problem.seed, size])
            self.scales = Scales(fit_dice(self.coded.similarities, evidence, rng=rng, memory=self.memory), size)
        return self.scales.values

    def _evidence(self, counted: Sequence[Record]) -> tuple[Evidence, Matrix]:
        rows = np.stack([self.rows[record.number] for record in counted])
        nothing = np.full(len(COSTS), np.nan)
        exact = [self.prices.of(record.architecture) for record in counted]
        costs = np.stack([nothing if each is None else each for each in exact])
        lacking = np.flatnonzero(np.isnan(costs).any(axis=1))
        if len(lacking):
            costs[lacking] = np.where(np.isnan(costs[lacking]), self.prices.predicted(rows[lacking]), costs[lacking])
        dice, extra = dice_of([self._training(record) for record in counted])
        pending = np.array([record.state == "running" for record in counted])
        return Evidence(rows[:, self.coded.free], trend(costs), dice, extra, pending), costs

    def _training(self, record: Record) -> Training:
        """Return a record as the surrogate sees it; kept, because a record of many epochs takes a while to convert."""
        kept = self.trainings.get(record.number)
        if kept is None or kept[0] is not record:
            kept = self.trainings[record.number] = record, training_of(record)
        return kept[1]

    def _means(
        self, surrogate: Surrogate, evidence: Evidence, counted: Sequence[Record]
    ) -> Mapping[Architecture, float]:
        """Return the logarithm of the Dice loss of all networks trained or in training, at the surrogate's mean."""
        chosen = _one_each(counted, "trained", "running")
        if self.learns_dice:
            means = surrogate.mean(evidence.codes[chosen], evidence.log_costs[chosen])
        else:
            means = np.full(len(chosen), NO_LOSS)
        return {counted[number].architecture: mean for number, mean in zip(chosen, means.tolist(), strict=True)}

    def _front(
        self,
        surrogate: Surrogate,
        evidence: Evidence,
        counted: Sequence[Record],
        costs: Matrix,
        *,
        means: Mapping[Architecture, float],
    ) -> PredictedFront:
        """Return the front of expected Dice of all networks trained or in training."""
        chosen = _one_each(counted, "trained", "running")
        mean = np.array([means[counted[number].architecture] for number in chosen])
        shares = costs[chosen][:, self.shares] / self.references
        kept = moocore.is_nondominated(np.column_stack([mean, shares]), keep_weakly=False)
        if self.learns_dice:
            codes, log_costs = evidence.codes[chosen[kept]], evidence.log_costs[chosen[kept]]
            mean[kept] = surrogate.foresee(codes, log_costs).now
        rows = np.stack([self.rows[counted[number].number] for number in chosen[kept]])
        return PredictedFront(rows, np.column_stack([mean, shares])[kept])

    def _repeats(
        self,
        surrogate: Surrogate,
        known: PredictedFront,
        counted: Sequence[Record],
        costs: Matrix,
        *,
        means: Mapping[Architecture, float],
    ) -> Repeats:
        """Return the trained networks on or near the front, and what one more training of each is worth."""
        training = {record.architecture for record in counted if record.state == "running"}
        chosen = _one_each(counted, "trained")
        chosen = chosen[[counted[number].architecture not in training for number in chosen]]
        rows = np.array([self.rows[counted[number].number] for number in chosen], dtype=np.int64)
        if not self.learns_dice or not len(chosen):
            return Repeats(np.empty((0, len(self.coded.counts)), dtype=np.int64), np.empty(0))
        codes, costs = rows[:, self.coded.free], costs[chosen]
        mean = np.array([means[counted[number].architecture] for number in chosen])
        shares = costs[:, self.shares] / self.references
        lucky = mean - NEAR * surrogate.noise / np.exp(mean)
        beaten = (known.points[None, :, 0] <= lucky[:, None]) & (known.points[None, :, 1:] <= shares[:, None]).all(
            axis=2
        )
        near = np.flatnonzero(~beaten.any(axis=1))
        gained = per_time(costs[near]) * repeat_gains(
            surrogate.foresee(codes[near], trend(costs[near])),
            objectives=shares[near],
            front=known.points,
            worst_dice=self.problem.reference.get("dice", 0.0),
        )
        repeated = len(counted) - len({record.architecture for record in counted})
        due = repeated < len(counted) // TRAININGS_PER_REPEAT and surrogate.noise > NO_NOISE
        return Repeats(rows[near], gained, due and len(near) > 0)


def source_weights(problem: Problem, records: Sequence[Record]) -> list[float]:
    """Return the weight of each source after these trainings; empty while none has ended."""
    proposer = KnownCostProposer(problem)
    surrogate = proposer.fitted(records)
    return [] if surrogate is None else surrogate.weights.tolist()


def _one_each(counted: Sequence[Record], *states: str) -> NDArray[np.int64]:
    """Return the places of records in these states, the first of each architecture."""
    first: dict[Architecture, int] = {}
    for number, record in enumerate(counted):
        if record.state in states:
            first.setdefault(record.architecture, number)
    return np.array(list(first.values()), dtype=np.int64)
