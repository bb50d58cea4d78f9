"""The current activity of a running trial: a plain value that its worker reports and all views show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search.config.units import show_remaining

Stage = Literal["latency", "memory", "training", "validation"]


@dataclass(frozen=True)
class Activity:
    """The current activity of a trial: step `done` of `total` of an epoch, or case `done` of `total` of a validation.

    `epoch` counts from 1; `loss` is the mean over the epoch's steps so far. `spent_s` and `left_s` are the trial's own
    time; `left_s` is None until a step has been timed.
    """

    stage: Stage
    epoch: int = 0
    epochs: int = 0
    done: int = 0
    total: int = 0
    per_second: float | None = None
    loss: float | None = None
    spent_s: float = 0.0
    left_s: float | None = None

    def __str__(self) -> str:
        if self.stage in ("latency", "memory"):
            return f"measuring {self.stage}"
        unit = "step" if self.stage == "training" else "case"
        doing = "step" if self.stage == "training" else "validating case"
        parts = [f"epoch {self.epoch}/{self.epochs}", f"{doing} {self.done}/{self.total}"]
        if self.per_second:
            parts.append(_rate(self.per_second, unit))
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.left_s is not None:
            parts.append(f"about {show_remaining(self.left_s)} left")
        return ", ".join(parts)


def _rate(per_second: float, unit: str) -> str:
    return f"{per_second:.1f} {unit}s/s" if per_second >= 1 else f"{1 / per_second:.1f} s/{unit}"


def study_left_s(took_s: Sequence[float], running: Sequence[Activity | None], *, to_do: int) -> float | None:
    """Return the seconds left for `to_do` trials, including the running ones; None if there is no estimate yet.

    A trial is assumed to take the mean time of those that ended, or, before the first has ended, the mean of the
    running trials' own estimates; the number of trials at a time is assumed to stay the same.
    """
    known = [each for each in running if each is not None and each.left_s is not None]
    estimates = took_s or [each.spent_s + (each.left_s or 0.0) for each in known]
    if not estimates or to_do <= 0:
        return None
    mean_s = sum(estimates) / len(estimates)
    left = [_trial_left_s(each, mean_s) for each in running]
    waiting_s = max(0, to_do - len(running)) * mean_s
    return max([(sum(left) + waiting_s) / max(1, len(running)), *left])


def _trial_left_s(activity: Activity | None, mean_s: float) -> float:
    if activity is None:
        return mean_s
    return activity.left_s if activity.left_s is not None else max(0.0, mean_s - activity.spent_s)
