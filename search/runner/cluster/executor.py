"""The Ray executor: connects to a cluster and runs rounds of Tune until nothing is left to train."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search.config.errors import UserError
from search.files import partial_path, remove_partials
from search.runner.answers import Ask, Done, Wait
from search.runner.cluster.activity_board import ActivityBoard
from search.runner.cluster.checkpoint_sync import CheckpointSync
from search.runner.cluster.connection import connect
from search.runner.cluster.dispatcher import MAX_LOSSES, Dispatcher, InFlight
from search.runner.cluster.latency_probe import Probes, Stopwatch, probe_options
from search.runner.cluster.nodes import lending_nodes, lent_resources
from search.runner.cluster.resources import Need, default_threads, request, require_threads, task_options
from search.runner.cluster.trainable import Trial, train_remotely
from search.runner.cluster.tune_adapters import ErrorStopper, HalvingScheduler, StudySearcher, TrialCallback
from search.runner.driver import Driver
from search.runner.plan import Plan
from search.runner.pricer import Pricer, price_table
from search.runner.watch import Watch
from search.storage.price_cache import PriceTable
from search.trials.job import Job
from search.trials.records import Latency, Measurement
from space.architecture import Architecture

POLL_S = 0.5
TUNE_SETTINGS = {  # Tune reads these only from the environment
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our store has the results
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals end a run as they do without Ray
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # and restarts need nothing else
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the dispatcher starts no more trials than fit
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the terminal view shows them
    "TUNE_WARN_THRESHOLD_S": "10",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class ProbedPricer(Pricer):
    """Predicts costs here, measures latency on the cluster."""

    def __init__(self, plan: Plan, device: str, table: PriceTable, probes: Probes) -> None:
        super().__init__(plan, device, table)
        self.probes = probes

    def measure(self, architecture: Architecture) -> Latency:
        """Return the latency that a probe measures; waits for it."""
        return self.probes.wait(architecture)


class RayExecutor:
    """Runs trials on a cluster. `trial` and `stopwatch` are the classes that run there."""

    timed_elsewhere = True

    def __init__(
        self, plan: Plan, *, address: str, trial: type[Trial] = Trial, stopwatch: type[Stopwatch] = Stopwatch
    ) -> None:
        connect(address)
        self.plan, self.trial, named = plan, trial, plan.study.executor
        nodes = lending_nodes()
        gpu = named.device.startswith("cuda") or (named.device == "auto" and any(node.gpus for node in nodes))
        self.device = "cuda:0" if gpu else "cpu"
        if gpu and not any(node.gpus for node in nodes) and named.workers is None:
            raise UserError(
                [f"executor.device: {named.device!r} does not exist: no machine of the cluster offers a GPU"]
            )
        require_threads(named.threads, nodes, grows=named.workers is not None)
        self.threads = named.threads or default_threads(nodes, gpu=gpu)
        watch = stopwatch(plan.context, plan.training, self.device, self.threads, plan.loaded.blocks)
        self.probes = Probes(watch, probe_options(named.latency_on, lent_resources(), gpu=gpu))
        self.sync = CheckpointSync(named.storage_path)

    def pricer(self, plan: Plan) -> Pricer:
        """Return a pricer that measures latency on the probes' device."""
        table = price_table(plan, device=self.device, threads=self.threads, model=self.probes.device_name())
        return ProbedPricer(plan, self.device, table, self.probes)

    def run(self, driver: Driver, ask: Ask) -> str:
        """Run rounds of Tune until nothing is left; return the reason. Raises KeyboardInterrupt after a signal."""
        self.sync.push_dataset(Path(driver.prepared.folder))
        with closing(ActivityBoard()) as board:
            return self._rounds(Dispatcher(driver, ask, self.probes, lending_nodes, self.sync, board))

    def _rounds(self, dispatcher: Dispatcher) -> str:
        with stop_on_signal(dispatcher.stop_requested):
            while not dispatcher.stop_requested.is_set():
                if not dispatcher.retries:
                    answer = dispatcher.driver.next(dispatcher.ask)
                    if isinstance(answer, Done):
                        return answer.reason
                    if isinstance(answer, Wait):
                        time.sleep(POLL_S)
                        continue
                    dispatcher.retries.append(InFlight(answer.record))
                self._round(dispatcher)
            raise KeyboardInterrupt

    def train(self, job: Job, on_progress: Callable[[Measurement], object], watch: Watch) -> Measurement:
        """Train a job that is no trial of the study, on a machine of the cluster; restarted if its process is lost."""
        self.sync.push_dataset(Path(job.task.prepared))
        need = Need(job.costs.memory_bytes if job.costs else 0, self.threads, self.device != "cpu")
        asked = request(need, lending_nodes(), [])
        task = ray.remote(train_remotely).options(
            num_returns="streaming", max_retries=MAX_LOSSES, **task_options(asked)
        )
        measurement = Measurement("running")
        for message in task.remote(job, self.sync, asked.get("GPU", 0.0)):
            measurement = Measurement.from_json(ray.get(message))
            if measurement.state == "running":
                on_progress(measurement)
        self.sync.pull_results(Path(job.folder))
        return measurement

    def _round(self, dispatcher: Dispatcher) -> None:
        """Run Tune until the dispatcher ends the round, then wait for the latencies that trials wait for."""
        dispatcher.draining = False
        fit(dispatcher, self.trial)
        while dispatcher.awaiting_latency and dispatcher.error is None and not dispatcher.stop_requested.is_set():
            time.sleep(POLL_S)
            with dispatcher.deferred_errors():
                dispatcher.collect_latencies()
        if dispatcher.error is not None:
            raise dispatcher.error


def fit(dispatcher: Dispatcher, trial: type[Trial]) -> None:
    """Run one round of Tune and delete its files: a restart needs only the study's database."""
    storage, name = dispatcher.sync.storage or str(dispatcher.driver.plan.folder), f"tune-{os.getpid()}"
    if "://" not in storage:
        storage = str(Path(storage).resolve())
        name = partial_path(Path(storage) / "tune").name
        remove_partials(Path(storage))  # of drivers that were killed
    os.environ.update(TUNE_SETTINGS)
    for quiet in ("ray.tune", "ray.air", "ray.train"):
        logging.getLogger(quiet).setLevel(logging.CRITICAL)  # the records contain all failures
    tuner = tune.Tuner(
        trial,
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(dispatcher),
            scheduler=HalvingScheduler(dispatcher),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda each: each.trial_id,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=storage,
            verbose=0,
            stop=ErrorStopper(dispatcher),
            failure_config=tune.FailureConfig(max_failures=MAX_LOSSES),
            callbacks=[TrialCallback(dispatcher)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial writes its own
        ),
    )
    try:
        tuner.fit()
    finally:
        dispatcher.in_flight.clear()
        if "://" not in storage:
            shutil.rmtree(Path(storage) / name, ignore_errors=True)


@contextmanager
def stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """Set an event at the first SIGINT or SIGTERM, which ends Tune's trials in order; a second one interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
