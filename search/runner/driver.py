"""One driver of one study: asks, writes down, hears, judges and tells; every executor works through it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

from search.config.errors import UserError
from search.config.units import show_seconds
from search.data.prepare import Prepared
from search.proposers.problem import Price, Problem
from search.proposers.propose import make_proposer, propose_new
from search.runner.evaluate import over_budget
from search.runner.plan import Plan, prepared_data, task_of
from search.runner.pricer import Pricer
from search.runner.reference_point import reference_point, require_a_share
from search.storage import Store, now
from search.storage.lock import hold_lock
from search.training.checkpoint import drop_checkpoint
from search.training.pretrained import require_pretrained
from search.trials.files import WEIGHTS, trial_folder
from search.trials.halving import why_stop
from search.trials.pareto import hypervolume, pareto_front
from search.trials.records import COUNTED, Epoch, Job, Measurement, Record, Wanted, searched
from space.feasible import why_not

OVER_BUDGET_PER_TRIAL = 20  # a space that is nearly all over budget ends the study instead of pricing for ever


class View(Protocol):
    """What wants to know how a study goes on."""

    def prepared(self, done: int, total: int) -> None:
        """Volumes are being prepared."""

    def known(self, records: Sequence[Record]) -> None:
        """A search goes on behind these trials of earlier runs."""

    def started(self, record: Record, epochs: int) -> None:
        """A trial starts or goes on."""

    def epoch(self, record: Record, epoch: Epoch) -> None:
        """An epoch ended."""

    def finished(self, record: Record, front: int, hypervolume: float | None) -> None:
        """A trial ended; what isn't a search has no hypervolume."""


Ask = Callable[[Sequence[Record]], Wanted | str | None]  # the next training, why there is none, or None: not now


@dataclass(frozen=True)
class Outcome:
    """How a run ended: all records, and why no more trials were started."""

    records: tuple[Record, ...]
    why: str


class Executor(Protocol):
    """Where trainings run. `timed_elsewhere`: latencies come from a probe, not from the trial itself."""

    device: str
    threads: int
    timed_elsewhere: bool

    def pricer(self, plan: Plan) -> Pricer:
        """Return what prices networks, and times them where trials of this executor are timed."""

    def run(self, driver: Driver, ask: Ask) -> str:
        """Run what is asked for until there is no more, and say why."""


