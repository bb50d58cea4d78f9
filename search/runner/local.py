"""The local executor: one trial after another in this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

from search.runner import opening
from search.runner import run as running
from search.runner.answers import Ask, Assigned, Done
from search.runner.devices import prepare_allocator, resolve_device, resolve_threads
from search.runner.driver import Driver
from search.runner.evaluate import evaluate, progress
from search.runner.plan import Plan
from search.runner.pricer import Pricer, price_table
from search.runner.run import Outcome
from search.runner.view import View
from search.runner.watch import Watch
from search.trials.job import Job
from search.trials.records import Measurement, Record

POLL_S = 1.0  # between two asks while other drivers' trials run


class LocalExecutor:
    """Trains and measures latency in this process, on the study's device; with `timed=False` trials have no latency."""

    def __init__(self, plan: Plan, *, timed: bool = True) -> None:
        named = plan.study.executor
        self.timed_elsewhere = not timed
        prepare_allocator()
        self.device, self.threads = resolve_device(named.device), resolve_threads(named.threads)
        torch.set_num_threads(self.threads)

    def pricer(self, plan: Plan) -> Pricer:
        """Return a pricer that measures latency here."""
        return Pricer(plan, self.device, price_table(plan, device=self.device, threads=self.threads))

    def run(self, driver: Driver, ask: Ask) -> str:
        """Run one trial after another; return why no more are started."""
        while True:
            answer = driver.next(ask)
            if isinstance(answer, Done):
                return answer.reason
            if isinstance(answer, Assigned):
                run_trial(driver, answer.record)
            else:
                time.sleep(POLL_S)

    def train(self, job: Job, on_progress: Callable[[Measurement], object], watch: Watch) -> Measurement:
        """Train a job that is no trial of the study, in this process."""
        threads = torch.get_num_threads()
        try:
            return evaluate(job, on_progress, watch=watch)
        finally:
            torch.set_num_threads(threads)


def run_trial(driver: Driver, record: Record) -> Record:
    """Run one trial and write its outcome."""
    measurement = Measurement("running")
    watch = Watch(partial(driver.on_activity, record))
    for measurement in progress(driver.job(record), watch):
        measurement = driver.on_progress(record, measurement)
        if measurement.state != "running":
            break
    return driver.finish(record, measurement)


def run_study(plan: Plan, *, trials: int, view: View, measure_again: bool = False) -> Outcome:
    """Run or resume a study in this process; see `search.runner.run.run_study`."""
    return running.run_study(plan, trials=trials, view=view, executor=LocalExecutor(plan), measure_again=measure_again)


def open_driver(plan: Plan, view: View) -> Driver:
    """Open a driver that trains in this process."""
    return opening.open_driver(plan, view, LocalExecutor(plan))
