"""A driver's sign of life in the study's database: who works on it, with what, and whether they still do."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from search.config.errors import UserError
from search.storage.database import patiently, shared_by_drivers

if TYPE_CHECKING:
    import optuna

DRIVER = "voxnas:driver:"
BEAT_S = 10.0
LEASE_S = 60.0  # a driver of another machine that was silent for longer is gone


def driver_name() -> str:
    """Name this process as a driver."""
    return f"process {os.getpid()} on {socket.gethostname()}"


@dataclass
class Heartbeat:
    """Writes every ten seconds that the driver `me` works on the study, and its `state`; reads those of others."""

    study: optuna.Study
    url: str
    me: str
    state: dict[str, Any] = field(default_factory=dict)
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
        except Exception:  # whatever ended the run may keep this from being said; silence says it too
            return

    def show(self, **state: Any) -> None:
        """Say with the next beat what state this driver is in."""
        self.state = state

    def _keep_beating(self) -> None:
        while not self.stopped.wait(BEAT_S):
            try:
                patiently(self._beat_once, url=self.url)
            except UserError:
                return

    def _beat_once(self, *, ended: bool = False) -> None:
        beat = {"host": socket.gethostname(), "pid": os.getpid(), "at": datetime.now(UTC).isoformat(), "ended": ended}
        self.study.set_user_attr(DRIVER + self.me, {**beat, **self.state})
        if time.monotonic() - self.quiet_since > LEASE_S:
            self.heard_since = time.monotonic()  # after an outage every driver looks gone
        self.quiet_since = time.monotonic()

    def is_alive(self, driver: str) -> bool:
        """Tell whether another driver still works on the study; one of this name is this one's forerunner."""
        if not shared_by_drivers(self.url) or driver in ("", self.me):
            return False
        beat = patiently(lambda: self.study.user_attrs.get(DRIVER + driver), url=self.url)
        return is_present(beat) or time.monotonic() - self.heard_since < LEASE_S


def is_present(beat: Mapping[str, Any] | None) -> bool:
    """Tell from a driver's last sign of life whether it is still there."""
    if beat is None or beat["ended"]:
        return False
    if beat["host"] == socket.gethostname() and not _is_running(beat["pid"]):
        return False
    return (datetime.now(UTC) - datetime.fromisoformat(beat["at"])).total_seconds() < LEASE_S


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