@dataclass
class Driver:
    """What one run of one study holds; `front` is that of the search's `known` trained trials."""

    plan: Plan
    store: Store
    prepared: Prepared
    executor: Executor
    view: View
    pricer: Pricer
    front: list[Record] = field(default_factory=list)
    known: set[int] = field(default_factory=set)

    def next(self, ask: Ask) -> Record | str | None:
        """Return a running trial to work on, interrupted ones first; else why there is no more, or None for not now.

        What is over budget by its prediction is told at once. No other driver asks meanwhile.
        """
        with self.store.turn():
            while True:
                left = self.store.left_behind()
                if left is not None:
                    if left.state == "running":
                        return self._take_over(left)
                    self.tell(left)
                    continue
                wanted = ask(self.store.records())
                if not isinstance(wanted, Wanted):
                    return wanted
                record = self.start(wanted)
                if record.state == "running":
                    return record

    def start(self, wanted: Wanted) -> Record:
        """Write a new running trial with its price; one that is over budget is told and comes back finished."""
        plan = self.plan
        costs = self.pricer(wanted.architecture)
        record = Record(
            number=0,
            architecture=wanted.architecture,
            decisions=wanted.decisions,
            seed=wanted.seed,
            fold=wanted.fold,
            measurement=Measurement("running", costs=costs),
            started=now(),
            driver=self.store.me,
        )
        choices = {name: axis.choices for name, axis in plan.space.by_name.items()}
        record = self.store.start(record, choices=choices)
        self.view.started(record, plan.training.epochs)
        judged = self.judged(record, record.measurement)
        return record if judged.state == "running" else self.finish(record, judged)

    def _take_over(self, record: Record) -> Record:
        whose = f" ({record.driver} ended)" if record.driver else ""
        record = self.lost(record, f"interrupted{whose}; went on {now()}")
        self.view.started(record, self.plan.training.epochs)
        return record

    def job(self, record: Record) -> Job:
        """Return the job of a record."""
        return Job(
            architecture=record.architecture,
            task=task_of(self.plan, self.prepared, fold=record.fold),
            training=self.plan.training,
            budgets=tuple(self.plan.budgets.items()),
            seed=record.seed,
            fold=record.fold,
            device=self.executor.device,
            threads=self.executor.threads,
            folder=str(trial_folder(self.plan.folder, record.number)),
            costs=self.pricer.known_before(record.architecture) or record.measurement.costs,
            timed_elsewhere=self.executor.timed_elsewhere,
            surface_tolerance_mm=self.plan.study.surface_tolerance,
        )

    def heard(self, record: Record, measurement: Measurement) -> Measurement:
        """Take in what a job knows so far; return it as it is, or finished where it should stop here."""
        measurement = self.priced(record, measurement)
        if measurement.epochs:
            self.view.epoch(record, measurement.epochs[-1])
        measurement = self.judged(record, measurement)
        if measurement.state == "running":
            self.store.update(replace(record, measurement=measurement))
        return measurement

    def priced(self, record: Record, measurement: Measurement) -> Measurement:
        """Keep the costs that a job found, or give it those that were found elsewhere meanwhile."""
        known, found = self.pricer.known_before(record.architecture), measurement.costs
        if found and found != known and (found.latency or known is None):
            self.pricer.keep(record.architecture, found)
            return measurement
        return replace(measurement, costs=known) if found and known else measurement

    def judged(self, record: Record, measurement: Measurement) -> Measurement:
        """Finish what its costs (even when it is trained) or its rung stop here; halving leaves confirmations alone."""
        costs = measurement.costs
        if costs is None or measurement.state not in ("running", "trained"):
            return measurement
        over = over_budget(costs, tuple(self.plan.budgets.items()))
        if over:
            return Measurement("over budget", over, costs, seconds=measurement.seconds, versions=measurement.versions)
        search, training = self.plan.study.search, self.plan.training
        at_rung = measurement.state == "running" and measurement.epochs and self.searched([record])
        if search.halving is None or not at_rung:
            return measurement
        why = why_stop(
            self.store.records(),
            replace(record, measurement=measurement),
            halving=search.halving,
            epochs=training.epochs,
            every=training.validate_every,
            directions=self.plan.directions,
        )
        return replace(measurement, state="stopped", reason=why) if why else measurement

    def lost(self, record: Record, attempt: str) -> Record:
        """Write down how an attempt ended; the trial is still to be done, and it is this driver's."""
        record = replace(record, attempts=(*record.attempts, attempt), driver=self.store.me)
        self.store.update(record)
        return record

    def finish(self, record: Record, measurement: Measurement) -> Record:
        """Write what came of a job. Raises UserError where its files can't be written: it goes on when they can."""
        if measurement.fault == "storage":
            self.lost(record, measurement.reason)
            again = "mend that, and the same command goes on"
            raise UserError([f"trial {record.number} stopped: {measurement.reason}; {again}"])
        record = record.told(measurement, ended=now())
        self.tell(record)
        return record

    def tell(self, record: Record) -> None:
        """Write a finished record, and drop weights that no longer stand on the front."""
        self.store.tell(record, objectives=list(self.plan.directions), budgets=self.plan.budgets)
        self.update_front()
        drop_checkpoint(trial_folder(self.plan.folder, record.number))
        reference = self.store.reference
        volume = hypervolume(self.front, self.plan.directions, reference) if reference else None
        self.view.finished(record, len(self.front), volume)

    def update_front(self) -> None:
        """Take in what was trained since; remove the weights of trials that are not, or no longer, on the front."""
        trained = [record for record in self.searched() if record.state == "trained"]
        new = [record for record in trained if record.number not in self.known]
        self.known.update(record.number for record in new)
        rivals = [*self.front, *new]
        self.front = pareto_front(rivals, self.plan.directions)
        on_it = {record.number for record in self.front}
        if self.plan.study.keep == "front":
            for record in rivals:
                if record.number not in on_it:
                    (trial_folder(self.plan.folder, record.number) / WEIGHTS).unlink(missing_ok=True)

    def close(self) -> None:
        """Let the database go."""
        self.store.close()
        self.pricer.close()

    def searched(self, records: Sequence[Record] | None = None) -> list[Record]:
        """Return the search's own of some records (of all): no confirmations, no other folds."""
        found = self.store.records() if records is None else records
        return searched(found, seed=self.plan.study.search.seed, fold=self.plan.study.data.fold)


