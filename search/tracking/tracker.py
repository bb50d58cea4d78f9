"""What the driver hands to a tracker, as plain values, and what it expects of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from search.trials.records import State

Scalar = str | int | float | bool


@dataclass(frozen=True)
class TrackedStudy:
    """A study as a tracker's experiment or project; `study_id` distinguishes studies with the same name."""

    name: str
    study_id: str
    folder: Path
    runs: Path


@dataclass(frozen=True)
class Run:
    """A trial as a tracker's run; `key` is unique among all studies. Costs carry their units in their names."""

    number: int
    key: str
    name: str
    started_s: float
    parameters: Mapping[str, Scalar]
    tags: Mapping[str, str]
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Point:
    """One epoch of a run's curves; `place` counts the points of the run, over all its trainings."""

    place: int
    epoch: int
    at_s: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Ending:
    """How a run ended: its state with the reason, and its final values and costs."""

    state: State
    reason: str
    ended_s: float
    values: Mapping[str, float]


class Tracker(Protocol):
    """Writes runs. Any error that it raises ends its use for this driver, never the study."""

    def begin(self, run: Run, *, known: str) -> str:
        """Open a run; return its identifier. A `known` identifier names the run of an earlier driver to continue."""

    def log(self, run: Run, points: Sequence[Point]) -> None:
        """Write the next points of an open run, so that they survive the end of this process."""

    def end(self, run: Run, ending: Ending) -> None:
        """Write how an open run ended, and close it."""

    def interrupt(self, run: Run) -> None:
        """Close an open run whose trial will resume."""
