"""`voxnas status`: drivers and machines, running trials, failures with reasons, and the time left."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Group
from rich.text import Text

from search.analysis.snapshot import Snapshot
from search.analysis.snapshot_reader import trial_of
from search.analysis.trial import Trial
from search.config.units import counted, show_remaining, show_seconds
from search.storage import read_study_attributes
from search.storage.heartbeat import DRIVER, activities_of, is_present, present_drivers
from search.trials.activity import Activity, study_left_s
from search.trials.records import COUNTED, Record

StudyState = Literal["running", "done", "stopped"]


@dataclass(frozen=True)
class Running:
    """A running trial: its complete epochs and their Dice, and its driver, which has ended if `lost`.

    `activity` is from its driver's last heartbeat and `seen_s` seconds old; None before the first report.
    """

    trial: int
    epoch: int
    epochs: int
    dice: float | None
    driver: str
    lost: bool
    network: str
    activity: Activity | None
    seen_s: float | None

    @property
    def doing(self) -> str:
        """Its activity, and the age of this report."""
        if self.activity is None:
            return f"epoch {self.epoch}/{self.epochs}"
        return f"{self.activity}; reported {show_seconds(max(1.0, self.seen_s or 0.0))} ago"


@dataclass(frozen=True)
class Status:
    """The status of a study; `counts` and `failures` are of the search's trials, `repeats` of which train a network
    again, `confirmations` of other trainings, `references` of reference networks outside the space.

    `drivers` are the heartbeats of those present. `ended` is the reason why the last run ended, `command` the one that
    started the last driver, if it is known.
    """

    name: str
    state: StudyState
    planned: int
    counts: dict[str, int]
    confirmations: dict[str, int]
    references: dict[str, int]
    repeats: int
    running: tuple[Running, ...]
    failures: dict[str, int]
    attempts: dict[str, int]
    drivers: tuple[dict[str, Any], ...]
    left_s: float | None
    ended: str
    command: str

    @property
    def done(self) -> int:
        """The number of trials that count."""
        return sum(self.counts.get(state, 0) for state in COUNTED)


def status_of(snapshot: Snapshot) -> Status:
    """Return the status of a study from its snapshot and the drivers that are present now."""
    study = snapshot.study
    trials = (*snapshot.trials, *(trial_of(each, {}) for each in snapshot.repeats))
    beats = _beats(snapshot)
    present = {driver: beat for driver, beat in beats.items() if is_present(beat)}
    epochs = study.training.epochs * study.search.trainings
    own = [_running(each, epochs, present) for each in trials if each.state == "running"]
    confirmations = [each for each in snapshot.confirmations if not each.repeat]
    others = _open_others(confirmations, study.training.epochs, present)
    outside = [each for each in snapshot.networks if each.is_outside]
    references = _open_others(outside, study.training.epochs, present)
    counts = Counter[str](each.state for each in trials if each.state != "running")
    done = sum(counts[state] for state in COUNTED)
    return Status(
        study.name,
        _state(snapshot, done, is_driven=bool(present)),
        max(snapshot.planned, done),
        {**counts, **_open_counts(own)},
        {**_ended_counts(confirmations), **_open_counts(others)},
        {**_ended_counts(outside), **_open_counts(references)},
        len(snapshot.repeats),
        (*own, *others, *references),
        dict(Counter(trial.reason for trial in trials if trial.state == "failed")),
        dict(Counter(attempt.partition("; ")[0] for trial in trials for attempt in trial.attempts)),
        tuple(present.values()),
        _left_s(trials, snapshot.planned, own),
        snapshot.ended,
        _last_command(beats),
    )


def interrupted_trials(snapshot: Snapshot) -> frozenset[int]:
    """Return the numbers of the open trainings whose driver has ended; reads the database if there are open ones."""
    trainings: tuple[Trial | Record, ...] = (*snapshot.trials, *snapshot.confirmations, *snapshot.networks)
    opened = [each for each in trainings if each.state == "running"]
    if not opened:
        return frozenset()
    present = present_drivers(snapshot.url, snapshot.study.name)
    return frozenset(each.number for each in opened if each.driver not in present)


def shown_state(trial: Trial | Record, interrupted: Collection[int]) -> str:
    """Return a trial's state; `interrupted` are the numbers of those that look running, but whose driver has ended."""
    return "interrupted" if trial.number in interrupted else trial.state


def pulse(snapshot: Snapshot) -> tuple[int, str]:
    """Return the number of drivers present and the time of the last heartbeat; it changes with what trials report."""
    beats = _beats(snapshot)
    return sum(map(is_present, beats.values())), max((str(beat["at"]) for beat in beats.values()), default="")


