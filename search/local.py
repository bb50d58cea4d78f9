"""The local executor: one trial after another in this process, each asked, evaluated and told."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

import torch

from search.costs.latency import measure_latency
from search.costs.price import predict_costs
from search.devices import resolve_device, resolve_threads
from search.lock import driver_lock
from search.pareto import hypervolume, pareto_front
from search.plan import Plan, prepared_data, sample_buildable, task_of, trial_folder
from search.proposers.propose import make_proposer, propose_new
from search.records import Costs, Epoch, Job, Measurement, Record, Task
from search.store import Store, now
from search.training.checkpoint import WEIGHTS, drop_checkpoint
from search.training.evaluate import evaluate
from space.axes import Decisions
from space.build import build

PRICED_FOR_REFERENCE = 8  # random points, where an objective has no budget to take as its reference
REFERENCE_MARGIN = 1.2
OVER_BUDGET_PER_TRIAL = 20  # a space that is nearly all over budget ends the study instead of pricing for ever


class View(Protocol):
    """What wants to know how a study goes on."""

    def prepared(self, done: int, total: int) -> None:
        """Volumes are being prepared."""

    def started(self, record: Record, epochs: int) -> None:
        """A trial starts or goes on."""

    def epoch(self, record: Record, epoch: Epoch) -> None:
        """An epoch ended."""

    def finished(self, record: Record, front: int, hypervolume: float) -> None:
        """A trial ended."""


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
    task: Task
    device: str
    threads: int
    view: View

    def job(self, record: Record) -> Job:
        """Return the job of a record."""
        return Job(
            architecture=record.architecture, task=self.task, training=self.plan.training,
            budgets=tuple(self.plan.budgets.items()), seed=record.seed, fold=record.fold, device=self.device,
            threads=self.threads, folder=str(trial_folder(self.plan, record.number)), costs=record.measurement.costs,
        )  # fmt: skip

    def run(self, record: Record) -> Record:
        """Evaluate a record's job and write what came of it."""
        self.view.started(record, self.plan.training.epochs)

        def priced(costs: Costs) -> None:
            self.store.update(replace(record, measurement=Measurement("running", costs=costs)))

        measurement = evaluate(self.job(record), lambda epoch: self.view.epoch(record, epoch), priced)
        told = record.told(measurement, ended=now())
        self.tell(told)
        return told

    def tell(self, record: Record) -> None:
        """Write a finished record, and drop weights that no longer stand on the front."""
        self.store.tell(record, objectives=list(self.plan.directions), budgets=self.plan.budgets)
        records = self.store.records()
        front = pareto_front(records, self.plan.directions)
        if self.plan.study.keep == "front":
            self._prune(records, {each.number for each in front})
        drop_checkpoint(trial_folder(self.plan, record.number))
        volume = hypervolume(records, self.plan.directions, self.store.reference or {})
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
        driver = _open(plan, view)
        _finish_interrupted(driver)
        proposer = make_proposer(plan)
        while True:
            records = driver.store.records()
            why = _why_stop(plan, records, trials)
            if why:
                return Outcome(tuple(records), why)
            decisions = propose_new(proposer, plan, records)
            if decisions is None:
                return Outcome(tuple(records), "every network of the space is known now")
            driver.run(_start(driver, decisions, number=len(records)))


def _why_stop(plan: Plan, records: Sequence[Record], trials: int) -> str:
    counted = sum(record.state in ("trained", "failed") for record in records)
    refused = sum(record.state == "over budget" for record in records)
    if counted >= trials:
        return f"{trials} trials are done"
    if refused >= OVER_BUDGET_PER_TRIAL * trials:
        return f"{refused} networks were over budget and {counted} trained: the budgets leave too little of the space"
    return ""


def _open(plan: Plan, view: View) -> Driver:
    executor = plan.study.executor
    prepared = prepared_data(plan, progress=view.prepared)
    store = Store.open(plan.url, plan.study.name, directions=plan.directions, values=plan.identity())
    if not (plan.folder / "study.yaml").exists():
        shutil.copyfile(plan.loaded.file, plan.folder / "study.yaml")
    device, threads = resolve_device(executor.device), resolve_threads(executor.threads)
    torch.set_num_threads(threads)
    if store.reference is None:
        store.reference = reference_point(plan, device)
    return Driver(plan, store, task_of(plan, prepared), device, threads, view)


def reference_point(plan: Plan, device: str) -> dict[str, float]:
    """Fix the hypervolume's reference: Dice 0, budgets, and where there is none the dearest of some random points."""
    point = {name: 0.0 if name == "dice" else plan.budgets.get(name, 0.0) for name in plan.directions}
    unknown = [name for name, value in point.items() if name != "dice" and not value]
    rng = Random(plan.study.search.seed)
    for _ in range(PRICED_FOR_REFERENCE if unknown else 0):
        architecture = plan.space.architecture(sample_buildable(plan.space, rng))
        costs = predict_costs(architecture, plan.context, plan.training)
        if "latency" in unknown:
            network = build(architecture, plan.context)
            latency = measure_latency(network, plan.context, plan.training, device=torch.device(device))
            costs = replace(costs, latency=latency)
        for name in unknown:
            point[name] = max(point[name], REFERENCE_MARGIN * (costs.of(name) or 0.0))
    return point


def _start(driver: Driver, decisions: Decisions, *, number: int) -> Record:
    plan = driver.plan
    record = Record(
        number=number,
        architecture=plan.space.architecture(decisions),
        decisions=tuple(decisions.items()),
        seed=plan.study.search.seed,
        fold=plan.study.data.fold,
        measurement=Measurement("running"),
        started=now(),
    )
    choices = {name: axis.choices for name, axis in plan.space.by_name.items()}
    return driver.store.start(record, choices=choices)


def _finish_interrupted(driver: Driver) -> None:
    """Tell what was recorded but not told, then train on what was interrupted."""
    untold = set(driver.store.untold())
    for record in driver.store.records():
        if record.number in untold:
            driver.tell(record)
        elif record.state == "running":
            again = replace(record, attempts=(*record.attempts, f"interrupted; went on {now()}"))
            driver.store.update(again)
            driver.run(again)
