"""Simulate a search on a table: a simulated clock and W workers; a worker asks again when its training ends."""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from search.config.objectives import OBJECTIVES, primary
from search.config.schema import Halving
from search.proposers.problem import Problem
from search.proposers.propose import ask_new, make_proposer
from search.proposers.sources import Source
from search.simulate.noise import with_noise
from search.simulate.reported import BUDGETS, Report, report
from search.simulate.tables import Table
from search.trials.epochs import Epoch
from search.trials.halving import is_promoted, rungs
from search.trials.pareto import volume
from search.trials.records import Measurement, Record, State

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """The state when a trial ends: time, trainings begun, total training seconds, share of the true hypervolume."""

    at_s: float
    trainings: int
    trained_s: float
    share: float


@dataclass(frozen=True)
class Run:
    """A simulated search: its steps, the number of repeated proposals, the seconds of each ask, worker utilisation.

    `busy` is the share of the workers' time spent training, from the first ask to the last start of a training.
    `reports` are what the user gets after each of BUDGETS.
    """

    proposer: str
    seed: int
    steps: tuple[Step, ...]
    repeats: int
    ask_s: tuple[float, ...]
    busy: float
    reports: tuple[Report, ...] = ()

    def trainings_to(self, share: float) -> float:
        """Return the trainings begun until this share of the true hypervolume was reached; infinity if it never was."""
        return next((float(step.trainings) for step in self.steps if step.share >= share), float("inf"))

    def hours_to(self, share: float) -> float:
        """Return the training hours until this share of the true hypervolume was reached; infinity if it never was."""
        return next((step.trained_s / 3600 for step in self.steps if step.share >= share), float("inf"))


@dataclass(frozen=True)
class Rules:
    """The settings of a search: workers, maximum trainings, the hypervolume share at which it ends, and halving.

    `noise` replaces the table's own noise by this standard deviation of Dice; a search then uses all its trainings.
    """

    workers: int = 1
    trainings: int = 200
    enough: float = 0.99
    halving: Halving | None = None
    noise: float | None = None


def problem_of_table(table: Table, *, seed: int) -> Problem:
    """Return a table's problem: exact costs are free, and networks outside the table can't be built."""
    return Problem(
        table.space,
        table.directions,
        {},
        table.reference,
        seed,
        table.architecture,
        lambda architecture: None if architecture in table.row_of else "not in the table",
        lambda architecture: table.costs[table.row_of[architecture]] if architecture in table.row_of else None,
        table.decisions if table.sparse else (),
    )


def simulate(table: Table, name: str, *, seed: int, rules: Rules, sources: tuple[Source, ...] = ()) -> Run:
    """Simulate a search on a table: trainings take simulated time, asks their measured time.

    The proposer known-cost learns from the sources.
    """
    if rules.noise is not None:
        table = with_noise(table, rules.noise)
    search = _Search(table, name, seed, rules, sources)
    search.run()
    return search.result()


