"""The local executor: one trial after another in this process, each asked, evaluated and told."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from search.data.prepare import Prepared
from search.devices import resolve_device, resolve_threads
from search.halving import why_stop
from search.lock import driver_lock
from search.pareto import hypervolume, pareto_front
from search.plan import Plan, prepared_data, task_of, trial_folder
from search.pricing import Pricer, price_table
from search.proposers.problem import problem_of
from search.proposers.propose import make_proposer, propose_new
from search.records import COUNTED, Costs, Epoch, Job, Measurement, Record, Wanted, searched
from search.reference import reference_point, require_a_share
from search.store import Store, now
from search.training.checkpoint import WEIGHTS, drop_checkpoint
from search.training.evaluate import evaluate

OVER_BUDGET_PER_TRIAL = 20  # a space that is nearly all over budget ends the study instead of pricing for ever


class View(Protocol):
    """What wants to know how a study goes on."""

    def prepared(self, done: int, total: int) -> None:
        """Volumes are being prepared."""

    def started(self, record: Record, epochs: int) -> None:
        """A trial starts or goes on."""

    def epoch(self, record: Record, epoch: Epoch) -> None:
        """An epoch ended."""

    def finished(self, record: Record, front: int, hypervolume: float | None) -> None:
        """A trial ended; what isn't a search has no hypervolume."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: all records, and why no more trials were started."""

    records: tuple[Record, ...]
    why: str


@dataclass
class Driver:
    """What one run of one study holds."""

    plan: Plan
    store: Store
    prepared: Prepared
    device: str
    threads: int
    view: View
    pricer: Pricer

    def job(self, record: Record) -> Job:
        """Return the job of a record."""
        return Job(
            architecture=record.architecture, task=task_of(self.plan, self.prepared, fold=record.fold),
            training=self.plan.training, budgets=tuple(self.plan.budgets.items()), seed=record.seed, fold=record.fold,
            device=self.device, threads=self.threads, folder=str(trial_folder(self.plan, record.number)),
            costs=record.measurement.costs or self.pricer.known_before(record.architecture),
            surface_tolerance_mm=self.plan.study.surface_tolerance,
        )  # fmt: skip

    def run(self, record: Record) -> Record:
        """Evaluate a record's job and write what came of it."""
        self.view.started(record, self.plan.training.epochs)
        found: list[Costs] = [record.measurement.costs] if record.measurement.costs else []

        def priced(costs: Costs) -> None:
            found.append(costs)
            self.store.update(replace(record, measurement=Measurement("running", costs=costs)))

        def ended(epoch: Epoch) -> str | None:
            self.view.epoch(record, epoch)
            return self._why_stop(record, epoch, found[-1])

        measurement = evaluate(self.job(record), ended, priced)
        if measurement.costs:
            self.pricer.keep(record.architecture, measurement.costs)
        told = record.told(measurement, ended=now())
        self.tell(told)
        return told

    def _why_stop(self, record: Record, epoch: Epoch, costs: Costs) -> str | None:
        """Say why halving stops this training here; confirmations are never stopped."""
        halving, training = self.plan.study.search.halving, self.plan.training
        if halving is None or not searched([record], seed=self.plan.study.search.seed, fold=self.plan.study.data.fold):
            return None
        return why_stop(
            self.store.records(), replace(record, measurement=Measurement("running", costs=costs, epochs=(epoch,))),
            halving=halving, epochs=training.epochs, every=training.validate_every, directions=self.plan.directions,
        )  # fmt: skip

    def tell(self, record: Record) -> None:
        """Write a finished record, and drop weights that no longer stand on the front."""
        self.store.tell(record, objectives=list(self.plan.directions), budgets=self.plan.budgets)
        search = self.plan.study.search
        records = searched(self.store.records(), seed=search.seed, fold=self.plan.study.data.fold)
        front = pareto_front(records, self.plan.directions)
        if self.plan.study.keep == "front":
            self._prune(records, {each.number for each in front})
        drop_checkpoint(trial_folder(self.plan, record.number))
        reference = self.store.reference
        volume = hypervolume(records, self.plan.directions, reference) if reference else None
        self.view.finished(record, len(front), volume)

    def _prune(self, records: Sequence[Record], keep: set[int]) -> None:
        for record in records:
            if record.state != "running" and record.number not in keep:
                (trial_folder(self.plan, record.number) / WEIGHTS).unlink(missing_ok=True)