def run_study(plan: Plan, *, trials: int, view: View, executor: Executor) -> Outcome:
    """Run or resume a study until so many trials have been trained (or failed), or its hours are spent.

    Trials that were interrupted go on first, from their last whole epoch. Raises UserError where another driver
    runs the study, or where its file changed.
    """
    with driver_lock(plan):
        driver = open_driver(plan, view, executor)
        with closing(driver), driver.store.present():
            fix_reference(driver)
            view.known(driver.searched())
            why = executor.run(driver, search_ask(driver, trials))
            return Outcome(tuple(driver.store.records()), why)


def search_ask(driver: Driver, trials: int) -> Ask:
    """Return what asks the study's proposer until so many trainings are done or under way."""
    plan = driver.plan
    problem = problem_of(plan, reference=driver.store.reference or {}, price=driver.pricer)
    proposer = make_proposer(plan.study.search.proposer, problem)

    def ask(records: Sequence[Record]) -> Wanted | str | None:
        own = searched(records, seed=plan.study.search.seed, fold=plan.study.data.fold)
        why = _why_stop(own, trials, plan.study.search.hours)
        if why:
            return why
        states = Counter(record.measurement.state for record in own)
        running = states["running"]
        if running + sum(states[state] for state in COUNTED) >= trials:
            return None
        decisions = propose_new(proposer, problem, records)
        if decisions is None:
            return None if running else "every network of the space is known now"
        architecture, seed = plan.space.architecture(decisions), plan.study.search.seed
        return Wanted(architecture, seed, plan.study.data.fold, tuple(decisions.items()))

    return ask


def _why_stop(records: Sequence[Record], trials: int, hours: float | None) -> str:
    states = Counter(record.measurement.state for record in records)
    counted, refused = sum(states[state] for state in COUNTED), states["over budget"]
    if counted >= trials:
        return f"{trials} trials are done"
    spent_s = sum(record.measurement.spent_s for record in records)
    if hours is not None and spent_s >= hours * 3600:
        return f"{show_seconds(spent_s)} of trials are done, of {show_seconds(hours * 3600)}"
    if refused >= OVER_BUDGET_PER_TRIAL * trials:
        return f"{refused} networks were over budget and {counted} trained: the budgets leave too little of the space"
    return ""


def open_driver(plan: Plan, view: View, executor: Executor) -> Driver:
    """Prepare the data and open the store."""
    prepared = prepared_data(plan, progress=view.prepared)
    store = Store.open(plan.url, plan.study.name, directions=plan.directions, values=plan.identity())
    plan.folder.mkdir(parents=True, exist_ok=True)
    if not (plan.folder / "study.yaml").exists():
        shutil.copyfile(plan.loaded.file, plan.folder / "study.yaml")
    store.keep_context({**asdict(plan.context), "labels": plan.dataset.labels, "prepared": Path(prepared.folder).name})
    driver = Driver(plan, store, prepared, executor, view, executor.pricer(plan))
    driver.update_front()
    return driver


def fix_reference(driver: Driver) -> None:
    """Fix the hypervolume's reference where a study just starts, and see that its weights and budgets can be had."""
    if driver.store.reference is None:
        require_pretrained(driver.plan.space)
        require_a_share(driver.plan, driver.pricer)
        driver.store.reference = reference_point(driver.plan, driver.pricer)


@contextmanager
def driver_lock(plan: Plan) -> Iterator[None]:
    """Hold a study's lock, so that no other driver runs it."""
    with hold_lock(plan.url, plan.folder, plan.study.name):
        yield


def problem_of(plan: Plan, *, reference: Mapping[str, float], price: Price) -> Problem:
    """Return a study's problem."""
    return Problem(
        plan.space,
        plan.directions,
        plan.budgets,
        reference,
        plan.study.search.seed,
        plan.space.architecture,
        lambda architecture: why_not(architecture, plan.context),
        price,
    )
