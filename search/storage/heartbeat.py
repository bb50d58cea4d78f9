"""A driver's heartbeat in the study's database: which drivers are alive, their state, and what their trials do."""

from __future__ import annotations

import math
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config.errors import UserError
from search.storage.database import retry_outages, shared_by_drivers
from search.storage.study_attributes import read_study_attributes
from search.trials.activity import Activity

if TYPE_CHECKING:
    import optuna

DRIVER = "voxnas:driver:"
ACTIVITIES = "activities"  # of a driver's trials, by number
BEAT_S = 10.0
LEASE_S = 60.0  # a driver on another machine counts as ended after this time without a heartbeat


def command_line() -> str:
    """Return the command that started this process, if that was `voxnas`; else an empty string."""
    program = Path(sys.argv[0])
    is_voxnas = program.stem == "voxnas" or program.parts[-2:] == ("cli", "__main__.py")
    return shlex.join(["voxnas", *sys.argv[1:]]) if is_voxnas else ""


def driver_name() -> str:
    """Return this process's name as a driver."""
    return f"process {os.getpid()} on {socket.gethostname()}"


@dataclass
class Heartbeat:
    """Writes the driver `me`, its `state` and its trials' `activities` every ten seconds; reads other drivers'."""

    study: optuna.Study
    url: str
    me: str
    state: dict[str, Any] = field(default_factory=dict)
    activities: dict[str, dict[str, Any]] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)
    quiet_since: float = field(default_factory=time.monotonic)
    heard_since: float = -math.inf

    def __enter__(self) -> Heartbeat:
        self._beat_once()
        self.thread = threading.Thread(target=self._keep_beating, daemon=True, name="heartbeat")
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()
        try:
            self._beat_once(ended=True)
        except Exception:  # the cause of the end may prevent this write; the missing heartbeat shows the end too
            return

    def show(self, **state: Any) -> None:
        """Set the state that the next heartbeat writes."""
        self.state = state

    def show_activity(self, trial: int, activity: Activity) -> None:
        """Set a trial's activity for the next heartbeat."""
        self.activities[str(trial)] = {**asdict(activity), "at": _now()}

    def drop_activity(self, trial: int) -> None:
        """Remove the activity of a trial that has ended."""
        self.activities.pop(str(trial), None)

    def _keep_beating(self) -> None:
        while not self.stopped.wait(BEAT_S):
            try:
                retry_outages(self._beat_once, url=self.url)
            except UserError:
                return
            except Exception:  # a full or locked database: the run reports it, and a later beat may be written
                continue

    def _beat_once(self, *, ended: bool = False) -> None:
        beat = {"host": socket.gethostname(), "pid": os.getpid(), "at": _now(), "ended": ended}
        beat["command"] = command_line()
        activities = {} if ended else dict(self.activities)  # a copy: the driver changes it meanwhile
        self.study.set_user_attr(DRIVER + self.me, {**beat, **self.state, ACTIVITIES: activities})
        if time.monotonic() - self.quiet_since > LEASE_S:
            self.heard_since = time.monotonic()  # after an outage every driver looks ended
        self.quiet_since = time.monotonic()

    def is_alive(self, driver: str) -> bool:
        """Return whether another driver still works on the study; one of this name ended before this one started."""
        if not shared_by_drivers(self.url) or driver in ("", self.me):
            return False
        beat = retry_outages(lambda: self.study.user_attrs.get(DRIVER + driver), url=self.url)
        return is_present(beat) or time.monotonic() - self.heard_since < LEASE_S


def is_present(beat: Mapping[str, Any] | None) -> bool:
    """Return whether a driver is alive by its last heartbeat."""
    if beat is None or beat["ended"]:
        return False
    if beat["host"] == socket.gethostname() and not _is_running(beat["pid"]):
        return False
    return seconds_since(beat["at"]) < LEASE_S


def present_drivers(url: str, study: str) -> set[str]:
    """Return the names of a study's drivers that are alive by their last heartbeats."""
    beats = read_study_attributes(url, study, DRIVER + "%")
    return {name.removeprefix(DRIVER) for name, beat in beats.items() if is_present(beat)}


def activities_of(beat: Mapping[str, Any]) -> dict[int, tuple[Activity, float]]:
    """Return the activities of a driver's trials at its last heartbeat, and the age of each report in seconds."""
    found = {}
    for number, values in beat.get(ACTIVITIES, {}).items():
        known = {key: value for key, value in values.items() if key != "at"}
        found[int(number)] = (Activity(**known), seconds_since(values["at"]))
    return found


def seconds_since(moment: str) -> float:
    """Return the seconds since a moment of a heartbeat."""
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
