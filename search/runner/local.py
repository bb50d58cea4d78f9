"""The local executor: one trial after another in this process."""

from __future__ import annotations

import time

import torch

from search.runner import driver as driving
from search.runner.devices import resolve_device, resolve_threads
from search.runner.driver import Ask, Driver, Outcome, View
from search.runner.evaluate import progress
from search.runner.plan import Plan
from search.runner.pricer import Pricer, price_table
from search.trials.records import Measurement, Record

POLL_S = 1.0  # between two looks at what other drivers still train


class LocalExecutor:
    """Trains here, on the study's device, and times where it trains."""

    timed_elsewhere = False

    def __init__(self, plan: Plan) -> None:
        named = plan.study.executor
        self.device, self.threads = resolve_device(named.device), resolve_threads(named.threads)
        torch.set_num_threads(self.threads)

    def pricer(self, plan: Plan) -> Pricer:
        """Return what prices and times networks here."""
        return Pricer(plan, self.device, price_table(plan, device=self.device, threads=self.threads))

    def run(self, driver: Driver, ask: Ask) -> str:
        """Run one trial after another; return why there are no more."""
        while not isinstance(record := driver.next(ask), str):
            if record is None:
                time.sleep(POLL_S)
            else:
                run_trial(driver, record)
        return record


def run_trial(driver: Driver, record: Record) -> Record:
    """Work through one trial and write what came of it."""
    measurement = Measurement("running")
    for measurement in progress(driver.job(record)):
        measurement = driver.heard(record, measurement)
        if measurement.state != "running":
            break
    return driver.finish(record, measurement)


def run_study(plan: Plan, *, trials: int, view: View) -> Outcome:
    """Run or resume a study in this process; see `search.runner.driver.run_study`."""
    return driving.run_study(plan, trials=trials, view=view, executor=LocalExecutor(plan))


def open_driver(plan: Plan, view: View) -> Driver:
    """Open a driver that trains in this process."""
    return driving.open_driver(plan, view, LocalExecutor(plan))
