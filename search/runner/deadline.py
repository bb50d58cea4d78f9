"""The time that a training may take."""

from __future__ import annotations

from dataclasses import dataclass

from search.config.units import show_seconds
from search.costs.device_lock import working_clock


@dataclass(frozen=True)
class Deadline:
    """Seconds of `working_clock` from `started` on, which leaves out waiting for the device; None is no limit."""

    limit_s: float | None
    started: float

    def check(self, where: str) -> None:
        """Raise TimeoutError, which names where the training is, if the deadline has passed."""
        if self.limit_s is not None and working_clock() - self.started > self.limit_s:
            raise TimeoutError(f"the deadline of {show_seconds(self.limit_s)} passed in {where}")
