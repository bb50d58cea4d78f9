"""The Ray executor: connects to a cluster, runs rounds of Tune until there is no more to do, and leaves no trace."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search.config.errors import UserError
from search.runner.cluster.checkpoint_sync import Mirror
from search.runner.cluster.dispatcher import MAX_LOSSES, Desk, Flight
from search.runner.cluster.latency_probe import Probes, Stopwatch, probe_options
from search.runner.cluster.nodes import lending_nodes, lent_resources
from search.runner.cluster.resources import default_threads
from search.runner.cluster.trainable import Trial
from search.runner.cluster.tune_adapters import AskDesk, AskHalving, FollowTrials, StopWhenBroken
from search.runner.driver import Ask, Driver
from search.runner.plan import Plan
from search.runner.pricer import Pricer, price_table
from search.storage.price_cache import PriceTable
from search.trials.records import Latency
from space.architecture import Architecture

POLL_S = 0.5
TUNE_SETTINGS = {  # Tune reads these alone from the environment
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our store has the results
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the run ends as every other
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # and remembers
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the desk itself gives out no more than there is room for
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the view shows them
    "TUNE_WARN_THRESHOLD_S": "10",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class ProbedPricer(Pricer):
    """Prices here, times on the cluster."""

    def __init__(self, plan: Plan, device: str, table: PriceTable, probes: Probes) -> None:
        super().__init__(plan, device, table)
        self.probes = probes

    def measure(self, architecture: Architecture) -> Latency:
        """Have a probe measure the latency, and wait for it."""
        return self.probes.wait(architecture)


class RayExecutor:
    """Runs trials on a cluster. `trial` and `stopwatch` are what works there."""

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
            raise UserError([f"executor.device: {named.device!r} is not there; no machine of the cluster lends a GPU"])
        self.threads = named.threads or default_threads(nodes, gpu=gpu)
        watch = stopwatch(plan.context, plan.training, self.device, self.threads)
        self.probes = Probes(watch, probe_options(named.latency_on, lent_resources(), gpu=gpu))
        self.mirror = Mirror(named.storage_path)

    def pricer(self, plan: Plan) -> Pricer:
        """Return what prices here and times on the probe's device."""
        table = price_table(plan, device=self.device, threads=self.threads, model=self.probes.device_name())
        return ProbedPricer(plan, self.device, table, self.probes)

    def run(self, driver: Driver, ask: Ask) -> str:
        """Run Tune until there is no more to ask for; return why. Raises KeyboardInterrupt where it is told to end."""
        self.mirror.offer(Path(driver.prepared.folder))
        desk = Desk(driver, ask, self.probes, lending_nodes, self.mirror)
        with told_to_end(desk.told):
            while not desk.told.is_set():
                if not desk.again:
                    found = driver.next(ask)
                    if isinstance(found, str):
                        return found
                    if found is None:
                        time.sleep(POLL_S)
                        continue
                    desk.again.append(Flight(found))
                self._round(desk)
            raise KeyboardInterrupt

    def _round(self, desk: Desk) -> None:
        """Let Tune run until the desk says that it is over, then wait for the latencies that trials wait for."""
        desk.pausing = False
        fit(desk, self.trial)
        while desk.waiting and desk.broken is None and not desk.told.is_set():
            time.sleep(POLL_S)
            with desk.guarded():
                desk.take_latencies()
        if desk.broken is not None:
            raise desk.broken


def connect(address: str) -> None:
    """Connect this process to a cluster, and to it alone. Raises UserError where there is none."""
    if ray.is_initialized():
        if address in ("auto", ray.get_runtime_context().gcs_address):
            return
        ray.shutdown()
    try:
        ray.init(address=address, namespace="voxnas", log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        start = "start one with `ray start --head`, or name its address with --address"
        raise UserError([f"no Ray cluster at {address!r}: {said}; {start}"]) from None


def fit(desk: Desk, trial: type[Trial]) -> None:
    """Run one round of Tune; its files are thrown away, for a restart needs none of them."""
    storage, name = desk.mirror.storage or str(desk.driver.plan.folder), f"tune-{os.getpid()}"
    if "://" not in storage:
        storage = str(Path(storage).resolve())
    os.environ.update(TUNE_SETTINGS)
    for quiet in ("ray.tune", "ray.air", "ray.train"):
        logging.getLogger(quiet).setLevel(logging.CRITICAL)  # what goes wrong stands in the records
    tuner = tune.Tuner(
        trial,
        tune_config=tune.TuneConfig(
            search_alg=AskDesk(desk),
            scheduler=AskHalving(desk),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda each: each.trial_id,
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=storage,
            verbose=0,
            stop=StopWhenBroken(desk),
            failure_config=tune.FailureConfig(max_failures=MAX_LOSSES),
            callbacks=[FollowTrials(desk)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial keeps its own
        ),
    )
    try:
        tuner.fit()
    finally:
        desk.flying.clear()
        if "://" not in storage:
            shutil.rmtree(Path(storage) / name, ignore_errors=True)


@contextmanager
def told_to_end(told: threading.Event) -> Iterator[None]:
    """Set an event at the first SIGINT or SIGTERM, so that Tune ends its trials in order; a second one interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def tell(number: int, frame: Any) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