def _beats(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    """Return the last heartbeat of each driver, by its name."""
    beats = read_study_attributes(snapshot.url, snapshot.study.name, DRIVER + "%")
    return {name.removeprefix(DRIVER): beat for name, beat in beats.items()}


def _last_command(beats: Mapping[str, Mapping[str, Any]]) -> str:
    last = max(beats.values(), key=lambda beat: str(beat["at"]), default=None)
    return last.get("command", "") if last else ""


def _state(snapshot: Snapshot, done: int, *, is_driven: bool) -> StudyState:
    if is_driven:
        return "running"
    return "done" if snapshot.ended or done >= snapshot.planned else "stopped"


def _open_counts(running: Sequence[Running]) -> dict[str, int]:
    """Count open trials: running ones, and those whose driver has ended."""
    return dict(Counter("interrupted" if each.lost else "running" for each in running))


def _ended_counts(records: Sequence[Record]) -> dict[str, int]:
    return dict(Counter[str](each.state for each in records if each.state != "running"))


def _open_others(records: Sequence[Record], epochs: int, present: Mapping[str, Any]) -> list[Running]:
    """Return the open trainings among records that are no trials of the search."""
    known: dict[Any, Any] = {}
    return [_running(trial_of(each, known), epochs, present) for each in records if each.state == "running"]


def _running(trial: Trial, epochs: int, present: Mapping[str, Any]) -> Running:
    dice = None if math.isnan(trial.dice_so_far) else trial.dice_so_far
    lost = trial.driver not in present
    activity, seen_s = (None, None) if lost else activities_of(present[trial.driver]).get(trial.number, (None, None))
    return Running(trial.number, len(trial.epochs), epochs, dice, trial.driver, lost, trial.network, activity, seen_s)


def _left_s(trials: Sequence[Trial], planned: int, running: Sequence[Running]) -> float | None:
    """Return how long the remaining trials take; None before a step of the first was timed."""
    took = [trial.spent_s for trial in trials if trial.state in ("trained", "stopped")]
    to_do = planned - sum(trial.state in COUNTED for trial in trials)
    return study_left_s(took, [each.activity for each in running if not each.lost], to_do=to_do)


def status_json(status: Status) -> str:
    """Return the status as JSON, in seconds and counts."""
    return json.dumps(asdict(status), indent=2)


def status_view(status: Status) -> Group:
    """Return the status for the terminal."""
    left = f"; about {show_remaining(status.left_s)} left" if status.left_s and status.state == "running" else ""
    listed = _listed(status.counts) or "none yet"
    if status.repeats:
        listed += f", {repeats_among(status.repeats)}"
    trials = f"{status.done} of {counted(status.planned, 'trial')} ({listed})"
    parts: list[Any] = [Text(f"{status.name}: {status.state}, {trials}{left}")]
    if status.confirmations:
        parts.append(Text(f"confirmations: {_listed(status.confirmations)}"))
    if status.references:
        parts.append(Text(f"reference networks: {_listed(status.references)}"))
    parts += [Text(_driver_line(each)) for each in status.drivers]
    if status.state == "stopped":
        command = status.command or f"voxnas run with the file of {status.name}"
        parts.append(Text("no driver is running; to resume, run:"))
        parts.append(Text(f"  {command}", no_wrap=True, overflow="ignore"))
    if status.state == "done" and status.ended:
        parts.append(Text(f"the last run ended: {status.ended}"))
    for each in status.running:
        parts.append(Text(f"trial {each.trial}  {each.network}", no_wrap=True, overflow="ellipsis"))
        parts.append(Text(f"  {_running_line(each, several=len(status.drivers) > 1)}"))
    for title, reasons in (("failed", status.failures), ("lost attempts", status.attempts)):
        if reasons:
            parts.append(Text(f"{title}:"))
            parts += [Text(f"  {count} x {reason}") for reason, count in reasons.items()]
    return Group(*parts)


def repeats_among(count: int) -> str:
    """Return how many of the trials train a network again, with another seed."""
    return "1 of them a repeat" if count == 1 else f"{count} of them repeats"


def _running_line(running: Running, *, several: bool) -> str:
    """Return what a trial is doing, its Dice, and its driver if there are several, or if that has ended."""
    parts = [running.doing]
    if running.dice is not None:
        parts.append(f"Dice so far {running.dice:.4f}")
    if running.lost:
        parts.append(f"interrupted: {running.driver} has ended")
    elif several:
        parts.append(running.driver)
    return "; ".join(parts)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _driver_line(beat: Mapping[str, Any]) -> str:
    who = f"driver: process {beat['pid']} on {beat['host']}"
    if "machines" not in beat:
        return who
    used = " and ".join(
        f"{beat['used_' + name]:g} of {beat[name]:g} {title}"
        for name, title in (("cpus", "CPUs"), ("gpus", "GPUs"))
        if beat[name]
    )
    queue = f"{beat['queued']} queued, {beat['probes']} latencies under way, {beat['waiting']} waiting for theirs"
    return (
        f"{who}: {counted(beat['running'], 'trial')} on {counted(beat['machines'], 'machine')}, {used} in use; {queue}"
    )
