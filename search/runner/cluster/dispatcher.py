"""The dispatcher of one run on a cluster: trials in flight, trials to retry, trials that wait for a latency."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray

from search.config.units import show_bytes, show_seconds
from search.runner.answers import Ask, Assigned, Done
from search.runner.cluster.activity_board import ActivityBoard
from search.runner.cluster.checkpoint_sync import CheckpointSync
from search.runner.cluster.latency_probe import Probes
from search.runner.cluster.resources import Need, Node, has_room, request
from search.runner.driver import Driver
from search.storage import now
from search.trials.epochs import Epoch
from search.trials.files import trial_folder
from search.trials.records import Latency, Measurement, Record
from space.architecture import Architecture

MAX_LOSSES = 3  # a trial whose process is lost more often has failed
GRACE_S, GRACE = 5.0, 0.1  # time after its deadline in which a trial can report it before its process is ended
STARVED_S = 60.0  # after this time without a probe finding its device free, no new trials start
NODES_S = 2.0  # between two queries of the cluster's machines


@dataclass
class InFlight:
    """A trial that Tune runs: its record, requested resources, and how the driver decided to end it."""

    record: Record
    requested: dict[str, float] = field(default_factory=dict)
    alone: bool = False
    losses: int = 0
    trial: Any = None
    began: float | None = None
    verdict: Measurement | None = None


@dataclass
class Dispatcher:
    """The state of one run on a cluster. Tune's adapters call it with Tune's trial names; it calls the driver."""

    driver: Driver
    ask: Ask
    probes: Probes
    nodes: Callable[[], list[Node]]
    sync: CheckpointSync
    board: ActivityBoard
    in_flight: dict[str, InFlight] = field(default_factory=dict)
    retries: list[InFlight] = field(default_factory=list)
    awaiting_latency: dict[Architecture, list[tuple[Record, Measurement]]] = field(default_factory=dict)
    error: BaseException | None = None
    draining: bool = False
    seen_nodes: list[Node] = field(default_factory=list)
    nodes_seen_at: float = 0.0
    timed_at: float = field(default_factory=time.monotonic)
    stop_requested: threading.Event = field(default_factory=threading.Event)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Tune pickles its adapters to a file that nothing reads; the dispatcher stays here."""
        return object, ()

    def __deepcopy__(self, memo: object) -> Dispatcher:
        return self

    @contextmanager
    def deferred_errors(self) -> Iterator[None]:
        """Keep an error until Tune has stopped; raised inside Tune it would count as a trial's error."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error

    @property
    def is_round_over(self) -> bool:
        """Whether this round of Tune starts no more trials."""
        return self.draining or self.error is not None

    def next_config(self, name: str) -> dict[str, Any] | None:
        """Return the next trial's configuration for Tune, or None if none starts now."""
        with self.deferred_errors():
            self.collect_latencies()
            if self.is_round_over or not self._has_room():
                return None
            if self.retries:
                return self._place(name, self.retries.pop(0))
            answer = self.driver.next(self.ask)
            if isinstance(answer, Assigned):
                return self._place(name, InFlight(answer.record))
            # the round ends when nothing is left, or when a probe may need what idle actors hold
            self.draining = isinstance(answer, Done) or (bool(self.awaiting_latency) and not self.in_flight)
        return None

    def _has_room(self) -> bool:
        if time.monotonic() - self.nodes_seen_at > NODES_S:
            self.seen_nodes, self.nodes_seen_at = self.nodes(), time.monotonic()
            self._show()
        most = self.driver.plan.study.executor.workers
        if most is not None:
            return len(self.in_flight) < most
        device, threads = self.driver.executor.device, self.driver.executor.threads
        requested = [flight.requested for flight in self.in_flight.values()]
        return has_room(self.seen_nodes, requested, threads=threads, gpu=device != "cpu")

    def _show(self) -> None:
        busy = sum(flight.began is not None for flight in self.in_flight.values())
        cpus, gpus = (sum(getattr(node, name) for node in self.seen_nodes) for name in ("cpus", "gpus"))
        used = {name: sum(each.requested.get(name, 0.0) for each in self.in_flight.values()) for name in ("CPU", "GPU")}
        self.driver.store.heartbeat.show(
            machines=len(self.seen_nodes),
            cpus=cpus,
            gpus=gpus,
            used_cpus=used["CPU"],
            used_gpus=used["GPU"],
            running=busy,
            queued=len(self.in_flight) - busy + len(self.retries),
            probes=len(self.probes.under_way),
            waiting=sum(len(each) for each in self.awaiting_latency.values()),
        )

    def _place(self, name: str, flight: InFlight) -> dict[str, Any]:
        """Determine a trial's resources and register it as in flight; return its configuration."""
        driver, record = self.driver, flight.record
        job = driver.job(record)
        if job.costs is None or job.costs.latency is None:
            self.probes.start(record.architecture)
        memory = job.costs.memory_bytes if job.costs else 0
        need = Need(memory, driver.executor.threads, driver.executor.device != "cpu", flight.alone)
        grows = driver.plan.study.executor.workers is not None
        others = [each.requested for each in self.in_flight.values()]
        flight.requested = request(need, self.seen_nodes, others, grows=grows)
        self.in_flight[name] = flight
        posting = {"board": self.board.name, "number": record.number}
        return {"job": job, "resources": flight.requested, "storage": self.sync.storage, **posting}

    def on_start(self, trial: Any) -> None:
        """Register that a trial has a process."""
        flight = self.in_flight.get(trial.trial_id)
        if flight is not None:
            flight.trial, flight.began = trial, time.monotonic()

    def collect_activities(self) -> None:
        """Show the latest activities of the trials in flight."""
        records = {flight.record.number: flight.record for flight in self.in_flight.values()}
        for number, activity in self.board.collect().items():
            if number in records:
                self.driver.on_activity(records[number], activity)

    def on_progress(self, name: str, message: Measurement) -> bool:
        """Write a trial's new epochs; return whether the trial stops."""
        flight = self.in_flight[name]
        with self.deferred_errors():
            measurement = self.driver.on_progress(flight.record, with_known_epochs(flight.record, message))
            flight.record = replace(flight.record, measurement=measurement)
            if measurement.state != "running":
                flight.verdict = measurement
                return True
        return self.error is not None

    def on_end(self, name: str, message: Measurement | None) -> None:
        """Write a trial's outcome; `message` is None if its process died or Tune gave up on it."""
        flight = self.in_flight.pop(name, None)
        if flight is None or self.error is not None:
            return
        with self.deferred_errors():
            if flight.verdict is not None:
                self._finish(flight.record, flight.verdict)
            elif message is None:
                self._retry_or_fail(flight)
            elif message.fault == "memory":
                self._out_of_memory(flight, with_known_epochs(flight.record, message))
            else:
                measurement = self.driver.on_progress(flight.record, with_known_epochs(flight.record, message))
                self._finish_when_timed(flight.record, measurement)

    def _finish_when_timed(self, record: Record, measurement: Measurement) -> None:
        costs = measurement.costs
        if measurement.state == "trained" and costs is not None and costs.latency is None:
            self.awaiting_latency.setdefault(record.architecture, []).append((record, measurement))
            self.probes.start(record.architecture)
        else:
            self._finish(record, measurement)

    def _finish(self, record: Record, measurement: Measurement) -> None:
        folder = trial_folder(self.driver.plan.folder, record.number)
        if measurement.fault != "storage":
            self.sync.pull_results(folder)
        self.driver.finish(record, measurement)
        self.sync.delete_checkpoints(folder)

    def on_process_lost(self, trial: Any) -> None:
        """Write a lost attempt; Tune restarts the trial from its checkpoint."""
        flight = self.in_flight.get(trial.trial_id)
        if flight is None:
            return
        flight.losses += 1
        with self.deferred_errors():
            attempt = f"{how_lost(trial)}; resumed from its last checkpoint {now()}"
            flight.record, flight.began = self.driver.record_lost_attempt(flight.record, attempt), None

    def _retry_or_fail(self, flight: InFlight) -> None:
        reason = how_lost(flight.trial) if flight.trial is not None else "its process could not be started"
        flight.losses += 1
        if flight.losses > MAX_LOSSES:
            message = f"its process was lost {flight.losses} times; last: {reason}"
            self.driver.finish(flight.record, Measurement("failed", message, fault="lost"))
        else:
            attempt = f"{reason}; tried again {now()}"
            flight.record, flight.began = self.driver.record_lost_attempt(flight.record, attempt), None
            self.retries.append(flight)

    def _out_of_memory(self, flight: InFlight, measurement: Measurement) -> None:
        """Retry a trial once alone on its device; after that, it is over budget."""
        used = measurement.measured_memory
        used_bytes = max(used.allocated_bytes, used.reserved_bytes or 0) if used else 0
        reason = f"{measurement.reason} ({show_bytes(used_bytes)} used)" if used_bytes else measurement.reason
        if flight.alone:
            over = replace(measurement, state="over budget", fault="", reason=f"alone on its device, {reason}")
            costs = flight.record.measurement.costs
            self._finish(flight.record, self.driver.merge_costs(flight.record, replace(over, costs=costs)))
        else:
            record = self.driver.record_lost_attempt(flight.record, f"{reason}; tried again alone {now()}")
            self.retries.append(InFlight(record, alone=True, losses=flight.losses))

    def collect_latencies(self) -> None:
        """Write the latencies that probes measured, and finish the trials that waited for them."""
        for architecture, found in self.probes.collect():
            self.timed_at = time.monotonic()
            waited = self.awaiting_latency.pop(architecture, [])
            if isinstance(found, Latency):
                costs = self.driver.pricer(architecture)
                if costs is not None:
                    self.driver.pricer.keep(architecture, replace(costs, latency=found))
                for record, measurement in waited:
                    timed = self.driver.merge_costs(record, measurement)
                    self._finish(record, self.driver.apply_rules(record, timed))
            else:
                for record, _ in waited:
                    message = f"its latency could not be measured: {str(found).strip().splitlines()[-1]}"
                    self._finish(record, Measurement("failed", message, fault="error"))
        if self.awaiting_latency and time.monotonic() - self.timed_at > STARVED_S:
            self.draining = True
        if not self.probes.under_way:
            self.timed_at = time.monotonic()

    def end_overdue(self) -> None:
        """End the processes of trials that hang: past their deadline without reporting it."""
        deadline = self.driver.plan.training.deadline
        if not deadline:
            return
        for flight in self.in_flight.values():
            whole = deadline * (1 + len(self.driver.job(flight.record).others))  # it holds for each training
            late = whole + max(GRACE_S, GRACE * whole)
            if flight.began is None or flight.verdict or time.monotonic() - flight.began < late:
                continue
            message = f"the deadline of {show_seconds(deadline)} passed without a report; its process was ended"
            flight.verdict = Measurement("failed", message, fault="deadline")
            flight.trial.max_failures = 0  # keeps Tune from restarting it
            with suppress(ValueError):  # its process may have ended
                ray.kill(flight.trial.temporary_state.ray_actor)


def with_known_epochs(record: Record, message: Measurement) -> Measurement:
    """Return a worker's message with the record's earlier epochs prepended.

    The first message of a process contains all epochs of its checkpoint, which replace those of the record.
    """
    if not message.epochs:
        return message
    known = tuple(epoch for epoch in record.measurement.epochs if _place(epoch) < _place(message.epochs[0]))
    return replace(message, epochs=(*known, *message.epochs))


def _place(epoch: Epoch) -> tuple[int, int]:
    return epoch.member, epoch.number


def how_lost(trial: Any) -> str:
    """Describe in a line how a trial's process was lost."""
    message = " ".join(Path(trial.error_file).read_text().split()) if trial.error_file else "the cause is unknown"
    found = re.search(
        r"The actor (?:is dead|died) because (.*?)(?: Worker exit detail: (.*?))?(?: There are|$)", message
    )
    place = re.search(r"pid: (\d+).*? ip: (\S+)", message)
    where = f"process {place[1]} on {place[2]} was lost: " if place else "its process was lost: "
    return where + (found[1] if found else message)[:300].strip()
