"""What one run on a cluster holds: trials in flight, to be tried again, or waiting for a latency; and what to do."""

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
from search.runner.cluster.checkpoint_sync import Mirror
from search.runner.cluster.latency_probe import Probes
from search.runner.cluster.resources import Need, Node, has_room, request
from search.runner.driver import Ask, Driver
from search.storage import now
from search.trials.files import trial_folder
from search.trials.records import Latency, Measurement, Record
from space.architecture import Architecture

FINISHED = "FINISHED"  # Tune's word for: no more trials
MAX_LOSSES = 3  # a trial whose process is lost more often than that has failed
GRACE_S, GRACE = 5.0, 0.1  # after its deadline a trial has this long to say so itself, then its process is ended
STARVED_S = 60.0  # no probe found its device free for so long: let the trials drain first
NODES_S = 2.0  # between two looks at what machines there are


@dataclass
class Flight:
    """A trial that Tune has: its record, what it asks for, whether it runs alone, and how it is ended from here."""

    record: Record
    asked: dict[str, float] = field(default_factory=dict)
    alone: bool = False
    losses: int = 0
    trial: Any = None
    began: float | None = None
    verdict: Measurement | None = None


@dataclass
class Desk:
    """The state of one run on a cluster. Tune's hooks call it, by Tune's names of trials; it calls the driver."""

    driver: Driver
    ask: Ask
    probes: Probes
    nodes: Callable[[], list[Node]]
    mirror: Mirror
    flying: dict[str, Flight] = field(default_factory=dict)
    again: list[Flight] = field(default_factory=list)
    waiting: dict[Architecture, list[tuple[Record, Measurement]]] = field(default_factory=dict)
    broken: BaseException | None = None
    pausing: bool = False
    seen_nodes: list[Node] = field(default_factory=list)
    looked_at: float = 0.0
    timed_at: float = field(default_factory=time.monotonic)
    told: threading.Event = field(default_factory=threading.Event)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Tune writes its adapters to a file that nobody reads; the desk stays here."""
        return object, ()

    def __deepcopy__(self, memo: object) -> Desk:
        return self

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Keep an error until Tune has stopped: raised in its midst it would be one of a trial's own."""
        try:
            yield
        except Exception as error:
            self.broken = self.broken or error

    @property
    def over(self) -> bool:
        """Nothing is to be started any more in this round."""
        return self.pausing or self.broken is not None

    def take(self, name: str) -> dict[str, Any] | str | None:
        """Return a trial's configuration for Tune, its word for the end, or None: nothing now."""
        with self.guarded():
            self.take_latencies()
            if self.over:
                return FINISHED
            if not self._has_room():
                return None
            found = self.again.pop(0) if self.again else self.driver.next(self.ask)
            if isinstance(found, Record):
                found = Flight(found)
            if isinstance(found, Flight):
                return self._place(name, found)
            # there is no more; or not now, and a probe may need what idle actors hold
            self.pausing = found is not None or (bool(self.waiting) and not self.flying)
        return FINISHED if self.over else None

    def _has_room(self) -> bool:
        if time.monotonic() - self.looked_at > NODES_S:
            self.seen_nodes, self.looked_at = self.nodes(), time.monotonic()
            self._show()
        most = self.driver.plan.study.executor.workers
        if most is not None:
            return len(self.flying) < most
        device, threads = self.driver.executor.device, self.driver.executor.threads
        flying = [flight.asked for flight in self.flying.values()]
        return has_room(self.seen_nodes, flying, threads=threads, gpu=device != "cpu")

    def _show(self) -> None:
        busy = sum(flight.began is not None for flight in self.flying.values())
        cpus, gpus = (sum(getattr(node, name) for node in self.seen_nodes) for name in ("cpus", "gpus"))
        used = {name: sum(each.asked.get(name, 0.0) for each in self.flying.values()) for name in ("CPU", "GPU")}
        self.driver.store.heartbeat.show(
            machines=len(self.seen_nodes),
            cpus=cpus,
            gpus=gpus,
            used_cpus=used["CPU"],
            used_gpus=used["GPU"],
            running=busy,
            queued=len(self.flying) - busy + len(self.again),
            probes=len(self.probes.under_way),
            waiting=sum(len(each) for each in self.waiting.values()),
        )

    def _place(self, name: str, flight: Flight) -> dict[str, Any]:
        driver, record = self.driver, flight.record
        job = driver.job(record)
        if job.costs is None or job.costs.latency is None:
            self.probes.start(record.architecture)
        memory = job.costs.memory_bytes if job.costs else 0
        need = Need(memory, driver.executor.threads, driver.executor.device != "cpu", flight.alone)
        grows = driver.plan.study.executor.workers is not None
        flight.asked = request(need, self.seen_nodes, [each.asked for each in self.flying.values()], grows=grows)
        self.flying[name] = flight
        return {"job": job, "resources": flight.asked, "storage": self.mirror.storage}

    def begun(self, trial: Any) -> None:
        """Note that a trial has its process now."""
        flight = self.flying.get(trial.trial_id)
        if flight is not None:
            flight.trial, flight.began = trial, time.monotonic()

    def heard(self, name: str, measurement: Measurement) -> bool:
        """Take in an epoch; tell whether the trial stops here."""
        flight = self.flying[name]
        with self.guarded():
            judged = self.driver.heard(flight.record, measurement)
            flight.record = replace(flight.record, measurement=judged)
            if judged.state != "running":
                flight.verdict = judged
                return True
        return self.broken is not None

    def ended(self, name: str, measurement: Measurement | None) -> None:
        """Take in a trial's end; None where its process ended without a word, or where Tune gave it up."""
        flight = self.flying.pop(name, None)
        if flight is None or self.broken is not None:
            return
        with self.guarded():
            if flight.verdict is not None:
                self._finish(flight.record, flight.verdict)
            elif measurement is None:
                self._lost_for_good(flight)
            elif measurement.fault == "memory":
                self._out_of_memory(flight, measurement)
            else:
                self._landed(flight.record, self.driver.heard(flight.record, measurement))

    def _landed(self, record: Record, measurement: Measurement) -> None:
        costs = measurement.costs
        if measurement.state == "trained" and costs is not None and costs.latency is None:
            self.waiting.setdefault(record.architecture, []).append((record, measurement))
            self.probes.start(record.architecture)
        else:
            self._finish(record, measurement)

    def _finish(self, record: Record, measurement: Measurement) -> None:
        if measurement.fault != "storage":
            self.mirror.bring(trial_folder(self.driver.plan.folder, record.number))
        self.driver.finish(record, measurement)

    def lost(self, trial: Any) -> None:
        """Write down an attempt whose process was lost; Tune starts the trial anew, from its checkpoint."""
        flight = self.flying.get(trial.trial_id)
        if flight is None:
            return
        flight.losses += 1
        with self.guarded():
            attempt = f"{how_lost(trial)}; went on from its last checkpoint {now()}"
            flight.record, flight.began = self.driver.lost(flight.record, attempt), None

    def _lost_for_good(self, flight: Flight) -> None:
        reason = how_lost(flight.trial) if flight.trial is not None else "its process could not be started"
        flight.losses += 1
        if flight.losses > MAX_LOSSES:
            said = f"its process was lost {flight.losses} times; at last: {reason}"
            self.driver.finish(flight.record, Measurement("failed", said, fault="lost"))
        else:
            flight.record, flight.began = self.driver.lost(flight.record, f"{reason}; tried again {now()}"), None
            self.again.append(flight)

    def _out_of_memory(self, flight: Flight, measurement: Measurement) -> None:
        held = measurement.measured_memory
        most = max(held.allocated_bytes, held.reserved_bytes or 0) if held else 0
        had = f"{measurement.reason} ({show_bytes(most)} held)" if most else measurement.reason
        if flight.alone:
            over = replace(measurement, state="over budget", fault="", reason=f"alone on its device, {had}")
            costs = flight.record.measurement.costs
            self._finish(flight.record, self.driver.priced(flight.record, replace(over, costs=costs)))
        else:
            record = self.driver.lost(flight.record, f"{had}; tried again alone {now()}")
            self.again.append(Flight(record, alone=True, losses=flight.losses))

    def take_latencies(self) -> None:
        """Keep what the probes found, and finish what waited for it."""
        for architecture, found in self.probes.collect():
            self.timed_at = time.monotonic()
            waited = self.waiting.pop(architecture, [])
            if isinstance(found, Latency):
                costs = self.driver.pricer(architecture)
                if costs is not None:
                    self.driver.pricer.keep(architecture, replace(costs, latency=found))
                for record, measurement in waited:
                    self._finish(record, self.driver.judged(record, self.driver.priced(record, measurement)))
            else:
                for record, _ in waited:
                    said = f"its latency could not be measured: {str(found).strip().splitlines()[-1]}"
                    self._finish(record, Measurement("failed", said, fault="error"))
        if self.waiting and time.monotonic() - self.timed_at > STARVED_S:
            self.pausing = True
        if not self.probes.under_way:
            self.timed_at = time.monotonic()

    def end_overdue(self) -> None:
        """End the processes of trials that hang: their deadline has passed, and they don't say so themselves."""
        deadline = self.driver.plan.training.deadline
        if not deadline:
            return
        for flight in self.flying.values():
            late = deadline + max(GRACE_S, GRACE * deadline)
            if flight.began is None or flight.verdict or time.monotonic() - flight.began < late:
                continue
            said = f"the deadline of {show_seconds(deadline)} passed and nothing was heard; its process was ended"
            flight.verdict = Measurement("failed", said, fault="deadline")
            flight.trial.max_failures = 0  # Tune is not to start it anew
            with suppress(ValueError):  # its process may be gone by now
                ray.kill(flight.trial.temporary_state.ray_actor)


def how_lost(trial: Any) -> str:
    """Say in a line how a trial's process was lost."""
    said = " ".join(Path(trial.error_file).read_text().split()) if trial.error_file else "nothing is known of it"
    found = re.search(r"The actor (?:is dead|died) because (.*?)(?: Worker exit detail: (.*?))?(?: There are|$)", said)
    place = re.search(r"pid: (\d+).*? ip: (\S+)", said)
    where = f"process {place[1]} on {place[2]} was lost: " if place else "its process was lost: "
    return where + (found[1] if found else said)[:300].strip()
