"""The executor of several local processes: each trains one trial after another, the driver's process trains none."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from search.runner.answers import Ask, Assigned, Done
from search.runner.driver import Driver
from search.runner.evaluate import progress, write_reason
from search.runner.local import POLL_S, LocalExecutor
from search.runner.plan import Plan
from search.runner.watch import Watch
from search.storage import now
from search.trials.activity import Activity
from search.trials.job import Job
from search.trials.records import Measurement, Record

MAX_LOSSES = 3  # a trial whose process ends more often has failed
# A fork would share torch's threads; a server that forks has none, and imports torch once for all processes
if sys.platform == "linux":
    START = multiprocessing.get_context("forkserver")
else:
    START = multiprocessing.get_context("spawn")
PRELOADED = [__name__, "torch._dynamo"]  # a training's first step would import the latter


@dataclass
class Worker:
    """A process, the connection to it, its trial if it has one, and how many processes this trial has lost."""

    process: BaseProcess
    connection: Connection
    record: Record | None = None
    losses: int = 0


class ProcessExecutor(LocalExecutor):
    """Trains in `processes` processes on the study's device; by default they share its CPU threads."""

    def __init__(self, plan: Plan, *, processes: int, timed: bool = True) -> None:
        super().__init__(plan, timed=timed)
        self.processes = processes
        if plan.study.executor.threads is None:
            self.threads = max(1, self.threads // processes)

    def run(self, driver: Driver, ask: Ask) -> str:
        """Run trials in all processes until nothing is left; return the reason."""
        with _workers(self.processes) as workers:
            while True:
                reason = self._fill(driver, ask, workers)
                busy = {worker.connection: worker for worker in workers if worker.record is not None}
                if not busy and reason:
                    return reason
                if not busy:
                    time.sleep(POLL_S)
                for connection in wait(list(busy)) if busy else ():
                    worker = busy[connection]  # type: ignore[index]
                    try:
                        self._hear(driver, worker, worker.connection.recv())
                    except (EOFError, ConnectionError):
                        self._replace(driver, worker)

    def _fill(self, driver: Driver, ask: Ask, workers: list[Worker]) -> str:
        """Give trials to idle workers; return why no more are started, or an empty string."""
        for worker in workers:
            if worker.record is None:
                if not worker.process.is_alive():
                    self._replace(driver, worker)
                answer = driver.next(ask)
                if isinstance(answer, Done):
                    return answer.reason
                if not isinstance(answer, Assigned):
                    return ""
                worker.record, worker.losses = answer.record, 0
                worker.connection.send(driver.job(answer.record))
        return ""

    def _hear(self, driver: Driver, worker: Worker, message: Activity | Measurement) -> None:
        """Show a trial's activity, or write its progress or outcome and tell a running trial whether it continues."""
        if worker.record is None:
            raise ValueError(f"process {worker.process.pid} has no trial, but sent {message}")
        if isinstance(message, Activity):
            driver.on_activity(worker.record, message)
            return
        measured = driver.on_progress(worker.record, message)
        if message.state == "running":
            worker.connection.send(measured.state == "running")
        if measured.state != "running":
            driver.finish(worker.record, measured)
            worker.record = None

    def _replace(self, driver: Driver, worker: Worker) -> None:
        """Start another process for one that ended, and give its trial to it, up to MAX_LOSSES times."""
        worker.connection.close()
        worker.process.join()
        lost = f"its process ended with exit code {worker.process.exitcode}"
        new, record = _start(), worker.record
        worker.process, worker.connection = new.process, new.connection
        if record is None:
            return
        worker.losses += 1
        if worker.losses > MAX_LOSSES:
            driver.finish(record, Measurement("failed", f"{lost}, {worker.losses} times", fault="lost"))
            worker.record = None
            return
        worker.record = driver.record_lost_attempt(record, f"{lost}; tried again {now()}")
        worker.connection.send(driver.job(worker.record))


@contextmanager
def _workers(count: int) -> Iterator[list[Worker]]:
    """Start processes; they end with the block, also in the middle of a trial, which then resumes later."""
    START.set_forkserver_preload(PRELOADED)
    workers = [_start() for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.connection.close()
        for worker in workers:
            worker.process.join()


def _start() -> Worker:
    here, there = START.Pipe()
    process = START.Process(target=work, args=(there,), daemon=True)
    process.start()
    there.close()
    return Worker(process, here)


def work(connection: Connection) -> None:
    """Run the jobs that arrive; send each Activity and Measurement; a running trial then waits whether it continues."""
    gc.freeze()  # what the server imported is no garbage; looking at it would copy its memory into this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the driver's ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        job: Job = connection.recv()
        steps = _progress(job, Watch(connection.send))
        for measurement in steps:
            connection.send(measurement)
            if measurement.state == "running" and not connection.recv():
                break
        steps.close()


def _progress(job: Job, watch: Watch) -> Generator[Measurement, None, None]:
    """Yield a job's measurements; an unexpected error is a failed measurement."""
    try:
        yield from progress(job, watch)
    except Exception as error:
        write_reason(job, traceback.format_exc())
        yield Measurement("failed", f"{type(error).__name__}: {error}", fault="error")


def _end_with_parent() -> None:
    """End this process at once when the driver's process has ended: another driver may resume the trial."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
