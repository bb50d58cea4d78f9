"""The driver of one study: requests trainings, writes records, applies budgets and halving; all executors use it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from search.config.errors import RunError
from search.config.schema import Study
from search.data.prepared import Prepared
from search.proposers.observations import FEWEST
from search.runner.answers import Ask, Assigned, Done, Train, Wait
from search.runner.evaluate import over_budget
from search.runner.plan import Plan, other_members, task_of
from search.runner.pricer import Pricer
from search.runner.view import View
from search.runner.watch import Watch
from search.storage import Store, now
from search.tracking.recorder import Recorder
from search.training.checkpoint import delete_checkpoints
from search.trials.activity import Activity
from search.trials.files import trial_folder, weights_files
from search.trials.halving import stop_reason
from search.trials.job import Job
from search.trials.pareto import KEPT_MARGIN, comparable, hypervolume, near_front, pareto_front
from search.trials.records import Measurement, Record, TrainingRequest, search_records

LOGGER = logging.getLogger("voxnas.driver")


class Executor(Protocol):
    """Runs trainings. With `timed_elsewhere` a probe measures latency, not the trial itself."""

    device: str
    threads: int
    timed_elsewhere: bool

    def pricer(self, plan: Plan) -> Pricer:
        """Return the pricer, which measures latency on the device that this executor measures it on."""

    def run(self, driver: Driver, ask: Ask) -> str:
        """Run what `ask` returns until it is done; return the reason."""

    def train(self, job: Job, on_progress: Callable[[Measurement], object], watch: Watch) -> Measurement:
        """Train a job that is no trial of the study; calls `on_progress` after each epoch."""


@dataclass
class Driver:
    """The state of one run. `front` is the search's Pareto front over the trained trials in `known`."""

    plan: Plan
    store: Store
    prepared: Prepared
    executor: Executor
    view: View
    pricer: Pricer
    recorder: Recorder
    front: list[Record] = field(default_factory=list)
    kept: list[Record] = field(default_factory=list)
    known: set[int] = field(default_factory=set)
    before_training: Callable[[Record], object] = lambda record: None

    def next(self, ask: Ask) -> Assigned | Wait | Done:
        """Return a running trial, interrupted ones first; ask for a new one if there is none.

        A network whose predicted costs are over budget is finished at once. No other driver asks meanwhile.
        """
        with self.store.exclusive_ask():
            while True:
                orphan = self.store.orphaned_trial()
                if orphan is not None:
                    if orphan.state == "running":
                        return Assigned(self._resume(orphan))
                    self.write_finished(orphan)
                    continue
                answer = ask(self.store.records())
                if not isinstance(answer, Train):
                    return answer
                record = self.start(answer.request)
                if record.state == "running":
                    return Assigned(record)

    def start(self, request: TrainingRequest) -> Record:
        """Write a new running trial with its costs; return it finished if those are over budget."""
        plan = self.plan
        costs = self.pricer(request.architecture)
        record = Record(
            number=0,
            architecture=request.architecture,
            decisions=request.decisions,
            seed=request.seed,
            fold=request.fold,
            repeat=request.repeat,
            measurement=Measurement("running", costs=costs),
            started=now(),
            driver=self.store.me,
            reference=request.reference,
        )
        choices = {name: axis.choices for name, axis in plan.space.by_name.items()}
        record = self.store.write_new(record, choices=choices)
        self.view.on_trial_start(record, plan.training.epochs)
        measurement = self.apply_rules(record, record.measurement)
        if measurement.state != "running":
            return self.finish(record, measurement)
        self.before_training(record)
        return record

    def _resume(self, record: Record) -> Record:
        whose = f" ({record.driver} ended)" if record.driver else ""
        record = self.record_lost_attempt(record, f"interrupted{whose}; resumed {now()}")
        self.view.on_trial_start(record, self.plan.training.epochs)
        self.before_training(record)
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
            study_id=self.store.study_id,
            blocks=self.plan.loaded.blocks,
            others=other_members(self.plan, record),
        )

    def on_activity(self, record: Record, activity: Activity) -> None:
        """Show a trial's activity, here and in the driver's next heartbeat."""
        self.store.heartbeat.show_activity(record.number, activity)
        self.view.on_activity(record, activity)

    def on_progress(self, record: Record, measurement: Measurement) -> Measurement:
        """Write a job's progress; return the measurement, finished if a rule stops the trial here."""
        measurement = self.merge_costs(record, measurement)
        if measurement.epochs:
            self.view.on_epoch(record, measurement.epochs[-1])
        measurement = self.apply_rules(record, measurement)
        if measurement.state == "running":
            record = replace(record, measurement=measurement)
            self.store.write_progress(record)
            self.recorder.show([record])
        return measurement

    def merge_costs(self, record: Record, measurement: Measurement) -> Measurement:
        """Write a job's costs to the price table, or return the measurement with costs found elsewhere meanwhile."""
        known, found = self.pricer.known_before(record.architecture), measurement.costs
        if found and found != known and (found.latency or known is None):
            self.pricer.keep(record.architecture, found)
            return measurement
        return replace(measurement, costs=known) if found and known else measurement

    def apply_rules(self, record: Record, measurement: Measurement) -> Measurement:
        """Return the measurement, finished if its costs are over budget (even when trained) or its rung stops it.

        Halving applies to the search's own trials, not to confirmations.
        """
        costs = measurement.costs
        if costs is None or measurement.state not in ("running", "trained"):
            return measurement
        over = over_budget(costs, tuple(self.plan.budgets.items()))
        if over:
            return Measurement(
                "over budget",
                over,
                costs,
                seconds=measurement.seconds,
                versions=measurement.versions,
                machine=measurement.machine,
            )
        search, training = self.plan.study.search, self.plan.training
        at_rung = measurement.state == "running" and measurement.epochs and self.search_records([record])
        if search.halving is None or not at_rung:
            return measurement
        why = stop_reason(
            self.search_records(),
            replace(record, measurement=measurement),
            halving=search.halving,
            epochs=training.epochs,
            every=training.validate_every,
            directions=self.plan.directions,
        )
        return replace(measurement, state="stopped", reason=why) if why else measurement

    def record_lost_attempt(self, record: Record, attempt: str) -> Record:
        """Write how an attempt ended; the trial keeps running and belongs to this driver."""
        self.store.heartbeat.drop_activity(record.number)
        record = replace(record, attempts=(*record.attempts, attempt), driver=self.store.me)
        self.store.write_progress(record)
        return record

    def finish(self, record: Record, measurement: Measurement) -> Record:
        """Write a job's outcome.

        Raises RunError if its files could not be written; the trial then stays running and can resume.
        """
        if measurement.fault == "storage":
            self.record_lost_attempt(record, measurement.reason)
            again = "fix this, then rerun the same command to resume"
            raise RunError([f"trial {record.number} stopped: {measurement.reason}; {again}"])
        record = record.finished(measurement, ended=now())
        self.write_finished(record)
        return record

    def write_finished(self, record: Record) -> None:
        """Write a finished record, update the front and delete files that are no longer needed."""
        self.store.heartbeat.drop_activity(record.number)
        self.store.write_finished(record, objectives=list(self.plan.directions), budgets=self.plan.budgets)
        self.recorder.show([record])
        self.update_front()
        self._delete_checkpoints(record)
        reference = self.store.reference
        volume = hypervolume(self.front, self.plan.directions, reference) if reference else None
        self.view.on_trial_end(record, len(self.front), volume)

    def _delete_checkpoints(self, record: Record) -> None:
        """Delete a finished trial's checkpoints, except the last one if a longer training can continue from it."""
        folder, constant = trial_folder(self.plan.folder, record.number), self.plan.training.schedule == "constant"
        delete_checkpoints(folder, except_last=constant and record.state == "trained" and bool(weights_files(folder)))

    def remove_left_checkpoints(self) -> None:
        """Delete the checkpoints of trials whose driver wrote their outcome and was killed before it deleted them.

        A driver finishes one trial after another: only its last one, of those of its last second, can have some.
        """
        ended = [record for record in self.store.records() if record.state != "running"]
        last: dict[str, str] = {}
        for record in ended:
            last[record.driver] = max(record.ended, last.get(record.driver, ""))
        for record in ended:
            if record.ended == last[record.driver]:
                self._delete_checkpoints(record)

    def update_front(self) -> None:
        """Add newly trained trials to the front, and prune the weights of those that leave it."""
        trained = [record for record in self.search_records() if record.state == "trained"]
        new = [record for record in trained if record.number not in self.known]
        self.known.update(record.number for record in new)
        rivals = [*self.kept, *new]
        self.front = pareto_front(rivals, self.plan.directions)
        self.kept = near_front(rivals, self.plan.directions, margin=keep_margin(self.plan.study))
        if self.plan.study.keep == "front":
            kept = {record.number for record in self.kept}
            ranked = comparable(rivals, self.plan.directions)  # not those whose latencies may be measured again
            self.prune_weights([record for record in ranked if record.number not in kept])

    def rank_again(self) -> None:
        """Determine the front from the records as they are now."""
        self.front, self.kept, self.known = [], [], set()
        self.update_front()

    def prune_weights(self, records: Sequence[Record]) -> None:
        """Delete the weights of these trials, and the checkpoints of those that have finished."""
        for record in records:
            folder = trial_folder(self.plan.folder, record.number)
            if not folder.exists():
                continue  # found at once; to look for each of its files takes a second with 10,000 trials
            for file in weights_files(folder):
                file.unlink(missing_ok=True)
            if record.state != "running":
                delete_checkpoints(folder)

    def close(self) -> None:
        """Close the trackers, and the database's connections."""
        self.recorder.close()
        self.store.close()
        self.pricer.close()

    def search_records(self, records: Sequence[Record] | None = None) -> list[Record]:
        """Return the search's own trials among some records (or all): no confirmations, no other folds."""
        found = self.store.records() if records is None else records
        return search_records(found, seed=self.plan.study.search.seed, fold=self.plan.study.data.fold)


def keep_margin(study: Study) -> float:
    """Return the Dice below the front up to which weights are kept: none with few trials, as no estimate moves it."""
    return 0.0 if study.search.trials < FEWEST else KEPT_MARGIN