class _Search:
    """The state of a simulated search."""

    def __init__(self, table: Table, name: str, seed: int, rules: Rules, sources: tuple[Source, ...]) -> None:
        self.table, self.name, self.seed, self.rules = table, name, seed, rules
        self.problem = replace(problem_of_table(table, seed=seed), sources=sources)
        self.proposer = make_proposer(name, self.problem)
        self.records: list[Record] = []
        self.curves: list[Matrix] = []
        self.events: list[tuple[float, int, int]] = []  # (time, trial, epoch that ends at this time)
        self.rungs: dict[int, list[tuple[int, float]]] = {}
        self.trained: list[int] = []
        self.steps: list[Step] = []
        self.asked: list[float] = []
        self.repeats, self.trained_s, self.now, self.driver_free, self.over = 0, 0.0, 0.0, 0.0, False
        self.reports: list[Report] = []
        self.spans: list[tuple[float, float]] = []  # begin and end of each period of training
        self.last_start = 0.0

    def run(self) -> None:
        """Start all workers, then process events in order of time."""
        for _ in range(self.rules.workers):
            self._start()
        while self.events:
            self.now, trial, epoch = heapq.heappop(self.events)
            if self._record_epochs(trial, epoch):
                self._start()
            else:
                self._train(trial, epoch)
            if self.over:
                break

    def result(self) -> Run:
        """Return the finished run."""
        busy_s = sum(max(0.0, min(end, self.last_start) - begin) for begin, end in self.spans)
        busy = busy_s / (self.rules.workers * self.last_start) if self.last_start else 1.0
        for budget in BUDGETS:  # the report of an earlier end stays
            if len(self.records) < budget <= self.rules.trainings:
                self._report(budget)
        return Run(self.name, self.seed, tuple(self.steps), self.repeats, tuple(self.asked), busy, tuple(self.reports))

    def _start(self) -> None:
        if len(self.records) >= min(self.rules.trainings, self.table.size):
            return
        begun = time.perf_counter()
        proposal, repeats = ask_new(self.proposer, self.problem, self.records)
        took = time.perf_counter() - begun
        if proposal is None:
            return
        self.asked.append(took)
        self.repeats += repeats
        self.driver_free = max(self.now, self.driver_free) + took
        self.last_start = self.driver_free
        row = self.table.row_of[self.problem.architecture(proposal.decisions)]
        architecture, number = self.table.architectures[row], len(self.records)
        seed = self.seed + sum(record.architecture == architecture for record in self.records)
        measurement = Measurement("running", costs=self.table.costs[row])
        decisions = tuple(proposal.decisions.items())
        self.records.append(Record(number, architecture, decisions, seed, 0, measurement, ""))
        self.curves.append(self.table.curve(row, seed))
        self._train(number, 0)

    def _row(self, trial: int) -> int:
        return self.table.row_of[self.records[trial].architecture]

    def _rungs(self, trial: int) -> tuple[int, ...]:
        halving = self.rules.halving
        if halving is None or self.records[trial].seed != self.seed:
            return ()  # a repeat is trained to its end
        return rungs(
            epochs=self.table.epochs,
            least=halving.min_epochs,
            reduction=halving.reduction,
            bracket=trial % halving.brackets,
        )

    def _train(self, trial: int, epoch: int) -> None:
        """Train from an epoch to the next rung or the last epoch."""
        until = next((rung for rung in self._rungs(trial) if rung > epoch), self.table.epochs)
        begin = max(self.now, self.driver_free) if epoch == 0 else self.now
        seconds = float((until - epoch) * self.table.epoch_s[self._row(trial)])
        self.spans.append((begin, begin + seconds))
        heapq.heappush(self.events, (begin + seconds, trial, until))

    def _record_epochs(self, trial: int, epoch: int) -> bool:
        """Record the trained epochs; return whether the trial is finished or stopped."""
        row, previous = self._row(trial), len(self.records[trial].measurement.epochs)
        self.trained_s += float((epoch - previous) * self.table.epoch_s[row])
        curve = self.curves[trial]
        epochs = tuple(Epoch(number + 1, 0.0, float(curve[number]), 0.0) for number in range(epoch))
        complete = epoch == self.table.epochs
        continues = not complete and self._passes(trial, epoch, float(curve[epoch - 1]))
        state: State = "trained" if complete else ("running" if continues else "stopped")
        measurement = replace(
            self.records[trial].measurement, state=state, dice=float(curve[-1]) if complete else None, epochs=epochs
        )
        self.records[trial] = replace(self.records[trial], measurement=measurement)
        if complete:
            self.trained.append(row)
        if not continues:
            self._record_step()
        return not continues

    def _passes(self, trial: int, epoch: int, dice: float) -> bool:
        """Return whether halving lets a trial continue after a rung."""
        if self.rules.halving is None:
            return True
        rung = self.rungs.setdefault(epoch, [])
        rung.append((trial, dice))
        losses = self.table.losses[[self._row(other) for other, _ in rung]].copy()
        learned = primary(self.table.directions)
        reached = np.array([each for _, each in rung])
        losses[:, list(self.table.directions).index(learned)] = OBJECTIVES[learned].loss(reached)
        return is_promoted(losses, which=len(rung) - 1, reduction=self.rules.halving.reduction)

    def _record_step(self) -> None:
        share = volume(self.table.losses[self.trained], self.table.worst) / self.table.best_volume
        begun = sum(len(record.measurement.epochs) > 0 for record in self.records)
        self.steps.append(Step(self.now, begun, self.trained_s, share))
        self.over = share >= self.rules.enough and self.rules.noise is None
        if begun in BUDGETS and all(begun != each.trainings for each in self.reports):
            self._report(begun)

    def _report(self, trainings: int) -> None:
        found = report(self.table, self.records, trainings=trainings)
        self.reports += [found] if found is not None else []