def run_study(plan: Plan, *, trials: int, view: View) -> Outcome:
    """Run or resume a study until so many trials have been trained (or failed).

    Trials that were interrupted go on first, from their last whole epoch. Raises UserError where another driver
    runs the study, or where its file changed.
    """
    with driver_lock(plan.folder):
        driver = open_driver(plan, view)
        fix_reference(driver)
        finish_interrupted(driver)
        problem = problem_of(plan, reference=driver.store.reference or {}, price=driver.pricer)
        proposer = make_proposer(plan.study.search.proposer, problem)
        while True:
            records = driver.store.records()
            why = _why_stop(plan, records, trials)
            if why:
                return Outcome(tuple(records), why)
            decisions = propose_new(proposer, problem, records)
            if decisions is None:
                return Outcome(tuple(records), "every network of the space is known now")
            architecture = plan.space.architecture(decisions)
            seed, fold = plan.study.search.seed, plan.study.data.fold
            run_wanted(driver, [Wanted(architecture, seed, fold, tuple(decisions.items()))])


def _why_stop(plan: Plan, records: Sequence[Record], trials: int) -> str:
    records = searched(records, seed=plan.study.search.seed, fold=plan.study.data.fold)
    counted = sum(record.state in COUNTED for record in records)
    refused = sum(record.state == "over budget" for record in records)
    if counted >= trials:
        return f"{trials} trials are done"
    if refused >= OVER_BUDGET_PER_TRIAL * trials:
        return f"{refused} networks were over budget and {counted} trained: the budgets leave too little of the space"
    return ""


def open_driver(plan: Plan, view: View) -> Driver:
    """Prepare the data and open the store."""
    executor = plan.study.executor
    prepared = prepared_data(plan, progress=view.prepared)
    store = Store.open(plan.url, plan.study.name, directions=plan.directions, values=plan.identity())
    plan.folder.mkdir(parents=True, exist_ok=True)
    if not (plan.folder / "study.yaml").exists():
        shutil.copyfile(plan.loaded.file, plan.folder / "study.yaml")
    device, threads = resolve_device(executor.device), resolve_threads(executor.threads)
    torch.set_num_threads(threads)
    pricer = Pricer(plan, device, price_table(plan, device=device, threads=threads))
    return Driver(plan, store, prepared, device, threads, view, pricer)


def fix_reference(driver: Driver) -> None:
    """Fix the hypervolume's reference where the study just starts."""
    if driver.store.reference is None:
        require_a_share(driver.plan, driver.pricer)
        driver.store.reference = reference_point(driver.plan, driver.pricer)


def run_wanted(driver: Driver, wanted: Sequence[Wanted]) -> None:
    """Train what is asked for, each as a trial of its own."""
    number = len(driver.store.records())
    for place, each in enumerate(wanted):
        driver.run(start(driver, each, number=number + place))


def start(driver: Driver, wanted: Wanted, *, number: int) -> Record:
    """Write a new running trial."""
    record = Record(
        number=number, architecture=wanted.architecture, decisions=wanted.decisions, seed=wanted.seed,
        fold=wanted.fold, measurement=Measurement("running"), started=now(),
    )  # fmt: skip
    choices = {name: axis.choices for name, axis in driver.plan.space.by_name.items()}
    return driver.store.start(record, choices=choices)


def finish_interrupted(driver: Driver) -> None:
    """Tell what was recorded but not told, then train on what was interrupted."""
    untold = set(driver.store.untold())
    for record in driver.store.records():
        if record.number in untold:
            driver.tell(record)
        elif record.state == "running":
            again = replace(record, attempts=(*record.attempts, f"interrupted; went on {now()}"))
            driver.store.update(again)
            driver.run(again)
