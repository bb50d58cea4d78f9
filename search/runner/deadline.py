"""The time limit of a training."""

from __future__ import annotations

from dataclasses import dataclass

from search.config.units import show_seconds
from search.costs.device_lock import working_clock


@dataclass(frozen=True)
class Deadline:
    """A limit in seconds of `working_clock`, which excludes waiting for the device, from `started`; None: no limit."""

    limit_s: float | None
    started: float

    def check(self, where: str) -> None:
        """Raise TimeoutError if the deadline has passed; `where` describes the training's position in the message."""
        if self.limit_s is not None and working_clock() - self.started > self.limit_s:
            raise TimeoutError(f"the deadline of {show_seconds(self.limit_s)} passed in {where}")
